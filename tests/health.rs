//! What is known of a server's health, how, and what follows.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Client, Cut, Fake, Hotring, Redis, Relay, Way, eventually, key_on, pool, shards, wire};

/// The state of a server as `/backends` tells it.
fn state(hotring: &Hotring, name: &str) -> String {
    let (_, table) = hotring.page("/backends");
    let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).unwrap();
    row.split_whitespace().nth(3).unwrap().to_owned()
}

/// How often a server was ejected.
fn ejects(hotring: &Hotring, name: &str) -> f64 {
    hotring.metric(&format!("hotring_server_ejects_total{{pool=\"main\",backend=\"{name}\"}}"))
}

/// A server that says one of these to PING, and nothing to anybody where that is empty; which one, can change.
fn moody(says: &Arc<AtomicUsize>, replies: &'static [&'static str]) -> Fake {
    let says = Arc::clone(says);
    Fake::start(move |visit| {
        while let Some(request) = visit.request() {
            let now = replies[says.load(Ordering::Acquire)];
            if now.is_empty() {
                return visit.until_gone();
            }
            let reply = if request[0] == b"PING" { now } else { "+served\r\n" };
            if !visit.send(reply.as_bytes()) {
                return;
            }
        }
    })
}

#[test]
fn a_crash_that_breaks_many_connections_is_one_failure() {
    let redis = Redis::start(&[]);
    let relay = Relay::to(redis.address());
    // Each of them would be more than the limit; that some are heard of a while later than others must not matter.
    let keys = ["server_connections: 4", "auto_eject_hosts: true", "server_failure_limit: 6", "preconnect: true"];
    let hotring = Hotring::with_admin(&pool(&[relay.address()], &keys));
    let mut apps: Vec<Client> = (0..24).map(|_| hotring.app()).collect();
    for (n, app) in apps.iter_mut().enumerate() {
        if n % 3 == 0 {
            app.ask("HELLO 3");
        }
        assert_eq!(app.ask("EXISTS k"), ":0\r\n");
        if n % 3 == 1 {
            assert_eq!((app.ask("MULTI"), app.ask("SET k v")), ("+OK\r\n".into(), "+QUEUED\r\n".into()));
        }
    }
    assert!(redis.connections() >= 12, "lanes of two protocols, and dedicated ones");
    relay.hold(Way::ToServer);
    for (n, app) in apps.iter_mut().enumerate() {
        app.send(&if n % 3 == 1 { wire(&["EXEC"]) } else { wire(&["GET", "k"]) });
    }
    // Taken up behind it, and answered when the pass that sent it is over.
    let mut other = hotring.app();
    assert_eq!([other.ask("PING"), other.ask("PING")], ["+PONG\r\n"; 2]);
    relay.cut(Cut::Reset);
    for app in &mut apps {
        assert!(app.text().starts_with('-'), "its connection broke");
    }
    // Whoever has connected again, and waits, finds it well.
    relay.heal();
    eventually("it is well again", || apps.iter_mut().all(|app| app.ask("EXISTS k") == ":0\r\n"));
    assert_eq!(ejects(&hotring, "s0"), 0.0);
}

#[test]
fn a_killed_server_is_ejected_though_nobody_asks_and_comes_back_by_a_probe() {
    let (mut redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["preconnect: true", "probe_interval: 50ms"]));
    eventually("both are up", || state(&hotring, "s0") == "up" && state(&hotring, "s1") == "up");
    redis[1].kill();
    eventually("it is seen", || state(&hotring, "s1") == "ejected");
    let key = key_on(1, 2);
    let said = hotring.app().ask(&format!("GET {key}"));
    assert!(said.starts_with("-ERR shard s1 is down (") && said.ends_with("); nothing was sent\r\n"), "{said}");
    let (_, told) = hotring.page(&format!("/explain?key={key}"));
    assert!(told.contains("\n  health     the shard is ejected"), "{told}");
    assert_eq!(ejects(&hotring, "s1"), 1.0);
    redis[1].restart();
    eventually("it is back, though nobody asks", || state(&hotring, "s1") == "up");
    assert_eq!(hotring.app().ask(&format!("SET {key} v")), "+OK\r\n");
    assert_eq!(state(&hotring, "s0"), "up");
}

