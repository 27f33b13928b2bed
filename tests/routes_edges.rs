//! Keys that live in other pools (`routes`), at the level of the engine, where time is an argument: what an app's session is to
//! another pool ends, waits, is limited and is told of as if its keys lived in its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/stand.rs"]
mod stand;

use hotring::acl::{Account, Denials, Guard, Users};
use hotring::engine::deadlines::Deadlines;
use hotring::engine::{PoolConfig, SessionId};
use hotring::stages::fault::{Effect, Rule, WHOLE};
use hotring::stages::routes::Routes;
use hotring::units::Secret;
use stand::{MS, Stand, pool, request, users};
use std::sync::Arc;

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
/// The pools' connections.
const MAIN: u32 = 0;
const USERS: u32 = 1;
const OTHER: u32 = 2;

fn named(name: &str) -> PoolConfig {
    PoolConfig { name: name.into(), ..pool(1, 1, false) }
}

/// A pool whose keys partly live in `users` and `other`.
fn front() -> PoolConfig {
    let routes = [("user:", "users"), ("t:user:", "users"), ("o:", "other")];
    let routes = routes.map(|(start, to)| (start.as_bytes().into(), to.to_owned()));
    PoolConfig { routes: Routes::new(routes.into()), ..named("main") }
}

/// A front and the two pools that it leads to, with so many sessions.
fn stand(front: PoolConfig, users: PoolConfig, sessions: usize) -> Stand {
    let mut s = Stand::of(front, sessions);
    for config in [users, named("other")] {
        let (_, lines) = s.engine.add_pool(config);
        lines.for_each(|line| s.engine.connected(line, 0));
    }
    s
}

fn plain(sessions: usize) -> Stand {
    stand(front(), named("users"), sessions)
}

/// A session asks and is answered at once.
fn asks(s: &mut Stand, session: SessionId, line: &str, reply: &str) {
    s.ask(session, line);
    assert_eq!(s.app(session), reply, "{line}");
}

/// All sessions end, and nothing is left.
fn ends(mut s: Stand, sessions: usize) {
    for session in 0..sessions as SessionId {
        s.close(session);
    }
    assert_eq!((s.engine.session_count(), s.engine.branch_count()), (0, 0));
    let held = s.engine.holdings();
    assert_eq!((held.gathers, held.attempts, held.waits, held.arrays, held.blocked), (0, 0, 0, 0, 0));
    for pool in 0..3 {
        let counts = s.engine.pool_counts(pool).unwrap();
        let levels = [counts.client_connections, counts.requests_pending, counts.client_output_bytes];
        assert_eq!(levels.map(|level| level.get()), [0; 3], "{pool}");
    }
}

#[test]
fn what_was_asked_before_quit_is_answered() {
    let mut s = plain(1);
    s.ask(0, "GET user:1");
    s.ask(0, "QUIT");
    assert_eq!(s.app(0), "");
    assert!(!s.engine.is_over(0));
    s.answer_on(USERS, "$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n+OK\r\n");
    assert!(s.engine.is_over(0));
    ends(s, 1);
}

#[test]
fn a_transaction_there_is_in_the_database_and_the_protocol_that_the_session_is_on() {
    let mut s = plain(1);
    s.ask(0, "WATCH user:1");
    let own = s.opened();
    assert_eq!(s.sent_on(own), "WATCH user:1");
    s.answer_on(own, "+OK\r\n");
    assert_eq!(s.app(0), "+OK\r\n");
    asks(&mut s, 0, "SELECT 1", "+OK\r\n");
    s.ask(0, "MULTI");
    assert_eq!(s.sent_on(own), "SELECT 1; MULTI");
    s.answer_on(own, "+OK\r\n+OK\r\n");
    assert_eq!(s.app(0), "+OK\r\n");
    s.ask(0, "EXEC");
    s.answer_on(own, "*0\r\n");
    assert_eq!(s.app(0), "*0\r\n");
    ends(s, 1);
}

#[test]
fn the_first_request_to_a_pool_meets_its_faults() {
    let mut s = plain(1);
    let rule = |effect| Rule { id: 1, commands: Vec::new(), prefix: None, share: WHOLE, effect };
    s.engine.set_faults(1, 1, vec![(rule(Effect::DelayRequest(50 * MS)), u64::MAX / 2)], s.now);
    let asked = s.engine.submit(0, &request("GET user:1"), s.now, &mut s.wires);
    assert_eq!(asked.consumed, 0);
    assert!(s.engine.is_paused(0));
    s.tick(60 * MS);
    assert!(!s.engine.is_paused(0));
    s.ask(0, "GET user:1");
    s.answer_on(USERS, "$1\r\nv\r\n");
    assert_eq!(s.app(0), "$1\r\nv\r\n");
    ends(s, 1);
}

