//! Scripts and functions against three real servers: where they run, and that one that a server forgot is given to it again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Fake, Hotring, Redis, eventually, key_on, shards, wire};

const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
/// Sets its key to its argument and tells both.
const SCRIPT: &str = "redis.call('SET',KEYS[1],ARGV[1]) return {KEYS[1],ARGV[1]}";

/// A script's name, as a server says it.
fn name_of(script: &str) -> String {
    let reply = Redis::start(&[]).client().call(&["SCRIPT", "LOAD", script]);
    String::from_utf8(reply).unwrap().split("\r\n").nth(1).unwrap().to_owned()
}

fn said(reply: Vec<u8>) -> String {
    String::from_utf8(reply).unwrap()
}

/// What [`SCRIPT`] answers.
fn told(key: &str, value: &str) -> String {
    format!("*2\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
}

#[test]
fn without_keys_a_script_runs_on_the_first_shard() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    assert_eq!(app.call(&["EVAL", "return 7", "0"]), b":7\r\n");
    assert_eq!(app.call(&["EVAL_RO", "return ARGV[1]", "0", "x"]), b"$1\r\nx\r\n");
    let library = "#!lua name=lib\nredis.register_function{function_name='f', callback=function(k, a) return #k end, flags={'no-writes'}}";
    assert_eq!(app.call(&["FUNCTION", "LOAD", library]), b"$3\r\nlib\r\n");
    assert_eq!(app.ask("FCALL f 0"), ":0\r\n");
    assert_eq!(app.ask("FCALL_RO f 0"), ":0\r\n");
    let calls = |command: &str| redis.iter().map(|redis| redis.calls(command)).collect::<Vec<_>>();
    for command in ["eval", "eval_ro", "fcall", "fcall_ro"] {
        assert_eq!(calls(command), [1, 0, 0], "{command}");
    }
    // With keys where these are, and all on one shard.
    for shard in 0..3 {
        let key = key_on(shard, 3);
        assert_eq!(app.ask(&format!("FCALL f 1 {key}")), ":1\r\n");
    }
    assert_eq!(calls("fcall"), [2, 1, 1]);
    assert!(app.ask(&format!("FCALL f 2 {} {}", key_on(0, 3), key_on(1, 3))).starts_with("-CROSSSLOT "));
}

#[test]
fn functions_are_alike_on_all_shards() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let library = "#!lua name=lib\nredis.register_function('f', function(k, a) return 1 end)";
    assert_eq!(app.call(&["FUNCTION", "LOAD", library]), b"$3\r\nlib\r\n");
    assert_eq!(said(app.call(&["FUNCTION", "LOAD", library])), "-ERR Library 'lib' already exists\r\n");
    assert_eq!(app.call(&["FUNCTION", "LOAD", "REPLACE", library]), b"$3\r\nlib\r\n");
    for redis in &redis {
        assert!(redis.client().ask("FUNCTION LIST").contains("lib"));
    }
    for hello in ["HELLO 2", "HELLO 3"] {
        let mut direct = redis[0].client();
        app.ask(hello);
        direct.ask(hello);
        for words in ["FUNCTION LIST", "FUNCTION LIST WITHCODE", "FUNCTION STATS"] {
            assert_eq!(app.ask(words), direct.ask(words), "{hello} {words}");
        }
    }
    let dump = app.call(&["FUNCTION", "DUMP"]);
    let start = dump.iter().position(|&b| b == b'\n').unwrap() + 1;
    let payload = dump[start..dump.len() - 2].to_vec();
    assert_eq!(app.ask("FUNCTION DELETE lib"), "+OK\r\n");
    assert!(redis.iter().all(|redis| redis.client().ask("FUNCTION LIST") == "*0\r\n"));
    assert_eq!(app.call(&[&b"FUNCTION"[..], b"RESTORE", &payload]), b"+OK\r\n");
    assert!(redis.iter().all(|redis| redis.client().ask("FUNCTION LIST") != "*0\r\n"));
    assert_eq!(app.ask("FUNCTION FLUSH ASYNC"), "+OK\r\n");
    assert!(redis.iter().all(|redis| redis.client().ask("FUNCTION LIST") == "*0\r\n"));
    // One server had it already: its error is the reply.
    assert_eq!(redis[1].client().call(&["FUNCTION", "LOAD", library]), b"$3\r\nlib\r\n");
    assert_eq!(said(app.call(&["FUNCTION", "LOAD", library])), "-ERR Library 'lib' already exists\r\n");
}

