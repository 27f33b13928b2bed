//! What is written through the worker, and what is kept.

use crate::stand::{S, Stand};
use crate::support::request;
use hotring::stages::hot::{ABSENT, Config, Fence, Place, Reads};
use std::sync::Arc;

#[test]
fn a_write_ends_it_when_it_is_answered_and_for_who_sent_it_at_once() {
    for write in
        ["SET k 2", "DEL k j", "EXPIRE k 5", "EVAL x 1 other", "EVAL x 0", "FLUSHALL", "RENAME j k", "SORT j STORE k"]
    {
        let mut s = Stand::new();
        s.fill("$1\r\n1\r\n");
        s.ask(2, write);
        assert_eq!(s.sent(s.line), String::from_utf8(request(write)).unwrap());
        s.ask(2, "GET k");
        assert!(!s.sent(s.line).is_empty(), "{write} is on its way");
        assert_eq!(s.near(1).as_deref(), Some("$1\r\n1\r\n"), "nobody has been told of {write}");
        s.answer(s.line, "+OK\r\n$1\r\n1\r\n");
        assert_eq!(s.app(2), "+OK\r\n$1\r\n1\r\n");
        assert_eq!(s.near(1), None, "{write} was answered");
    }
}

#[test]
fn a_write_of_another_key_does_not() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.ask(2, "SET j 2");
    assert!(s.near(1).is_some());
}

#[test]
fn what_was_asked_for_while_a_write_was_on_its_way_is_not_kept() {
    let mut s = Stand::new();
    s.ask(2, "SET k 2");
    s.sent(s.tracker);
    s.sent(s.line);
    s.ask(2, "GET k");
    assert_eq!(s.sent(s.line).as_bytes(), request("GET k"), "behind its own write");
    s.sent(s.tracker);
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.near(0).as_deref(), Some("$1\r\n1\r\n"), "for others it is good until the write is answered");
    s.answer(s.line, "+OK\r\n$1\r\n2\r\n");
    assert_eq!((s.app(2).as_str(), s.near(0)), ("+OK\r\n$1\r\n2\r\n", None));
    s.fill_begins(0);
    s.ask(2, "SET k 3");
    s.answer(s.line, "+OK\r\n");
    s.sent(s.line);
    s.ask(1, "GET k");
    assert!(!s.sent(s.line).is_empty(), "what was asked before the write is not for whoever asks behind it");
    s.answer(s.line, "$1\r\n3\r\n");
    s.answer(s.tracker, "+OK\r\n$1\r\n2\r\n:-1\r\n");
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), ("$1\r\n2\r\n", "$1\r\n3\r\n"));
    assert_eq!(s.near(0), None);
}

#[test]
fn a_session_reads_what_it_wrote_in_one_go() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.sent(s.line);
    let both = [request("SET k 2"), request("GET k")].concat();
    s.send(1, &both);
    assert_eq!(s.sent(s.line).as_bytes(), both);
    s.answer(s.line, "+OK\r\n$1\r\n2\r\n");
    assert_eq!(s.app(1), "+OK\r\n$1\r\n2\r\n");
}

#[test]
fn a_transaction_counts_from_its_exec() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.ask(2, "MULTI");
    s.ask(2, "SET k 2");
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.flush();
    s.answer(own, "+OK\r\n+QUEUED\r\n");
    assert_eq!(s.app(2), "+OK\r\n+QUEUED\r\n");
    assert!(s.near(1).is_some(), "nothing has happened yet");
    s.ask(2, "EXEC");
    assert!(s.near(1).is_some(), "nobody knows of it");
    s.answer(own, "*1\r\n+OK\r\n");
    assert_eq!(s.near(1), None);
}

