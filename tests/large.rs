//! Long values: passed on while they arrive, never held whole on their way in, and no matter of anybody else's.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{FOREVER, Fake, Hotring, eventually, key_on, pool, shards, wire};

const MIB: usize = 1 << 20;

/// Bytes that tell their place.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at / 1021) as u8).collect()
}

#[test]
fn a_long_value_arrives_whole_however_it_is_cut() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["max_outbox: 64kb"]);
    let mut app = hotring.app();
    let value = body(9 * MIB + 3);
    for (number, cut) in [1 << 16, 4093, MIB, usize::MAX].into_iter().enumerate() {
        let key = format!("key:{number}");
        // Before it, and behind it in the same request and in others.
        let mut bytes = wire(&["SET", "before", "1"]);
        bytes.extend(wire(&[b"SET".as_slice(), key.as_bytes(), &value, b"EXAT", b"4102444800"]));
        bytes.extend(wire(&["GET", "before"]));
        bytes.extend(wire(&["STRLEN", &key]));
        let mut writer = app.writer();
        let writing = std::thread::spawn(move || bytes.chunks(cut.min(bytes.len())).for_each(|part| writer.send(part)));
        assert_eq!([app.text(), app.text(), app.text()], ["+OK\r\n", "+OK\r\n", "$1\r\n1\r\n"]);
        assert_eq!(app.text(), format!(":{}\r\n", value.len()));
        writing.join().unwrap();
        assert_eq!(app.ask(&format!("EXPIRETIME {key}")), ":4102444800\r\n");
        let read = app.call(&["GET", &key]);
        assert!(read.ends_with(b"\r\n") && read[read.len() - 2 - value.len()..read.len() - 2] == value, "key {number}");
    }
    // One that has its long value in the midst of several.
    let sent = wire(&[b"RPUSH".as_slice(), b"list", b"a", &value, b"b", &value, b""]);
    app.send(&sent);
    assert_eq!(app.text(), ":5\r\n");
    assert_eq!(app.ask("LINDEX list 2"), "$1\r\nb\r\n");
    assert_eq!(app.ask("LINDEX list -1"), "$0\r\n\r\n");
}

#[test]
fn an_upload_that_stands_still_holds_up_nobody_and_is_not_in_memory() {
    let (redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["timeout: 3s"]));
    let mut other = hotring.app();
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n";
    let mut slow: Vec<_> = (0..20).map(|_| hotring.app()).collect();
    for app in &mut slow {
        app.send(head);
        app.send(&body(2 * MIB));
    }
    // All of it has gone on to the server.
    let queued = "hotring_server_in_queue_bytes{pool=\"main\",backend=\"s0\"}";
    eventually("the uploads are on their way", || {
        let sent = hotring.metric("hotring_server_request_bytes_total{pool=\"main\",backend=\"s0\"}");
        sent >= 40.0 * MIB as f64 && hotring.metric(queued) == 0.0
    });
    for number in 0..100 {
        assert_eq!(other.ask(&format!("SET other {number}")), "+OK\r\n");
    }
    assert_eq!(other.ask("EXISTS k"), ":0\r\n");
    // Who leaves in the midst has written nothing, and its connection is not used again.
    drop(slow);
    eventually("their connections end", || redis[0].connections() <= 2);
    assert_eq!(other.ask("EXISTS k"), ":0\r\n");
    assert_eq!(other.ask("GET other"), "$2\r\n99\r\n");
}

#[test]
fn a_connection_whose_upload_broke_off_is_watched_by_the_timeout_again() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["timeout: 3s", "dedicated_connections: 1"]);
    let mut leaver = hotring.app();
    leaver.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n");
    leaver.send(&body(2 * MIB));
    eventually("the upload has its connection", || redis[0].connections() >= 1);
    drop(leaver);
    let mut app = hotring.app();
    // Its number is used again, on another socket.
    eventually("the connection is there for others", || {
        assert_eq!(app.ask("MULTI"), "+OK\r\n");
        let has_it = app.ask("SET k v") == "+QUEUED\r\n";
        assert_eq!(app.ask("DISCARD"), "+OK\r\n");
        has_it
    });
    assert_eq!([app.ask("MULTI"), app.ask("SET k v")], ["+OK\r\n", "+QUEUED\r\n"]);
    redis[0].freeze();
    assert!(app.ask("GET k").starts_with("-ERR shard s0 timed out ("));
    redis[0].thaw();
}

