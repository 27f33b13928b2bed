//! Whatever changes a key ends what is in memory of it.

use super::*;

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
