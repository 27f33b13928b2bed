//! Copies of a hot key, in virtual time: an engine, sockets of memory, and shards that say what the test wants.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/engine.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with benchmarks")]
mod support;

use hotring::engine::{Engine, LineId, SessionId};
use hotring::error::{Cause, Failure};
use hotring::resp::write;
use hotring::stages::hot::{Config, Means, Reads};
use hotring::stages::{Event, Hot};
use support::{Wires, engine, key_on, pool, request};

const LOST: Failure = Failure { cause: Cause::Lost, reason: "closed by the server" };
/// What the shards' clocks say at the start, in milliseconds.
const EPOCH: u64 = 1_700_000_000_000;
const S: u64 = 1_000_000;

/// Three shards, a key that lives on the first and has copies on the others.
struct Stand {
    engine: Engine,
    wires: Wires,
    now: u64,
    key: String,
    hash: u64,
    tracker: LineId,
    longest: usize,
}

impl Stand {
    fn new(copies: u16) -> Self {
        Self::with(copies, Config { reads: Reads::Copies, ..Config::default() })
    }

    fn with(copies: u16, config: Config) -> Self {
        let longest = config.longest_copy;
        let mut pool = pool(3, 1, false);
        pool.timeout = Some(5 * S);
        pool.path.hot = Hot::new(config, 7, Default::default());
        let (engine, wires) = engine(pool, 4);
        let key = key_on(&engine, 0);
        let hash = engine.path(0).unwrap().hot.hash(key.as_bytes());
        let mut stand = Self { engine, wires, now: 10 * S, key, hash, tracker: 3, longest };
        let name = stand.key.clone();
        stand.hot().enter(name.as_bytes(), 0, Means::Copies(copies), 10 * S);
        stand.tick();
        let others = usize::from(copies) - 1;
        let asked: Vec<LineId> = (1..3).filter(|&line| stand.take(line) == request_text(&["TIME"])).collect();
        assert_eq!(asked.len(), others, "every shard with a copy is asked for its time, once");
        for line in asked {
            stand.say(line, "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n");
        }
        stand
    }

    /// The same, and its tracked connection is open.
    fn tracked(copies: u16) -> Self {
        let mut stand = Self::new(copies);
        stand.track();
        stand
    }

    fn hot(&mut self) -> &mut Hot {
        &mut self.engine.path_mut(0).unwrap().hot
    }

    /// The first miss opens the tracked connection.
    fn track(&mut self) {
        let copy = self.read_copy(0);
        self.say(copy, "$-1\r\n");
        assert_eq!(self.wires.wanted.last(), Some(&self.tracker));
        self.say(0, "$1\r\nv\r\n");
        self.take(0);
        self.engine.connected(self.tracker, self.now);
        self.flush();
        assert_eq!(self.take(self.tracker), request_text(&["CLIENT", "TRACKING", "ON", "OPTIN"]));
        self.say(self.tracker, "+OK\r\n");
        // No copy could be made: for a moment none is looked for.
        self.pass(20_000);
        self.wires.apps.iter_mut().for_each(Vec::clear);
    }

    fn tick(&mut self) {
        let overdue = self.engine.tick(self.now, &mut self.wires);
        assert_eq!(overdue, []);
        self.flush();
    }

    fn flush(&mut self) {
        self.engine.flush(&mut self.wires);
    }

    fn pass(&mut self, micros: u64) {
        self.now += micros;
    }

    fn ask(&mut self, session: SessionId, line: &str) {
        let bytes = request(line);
        let submitted = self.engine.submit(session, &bytes, self.now, &mut self.wires);
        assert_eq!(submitted.consumed, bytes.len(), "{line}");
        self.flush();
    }

    fn say(&mut self, line: LineId, bytes: &str) {
        self.engine.receive(line, bytes.as_bytes(), self.now, &mut self.wires).expect("a reply that was asked for");
        self.flush();
    }

    /// What a connection was sent since it was last asked.
    fn take(&mut self, line: LineId) -> String {
        let sent = self.wires.shards.get_mut(line as usize).map(std::mem::take).unwrap_or_default();
        String::from_utf8(sent).unwrap()
    }

    fn told(&mut self, session: SessionId) -> String {
        String::from_utf8(std::mem::take(&mut self.wires.apps[session as usize])).unwrap()
    }

