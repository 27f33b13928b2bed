//! Hot keys that are kept in memory, at the level of the engine: what is served, and what ends it. Time is an argument.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "near/stand.rs"]
mod stand;
#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "other tests use the rest")]
mod support;
#[path = "near/workers.rs"]
mod workers;
#[path = "near/writes.rs"]
mod writes;

use hotring::error::{Cause, Failure};
use hotring::metrics::{Label, Stale};
use hotring::stages::hot::{Config, LONGEST, Means, Reads};
use stand::{S, Stand, TRACKING};
use support::request;

#[test]
fn what_was_read_is_answered_from_memory() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    for session in [0, 1, 2] {
        assert_eq!(s.near(session).as_deref(), Some("$1\r\n1\r\n"));
    }
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.near_hits, counts.near_fills), (3, 1));
    assert_eq!(s.engine.holdings().errands, 0);
}

#[test]
fn other_keys_and_other_commands_go_home() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    for line in ["GET j", "STRLEN k", "EXISTS k", "GETEX k", "TTL k"] {
        s.sent(s.line);
        s.ask(1, line);
        assert!(!s.sent(s.line).is_empty(), "{line}");
        s.answer(s.line, ":1\r\n");
    }
}

#[test]
fn that_there_is_nothing_is_kept_too_and_told_in_each_ones_protocol() {
    let mut s = Stand::new();
    s.fill_begins(0);
    s.answer(s.tracker, "+OK\r\n_\r\n:-2\r\n");
    assert_eq!(s.app(0), "$-1\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$-1\r\n"));
    s.ask(2, "HELLO 3");
    s.app(2);
    assert_eq!(s.near(2).as_deref(), Some("_\r\n"));
}

#[test]
fn news_of_a_change_ends_it() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    s.fill("$1\r\n2\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$1\r\n2\r\n"));
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(s.near(1), None, "all keys there are");
    assert_eq!(s.engine.pool_counts(0).unwrap().near_flushes, 1);
}

#[test]
fn news_between_the_question_and_its_reply_counts() {
    let mut s = Stand::new();
    s.fill_begins(0);
    s.answer(s.tracker, "+OK\r\n");
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    s.answer(s.tracker, "$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(0), "$1\r\n1\r\n", "whoever asked is told all the same");
    assert_eq!(s.near(1), None);
}

#[test]
fn nothing_is_served_longer_than_the_last_sign_of_life_allows() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.sent(s.tracker);
    s.now += S / 2 - 1_000;
    assert!(s.near(1).is_some());
    assert_eq!(s.sent(s.tracker), "");
    s.now += 2_000;
    s.ask(1, "GET k");
    assert_eq!((s.sent(s.line).as_str(), s.app(1).as_str()), ("", "$1\r\n1\r\n"));
    assert_eq!(s.sent(s.tracker), "*1\r\n$4\r\nPING\r\n", "asked in time");
    s.answer(s.tracker, "+PONG\r\n");
    s.now += S - 1_000;
    s.ask(1, "GET k");
    assert_eq!(s.app(1), "$1\r\n1\r\n");
    s.sent(s.tracker);
    s.now += 2_000;
    s.ask(1, "GET k");
    assert_eq!(s.app(1), "", "no answer");
    s.answer(s.tracker, "+PONG\r\n+OK\r\n$1\r\n2\r\n:-1\r\n");
    assert_eq!(s.app(1), "$1\r\n2\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$1\r\n2\r\n"));
}

#[test]
fn a_lost_connection_ends_all() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    let failure = Failure { cause: Cause::Lost, reason: "cut" };
    s.engine.fail(s.tracker, failure, s.now, &mut s.wires);
    assert_eq!(s.near(1), None);
    s.engine.connected(s.tracker, s.now);
    s.flush();
    assert!(s.sent(s.tracker).ends_with(TRACKING));
    assert_eq!(s.near(1), None, "not before the shard has said so");
    s.answer(s.tracker, "+OK\r\n");
    s.fill("$1\r\n2\r\n");
    assert_eq!(s.near(1).as_deref(), Some("$1\r\n2\r\n"));
}

