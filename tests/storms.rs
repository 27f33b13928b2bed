//! Many who connect at once, and servers that take and drop connections: the shards see a bounded number of connections.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::{Client, Fake, Hotring, eventually, key_on, now, pool, shards, wire};

/// Of what two thousand apps ask at the same time a shard sees one connection a worker and lane.
#[test]
fn two_thousand_apps_at_once_are_few_connections() {
    let (redis, at) = shards(2);
    let hotring = Hotring::over(&at, &["^workers: 2", "server_connections: 2", "backlog: 4096", "probe_interval: off"]);
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let address = hotring.address(0).to_owned();
            thread::spawn(move || {
                let mut apps: Vec<Client> = (0..250).map(|_| Client::connect(&address)).collect();
                let ask = [wire(&["INCR", &key_on(0, 2)]), wire(&["INCR", &key_on(1, 2)])].concat();
                apps.iter_mut().for_each(|app| app.send(&ask));
                for app in &mut apps {
                    assert_eq!([app.text(), app.text()].map(|line| line.as_bytes()[0]), [b':'; 2]);
                }
                apps
            })
        })
        .collect();
    let apps: Vec<Vec<Client>> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
    assert_eq!(apps.iter().flatten().count(), 2000);
    for redis in &redis {
        assert_eq!(redis.connections(), 4);
        let list = redis.client().ask("CLIENT LIST");
        assert_eq!(list.lines().filter(|line| line.contains(" cmd=incr ")).count(), 4, "{list}");
        assert_eq!(redis.calls("incr"), 2000);
    }
}

/// A shard that shakes hands and closes at once: however many ask, it is called on no more often than is allowed.
#[test]
fn a_shard_that_accepts_and_closes_is_called_on_at_a_bounded_rate() {
    let quitter = Fake::start(|visit| visit.shake_hands());
    let keys = ["reconnect_rate: 20", "reconnect_burst: 3", "connect_timeout: 200ms"];
    let hotring = Hotring::with_admin(&pool(&[quitter.address()], &keys));
    let start = now();
    let over = Arc::new(AtomicBool::new(false));
    let address = hotring.address(0).to_owned();
    let askers: Vec<_> = (0..20)
        .map(|number| {
            let (address, over) = (address.clone(), Arc::clone(&over));
            thread::spawn(move || {
                // Each on its own connection, and all on the shared one.
                let ask = if number % 2 == 0 { "BLPOP q 0" } else { "GET k" };
                let mut app = Client::connect(&address);
                while !over.load(Ordering::Relaxed) {
                    let said = app.ask(ask);
                    assert!(said.starts_with("-ERR shard s0 "), "{said}");
                }
            })
        })
        .collect();
    eventually("it has been called on some times", || {
        hotring.metric("hotring_server_connects_delayed_total{pool=\"main\",backend=\"s0\"}") >= 10.0
    });
    over.store(true, Ordering::Relaxed);
    askers.into_iter().for_each(|asker| asker.join().unwrap());
    let (visits, most) = (quitter.visits(), 3 + (start.elapsed().as_secs_f64() * 20.0).ceil() as usize);
    assert!(visits <= most, "{visits} visits, at most {most} are allowed");
    assert!(visits >= 10, "only {visits}");
}

/// What waits for its turn longer than it may is refused, and nothing of it is sent.
#[test]
fn a_connection_of_a_sessions_own_waits_for_its_turn_within_connect_timeout() {
    let shard = Fake::answering(|_| b"*-1\r\n".to_vec());
    let keys = ["reconnect_rate: 1", "reconnect_burst: 2", "connect_timeout: 900ms", "probe_interval: off"];
    let hotring = Hotring::over(&[shard.address()], &keys);
    let mut apps: Vec<Client> = (0..6).map(|_| hotring.app()).collect();
    let start = now();
    // All at once, so that none can use what another has given back.
    apps.iter_mut().for_each(|app| app.send(&wire(&["MULTI"])));
    apps.iter_mut().for_each(|app| app.send(&wire(&["GET", "k"])));
    let said: Vec<[String; 2]> = apps.iter_mut().map(|app| [app.text(), app.text()]).collect();
    let refused = said.iter().filter(|said| said[1].contains("more connections are wanted than")).count();
    // One more for each second that the machine may have had no time for this.
    let most = 2 + start.elapsed().as_secs() as usize;
    assert!((6_usize.saturating_sub(most)..=4).contains(&refused), "{said:?}");
    assert!(said.iter().all(|said| !said[1].contains("may have run")), "{said:?}");
    assert_eq!(shard.visits(), 6 - refused);
}
