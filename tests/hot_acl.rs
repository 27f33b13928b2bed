//! What is kept in memory is for those only who may read it at its server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod support;

use hotring::acl::{Account, Users};
use hotring::engine::{Engine, PoolConfig, SessionId};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads, Tracking, Value};
use hotring::units::Secret;
use std::sync::Arc;
use support::{Wires, engine, pool, request};

const KEPT: &str = "$6\r\nsecret\r\n";

fn user(name: &str, rules: &str) -> Account {
    let (name, rules) = (name.to_owned(), format!("on {rules}"));
    Account {
        name,
        passwords: vec![Secret::new("pass")],
        nopass: false,
        rules,
        read_only: false,
        connections: None,
        prefix: None,
    }
}

/// A pool with these users, and `client_auth` where `default` is not among them.
fn with_users(users: &[Account], client_auth: Option<&str>) -> PoolConfig {
    let mut pool = pool(1, 1, false);
    pool.path.hot = Hot::new(Config { reads: Reads::Near, ..Config::default() }, 7, Default::default());
    pool.users = Arc::new(Users::new(users, client_auth.map(Secret::new).as_ref()).unwrap());
    pool
}

struct Stand {
    engine: Engine,
    wires: Wires,
    now: u64,
}

impl Stand {
    /// One shard, with `a:1` and `b:1` hot and kept.
    fn new(pool: PoolConfig, sessions: usize) -> Self {
        let (engine, wires) = engine(pool, sessions);
        let mut stand = Self { engine, wires, now: 0 };
        stand.keep();
        stand
    }

    fn keep(&mut self) {
        let hot = &mut self.engine.path_mut(0).unwrap().hot;
        for key in [&b"a:1"[..], b"b:1"] {
            hot.enter(key, 0, Means::Near, self.now);
            hot.track(0, Tracking::On, self.now);
            let hash = hot.hash(key);
            let fill = hot.begin_fill(hash, self.now).unwrap();
            assert!(hot.end_fill(hash, fill.number, Value::of(KEPT.as_bytes()), -1, self.now));
        }
    }

    /// What the app is told at once, without any shard.
    fn ask(&mut self, session: SessionId, line: &str) -> String {
        self.send(session, &request(line))
    }

