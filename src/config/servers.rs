//! Entries of `servers`: twemproxy's strings, read from the end as twemproxy reads them, and their labels on the ring.
//!
//! Promises: the label of an entry is the one twemproxy gives it, down to a port written `06379`. Does not look at the
//! list as a whole; that two servers share a label is found in `build`.

use crate::units::{Address, Expected, whole};
use crate::upstream::config::Server;

/// Larger weights say nothing that smaller ones cannot, and `modula` keeps a place for each.
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

const ENTRY: &str = "a server such as `10.0.0.1:6379:1`, `10.0.0.1:6379:1 alpha` or `/run/redis.sock:1 alpha`";
const ADDRESS: &str = "a server's address such as `10.0.0.1:6379` or `/run/redis.sock`";
/// libmemcached left its own port out of the label, and twemproxy still does.
const UNLABELLED_PORT: u16 = 11211;

/// `host:port:weight [name]` or `/path:weight [name]`. In a `proxy.yaml` (`nutcracker` off) the weight may be
/// left out and an IPv6 host needs its brackets, since `::1:6379` would be ambiguous.
pub(super) fn entry(text: &str, nutcracker: bool) -> Result<Server, Expected> {
    let (place, alias) = match text.rsplit_once(' ') {
        Some((place, alias)) => (place, Some(self::alias(alias)?)),
        None => (text, None),
    };
    let (address, weight) = split_weight(place, nutcracker)?;
    if place.contains(char::is_whitespace) || weight.is_some_and(|weight| weight.contains(':')) {
        return Err(Expected::new(ENTRY));
    }
    let weight = weight.map_or(Ok(1), self::weight)?;
    let (address, label) = match address.strip_prefix("unix:").unwrap_or(address) {
        path if path.starts_with('/') => socket(path, ENTRY)?,
        _ => tcp(address, nutcracker, ENTRY)?,
    };
    Ok(server(address, label, weight, alias))
}

/// The `address` of an entry that is a map, with its label.
pub(super) fn address(text: &str) -> Result<(Address, String), Expected> {
    match text.strip_prefix("unix:").unwrap_or(text) {
        path if path.starts_with('/') => socket(path, ADDRESS),
        _ => tcp(text, false, ADDRESS),
    }
}

/// A name for the ring.
pub(super) fn alias(text: &str) -> Result<String, Expected> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Expected::new("a name without blanks"));
    }
    Ok(text.to_owned())
}

/// A share of the keys.
pub(super) fn weight(text: &str) -> Result<u32, Expected> {
    let weight = whole(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=MAX_WEIGHT).contains(n));
    weight.ok_or_else(|| Expected::new(format!("a weight from 1 to {MAX_WEIGHT}")))
}

/// Puts a server together; without an alias its label is the one its address gave.
pub(super) fn server(address: Address, label: String, weight: u32, alias: Option<String>) -> Server {
    let name = alias.clone().unwrap_or(label);
    Server { address, weight, alias, name }
}

/// A server as an entry of a `proxy.yaml` that reads back to the same; the label of a bare IPv6 address becomes its name.
pub(super) fn written(server: &Server) -> String {
    let text = format!("{}:{}", server.address, server.weight);
    // A port written `06379` is in the label only.
    let labelled = format!("{}:{}", server.name, server.weight);
    let same = |text: &String| entry(text, false).is_ok_and(|read| read == *server);
    match [text.clone(), labelled].into_iter().find(same) {
        Some(text) => text,
        None => format!("{text} {}", server.name),
    }
}

fn split_weight(text: &str, nutcracker: bool) -> Result<(&str, Option<&str>), Expected> {
    let wrong = || Expected::new(ENTRY);
    if nutcracker {
        return text.rsplit_once(':').map(|(address, weight)| (address, Some(weight))).ok_or_else(wrong);
    }
    if text.starts_with('/') || text.starts_with("unix:") {
        return Ok(match text.rsplit_once(':') {
            Some((path, weight)) if path != "unix" && whole(weight).is_some() => (path, Some(weight)),
            _ => (text, None),
        });
    }
    let port = match text.strip_prefix('[') {
        Some(host) => text.len() - host.split_once("]:").ok_or_else(wrong)?.1.len(),
        None => text.find(':').ok_or_else(wrong)? + 1,
    };
    Ok(match text[port..].split_once(':') {
        Some((_, weight)) => (&text[..text.len() - weight.len() - 1], Some(weight)),
        None => (text, None),
    })
}

