//! MULTI, EXEC, DISCARD, WATCH and UNWATCH over three real shards, in both protocols: what Redis says, all or nothing,
//! and never an EXEC whose watch was lost.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, eventually, key_on, keys_on, shards, wire};

/// Keys of one hash tag live together.
const TAGGED: &[&str] = &["hash_tag: \"{}\""];
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
const CROSSED: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const LOST: &str =
    "-EXECABORT Transaction discarded because the connection to its shard was lost; nothing of it was carried out\r\n";

/// What EXEC says when a watched key has changed.
fn nil(resp3: bool) -> &'static str {
    if resp3 { "_\r\n" } else { "*-1\r\n" }
}

fn app(hotring: &Hotring, resp3: bool) -> Client {
    speaking(hotring.app(), resp3)
}

fn speaking(mut client: Client, resp3: bool) -> Client {
    if resp3 {
        assert!(client.ask("HELLO 3").starts_with("%7\r\n"));
    }
    client
}

fn ask_all(client: &mut Client, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| client.ask(line)).collect()
}

/// The bytes of some requests, each of words.
fn batch(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| wire(&line.split_whitespace().collect::<Vec<_>>())).collect()
}

/// Ends all connections to a server but the one that says so.
fn cut(redis: &Redis) {
    assert!(redis.client().ask("CLIENT KILL TYPE normal SKIPME yes").starts_with(':'));
}

