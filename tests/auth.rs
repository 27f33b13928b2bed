//! Passwords on both sides: Redis' words towards apps, AUTH towards servers, and neither side sees the other's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, Scratch, eventually, shards, shards_with, wire};

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const NO_PASSWORD: &str = "-ERR AUTH <password> called without any password configured for the default user. Are you sure \
                           your configuration is correct?\r\n";

#[test]
fn redis_auth_is_for_both_sides() {
    let (redis, at) = shards_with(3, &["--requirepass", "secret"]);
    let hotring = Hotring::over(&at, &["redis_auth: secret"]);
    let mut app = hotring.app();
    for words in ["GET k", "SET k v", "MGET a b c", "PING", "ECHO x", "INFO", "CLIENT ID"] {
        assert_eq!(app.ask(words), NOAUTH, "{words}");
    }
    assert_eq!(app.ask("AUTH wrong"), WRONGPASS);
    assert_eq!(app.ask("GET k"), NOAUTH);
    assert_eq!(app.ask("AUTH secret"), "+OK\r\n");
    for n in 0..30 {
        assert_eq!(app.ask(&format!("SET key:{} v", n * 997)), "+OK\r\n");
    }
    for redis in &redis {
        let mut direct = redis.client();
        assert_eq!(direct.ask("AUTH secret"), "+OK\r\n");
        assert_ne!(direct.ask("DBSIZE"), ":0\r\n", "every shard was opened with the password");
    }
    // A wrong password takes nothing away from a session that has given the right one, as in Redis.
    assert_eq!(app.ask("AUTH wrong"), WRONGPASS);
    assert_eq!(app.ask("GET key:0"), "$1\r\nv\r\n");
    // One session's password is nobody else's.
    assert_eq!(hotring.app().ask("GET key:0"), NOAUTH);
}

#[test]
fn an_app_without_a_password_hears_what_redis_says() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let hotring = Hotring::over(&[redis.address()], &["redis_auth: secret"]);
    // In one session each: what was said before matters.
    for script in [
        &["PING", "AUTH default secret", "PING"][..],
        &["AUTH default wrong", "AUTH other secret", "AUTH a b c", "AUTH", "PING"],
        &["HELLO", "HELLO 2", "HELLO 2 AUTH default wrong", "HELLO 4", "HELLO 2 SETNAME x", "PING"],
        &["QUIT"],
        &["RESET", "PING", "AUTH secret", "RESET", "PING"],
        &["GET", "NONSENSE", "MSET a", "CLIENT", "CLIENT NONSENSE", "COMMAND COUNT"],
        &["AUTH secret", "AUTH secret", "AUTH wrong", "ECHO x", "MSET a", "AUTH a b c"],
    ] {
        let (mut app, mut direct) = (hotring.app(), redis.client());
        for words in script {
            let (mut said, mut expected) = (app.ask(words), direct.ask(words));
            if expected.starts_with("-NOAUTH HELLO must be called ") {
                // What follows differs between the versions of Redis.
                said.truncate(29);
                expected.truncate(29);
            }
            assert_eq!(said, expected, "{words} of {script:?}");
        }
    }
    let mut app = hotring.app();
    assert!(app.ask("HELLO 2 AUTH default secret").starts_with("*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
}

#[test]
fn before_auth_a_request_must_be_small() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let hotring = Hotring::over(&[redis.address()], &["redis_auth: secret"]);
    let bulk = |length: usize| format!("*2\r\n$4\r\nAUTH\r\n${length}\r\n");
    for (bytes, reply) in [
        ("*11\r\n".to_owned(), "-ERR Protocol error: unauthenticated multibulk length\r\n"),
        (bulk(16_385), "-ERR Protocol error: unauthenticated bulk length\r\n"),
    ] {
        for mut client in [hotring.app(), redis.client()] {
            client.send(bytes.as_bytes());
            assert_eq!(String::from_utf8(client.rest()).unwrap(), reply);
        }
        let mut app = hotring.app();
        assert_eq!(app.ask("AUTH secret"), "+OK\r\n");
        app.send(bytes.as_bytes());
        let rest = [b"$1\r\nx\r\n".repeat(11), vec![b'x'; 16_385], b"\r\n".to_vec()];
        app.send(if bytes == "*11\r\n" { &rest[0] } else { &rest[1] });
        app.send(if bytes == "*11\r\n" { b"" } else { &rest[2] });
        let said = app.text();
        assert!(!said.contains("Protocol error"), "the bound ends with AUTH: {said}");
    }
    let mut app = hotring.app();
    app.send(format!("{}{}\r\n", bulk(16_384), "x".repeat(16_384)).as_bytes());
    assert_eq!(app.text(), WRONGPASS);
    // Pipelined behind AUTH, in the same bytes, the bound is gone.
    let mut requests = wire(&["AUTH", "secret"]);
    let many: Vec<String> = ["DEL".to_owned()].into_iter().chain((0..20).map(|n| n.to_string())).collect();
    requests.extend(wire(&many));
    app.send(&requests);
    assert_eq!((app.text(), app.text()), ("+OK\r\n".into(), ":0\r\n".into()));
}

