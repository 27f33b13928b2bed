//! Hot keys that are kept in memory, against real servers: what would go wrong if one thing were forgotten. A test, a trap.
//!
//! Answers may be as old as a minute here, so that only what is told of a change, and nothing that runs out, makes them new.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

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
const SOON: Duration = Duration::from_secs(10);

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

#[test]
fn a_hot_key_is_answered_from_memory_and_its_server_is_spared() {
    let s = Stand::new();
    let mut app = s.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    s.warm(&mut app, "k", "v");
    let (calls, hits) = (s.redis.calls("get"), s.hotring.metric(HITS));
    for _ in 0..1000 {
        assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    }
    assert!(s.redis.calls("get") - calls < 10, "{} of 1000 came", s.redis.calls("get") - calls);
    eventually("they are counted", || s.hotring.metric(HITS) - hits > 990.0);
}

#[test]
fn a_get_pipelined_behind_a_set_sees_it() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    for round in 0..20 {
        s.warm(&mut other, "k", &(3 * round).to_string());
        let set = |value: u32| wire(&["SET", "k", &value.to_string()]);
        let (first, second, third) = (3 * round + 1, 3 * round + 2, 3 * round + 3);
        let get = wire(&["GET", "k"]);
        app.send(&[&get, &set(first), &get, &get, &set(second), &set(third), &get].map(|bytes| &bytes[..]).concat());
        let replies: String = (0..7).map(|_| app.text()).collect();
        let (before, first, third) =
            (bulk(&(3 * round).to_string()), bulk(&first.to_string()), bulk(&third.to_string()));
        assert_eq!(replies, format!("{before}+OK\r\n{first}{first}+OK\r\n+OK\r\n{third}"));
        assert_eq!(other.ask("GET k"), third);
    }
}

#[test]
fn replies_from_memory_keep_their_place_among_others() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (hot, cold) = (key_on(0, 3), key_on(1, 3));
    let mut app = hotring.app();
    assert_eq!([app.ask(&format!("SET {hot} hot")), app.ask(&format!("SET {cold} cold"))], ["+OK\r\n", "+OK\r\n"]);
    warm(&mut app, &redis[0], &hot, "$3\r\nhot\r\n");
    let requests = [&["GET", &cold][..], &["GET", &hot], &["PING"], &["GET", &hot], &["GET", &cold], &["GET", &hot]];
    app.send(&requests.map(wire).concat());
    let replies: Vec<String> = requests.iter().map(|_| app.text()).collect();
    assert_eq!(replies.concat(), "$4\r\ncold\r\n$3\r\nhot\r\n+PONG\r\n$3\r\nhot\r\n$4\r\ncold\r\n$3\r\nhot\r\n");
    // Inline, and with replies that are not wanted.
    app.send(format!("GET {hot}\r\n").as_bytes());
    assert_eq!(app.text(), "$3\r\nhot\r\n");
    app.send(&[wire(&["CLIENT", "REPLY", "SKIP"]), wire(&["GET", &hot]), wire(&["PING", "next"])].concat());
    assert_eq!(app.text(), "$4\r\nnext\r\n");
}

#[test]
fn mget_of_a_hot_key_and_cold_ones_has_each_ones_own() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (hot, cold) = (key_on(0, 3), [key_on(1, 3), key_on(2, 3)]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for key in [&hot, &cold[0], &cold[1]] {
        assert_eq!(app.ask(&format!("SET {key} {key}:0")), "+OK\r\n");
    }
    for round in 0..10 {
        warm(&mut app, &redis[0], &hot, &bulk(&format!("{hot}:{round}")));
        let all = format!("MGET {} {hot} {} {hot}", cold[0], cold[1]);
        let wanted = |round: u32| {
            let [hot, first, second] = [&hot, &cold[0], &cold[1]].map(|key| bulk(&format!("{key}:{round}")));
            format!("*4\r\n{first}{hot}{second}{hot}")
        };
        assert_eq!(app.ask(&all), wanted(round));
        let next = round + 1;
        let set = format!("MSET {hot} {hot}:{next} {} {}:{next} {} {}:{next}", cold[0], cold[0], cold[1], cold[1]);
        assert_eq!(other.ask(&set), "+OK\r\n");
        assert_eq!(app.ask(&format!("GET {hot}")), bulk(&format!("{hot}:{next}")), "written by parts of an MSET");
        assert_eq!(app.ask(&all), wanted(next));
    }
    // And gone by parts of a DEL.
    warm(&mut app, &redis[0], &hot, &bulk(&format!("{hot}:10")));
    assert_eq!(other.ask(&format!("DEL {} {hot} {}", cold[0], cold[1])), ":3\r\n");
    assert_eq!(app.ask(&format!("GET {hot}")), "$-1\r\n");
}

/// Whether an MGET reaches the servers at all.
fn mget_is_near(app: &mut Client, redis: &[Redis], words: &str, reply: &str) -> bool {
    let calls = || redis.iter().map(|redis| redis.calls("mget")).sum::<u64>();
    let before = calls();
    assert_eq!(app.ask(words), reply, "{words}");
    calls() == before
}

