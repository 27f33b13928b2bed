//! twemproxy's own file: how it is told from a `proxy.yaml`.
//!
//! A `nutcracker.yml` is a map of pools and nothing else. It is taken unchanged, with twemproxy's defaults (no timeout, no
//! admin listener) and two differences: `client_connections` is obeyed, and a pool without `redis: true` is refused, since
//! it would speak memcached. Booleans are `true` and `false` only, as in twemproxy itself.

use super::yaml::{Kind, Node};

/// Whether a document is a `nutcracker.yml`: no `pools` (but a pool may have that name) and something that is a pool.
pub(super) fn is_one(root: &Node) -> bool {
    match root.get("pools") {
        Some(pools) => is_pool(pools),
        None => {
            let own = |(key, value): &(Node, Node)| {
                matches!(key.text(), Some("workers" | "max_pause" | "admin" | "log")) && !is_pool(value)
            };
            let entries = root.entries().unwrap_or_default();
            entries.iter().any(|(_, value)| is_pool(value)) && !entries.iter().any(own)
        }
    }
}

/// Whether a value has what only a pool has: `listen` or `servers` that are not pools themselves.
pub(super) fn is_pool(node: &Node) -> bool {
    ["listen", "servers"].iter().any(|name| node.get(name).is_some_and(|value| !matches!(value.kind, Kind::Map(_))))
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        for (text, nutcracker) in [
            ("a:\n  listen: x\n", true),
            ("a:\n  servers:\n    - x\n", true),
            ("a: {listen: x}\nb: 1\n", true),
            ("log: {listen: x}\n", true),
            ("pools:\n  listen: x\n", true),
            ("pools:\n  listen: {listen: x}\n", false),
            ("pools:\n  a: {listen: x}\n", false),
            ("admin: off\na: {listen: x}\n", false),
            ("workers: 1\n", false),
            ("", false),
            ("- a\n", false),
        ] {
            assert_eq!(is_one(&yaml::read(text).unwrap()), nutcracker, "{text:?}");
        }
    }
}