    /// Which shard a GET of the key is sent to.
    fn get(&mut self, session: SessionId) -> LineId {
        for line in 0..3 {
            self.take(line);
        }
        let get = format!("GET {}", self.key);
        self.ask(session, &get);
        (0..3).find(|&line| !self.wires.shards[line as usize].is_empty()).expect("it is sent somewhere")
    }

    /// Reads until it is a copy that is asked, and says at which shard. What is asked at home is answered.
    fn read_copy(&mut self, session: SessionId) -> LineId {
        for _ in 0..100 {
            let line = self.get(session);
            if line > 0 {
                let number = self.copy_at(line);
                assert_eq!(self.take(line), request_text(&["GET", &format!("hk1:{number}:{}", self.key)]));
                return line;
            }
            self.say(0, "$4\r\nhome\r\n");
            assert_eq!(self.told(session), "$4\r\nhome\r\n");
        }
        panic!("no copy is read");
    }

    /// Whether no read of many is led to a copy.
    fn stays_at_home(&mut self) -> bool {
        (0..50).all(|_| {
            let line = self.get(3);
            self.say(line, "$1\r\nx\r\n");
            line == 0
        })
    }

    fn places(&self) -> Vec<u16> {
        self.engine.path(0).unwrap().hot.key(self.hash).unwrap().copies.as_ref().unwrap().places().to_vec()
    }

    fn copy_at(&self, shard: LineId) -> usize {
        self.places().iter().position(|&place| LineId::from(place) == shard).unwrap()
    }

    fn owned(&self) -> Vec<u16> {
        self.engine.path(0).unwrap().hot.key(self.hash).unwrap().copies.as_ref().unwrap().owned().collect()
    }

    fn name(&self, shard: LineId) -> String {
        format!("hk1:{}:{}", self.copy_at(shard), self.key)
    }

    /// Misses a copy and has the key read to be copied; says at which shard.
    fn miss(&mut self) -> LineId {
        let copy = self.read_copy(0);
        self.say(copy, "$-1\r\n");
        assert_eq!(self.take(0), request_text(&["GET", &self.key]), "it is read at home");
        self.say(0, "$1\r\nv\r\n");
        assert_eq!(self.told(0), "$1\r\nv\r\n");
        let reads = [
            request_text(&["CLIENT", "CACHING", "YES"]),
            request_text(&["GETRANGE", &self.key, "0", &self.longest.to_string()]),
            request_text(&["PTTL", &self.key]),
        ];
        assert_eq!(self.take(self.tracker), reads.concat());
        copy
    }

    /// The shard's answer to what is read to be copied.
    fn is_read(&mut self, value: &str, ttl: i64) {
        self.say(self.tracker, &format!("+OK\r\n{value}:{ttl}\r\n"));
    }

    /// Makes a copy, and says at which shard.
    fn fill(&mut self) -> LineId {
        let asked = self.now;
        let copy = self.miss();
        self.is_read("$1\r\nv\r\n", -1);
        let end = (EPOCH + (asked + S - 10 * S) / 1000).to_string();
        let name = self.name(copy);
        assert_eq!(self.take(copy), request_text(&["SET", &name, "v", "NX", "PXAT", &end]));
        self.say(copy, "+OK\r\n");
        copy
    }

    fn push(&mut self) {
        let (tracker, key) = (self.tracker, self.key.clone());
        self.say(tracker, &format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len()));
    }

    fn counts(&mut self) -> [u64; 5] {
        let counts = self.engine.pool_counts(0).unwrap();
        [counts.copy_reads, counts.copy_hits, counts.copy_fills, counts.copy_fill_lost, counts.copy_unlinks]
    }
}

