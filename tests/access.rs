//! What nobody may do in a pool: `deny_commands`, `read_only`, `max_key`, `max_value`, over real servers. What is refused is refused as a
//! whole, nothing of it is sent, and the session goes on.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis, Site, eventually, pool, shards, wire};

fn denied(command: &str) -> String {
    format!("-NOPERM the '{command}' command is denied by 'deny_commands' of this pool; nothing was sent\r\n")
}

const READONLY: &str = "-READONLY You can't write against a read only pool: 'read_only' is set; nothing was sent\r\n";
const ABORT: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";

fn too_long(what: &str, bytes: usize, by: &str, most: &str) -> String {
    format!("-ERR a {what} of {bytes} bytes is longer than '{by}' of this pool ({most}); nothing was sent\r\n")
}

/// Commands that a server has carried out, but for those that ask this and those of hotring's own.
fn calls(redis: &[Redis], command: &str) -> u64 {
    let count = |redis: &Redis| {
        let stats = redis.client().ask("INFO commandstats");
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")).map(str::to_owned));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    redis.iter().map(count).sum()
}

#[test]
fn denied_commands_never_reach_a_server() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["deny_commands: [KEYS, flushall, \"CONFIG GET\", \"@scripting\"]"]);
    let mut app = hotring.app();
    assert_eq!(app.ask("SET a 1"), "+OK\r\n");
    for (line, name) in [
        ("KEYS *", "keys"),
        ("FLUSHALL", "flushall"),
        ("CONFIG GET save", "config|get"),
        ("EVAL x 0", "eval"),
        ("SCRIPT LOAD x", "script|load"),
    ] {
        assert_eq!(app.ask(line), denied(name), "{line}");
    }
    assert_eq!(app.ask("GET a"), "$1\r\n1\r\n");
    // RESP3, and a pipeline of what may and what may not: each in its turn.
    assert!(app.ask("HELLO 3").starts_with('%'));
    app.send(&[wire(&["GET", "a"]), wire(&["KEYS", "*"]), b"FLUSHALL\r\n".to_vec(), wire(&["GET", "b"])].concat());
    assert_eq!(app.text(), "$1\r\n1\r\n");
    assert_eq!(app.text(), denied("keys"));
    assert_eq!(app.text(), denied("flushall"));
    assert_eq!(app.text(), "_\r\n");
    // Within a transaction: EXEC aborts, and the next one is a new one.
    for first in ["GET a", "PING"] {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(first), "+QUEUED\r\n");
        assert_eq!(app.ask("EVAL x 0"), denied("eval"));
        assert_eq!(app.ask("EXEC"), ABORT);
    }
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("GET a"), "+QUEUED\r\n");
    assert_eq!(app.ask("EXEC"), "*1\r\n$1\r\n1\r\n");
    assert_eq!(app.ask("RESET"), "+RESET\r\n");
    assert_eq!(app.ask("KEYS *"), denied("keys"), "after RESET, too");
    for command in ["keys", "flushall", "eval", "config|get"] {
        assert_eq!(calls(&redis, command), 0, "{command}");
    }
}

#[test]
fn a_read_only_pool_answers_as_a_replica() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["read_only: true"]);
    let (mut app, direct) = (hotring.app(), Hotring::over(&at, &[]));
    assert_eq!(direct.app().ask("MSET a 1 b 2"), "+OK\r\n");
    // The words that clients know: as a real replica has them.
    let server = Redis::start(&["--replicaof", "127.0.0.1", "1"]);
    let mut replica = server.client();
    let words = replica.ask("SET a 1");
    let known = words.split("replica").next().unwrap();
    assert_eq!(known, "-READONLY You can't write against a read only ");
    assert!(READONLY.starts_with(known));
    for line in [
        "SET a 2",
        "DEL a",
        "MSET a 2 b 3",
        "EVAL return(1) 0",
        "EVALSHA x 0",
        "FCALL f 0",
        "FLUSHALL",
        "BLPOP l 0",
        "GETEX a",
        "SORT a",
        "EXPIRE a 10",
        "XADD s * f v",
    ] {
        assert_eq!(app.ask(line), READONLY, "{line}");
        if !line.starts_with("EVAL") && !line.starts_with("FCALL") {
            assert!(replica.ask(line).starts_with(known), "a replica refuses it, too: {line}");
        }
    }
    assert_eq!(app.ask("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    assert_eq!(
        String::from_utf8(app.call(&["EVAL_RO", "return redis.call('get',KEYS[1])", "1", "a"])).unwrap(),
        "$1\r\n1\r\n"
    );
    assert_eq!(app.ask("PUBLISH c m"), ":0\r\n");
    // A script that says it only reads and does not is the server's to refuse.
    let said = app.call(&["EVAL_RO", "return redis.call('set',KEYS[1],1)", "1", "a"]);
    assert!(said.starts_with(b"-ERR Write commands are not allowed"), "{}", String::from_utf8_lossy(&said));
    // As at a replica: what is refused while a transaction is queued aborts it.
    for (mut client, refused) in [(hotring.app(), READONLY.to_owned()), (replica, words)] {
        assert_eq!(client.ask("MULTI"), "+OK\r\n");
        assert_eq!(client.ask("GET a"), "+QUEUED\r\n");
        assert_eq!(client.ask("SET a 2"), refused);
        assert_eq!(client.ask("EXEC"), ABORT);
    }
    assert_eq!(direct.app().ask("GET a"), "$1\r\n1\r\n");
    assert_eq!(calls(&redis, "set") + calls(&redis, "eval"), 0);
}

/// A request of which a megabyte is still to come would be one that is passed on while it arrives.
fn long(length: usize) -> String {
    "x".repeat(length)
}

