//! The promises of the configuration, kept on files: golden messages, twemproxy's files, the example.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "schema/example.rs"]
mod example;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::authority::Authority;

use hotring::acl::Users;
use hotring::config::{self, Config, KEYS, Kind, Place, Problems, Workers};
use hotring::ring::{Distribution, KeyHash};
use hotring::stages::hot::{self, Reads, Rule};
use hotring::stages::lease::{self, Lease, Wanted};
use hotring::stages::mirror::{Commands, Mirroring};
use hotring::tls::{ClientAuth, MinVersion};
use hotring::traces::Tracing;
use hotring::units::{Address, MASK};
use hotring::upstream::Topology;
use hotring::upstream::config::{Eviction, Server, Servers};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(prefix: &str, end: &str) -> Vec<PathBuf> {
    let dir = fs::read_dir(root().join("tests/config")).unwrap();
    let mut files: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix) && name.ends_with(end)
    });
    files.sort();
    files
}

/// Parses a file under its bare name, so that messages do not depend on where the tests run.
fn parse_file(path: &Path) -> Result<Config, Problems> {
    config::parse(&fs::read_to_string(path).unwrap(), Path::new(path.file_name().unwrap()))
}

fn parse(text: &str) -> Config {
    config::parse(text, Path::new("proxy.yaml")).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn problems(text: &str) -> String {
    config::parse(text, Path::new("proxy.yaml")).unwrap_err().to_string()
}

fn servers(config: &Config, pool: usize) -> &[Server] {
    match &config.pools[pool].upstream.servers {
        Servers::Static(list) => list,
        Servers::Embedded { .. } => panic!("embedded"),
    }
}

/// Each `bad_*.yaml` (or `.yml`) gives exactly the lines of its `.expected`.
#[test]
fn bad_files_are_told_exactly() {
    let mut wrong = Vec::new();
    let files = [files("bad_", ".yaml"), files("bad_", ".yml")].concat();
    assert!(files.len() >= 25, "only {} bad files", files.len());
    for path in files {
        let said = match parse_file(&path) {
            Ok(_) => "nothing wrong\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        };
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\nexpected:\n{expected}said:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each `nutcracker_*.yml` loads as it is, and what `import` makes of it loads to the same.
#[test]
fn nutcracker_files_load_and_import() {
    let files = files("nutcracker_", ".yml");
    assert!(files.len() >= 5, "only {} files", files.len());
    for path in files {
        let loaded = parse_file(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.source.kind, Kind::Nutcracker, "{}", path.display());
        assert_eq!(loaded.admin, None);
        let imported = config::import(&fs::read_to_string(&path).unwrap(), &path).unwrap();
        let mut again = parse(&imported);
        assert_eq!(again.source.kind, Kind::Proxy);
        again.source = loaded.source.clone();
        assert_eq!(again, loaded, "{imported}");
    }
}

#[test]
fn a_nutcracker_file_means_what_twemproxy_means() {
    let config = parse_file(&root().join("tests/config/nutcracker_classic.yml")).unwrap();
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta", "gamma", "delta", "omega"]);
    let [alpha, beta, gamma, delta, omega] = &config.pools[..] else { unreachable!() };

    assert_eq!(alpha.upstream.timeout, None, "no timeout is for ever");
    assert_eq!(alpha.upstream.server_retry_timeout, Duration::from_secs(2));
    assert_eq!(alpha.upstream.server_failure_limit, 1);
    assert_eq!(servers(&config, 0)[0].name, "127.0.0.1:6379");
    assert_eq!(alpha.downstream.backlog, 512);

    assert_eq!(beta.ring.hash_tag, Some(*b"{}"));
    assert_eq!(beta.upstream.timeout, Some(Duration::from_millis(400)));
    assert_eq!(
        servers(&config, 1).iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["server1", "server2", "server3"]
    );
    assert_eq!(servers(&config, 1).iter().map(|s| s.weight).collect::<Vec<_>>(), [1, 1, 2]);

    assert_eq!(gamma.downstream.listen, [Address::Unix { path: "/tmp/gamma".into(), mode: Some(0o666) }]);
    assert_eq!(gamma.ring.distribution, Distribution::Modula);
    assert_eq!(servers(&config, 2)[0].name, "/tmp/redis-a.sock:");
    assert_eq!(servers(&config, 2)[1].name, "b");
    assert_eq!(servers(&config, 2)[2].name, "10.0.0.9", "the port 11211 is no part of the label");

    assert_eq!(delta.ring.hash, KeyHash::Murmur);
    assert!(delta.upstream.preconnect && delta.upstream.tcpkeepalive);
    assert_eq!(delta.upstream.db, 3);
    assert_eq!(delta.upstream.server_connections, 2);
    for password in [&delta.downstream.password, &delta.upstream.password] {
        assert_eq!(password.as_ref().map(|p| p.expose()), Some("0123"), "a password is no number");
    }
    assert_eq!(omega.upstream.timeout, None, "-1 is for ever");
}

#[test]
fn the_least_file_has_the_defaults() {
    let config = parse("pools: {main: {listen: '127.0.0.1:6380', servers: embedded:3}}");
    assert_eq!(config.workers, Workers::Count(std::num::NonZeroU16::MIN));
    assert_eq!(config.max_pause, Duration::from_micros(120));
    assert_eq!(config.admin, Some(Address::Tcp { host: "127.0.0.1".into(), port: 9380 }));
    let pool = &config.pools[0];
    assert_eq!(pool.upstream.timeout, Some(Duration::from_secs(5)));
    assert_eq!(pool.upstream.servers, Servers::Embedded { count: 3, maxmemory: 64 << 20, eviction: Eviction::Lru });
    assert_eq!(pool.downstream.max_request, 512 << 20);
    assert_eq!(pool.merge, hotring::stages::Merge::Strict);
    assert!(!pool.coalesce && pool.downstream.password.is_none());
}

/// What the list of keys says is a default is what is taken.
#[test]
fn the_defaults_in_the_list_are_true() {
    let text = "pools: {main: {listen: '127.0.0.1:6380', servers: ['10.0.0.1:6379:1']}}";
    let embedded = "pools: {main: {listen: '127.0.0.1:6380', servers: 'embedded:1'}}";
    let cluster = text.replace("]}}", "], topology: cluster}}");
    let effective: String = [text, embedded, &cluster].map(|text| parse(text).masked_yaml()).concat();
    let lines: Vec<&str> = effective.lines().map(str::trim).collect();
    for key in KEYS.iter().filter(|key| {
        matches!(key.place, Place::Top | Place::Drain | Place::Log | Place::Pool | Place::HotKeys | Place::Misses)
    }) {
        // `redis` is always true, `db` is shown under its other name, and nearly every pool has a `listen`.
        if matches!(key.name, "redis" | "db" | "listen") || key.default == "required" {
            continue;
        }
        let line = format!("{}: {}", key.name, key.default);
        match key.default {
            "" if matches!(key.name, "log" | "drain" | "hot_keys" | "misses") => {}
            "" => assert!(!lines.iter().any(|l| l.starts_with(&format!("{}:", key.name))), "{} is set", key.name),
            _ => assert!(lines.contains(&line.as_str()), "`{line}` is not in\n{effective}"),
        }
    }
}

/// What `/config` says of limits is what was written.
#[test]
fn limits_are_written_as_they_are_read() {
    let limits = r#"[{requests: 10/s}, {bytes: 3mb/s, burst: 250ms, prefix: "a:"}, {requests: 1/s, bytes: 5/s, user: default, name: "x: y"}]"#;
    let text = format!("pools: {{main: {{listen: '127.0.0.1:6380', servers: 'embedded:1', rate_limits: {limits}}}}}");
    let config = parse(&text);
    let read = &config.pools[0].rate_limits;
    assert_eq!(read.iter().map(|limit| limit.name.as_str()).collect::<Vec<_>>(), ["pool", "prefix a:", "x: y"]);
    assert_eq!((read[1].bytes, read[1].burst), (Some(3 << 20), Duration::from_millis(250)));
    assert_eq!(&parse(&config.masked_yaml()).pools[0].rate_limits, read);
}

/// The same of prefixes; a user's that is empty is not none.
#[test]
fn prefixes_are_written_as_they_are_read() {
    let users = r#"{a: {nopass: true, rules: on, prefix: ""}, b: {nopass: true, rules: on}, c: {nopass: true, rules: on, prefix: "c'\"?:"}}"#;
    let pool = format!("listen: '127.0.0.1:6380', servers: 'embedded:1', prefix: 'team-a:', users: {users}");
    let text = format!("pools: {{main: {{{pool}}}}}");
    let config = parse(&text);
    let read = &config.pools[0].downstream;
    assert_eq!(read.prefix, "team-a:");
    let prefixes: Vec<Option<&str>> = read.users.iter().map(|user| user.prefix.as_deref()).collect();
    assert_eq!(prefixes, [Some(""), None, Some("c'\"?:")]);
    let again = parse(&config.masked_yaml());
    assert_eq!(again.pools[0].downstream.prefix, read.prefix);
    assert_eq!(again.pools[0].downstream.users, read.users);
}

/// What is wanted for hot keys is read, and `/config` says it as it was written.
#[test]
fn hot_keys_are_written_as_they_are_read() {
    let hot = r#"{reads: near, extra_load: 0.125, max_staleness: 1500ms, max_copies: 2, near_memory: 3mb, near_value: 1kb, near_all: true, near_writes: true,
        copy_value: 7, choice: sticky, wait_for_copies: true, scripts: declared, audit: 10000,
        prefixes: [{prefix: "a: \"b", reads: auto}, {prefix: "a: \"b:lock", reads: off}]}"#;
    let config = parse(&format!("pools: {{main: {{listen: '127.0.0.1:6380', servers: ['a:1:1'], hot_keys: {hot}}}}}"));
    let read = &config.pools[0].hot;
    let rule = |prefix: &str, reads| Rule { prefix: prefix.as_bytes().into(), reads };
    let wanted = hot::Config {
        reads: Reads::Near,
        rules: vec![rule("a: \"b", Reads::Auto), rule("a: \"b:lock", Reads::Off)],
        extra_load: 125,
        staleness: 1_500_000,
        most_copies: 2,
        near_memory: 3 << 20,
        longest_near: 1 << 10,
        near_all: true,
        keep_writes: true,
        longest_copy: 7,
        sticky: true,
        wait_for_copies: true,
        any_script: false,
        audit: 10_000,
    };
    assert_eq!(read, &wanted);
    assert_eq!(config.warnings(), [""; 0]);
    assert_eq!(&parse(&config.masked_yaml()).pools[0].hot, read);
    let plain = parse("pools: {main: {listen: '127.0.0.1:6380', servers: ['a:1:1']}}");
    assert_eq!(plain.pools[0].hot, hot::Config::default());
    assert_eq!(plain.pools[0].hot.reads, Reads::Off);
}

/// Routes are read, and `/config` says them so that they are read again; apps may select what there is wherever keys live.
#[test]
fn routes_are_written_as_they_are_read() {
    let text = |more: &str| {
        let main = format!(
            "main: {{listen: '127.0.0.1:6380', servers: ['a:1:1'], routes: {{'u:': b, \"u:\\ts\": c, x: b}}{more}}}"
        );
        format!("pools: {{{main}, b: {{servers: ['b:1:1']}}, c: {{servers: ['c:1:1'], databases: 4}}}}")
    };
    let config = parse(&text(""));
    let routes = &config.pools[0].routes;
    let read: Vec<(&[u8], &str)> = routes.iter().collect();
    assert_eq!(read, [(&b"u:\ts"[..], "c"), (b"u:", "b"), (b"x", "b")]);
    assert_eq!(&parse(&config.masked_yaml()).pools[0].routes, routes);
    assert!(config.pools[1].downstream.listen.is_empty() && config.pools[1].routes.is_empty());
    let databases: Vec<u16> = config.pools.iter().map(|pool| pool.upstream.databases).collect();
    assert_eq!(databases, [4, 16, 4]);
    assert_eq!(parse(&text(", databases: 2")).pools[0].upstream.databases, 2);
}

/// What is mirrored is read, and `/config` says it as it was written.
#[test]
fn mirrors_are_written_as_they_are_read() {
    let text = |mirror: &str| {
        let main = format!("main: {{listen: '127.0.0.1:6380', servers: ['a:1:1'], mirror: {mirror}}}");
        format!("pools: {{{main}, 'new: 1': {{servers: ['b:1:1']}}}}")
    };
    let config =
        parse(&text(r#"{pool: "new: 1", share: 0.125, commands: all, compare: true, prefixes: ["a: \"b", "c"]}"#));
    let read = config.pools[0].mirror.as_ref().unwrap();
    let prefixes = vec![b"a: \"b"[..].into(), b"c"[..].into()];
    let wanted = Mirroring { to: "new: 1".into(), share: 125, commands: Commands::All, prefixes, compare: true };
    assert_eq!(read, &wanted);
    assert_eq!(parse(&config.masked_yaml()).pools[0].mirror.as_ref(), Some(read));
    let least = parse(&text("{pool: 'new: 1'}"));
    let read = least.pools[0].mirror.as_ref().unwrap();
    assert_eq!((read.share, read.commands, read.compare), (1000, Commands::Writes, false));
    assert!(least.pools[1].downstream.listen.is_empty() && least.pools[1].mirror.is_none());
    assert_eq!(parse(&least.masked_yaml()).pools, least.pools);
}

/// What is wanted for keys that are not there is read, `/config` says it as it was written, and what is left out of a
/// beginning is as for all.
#[test]
fn misses_are_written_as_they_are_read() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misses");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("ids.txt"), "1\n2\n").unwrap();
    let misses = r#"{lease: local, lease_wait: 60ms, lease_term: 1500ms, same_connection: wait, cache_aside: true, ttl_jitter: 0.125,
        stale: 1500ms, guard_stale_set: true, miss_budget: 7, absent_reply: "{}",
        prefixes: [{prefix: "b:", lease: off, ttl_jitter: 0, absent_ids: ids.txt}, {prefix: "a: \"b", miss_budget: off, absent_reply: nil}]}"#;
    let text = |misses: &str| {
        format!(
            "pools: {{main: {{listen: '127.0.0.1:1', servers: ['a:1:1'], hot_keys: {{reads: near}}, misses: {misses}}}}}"
        )
    };
    let file = dir.join("proxy.yaml");
    let config = config::parse(&text(misses), &file).unwrap_or_else(|problems| panic!("{problems}"));
    let read = &config.pools[0].misses;
    let all = Wanted {
        lease: Lease::Local,
        longest_wait: 60_000,
        longest_term: 1_500_000,
        same_connection_waits: true,
        cache_aside: true,
        stale: 1_500_000,
        guards: true,
        ttl_jitter: 125,
        miss_budget: Some(7),
        absent_ids: None,
        absent_reply: Some("{}".into()),
    };
    assert_eq!(read.all(), &all);
    assert_eq!(read.wanted(b"a: \"b1"), &Wanted { miss_budget: None, absent_reply: None, ..all.clone() });
    let ids = read.wanted(b"b:1").absent_ids.clone();
    assert_eq!(ids.as_ref().map(|ids| (ids.file(), ids.listed())), Some(("ids.txt", 2)));
    assert_eq!(read.wanted(b"b:1"), &Wanted { lease: Lease::Off, ttl_jitter: 0, absent_ids: ids, ..all });
    assert_eq!(config.source.files, [dir.join("ids.txt")], "it is looked at for changes");
    assert_eq!(config.warnings().len(), 1, "that the guard does nothing for threads that share a connection");
    let again = config::parse(&config.masked_yaml(), &file).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(&again.pools[0].misses, read);
    fs::write(dir.join("ids.txt"), "1\n3\n").unwrap();
    assert_ne!(&config::parse(&text(misses), &file).unwrap().pools[0].misses, read, "another list is a change");
    let plain = parse(&text("{}"));
    assert_eq!(plain.pools[0].misses, lease::Config::default());
    assert!(!plain.pools[0].misses.leases());
}

/// Every key of the list is accepted where the list says it stands.
#[test]
fn every_key_of_the_list_is_known() {
    for key in KEYS {
        let at = match key.place {
            Place::Top => key.name.to_owned(),
            Place::Log => format!("log: {{{}: [x]}}\nz", key.name),
            Place::Drain => format!("drain: {{{}: [x]}}\nz", key.name),
            Place::Tracing => format!("tracing: {{{}: [x]}}\nz", key.name),
            Place::AccessLog => format!("access_log: {{{}: [x]}}\nz", key.name),
            Place::Command => format!("commands: {{x: {{{}: [x]}}}}\nz", key.name),
            Place::Pool => format!("pools: {{main: {{{}: [[x]]}}}}\nz", key.name),
            Place::Server => format!("pools: {{main: {{servers: [{{{}: [x]}}]}}}}\nz", key.name),
            Place::Auth => format!("pools: {{main: {{server_auth: {{{}: [x]}}}}}}\nz", key.name),
            Place::Tls => format!("pools: {{main: {{tls: {{{}: [[x]]}}}}}}\nz", key.name),
            Place::Certificate => format!("pools: {{main: {{tls: {{certificates: [{{{}: [x]}}]}}}}}}\nz", key.name),
            Place::ServerTls => format!("pools: {{main: {{server_tls: {{{}: [x]}}}}}}\nz", key.name),
            Place::Limit => format!("pools: {{main: {{rate_limits: [{{{}: [x]}}]}}}}\nz", key.name),
            Place::HotKeys => format!("pools: {{main: {{hot_keys: {{{}: [[x]]}}}}}}\nz", key.name),
            Place::HotPrefix => format!("pools: {{main: {{hot_keys: {{prefixes: [{{{}: [x]}}]}}}}}}\nz", key.name),
            Place::Misses => format!("pools: {{main: {{misses: {{{}: [[x]]}}}}}}\nz", key.name),
            Place::Mirror => format!("pools: {{main: {{mirror: {{{}: [[x]]}}}}}}\nz", key.name),
            Place::MissPrefix => format!("pools: {{main: {{misses: {{prefixes: [{{{}: [x]}}]}}}}}}\nz", key.name),
            Place::User => format!("pools: {{main: {{users: {{app: {{{}: [x]}}}}}}}}\nz", key.name),
        };
        let text = format!("{at}: [x]\n");
        let said = problems(&text);
        let unknown = said.lines().filter(|line| line.contains("unknown key") && !line.contains(": z: ")).count();
        assert_eq!(unknown, 0, "{}: {said}", key.name);
    }
}

/// The words that the list and the messages offer are words that are taken.
#[test]
fn every_word_offered_is_taken() {
    let mut taken = 0;
    for name in ["hash", "distribution", "eviction"] {
        let key = KEYS.iter().find(|key| key.name == name).unwrap();
        let servers = if name == "eviction" { "embedded:1" } else { "['a:1:1']" };
        let pool = |word: &str| format!("pools: {{a: {{listen: '127.0.0.1:1', servers: {servers}, {name}: {word}}}}}");
        let message = problems(&pool("nonsense"));
        for word in key.meaning.split('`').skip(1).step_by(2) {
            parse(&pool(word));
            assert!(message.contains(&format!("`{word}`")), "{word}: {message}");
            taken += 1;
        }
    }
    assert_eq!(taken, 12 + 4 + 2);
}

#[test]
fn the_example_loads() {
    let config = config::load(&root().join("proxy.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.pools.len(), 1);
    let main = &config.pools[0];
    assert_eq!(main.name, "main");
    assert_eq!(main.downstream.listen, [Address::Tcp { host: "127.0.0.1".into(), port: 6380 }]);
    assert!(matches!(main.upstream.servers, Servers::Embedded { count: 3, .. }));
    assert_eq!(config.warnings(), [""; 0]);
}

/// Uncommented as its header tells, the example loads too, and its examples of `main` are the defaults.
#[test]
fn the_example_uncommented_loads() {
    let text = fs::read_to_string(root().join("proxy.yaml")).unwrap();
    let mut uncommented = example::uncommented(&text);
    // Its certificates are elsewhere.
    let ca = Authority::new();
    let own = ca.local("tls");
    for (name, file) in [("tls.crt", &own.cert), ("tls.key", &own.key), ("ca.crt", &ca.ca())] {
        for secret in ["tls", "other"] {
            uncommented = uncommented.replace(&format!("/etc/hotring-secrets/{secret}/{name}"), file);
        }
    }
    let all = parse(&uncommented);
    let mut least = parse(&text);
    least.source.files.clone_from(&all.source.files);
    assert_eq!(
        all.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(),
        ["main", "sessions", "private", "cluster", "watched", "encrypted"]
    );
    let private = &all.pools[2];
    assert_eq!(private.upstream.user.as_deref(), Some("hotring"));
    assert_eq!(private.downstream.password.as_ref().map(|p| p.expose()), Some("change-me-too"));
    assert_eq!(private.downstream.listen.len(), 2);
    let users: Vec<&str> = private.downstream.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["app", "reader"]);
    assert_eq!(servers(&all, 2)[1].name, "private-b");
    assert_eq!(all.warnings(), [""; 0]);
    // The keys of `sessions` are defaults too, but for the hash tag, what is pinned, and the replicas with what belongs to them.
    let sessions = all.pools[1].clone();
    let servers = r#"["10.0.0.11:6379:1 sessions-1", "10.0.0.12:6379:1 sessions-2", "10.0.0.13:6379:2 sessions-3"]"#;
    let more = r#"pin: {"celery:": sessions-1}, replicas: {sessions-1: ["10.0.0.21:6379", "10.0.0.22:6379"]},
        read_from_prefixes: {"lock:": primary}, zone: eu-west-1a, zones: {"10.0.0.21:6379": eu-west-1a}"#;
    let plain = parse(&format!(
        r#"pools: {{sessions: {{listen: "127.0.0.1:6381", servers: {servers}, hash_tag: "{{}}", {more}}}}}"#
    ));
    assert_eq!(sessions, plain.pools[0]);
    least.pools.extend_from_slice(&all.pools[1..]);
    let commands: Vec<_> = all.commands.iter().map(|command| (command.name.as_str(), command.keys)).collect();
    let single = Some((1, 1, 1));
    assert_eq!(commands, [("json.get", single), ("json.mget", Some((1, -2, 1))), ("bf.add", single)]);
    least.commands = all.commands.clone();
    assert_eq!(all.handover.as_deref(), Some(Path::new("/run/hotring/handover.sock")));
    least.handover.clone_from(&all.handover);
    let tracing = all.tracing.as_ref().unwrap();
    assert_eq!(
        tracing.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect::<Vec<_>>(),
        [("x-scope-orgid", "tenant-1")]
    );
    // The rest is what is taken where the sections say nothing.
    let plain = parse("tracing: {}\naccess_log: {}\npools: {a: {listen: '127.0.0.1:1', servers: 'embedded:1'}}");
    let without = Tracing { headers: Vec::new(), ..tracing.clone() };
    assert_eq!((Some(&without), &all.access_log), (plain.tracing.as_ref(), &plain.access_log));
    (least.tracing, least.access_log) = (all.tracing.clone(), all.access_log.clone());
    assert_eq!(all.admin_token.as_ref().map(|token| token.expose()), Some("replace-by-32-random-characters"));
    assert_eq!(all.admin_hosts, ["hotring.example.com"]);
    (least.admin_token, least.admin_hosts) = (all.admin_token.clone(), all.admin_hosts.clone());
    let secrets: Vec<_> = all.source.secrets.iter().map(|file| file.file_name().unwrap()).collect();
    assert_eq!(secrets, ["proxy.yaml", "tls.key"], "its passwords, and the one key");
    least.source.secrets.clone_from(&all.source.secrets);
    assert_eq!(all, least);
    for key in KEYS.iter().filter(|key| key.place != Place::Auth) {
        // Told of in words: `redis` is for twemproxy's files, `db` another name, `redis_auth` both other passwords.
        if matches!(key.name, "redis" | "db" | "redis_auth")
            || key.name.ends_with("_env")
            || key.name.ends_with("_file")
        {
            continue;
        }
        assert!(
            uncommented.contains(&format!("{}: ", key.name)) || uncommented.contains(&format!("{}:\n", key.name)),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_masked_yaml_says_everything_but_secrets() {
    let text = r#"
admin: off
workers: auto
max_pause: off
log: {level: warn, format: json}
pools:
  a:
    listen: ["127.0.0.1:1", /tmp/a 0600]
    servers: ["10.0.0.1:6379:1", "/tmp/redis:2 r", "[::1]:11211:3"]
    redis_auth: "hush-1"
    timeout: off
    hash_tag: "$$"
    replicas: {r: [/tmp/redis-2, "[::1]:6380"], "10.0.0.1:6379": "10.0.0.2:6379"}
    read_from: az_affinity
    read_from_prefixes: {"a:": any, "a: b": nearest}
    read_staleness: 1500ms
    zone: eu-1
    zones: {/tmp/redis-2: eu-1, "[::1]:6380": eu-2}
    redis_db: 2
  b:
    listen: 127.0.0.1:2
    servers: embedded:2
    server_auth: {user: me, password: "hush-2"}
    client_auth: {password: "hush-3"}
    eviction: lfu
    coalesce: true
    users:
      app: {passwords: ["hush-4", "hush-5"], rules: " +@all  ~a\\:* "}
      "1:": {nopass: true, rules: +get, read_only: true}
"#;
    let config = parse(text);
    let masked = config.masked_yaml();
    assert!(!masked.contains("hush"), "{masked}");
    assert!(!format!("{config:?}").contains("hush"));
    assert_eq!(masked.matches(MASK).count(), 5);
    assert!(masked.contains(r#"rules: "+@all ~a\\:*""#), "{masked}");
    // Secrets aside, it means the same.
    let same = parse(&(1..=5).fold(text.to_owned(), |text, n| text.replace(&format!("hush-{n}"), MASK)));
    assert_eq!(parse(&masked), same, "{masked}");
}

/// What is said of TLS is understood, told again, and another content of a file is another configuration.
#[test]
fn tls_is_said_and_told_again() {
    let ca = Authority::new();
    let (own, other) = (ca.local("own"), ca.issue("other", &["DNS:other.example"]));
    let text = format!(
        "pools:\n  a:\n    listen_tls: [\"127.0.0.1:1\", \"[::1]:1\"]\n    tls:\n      cert: {0}\n      key: {1}\n      \
         certificates: [{{cert: {2}, key: {3}}}]\n      client_ca: {4}\n      min_version: 1.3\n    \
         servers: [\"10.0.0.1:26379\"]\n    topology: sentinel\n    masters: [one]\n    \
         server_tls: {{ca: {4}, cert: {0}, key: {1}, server_name: redis.example}}\n    sentinel_tls: false\n",
        own.cert,
        own.key,
        other.cert,
        other.key,
        ca.ca()
    );
    let config = parse(&text);
    let pool = &config.pools[0];
    assert!(pool.downstream.listen.is_empty() && pool.downstream.encrypted.len() == 2);
    let tls = pool.downstream.tls.as_ref().unwrap().settings();
    assert_eq!((tls.client_auth, tls.min_version), (ClientAuth::Required, MinVersion::Tls13));
    assert_eq!(tls.others.len(), 1);
    assert!(pool.upstream.tls.as_ref().unwrap().settings().verify);
    let Topology::Sentinel { tls: sentinel, .. } = &pool.upstream.topology else { panic!("no sentinels") };
    assert_eq!(*sentinel, None);
    let follows = parse(&text.replace("    sentinel_tls: false\n", ""));
    let Topology::Sentinel { tls: sentinel, .. } = &follows.pools[0].upstream.topology else { panic!("no sentinels") };
    assert_eq!(*sentinel, pool.upstream.tls);
    for config in [&config, &follows] {
        let masked = config.masked_yaml();
        let mut again = parse(&masked);
        again.source.clone_from(&config.source);
        assert_eq!(again, *config, "{masked}");
    }
    assert!(!format!("{config:?}").contains("PRIVATE"));
    let next = ca.local("next");
    fs::copy(&next.cert, &own.cert).unwrap();
    let said = problems(&text);
    assert!(said.contains("it is not the key of the certificate"), "{said}");
    fs::copy(&next.key, &own.key).unwrap();
    let later = parse(&text);
    assert_ne!(later, config);
    assert_ne!(later.pools[0].upstream, config.pools[0].upstream);
    assert_eq!(parse(&text), later);
}

#[test]
fn passwords_come_from_the_environment_and_from_files() {
    let dir = root().join("tests/config");
    let text = "
pools:
  a:
    listen: 127.0.0.1:1
    servers: embedded:1
    server_auth: {password_env: CARGO_PKG_NAME}
    client_auth: {password_file: password}
";
    let config = config::parse(text, &dir.join("proxy.yaml")).unwrap();
    assert_eq!(config.pools[0].upstream.password.as_ref().map(|p| p.expose()), Some("hotring"));
    assert_eq!(config.pools[0].downstream.password.as_ref().map(|p| p.expose()), Some("from a file"));
}

#[test]
fn users_have_passwords_from_everywhere() {
    let text = "
pools:
  a:
    listen: 127.0.0.1:1
    servers: embedded:1
    users:
      app:
        rules: '+@all ~*'
        passwords: [two, three]
        password_env: CARGO_PKG_NAME
        password: one
        password_file: password
      hashed: {password: 'sha256:2BD806C97F0E00AF1A1FC3328FA763A9269723C8DB8FAC4F93AF71DB186D6E90', rules: +get}
      default: {nopass: true, rules: +ping}
";
    let config = config::parse(text, &root().join("tests/config/proxy.yaml")).unwrap_or_else(|e| panic!("{e}"));
    let downstream = &config.pools[0].downstream;
    let app: Vec<&str> = downstream.users[0].passwords.iter().map(|p| p.expose()).collect();
    assert_eq!(app, ["one", "two", "three", "hotring", "from a file"]);
    assert_eq!(config.warnings(), [""; 0]);
    let users = Users::new(&downstream.users, downstream.password.as_ref()).unwrap();
    for (name, password, known) in
        [("app", "three", true), ("app", "hotring", true), ("app", "four", false), ("hashed", "alice", true)]
    {
        assert_eq!(
            users.authenticate(Some(name.as_bytes()), password.as_bytes()).is_some(),
            known,
            "{name} {password}"
        );
    }
    assert_eq!(users.opening().map(|user| user.name().to_owned()).as_deref(), Some("default"));
}

#[test]
fn messages_show_no_secret() {
    for text in [
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, users: hush}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, users: {x: hush}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, users: {x: {passwords: hush, rules: '>hush'}}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, users: {x: {password: 'sha256:hush', rules: '#hush'}}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, users: {x: {passwords: ['#hush'], rules: '<hush !hush'}}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, client_auth: hush}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, server_auth: {user: x, password: hush, password_env: hush}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, redis_auth: hush, client_auth: {password: hush}}}",
        "pools: {a: {listen: '127.0.0.1:1', servers: embedded:1, redis_auth: [hush]}}",
    ] {
        let said = problems(text);
        assert!(!said.contains("hush"), "{said}");
    }
}

#[test]
fn warnings_are_told() {
    let said = |rest: &str| {
        let config = parse(&format!("pools: {{a: {{listen: '127.0.0.1:1', {rest}}}}}"));
        config.warnings().join("\n")
    };
    assert_eq!(said("servers: ['a:1:1', 'b:1:1']"), "");
    for (rest, word) in [
        ("servers: ['a:1:1'], timeout: off", "for ever"),
        ("servers: ['a:1:1'], server_connections: 2", "order holds"),
        ("servers: ['a:1:1'], distribution: random", "no home"),
        ("servers: ['a:1:1'], hash: crc32", "15 bits"),
        ("servers: embedded:1, db: 1", "one database"),
        ("servers: ['a:1:1'], hot_keys: {reads: copies}", "none to copy to"),
        ("servers: ['a:1:1'], hot_keys: {prefixes: [{prefix: 'a:', reads: copies}]}", "none to copy to"),
        ("servers: ['a:1:1'], hot_keys: {prefixes: [{prefix: 'a:', reads: off}]}", "\"a:\" changes nothing"),
        (
            "servers: ['a:1:1'], hot_keys: {prefixes: [{prefix: 'a:b', reads: near}, {prefix: 'a:', reads: near}]}",
            "\"a:b\" changes nothing",
        ),
        ("servers: ['a:1:1'], misses: {prefixes: [{prefix: 'a:'}]}", "\"a:\": it changes nothing"),
        (
            "servers: ['a:1:1'], misses: {prefixes: [{prefix: 'a:', cache_aside: true}]}",
            "\"a:\": `cache_aside` does nothing without `lease: local` or `lease: fleet`",
        ),
        (
            "servers: ['a:1:1'], misses: {prefixes: [{prefix: 'a:', guard_stale_set: true}]}",
            "\"a:\": `guard_stale_set` does nothing without `lease: local` or `lease: fleet`",
        ),
        (
            "servers: ['a:1:1'], misses: {lease: local, guard_stale_set: true, same_connection: wait}",
            "`guard_stale_set` does nothing with `same_connection: wait`",
        ),
        ("servers: ['a:1:1'], misses: {lease: local, stale: 1s}", "`stale` does nothing without `hot_keys`"),
        (
            "servers: ['a:1:1'], hot_keys: {reads: near}, misses: {stale: 1s}",
            "`stale` does nothing without `lease: local`",
        ),
        (
            "servers: ['a:1:1'], misses: {prefixes: [{prefix: 'a:', absent_reply: x}]}",
            "does nothing without `absent_ids`",
        ),
        (
            "servers: ['a:1:1'], misses: {ttl_jitter: 0.1, prefixes: [{prefix: 'a', ttl_jitter: 0}, {prefix: 'ab', ttl_jitter: 0}]}",
            "\"ab\": it changes nothing",
        ),
        ("servers: embedded:1, users: {x: {password: x, rules: on}}", "may do everything"),
        ("servers: embedded:1, server_auth: {password: x}", "ask for no password"),
    ] {
        let said = said(rest);
        assert!(said.contains(word), "{rest}: {said}");
    }
    let nutcracker = "a:\n  listen: 127.0.0.1:1\n  redis: true\n  client_connections: 5\n  servers:\n    - a:1:1\n";
    let said = parse(nutcracker).warnings().join("\n");
    assert!(said.contains("no admin") && said.contains("`client_connections: 5` is obeyed"), "{said}");
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = root().join("tests/config");
    let said = config::load(&dir.join("absent.yaml")).unwrap_err().to_string();
    assert!(said.contains("absent.yaml: cannot be read: No such file"), "{said}");
    assert!(config::load(&dir).unwrap_err().to_string().contains("cannot be read"));
    let said = config::load(&dir.join("latin1.yaml")).unwrap_err().to_string();
    assert!(said.ends_with("latin1.yaml:2:4: read a byte that is not UTF-8, expected text"), "{said}");
    let said = problems(&"#".repeat(2 << 20));
    assert_eq!(said, "proxy.yaml: more than 1048576 bytes, expected a configuration file");
}

#[test]
fn endless_problems_end() {
    let many: String = (0..5000).map(|i| format!("key{i}: 1\n")).collect();
    let said = problems(&many);
    assert_eq!(said.lines().count(), 51);
    assert!(said.ends_with("proxy.yaml: 4951 more problems are not shown"), "{said}");
}

#[test]
fn import_refuses_a_proxy_yaml() {
    let text = fs::read_to_string(root().join("proxy.yaml")).unwrap();
    let said = config::import(&text, Path::new("proxy.yaml")).unwrap_err().to_string();
    assert_eq!(said, "proxy.yaml: read a proxy.yaml, expected a nutcracker.yml");
}

/// Any text gives a configuration or problems with places inside it; nothing panics. Cuts and swaps of the example.
#[test]
fn broken_examples_do_not_panic() {
    let text = fs::read_to_string(root().join("tests/config/nutcracker_classic.yml")).unwrap();
    let marks = [":", "-", "\"", "{", "[", "&a ", "*a", "!", "#", "\t", "~", "|\n", "? ", "é"];
    for (i, _) in text.char_indices().step_by(7) {
        let mark = marks[i % marks.len()];
        for broken in [text[..i].to_owned(), format!("{}{mark}{}", &text[..i], &text[i..])] {
            if let Err(problems) = config::parse(&broken, Path::new("x")) {
                let lines = broken.lines().count() + 1;
                assert!(problems.iter().all(|p| p.place.is_none_or(|(line, _)| line <= lines)), "{problems}\n{broken}");
            }
        }
    }
}

/// What is said of a topology is what is meant, and told again without its secrets.
#[test]
fn topologies() {
    let config = parse(
        r#"
pools:
  cluster:
    listen: 127.0.0.1:1
    servers: [a:7001, "[::1]:7002"]
    topology: cluster
    announce: {"10.0.0.5:7001": "127.0.0.1:7001", "10.0.0.6": b}
  sentinel:
    listen: 127.0.0.1:2
    servers: [c:26379]
    topology: sentinel
    topology_interval: 5s
    masters: [one, "two:3"]
    sentinel_auth: {user: u, password: geheim}
    pin: {"x:": two}
"#,
    );
    let Topology::Cluster { asked, redirect_wait } = &config.pools[0].upstream.topology else { panic!("no cluster") };
    assert_eq!(asked.at.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:7001", "[::1]:7002"]);
    assert_eq!(asked.reached("10.0.0.5", 7001), Some("127.0.0.1:7001".parse().unwrap()));
    assert_eq!(asked.reached("10.0.0.6", 7), Some("b:7".parse().unwrap()));
    assert_eq!((asked.interval, *redirect_wait), (Duration::from_secs(30), Duration::from_secs(2)));
    assert_eq!(servers(&config, 0), []);
    assert_eq!(config.pools[0].upstream.databases, 1);
    let Topology::Sentinel { asked, masters, user, password, .. } = &config.pools[1].upstream.topology else {
        panic!("no sentinels")
    };
    assert_eq!(masters.iter().map(|m| (m.name.as_str(), m.weight)).collect::<Vec<_>>(), [("one", 1), ("two", 3)]);
    assert_eq!((user.as_deref(), password.as_ref().unwrap().expose()), (Some("u"), "geheim"));
    assert_eq!(asked.interval, Duration::from_secs(5));
    let told = config.masked_yaml();
    assert!(!told.contains("geheim"), "{told}");
    let mut again = parse(&told.replace(MASK, "geheim"));
    again.source.clone_from(&config.source);
    assert_eq!(again, config, "{told}");
}
