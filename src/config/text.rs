//! A configuration as the text of a `proxy.yaml`.
//!
//! Promises: what `imported` writes loads to the same configuration; what `effective` writes holds no secret.

use std::fmt::Write;

use super::keys::{KEYS, Place};
use super::{Config, Pool, denials, hot, mirror, misses, reading, routes, servers, sight, tls, topology, traces};
use crate::acl::Account;
use crate::engine::limits::{Limit, Scope};
use crate::units::{MASK, Millis, Secret, Size};
use crate::upstream::Topology;
use crate::upstream::config::{Servers, WarmFrom};

/// Every value, defaults too; secrets masked.
pub(super) fn effective(config: &Config) -> String {
    Text { all: true, out: String::new() }.file(config)
}

/// What a `nutcracker.yml` said and means, defaults of a `proxy.yaml` left out; secrets written out.
pub(super) fn imported(config: &Config) -> String {
    Text { all: false, out: String::new() }.file(config)
}

struct Text {
    all: bool,
    out: String,
}

impl Text {
    fn file(mut self, config: &Config) -> String {
        if !self.all {
            self.line("# Written by `hotring import` from a nutcracker.yml.");
            self.line("# Keys stay on the servers they are on. Comments were not taken over.");
        }
        let admin = config.admin.as_ref().map_or("off".to_owned(), |address| scalar(&address.to_string()));
        self.top("workers", config.workers.to_string());
        self.top("max_pause", Millis::from(config.max_pause).to_string());
        self.top("max_memory", config.max_memory.to_string());
        if !self.all && config.admin.is_none() {
            self.line("# For metrics and health write admin: 127.0.0.1:9380");
        }
        self.top("admin", admin);
        if self.all {
            if let Some(token) = &config.admin_token {
                self.top("admin_token", self.secret(token));
            }
            self.top("admin_token_for", if config.admin_token_for_reads { "all" } else { "changes" }.to_owned());
            if !config.admin_hosts.is_empty() {
                let hosts: Vec<String> = config.admin_hosts.iter().map(|host| quoted(host)).collect();
                self.top("admin_hosts", format!("[{}]", hosts.join(", ")));
            }
            self.top("watch", config.watch.map_or("off".to_owned(), |watch| Millis::from(watch).to_string()));
            self.line("drain:");
            self.line(&format!("  delay: {}", Millis::from(config.drain.delay)));
            self.line(&format!("  timeout: {}", Millis::from(config.drain.timeout)));
            if let Some(handover) = &config.handover {
                self.top("handover", scalar(&handover.display().to_string()));
            }
            self.line("log:");
            self.line(&format!("  level: {}", config.log.level));
            self.line(&format!("  format: {}", config.log.format));
            self.line(&format!("  audit: {}", scalar(&config.log.audit.to_string())));
            let lines = traces::lines(config.tracing.as_ref(), config.access_log.as_ref());
            lines.iter().for_each(|line| self.line(line));
        }
        if !config.commands.is_empty() {
            self.line("commands:");
        }
        for command in &config.commands {
            let keys = command.keys.map_or("none".to_owned(), |(first, last, step)| format!("{first},{last},{step}"));
            let access = if command.writes { "write" } else { "read" };
            self.line(&format!("  {}: {{keys: {}, access: {access}}}", quoted(&command.name), quoted(&keys)));
        }
        self.line("pools:");
        for pool in &config.pools {
            self.pool(pool);
        }
        self.out
    }