/// What an app asks, one line after the other; all keys live on one shard.
const TALKS: &[&[&str]] = &[
    &["MULTI", "SET {t}a 1", "INCR {t}a", "GET {t}a", "EXEC", "GET {t}a"],
    &["MULTI", "EXEC", "EXEC"],
    &["EXEC", "DISCARD", "UNWATCH", "GET {t}a"],
    &["EXEC x", "DISCARD x", "MULTI x", "WATCH", "UNWATCH x", "EXEC", "GET {t}a"],
    &["MULTI", "MULTI", "SET {t}a 2", "MULTI", "EXEC", "GET {t}a"],
    &["MULTI", "WATCH {t}a", "SET {t}a 3", "WATCH {t}a", "EXEC", "GET {t}a"],
    &["MULTI", "WATCH", "SET {t}a 3", "EXEC", "GET {t}a"],
    &["MULTI", "NONSENSE", "SET {t}a 4", "EXEC", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a 4", "NONSENSE a b", "SET {t}a 5", "EXEC", "GET {t}a", "EXEC"],
    &["MULTI", "SET {t}a", "EXEC", "GET {t}a"],
    &["MULTI", "SET {t}a 4", "GET", "EXEC", "GET {t}a"],
    &["MULTI", "SET {t}a 4", "XINFO nonsense {t}a", "EXEC"],
    &["MULTI", "SET {t}a 6", "DISCARD", "GET {t}a", "EXEC", "DISCARD"],
    &["MULTI", "DISCARD", "DISCARD"],
    &["MULTI", "SET {t}a 6", "MULTI x", "EXEC", "EXEC"],
    &["MULTI", "SET {t}a 6", "DISCARD x", "EXEC", "EXEC"],
    &["MULTI", "SET {t}a 6", "EXEC x", "EXEC", "GET {t}a"],
    &["MULTI", "EXEC x", "SET {t}a 7", "EXEC"],
    &["MULTI", "PING", "ECHO hello", "PING there", "EXEC"],
    &["MULTI", "PING", "ECHO", "EXEC"],
    &["MULTI", "PING", "ECHO early", "GET {t}a", "SET {t}b 1", "PING", "EXEC", "GET {t}b"],
    &["MULTI", "UNWATCH", "GET {t}a", "UNWATCH", "EXEC"],
    &["MULTI", "DEL {t}none {t}a", "LPUSH {t}a x", "INCR {t}a", "SET {t}a 9", "EXEC", "GET {t}a"],
    &["MULTI", "MSET {t}a 1 {t}b 2", "MGET {t}a {t}b {t}none", "DEL {t}a {t}b", "EXISTS {t}a {t}b", "EXEC"],
    &["MULTI", "EVAL return{KEYS[1],ARGV[1]} 1 {t}a v", "EVAL return 1 1 {t}a", "EXEC"],
    &["DEL {t}q", "MULTI", "BLPOP {t}q 0", "BLMOVE {t}q {t}r LEFT LEFT 0", "XREAD BLOCK 0 STREAMS {t}x $", "EXEC"],
    &["MULTI", "RPUSH {t}q 1 2", "BLPOP {t}none {t}q 0", "BRPOPLPUSH {t}q {t}r 0", "DEL {t}r", "EXEC"],
    &[
        "MULTI",
        "HSET {t}h f v",
        "HGETALL {t}h",
        "ZADD {t}z 1.5 m",
        "ZRANGE {t}z 0 -1 WITHSCORES",
        "SADD {t}s m",
        "EXEC",
    ],
    &["MULTI", "SMEMBERS {t}s", "ZSCORE {t}z m", "GET {t}none", "EXEC"],
    // Watches
    &["WATCH {t}a", "MULTI", "SET {t}a 10", "EXEC", "GET {t}a", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 11", "MULTI", "GET {t}a", "EXEC", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a {t}b", "DEL {t}b", "SET {t}b 1", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "WATCH {t}b", "MSET {t}b 1 {t}c 2", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}c 12", "MULTI", "GET {t}c", "EXEC"],
    &["WATCH {t}a", "UNWATCH", "SET {t}a 13", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 13", "UNWATCH", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 14", "MULTI", "DISCARD", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 15", "MULTI", "NONSENSE", "EXEC", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 16", "EXEC", "EXEC x", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 16", "EXEC x", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "MULTI", "SET {t}a 17", "EXEC x", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "WATCH", "NONSENSE", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "MULTI", "UNWATCH", "SET {t}a 17", "EXEC", "GET {t}a"],
    &["WATCH {t}a", "MULTI", "EXEC", "SET {t}a 18", "MULTI", "EXEC"],
    &["WATCH {t}a", "DEL {t}q", "RPUSH {t}q x", "BLPOP {t}q 0", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}q", "RPUSH {t}q x", "BLPOP {t}q 0", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}none", "EXPIRE {t}a 100", "MULTI", "PERSIST {t}a", "EXEC"],
    &["WATCH {t}a {t}a", "GET {t}a", "PING", "MULTI", "PING", "EXEC"],
    // Databases and protocols
    &["SELECT 3", "MULTI", "SET {t}a three", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["WATCH {t}a", "SELECT 3", "SET {t}a new", "GET {t}a", "SELECT 0", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SELECT 3", "MULTI", "SET {t}a newer", "GET {t}a", "EXEC", "GET {t}a", "SELECT 0", "GET {t}a"],
    &["WATCH {t}a", "SELECT 3", "SET {t}b x", "BLPOP {t}none 0.01", "SELECT 0", "SET {t}a 5", "MULTI", "EXEC"],
    &["MULTI", "SET {t}a 20", "RESET", "GET {t}a", "EXEC", "MULTI", "GET {t}a", "EXEC"],
    &["WATCH {t}a", "SET {t}a 21", "RESET", "MULTI", "GET {t}a", "EXEC"],
];

#[test]
fn an_app_is_told_what_redis_tells() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, TAGGED);
    let alone = Redis::start(&[]);
    for resp3 in [false, true] {
        for talk in TALKS {
            // All at once as well as one after the other.
            for pipelined in [false, true] {
                let mut sides = [app(&hotring, resp3), speaking(alone.client(), resp3)];
                let told = sides.each_mut().map(|side| {
                    if !pipelined {
                        return ask_all(side, talk);
                    }
                    side.send(&batch(talk));
                    talk.iter().map(|_| side.text()).collect()
                });
                assert_eq!(told[0], told[1], "{talk:?}, RESP3 {resp3}, pipelined {pipelined}");
            }
        }
    }
}

#[test]
fn a_protocol_that_changes_under_a_watch_is_the_protocol_of_the_transaction() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    assert_eq!(app.ask("HSET h f v"), ":1\r\n");
    assert_eq!(app.ask("WATCH h"), "+OK\r\n");
    assert!(app.ask("HELLO 3").starts_with('%'));
    let told = ask_all(&mut app, &["HGETALL h", "GET none", "MULTI", "HGETALL h", "EXEC"]);
    let map = "%1\r\n$1\r\nf\r\n$1\r\nv\r\n";
    assert_eq!(told[..2], [map, "_\r\n"]);
    assert_eq!(told[4], format!("*1\r\n{map}"));
    assert_eq!(app.ask("WATCH h"), "+OK\r\n");
    assert!(app.ask("HELLO 2").starts_with('*'));
    let told = ask_all(&mut app, &["HGETALL h", "MULTI", "HGETALL h", "EXEC"]);
    assert_eq!(told[0], "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(told[3], "*1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
}

#[test]
fn a_command_that_waits_for_no_key_leaves_a_watch_alone() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["dedicated_connections: 1", "probe_interval: off"]);
    let mut app = hotring.app();
    let told = ask_all(&mut app, &["WATCH k", "SET k 1", "WAIT 0 1", "MULTI", "SET k 2", "EXEC", "GET k"]);
    assert_eq!(told, ["+OK\r\n", "+OK\r\n", ":0\r\n", "+OK\r\n", "+QUEUED\r\n", "*-1\r\n", "$1\r\n1\r\n"]);
    assert_eq!(redis[0].connections(), 2);
}

