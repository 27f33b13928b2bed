//! SLOWLOG: which requests took long, for whom, and where.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, dead_code, reason = "parts of one test")]

#[path = "support/engine.rs"]
mod inner;
mod support;

use hotring::engine::Engine;
use hotring::engine::slow::Config;
use hotring::error::{Cause, Failure};
use inner::Wires;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Client, Hotring, Redis, key_on, pool, shards, wire};

/// An entry as it is told.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    id: u64,
    took: u64,
    time: u64,
    words: Vec<String>,
    address: String,
    name: String,
}

/// The entries of a reply to SLOWLOG GET.
fn entries(reply: &str) -> Vec<Entry> {
    let mut lines = reply.split("\r\n");
    let count = number(&mut lines, "*");
    let entry = |_| {
        assert_eq!(number(&mut lines, "*"), 6, "{reply}");
        let [id, time, took] = [":"; 3].map(|mark| number(&mut lines, mark));
        let words = number(&mut lines, "*");
        let words = (0..words).map(|_| text(&mut lines)).collect();
        Entry { id, took, time, words, address: text(&mut lines), name: text(&mut lines) }
    };
    (0..count).map(entry).collect()
}

fn number<'a>(lines: &mut impl Iterator<Item = &'a str>, mark: &str) -> u64 {
    let line = lines.next().unwrap();
    line.strip_prefix(mark).unwrap_or_else(|| panic!("{line} where {mark} was to be")).parse().unwrap()
}

fn text<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    let length = number(lines, "$");
    let text = lines.next().unwrap();
    assert_eq!(text.len() as u64, length);
    text.to_owned()
}

fn list(app: &mut Client) -> Vec<Entry> {
    entries(&app.ask("SLOWLOG GET -1"))
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.words[0].as_str()).collect()
}

/// A script that keeps its server busy for longer than 5 ms, however fast it is.
fn busy(key: &str) -> Vec<u8> {
    wire(&["EVAL", "for i = 1, 2e7 do end return 1", "1", key])
}

#[test]
fn late_answers_are_told_with_the_shard_and_the_app() {
    let (_servers, at) = shards(3);
    let hotring = Hotring::over(&at, &["slowlog_slower_than: 5ms"]);
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut app = hotring.app();
        app.ask(hello);
        assert_eq!(app.ask("CLIENT SETNAME slow-app"), "+OK\r\n");
        assert_eq!(app.ask("SLOWLOG RESET"), "+OK\r\n");
        let key = key_on(1, 3);
        app.send(&[busy(&key), wire(&["STRLEN", &key])].concat());
        assert_eq!((app.text(), app.text()), (":1\r\n".into(), ":0\r\n".into()));
        let told = list(&mut app);
        let eval = told.iter().find(|entry| entry.words[0] == "eval").unwrap();
        assert_eq!(eval.words, ["eval", "shard=s1", "reply_bytes=4"]);
        assert!((5_000..30_000_000).contains(&eval.took), "{}", eval.took);
        assert_eq!(eval.name, "slow-app");
        let client = app.ask("CLIENT INFO");
        assert!(client.contains(&format!(" addr={} ", eval.address)), "{client} {}", eval.address);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((now - 60..=now + 1).contains(&eval.time), "{}", eval.time);
        // What waited behind it on the same connection was as late. Nothing tells of the key.
        assert!(names(&told).contains(&"strlen"));
        assert!(!app.ask("SLOWLOG GET -1").contains(&key));
    }
}

#[test]
fn a_request_to_several_shards_names_the_last_one() {
    let (_servers, at) = shards(3);
    let hotring = Hotring::over(&at, &["slowlog_slower_than: 5ms"]);
    let mut app = hotring.app();
    let keys = [key_on(0, 3), key_on(1, 3), key_on(2, 3)];
    app.send(&[busy(&keys[2]), wire(&["MGET", &keys[0], &keys[1], &keys[2]])].concat());
    assert_eq!((app.text(), app.text()), (":1\r\n".into(), "*3\r\n$-1\r\n$-1\r\n$-1\r\n".into()));
    app.send(&[busy(&keys[1]), wire(&["DBSIZE"])].concat());
    assert_eq!((app.text(), app.text()), (":1\r\n".into(), ":0\r\n".into()));
    let told = list(&mut app);
    let words = |name: &str| told.iter().find(|entry| entry.words[0] == name).unwrap().words.join(" ");
    assert_eq!(words("mget"), "mget shard=s2 shards=3 reply_bytes=19");
    assert_eq!(words("dbsize"), "dbsize shard=s1 shards=3 reply_bytes=4");
}

