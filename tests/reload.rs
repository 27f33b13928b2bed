//! The configuration changes while hotring runs: what need not change is not touched, what leaves is finished with, and a
//! file with anything wrong changes nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::proxy::Signal;
use std::os::unix::fs::symlink;
use std::path::Path;
use support::{Client, FOREVER, Fake, Hotring, Redis, Scratch, Site, eventually, free_port, shards, wire};

/// A file with one pool over servers of these names.
fn yaml(listen: &str, servers: &[(&str, &str)], keys: &[&str]) -> String {
    let mut yaml = "watch: off\npools:\n  main:\n    distribution: even\n".to_owned();
    // Servers that get no turn for a while are none that break.
    if !keys.iter().any(|key| key.starts_with("timeout:")) {
        yaml += "    timeout: 1m\n";
    }
    yaml += &format!("    connect_timeout: 1m\n    listen: {listen}\n    servers:\n");
    for (name, address) in servers {
        yaml += &format!("      - {address}:1 {name}\n");
    }
    for key in keys {
        yaml += &format!("    {key}\n");
    }
    yaml
}

const ANYWHERE: &str = "127.0.0.1:0";

#[test]
fn a_shard_comes_and_another_goes_and_no_app_notices() {
    let (redis, at) = shards(3);
    // A server that gets no turn for seconds would be probed, on one connection more.
    let file = |which: &[usize]| {
        let servers: Vec<_> = which.iter().map(|&n| (["a", "b", "c"][n], at[n].as_str())).collect();
        yaml(ANYWHERE, &servers, &["probe_interval: off"])
    };
    let site = Site::new(&file(&[0, 1]));
    let mut apps: Vec<Client> = (0..5).map(|_| site.hotring.app()).collect();
    for (number, app) in apps.iter_mut().enumerate() {
        for key in 0..40 {
            assert_eq!(app.ask(&format!("SET key:{number}:{key} {key}")), "+OK\r\n");
        }
    }
    let connections = || redis[..2].iter().map(Redis::connected).collect::<Vec<_>>();
    let before = connections();
    assert!(before.iter().all(|ids| ids.len() == 1), "{before:?}");
    let (status, told) = site.reload(&file(&[0, 1, 2]));
    assert_eq!(status, 200, "{told}");
    assert!(told.starts_with("pool main: comes c; 3") && told.contains("% of the keyspace moves\n"), "{told}");
    // The same sessions, and the connections that there were, go on; the new shard gets its keys.
    for (number, app) in apps.iter_mut().enumerate() {
        for key in 0..40 {
            let name = format!("key:{number}:{key}");
            let found = app.ask(&format!("GET {name}"));
            assert!(found == "$-1\r\n" || found == format!("${}\r\n{key}\r\n", key.to_string().len()), "{found}");
            assert_eq!(app.ask(&format!("SET {name} new")), "+OK\r\n");
        }
    }
    assert_eq!(connections(), before);
    let size = |redis: &Redis| redis.client().ask("DBSIZE");
    assert_ne!(size(&redis[2]), ":0\r\n");
    // The first one goes: its connections are closed, and nothing is sent to it any more.
    let (status, told) = site.reload(&file(&[1, 2]));
    assert_eq!(status, 200);
    assert!(told.starts_with("pool main: goes a;"), "{told}");
    eventually("the connection to the shard that left is closed", || redis[0].connections() <= 1);
    let calls = redis[0].calls("set");
    for (number, app) in apps.iter_mut().enumerate() {
        for key in 0..40 {
            assert_eq!(app.ask(&format!("SET key:{number}:{key} newer")), "+OK\r\n");
        }
    }
    assert_eq!(redis[0].calls("set"), calls);
    let (_, rows) = site.hotring.page("/backends");
    assert!(!rows.contains(" a ") && rows.contains(" b ") && rows.contains(" c "), "{rows}");
    // Back again, and with its number: all is as it was.
    site.reload(&file(&[0, 1, 2]));
    for (number, app) in apps.iter_mut().enumerate() {
        assert_eq!(app.ask(&format!("SET key:{number} back")), "+OK\r\n");
        assert_eq!(app.ask("DBSIZE").as_bytes()[0], b':');
    }
    assert_eq!(site.hotring.metric("hotring_config_reloads_total{result=\"refused\"}"), 0.0);
    eventually("the reloads are counted", || {
        site.hotring.metric("hotring_config_reloads_total{result=\"taken\"}") == 3.0
    });
}

