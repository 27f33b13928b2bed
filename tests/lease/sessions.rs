//! Sessions of all kinds: who takes part, in which protocol, and with what else a pool does.

use crate::stand::{MS, NIL, Stand, leases, pool, request, users};
use crate::wanted;
use hotring::engine::Engine;
use hotring::stages::Hot;
use hotring::stages::hot::{Means, Reads};
use hotring::stages::lease::{Lease, Wanted};

#[test]
fn those_who_must_not_wait_do_not() {
    let mut s = Stand::local(4);
    s.miss(0);
    s.ask(1, "CLIENT REPLY OFF");
    s.ask(1, "GET k");
    s.answer(NIL);
    s.ask(2, "MULTI");
    s.ask(2, "GET k");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.ask(2, "EXEC");
    s.answer_on(own, "*1\r\n$-1\r\n");
    assert_eq!(s.app(2), "+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n");
    let strict = s.engine.open_strict(0);
    s.wires.apps.push(Vec::new());
    s.ask(strict, "GET k");
    s.answer(NIL);
    assert_eq!(s.app(strict), NIL);
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_waits, 0);
}

#[test]
fn what_a_transaction_writes_wakes_those_who_wait() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.miss(1);
    s.ask(2, "MULTI");
    s.ask(2, "SET k v");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    assert_eq!(s.sent(), "", "nothing has happened yet");
    s.ask(2, "EXEC");
    s.answer_on(own, "*1\r\n+OK\r\n");
    assert_eq!(s.sent(), "GET k");
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(1), "$1\r\nv\r\n");
}

#[test]
fn one_connection_for_many_threads_waits_where_that_is_wanted() {
    let mut s = Stand::new(Wanted { same_connection_waits: true, ..wanted(Lease::Local) }, 1);
    s.send(0, &request("GET k").repeat(50));
    s.answer(&NIL.repeat(50));
    assert_eq!(s.app(0), NIL);
    s.sent();
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    assert_eq!((s.app(0).as_str(), s.sent().as_str()), ("", "SET k v; GET k"));
    s.tick(MS);
    s.tick(5 * MS);
    s.answer("$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n".repeat(49) + "+OK\r\n");
    s.is_at_rest();
}

#[test]
fn users_who_may_not_write_hold_nothing() {
    let mut pool = pool(1, 1, false);
    pool.leases = leases("", wanted(Lease::Local));
    pool.users = users(&[("r", "~* +@read"), ("w", "~* +@all")]);
    let mut s = Stand::of(pool, 3);
    for (session, name) in [(0, "r"), (1, "w"), (2, "w")] {
        s.ask(session, &format!("AUTH {name} pass"));
        assert_eq!(s.app(session), "+OK\r\n");
    }
    (0..3).for_each(|session| s.miss(session));
    assert_eq!((s.app(0).as_str(), s.app(1).as_str(), s.app(2).as_str()), (NIL, NIL, ""));
}

#[test]
fn keys_that_are_kept_in_memory_have_leases_too() {
    let mut pool = pool(1, 1, false);
    pool.leases = leases("", wanted(Lease::Local));
    let hot = hotring::stages::hot::Config { reads: Reads::Near, ..Default::default() };
    pool.path.hot = Hot::new(hot, 7, Default::default());
    let mut s = Stand::of(pool, 4);
    s.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Near, 0);
    s.miss(0);
    assert_eq!(s.app(0), NIL);
    let tracker = s.wires.wanted.pop().unwrap();
    s.engine.connected(tracker, s.now);
    s.engine.flush(&mut s.wires);
    s.sent_on(tracker);
    s.answer_on(tracker, "+OK\r\n");
    s.now += 10 * MS;
    // What is read to be kept is nil: whoever joined that waits.
    s.sent();
    s.ask(1, "GET k");
    assert_eq!((s.sent().as_str(), s.sent_on(tracker).as_str()), ("", "CLIENT CACHING YES; GET k; PTTL k"));
    s.answer_on(tracker, "+OK\r\n_\r\n:-2\r\n");
    assert_eq!(s.app(1), "");
    // That there is nothing is kept, and yet nobody is told so from memory.
    s.miss(2);
    assert_eq!(s.app(2), "");
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!((s.app(1).as_str(), s.app(2).as_str()), ("$1\r\nv\r\n", "$1\r\nv\r\n"));
    s.is_at_rest();
}

#[test]
fn what_is_ready_behind_a_wait_ends_it_soon() {
    let mut s = Stand::new(Wanted { same_connection_waits: true, ..wanted(Lease::Local) }, 2);
    s.miss(0);
    s.send(0, &[request("GET k"), request("GET j")].concat());
    s.answer("$-1\r\n$1\r\nj\r\n");
    assert_eq!(s.app(0), NIL);
    s.tick(MS);
    assert_eq!(s.app(0), "");
    s.tick(2 * MS);
    assert_eq!(s.app(0), NIL.to_owned() + "$1\r\nj\r\n");
    s.is_at_rest();
}

#[test]
fn each_is_told_in_its_own_protocol() {
    let mut s = Stand::local(3);
    s.miss(0);
    s.ask(1, "HELLO 3");
    s.app(1);
    s.ask(1, "GET k");
    let line = (0..s.engine.line_count()).find(|&line| !s.wires.shards.get(line as usize).is_none_or(Vec::is_empty));
    let line = line.unwrap_or_else(|| {
        let wanted = s.wires.wanted.pop().unwrap();
        s.engine.connected(wanted, s.now);
        s.engine.flush(&mut s.wires);
        wanted
    });
    s.answer_on(line, "_\r\n");
    assert_eq!(s.app(1), "");
    s.tick(310 * MS);
    assert_eq!(s.app(1), "_\r\n");
}

#[test]
fn apps_that_all_speak_resp3_wake_those_who_wait() {
    let mut s = Stand::local(2);
    // As it is where nobody speaks RESP2: the connection for that is never opened.
    s.engine = Engine::new(1, 1);
    let mut pool = pool(1, 1, false);
    pool.leases = leases("", wanted(Lease::Local));
    let (pool, _) = s.engine.add_pool(pool);
    for session in 0..2 {
        assert_eq!(s.engine.open(pool), session);
        s.ask(session, "HELLO 3");
        s.app(session);
    }
    s.ask(0, "GET k");
    s.line = s.wires.wanted.pop().unwrap();
    s.engine.connected(s.line, s.now);
    s.engine.flush(&mut s.wires);
    s.answer("_\r\n");
    assert_eq!(s.app(0), "_\r\n");
    s.ask(1, "GET k");
    s.answer("_\r\n");
    s.sent();
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    assert_eq!(s.sent(), "SET k v; GET k");
    s.answer("$1\r\nv\r\n");
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), ("+OK\r\n", "$1\r\nv\r\n"));
    s.is_at_rest();
}

#[test]
fn equal_reads_that_share_a_flight_are_one_load_too() {
    let mut pool = pool(1, 1, true);
    pool.leases = leases("", wanted(Lease::Local));
    let mut s = Stand::of(pool, 5);
    for session in 0..5 {
        s.engine.submit(session, &request("GET k"), s.now, &mut s.wires);
    }
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(), "GET k");
    s.answer(NIL);
    assert_eq!((0..5).filter(|&session| s.app(session) == NIL).count(), 1);
    s.ask(0, "SET k v");
    s.answer("+OK\r\n");
    s.answer("$1\r\nv\r\n");
    assert_eq!((0..5).filter(|&session| s.app(session).ends_with("$1\r\nv\r\n")).count(), 4);
    s.is_at_rest();
}
