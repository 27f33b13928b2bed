//! Nothing takes it down: apps work and check every reply while servers die, stand still and lie, and while the network does
//! what networks do.
//!
//! Nothing is wrong, nothing that was acknowledged is lost, nothing is done twice, nobody hangs, and who has to do with other
//! shards notices nothing. How long something takes is not judged here: `cargo bench --bench reliability` measures that.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "chaos/mod.rs"]
mod chaos;
mod support;

use chaos::{DURABLE, IMPATIENT, Link, Plan, Process, Stand, USUAL, Workload};
use rustix::process::Signal;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Client, Cut, Hotring, Redis, Relay, Scratch, Way, eventually, pool, shards, wire};

const ALL: [usize; 3] = [0, 1, 2];
const OTHERS: [usize; 2] = [0, 2];

#[test]
fn in_good_weather_nothing_fails() {
    let stand = Stand::new(&[], &[], USUAL);
    stand.work.goes_on(&ALL, 1000);
    let (counts, _) = stand.work.finish();
    counts.only(&[]);
    assert!(counts.errors.is_empty(), "{:?}", counts.errors);
}

#[test]
fn a_durable_server_that_is_killed_loses_nothing() {
    let mut stand = Stand::new(&DURABLE, &[], Plan { seed: 2, ..USUAL });
    for _ in 0..3 {
        let before = stand.work.counts();
        stand.redis[1].kill();
        stand.work.fails(1, &before, 20);
        stand.work.goes_on(&OTHERS, 100);
        stand.redis[1].restart();
        stand.work.goes_on(&ALL, 100);
    }
    stand.work.finish().0.only(&[1]);
}

#[test]
fn a_server_that_comes_back_empty_is_empty_and_no_more() {
    let mut stand = Stand::new(&[], &[], Plan { seed: 3, ..USUAL });
    for _ in 0..3 {
        let before = stand.work.counts();
        let Stand { work, redis, .. } = &mut stand;
        work.emptying(1, || {
            redis[1].kill();
            work.fails(1, &before, 20);
            redis[1].restart();
        });
        stand.work.goes_on(&ALL, 100);
    }
    stand.work.finish().0.only(&[1]);
}

#[test]
fn a_server_that_stands_still_and_goes_on() {
    let stand = Stand::new(&[], &IMPATIENT, Plan { seed: 4, ..USUAL });
    for _ in 0..2 {
        let before = stand.work.counts();
        stand.redis[1].freeze();
        stand.work.fails(1, &before, 20);
        stand.work.goes_on(&OTHERS, 200);
        stand.redis[1].thaw();
        stand.work.goes_on(&ALL, 100);
    }
    stand.work.finish().0.only(&[1]);
}

#[test]
fn connections_that_are_cut_both_ways() {
    let stand = Stand::new(&[], &[], Plan { seed: 5, ..USUAL });
    for how in [Cut::Fin, Cut::Reset, Cut::Fin, Cut::Reset] {
        let visits = stand.relays[1].visits();
        stand.relays[1].cut(how);
        eventually("it is connected again", || stand.relays[1].visits() > visits);
        stand.work.goes_on(&ALL, 200);
    }
    stand.work.finish().0.only(&[1]);
}

#[test]
fn connections_that_end_within_a_reply() {
    let stand = Stand::new(&[], &[], Plan { seed: 6, ..USUAL });
    for _ in 0..5 {
        let before = stand.work.counts();
        stand.relays[1].cut_within_a_reply();
        stand.work.fails(1, &before, 1);
        stand.work.goes_on(&ALL, 100);
    }
    stand.work.finish().0.only(&[1]);
}

#[test]
fn a_server_that_can_no_longer_be_reached() {
    let stand = Stand::new(&[], &[], Plan { seed: 7, ..USUAL });
    let before = stand.work.counts();
    stand.relays[1].refuse();
    stand.relays[1].cut(Cut::Reset);
    stand.work.fails(1, &before, 50);
    stand.work.goes_on(&OTHERS, 200);
    // Once it has been tried again, that is what is told.
    let refused = "ERR shard s1 is down (connection refused); nothing was sent";
    eventually("it is refused", || stand.work.counts().errors.contains_key(refused));
    stand.relays[1].heal();
    stand.work.goes_on(&ALL, 100);
    let (counts, _) = stand.work.finish();
    counts.only(&[1]);
}