#[test]
fn mget_from_memory_alone_is_told_in_order_and_in_each_protocol() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let (mut app, mut three, mut other) = (hotring.app(), hotring.app(), hotring.app());
    assert!(three.ask("HELLO 3").starts_with('%'));
    let (a, b, absent) = (key_on(0, 2), key_on(1, 2), "absent");
    for round in 0..5 {
        assert_eq!(
            [other.ask(&format!("SET {a} a{round}")), other.ask(&format!("SET {b} b{round}"))],
            ["+OK\r\n", "+OK\r\n"]
        );
        warm(&mut app, &redis[0], &a, &bulk(&format!("a{round}")));
        warm(&mut app, &redis[1], &b, &bulk(&format!("b{round}")));
        warm(&mut app, &redis[home(2, absent.as_bytes())], absent, "$-1\r\n");
        let words = format!("MGET {b} {absent} {a} {a} {absent} {b}");
        let (at_a, at_b) = (bulk(&format!("a{round}")), bulk(&format!("b{round}")));
        let reply = |null: &str| format!("*6\r\n{at_b}{null}{at_a}{at_a}{null}{at_b}");
        assert!(mget_is_near(&mut app, &redis, &words, &reply("$-1\r\n")));
        assert!(mget_is_near(&mut three, &redis, &words, &reply("_\r\n")));
        assert!(mget_is_near(&mut app, &redis, &format!("MGET {a}"), &format!("*1\r\n{at_a}")));
        // In one go with what changes it, and with what comes from elsewhere before and behind.
        let next = format!("n{round}");
        let set = wire(&["SET", &a, &next]);
        let mget = wire(&["MGET", &a, &b]);
        app.send(&[&wire(&["GET", "cold"]), &mget, &set, &mget, &wire(&["PING"])].map(|bytes| &bytes[..]).concat());
        let replies: String = (0..5).map(|_| app.text()).collect();
        let next = bulk(&next);
        assert_eq!(replies, format!("$-1\r\n*2\r\n{at_a}{at_b}+OK\r\n*2\r\n{next}{at_b}+PONG\r\n"));
        assert_eq!(three.ask(&format!("MGET {a} {b}")), format!("*2\r\n{next}{at_b}"));
    }
    // Another database, a transaction, a watch.
    warm(&mut app, &redis[1], &b, "$2\r\nb4\r\n");
    assert_eq!(three.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(three.ask(&format!("MGET {b} {b}")), "*2\r\n_\r\n_\r\n");
    assert_eq!([app.ask("MULTI"), app.ask(&format!("MGET {b} {b}"))], ["+OK\r\n", "+QUEUED\r\n"]);
    assert_eq!(app.ask("EXEC"), "*1\r\n*2\r\n$2\r\nb4\r\n$2\r\nb4\r\n");
}

#[test]
fn mget_of_a_key_of_another_type_tells_of_nothing_there() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("RPUSH k 1"), ":1\r\n");
    for _ in 0..20 {
        // To GET it is an error, to MGET it is nothing: neither may be taken for the other's.
        assert_eq!(app.ask("MGET k k"), "*2\r\n$-1\r\n$-1\r\n");
        assert!(app.ask("GET k").starts_with("-WRONGTYPE"));
    }
    assert_eq!(other.ask("DEL k"), ":1\r\n");
    assert_eq!([app.ask("MGET k"), app.ask("GET k")], ["*1\r\n$-1\r\n", "$-1\r\n"]);
}

#[test]
fn a_hot_get_within_multi_is_carried_out_there() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 1"), "+OK\r\n");
    s.warm(&mut app, "k", "1");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    for words in ["GET k", "SET k 2", "GET k"] {
        assert_eq!(app.ask(words), "+QUEUED\r\n");
    }
    assert_eq!(other.ask("GET k"), "$1\r\n1\r\n", "nothing has happened yet");
    assert_eq!(app.ask("EXEC"), "*3\r\n$1\r\n1\r\n+OK\r\n$1\r\n2\r\n");
    assert_eq!([other.ask("GET k"), app.ask("GET k")], ["$1\r\n2\r\n", "$1\r\n2\r\n"]);
    // In one go, and given up.
    s.warm(&mut app, "k", "2");
    let words = ["GET k", "MULTI", "INCR k", "EXEC", "GET k", "MULTI", "INCR k", "DISCARD", "GET k"];
    app.send(&words.map(|words| wire(&words.split(' ').collect::<Vec<_>>())).concat());
    let replies: String = words.iter().map(|_| app.text()).collect();
    let first = "$1\r\n2\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n$1\r\n3\r\n";
    assert_eq!(replies, format!("{first}+OK\r\n+QUEUED\r\n+OK\r\n$1\r\n3\r\n"));
    assert_eq!(other.ask("GET k"), "$1\r\n3\r\n");
}

/// Counts under WATCH with what `read` says, while somebody else counts, too: the news of that is on its way then.
fn count_under_watch(read: &str) {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    let mut wanted = 0;
    for round in 0..50 {
        s.warm(&mut app, "k", &wanted.to_string());
        direct.send(&wire(&["INCR", "k"]));
        assert_eq!(app.ask("WATCH k"), "+OK\r\n");
        let told = app.ask(read);
        let told: u32 = told.trim_end().rsplit("\r\n").next().unwrap().parse().unwrap();
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET k {}", told + 1)), "+QUEUED\r\n");
        let done = app.ask("EXEC") == "*1\r\n+OK\r\n";
        assert!(direct.text().starts_with(':'));
        wanted += 1 + u32::from(done);
        assert_eq!(direct.ask("GET k"), bulk(&wanted.to_string()), "round {round}: a count was lost");
        comes(&mut app, "k", &bulk(&wanted.to_string()));
    }
}

#[test]
fn what_get_reads_under_watch_is_not_older_than_the_watch() {
    count_under_watch("GET k");
}

#[test]
fn what_mget_reads_under_watch_is_not_older_than_the_watch() {
    count_under_watch("MGET k");
}

