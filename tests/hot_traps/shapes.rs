//! Keys and values of every shape, and both protocols.

use super::*;

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