#[test]
fn the_newest_are_told_first_and_the_oldest_forgotten() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["slowlog_slower_than: 0", "slowlog_max_len: 12"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("SLOWLOG LEN"), ":0\r\n");
    assert_eq!(app.ask("SLOWLOG GET"), "*0\r\n");
    for n in 0..20 {
        app.ask(&format!("SET k{n} v"));
    }
    app.ask("OBJECT ENCODING k1");
    app.ask("INCR k1");
    app.ask("PING");
    assert_eq!(app.ask("SLOWLOG LEN"), ":12\r\n");
    let told = list(&mut app);
    assert_eq!(told.iter().map(|entry| entry.id).collect::<Vec<_>>(), (10..22).rev().collect::<Vec<_>>());
    assert_eq!(names(&told)[..3], ["incr", "object encoding", "set"]);
    assert_eq!(told[0].words[3..], ["error"]);
    assert_eq!(entries(&app.ask("SLOWLOG GET")).len(), 10);
    assert_eq!(entries(&app.ask("slowlog get 3")), &told[..3]);
    assert_eq!(app.ask("SLOWLOG GET 0"), "*0\r\n");
    assert_eq!(app.ask("SLOWLOG RESET"), "+OK\r\n");
    assert_eq!(app.ask("SLOWLOG GET 3"), "*0\r\n");
    app.ask("GET k1");
    let told = list(&mut app);
    assert_eq!((names(&told), told[0].id), (vec!["get"], 22));
    assert_eq!(
        app.ask("CONFIG GET slowlog*"),
        "*4\r\n$23\r\nslowlog-log-slower-than\r\n$1\r\n0\r\n$15\r\nslowlog-max-len\r\n$2\r\n12\r\n"
    );
}

#[test]
fn nothing_is_kept_where_it_is_off_or_nothing_is_to_be_kept() {
    let redis = Redis::start(&[]);
    for (keys, counted) in [
        (["slowlog_slower_than: off", "slowlog_max_len: 5"], 0.0),
        (["slowlog_slower_than: 1h", "slowlog_max_len: 5"], 0.0),
        (["slowlog_slower_than: 0", "slowlog_max_len: 0"], 2.0),
    ] {
        let hotring = Hotring::with_admin(&pool(&[redis.address()], &keys));
        let mut app = hotring.app();
        app.send(&busy("k"));
        assert_eq!(app.text(), ":1\r\n");
        app.ask("GET k");
        assert_eq!(app.ask("SLOWLOG LEN"), ":0\r\n", "{keys:?}");
        assert_eq!(app.ask("SLOWLOG GET"), "*0\r\n");
        let reads = "hotring_request_duration_seconds_count{pool=\"main\",class=\"read\"}";
        support::eventually("it is counted", || hotring.metric(reads) == 1.0);
        assert_eq!(hotring.metric("hotring_slow_requests_total{pool=\"main\"}"), counted, "{keys:?}");
    }
}

#[test]
fn faults_are_told_in_the_servers_words() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["slowlog_slower_than: off"]);
    for hello in ["HELLO 2", "HELLO 3"] {
        let (mut app, mut direct) = (hotring.app(), redis.client());
        for line in [
            hello,
            "SLOWLOG",
            "SLOWLOG GET x",
            "SLOWLOG GET -2",
            "SLOWLOG GET 99999999999999999999",
            "SLOWLOG GET 1 2",
            "SLOWLOG LEN x",
            "SLOWLOG RESET x",
            "SLOWLOG RESET",
            "SLOWLOG LEN",
            "SLOWLOG GET 5",
            "SLOWLOG NONSENSE",
        ] {
            let (said, expected) = (app.ask(line), direct.ask(line));
            assert!(said == expected || line == hello, "{line}: {said} for {expected}");
        }
        assert!(app.ask("SLOWLOG HELP").contains("\r\n+RESET\r\n"));
    }
}

#[test]
fn what_waits_as_it_likes_is_not_slow_and_a_transaction_is_its_commands() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["slowlog_slower_than: 0"]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    app.send(&wire(&["BLPOP", "list", "0"]));
    support::eventually("it waits", || other.ask("INFO clients").contains("blocked_clients:1"));
    other.ask("RPUSH list x");
    assert!(app.text().ends_with("x\r\n"));
    for line in ["MULTI", "SET k v", "EXEC", "XINFO STREAM k", "EVALSHA 0 0", "ECHO x", "NONSENSE"] {
        app.ask(line);
    }
    let told = list(&mut other);
    assert_eq!(names(&told), ["evalsha", "xinfo stream", "exec", "set", "rpush"]);
}

