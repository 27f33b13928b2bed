//! What the engine costs for each request: an app's bytes in, a shard's bytes out, the reply in and out again, without
//! sockets. `cargo bench --bench engine` prints nanoseconds and allocations.

#![allow(unsafe_code, reason = "an allocator that counts can only be unsafe")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]
#![allow(missing_docs, unreachable_pub, reason = "not a library")]

#[path = "support/nowhere.rs"]
mod nowhere;
mod support;
#[path = "../tests/support/engine.rs"]
mod wires;

use hotring::acl::Users;
use hotring::chance::splitmix;
use hotring::command::lookup;
use hotring::engine::{Engine, LineId, SessionId};
use hotring::stages::hot::{Config, Site};
use hotring::stages::{Hot, Leg, Notices, Stage};
use nowhere::Nowhere;
use std::hint::black_box;
use std::sync::Arc;
use support::{head, measure};
use wires::{Wires, engine, key_on, pool, request};

/// One pass: every session submits, all is flushed, every connection answers, all is flushed.
fn pass(engine: &mut Engine, requests: &[(SessionId, &[u8])], replies: &[(LineId, &[u8])]) {
    for (session, bytes) in requests {
        black_box(engine.submit(*session, bytes, 1, &mut Nowhere));
    }
    engine.flush(&mut Nowhere);
    for (line, bytes) in replies {
        black_box(engine.receive(*line, bytes, 2, &mut Nowhere).expect("replies"));
    }
    engine.flush(&mut Nowhere);
}