#[test]
fn a_server_that_stands_still_is_found_out_by_its_probe() {
    let (redis, at) = shards(2);
    let keys = ["preconnect: true", "probe_interval: 50ms", "probe_timeout: 500ms", "connect_timeout: 500ms"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    eventually("both are up", || state(&hotring, "s1") == "up");
    redis[1].freeze();
    eventually("it is seen", || ["ejected", "half-open"].contains(&state(&hotring, "s1").as_str()));
    redis[1].thaw();
    eventually("it goes on", || state(&hotring, "s1") == "up");
    let mut app = hotring.app();
    eventually("it is used", || app.ask(&format!("SET {} v", key_on(1, 2))) == "+OK\r\n");
}

#[test]
fn one_connection_knocks_while_a_server_is_down() {
    let says = Arc::new(AtomicUsize::new(0));
    let fake = moody(&says, &["+PONG\r\n", "-LOADING Redis is loading the dataset in memory\r\n"]);
    let keys = ["server_connections: 16", "preconnect: true", "probe_interval: 20ms"];
    let hotring = Hotring::with_admin(&pool(&[fake.address()], &keys));
    let mut apps: Vec<Client> = (0..16).map(|_| hotring.app()).collect();
    for app in &mut apps {
        eventually("all are open", || app.ask("GET k") == "+served\r\n");
    }
    eventually("the prober, too", || fake.visits() == 17);
    says.store(1, Ordering::Release);
    // The prober's connection says so, and its next ones in their handshake; the others stay open and are not used.
    eventually("it is out", || state(&hotring, "s0") == "ejected");
    let text = "-ERR shard s0 is down (still loading its data); nothing was sent\r\n";
    for app in &mut apps {
        assert_eq!(app.ask("GET k"), text);
    }
    let before = fake.visits();
    eventually("it is asked again and again", || fake.visits() > before + 5);
    says.store(0, Ordering::Release);
    for app in &mut apps {
        eventually("it is served", || app.ask("GET k") == "+served\r\n");
    }
}

#[test]
fn a_server_that_takes_connections_and_answers_no_ping_stays_out() {
    let says = Arc::new(AtomicUsize::new(0));
    let fake = moody(&says, &["+PONG\r\n", ""]);
    let redis = Redis::start(&[]);
    let keys = [
        "auto_eject_hosts: true",
        "server_retry_timeout: 100ms",
        "probe_interval: 20ms",
        "timeout: 10s",
        "connect_timeout: 1500ms",
        "probe_timeout: 1500ms",
    ];
    let at = [redis.address(), fake.address()];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let mut app = hotring.app();
    let mine = key_on(1, 2);
    assert_eq!(app.ask(&format!("GET {mine}")), "+served\r\n");
    says.store(1, Ordering::Release);
    eventually("it is found out", || ejects(&hotring, "s1") == 1.0);
    eventually("its keys are with the other", || app.ask(&format!("SET {mine} v")) == "+OK\r\n");
    let before = fake.visits();
    eventually("it is asked again and again", || {
        assert_eq!(app.ask(&format!("GET {mine}")), "$1\r\nv\r\n", "it does not flap");
        fake.visits() > before + 4
    });
    assert_eq!(ejects(&hotring, "s1"), 1.0);
    says.store(0, Ordering::Release);
    eventually("it is back", || app.ask(&format!("GET {mine}")) == "+served\r\n");
}

#[test]
fn what_a_probe_is_told() {
    let busy = "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";
    let denied = "-NOPERM User default has no permissions to run the 'ping' command\r\n";
    let unsaved =
        "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n";
    for well in [busy, denied, unsaved] {
        let fake = Fake::start(move |visit| {
            while let Some(request) = visit.request() {
                visit.send(if request[0] == b"PING" { well.as_bytes() } else { b"+served\r\n" });
            }
        });
        let hotring = Hotring::with_admin(&pool(&[fake.address()], &["probe_interval: 10ms", "preconnect: true"]));
        eventually("two are open", || fake.visits() == 2);
        let mut app = hotring.app();
        for _ in 0..100 {
            assert_eq!(app.ask("GET k"), "+served\r\n", "{well}");
        }
        assert_eq!(fake.visits(), 2);
        eventually("it is up", || state(&hotring, "s0") == "up");
    }
    for (ill, reason) in [
        ("-LOADING Redis is loading the dataset in memory\r\n", "still loading its data"),
        (
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
            "a replica without its master",
        ),
        ("-NOAUTH Authentication required.\r\n", "it wants a password"),
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "it refused the password"),
    ] {
        let says = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&says);
        let fake = Fake::start(move |visit| {
            while let Some(request) = visit.request() {
                let ping = if told.load(Ordering::Acquire) == 0 { "+PONG\r\n" } else { ill };
                visit.send(if request[0] == b"PING" { ping.as_bytes() } else { b"+served\r\n" });
            }
        });
        let hotring = Hotring::with_admin(&pool(&[fake.address()], &["probe_interval: 10ms"]));
        let mut app = hotring.app();
        assert_eq!(app.ask("GET k"), "+served\r\n");
        says.store(1, Ordering::Release);
        eventually(reason, || state(&hotring, "s0") == "ejected");
        assert_eq!(app.ask("GET k"), format!("-ERR shard s0 is down ({reason}); nothing was sent\r\n"));
        says.store(0, Ordering::Release);
        eventually("it is back", || app.ask("GET k") == "+served\r\n");
    }
}

