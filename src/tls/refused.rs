//! Why TLS with another side did not come about or ended, in a few words and as a label.

use crate::metrics::TlsFailure;
use rustls::{AlertDescription as Alert, CertificateError, Error, InvalidMessage};
use std::fmt;

/// See the module. `its` is the other side's, `our` is hotring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The kind.
    pub why: TlsFailure,
    /// In words, the same for the same cause.
    pub text: &'static str,
}

impl Refused {
    /// The other side went away.
    pub const CLOSED: Self = Self::new(TlsFailure::Closed, "it closed the connection during the TLS handshake");
    /// Time is up.
    pub const SLOW: Self = Self::new(TlsFailure::Timeout, "it did not finish the TLS handshake in time");
    /// There is no such name.
    pub const NO_NAME: Self = Self::new(TlsFailure::WrongName, "its host is no name that a certificate can have");
    /// Something else of ours.
    pub const OWN: Self = Self::new(TlsFailure::Protocol, "TLS cannot be begun");

    /// A message that is not to be kept.
    pub const TOO_LONG: Self =
        Self::new(TlsFailure::Protocol, "it sent a message of the TLS handshake that is too long");

    const fn new(why: TlsFailure, text: &'static str) -> Self {
        Self { why, text }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, refused)
    }
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        use TlsFailure as Why;
        let (why, text) = match error {
            Error::InvalidCertificate(error) => return certificate(error),
            Error::NoCertificatesPresented => (Why::NoCertificate, "it shows no certificate"),
            Error::PeerIncompatible(_) => (Why::NothingInCommon, "no version of TLS or cipher in common"),
            Error::AlertReceived(alert) => return said(*alert),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => (Why::NotTls, "it does not speak TLS"),
            Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
                (Why::NotTls, "it does not begin with a TLS handshake")
            }
            Error::DecryptError => (Why::Protocol, "what it sent cannot be decrypted"),
            _ => (Why::Protocol, "it broke the TLS protocol"),
        };
        Self::new(why, text)
    }
}

fn certificate(error: &CertificateError) -> Refused {
    use CertificateError as Cert;
    use TlsFailure as Why;
    let (why, text) = match error {
        Cert::Expired | Cert::ExpiredContext { .. } => (Why::Expired, "its certificate has expired"),
        Cert::NotValidYet | Cert::NotValidYetContext { .. } => (Why::Expired, "its certificate is not valid yet"),
        Cert::UnknownIssuer => (Why::UnknownIssuer, "its certificate was issued by an unknown CA"),
        Cert::NotValidForName | Cert::NotValidForNameContext { .. } => {
            (Why::WrongName, "its certificate is for another name")
        }
        Cert::BadSignature => (Why::UnknownIssuer, "its certificate is not signed by the CA that it names"),
        Cert::Revoked => (Why::BadCertificate, "its certificate was revoked"),
        Cert::InvalidPurpose | Cert::InvalidPurposeContext { .. } => {
            (Why::BadCertificate, "its certificate is for another purpose")
        }
        Cert::Other(_) => {
            (Why::BadCertificate, "its certificate cannot be used; one that signs itself is a CA's and no server's")
        }
        _ => (Why::BadCertificate, "its certificate cannot be used"),
    };
    Refused::new(why, text)
}

fn said(alert: Alert) -> Refused {
    let text = match alert {
        Alert::CertificateExpired => "it says that our certificate has expired",
        Alert::UnknownCA => "it does not know the CA of our certificate",
        Alert::CertificateRequired => "it wants a certificate from us",
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateRevoked => "it does not like our certificate",
        Alert::ProtocolVersion => "it does not speak our versions of TLS",
        Alert::HandshakeFailure => "it refused the TLS handshake: nothing in common, or it wants a certificate",
        Alert::UnrecognisedName => "it knows no host of the name that it was asked for",
        Alert::AccessDenied => "it denies access",
        _ => "it broke off TLS with an alert",
    };
    Refused::new(TlsFailure::Refused, text)
}
