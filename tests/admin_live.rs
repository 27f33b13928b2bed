//! The admin pages of a process with traffic: what they say is exactly what happened.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/exposition.rs"]
mod exposition;
mod support;

use std::collections::BTreeMap;
use support::{Client, FOREVER, Fake, Hotring, eventually, home, key_on, now, pool, shards, wire};

/// Every sample by name and label values, such as `requests_total main read`.
fn samples(hotring: &Hotring) -> BTreeMap<String, f64> {
    let (code, page) = hotring.page("/metrics");
    assert_eq!(code, 200);
    let families = exposition::read(&page).unwrap_or_else(|wrong| panic!("{wrong}\n{page}"));
    let all = families.into_values().flat_map(|family| family.samples);
    all.map(|sample| {
        let labels: String = sample.labels.iter().map(|(_, value)| format!(" {value}")).collect();
        (sample.name.strip_prefix("hotring_").unwrap_or(&sample.name).to_owned() + &labels, sample.value)
    })
    .collect()
}

/// Waits until samples have these values, all in one page: a page may be made while a worker publishes its counts.
/// Returns the whole page.
fn told(hotring: &Hotring, expected: &[(&str, f64)]) -> BTreeMap<String, f64> {
    let start = now();
    loop {
        let found = samples(hotring);
        let wrong: Vec<_> = expected
            .iter()
            .map(|&(name, value)| (name, value, found.get(name)))
            .filter(|w| w.2 != Some(&w.1))
            .collect();
        if wrong.is_empty() {
            return found;
        }
        assert!(start.elapsed() < FOREVER, "name, expected, found: {wrong:#?}");
        std::thread::yield_now();
    }
}