#[test]
fn nothing_is_answered_from_memory_under_watch() {
    let s = Stand::new();
    let mut app = s.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    for (read, reply) in
        [("GET k", "$1\r\nv\r\n"), ("MGET k", "*1\r\n$1\r\nv\r\n"), ("MGET k k", "*2\r\n$1\r\nv\r\n$1\r\nv\r\n")]
    {
        s.warm(&mut app, "k", "v");
        assert_eq!(app.ask("WATCH k"), "+OK\r\n");
        let calls = || s.redis.calls("get") + s.redis.calls("mget");
        let before = calls();
        assert_eq!(app.ask(read), reply);
        assert_eq!(calls(), before + 1, "{read}");
        assert_eq!(app.ask("UNWATCH"), "+OK\r\n");
    }
}

#[test]
fn a_script_may_change_a_key_that_it_does_not_declare() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    let script = "return redis.call('SET', ARGV[1], ARGV[2])";
    let function =
        "#!lua name=lib\nredis.register_function('put', function(k, a) return redis.call('SET', a[1], a[2]) end)";
    assert_eq!(other.call(&["FUNCTION", "LOAD", function]), b"$3\r\nlib\r\n");
    let sha = String::from_utf8(other.call(&["SCRIPT", "LOAD", script])).unwrap();
    let sha = sha.split("\r\n").nth(1).unwrap().to_owned();
    let calls: [&[&str]; 6] = [
        &["EVAL", script, "0", "k"],
        &["EVAL", script, "1", "another", "k"],
        &["EVALSHA", &sha, "0", "k"],
        &["EVALSHA", &sha, "1", "another", "k"],
        &["FCALL", "put", "0", "k"],
        &["FCALL", "put", "1", "another", "k"],
    ];
    for (number, call) in calls.iter().enumerate() {
        s.warm(&mut app, "k", &(2 * number).to_string());
        let (next, last) = ((2 * number + 1).to_string(), (2 * number + 2).to_string());
        assert_eq!(other.call(&[call, &[next.as_str()][..]].concat()), b"+OK\r\n", "{call:?}");
        assert_eq!(app.ask("GET k"), bulk(&next), "{call:?}");
        // In one go, before anybody can have been told.
        s.warm(&mut app, "k", &next);
        app.send(&[wire(&[call, &[last.as_str()][..]].concat()), wire(&["GET", "k"])].concat());
        assert_eq!([app.text(), app.text()], ["+OK\r\n".to_owned(), bulk(&last)], "{call:?}");
    }
    // Within a transaction.
    s.warm(&mut app, "k", "12");
    assert_eq!([other.ask("MULTI"), other.ask("SET other 1")], ["+OK\r\n", "+QUEUED\r\n"]);
    assert_eq!(other.call(&["EVAL", script, "0", "k", "13"]), b"+QUEUED\r\n");
    assert_eq!(other.ask("EXEC"), "*2\r\n+OK\r\n+OK\r\n");
    assert_eq!(app.ask("GET k"), "$2\r\n13\r\n");
}

/// Each has as its first words what is done before at the server, and behind the bar what is asked through hotring, upon
/// which the key `k`, that held `12`, must be what it is at the server.
const WRITERS: &[&str] = &[
    "|SET k 1",
    "|SET k 1 XX",
    "|SET k 1 NX",
    "|SET k 1 GET",
    "|SET k 1 EX 100",
    "|SET k 1 KEEPTTL",
    "|SETNX k 1",
    "|SETEX k 100 1",
    "|PSETEX k 100000 1",
    "|GETSET k 1",
    "|GETDEL k",
    "|GETEX k PXAT 1",
    "|GETEX k EX 100",
    "|GETEX k PERSIST",
    "|APPEND k 3",
    "|SETRANGE k 1 xyz",
    "|SETRANGE k 0 9",
    "|INCR k",
    "|INCRBY k 5",
    "|INCRBYFLOAT k 0.5",
    "|DECR k",
    "|DECRBY k 5",
    "|SETBIT k 7 0",
    "|BITFIELD k SET u8 0 65",
    "|BITFIELD k INCRBY u8 8 1",
    "SET o abc|BITOP NOT k o",
    "SET o abc|BITOP AND k o k",
    "|BITOP OR k absent",
    "|DEL k",
    "|UNLINK k",
    "|DEL o k",
    "|EXPIRE k -1",
    "|EXPIRE k 100",
    "|PEXPIRE k 0",
    "|EXPIREAT k 1",
    "|PEXPIREAT k 1",
    "EXPIRE k 100|PERSIST k",
    "SET o 1|RENAME o k",
    "|RENAME k o",
    "|RENAMENX k o",
    "SET o 1|RENAMENX o k",
    "SET o 1|COPY o k REPLACE",
    "SET o 1|COPY o k",
    "|MOVE k 1",
    "|MSET o 1 k 2",
    "|MSETNX new 1 k 2",
    "DEL k|MSETNX new 1 k 2",
    "RPUSH l 3 1 2|SORT l STORE k",
    "SADD a 1 2|SINTERSTORE k a",
    "|SINTERSTORE k absent",
    "SADD a 1 2|SUNIONSTORE k a",
    "SADD a 1 2|SDIFFSTORE k a",
    "|SDIFFSTORE k absent",
    "ZADD z 1 a|ZRANGESTORE k z 0 -1",
    "ZADD z 1 a|ZUNIONSTORE k 1 z",
    "ZADD z 1 a|ZINTERSTORE k 1 z",
    "ZADD z 1 a|ZDIFFSTORE k 1 z",
    "GEOADD g 1 1 a|GEOSEARCHSTORE k g FROMLONLAT 1 1 BYRADIUS 1 km",
    "GEOADD g 1 1 a|GEORADIUS g 1 1 1 km STORE k",
    "DEL k,PFADD k 1,PFADD p 2|PFMERGE k p",
    "DEL k|PFADD k 1",
    "DEL k|RPUSH k 1",
    "DEL k|LPUSH k 1",
    "DEL k|SADD k 1",
    "DEL k|ZADD k 1 1",
    "DEL k|HSET k f 1",
    "DEL k|XADD k * f 1",
    "DEL k|GEOADD k 1 1 a",
    "DEL k|SETBIT k 7 1",
    "DEL k|INCR k",
    "DEL k|APPEND k x",
    "DEL k|HINCRBY k f 1",
    "DEL k,RPUSH l 1|LMOVE l k LEFT LEFT",
    "DEL k,RPUSH l 1|RPOPLPUSH l k",
    "DEL k,RPUSH l 1|BLMOVE l k LEFT LEFT 1",
    "DEL k,RPUSH l 1|BRPOPLPUSH l k 1",
    "DEL k,SADD a 1|SMOVE a k 1",
    "|EVAL redis.call('del',KEYS[1]) 1 k",
    "|FLUSHDB",
    "|FLUSHALL",
    "|FLUSHALL ASYNC",
];