#[test]
fn scripts_are_loaded_on_all_shards_and_forgotten_on_all() {
    let (redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let name = name_of(SCRIPT);
    assert_eq!(said(app.call(&["SCRIPT", "LOAD", SCRIPT])), format!("$40\r\n{name}\r\n"));
    let exists = format!("SCRIPT EXISTS {name} {}", "a".repeat(40));
    assert_eq!(app.ask(&exists), "*2\r\n:1\r\n:0\r\n");
    assert!(redis.iter().all(|redis| redis.client().ask(&exists) == "*2\r\n:1\r\n:0\r\n"));
    for shard in 0..3 {
        let key = key_on(shard, 3);
        assert_eq!(app.ask(&format!("EVALSHA {name} 1 {key} v")), told(&key, "v"));
    }
    assert_eq!(redis.iter().map(|redis| redis.calls("eval")).sum::<u64>(), 0);
    // All must have it for it to be there.
    assert_eq!(redis[2].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(app.ask(&exists), "*2\r\n:0\r\n:0\r\n");
    // An app that flushes means it: hotring forgets, too.
    assert_eq!(app.ask("SCRIPT FLUSH"), "+OK\r\n");
    for shard in 0..3 {
        assert_eq!(app.ask(&format!("EVALSHA {name} 1 {} v", key_on(shard, 3))), NOSCRIPT);
    }
    assert!(app.ask("SCRIPT DEBUG NO").starts_with("-ERR hotring does not carry administration"));
}

#[test]
fn a_script_that_a_shard_forgot_is_given_to_it_again() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let name = name_of(SCRIPT);
    let keys = [0, 1, 2].map(|shard| key_on(shard, 3));
    assert_eq!(app.ask(&format!("EVALSHA {name} 1 {} v", keys[0])), NOSCRIPT, "nobody has seen it");
    // EVAL makes it known to one shard, and to hotring.
    assert_eq!(said(app.call(&["EVAL", SCRIPT, "1", &keys[0], "v"])), told(&keys[0], "v"));
    for (round, key) in keys.iter().cycle().take(9).enumerate() {
        let value = format!("value:{round}");
        assert_eq!(app.ask(&format!("EVALSHA {name} 1 {key} {value}")), told(key, &value));
        assert_eq!(app.ask(&format!("GET {key}")), format!("${}\r\n{value}\r\n", value.len()));
    }
    let evals = |redis: &[Redis]| redis.iter().map(|redis| redis.calls("eval")).collect::<Vec<_>>();
    assert_eq!(evals(&redis), [1, 1, 1], "once for each shard, and EVALSHA from then on");
    // Flushed behind hotring's back, and another session asks, in upper case.
    assert_eq!(redis[1].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    let mut other = hotring.app();
    other.ask("HELLO 3");
    assert_eq!(other.ask(&format!("EvalSha {} 1 {} w", name.to_uppercase(), keys[1])), told(&keys[1], "w"));
    assert_eq!(evals(&redis), [1, 2, 1]);
    // Restarted.
    redis[2].restart();
    eventually("it is back", || app.ask(&format!("GET {}", keys[2])) == "$-1\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {name} 1 {} v", keys[2])), told(&keys[2], "v"));
    assert_eq!(evals(&redis), [1, 2, 1]);
    // Read-only ones stay so.
    let reads = "return redis.call('GET',KEYS[1])";
    let name = name_of(reads);
    assert_eq!(said(app.call(&["EVAL_RO", reads, "1", &keys[0]])), "$7\r\nvalue:6\r\n");
    assert_eq!(app.ask(&format!("EVALSHA_RO {name} 1 {}", keys[1])), "$1\r\nw\r\n");
    assert_eq!(redis.iter().map(|redis| redis.calls("eval_ro")).collect::<Vec<_>>(), [1, 1, 0]);
    // Without keys, on the first shard.
    assert_eq!(redis[0].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(app.call(&["SCRIPT", "LOAD", "return 9"]), format!("$40\r\n{}\r\n", name_of("return 9")).into_bytes());
    assert_eq!(redis[0].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {} 0", name_of("return 9"))), ":9\r\n");
    assert_eq!(redis[0].calls("eval"), 2);
}

#[test]
fn workers_know_each_others_scripts() {
    let (_redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["^workers: 3"]);
    let mut apps: Vec<Client> = (0..6).map(|_| hotring.app()).collect();
    let name = name_of(SCRIPT);
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    assert_eq!(said(apps[0].call(&["EVAL", SCRIPT, "1", &a, "v"])), told(&a, "v"));
    for app in &mut apps {
        assert_eq!(app.ask(&format!("EVALSHA {name} 1 {b} v")), told(&b, "v"));
    }
}

#[test]
fn order_comes_before_a_second_try() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let name = name_of(SCRIPT);
    let (a, b) = (key_on(0, 2), key_on(1, 2));
    assert_eq!(said(app.call(&["EVAL", SCRIPT, "1", &b, "v"])), told(&b, "v"));
    // What is asked of the same shard behind it would be carried out before a second try.
    app.send(&[wire(&["EVALSHA", &name, "1", &a, "v"]), wire(&["GET", &a])].concat());
    assert_eq!((app.text(), app.text()), (NOSCRIPT.to_owned(), "$-1\r\n".to_owned()));
    assert_eq!(redis[0].calls("eval"), 0);
    // What is asked of another, or of hotring, is not in the way.
    app.send(&[wire(&["EVALSHA", &name, "1", &a, "v"]), wire(&["GET", &b]), wire(&["PING"])].concat());
    assert_eq!([app.text(), app.text(), app.text()], [told(&a, "v"), "$1\r\nv\r\n".into(), "+PONG\r\n".into()]);
    assert_eq!(redis[0].calls("eval"), 1);
    // Not in a transaction either.
    assert_eq!(redis[0].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {name} 1 {a} w")), "+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), format!("*1\r\n{NOSCRIPT}"));
}