#[test]
fn replies_are_proof_enough() {
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address()], &["probe_interval: 2s"]);
    let mut app = hotring.app();
    let start = support::now();
    let (mut last, mut pauses) = (start, 0);
    while start.elapsed().as_millis() < 4500 {
        assert_eq!(app.ask("GET k"), "$-1\r\n");
        // A span without a reply in which a probe may have been due twice: the machine had other things to do.
        pauses += u64::from(last.elapsed().as_millis() > 500);
        last = support::now();
    }
    // Its handshakes: one for the app's connection.
    let most = if pauses == 0 { 1 } else { 2 + 4 * pauses };
    assert!((1..=most).contains(&redis.calls("ping")), "no probe was needed, but for {pauses} pauses");
}

#[test]
fn nobody_asks_a_server_that_nobody_uses() {
    let fake = Fake::answering(|_| b"+OK\r\n".to_vec());
    let redis = Redis::start(&[]);
    let hotring = Hotring::over(&[redis.address(), fake.address()], &["probe_interval: 10ms"]);
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("SET {} v", key_on(0, 2))), "+OK\r\n");
    eventually("the other is asked", || redis.calls("ping") > 10);
    assert_eq!(fake.visits(), 0);
}

#[test]
fn errors_of_a_server_pass_and_change_nothing() {
    let errors = [
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    ];
    for error in errors {
        let fake = Fake::answering(move |_| error.as_bytes().to_vec());
        let keys = ["auto_eject_hosts: true", "server_failure_limit: 1", "probe_interval: off"];
        let hotring = Hotring::with_admin(&pool(&[fake.address()], &keys));
        let mut app = hotring.app();
        for request in ["SET k v", "GET k", "MGET k l", "DEL k l", "EVAL return 1 k"] {
            for _ in 0..5 {
                let said = app.ask(request);
                assert!(said == error || request.starts_with("EVAL"), "{request}: {said}");
            }
        }
        app.send(&wire(&["SET", "k", "v"]).repeat(100));
        for _ in 0..100 {
            assert_eq!(app.text(), error);
        }
        assert_eq!(fake.visits(), 1, "{error}");
        eventually("it is up", || state(&hotring, "s0") == "up");
        assert_eq!(ejects(&hotring, "s0"), 0.0);
    }
}