    fn pool(&mut self, pool: &Pool) {
        let (downstream, upstream, ring) = (&pool.downstream, &pool.upstream, &pool.ring);
        self.line(&format!("  {}:", scalar(&pool.name)));
        let listeners = [
            ("listen", &downstream.listen),
            ("listen_strict", &downstream.strict),
            ("listen_tls", &downstream.encrypted),
        ];
        for (name, addresses) in listeners {
            match &addresses[..] {
                [] => {}
                [one] => self.line(&format!("    {name}: {}", scalar(&one.to_string()))),
                many => self.list(name, many.iter().map(ToString::to_string)),
            }
        }
        tls::lines(downstream).iter().for_each(|line| self.line(&format!("    {line}")));
        match &upstream.servers {
            Servers::Embedded { count, maxmemory, eviction } => {
                self.line(&format!("    servers: embedded:{count}"));
                self.key("maxmemory", Size::from(*maxmemory));
                self.key("eviction", eviction);
            }
            Servers::Static(list) => match upstream.topology.asked() {
                Some(asked) => self.list("servers", asked.at.iter().map(ToString::to_string)),
                None => self.list("servers", list.iter().map(servers::written)),
            },
        }
        if self.all {
            topology::lines(&upstream.topology).iter().for_each(|line| self.line(&format!("    {line}")));
        }
        // Placement is worth a line even where it is the default.
        if !upstream.topology.is_cluster() {
            self.line(&format!("    hash: {}", ring.hash));
            self.line(&format!("    distribution: {}", ring.distribution));
        }
        if let Some(tag) = ring.hash_tag {
            self.line(&format!("    hash_tag: {}", quoted(&String::from_utf8_lossy(&tag))));
        }
        let timeout = upstream.timeout.map_or("off".to_owned(), |timeout| Millis::from(timeout).to_string());
        let note = "waits for ever, as twemproxy does without a `timeout`; hotring's own default is 5s";
        self.noted("timeout", timeout, upstream.timeout.is_none().then_some(note));
        self.key("connect_timeout", Millis::from(upstream.connect_timeout));
        self.key("dns_refresh", or_off(upstream.dns_refresh.map(Millis::from)));
        self.key("reconnect_rate", or_off(upstream.reconnect_rate));
        if self.all {
            self.key("reconnect_burst", upstream.reconnect_burst);
        }
        self.key("server_connections", upstream.server_connections);
        self.key("preconnect", upstream.preconnect);
        self.key("tcpkeepalive", upstream.tcpkeepalive);
        if self.all {
            self.key("tcp_user_timeout", or_off(upstream.tcp_user_timeout.map(Millis::from)));
        }
        self.key("auto_eject_hosts", upstream.auto_eject_hosts);
        self.key("server_retry_timeout", Millis::from(upstream.server_retry_timeout));
        self.key("server_failure_limit", upstream.server_failure_limit);
        if let Some(way) = &upstream.when_ejected {
            self.key("when_ejected", way);
        }
        if self.all {
            self.key("gutter_ttl", Millis::from(upstream.gutter_ttl));
        }
        match &upstream.warm_from {
            Some(WarmFrom::Previous) => self.key("warm_from", WarmFrom::Previous),
            Some(WarmFrom::Pool(pool)) => self.line(&format!("    warm_from: {}", quoted(pool))),
            None if self.all => self.key("warm_from", "off"),
            None => {}
        }
        if self.all {
            self.key("warm_for", Millis::from(upstream.warm_for));
            self.key("warm_rate", upstream.warm_rate);
        }
        self.key(
            "probe_interval",
            upstream.probe_interval.map_or("off".to_owned(), |span| Millis::from(span).to_string()),
        );
        if let Some(span) = upstream.probe_timeout {
            self.key("probe_timeout", Millis::from(span));
        }
        self.key("admin_commands", if downstream.admin_commands { "allow" } else { "refuse" });
        self.key("dedicated_connections", upstream.dedicated_connections);
        if !upstream.slow_commands.is_empty() {
            self.line(&format!("    slow_commands: [{}]", upstream.slow_commands.join(", ")));
        }
        self.key("databases", upstream.databases);
        self.key("resp3", upstream.resp3);
        self.key("max_outbox", Size::from(upstream.max_outbox));
        self.key("backlog", downstream.backlog);
        self.key("reuseport", downstream.reuseport);
        let note = "twemproxy reads this and does nothing, hotring obeys it";
        self.noted("client_connections", downstream.client_connections, Some(note));
        self.key("client_tcpkeepalive", or_off(downstream.client_tcpkeepalive.map(Millis::from)));
        self.key("max_pipeline", downstream.max_pipeline);
        self.key("max_output", Size::from(downstream.max_output));
        self.key("max_output_soft", or_off(downstream.max_output_soft));
        self.key("max_output_pubsub", or_off(downstream.max_output_pubsub));
        self.key("client_idle_timeout", or_off(downstream.client_idle_timeout.map(Millis::from)));
        self.key("request_timeout", or_off(downstream.request_timeout.map(Millis::from)));
        self.key("auth_timeout", or_off(downstream.auth_timeout.map(Millis::from)));
        self.key("max_auth_failures", or_off(downstream.max_auth_failures));
        self.key("max_request", Size::from(downstream.max_request));
        self.key("coalesce", pool.coalesce);
        self.key("merge", pool.merge);
        if self.all {
            self.line("    hot_keys:");
            for line in hot::lines(&pool.hot) {
                self.line(&format!("      {line}"));
            }
            self.line("    misses:");
            for line in misses::lines(&pool.misses) {
                self.line(&format!("      {line}"));
            }
        }
        if let Some(mirror) = &pool.mirror {
            self.line("    mirror:");
            for line in mirror::lines(mirror) {
                self.line(&format!("      {line}"));
            }
        }
        if !pool.routes.is_empty() {
            self.line("    routes:");
            for line in routes::lines(&pool.routes) {
                self.line(&format!("      {line}"));
            }
        }
        let slower_than = pool.slowlog.slower_than.map_or("off".to_owned(), |span| Millis::from(span).to_string());
        self.key("slowlog_slower_than", slower_than);
        self.key("slowlog_max_len", pool.slowlog.max_len);
        self.key("command_metrics", pool.command_metrics);
        if !pool.metrics_prefixes.is_empty() {
            self.key("metrics_prefixes", sight::list(&pool.metrics_prefixes));
        }
        self.key("info_interval", or_off(upstream.info_interval.map(Millis::from)));
        self.auth(pool);
        self.users(&pool.downstream.users);
        if !downstream.prefix.is_empty() {
            self.line(&format!("    prefix: {}", quoted(&downstream.prefix)));
        }
        self.limits(&pool.rate_limits);
        for (name, value) in denials::lines(&pool.denials) {
            self.key(name, value);
        }
        if !ring.pins.is_empty() {
            self.line("    pin:");
        }
        for (start, server) in &ring.pins {
            self.line(&format!("      {}: {}", quoted(start), quoted(server)));
        }
        if !upstream.replicas.is_empty() {
            self.line("    replicas:");
        }
        for (server, addresses) in &upstream.replicas {
            let addresses: Vec<String> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
            self.line(&format!("      {}: [{}]", quoted(server), addresses.join(", ")));
        }
        for line in reading::lines(&pool.reading, &upstream.zones) {
            if let Some((name, value)) = line.split_once(": ").filter(|(name, _)| !name.starts_with(' ')) {
                self.key(name, value);
            } else {
                self.line(&format!("    {line}"));
            }
        }
        self.key("redis_db", upstream.db);
    }

