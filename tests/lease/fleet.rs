//! Leases of all processes: how they ask whose turn it is, and what the shard tells them.

use crate::stand::{MS, NIL, Stand, push};
use crate::wanted;
use hotring::engine::{LineId, SessionId};
use hotring::error::{Cause, Failure};
use hotring::stages::lease::Lease;

struct Fleet {
    stand: Stand,
    tracker: LineId,
}

const LEASE: &str = "SET hotring:lease:k 0 NX PX 2000; CLIENT CACHING YES; MGET k hotring:lease:k";

impl Fleet {
    fn new() -> Self {
        let mut stand = Stand::new(wanted(Lease::Fleet), 4);
        stand.tick(MS);
        let tracker = stand.tracked();
        Self { stand, tracker }
    }

    /// Somebody misses `k`; the lease key is asked for, with this outcome.
    fn claims(&mut self, session: SessionId, reply: &str) {
        self.stand.miss(session);
        assert_eq!(self.stand.sent_on(self.tracker), LEASE);
        self.tracked(reply);
    }

    fn tracked(&mut self, reply: &str) {
        self.stand.answer_on(self.tracker, reply);
    }

    fn asked(&mut self) -> String {
        self.stand.sent_on(self.tracker)
    }
}

const READ: &str = "CLIENT CACHING YES; GET k";

const WON: &str = "+OK\r\n+OK\r\n*2\r\n_\r\n$1\r\n0\r\n";

const LOST: &str = "_\r\n+OK\r\n*2\r\n_\r\n$1\r\n9\r\n";

#[test]
fn the_process_that_wins_loads_and_gives_the_lease_back() {
    let mut f = Fleet::new();
    f.claims(0, WON);
    assert_eq!(f.stand.app(0), NIL);
    f.stand.miss(1);
    assert_eq!((f.stand.app(1).as_str(), f.asked().as_str()), ("", ""), "asked for once");
    f.stand.ask(0, "SET k v");
    f.stand.answer("+OK\r\n");
    assert_eq!(f.asked(), READ);
    f.tracked(&push("k"));
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.stand.app(1).as_str(), f.asked().as_str()), ("$1\r\nv\r\n", "DEL hotring:lease:k"));
    f.tracked(":1\r\n");
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), "");
    f.stand.is_at_rest();
}

#[test]
fn the_others_wait_until_their_shard_tells_of_the_key() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.stand.miss(1);
    assert_eq!((f.stand.app(0) + &f.stand.app(1)).as_str(), "");
    f.tracked(&push("k"));
    assert_eq!(f.asked(), READ);
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), "", "what is being read tells more");
    f.tracked("+OK\r\n$1\r\nv\r\n");
    assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), ("$1\r\nv\r\n", "$1\r\nv\r\n"));
    f.stand.is_at_rest();
}

#[test]
fn a_lease_that_is_given_back_is_asked_for_again() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.tracked(&push("hotring:lease:k"));
    assert_eq!(f.asked(), LEASE);
    f.tracked(WON);
    assert_eq!(f.stand.app(0), NIL);
    f.stand.miss(1);
    f.stand.close(0);
    assert_eq!(f.asked(), format!("DEL hotring:lease:k; {LEASE}"), "its app is gone");
    f.tracked(&(":1\r\n".to_owned() + LOST));
    assert_eq!(f.stand.app(1), "", "another process was faster");
    // It had been given back just before it was looked at.
    f.tracked(&push("hotring:lease:k"));
    f.tracked("_\r\n+OK\r\n*2\r\n_\r\n_\r\n");
    assert_eq!(f.asked(), format!("{LEASE}; {LEASE}"));
    f.tracked("+OK\r\n+OK\r\n*2\r\n$1\r\nv\r\n$1\r\n0\r\n");
    assert_eq!(f.asked(), format!("DEL hotring:lease:k; {READ}"), "it was written meanwhile");
    f.tracked(":1\r\n+OK\r\n$1\r\nv\r\n");
    assert_eq!(f.stand.app(1), "$1\r\nv\r\n");
    f.stand.is_at_rest();
}

#[test]
fn without_news_from_the_shard_leases_are_of_the_process() {
    for reply in ["-NOPERM x\r\n+OK\r\n*2\r\n_\r\n_\r\n", "-OOM x\r\n+OK\r\n*2\r\n_\r\n_\r\n"] {
        let mut f = Fleet::new();
        f.claims(0, reply);
        f.stand.miss(1);
        assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), (NIL, ""));
    }
    // Not connected yet.
    let mut s = Stand::new(wanted(Lease::Fleet), 2);
    s.miss(0);
    s.miss(1);
    assert_eq!((s.app(0).as_str(), s.app(1).as_str()), (NIL, ""));
    // Refused.
    s.tick(MS);
    let tracker = s.wires.wanted.pop().unwrap();
    s.engine.connected(tracker, s.now);
    s.engine.flush(&mut s.wires);
    s.sent_on(tracker);
    s.answer_on(tracker, "-ERR unknown command\r\n");
    s.tick(MS);
    assert_eq!(s.engine.pool_counts(0).unwrap().lease_untracked.get(), 1);
}

#[test]
fn who_hears_nothing_any_more_asks_anew() {
    let mut f = Fleet::new();
    f.claims(0, LOST);
    f.tracked(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(f.asked(), LEASE, "all keys are gone, and so are leases");
    f.tracked(LOST);
    f.stand.miss(1);
    let lost = Failure { cause: Cause::Lost, reason: "reset" };
    f.stand.engine.fail(f.tracker, lost, f.stand.now, &mut f.stand.wires);
    f.stand.engine.flush(&mut f.stand.wires);
    assert_eq!((f.stand.app(0).as_str(), f.stand.app(1).as_str()), (NIL, ""), "as if it were alone");
    f.stand.ask(0, "SET k v");
    f.stand.answer("+OK\r\n");
    f.stand.answer("$1\r\nv\r\n");
    assert_eq!(f.stand.app(1), "$1\r\nv\r\n");
    f.stand.is_at_rest();
}

#[test]
fn an_array_of_a_fleet_loads_all_that_it_asks_for() {
    let mut f = Fleet::new();
    f.stand.ask(0, "MGET k1 k2");
    f.stand.answer("*2\r\n$-1\r\n$-1\r\n");
    f.tracked(WON);
    assert_eq!(f.stand.app(0), "*2\r\n$-1\r\n$-1\r\n");
    f.tracked(WON);
    f.stand.ask(1, "MGET k2 k1");
    f.stand.answer("*2\r\n$-1\r\n$-1\r\n");
    assert_eq!(f.stand.app(1), "");
    f.asked();
    f.stand.close(0);
    assert!(f.asked().contains("DEL hotring:lease:k1"), "both are given back");
}