/// The words of a writer with a name of its own for the key, which is given, too: a key that was of another type is not kept
/// for a while.
fn words_of(number: usize, line: &str) -> (String, Vec<String>, Vec<String>) {
    let name = format!("k{number}");
    let renamed =
        |line: &str| line.split(' ').map(|word| if word == "k" { &name } else { word }).collect::<Vec<_>>().join(" ");
    let (before, asked) = line.split_once('|').unwrap();
    let before = before.split(',').filter(|words| !words.is_empty()).map(renamed).collect();
    let asked = renamed(asked).split(' ').map(str::to_owned).collect();
    (name, before, asked)
}

#[test]
fn whatever_changes_a_hot_key_is_seen_by_the_next_read_of_everyone() {
    let s = Stand::new();
    let (mut app, mut writer, mut direct) = (s.app(), s.app(), s.redis.client());
    let mut number = 0;
    for line in WRITERS {
        let (key, before, asked) = words_of(number, line);
        direct.ask("FLUSHALL");
        direct.ask(&format!("SET {key} 12"));
        for words in before {
            assert!(!direct.ask(&words).starts_with('-'), "{words}");
        }
        let get = format!("GET {key}");
        let has = direct.ask(&get);
        comes(&mut app, &key, &has);
        warm(&mut app, &s.redis, &key, &has);
        let told = String::from_utf8(writer.call(&asked)).unwrap();
        assert!(!told.starts_with('-'), "{asked:?}: {told}");
        // At once: what the server tells of it may take longer.
        let seen = [app.ask(&get), writer.ask(&get)];
        let is = direct.ask(&get);
        assert_eq!(seen, [is.as_str(), &is], "{asked:?}");
        number += usize::from(is.starts_with('-'));
    }
}

#[test]
fn a_writer_sees_in_one_go_what_it_did() {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    let mut number = 0;
    for line in WRITERS {
        let (key, before, asked) = words_of(number, line);
        direct.ask("FLUSHALL");
        direct.ask(&format!("SET {key} 12"));
        before.iter().for_each(|words| drop(direct.ask(words)));
        let get = format!("GET {key}");
        let has = direct.ask(&get);
        comes(&mut app, &key, &has);
        warm(&mut app, &s.redis, &key, &has);
        app.send(&[wire(&asked), wire(&["GET", &key])].concat());
        let (_, read) = (app.text(), app.text());
        assert_eq!(read, direct.ask(&get), "{asked:?}");
        number += usize::from(read.starts_with('-'));
    }
}

#[test]
fn set_with_get_tells_what_was_there_and_leaves_what_is() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("SET k 0"), "+OK\r\n");
    for round in 0..10 {
        s.warm(&mut app, "k", &round.to_string());
        assert_eq!(other.ask(&format!("SET k {} GET", round + 1)), bulk(&round.to_string()));
        assert_eq!(app.ask("GET k"), bulk(&(round + 1).to_string()));
    }
    // One that changes nothing.
    s.warm(&mut app, "k", "10");
    assert_eq!(other.ask("SET k 11 NX GET"), "$2\r\n10\r\n");
    assert_eq!(app.ask("GET k"), "$2\r\n10\r\n");
}

#[test]
fn a_key_ends_in_memory_when_it_ends_at_its_server() {
    const MANY: usize = 20;
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    let span = Duration::from_millis(500);
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    for _ in 0..3 {
        comes(&mut app, "k", "$1\r\nv\r\n");
        s.warm(&mut app, "k", "v");
        assert_eq!(other.ask("SET k v PX 500"), "+OK\r\n");
        let begun = now();
        let before = s.redis.calls("get");
        let mut reads = 0;
        loop {
            let asked = begun.elapsed();
            app.send(&wire(&["GET", "k"]).repeat(MANY));
            let told: Vec<String> = (0..MANY).map(|_| app.text()).collect();
            if asked > span + Duration::from_millis(2) {
                assert_eq!(told, ["$-1\r\n"; MANY], "asked {asked:?} after it was set");
                break;
            }
            reads += told.iter().filter(|reply| *reply == "$1\r\nv\r\n").count();
            assert!(told.iter().all(|reply| reply == "$1\r\nv\r\n" || reply == "$-1\r\n"), "{told:?}");
        }
        let calls = s.redis.calls("get") - before;
        assert!(calls < reads as u64 / 2, "{calls} of {reads} came to the server");
        assert_eq!(other.ask("SET k v"), "+OK\r\n");
    }
    comes(&mut app, "k", "$1\r\nv\r\n");
    // A time to live that somebody gives it later.
    s.warm(&mut app, "k", "v");
    assert_eq!(s.redis.client().ask("PEXPIRE k 50"), ":1\r\n");
    comes(&mut app, "k", "$-1\r\n");
}

