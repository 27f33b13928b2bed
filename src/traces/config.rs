//! What is wanted of sampled requests, and where it goes.

use crate::engine::samples::Wanted;
use crate::units::{Expected, Secret};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `sample` of `tracing` where nothing is said, in millionths.
pub const TRACED: u32 = 1_000;
/// `sample` of `access_log` where nothing is said, in millionths.
pub const LOGGED: u32 = 10_000;
/// The port of OTLP over HTTP.
pub const PORT: u16 = 4318;
/// The path of traces.
pub const PATH: &str = "/v1/traces";

/// Spans for a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// Where the collector is.
    pub endpoint: Endpoint,
    /// Sent with each batch.
    pub headers: Vec<(String, Secret)>,
    /// `service.name`.
    pub service_name: String,
    /// What else is told of this process.
    pub resource: Vec<(String, String)>,
    /// Which requests.
    pub wanted: Wanted,
}

/// Lines about accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where they are written.
    pub to: To,
    /// Which requests.
    pub wanted: Wanted,
}

/// Where lines are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum To {
    /// Standard output, which hotring uses for nothing else.
    #[default]
    Stdout,
    /// Standard error, between the lines of the log.
    Stderr,
    /// The end of a file.
    File(PathBuf),
}

impl FromStr for To {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            path if path.starts_with('/') && !path.ends_with('/') => Ok(Self::File(path.into())),
            _ => Err(Expected::new("`stdout`, `stderr` or the absolute path of a file")),
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A place that is spoken to over HTTP without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The path, with its slash.
    pub path: String,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { host: "localhost".into(), port: PORT, path: PATH.into() }
    }
}

impl Endpoint {
    /// The same place below this one's path, as `OTEL_EXPORTER_OTLP_ENDPOINT` means it.
    #[must_use]
    pub fn below(mut self) -> Self {
        self.path = format!("{}{PATH}", self.path.trim_end_matches('/'));
        self
    }

    /// Host and port as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let no = || Expected::new("a URL such as `http://127.0.0.1:4318/v1/traces`, without TLS");
        let rest = text.strip_prefix("http://").ok_or_else(no)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(no)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| no())?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(no)?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        let clean = |b: u8| b.is_ascii_graphic() && b != b'#';
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| no()))?;
        if host.is_empty() || port == 0 || !host.bytes().all(named) || !path.bytes().all(clean) {
            return Err(no());
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { host: host.into(), port, path: path.into() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

/// A list as `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_EXPORTER_OTLP_HEADERS` have it: `key=value,key=value`, where values may be
/// percent-encoded. What is no pair is left out.
#[must_use]
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), decoded(value.trim())))
    };
    text.split(',').filter_map(pair).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = |b: &u8| (*b as char).to_digit(16).map(|digit| digit as u8);
        if let ([a, b, end @ ..], b'%') = (after, first)
            && let (Some(a), Some(b)) = (hex(a), hex(b))
        {
            bytes.push(a << 4 | b);
            rest = end;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_without_tls() {
        for (text, shown) in [
            ("http://localhost:4318/v1/traces", "http://localhost:4318/v1/traces"),
            ("http://collector", "http://collector:4318/"),
            ("http://10.0.0.1:80/a/b?c=d", "http://10.0.0.1:80/a/b?c=d"),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
            ("http://[fe80::1]/x", "http://[fe80::1]:4318/x"),
        ] {
            let read: Endpoint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), shown);
            assert_eq!(shown.parse::<Endpoint>().as_ref(), Ok(&read));
        }
        for text in [
            "",
            "localhost:4318",
            "https://localhost:4318",
            "http://",
            "http://:1/",
            "http://a:0/",
            "http://a:x/",
            "http://a b/",
            "http://user@a/",
            "http://[::1/",
            "http://[a]:1/",
            "http://a/\r\nX: y",
            "http://a:70000",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        assert_eq!(Endpoint::default().to_string(), "http://localhost:4318/v1/traces");
        let below = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.below().to_string());
        assert_eq!(below("http://a:1").as_deref(), Ok("http://a:1/v1/traces"));
        assert_eq!(below("http://a:1/otlp/").as_deref(), Ok("http://a:1/otlp/v1/traces"));
    }

    #[test]
    fn lists_are_read_as_opentelemetry_writes_them() {
        let read = pairs("a=b, c.d = e%20f%2c ,=x,nothing,g=,h=1=2,i=%zz%4");
        let read: Vec<(&str, &str)> = read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(read, [("a", "b"), ("c.d", "e f,"), ("g", ""), ("h", "1=2"), ("i", "%zz%4")]);
        assert!(pairs("").is_empty());
    }
}