#[test]
fn black_holes_either_way_and_both_ways() {
    for (seed, ways) in (8..).zip([&[Way::ToServer][..], &[Way::ToProxy], &[Way::ToServer, Way::ToProxy]]) {
        let stand = Stand::new(&[], &IMPATIENT, Plan { seed, ..USUAL });
        let before = stand.work.counts();
        ways.iter().for_each(|&way| stand.relays[1].hold(way));
        stand.work.fails(1, &before, 20);
        stand.work.goes_on(&OTHERS, 200);
        // What was held comes late now, to connections that nobody listens on any more.
        stand.relays[1].heal();
        stand.work.goes_on(&ALL, 200);
        stand.work.finish().0.only(&[1]);
    }
}

#[test]
fn a_slow_shard_is_waited_for() {
    let stand = Stand::new(&[], &[], Plan { seed: 11, ..USUAL });
    stand.relays[1].delay(Way::ToServer, Duration::from_millis(200));
    stand.relays[1].delay(Way::ToProxy, Duration::from_millis(300));
    stand.work.goes_on(&[1], 20);
    stand.relays[1].heal();
    stand.work.goes_on(&ALL, 100);
    let (counts, _) = stand.work.finish();
    counts.only(&[]);
    assert!(counts.errors.is_empty(), "{:?}", counts.errors);
}

#[test]
fn a_narrow_connection_is_waited_for() {
    let stand = Stand::new(&[], &[], Plan { seed: 12, ..USUAL });
    stand.relays[1].throttle(Way::ToServer, 600_000);
    stand.relays[1].throttle(Way::ToProxy, 600_000);
    stand.work.goes_on(&[1], 100);
    stand.relays[1].heal();
    stand.work.goes_on(&ALL, 100);
    let (counts, _) = stand.work.finish();
    counts.only(&[]);
    assert!(counts.errors.is_empty(), "{:?}", counts.errors);
}

#[test]
fn a_server_that_is_full_of_connections() {
    let stand = Stand::new(&[], &[], Plan { seed: 13, ..USUAL });
    let text = "ERR shard s1 is down (it has reached its maxclients); nothing was sent";
    let mut admin = stand.redis[1].client();
    for _ in 0..2 {
        let before = stand.work.counts();
        assert_eq!(admin.ask("CONFIG SET maxclients 1"), "+OK\r\n");
        admin.ask("CLIENT KILL TYPE normal SKIPME yes");
        stand.work.fails(1, &before, 50);
        stand.work.goes_on(&OTHERS, 100);
        eventually("apps are told why", || stand.work.counts().errors.contains_key(text));
        assert_eq!(admin.ask("CONFIG SET maxclients 1000"), "+OK\r\n");
        stand.work.goes_on(&ALL, 100);
    }
    let (counts, _) = stand.work.finish();
    counts.only(&[1]);
}

#[test]
fn a_server_that_goes_mad_costs_its_connection() {
    let stand = Stand::new(&[], &[], Plan { seed: 14, ..USUAL });
    for _ in 0..5 {
        let before = stand.work.counts();
        stand.relays[1].spoil();
        stand.work.fails(1, &before, 1);
        stand.work.goes_on(&ALL, 100);
    }
    let (counts, _) = stand.work.finish();
    counts.only(&[1]);
    let text = "ERR shard s1 broke the protocol (it sent what is no reply); the command may have run";
    assert!(counts.errors.contains_key(text), "{:#?}", counts.errors);
}

#[test]
fn storms_of_resets() {
    let stand = Stand::new(&[], &[], Plan { seed: 15, ..USUAL });
    for number in 0..25 {
        let [one, two] = [number % 3, (number + 1) % 3];
        stand.relays[one].cut(Cut::Reset);
        stand.relays[two].cut_within_a_reply();
        stand.work.goes_on(&[(number + 2) % 3], 5);
    }
    stand.work.goes_on(&ALL, 200);
    stand.work.finish().0.only(&ALL);
}

