//! Keys that are not there, with real servers: how many load them, and that nobody waits for ever.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::proxy::Signal;
use hotring::ring::{SLOTS, slot_of};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{Client, Cluster, FOREVER, Hotring, Redis, eventually, now, pool, shards, wire};

/// As long as it would have to be late by for another one to be told.
const LOAD: Duration = Duration::from_millis(150);
const NIL: &[u8] = b"$-1\r\n";

/// Many apps that ask for one key at once, each on a connection of its own that never blocks.
struct Herd {
    apps: Vec<Option<TcpStream>>,
}

/// What came of that.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Those that were told nil, and so loaded.
    loads: usize,
    /// Those that were told the value without loading it.
    values: usize,
}

impl Herd {
    fn new(hotrings: &[&Hotring], apps: usize) -> Self {
        let connect = |n: usize| {
            let socket = TcpStream::connect(hotrings[n % hotrings.len()].address(0)).unwrap();
            socket.set_nodelay(true).unwrap();
            Some(socket)
        };
        Self { apps: (0..apps).map(connect).collect() }
    }

    fn send(&mut self, words: &[&str]) {
        for app in self.apps.iter_mut().flatten() {
            app.set_nonblocking(false).unwrap();
            app.write_all(&wire(words)).unwrap();
            app.set_nonblocking(true).unwrap();
        }
    }

    /// All ask for a key; whoever is told nil sets it after `LOAD`, but for the first `deaf` of them, which `then` is told of instead.
    fn get(&mut self, key: &str, mut deaf: usize, mut then: impl FnMut(&mut Option<TcpStream>)) -> Outcome {
        self.send(&["GET", key]);
        let (mut outcome, mut waiting) = (Outcome::default(), vec![true; self.apps.len()]);
        let mut loading: Vec<(usize, Instant)> = Vec::new();
        let start = now();
        while waiting.iter().any(|waits| *waits) || !loading.is_empty() {
            assert!(start.elapsed() < FOREVER, "still waiting: {outcome:?}");
            for (n, app) in self.apps.iter_mut().enumerate() {
                let Some(socket) = app.as_mut().filter(|_| waiting[n]) else {
                    waiting[n] = false;
                    continue;
                };
                let Some(reply) = reply_of(socket) else { continue };
                waiting[n] = false;
                if reply != NIL {
                    assert_eq!(reply, b"$5\r\nvalue\r\n", "{}", String::from_utf8_lossy(&reply));
                    outcome.values += 1;
                } else if deaf > 0 {
                    deaf -= 1;
                    outcome.loads += 1;
                    then(app);
                } else {
                    outcome.loads += 1;
                    loading.push((n, now() + LOAD));
                }
            }
            loading.retain(|&(n, at)| {
                if now() < at {
                    return true;
                }
                let app = self.apps[n].as_mut().unwrap();
                app.write_all(&wire(&["SET", key, "value"])).unwrap();
                while reply_of(app).is_none_or(|reply| reply != b"+OK\r\n") {
                    std::thread::yield_now();
                }
                false
            });
            std::thread::yield_now();
        }
        outcome
    }
}

/// What has come, if anything: short replies come whole.
fn reply_of(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut buffer = [0; 256];
    match socket.read(&mut buffer) {
        Ok(0) => panic!("closed by hotring"),
        Ok(length) => Some(buffer[..length].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// That is what comes of it, unless the machine stood still meanwhile: who has waited for longer than the first wait of 300 ms is told
/// nil, too. Then it is played again.
fn comes_of(expected: &Outcome, mut round: impl FnMut() -> Outcome) {
    let since = now();
    loop {
        let start = now();
        let outcome = round();
        if outcome == *expected {
            return;
        }
        assert!(start.elapsed() > 2 * LOAD - LOAD / 10, "{outcome:?} after {:?}", start.elapsed());
        assert!(since.elapsed() < FOREVER, "{outcome:?} again and again");
    }
}

fn misses(lease: &str) -> String {
    format!("misses: {{lease: {lease}}}")
}

#[test]
fn a_thousand_apps_on_two_workers_load_once_an_expiry() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["^workers: 2", &misses("local")]));
    let mut herd = Herd::new(&[&hotring], 1000);
    let home = support::home(2, b"popular");
    for _ in 0..5 {
        comes_of(&Outcome { loads: 1, values: 999 }, || {
            redis[home].client().ask("DEL popular");
            herd.get("popular", 0, |_| ())
        });
    }
}

