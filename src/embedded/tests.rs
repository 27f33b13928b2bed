//! The node as a whole in virtual time: time to live, eviction, batches of requests.

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn request(line: &str) -> Vec<u8> {
    let args: Vec<&str> = line.split(' ').collect();
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    request.into_bytes()
}

fn serve(node: &Node, now: u64, line: &str) -> String {
    let (request, mut out) = (request(line), Vec::new());
    assert_eq!(node.serve(&mut Connection::default(), &request, now, &mut out), request.len());
    String::from_utf8(out).unwrap()
}

fn limited(maxmemory: u64, eviction: Eviction) -> Node {
    Node::new(&Config { maxmemory, eviction })
}

/// The room that `keys` keys of the name `k0000` with a value of 10 bytes take.
fn room(keys: u64) -> u64 {
    keys * (ENTRY_OVERHEAD + 15)
}

fn fill(node: &Node, keys: std::ops::Range<u32>) {
    for key in keys {
        assert_eq!(serve(node, NOW, &format!("SET k{key:04} 0123456789")), "+OK\r\n");
    }
}

fn has(node: &Node, key: u32) -> bool {
    serve(node, NOW, &format!("EXISTS k{key:04}")) == ":1\r\n"
}

#[test]
fn workers_can_share_a_node() {
    let node = limited(room(50), Eviction::Lru);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let node = &node;
            scope.spawn(move || fill(node, worker * 100..worker * 100 + 100));
        }
    });
    assert_eq!((node.stats().keys, node.stats().evictions), (50, 350));
}

#[test]
fn serves_what_is_complete_and_leaves_the_rest() {
    let node = Node::new(&Config::default());
    let mut requests = [request("SET a 1"), b"*0\r\n".to_vec(), request("INCR a")].concat();
    let complete = requests.len();
    requests.extend(&request("GET a")[..10]);
    let mut out = b"before".to_vec();
    assert_eq!(node.serve(&mut Connection::default(), &requests, NOW, &mut out), complete);
    assert_eq!(out, b"before+OK\r\n:2\r\n");
}

#[test]
fn after_a_protocol_error_nothing_is_served() {
    let node = Node::new(&Config::default());
    let requests = [request("SET a 1"), b"junk\r\n".to_vec(), request("INCR a")].concat();
    let mut out = Vec::new();
    assert_eq!(node.serve(&mut Connection::default(), &requests, NOW, &mut out), requests.len());
    assert_eq!(out, b"+OK\r\n-ERR Protocol error: expected '*', got 'j'\r\n");
    assert_eq!(serve(&node, NOW, "GET a"), "$1\r\n1\r\n");
}

#[test]
fn a_key_lives_to_its_deadline_and_no_longer() {
    let node = Node::new(&Config::default());
    serve(&node, NOW, "SET a 1 PX 100");
    assert_eq!(serve(&node, NOW + 1, "PTTL a"), ":99\r\n");
    assert_eq!(serve(&node, NOW + 100, "GET a"), "$1\r\n1\r\n");
    assert_eq!(serve(&node, NOW + 101, "GET a"), "$-1\r\n");
    assert_eq!(node.stats(), Stats { hits: 1, misses: 1, expired: 1, ..Stats::default() });
}

#[test]
fn a_due_key_is_gone_for_every_command() {
    for line in [
        "GET a",
        "EXISTS a",
        "TYPE a",
        "TTL a",
        "KEYS *",
        "SCAN 0",
        "INCR a",
        "SETNX a 1",
        "SET a 2 NX",
        "APPEND a x",
        "DEL a",
        "RENAME a b",
        "COPY a b",
        "RANDOMKEY",
        "PERSIST a",
        "EXPIRE a 10",
        "MSETNX a 2 b 3",
        "HSET a f v",
        "SETRANGE a 2 x",
        "GETDEL a",
        "OBJECT ENCODING a",
        "INCRBYFLOAT a 1",
        "HGETALL a",
        "RENAMENX b a",
        "STRLEN a",
    ] {
        let (due, empty) = (Node::new(&Config::default()), Node::new(&Config::default()));
        serve(&due, NOW, "SET a 1 PX 10");
        for node in [&due, &empty] {
            if line == "RENAMENX b a" {
                serve(node, NOW, "SET b 1");
            }
        }
        assert_eq!(serve(&due, NOW + 11, line), serve(&empty, NOW + 11, line), "{line}");
        let keys = |node: &Node| serve(node, NOW + 11, "KEYS *");
        assert_eq!(keys(&due), keys(&empty), "{line}");
        let ttl = |node: &Node| serve(node, NOW + 11, "PTTL a");
        assert_eq!(ttl(&due), ttl(&empty), "{line}");
    }
}