#[test]
fn what_a_transaction_says_of_scripts_counts() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &[]);
    let mut app = hotring.app();
    let name = name_of("return 5");
    assert_eq!(app.call(&["EVAL", "return 5", "0"]), b":5\r\n");
    assert_eq!((app.ask("MULTI"), app.ask("SCRIPT FLUSH")), ("+OK\r\n".into(), "+QUEUED\r\n".into()));
    assert_eq!(app.ask("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {name} 0")), NOSCRIPT);
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.call(&["EVAL", "return 5", "0"]), b"+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), "*1\r\n:5\r\n");
    assert_eq!(redis.client().ask("SCRIPT FLUSH"), "+OK\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {name} 0")), ":5\r\n");
}

#[test]
fn it_is_tried_twice_and_no_more() {
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asked);
    let forgetful = Fake::answering(move |request| {
        seen.lock().unwrap().push(String::from_utf8(request[0].clone()).unwrap());
        match request[0].as_slice() {
            b"EVAL" if request.len() == 3 => b":1\r\n".to_vec(),
            // In the midst of the second try.
            b"EVAL" if request[4] == b"die" => Vec::new(),
            _ => NOSCRIPT.as_bytes().to_vec(),
        }
    });
    let hotring = Hotring::over(&[forgetful.address()], &[]);
    let mut app = hotring.app();
    let name = name_of("return 1");
    assert_eq!(app.call(&["EVAL", "return 1", "0"]), b":1\r\n");
    assert_eq!(app.ask(&format!("EVALSHA {name} 1 k v")), NOSCRIPT);
    let lost = app.ask(&format!("EVALSHA {name} 1 k die"));
    assert!(lost.starts_with("-ERR shard s0 ") && lost.ends_with("; the command may have run\r\n"), "{lost}");
    eventually("it is back", || app.ask(&format!("EVALSHA {} 0", "a".repeat(40))) == NOSCRIPT);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[..5], ["EVAL", "EVALSHA", "EVAL", "EVALSHA", "EVAL"], "{asked:?}");
    assert!(asked[5..].iter().all(|name| name == "EVALSHA"), "{asked:?}");
}

#[test]
fn an_app_that_leaves_takes_its_second_try_with_it() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let name = name_of(SCRIPT);
    assert_eq!(said(app.call(&["EVAL", SCRIPT, "1", "k", "v"])), told("k", "v"));
    assert_eq!(redis[0].client().ask("SCRIPT FLUSH"), "+OK\r\n");
    redis[0].freeze();
    let mut leaving = hotring.app();
    leaving.send(&wire(&["EVALSHA", &name, "1", "k", "w"]));
    // Asked for behind it, so that it is certain that the script was read.
    leaving.send(&wire(&["CLIENT", "SETNAME", "leaving"]));
    eventually("it was read", || app.ask("CLIENT LIST").contains("name=leaving"));
    leaving.reset();
    eventually("it is gone", || app.ask("INFO clients").contains("connected_clients:1\r\n"));
    redis[0].thaw();
    // On the same connection: behind the first the shard's NOSCRIPT is known, behind the second a second try would have run.
    assert_eq!((app.ask("GET k"), app.ask("GET k")), ("$1\r\nv\r\n".into(), "$1\r\nv\r\n".into()));
    assert_eq!((redis[0].calls("evalsha"), redis[0].calls("eval")), (1, 1));
}

#[test]
fn a_script_that_runs_too_long_is_killed_wherever_it_runs() {
    let (_redis, at) = support::shards_with(3, &["--busy-reply-threshold", "1"]);
    let hotring = Hotring::over(&at, &["server_connections: 2"]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    assert_eq!(other.ask("SCRIPT KILL"), "-NOTBUSY No scripts in execution right now.\r\n");
    app.send(&wire(&["EVAL", "while true do end", "1", &key_on(1, 3)]));
    eventually("it is killed", || other.ask("SCRIPT KILL") == "+OK\r\n");
    assert!(app.text().contains("Script killed by user"));
    assert_eq!(other.ask("DBSIZE"), ":0\r\n");
}