/// So many hotrings, each a process of its own as far as leases go, whose shards tell them of changes.
fn fleet(at: &[String], count: usize, redis: &[Redis]) -> Vec<Hotring> {
    let hotrings: Vec<_> = (0..count).map(|_| Hotring::over(at, &[&misses("fleet")])).collect();
    for server in redis {
        let mut client = server.client();
        eventually("they hear of changes", || {
            client.ask("INFO clients").contains(&format!("tracking_clients:{count}"))
        });
    }
    hotrings
}

#[test]
fn a_fleet_loads_once_an_expiry() {
    let (redis, at) = shards(2);
    let hotrings = fleet(&at, 6, &redis);
    let mut herd = Herd::new(&hotrings.iter().collect::<Vec<_>>(), 120);
    let home = support::home(2, b"popular");
    let mut client = redis[home].client();
    for _ in 0..5 {
        comes_of(&Outcome { loads: 1, values: 119 }, || {
            client.ask("DEL popular");
            herd.get("popular", 0, |_| ())
        });
    }
    eventually("the lease is given back", || client.ask("KEYS hotring:lease:*") == "*0\r\n");
    // Whoever loads is killed.
    client.ask("DEL popular");
    let outcome = herd.get("popular", 1, |app| *app = None);
    assert!((2..=12).contains(&outcome.loads) && outcome.loads + outcome.values == 120, "{outcome:?}");
    // Who loads does not write, and somebody writes beside hotring: all are told soon, by their shard.
    client.ask("DEL popular");
    let start = now();
    let outcome = herd.get("popular", 1, |_| _ = client.ask("SET popular value"));
    assert!((1..=10).contains(&outcome.loads) && outcome.loads + outcome.values == 119, "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    // All keys are lost in the midst of it.
    client.ask("DEL popular");
    let outcome = herd.get("popular", 1, |app| {
        client.ask("FLUSHALL");
        *app = None;
    });
    assert!((2..=12).contains(&outcome.loads) && outcome.loads + outcome.values == 119, "{outcome:?}");
}

#[test]
fn a_fleet_over_a_cluster_loads_once_though_the_slot_moves() {
    let cluster = Cluster::start(3, 0);
    let yaml = cluster.yaml(&[0, 1], &[&misses("fleet")]);
    let hotrings: Vec<_> = (0..3).map(|_| Hotring::with_admin(&yaml)).collect();
    let mut herd = Herd::new(&hotrings.iter().collect::<Vec<_>>(), 60);
    let slot = slot_of(b"popular");
    let mut home = usize::from(slot) * 3 / SLOTS;
    // A node is listened to from when it is first wanted.
    let warm = |herd: &mut Herd, node: usize| {
        eventually("they hear of changes", || {
            cluster.client(node).ask("DEL popular");
            herd.get("popular", 0, |_| ());
            cluster.client(node).ask("INFO clients").contains("tracking_clients:3")
        });
    };
    for _ in 0..3 {
        warm(&mut herd, home);
        for _ in 0..2 {
            comes_of(&Outcome { loads: 1, values: 59 }, || {
                cluster.client(home).ask("DEL popular");
                herd.get("popular", 0, |_| ())
            });
        }
        // The lease key is of the key's slot, and goes with it.
        let to = (home + 1) % 3;
        cluster.move_slot(slot, to);
        home = to;
    }
}

#[test]
fn nobody_hangs_when_the_shard_is_killed_while_they_wait() {
    for lease in ["local", "fleet"] {
        let (mut redis, at) = shards(1);
        let hotrings = fleet_of(&at, lease, &redis);
        let mut herd = Herd::new(&hotrings.iter().collect::<Vec<_>>(), 40);
        herd.send(&["GET", "popular"]);
        let mut told = 0;
        let mut done = [false; 40];
        let start = now();
        while told < 40 {
            assert!(start.elapsed() < FOREVER, "{told} of 40");
            for (n, app) in herd.apps.iter_mut().enumerate().filter(|(n, _)| !done[*n]).collect::<Vec<_>>() {
                let Some(reply) = reply_of(app.as_mut().unwrap()) else { continue };
                assert!(reply == NIL || reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
                done[n] = true;
                told += 1;
                if told == 1 {
                    redis[0].kill();
                }
            }
            std::thread::yield_now();
        }
        // No more than twice the first wait, and what a busy machine adds.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

fn fleet_of(at: &[String], lease: &str, redis: &[Redis]) -> Vec<Hotring> {
    if lease == "fleet" { fleet(at, 2, redis) } else { vec![Hotring::over(at, &[&misses(lease)])] }
}

#[test]
fn one_connection_of_many_threads_loads_once() {
    let (redis, at) = shards(1);
    let hotring = Hotring::over(&at, &["misses: {lease: local, same_connection: wait}"]);
    let mut app = hotring.app();
    make_patient(&mut app);
    for _ in 0..3 {
        redis[0].client().ask("DEL k");
        app.send(&wire(&["GET", "k"]).repeat(50));
        assert_eq!(app.reply(), NIL);
        app.send(&wire(&["SET", "k", "v"]));
        (0..49).for_each(|_| assert_eq!(app.reply(), b"$1\r\nv\r\n"));
        assert_eq!(app.reply(), b"+OK\r\n");
    }
}

#[test]
fn several_keys_and_transactions() {
    let (_redis, at) = shards(2);
    let hotring = Hotring::over(&at, &[&misses("local")]);
    let (mut a, mut b) = (hotring.app(), hotring.app());
    make_patient(&mut a);
    assert_eq!(a.ask("MGET a b c d"), format!("*4\r\n{}", "$-1\r\n".repeat(4)));
    b.send(&wire(&["MGET", "d", "c", "b", "a"]));
    for key in ["a", "b", "c", "d"] {
        assert_eq!(a.ask(&format!("SET {key} {key}")), "+OK\r\n");
    }
    assert_eq!(b.reply(), b"*4\r\n$1\r\nd\r\n$1\r\nc\r\n$1\r\nb\r\n$1\r\na\r\n");
    // A transaction never waits, and what it writes is seen.
    assert_eq!(a.ask("GET k"), "$-1\r\n");
    let mut c = hotring.app();
    c.send(&wire(&["GET", "k"]));
    b.send(&[wire(&["MULTI"]), wire(&["GET", "k"]), wire(&["SET", "k", "v"]), wire(&["EXEC"])].concat());
    let told: Vec<String> = (0..4).map(|_| String::from_utf8(b.reply()).unwrap()).collect();
    assert_eq!(told, ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n$-1\r\n+OK\r\n"]);
    assert_eq!(c.reply(), b"$1\r\nv\r\n");
}

/// Makes waits long, by a load that takes its time: readers wait for twice as long as loads take.
fn make_patient(app: &mut Client) {
    assert_eq!(app.ask("GET k"), "$-1\r\n");
    let done = now() + Duration::from_millis(1500);
    eventually("it is loaded", || now() >= done);
    assert_eq!((app.ask("SET k v"), app.ask("DEL k")), ("+OK\r\n".to_owned(), ":1\r\n".to_owned()));
}

#[test]
fn nobody_waits_when_the_process_is_to_end() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["misses: {lease: local, lease_wait: 60s, lease_term: 60s}"]));
    let (mut holder, mut waiting) = (hotring.app(), hotring.app());
    make_patient(&mut holder);
    assert_eq!(holder.ask("GET k"), "$-1\r\n");
    waiting.send(&wire(&["GET", "k"]));
    eventually("it waits", || hotring.metric("hotring_lease_waiting{pool=\"main\"}") == 1.0);
    let before = now();
    hotring.tell(Signal::Stop);
    assert_eq!(waiting.text(), "$-1\r\n");
    // It would have been told after twice the load.
    assert!(before.elapsed() < Duration::from_millis(2700), "{:?}", before.elapsed());
    assert!(waiting.rest().is_empty());
}