#[test]
fn conditions_compare_deadlines() {
    let node = Node::new(&Config::default());
    let expire = |line: &str| serve(&node, NOW, line) == ":1\r\n";
    serve(&node, NOW, "SET a 1");
    assert!(!expire("EXPIRE a 100 XX") && !expire("EXPIRE a 100 GT") && expire("EXPIRE a 100 LT"));
    assert!(!expire("EXPIRE a 100 GT") && !expire("EXPIRE a 100 LT") && !expire("EXPIRE a 100 NX"));
    assert!(expire("EXPIRE a 101 GT") && expire("EXPIRE a 100 LT") && expire("PEXPIRE a 1 XX"));
    assert_eq!(serve(&node, NOW, "PTTL a"), ":1\r\n");
    assert!(expire("PEXPIRE a 0"));
    assert_eq!(serve(&node, NOW, "EXISTS a"), ":0\r\n");
}

#[test]
fn writes_keep_or_drop_the_deadline_as_in_redis() {
    for (line, kept) in [
        ("SET a 2", false),
        ("SET a 2 KEEPTTL", true),
        ("GETSET a 2", false),
        ("MSET a 2", false),
        ("INCR a", true),
        ("APPEND a 2", true),
        ("SETRANGE a 0 2", true),
        ("INCRBYFLOAT a 2", true),
        ("GETEX a", true),
        ("GETEX a PERSIST", false),
        ("PERSIST a", false),
        ("RENAME a a", true),
    ] {
        let node = Node::new(&Config::default());
        serve(&node, NOW, "SET a 1 EX 10");
        serve(&node, NOW, line);
        assert_eq!(serve(&node, NOW, "PTTL a"), if kept { ":10000\r\n" } else { ":-1\r\n" }, "{line}");
        // The index of deadlines says the same as the keys.
        assert_eq!(node.expire_cycle(NOW + 10_001), usize::from(kept), "{line}");
    }
}

#[test]
fn the_expire_cycle_is_bounded_and_complete() {
    let node = Node::new(&Config::default());
    let keys = EXPIRE_CYCLE_LIMIT + 10;
    for key in 0..keys {
        serve(&node, NOW, &format!("SET k{key} 1 PX {}", 1 + key % 50));
    }
    serve(&node, NOW, "SET stays 1 PX 100");
    serve(&node, NOW, "SET forever 1");
    assert_eq!(node.expire_cycle(NOW), 0);
    assert_eq!(node.expire_cycle(NOW + 100), EXPIRE_CYCLE_LIMIT);
    assert_eq!(node.expire_cycle(NOW + 100), 10);
    assert_eq!(node.expire_cycle(NOW + 100), 0);
    assert_eq!(node.stats().keys, 2);
    assert_eq!(node.stats().expired, keys as u64);
    assert_eq!(node.expire_cycle(NOW + 101), 1);
}

#[test]
fn bytes_come_back_to_nothing() {
    for eviction in [Eviction::Lru, Eviction::Lfu] {
        let node = limited(1_000_000, eviction);
        for line in [
            "SET a 1",
            "SET a 12345",
            "APPEND a 678",
            "SETRANGE a 100 x",
            "INCR n",
            "SET e 1 PX 5",
            "SETBIT b 1000 1",
            "HSET h f v g w",
            "HSET h f longer",
            "HDEL h g",
            "HINCRBY h n 1",
            "COPY h h2",
            "RENAME a c",
            "MSET x 1 y 2",
        ] {
            serve(&node, NOW, line);
        }
        assert!(node.stats().bytes > 0);
        assert_eq!(node.expire_cycle(NOW + 6), 1);
        assert_eq!(serve(&node, NOW, "DEL n b h h2 c x"), ":6\r\n");
        assert_eq!(node.stats().bytes, ENTRY_OVERHEAD + 2, "one key is left");
        serve(&node, NOW, "HDEL y f");
        serve(&node, NOW, "FLUSHALL");
        assert_eq!((node.stats().keys, node.stats().bytes), (0, 0));
        fill(&node, 0..10);
        assert_eq!(node.stats().bytes, room(10), "{eviction:?}");
    }
}

