//! Pools: TLS with apps, servers and sentinels.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(
        Place::Pool,
        "listen_tls",
        "",
        "further addresses, or the only ones, where apps speak TLS (1.2 or 1.3); with which certificates, `tls` says",
    ),
    own(Place::Pool, "tls", "", "the certificates of `listen_tls`, see `cert`"),
    own(
        Place::Pool,
        "server_tls",
        "false",
        "`true` speaks TLS to the servers, replicas and nodes, and believes whom the system believes; a map says whom else, see \
         `ca`. Unix sockets stay plain",
    ),
    own(Place::Pool, "sentinel_tls", "", "the same for the sentinels; as `server_tls` where nothing is said"),
    own(Place::Tls, "cert", "required", "file of the certificate, PEM, followed by those that it was issued with"),
    own(Place::Tls, "key", "required", "file of its key, PEM without a passphrase"),
    own(
        Place::Tls,
        "certificates",
        "",
        "further certificates, each shown to clients that ask for one of its names (SNI; `*.` stands for one label); all others are \
         shown `cert`",
    ),
    own(Place::Tls, "client_ca", "", "file of the CAs that issue the certificates of apps, PEM"),
    own(
        Place::Tls,
        "client_auth",
        "",
        "whether apps must show a certificate: `off`, `optional` (one that is shown must be good) or `required`; with a `client_ca` \
         it is `required`, without `off`",
    ),
    own(Place::Tls, "min_version", "1.2", "the oldest version of TLS that is spoken, `1.2` or `1.3`"),
    own(Place::Tls, "handshake_timeout", "10s", "how long the handshake of an app may take"),
    own(
        Place::Certificate,
        "cert",
        "required",
        "file of the certificate, PEM, followed by those that it was issued with",
    ),
    own(Place::Certificate, "key", "required", "file of its key, PEM without a passphrase"),
    own(
        Place::ServerTls,
        "ca",
        "",
        "file of the CAs that issue the servers' certificates, PEM; without it those that the system believes do",
    ),
    own(Place::ServerTls, "cert", "", "file of the certificate that is shown to servers which ask for one, PEM"),
    own(Place::ServerTls, "key", "", "file of its key, PEM without a passphrase"),
    own(
        Place::ServerTls,
        "server_name",
        "",
        "the name that the servers' certificates must have, where it is not the host by which they are reached",
    ),
    own(
        Place::ServerTls,
        "verify",
        "true",
        "`false` believes every server, whoever it is: for a short time, and never where somebody else may be in between",
    ),
];