#[test]
fn what_cannot_go_anywhere_is_read_away() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::over(&at, &[]);
    let mut app = hotring.app();
    let [key, other] = [0, 1].map(|shard| key_on(shard, 3));
    redis[0].kill();
    eventually("the loss is known", || app.ask(&format!("GET {key}")).starts_with("-ERR shard s0 is down"));
    let value = body(3 * MIB);
    app.send(&wire(&[b"SET".as_slice(), key.as_bytes(), &value, b"EX", b"5"]));
    assert!(app.text().starts_with("-ERR shard s0 is down ("));
    assert_eq!(app.ask(&format!("SET {other} 1")), "+OK\r\n");
}

#[test]
fn what_finds_no_connection_for_itself_is_held_and_not_refused() {
    let (_redis, at) = shards(1);
    let value = body(3 * MIB);
    for most in 0..3 {
        let hotring = Hotring::over(&at, &[&format!("dedicated_connections: {most}")]);
        let mut apps: Vec<_> = (0..4).map(|_| hotring.app()).collect();
        let requests: Vec<_> =
            (0..4).map(|number| wire(&[b"SET".as_slice(), &[b'k', b'0' + number], &value])).collect();
        for (app, request) in apps.iter_mut().zip(&requests) {
            app.send(&request[..2 * MIB]);
        }
        for (app, request) in apps.iter_mut().zip(&requests) {
            app.send(&request[2 * MIB..]);
            assert_eq!(app.text(), "+OK\r\n", "{most} connections");
        }
        assert_eq!(apps[0].ask("STRLEN k3"), format!(":{}\r\n", value.len()));
    }
}

#[test]
fn a_shard_that_answers_an_upload_before_its_end_does_not_stop_its_app() {
    let (seen, heard) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let hasty = Fake::start(move |visit| {
        visit.shake_hands();
        // Until the outbox is full, as nobody reads; and then without having read it.
        if heard.lock().unwrap().recv_timeout(FOREVER).is_ok() {
            visit.send(b"-ERR too long for me\r\n");
        }
        visit.until_gone();
    });
    let hotring = Hotring::with_admin(&pool(&[hasty.address()], &["max_outbox: 64kb"]));
    let mut app = hotring.app();
    let mut writer = app.writer();
    let value = body(64 * MIB);
    let writing = std::thread::spawn(move || writer.send(&wire(&[b"SET".as_slice(), b"k", &value])));
    let queued = "hotring_server_in_queue_bytes{pool=\"main\",backend=\"s0\"}";
    let open = "hotring_server_connections{pool=\"main\",backend=\"s0\"}";
    eventually("it waits for room", || hotring.metric(open) == 1.0 && hotring.metric(queued) > 64.0 * 1024.0);
    seen.send(()).unwrap();
    assert_eq!(app.text(), "-ERR too long for me\r\n");
    writing.join().unwrap();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_request_that_breaks_off_in_its_midst_is_a_protocol_error_and_not_carried_out() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    for wrong in ["x5\r\nhello\r\n", "$-1\r\n", "$999999999999\r\n", "$1x\r\n"] {
        let mut app = hotring.app();
        let mut bytes = format!("*4\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n${}\r\n", 2 * MIB).into_bytes();
        bytes.extend(body(2 * MIB));
        bytes.extend(b"\r\n");
        bytes.extend(wrong.as_bytes());
        app.send(&bytes);
        let said = String::from_utf8_lossy(&app.rest()).into_owned();
        assert!(said.starts_with("-ERR Protocol error: ") && said.matches("\r\n").count() == 1, "{wrong:?}: {said}");
        assert_eq!(hotring.app().ask("EXISTS k"), ":0\r\n");
    }
    eventually("the connections that had a part of it end", || redis[0].connections() <= 2);
}