fn tcp(text: &str, nutcracker: bool, what: &'static str) -> Result<(Address, String), Expected> {
    let wrong = || Expected::new(what);
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if whole(port).is_some_and(|port| port > u16::MAX.into()) {
        return Err(Expected::new(format!("a port up to 65535: port {port} is above 65535")));
    }
    let bare_ipv6 = nutcracker && host.contains(':') && !host.starts_with('[');
    let bracketed = if bare_ipv6 { &text.replacen(host, &format!("[{host}]"), 1) } else { text };
    let address: Address = bracketed.parse().map_err(|_| wrong())?;
    let label = match &address {
        Address::Tcp { port: 0, .. } => return Err(Expected::new("a port from 1 to 65535")),
        Address::Tcp { port: UNLABELLED_PORT, .. } => host.to_owned(),
        _ => text.to_owned(),
    };
    Ok((address, label))
}

fn socket(path: &str, what: &'static str) -> Result<(Address, String), Expected> {
    match path.parse::<Address>() {
        Ok(Address::Unix { path: parsed, mode: None }) => {
            // twemproxy counts the colon in front of the weight as if a port of no digits followed.
            Ok((Address::Unix { path: parsed, mode: None }, format!("{path}:")))
        }
        _ => Err(Expected::new(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, nutcracker: bool) -> (String, u32, String) {
        let server = entry(text, nutcracker).unwrap_or_else(|e| panic!("{text}: {e}"));
        (server.address.to_string(), server.weight, server.name)
    }

    fn expect(address: &str, weight: u32, name: &str) -> (String, u32, String) {
        (address.to_owned(), weight, name.to_owned())
    }

    #[test]
    fn labels_are_twemproxys() {
        for nutcracker in [true, false] {
            let read = |text| read(text, nutcracker);
            assert_eq!(read("127.0.0.1:6379:1"), expect("127.0.0.1:6379", 1, "127.0.0.1:6379"));
            assert_eq!(read("127.0.0.1:06379:02"), expect("127.0.0.1:6379", 2, "127.0.0.1:06379"));
            assert_eq!(read("127.0.0.1:6379:3 alpha"), expect("127.0.0.1:6379", 3, "alpha"));
            assert_eq!(read("cache:11211:1"), expect("cache:11211", 1, "cache"));
            assert_eq!(read("cache:11211:1 a"), expect("cache:11211", 1, "a"));
            assert_eq!(read("/tmp/redis:1"), expect("/tmp/redis", 1, "/tmp/redis:"));
            assert_eq!(read("/tmp/redis:1 r"), expect("/tmp/redis", 1, "r"));
            assert_eq!(read("[::1]:6379:1"), expect("[::1]:6379", 1, "[::1]:6379"));
        }
        assert_eq!(read("::1:6379:1", true), expect("[::1]:6379", 1, "::1:6379"));
    }

    #[test]
    fn a_proxy_yaml_may_leave_out_the_weight() {
        assert_eq!(read("127.0.0.1:6379", false), expect("127.0.0.1:6379", 1, "127.0.0.1:6379"));
        assert_eq!(read("127.0.0.1:6379 alpha", false), expect("127.0.0.1:6379", 1, "alpha"));
        assert_eq!(read("[::1]:6379", false), expect("[::1]:6379", 1, "[::1]:6379"));
        assert_eq!(read("/tmp/redis", false), expect("/tmp/redis", 1, "/tmp/redis:"));
        assert_eq!(read("unix:/tmp/redis", false), expect("/tmp/redis", 1, "/tmp/redis:"));
        assert_eq!(read("unix:/tmp/redis:4 r", false), expect("/tmp/redis", 4, "r"));
        for text in ["127.0.0.1:6379", "/tmp/redis", "127.0.0.1:6379 alpha"] {
            assert!(entry(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            ":",
            "::",
            "host",
            "host:",
            "host:1:",
            "host:1:0",
            "host:1:-1",
            "host:1:1000001",
            "host:0:1",
            "host:65536:1",
            ":1:1",
            "host:1:1 a b",
            "host:1:1 ",
            " host:1:1",
            "host:1:1:1:1",
            "::1:6379",
            "::1:6379:1",
            "/tmp/a b c",
            "/tmp/a ",
            "/:1",
            "unix:",
            "unix:1",
            "[::1]:1:1:1",
            "[x]:1:1",
            "host:1:1\t",
        ] {
            assert!(entry(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_reads_back() {
        for (text, nutcracker) in [
            ("127.0.0.1:6379:1", true),
            ("127.0.0.1:06379:1", true),
            ("::1:6379:1", true),
            ("cache:11211:1", true),
            ("/tmp/redis:1", true),
            ("/tmp/redis:2 r", true),
            ("/tmp/a:5", false),
            ("[::1]:6379", false),
        ] {
            let server = entry(text, nutcracker).unwrap();
            let again = entry(&written(&server), false).unwrap();
            assert_eq!(
                (&again.name, &again.address, again.weight),
                (&server.name, &server.address, server.weight),
                "{text}"
            );
        }
    }
}