#[test]
fn keys_and_values_have_lengths() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["max_key: 512b", "max_value: 1kb"]);
    let mut app = hotring.app();
    let (key, value) = (long(513), long(1025));
    let say = |app: &mut Client, args: &[&str]| String::from_utf8(app.call(args)).unwrap();
    let (wrong_key, wrong_value) =
        (too_long("key", 513, "max_key", "512"), too_long("value", 1025, "max_value", "1kb"));
    for args in [
        &["GET", &key][..],
        &["SET", &key, "1"],
        &["MGET", "a", &key],
        &["MSET", "a", "1", &key, "2"],
        &["EVAL", "x", "1", &key],
    ] {
        assert_eq!(say(&mut app, args), wrong_key, "{}", args[0]);
    }
    for args in [
        &["SET", "a", &value][..],
        &["MSET", "a", "1", "b", &value],
        &["SADD", "a", "1", &value],
        &["EVAL", &value, "0"],
        &["XADD", "a", "*", "f", &value],
    ] {
        assert_eq!(say(&mut app, args), wrong_value, "{}", args[0]);
    }
    assert_eq!(say(&mut app, &["SET", &key[1..], &value[1..]]), "+OK\r\n", "as long as they may be");
    assert_eq!(say(&mut app, &["ECHO", &value]), format!("$1025\r\n{value}\r\n"), "what is not written has no bound");
    assert_eq!(say(&mut app, &["PUBLISH", &key, &value]), ":0\r\n");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("SET a 1"), "+QUEUED\r\n");
    assert_eq!(say(&mut app, &["SET", "a", &value]), wrong_value);
    assert_eq!(app.ask("EXEC"), ABORT);
    assert_eq!(app.ask("MGET a b"), "*2\r\n$-1\r\n$-1\r\n", "nothing of a refused MSET was sent");
    assert_eq!(calls(&redis, "mset") + calls(&redis, "sadd"), 0);
}

#[test]
fn what_is_too_long_is_refused_before_it_has_come() {
    const MIB: usize = 1 << 20;
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["max_value: 1mb", "max_key: 512b", "deny_commands: [APPEND]"]));
    let mut app = hotring.app();
    let memory = || hotring.metric("hotring_worker_memory_bytes{worker=\"0\"}");
    let part = vec![b'x'; MIB];
    for (name, argc, front, behind) in [
        ("SET", 3, "$1\r\na\r\n", ""),
        ("SET", 5, "$1\r\na\r\n", "$2\r\nEX\r\n$2\r\n10\r\n"),
        ("MSET", 7, "$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n", "$1\r\nc\r\n$1\r\n3\r\n"),
        ("SADD", 4, "$1\r\ns\r\n", "$1\r\nm\r\n"),
        ("EVAL", 3, "", "$1\r\n0\r\n"),
    ] {
        let head = format!("*{argc}\r\n${}\r\n{name}\r\n{front}${}\r\n", name.len(), 8 * MIB);
        app.send(head.as_bytes());
        assert_eq!(app.text(), too_long("value", 8 * MIB, "max_value", "1mb"), "{name}");
        for _ in 0..8 {
            app.send(&part);
            assert!(memory() < 4e6, "{name}: it is not kept");
        }
        app.send(b"\r\n");
        app.send(behind.as_bytes());
        assert_eq!(app.ask("MGET a b c"), "*3\r\n$-1\r\n$-1\r\n$-1\r\n", "{name}: the connection goes on");
    }
    // Nor is what comes behind a key that is too long.
    let wrong = long(513);
    app.send(format!("*3\r\n$3\r\nSET\r\n$513\r\n{wrong}\r\n${MIB}\r\n").as_bytes());
    assert_eq!(app.text(), too_long("key", 513, "max_key", "512"));
    app.send(&part);
    app.send(b"\r\n");
    // A denied command is not waited for either.
    app.send(format!("*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n${}\r\n", 8 * MIB).as_bytes());
    assert_eq!(app.text(), denied("append"));
    for _ in 0..8 {
        app.send(&part);
    }
    app.send(b"\r\n");
    // In a transaction it is spoilt.
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    assert_eq!(app.ask("SET a 1"), "+QUEUED\r\n");
    app.send(format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n", 2 * MIB).as_bytes());
    assert!(app.text().starts_with("-ERR a value of 2097152 bytes"));
    app.send(&part);
    app.send(&part);
    app.send(b"\r\n");
    assert_eq!(app.ask("EXEC"), ABORT);
    // What may be so long goes as it comes.
    let may = long(MIB);
    assert_eq!(app.call(&["SET", "a", &may]), b"+OK\r\n");
    assert_eq!(app.ask("STRLEN a"), format!(":{MIB}\r\n"));
    assert_eq!(calls(&redis, "mset") + calls(&redis, "sadd") + calls(&redis, "eval") + calls(&redis, "append"), 0);
    assert_eq!(calls(&redis, "set"), 1);
}

#[test]
fn a_reload_changes_what_is_denied_for_who_is_there() {
    let (_redis, at) = shards(1);
    let site = Site::new(&pool(&at, &[]));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET a 1"), "+OK\r\n");
    assert_eq!(site.reload(&pool(&at, &["read_only: true"])).0, 200);
    assert_eq!(app.ask("SET a 2"), READONLY);
    assert_eq!(site.reload(&pool(&at, &[])).0, 200);
    assert_eq!(app.ask("SET a 2"), "+OK\r\n");
    eventually("it is counted", || {
        site.hotring.metric("hotring_errors_total{pool=\"main\",cause=\"read_only\"}") >= 1.0
    });
}
