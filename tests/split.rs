//! Commands with many keys: split by shard where the reply can be put together exactly, refused where it cannot.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Fake, Hotring, Redis, home, key_on, keys_on, shards, wire};

const CROSSSLOT: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";

#[test]
fn mget_and_mset_over_shards() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 22 {c} 333")), "+OK\r\n");
    for (redis, (key, value)) in redis.iter().zip([(&a, "$1\r\n1\r\n"), (&b, "$2\r\n22\r\n"), (&c, "$3\r\n333\r\n")]) {
        assert_eq!(redis.client().ask(&format!("GET {key}")), value);
        assert_eq!(redis.client().ask("DBSIZE"), ":1\r\n");
    }
    assert_eq!(app.ask(&format!("MGET {c} {a} {b}")), "*3\r\n$3\r\n333\r\n$1\r\n1\r\n$2\r\n22\r\n");
    // The same key twice, one that is missing, one that holds no string.
    assert_eq!(app.ask("RPUSH list x"), ":1\r\n");
    let reply = "*7\r\n$3\r\n333\r\n$3\r\n333\r\n$-1\r\n$1\r\n1\r\n$-1\r\n$2\r\n22\r\n$3\r\n333\r\n";
    assert_eq!(app.ask(&format!("MGET {c} {c} missing {a} list {b} {c}")), reply);
    assert_eq!(app.ask(&format!("mget {a}")), "*1\r\n$1\r\n1\r\n");
    // The last value of a key that is set twice wins, as in Redis.
    assert_eq!(app.ask(&format!("MSET {a} x {b} y {a} z {c} w")), "+OK\r\n");
    assert_eq!(app.ask(&format!("MGET {a} {b} {c}")), "*3\r\n$1\r\nz\r\n$1\r\ny\r\n$1\r\nw\r\n");
}

#[test]
fn values_of_any_bytes_are_put_together() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte; usize::from(byte) % 7]).collect();
    let mut keys: Vec<Vec<u8>> = keys.into_iter().enumerate().map(|(n, key)| [key, vec![n as u8]].concat()).collect();
    keys.push(Vec::new());
    let values: Vec<Vec<u8>> = keys.iter().map(|key| [key, &b"\r\n$1\r\n*3\r\n"[..]].concat()).collect();
    let mut mset = vec![b"MSET".to_vec()];
    mset.extend(keys.iter().zip(&values).flat_map(|(key, value)| [key.clone(), value.clone()]));
    assert_eq!(app.call(&mset), b"+OK\r\n");
    let mut mget = vec![b"MGET".to_vec()];
    mget.extend(keys.iter().rev().cloned());
    let mut reply = format!("*{}\r\n", keys.len()).into_bytes();
    for value in values.iter().rev() {
        reply.extend([format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat());
    }
    assert_eq!(app.call(&mget), reply);
}

#[test]
fn sums_count_every_key_once_for_each_time_it_is_named() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    let all = format!("{a} {b} {c} {a} missing");
    for (command, first, again) in [
        ("EXISTS", ":4\r\n", ":4\r\n"),
        ("TOUCH", ":4\r\n", ":4\r\n"),
        ("DEL", ":3\r\n", ":0\r\n"),
        ("UNLINK", ":3\r\n", ":0\r\n"),
    ] {
        assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2 {c} 3")), "+OK\r\n");
        assert_eq!(app.ask(&format!("{command} {all}")), first, "{command}");
        assert_eq!(app.ask(&format!("{command} {all}")), again, "{command}");
    }
    assert_eq!(app.ask(&format!("EXISTS {a} {b} {c}")), ":0\r\n");
}

#[test]
fn each_shard_is_asked_once() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let keys: Vec<String> = (0..30).map(|n| format!("key:{}", 997 * n)).collect();
    assert!((0..3).all(|shard| keys.iter().any(|key| home(3, key.as_bytes()) == shard)));
    assert!(app.ask(&format!("MGET {}", keys.join(" "))).starts_with("*30\r\n"));
    assert_eq!(redis.iter().map(|redis| redis.calls("mget")).collect::<Vec<_>>(), [1, 1, 1]);
    let only = keys_on(1, 3, 5).join(" ");
    assert!(app.ask(&format!("MGET {only}")).starts_with("*5\r\n"));
    assert_eq!(redis.iter().map(|redis| redis.calls("mget")).collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn ten_thousand_keys() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let keys: Vec<String> = (0..10_000).map(|n| format!("key:{n}")).collect();
    let pairs: Vec<String> = keys.iter().map(|key| format!("{key} {key}")).collect();
    assert_eq!(app.ask(&format!("MSET {}", pairs.join(" "))), "+OK\r\n");
    let held: Vec<usize> =
        redis.iter().map(|redis| redis.client().ask("DBSIZE")[1..].trim().parse::<usize>().unwrap()).collect();
    assert!(held.iter().sum::<usize>() == 10_000 && held.iter().all(|&n| n > 1000), "{held:?}");
    let mget = wire(&[&["MGET".to_owned()], &keys[..]].concat());
    app.send(&mget);
    let mut reply = "*10000\r\n".to_owned();
    keys.iter().for_each(|key| reply += &format!("${}\r\n{key}\r\n", key.len()));
    assert!(app.exactly(reply.len()) == reply.as_bytes());
    let twice = format!("{0} {0}", keys.join(" "));
    assert_eq!(app.ask(&format!("EXISTS {twice}")), ":20000\r\n");
    assert_eq!(app.ask(&format!("DEL {twice}")), ":10000\r\n");
    assert_eq!(redis.iter().map(|redis| redis.client().ask("DBSIZE")).collect::<String>(), ":0\r\n".repeat(3));
}

