//! The servers' side.

use super::server;
use super::support::authority::Authority;
use super::support::{Client, FOREVER, Hotring, eventually, free_port, pool, wire};
use std::net::TcpListener;

/// What the log, `/metrics` and an app are told of a server that hotring does not believe.
fn told(hotring: &Hotring, why: &str) -> String {
    let mut said = String::new();
    let series = format!("hotring_server_tls_handshake_failures_total{{pool=\"main\",why=\"{why}\"}}");
    eventually("an app is told why", || {
        said = hotring.app().ask("GET k");
        said.starts_with("-ERR") && hotring.metric(&series) > 0.0
    });
    said
}

#[test]
fn requests_go_to_servers_over_tls() {
    let ca = Authority::new();
    let own = ca.local("redis");
    let (one, a) = server(&ca, &own, &[]);
    let (two, b) = server(&ca, &own, &[]);
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    let hotring = Hotring::with_admin(&pool(&[a, b], &[&tls, "^workers: 2"]));
    let mut app = hotring.app();
    let mut many = Vec::new();
    for number in 0..3000 {
        many.extend(wire(&["SET", &format!("k{number}"), &"v".repeat(number % 300)]));
        many.extend(wire(&["GET", &format!("k{number}")]));
    }
    app.send(&many);
    for number in 0..3000 {
        assert_eq!(app.text(), "+OK\r\n");
        assert_eq!(app.reply().len(), format!("${}\r\n\r\n", number % 300).len() + number % 300);
    }
    let keys = [&one, &two].map(|redis| redis.client().ask("DBSIZE"));
    assert!(keys.iter().all(|count| count != ":0\r\n"), "{keys:?}");
    for length in [16_384, 200_000, 10 << 20] {
        let value: Vec<u8> = (0..length).map(|n: usize| (n * 7 + n / 251) as u8).collect();
        assert_eq!(app.call(&[&b"SET"[..], b"large", &value]), b"+OK\r\n");
        let reply = app.call(&["GET", "large"]);
        let head = format!("${length}\r\n").len();
        assert!(reply[head..head + length] == value, "{length}");
    }
    // On a connection of its own.
    let mut waits = hotring.app();
    waits.send(&wire(&["BLPOP", "list", "0"]));
    assert_eq!(hotring.app().ask("LPUSH list one"), ":1\r\n");
    assert_eq!(waits.text(), "*2\r\n$4\r\nlist\r\n$3\r\none\r\n");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("INCR n"), "+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), "*1\r\n:1\r\n");
    let mut ear = hotring.app();
    assert!(ear.ask("SUBSCRIBE news").contains("subscribe"));
    eventually("what is published is heard", || app.ask("PUBLISH news one") == ":1\r\n");
    assert!(ear.text().contains("one"));
    let shaken = "hotring_server_tls_handshakes_total{pool=\"main\"}";
    eventually("all are counted", || hotring.metric(shaken) >= 3.0);
}

#[test]
fn a_server_that_is_not_believed_gets_nothing_and_the_error_says_why() {
    let (ca, other) = (Authority::new(), Authority::new());
    let (expired, wrong) = (ca.expired("expired"), ca.issue("wrong", &["DNS:other.example"]));
    let (good, strange) = (ca.local("good"), other.local("strange"));
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    for (own, why, text) in [
        (&expired, "expired", "its certificate has expired"),
        (&wrong, "wrong_name", "its certificate is for another name"),
        (&strange, "unknown_issuer", "its certificate was issued by an unknown CA"),
    ] {
        let (redis, at) = server(&ca, own, &[]);
        let hotring = Hotring::with_admin(&pool(&[at], &[&tls, "connect_timeout: 5s"]));
        let said = told(&hotring, why);
        assert!(said.contains(text), "{said}");
        assert_eq!(redis.calls("get"), 0);
    }
    // It may be another name's on purpose.
    let (_redis, at) = server(&ca, &wrong, &[]);
    let named = format!("server_tls: {{ca: {}, server_name: other.example}}", ca.ca());
    assert_eq!(Hotring::start(&pool(&[&at], &[&named])).app().ask("SET k v"), "+OK\r\n");
    // Or anybody's, which is warned of.
    let (_redis, at) = server(&other, &strange, &[]);
    let yaml = pool(&[at], &["server_tls: {verify: false}"]);
    assert_eq!(Hotring::start(&yaml).app().ask("SET k v"), "+OK\r\n");
    let config = hotring::config::parse(&yaml, std::path::Path::new("test.yaml")).unwrap();
    assert!(config.warnings().iter().any(|said| said.contains("`server_tls.verify: false`")));
    // One that has none, and one that wants ours.
    let (redis, _) = server(&ca, &good, &[]);
    drop(redis);
    let port = free_port();
    let silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let hotring = Hotring::with_admin(&pool(&[format!("127.0.0.1:{port}")], &[&tls, "connect_timeout: 300ms"]));
    assert!(told(&hotring, "timeout").contains("no answer within connect_timeout"));
    drop(silent);
}

