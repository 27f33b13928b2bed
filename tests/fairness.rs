//! Nobody is starved by who asks for very much at a time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod inner;
mod support;

use hotring::engine::Then;
use inner::request;
use support::{Client, Hotring, wire};

/// Requests that a session is served before others have their turn.
const TURN: usize = 512;

#[test]
fn a_turn_is_bounded_by_requests() {
    let (mut engine, mut wires) = inner::engine(inner::pool(1, 1, false), 1);
    for one in [b"PING\r\n".to_vec(), request("PING"), request("ECHO x")] {
        let many = one.repeat(2 * TURN + 1);
        let mut rest = many.as_slice();
        for left in [TURN + 1, 1] {
            let done = engine.submit(0, rest, 0, &mut wires);
            rest = &rest[done.consumed..];
            assert_eq!((rest.len(), done.then), (left * one.len(), Then::Yield));
        }
        assert_eq!(engine.submit(0, rest, 0, &mut wires).then, Then::Read { need: 1 });
        engine.flush(&mut wires);
    }
    let just = request("PING").repeat(TURN);
    assert_eq!(engine.submit(0, &just, 0, &mut wires).then, Then::Read { need: 1 }, "nothing is left");
}

/// A million requests of one session, in the order they were sent, while another one asks how far they are.
#[test]
fn a_million_requests_of_one_do_not_keep_another_waiting() {
    const ALL: usize = 1_000_000;
    let hotring = Hotring::start("admin: off\npools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n");
    let mut other = hotring.app();
    let mut greedy = hotring.app();
    let mut writer = greedy.writer();
    let chunk = wire(&["INCR", "n"]).repeat(10_000);
    let write = std::thread::spawn(move || (0..ALL / 10_000).for_each(|_| writer.send(&chunk)));
    let read = std::thread::spawn(move || {
        for n in 1..=ALL {
            assert_eq!(greedy.text(), format!(":{n}\r\n"));
        }
    });
    let at = |other: &mut Client| -> usize {
        let reply = other.ask("GET n");
        reply.split("\r\n").nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    let (mut rounds, mut least, mut last) = (0, ALL, 0);
    loop {
        let now = at(&mut other);
        if last > 0 && now < ALL {
            (rounds, least) = (rounds + 1, least.min(now - last));
        }
        if now == ALL {
            break;
        }
        last = now;
    }
    write.join().unwrap();
    read.join().unwrap();
    // How many are served between two questions is the machine's doing, too; what is a turn's shows where it was quick.
    assert!(rounds >= 100, "{rounds} questions were answered meanwhile");
    assert!(least <= 2 * TURN, "at least {least} requests were served between two questions");
}
