//! What access, sight and routes cost for each request: the same requests through a plain pool, through one with a prefix, a user with
//! rules, commands that are denied and a prefix that is counted by, and through one whose keys live in another pool. No sockets.
//!
//! `cargo bench --bench access` prints nanoseconds and allocations. With `POOL REQUESTS ROUNDS` (`full get 10000`) it only does so
//! many rounds of one of them, for a profiler to count: what two numbers of rounds differ in is what the rounds cost.

#![allow(unsafe_code, reason = "an allocator that counts can only be unsafe")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]
#![allow(missing_docs, unreachable_pub, reason = "not a library")]

#[path = "support/nowhere.rs"]
mod nowhere;
mod support;
#[allow(dead_code, reason = "not every benchmark asks for a key by its shard")]
#[path = "../tests/support/engine.rs"]
mod wires;

use hotring::acl::{Account, Denials, Guard, Users, denial};
use hotring::engine::{Engine, LineId, PoolConfig};
use hotring::stages::routes::Routes;
use nowhere::Nowhere;
use std::hint::black_box;
use std::sync::Arc;
use support::{head, measure};
use wires::{pool, request};

const PREFIX: &str = "team-a:";

/// Everything of access and sight: `rules` are those of the user that each session is.
fn full(rules: &str) -> PoolConfig {
    let user = Account {
        name: "default".into(),
        passwords: Vec::new(),
        nopass: true,
        rules: rules.into(),
        read_only: false,
        connections: None,
        prefix: None,
    };
    let denied = ["KEYS", "FLUSHALL"].map(|word| denial(word, &[]).expect("a command"));
    let mut full = pool(3, 1, false);
    full.users = Arc::new(Users::new(&[user], None).expect("users").with_prefix(PREFIX));
    full.guard = Guard::new(&Denials { commands: denied.into(), ..Denials::default() });
    full.prefixes = vec![PREFIX.into()];
    full
}

/// Requests of one session, and what the shards answer.
struct Traffic {
    name: &'static str,
    count: u64,
    requests: Vec<u8>,
    replies: Vec<(LineId, Vec<u8>)>,
}

/// The same requests for every pool: of keys that live where their servers' names lead, `prefix` put before them.
fn traffic(engine: &Engine, prefix: &str) -> Vec<Traffic> {
    let route = &engine.path(0).expect("a pool").route;
    let on = |shard, n: usize| {
        let name = |at: usize| format!("user:{}", 1000 + at);
        let mut there =
            (0..9000).map(name).filter(|key| route.home(format!("{prefix}{key}").as_bytes()) == Some(shard));
        there.nth(n).expect("keys enough")
    };
    let value = b"$16\r\n0123456789abcdef\r\n";
    let get = |shard, n| request(&format!("GET {}", on(shard, n)));
    let set = format!("SET {} {}", on(0, 0), "x".repeat(64));
    let mget: String = (0..10).map(|n| format!(" {}", on(n as u16 % 3, n))).collect();
    let array = |count: usize| [format!("*{count}\r\n").into_bytes(), value.repeat(count)].concat();
    vec![
        Traffic { name: "get", count: 1, requests: get(0, 0), replies: vec![(0, value.to_vec())] },
        Traffic { name: "set", count: 1, requests: request(&set), replies: vec![(0, b"+OK\r\n".to_vec())] },
        Traffic {
            name: "pipeline",
            count: 16,
            requests: (0..16).flat_map(|n| get(n as u16 % 3, n)).collect(),
            replies: vec![(0, value.repeat(6)), (1, value.repeat(5)), (2, value.repeat(5))],
        },
        Traffic {
            name: "mget",
            count: 1,
            requests: request(&format!("MGET{mget}")),
            replies: vec![(0, array(4)), (1, array(3)), (2, array(3))],
        },
    ]
}

impl Traffic {
    /// The session submits, all is flushed, every connection answers, all is flushed. The pool's connections begin with `first`.
    fn pass(&self, engine: &mut Engine, first: LineId) {
        black_box(engine.submit(0, &self.requests, 1, &mut Nowhere));
        engine.flush(&mut Nowhere);
        for (line, bytes) in &self.replies {
            black_box(engine.receive(first + *line, bytes, 2, &mut Nowhere).expect("replies"));
        }
        engine.flush(&mut Nowhere);
    }
}

/// A pool all of whose keys live in another, and that other one; and the other's first connection.
fn routed() -> (Engine, LineId) {
    let routes = vec![(b"user:"[..].into(), "there".to_owned())];
    let (mut engine, _) = wires::engine(PoolConfig { routes: Routes::new(routes), ..pool(3, 1, false) }, 1);
    let (_, lines) = engine.add_pool(PoolConfig { name: "there".into(), ..pool(3, 1, false) });
    let first = lines.start;
    lines.for_each(|line| engine.connected(line, 0));
    (engine, first)
}

fn main() {
    let alone = |config| (wires::engine(config, 1).0, 0);
    let pools: [(&str, &str, (Engine, LineId)); 4] = [
        ("plain", "", alone(pool(3, 1, false))),
        ("full", PREFIX, alone(full("~* &* +@all -@dangerous"))),
        ("patterns", PREFIX, alone(full("~user:* ~session:* &* +@all -@dangerous"))),
        ("routed", "", routed()),
    ];
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, prefix, (mut engine, first)) in pools {
        let all = traffic(&engine, prefix);
        if let [wanted, requests, rounds] = arguments.as_slice() {
            let one = all.iter().find(|traffic| traffic.name == requests && wanted == name);
            let rounds: u64 = rounds.parse().expect("a number of rounds");
            one.into_iter().for_each(|traffic| (0..rounds).for_each(|_| traffic.pass(&mut engine, first)));
            continue;
        }
        head(&format!("{name}, for each request"));
        for traffic in &all {
            measure(traffic.name, traffic.count, || traffic.pass(&mut engine, first));
        }
    }
}
