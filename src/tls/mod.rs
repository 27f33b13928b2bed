//! TLS, without a socket: what was read of certificates and keys, and a session that turns bytes into bytes.
//!
//! [`Server`] is what a pool shows its apps, [`Client`] how it goes to its servers; both are made whole from the bytes of their
//! files or not at all, and never changed: other files make others, which new connections then get. [`Session`] is one
//! connection's TLS; who has its socket is `encrypted`.
//!
//! Promises: whatever the other side sends, nothing here panics; what is held for it is bounded ([`session::HELD`]). Why a
//! handshake fails is told in words that are the same for the same cause ([`Refused`]). Does not look at revocation lists, and does
//! not resume what began with other certificates, nor, where apps show certificates, anything at all.

// What comes from a network must not end a session by a panic; tests may.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::unreachable
    )
)]

mod certificate;
mod client;
mod refused;
mod server;
pub mod session;

pub use client::{Client, ClientSettings};
pub use refused::Refused;
pub use server::{ClientAuth, HANDSHAKE_TIMEOUT, MinVersion, Pair, Server, ServerSettings};
pub use session::Session;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a file.
pub type Reads<'a> = &'a mut dyn FnMut(&Path) -> Result<Vec<u8>, String>;

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The key under which it stands, such as `cert`.
    pub key: String,
    /// What is wrong with it, for people.
    pub text: String,
}

impl Unfit {
    fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

/// A file with certificates, and when the first of them expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// As it was named.
    pub file: PathBuf,
    /// In seconds since 1970.
    pub at: u64,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Tells one content of files from another.
#[derive(Default)]
struct Print(DefaultHasher);

impl Print {
    fn add(&mut self, bytes: &[u8]) {
        bytes.hash(&mut self.0);
    }

    fn done(&self) -> u64 {
        self.0.finish()
    }
}

/// The certificates of a file, at least one.
fn certificates(bytes: &[u8], key: &str) -> Result<Vec<CertificateDer<'static>>, Unfit> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Unfit::new(key, "there is no certificate in it, expected PEM: `-----BEGIN CERTIFICATE-----`")),
        Err(error) => Err(Unfit::new(key, format!("it is not PEM as it should be: {error}"))),
    }
}

/// When the first of these certificates expires.
fn expiry(file: &Path, certificates: &[CertificateDer<'_>]) -> Option<Expiry> {
    let at = certificates.iter().filter_map(|one| certificate::expires(one)).min()?;
    Some(Expiry { file: file.to_owned(), at })
}

/// A certificate with its chain and its key, which fit each other.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    names: (&str, &str),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Unfit> {
    let (cert_name, key_name) = names;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        // The error does not show what was read.
        Unfit::new(key_name, format!("there is no private key in it, expected PEM without a passphrase: {error}"))
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Unfit::new(
            key_name,
            "it is not the key of the certificate; if both were just replaced, the other one may follow",
        ),
        rustls::Error::InvalidCertificate(_) => Unfit::new(cert_name, "its first certificate cannot be read"),
        error => Unfit::new(key_name, format!("it cannot be used: {error}")),
    })
}

/// The CAs of a file.
fn authorities(bytes: &[u8], key: &str) -> Result<(rustls::RootCertStore, Vec<CertificateDer<'static>>), Unfit> {
    let found = certificates(bytes, key)?;
    let mut store = rustls::RootCertStore::empty();
    for one in &found {
        store
            .add(one.clone())
            .map_err(|error| Unfit::new(key, format!("one of its certificates is no CA's: {error}")))?;
    }
    Ok((store, found))
}