#[test]
fn counts_are_exact() {
    let (redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let mut app = hotring.app();
    let [a, b] = [0, 1].map(|shard| key_on(shard, 2));
    let (mut sent, mut received) = (0, 0);
    let mut ask = |words: &str, times: usize| {
        for _ in 0..times {
            let request = wire(&words.split_whitespace().collect::<Vec<_>>());
            sent += request.len();
            app.send(&request);
            received += app.reply().len();
        }
    };
    ask(&format!("SET {a} 1"), 10);
    ask(&format!("INCR {b}"), 5);
    ask(&format!("GET {a}"), 20);
    ask(&format!("LLEN {a}"), 3);
    ask(&format!("MGET {a} {b} {a}"), 4);
    ask(&format!("MGET {a} {a}"), 2);
    ask(&format!("EVAL return{{}} 1 {b}"), 2);
    ask("PING", 6);
    ask("NONSENSE x", 2);
    ask("GET", 1);
    ask(&format!("RENAME {a} {b}"), 3);
    ask("CONFIG RESETSTAT", 4);
    let page = told(
        &hotring,
        &[
            ("replies_total main", 62.0),
            ("errors_total main unknown_command", 2.0),
            ("errors_total main syntax", 1.0),
            ("errors_total main cross_shard", 3.0),
            ("errors_total main unsupported", 4.0),
            ("client_connections main", 1.0),
            ("client_connects_total main", 1.0),
            ("requests_total main read", 23.0),
            ("requests_total main write", 18.0),
            ("requests_total main multi", 6.0),
            ("requests_total main script", 2.0),
            ("requests_total main local", 6.0),
            ("requests_total main refused", 7.0),
            ("request_bytes_total main", sent as f64),
            ("reply_bytes_total main", received as f64),
            ("requests_pending main", 0.0),
            ("client_output_bytes main", 0.0),
            ("shard_errors_total main", 3.0),
            ("fragments_total main", 8.0),
            ("joined_requests_total main", 0.0),
            ("orphan_replies_total main", 0.0),
            ("worker_requests_total 0", 62.0),
            ("server_requests_total main s0", 10.0 + 20.0 + 3.0 + 4.0 + 2.0),
            ("server_responses_total main s0", 39.0),
            ("server_requests_total main s1", 5.0 + 4.0 + 2.0),
            ("server_responses_total main s1", 11.0),
            ("server_connections main s0", 1.0),
            ("server_connects_total main s0", 1.0),
            ("server_in_queue main s0", 0.0),
            ("server_out_queue main s0", 0.0),
            ("server_ejected main s0", 0.0),
            ("request_duration_seconds_count main read", 23.0),
            ("request_duration_seconds_count main write", 15.0),
            ("request_duration_seconds_count main multi", 6.0),
            ("request_duration_seconds_count main script", 2.0),
            ("workers", 1.0),
        ],
    );
    let errors: f64 = page.iter().filter(|(name, _)| name.starts_with("errors_total ")).map(|(_, value)| value).sum();
    assert_eq!(errors, 10.0, "no other error is counted");
    let set = wire(&["SET", &a, "1"]).len() * 10;
    let get = wire(&["GET", &a]).len() * 20;
    let llen = wire(&["LLEN", &a]).len() * 3;
    let mget = wire(&["MGET", &a, &a]).len() * 6;
    assert_eq!(page["server_request_bytes_total main s0"], (set + get + llen + mget) as f64);
    for (name, value) in page.iter().filter(|(name, _)| name.starts_with("request_duration_seconds_sum")) {
        assert!(*value < 30.0, "{name} {value}");
    }
    assert_eq!(redis[0].calls("get") + redis[0].calls("mget"), 26);
    drop(app);
    let left = [("client_connections main", 0.0), ("client_eof_total main", 1.0), ("client_err_total main", 0.0)];
    told(&hotring, &left);
}

#[test]
fn counts_add_up_over_workers_pools_and_many_sessions() {
    let (redis, at) = shards(2);
    let one = pool(&at, &["^workers: 2", "server_connections: 2", "preconnect: true"]);
    let yaml = format!("{one}  second:\n    listen: 127.0.0.1:0\n    servers: embedded:2\n");
    let hotring = Hotring::with_admin(&yaml);
    let sessions: Vec<_> = (0..8)
        .map(|session| {
            let mut app = Client::connect(hotring.address(session % 2));
            std::thread::spawn(move || {
                let requests: Vec<u8> =
                    (0..500).flat_map(|n| wire(&["SET", &format!("key:{}", n * 997), "v"])).collect();
                app.send(&requests);
                assert_eq!(app.exactly(2500), b"+OK\r\n".repeat(500));
                app
            })
        })
        .collect();
    let apps: Vec<Client> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
    let calls = [0, 1].map(|shard| redis[shard].calls("set") as f64);
    let page = told(
        &hotring,
        &[
            ("replies_total main", 2000.0),
            ("replies_total second", 2000.0),
            ("requests_total main write", 2000.0),
            ("request_duration_seconds_count main write", 2000.0),
            ("request_duration_seconds_count second write", 2000.0),
            ("client_connections main", 4.0),
            ("client_connections second", 4.0),
            ("workers", 2.0),
            ("server_connections main s0", 4.0),
            ("server_connections main s1", 4.0),
            ("server_requests_total main s0", calls[0]),
            ("server_requests_total main s1", calls[1]),
            ("server_responses_total main s0", calls[0]),
            ("server_responses_total main s1", calls[1]),
        ],
    );
    let workers = [0, 1].map(|worker| page[&format!("worker_requests_total {worker}")]);
    assert_eq!(workers.iter().sum::<f64>(), 4000.0, "{workers:?}");
    assert_eq!(apps.len(), 8);
}

#[test]
fn failures_are_counted_by_cause() {
    let liar = Fake::start(|visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            match request[1].as_slice() {
                b"close" => return,
                b"garbage" => drop(visit.send(b"garbage\r\n")),
                b"never" => {}
                _ => drop(visit.send(b"+OK\r\n")),
            }
        }
    });
    let keys = ["timeout: 3s", "client_connections: 1", "client_auth: {password: x}"];
    let hotring = Hotring::with_admin(&pool(&[liar.address()], &keys));
    let mut app = hotring.app();
    assert!(app.ask("GET k").starts_with("-NOAUTH"));
    assert_eq!(app.ask("AUTH x"), "+OK\r\n");
    for (key, times) in [("close", 2), ("garbage", 3), ("never", 1)] {
        for _ in 0..times {
            assert!(app.ask(&format!("GET {key}")).starts_with("-ERR shard s0 "));
            eventually("it is well again", || app.ask("GET k") == "+OK\r\n");
        }
    }
    assert_eq!(hotring.app().rest(), b"-ERR max number of clients reached\r\n");
    app.send(b"*1\r\n!");
    assert_eq!(app.rest(), b"-ERR Protocol error: expected '$', got '!'\r\n");
    told(
        &hotring,
        &[
            ("client_connections main", 0.0),
            ("errors_total main lost", 2.0),
            ("errors_total main garbage", 3.0),
            ("errors_total main timeout", 1.0),
            ("errors_total main auth", 1.0),
            ("errors_total main protocol", 1.0),
            ("errors_total main max_clients", 1.0),
            ("client_refused_total main", 1.0),
            ("client_connects_total main", 1.0),
            ("server_connects_total main s0", 7.0),
            ("server_err_total main s0", 5.0),
            ("server_timedout_total main s0", 1.0),
            ("server_connections main s0", 1.0),
        ],
    );
}

#[test]
fn an_app_that_left_leaves_nothing_pending() {
    let (redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["timeout: off"]));
    let (mut app, mut other) = (hotring.app(), hotring.app());
    assert_eq!(other.ask("SET k v"), "+OK\r\n");
    redis[0].freeze();
    app.send(&[wire(&["GET", "k"]).repeat(100), wire(&["PING"])].concat());
    told(&hotring, &[("requests_pending main", 100.0), ("server_out_queue main s0", 100.0)]);
    app.reset();
    told(
        &hotring,
        &[
            ("client_connections main", 1.0),
            ("client_err_total main", 1.0),
            ("requests_pending main", 0.0),
            ("server_out_queue main s0", 100.0),
        ],
    );
    redis[0].thaw();
    assert_eq!(other.ask("GET k"), "$1\r\nv\r\n");
    told(
        &hotring,
        &[("orphan_replies_total main", 100.0), ("server_out_queue main s0", 0.0), ("client_output_bytes main", 0.0)],
    );
}

