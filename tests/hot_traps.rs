//! Hot keys that are kept in memory, against real servers: what would go wrong if one thing were forgotten. A test, a trap.
//!
//! Answers may be as old as a minute here, so that only what is told of a change, and nothing that runs out, makes them new.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "hot_traps/ends.rs"]
mod ends;
#[path = "hot_traps/requests.rs"]
mod requests;
#[path = "hot_traps/servers.rs"]
mod servers;
#[path = "hot_traps/shapes.rs"]
mod shapes;
mod support;
#[path = "hot_traps/writers.rs"]
mod writers;

use std::time::Duration;
use support::{Client, Hotring, Redis, Site, eventually, home, key_on, keys_on, now, pool, shards, wire};

const NEAR: &str = "hot_keys: {reads: near, max_staleness: 60s}";
const HITS: &str = "hotring_near_hits_total{pool=\"main\"}";

fn bulk(value: &str) -> String {
    format!("${}\r\n{value}\r\n", value.len())
}

/// Whether the one GET that an app sends is answered without its server, with what it must be answered.
fn is_near(app: &mut Client, owner: &Redis, key: &str, reply: &str) -> bool {
    let before = owner.calls("get");
    assert_eq!(String::from_utf8_lossy(&app.call(&["GET", key])), reply, "{key}");
    owner.calls("get") == before
}

/// Asks for a key until it is answered from memory, and then as often that it is worth keeping. All the time it must be what
/// it is.
fn warm(app: &mut Client, owner: &Redis, key: &str, reply: &str) {
    let ask = |app: &mut Client| {
        app.send(&wire(&["GET", key]).repeat(100));
        for _ in 0..100 {
            assert_eq!(app.text(), reply, "{key}");
        }
    };
    eventually("it is answered from memory", || {
        ask(app);
        is_near(app, owner, key, reply)
    });
    ask(app);
}

/// One server, and a hotring over it.
struct Stand {
    redis: Redis,
    hotring: Hotring,
}

impl Stand {
    fn new() -> Self {
        Self::with(&[], &[NEAR])
    }

    fn with(arguments: &[&str], keys: &[&str]) -> Self {
        let redis = Redis::start(arguments);
        let hotring = Hotring::with_admin(&pool(&[redis.address()], keys));
        Self { redis, hotring }
    }

    fn app(&self) -> Client {
        self.hotring.app()
    }

    /// The same key again, from memory.
    fn warm(&self, app: &mut Client, key: &str, value: &str) {
        warm(app, &self.redis, key, &bulk(value));
    }
}

/// What is kept ends by itself after half a minute: what is told of a change must come before that.
const SOON: Duration = Duration::from_secs(25);

fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = now();
    eventually(what, || {
        assert!(begun.elapsed() < SOON, "still not so: {what}");
        is_so()
    });
}

/// What others did at the server is heard of here.
fn comes(app: &mut Client, key: &str, reply: &str) {
    soon("the change is heard of", || app.ask(&format!("GET {key}")) == reply);
}
