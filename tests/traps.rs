//! What proxies get wrong with real applications: each of these has lost data, or ended a connection, behind some proxy.
//!
//! Three real shards, one hotring, and bytes as they come.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use support::{Client, Hotring, Redis, home, key_on, keys_on, shards, shards_with, wire};

fn site() -> (Vec<Redis>, Hotring) {
    let (redis, addresses) = shards(3);
    let hotring = Hotring::over(&addresses, &["hash_tag: \"{}\""]);
    (redis, hotring)
}

/// A key on each of the three shards.
fn apart() -> [String; 3] {
    [key_on(0, 3), key_on(1, 3), key_on(2, 3)]
}

/// The parts of an array, each as it came. Only the nesting that a test meets: arrays of bulk strings.
fn parts(reply: &str) -> Vec<String> {
    reply
        .split("\r\n")
        .skip(1)
        .filter(|part| !part.starts_with(['$', '*']) && !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A whole walk with SCAN. Each reply must be two parts, a cursor and an array of as many keys as it says.
fn scan(app: &mut Client, more: &str) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    for _ in 0..10_000 {
        let reply = app.ask(&format!("SCAN {cursor} {more}"));
        assert!(reply.starts_with("*2\r\n$"), "{reply:?}");
        let mut some = parts(&reply);
        cursor = some.remove(0);
        assert!(cursor.parse::<u64>().is_ok(), "cursor {cursor:?}");
        assert!(reply.contains(&format!("\r\n*{}\r\n", some.len())), "{reply:?}");
        keys.extend(some);
        if cursor == "0" {
            return keys;
        }
    }
    panic!("SCAN does not end");
}

#[test]
fn select_moves_nobody_else() {
    let (redis, hotring) = site();
    let (mut zero, mut five) = (hotring.app(), hotring.app());
    assert_eq!(five.ask("SELECT 5"), "+OK\r\n");
    for key in apart() {
        assert_eq!(zero.ask(&format!("SET {key} zero")), "+OK\r\n");
        assert_eq!(five.ask(&format!("GET {key}")), "$-1\r\n");
        assert_eq!(five.ask(&format!("SET {key} five")), "+OK\r\n");
        assert_eq!(zero.ask(&format!("GET {key}")), "$4\r\nzero\r\n");
    }
    for (shard, key) in redis.iter().zip(apart()) {
        let mut server = shard.client();
        assert_eq!(server.ask(&format!("GET {key}")), "$4\r\nzero\r\n");
        assert_eq!(
            (server.ask("DBSIZE"), server.ask("SELECT 5"), server.ask("DBSIZE")),
            (":1\r\n".into(), "+OK\r\n".into(), ":1\r\n".into())
        );
    }
    assert!(zero.ask("SELECT 99999").starts_with("-ERR DB index is out of range"));
    assert_eq!(zero.ask(&format!("GET {}", apart()[0])), "$4\r\nzero\r\n");
    assert_eq!(five.ask("SELECT 0"), "+OK\r\n");
    assert_eq!(five.ask(&format!("GET {}", apart()[0])), "$4\r\nzero\r\n");
}

#[test]
fn flushall_flushdb_and_dbsize_reach_every_shard_once() {
    let (redis, hotring) = site();
    let mut app = hotring.app();
    for flush in ["FLUSHDB", "FLUSHALL"] {
        for n in 0..60 {
            assert_eq!(app.ask(&format!("SET {n}:key {n}")), "+OK\r\n");
        }
        assert_eq!(app.ask("DBSIZE"), ":60\r\n");
        assert_eq!(app.ask(flush), "+OK\r\n");
        assert_eq!(app.ask("DBSIZE"), ":0\r\n");
        for shard in &redis {
            assert_eq!(shard.client().ask("DBSIZE"), ":0\r\n");
            assert_eq!(shard.calls(&flush.to_lowercase()), 1, "{flush}");
        }
    }
}

#[test]
fn flushdb_leaves_other_databases() {
    let (_redis, hotring) = site();
    let (mut zero, mut one) = (hotring.app(), hotring.app());
    assert_eq!(one.ask("SELECT 1"), "+OK\r\n");
    for key in apart() {
        assert_eq!(
            (zero.ask(&format!("SET {key} 0")), one.ask(&format!("SET {key} 1"))),
            ("+OK\r\n".into(), "+OK\r\n".into())
        );
    }
    assert_eq!(one.ask("FLUSHDB"), "+OK\r\n");
    assert_eq!((zero.ask("DBSIZE"), one.ask("DBSIZE")), (":3\r\n".into(), ":0\r\n".into()));
    assert_eq!(one.ask("FLUSHALL"), "+OK\r\n");
    assert_eq!(zero.ask("DBSIZE"), ":0\r\n");
}

#[test]
fn scripts_are_loaded_on_every_shard() {
    let (redis, hotring) = site();
    let mut app = hotring.app();
    let reply = String::from_utf8(app.call(&["SCRIPT", "LOAD", "return KEYS[1]"])).unwrap();
    let sha = parts(&reply).remove(0);
    assert_eq!(sha.len(), 40, "{reply:?}");
    for (shard, key) in redis.iter().zip(apart()) {
        assert_eq!(app.ask(&format!("EVALSHA {sha} 1 {key}")), format!("${}\r\n{key}\r\n", key.len()));
        assert_eq!(shard.client().ask(&format!("SCRIPT EXISTS {sha}")), "*1\r\n:1\r\n");
    }
    assert_eq!(app.ask(&format!("SCRIPT EXISTS {sha} {}", "0".repeat(40))), "*2\r\n:1\r\n:0\r\n");
}

#[test]
fn scan_is_well_formed_and_complete() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    assert_eq!(scan(&mut app, ""), Vec::<String>::new());
    let all: BTreeSet<String> = (0..2000).map(|n| format!("{n}:key")).collect();
    app.send(&all.iter().flat_map(|key| wire(&["SET", key, "v"])).collect::<Vec<u8>>());
    all.iter().for_each(|_| assert_eq!(app.text(), "+OK\r\n"));
    for more in ["", "COUNT 1000", "COUNT 7 MATCH *", "TYPE string"] {
        let found = scan(&mut app, more);
        assert!(found.iter().cloned().collect::<BTreeSet<_>>() == all, "{more:?}: {} of {}", found.len(), all.len());
    }
    let some: BTreeSet<String> = scan(&mut app, "MATCH 1*:key").into_iter().collect();
    assert_eq!(some.len(), 1111);
    assert_eq!(scan(&mut app, "TYPE hash"), Vec::<String>::new());
    let listed: BTreeSet<String> = parts(&app.ask("KEYS 1*:key")).into_iter().collect();
    assert!(listed == some);
    assert!(app.ask("SCAN x").starts_with("-ERR"));
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_scan_goes_on_over_another_connection() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    let all: BTreeSet<String> = (0..200).map(|n| format!("{n}:key")).collect();
    all.iter().for_each(|key| assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n"));
    let (mut cursor, mut found) = ("0".to_owned(), BTreeSet::new());
    loop {
        let mut some = parts(&hotring.app().ask(&format!("SCAN {cursor}")));
        cursor = some.remove(0);
        found.extend(some);
        if cursor == "0" {
            break;
        }
    }
    assert!(found == all);
}

#[test]
fn a_transaction_over_shards_is_refused_and_nothing_of_it_is_done() {
    let (redis, hotring) = site();
    let mut app = hotring.app();
    let [a, b, c] = apart();
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask(&format!("SET {a} 1")), "+QUEUED\r\n");
    assert!(app.ask(&format!("SET {b} 1")).starts_with("-CROSSSLOT "));
    let _ = app.ask(&format!("SET {c} 1"));
    assert!(app.ask("EXEC").starts_with("-EXECABORT "));
    for shard in &redis {
        assert_eq!(shard.client().ask("DBSIZE"), ":0\r\n");
    }
    // In one write, as pipelines come, with one answer for each command.
    let all = [
        "MULTI".to_owned(),
        format!("SET {a} 1"),
        format!("MSET {a} 2 {b} 2 {c} 2"),
        format!("GET {a}"),
        "EXEC".to_owned(),
    ];
    let bytes: Vec<u8> = all.iter().flat_map(|line| wire(&line.split(' ').collect::<Vec<_>>())).collect();
    app.send(&bytes);
    let replies: Vec<String> = all.iter().map(|_| app.text()).collect();
    assert_eq!(replies[..2], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(replies[2].starts_with("-CROSSSLOT ") && replies[4].starts_with("-EXECABORT "), "{replies:?}");
    assert_eq!(app.ask(&format!("GET {a}")), "$-1\r\n");
    assert_eq!(app.ask("PING still"), "$5\r\nstill\r\n");
}

#[test]
fn a_transaction_on_one_shard_is_one() {
    let (redis, hotring) = site();
    let mut app = hotring.app();
    let same = keys_on(1, 3, 2);
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    for key in ["{t}:a", "{t}:b", "{t}:a"] {
        assert_eq!(app.ask(&format!("INCR {key}")), "+QUEUED\r\n");
    }
    // Nothing is done before EXEC.
    assert_eq!(hotring.app().ask("GET {t}:a"), "$-1\r\n");
    assert_eq!(app.ask("EXEC"), "*3\r\n:1\r\n:1\r\n:2\r\n");
    assert_eq!(redis.iter().map(|shard| shard.calls("exec")).sum::<u64>(), 1);
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask(&format!("SET {} 1", same[0])), "+QUEUED\r\n");
    assert_eq!(app.ask("DISCARD"), "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {}", same[0])), "$-1\r\n");
    assert_eq!(app.ask("EXEC"), "-ERR EXEC without MULTI\r\n");
    assert_eq!(app.ask("DISCARD"), "-ERR DISCARD without MULTI\r\n");
}

