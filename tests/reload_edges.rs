//! Changes of the configuration at awkward moments: half refused, only asked about, twice in a row, with shards that are out
//! of the ring.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use support::{Client, Fake, Hotring, Redis, Scratch, Site, eventually, free_port, shards};

#[test]
fn an_ejected_shard_leaves_and_comes_back() {
    let redis = Redis::start(&[]);
    let dead = format!("127.0.0.1:{}", free_port());
    let file = |servers: &[(&str, &str)]| {
        let list: String = servers.iter().map(|(name, at)| format!("      - {at}:1 {name}\n")).collect();
        format!(
            "watch: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    auto_eject_hosts: true\n    \
             server_failure_limit: 1\n    server_retry_timeout: 10m\n    preconnect: true\n    timeout: 1m\n    connect_timeout: 1m\n    servers:\n{list}"
        )
    };
    let (one, both) = (file(&[("b", redis.address())]), file(&[("a", &dead), ("b", redis.address())]));
    let site = Site::new(&both);
    let is_ejected = || site.hotring.page("/backends").1.lines().any(|l| l.contains(" a ") && l.contains("ejected"));
    let mut app = site.hotring.app();
    for _ in 0..2 {
        eventually("it is ejected", || {
            let _ = app.ask("MGET k1 k2 k3 k4 k5 k6 k7 k8");
            is_ejected()
        });
        let ejects = || site.hotring.metric("hotring_server_ejects_total{pool=\"main\",backend=\"a\"}");
        eventually("that is counted", || (1.0..3.0).contains(&ejects()));
        assert_eq!(site.reload(&one).0, 200);
        eventually("it is gone", || !site.hotring.page("/metrics").1.contains("backend=\"a\""));
        assert_eq!(site.reload(&both).0, 200);
        assert_eq!(app.ask("PING"), "+PONG\r\n");
    }
}

#[test]
fn asking_what_would_change_does_not_keep_it_from_being_taken() {
    let (_redis, at) = shards(1);
    let file = |most: u32| {
        format!(
            "watch: 300ms\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"{}:1 a\"]\n    connect_timeout: 1m\n    \
             max_pipeline: {most}\n",
            at[0]
        )
    };
    let site = Site::new(&file(11));
    site.dir.write("proxy.yaml", &file(22));
    // Again and again, as long as it would change something.
    eventually("it is taken", || {
        site.hotring.ask_admin("POST", "/reload?dry_run", "");
        site.hotring.page("/config").1.contains("max_pipeline: 22")
    });
}

#[test]
fn a_file_that_a_change_brings_along_is_followed_too() {
    let (_redis, at) = shards(1);
    let dir = Scratch::new();
    let secret = dir.write("secret", "one");
    let file = |keys: &str| {
        format!(
            "watch: 100ms\npools:\n  main:\n    listen: 127.0.0.1:0\n    connect_timeout: 1m\n    servers: [\"{}:1 a\"]\n{keys}",
            at[0]
        )
    };
    let path = dir.write("proxy.yaml", &file(""));
    let hotring = Hotring::with_file(&file(""), Path::new(&path));
    let mut app = hotring.app();
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    dir.write("proxy.yaml", &file(&format!("    client_auth: {{password_file: {secret}}}\n")));
    eventually("the first password is asked for", || hotring.app().ask("AUTH one") == "+OK\r\n");
    std::fs::write(&secret, "another").unwrap();
    eventually("the second password is asked for", || hotring.app().ask("AUTH another") == "+OK\r\n");
}

#[test]
fn a_refused_swap_of_listeners_can_still_be_made() {
    let (_redis, at) = shards(2);
    let (one, two) = (free_port(), free_port());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = |x: &str, y: &str| {
        format!(
            "watch: off\npools:\n  x:\n    listen: {x}\n    connect_timeout: 1m\n    servers: [\"{}:1 s\"]\n  y:\n    listen: {y}\n    \
             connect_timeout: 1m\n    servers: [\"{}:1 s\"]\n",
            at[0], at[1]
        )
    };
    let (one, two) = (format!("127.0.0.1:{one}"), format!("127.0.0.1:{two}"));
    let site = Site::new(&file(&one, &two));
    assert_eq!(Client::connect(&one).ask("SET where x"), "+OK\r\n");
    assert_eq!(Client::connect(&two).ask("SET where y"), "+OK\r\n");
    let bad = format!("[\"{one}\", \"{}\"]", taken.local_addr().unwrap());
    assert_eq!(site.reload(&file(&two, &bad)).0, 422);
    assert_eq!(Client::connect(&one).ask("GET where"), "$1\r\nx\r\n");
    assert_eq!(site.reload(&file(&two, &one)).0, 200);
    assert_eq!(Client::connect(&one).ask("GET where"), "$1\r\ny\r\n");
    assert_eq!(Client::connect(&two).ask("GET where"), "$1\r\nx\r\n");
}