#[test]
fn a_shard_that_tells_of_nothing_is_read_again_in_time() {
    let mut s = Stand::new();
    let failure = Failure { cause: Cause::Lost, reason: "cut" };
    s.engine.fail(s.tracker, failure, s.now, &mut s.wires);
    s.engine.connected(s.tracker, s.now);
    s.flush();
    s.answer(s.tracker, "-NOPERM this user has no permissions to run the 'client|tracking' command\r\n");
    s.sent(s.tracker);
    s.ask(0, "GET k");
    assert!(!s.sent(s.tracker).contains("CACHING"));
    let asked = s.now;
    s.answer(s.tracker, "$1\r\n1\r\n:-1\r\n");
    assert!(s.near(1).is_some());
    s.now = asked + S;
    assert_eq!(s.near(1), None);
    assert_eq!(s.engine.pool_counts(0).unwrap().untracked.get(), 1);
}

#[test]
fn a_time_to_live_is_kept() {
    let mut s = Stand::new();
    s.fill_begins(0);
    let asked = s.now;
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:300\r\n");
    s.now = asked + 290_000;
    assert!(s.near(1).is_some());
    s.now = asked + 300_000;
    assert_eq!(s.near(1), None);
}

#[test]
fn whoever_has_seen_something_newer_is_not_served_the_older() {
    let mut s = Stand::new();
    // Sent home, since a write is on its way, and answered only when another one was kept.
    s.ask(1, "SET k 1");
    s.ask(1, "GET k");
    s.answer(s.line, "+OK\r\n");
    if s.sent(s.tracker).contains("GET") {
        s.answer(s.tracker, "+OK\r\n$1\r\n0\r\n:-1\r\n");
    }
    s.fill("$1\r\n1\r\n");
    assert!(s.near(2).is_some(), "others are served");
    s.sent(s.line);
    s.ask(1, "GET k");
    assert!(!s.sent(s.line).is_empty(), "its own reads stay in order");
    s.answer(s.line, "$1\r\n2\r\n$1\r\n2\r\n");
    if s.sent(s.tracker).contains("GET") {
        s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    }
    assert_eq!(s.near(2), None, "the news is on its way");
}

#[test]
fn reads_that_come_while_it_is_read_get_the_same() {
    let mut s = Stand::new();
    s.fill_begins(0);
    s.ask(1, "GET k");
    s.ask(2, "GET k");
    assert_eq!((s.sent(s.line).as_str(), s.sent(s.tracker).as_str()), ("", ""));
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    for session in 0..3 {
        assert_eq!(s.app(session), "$1\r\n1\r\n");
    }
    assert_eq!(s.engine.pool_counts(0).unwrap().near_joined, 3);
}

#[test]
fn they_are_sent_home_if_it_is_lost() {
    let mut s = Stand::new();
    s.fill_begins(0);
    s.ask(1, "GET k");
    s.answer(s.tracker, "+OK\r\n");
    s.engine.fail(s.tracker, Failure { cause: Cause::Lost, reason: "cut" }, s.now, &mut s.wires);
    s.flush();
    assert_eq!(s.sent(s.line).as_bytes(), [request("GET k"), request("GET k")].concat());
    s.answer(s.line, "$1\r\n1\r\n$1\r\n1\r\n");
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), ("$1\r\n1\r\n", "$1\r\n1\r\n"));
    assert_eq!((s.engine.holdings().errands, s.engine.pending()), (0, 0));
}

#[test]
fn a_key_is_kept_only_when_all_that_was_asked_before_it_was_hot_is_answered() {
    let mut s = Stand::new();
    s.ask(1, "GET j");
    s.engine.path_mut(0).unwrap().hot.enter(b"j", 0, Means::Near, s.now);
    s.sent(s.tracker);
    s.ask(2, "GET j");
    assert_eq!(s.sent(s.tracker), "", "the first one may be answered later than what is kept");
    s.answer(s.line, "$1\r\n1\r\n$1\r\n1\r\n");
    s.ask(2, "GET j");
    assert!(s.sent(s.tracker).contains("PTTL"));
}

