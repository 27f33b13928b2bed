//! The units of the configuration: addresses, durations, sizes, secrets.
//!
//! Promises: a value that parsed is in bounds, and its `Display` parses to the same value again. Does not know about
//! files: where a text stood is the reader's business.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What a text should have been, ready to stand behind "expected".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected(Cow<'static, str>);

impl Expected {
    /// Such as "a whole number".
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Expected {}

/// Where something listens. Read from `host:port`, `[::1]:6379`, `/path`, `/path 0666` or `unix:/path`.
///
/// Host names are not resolved here: that waits until a connection is made, and is done anew each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP address.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// 0 lets the system choose, for listeners only.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Absolute, at most 107 bytes, the kernel's limit.
        path: PathBuf,
        /// Permissions of the socket file, at most `0o777`; `None` leaves them to the umask.
        mode: Option<u32>,
    },
}

const ADDRESS: &str = "an address such as `127.0.0.1:6379`, `[::1]:6379` or `/run/redis.sock`";
const MODE: &str = "a socket path with at most an octal mode behind it, such as `/run/hotring.sock 0666`";
const PATH: &str = "an absolute socket path of at most 107 bytes";
const PATH_BYTES: usize = 107;

impl Address {
    /// Whether both name the same place to listen on; the mode of a socket file does not matter.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host: a, port: p }, Self::Tcp { host: b, port: q }) => p == q && a.eq_ignore_ascii_case(b),
            (Self::Unix { path: a, .. }, Self::Unix { path: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl FromStr for Address {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text.strip_prefix("unix:") {
            Some(path) => unix(path),
            None if text.starts_with('/') => unix(text),
            None => tcp(text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path, mode: None } => write!(f, "{}", path.display()),
            Self::Unix { path, mode: Some(mode) } => write!(f, "{} {mode:04o}", path.display()),
        }
    }
}

fn tcp(text: &str) -> Result<Address, Expected> {
    let wrong = || Expected::new(ADDRESS);
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once("]:").ok_or_else(wrong)?;
            // A zone such as `%eth0` may follow the address.
            let bare = host.split_once('%').map_or(host, |(bare, _)| bare);
            bare.parse::<Ipv6Addr>().map_err(|_| wrong())?;
            (host, port)
        }
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':')).ok_or_else(wrong)?,
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ']') {
        return Err(wrong());
    }
    if whole(port).is_some_and(|port| port > u16::MAX.into()) {
        return Err(Expected::new(format!("a port up to 65535: port {port} is above 65535")));
    }
    let port = whole(port).and_then(|port| u16::try_from(port).ok()).ok_or_else(wrong)?;
    Ok(Address::Tcp { host: host.to_owned(), port })
}

fn unix(text: &str) -> Result<Address, Expected> {
    let (path, mode) = match text.rsplit_once(' ') {
        None => (text, None),
        Some((path, mode)) => {
            let octal = !mode.is_empty() && mode.bytes().all(|b| b.is_ascii_digit());
            let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| octal && *mode <= 0o777);
            (path, Some(mode.ok_or_else(|| Expected::new(MODE))?))
        }
    };
    if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Expected::new(MODE));
    }
    if !path.starts_with('/') || path.len() > PATH_BYTES || path.ends_with('/') {
        return Err(Expected::new(PATH));
    }
    Ok(Address::Unix { path: Path::new(path).to_owned(), mode })
}

/// A span of time, read from `250ms`, `5s`, `2m`, `1h`, `120us` or a plain whole number of milliseconds, which is how
/// twemproxy writes it. At most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(Duration);

const DURATION: &str = "a duration such as `250ms` or `5s`";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl From<Millis> for Duration {
    fn from(millis: Millis) -> Self {
        millis.0
    }
}

impl From<Duration> for Millis {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Millis {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let (number, unit) = split_unit(text);
        let micros: u64 = match unit {
            "us" | "µs" => 1,
            "" | "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return Err(Expected::new(DURATION)),
        };
        let micros = whole(number).and_then(|n| n.checked_mul(micros)).ok_or(Expected::new(DURATION))?;
        let span = Duration::from_micros(micros);
        if span > YEAR {
            return Err(Expected::new("a duration of at most a year"));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let (each, unit) = match micros {
            0 => (1_000_000, "s"),
            m if m % 3_600_000_000 == 0 => (3_600_000_000, "h"),
            m if m % 60_000_000 == 0 => (60_000_000, "m"),
            m if m % 1_000_000 == 0 => (1_000_000, "s"),
            m if m % 1_000 == 0 => (1_000, "ms"),
            _ => (1, "us"),
        };
        write!(f, "{}{unit}", micros / each)
    }
}

/// A number of bytes, read as redis.conf reads it: `64kb`, `1mb`, `2gb` count in 1024s, as do `16MiB` and the like; `64k`,
/// `1m`, `2g` count in 1000s; a plain whole number is bytes. Capitals do not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

const SIZE: &str = "a size such as `64kb` or `16mb`";

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for Size {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let (number, unit) = split_unit(text);
        let each = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" => 1_000,
            "kb" | "kib" => 1 << 10,
            "m" => 1_000_000,
            "mb" | "mib" => 1 << 20,
            "g" => 1_000_000_000,
            "gb" | "gib" => 1 << 30,
            _ => return Err(Expected::new(SIZE)),
        };
        whole(number).and_then(|n| n.checked_mul(each)).map(Self).ok_or(Expected::new(SIZE))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{}gb", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}mb", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}kb", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