#[test]
fn a_watch_sees_whoever_writes() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    for resp3 in [false, true] {
        for (shard, redis) in redis.iter().enumerate() {
            let keys = keys_on(shard, 3, 2);
            let (key, bystander) = (&keys[0], &keys[1]);
            let (mut watching, mut other) = (app(&hotring, resp3), app(&hotring, !resp3));
            for (direct, line, seen) in [
                (false, format!("SET {key} app"), true),
                (true, format!("SET {key} direct"), true),
                (false, format!("MSET {bystander} 1 {key} 2"), true),
                (false, format!("DEL {key}"), true),
                (true, "FLUSHALL".to_owned(), false),
                (false, format!("SET {bystander} app"), false),
                (false, format!("GET {key}"), false),
            ] {
                assert_eq!(watching.ask(&format!("WATCH {key}")), "+OK\r\n");
                let told = if direct { redis.client().ask(&line) } else { other.ask(&line) };
                assert!(!told.starts_with('-'), "{line}: {told}");
                assert_eq!(watching.ask("MULTI"), "+OK\r\n");
                assert_eq!(watching.ask(&format!("SET {key} mine")), "+QUEUED\r\n");
                assert_eq!(watching.ask("EXEC"), if seen { nil(resp3) } else { "*1\r\n+OK\r\n" }, "{line}");
                assert_eq!(redis.client().ask(&format!("GET {key}")) == "$4\r\nmine\r\n", !seen, "{line}");
            }
        }
    }
}