/// A request for each form that is answered for; `K` is the key.
const MISSES: &[&str] = &[
    "GET K",
    "DUMP K",
    "STRLEN K",
    "GETRANGE K 0 -1",
    "SUBSTR K 1 2",
    "GETBIT K 7",
    "BITCOUNT K",
    "BITCOUNT K 0 -1",
    "BITCOUNT K 0 -1 BIT",
    "BITPOS K 0",
    "BITPOS K 1",
    "TYPE K",
    "TTL K",
    "PTTL K",
    "EXPIRETIME K",
    "PEXPIRETIME K",
    "HGET K f",
    "HMGET K f g",
    "HGETALL K",
    "HKEYS K",
    "HVALS K",
    "HLEN K",
    "HEXISTS K f",
    "HSTRLEN K f",
    "HRANDFIELD K",
    "HRANDFIELD K -3",
    "HSCAN K 0",
    "HSCAN K 0 MATCH a* COUNT 10",
    "HSCAN K 17",
    "LLEN K",
    "LINDEX K -1",
    "LRANGE K 0 -1",
    "LPOS K e",
    "SCARD K",
    "SMEMBERS K",
    "SISMEMBER K m",
    "SMISMEMBER K m n",
    "SRANDMEMBER K",
    "SRANDMEMBER K 2",
    "SSCAN K 0 COUNT 5",
    "ZCARD K",
    "ZSCORE K m",
    "ZMSCORE K m n",
    "ZRANK K m",
    "ZREVRANK K m",
    "ZCOUNT K -inf (5",
    "ZRANGE K 0 -1",
    "ZRANGE K 0 -1 WITHSCORES",
    "ZREVRANGE K 0 9",
    "ZREVRANGE K 0 9 withscores",
    "ZRANGEBYSCORE K 1 +inf",
    "ZRANGEBYSCORE K -1 inf WITHSCORES",
    "ZREVRANGEBYSCORE K (7 -7",
    "ZRANDMEMBER K",
    "ZRANDMEMBER K 2",
    "ZSCAN K 0",
    "GEOPOS K a b",
    "GEOHASH K a b",
    "GEODIST K a b",
    "XLEN K",
    "XRANGE K - +",
    "XREVRANGE K + -",
    "EXISTS K",
    "EXISTS K K",
    "TOUCH K",
    "MGET K",
    "MGET K K K",
];

/// Three servers, of which the second is down and ejected; `way` is what its keys get.
fn without_the_second(keys: &[&str]) -> (Vec<Redis>, Hotring) {
    let (mut redis, at) = shards(3);
    let keys = [&["preconnect: true", "probe_interval: 50ms", "server_retry_timeout: 100ms"], keys].concat();
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    eventually("all are up", || ["s0", "s1", "s2"].iter().all(|name| state(&hotring, name) == "up"));
    redis[1].kill();
    eventually("it is ejected", || state(&hotring, "s1") == "ejected");
    (redis, hotring)
}

#[test]
fn what_is_missing_is_told_as_a_server_tells_it() {
    let (redis, hotring) = without_the_second(&["when_ejected: miss"]);
    let key = key_on(1, 3);
    let answered = hotring::stages::missing::ANSWERED;
    for name in answered {
        assert!(MISSES.iter().any(|miss| miss.split(' ').next().unwrap().eq_ignore_ascii_case(name)), "{name}");
    }
    for protocol in ["2", "3"] {
        let (mut app, mut direct) = (hotring.app(), redis[0].client());
        app.ask(&format!("HELLO {protocol}"));
        direct.ask(&format!("HELLO {protocol}"));
        for miss in MISSES {
            let request = miss.replace(" K", &format!(" {key}"));
            assert_eq!(app.ask(&request), direct.ask(&request), "{request} in RESP{protocol}");
        }
    }
    let counted = (2 * MISSES.len()) as f64;
    eventually("they are counted", || hotring.metric("hotring_missed_total{pool=\"main\"}") >= counted);
}

