//! Equal reads of hot keys that share replies (`merge`), at the level of the engine: who waits behind whom, in which order
//! things leave, and what becomes of those who wait. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod support;

use hotring::engine::{Engine, LineId, PoolConfig, SessionId};
use hotring::error::{Cause, Failure};
use hotring::stages::{Merge, Merging};
use support::{Wires, engine, pool, request};

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
const LOST: Failure = Failure { cause: Cause::Lost, reason: "connection reset" };
const LATE: Failure = Failure { cause: Cause::Timeout, reason: "no answer within the pool's timeout" };

/// One shard, on connection 0.
struct Stand {
    engine: Engine,
    wires: Wires,
    now: u64,
}

impl Stand {
    /// Every key is as good as hot.
    fn new(merge: Merge) -> Self {
        Self::of(Merging::new(merge, 7).of_every_key())
    }

    fn of(merging: Merging) -> Self {
        let (engine, wires) = engine(config(merging), 8);
        Self { engine, wires, now: 10 * S }
    }

    fn ask(&mut self, session: SessionId, lines: &[&str]) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
        self.now += 10;
        let taken = self.engine.submit(session, &bytes, self.now, &mut self.wires).consumed;
        assert_eq!(taken, bytes.len());
        self.engine.flush(&mut self.wires);
    }

    fn answer(&mut self, line: LineId, reply: &str) {
        self.now += 10;
        let used = self.engine.receive(line, reply.as_bytes(), self.now, &mut self.wires).unwrap();
        assert_eq!(used.0, reply.len());
        self.engine.flush(&mut self.wires);
    }

    fn app(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    /// What a shard was sent since this was asked last, in words.
    fn sent(&mut self, line: LineId) -> Vec<String> {
        let bytes = String::from_utf8(std::mem::take(&mut self.wires.shards[line as usize])).unwrap();
        let commands = bytes.split('*').skip(1);
        commands.map(|command| command.split("\r\n").skip(2).step_by(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn fail(&mut self, failure: Failure) {
        self.engine.fail(0, failure, self.now, &mut self.wires);
        self.engine.flush(&mut self.wires);
    }

    fn waits(&mut self) -> u64 {
        self.engine.pool_counts(0).unwrap().merge_waiting.get()
    }

    /// Nobody waits for anything, and nothing is left of what was.
    fn rest(&mut self) {
        assert_eq!((self.waits(), self.engine.pending(), self.engine.in_flight()), (0, 0, 0));
        assert_eq!(self.engine.holdings().joined, 0);
        assert_eq!(self.engine.path(0).unwrap().merging.out(), 0);
    }
}

fn config(merging: Merging) -> PoolConfig {
    let mut config = pool(1, 1, false);
    config.path.merging = merging;
    config.timeout = Some(4 * S);
    config
}

#[test]
fn who_asks_while_an_equal_read_is_out_leaves_with_the_next_one() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    assert_eq!(s.sent(0), ["GET k"], "the first one leaves at once");
    (1..4).for_each(|session| s.ask(session, &["GET k"]));
    s.ask(4, &["GET other"]);
    s.ask(5, &["STRLEN k"]);
    assert_eq!(s.sent(0), ["GET other", "STRLEN k"], "another key, another read");
    assert_eq!(s.waits(), 3);
    s.answer(0, "$1\r\na\r\n");
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), ("$1\r\na\r\n", ""), "it was executed before the others asked");
    assert_eq!(s.sent(0), ["GET k"]);
    s.ask(6, &["GET k"]);
    assert!(s.sent(0).is_empty());
    s.answer(0, "$1\r\no\r\n:1\r\n$1\r\nb\r\n");
    for session in 1..4 {
        assert_eq!(s.app(session), "$1\r\nb\r\n");
    }
    assert_eq!(s.sent(0), ["GET k"]);
    s.answer(0, "$1\r\nc\r\n");
    assert_eq!(s.app(6), "$1\r\nc\r\n");
    s.rest();
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.joined_requests, counts.merge_waits, counts.replies), (2, 4, 7));
    s.ask(0, &["GET k"]);
    assert_eq!(s.sent(0), ["GET k"], "nothing is out any more");
}

#[test]
fn what_waits_leaves_before_anything_else_of_its_session() {
    for then in ["SET k mine", "SET other v", "GET other", "MGET other third", "DEL k", "EVAL s 1 k"] {
        let mut s = Stand::new(Merge::Strict);
        s.ask(0, &["GET k"]);
        s.ask(1, &["GET k", "GET k"]);
        s.ask(2, &["GET k"]);
        assert_eq!((s.sent(0).len(), s.waits()), (1, 3));
        s.ask(1, &[then]);
        assert_eq!(s.sent(0), ["GET k", then], "session 2 goes with it");
        s.ask(3, &["GET k"]);
        assert!(s.sent(0).is_empty(), "what is out now was sent before");
        s.answer(0, "$1\r\na\r\n$1\r\nb\r\n+OK\r\n");
        assert_eq!(s.app(1), "$1\r\nb\r\n$1\r\nb\r\n+OK\r\n");
        assert_eq!(s.app(2), "$1\r\nb\r\n");
        assert_eq!(s.sent(0), ["GET k"]);
        s.answer(0, "$1\r\nc\r\n");
        assert_eq!(s.app(3), "$1\r\nc\r\n");
        s.rest();
    }
}

