//! The engine does not allocate for requests that are answered in order, and an idle session owns no buffer.

#![allow(unsafe_code, reason = "an allocator that counts can only be unsafe")]
#![allow(unreachable_pub, reason = "parts of one test")]

#[path = "../benches/support/counting.rs"]
mod counting;
#[path = "support/engine.rs"]
mod support;

use counting::{allocated, allocations};
use hotring::engine::Engine;
use support::{Wires, engine, key_on, pool, request};

/// Requests, and what each connection answers.
struct Round {
    requests: Vec<(u32, Vec<u8>)>,
    replies: Vec<(u32, Vec<u8>)>,
}

impl Round {
    fn play(&self, engine: &mut Engine, wires: &mut Wires) {
        for (session, bytes) in &self.requests {
            assert_eq!(engine.submit(*session, bytes, 1, wires).consumed, bytes.len());
        }
        engine.flush(wires);
        for (line, bytes) in &self.replies {
            assert_eq!(engine.receive(*line, bytes, 2, wires).expect("replies").0, bytes.len());
        }
        engine.flush(wires);
        wires.apps.iter_mut().chain(&mut wires.shards).for_each(Vec::clear);
    }

    /// Allocations of the dearest of many rounds, the first ones not counted.
    fn cost(&self, engine: &mut Engine, wires: &mut Wires) -> u64 {
        (0..64).for_each(|_| self.play(engine, wires));
        let most = (0..1000).map(|_| {
            let before = allocations();
            self.play(engine, wires);
            allocations() - before
        });
        most.max().expect("rounds")
    }
}

/// One request to one session over three shards, and its replies.
fn cost(coalesce: bool, requests: impl Fn(&[String]) -> Vec<u8>, replies: &[(u32, &[u8])]) -> u64 {
    let (mut engine, mut wires) = engine(pool(3, 1, coalesce), 1);
    let keys: Vec<String> = (0..3).map(|shard| key_on(&engine, shard)).collect();
    let replies = replies.iter().map(|(line, bytes)| (*line, bytes.to_vec())).collect();
    Round { requests: vec![(0, requests(&keys))], replies }.cost(&mut engine, &mut wires)
}

#[test]
fn hits_of_keys_with_leases_cost_nothing() {
    use hotring::stages::lease::{Config, Lease, Leases, Shared, Wanted};
    let mut pool = pool(1, 1, false);
    let wanted = Wanted { lease: Lease::Local, ..Wanted::default() };
    pool.leases = Leases::new(Config::new(wanted, Vec::new()).into(), Shared::new().into(), 0);
    let (mut engine, mut wires) = engine(pool, 1);
    let round =
        Round { requests: vec![(0, request("GET product:1"))], replies: vec![(0, b"$5\r\nvalue\r\n".to_vec())] };
    assert_eq!(round.cost(&mut engine, &mut wires), 0);
}

/// The same of sessions whose keys have a prefix on the servers, and of replies that name keys.
#[test]
fn a_prefix_costs_nothing() {
    let cost = |request: Vec<u8>, reply: &[u8]| {
        let mut pool = pool(1, 1, false);
        pool.users = std::sync::Arc::new(hotring::acl::Users::new(&[], None).expect("users").with_prefix("team-a:"));
        let (mut engine, mut wires) = engine(pool, 1);
        Round { requests: vec![(0, request)], replies: vec![(0, reply.to_vec())] }.cost(&mut engine, &mut wires)
    };
    assert_eq!(cost(request("GET k"), b"$5\r\nvalue\r\n"), 0);
    assert_eq!(cost(request(&format!("SET k {}", "x".repeat(100_000))), b"+OK\r\n"), 0);
    assert_eq!(cost(request("MGET a b c"), b"*3\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n"), 0);
    assert_eq!(cost(request("ZMPOP 2 a b MIN"), b"*2\r\n$8\r\nteam-a:a\r\n*1\r\n*2\r\n$1\r\nm\r\n$1\r\n1\r\n"), 0);
    let reads = request("XREAD STREAMS k 0").repeat(16);
    assert_eq!(cost(reads, &b"*1\r\n*2\r\n$8\r\nteam-a:k\r\n*0\r\n".repeat(16)), 0);
}

/// The same where everything of access and sight is on: rules of a user, commands that are denied, prefixes that are counted by.
#[test]
fn access_and_sight_cost_nothing() {
    use hotring::acl::{Account, Denials, Guard, Users};
    let cost = |request: Vec<u8>, reply: &[u8]| {
        let mut pool = pool(1, 1, false);
        let user = Account {
            name: "default".into(),
            passwords: Vec::new(),
            nopass: true,
            rules: "~user:* ~x &* +@all -@dangerous".into(),
            read_only: false,
            connections: None,
            prefix: Some("team-a:".into()),
        };
        pool.users = std::sync::Arc::new(Users::new(&[user], None).expect("users"));
        pool.guard = Guard::new(&Denials { commands: vec!["keys".into()], ..Denials::default() });
        pool.prefixes = vec![b"team-a:".to_vec(), b"team-b:".to_vec()];
        let (mut engine, mut wires) = engine(pool, 1);
        Round { requests: vec![(0, request)], replies: vec![(0, reply.to_vec())] }.cost(&mut engine, &mut wires)
    };
    assert_eq!(cost(request("GET user:1"), b"$5\r\nvalue\r\n"), 0);
    assert_eq!(cost(request("SET user:1 x"), b"+OK\r\n"), 0);
    assert_eq!(cost(request("GET user:1").repeat(16), &b"$5\r\nvalue\r\n".repeat(16)), 0);
    assert_eq!(cost(request("MGET user:1 user:2 x"), b"*3\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n"), 0);
}