#[test]
fn client_auth_is_for_apps_only() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["client_auth: {password: door}"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("GET k"), NOAUTH);
    assert_eq!(app.ask("AUTH door"), "+OK\r\n");
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    assert_eq!(redis.client().ask("GET k"), "$1\r\nv\r\n");
    assert_eq!(redis.calls("auth"), 0);
}

#[test]
fn server_auth_is_for_servers_only() {
    let user = ["--user", "hotring", "on", ">pass word", "~*", "+@all", "--user", "default", "off"];
    let redis = Redis::start(&user);
    let dir = Scratch::new();
    let file = dir.write("password", "pass word\n");
    let password = format!("server_auth: {{user: hotring, password_file: {file}}}");
    let hotring = Hotring::over(&[redis.address()], &[&password, "redis_db: 2"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    assert_eq!(app.ask("AUTH whatever"), NO_PASSWORD);
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    let mut direct = redis.client();
    assert_eq!(direct.call(&["AUTH", "hotring", "pass word"]), b"+OK\r\n");
    let list = direct.ask("CLIENT LIST");
    assert!(list.lines().any(|line| line.contains(" user=hotring ") && line.contains(" db=2 ")), "{list}");
}

#[test]
fn apps_and_servers_may_have_different_passwords() {
    let redis = Redis::start(&["--requirepass", "inside"]);
    let keys = ["client_auth: {password: outside}", "server_auth: {password: inside}"];
    let hotring = Hotring::over(&[redis.address()], &keys);
    let mut app = hotring.app();
    assert_eq!(app.ask("AUTH inside"), WRONGPASS);
    assert_eq!(app.ask("AUTH outside"), "+OK\r\n");
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
}

#[test]
fn a_server_that_wants_another_password_is_told_of() {
    let locked = Redis::start(&["--requirepass", "right"]);
    let open = Redis::start(&[]);
    let ask = |redis: &Redis, keys: &[&str]| Hotring::over(&[redis.address()], keys).app().ask("SET k v");
    let text = |reason| format!("-ERR shard s0 cannot be reached ({reason}); nothing was sent\r\n");
    assert_eq!(ask(&locked, &[]), text("it wants a password"));
    assert_eq!(ask(&locked, &["server_auth: {password: wrong}"]), text("it refused the password"));
    assert_eq!(ask(&locked, &["server_auth: {user: nobody, password: right}"]), text("it refused the password"));
    assert_eq!(ask(&open, &["server_auth: {password: x}"]), text("it has no password but one is configured"));
    assert_eq!(ask(&open, &["redis_db: 99"]), text("it has no such database"));
    // It heals when the server does.
    let hotring = Hotring::over(&[locked.address()], &[]);
    let mut app: Client = hotring.app();
    assert_eq!(app.ask("SET k v"), text("it wants a password"));
    let mut direct = locked.client();
    assert_eq!(direct.ask("AUTH right"), "+OK\r\n");
    assert_eq!(direct.call(&["CONFIG", "SET", "requirepass", ""]), b"+OK\r\n");
    eventually("the shard is back", || app.ask("SET k v") == "+OK\r\n");
}

#[test]
fn users_do_what_their_rules_allow_in_redis_words() {
    let (_redis, at) = shards(3);
    let users = [
        "users:",
        "  app: { password: one, rules: '+@all -@dangerous ~app:* &app.*' }",
        "  reader: { passwords: [two, three], rules: '+@all ~*', read_only: true }",
        "  default: { nopass: true, rules: '+ping +hello +auth' }",
    ];
    let hotring = Hotring::over(&at, &users);
    let mut app = hotring.app();
    let denied = |what: &str| format!("-NOPERM this user has no permissions to {what}\r\n");
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    assert_eq!(app.ask("GET app:1"), denied("run the 'get' command"));
    assert!(app.ask("AUTH app two").starts_with("-WRONGPASS "));
    assert_eq!(app.ask("AUTH app one"), "+OK\r\n");
    assert_eq!(app.ask("SET app:1 v"), "+OK\r\n");
    assert_eq!(app.ask("CLIENT GETNAME"), "$-1\r\n");
    assert_eq!(app.ask("SET other v"), denied("access one of the keys used as arguments"));
    assert_eq!(app.ask("MGET app:1 other"), denied("access one of the keys used as arguments"));
    assert_eq!(app.ask("FLUSHALL"), denied("run the 'flushall' command"));
    assert_eq!(app.ask("SUBSCRIBE other"), denied("access one of the channels used as arguments"));
    // An EXEC that is denied ends the transaction all the same.
    let another = Hotring::over(&at, &["users:", "  default: { nopass: true, rules: '+@all -exec ~*' }"]);
    let mut other = another.app();
    assert_eq!([other.ask("MULTI"), other.ask("SET app:1 x")], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(other.ask("EXEC").starts_with("-EXECABORT Transaction discarded because of: NOPERM "));
    assert_eq!(other.ask("GET app:1"), "$1\r\nv\r\n");
    // A transaction is spoilt by it, before and behind its first key.
    for first in ["GET app:1", "PING"] {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(first), "+QUEUED\r\n");
        assert_eq!(app.ask("GET other"), denied("access one of the keys used as arguments"));
        assert_eq!(app.ask("EXEC"), "-EXECABORT Transaction discarded because of previous errors.\r\n");
    }
    for password in ["two", "three"] {
        assert_eq!(app.ask(&format!("AUTH reader {password}")), "+OK\r\n");
        assert_eq!(app.ask("GET app:1"), "$1\r\nv\r\n");
        assert_eq!(app.ask("DEL app:1"), denied("run the 'del' command"));
    }
    assert_eq!(app.ask("RESET"), "+RESET\r\n");
    assert_eq!(app.ask("GET app:1"), denied("run the 'get' command"));
    // Nobody else's session has changed meanwhile.
    let mut other = hotring.app();
    assert_eq!(other.ask("GET app:1"), denied("run the 'get' command"));
    assert_eq!(other.ask("HELLO 2 AUTH app one SETNAME x").as_bytes()[0], b'*');
    assert_eq!(other.ask("GET app:1"), "$1\r\nv\r\n");
}

#[test]
fn commands_that_are_described_are_for_users_too() {
    let (_redis, at) = shards(1);
    let keys = [
        "^commands: { probe.get: { keys: '1,1,1', access: read }, probe.set: { keys: '1,1,1', access: write } }",
        "users:",
        "  all: { password: x, rules: '+@all ~a*' }",
        "  reader: { password: x, rules: '+@read ~*' }",
        "  careful: { password: x, rules: '+@all ~*', read_only: true }",
    ];
    let hotring = Hotring::over(&at, &keys);
    let carried = |said: &str| said.starts_with("-ERR unknown command 'PROBE.");
    for (user, words, may) in [
        ("all", "PROBE.GET a", true),
        ("all", "PROBE.SET a", true),
        ("all", "PROBE.GET b", false),
        ("reader", "PROBE.GET b", true),
        ("reader", "PROBE.SET b", false),
        ("careful", "PROBE.GET b", true),
        ("careful", "PROBE.SET b", false),
    ] {
        let mut app = hotring.app();
        assert_eq!(app.ask(&format!("AUTH {user} x")), "+OK\r\n");
        let said = app.ask(words);
        assert!(if may { carried(&said) } else { said.starts_with("-NOPERM ") }, "{user} {words}: {said}");
    }
    let mut app = hotring.app();
    assert_eq!(app.ask("ACL WHOAMI"), "$7\r\ndefault\r\n");
    app.ask("AUTH all x");
    assert_eq!(app.ask("ACL WHOAMI"), "$3\r\nall\r\n");
}
