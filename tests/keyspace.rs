//! Commands over the whole keyspace, against three real servers: what they answer together is what one would answer.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use support::{Client, Fake, Hotring, Redis, eventually, key_on, keys_on, shards};

/// The elements of an array of bulk strings.
fn elements(reply: &[u8]) -> Vec<String> {
    let text = String::from_utf8(reply.to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let count: usize = lines.next().unwrap().strip_prefix('*').unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    let all: Vec<String> = lines.skip(1).step_by(2).map(str::to_owned).collect();
    assert!(all.len() == count || count == 0, "{text}");
    all.into_iter().take(count).collect()
}

/// Cursor and keys of a reply to SCAN.
fn scanned(reply: &[u8]) -> (String, Vec<String>) {
    let text = String::from_utf8(reply.to_vec()).unwrap();
    let rest = text.strip_prefix("*2\r\n$").unwrap_or_else(|| panic!("{text}"));
    let (_, rest) = rest.split_once("\r\n").unwrap();
    let (cursor, keys) = rest.split_once("\r\n").unwrap();
    (cursor.to_owned(), elements(keys.as_bytes()))
}

/// All keys of a whole SCAN with these options; `between` is called after each step.
fn scan(app: &mut Client, options: &[&str], mut between: impl FnMut(usize)) -> Vec<String> {
    let (mut cursor, mut all, mut steps) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = app.call(&[&["SCAN", &cursor], options].concat());
        let (next, keys) = scanned(&reply);
        all.extend(keys);
        steps += 1;
        between(steps);
        if next == "0" {
            return all;
        }
        assert_ne!(next, cursor);
        cursor = next;
    }
}

fn fill(app: &mut Client, keys: impl IntoIterator<Item = String>) {
    let pairs: Vec<String> = keys.into_iter().flat_map(|key| [key, "v".to_owned()]).collect();
    for some in pairs.chunks(1000) {
        let words: Vec<&str> = ["MSET"].into_iter().chain(some.iter().map(String::as_str)).collect();
        assert_eq!(app.call(&words), b"+OK\r\n");
    }
}

#[test]
fn three_shards_answer_as_one_server() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let one = Redis::start(&[]);
    for hello in ["", "HELLO 3"] {
        let (mut app, mut direct) = (hotring.app(), one.client());
        if !hello.is_empty() {
            app.ask(hello);
            direct.ask(hello);
        }
        for words in [
            "DBSIZE",
            "RANDOMKEY",
            "KEYS *",
            "FLUSHALL",
            "FLUSHALL ASYNC",
            "FLUSHALL SYNC",
            "FLUSHDB",
            "FLUSHDB ASYNC",
            "FLUSHALL NOW",
            "FLUSHDB a b",
            "PUBSUB CHANNELS",
            "PUBSUB CHANNELS a*",
            "PUBSUB SHARDCHANNELS",
            "PUBSUB NUMSUB",
            "PUBSUB NUMSUB a b a",
            "PUBSUB SHARDNUMSUB a",
            "PUBSUB NUMPAT",
            "SCRIPT FLUSH",
            "SCRIPT FLUSH SYNC",
            "SCRIPT FLUSH x",
            "SCRIPT LOAD return{}",
            "SCRIPT LOAD ((",
            "SCRIPT EXISTS a 9e107d9d372bb6826bd81d3542a419d6",
            "SCRIPT KILL",
            "FUNCTION LIST",
            "FUNCTION STATS",
            "FUNCTION DUMP",
            "FUNCTION FLUSH",
            "FUNCTION DELETE nothing",
            "FUNCTION RESTORE x",
            "FUNCTION KILL",
            "FUNCTION LOAD x",
            "SCAN 0",
            "SCAN x",
            "SCAN 18446744073709551616",
            "SCAN 0 COUNT 0",
            "SCAN 0 COUNT x",
            "SCAN 0 WITH x",
            "LOLWUT VERSION 5 1 1 1",
        ] {
            // The end of an empty SCAN takes three steps.
            let expected = direct.ask(words);
            let got = app.ask(words);
            if words == "SCAN 0" {
                assert_eq!((got.as_str(), expected.as_str()), ("*2\r\n$1\r\n1\r\n*0\r\n", "*2\r\n$1\r\n0\r\n*0\r\n"));
            } else {
                assert_eq!(got, expected, "{hello} {words}");
            }
        }
        let saved: Vec<String> = redis.iter().map(|redis| redis.client().ask("LASTSAVE")).collect();
        assert_eq!(app.ask("LASTSAVE"), *saved.iter().min().unwrap());
        let keys: BTreeSet<String> = (0..50).map(|n| format!("key:{n}")).collect();
        fill(&mut app, keys.iter().cloned());
        assert_eq!(app.ask("DBSIZE"), ":50\r\n");
        assert_eq!(elements(&app.call(&["KEYS", "key:*"])).into_iter().collect::<BTreeSet<_>>(), keys);
        assert_eq!(elements(&app.call(&["KEYS", "*:4?"])).len(), 10);
        assert_eq!(app.ask("FLUSHALL"), "+OK\r\n");
        assert!(redis.iter().all(|redis| redis.client().ask("DBSIZE") == ":0\r\n"));
    }
}