#[test]
fn that_a_key_is_not_there_ends_with_its_first_value() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    warm(&mut app, &s.redis, "k", "$-1\r\n");
    assert_eq!(other.ask("SET k 1"), "+OK\r\n");
    assert_eq!(app.ask("GET k"), "$1\r\n1\r\n");
    assert_eq!(other.ask("DEL k"), ":1\r\n");
    warm(&mut app, &s.redis, "k", "$-1\r\n");
    assert_eq!(s.redis.client().ask("SETNX k 2"), ":1\r\n");
    comes(&mut app, "k", "$1\r\n2\r\n");
}

#[test]
fn a_change_that_others_make_is_told_by_the_server() {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(direct.ask("SET k 0"), "+OK\r\n");
    for round in 0..20 {
        s.warm(&mut app, "k", &round.to_string());
        assert_eq!(direct.ask("INCR k"), format!(":{}\r\n", round + 1));
        comes(&mut app, "k", &bulk(&(round + 1).to_string()));
    }
}

#[test]
fn flushall_empties_memory_too() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR]));
    let keys = [key_on(0, 2), key_on(1, 2)];
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for flush in ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "direct"] {
        for (key, redis) in keys.iter().zip(&redis) {
            assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
            warm(&mut app, redis, key, "$1\r\nv\r\n");
        }
        if flush == "direct" {
            redis.iter().for_each(|redis| drop(redis.client().ask("FLUSHALL")));
            keys.iter().for_each(|key| comes(&mut app, key, "$-1\r\n"));
        } else {
            assert_eq!(other.ask(flush), "+OK\r\n");
            for key in &keys {
                assert_eq!(app.ask(&format!("GET {key}")), "$-1\r\n", "{flush}");
            }
        }
    }
}

#[test]
#[ignore = "half a minute: Redis tells nobody of a SWAPDB, so that what was read before is answered until it has been kept longest"]
fn swapdb_at_the_server_ends_in_half_a_minute() {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(direct.ask("SELECT 1"), "+OK\r\n");
    assert_eq!(direct.ask("SET k one"), "+OK\r\n");
    assert_eq!(app.ask("SET k null"), "+OK\r\n");
    s.warm(&mut app, "k", "null");
    let begun = now();
    assert_eq!(direct.ask("SWAPDB 0 1"), "+OK\r\n");
    eventually("it is over", || begun.elapsed() > Duration::from_secs(31) || app.ask("GET k") == "$3\r\none\r\n");
    assert_eq!(app.ask("GET k"), "$3\r\none\r\n");
}

#[test]
fn an_app_cannot_swap_databases() {
    let s = Stand::new();
    let mut app = s.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    s.warm(&mut app, "k", "v");
    assert!(app.ask("SWAPDB 0 1").starts_with("-ERR"));
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn the_same_name_in_another_database_is_another_key() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(other.ask("SELECT 1"), "+OK\r\n");
    assert_eq!([app.ask("SET k zero"), other.ask("SET k one")], ["+OK\r\n", "+OK\r\n"]);
    for round in 0..5 {
        s.warm(&mut app, "k", "zero");
        for _ in 0..20 {
            assert_eq!([other.ask("GET k"), app.ask("GET k")], ["$3\r\none\r\n", "$4\r\nzero\r\n"], "{round}");
        }
        // Hot there, too.
        other.send(&wire(&["GET", "k"]).repeat(1000));
        for _ in 0..1000 {
            assert_eq!(other.text(), "$3\r\none\r\n");
        }
        // Written there.
        assert_eq!(other.ask("SET k one"), "+OK\r\n");
        assert_eq!(app.ask("GET k"), "$4\r\nzero\r\n");
    }
    // A session goes there and back.
    s.warm(&mut app, "k", "zero");
    let words = ["GET k", "SELECT 1", "GET k", "SELECT 0", "GET k", "SELECT 1", "SET k 1", "RESET", "GET k"];
    app.send(&words.map(|words| wire(&words.split(' ').collect::<Vec<_>>())).concat());
    let replies: String = words.iter().map(|_| app.text()).collect();
    let (zero, one) = ("$4\r\nzero\r\n", "$3\r\none\r\n");
    assert_eq!(replies, format!("{zero}+OK\r\n{one}+OK\r\n{zero}+OK\r\n+OK\r\n+RESET\r\n{zero}"));
    assert_eq!(other.ask("GET k"), "$1\r\n1\r\n");
    // RESP3, in both.
    assert!(other.ask("HELLO 3").starts_with('%'));
    assert_eq!(other.ask("GET k"), "$1\r\n1\r\n");
    assert!(app.ask("HELLO 3").starts_with('%'));
    s.warm(&mut app, "k", "zero");
}

#[test]
fn a_pool_of_another_database_keeps_that_ones_keys() {
    let s = Stand::with(&[], &[NEAR, "redis_db: 2"]);
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(direct.ask("SET k zero"), "+OK\r\n");
    assert_eq!(app.ask("SET k two"), "+OK\r\n");
    s.warm(&mut app, "k", "two");
    assert_eq!([direct.ask("SELECT 2"), direct.ask("SET k 2")], ["+OK\r\n", "+OK\r\n"]);
    comes(&mut app, "k", "$1\r\n2\r\n");
}