#[test]
fn a_session_shares_nothing_that_leaves_before_what_it_asked_for() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    s.ask(1, &["GET k"]);
    // Both at once: the other's read of `j` is in the outbox before this session's read of `k` leaves.
    let now = s.now;
    s.engine.submit(2, &request("GET j"), now, &mut s.wires);
    s.engine.submit(1, &request("GET j"), now, &mut s.wires);
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(0), ["GET k", "GET j", "GET k", "GET j"]);
    s.answer(0, "$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n");
    assert_eq!(s.app(1), "$1\r\nc\r\n$1\r\nd\r\n");
    s.rest();
}

#[test]
fn what_has_not_left_is_joined() {
    let mut s = Stand::new(Merge::Strict);
    for session in 0..3 {
        s.engine.submit(session, &request("GET k").repeat(2), s.now, &mut s.wires);
    }
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(0), ["GET k"]);
    s.answer(0, "$1\r\na\r\n");
    for session in 0..3 {
        assert_eq!(s.app(session), "$1\r\na\r\n".repeat(2));
    }
    s.rest();
}

#[test]
fn strict_sessions_transactions_and_other_protocols_keep_to_themselves() {
    let mut s = Stand::new(Merge::Strict);
    let strict = s.engine.open_strict(0);
    s.wires.apps.push(Vec::new());
    s.ask(0, &["GET k"]);
    s.ask(strict, &["GET k"]);
    assert_eq!(s.sent(0), ["GET k", "GET k"]);
    s.ask(1, &["HELLO 3"]);
    s.app(1);
    s.ask(1, &["GET k"]);
    assert!(s.sent(0).is_empty());
    assert!(!s.wires.wanted.is_empty(), "a connection of its own protocol is opened for it");
    s.ask(2, &["WATCH k"]);
    assert_eq!(s.waits(), 0);
    for words in ["SRANDMEMBER k", "GETEX k", "INCR k"] {
        s.ask(3, &[words]);
        s.ask(4, &[words]);
        assert_eq!(s.sent(0), [words, words]);
    }
}

#[test]
fn only_hot_keys_are_merged_and_the_detector_knows_them() {
    let mut s = Stand::of(Merging::new(Merge::Strict, 7));
    let both = |s: &mut Stand| {
        s.ask(0, &["GET k"]);
        s.ask(1, &["GET k"]);
        let sent = s.sent(0).len();
        s.answer(0, &"$1\r\na\r\n".repeat(sent));
        if sent == 1 {
            assert_eq!(s.sent(0), ["GET k"]);
            s.answer(0, "$1\r\na\r\n");
        }
        sent
    };
    assert_eq!(both(&mut s), 2, "nobody knows yet");
    for _ in 0..10 {
        (0..50).for_each(|_| _ = both(&mut s));
        s.now += 250 * MS;
        assert!(s.engine.tick(s.now, &mut s.wires).is_empty());
    }
    assert_eq!(both(&mut s), 1);
    s.rest();
    let mut off = Stand::of(Merging::new(Merge::Off, 7).of_every_key());
    assert_eq!(both(&mut off), 2);
}

#[test]
fn relaxed_shares_what_is_out_until_a_write() {
    let mut s = Stand::new(Merge::Relaxed);
    s.ask(0, &["GET k"]);
    s.ask(1, &["GET k"]);
    assert_eq!((s.sent(0), s.waits()), (vec!["GET k".to_owned()], 0));
    s.ask(2, &["SET other v"]);
    s.ask(3, &["GET k"]);
    assert_eq!(s.sent(0), ["SET other v"], "a write to another key");
    s.ask(2, &["SET k v"]);
    s.ask(4, &["GET k"]);
    assert_eq!(s.sent(0), ["SET k v", "GET k"]);
    s.ask(2, &["EVAL s 0"]);
    s.ask(5, &["GET k"]);
    assert_eq!(s.sent(0), ["EVAL s 0", "GET k"], "whoever names no key may have written all");
    s.ask(5, &["GET other", "GET k"]);
    assert_eq!(s.sent(0), ["GET other", "GET k"], "what left before its session's request is not shared");
    s.answer(0, "$1\r\na\r\n+OK\r\n+OK\r\n$1\r\nb\r\n:1\r\n$1\r\nc\r\n$1\r\no\r\n$1\r\nd\r\n");
    for session in [0, 1, 3] {
        assert_eq!(s.app(session), "$1\r\na\r\n");
    }
    assert_eq!(s.app(4), "$1\r\nb\r\n");
    assert_eq!(s.app(5), "$1\r\nc\r\n$1\r\no\r\n$1\r\nd\r\n");
    s.rest();
}