#[test]
fn one_shard_is_passed_through() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &[]);
    let (mut app, mut direct) = (hotring.app(), redis.client());
    fill(&mut app, (0..300).map(|n| format!("key:{n}")));
    for words in ["DBSIZE", "KEYS *", "SCAN 0", "SCAN 0 COUNT 7", "SCAN -1", "SCAN x", "FLUSHALL x", "LASTSAVE"] {
        assert_eq!(app.ask(words), direct.ask(words), "{words}");
    }
    assert_eq!(scan(&mut app, &["COUNT", "3"], |_| ()), scan(&mut direct, &["COUNT", "3"], |_| ()));
}

#[test]
fn a_scan_misses_nothing_that_stays_while_others_come_and_go() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    let stay: BTreeSet<String> = (0..10_000).map(|n| format!("stay:{n}")).collect();
    fill(&mut app, stay.iter().cloned());
    fill(&mut app, (0..2_000).map(|n| format!("go:{n}")));
    for list in ["a", "b", "c", "d", "e"] {
        assert_eq!(app.ask(&format!("RPUSH list:{list} 1")), ":1\r\n");
    }
    let mut gone = 0;
    let found = scan(&mut app, &["COUNT", "50"], |step| {
        // Tables grow and shrink under it.
        if gone < 2_000 {
            let go: Vec<String> = (gone..gone + 20).map(|n| format!("go:{n}")).collect();
            gone += 20;
            assert_eq!(other.ask(&format!("DEL {}", go.join(" "))), ":20\r\n");
        }
        fill(&mut other, (0..100).map(|n| format!("new:{step}:{n}")));
    });
    let found: BTreeSet<String> = found.into_iter().collect();
    assert_eq!(stay.difference(&found).count(), 0);
    let fifth: BTreeSet<String> = scan(&mut app, &["MATCH", "stay:5*", "COUNT", "1000"], |_| ()).into_iter().collect();
    assert_eq!(fifth, stay.iter().filter(|key| key.starts_with("stay:5")).cloned().collect());
    let lists: BTreeSet<String> = scan(&mut app, &["TYPE", "list", "COUNT", "5000"], |_| ()).into_iter().collect();
    assert_eq!(lists, ["a", "b", "c", "d", "e"].map(|list| format!("list:{list}")).into());
    // COUNT reaches the shard: many steps with a small one, few with a large one.
    let mut steps = [0, 0];
    for (steps, count) in steps.iter_mut().zip(["100", "1000000"]) {
        scan(&mut app, &["COUNT", count], |step| *steps = step);
    }
    assert!(steps[0] > 100 && steps[1] == 3, "{steps:?}");
}

#[test]
fn a_scan_in_resp3_and_in_another_database() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["databases: 2"]);
    let (mut zero, mut one) = (hotring.app(), hotring.app());
    one.ask("HELLO 3");
    assert_eq!(one.ask("SELECT 1"), "+OK\r\n");
    fill(&mut zero, (0..100).map(|n| format!("zero:{n}")));
    fill(&mut one, (0..200).map(|n| format!("one:{n}")));
    assert_eq!((zero.ask("DBSIZE"), one.ask("DBSIZE")), (":100\r\n".into(), ":200\r\n".into()));
    let found: BTreeSet<String> = scan(&mut one, &[], |_| ()).into_iter().collect();
    assert!(found.len() == 200 && found.iter().all(|key| key.starts_with("one:")));
    assert!(one.ask("RANDOMKEY").contains("one:") && zero.ask("RANDOMKEY").contains("zero:"));
    assert_eq!(one.ask("FLUSHDB"), "+OK\r\n");
    assert_eq!((zero.ask("DBSIZE"), one.ask("DBSIZE")), (":100\r\n".into(), ":0\r\n".into()));
    assert_eq!(
        (zero.ask("FLUSHDB"), zero.ask("RANDOMKEY"), one.ask("RANDOMKEY")),
        ("+OK\r\n".into(), "$-1\r\n".into(), "_\r\n".into())
    );
}

