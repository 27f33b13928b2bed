//! Embedded nodes behind the proxy: both protocols, transactions across workers, and errors that leave a connection as it was.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::command;
use support::{Hotring, key_on, wire};

fn nodes(count: usize, more: &str) -> Hotring {
    Hotring::start(&format!(
        "admin: off\n{more}\npools: {{a: {{listen: 127.0.0.1:0, servers: embedded:{count}, dedicated_connections: 2}}}}\n"
    ))
}

#[test]
fn a_new_protocol_is_spoken_from_end_to_end() {
    let hotring = nodes(3, "");
    let (mut three, mut two) = (hotring.app(), hotring.app());
    assert!(three.ask("HELLO 3").starts_with('%'));
    assert_eq!(three.ask("HSET h f v"), ":1\r\n");
    assert_eq!(three.ask("HGETALL h"), "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(three.ask("GET none"), "_\r\n");
    assert_eq!(three.ask("MGET none h other"), "*3\r\n_\r\n_\r\n_\r\n");
    assert_eq!(two.ask("HGETALL h"), "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    assert_eq!(two.ask("GET none"), "$-1\r\n");
    assert!(three.ask("HELLO 2").starts_with('*'));
    assert_eq!(three.ask("GET none"), "$-1\r\n");
}

#[test]
fn a_transaction_is_carried_out_at_once_or_not_at_all() {
    let hotring = nodes(3, "workers: 2");
    let (mut app, mut other) = (hotring.app(), hotring.app());
    // In one go, so that what is held back until a key is named goes before it.
    app.send(
        &[wire(&["MULTI"]), wire(&["PING"]), wire(&["SET", "k", "1"]), wire(&["INCR", "k"]), wire(&["EXEC"])].concat(),
    );
    for reply in ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*3\r\n+PONG\r\n+OK\r\n:2\r\n"] {
        assert_eq!(app.text(), reply);
    }
    // Watched, and changed by another.
    assert_eq!(app.ask("WATCH k"), "+OK\r\n");
    assert_eq!(other.ask("INCR k"), ":3\r\n");
    assert_eq!([app.ask("MULTI"), app.ask("SET k 9"), app.ask("EXEC")], ["+OK\r\n", "+QUEUED\r\n", "*-1\r\n"]);
    assert_eq!(app.ask("GET k"), "$1\r\n3\r\n");
    // Watched, and changed by itself before.
    assert_eq!([app.ask("WATCH k"), app.ask("UNWATCH"), other.ask("INCR k")], ["+OK\r\n", "+OK\r\n", ":4\r\n"]);
    assert_eq!([app.ask("MULTI"), app.ask("GET k"), app.ask("EXEC")], ["+OK\r\n", "+QUEUED\r\n", "*1\r\n$1\r\n4\r\n"]);
    // What the node does not have spoils it.
    assert_eq!([app.ask("MULTI"), app.ask("SET k 9")], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(app.ask("LPUSH k 1").starts_with("-ERR the embedded node does not have 'lpush'"));
    assert!(app.ask("EXEC").starts_with("-EXECABORT "));
    assert_eq!([app.ask("MULTI"), app.ask("SET k 9"), app.ask("DISCARD")], ["+OK\r\n", "+QUEUED\r\n", "+OK\r\n"]);
    assert_eq!(app.ask("GET k"), "$1\r\n4\r\n");
}

#[test]
fn increments_under_watch_are_never_lost() {
    let hotring = nodes(2, "workers: 2");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (mut app, mut done) = (hotring.app(), 0);
                while done < 200 {
                    assert_eq!(app.ask("WATCH n"), "+OK\r\n");
                    let old = app.ask("GET n").lines().nth(1).map_or(0, |text| text.parse::<u32>().unwrap());
                    assert_eq!(app.ask("MULTI"), "+OK\r\n");
                    assert_eq!(app.ask(&format!("SET n {}", old + 1)), "+QUEUED\r\n");
                    match app.ask("EXEC").as_str() {
                        "*1\r\n+OK\r\n" => done += 1,
                        reply => assert_eq!(reply, "*-1\r\n"),
                    }
                }
            });
        }
    });
    assert_eq!(hotring.app().ask("GET n"), "$3\r\n400\r\n");
}