#[test]
fn both_protocols_are_told_the_same_each_in_its_own_words() {
    let s = Stand::new();
    let (mut two, mut three, mut writer) = (s.app(), s.app(), s.app());
    assert!(three.ask("HELLO 3").starts_with('%'));
    for _ in 0..3 {
        warm(&mut two, &s.redis, "k", "$-1\r\n");
        assert!(is_near(&mut three, &s.redis, "k", "_\r\n"));
        assert_eq!(writer.ask("DEL k"), ":0\r\n");
        warm(&mut three, &s.redis, "k", "_\r\n");
        assert!(is_near(&mut two, &s.redis, "k", "$-1\r\n"));
        assert_eq!(writer.ask("SET k v"), "+OK\r\n");
        assert_eq!([two.ask("GET k"), three.ask("GET k")], ["$1\r\nv\r\n", "$1\r\nv\r\n"]);
        warm(&mut three, &s.redis, "k", "$1\r\nv\r\n");
        assert!(is_near(&mut two, &s.redis, "k", "$1\r\nv\r\n"));
        // From one to the other.
        assert_eq!(writer.ask("DEL k"), ":1\r\n");
        warm(&mut two, &s.redis, "k", "$-1\r\n");
        assert!(two.ask("HELLO 3").starts_with('%'));
        assert_eq!(two.ask("GET k"), "_\r\n");
        assert!(two.ask("HELLO 2").starts_with('*'));
        assert_eq!(two.ask("GET k"), "$-1\r\n");
    }
}

#[test]
fn names_with_braces_and_any_bytes_are_names() {
    let (redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR, "hash_tag: \"{}\""]));
    let mut app = hotring.app();
    let owner =
        |name: &[u8]| redis.iter().find(|redis| redis.client().call(&[&b"EXISTS"[..], name]) == b":1\r\n").unwrap();
    let names: [&[u8]; 9] =
        [b"{a}b", b"a{b}", b"{}a", b"{", b"}", b"a{b", b"{a}{b}", b"\r\n$1\r\n\0\xff", b"{a} b\r\nGET k\r\n"];
    for (number, name) in names.iter().enumerate() {
        assert_eq!(app.call(&[&b"SET"[..], name, number.to_string().as_bytes()]), b"+OK\r\n");
    }
    for (number, name) in names.iter().enumerate() {
        let (owner, reply) = (owner(name), bulk(&number.to_string()).into_bytes());
        eventually("it is answered from memory", || {
            app.send(&wire(&[&b"GET"[..], name]).repeat(100));
            (0..100).for_each(|_| assert_eq!(app.reply(), reply));
            let before = owner.calls("get");
            assert_eq!(app.call(&[&b"GET"[..], name]), reply);
            owner.calls("get") == before
        });
    }
    // All of them are there at the same time, each with its own.
    for (number, name) in names.iter().enumerate() {
        assert_eq!(app.call(&[&b"GET"[..], name]), bulk(&number.to_string()).into_bytes());
        assert_eq!(owner(name).client().call(&[&b"SET"[..], name, b"new"]), b"+OK\r\n");
        soon("the change is heard of", || app.call(&[&b"GET"[..], name]) == b"$3\r\nnew\r\n");
    }
}

#[test]
fn a_value_that_is_too_long_is_answered_by_its_server() {
    let s = Stand::with(&[], &["hot_keys: {reads: near, max_staleness: 60s, near_value: 1kb}"]);
    let mut app = s.app();
    let long = "x".repeat(1100);
    assert_eq!(app.ask(&format!("SET long {long}")), "+OK\r\n");
    assert_eq!(app.ask("SET short 1"), "+OK\r\n");
    s.warm(&mut app, "short", "1");
    for _ in 0..20 {
        app.send(&wire(&["GET", "long"]).repeat(50));
        for _ in 0..50 {
            assert_eq!(app.text(), bulk(&long));
        }
        assert!(!is_near(&mut app, &s.redis, "long", &bulk(&long)));
    }
    // One that grows beyond it.
    assert_eq!(app.ask(&format!("APPEND short {long}")), ":1101\r\n");
    for _ in 0..20 {
        assert!(!is_near(&mut app, &s.redis, "short", &bulk(&format!("1{long}"))));
    }
}

#[test]
fn a_key_of_another_type_is_an_error_each_time() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    assert_eq!(app.ask("RPUSH k 1"), ":1\r\n");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    for _ in 0..20 {
        app.send(&wire(&["GET", "k"]).repeat(50));
        for _ in 0..50 {
            assert_eq!(app.text(), wrong);
        }
        assert!(!is_near(&mut app, &s.redis, "k", wrong));
    }
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    assert_eq!([other.ask("DEL k"), other.ask("RPUSH k 1")], [":1\r\n", ":1\r\n"]);
    assert_eq!(app.ask("GET k"), wrong);
}

#[test]
fn with_the_connections_to_the_server_goes_what_was_read_on_them() {
    let s = Stand::new();
    let (mut app, mut direct) = (s.app(), s.redis.client());
    assert_eq!(direct.ask("SET k 0"), "+OK\r\n");
    for round in 0..5 {
        s.warm(&mut app, "k", &round.to_string());
        // Nobody is told of this change: it comes behind the end of the connection.
        direct.send(&[wire(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]), wire(&["INCR", "k"])].concat());
        assert!(direct.text().starts_with(':'));
        assert_eq!(direct.text(), format!(":{}\r\n", round + 1));
        soon("the change is seen", || {
            let told = app.ask("GET k");
            let lost = told.starts_with('-');
            assert!(lost || told == bulk(&round.to_string()) || told == bulk(&(round + 1).to_string()), "{told}");
            told == bulk(&(round + 1).to_string())
        });
    }
    s.warm(&mut app, "k", "5");
}

#[test]
fn a_server_that_remembers_one_key_only_forgets_none_silently() {
    let s = Stand::with(&["--tracking-table-max-keys", "1"], &[NEAR]);
    let (mut app, mut direct) = (s.app(), s.redis.client());
    let keys: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    for round in 0..20 {
        for key in &keys {
            assert_eq!(direct.ask(&format!("SET {key} {round}")), "+OK\r\n");
        }
        for key in &keys {
            comes(&mut app, key, &bulk(&round.to_string()));
        }
        for key in &keys {
            for _ in 0..20 {
                assert_eq!(app.ask(&format!("GET {key}")), bulk(&round.to_string()));
            }
        }
    }
}

