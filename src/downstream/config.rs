//! What a pool's app side is told: where to listen and how much a session may ask for.
//!
//! Promises: plain values, already checked when they come from a file. Does not promise that an address can be bound.

use crate::acl::Account;
use crate::tls::Server;
use crate::units::{Address, Millis, Secret, Size};
use std::fmt;
use std::time::Duration;

/// `backlog` where nothing is said, as twemproxy has it.
pub const BACKLOG: u32 = 512;
/// `client_tcpkeepalive` where nothing is said; Redis' own `tcp-keepalive`.
pub const CLIENT_TCPKEEPALIVE: Duration = Duration::from_secs(300);
/// `max_pipeline` where nothing is said.
pub const MAX_PIPELINE: u32 = 1024;
/// `max_output` where nothing is said, in bytes: a thousand ordinary replies of 64 KiB, far below a sidecar's memory limit.
pub const MAX_OUTPUT: u64 = 64 << 20;
/// `max_request` where nothing is said, in bytes; Redis' own `proto-max-bulk-len`.
pub const MAX_REQUEST: u64 = 512 << 20;

/// `max_output_pubsub` where nothing is said, Redis' own `client-output-buffer-limit pubsub`.
pub const MAX_OUTPUT_PUBSUB: Unread = Unread { bytes: 8 << 20, span: Duration::from_secs(60) };
/// `request_timeout` where nothing is said: longer than any network makes a packet wait, and short against an attack.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// `auth_timeout` where nothing is said: a client sends its password as the first thing.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(10);

/// So many bytes of unread replies, for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Bytes.
    pub bytes: u64,
    /// How long a session may have more than that.
    pub span: Duration,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Size::from(self.bytes), Millis::from(self.span))
    }
}

/// `max_auth_failures` where nothing is said: more than anybody mistypes, too few to guess.
pub const MAX_AUTH_FAILURES: u32 = 16;

/// How those are served who come by a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As the pool says.
    #[default]
    Usual,
    /// Never from elsewhere than a key's server.
    Strict,
    /// As the pool says, over TLS.
    Encrypted,
}

/// The app side of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where apps connect to; at least one, or one of `encrypted`.
    pub listen: Vec<Address>,
    /// Where sessions connect to that are never answered from elsewhere than a key's server.
    pub strict: Vec<Address>,
    /// Where sessions connect to that speak TLS; TCP only.
    pub encrypted: Vec<Address>,
    /// What they are shown there; there where `encrypted` is not empty.
    pub tls: Option<Server>,
    /// Connections the kernel may hold ready before they are accepted.
    pub backlog: u32,
    /// `SO_REUSEPORT` on the listeners, so that two processes may share an address.
    pub reuseport: bool,
    /// Silence after which an app on TCP is probed; `None` never does.
    pub client_tcpkeepalive: Option<Duration>,
    /// Sessions the pool accepts at a time; 0 is no limit.
    pub client_connections: u32,
    /// Requests a session may have open before no more are read from it.
    pub max_pipeline: u32,
    /// Bytes of replies that may wait for one session: above a quarter of it (1 MiB at the most) no more requests are read,
    /// and a session that has all of it waiting when a further reply comes is closed. One reply alone never closes it.
    pub max_output: u64,
    /// With more unread than this for so long a session is closed; `None`: none is.
    pub max_output_soft: Option<Unread>,
    /// The same for sessions that listen to channels.
    pub max_output_pubsub: Option<Unread>,
    /// How long a session may ask for nothing; `None` is for ever.
    pub client_idle_timeout: Option<Duration>,
    /// How long nothing may come of a request that has begun; `None` is for ever.
    pub request_timeout: Option<Duration>,
    /// How long a session may take to send a password, where one is demanded; `None` is for ever.
    pub auth_timeout: Option<Duration>,
    /// After so many wrong passwords a session is closed; `None`: it never is.
    pub max_auth_failures: Option<u32>,
    /// Bytes one request may have.
    pub max_request: u64,
    /// What apps must `AUTH` with; `None` asks for nothing.
    pub password: Option<Secret>,
    /// Who apps may be and what they may do, in the order of the file, names unique. Without one named `default` that user
    /// may do everything, with `password` or, if there is none, without.
    pub users: Vec<Account>,
    /// How the keys of its apps begin on the servers, but for those of users with a prefix of their own; empty for as they are.
    pub prefix: String,
    /// Whether commands about one server's own state are forwarded, to the pool's first server.
    pub admin_commands: bool,
}

impl Config {
    /// Everywhere that apps connect to, and how they are served there.
    pub fn listeners(&self) -> impl Iterator<Item = (&Address, Manner)> {
        let all = [(&self.listen, Manner::Usual), (&self.strict, Manner::Strict), (&self.encrypted, Manner::Encrypted)];
        all.into_iter().flat_map(|(list, manner)| list.iter().map(move |address| (address, manner)))
    }
}