#[test]
fn lru_evicts_exactly_the_least_recently_used() {
    let node = limited(room(100), Eviction::Lru);
    fill(&node, 0..100);
    assert_eq!(node.stats().evictions, 0);
    // All even ones are used again, by a read, a write, and a touch.
    for key in (0..100).step_by(2) {
        let line = ["GET", "SETRANGE", "TOUCH"][key / 2 % 3];
        let rest = if line == "SETRANGE" { " 0 x" } else { "" };
        serve(&node, NOW, &format!("{line} k{key:04}{rest}"));
    }
    fill(&node, 100..150);
    assert!((0..100).all(|key| has(&node, key) == (key % 2 == 0)));
    assert!((100..150).all(|key| has(&node, key)));
    let stats = node.stats();
    assert_eq!((stats.keys, stats.bytes, stats.evictions), (100, room(100), 50));
    // EXISTS is no use: the next to go are the even ones in the order of their use.
    fill(&node, 150..160);
    assert!((0..100).step_by(2).all(|key| has(&node, key) == (key >= 20)));
}

#[test]
fn memory_stays_within_its_limit_after_every_command() {
    for eviction in [Eviction::Lru, Eviction::Lfu] {
        let limit = 50_000;
        let node = limited(limit, eviction);
        let mut seed = 7_u64;
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, size) = (seed >> 33 & 255, seed >> 41 & 2047);
            let line = match seed >> 60 {
                0..4 => format!("SET s{key} {}", "x".repeat(size as usize)),
                4 => format!("SET s{key} x PX {}", size + 1),
                5 => format!("APPEND s{key} {}", "y".repeat(size as usize)),
                6..8 => format!("HSET h{} f{size} {}", key & 3, "v".repeat(key as usize)),
                8 => format!("HDEL h{} f{size} f{}", key & 3, size ^ 1),
                9 => format!("DEL s{key}"),
                10 => format!("RENAME s{key} s{size}"),
                11 => format!("COPY s{key} s{size} REPLACE"),
                12 => format!("MSET s{key} {} s{size} 1 s{key} 1", "z".repeat(size as usize)),
                _ => format!("GET s{key}"),
            };
            serve(&node, NOW, &line);
            let stats = node.stats();
            assert!(stats.bytes <= limit, "{} bytes after {line}", stats.bytes);
        }
        let stats = node.stats();
        assert!(stats.evictions > 100, "{stats:?}");
        // Nothing is left behind: no deadline, no weight.
        serve(&node, NOW, "FLUSHALL");
        assert_eq!(node.expire_cycle(NOW + 1_000_000), 0);
        assert_eq!(node.stats().bytes, 0);
    }
}

#[test]
fn an_evicted_key_takes_its_deadline_with_it() {
    let node = limited(room(10), Eviction::Lru);
    for key in 0..100 {
        serve(&node, NOW, &format!("SET k{key:04} 0123456789 PX 100"));
    }
    assert!(serve(&node, NOW, "INFO keyspace").contains("db0:keys=10,expires=10,avg_ttl=0\r\n"));
    assert_eq!(node.expire_cycle(NOW + 101), 10);
    assert_eq!(node.stats().expired, 10);
}

#[test]
fn lfu_keeps_what_is_asked_for_often() {
    let keeps = |eviction: Eviction| {
        let node = limited(room(200), eviction);
        fill(&node, 0..190);
        for _ in 0..10 {
            (0..50).for_each(|key| drop(serve(&node, NOW, &format!("GET k{key:04}"))));
        }
        // A scan of keys nobody will ask for again.
        fill(&node, 1_000..2_000);
        (0..50).filter(|&key| has(&node, key)).count()
    };
    assert_eq!(keeps(Eviction::Lru), 0);
    assert!(keeps(Eviction::Lfu) >= 48);
}

