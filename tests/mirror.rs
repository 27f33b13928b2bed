//! Requests that are also sent to another pool (`mirror`), with real servers: what arrives there, that the app never notices, and
//! what comparing finds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Client, Cluster, Fake, Hotring, Redis, Site, eventually, free_port, pool, shards, wire};

const EVERYTHING: &str = "mirror: {pool: new, commands: all}";

/// The file of a pool `main` that is mirrored to a pool `new`, which apps cannot reach; `more` are keys of that.
fn mirrored<S: AsRef<str>, T: AsRef<str>>(servers: &[S], settings: &[&str], new: &[T], more: &[&str]) -> String {
    // Servers that get no turn for a while are none that break.
    let mut yaml = pool(servers, settings) + "  new:\n    timeout: 1m\n    connect_timeout: 1m\n";
    for key in more {
        yaml += &format!("    {key}\n");
    }
    let found = more.iter().any(|key| key.starts_with("topology"));
    let name = |(n, server): (usize, &T)| {
        if found { format!("\"{}\"", server.as_ref()) } else { format!("\"{}:1 n{n}\"", server.as_ref()) }
    };
    let servers: Vec<String> = new.iter().enumerate().map(name).collect();
    yaml + &format!("    servers: [{}]\n", servers.join(", "))
}

/// A hotring over real servers with a mirror of real servers.
struct Mirrored {
    old: Vec<Redis>,
    new: Vec<Redis>,
    old_at: Vec<String>,
    new_at: Vec<String>,
    site: Site,
}

impl Mirrored {
    fn new((old, new): (usize, usize), settings: &[&str]) -> Self {
        let ((old, old_at), (new, new_at)) = (shards(old), shards(new));
        let site = Site::new(&mirrored(&old_at, settings, &new_at, &[]));
        Self { old, new, old_at, new_at, site }
    }

    fn app(&self) -> Client {
        self.site.hotring.app()
    }

    fn reload(&self, settings: &[&str]) {
        let (status, told) = self.site.reload(&mirrored(&self.old_at, settings, &self.new_at, &[]));
        assert_eq!(status, 200, "{told}");
    }

    fn at_rest(&self) {
        at_rest(&self.site.hotring);
    }
}

/// Waits until everything that was asked is counted, and the mirror has answered it.
fn at_rest(hotring: &Hotring) {
    let refused = || hotring.metric("hotring_requests_total{pool=\"main\",class=\"refused\"}");
    let before = refused();
    assert!(hotring.app().ask("NOSUCH").starts_with("-ERR unknown command"));
    eventually("all is counted", || refused() > before);
    eventually("the mirror has answered all", || metric(hotring, "in_flight") == 0.0);
}

fn metric(hotring: &Hotring, name: &str) -> f64 {
    hotring.metric(&format!("hotring_mirror_{name}{{pool=\"main\"}}"))
}

fn sent(hotring: &Hotring) -> f64 {
    hotring.metric("hotring_mirrored_total{pool=\"main\"}")
}

/// A counter that has a label.
fn labelled(hotring: &Hotring, name: &str, label: &str, value: &str) -> f64 {
    hotring.metric(&format!("hotring_mirror_{name}{{pool=\"main\",{label}=\"{value}\"}}"))
}

/// Every key that servers have, with a digest of what it has and whether it expires.
fn contents(servers: &[Redis]) -> BTreeSet<(String, String, bool)> {
    let mut all = BTreeSet::new();
    for server in servers {
        let mut client = server.client();
        let keys = client.ask("KEYS *");
        let names: Vec<&str> =
            keys.split("\r\n").filter(|line| !line.starts_with(['*', '$']) && !line.is_empty()).collect();
        for name in names {
            let digest = client.ask(&format!("DEBUG DIGEST-VALUE {name}"));
            let expires = client.ask(&format!("PTTL {name}")) != ":-1\r\n";
            assert!(all.insert((name.to_owned(), digest, expires)), "{name} is there twice");
        }
    }
    all
}