#[test]
fn a_server_that_may_not_tell_of_changes_makes_answers_old_for_no_longer_than_allowed() {
    for denied in ["-client|tracking", "-client|caching"] {
        let user = ["--user", "default", "on", "nopass", "~*", "&*", "+@all", denied];
        let s = Stand::with(&user, &["hot_keys: {reads: near, max_staleness: 300ms}"]);
        let (mut app, mut other, mut direct) = (s.app(), s.app(), s.redis.client());
        assert_eq!(direct.ask("SET k 0"), "+OK\r\n");
        for round in 0..2 {
            let begun = now();
            while begun.elapsed() < Duration::from_millis(500) {
                app.send(&wire(&["GET", "k"]).repeat(50));
                for _ in 0..50 {
                    assert_eq!(app.text(), bulk(&(2 * round).to_string()));
                }
            }
            assert_eq!(direct.ask("INCR k"), format!(":{}\r\n", 2 * round + 1));
            let written = now();
            loop {
                let asked = written.elapsed();
                let told = app.ask("GET k");
                if asked > Duration::from_millis(302) {
                    assert_eq!(told, bulk(&(2 * round + 1).to_string()), "asked {asked:?} after it was written");
                    break;
                }
            }
            // What is written through here is seen at once.
            assert_eq!(other.ask("INCR k"), format!(":{}\r\n", 2 * round + 2));
            assert_eq!(app.ask("GET k"), bulk(&(2 * round + 2).to_string()));
        }
        if denied == "-client|tracking" {
            let refused = "hotring_near_untracked_backends{pool=\"main\"}";
            eventually("it is told", || s.hotring.metric(refused) == 1.0);
        }
    }
}

