//! What a pool shows apps: certificates chosen by the name that they ask for, and whose certificates it wants to see itself.

use super::{Expiry, Print, Reads, Unfit, authorities, certificate, certificates, certified, expiry, provider};
use crate::units::Expected;
use rustls::crypto::ring::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// `handshake_timeout` where nothing is said.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether apps show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked for any.
    #[default]
    Off,
    /// One that is shown must be good.
    Optional,
    /// Who shows none is not let in.
    Required,
}

impl FromStr for ClientAuth {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "off" => Ok(Self::Off),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(Expected::new("one of `off` `optional` `required`")),
        }
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        })
    }
}

static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

/// The least version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.2
    #[default]
    Tls12,
    /// 1.3
    Tls13,
}

impl MinVersion {
    pub(super) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => BOTH,
            Self::Tls13 => NEWEST,
        }
    }
}

impl FromStr for MinVersion {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(Expected::new("`1.2` or `1.3`")),
        }
    }
}

impl fmt::Display for MinVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, followed by those that it was issued with.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What is said of the apps' side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Shown to who asks for no name, or for one that no certificate is for.
    pub default: Pair,
    /// Shown to who asks for a name of theirs.
    pub others: Vec<Pair>,
    /// The CAs of apps' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether apps show certificates.
    pub client_auth: ClientAuth,
    /// The least version.
    pub min_version: MinVersion,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

/// The same with what its files have in them.
#[derive(Clone)]
pub struct Server(Arc<Made>);

struct Made {
    settings: ServerSettings,
    config: Arc<ServerConfig>,
    expiries: Vec<Expiry>,
    print: u64,
}

impl Server {
    /// Reads the files. `named` is what the configuration calls one: the key under which it stands.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn new(settings: ServerSettings, read: Reads<'_>) -> Result<Self, Unfit> {
        let (provider, mut print, mut expiries) = (provider(), Print::default(), Vec::new());
        let mut read = |path: &Path, key: &str| {
            let bytes = read(path).map_err(|text| Unfit::new(key, text))?;
            print.add(&bytes);
            Ok(bytes)
        };
        let (mut named, mut default) = (Vec::new(), None);
        for (number, pair) in [&settings.default].into_iter().chain(&settings.others).enumerate() {
            let place = number.checked_sub(1).map_or(String::new(), |at| format!("certificates[{at}]."));
            let (cert_name, key_name) = (format!("{place}cert"), format!("{place}key"));
            let chain = certificates(&read(&pair.cert, &cert_name)?, &cert_name)?;
            expiries.extend(expiry(&pair.cert, &chain));
            let names = chain.first().map(|own| certificate::names(own)).unwrap_or_default();
            let key = read(&pair.key, &key_name)?;
            let own = Arc::new(certified(chain, &key, (&cert_name, &key_name), &provider)?);
            named.extend(names.into_iter().map(|name| (name, Arc::clone(&own))));
            default.get_or_insert(own);
        }
        let Some(default) = default else { return Err(Unfit::new("cert", "missing")) };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(settings.min_version.versions())
            .map_err(|error| Unfit::new("min_version", error.to_string()))?;
        let verifier = match (&settings.client_ca, settings.client_auth) {
            (Some(ca), ClientAuth::Optional | ClientAuth::Required) => {
                let (store, found) = authorities(&read(ca, "client_ca")?, "client_ca")?;
                expiries.extend(expiry(ca, &found));
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
                let verifier = match settings.client_auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    _ => verifier,
                };
                Some(verifier.build().map_err(|error| Unfit::new("client_ca", error.to_string()))?)
            }
            _ => None,
        };
        let asks = verifier.is_some();
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName { named, default }));
        if asks {
            // Who resumes shows no certificate: one that has expired since would be good for as long as its app comes back in time, each
            // time with a new ticket. So everybody shows it each time, which costs little more.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            // The keys of tickets are this configuration's: other certificates are shown to those who come back, too. One ticket a
            // connection, since a pool of connections is opened at once and not one by one.
            config.ticketer = Ticketer::new().map_err(|error| Unfit::new("cert", error.to_string()))?;
            config.send_tls13_tickets = 1;
        }
        Ok(Self(Arc::new(Made { config: Arc::new(config), expiries, print: print.done(), settings })))
    }

    /// What was said.
    #[must_use]
    pub fn settings(&self) -> &ServerSettings {
        &self.0.settings
    }

    /// When which file expires.
    #[must_use]
    pub fn expiries(&self) -> &[Expiry] {
        &self.0.expiries
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.config)
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.settings, self.0.print) == (&other.0.settings, other.0.print)
    }
}

impl Eq for Server {}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// The certificate of the name that is asked for (SNI, RFC 6066).
#[derive(Debug)]
struct ByName {
    named: Vec<(String, Arc<CertifiedKey>)>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    fn find(&self, asked: &str) -> &Arc<CertifiedKey> {
        let exact = self.named.iter().find(|(name, _)| name.eq_ignore_ascii_case(asked));
        let wild = || {
            let (_, domain) = asked.split_once('.')?;
            self.named
                .iter()
                .find(|(name, _)| name.strip_prefix("*.").is_some_and(|of| of.eq_ignore_ascii_case(domain)))
        };
        exact.or_else(wild).map_or(&self.default, |(_, own)| own)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.default, |asked| self.find(asked))))
    }
}