#[test]
fn what_was_asked_of_a_shard_that_leaves_is_still_answered() {
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let slow = Fake::start(move |visit| {
        visit.shake_hands();
        while let Some(request) = visit.request() {
            if request[0].eq_ignore_ascii_case(b"get") {
                may_answer.lock().unwrap().recv_timeout(FOREVER).unwrap();
            }
            visit.send(b"$4\r\nslow\r\n");
        }
    });
    let redis = Redis::start(&[]);
    let both = yaml(ANYWHERE, &[("a", slow.address()), ("b", redis.address())], &[]);
    let site = Site::new(&both);
    let mut app = site.hotring.app();
    // A key of the slow one.
    let mut key = 0;
    while !site.hotring.page(&format!("/explain?key=k{key}")).1.contains("-> forwarded to a") {
        key += 1;
    }
    app.send(&wire(&["GET", &format!("k{key}")]));
    app.send(&wire(&["PING", "behind"]));
    eventually("it is on its way", || {
        site.hotring.metric("hotring_server_out_queue{pool=\"main\",backend=\"a\"}") == 1.0
    });
    let (status, _) = site.reload(&yaml(ANYWHERE, &[("b", redis.address())], &[]));
    assert_eq!(status, 200);
    let mut other = site.hotring.app();
    assert_eq!(other.ask(&format!("GET k{key}")), "$-1\r\n", "from now on it lives elsewhere");
    answer.send(()).unwrap();
    assert_eq!([app.text(), app.text()], ["$4\r\nslow\r\n", "$6\r\nbehind\r\n"]);
    assert_eq!(app.ask(&format!("GET k{key}")), "$-1\r\n");
    eventually("its series are gone", || !site.hotring.page("/metrics").1.contains("backend=\"a\""));
}