#[test]
fn requests_with_one_key_cost_nothing() {
    assert_eq!(cost(false, |k| request(&format!("GET {}", k[0])), &[(0, b"$5\r\nvalue\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("SET {} {}", k[1], "x".repeat(64))), &[(1, b"+OK\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("INCR {}", k[2])), &[(2, b":1\r\n")]), 0);
    assert_eq!(cost(true, |k| request(&format!("GET {}", k[0])), &[(0, b"$5\r\nvalue\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("HGETALL {}", k[0])), &[(0, b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")]), 0);
}

#[test]
fn long_requests_and_replies_cost_nothing() {
    let long = "x".repeat(100_000);
    let reply = format!("$100000\r\n{long}\r\n");
    assert_eq!(cost(false, |k| request(&format!("SET {} {long}", k[0])), &[(0, b"+OK\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("GET {}", k[0])), &[(0, reply.as_bytes())]), 0);
}

#[test]
fn a_pipeline_over_several_shards_costs_nothing() {
    let pipeline = |k: &[String]| (0..16).flat_map(|i| request(&format!("GET {}", k[i % 3]))).collect();
    let part = |count| b"$5\r\nvalue\r\n".repeat(count);
    let (six, five) = (part(6), part(5));
    assert_eq!(cost(false, pipeline, &[(0, &six), (1, &five), (2, &five)]), 0, "in turn");
    assert_eq!(cost(false, pipeline, &[(2, &five), (1, &five), (0, &six)]), 0, "the first shard answers last");
}

#[test]
fn several_keys_on_one_shard_cost_nothing() {
    let reply = b"*3\r\n$1\r\na\r\n$-1\r\n$1\r\nc\r\n";
    assert_eq!(cost(false, |k| request(&format!("MGET {0} {0} {0}", k[0])), &[(0, reply)]), 0);
    assert_eq!(cost(false, |k| request(&format!("DEL {0} {0}", k[0])), &[(0, b":1\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("MSET {0} 1 {0} 2", k[0])), &[(0, b"+OK\r\n")]), 0);
    assert_eq!(cost(false, |k| request(&format!("RENAMENX {0} {0}", k[0])), &[(0, b":0\r\n")]), 0);
}

/// What has to be remembered of a split request is a list or two, however many keys it has.
#[test]
fn a_split_request_costs_a_few() {
    let keys = |k: &[String]| (0..99).map(|i| format!(" {}", k[i % 3])).collect::<String>();
    let reply = [b"*33\r\n".to_vec(), b"$5\r\nvalue\r\n".repeat(33)].concat();
    let replies: [(u32, &[u8]); 3] = [(2, &reply), (0, &reply), (1, &reply)];
    let mget = cost(false, |k| request(&format!("MGET{}", keys(k))), &replies);
    assert!(mget <= 3, "{mget}: the order of the keys, the parts' replies, the places in them");
    let sums: [(u32, &[u8]); 3] = [(0, b":33\r\n"), (1, b":33\r\n"), (2, b":33\r\n")];
    assert_eq!(cost(false, |k| request(&format!("DEL{}", keys(k))), &sums), 0);
    let oks: [(u32, &[u8]); 3] = [(0, b"+OK\r\n"), (1, b"+OK\r\n"), (2, b"+OK\r\n")];
    let pairs = |k: &[String]| request(&format!("MSET {} 1 {} 2 {} 3", k[0], k[1], k[2]));
    assert_eq!(cost(false, pairs, &oks), 0);
}

#[test]
fn what_hotring_answers_itself_costs_nothing() {
    assert_eq!(cost(false, |_| request("PING"), &[]), 0);
    assert_eq!(cost(false, |_| request("ECHO text"), &[]), 0);
    assert_eq!(cost(false, |_| request("SELECT 0"), &[]), 0);
}

#[test]
fn shared_reads_cost_nothing() {
    let (mut engine, mut wires) = engine(pool(1, 1, true), 50);
    let requests = (0..50).map(|session| (session, request("GET hot"))).collect();
    let round = Round { requests, replies: vec![(0, b"$5\r\nvalue\r\n".to_vec())] };
    assert_eq!(round.cost(&mut engine, &mut wires), 0);
    assert!(engine.pool_counts(0).expect("a pool").joined_requests > 40_000);
}

#[test]
fn an_idle_session_owns_no_buffer() {
    const SESSIONS: u32 = 1000;
    let (mut engine, mut wires) = engine(pool(2, 1, false), SESSIONS as usize);
    let keys = [key_on(&engine, 0), key_on(&engine, 1)];
    let value = b"x".repeat(10_000);
    let reply = [b"$10000\r\n".as_slice(), &value, b"\r\n"].concat();
    let round = |session| Round {
        requests: vec![(session, [0, 1, 0, 1].map(|i: usize| request(&format!("GET {}", keys[i]))).concat())],
        replies: vec![(1, reply.repeat(2)), (0, reply.repeat(2))],
    };
    // The apps' own memory of what they got is not the engine's.
    wires.apps.iter_mut().for_each(|app| app.reserve(100_000));
    (0..64).for_each(|_| round(0).play(&mut engine, &mut wires));
    let before = allocated();
    (1..SESSIONS).for_each(|session| round(session).play(&mut engine, &mut wires));
    assert_eq!(allocated(), before, "what {SESSIONS} sessions own that have had all their replies");
}
