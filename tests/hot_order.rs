//! Whoever has seen a value of a hot key is not answered with an older one from memory: at the level of the engine, where
//! what is told on one connection can be as late as one likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/stand.rs"]
mod stand;

use hotring::engine::{LineId, SessionId};
use hotring::stages::Hot;
use hotring::stages::hot::{Config, Means, Reads};
use stand::{Stand, pool, request};
use std::ops::{Deref, DerefMut};

const OLD: &str = "$1\r\n1\r\n";
const NEW: &str = "$1\r\n2\r\n";

struct World {
    stand: Stand,
    tracker: LineId,
}

impl Deref for World {
    type Target = Stand;

    fn deref(&self) -> &Stand {
        &self.stand
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Stand {
        &mut self.stand
    }
}

impl World {
    /// One shard that tells of changes, and a hot key `k`. Connection 0 is the one that requests take.
    fn new() -> Self {
        let mut pool = pool(1, 1, false);
        pool.path.hot = Hot::new(Config { reads: Reads::Near, ..Config::default() }, 7, Default::default());
        let mut s = Self { stand: Stand::of(pool, 3), tracker: 0 };
        s.engine.path_mut(0).unwrap().hot.enter(b"k", 0, Means::Near, 0);
        s.ask(2, "GET k");
        s.answer_on(0, OLD);
        s.tracker = s.tracked();
        s.forget();
        s
    }

    /// The same, with `1` kept.
    fn kept() -> Self {
        let mut s = Self::new();
        s.ask(2, "GET k");
        s.keeps();
        assert_eq!(s.app(2), OLD);
        s.forget();
        assert_eq!(s.near(0).as_deref(), Some(OLD), "it is kept");
        s
    }

    fn forget(&mut self) {
        self.wires.shards.iter_mut().for_each(Vec::clear);
        self.wires.apps.iter_mut().for_each(Vec::clear);
    }

    /// What was read to be kept, before the change.
    fn keeps(&mut self) {
        let tracker = self.tracker;
        assert!(self.sent_on(tracker).contains("PTTL"));
        self.answer_on(tracker, &format!("+OK\r\n{OLD}:-1\r\n"));
    }

    /// What `GET k` of a session is answered with from memory; nothing where the shard is asked anew, which says `2`.
    fn near(&mut self, session: SessionId) -> Option<String> {
        self.sent_on(0);
        let tracker = self.tracker;
        self.sent_on(tracker);
        self.ask(session, "GET k");
        let (home, again) = (self.sent_on(0), self.sent_on(tracker));
        if home.is_empty() && again.is_empty() {
            return Some(self.app(session));
        }
        if home.is_empty() {
            self.answer_on(tracker, &format!("+OK\r\n{NEW}:-1\r\n"));
        } else {
            self.answer_on(0, NEW);
        }
        assert_eq!(self.app(session), NEW);
        None
    }
}

#[test]
fn an_element_that_was_read_later_comes_before_what_is_to_be_kept() {
    let mut s = World::new();
    s.ask(0, "MGET k j");
    s.answer_on(0, &format!("*2\r\n{NEW}$-1\r\n"));
    assert_eq!(s.app(0), format!("*2\r\n{NEW}$-1\r\n"));
    s.keeps();
    assert_eq!(s.near(0), None, "it has seen 2 already, the news is on its way");
}

#[test]
fn what_is_read_to_be_kept_is_not_joined_by_who_has_seen_what_is_newer() {
    for line in ["STRLEN k", "MGET k"] {
        let mut s = World::new();
        // Carried out before the change.
        s.ask(2, "GET k");
        s.ask(0, line);
        s.answer_on(0, if line == "MGET k" { "*1\r\n$1\r\n2\r\n" } else { NEW });
        assert!(s.app(0).ends_with(NEW), "{line}");
        s.ask(0, "GET k");
        s.keeps();
        let told = s.app(0);
        assert_ne!(told, OLD, "{line}: it has seen 2 already");
    }
}

#[test]
fn other_commands_show_what_is_newer_too() {
    let script = "return(redis.call('get',KEYS[1]))";
    for line in ["STRLEN k", "GETRANGE k 0 -1", "SUBSTR k 0 -1", "EXISTS k", "TTL k", "GETBIT k 0", "LCS k k"] {
        let mut s = World::kept();
        s.ask(0, line);
        s.answer_on(0, NEW);
        assert_eq!(s.app(0), NEW, "{line}");
        assert_eq!(s.near(0), None, "{line} may have told of what is newer, the news is on its way");
    }
    let mut s = World::kept();
    s.ask(0, &format!("EVAL_RO {script} 1 k"));
    s.answer_on(0, NEW);
    assert_eq!(s.app(0), NEW);
    assert_eq!(s.near(0), None, "a script may have told of what is newer");
}

#[test]
fn a_read_behind_another_command_of_the_same_key_keeps_its_place() {
    let mut s = World::kept();
    s.send(0, &[request("GETRANGE k 0 -1"), request("GET k")].concat());
    let asked = s.sent_on(0).split("; ").count();
    s.answer_on(0, &NEW.repeat(asked));
    assert_eq!(s.app(0), NEW.repeat(2));
}

#[test]
fn what_a_transaction_has_read_is_not_followed_by_what_is_older() {
    let mut s = World::kept();
    s.ask(0, "MULTI");
    s.ask(0, "GET k");
    let own = s.opened();
    let queued = s.sent_on(own).contains("GET");
    s.answer_on(own, if queued { "+OK\r\n+QUEUED\r\n" } else { "+OK\r\n" });
    s.ask(0, "EXEC");
    if !queued {
        s.answer_on(own, "+QUEUED\r\n");
    }
    s.answer_on(own, &format!("*1\r\n{NEW}"));
    let told = s.app(0);
    assert!(told.ends_with(&format!("*1\r\n{NEW}")), "{told}");
    assert_eq!(s.near(0), None, "it has seen 2 already");
}

#[test]
fn what_is_read_under_watch_is_read_where_it_is_watched() {
    for (line, reply) in [("GET k", NEW.to_owned()), ("MGET k", format!("*1\r\n{NEW}")), ("STRLEN k", ":1\r\n".into())]
    {
        let mut s = World::kept();
        s.ask(0, "WATCH k");
        let own = s.opened();
        // It was changed before it was watched, and EXEC will see nothing of that.
        s.answer_on(own, "+OK\r\n");
        assert_eq!(s.app(0), "+OK\r\n");
        s.sent_on(own);
        s.sent_on(0);
        s.ask(0, line);
        let (at_own, at_any) = (s.sent_on(own), s.sent_on(0));
        assert!(!(at_own.is_empty() && at_any.is_empty()), "{line}: answered from memory with {:?}", s.app(0));
        s.answer_on(if at_own.is_empty() { 0 } else { own }, &reply);
        assert_eq!(s.app(0), reply);
    }
}