#[test]
fn a_transaction_that_crosses_shards_is_refused_and_does_nothing() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (here, there) = (key_on(0, 3), key_on(1, 3));
    for resp3 in [false, true] {
        let mut app = app(&hotring, resp3);
        for lines in [
            vec!["MULTI".to_owned(), format!("SET {here} 1"), format!("SET {there} 1"), format!("INCR {here}")],
            vec!["MULTI".to_owned(), "PING".to_owned(), format!("SET {there} 1"), format!("SET {here} 1")],
            vec!["MULTI".to_owned(), format!("MSET {here} 1 {there} 1"), format!("SET {here} 1")],
            vec!["MULTI".to_owned(), format!("SET {here} 1"), format!("MSET {here} 1 {there} 1"), "PING".to_owned()],
            vec![format!("WATCH {there}"), "MULTI".to_owned(), format!("SET {here} 1"), format!("SET {there} 1")],
        ] {
            for pipelined in [false, true] {
                let mut words: Vec<&str> = lines.iter().map(String::as_str).collect();
                words.push("EXEC");
                app.send(&if pipelined { batch(&words) } else { Vec::new() });
                let told: Vec<String> =
                    words.iter().map(|line| if pipelined { app.text() } else { app.ask(line) }).collect();
                assert_eq!(told.iter().filter(|reply| *reply == CROSSED).count(), 1, "{words:?}: {told:?}");
                assert_eq!(told.last().unwrap(), ABORTED, "{words:?}");
                assert_eq!(app.ask("EXEC"), "-ERR EXEC without MULTI\r\n");
                assert!(redis.iter().all(|redis| redis.client().ask("DBSIZE") == ":0\r\n"), "{words:?}");
            }
        }
        // Two watches, and what is watched stays watched.
        assert_eq!(app.ask(&format!("WATCH {here}")), "+OK\r\n");
        assert_eq!(app.ask(&format!("WATCH {there}")), CROSSED);
        assert_eq!(app.ask(&format!("WATCH {here} {there}")), CROSSED);
        redis[0].client().ask(&format!("INCR {here}"));
        assert_eq!(ask_all(&mut app, &["MULTI", "PING", "EXEC"]).last().unwrap(), nil(resp3));
        redis[0].client().ask("FLUSHALL");
    }
}

#[test]
fn what_cannot_be_part_of_a_transaction_makes_it_fail_as_a_whole() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    for refused in ["SELECT 1", "HELLO 3", "CLIENT ID", "COMMAND COUNT", "INFO", "SUBSCRIBE c", "SAVE"] {
        for first in ["PING", "SET k 1"] {
            assert_eq!(ask_all(&mut app, &["MULTI", first]), ["+OK\r\n", "+QUEUED\r\n"]);
            let told = app.ask(refused);
            assert!(told.starts_with("-ERR "), "{refused}: {told}");
            assert_eq!(app.ask("EXEC"), ABORTED, "{refused}");
            assert_eq!(app.ask("GET k"), "$-1\r\n", "{refused}");
        }
    }
}

#[test]
fn order_holds_before_within_and_behind_a_pipelined_transaction() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["probe_interval: off"]);
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    for resp3 in [false, true] {
        let mut app = app(&hotring, resp3);
        redis.iter().for_each(|redis| drop(redis.client().ask("FLUSHALL")));
        let (mut requests, mut replies) = (Vec::new(), String::new());
        for n in 0..200 {
            let key = &keys[n % 3];
            let (before, within, behind) = (4 * n + 1, 4 * n + 2, 4 * n + 4);
            let lines = [
                format!("SET {key} {before}"),
                format!("GET {}", keys[(n + 1) % 3]),
                "MULTI".to_owned(),
                "PING".to_owned(),
                format!("INCR {key}"),
                "EXEC".to_owned(),
                format!("INCR {key}"),
                format!("WATCH {key}"),
                format!("INCR {key}"),
                format!("GET {key}"),
                "UNWATCH".to_owned(),
                "ECHO end".to_owned(),
            ];
            requests.extend(batch(&lines.each_ref().map(String::as_str)));
            let other = match n {
                0 | 1 => (if resp3 { "_\r\n" } else { "$-1\r\n" }).to_owned(),
                _ => bulk(4 * (n - 2) + 4),
            };
            replies += &format!(
                "+OK\r\n{other}+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n:{within}\r\n:{}\r\n+OK\r\n:{behind}\r\n{}+OK\r\n$3\r\nend\r\n",
                within + 1,
                bulk(behind),
            );
        }
        let mut writer = app.writer();
        let sending = std::thread::spawn(move || writer.send(&requests));
        let told = String::from_utf8(app.exactly(replies.len())).unwrap();
        sending.join().unwrap();
        assert!(told == replies, "differs at {:?}", told.bytes().zip(replies.bytes()).position(|(a, b)| a != b));
    }
    assert!(redis.iter().all(|redis| redis.connections() <= 4));
}