/// Writes of all sorts to a few keys of its own and a few that all write, pipelined.
fn writes(app: &mut Client, who: usize, rounds: usize) {
    for round in 0..rounds {
        let own = format!("own:{who}:{}", round % 7);
        let (value, shared) = (format!("{who}-{round}"), format!("shared:{}", round % 5));
        let requests: Vec<Vec<&str>> = vec![
            vec!["SET", &own, &value],
            vec!["APPEND", &own, "x"],
            vec!["INCR", "count"],
            vec!["RPUSH", &shared, &value],
            vec!["LTRIM", &shared, "-20", "-1"],
            vec!["MSET", "m:1", &value, "m:2", &value, "m:3", &value, "m:4", &value],
            vec!["HSET", "h", &own, &value],
            vec!["DEL", "m:1", "own:0:3", "nothing", "m:4"],
            vec!["ZADD", "z", "1.5", &own],
            vec!["SET", "expires", &value, "EX", "1000"],
            vec!["EVAL", "return redis.call('INCRBY', KEYS[1], ARGV[1])", "1", "scripted", "3"],
        ];
        let count = requests.len();
        app.send(&requests.iter().flat_map(|words| wire(words)).collect::<Vec<u8>>());
        for _ in 0..count {
            let reply = app.text();
            assert!(!reply.starts_with('-'), "{reply}");
        }
    }
}

#[test]
fn all_writes_mirrored_make_the_mirror_equal() {
    for settings in [&[EVERYTHING][..], &["mirror: {pool: new}", "server_connections: 1"]] {
        let all = Mirrored::new((3, 2), settings);
        std::thread::scope(|scope| {
            for who in 0..6 {
                let mut app = all.app();
                scope.spawn(move || writes(&mut app, who, 60));
            }
        });
        all.at_rest();
        let old = contents(&all.old);
        assert!(old.len() > 40, "{}", old.len());
        assert_eq!(contents(&all.new), old);
        let hotring = &all.site.hotring;
        assert_eq!(sent(hotring), (6 * 60 * 11) as f64);
        assert_eq!(metric(hotring, "errors_total"), 0.0);
    }
}

#[test]
fn a_script_that_is_called_by_name_is_known_there() {
    let all = Mirrored::new((1, 1), &["mirror: {pool: new}"]);
    let mut app = all.app();
    let name = app.call(&["SCRIPT", "LOAD", "return redis.call('SET', KEYS[1], ARGV[1])"]);
    let name = String::from_utf8(name).unwrap().split("\r\n").nth(1).unwrap().to_owned();
    for n in 0..3 {
        assert_eq!(app.call(&["EVALSHA", &name, "1", &format!("k{n}"), "v"]), b"+OK\r\n");
    }
    all.at_rest();
    assert_eq!(contents(&all.new), contents(&all.old));
}

#[test]
fn a_share_is_of_the_keys_and_split_requests_are_mirrored_in_part() {
    let all = Mirrored::new((2, 2), &["mirror: {pool: new, share: 0.25, prefixes: [\"a:\", \"b:\"]}"]);
    let mut app = all.app();
    for n in 0..2000 {
        let (a, c) = (format!("a:{n}"), format!("c:{n}"));
        app.send(&[wire(&["SET", &a, "1"]), wire(&["SET", &c, "1"]), wire(&["INCR", &a])].concat());
        (0..3).for_each(|_| drop(app.text()));
    }
    all.at_rest();
    let (old, new) = (contents(&all.old), contents(&all.new));
    assert!((400..=600).contains(&new.len()), "{}", new.len());
    assert!(new.is_subset(&old) && new.iter().all(|(key, ..)| key.starts_with("a:")), "both writes of a key, or none");
    assert_eq!(sent(&all.site.hotring), 2.0 * new.len() as f64);
    // Of a request that can be split those that are chosen; one that cannot is left alone.
    let keys: Vec<String> = (0..400).map(|n| format!("a:{n}")).collect();
    let mut words = vec!["MSET"];
    keys.iter().for_each(|key| words.extend([key.as_str(), "9"]));
    assert_eq!(app.call(&words), b"+OK\r\n");
    all.at_rest();
    let chosen: BTreeSet<String> = new.iter().map(|(key, ..)| key.clone()).collect();
    assert_eq!(contents(&all.new).into_iter().map(|(key, ..)| key).collect::<BTreeSet<_>>(), chosen);
    assert!(contents(&all.new).is_subset(&contents(&all.old)));
    let words: Vec<&str> = std::iter::once("DEL").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(app.call(&words), b":400\r\n");
    all.at_rest();
    assert!(contents(&all.new).is_subset(&contents(&all.old)));
}

