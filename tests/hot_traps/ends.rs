//! What ends by itself, or without a word: time, FLUSHALL, other databases.

use super::*;

#[test]
fn a_key_ends_in_memory_when_it_ends_at_its_server() {
    const MANY: usize = 20;
    let s = Stand::new();
    let (mut app, mut other) = (s.app(), s.app());
    let span = Duration::from_millis(1500);
    let (mut reads, mut calls) = (0, 0);
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    for _ in 0..3 {
        comes(&mut app, "k", "$1\r\nv\r\n");
        s.warm(&mut app, "k", "v");
        assert_eq!(other.ask("SET k v PX 1500"), "+OK\r\n");
        let begun = now();
        let before = s.redis.calls("get");
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
        calls += s.redis.calls("get") - before;
        assert_eq!(other.ask("SET k v"), "+OK\r\n");
    }
    assert!(calls < reads as u64 / 2, "{calls} of {reads} came to the server");
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