#[test]
fn a_shard_that_is_down_is_an_error_and_no_hole() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    fill(&mut app, (0..3_000).map(|n| format!("key:{n}")));
    let before: Vec<u64> = [0, 2].map(|shard: usize| redis[shard].calls("flushall")).into();
    redis[1].kill();
    eventually("it is known", || app.ask(&format!("GET {}", key_on(1, 3))).contains(" is down "));
    let down = app.ask(&format!("GET {}", key_on(1, 3)));
    assert!(down.starts_with("-ERR shard s1 ") && down.ends_with("nothing was sent\r\n"), "{down}");
    for words in [
        "DBSIZE",
        "KEYS *",
        "FLUSHALL",
        "RANDOMKEY",
        "SCRIPT LOAD return{}",
        "SCRIPT EXISTS a",
        "PUBSUB NUMPAT",
        "LASTSAVE",
    ] {
        assert_eq!(app.ask(words), down, "{words}");
    }
    let after: Vec<u64> = [0, 2].map(|shard: usize| redis[shard].calls("flushall")).into();
    assert_eq!(before, after, "nothing was sent to the others");
    // A scan gets as far as it can, and goes on when the shard is back.
    let (mut cursor, mut found) = ("0".to_owned(), 0);
    let stuck = loop {
        let reply = app.call(&["SCAN", &cursor, "COUNT", "100"]);
        if reply.starts_with(b"-") {
            break String::from_utf8(reply).unwrap();
        }
        let (next, keys) = scanned(&reply);
        (cursor, found) = (next, found + keys.len());
        assert_ne!(cursor, "0");
    };
    assert_eq!((stuck, cursor.as_str()), (down, "1"));
    assert_eq!(redis[0].client().ask("DBSIZE"), format!(":{found}\r\n"));
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    redis[1].restart();
    eventually("it is back", || !app.ask(&format!("SCAN {cursor}")).starts_with('-'));
    assert_eq!(app.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(app.ask("DBSIZE"), ":0\r\n");
}

#[test]
fn a_shard_that_dies_in_the_midst_is_an_error_and_the_connection_goes_on() {
    let (redis, at) = shards(2);
    // Ends the connection upon KEYS, and lies in the reply to SCAN.
    let fickle = Fake::answering(|request| match request[0].as_slice() {
        b"DBSIZE" => b":5\r\n".to_vec(),
        b"KEYS" => Vec::new(),
        b"SCAN" => b"*1\r\n$1\r\n0\r\n".to_vec(),
        _ => b"+PONG\r\n".to_vec(),
    });
    let hotring = Hotring::over(&[&at[0], &at[1], fickle.address()], &[]);
    let mut app = hotring.app();
    assert_eq!(app.ask("DBSIZE"), ":5\r\n");
    let lost = app.ask("KEYS *");
    assert!(lost.starts_with("-ERR shard s2 ") && lost.ends_with("the command may have run\r\n"), "{lost}");
    assert_eq!(app.ask(&format!("SET {} 1", key_on(0, 3))), "+OK\r\n");
    eventually("it is back", || app.ask("DBSIZE") == ":6\r\n");
    let misfit = "-ERR a shard's reply does not fit the command";
    assert!(app.ask("SCAN 2").starts_with(misfit) && app.ask("FLUSHALL").starts_with("+OK"), "a status is a status");
    assert!(app.ask("LASTSAVE").starts_with(misfit));
    drop(redis);
}

#[test]
fn a_frozen_shard_times_out() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["timeout: 3s"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("DBSIZE"), ":0\r\n");
    redis[2].freeze();
    let late = app.ask("DBSIZE");
    assert!(late.starts_with("-ERR shard s2 timed out") && late.ends_with("the command may have run\r\n"), "{late}");
    assert_eq!(app.ask(&format!("SET {} 1", key_on(0, 3))), "+OK\r\n");
    redis[2].thaw();
    eventually("it is back", || app.ask("DBSIZE") == ":1\r\n");
}