#[test]
fn a_reload_takes_what_is_in_memory_with_it_or_not_but_is_right() {
    let (redis, at) = shards(2);
    let file = |servers: &[&str], hot: &str| pool(servers, &["^watch: off", "distribution: even", hot]);
    let (one, two) = ([at[0].as_str()], [at[0].as_str(), at[1].as_str()]);
    let site = Site::new(&file(&one, NEAR));
    let mut app = site.hotring.app();
    // A key that the second server gets when it comes.
    let key = {
        let both = Hotring::over(&two, &["distribution: even"]);
        let mut app = both.app();
        let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        keys.iter().for_each(|key| assert_eq!(app.ask(&format!("SET {key} x")), "+OK\r\n"));
        let mut direct = redis[1].client();
        let moves = |key: &&String| direct.ask(&format!("EXISTS {key}")) == ":1\r\n";
        keys.iter().find(moves).unwrap().clone()
    };
    redis.iter().for_each(|redis| assert_eq!(redis.client().ask("FLUSHALL"), "+OK\r\n"));
    let take = |yaml: &str| {
        let (status, told) = site.reload(yaml);
        assert_eq!(status, 200, "{told}");
    };
    let set = |server: usize, value: &str| {
        assert_eq!(redis[server].client().ask(&format!("SET {key} {value}")), "+OK\r\n");
    };
    set(0, "a");
    set(1, "b");
    comes(&mut app, &key, "$1\r\na\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\na\r\n");
    // Another setting, while it is there and is changed.
    take(&file(&one, "hot_keys: {reads: near, max_staleness: 30s, near_value: 1kb}"));
    set(0, "c");
    comes(&mut app, &key, "$1\r\nc\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nc\r\n");
    // It lives elsewhere from now on.
    take(&file(&two, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nb\r\n");
    warm(&mut app, &redis[1], &key, "$1\r\nb\r\n");
    set(0, "d");
    set(1, "e");
    comes(&mut app, &key, "$1\r\ne\r\n");
    warm(&mut app, &redis[1], &key, "$1\r\ne\r\n");
    // And back, where it has been changed meanwhile.
    take(&file(&one, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nd\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nd\r\n");
    // Off is off, from the next request on.
    set(0, "f");
    take(&file(&one, "hot_keys: {reads: off}"));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nf\r\n");
    set(0, "g");
    assert!(!is_near(&mut app, &redis[0], &key, "$1\r\ng\r\n"));
    // On again, though somebody wrote while nobody listened.
    set(0, "h");
    take(&file(&one, NEAR));
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nh\r\n");
    warm(&mut app, &redis[0], &key, "$1\r\nh\r\n");
    assert_eq!(app.ask(&format!("SET {key} i")), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\ni\r\n");
}

#[test]
fn what_one_worker_has_written_the_other_does_not_answer_from_before() {
    let s = Stand::with(&[], &[NEAR, "^workers: 2"]);
    // Dealt in turn.
    let (mut first, mut second) = (s.app(), s.app());
    assert_eq!(first.ask("SET k 0"), "+OK\r\n");
    let script = "return redis.call('SET', 'k', ARGV[1])";
    for round in 0..60 {
        let (before, next) = (round.to_string(), (round + 1).to_string());
        s.warm(&mut first, "k", &before);
        s.warm(&mut second, "k", &before);
        let (writer, reader) = if round % 2 == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        match round % 5 {
            0 => assert_eq!(writer.ask(&format!("SET k {next}")), "+OK\r\n"),
            1 => assert_eq!(writer.ask("INCR k"), format!(":{next}\r\n")),
            2 => assert_eq!(writer.call(&["EVAL", script, "0", &next]), b"+OK\r\n"),
            3 => {
                assert_eq!([writer.ask("MULTI"), writer.ask("INCR k")], ["+OK\r\n", "+QUEUED\r\n"]);
                assert_eq!(writer.ask("EXEC"), format!("*1\r\n:{next}\r\n"));
            }
            _ => assert_eq!(writer.ask(&format!("MSET other 1 k {next}")), "+OK\r\n"),
        }
        assert_eq!(reader.ask("GET k"), bulk(&next), "round {round}");
        assert_eq!(writer.ask("GET k"), bulk(&next), "round {round}");
    }
}

#[test]
fn a_long_set_that_comes_in_parts_counts_from_its_first_part() {
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    let long = "x".repeat(8 << 20);
    for key in ["a", "b", "c"] {
        assert_eq!(app.ask(&format!("SET {key} 1")), "+OK\r\n");
        s.warm(&mut app, key, "1");
        let request = wire(&["SET", key, &long]);
        let (first, rest) = request.split_at(request.len() / 2);
        other.send(first);
        assert_eq!(app.ask(&format!("GET {key}")), "$1\r\n1\r\n");
        other.send(rest);
        assert_eq!(other.text(), "+OK\r\n");
        assert!(app.call(&["GET", key]).starts_with(b"$8388608\r\n"));
        assert_eq!(other.ask(&format!("SET {key} 1")), "+OK\r\n");
        assert_eq!(app.ask(&format!("GET {key}")), "$1\r\n1\r\n");
    }
}

#[test]
fn prefixes_say_which_keys_are_kept() {
    let rules = "[{prefix: \"a:\", reads: near}, {prefix: \"a:lock:\", reads: off}]";
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[&format!("hot_keys: {{max_staleness: 60s, prefixes: {rules}}}")]));
    let mut app = hotring.app();
    for key in ["a:1", "a:lock:1", "b:1"] {
        assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    }
    warm(&mut app, &redis[home(2, b"a:1")], "a:1", "$1\r\nv\r\n");
    for key in ["a:lock:1", "b:1"] {
        app.send(&wire(&["GET", key]).repeat(1000));
        for _ in 0..1000 {
            assert_eq!(app.text(), "$1\r\nv\r\n");
        }
        assert!(!is_near(&mut app, &redis[home(2, key.as_bytes())], key, "$1\r\nv\r\n"));
    }
}

#[test]
fn a_strict_listener_is_answered_by_the_server() {
    let s = Stand::with(&[], &[NEAR, "listen_strict: 127.0.0.1:0"]);
    let (mut app, mut strict) = (s.app(), Client::connect(s.hotring.address(1)));
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    s.warm(&mut app, "k", "v");
    for _ in 0..10 {
        assert!(is_near(&mut app, &s.redis, "k", "$1\r\nv\r\n"));
        assert!(!is_near(&mut strict, &s.redis, "k", "$1\r\nv\r\n"));
    }
    // Whatever others do at the server, it sees at once.
    let mut direct = s.redis.client();
    for round in 0..100 {
        direct.ask(&format!("SET k {round}"));
        assert_eq!(strict.ask("GET k"), bulk(&round.to_string()));
    }
}

#[test]
fn many_hot_keys_of_many_servers_stay_within_near_memory() {
    let (redis, at) = shards(2);
    let hot = "hot_keys: {reads: near, max_staleness: 60s, near_memory: 64kb, near_value: 16kb}";
    let hotring = Hotring::with_admin(&pool(&at, &[hot]));
    let keys: Vec<String> = [keys_on(0, 2, 10), keys_on(1, 2, 10)].concat();
    let mut app = hotring.app();
    let value = |key: &str, round: u32| format!("{key}:{round}:{}", "x".repeat(10_000));
    for round in 0..3 {
        for key in &keys {
            assert_eq!(app.ask(&format!("SET {key} {}", value(key, round))), "+OK\r\n");
        }
        for key in keys.iter().cycle().take(200) {
            app.send(&wire(&["GET", key]).repeat(10));
            for _ in 0..10 {
                assert_eq!(app.text(), bulk(&value(key, round)));
            }
        }
    }
    drop(redis);
}

#[test]
fn every_request_is_answered_once_and_nothing_is_left_behind() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[NEAR, "^workers: 2"]));
    let keys = [key_on(0, 2), key_on(1, 2)];
    let mut apps: Vec<Client> = (0..8).map(|_| hotring.app()).collect();
    for key in &keys {
        assert_eq!(apps[0].ask(&format!("SET {key} 0")), "+OK\r\n");
    }
    for round in 1..200 {
        for (number, app) in apps.iter_mut().enumerate() {
            let key = &keys[(round + number) % 2];
            app.send(&wire(&["GET", key]).repeat(20));
            app.send(&wire(&["MGET", &keys[0], &keys[1]]));
            if number == round % 8 {
                app.send(&wire(&["INCR", key]));
            }
            app.send(&wire(&["PING", &round.to_string()]));
        }
        for (number, app) in apps.iter_mut().enumerate() {
            (0..20).for_each(|_| assert!(app.text().starts_with('$')));
            assert!(app.text().starts_with("*2\r\n$"));
            if number == round % 8 {
                assert!(app.text().starts_with(':'));
            }
            assert_eq!(app.text(), bulk(&round.to_string()));
        }
    }
    for (key, redis) in keys.iter().zip(&redis) {
        warm(&mut apps[0], redis, key, &redis.client().ask(&format!("GET {key}")));
    }
    eventually("nothing waits", || hotring.metric("hotring_requests_pending{pool=\"main\"}") == 0.0);
    drop(apps);
    eventually("all are gone", || {
        hotring.metric("hotring_client_connections{pool=\"main\"}") == 0.0
            && hotring.metric("hotring_client_output_bytes{pool=\"main\"}") == 0.0
    });
}