#[test]
fn what_a_session_writes_behind_a_read_waits_for_it() {
    let mut s = Stand::new();
    s.sent(s.line);
    s.sent(s.tracker);
    let both = [request("GET k"), request("SET k 2")].concat();
    s.now += 10;
    let submitted = s.engine.submit(1, &both, s.now, &mut s.wires);
    s.flush();
    assert_eq!(submitted.consumed, request("GET k").len(), "the write is not read yet");
    assert_eq!(s.sent(s.line), "");
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(1), "$1\r\n1\r\n");
    assert!(s.wires.woken.contains(&1));
    s.ask(1, "SET k 2");
    assert_eq!(s.sent(s.line).as_bytes(), request("SET k 2"));
}

#[test]
fn what_is_set_here_is_kept_where_that_is_wanted() {
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    s.sent(s.line);
    s.ask(2, "SET k 2");
    let sent = s.now;
    assert_eq!(s.sent(s.line).as_bytes(), request("SET k 2"));
    s.answer(s.line, "+OK\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$1\r\n2\r\n"));
    // The news of that very change, which may come earlier or later.
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$1\r\n2\r\n"));
    s.now = sent + S - 30;
    assert!(s.near(1).is_some());
    s.now = sent + S;
    assert_eq!(s.near(1), None, "of others' changes there is no news");
}

#[test]
fn what_is_set_here_is_not_kept_if_anything_else_happened() {
    for (first, second) in [("SET k 2", "INCR k"), ("SET k 2", "FLUSHALL"), ("SET k 2", "EVAL x 0")] {
        let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
        s.fill("$1\r\n1\r\n");
        s.ask(1, first);
        s.ask(2, second);
        s.answer(s.line, "+OK\r\n+OK\r\n");
        s.app(1);
        s.app(2);
        assert_eq!(s.near(1), None, "{second}");
    }
    for write in ["SET k 2 NX", "SET k 2 EX 10", "SET k 2 GET", "SETEX k 1 2"] {
        let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
        s.fill("$1\r\n1\r\n");
        s.ask(1, write);
        s.answer(s.line, "+OK\r\n");
        assert_eq!((s.app(1).as_str(), s.near(1)), ("+OK\r\n", None), "{write}");
    }
    // Nor what is refused.
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    s.ask(1, "SET k 2");
    s.answer(s.line, "-OOM command not allowed\r\n");
    s.app(1);
    assert_eq!(s.near(1), None);
}

#[test]
fn of_writes_on_one_connection_the_last_is_kept() {
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    s.ask(1, "SET k 2");
    s.ask(2, "SET k 3");
    s.ask(1, "SET k 4");
    s.answer(s.line, "+OK\r\n");
    assert_eq!(s.near(0).as_deref(), Some("$1\r\n2\r\n"), "nobody was told of the others");
    s.answer(s.line, "+OK\r\n+OK\r\n");
    for session in [1, 2] {
        s.app(session);
    }
    assert_eq!(s.near(0).as_deref(), Some("$1\r\n4\r\n"));
    // Nothing is known of the order of those on two connections.
    let fence = s.engine.path(0).unwrap().hot.fence().clone();
    let place = Place::of_key(s.engine.path(0).unwrap().hot.hash(b"k"));
    s.ask(1, "SET k 5");
    s.sent(s.line);
    fence.begin(place);
    fence.end(place, s.now);
    s.answer(s.line, "+OK\r\n");
    s.app(1);
    assert_eq!(s.near(0), None);
}

#[test]
fn what_a_write_changes_is_told_of_when_it_is_answered() {
    for keep_writes in [false, true] {
        let mut s = Stand::with(Config { reads: Reads::Near, keep_writes, ..Config::default() });
        s.fill("$1\r\n1\r\n");
        s.ask(1, "SET k 2");
        s.sent(s.line);
        // Nobody knows of it yet; but who has sent it knows that it comes first.
        assert_eq!(s.near(2).as_deref(), Some("$1\r\n1\r\n"));
        s.ask(1, "GET k");
        assert_eq!(s.sent(s.line).as_bytes(), request("GET k"));
        // Asks again when its write is answered, and not when its other write is.
        s.ask(0, "SET other 1");
        s.answer(s.line, "+OK\r\n");
        assert_eq!(s.near(2).as_deref(), keep_writes.then_some("$1\r\n2\r\n"), "keep_writes: {keep_writes}");
    }
}