#[test]
fn explain_tells_what_happens_then() {
    let (mut redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["coalesce: true"]));
    let mut app = hotring.app();
    for n in 0..10 {
        let key = format!("key:{}", n * 997);
        let (code, told) = hotring.page(&format!("/explain?key={key}"));
        let shard = home(3, key.as_bytes());
        assert_eq!(code, 200);
        assert!(told.starts_with(&format!("pool main, command get\nkey {key}\n  route ")), "{told}");
        assert!(told.contains("\n  coalesce   no identical read is about to leave\n"), "{told}");
        assert!(told.contains("\n  health     the shard is well\n"), "{told}");
        assert!(told.ends_with(&format!("\n  -> s{shard}, connection 0\n-> forwarded to s{shard}\n")), "{told}");
        assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
        assert_eq!(redis[shard].client().ask(&format!("EXISTS {key}")), ":1\r\n");
    }
    let (_, told) = hotring.page("/explain?command=MSET&key=a&arg=1&key=b&arg=2");
    assert!(told.starts_with("pool main, command mset\nkey a\n"), "{told}");
    assert!(told.contains("\nkey b\n") && told.matches("\n  -> s").count() == 2, "{told}");
    assert_eq!(hotring.page("/explain?key=k&command=NONSENSE").0, 400);
    assert_eq!(hotring.page("/explain?key=k&pool=none"), (400, "there is no pool `none`, only: main\n".to_owned()));
    assert_eq!(redis.iter().map(|redis| redis.calls("get")).sum::<u64>(), 0, "asking sends nothing");
    // A shard that is down.
    redis[1].kill();
    let key = key_on(1, 3);
    eventually("it is known", || app.ask(&format!("GET {key}")).contains(" is down "));
    let (_, told) = hotring.page(&format!("/explain?key={key}"));
    assert!(told.contains("; refuse: the shard is down (connection refused)\n"), "{told}");
    let refused = "-> refused: ERR shard s1 is down (connection refused); nothing was sent\n";
    assert!(told.ends_with(&format!("\n  {refused}{refused}")), "{told}");
    // Refused with any number of arguments.
    let (code, told) = hotring.page("/explain?command=MONITOR&key=k");
    assert!(code == 200 && told.contains("\n-> refused: ERR hotring does not carry administration"), "{told}");
    let (code, told) = hotring.page("/explain?command=KEYS&key=k");
    assert!(code == 200 && told.contains("\n-> sent to all shards\n"), "{told}");
}

#[test]
fn the_config_page_masks_secrets() {
    let (_redis, at) = shards(1);
    let keys = ["client_auth: {password: app-secret}", "server_auth: {user: someone, password: server-secret}"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let (code, page) = hotring.page("/config");
    assert_eq!(code, 200);
    assert!(!page.contains("secret"), "{page}");
    assert!(page.contains("someone") && page.contains(&at[0]) && page.contains("max_pipeline: 1024"), "{page}");
}

#[test]
fn ready_and_backends_tell_of_a_shard_that_is_down() {
    let (mut redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["preconnect: true"]));
    assert_eq!(hotring.page("/healthz"), (200, "ok\n".to_owned()));
    eventually("both are up", || hotring.page("/backends").1.matches("  up ").count() == 2);
    assert_eq!(hotring.page("/readyz"), (200, "ready\n".to_owned()));
    redis[1].kill();
    let out = (200, "ready\nshard main/s1 is ejected\n".to_owned());
    eventually("it is told, and is no reason to take the proxy away", || hotring.page("/readyz") == out);
    let (_, table) = hotring.page("/backends");
    let row = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(name)).unwrap();
        line.split_whitespace().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("s0"), [&at[0], "up", "1", "0", "0", "primary"]);
    assert_eq!(row("s1"), [&at[1], "ejected", "0", "0", "0", "primary"]);
    redis[1].restart();
    eventually("it is back", || hotring.page("/readyz") == (200, "ready\n".to_owned()));
}

#[test]
fn a_shard_is_down_whichever_protocols_and_databases_apps_have_used() {
    for before in [&["SELECT 1"][..], &["HELLO 3"], &["HELLO 3", "SELECT 1"]] {
        let (mut redis, at) = shards(2);
        let hotring = Hotring::with_admin(&pool(&at, &[]));
        let (mut plain, mut other) = (hotring.app(), hotring.app());
        let key = key_on(1, 2);
        assert_eq!(plain.ask(&format!("SET {key} v")), "+OK\r\n");
        before.iter().for_each(|words| drop(other.ask(words)));
        assert_eq!(other.ask(&format!("SET {key} v")), "+OK\r\n");
        redis[1].kill();
        eventually("it is told", || {
            plain.ask(&format!("GET {key}"));
            hotring.page("/readyz").1.contains("shard main/s1 is ejected")
        });
        redis[1].restart();
        eventually("it is back", || hotring.page("/readyz") == (200, "ready\n".to_owned()));
    }
}