#[test]
fn who_leaves_within_a_transaction_leaves_nothing_behind() {
    let hotring = nodes(1, "");
    for round in 0..20 {
        let mut app = hotring.app();
        assert_eq!(app.ask("WATCH k"), "+OK\r\n");
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        assert_eq!(app.ask(&format!("SET k {round}")), "+QUEUED\r\n");
        // Two protocols take turns on the two connections there may be.
        let mut next = hotring.app();
        if round % 2 == 0 {
            next.ask("HELLO 3");
        }
        assert_eq!([next.ask("MULTI"), next.ask("GET k")], ["+OK\r\n", "+QUEUED\r\n"]);
        assert_eq!(next.ask("EXEC"), if round % 2 == 0 { "*1\r\n_\r\n" } else { "*1\r\n$-1\r\n" });
        // Its end is known to be seen when it is answered.
        assert_eq!(app.ask("RESET"), "+RESET\r\n");
        assert_eq!(app.ask("GET k"), "$-1\r\n");
    }
}

#[test]
fn what_the_nodes_do_not_have_leaves_the_connection_as_it_was() {
    let hotring = nodes(2, "");
    let (mut app, key) = (hotring.app(), key_on(1, 2));
    assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    let mut refused = 0;
    for spec in command::all() {
        if matches!(spec.name, "quit" | "shutdown" | "reset" | "hello" | "auth" | "flushall" | "flushdb" | "select") {
            continue;
        }
        if matches!(spec.name, "multi" | "watch" | "unlink" | "del" | "getdel" | "rename" | "client" | "set") {
            continue;
        }
        // With arguments enough for any, the second of which may be a number.
        for count in 0..6 {
            let mut args = vec![spec.name.as_bytes().to_vec(), b"none".to_vec()];
            args.extend(vec![b"1".to_vec(); count]);
            let reply = app.call(&args);
            refused += usize::from(reply.starts_with(b"-ERR the embedded node does not have"));
            if spec.name.ends_with("unsubscribe") {
                // It has a reply for each name.
                app = hotring.app();
            } else if spec.name.ends_with("subscribe") {
                let text = String::from_utf8_lossy(&reply);
                assert!(text.starts_with("-ERR embedded nodes do not publish"), "{}: {text}", spec.name);
            }
            assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nv\r\n", "after {}", spec.name);
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn what_is_asked_of_all_keys_is_asked_of_all_nodes() {
    let hotring = nodes(3, "");
    let mut app = hotring.app();
    assert_eq!([app.ask("DBSIZE"), app.ask("RANDOMKEY"), app.ask("LASTSAVE")], [":0\r\n", "$-1\r\n", ":0\r\n"]);
    for number in 0..100 {
        assert_eq!(app.ask(&format!("SET text:{number} v")), "+OK\r\n");
        assert_eq!(app.ask(&format!("HSET hash:{number} f v")), ":1\r\n");
    }
    assert_eq!(app.ask("DBSIZE"), ":200\r\n");
    assert!(app.ask("KEYS *").starts_with("*200\r\n"));
    assert!(app.ask("KEYS text:1?").starts_with("*10\r\n"));
    assert!(app.ask("RANDOMKEY").starts_with('$'));
    for (options, count) in [("", 200), (" TYPE hash", 100), (" MATCH *:2? COUNT 7", 20), (" MATCH h* TYPE string", 0)]
    {
        let (mut cursor, mut found) = ("0".to_owned(), std::collections::BTreeSet::new());
        loop {
            let page = app.ask(&format!("SCAN {cursor}{options}"));
            let mut lines = page.lines().filter(|line| !line.starts_with(['*', '$']));
            cursor = lines.next().unwrap().to_owned();
            found.extend(lines.map(str::to_owned));
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found.len(), count, "{options}");
    }
    assert_eq!([app.ask("FLUSHALL"), app.ask("DBSIZE")], ["+OK\r\n", ":0\r\n"]);
}