    fn auth(&mut self, pool: &Pool) {
        let own = pool.upstream.tls.as_ref().map(|client| ("server_tls", client));
        let sentinel = match &pool.upstream.topology {
            Topology::Sentinel { tls, .. } if tls.is_none() && own.is_some() => {
                self.line("    sentinel_tls: false");
                None
            }
            Topology::Sentinel { tls, .. } => tls.as_ref().map(|client| ("sentinel_tls", client)),
            _ => None,
        };
        if own.is_none() && matches!(pool.upstream.servers, Servers::Static(_)) {
            self.key("server_tls", false);
        }
        for (name, client) in own.into_iter().chain(sentinel) {
            tls::client_lines(name, client).iter().for_each(|line| self.line(&format!("    {line}")));
        }
        if let Topology::Sentinel { user, password: Some(secret), .. } = &pool.upstream.topology {
            let secret = self.secret(secret);
            self.line("    sentinel_auth:");
            if let Some(user) = user {
                self.line(&format!("      user: {}", quoted(user)));
            }
            self.line(&format!("      password: {secret}"));
        }
        let (client, server, user) = (&pool.downstream.password, &pool.upstream.password, &pool.upstream.user);
        if let (Some(secret), None, true) = (client, user, client == server) {
            let secret = self.secret(secret);
            return self.line(&format!("    redis_auth: {secret}"));
        }
        if let Some(secret) = server {
            let secret = self.secret(secret);
            self.line("    server_auth:");
            if let Some(user) = user {
                self.line(&format!("      user: {}", quoted(user)));
            }
            self.line(&format!("      password: {secret}"));
        }
        if let Some(secret) = client {
            let secret = self.secret(secret);
            self.line("    client_auth:");
            self.line(&format!("      password: {secret}"));
        }
    }