fn bulk(number: usize) -> String {
    let text = number.to_string();
    format!("${}\r\n{text}\r\n", text.len())
}

#[test]
fn an_app_that_sends_no_more_gets_its_transactions_all_the_same() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    app.send(&batch(&["SET k 1", "MULTI", "INCR k", "EXEC", "WATCH k", "GET k", "MULTI", "INCR k", "EXEC", "GET k"]));
    app.half_close();
    let told = String::from_utf8(app.rest()).unwrap();
    assert_eq!(
        told,
        "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n+OK\r\n$1\r\n2\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n$1\r\n3\r\n"
    );
}

#[test]
fn transactions_of_many_apps_each_count_once() {
    const APPS: usize = 8;
    const EACH: usize = 40;
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["probe_interval: off"]);
    let keys: Vec<Vec<String>> = (0..3).map(|shard| keys_on(shard, 3, 2)).collect();
    let threads: Vec<_> = (0..APPS)
        .map(|number| {
            let (mut app, keys) = (app(&hotring, number % 2 == 1), keys.clone());
            std::thread::spawn(move || {
                for n in 0..EACH {
                    let [plain, watched] = &keys[(number + n) % 3][..] else { unreachable!() };
                    app.send(&batch(&["MULTI", &format!("INCR {plain}"), &format!("INCR {plain}"), "EXEC"]));
                    let told: Vec<String> = (0..4).map(|_| app.text()).collect();
                    let numbers: Vec<u64> =
                        told[3].split("\r\n").filter_map(|part| part.strip_prefix(':')?.parse().ok()).collect();
                    assert_eq!(numbers[0] + 1, numbers[1], "nobody comes between: {told:?}");
                    // Read, add and write, again until nobody else did.
                    loop {
                        assert_eq!(app.ask(&format!("WATCH {watched}")), "+OK\r\n");
                        let read = app.ask(&format!("GET {watched}"));
                        let value: u64 = read.split("\r\n").nth(1).map_or(0, |text| text.parse().unwrap_or(0));
                        let lines = ["MULTI", &format!("SET {watched} {}", value + 1), "EXEC"];
                        if ask_all(&mut app, &lines)[2] == "*1\r\n+OK\r\n" {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut sums = [0, 0];
    for (keys, redis) in keys.iter().zip(&redis) {
        for (sum, key) in sums.iter_mut().zip(keys) {
            let told = redis.client().ask(&format!("GET {key}"));
            *sum += told.split("\r\n").nth(1).unwrap().parse::<usize>().unwrap();
        }
        assert!(redis.connections() <= 2 * (APPS + 1), "{}", redis.connections());
    }
    assert_eq!(sums, [2 * APPS * EACH, APPS * EACH]);
}

#[test]
fn a_connection_cut_within_a_transaction_aborts_it() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    for resp3 in [false, true] {
        for (watching, within) in [(false, true), (true, true), (true, false)] {
            let mut app = app(&hotring, resp3);
            let key = key_on(1, 3);
            redis[1].client().ask("FLUSHALL");
            if watching {
                assert_eq!(app.ask(&format!("WATCH {key}")), "+OK\r\n");
            }
            if within {
                assert_eq!(app.ask("MULTI"), "+OK\r\n");
                assert_eq!(app.ask(&format!("SET {key} 1")), "+QUEUED\r\n");
            }
            cut(&redis[1]);
            if within {
                // Whether hotring has seen it already or not.
                let told = app.ask(&format!("SET {key} 2"));
                assert!(told.starts_with('-'), "{told}");
                assert_eq!(app.ask("PING"), LOST);
                assert_eq!(app.ask("EXEC"), LOST);
            } else {
                // Told either by the connection that is gone or by another one: then hotring knows.
                app.ask(&format!("GET {key}"));
                assert_eq!(app.ask("MULTI"), "+OK\r\n");
                assert_eq!(app.ask(&format!("SET {key} 2")), "+QUEUED\r\n");
                assert_eq!(app.ask("EXEC"), nil(resp3), "nobody watched meanwhile");
            }
            eventually("the shard is back", || !app.ask(&format!("GET {key}")).starts_with('-'));
            assert_eq!(redis[1].client().ask(&format!("EXISTS {key}")), ":0\r\n", "nothing was carried out");
            let lines = ["MULTI", &format!("SET {key} 3"), "EXEC"];
            assert_eq!(ask_all(&mut app, &lines), ["+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n"]);
        }
    }
}

#[test]
fn a_watch_that_was_lost_stays_lost_until_it_is_ended() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let keys = keys_on(0, 3, 3);
    let (key, other, list) = (&keys[0], &keys[1], &keys[2]);
    let get = format!("GET {other}");
    for resp3 in [false, true] {
        for (meanwhile, still) in [
            (vec![], true),
            (vec![format!("WATCH {other}")], true),
            (vec![format!("BLPOP {list} 0.001")], true),
            (vec!["PING".to_owned(), get.clone(), format!("MGET {key} {other}")], true),
            (vec!["MULTI".to_owned(), "DISCARD".to_owned()], false),
            (vec!["UNWATCH".to_owned()], false),
            (vec![format!("WATCH {other}"), "UNWATCH".to_owned()], false),
            (vec!["MULTI".to_owned(), get.clone(), "EXEC".to_owned()], false),
            (vec!["MULTI".to_owned(), "NONSENSE".to_owned(), "EXEC".to_owned()], false),
            (vec!["EXEC x".to_owned()], false),
        ] {
            let mut app = app(&hotring, resp3);
            assert_eq!(app.ask(&format!("WATCH {key}")), "+OK\r\n");
            cut(&redis[0]);
            eventually("the shard is back", || !app.ask(&get).starts_with('-'));
            for line in &meanwhile {
                app.ask(line);
            }
            let told = ask_all(&mut app, &["MULTI", "PING", &get, "EXEC"]);
            let nothing = if resp3 { "_\r\n" } else { "$-1\r\n" };
            let done = format!("*2\r\n+PONG\r\n{nothing}");
            assert_eq!(told[3], if still { nil(resp3) } else { &done }, "{meanwhile:?}: {told:?}");
            let told = ask_all(&mut app, &["MULTI", &get, "EXEC"]);
            assert_eq!(told[2], format!("*1\r\n{nothing}"), "{meanwhile:?}");
        }
    }
}

#[test]
fn who_comes_after_an_app_that_left_finds_the_connection_clean() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["dedicated_connections: 1", "probe_interval: off"]);
    let leaving: &[&[&str]] = &[
        &["WATCH k"],
        &["MULTI", "SET k 1"],
        &["WATCH k", "MULTI", "SET k 1"],
        &["WATCH k", "MULTI", "NONSENSE", "SET k 1"],
        &["WATCH k", "MULTI"],
        &["SELECT 2", "WATCH k", "MULTI", "SET k 1"],
    ];
    for (number, lines) in leaving.iter().cycle().take(6 * leaving.len()).enumerate() {
        let mut first = app(&hotring, number % 4 == 3);
        eventually("the connection is free", || match first.ask("WATCH nothing").as_str() {
            "+OK\r\n" => first.ask("UNWATCH") == "+OK\r\n",
            told => !told.starts_with("-ERR all 1 dedicated connections"),
        });
        ask_all(&mut first, lines);
        match number % 3 {
            0 => drop(first),
            1 => first.reset(),
            _ => drop(first.ask("QUIT")),
        }
        let mut next = hotring.app();
        eventually("the connection is free", || match next.ask("WATCH other").as_str() {
            "+OK\r\n" => true,
            told => {
                assert_eq!(told, "-ERR all 1 dedicated connections to shard s0 are in use; nothing was sent\r\n");
                false
            }
        });
        redis[0].client().ask("INCRBY k 10");
        let told = ask_all(&mut next, &["MULTI", "GET k", "DEL k", "EXEC"]);
        assert_eq!(told, ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n$2\r\n10\r\n:1\r\n"], "after {lines:?}");
        assert_eq!(next.ask("UNWATCH"), "+OK\r\n");
    }
    // A shared one for each protocol and database that was used, and the one of which there is no more than one.
    eventually("those given up are closed", || redis[0].connections() <= 4);
}

#[test]
fn no_more_than_so_many_at_a_time() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["dedicated_connections: 1", "probe_interval: off"]);
    let (mut one, mut other) = (hotring.app(), hotring.app());
    let exhausted = "-ERR all 1 dedicated connections to shard s0 are in use; nothing was sent\r\n";
    for begin in [&["WATCH k"][..], &["MULTI", "SET k 1"]] {
        ask_all(&mut one, begin);
        assert_eq!(other.ask("WATCH k"), exhausted);
        assert_eq!(other.ask("BLPOP q 0"), exhausted);
        assert_eq!(ask_all(&mut other, &["MULTI", "PING", "EXEC"])[2], exhausted, "only EXEC needs it");
        assert_eq!(
            ask_all(&mut other, &["MULTI", "SET k 2", "EXEC", "EXEC"])[1..],
            [exhausted, ABORTED, "-ERR EXEC without MULTI\r\n"]
        );
        // It recovers even within a transaction, which fails all the same.
        assert_eq!(ask_all(&mut other, &["MULTI", "SET k 2"])[1], exhausted);
        let end = if begin.len() > 1 { "DISCARD" } else { "UNWATCH" };
        assert_eq!(one.ask(end), "+OK\r\n");
        assert_eq!(other.ask("SET k 3"), "+QUEUED\r\n");
        assert_eq!(other.ask("EXEC"), ABORTED);
        let told = ask_all(&mut other, &["MULTI", "GET k", "EXEC"]);
        assert_eq!(told[2], "*1\r\n$-1\r\n");
        assert_eq!(other.ask("GET k"), "$-1\r\n");
    }
    assert_eq!(redis[0].connections(), 2);
}

#[test]
fn connections_are_used_again() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["probe_interval: off"]);
    for n in 0..90 {
        let mut app = hotring.app();
        let key = key_on(n % 3, 3);
        let told = ask_all(&mut app, &[&format!("WATCH {key}"), "MULTI", &format!("INCR {key}"), "EXEC"]);
        assert_eq!(told[3], format!("*1\r\n:{}\r\n", n / 3 + 1));
    }
    for redis in &redis {
        assert!(redis.connections() <= 1, "{}", redis.connections());
    }
}