fn request_text(words: &[&str]) -> String {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let mut out = Vec::new();
    write::request(&mut out, &words);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_missing_is_read_at_home_and_copied() {
    let mut stand = Stand::tracked(3);
    stand.pass(1_000);
    let copy = stand.fill();
    let [reads, hits, fills, ..] = stand.counts();
    assert_eq!((hits, fills), (0, 1));
    assert_eq!(stand.owned(), [stand.copy_at(copy) as u16]);
    while stand.read_copy(1) != copy {
        // The other one is not there.
        let other = 3 - copy;
        stand.say(other, "$-1\r\n");
        stand.say(0, "$1\r\nv\r\n");
    }
    stand.told(1);
    stand.say(copy, "$1\r\nv\r\n");
    assert_eq!(stand.told(1), "$1\r\nv\r\n");
    assert_eq!(stand.take(0), "", "nothing is asked at home");
    let [more, hits, ..] = stand.counts();
    assert!(more > reads && hits == 1);
    assert_eq!(stand.engine.holdings().copy_reads, 0);
    assert_eq!(stand.engine.pending(), 0);
}

#[test]
fn places_are_the_next_on_the_ring_and_nested() {
    let (two, three) = (Stand::new(2), Stand::new(3));
    assert_eq!((two.places().len(), three.places().len()), (2, 3));
    assert_eq!(three.places()[..2], two.places());
    assert_eq!(two.places()[0], 0);
    let ring = two.engine.path(0).unwrap().route.ring();
    let mut next = [0; 3];
    assert_eq!(ring.neighbours(ring.position(two.key.as_bytes()), &mut next), 3);
    assert_eq!(three.places(), next);
}

#[test]
fn a_change_takes_the_copies_away_that_were_made_here() {
    let mut stand = Stand::tracked(3);
    let first = stand.fill();
    let mut second = first;
    while second == first {
        second = stand.read_copy(0);
        if second == first {
            stand.say(first, "$1\r\nv\r\n");
            stand.told(0);
        }
    }
    stand.say(second, "$-1\r\n");
    stand.say(0, "$1\r\nv\r\n");
    stand.told(0);
    stand.take(stand.tracker);
    stand.is_read("$1\r\nv\r\n", -1);
    stand.say(second, "+OK\r\n");
    stand.take(second);
    assert_eq!(stand.owned(), [1, 2]);
    stand.push();
    for copy in [first, second] {
        let name = stand.name(copy);
        assert_eq!(stand.take(copy), request_text(&["UNLINK", &name]));
        stand.say(copy, ":1\r\n");
    }
    assert_eq!(stand.owned(), [0u16; 0]);
    assert_eq!(stand.counts()[4], 2);
    stand.push();
    assert_eq!((stand.take(first), stand.take(second)), (String::new(), String::new()), "once");
    // It is made anew by the next who misses it.
    stand.fill();
}

#[test]
fn a_change_while_a_copy_is_being_made() {
    // Heard before what was read: it is not made.
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    stand.push();
    stand.is_read("$1\r\nv\r\n", -1);
    assert_eq!(stand.take(copy), "");
    // Between what was read and that it is made: it is taken away behind it, on the same connection.
    let copy = stand.miss();
    stand.is_read("$1\r\nv\r\n", -1);
    stand.push();
    let name = stand.name(copy);
    let sent = stand.take(copy);
    assert!(sent.contains("SET\r\n") && sent.ends_with(&request_text(&["UNLINK", &name])), "{sent}");
    stand.say(copy, "+OK\r\n:1\r\n");
    assert_eq!(stand.owned(), [0u16; 0]);
    // Between the two replies of what is read.
    let copy = stand.miss();
    stand.say(stand.tracker, "+OK\r\n$1\r\nv\r\n");
    stand.push();
    stand.say(stand.tracker, ":-1\r\n");
    assert_eq!(stand.take(copy), "");
    stand.fill();
}

#[test]
fn own_writes_are_never_read_behind() {
    let mut stand = Stand::tracked(2);
    let copy = stand.fill();
    let set = format!("SET {} w", stand.key);
    stand.ask(1, &set);
    stand.take(0);
    assert!(!stand.wires.apps[1].starts_with(b"+OK"));
    // On its way.
    let get = format!("GET {}", stand.key);
    stand.ask(2, &get);
    assert_eq!(stand.take(0), request_text(&["GET", &stand.key]));
    stand.say(0, "+OK\r\n$1\r\nw\r\n");
    assert_eq!((stand.told(1).as_str(), stand.told(2).as_str()), ("+OK\r\n", "$1\r\nw\r\n"));
    let name = stand.name(copy);
    assert_eq!(stand.take(copy), request_text(&["UNLINK", &name]), "whoever made it");
    stand.say(copy, ":1\r\n");
    // A copy of what was before may live for so long somewhere.
    stand.pass(S + 299_000);
    assert!(stand.stays_at_home());
    stand.pass(2_000);
    stand.read_copy(2);
}

#[test]
fn a_write_waits_for_copies_where_that_is_wanted() {
    for lost in [false, true] {
        let config = Config { reads: Reads::Copies, wait_for_copies: true, ..Config::default() };
        let mut stand = Stand::with(2, config);
        stand.track();
        let copy = stand.fill();
        let line = format!("SET {} w", stand.key);
        stand.ask(1, &line);
        stand.ask(1, "SET other w");
        stand.take(0);
        let name = stand.name(copy);
        stand.say(0, "+OK\r\n");
        assert!(stand.take(copy).ends_with(&request_text(&["UNLINK", &name])));
        assert_eq!((stand.told(1).as_str(), stand.engine.holdings().withheld), ("", 1));
        if lost {
            stand.engine.fail(copy, LOST, stand.now, &mut stand.wires);
            stand.flush();
        } else {
            stand.engine.receive(copy, b":1\r\n", stand.now, &mut stand.wires).unwrap();
            stand.flush();
        }
        assert!(stand.told(1).starts_with("+OK\r\n"), "{lost}");
        assert_eq!(stand.engine.holdings().withheld, 0);
        // One whose key has no copies waits for nothing.
        if stand.engine.pending() > 0 {
            for line in 0..3 {
                if stand.engine.line(line).is_some_and(|line| !line.waiters.is_empty()) {
                    stand.say(line, "+OK\r\n");
                }
            }
            assert_eq!(stand.told(1), "+OK\r\n");
        }
    }
}

#[test]
fn a_write_while_a_copy_is_being_made() {
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    let set = format!("SET {} w", stand.key);
    stand.ask(1, &set);
    stand.is_read("$1\r\nv\r\n", -1);
    assert_eq!(stand.take(copy), "", "what was read may be older than the write");
}

#[test]
fn a_session_does_not_overtake_its_own_read() {
    let mut stand = Stand::tracked(2);
    stand.fill();
    let copy = stand.read_copy(0);
    let set = request(&format!("SET {} w", stand.key));
    let submitted = stand.engine.submit(0, &set, stand.now, &mut stand.wires);
    assert_eq!(submitted.consumed, 0, "it waits");
    stand.flush();
    assert_eq!(stand.take(0), "");
    stand.say(copy, "$1\r\nv\r\n");
    assert_eq!(stand.told(0), "$1\r\nv\r\n");
    let submitted = stand.engine.submit(0, &set, stand.now, &mut stand.wires);
    assert_eq!(submitted.consumed, set.len());
}

#[test]
fn another_process_was_quicker() {
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    stand.is_read("$1\r\nv\r\n", -1);
    stand.take(copy);
    stand.say(copy, "$-1\r\n");
    assert_eq!((stand.owned(), stand.counts()[3]), (vec![], 1));
    stand.push();
    assert_eq!(stand.take(copy), "", "it is the other's to take away");
}

#[test]
fn the_tracked_connection_is_lost() {
    let mut stand = Stand::tracked(2);
    let copy = stand.fill();
    let name = stand.name(copy);
    stand.engine.fail(stand.tracker, LOST, stand.now, &mut stand.wires);
    stand.flush();
    assert_eq!(stand.take(copy), request_text(&["UNLINK", &name]), "nobody would tell of the next change");
    assert_eq!(stand.owned(), [0u16; 0]);
    stand.say(copy, ":1\r\n");
    // While it is away copies are read, and none are made.
    let copy = stand.read_copy(0);
    stand.say(copy, "$-1\r\n");
    stand.say(0, "$1\r\nv\r\n");
    assert_eq!(stand.take(stand.tracker), "");
    assert_eq!(stand.take(copy), "");
}

#[test]
fn what_is_not_copied() {
    let staleness = S;
    for (value, ttl, wait) in [
        ("$0\r\n\r\n", -2, staleness),
        ("$1\r\nv\r\n", 49, staleness),
        ("$5\r\nabcde\r\n", -1, 10 * S),
        ("-NOPERM no\r\n", -1, 10 * S),
    ] {
        let mut stand = Stand::with(2, Config { reads: Reads::Copies, longest_copy: 4, ..Config::default() });
        stand.track();
        let copy = stand.miss();
        stand.is_read(value, ttl);
        assert_eq!(stand.take(copy), "", "{value:?} {ttl}");
        assert!(stand.stays_at_home(), "{value:?}: reads would look for it in vain");
        stand.pass(wait - 1);
        assert!(stand.stays_at_home(), "{value:?}");
        stand.pass(1);
        stand.read_copy(0);
    }
}

#[test]
fn a_copy_ends_with_its_key() {
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    stand.pass(3_000);
    stand.is_read("$1\r\nv\r\n", 700);
    let name = stand.name(copy);
    assert_eq!(stand.take(copy), request_text(&["SET", &name, "v", "NX", "PXAT", &(EPOCH + 720).to_string()]));
}

#[test]
fn what_comes_late_is_not_made() {
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    stand.pass(S);
    stand.is_read("$1\r\nv\r\n", -1);
    assert_eq!(stand.take(copy), "");
}

#[test]
fn other_types_are_copied_as_they_are_dumped() {
    let mut stand = Stand::tracked(2);
    let hget = format!("HGET {} f", stand.key);
    let copy = loop {
        stand.ask(0, &hget);
        if stand.take(0).is_empty() {
            break stand.places()[1].into();
        }
        stand.say(0, "$1\r\nx\r\n");
    };
    stand.told(0);
    let name = stand.name(copy);
    assert_eq!(stand.take(copy), request_text(&["HGET", &name, "f"]));
    stand.say(copy, "$-1\r\n");
    assert_eq!(stand.take(0), request_text(&["HGET", &stand.key, "f"]));
    stand.say(0, "$1\r\nx\r\n");
    assert_eq!(stand.told(0), "$1\r\nx\r\n");
    let usage = request_text(&["MEMORY", "USAGE", &stand.key]);
    assert_eq!(stand.take(stand.tracker), usage, "it may be too much");
    stand.say(stand.tracker, ":1000\r\n");
    let dump = request_text(&["DUMP", &stand.key]);
    assert!(stand.take(stand.tracker).contains(&dump));
    stand.is_read("$4\r\ndump\r\n", -1);
    let end = (EPOCH + 1020).to_string();
    assert_eq!(stand.take(copy), request_text(&["RESTORE", &name, &end, "dump", "ABSTTL"]));
    stand.say(copy, "-BUSYKEY Target key name already exists.\r\n");
    assert_eq!(stand.counts()[3], 1);
}

#[test]
fn what_would_be_much_to_dump_is_not_copied() {
    for (usage, wait) in [(":4194305\r\n", 10 * S), ("_\r\n", S), ("-NOPERM no\r\n", 10 * S)] {
        let mut stand = Stand::tracked(2);
        let llen = format!("LLEN {}", stand.key);
        while stand.take(stand.tracker).is_empty() {
            stand.ask(0, &llen);
            if stand.take(0).is_empty() {
                stand.say(stand.places()[1].into(), ":0\r\n");
            }
            stand.say(0, ":0\r\n");
        }
        stand.say(stand.tracker, usage);
        assert_eq!(stand.take(stand.tracker), "", "{usage:?}");
        assert!(stand.stays_at_home());
        stand.pass(wait);
        stand.read_copy(1);
    }
}

#[test]
fn a_key_that_moves_leaves_no_copies() {
    let mut stand = Stand::tracked(3);
    let copy = stand.fill();
    let name = stand.name(copy);
    // It lives elsewhere as soon as its shard is ejected.
    let mut notices = Default::default();
    stand.engine.path_mut(0).unwrap().observe(&Event::Ejected(0), stand.now, &mut notices);
    stand.tick();
    assert_eq!(stand.take(copy), request_text(&["UNLINK", &name]));
    assert_eq!(stand.places(), [0]);
}

#[test]
fn a_key_that_is_no_string_is_found_out() {
    let mut stand = Stand::tracked(2);
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    let copy = stand.miss();
    stand.is_read(wrong, -1);
    assert_eq!(stand.take(copy), "");
    let copy = stand.read_copy(0);
    // The copy of another process.
    stand.say(copy, wrong);
    assert_eq!(stand.take(0), request_text(&["GET", &stand.key]), "the key's shard says so itself");
    stand.say(0, wrong);
    assert_eq!(stand.told(0), wrong);
}

#[test]
fn a_server_without_absolute_times() {
    let mut stand = Stand::tracked(2);
    let copy = stand.miss();
    stand.is_read("$1\r\nv\r\n", -1);
    stand.take(copy);
    stand.say(copy, "-ERR syntax error\r\n");
    let copy = stand.miss();
    stand.pass(100_000);
    stand.is_read("$1\r\nv\r\n", -1);
    let name = stand.name(copy);
    assert_eq!(stand.take(copy), request_text(&["SET", &name, "v", "NX", "PX", "900"]));
}

#[test]
fn a_copys_shard_that_breaks_sends_its_reads_home() {
    let mut stand = Stand::tracked(2);
    stand.fill();
    let copy = stand.read_copy(0);
    stand.pass(4 * S);
    stand.engine.fail(copy, LOST, stand.now, &mut stand.wires);
    stand.flush();
    assert_eq!(stand.take(0), request_text(&["GET", &stand.key]));
    // What it waited for there is not this connection's fault.
    stand.pass(2 * S);
    stand.tick();
    stand.say(0, "$1\r\nv\r\n");
    assert_eq!(stand.told(0), "$1\r\nv\r\n");
    assert!(stand.stays_at_home(), "while that shard is down");
    let errors = &stand.engine.pool_counts(0).unwrap().errors;
    assert_eq!(errors[Cause::Lost], 0, "no app was told");
}

#[test]
fn a_session_that_has_gone_is_not_read_for() {
    let mut stand = Stand::tracked(2);
    stand.fill();
    let copy = stand.read_copy(1);
    stand.take(0);
    stand.engine.close(1, false, &mut stand.wires);
    stand.say(copy, "$-1\r\n");
    assert_eq!(stand.take(0), "");
    assert_eq!((stand.engine.holdings().copy_reads, stand.engine.pending()), (0, 0));
}

#[test]
fn a_key_that_is_hot_no_more_leaves_nothing() {
    let mut stand = Stand::tracked(2);
    let copy = stand.fill();
    let (hash, name) = (stand.hash, stand.name(copy));
    stand.hot().leave(hash);
    stand.tick();
    assert_eq!(stand.take(copy), request_text(&["UNLINK", &name]));
}

#[test]
fn copies_are_for_reads_of_one_key_only() {
    let mut stand = Stand::tracked(2);
    let key = stand.key.clone();
    for line in [
        format!("TTL {key}"),
        format!("PTTL {key}"),
        format!("DUMP {key}"),
        format!("HSCAN {key} 0"),
        format!("OBJECT ENCODING {key}"),
        format!("MGET {key}"),
        format!("EXISTS {key}"),
    ] {
        for _ in 0..20 {
            stand.ask(0, &line);
            assert!(stand.take(0).contains(&key), "{line}");
            stand.say(0, ":1\r\n");
        }
    }
    // Another database has other keys.
    stand.ask(0, "SELECT 3");
    let line = format!("GET {key}");
    let home = stand.wires.shards.len() as LineId;
    for _ in 0..20 {
        stand.ask(0, &line);
    }
    stand.engine.flush(&mut stand.wires);
    for line in 0..home {
        assert!(!stand.take(line).contains("hk1:"));
    }
}

#[test]
fn a_sticky_session_reads_one_place() {
    let mut stand = Stand::with(3, Config { reads: Reads::Copies, sticky: true, ..Config::default() });
    let mut used = std::collections::BTreeSet::new();
    for session in 0..4 {
        let first = stand.get(session);
        stand.say(first, "$1\r\nv\r\n");
        for _ in 0..20 {
            let line = stand.get(session);
            stand.say(line, "$1\r\nv\r\n");
            assert_eq!(line, first);
        }
        used.insert(first);
    }
    assert!(used.len() > 1, "{used:?}");
}

#[test]
fn reads_spread_over_all_places() {
    let mut stand = Stand::tracked(3);
    let mut reads = [0; 3];
    for n in 0..3000_u64 {
        let line = stand.get((n % 4) as SessionId);
        stand.pass(200);
        stand.say(line, "$1\r\nv\r\n");
        reads[line as usize] += 1;
    }
    assert!(reads.iter().all(|count| (700..1300).contains(count)), "{reads:?}");
}

#[test]
fn a_key_that_comes_to_be_is_copied_again() {
    let mut stand = Stand::with(2, Config { reads: Reads::Copies, staleness: 60 * S, ..Config::default() });
    stand.track();
    stand.miss();
    stand.is_read("$0\r\n\r\n", -2);
    assert!(stand.stays_at_home());
    stand.push();
    stand.read_copy(0);
}