#[test]
fn a_bad_file_keeps_the_last_good_one_and_says_so() {
    let (_redis, at) = shards(1);
    let good = yaml(ANYWHERE, &[("a", &at[0])], &[]);
    let site = Site::new(&good);
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let (status, told) = site.reload(&good.replace("distribution: even", "distribution: evn"));
    assert_eq!(status, 422);
    assert!(told.contains("proxy.yaml:4:19: pools.main.distribution: read `evn`, expected one of"), "{told}");
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    let (status, detail) = site.hotring.page("/readyz");
    assert_eq!(status, 200, "the last good one is served");
    assert!(detail.contains("the last configuration was not taken:") && detail.contains("evn"), "{detail}");
    eventually("the metric tells", || site.hotring.metric("hotring_config_refused") == 1.0);
    // An address that cannot be bound is as bad as a wrong word, and nothing else of the file is taken.
    let taken = std::net::TcpListener::bind(ANYWHERE).unwrap();
    let there = taken.local_addr().unwrap();
    let two = format!("[\"{ANYWHERE}\", \"{there}\", \"127.0.0.1:{}\"]", free_port());
    let (status, told) = site.reload(&yaml(&two, &[("a", &at[0])], &["max_pipeline: 1"]));
    assert_eq!(status, 422);
    assert!(told.contains(&format!("pool main: cannot listen on {there}")), "{told}");
    assert!(site.hotring.page("/config").1.contains("max_pipeline: 1024"));
    let (status, _) = site.reload(&good);
    assert_eq!(status, 200);
    assert!(!site.hotring.page("/readyz").1.contains("not taken"));
    eventually("the metric tells", || site.hotring.metric("hotring_config_refused") == 0.0);
    assert_eq!(site.hotring.metric("hotring_config_reloads_total{result=\"refused\"}"), 2.0);
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn only_asking_changes_nothing() {
    let (_redis, at) = shards(2);
    let site = Site::new(&yaml(ANYWHERE, &[("a", &at[0])], &[]));
    site.dir.write("proxy.yaml", &yaml(ANYWHERE, &[("a", &at[0]), ("b", &at[1])], &["timeout: 1s"]));
    let (status, told) = site.hotring.ask_admin("POST", "/reload?dry_run", "");
    assert_eq!(status, 200);
    assert!(told.starts_with("pool main: comes b; ") && !told.contains("taken"), "{told}");
    let share: f64 = told.split("b; ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((45.0..55.0).contains(&share), "half of the keys: {told}");
    assert!(site.hotring.page("/config").1.contains("\n    timeout: 1m\n"));
    // Nor does a page that a browser has open, or a GET.
    assert_eq!(site.hotring.ask_admin("POST", "/reload", "Origin: http://evil.example\r\n").0, 403);
    assert_eq!(site.hotring.ask_admin("GET", "/reload", "").0, 405);
    assert!(site.hotring.page("/config").1.contains("\n    timeout: 1m\n"));
}

#[test]
fn the_file_is_followed_through_the_symlinks_of_a_config_map() {
    let (_redis, at) = shards(1);
    let dir = Scratch::new();
    let text = |most: u32| {
        yaml(ANYWHERE, &[("a", &at[0])], &[&format!("max_pipeline: {most}")]).replace("watch: off", "watch: 100ms")
    };
    // As Kubernetes lays it out: proxy.yaml -> ..data/proxy.yaml, ..data -> ..1
    for (version, most) in [("..1", 11), ("..2", 22)] {
        std::fs::create_dir(dir.file(version)).unwrap();
        dir.write(&format!("{version}/proxy.yaml"), &text(most));
    }
    symlink("..1", dir.file("..data")).unwrap();
    symlink("..data/proxy.yaml", dir.file("proxy.yaml")).unwrap();
    let hotring = Hotring::with_file(&text(11), Path::new(&dir.file("proxy.yaml")));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    symlink("..2", dir.file("..data_tmp")).unwrap();
    std::fs::rename(dir.file("..data_tmp"), dir.file("..data")).unwrap();
    eventually("the other file is taken", || hotring.page("/config").1.contains("max_pipeline: 22"));
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    // A file that is gone is no reason to stop.
    std::fs::remove_file(dir.file("..data")).unwrap();
    eventually("it is told", || hotring.page("/readyz").1.contains("cannot be read"));
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
}

#[test]
fn pools_and_listeners_come_and_go() {
    let (_redis, at) = shards(2);
    let (one, two) = (free_port(), free_port());
    let pool = |name: &str, port: u16, at: &str| {
        format!("  {name}:\n    listen: 127.0.0.1:{port}\n    servers: [\"{at}:1 s\"]\n    hash: md5\n")
    };
    let file = |pools: &[String]| format!("watch: off\npools:\n{}", pools.concat());
    let site = Site::new(&file(&[pool("x", one, &at[0])]));
    let mut x = site.hotring.app();
    assert_eq!(x.ask("SET where x"), "+OK\r\n");
    let (status, told) = site.reload(&file(&[pool("x", one, &at[0]), pool("y", two, &at[1])]));
    assert_eq!((status, told.as_str()), (200, "pool y: new\ntaken\n"));
    let mut y = Client::connect(&format!("127.0.0.1:{two}"));
    assert_eq!((y.ask("GET where"), x.ask("GET where")), ("$-1\r\n".into(), "$1\r\nx\r\n".into()));
    assert_eq!(y.ask("SET where y"), "+OK\r\n");
    // They change places: the listeners stay open, sessions stay where they are.
    let swapped = file(&[pool("x", two, &at[0]), pool("y", one, &at[1])]);
    site.dir.write("proxy.yaml", &swapped);
    let (_, dry) = site.hotring.ask_admin("POST", "/reload?dry_run", "");
    let elsewhere = "for apps that connect there 100.0 % of the keyspace is at another server\n  sessions that are open stay with pool ";
    for (port, new, old) in [(one, "y", "x"), (two, "x", "y")] {
        let warned = format!("warning: 127.0.0.1:{port} leads to pool {new} in place of {old}: {elsewhere}{old} until");
        assert!(dry.contains(&warned), "{dry}");
    }
    let (status, told) = site.reload(&swapped);
    assert_eq!((status, told), (200, format!("{dry}taken\n")));
    assert_eq!((y.ask("GET where"), x.ask("GET where")), ("$1\r\ny\r\n".into(), "$1\r\nx\r\n".into()));
    let mut now = Client::connect(&format!("127.0.0.1:{two}"));
    assert_eq!(now.ask("GET where"), "$1\r\nx\r\n");
    // One goes: its sessions get what they asked for and end, new ones are not accepted.
    y.send(&wire(&["GET", "where"]).repeat(3));
    let (status, told) = site.reload(&file(&[pool("x", two, &at[0])]));
    assert_eq!(status, 200);
    assert!(told.contains("pool y: gone; its sessions end when they are answered\n"), "{told}");
    assert_eq!(String::from_utf8(y.rest()).unwrap(), "$1\r\ny\r\n".repeat(3));
    eventually("its listener is closed", || Client::try_connect(&format!("127.0.0.1:{one}")).is_err());
    assert_eq!(x.ask("GET where"), "$1\r\nx\r\n");
    // And comes again under its name.
    assert_eq!(site.reload(&file(&[pool("x", two, &at[0]), pool("y", one, &at[1])])).0, 200);
    let mut y = Client::connect(&format!("127.0.0.1:{one}"));
    assert_eq!(y.ask("GET where"), "$1\r\ny\r\n");
}

#[test]
fn users_and_limits_are_others_from_then_on() {
    let (_redis, at) = shards(1);
    let file = |keys: &[&str]| yaml(ANYWHERE, &[("a", &at[0])], keys);
    let reader = "users: {app: {password: one, rules: \"+@all ~*\"}, old: {password: two, rules: \"+@all ~*\"}}";
    let site = Site::new(&file(&[reader]));
    let (mut app, mut old, mut nobody) = (site.hotring.app(), site.hotring.app(), site.hotring.app());
    assert_eq!(app.ask("AUTH app one"), "+OK\r\n");
    assert_eq!(old.ask("AUTH old two"), "+OK\r\n");
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let fewer = "users: {app: {password: other, rules: \"+@read ~*\"}}";
    assert_eq!(site.reload(&file(&[fewer, "client_connections: 2"])).0, 200);
    // Rules hold at once; who is logged in stays so; who is gone is gone.
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    assert!(app.ask("SET k w").starts_with("-NOPERM"));
    assert_eq!(old.rest(), b"");
    assert_eq!(nobody.ask("SET k w"), "+OK\r\n");
    let mut late = site.hotring.app();
    assert_eq!(late.text(), "-ERR max number of clients reached\r\n");
    assert!(app.ask("AUTH app one").starts_with("-WRONGPASS"));
    assert_eq!(app.ask("AUTH app other"), "+OK\r\n");
}

#[test]
fn the_servers_password_may_change() {
    let redis = Redis::start(&["--requirepass", "one"]);
    let file = |password: &str| {
        yaml(ANYWHERE, &[("a", redis.address())], &[&format!("server_auth: {{password: {password}}}")])
    };
    let site = Site::new(&file("one"));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    let mut direct = redis.client();
    direct.ask("AUTH one");
    assert_eq!(direct.ask("CONFIG SET requirepass two"), "+OK\r\n");
    assert_eq!(site.reload(&file("two")).0, 200);
    for _ in 0..10 {
        assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    }
}

#[test]
fn transactions_blocked_commands_and_subscriptions_live_through_it() {
    let (redis, at) = shards(2);
    let (both, one) = ([("a", at[0].as_str()), ("b", at[1].as_str())], [("b", at[1].as_str())]);
    let site = Site::new(&yaml(ANYWHERE, &both, &[]));
    let on = |shard: &str| {
        let forwarded = format!("-> forwarded to {shard}");
        (0..)
            .map(|n| format!("k{n}"))
            .find(|key| site.hotring.page(&format!("/explain?key={key}")).1.contains(&forwarded))
    };
    let (key_a, key_b) = (on("a").unwrap(), on("b").unwrap());
    let (mut multi, mut waits, mut hears, mut far) =
        (site.hotring.app(), site.hotring.app(), site.hotring.app(), site.hotring.app());
    assert_eq!(multi.ask("MULTI"), "+OK\r\n");
    assert_eq!(multi.ask(&format!("SET {key_a} 1")), "+QUEUED\r\n");
    waits.send(&wire(&["BLPOP", &format!("list{{{key_b}}}{key_b}"), "0"]));
    let channel = key_a.clone();
    assert!(hears.ask(&format!("SUBSCRIBE {channel}")).ends_with(":1\r\n"));
    assert!(far.ask("PSUBSCRIBE *").ends_with(":1\r\n"));
    assert_eq!(site.reload(&yaml(ANYWHERE, &one, &[])).0, 200);
    // The transaction ends on the shard where it began.
    assert_eq!(multi.ask("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(redis[0].client().ask(&format!("GET {key_a}")), "$1\r\n1\r\n");
    // Published from now on at the new home, and heard there.
    let mut app = site.hotring.app();
    eventually("it has moved", || app.ask(&format!("PUBLISH {channel} x")) == ":2\r\n");
    let message = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n$1\r\nx\r\n", channel.len());
    assert_eq!(hears.text(), message);
    assert!(far.text().contains("pmessage"));
    eventually("nothing is left at the shard that is gone", || redis[0].connections() <= 1);
    assert_eq!(multi.ask(&format!("GET {key_a}")), "$-1\r\n");
    // What waits for a shard that stays waits on.
    let list = format!("list{{{key_b}}}{key_b}");
    app.ask(&format!("RPUSH {list} v"));
    assert!(waits.text().contains("$1\r\nv\r\n"));
    // And with both again a pattern hears both.
    assert_eq!(site.reload(&yaml(ANYWHERE, &both, &[])).0, 200);
    eventually("the pattern is everywhere", || {
        redis.iter().all(|redis| redis.client().ask("PUBSUB NUMPAT") == ":1\r\n")
    });
}

#[test]
fn sighup_is_enough() {
    let (_redis, at) = shards(2);
    let site = Site::new(&yaml(ANYWHERE, &[("a", &at[0])], &[]));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    site.dir.write("proxy.yaml", &yaml(ANYWHERE, &[("a", &at[0])], &["max_pipeline: 7", "server_connections: 3"]));
    site.hotring.tell(Signal::Reload);
    eventually("it is taken", || site.hotring.page("/config").1.contains("max_pipeline: 7"));
    assert_eq!(app.ask("GET k"), "$1\r\nv\r\n");
    for _ in 0..6 {
        assert_eq!(site.hotring.app().ask("GET k"), "$1\r\nv\r\n");
    }
    // Fewer connections again: who has one keeps it.
    let mut apps: Vec<Client> = (0..6).map(|_| site.hotring.app()).collect();
    site.dir.write("proxy.yaml", &yaml(ANYWHERE, &[("a", &at[0]), ("b", &at[1])], &["server_connections: 1"]));
    assert_eq!(site.hotring.ask_admin("POST", "/reload", "").0, 200);
    for app in &mut apps {
        for key in 0..20 {
            assert_eq!(app.ask(&format!("SET key:{key} {key}")), "+OK\r\n");
        }
        assert_eq!(app.ask("HELLO 3").as_bytes()[0], b'%');
        assert_eq!(app.ask("GET key:1"), "$1\r\n1\r\n");
    }
}

#[test]
fn a_pool_of_nodes_in_this_process_grows_and_keeps_what_it_has() {
    let file = |count: u32| {
        format!(
            "watch: off\npools:\n  main:\n    listen: {ANYWHERE}\n    servers: embedded:{count}\n    distribution: even\n"
        )
    };
    let site = Site::new(&file(2));
    let mut app = site.hotring.app();
    for key in 0..100 {
        assert_eq!(app.ask(&format!("SET key:{key} {key}")), "+OK\r\n");
    }
    assert_eq!(site.reload(&file(3)).0, 200);
    let kept = (0..100).filter(|key| app.ask(&format!("GET key:{key}")) != "$-1\r\n").count();
    assert!((40..90).contains(&kept), "{kept} of 100 keys stay where they are");
    assert_eq!(site.reload(&file(2)).0, 200);
    for key in 0..100 {
        assert_ne!(app.ask(&format!("GET key:{key}")), "$-1\r\n");
    }
}
