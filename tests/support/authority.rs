//! A CA of a test's own, made by `openssl`, and clients that believe it.

use super::{Client, FOREVER, Scratch};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

/// A CA and what it has issued, in a directory of its own.
pub(crate) struct Authority {
    pub(crate) dir: Scratch,
}

/// The files of a certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let ca = Self { dir: Scratch::new() };
        let (key, cert) = (ca.dir.file("ca.key"), ca.ca());
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let name = ca.dir.0.file_name().unwrap().to_str().unwrap();
        let name = format!("/CN={name}");
        let subject = ["-subj", &name, "-days", "30", "-keyout", &key, "-out", &cert];
        openssl(&[&["req", "-x509"][..], &ec, &subject].concat());
        ca
    }

    /// The file of its own certificate.
    pub(crate) fn ca(&self) -> String {
        self.dir.file("ca.crt")
    }

    /// A certificate for these hosts, such as `DNS:a.example` or `IP:127.0.0.1`.
    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) -> Issued {
        self.issue_until(name, hosts, None)
    }

    /// One for 127.0.0.1 and localhost.
    pub(crate) fn local(&self, name: &str) -> Issued {
        self.issue(name, &["IP:127.0.0.1", "DNS:localhost"])
    }

    /// One that has expired.
    pub(crate) fn expired(&self, name: &str) -> Issued {
        self.issue_until(name, &["IP:127.0.0.1"], Some("210101000000Z"))
    }

    fn issue_until(&self, name: &str, hosts: &[&str], end: Option<&str>) -> Issued {
        let file = |kind: &str| self.dir.file(&format!("{name}.{kind}"));
        let (key, request, cert) = (file("key"), file("csr"), file("crt"));
        let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let subject = format!("/CN={name}");
        openssl(&[&["req", "-new"][..], &ec, &["-subj", &subject, "-keyout", &key, "-out", &request]].concat());
        let more = self
            .dir
            .write(&format!("{name}.ext"), &format!("basicConstraints=CA:FALSE\nsubjectAltName={}\n", hosts.join(",")));
        let (ca, ca_key) = (self.ca(), self.dir.file("ca.key"));
        match end {
            None => openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                "30",
                "-extfile",
                &more,
                "-out",
                &cert,
            ]),
            Some(end) => {
                let (index, serial) = (self.dir.write("index.txt", ""), self.dir.write("serial", "1000\n"));
                let text = format!(
                    "[ca]\ndefault_ca=own\n[own]\ndatabase={index}\nserial={serial}\nnew_certs_dir={}\ndefault_md=sha256\n\
                     policy=any\n[any]\ncommonName=supplied\n",
                    self.dir.0.display()
                );
                let config = self.dir.write("ca.cnf", &text);
                openssl(&[
                    "ca",
                    "-batch",
                    "-notext",
                    "-config",
                    &config,
                    "-cert",
                    &ca,
                    "-keyfile",
                    &ca_key,
                    "-in",
                    &request,
                    "-startdate",
                    "200101000000Z",
                    "-enddate",
                    end,
                    "-extfile",
                    &more,
                    "-out",
                    &cert,
                ]);
            }
        }
        Issued { cert, key }
    }

    /// A client that believes it and shows no certificate.
    pub(crate) fn client(&self) -> Dialer {
        Dialer::believing(&self.ca(), None, &[&TLS13, &TLS12])
    }

    /// One that shows this.
    pub(crate) fn client_with(&self, own: &Issued) -> Dialer {
        Dialer::believing(&self.ca(), Some(own), &[&TLS13, &TLS12])
    }
}

fn openssl(arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).output();
    let done = done.unwrap_or_else(|error| panic!("openssl cannot be started ({error}): tests/setup installs it"));
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// How clients connect.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<ClientConfig>);

impl Dialer {
    pub(crate) fn believing(ca: &str, own: Option<&Issued>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        Self(Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::pem_file_iter(&own.cert).unwrap().map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&own.key).unwrap()).unwrap()
            }
        }))
    }

    /// Connects, and wants a certificate of 127.0.0.1.
    pub(crate) fn app(&self, address: &str) -> Client {
        self.app_as(address, "127.0.0.1").unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects, and wants a certificate of this host.
    pub(crate) fn app_as(&self, address: &str, host: &str) -> io::Result<Client> {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(FOREVER))?;
        socket.set_write_timeout(Some(FOREVER))?;
        let mut connection = connection;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Client::over(StreamOwned::new(connection, socket)))
    }
}

/// The certificate that the other side has shown.
pub(crate) fn shown(app: &Client) -> CertificateDer<'static> {
    app.tls().peer_certificates().unwrap()[0].clone()
}

/// The certificate in a file.
pub(crate) fn in_file(file: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}