#[test]
fn a_listener_that_was_closed_can_be_opened_again_at_once() {
    let (_redis, at) = shards(1);
    let dir = Scratch::new();
    let (port, socket) = (format!("127.0.0.1:{}", free_port()), dir.file("app.sock"));
    let file = |listen: &str| {
        format!(
            "watch: off\npools:\n  main:\n    listen: {listen}\n    connect_timeout: 1m\n    servers: [\"{}:1 a\"]\n",
            at[0]
        )
    };
    let (few, all) = (file("127.0.0.1:0"), file(&format!("[\"127.0.0.1:0\", \"{port}\", {socket}]")));
    let site = Site::new(&few);
    for _ in 0..50 {
        let (status, told) = site.reload(&all);
        assert_eq!(status, 200, "{told}");
        assert_eq!(Client::connect(&port).ask("PING"), "+PONG\r\n");
        assert_eq!(Client::connect(&socket).ask("PING"), "+PONG\r\n");
        assert_eq!(site.reload(&few).0, 200);
    }
    assert!(Client::try_connect(&port).is_err() && !Path::new(&socket).exists());
}

#[test]
fn a_shard_that_hangs_as_it_leaves_can_come_back() {
    // Lets nobody in for as long as it is told to.
    let hangs = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let flag = std::sync::Arc::clone(&hangs);
    let fake = Fake::start(move |visit| {
        if flag.load(std::sync::atomic::Ordering::Relaxed) {
            while visit.request().is_some() {}
            return;
        }
        visit.shake_hands();
        while visit.request().is_some() {
            visit.send(b"$4\r\nback\r\n");
        }
    });
    let redis = Redis::start(&[]);
    let file = |servers: &[(&str, &str)]| {
        let list: String = servers.iter().map(|(name, at)| format!("      - {at}:1 {name}\n")).collect();
        format!("watch: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    connect_timeout: 5s\n    servers:\n{list}")
    };
    let (one, both) = (file(&[("b", redis.address())]), file(&[("a", fake.address()), ("b", redis.address())]));
    let site = Site::new(&both);
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| site.hotring.page(&format!("/explain?key={key}")).1.contains("-> forwarded to a"))
        .unwrap();
    let mut app = site.hotring.app();
    app.send(&support::wire(&["GET", &key]));
    eventually("it is being opened", || {
        site.hotring.metric("hotring_server_in_queue{pool=\"main\",backend=\"a\"}") == 1.0
    });
    assert_eq!(site.reload(&one).0, 200);
    assert_eq!(site.reload(&both).0, 200);
    assert!(app.text().starts_with("-ERR shard a"));
    hangs.store(false, std::sync::atomic::Ordering::Relaxed);
    eventually("it is there again", || app.ask(&format!("GET {key}")) == "$4\r\nback\r\n");
}

#[test]
fn a_pool_that_has_left_is_counted_no_more() {
    let (_redis, at) = shards(1);
    let pool = |name: &str| {
        format!(
            "  {name}:\n    listen: 127.0.0.1:0\n    connect_timeout: 1m\n    servers: [\"{}:1 a\"]\n    rate_limits: [{{requests: 1000/s}}]\n",
            at[0]
        )
    };
    let file =
        |pools: &[&str]| format!("watch: off\npools:\n{}", pools.iter().map(|name| pool(name)).collect::<String>());
    let site = Site::new(&file(&["x", "y"]));
    let mut app = Client::connect(site.hotring.address(1));
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let is_told = || site.hotring.page("/metrics").1.contains("pool=\"y\"");
    eventually("it is told of", is_told);
    assert_eq!(site.reload(&file(&["x"])).0, 200);
    assert_eq!(app.rest(), b"");
    eventually("it is not told of any more", || !is_told());
    // Nor after the next change.
    assert_eq!(site.reload(&file(&["x"]).replace("1000/s", "2000/s")).0, 200);
    assert_eq!(site.hotring.app().ask("GET k"), "$1\r\nv\r\n");
    assert!(!is_told());
    assert_eq!(site.reload(&file(&["x", "y"])).0, 200);
    eventually("it is told of again", is_told);
}

#[test]
fn what_needs_a_restart_is_told() {
    let (_redis, at) = shards(1);
    let dir = Scratch::new();
    let socket = dir.file("app.sock");
    let file = |listen: &str, keys: &str| {
        format!(
            "watch: off\npools:\n  main:\n    listen: {listen}\n    connect_timeout: 1m\n    servers: [\"{}:1 a\"]\n{keys}",
            at[0]
        )
    };
    let site = Site::new(&file(&format!("\"{socket} 0600\""), ""));
    let (_, told) = site.reload(&file(&format!("\"{socket} 0666\""), ""));
    assert!(told.contains("the mode of `") && told.contains("needs a restart"), "{told}");
    // Also where another address comes along.
    let (_, told) = site.reload(&file(&format!("[\"{socket} 0666\", \"127.0.0.1:0\"]"), "    backlog: 7\n"));
    assert!(told.contains("`backlog`") && !told.contains("the mode"), "{told}");
}