#[test]
fn long_values_errors_and_other_databases_are_not_kept() {
    let mut s = Stand::with(Config { reads: Reads::Near, longest_near: 8, ..Config::default() });
    s.fill("$4\r\nlong\r\n");
    assert_eq!(s.near(1), None);
    let mut s = Stand::new();
    s.fill_begins(0);
    s.answer(s.tracker, "+OK\r\n-WRONGTYPE x\r\n:-1\r\n");
    assert_eq!(s.app(0), "-WRONGTYPE x\r\n");
    assert_eq!(s.near(1), None);
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.ask(1, "SELECT 1");
    s.ask(1, "GET k");
    assert_eq!(s.app(1), "+OK\r\n", "asked in its own database");
}

#[test]
fn elements_of_mget_come_from_memory_and_from_shards_in_their_order() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.sent(s.line);
    s.ask(1, "MGET j k i k");
    assert_eq!(s.sent(s.line), String::from_utf8(request("MGET j i")).unwrap());
    s.answer(s.line, "*2\r\n$1\r\nj\r\n$-1\r\n");
    assert_eq!(s.app(1), "*4\r\n$1\r\nj\r\n$1\r\n1\r\n$-1\r\n$1\r\n1\r\n");
    s.ask(1, "MGET k k");
    assert_eq!((s.sent(s.line).as_str(), s.app(1).as_str()), ("", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n"));
    let counts = s.engine.pool_counts(0).unwrap();
    assert_eq!((counts.near_hits, counts.near_fills), (4, 1));
    let holdings = s.engine.holdings();
    assert_eq!((holdings.gathers, holdings.errands), (0, 0));
}

#[test]
fn an_element_that_was_read_at_home_is_kept_and_compared() {
    let mut s = Stand::new();
    s.ask(1, "MGET j k");
    assert!(s.sent(s.tracker).contains("PTTL"));
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert!(s.near(2).is_some());
    s.answer(s.line, "*2\r\n$1\r\n0\r\n$1\r\n2\r\n");
    assert_eq!(s.near(2), None, "the element says something newer");
}

#[test]
fn a_session_that_speaks_resp3_gets_nulls_of_its_own_in_arrays() {
    let mut s = Stand::new();
    s.fill_begins(0);
    s.answer(s.tracker, "+OK\r\n_\r\n:-2\r\n");
    s.ask(2, "HELLO 3");
    s.app(2);
    s.ask(2, "MGET k k");
    assert_eq!(s.app(2), "*2\r\n_\r\n_\r\n");
}

#[test]
fn a_sample_of_the_answers_is_compared_with_the_shard() {
    let mut s = Stand::with(Config { reads: Reads::Near, audit: 1, ..Config::default() });
    let stale = |s: &mut Stand| {
        let counts = s.engine.pool_counts(0).unwrap();
        (counts.audited, Stale::ALL.iter().map(|&age| counts.audit_stale[age]).collect::<Vec<_>>())
    };
    s.fill("$1\r\n1\r\n");
    s.sent(s.line);
    s.ask(1, "GET k");
    assert_eq!(s.app(1), "$1\r\n1\r\n");
    assert_eq!(s.sent(s.line), "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    s.answer(s.line, "$1\r\n1\r\n");
    assert_eq!(stale(&mut s), (1, vec![0, 0, 0, 0]), "right");
    // Wrong, and of what is wrong there is no news.
    s.ask(1, "GET k");
    s.answer(s.line, "$1\r\n2\r\n");
    for after in [10_000, 100_000] {
        s.sent(s.line);
        s.now += after;
        s.engine.tick(s.now, &mut s.wires);
        s.flush();
        assert_eq!(s.sent(s.line), "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        s.answer(s.line, "$1\r\n2\r\n");
    }
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    s.now += S;
    s.engine.tick(s.now, &mut s.wires);
    s.flush();
    s.answer(s.line, "$1\r\n2\r\n");
    assert_eq!(stale(&mut s), (2, vec![0, 0, 1, 0]), "for a tenth of a second at least");
}

#[test]
fn every_key_is_kept_where_that_is_wanted() {
    let mut s = Stand::with(Config { reads: Reads::Near, near_all: true, ..Config::default() });
    s.sent(s.line);
    s.sent(s.tracker);
    s.ask(1, "GET other");
    assert!(s.sent(s.tracker).contains("other") && s.sent(s.line).is_empty());
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(1), "$1\r\n1\r\n");
    s.ask(2, "GET other");
    assert_eq!(s.app(2), "$1\r\n1\r\n");
    assert_eq!((s.sent(s.tracker).as_str(), s.sent(s.line).as_str()), ("", ""));
    // Nobody asks for it any more.
    for _ in 0..2 {
        s.now += 30_000_000;
        s.engine.tick(s.now, &mut s.wires);
    }
    let hot = &s.engine.path(0).unwrap().hot;
    assert!(hot.key(hot.hash(b"other")).is_none());
}

#[test]
fn a_connection_that_is_lost_before_its_shard_has_said_so_is_not_one_that_tells_of_nothing() {
    let mut s = Stand::new();
    let failure = Failure { cause: Cause::Lost, reason: "cut" };
    for _ in 0..2 {
        s.engine.fail(s.tracker, failure, s.now, &mut s.wires);
        s.engine.connected(s.tracker, s.now);
        s.flush();
        assert!(s.sent(s.tracker).ends_with(TRACKING));
    }
    s.ask(1, "GET k");
    assert_eq!(s.sent(s.tracker), "", "what is read now the shard will not tell of");
    assert_eq!(s.engine.path(0).unwrap().hot.untracked(), 0);
}

#[test]
fn reads_of_one_request_are_counted_one_by_one() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.ask(1, "EXISTS k k");
    s.sent(s.line);
    s.ask(1, "GET k");
    assert!(!s.sent(s.line).is_empty(), "behind the other");
    s.answer(s.line, ":2\r\n");
    // Kept anew by another's read.
    s.sent(s.tracker);
    s.ask(0, "GET k");
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(0), "$1\r\n1\r\n");
    s.sent(s.line);
    s.ask(1, "GET k");
    assert!(!s.sent(s.line).is_empty(), "the one before it may be told something newer");
    s.answer(s.line, "$1\r\n2\r\n$1\r\n2\r\n");
    assert_eq!(s.app(1), ":2\r\n$1\r\n2\r\n$1\r\n2\r\n");
}