#[test]
fn apps_that_leave_in_crowds_are_not_missed() {
    let stand = Stand::new(&[], &["dedicated_connections: 64"], Plan { seed: 16, ..USUAL });
    let requests = [
        wire(&["SET", "crowd", &"x".repeat(300_000)]).split_at(200_000).0.to_vec(),
        wire(&["MGET", "a", "b", "c", "d", "e", "f"]).repeat(50),
        [wire(&["MULTI"]), wire(&["INCR", "crowd:n"])].concat(),
        wire(&["BLPOP", "crowd:list", "0"]),
        wire(&["GET", "crowd"]).repeat(2000),
    ];
    for round in 0..5 {
        let crowd: Vec<Link> = (0..150)
            .map(|number| {
                let mut link = Link::to(stand.hotring.address(0)).unwrap();
                link.send(&requests[number % requests.len()]).unwrap();
                link
            })
            .collect();
        stand.work.goes_on(&ALL, 20);
        for (number, link) in crowd.into_iter().enumerate() {
            if (number + round) % 3 > 0 {
                link.reset();
            }
        }
        stand.work.goes_on(&ALL, 50);
    }
    let (counts, _) = stand.work.finish();
    let refused = "ERR all 64 dedicated connections to shard ";
    counts.is_clean();
    // A transaction of which a command finds no connection is refused as a whole.
    let excused = |text: &String| text.starts_with(refused) || text.starts_with("EXECABORT ");
    assert!(counts.closed == 0 && counts.errors.keys().all(excused), "{counts:#?}");
}

/// The addresses of all servers change, again and again, in the midst of everything.
#[test]
fn servers_that_move_under_load_are_followed() {
    let (_redis, at) = shards(3);
    let relays: Vec<[Relay; 2]> = at.iter().map(|server| [Relay::to(server), Relay::to(server)]).collect();
    let dir = Scratch::new();
    let write = |round: usize| {
        let servers: Vec<&str> = relays.iter().map(|two| two[round % 2].address()).collect();
        let timeout = format!("timeout: {}s", 60 + round % 2);
        let text = pool(&servers, &["^log: {level: off}", &timeout]);
        dir.write("proxy.yaml", &text.replace("admin: off", "admin: 127.0.0.1:0"))
    };
    let hotring = Process::start(&write(0));
    let work = Workload::start(hotring.address(), 3, Plan { seed: 18, ..USUAL });
    work.goes_on(&ALL, 100);
    for round in 1..=10 {
        let before = relays[0][round % 2].visits();
        // What is under way on the old connection must not be overtaken on the new one.
        let old = &relays[round % 3][(round + 1) % 2];
        old.delay(Way::ToServer, Duration::from_millis(100));
        work.goes_on(&ALL, 1);
        write(round);
        hotring.signal(Signal::HUP);
        eventually("the new address is used", || {
            work.goes_on(&ALL, 1);
            relays[0][round % 2].visits() > before
        });
        old.heal();
        work.goes_on(&ALL, 50);
    }
    let (counts, _) = work.finish();
    counts.only(&[]);
    assert!(counts.errors.is_empty(), "{:#?}", counts.errors);
}

#[test]
fn what_one_app_asks_stays_in_order_while_its_server_moves() {
    let redis = Redis::start(&[]);
    let relays = [Relay::to(redis.address()), Relay::to(redis.address())];
    let dir = Scratch::new();
    let write = |round: usize| dir.write("proxy.yaml", &pool(&[relays[round % 2].address()], &["^log: {level: off}"]));
    let hotring = Process::start(&write(0));
    let (mut app, mut other) = (hotring.app(), hotring.app());
    let mut asked = 0;
    for round in 1..=10 {
        let visits = relays[round % 2].visits();
        relays[(round + 1) % 2].delay(Way::ToServer, Duration::from_millis(100));
        let mut push = || {
            app.send(&wire(&["RPUSH", "list", &asked.to_string()]));
            asked += 1;
        };
        (0..20).for_each(|_| push());
        write(round);
        hotring.signal(Signal::HUP);
        eventually("the new address is used", || {
            push();
            assert_eq!(other.ask("GET other"), "$-1\r\n");
            relays[round % 2].visits() > visits
        });
        (0..20).for_each(|_| push());
        relays[(round + 1) % 2].heal();
    }
    for number in 1..=asked {
        assert_eq!(app.text(), format!(":{number}\r\n"));
    }
    let list: String = (0..asked).map(|n| format!("${}\r\n{n}\r\n", n.to_string().len())).collect();
    assert_eq!(app.ask("LRANGE list 0 -1"), format!("*{asked}\r\n{list}"));
}