    fn send(&mut self, session: SessionId, bytes: &[u8]) -> String {
        self.now += 1;
        self.engine.submit(session, bytes, self.now, &mut self.wires);
        self.engine.flush(&mut self.wires);
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    fn hits(&mut self) -> u64 {
        self.engine.pool_counts(0).unwrap().near_hits
    }

    /// What was sent to the shard.
    fn sent(&mut self) -> String {
        String::from_utf8(self.wires.shards.iter_mut().flat_map(std::mem::take).collect()).unwrap()
    }

    fn reload(&mut self, pool: PoolConfig) {
        self.now += 1;
        self.engine.reload(0, pool, self.now, &mut self.wires);
        self.keep();
    }

    /// Asked for these keys, the app is denied, and neither memory nor the shard was asked.
    fn is_denied(&mut self, session: SessionId, keys: &[&str], how: &str) {
        let before = self.hits();
        for key in keys {
            let told = self.ask(session, &format!("GET {key}"));
            assert!(told.starts_with(how), "{key}: {told}");
            assert_eq!(self.sent(), "", "{key}");
        }
        assert_eq!(self.hits(), before);
    }

    fn is_served(&mut self, session: SessionId, keys: &[&str]) {
        let before = self.hits();
        for key in keys {
            assert_eq!(self.ask(session, &format!("GET {key}")), KEPT, "{key}");
        }
        assert_eq!(self.hits(), before + keys.len() as u64);
        assert_eq!(self.sent(), "");
    }
}

#[test]
fn a_key_that_is_none_of_the_users_is_denied_though_it_is_in_memory() {
    let users = [user("app", "+@all ~a:*"), user("writer", "+@all %W~b:* %R~a:*"), user("all", "+@all ~*")];
    let mut s = Stand::new(with_users(&users, None), 4);
    for (session, name) in [(1, "app"), (2, "writer"), (3, "all")] {
        assert_eq!(s.ask(session, &format!("AUTH {name} pass")), "+OK\r\n");
    }
    s.is_served(0, &["a:1", "b:1"]);
    s.is_served(1, &["a:1"]);
    s.is_denied(1, &["b:1"], "-NOPERM");
    s.is_served(2, &["a:1"]);
    s.is_denied(2, &["b:1"], "-NOPERM");
    s.is_served(3, &["b:1", "a:1"]);
    // Whoever was served just before.
    s.is_denied(1, &["b:1"], "-NOPERM");
}

#[test]
fn one_key_that_may_not_be_read_denies_all_of_an_mget() {
    let users = [user("app", "+@all ~a:*"), user("mute", "+get ~*")];
    let mut s = Stand::new(with_users(&users, None), 3);
    assert_eq!([s.ask(1, "AUTH app pass"), s.ask(2, "AUTH mute pass")], ["+OK\r\n", "+OK\r\n"]);
    let both = format!("*2\r\n{KEPT}{KEPT}");
    assert_eq!(s.ask(0, "MGET a:1 b:1"), both);
    assert_eq!(s.ask(1, "MGET a:1 a:1"), both);
    for (session, line) in [(1, "MGET a:1 b:1"), (1, "MGET b:1"), (2, "MGET a:1"), (2, "MGET a:1 b:1")] {
        let before = s.hits();
        let told = s.ask(session, line);
        assert!(told.starts_with("-NOPERM"), "{line}: {told}");
        assert_eq!((s.hits(), s.sent().as_str()), (before, ""), "{line}");
    }
}

#[test]
fn a_command_that_is_not_allowed_is_denied_though_its_answer_is_in_memory() {
    let users = [user("mute", "+@all -get ~*"), user("writer", "+@write -@read ~*"), user("hashes", "+@hash ~*")];
    let mut s = Stand::new(with_users(&users, None), 4);
    for (session, name) in [(1, "mute"), (2, "writer"), (3, "hashes")] {
        assert_eq!(s.ask(session, &format!("AUTH {name} pass")), "+OK\r\n");
        s.is_served(0, &["b:1"]);
        s.is_denied(session, &["a:1", "b:1"], "-NOPERM");
    }
}

#[test]
fn before_auth_nothing_in_memory_is_told() {
    let mut s = Stand::new(with_users(&[], Some("door")), 3);
    s.is_denied(0, &["a:1", "b:1"], "-NOAUTH");
    assert!(s.ask(0, "AUTH wrong").starts_with("-WRONGPASS"));
    s.is_denied(0, &["a:1"], "-NOAUTH");
    assert_eq!(s.ask(0, "AUTH door"), "+OK\r\n");
    s.is_served(0, &["a:1", "b:1"]);
    // In one go, in either order.
    assert_eq!(s.send(1, &[request("AUTH door"), request("GET b:1")].concat()), format!("+OK\r\n{KEPT}"));
    let told = s.send(2, &[request("GET b:1"), request("AUTH door")].concat());
    assert!(told.starts_with("-NOAUTH") && told.ends_with("+OK\r\n") && !told.contains("secret"), "{told}");
    // Whoever resets the session is nobody again.
    assert_eq!(s.ask(0, "RESET"), "+RESET\r\n");
    s.is_denied(0, &["a:1", "b:1"], "-NOAUTH");
}

#[test]
fn a_default_user_that_is_off_is_told_nothing() {
    let mut default = user("default", "+@all ~*");
    default.rules = "off +@all ~*".into();
    let mut s = Stand::new(with_users(&[default, user("app", "+@all ~a:*")], None), 1);
    s.is_denied(0, &["a:1", "b:1"], "-NOAUTH");
    assert_eq!(s.ask(0, "AUTH app pass"), "+OK\r\n");
    s.is_served(0, &["a:1"]);
    s.is_denied(0, &["b:1"], "-NOPERM");
}

#[test]
fn a_session_may_read_what_its_new_user_may() {
    let users = [user("one", "+@all ~a:*"), user("two", "+@all ~b:*")];
    let mut s = Stand::new(with_users(&users, None), 1);
    s.is_served(0, &["a:1", "b:1"]);
    assert_eq!(s.ask(0, "AUTH one pass"), "+OK\r\n");
    s.is_denied(0, &["b:1"], "-NOPERM");
    assert!(s.ask(0, "HELLO 3 AUTH two pass").starts_with('%'));
    s.is_denied(0, &["a:1"], "-NOPERM");
    s.is_served(0, &["b:1"]);
    // What failed changes nothing.
    assert!(s.ask(0, "AUTH one wrong").starts_with("-WRONGPASS"));
    s.is_denied(0, &["a:1"], "-NOPERM");
    assert_eq!(s.ask(0, "RESET"), "+RESET\r\n");
    s.is_served(0, &["a:1", "b:1"]);
}

#[test]
fn other_rules_hold_from_the_reload_on() {
    let rules = |rules: &str| with_users(&[user("app", rules)], None);
    let mut s = Stand::new(rules("+@all ~*"), 1);
    assert_eq!(s.ask(0, "AUTH app pass"), "+OK\r\n");
    s.is_served(0, &["a:1", "b:1"]);
    s.reload(rules("+@all ~a:*"));
    s.is_denied(0, &["b:1"], "-NOPERM");
    s.is_served(0, &["a:1"]);
    s.reload(rules("+@all -@string ~*"));
    s.is_denied(0, &["a:1", "b:1"], "-NOPERM");
    s.reload(rules("+@all ~*"));
    s.is_served(0, &["a:1", "b:1"]);
    // Whoever is no user any more is told nothing.
    s.reload(with_users(&[user("other", "+@all ~*")], None));
    let told = s.ask(0, "GET b:1");
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(s.sent(), "");
}

#[test]
fn a_password_that_is_demanded_from_now_on_is_demanded() {
    let mut s = Stand::new(with_users(&[], None), 2);
    s.is_served(0, &["b:1"]);
    s.reload(with_users(&[], Some("door")));
    let new = s.engine.open(0);
    s.wires.apps.push(Vec::new());
    s.is_denied(new, &["a:1", "b:1"], "-NOAUTH");
}