fn main() {
    let values = |count: usize| b"$16\r\n0123456789abcdef\r\n".repeat(count);
    let array = |count: usize| [format!("*{count}\r\n").into_bytes(), values(count)].concat();

    head("one request at a time, 3 shards");
    let (mut engine, _) = engine(pool(3, 1, false), 1);
    let keys: Vec<String> = (0..3).map(|shard| key_on(&engine, shard)).collect();
    let get = request(&format!("GET {}", keys[0]));
    let value = values(1);
    measure("GET, 16 B", 1, || pass(&mut engine, &[(0, &get)], &[(0, &value)]));
    let set = request(&format!("SET {} {}", keys[0], "x".repeat(64)));
    measure("SET, 64 B", 1, || pass(&mut engine, &[(0, &set)], &[(0, b"+OK\r\n")]));
    let long = request(&format!("SET {} {}", keys[0], "x".repeat(65_536)));
    measure("SET, 64 KiB", 1, || pass(&mut engine, &[(0, &long)], &[(0, b"+OK\r\n")]));
    let ping = request("PING");
    measure("PING", 1, || pass(&mut engine, &[(0, &ping)], &[]));

    head("the same of a session whose keys have a prefix");
    let mut tenants = pool(3, 1, false);
    tenants.users = Arc::new(Users::new(&[], None).expect("users").with_prefix("team-a:"));
    let (mut shared, _) = wires::engine(tenants, 1);
    let leads = |key: &String| shared.path(0).and_then(|path| path.route.home(format!("team-a:{key}").as_bytes()));
    let own = (0..).map(|n| format!("k{n}")).find(|key| leads(key) == Some(0)).expect("endless");
    let get_own = request(&format!("GET {own}"));
    measure("GET, 16 B, with a prefix", 1, || pass(&mut shared, &[(0, &get_own)], &[(0, &value)]));
    let set_own = request(&format!("SET {own} {}", "x".repeat(64)));
    measure("SET, 64 B, with a prefix", 1, || pass(&mut shared, &[(0, &set_own)], &[(0, b"+OK\r\n")]));
    let pop = request(&format!("LMPOP 1 {own} LEFT"));
    let popped = format!("*2\r\n${}\r\nteam-a:{own}\r\n*1\r\n$1\r\nv\r\n", 7 + own.len()).into_bytes();
    measure("LMPOP, with a prefix", 1, || pass(&mut shared, &[(0, &pop)], &[(0, &popped)]));

    head("a pipeline of 16 GET, for each request");
    let same: Vec<u8> = get.repeat(16);
    let all = values(16);
    measure("one shard", 16, || pass(&mut engine, &[(0, &same)], &[(0, &all)]));
    let mixed: Vec<u8> = (0..16).flat_map(|i| request(&format!("GET {}", keys[i % 3]))).collect();
    let (six, five) = (values(6), values(5));
    let in_turn: [(LineId, &[u8]); 3] = [(0, &six), (1, &five), (2, &five)];
    measure("three shards, the first answers first", 16, || pass(&mut engine, &[(0, &mixed)], &in_turn));
    let last: [(LineId, &[u8]); 3] = [(2, &five), (1, &five), (0, &six)];
    measure("three shards, the first answers last", 16, || pass(&mut engine, &[(0, &mixed)], &last));

    head("split over 3 shards, for each request");
    for count in [10, 100] {
        let names: String = (0..count).map(|i| format!(" {}", keys[i % 3])).collect();
        let mget = request(&format!("MGET{names}"));
        let parts: Vec<Vec<u8>> = (0..3).map(|part| array((count + 2 - part) / 3)).collect();
        let replies: Vec<(LineId, &[u8])> = (0..3).map(|line| (line, parts[line as usize].as_slice())).collect();
        measure(&format!("MGET of {count}"), 1, || pass(&mut engine, &[(0, &mget)], &replies));
    }
    let del = request(&format!("DEL {} {} {}", keys[0], keys[1], keys[2]));
    let ones: [(LineId, &[u8]); 3] = [(0, b":1\r\n"), (1, b":1\r\n"), (2, b":1\r\n")];
    measure("DEL of 3", 1, || pass(&mut engine, &[(0, &del)], &ones));

    head("hot keys: what the detector costs each request, keys by Zipf's law");
    for (name, rate) in [("each looked at", 4_000), ("one of eight looked at", 1_000_000)] {
        let mut hot = Hot::new(Config::default(), 1, Arc::default()).at(Site { shards: 16, replicas: false });
        let names: Vec<String> = (0..65_536).map(|n| format!("key:{}", zipf(n))).collect();
        let get = lookup(b"get").expect("a command");
        let (mut now, mut next) = (1_000_000, 0);
        measure(name, 1_000, || {
            for key in &names[next..next + 1_000] {
                if let Some(hash) = hot.count(black_box(&Leg::new(get, key.as_bytes(), b""))) {
                    hot.weigh(hash, 100);
                }
            }
            next = (next + 1_000) % 65_000;
            now += 1_000_000_000 / rate;
            hot.tick(now, &mut Notices::default());
        });
    }

    for coalesce in [false, true] {
        head(&format!("50 sessions, one pass, coalesce {}", if coalesce { "on" } else { "off" }));
        let (mut engine, Wires { .. }) = wires::engine(pool(3, 1, coalesce), 50);
        let hot: Vec<(SessionId, &[u8])> = (0..50).map(|session| (session, get.as_slice())).collect();
        let answers = values(if coalesce { 1 } else { 50 });
        measure("GET, all of one key", 50, || pass(&mut engine, &hot, &[(0, &answers)]));
        let own: Vec<Vec<u8>> = (0..)
            .map(|n| format!("key:{n:06}"))
            .filter(|key| home(&engine, key) == 0)
            .take(50)
            .map(|key| request(&format!("GET {key}")))
            .collect();
        let own: Vec<(SessionId, &[u8])> = (0..50).zip(own.iter().map(Vec::as_slice)).collect();
        let answers = values(50);
        measure("GET, each its own key", 50, || pass(&mut engine, &own, &[(0, &answers)]));
    }
}

/// A rank from 0, about as Zipf's law with 0.99 has it for a million keys.
fn zipf(n: u64) -> u64 {
    let draw = splitmix(n) as f64 / u64::MAX as f64;
    1e6_f64.powf(draw) as u64
}

fn home(engine: &Engine, key: &str) -> u16 {
    engine.path(0).and_then(|path| path.route.ring().shard_of(key.as_bytes())).expect("a shard")
}
