//! Ids that do not exist, at the level of the engine: whatever may bring a key into being makes its id exist.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "other tests use the rest")]
mod support;

use hotring::stages::lease::absent::Ids;
use hotring::stages::lease::{Config, Rule, Wanted};
use support::{engine, pool, request};

#[test]
fn whatever_may_bring_a_key_into_being_makes_its_id_exist() {
    for write in [
        "SET p:new v",
        "set p:new v",
        "SET p:new v EX 10",
        "SETNX p:new v",
        "SETEX p:new 10 v",
        "GETSET p:new v",
        "MSET j 1 p:new v",
        "MSETNX j 1 p:new v",
        "APPEND p:new v",
        "INCR p:new",
        "SETRANGE p:new 1 v",
        "SETBIT p:new 1 1",
        "RENAME j p:new",
        "RENAMENX j p:new",
        "COPY j p:new",
        "COPY j p:new REPLACE",
        "BITOP NOT p:new j",
        "SORT j STORE p:new",
        "SORT j BY nosort ALPHA STORE p:new",
        "RESTORE p:new 0 x",
        "HSET p:new f v",
        "LMOVE j p:new LEFT LEFT",
        "RPOPLPUSH j p:new",
        "BLMOVE j p:new LEFT LEFT 1",
        "SUNIONSTORE p:new j",
        "ZRANGESTORE p:new j 0 1",
        "GEOSEARCHSTORE p:new j FROMMEMBER a BYRADIUS 1 m",
        "GEORADIUS j 1 2 3 m STORE p:new",
        "PFMERGE p:new j",
        "XADD p:new * f v",
        "EVAL x 2 j p:new",
        "EVALSHA x 1 p:new",
        "FCALL f 1 p:new",
    ] {
        let wanted = Wanted { absent_ids: Some(Ids::new("ids", b"1\n", 7)), ..Wanted::default() };
        let mut pool = pool(1, 1, false);
        pool.misses = Config::new(Wanted::default(), vec![Rule { prefix: b"p:".as_slice().into(), wanted }]);
        let (mut engine, mut wires) = engine(pool, 3);
        engine.submit(0, &request("GET p:new"), 1, &mut wires);
        engine.flush(&mut wires);
        assert_eq!((wires.apps[0].as_slice(), wires.shards[0].len()), (&b"$-1\r\n"[..], 0), "{write}");
        engine.submit(1, &request(write), 2, &mut wires);
        engine.submit(2, &request("GET p:new"), 3, &mut wires);
        engine.flush(&mut wires);
        assert!(wires.apps[2].is_empty(), "{write}");
        assert!(wires.shards[0].ends_with(&request("GET p:new")), "{write}");
    }
}

#[test]
fn a_transaction_that_writes_a_key_makes_its_id_exist_before_it_is_carried_out() {
    let wanted = Wanted { absent_ids: Some(Ids::new("ids", b"1\n", 7)), ..Wanted::default() };
    let mut pool = pool(1, 1, false);
    pool.misses = Config::new(Wanted::default(), vec![Rule { prefix: b"p:".as_slice().into(), wanted }]);
    let (mut engine, mut wires) = engine(pool, 2);
    engine.submit(0, &request("MULTI"), 1, &mut wires);
    engine.submit(0, &request("SET p:new v"), 2, &mut wires);
    engine.submit(1, &request("GET p:new"), 3, &mut wires);
    engine.flush(&mut wires);
    assert!(wires.apps[1].is_empty());
}