#[test]
fn a_session_sees_its_own_writes_across_forms() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    let (mut requests, mut replies) = (Vec::new(), String::new());
    for n in 100..400 {
        let n = n.to_string();
        requests.extend(wire(&["SET", &a, &n]));
        requests.extend(wire(&["MSET", &b, &n, &c, &n]));
        requests.extend(wire(&["MGET", &a, &b, &c]));
        requests.extend(wire(&["DEL", &b, &a]));
        requests.extend(wire(&["GET", &a]));
        requests.extend(wire(&["EXISTS", &a, &b, &c]));
        replies += &format!("+OK\r\n+OK\r\n*3\r\n$3\r\n{n}\r\n$3\r\n{n}\r\n$3\r\n{n}\r\n:2\r\n$-1\r\n:1\r\n");
    }
    let mut writer = app.writer();
    let sending = std::thread::spawn(move || writer.send(&requests));
    assert_eq!(String::from_utf8(app.exactly(replies.len())).unwrap(), replies);
    sending.join().unwrap();
}

#[test]
fn what_redis_refuses_is_refused_in_its_words() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let (mut app, mut direct) = (hotring.app(), redis[0].client());
    for words in ["MSET", "MSET a", "MSET a 1 b", "MSET a 1 b 2 c", "MGET", "DEL", "EXISTS", "TOUCH", "UNLINK"] {
        let said = app.ask(words);
        assert!(said.starts_with("-ERR wrong number of arguments for '"), "{words}: {said}");
        assert_eq!(said, direct.ask(words), "{words}");
    }
    assert_eq!(app.ask("MSET a 1 b"), "-ERR wrong number of arguments for 'mset' command\r\n");
    assert_eq!(app.ask("EXISTS a b"), ":0\r\n", "and nothing of it is carried out");
}

#[test]
fn other_commands_need_their_keys_on_one_shard() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let (a, b) = (key_on(0, 3), key_on(1, 3));
    for words in [
        "RENAME A B",
        "RENAMENX A B",
        "COPY A B",
        "MSETNX A 1 B 2",
        "SUNION A B",
        "SINTERSTORE A B A",
        "SMOVE A B m",
        "LMOVE A B LEFT LEFT",
        "RPOPLPUSH A B",
        "PFCOUNT A B",
        "PFMERGE A B",
        "BITOP NOT A B",
        "ZUNION 2 A B",
        "ZRANGESTORE A B 0 1",
        "EVAL return{} 2 A B",
        "XREAD STREAMS A B 0 0",
    ] {
        let filled: Vec<&str> = words
            .split(' ')
            .map(|word| match word {
                "A" => a.as_str(),
                "B" => b.as_str(),
                word => word,
            })
            .collect();
        assert_eq!(app.ask(&filled.join(" ")), CROSSSLOT, "{words}");
    }
    assert!(redis.iter().all(|redis| redis.client().ask("DBSIZE") == ":0\r\n"));
    // On one shard they pass, without any hash tag.
    let here = keys_on(2, 3, 3);
    let [x, y, z] = [&here[0], &here[1], &here[2]];
    assert_eq!(app.ask(&format!("SADD {x} 1 2")), ":2\r\n");
    assert_eq!(app.ask(&format!("SADD {y} 2 3")), ":2\r\n");
    assert_eq!(app.ask(&format!("SINTERSTORE {z} {x} {y}")), ":1\r\n");
    assert_eq!(app.ask(&format!("SMEMBERS {z}")), "*1\r\n$1\r\n2\r\n");
    assert_eq!(app.ask(&format!("RENAME {x} {y}")), "+OK\r\n");
}