#[test]
fn a_read_at_home_waits_for_one_that_is_kept() {
    for second in ["MGET k", "STRLEN k", "EXISTS k", "MGET j k"] {
        let mut s = Stand::new();
        s.fill_begins(0);
        s.ask(1, "GET k");
        let bytes = request(second);
        s.now += 10;
        let submitted = s.engine.submit(1, &bytes, s.now, &mut s.wires);
        s.flush();
        assert_eq!((submitted.consumed, s.sent(s.line).as_str()), (0, ""), "{second} may be carried out before");
        s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
        assert!(s.wires.woken.contains(&1));
    }
}

#[test]
fn a_read_that_did_not_let_its_key_in_counts_nevertheless() {
    for first in ["GET b", "STRLEN b"] {
        let mut s = Stand::with(Config { reads: Reads::Near, near_all: true, ..Config::default() });
        s.fill("$1\r\n1\r\n");
        // Another key that goes home, behind which nothing is let in.
        s.ask(1, "SET k 2");
        s.ask(1, "GET k");
        s.ask(1, first);
        s.answer(s.line, "+OK\r\n$1\r\n2\r\n");
        s.sent(s.line);
        s.sent(s.tracker);
        s.ask(1, "GET b");
        assert_eq!(s.sent(s.tracker), "", "{first}: what is read there may be older");
    }
}

