//! Several keys at once, and arrays: nobody waits for who waits for him.

use crate::stand::{NIL, Stand, key_on};
use crate::wanted;
use hotring::stages::lease::{Lease, Shared};
use std::sync::Arc;

#[test]
fn sessions_that_load_do_not_wait() {
    let mut s = Stand::local(2);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k2");
    s.answer(NIL);
    s.ask(0, "GET k2");
    s.answer(NIL);
    s.ask(1, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k2");
    s.answer(NIL);
    assert_eq!((s.app(0), s.app(1)), (NIL.repeat(2), NIL.repeat(3)));
    s.is_at_rest();
}

#[test]
fn whoever_comes_to_load_one_key_waits_for_no_other() {
    let mut s = Stand::local(3);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "GET k1");
    s.answer(NIL);
    assert_eq!(s.app(1), "");
    s.ask(1, "GET k2");
    s.answer(NIL);
    assert_eq!(s.app(1), NIL.repeat(2));
    s.is_at_rest();
}

#[test]
fn several_keys_in_any_order_never_lock_each_other() {
    let mut s = Stand::local(2);
    s.ask(0, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.app(0), "*2\r\n$-1\r\n$-1\r\n", "it loads both");
    s.ask(1, "MGET k2 j k1");
    s.answer("*3\r\n$-1\r\n$1\r\nj\r\n$-1\r\n");
    assert_eq!(s.app(1), "");
    s.sent();
    s.ask(0, "SET k1 a");
    s.answer("+OK\r\n");
    assert_eq!(s.sent(), "SET k1 a; GET k1");
    s.answer("$1\r\na\r\n");
    assert_eq!(s.app(1), "");
    s.ask(0, "SET k2 b");
    s.answer("+OK\r\n");
    s.answer("$1\r\nb\r\n");
    assert_eq!(s.app(1), "*3\r\n$1\r\nb\r\n$1\r\nj\r\n$1\r\na\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_that_loads_one_waits_for_none() {
    let mut s = Stand::local(2);
    s.ask(0, "GET k1");
    s.answer(NIL);
    s.ask(1, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.app(1), "*2\r\n$-1\r\n$-1\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_over_several_shards_waits_too() {
    let shared = Arc::new(Shared::new());
    let mut s = Stand::over(2, wanted(Lease::Local), 2, &shared, 0);
    let (a, b) = (key_on(&s.engine, 0), key_on(&s.engine, 1));
    s.ask(0, &format!("GET {a}"));
    s.answer_on(0, NIL);
    s.ask(1, &format!("MGET {b} {a}"));
    s.answer_on(0, "*1\r\n$-1\r\n");
    s.answer_on(1, "*1\r\n$1\r\nb\r\n");
    assert_eq!(s.app(1), "");
    s.ask(0, &format!("SET {a} 1"));
    s.answer_on(0, "+OK\r\n");
    s.answer_on(0, "$1\r\n1\r\n");
    assert_eq!(s.app(1), "*2\r\n$1\r\nb\r\n$1\r\n1\r\n");
    s.is_at_rest();
}

#[test]
fn an_array_whose_session_is_gone_is_forgotten() {
    let mut s = Stand::local(2);
    s.ask(0, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    s.ask(1, "MGET k1 k2");
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    s.ask(0, "MGET k1 k2");
    s.close(1);
    s.close(0);
    s.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(s.engine.holdings().arrays, 0);
    s.is_at_rest();
}