/// Else who waits for jobs behind a network that has lost its connection would wait for ever.
#[test]
fn a_command_that_blocks_does_not_outlast_its_own_time() {
    let redis = Redis::start(&[]);
    let relay = Relay::to(redis.address());
    // While the relay holds all back, nobody is to be judged but by who waits.
    let hotring = Hotring::over(&[relay.address()], &["timeout: 3s", "probe_timeout: 1m"]);
    let mut patient = hotring.app();
    patient.send(&wire(&["BLPOP", "list", "0"]));
    let ask = |apps: &mut [Client], millis: &str, seconds: &str| {
        let all: [&[&str]; 4] = [
            &["BLPOP", "list", seconds],
            &["BLMPOP", seconds, "1", "list", "LEFT"],
            &["XREAD", "BLOCK", millis, "STREAMS", "stream", "$"],
            &["WAIT", "1", millis],
        ];
        apps.iter_mut().zip(all).for_each(|(app, asked)| app.send(&wire(asked)));
    };
    let mut apps = [(); 4].map(|()| hotring.app());
    // Ended by the server, after a common request would have been given up.
    ask(&mut apps, "4000", "4");
    let said = apps.each_mut().map(Client::text);
    assert_eq!(said, ["*-1\r\n", "*-1\r\n", "*-1\r\n", ":0\r\n"]);
    // Asked on the same connections, which need no handshake.
    relay.hold(Way::ToProxy);
    ask(&mut apps, "300", "0.3");
    let text = "-ERR shard s0 timed out (no answer within the pool's timeout); the command may have run\r\n";
    assert_eq!(apps.each_mut().map(Client::text), [text; 4]);
    relay.heal();
    eventually("it is over", || redis.client().ask("INFO clients").contains("blocked_clients:1\r\n"));
    assert_eq!(redis.client().ask("LPUSH list element"), ":1\r\n");
    assert_eq!(patient.text(), "*2\r\n$4\r\nlist\r\n$7\r\nelement\r\n");
}

/// Who is told to end answers all it has read. What it has not answered it has not passed on.
#[test]
fn a_proxy_that_is_told_to_end_under_load_owes_nobody_anything() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}", "^drain: {timeout: 1m}"]));
    let mut hotring = Process::start(&config);
    let work = Workload::start(hotring.address(), 3, Plan { seed: 17, apps: 12, ..USUAL });
    work.shared.drains.store(true, Ordering::Release);
    for _ in 0..5 {
        work.goes_on(&ALL, 200);
        // The next one listens before the last one ends, as with a rolling restart.
        let next = Process::start(&config);
        next.address().clone_into(&mut work.shared.address.lock().unwrap());
        hotring.signal(Signal::TERM);
        assert_eq!(hotring.end(), Some(0));
        hotring = next;
    }
    work.goes_on(&ALL, 100);
    let (counts, _) = work.finish();
    counts.is_clean();
    assert!(counts.errors.is_empty(), "{:#?}", counts.errors);
    assert!(counts.closed > 0);
}

#[test]
fn a_proxy_that_hands_over_refuses_nobody() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let handover = format!("^handover: {}", dir.file("handover.sock"));
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}", "^drain: {timeout: 1m}", &handover]));
    let mut hotring = Process::start(&config);
    let work = Workload::start(hotring.address(), 3, Plan { seed: 19, apps: 12, ..USUAL });
    work.shared.drains.store(true, Ordering::Release);
    for _ in 0..5 {
        work.goes_on(&ALL, 200);
        let next = Process::start(&config);
        assert_eq!(next.address(), hotring.address());
        assert_eq!(hotring.end(), Some(0));
        hotring = next;
    }
    work.goes_on(&ALL, 100);
    let (counts, _) = work.finish();
    counts.is_clean();
    assert!(counts.errors.is_empty() && counts.refused == 0, "{:#?}", counts);
    assert!(counts.closed > 0);
}