#[test]
fn a_fill_that_is_lost_sends_its_readers_where_the_key_lives() {
    let mut s = Stand::new();
    s.fill_begins(0);
    let failure = Failure { cause: Cause::Lost, reason: "cut" };
    s.engine.fail(s.line, failure, s.now, &mut s.wires);
    s.engine.fail(s.line, Failure { cause: Cause::Connect, ..failure }, s.now, &mut s.wires);
    s.engine.fail(s.tracker, failure, s.now, &mut s.wires);
    s.flush();
    assert!(s.app(0).starts_with('-'), "its shard is down: nothing waits for that");
    assert_eq!((s.engine.pending(), s.engine.in_flight()), (0, 0));
}

#[test]
fn a_read_that_was_to_be_kept_counts_as_one_at_home_when_that_is_lost() {
    let mut s = Stand::new();
    s.fill_begins(1);
    s.engine.fail(s.tracker, Failure { cause: Cause::Lost, reason: "cut" }, s.now, &mut s.wires);
    s.engine.connected(s.tracker, s.now);
    s.flush();
    s.answer(s.tracker, "+OK\r\n");
    s.fill("$1\r\n1\r\n");
    assert!(s.near(2).is_some());
    s.sent(s.line);
    s.ask(1, "GET k");
    assert!(!s.sent(s.line).is_empty(), "the one before it may be told something newer");
    s.answer(s.line, "$1\r\n2\r\n$1\r\n2\r\n");
    assert_eq!(s.near(2), None, "somebody has been told something newer");
}

#[test]
fn a_slow_upload_fences_its_key_only() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    let front = b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$2097152\r\nxxx";
    s.now += 10;
    s.engine.submit(2, front, s.now, &mut s.wires);
    s.flush();
    assert!(s.near(1).is_some(), "another key is being uploaded");
}

#[test]
fn a_read_that_is_sent_again_is_still_known() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    s.sent(s.line);
    s.engine.path_mut(0).unwrap().hot.enter(b"j", 0, Means::Near, s.now);
    s.wires.room = Some(0);
    // Behind a read of another hot key that memory cannot answer.
    s.ask(1, "STRLEN j");
    s.ask(1, "GET k");
    let failure = Failure { cause: Cause::Lost, reason: "cut" };
    s.engine.fail(s.line, failure, s.now, &mut s.wires);
    s.wires.room = None;
    s.flush();
    s.engine.connected(s.line, s.now);
    s.flush();
    assert_eq!(s.sent(s.line).as_bytes(), [request("STRLEN j"), request("GET k")].concat());
    assert!(s.near(0).is_some());
    s.answer(s.line, ":1\r\n$1\r\n2\r\n");
    assert_eq!(s.app(1), ":1\r\n$1\r\n2\r\n");
    assert_eq!(s.near(0), None, "somebody has been told something newer");
}

#[test]
fn audits_are_bounded() {
    let mut s = Stand::with(Config { reads: Reads::Near, audit: 1, ..Config::default() });
    s.fill("$1\r\n1\r\n");
    for _ in 0..2000 {
        s.ask(1, "GET k");
    }
    assert!(s.engine.holdings().errands <= 300, "{}", s.engine.holdings().errands);
}

/// Redis tells nobody of a SWAPDB, and may evict what is read nowhere but here.
#[test]
fn what_its_shard_never_speaks_of_again_is_not_kept_for_ever() {
    let mut s = Stand::new();
    s.fill("$1\r\n1\r\n");
    let asked = s.now;
    while s.now + S / 2 < asked + LONGEST {
        s.now += S / 2;
        assert!(s.near(1).is_some(), "after {} us", s.now - asked);
    }
    s.now = asked + LONGEST;
    assert_eq!(s.near(1), None);
}