#[test]
fn who_has_not_said_who_it_is_is_nothing_to_other_pools() {
    let users = Arc::new(Users::new(&[], Some(&Secret::new("pass"))).unwrap());
    let mut s = stand(PoolConfig { users, ..front() }, named("users"), 1);
    for line in ["MSET a 1 user:1 2", "SET user:1 1", "MULTI", "SCRIPT LOAD x"] {
        asks(&mut s, 0, line, "-NOAUTH Authentication required.\r\n");
        assert_eq!(s.engine.branch_count(), 0, "{line}");
    }
    asks(&mut s, 0, "AUTH pass", "+OK\r\n");
    s.ask(0, "SET user:1 1");
    assert_eq!(s.engine.branch_count(), 1);
    ends(s, 1);
}

fn tenants() -> Arc<Users> {
    let account = Account {
        name: "default".into(),
        passwords: Vec::new(),
        nopass: true,
        rules: "on ~* &* +@all".into(),
        read_only: false,
        connections: None,
        prefix: Some("t:".into()),
    };
    Arc::new(Users::new(&[account], None).unwrap())
}

/// What a tenant is told of its keys' names begins as it writes them.
#[test]
fn a_tenants_transaction_there_tells_of_names_as_it_knows_them() {
    let mut s = stand(PoolConfig { users: tenants(), ..front() }, named("users"), 1);
    asks(&mut s, 0, "MULTI", "+OK\r\n");
    s.ask(0, "LMPOP 1 user:l LEFT");
    let own = s.opened();
    assert_eq!(s.sent_on(own), "MULTI; LMPOP 1 t:user:l LEFT");
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.ask(0, "LMPOP 1 user:m LEFT");
    s.answer_on(own, "+QUEUED\r\n");
    s.ask(0, "EXEC");
    let popped = |prefix: &str| {
        let one = |key: &str| format!("*2\r\n${}\r\n{prefix}user:{key}\r\n*1\r\n$1\r\nx\r\n", 6 + prefix.len());
        format!("*2\r\n{}{}", one("l"), one("m"))
    };
    s.app(0);
    s.answer_on(own, &popped("t:"));
    assert_eq!(s.app(0), popped(""));
    ends(s, 1);
}

#[test]
fn who_waits_there_can_be_told_not_to() {
    let mut s = plain(2);
    s.ask(0, "BLPOP user:l 0");
    let own = s.opened();
    assert_eq!(s.sent_on(own), "BLPOP user:l 0");
    s.ask(1, "CLIENT LIST");
    let told = s.app(1);
    let line = told.lines().find(|line| line.contains("cmd=blpop")).expect("it is told of");
    assert!(line.contains("flags=b "), "{line}");
    let id = line.split([' ', '=']).nth(1).unwrap().to_owned();
    asks(&mut s, 1, &format!("CLIENT UNBLOCK {id}"), ":1\r\n");
    assert_eq!(s.app(0), "*-1\r\n");
    assert_eq!(s.engine.holdings().blocked, 0);
    // What is told of a transaction, too.
    asks(&mut s, 0, "MULTI", "+OK\r\n");
    s.ask(0, "SET user:1 1");
    s.ask(1, "CLIENT LIST");
    let told = s.app(1);
    assert!(told.contains("flags=x ") && told.contains("multi=1 "), "{told}");
    ends(s, 2);
}

#[test]
fn nobody_waits_there_for_what_will_not_come_before_the_process_ends() {
    for of_pool in [false, true] {
        let mut s = plain(2);
        s.ask(0, "BLPOP user:l 0");
        if of_pool {
            s.engine.finish_pool(0, &mut s.wires);
        } else {
            s.engine.finish_all(&mut s.wires);
        }
        assert!(s.engine.is_over(0));
        ends(s, 2);
    }
}

#[test]
fn who_is_in_a_transaction_there_is_not_idle() {
    let deadlines = Deadlines { idle: Some(1_000 * MS), ..Deadlines::default() };
    let mut s = stand(PoolConfig { deadlines, ..front() }, named("users"), 2);
    asks(&mut s, 0, "MULTI", "+OK\r\n");
    s.ask(0, "SET user:1 1");
    let own = s.opened();
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    assert_eq!(s.app(0), "+QUEUED\r\n");
    (0..20).for_each(|_| s.tick(1_000 * MS));
    assert!(!s.engine.is_over(0));
    assert!(s.engine.is_over(1));
    ends(s, 2);
}