#[test]
fn what_is_never_mirrored_is_counted() {
    let all = Mirrored::new((1, 1), &[EVERYTHING, "databases: 2"]);
    let (mut app, hotring) = (all.app(), &all.site.hotring);
    for request in
        ["MULTI", "SET k 1", "EXEC", "LPUSH l 1", "BLPOP l 0", "SELECT 1", "SET k 2", "SELECT 0", "PING", "DBSIZE"]
    {
        app.ask(request);
    }
    let long = "x".repeat(3 << 20);
    assert_eq!(app.call(&["SET", "long", &long]), b"+OK\r\n");
    assert_eq!(app.ask("SET short 1"), "+OK\r\n");
    all.at_rest();
    let new = contents(&all.new);
    assert_eq!(new.iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>(), ["l", "short"]);
    let skipped = ["transaction", "blocking", "long", "database", "partial"]
        .map(|why| labelled(hotring, "skipped_total", "why", why));
    assert_eq!(skipped, [1.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(sent(hotring), 2.0);
}

#[test]
fn of_tenants_the_full_names_are_chosen() {
    let all = Mirrored::new((1, 1), &["mirror: {pool: new, prefixes: ['t:a']}", "prefix: 't:'"]);
    let (mut app, hotring) = (all.app(), &all.site.hotring);
    let long = "x".repeat(3 << 20);
    for key in ["a1", "b1"] {
        assert_eq!(app.ask(&format!("SET {key} 1")), "+OK\r\n");
        assert_eq!(app.call(&["SET", &format!("{key}-long"), &long]), b"+OK\r\n");
    }
    all.at_rest();
    assert_eq!(contents(&all.new).iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>(), ["t:a1"]);
    assert_eq!((sent(hotring), labelled(hotring, "skipped_total", "why", "long")), (1.0, 1.0));
}

/// Asks for much in a pipeline and checks each reply.
fn unharmed(app: &mut Client, rounds: usize, value: &str) {
    for round in 0..rounds {
        let key = format!("k:{}", round % 50);
        app.send(
            &[wire(&["SET", &key, value]), wire(&["GET", &key]), wire(&["STRLEN", &key]), wire(&["MGET", &key, "no"])]
                .concat(),
        );
        let bulk = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(app.text(), "+OK\r\n");
        assert_eq!(app.text(), bulk);
        assert_eq!(app.text(), format!(":{}\r\n", value.len()));
        assert_eq!(app.text(), format!("*2\r\n{bulk}$-1\r\n"));
    }
}

#[test]
fn a_dead_mirror_costs_counters() {
    let (_old, at) = shards(2);
    let nowhere = [format!("127.0.0.1:{}", free_port())];
    let site = Site::new(&mirrored(&at, &[EVERYTHING], &nowhere, &[]));
    let mut app = site.hotring.app();
    unharmed(&mut app, 300, "v");
    eventually("what it got is lost", || {
        unharmed(&mut app, 1, "v");
        metric(&site.hotring, "in_flight") == 0.0 && labelled(&site.hotring, "dropped_total", "why", "down") > 0.0
    });
    at_rest(&site.hotring);
    let all = site.hotring.metric("hotring_requests_total{pool=\"main\",class=\"read\"}")
        + site.hotring.metric("hotring_requests_total{pool=\"main\",class=\"write\"}")
        + site.hotring.metric("hotring_requests_total{pool=\"main\",class=\"multi\"}");
    let told = sent(&site.hotring) + labelled(&site.hotring, "dropped_total", "why", "down");
    assert_eq!(told, all, "each is counted once");
}

#[test]
fn a_frozen_mirror_is_bounded_and_costs_nothing() {
    let all = Mirrored::new((2, 1), &["mirror: {pool: new, commands: all, compare: true}"]);
    let hotring = &all.site.hotring;
    let mut app = all.app();
    unharmed(&mut app, 1, "v");
    all.at_rest();
    all.new[0].freeze();
    let value = "x".repeat(16 << 10);
    let dropped = || labelled(hotring, "dropped_total", "why", "full");
    eventually("it has all that it may have", || {
        unharmed(&mut app, 50, &value);
        dropped() > 100.0
    });
    unharmed(&mut app, 200, &value);
    let queued = hotring.metric("hotring_server_in_queue_bytes{pool=\"new\",backend=\"n0\"}");
    assert!(queued > 0.0 && queued <= f64::from(4 << 20), "half of max_outbox: {queued}");
    assert!(metric(hotring, "in_flight") <= 8192.0);
    all.new[0].thaw();
    all.at_rest();
    unharmed(&mut app, 1, "after");
    all.at_rest();
    let mut new = all.new[0].client();
    assert_eq!(new.ask("GET k:0"), "$5\r\nafter\r\n");
    eventually("nothing is compared any more", || {
        labelled(hotring, "compared_total", "result", "unknown")
            + labelled(hotring, "compared_total", "result", "equal")
            > 0.0
    });
}

#[test]
fn a_mirror_that_speaks_nonsense_costs_counters() {
    let (_old, at) = shards(2);
    for nonsense in [&b"!garbage\r\n"[..], b"+OK\r\n+OK\r\n+OK\r\n", b"-ERR no\r\n", b"$4\r\nab"] {
        let fake = Fake::start(move |visit| {
            visit.shake_hands();
            while visit.request().is_some() && visit.send(nonsense) {}
        });
        let site =
            Site::new(&mirrored(&at, &["mirror: {pool: new, commands: all, compare: true}"], &[fake.address()], &[]));
        let mut app = site.hotring.app();
        eventually("it is counted", || {
            unharmed(&mut app, 5, "v");
            // Replies that nobody asked for come when all that was asked is answered: they cost the connection.
            let lost = site.hotring.metric("hotring_server_err_total{pool=\"new\",backend=\"n0\"}");
            metric(&site.hotring, "errors_total") > 0.0 || lost > 0.0 || nonsense.starts_with(b"$")
        });
        unharmed(&mut app, 50, "v");
        assert_eq!(metric(&site.hotring, "mismatches_confirmed_total"), 0.0, "nothing can be said");
    }
}

#[test]
fn comparing_finds_what_differs_and_nothing_else() {
    let all = Mirrored::new((2, 2), &["mirror: {pool: new, commands: all, compare: true}"]);
    let hotring = &all.site.hotring;
    let mut app = all.app();
    for n in 0..200 {
        let key = n.to_string();
        app.send(
            &[wire(&["SET", &format!("s:{key}"), &key]), wire(&["SADD", &format!("set:{key}"), "a", "b", &key])]
                .concat(),
        );
        app.send(
            &[
                wire(&["HSET", &format!("h:{key}"), "f", &key, "g", "1"]),
                wire(&["ZADD", &format!("z:{key}"), "1.25", &key]),
            ]
            .concat(),
        );
        (0..4).for_each(|_| drop(app.text()));
    }
    all.at_rest();
    // Some differ in what they have, and some are not there.
    let planted: Vec<String> =
        (0..10).map(|n| format!("s:{}", n * 20)).chain((0..5).map(|n| format!("set:{}", n * 9))).collect();
    for key in &planted {
        for new in &all.new {
            let mut new = new.client();
            new.ask(&format!("UNLINK {key}"));
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        for who in 0..3 {
            let mut app = all.app();
            // The keys that are compared, but for the planted ones, and others.
            let planted = &planted;
            scope.spawn(move || {
                let mut round = who;
                while !stop.load(Ordering::Relaxed) {
                    round += 7;
                    let key = format!("s:{}", round % 200);
                    if !planted.contains(&key) {
                        app.send(
                            &[wire(&["SET", &key, &round.to_string()]), wire(&["INCR", "hot"]), wire(&["GET", "hot"])]
                                .concat(),
                        );
                        (0..3).for_each(|_| drop(app.text()));
                    }
                }
            });
        }
        // In RESP3, too: what the mirror says is in RESP2.
        let mut three = all.app();
        three.ask("HELLO 3");
        for app in [&mut app, &mut three] {
            for n in 0..200 {
                let reads = [
                    format!("GET s:{n}"),
                    format!("SMEMBERS set:{n}"),
                    format!("HGETALL h:{n}"),
                    format!("ZRANGE z:{n} 0 -1 WITHSCORES"),
                    format!("GET none:{n}"),
                    format!("ZSCORE z:{n} {n}"),
                ];
                for read in &reads {
                    app.send(&wire(&read.split(' ').collect::<Vec<_>>()));
                }
                reads.iter().for_each(|_| drop(app.text()));
            }
        }
        let found = || metric(hotring, "mismatches_confirmed_total");
        eventually("all are found", || found() >= 2.0 * planted.len() as f64);
        stop.store(true, Ordering::Relaxed);
    });
    eventually("all is looked at", || metric(hotring, "comparing") == 0.0 && metric(hotring, "in_flight") == 0.0);
    assert_eq!(metric(hotring, "mismatches_confirmed_total"), 2.0 * planted.len() as f64);
    assert!(labelled(hotring, "compared_total", "result", "equal") > 1000.0);
}

#[test]
fn a_cluster_may_be_the_mirror() {
    let (_old, at) = shards(2);
    let cluster = Cluster::start(3, 0);
    let nodes: Vec<&str> = (0..3).map(|node| cluster.address(node)).collect();
    let site = Site::new(&mirrored(
        &at,
        &["mirror: {pool: new, commands: all, compare: true}"],
        &nodes,
        &["topology: cluster"],
    ));
    let mut app = site.hotring.app();
    eventually("it is known", || {
        app.ask("SET known 1");
        at_rest(&site.hotring);
        sent(&site.hotring) > 0.0
    });
    for n in 0..200 {
        assert_eq!(app.call(&["MSET", &format!("a:{n}"), "1", &format!("b:{n}"), "2"]), b"+OK\r\n");
        assert_eq!(app.ask(&format!("INCR a:{n}")), ":2\r\n");
        assert_eq!(app.ask(&format!("GET a:{n}")), "$1\r\n2\r\n");
    }
    at_rest(&site.hotring);
    assert_eq!(metric(&site.hotring, "errors_total"), 0.0);
    assert!(labelled(&site.hotring, "compared_total", "result", "equal") >= 200.0);
    assert_eq!(labelled(&site.hotring, "compared_total", "result", "different"), 0.0);
}

#[test]
fn it_is_switched_on_changed_and_off_while_it_runs() {
    let all = Mirrored::new((2, 1), &["mirror: {pool: new}"]);
    let mut app = all.app();
    let set = |app: &mut Client, name: &str| {
        for n in 0..200 {
            assert_eq!(app.ask(&format!("SET {name}:{n} 1")), "+OK\r\n");
        }
        all.at_rest();
        let has = |(key, ..): &&(String, String, bool)| key.starts_with(&format!("{name}:"));
        contents(&all.new).iter().filter(has).count()
    };
    assert_eq!(set(&mut app, "all"), 200);
    all.reload(&["mirror: {pool: new, share: 0.5}"]);
    let half = set(&mut app, "half");
    assert!((60..=140).contains(&half), "{half}");
    all.reload(&["mirror: {pool: new, commands: reads}"]);
    assert_eq!(set(&mut app, "none"), 0);
    let (status, told) = all.site.reload(&pool(&all.old_at, &[]));
    assert_eq!(status, 200, "{told}");
    assert_eq!(set(&mut app, "off"), 0);
    all.reload(&["mirror: {pool: new}"]);
    assert_eq!(set(&mut app, "again"), 200, "the pool has come back");
    drop(all.old);
}
