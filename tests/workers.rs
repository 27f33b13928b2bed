//! Several workers and several connections: sessions are dealt evenly, each keeps its order, and connections are as many as
//! the config says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Client, Fake, Hotring, eventually, key_on, pool, shards, wire};

/// Ids go up in steps of the number of workers, so they tell whose a session is.
fn worker(app: &mut Client, workers: u64) -> u64 {
    let said = app.ask("CLIENT ID");
    (said[1..].trim().parse::<u64>().unwrap() - 1) % workers
}

#[test]
fn sessions_are_dealt_evenly() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["^workers: 3"]);
    let mut apps: Vec<Client> = (0..30).map(|_| hotring.app()).collect();
    let mut held = BTreeMap::new();
    for app in &mut apps {
        *held.entry(worker(app, 3)).or_insert(0) += 1;
    }
    assert_eq!(held, BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
    // Those that one worker loses are made up for.
    let (gone, mut kept): (Vec<_>, Vec<_>) =
        apps.into_iter().map(|mut app| (worker(&mut app, 3), app)).partition(|(worker, _)| *worker == 1);
    drop(gone);
    eventually("a session comes to the empty worker", || {
        let mut app = hotring.app();
        let worker = worker(&mut app, 3);
        kept.push((worker, app));
        worker == 1
    });
}

#[test]
fn connections_are_workers_times_shards_times_server_connections() {
    for (workers, lanes) in [(1, 1), (2, 1), (1, 3), (2, 2)] {
        let (redis, at) = shards(2);
        let keys = [format!("^workers: {workers}"), format!("server_connections: {lanes}"), "preconnect: true".into()];
        let keys = [&keys[..], &["probe_interval: off".to_owned()]].concat();
        let hotring = Hotring::over(&at, &keys.iter().map(String::as_str).collect::<Vec<_>>());
        let want = workers * lanes;
        for redis in &redis {
            eventually("all are open", || redis.connections() == want);
        }
        // Sessions make no more of them.
        let mut apps: Vec<Client> = (0..20).map(|_| hotring.app()).collect();
        for app in &mut apps {
            for shard in 0..2 {
                assert_eq!(app.ask(&format!("INCR {}", key_on(shard, 2))).as_bytes()[0], b':');
            }
        }
        for redis in &redis {
            assert_eq!(redis.connections(), want);
            let list = redis.client().ask("CLIENT LIST");
            let used = list.lines().filter(|line| line.contains(" cmd=incr ")).count();
            assert_eq!(used, want, "every one is used:\n{list}");
        }
    }
}

#[test]
fn without_preconnect_a_server_is_opened_when_it_is_asked_for() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["^workers: 2", "probe_interval: off"]);
    let mut apps: Vec<Client> = (0..2).map(|_| hotring.app()).collect();
    for app in &mut apps {
        assert_eq!(app.ask("PING"), "+PONG\r\n");
    }
    assert_eq!([redis[0].connections(), redis[1].connections()], [0, 0]);
    assert_eq!(apps[0].ask(&format!("GET {}", key_on(1, 2))), "$-1\r\n");
    assert_eq!([redis[0].connections(), redis[1].connections()], [0, 1]);
}

#[test]
fn each_session_keeps_its_order_over_several_connections() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::over(&at, &["^workers: 2", "server_connections: 2"]);
    let sessions: Vec<_> = (0..8)
        .map(|session| {
            let mut app = hotring.app();
            std::thread::spawn(move || {
                let keys: Vec<String> = (0..3).map(|shard| format!("{session}:{}", key_on(shard, 3))).collect();
                for round in 0..10 {
                    let (mut requests, mut replies) = (Vec::new(), String::new());
                    for n in 0..50 {
                        for key in &keys {
                            requests.extend(wire(&["INCR", key]));
                            replies += &format!(":{}\r\n", round * 50 + n + 1);
                        }
                        let value = (round * 50 + n + 1).to_string();
                        let value = format!("${}\r\n{value}\r\n", value.len());
                        requests.extend(wire(&["MGET", &keys[2], &keys[0], &keys[1]]));
                        replies += &format!("*3\r\n{value}{value}{value}");
                    }
                    app.send(&requests);
                    assert_eq!(String::from_utf8(app.exactly(replies.len())).unwrap(), replies);
                }
            })
        })
        .collect();
    for session in sessions {
        session.join().unwrap();
    }
}

#[test]
fn a_session_stays_with_one_connection() {
    // Tells which connection a request came by.
    let counted = Arc::new(AtomicUsize::new(0));
    let number = Arc::clone(&counted);
    let teller = Fake::start(move |visit| {
        visit.shake_hands();
        while visit.request().is_some() {
            number.fetch_add(1, Ordering::Relaxed);
            let reply = format!(":{}\r\n", visit.number);
            if !visit.send(reply.as_bytes()) {
                return;
            }
        }
    });
    let hotring = Hotring::over(&[teller.address()], &["server_connections: 2", "probe_interval: off"]);
    let mut apps: Vec<Client> = (0..6).map(|_| hotring.app()).collect();
    let first: Vec<String> = apps.iter_mut().map(|app| app.ask("GET k")).collect();
    for _ in 0..20 {
        let again: Vec<String> = apps.iter_mut().map(|app| app.ask("GET k")).collect();
        assert_eq!(again, first);
    }
    assert_eq!(first.iter().filter(|said| *said == ":0\r\n").count(), 3, "{first:?}");
    assert_eq!(teller.visits(), 2);
    assert_eq!(counted.load(Ordering::Relaxed), 6 * 21);
}

#[test]
fn one_connection_that_is_lost_costs_its_own_sessions() {
    let quitter = Fake::start(|visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            if request[1] == b"quit" || !visit.send(format!(":{}\r\n", visit.number).as_bytes()) {
                return;
            }
        }
    });
    // Whose visit is which is counted: a prober's would be one, too.
    let hotring = Hotring::over(&[quitter.address()], &["server_connections: 2", "probe_interval: off"]);
    let mut apps: Vec<Client> = (0..2).map(|_| hotring.app()).collect();
    assert_eq!([apps[0].ask("GET k"), apps[1].ask("GET k")], [":0\r\n", ":1\r\n"]);
    let text = "-ERR shard s0 was lost (closed by the server); the command may have run\r\n";
    assert_eq!(apps[0].ask("GET quit"), text);
    assert_eq!(apps[1].ask("GET k"), ":1\r\n");
    eventually("it is open again", || apps[0].ask("GET k") == ":2\r\n");
    assert_eq!(apps[1].ask("GET k"), ":1\r\n");
}

#[test]
fn workers_and_pools_share_the_process() {
    let (redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["^workers: 2"]));
    let mut apps: Vec<Client> = (0..4).map(|_| hotring.app()).collect();
    for app in &mut apps {
        for _ in 0..25 {
            assert_eq!(app.ask("INCR n").as_bytes()[0], b':');
        }
    }
    let series = [0, 1].map(|worker| format!("hotring_worker_requests_total{{worker=\"{worker}\"}}"));
    eventually("each worker has done its half", || series.iter().all(|series| hotring.metric(series) == 50.0));
    assert_eq!(hotring.metric("hotring_workers"), 2.0);
    assert_eq!(redis[0].calls("incr"), 100);
}