#[test]
fn watch_watches() {
    let (_redis, hotring) = site();
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for key in apart() {
        for conflict in [true, false] {
            assert_eq!(app.ask(&format!("WATCH {key}")), "+OK\r\n");
            if conflict {
                assert_eq!(other.ask(&format!("SET {key} other")), "+OK\r\n");
            }
            assert_eq!(app.ask("MULTI"), "+OK\r\n");
            assert_eq!(app.ask(&format!("SET {key} mine")), "+QUEUED\r\n");
            assert_eq!(app.ask("EXEC"), if conflict { "*-1\r\n" } else { "*1\r\n+OK\r\n" });
            let expected = if conflict { "$5\r\nother\r\n" } else { "$4\r\nmine\r\n" };
            assert_eq!(other.ask(&format!("GET {key}")), expected);
        }
    }
    let [a, b, _] = apart();
    assert!(app.ask(&format!("WATCH {a} {b}")).starts_with("-CROSSSLOT "));
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn refusals_begin_with_a_code_that_clients_know() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    let [a, b, _] = apart();
    assert_eq!(app.ask("GET"), "-ERR wrong number of arguments for 'get' command\r\n");
    assert!(app.ask("NONESUCH a").starts_with("-ERR unknown command "));
    assert!(app.ask("CLIENT NONESUCH").starts_with("-ERR unknown subcommand "));
    assert!(app.ask("HELLO 4").starts_with("-NOPROTO "));
    assert!(app.ask(&format!("EVALSHA {} 1 {a}", "0".repeat(40))).starts_with("-NOSCRIPT "));
    assert!(app.ask(&format!("SUNIONSTORE {a} {b}")).starts_with("-CROSSSLOT "));
    assert!(app.ask("CLIENT MAINT_NOTIFICATIONS ON").starts_with("-ERR "));
    assert!(app.ask("CLUSTER SLOTS").starts_with("-ERR "));
    assert!(app.ask("SENTINEL MASTERS").starts_with("-ERR "));
    assert_eq!(app.ask(&format!("RPUSH {a} x")), ":1\r\n");
    assert_eq!(app.ask(&format!("INCR {a}")), "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n");
    // An array of no parts and an empty line are no requests.
    app.send(b"*0\r\n\r\n*1\r\n$4\r\nPING\r\n");
    assert_eq!(app.text(), "+PONG\r\n");
}

