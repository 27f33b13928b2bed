//! How a pool goes to its servers: whom it believes, and what it shows of itself.

use super::{Expiry, Print, Reads, Refused, Unfit, authorities, certificates, certified, expiry, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::server::Pair;

/// What is said of the servers' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// The CAs that issue the servers' certificates; `None` believes those that the system does.
    pub ca: Option<PathBuf>,
    /// What is shown to servers that ask who it is.
    pub own: Option<Pair>,
    /// The name that the servers' certificates have, where it is not the one by which they are reached.
    pub server_name: Option<String>,
    /// Whether certificates are looked at.
    pub verify: bool,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { ca: None, own: None, server_name: None, verify: true }
    }
}

/// The same with what its files have in them.
#[derive(Clone)]
pub struct Client(Arc<Made>);

struct Made {
    settings: ClientSettings,
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    expiries: Vec<Expiry>,
    print: u64,
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(settings: ClientSettings, read: Reads<'_>) -> Result<Self, Unfit> {
        let (provider, mut print, mut expiries) = (provider(), Print::default(), Vec::new());
        let mut read = |path: &Path, key: &str| {
            let bytes = read(path).map_err(|text| Unfit::new(key, text))?;
            print.add(&bytes);
            Ok(bytes)
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| Unfit::new("", error.to_string()))?;
        let builder = match (&settings.ca, settings.verify) {
            (Some(ca), verify) => {
                let (store, found) = authorities(&read(ca, "ca")?, "ca")?;
                expiries.extend(expiry(ca, &found));
                if verify { builder.with_root_certificates(store) } else { anybody(builder, &provider) }
            }
            (None, false) => anybody(builder, &provider),
            (None, true) => builder.with_root_certificates(of_the_system()?),
        };
        let config = match &settings.own {
            None => builder.with_no_client_auth(),
            Some(Pair { cert, key }) => {
                let chain = certificates(&read(cert, "cert")?, "cert")?;
                expiries.extend(expiry(cert, &chain));
                let own = certified(chain, &read(key, "key")?, ("cert", "key"), &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        };
        let name = match &settings.server_name {
            None => None,
            Some(name) => {
                let name = ServerName::try_from(name.clone());
                Some(name.map_err(|_| Unfit::new("server_name", "it is neither a DNS name nor an address"))?)
            }
        };
        Ok(Self(Arc::new(Made { config: Arc::new(config), name, expiries, print: print.done(), settings })))
    }

    /// What was said.
    #[must_use]
    pub fn settings(&self) -> &ClientSettings {
        &self.0.settings
    }

    /// When which file expires.
    #[must_use]
    pub fn expiries(&self) -> &[Expiry] {
        &self.0.expiries
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.config)
    }

    /// What a server's certificate must be for that is reached by this host.
    pub(super) fn name_of(&self, host: &str) -> Result<ServerName<'static>, Refused> {
        match &self.0.name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()).map_err(|_| Refused::NO_NAME),
        }
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.settings, self.0.print) == (&other.0.settings, other.0.print)
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// The CAs that the system believes.
fn of_the_system() -> Result<RootCertStore, Unfit> {
    let mut store = RootCertStore::empty();
    let (good, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if good == 0 {
        return Err(Unfit::new("ca", "missing, and the system has no CA certificates: name a file with yours"));
    }
    Ok(store)
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn anybody(
    builder: Builder,
    provider: &Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(provider))))
}

/// Believes everybody (`verify: false`).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