#[test]
fn what_is_no_plain_read_is_refused_though_reads_miss() {
    let (mut redis, hotring) = without_the_second(&["when_ejected: miss"]);
    let mut app = hotring.app();
    let (a, b, c) = (key_on(0, 3), key_on(1, 3), key_on(2, 3));
    assert_eq!(app.ask(&format!("MSET {a} 1 {c} 3")), "+OK\r\n");
    assert_eq!(app.ask(&format!("MGET {a} {b} {c} {b}")), "*4\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n$-1\r\n");
    assert_eq!(app.ask(&format!("EXISTS {a} {b} {c}")), ":2\r\n");
    let refused = |said: &str| said.starts_with("-ERR shard s1 is down (") && said.ends_with("; nothing was sent\r\n");
    for request in [
        "SET K v",
        "DEL K",
        "UNLINK K",
        "INCR K",
        "GETDEL K",
        "GETEX K",
        "EXPIRE K 10",
        "MSET K 1",
        "EVAL return 1 K",
        "EVAL_RO x 1 K",
        "SORT K",
        "LRANGE K a b",
        "LRANGE K 01 2",
        "BITPOS K 2",
        "HSCAN K x",
        "ZRANGE K 0 -1 REV",
        "SINTER K K",
        "LPOS K e RANK 0",
        "GETBIT K -1",
        "ZCOUNT K a b",
        "WATCH K",
        "BLPOP K 1",
        "DBSIZE",
    ] {
        let said = app.ask(&request.replace(" K", &format!(" {b}")));
        assert!(refused(&said), "{request}: {said}");
    }
    let said = app.ask(&format!("MSET {a} x {b} x"));
    assert!(refused(&said), "{said}");
    assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n", "nothing of it was sent");
    assert_eq!(app.ask("MULTI"), "+OK\r\n");
    let said = app.ask(&format!("GET {b}"));
    assert!(refused(&said), "{said}");
    assert!(app.ask("EXEC").starts_with("-EXECABORT"));
    // Replies keep their order.
    app.send(&[wire(&["GET", &a]), wire(&["GET", &b]), wire(&["GET", &c])].concat());
    assert_eq!([app.text(), app.text(), app.text()], ["$1\r\n1\r\n", "$-1\r\n", "$1\r\n3\r\n"]);
    let (_, told) = hotring.page(&format!("/explain?key={b}"));
    assert!(told.contains("answer a read as if its key did not exist"), "{told}");
    redis[1].restart();
    eventually("it is back", || app.ask(&format!("SET {b} v")) == "+OK\r\n");
    assert_eq!(app.ask(&format!("GET {b}")), "$1\r\nv\r\n");
}

#[test]
fn each_way_is_chosen_by_its_key() {
    let key = key_on(1, 3);
    for (keys, served) in [
        (&[][..], false),
        (&["when_ejected: error"], false),
        (&["auto_eject_hosts: true", "when_ejected: error"], false),
        (&["auto_eject_hosts: true"], true),
        (&["when_ejected: rehash"], true),
    ] {
        let (mut redis, hotring) = without_the_second(keys);
        let mut app = hotring.app();
        let said = app.ask(&format!("SET {key} elsewhere"));
        assert_eq!(said == "+OK\r\n", served, "{keys:?}: {said}");
        assert!(served || said.starts_with("-ERR shard s1 is down ("), "{keys:?}: {said}");
        redis[1].restart();
        redis[1].client().ask(&format!("SET {key} home"));
        eventually("its keys are at home again", || app.ask(&format!("GET {key}")) == "$4\r\nhome\r\n");
    }
}