#[test]
fn ping_says_what_it_is_told() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    assert_eq!(app.ask("PING hello"), "$5\r\nhello\r\n");
    assert_eq!(app.ask("ECHO phpredis:1"), "$10\r\nphpredis:1\r\n");
    assert!(app.ask("PING a b").starts_with("-ERR wrong number of arguments"));
}

#[test]
fn quit_says_ok_and_closes() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    app.send(&[wire(&["SET", "k", "v"]), wire(&["QUIT"]), wire(&["SET", "k", "after"])].concat());
    assert_eq!(app.rest(), b"+OK\r\n+OK\r\n");
    assert_eq!(hotring.app().ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn inline_commands_are_commands() {
    let (_redis, hotring) = site();
    let mut app = hotring.app();
    app.send(b"PING\r\nSET inline \"two words\"\r\nget inline\nMULTI\r\nINCR n\r\nEXEC\r\nQUIT\r\n");
    let expected = "+PONG\r\n+OK\r\n$9\r\ntwo words\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n+OK\r\n";
    assert_eq!(String::from_utf8(app.rest()).unwrap(), expected);
}

#[test]
fn errors_of_a_shard_come_as_they_are() {
    let (redis, addresses) = shards_with(3, &["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let hotring = Hotring::over(&addresses, &[]);
    let mut app = hotring.app();
    for key in apart() {
        let [through, direct] =
            [&mut app, &mut redis[home(3, key.as_bytes())].client()].map(|client| client.ask(&format!("SET {key} v")));
        assert!(direct.starts_with("-OOM "), "{direct}");
        assert_eq!(through, direct);
    }
    assert!(app.ask(&format!("MSET {} 1 {} 1", apart()[0], apart()[1])).starts_with("-OOM "));
    assert_eq!(app.ask("GET none"), "$-1\r\n");
}
