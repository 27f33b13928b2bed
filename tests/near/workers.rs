//! Several workers that share a fence.

use crate::stand::Stand;
use crate::support::{Wires, engine, pool, request};
use hotring::engine::Engine;
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Fence, Reads};
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn what_is_no_news_to_one_worker_has_ended_what_the_others_keep() {
    const HASH: u64 = 0xabcd << 48 | 17;
    const ROUNDS: u64 = 50_000;
    let (fence, begun, ended) = (Fence::default(), AtomicU64::new(0), AtomicU64::new(0));
    let wait = |round: &AtomicU64, for_: u64| {
        while round.load(Ordering::SeqCst) < for_ {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait(&begun, round);
                fence.tell(HASH, round << 32);
                ended.store(round, Ordering::SeqCst);
            }
        });
        for round in 1..=ROUNDS {
            let seen = fence.see_still(HASH, 0).unwrap();
            begun.store(round, Ordering::SeqCst);
            let news = fence.tell(HASH, round << 32).news;
            let holds = fence.holds(seen, HASH, 0);
            wait(&ended, round);
            assert!(news || !holds, "in round {round}");
        }
    });
}

/// Two workers, of which only the first may keep the key.
fn two() -> (Stand, Engine, Wires) {
    let fence = std::sync::Arc::new(Fence::default());
    let config = Config { reads: Reads::Near, ..Config::default() };
    let mut other = pool(1, 1, false);
    other.path.hot = Hot::new(config.clone(), 7, fence.clone());
    let (mut other, mut wires) = engine(other, 1);
    // It reads before anything is kept.
    other.submit(0, &request("GET k"), 0, &mut wires);
    other.flush(&mut wires);
    (Stand::over(Hot::new(config, 7, fence)), other, wires)
}

#[test]
fn what_is_told_where_a_key_is_not_hot_is_known_where_it_may_be_kept() {
    let (mut s, mut other, mut wires) = two();
    other.receive(0, b"$1\r\n1\r\n", s.now, &mut wires).unwrap();
    other.tick(s.now, &mut wires);
    s.ask(0, "GET k");
    s.answer(s.line, "$1\r\n1\r\n");
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    s.app(0);
    // Its shard is slow to answer the first, and tells the second something newer in between.
    s.fill_begins(0);
    other.submit(0, &request("GET k"), s.now, &mut wires);
    other.flush(&mut wires);
    other.receive(0, b"$1\r\n2\r\n", s.now, &mut wires).unwrap();
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(0), "$1\r\n1\r\n", "it was asked before");
    assert_eq!(s.near(1), None, "but nobody else is told what is older than what was seen");
}

#[test]
fn nothing_is_kept_before_what_all_workers_had_asked_for_is_answered() {
    let (mut s, mut other, mut wires) = two();
    let kept = |s: &mut Stand| {
        s.sent(s.tracker);
        s.ask(0, "GET k");
        if s.sent(s.line).is_empty() {
            return true;
        }
        s.answer(s.line, "$1\r\n1\r\n");
        s.app(0);
        false
    };
    assert!(!kept(&mut s));
    other.tick(s.now, &mut wires);
    assert!(!kept(&mut s), "it has not been answered");
    // Another that is asked for then is taken note of.
    other.submit(0, &request("GET k"), s.now, &mut wires);
    other.flush(&mut wires);
    other.receive(0, b"$1\r\n1\r\n", s.now, &mut wires).unwrap();
    assert!(!kept(&mut s), "it has not been told");
    other.tick(s.now, &mut wires);
    // Memory cannot answer this one, but what is asked for now will be kept.
    assert!(!kept(&mut s));
    assert!(s.sent(s.tracker).contains("GET"));
}

/// It was there, was something else for a moment of which nobody has heard, and is there again.
#[test]
fn what_was_in_between_is_not_told_behind_what_was_seen_before_and_after_it() {
    let (mut s, mut other, mut wires) = two();
    let mut read_there = |s: &mut Stand, reply: &[u8]| {
        other.submit(0, &request("GET k"), s.now, &mut wires);
        other.flush(&mut wires);
        other.receive(0, reply, s.now, &mut wires).unwrap();
        other.tick(s.now, &mut wires);
    };
    // The first was asked for by `two`.
    read_there(&mut s, b"$-1\r\n$-1\r\n");
    s.ask(0, "GET k");
    s.answer(s.tracker, "+OK\r\n$-1\r\n:-2\r\n");
    s.answer(s.line, "$-1\r\n");
    assert_eq!(s.app(0), "$-1\r\n");
    s.answer(s.tracker, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    s.fill_begins(0);
    read_there(&mut s, b"$-1\r\n");
    s.ask(1, "GET k");
    assert_eq!(s.sent(s.line).as_bytes(), request("GET k"), "it does not wait for what may be older");
    s.answer(s.tracker, "+OK\r\n$1\r\n1\r\n:-1\r\n");
    assert_eq!(s.app(0), "$1\r\n1\r\n", "who had asked before is told");
    s.answer(s.line, "$-1\r\n");
    assert_eq!(s.app(1), "$-1\r\n");
    assert_eq!(s.near(2), None);
}