/// FLUSHALL is about the keys of the session's own pool, wherever its transaction is.
#[test]
fn what_is_about_all_keys_is_not_done_to_another_pool_in_a_transaction() {
    for line in ["FLUSHALL", "FLUSHDB", "DBSIZE", "RANDOMKEY", "KEYS *", "SCAN 0"] {
        let mut s = plain(1);
        asks(&mut s, 0, "MULTI", "+OK\r\n");
        s.ask(0, "SET user:1 1");
        let own = s.opened();
        s.answer_on(own, "+OK\r\n+QUEUED\r\n");
        s.app(0);
        s.sent_on(own);
        asks(&mut s, 0, line, CROSS);
        // Where it was about to be begun it is made to be refused.
        assert_eq!(s.sent_on(own), "GET");
        s.ask(0, "EXEC");
        s.answer_on(own, "-ERR wrong number of arguments for 'get' command\r\n");
        s.answer_on(own, ABORTED);
        assert_eq!(s.app(0), ABORTED);
        ends(s, 1);
    }
    let mut s = plain(1);
    asks(&mut s, 0, "MULTI", "+OK\r\n");
    s.ask(0, "SET user:1 1");
    s.ask(0, "KEYS user:*");
    let own = s.opened();
    assert_eq!(s.sent_on(own), "MULTI; SET user:1 1; KEYS user:*");
    ends(s, 1);
}

/// What a pool does not begin is not carried out without having begun.
#[test]
fn a_transaction_that_its_keys_pool_denies_is_not_done_in_pieces() {
    let guard = Guard::new(&Denials { commands: vec!["multi".into()], ..Denials::default() });
    let mut s = stand(front(), PoolConfig { guard, ..named("users") }, 1);
    asks(&mut s, 0, "MULTI", "+OK\r\n");
    asks(&mut s, 0, "PING", "+QUEUED\r\n");
    s.ask(0, "SET user:1 1");
    let told = s.app(0);
    assert!(told.starts_with('-'), "{told}");
    asks(&mut s, 0, "PING", "+QUEUED\r\n");
    asks(&mut s, 0, "EXEC", ABORTED);
    assert_eq!((s.sent_on(USERS), s.wires.wanted.len()), (String::new(), 0));
    asks(&mut s, 0, "PING", "+PONG\r\n");
    ends(s, 1);
}

/// Which pool's replicas would be meant is not said.
#[test]
fn nobody_is_told_of_replicas_that_do_not_have_what_was_written() {
    let mut s = plain(1);
    s.ask(0, "WAIT 1 0");
    assert!(s.app(0).starts_with("-ERR"));
    ends(s, 1);
}

/// Whoever goes on in one pool still waits for another.
#[test]
fn a_session_that_waits_for_its_own_shard_is_not_read_because_another_goes_on() {
    let mut s = stand(PoolConfig { outbox: 64, ..front() }, PoolConfig { outbox: 64, ..named("users") }, 1);
    s.wires.room = Some(0);
    let long = format!("SET user:1 {}", "x".repeat(200));
    let first = s.engine.submit(0, &request(&long), s.now, &mut s.wires);
    assert!(first.consumed > 0);
    s.flush();
    s.ask(0, "GET a");
    let own = format!("SET a {}", "x".repeat(200));
    s.engine.submit(0, &request(&own), s.now, &mut s.wires);
    s.flush();
    assert!(s.engine.is_paused(0));
    s.wires.room = None;
    s.engine.shard_writable(USERS);
    s.flush();
    assert!(s.engine.is_paused(0), "its own shard takes nothing yet");
    s.engine.shard_writable(MAIN);
    s.flush();
    assert!(!s.engine.is_paused(0));
    s.answer_on(USERS, "+OK\r\n");
    s.answer_on(MAIN, "$-1\r\n+OK\r\n");
    assert_eq!(s.app(0), "+OK\r\n$-1\r\n+OK\r\n");
    ends(s, 1);
}