#[test]
fn a_shard_that_dies_under_an_upload_is_told_of_once() {
    let (mut redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let mut app = hotring.app();
    app.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 4 * MIB).as_bytes());
    app.send(&body(2 * MIB));
    let sent = "hotring_server_request_bytes_total{pool=\"main\",backend=\"s0\"}";
    eventually("it is on its way", || hotring.metric(sent) >= 2.0 * MIB as f64);
    redis[0].kill();
    let said = app.text();
    assert!(said.starts_with("-ERR shard s0 was lost (") && said.ends_with("; the command may have run\r\n"), "{said}");
    app.send(&body(2 * MIB));
    app.send(b"\r\n");
    assert_eq!(app.ask("PING"), "+PONG\r\n");
}

#[test]
fn a_long_reply_goes_on_to_its_app_while_it_comes() {
    let (redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let (mut slow, mut other) = (hotring.app(), hotring.app());
    let value = body(48 * MIB + 5);
    redis[0].client().call(&[b"SET".as_slice(), b"long", &value]);
    // One that does not read holds up nobody on the same connection.
    slow.send(&[wire(&["GET", "long"]), wire(&["PING"])].concat());
    for number in 0..50 {
        assert_eq!(other.ask(&format!("SET other {number}")), "+OK\r\n");
    }
    let whole = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    assert!(slow.exactly(whole.len()) == whole);
    assert_eq!(slow.text(), "+PONG\r\n");
    // Behind one that is not answered yet, of another app or its own, and through MULTI.
    slow.send(&[wire(&["STRLEN", "long"]), wire(&["GET", "long"]), wire(&["GET", "long"])].concat());
    assert_eq!(slow.text(), format!(":{}\r\n", value.len()));
    assert!(slow.exactly(whole.len()) == whole);
    assert!(slow.exactly(whole.len()) == whole);
    slow.send(&[wire(&["MULTI"]), wire(&["GET", "long"]), wire(&["EXEC"])].concat());
    assert_eq!([slow.text(), slow.text()], ["+OK\r\n", "+QUEUED\r\n"]);
    assert!(slow.exactly(whole.len() + 4) == [b"*1\r\n", whole.as_slice()].concat());
    // It counts as one reply, and nothing stays behind.
    let output = "hotring_client_output_bytes{pool=\"main\"}";
    eventually("all has left", || hotring.metric(output) == 0.0);
    eventually("all is answered", || hotring.metric("hotring_requests_pending{pool=\"main\"}") == 0.0);
}

#[test]
fn who_leaves_a_long_reply_costs_nobody_anything() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &[]);
    let value = body(8 * MIB);
    redis[0].client().call(&[b"SET".as_slice(), b"long", &value]);
    let mut other = hotring.app();
    for _ in 0..20 {
        let mut app = hotring.app();
        app.send(&wire(&["GET", "long"]));
        assert_eq!(app.exactly(10), b"$8388608\r\n");
        drop(app);
        assert_eq!(other.ask("ECHO still"), "$5\r\nstill\r\n");
        assert_eq!(other.ask("STRLEN long"), ":8388608\r\n");
    }
}

#[test]
fn a_reply_that_breaks_off_ends_its_app_and_nobody_else() {
    // Half of a long value, then the end.
    let fake = Fake::start(|visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            if request[0].eq_ignore_ascii_case(b"GET") {
                visit.send(format!("${}\r\n", 4 * MIB).as_bytes());
                visit.send(&body(2 * MIB));
                return;
            }
            visit.send(b"+OK\r\n");
        }
    });
    let hotring = Hotring::over(&[fake.address()], &[]);
    let (mut app, mut other) = (hotring.app(), hotring.app());
    app.send(&wire(&["GET", "k"]));
    let said = app.rest();
    assert!(said.starts_with(b"$4194304\r\n") && said.len() < 4 * MIB, "{} bytes", said.len());
    eventually("the server is back", || other.ask("SET k v") == "+OK\r\n");
}