#[test]
fn pools_and_workers_have_lists_of_their_own() {
    let redis = Redis::start(&[]);
    let text = format!(
        "admin: off\nworkers: 2\ncommands: {{m.get: {{keys: '1,1,1'}}}}\npools:\n  a: {{listen: '127.0.0.1:0', servers: ['{0}:1 x'], \
         slowlog_slower_than: 0}}\n  b: {{listen: '127.0.0.1:0', servers: ['{0}:1 y'], slowlog_slower_than: 0}}\n",
        redis.address()
    );
    let hotring = Hotring::start(&text);
    // Numbers are never used twice, on neither worker.
    let mut owners: HashMap<u64, String> = HashMap::new();
    let mut apps: Vec<Client> = (0..4).map(|_| hotring.app()).collect();
    for app in &mut apps {
        let length = app.ask("M.GET k").len();
        let told = list(app);
        assert_eq!(told[0].words, ["m.get", "shard=x", &format!("reply_bytes={length}"), "error"]);
        for entry in told {
            let owner = owners.entry(entry.id).or_insert_with(|| entry.address.clone());
            assert_eq!(*owner, entry.address, "{}", entry.id);
        }
    }
    assert_eq!(owners.len(), 4);
    assert!(owners.keys().any(|id| id % 2 == 0) && owners.keys().any(|id| id % 2 == 1), "both workers had some");
    for _ in 0..4 {
        assert_eq!(list(&mut Client::connect(hotring.address(1))), []);
    }
}

#[test]
fn a_limited_user_does_not_see_it() {
    let redis = Redis::start(&[]);
    let users = "users: {app: {password: x, rules: '+@all -@admin ~* &*'}}";
    let hotring = Hotring::over(&[redis.address()], &[users]);
    let mut app = hotring.app();
    assert_eq!(app.ask("AUTH app x"), "+OK\r\n");
    assert!(app.ask("SLOWLOG GET").starts_with("-NOPERM "));
}

/// A core of three shards with this list, and one app.
fn core(slower_than: Option<Duration>, coalesce: bool) -> (Engine, Wires) {
    let slowlog = Config { slower_than, max_len: 100 };
    inner::engine(hotring::engine::PoolConfig { slowlog, ..inner::pool(3, 1, coalesce) }, 2)
}

/// Sends at 1000 µs, and has the shard answer so many microseconds later.
fn play(engine: &mut Engine, wires: &mut Wires, line: &str, shard: u32, reply: &[u8], took: u64) {
    engine.submit(0, &inner::request(line), 1000, wires);
    engine.flush(wires);
    engine.receive(shard, reply, 1000 + took, wires).unwrap();
}

fn told(engine: &mut Engine, wires: &mut Wires) -> Vec<String> {
    engine.flush(wires);
    wires.apps[1].clear();
    engine.submit(1, &inner::request("SLOWLOG GET -1"), 1 << 20, wires);
    engine.flush(wires);
    let reply = String::from_utf8(wires.apps[1].clone()).unwrap();
    entries(&reply).into_iter().map(|entry| format!("{} {}", entry.took, entry.words.join(" "))).collect()
}

#[test]
fn as_long_as_the_bound_is_slow_and_less_is_not() {
    let (mut engine, mut wires) = core(Some(Duration::from_millis(10)), false);
    let key = inner::key_on(&engine, 2);
    for took in [9_999, 10_000, 10_001] {
        play(&mut engine, &mut wires, &format!("GET {key}"), 2, b"$-1\r\n", took);
    }
    let expected = ["10001 get shard=s2 reply_bytes=5", "10000 get shard=s2 reply_bytes=5"];
    assert_eq!(told(&mut engine, &mut wires), expected);
}

#[test]
fn those_who_share_a_reply_are_told_too() {
    let (mut engine, mut wires) = core(Some(Duration::from_millis(10)), true);
    let get = inner::request(&format!("GET {}", inner::key_on(&engine, 1)));
    engine.submit(0, &get, 0, &mut wires);
    engine.submit(1, &get, 5_000, &mut wires);
    engine.submit(0, &get, 15_000, &mut wires);
    engine.flush(&mut wires);
    engine.receive(1, b"$1\r\nx\r\n", 20_000, &mut wires).unwrap();
    let mut all = told(&mut engine, &mut wires);
    all.sort();
    assert_eq!(all, ["15000 get shard=s1 reply_bytes=7 joined", "20000 get shard=s1 reply_bytes=7"]);
}

#[test]
fn what_was_never_answered_and_who_has_left_is_told() {
    let (mut engine, mut wires) = core(Some(Duration::from_millis(10)), false);
    let keys = [inner::key_on(&engine, 0), inner::key_on(&engine, 1)];
    engine.submit(0, &inner::request(&format!("INCR {}", keys[0])), 0, &mut wires);
    engine.submit(0, &inner::request(&format!("GET {}", keys[1])), 0, &mut wires);
    engine.flush(&mut wires);
    engine.fail(0, Failure { cause: Cause::Timeout, reason: "no reply" }, 50_000, &mut wires);
    engine.close(0, true, &mut wires);
    engine.receive(1, b"$-1\r\n", 60_000, &mut wires).unwrap();
    let all = told(&mut engine, &mut wires);
    assert_eq!(all[0], "60000 get shard=s1 reply_bytes=5 gone");
    assert!(all[1].starts_with("50000 incr shard=s0 reply_bytes=") && all[1].ends_with(" error"), "{}", all[1]);
}