#[test]
fn under_lfu_a_key_that_is_asked_for_gets_in() {
    let node = limited(room(100), Eviction::Lfu);
    fill(&node, 0..100);
    for _ in 0..20 {
        serve(&node, NOW, "INCR counter");
    }
    assert_eq!(serve(&node, NOW, "EXISTS counter"), ":1\r\n");
}

#[test]
fn what_could_not_be_kept_alone_is_refused_and_changes_nothing() {
    let node = limited(2_000, Eviction::Lru);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let large = "x".repeat(2_000);
    serve(&node, NOW, "SET a 1");
    serve(&node, NOW, "HSET h f v");
    for line in [
        format!("SET a {large}"),
        format!("SET a {large} GET"),
        format!("APPEND a {large}"),
        format!("MSET b 1 a {large}"),
        format!("HSET h g 1 f {large}"),
        format!("HSET new f {large}"),
        format!("RENAME a {large}"),
        "SETRANGE a 2000 x".to_owned(),
        "SETBIT a 4294967295 1".to_owned(),
    ] {
        assert_eq!(serve(&node, NOW, &line), oom, "{}", &line[..9]);
    }
    assert_eq!(serve(&node, NOW, "GET a"), "$1\r\n1\r\n");
    assert_eq!(serve(&node, NOW, "HGETALL h"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(serve(&node, NOW, "DBSIZE"), ":2\r\n");
}

#[test]
fn a_scan_sees_all_that_is_there_all_along() {
    let node = Node::new(&Config::default());
    fill(&node, 0..300);
    let (mut cursor, mut seen, mut turn) = ("0".to_owned(), std::collections::BTreeSet::new(), 0);
    loop {
        let reply = serve(&node, NOW, &format!("SCAN {cursor} COUNT 7"));
        let lines: Vec<&str> = reply.lines().collect();
        seen.extend(lines.iter().filter(|line| line.starts_with('k')).map(|line| (*line).to_owned()));
        cursor = lines[2].to_owned();
        if cursor == "0" {
            break;
        }
        // Odd keys come and go meanwhile.
        serve(&node, NOW, &format!("DEL k{:04}", (turn * 74 + 1) % 300));
        fill(&node, 400 + turn..401 + turn);
        turn += 1;
    }
    assert!(turn > 30);
    assert!((0..300).step_by(2).all(|key| seen.contains(&format!("k{key:04}"))));
}

#[test]
fn random_fields_are_different_or_as_many_as_asked() {
    let node = Node::new(&Config::default());
    serve(&node, NOW, "HSET h a 1 b 2 c 3 d 4");
    let fields = |line: &str| {
        let reply = serve(&node, NOW, line);
        let mut fields: Vec<String> = reply.lines().skip(2).step_by(2).map(str::to_owned).collect();
        let count = fields.len();
        fields.sort();
        fields.dedup();
        (count, fields.len())
    };
    for _ in 0..50 {
        assert_eq!(fields("HRANDFIELD h 3"), (3, 3));
        assert_eq!(fields("HRANDFIELD h 9"), (4, 4));
        assert_eq!(fields("HRANDFIELD h -20").0, 20);
        assert_eq!(fields("HRANDFIELD h 2 WITHVALUES"), (4, 4));
    }
    assert!(fields("HRANDFIELD h -100").1 == 4);
    assert_eq!(serve(&node, NOW, "HRANDFIELD none 3"), "*0\r\n");
    assert_eq!(serve(&node, NOW, "HRANDFIELD none"), "$-1\r\n");
}

#[test]
fn what_the_node_does_not_have_it_says() {
    let node = Node::new(&Config::default());
    assert_eq!(
        serve(&node, NOW, "lpush a 1"),
        "-ERR the embedded node does not have 'lpush': it keeps strings, counters and hashes in database 0 only. Name \
         real servers in 'servers:' to use it\r\n"
    );
    assert!(serve(&node, NOW, "SELECT 3").contains("'select 3'"));
    assert!(serve(&node, NOW, "OBJECT FREQ a").contains("'object|freq'"));
}

#[test]
fn arbitrary_bytes_do_not_panic() {
    let node = limited(100_000, Eviction::Lru);
    let (mut seed, mut out) = (3_u64, Vec::new());
    let alphabet = b"*$:-+0123456789\r\n\r\n\0aGET\xff";
    for _ in 0..20_000 {
        let mut bytes = if seed & 1 == 0 { request("SET a 1") } else { Vec::new() };
        for _ in 0..seed >> 60 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.clear();
        assert!(node.serve(&mut Connection::default(), &bytes, seed, &mut out) <= bytes.len());
    }
}

/// Asks on a connection that lasts.
fn ask(node: &Node, connection: &mut Connection, now: u64, line: &str) -> String {
    let (request, mut out) = (request(line), Vec::new());
    assert_eq!(node.serve(connection, &request, now, &mut out), request.len());
    String::from_utf8(out).unwrap()
}

/// Whether EXEC does nothing once `line` has run on another connection, this many milliseconds after WATCH.
fn is_change(node: &Node, watched: &str, after: u64, line: &str) -> bool {
    let mut connection = Connection::default();
    assert_eq!(ask(node, &mut connection, NOW, &format!("WATCH {watched}")), "+OK\r\n");
    serve(node, NOW + after, line);
    assert_eq!(ask(node, &mut connection, NOW + after, "MULTI"), "+OK\r\n");
    match ask(node, &mut connection, NOW + after, "EXEC").as_str() {
        "*-1\r\n" => true,
        reply => {
            assert_eq!(reply, "*0\r\n");
            false
        }
    }
}

#[test]
fn a_watched_key_changes_by_whatever_removes_it_too() {
    let node = Node::new(&Config::default());
    assert!(!is_change(&node, "a", 0, "FLUSHALL") && !is_change(&node, "a", 0, "DEL a"));
    serve(&node, NOW, "SET a 1 PX 100");
    assert!(!is_change(&node, "a", 100, "GET b"));
    assert!(is_change(&node, "a", 101, "GET b"), "its time is up and nobody has asked for it");
    serve(&node, NOW, "SET a 1 PX 100");
    assert!(is_change(&node, "a", 101, "GET a"), "its time was up when it was asked for");
    serve(&node, NOW - 200, "SET a 1 PX 100");
    assert!(!is_change(&node, "a", 1, "GET a"), "its time was up before");
    serve(&node, NOW, "SET a 1");
    assert!(is_change(&node, "a", 0, "FLUSHALL"));
    serve(&node, NOW, "SET a 1");
    assert!(is_change(&node, "b a", 0, "RENAME a b") && is_change(&node, "b", 0, "EXPIRE b 10"));
    assert!(is_change(&node, "b", 0, "PERSIST b") && !is_change(&node, "b", 0, "PERSIST b"));
    serve(&node, NOW, "HSET h f v");
    assert!(!is_change(&node, "h", 0, "HDEL h none") && is_change(&node, "h", 0, "HDEL h f"));
    let small = limited(room(2), Eviction::Lru);
    fill(&small, 0..2);
    assert!(is_change(&small, "k0000", 0, "SET k0002 0123456789"), "it made room");
}

#[test]
fn a_transaction_is_bounded() {
    let node = Node::new(&Config::default());
    let mut connection = Connection::default();
    assert_eq!(ask(&node, &mut connection, NOW, "MULTI"), "+OK\r\n");
    let large = format!("SET a {}", "x".repeat(40 << 20));
    assert_eq!(ask(&node, &mut connection, NOW, &large), "+QUEUED\r\n");
    assert!(ask(&node, &mut connection, NOW, &large).starts_with("-ERR "));
    assert!(ask(&node, &mut connection, NOW, "EXEC").starts_with("-EXECABORT "));
    assert_eq!(ask(&node, &mut connection, NOW, "EXISTS a"), ":0\r\n");
    let names = |count: usize| (0..count).map(|number| format!("{number:0>60000}")).collect::<Vec<_>>().join(" ");
    assert_eq!(ask(&node, &mut connection, NOW, &format!("WATCH {}", names(17))), "+OK\r\n");
    assert_eq!(ask(&node, &mut connection, NOW, &format!("WATCH {}", names(17))), "+OK\r\n", "the same again");
    assert!(ask(&node, &mut connection, NOW, &format!("WATCH {}", names(18))).starts_with("-ERR "));
    assert_eq!(ask(&node, &mut connection, NOW, "UNWATCH"), "+OK\r\n");
    assert_eq!(ask(&node, &mut connection, NOW, "WATCH a"), "+OK\r\n");
}