#[test]
fn an_ejected_shard_is_no_hole_either() {
    let (mut redis, at) = shards(3);
    let hotring =
        Hotring::over(&at, &["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 3600000"]);
    let mut app = hotring.app();
    fill(&mut app, (0..300).map(|n| format!("key:{n}")));
    redis[2].kill();
    // Its keys go to the others.
    eventually("it is ejected", || app.ask(&format!("GET {}", key_on(2, 3))) == "$-1\r\n");
    redis[2].restart();
    eventually("its connection is back", || app.ask("DBSIZE").ends_with("(ejected); nothing was sent\r\n"));
    assert!(app.ask("SCAN 2").starts_with("-ERR shard s2 is down"), "told and not left out");
    assert!(app.ask("SCAN 0").starts_with("*2\r\n"));
}

#[test]
fn replies_that_are_too_long_together_are_refused() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["max_output: 64kb"]);
    let mut app = hotring.app();
    fill(&mut app, (0..1_500).map(|n| format!("{n:040}")));
    let refused = app.ask("KEYS *");
    assert!(refused.starts_with("-ERR hotring does not join replies of more than 65536 bytes"), "{refused}");
    assert_eq!(elements(&app.call(&["KEYS", "*7"])).len(), 150);
    assert_eq!(scan(&mut app, &[], |_| ()).into_iter().collect::<BTreeSet<_>>().len(), 1_500);
}

#[test]
fn a_random_key_is_any_of_them() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    // Nine keys of one shard, one of another, none of the third.
    let many = keys_on(2, 3, 9);
    let rare = key_on(0, 3);
    fill(&mut app, many.iter().cloned().chain([rare.clone()]));
    let mut drawn: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        let reply = app.ask("RANDOMKEY");
        let key = reply.split("\r\n").nth(1).unwrap_or_else(|| panic!("{reply}")).to_owned();
        *drawn.entry(key).or_default() += 1;
    }
    assert_eq!(drawn.len(), 10, "{drawn:?}");
    assert!((120..300).contains(&drawn[&rare]), "{drawn:?}");
}

#[test]
fn none_of_it_in_a_transaction() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let key = key_on(1, 3);
    for words in ["SCAN 0", "DBSIZE", "KEYS *", "FLUSHALL", "RANDOMKEY", "SCRIPT LOAD x"] {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET {key} 1")), "+QUEUED\r\n");
        let refused = app.ask(words);
        assert!(refused.starts_with("-ERR hotring does not carry this command within a transaction"), "{refused}");
        assert!(app.ask("EXEC").starts_with("-EXECABORT "), "{words}");
    }
    assert_eq!(redis[1].client().ask("DBSIZE"), ":0\r\n");
    assert_eq!(app.ask("DBSIZE"), ":0\r\n");
}

#[test]
fn answers_take_their_turn() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    let (mut requests, mut replies) = (Vec::new(), String::new());
    for _ in 0..200 {
        for key in &keys {
            requests.extend(support::wire(&["SET", key, "v"]));
            replies += "+OK\r\n";
        }
        requests.extend(support::wire(&["DBSIZE"]));
        requests.extend(support::wire(&["GET", &keys[1]]));
        requests.extend(support::wire(&["FLUSHALL"]));
        requests.extend(support::wire(&["GET", &keys[1]]));
        requests.extend(support::wire(&["SCAN", "0"]));
        requests.extend(support::wire(&["PING"]));
        replies += ":3\r\n$1\r\nv\r\n+OK\r\n$-1\r\n*2\r\n$1\r\n1\r\n*0\r\n+PONG\r\n";
    }
    app.send(&requests);
    assert_eq!(String::from_utf8(app.exactly(replies.len())).unwrap(), replies);
}

#[test]
fn channels_are_told_of_all_shards() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut listener) = (hotring.app(), hotring.app());
    let [a, b] = [0, 1].map(|shard| key_on(shard, 3));
    listener.send(&support::wire(&["SUBSCRIBE", &a, &b]));
    assert!(listener.text().contains(&a) && listener.text().contains(&b));
    listener.send(&support::wire(&["PSUBSCRIBE", "x*"]));
    listener.reply();
    // Somebody else, at a server, listens to the one channel and to another.
    let mut direct = redis[2].client();
    direct.send(&support::wire(&["SUBSCRIBE", &a, "other"]));
    assert!(direct.text().contains(&a) && direct.text().contains("other"));
    let told: BTreeSet<String> = elements(&app.call(&["PUBSUB", "CHANNELS"])).into_iter().collect();
    assert_eq!(told, [a.clone(), b.clone(), "other".into()].into());
    assert_eq!(elements(&app.call(&["PUBSUB", "CHANNELS", "oth*"])), ["other"]);
    let bulk = |name: &str| format!("${}\r\n{name}\r\n", name.len());
    let counts = format!("*6\r\n{}:2\r\n{}:1\r\n{}:0\r\n", bulk(&a), bulk(&b), bulk("none"));
    assert_eq!(app.ask(&format!("PUBSUB NUMSUB {a} {b} none")), counts);
    assert_eq!(app.ask("PUBSUB NUMPAT"), ":1\r\n", "once, though every shard is listened to for it");
}