/// A shard may tell of a change before it answers who has made it.
#[test]
fn what_is_being_written_here_is_no_news() {
    let news = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    s.ask(1, "SET k 2");
    s.answer(s.tracker, news);
    assert_eq!(s.near(2).as_deref(), Some("$1\r\n1\r\n"));
    s.answer(s.line, "+OK\r\n");
    s.app(1);
    assert_eq!(s.near(2).as_deref(), Some("$1\r\n2\r\n"));
    // It may be of another's change: what is kept then is no longer good than without the news.
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    let proof = s.engine.path(0).unwrap().hot.tracked(s.engine.path(0).unwrap().hot.key(k(&s)).unwrap().shard).proof;
    s.ask(1, "SET k 2");
    s.answer(s.tracker, news);
    s.sent(s.tracker);
    s.now = proof + S / 2 + 20;
    assert!(s.near(2).is_some());
    // The sign of life that it has given does not make it any better.
    s.now = proof + S - 20;
    assert!(s.near(2).is_some());
    s.now = proof + S;
    assert_eq!(s.near(2), None);
    // And where nothing is being written that is to be kept, it is dropped at once.
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.ask(1, "SET k 2");
    s.answer(s.tracker, news);
    assert_eq!(s.near(2), None);
}

fn k(s: &Stand) -> u64 {
    s.engine.path(0).unwrap().hot.hash(b"k")
}

#[test]
fn what_is_being_written_takes_no_more_memory_than_what_is_kept() {
    let config = Config { reads: Reads::Near, keep_writes: true, near_memory: 100, ..Config::default() };
    let mut s = Stand::with(config);
    s.fill("$1\r\n1\r\n");
    let long = "x".repeat(60);
    for _ in 0..3 {
        s.ask(1, &format!("SET k {long}"));
    }
    let puts = |s: &Stand| s.engine.path(0).unwrap().hot.key(k(s)).unwrap().puts.len();
    assert_eq!(puts(&s), 1);
    s.answer(s.line, "+OK\r\n+OK\r\n+OK\r\n");
    s.app(1);
    assert_eq!((puts(&s), s.near(2)), (0, None), "it was written twice since");
}

#[test]
fn what_is_set_in_another_database_is_not_kept() {
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    s.ask(2, "SELECT 1");
    s.ask(2, "SET k 2");
    let other = *s.wires.wanted.last().unwrap();
    s.engine.connected(other, s.now);
    s.flush();
    assert!(s.sent(other).contains("SET"));
    s.answer(other, "+OK\r\n");
    assert_eq!(s.near(1), None);
}

#[test]
fn what_was_set_and_removed_again_is_not_told_behind_that_it_is_not_there() {
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$-1\r\n");
    s.ask(2, "SET k 2");
    // Removed by somebody else; and another worker's app is told that it is not there, as it was before.
    let hot = &s.engine.path(0).unwrap().hot;
    let (fence, hash) = (hot.fence().clone(), k(&s));
    assert!(!fence.tell(hash, ABSENT).news);
    s.answer(s.line, "+OK\r\n");
    s.app(2);
    assert_eq!(s.near(1), None);
    // Nor if a slow answer has told of it in between.
    let mut s = Stand::with(Config { reads: Reads::Near, keep_writes: true, ..Config::default() });
    s.fill("$-1\r\n");
    s.ask(2, "SET k 2");
    assert!(!fence_of(&s).tell(k(&s), ABSENT).news);
    let hash = k(&s);
    s.engine.path_mut(0).unwrap().hot.passed(hash, b"$1\r\n2\r\n");
    s.answer(s.line, "+OK\r\n");
    s.app(2);
    assert_eq!(s.near(1), None);
}

fn fence_of(s: &Stand) -> Arc<Fence> {
    s.engine.path(0).unwrap().hot.fence().clone()
}