/// However a session ends in the midst of something, nothing is left of it.
#[test]
fn nothing_is_left_of_who_leaves_in_the_midst() {
    for lines in [
        &["GET user:1", "GET o:1", "GET a"][..],
        &["MSET a 1 user:1 2 o:1 3"],
        &["MGET user:1 user:2"],
        &["MULTI", "SET user:1 1", "GET user:1"],
        &["MULTI", "PING", "SET o:1 1", "EXEC"],
        &["WATCH user:1"],
        &["BLPOP user:1 0"],
        &["SCRIPT LOAD x"],
        &["CLIENT REPLY SKIP", "MGET a user:1"],
        &["CLIENT REPLY OFF", "GET user:1", "GET o:1"],
    ] {
        for (lost, mended) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut s = plain(1);
            for line in lines {
                // What waits for its turn is left unread.
                s.engine.submit(0, &request(line), s.now, &mut s.wires);
                s.flush();
            }
            if mended {
                assert_eq!(s.engine.mend(&mut s.wires), 0, "{lines:?}");
                s.flush();
            }
            if lost {
                let failure = hotring::error::Failure { cause: hotring::error::Cause::Lost, reason: "reset" };
                s.engine.fail(USERS, failure, s.now, &mut s.wires);
                s.flush();
            }
            ends(s, 1);
        }
    }
    // What is answered late is answered to nobody.
    let mut s = plain(1);
    s.ask(0, "MGET a user:1 o:1");
    s.answer_on(OTHER, "*1\r\n$-1\r\n");
    s.close(0);
    s.answer_on(USERS, "*1\r\n$-1\r\n");
    s.answer_on(MAIN, "*1\r\n$-1\r\n");
    assert_eq!(s.engine.in_flight(), 0);
    ends(s, 0);
}

/// A rate that is a user's is that user's alone wherever its keys live.
#[test]
fn users_are_who_they_are_in_the_sessions_pool_alone() {
    let all = users(&[("app", "~* &* +@all")]);
    let mut s = stand(PoolConfig { users: all, ..front() }, named("users"), 1);
    asks(&mut s, 0, "AUTH app pass", "+OK\r\n");
    s.ask(0, "GET user:1");
    s.answer_on(USERS, "$-1\r\n");
    assert_eq!(s.app(0), "$-1\r\n");
    ends(s, 1);
}

/// What has begun elsewhere ends there, though the routes are gone.
#[test]
fn what_has_begun_ends_where_it_is_when_routes_go() {
    let mut s = plain(2);
    s.ask(0, "MGET user:1 a o:1");
    asks(&mut s, 1, "MULTI", "+OK\r\n");
    s.ask(1, "SET user:1 1");
    let own = s.opened();
    s.answer_on(own, "+OK\r\n+QUEUED\r\n");
    s.engine.reload(0, named("main"), s.now, &mut s.wires);
    s.engine.finish_pool(1, &mut s.wires);
    s.flush();
    for (line, reply) in [(USERS, "x"), (OTHER, "z"), (MAIN, "y")] {
        s.answer_on(line, &format!("*1\r\n$1\r\n{reply}\r\n"));
    }
    assert_eq!(s.app(0), "*3\r\n$1\r\nx\r\n$1\r\ny\r\n$1\r\nz\r\n");
    s.ask(1, "EXEC");
    s.answer_on(own, "*1\r\n+OK\r\n");
    assert_eq!(s.app(1), "+QUEUED\r\n*1\r\n+OK\r\n");
    for session in [0, 1] {
        s.sent_on(MAIN);
        s.ask(session, "SET user:1 2");
        assert_eq!(s.sent_on(MAIN), "SET user:1 2");
        s.answer_on(MAIN, "+OK\r\n");
        assert_eq!(s.app(session), "+OK\r\n");
    }
    ends(s, 2);
}

/// What is held back on purpose is given up with its session, on either side.
#[test]
fn nothing_is_left_of_who_leaves_while_it_is_delayed() {
    let rule = |effect| Rule { id: 1, commands: Vec::new(), prefix: None, share: WHOLE, effect };
    for faulty in [0, 1] {
        for effect in [Effect::DelayReply(50 * MS), Effect::DelayRequest(50 * MS), Effect::Drop] {
            for line in ["GET user:1", "MGET a user:1"] {
                let mut s = plain(1);
                s.engine.set_faults(faulty, 1, vec![(rule(effect.clone()), u64::MAX / 2)], s.now);
                let taken = s.engine.submit(0, &request(line), s.now, &mut s.wires).consumed > 0;
                s.flush();
                if effect == Effect::Drop {
                    assert!(s.engine.is_over(0));
                    assert_eq!(s.app(0), "", "{line}");
                } else if taken && line.starts_with('G') {
                    s.answer_on(USERS, "$-1\r\n");
                    assert_eq!(s.app(0), "");
                }
                s.close(0);
                s.tick(100 * MS);
                assert_eq!(s.engine.holdings().delayed, 0);
                ends(s, 0);
            }
        }
    }
}