#[test]
fn databases_have_transactions_of_their_own() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["databases: 4"]);
    for resp3 in [false, true] {
        let mut apps: Vec<Client> = (0..4).map(|_| app(&hotring, resp3)).collect();
        let key = key_on(2, 3);
        redis[2].client().ask("FLUSHALL");
        for (db, app) in apps.iter_mut().enumerate() {
            assert_eq!(app.ask(&format!("SELECT {db}")), "+OK\r\n");
            let told = ask_all(app, &[&format!("WATCH {key}"), "MULTI", &format!("INCRBY {key} {db}")]);
            assert_eq!(told, ["+OK\r\n", "+OK\r\n", "+QUEUED\r\n"]);
        }
        // A write to one database is none to another's key of that name.
        let mut direct = redis[2].client();
        assert_eq!(ask_all(&mut direct, &["SELECT 1", &format!("SET {key} 100")]), ["+OK\r\n", "+OK\r\n"]);
        for (db, app) in apps.iter_mut().enumerate() {
            let expected = if db == 1 { nil(resp3).to_owned() } else { format!("*1\r\n:{db}\r\n") };
            assert_eq!(app.ask("EXEC"), expected);
        }
        for db in [0, 2, 3, 1] {
            direct.ask(&format!("SELECT {db}"));
            assert_eq!(direct.ask(&format!("GET {key}")), bulk(if db == 1 { 100 } else { db }));
        }
    }
}