#[test]
fn embedded_nodes_are_shards_like_others() {
    let hotring = Hotring::start("admin: off\npools: {a: {listen: 127.0.0.1:0, servers: embedded:3}}\n");
    let mut app = hotring.app();
    assert_eq!((app.ask("RANDOMKEY"), app.ask("KEYS *")), ("$-1\r\n".into(), "*0\r\n".into()));
    let keys: BTreeSet<String> = (0..500).map(|n| format!("key:{n}")).collect();
    fill(&mut app, keys.iter().cloned());
    assert_eq!(app.ask("DBSIZE"), ":500\r\n");
    assert_eq!(elements(&app.call(&["KEYS", "*"])).into_iter().collect::<BTreeSet<_>>(), keys);
    assert_eq!(scan(&mut app, &["COUNT", "7"], |_| ()).into_iter().collect::<BTreeSet<_>>(), keys);
    assert!(app.ask("RANDOMKEY").contains("key:"));
    assert_eq!((app.ask("FLUSHALL"), app.ask("DBSIZE")), ("+OK\r\n".into(), ":0\r\n".into()));
}

#[test]
fn keys_move_between_databases_on_their_shard() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut zero, mut one) = (hotring.app(), hotring.app());
    assert_eq!(one.ask("SELECT 1"), "+OK\r\n");
    for key in [0, 1, 2].map(|shard| key_on(shard, 3)) {
        assert_eq!(zero.ask(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(zero.ask(&format!("COPY {key} {key} DB 1")), ":1\r\n");
        assert_eq!(zero.ask(&format!("MOVE {key} 1")), ":0\r\n");
        assert_eq!(one.ask(&format!("DEL {key}")), ":1\r\n");
        assert_eq!(zero.ask(&format!("MOVE {key} 1")), ":1\r\n");
        assert_eq!(
            (zero.ask(&format!("EXISTS {key}")), one.ask(&format!("GET {key}"))),
            (":0\r\n".into(), "$1\r\nv\r\n".into())
        );
    }
    let hotring = Hotring::over(&at, &["databases: 1"]);
    let mut only = hotring.app();
    for refused in ["MOVE k 1", "COPY k k DB 1", "SELECT 1"] {
        assert_eq!(only.ask(refused), "-ERR DB index is out of range\r\n", "{refused}");
    }
}

#[test]
fn a_pool_of_one_shard_sorts_by_patterns_and_tells_of_its_server_if_it_may() {
    let (_redis, at) = shards(2);
    let hotring = Hotring::over(&at[..1], &["admin_commands: allow"]);
    let mut app = hotring.app();
    for words in ["RPUSH l 2 1 3", "MSET w_1 30 w_2 20 w_3 10"] {
        assert!(!app.ask(words).starts_with('-'));
    }
    assert_eq!(app.ask("SORT l BY w_* GET #"), "*3\r\n$1\r\n3\r\n$1\r\n2\r\n$1\r\n1\r\n");
    assert!(app.ask("MEMORY STATS").starts_with('*'));
    assert_eq!(app.ask("LATENCY LATEST"), "*0\r\n");
    // Several, all on one: the same. Several without a pin, or not allowed: refused.
    let hotring = Hotring::over(&at, &["pin: s0"]);
    let mut pinned = hotring.app();
    assert_eq!(pinned.ask("SORT l BY w_* LIMIT 0 1"), "*1\r\n$1\r\n3\r\n");
    assert_eq!(pinned.ask("DBSIZE"), ":4\r\n");
    assert!(pinned.ask("MEMORY STATS").starts_with("-ERR hotring stands for many servers"));
    let hotring = Hotring::over(&at, &[]);
    let mut several = hotring.app();
    assert!(several.ask("SORT l BY w_*").starts_with("-ERR hotring does not carry SORT with a BY or GET pattern"));
}