#[test]
fn relaxed_shares_nothing_that_a_transaction_of_the_session_may_have_overtaken() {
    let mut s = Stand::new(Merge::Relaxed);
    s.ask(1, &["MULTI"]);
    s.app(1);
    s.ask(1, &["SET k v"]);
    let own = s.wires.wanted.pop().unwrap();
    s.engine.connected(own, s.now);
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(own), ["MULTI", "SET k v"]);
    s.answer(own, "+OK\r\n+QUEUED\r\n");
    s.ask(1, &["EXEC"]);
    s.ask(2, &["GET k"]);
    assert_eq!((s.sent(own), s.sent(0)), (vec!["EXEC".to_owned()], vec!["GET k".to_owned()]));
    s.answer(own, "*1\r\n+OK\r\n");
    s.ask(1, &["GET k"]);
    assert_eq!(s.sent(0), ["GET k"], "what is out may have been executed before the transaction");
}

#[test]
fn a_lost_connection_tells_who_waits_that_nothing_was_sent() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    s.ask(1, &["GET k"]);
    s.fail(LATE);
    assert!(s.app(0).ends_with("; the command may have run\r\n"));
    assert!(s.app(1).ends_with("; nothing was sent\r\n"));
    s.rest();
}

#[test]
fn who_waits_behind_a_read_that_is_lost_is_tried_again() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    (1..3).for_each(|session| s.ask(session, &["GET k"]));
    s.sent(0);
    s.fail(LOST);
    assert!(s.app(0).starts_with("-ERR"));
    assert_eq!((s.app(1), s.waits()), (String::new(), 0));
    s.engine.connected(0, s.now);
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(0), ["GET k"]);
    s.answer(0, "$1\r\nb\r\n");
    assert_eq!((s.app(1), s.app(2)), ("$1\r\nb\r\n".into(), "$1\r\nb\r\n".into()));
    s.rest();
}

#[test]
fn nobody_waits_longer_than_a_part_of_the_timeout_and_a_slow_shard_is_not_given_up_for_it() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    s.ask(1, &["GET k"]);
    s.sent(0);
    s.now += S + MS;
    assert!(s.engine.tick(s.now, &mut s.wires).is_empty());
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(0), ["GET k"]);
    s.now += 2 * S;
    s.answer(0, "$1\r\na\r\n");
    // More than the timeout since it was asked, less since it was sent.
    s.now += 3 * S / 2;
    assert!(s.engine.tick(s.now, &mut s.wires).is_empty());
    s.now += S;
    assert_eq!(s.engine.tick(s.now, &mut s.wires).len(), 1);
    s.fail(LATE);
    assert!(s.app(1).starts_with("-ERR"));
    s.rest();
}

#[test]
fn a_session_that_leaves_takes_nothing_from_the_others() {
    let mut s = Stand::new(Merge::Strict);
    (0..4).for_each(|session| s.ask(session, &["GET k"]));
    s.sent(0);
    s.engine.close(1, false, &mut s.wires);
    let next = s.engine.open(0);
    assert_eq!(next, 1, "its number is another's");
    s.answer(0, "$1\r\na\r\n");
    assert_eq!(s.sent(0), ["GET k"]);
    s.ask(next, &["PING"]);
    s.answer(0, "$1\r\nb\r\n");
    assert_eq!((s.app(1), s.app(2), s.app(3)), ("+PONG\r\n".into(), "$1\r\nb\r\n".into(), "$1\r\nb\r\n".into()));
    s.rest();
}

#[test]
fn a_pool_that_is_configured_anew_keeps_nobody_waiting() {
    let mut s = Stand::new(Merge::Strict);
    s.ask(0, &["GET k"]);
    s.ask(1, &["GET k"]);
    s.sent(0);
    s.engine.reload(0, config(Merging::new(Merge::Off, 7)), s.now, &mut s.wires);
    s.engine.flush(&mut s.wires);
    assert_eq!(s.sent(0), ["GET k"]);
    s.answer(0, "$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!((s.app(0), s.app(1)), ("$1\r\na\r\n".into(), "$1\r\nb\r\n".into()));
    s.rest();
}

#[test]
fn thirty_two_thousand_reads_are_two_thousand() {
    let mut s = Stand::new(Merge::Strict);
    let mut calls = s.sent(0).len();
    for round in 0..1_000 {
        for session in 0..8 {
            s.ask(session, &["GET k"; 4]);
        }
        let value = format!("$4\r\n{round:04}\r\n");
        let mut sent = s.sent(0).len();
        while sent > 0 {
            calls += sent;
            s.answer(0, &value.repeat(sent));
            sent = s.sent(0).len();
        }
    }
    assert!(calls <= 2_000, "{calls}");
    s.rest();
}