    fn users(&mut self, users: &[Account]) {
        if !users.is_empty() {
            self.line("    users:");
        }
        for user in users {
            self.line(&format!("      {}:", quoted(&user.name)));
            if !user.passwords.is_empty() {
                let passwords: Vec<String> = user.passwords.iter().map(|secret| self.secret(secret)).collect();
                self.line(&format!("        passwords: [{}]", passwords.join(", ")));
            }
            self.line(&format!("        nopass: {}", user.nopass));
            self.line(&format!("        rules: {}", quoted(&user.rules)));
            self.line(&format!("        read_only: {}", user.read_only));
            if let Some(most) = user.connections {
                self.line(&format!("        connections: {most}"));
            }
            if let Some(prefix) = &user.prefix {
                self.line(&format!("        prefix: {}", quoted(prefix)));
            }
        }
    }

    fn limits(&mut self, limits: &[Limit]) {
        if !limits.is_empty() {
            self.line("    rate_limits:");
        }
        for limit in limits {
            let mut keys = vec![format!("name: {}", quoted(&limit.name))];
            keys.extend(limit.requests.map(|count| format!("requests: {count}/s")));
            keys.extend(limit.bytes.map(|bytes| format!("bytes: {}/s", Size::from(bytes))));
            keys.extend(limit.reply_bytes.map(|bytes| format!("reply_bytes: {}/s", Size::from(bytes))));
            keys.push(format!("burst: {}", Millis::from(limit.burst)));
            match &limit.on {
                Scope::Pool => {}
                Scope::User(user) => keys.push(format!("user: {}", quoted(user))),
                Scope::Prefix(prefix) => keys.push(format!("prefix: {}", quoted(&String::from_utf8_lossy(prefix)))),
            }
            self.line(&format!("      - {{{}}}", keys.join(", ")));
        }
    }

    fn secret(&self, secret: &Secret) -> String {
        quoted(if self.all { MASK } else { secret.expose() })
    }

    fn top(&mut self, name: &str, value: String) {
        if self.all || !is_default(Place::Top, name, &value) {
            self.line(&format!("{name}: {value}"));
        }
    }

    fn key(&mut self, name: &str, value: impl ToString) {
        self.noted(name, value, None);
    }

    /// A key of a pool, with a note for those who import.
    fn noted(&mut self, name: &str, value: impl ToString, note: Option<&str>) {
        let value = value.to_string();
        if self.all {
            self.line(&format!("    {name}: {value}"));
        } else if !is_default(Place::Pool, name, &value) {
            let note = note.map(|note| format!("  # {note}")).unwrap_or_default();
            self.line(&format!("    {name}: {value}{note}"));
        }
    }

    fn list(&mut self, name: &str, items: impl Iterator<Item = String>) {
        self.line(&format!("    {name}:"));
        for item in items {
            self.line(&format!("      - {}", scalar(&item)));
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }
}

fn or_off(value: Option<impl ToString>) -> String {
    value.map_or("off".to_owned(), |value| value.to_string())
}

fn is_default(place: Place, name: &str, value: &str) -> bool {
    KEYS.iter().any(|key| key.place == place && key.name == name && key.default == value)
}

/// A text as a YAML scalar: plain where that is beyond doubt, else quoted.
fn scalar(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b':' | b'-' | b'_' | b'+' | b'%' | b' ');
    let begins = text.as_bytes().first().is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'/');
    let spaced = text.ends_with([' ', ':']) || text.contains(": ");
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    if begins && !spaced && !word && text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes, with escapes that are YAML's and JSON's.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            // Line and paragraph separators, and marks that would be taken for the start of a file, are escaped too.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::yaml;
    use super::*;

    #[test]
    fn scalars_read_back() {
        for text in [
            "",
            " ",
            "a",
            "null",
            "~",
            "true",
            "No",
            "12",
            "0x1f",
            "-",
            "- a",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "{}",
            "$$",
            "[]",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a`",
            "'a'",
            "\"a\"",
            "a\\b",
            "a\nb",
            "a\tb",
            "\u{0}",
            "\u{85}",
            "\u{2028}",
            "é 𝄞",
            "127.0.0.1:6379:1 alpha",
            "/tmp/a:1",
            "[::1]:6379",
            "10.0.0.1:1:1 a:",
            "\u{feff}x",
            "---",
            "\u{7f}",
        ] {
            for written in [scalar(text), quoted(text)] {
                let node = yaml::read(&format!("k: {written}\n")).unwrap_or_else(|e| panic!("{written}: {e:?}"));
                assert_eq!(node.get("k").and_then(|value| value.text()), Some(text), "{written}");
            }
        }
    }
}