#[test]
fn servers_may_want_a_certificate() {
    let ca = Authority::new();
    let (own, mine) = (ca.local("redis"), ca.issue("hotring", &["DNS:hotring"]));
    let (_redis, at) = server(&ca, &own, &["--tls-auth-clients", "yes"]);
    let with = format!("server_tls: {{ca: {}, cert: {}, key: {}}}", ca.ca(), mine.cert, mine.key);
    assert_eq!(Hotring::start(&pool(&[&at], &[&with])).app().ask("SET k v"), "+OK\r\n");
    let without = format!("server_tls: {{ca: {}}}", ca.ca());
    let hotring = Hotring::with_admin(&pool(&[&at], &[&without, "connect_timeout: 5s"]));
    // TLS 1.3 has the server say so behind the handshake.
    let said = told(&hotring, "refused");
    assert!(said.contains("it wants a certificate from us"), "{said}");
}

#[test]
fn a_plain_server_is_told_from_one_with_tls() {
    let ca = Authority::new();
    let plain = super::support::Redis::tcp(&[]);
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    let hotring = Hotring::with_admin(&pool(&[plain.address()], &[&tls, "connect_timeout: 500ms"]));
    let mut said = String::new();
    eventually("an app is told", || {
        said = hotring.app().ask("GET k");
        said.starts_with("-ERR")
    });
    let because = ["no answer within connect_timeout", "does not speak TLS", "closed the connection during the TLS"];
    assert!(because.iter().any(|text| said.contains(text)), "{said}");
}

#[test]
fn a_server_that_is_killed_is_back_with_its_next_life() {
    let ca = Authority::new();
    let own = ca.local("redis");
    let (mut redis, at) = server(&ca, &own, &[]);
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    let hotring = Hotring::with_admin(&pool(&[at], &[&tls, "connect_timeout: 5s"]));
    let mut app = hotring.app();
    for round in 0..3 {
        eventually("it serves", || app.ask("SET k v") == "+OK\r\n");
        redis.kill();
        eventually("it is gone", || app.ask("GET k").starts_with("-ERR"));
        redis.restart();
        eventually("it is back", || app.ask("GET k") == "$-1\r\n");
        let shaken = "hotring_server_tls_handshakes_total{pool=\"main\"}";
        eventually("it is counted", || hotring.metric(shaken) > f64::from(round));
    }
}

#[test]
fn a_server_on_a_unix_socket_stays_plain() {
    let ca = Authority::new();
    let redis = super::support::Redis::start(&[]);
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    assert_eq!(Hotring::start(&pool(&[redis.address()], &[&tls])).app().ask("SET k v"), "+OK\r\n");
}

#[test]
fn replicas_and_gutters_are_spoken_to_in_the_same_way() {
    let ca = Authority::new();
    let own = ca.local("redis");
    let (primary, at) = server(&ca, &own, &[]);
    let port = at.rsplit_once(':').unwrap().1.to_owned();
    let authority = ca.ca();
    let follow = ["--replicaof", "127.0.0.1", &port, "--tls-replication", "yes", "--repl-diskless-sync-delay", "0"];
    let (replica, there) = server(&ca, &own, &[&follow[..], &["--tls-ca-cert-file", &authority]].concat());
    let linked = || replica.client().ask("INFO replication").contains("master_link_status:up");
    eventually("the replica follows", linked);
    let tls = format!("server_tls: {{ca: {}}}", ca.ca());
    let keys = [tls.as_str(), &format!("replicas: {{s0: [\"{there}\"]}}"), "read_from: prefer_replica"];
    let hotring = Hotring::start(&pool(&[at], &keys));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    eventually("the replica answers", || app.ask("GET k") == "$1\r\nv\r\n" && replica.calls("get") > 0);
    assert_eq!(primary.client().ask("GET k"), "$1\r\nv\r\n");
    // A gutter is another pool, with its own word.
    let (gutter, at) = server(&ca, &own, &[]);
    let dead = free_port();
    let yaml = format!(
        "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"127.0.0.1:{dead}:1 a\"]\n    \
         when_ejected: gutter:spare\n    server_failure_limit: 1\n  spare:\n    listen: 127.0.0.1:0\n    \
         servers: [\"{at}:1 b\"]\n    {tls}\n"
    );
    let hotring = Hotring::start(&yaml);
    let mut app = hotring.app();
    eventually("the gutter takes it", || app.ask("SET k v") == "+OK\r\n");
    assert_eq!(gutter.client().ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn both_sides_at_once() {
    let ca = Authority::new();
    let own = ca.local("both");
    let (_redis, at) = server(&ca, &own, &[]);
    let keys = [super::LISTEN, &super::tls(&own, ""), &format!("server_tls: {{ca: {}}}", ca.ca())];
    let hotring = Hotring::start(&pool(&[at], &keys));
    let mut app = ca.client().app(hotring.address(1));
    let value = vec![b'x'; 5 << 20];
    for _ in 0..3 {
        assert_eq!(app.call(&[&b"SET"[..], b"k", &value]), b"+OK\r\n");
        assert_eq!(app.call(&["GET", "k"]).len(), value.len() + 12);
    }
    let _ = (FOREVER, Client::connect(hotring.address(0)).ask("PING"));
}