#[test]
fn hash_tags_bring_keys_together() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["hash_tag: \"{}\""]);
    let mut app = hotring.app();
    for user in (0..20).map(|n| 997 * n) {
        let key = |what: &str| format!("user:{{{user}}}:{what}");
        assert_eq!(app.ask(&format!("MSETNX {} 1 {} 2", key("a"), key("b"))), ":1\r\n");
        assert_eq!(app.ask(&format!("RENAME {} {}", key("a"), key("c"))), "+OK\r\n");
        assert_eq!(app.ask(&format!("MGET {} {}", key("b"), key("c"))), "*2\r\n$1\r\n2\r\n$1\r\n1\r\n");
        let script = "return{redis.call('GET',KEYS[1]),redis.call('GET',KEYS[2])}";
        let reply = app.call(&["EVAL", script, "2", &key("c"), &key("b")]);
        assert_eq!(reply, b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    }
    // One shard each, and not all users on the same one.
    assert_eq!(redis.iter().map(|redis| redis.calls("msetnx")).sum::<u64>(), 20);
    assert!(redis.iter().all(|redis| redis.calls("msetnx") > 0));
    // An empty tag counts as none, so that everything is hashed.
    assert_eq!(app.ask("SET {}a 1"), "+OK\r\n");
    assert_eq!(app.ask("GET {}a"), "$1\r\n1\r\n");
}

#[test]
fn a_part_that_fails_is_the_reply() {
    let mut all = vec![Redis::start(&[]), Redis::start(&["--maxmemory", "1"]), Redis::start(&[])];
    let at: Vec<&str> = all.iter().map(Redis::address).collect();
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [a, b, c] = [0, 1, 2].map(|shard| key_on(shard, 3));
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2 {c} 3")), oom);
    assert_eq!(app.ask(&format!("MGET {a} {b} {c}")), "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n", "as MSET says nothing of");
    // Every part fails.
    for redis in &mut all {
        assert_eq!(redis.client().ask("CONFIG SET maxmemory 1"), "+OK\r\n");
    }
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 2 {c} 3")), oom);
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_part_that_does_not_fit_is_an_error_and_no_wrong_answer() {
    let redis = Redis::start(&[]);
    // Answers everything with something of another kind.
    let liar = Fake::answering(|request| match request[0].as_slice() {
        b"MGET" => b"*1\r\n$1\r\nx\r\n".to_vec(),
        b"DEL" => b"+OK\r\n".to_vec(),
        b"MSET" => b":1\r\n".to_vec(),
        _ => b"$-1\r\n".to_vec(),
    });
    let hotring = Hotring::over(&[redis.address(), liar.address()], &["probe_interval: off"]);
    let mut app = hotring.app();
    let a = key_on(0, 2);
    let lies = keys_on(1, 2, 2);
    let (b, c) = (&lies[0], &lies[1]);
    let misfit = "-ERR a shard's reply does not fit the command that was split\r\n";
    assert_eq!(app.ask(&format!("MGET {a} {b} {c}")), misfit);
    assert_eq!(app.ask(&format!("DEL {a} {b} {c}")), misfit);
    assert_eq!(app.ask(&format!("MSET {a} 1 {b} 1")), misfit);
    assert_eq!(app.ask(&format!("EXISTS {a} {b}")), misfit);
    // One element for one key fits.
    assert_eq!(app.ask(&format!("MGET {b} {a}")), "*2\r\n$1\r\nx\r\n$1\r\n1\r\n");
    assert_eq!(liar.visits(), 1, "its connection is kept: its replies are well formed");
}

#[test]
fn many_sessions_split_at_once() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let keys: Vec<String> = (0..12).map(|n| format!("key:{n}")).collect();
    let sessions: Vec<_> = (0..8)
        .map(|session| {
            let mut app: Client = hotring.app();
            let own: Vec<String> = keys.iter().map(|key| format!("{session}:{key}")).collect();
            std::thread::spawn(move || {
                for round in 0..50 {
                    let mut mset = vec!["MSET".to_owned()];
                    own.iter().for_each(|key| mset.extend([key.clone(), format!("{key}:{round}")]));
                    assert_eq!(app.call(&mset), b"+OK\r\n");
                    let mut reply = format!("*{}\r\n", own.len());
                    for key in &own {
                        let value = format!("{key}:{round}");
                        reply += &format!("${}\r\n{value}\r\n", value.len());
                    }
                    assert_eq!(app.ask(&format!("MGET {}", own.join(" "))), reply);
                    if round % 10 == 9 {
                        assert_eq!(app.ask(&format!("DEL {}", own.join(" "))), ":12\r\n");
                    }
                }
            })
        })
        .collect();
    for session in sessions {
        session.join().unwrap();
    }
}