/// A password. It shows itself to nobody who does not ask for it by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What stands where a secret would.
pub const MASK: &str = "********";

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the wire and for `import` only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the secret, in a time that does not tell how much of it was right.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differs = own.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b));
        differs == 0 && own.len() == given.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// A whole number in plain digits: no sign, no underscore, no blank.
pub fn whole(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromStr<Err = Expected>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|e: Expected| e.to_string())
    }

    #[test]
    fn addresses_are_read_and_written() {
        let cases = [
            ("127.0.0.1:6379", "127.0.0.1:6379"),
            ("cache-1.internal:1", "cache-1.internal:1"),
            ("[::1]:6379", "[::1]:6379"),
            ("[fe80::1%eth0]:65535", "[fe80::1%eth0]:65535"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("/run/a.sock", "/run/a.sock"),
            ("/run/a.sock 0666", "/run/a.sock 0666"),
            ("/run/a.sock 7", "/run/a.sock 0007"),
            ("unix:/run/a.sock", "/run/a.sock"),
        ];
        for (text, shown) in cases {
            let address = read::<Address>(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(read::<Address>(shown).unwrap(), address);
        }
        assert_eq!(
            read::<Address>("[::1]:6379"),
            Ok(Address::Tcp { host: "::1".to_owned(), port: 6379 }),
            "brackets belong to the text, not to the host"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("/{}", "x".repeat(107));
        for text in [
            "",
            ":",
            "6379",
            ":6379",
            "host:",
            "host:65536",
            "host:-1",
            "host:+1",
            "host:1x",
            "::1:6379",
            "[::1]",
            "[::1]6379",
            "[host]:1",
            "[]:1",
            "a b:1",
            "a/b:1",
            "unix:",
            "unix:run",
            "/a 888",
            "/a 1000",
            "/a rw",
            "/a ",
            "/a +7",
            "/a b 0666",
            "/",
            "/run/",
            &long,
        ] {
            assert!(read::<Address>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_place_is_seen_through_case_and_mode() {
        let same = |a: &str, b: &str| read::<Address>(a).unwrap().is_same_place(&read(b).unwrap());
        assert!(same("LocalHost:1", "localhost:1"));
        assert!(same("/a 0666", "unix:/a"));
        assert!(!same("localhost:1", "localhost:2"));
        assert!(!same("/a", "/b"));
        assert!(!same("/a", "a:1"));
    }

    #[test]
    fn durations_are_read_and_written() {
        let micros = |text| read::<Millis>(text).map(|m| Duration::from(m).as_micros());
        assert_eq!(micros("250ms"), Ok(250_000));
        assert_eq!(micros("400"), Ok(400_000), "a plain number is milliseconds");
        assert_eq!(micros("5s"), Ok(5_000_000));
        assert_eq!(micros("2m"), Ok(120_000_000));
        assert_eq!(micros("1h"), Ok(3_600_000_000));
        assert_eq!(micros("120us"), Ok(120));
        assert_eq!(micros("0"), Ok(0));
        for text in ["", "s", "-1", "1.5s", "5 s", "5S", "3 fortnights", "1d", "99999999999999999999", "9999h", "１s"]
        {
            assert!(micros(text).is_err(), "{text}");
        }
        for text in ["120us", "1ms", "1500ms", "30s", "2m", "1h", "0s"] {
            assert_eq!(read::<Millis>(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        let bytes = |text| read::<Size>(text).map(Size::bytes);
        assert_eq!(bytes("64kb"), Ok(65_536));
        assert_eq!(bytes("64k"), Ok(64_000));
        assert_eq!(bytes("1MB"), Ok(1 << 20));
        assert_eq!(bytes("16MiB"), Ok(16 << 20));
        assert_eq!(bytes("2g"), Ok(2_000_000_000));
        assert_eq!(bytes("1024"), Ok(1024));
        for text in ["", "kb", "-1kb", "1.5mb", "1tb", "1 mb", "99999999999gb"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        for text in ["0", "1001", "64kb", "8mb", "2gb"] {
            assert_eq!(read::<Size>(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_secret_keeps_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        assert!(secret.is(b"hunter2"));
        for wrong in [&b""[..], b"hunter", b"hunter22", b"Hunter2"] {
            assert!(!secret.is(wrong));
        }
    }
}
