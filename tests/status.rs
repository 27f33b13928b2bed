//! `/status`: what the process tells of itself, read with the types it is written with.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and tells what it has measured")]

mod support;

use hotring::admin::status::{HISTORY, Pool, SECTORS, Shard, Status, VERSION};
use support::{Cluster, Hotring, Site, eventually, home, key_on, now, over_cluster, pool, shards, wire};

fn status(hotring: &Hotring) -> Status {
    let (code, text) = hotring.page("/status");
    assert_eq!(code, 200);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn main_pool(hotring: &Hotring) -> Pool {
    status(hotring).pools.remove(0)
}

fn shard(hotring: &Hotring, number: usize) -> Shard {
    main_pool(hotring).shards.remove(number)
}

#[test]
fn it_tells_who_is_there_and_how_much_is_asked() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["listen_strict: 127.0.0.1:0", "preconnect: true"]));
    let mut apps = [hotring.app(), hotring.app()];
    for n in 0..300 {
        assert_eq!(apps[0].ask(&format!("SET key:{n} v")), "+OK\r\n");
        assert_eq!(apps[1].ask(&format!("GET key:{n}")), "$1\r\nv\r\n");
    }
    apps[0].ask("NONSENSE");
    eventually("it is counted", || {
        let pool = main_pool(&hotring);
        pool.requests.total == 601 && pool.errors.total == 1 && pool.server_connections == 3 && pool.pending == 0
    });
    let told = status(&hotring);
    assert_eq!(told.version, VERSION);
    let process = &told.process;
    assert_eq!((process.hotring.as_str(), process.workers, process.panics), (env!("CARGO_PKG_VERSION"), 1, 0));
    assert!(process.started > 1_700_000_000_000 && process.started <= told.now, "{process:?}");
    assert!(process.config_loaded >= process.started && process.config_hash > 0, "{process:?}");
    assert!(process.memory_limit_bytes.is_some() && process.has_token && process.not_ready.is_empty(), "{process:?}");
    assert_eq!(process.last_reload, None);
    let pool = &told.pools[0];
    assert_eq!((pool.name.as_str(), pool.kind.as_str(), pool.apps), ("main", "servers", 2));
    let strict: Vec<bool> = pool.listeners.iter().map(|listener| listener.strict).collect();
    assert_eq!(strict, [false, true]);
    assert_eq!(pool.errors_by_cause.keys().collect::<Vec<_>>(), ["unknown_command"]);
    let names: Vec<&str> = pool.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    for (shard, at) in pool.shards.iter().zip(&at) {
        assert_eq!((shard.address.as_str(), shard.state.as_str(), shard.role.as_str()), (at.as_str(), "up", "primary"));
        assert!((0.2..0.5).contains(&shard.share) && shard.connections == 1 && shard.requests.total > 0, "{shard:?}");
    }
    assert!((pool.shards.iter().map(|shard| shard.share).sum::<f64>() - 1.0).abs() < 1e-9);
    // Whose a sector is, is about what his share is.
    assert_eq!((pool.ring.of.as_str(), pool.ring.sectors.len()), ("hash", SECTORS as usize));
    for (number, shard) in (0..).zip(&pool.shards) {
        let drawn = pool.ring.sectors.iter().filter(|owner| **owner == number).count() as f64 / f64::from(SECTORS);
        assert!((drawn - shard.share).abs() < 0.1, "{number}: {drawn} of {}", shard.share);
    }
}

#[test]
fn rates_and_histories_are_of_the_last_seconds() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &[]));
    let mut app = hotring.app();
    eventually("there is a rate, a latency and a history", || {
        app.ask("GET k");
        app.ask("NONSENSE");
        let pool = main_pool(&hotring);
        let history = &pool.history;
        let length = history.at.len();
        assert!(length <= HISTORY);
        assert_eq!([history.requests.len(), history.errors.len(), history.p99_micros.len()], [length; 3]);
        length > 2
            && pool.requests.per_second > 0.0
            && pool.errors_by_cause["unknown_command"].per_second > 0.0
            && pool.shards[0].requests.per_second > 0.0
            && pool.latency.p50_micros.is_some_and(|p50| p50 <= pool.latency.p99_micros.unwrap())
            && history.requests.iter().any(|rate| *rate > 0.0)
            && history.p99_micros.iter().any(Option::is_some)
    });
    eventually("it is quiet again, and the history remembers", || {
        let pool = main_pool(&hotring);
        pool.requests.per_second == 0.0
            && pool.latency.p99_micros.is_none()
            && pool.history.requests.iter().any(|rate| *rate > 0.0)
    });
}

#[test]
fn a_shard_that_is_killed_is_told_at_once_and_so_is_its_return() {
    let (mut redis, at) = shards(2);
    let hotring = Hotring::with_admin(&pool(&at, &["preconnect: true", "server_retry_timeout: 100ms"]));
    eventually("both are up", || main_pool(&hotring).shards.iter().all(|shard| shard.state == "up"));
    let begun = now();
    redis[1].kill();
    eventually("it is told", || {
        ["suspect", "down", "ejected", "half-open"].contains(&shard(&hotring, 1).state.as_str())
    });
    println!("a killed shard is told in /status after {} ms", begun.elapsed().as_millis());
    eventually("so is why", || {
        let told = shard(&hotring, 1);
        told.state != "up" && !told.last_error.is_empty() && told.ejects > 0 && told.connections == 0
    });
    assert_eq!(shard(&hotring, 0).last_error, "");
    assert_eq!(shard(&hotring, 0).state, "up");
    redis[1].restart();
    eventually("it is up again", || shard(&hotring, 1).state == "up");
}

#[test]
fn hot_keys_are_told_whatever_they_are_called() {
    let (_redis, at) = shards(3);
    let hotring = Hotring::with_admin(&pool(&at, &["hot_keys: {reads: observe}"]));
    let mut app = hotring.app();
    let key = b"<img src=x onerror=alert(1)>\xff\"\\\n";
    let get = [b"*2\r\n$3\r\nGET\r\n$32\r\n", &key[..], b"\r\n"].concat();
    assert_eq!(key.len(), 32);
    let begun = now();
    let mut hot = None;
    eventually("it is found", || {
        app.send(&get.repeat(200));
        (0..200).for_each(|_| assert_eq!(app.reply(), b"$-1\r\n"));
        hot = main_pool(&hotring).hot_keys.into_iter().find(|hot| hot.level == "hot");
        hot.is_some()
    });
    println!("a hot key is told in /status after {} ms", begun.elapsed().as_millis());
    let hot = hot.unwrap();
    assert_eq!(hot.key, r#"<img src=x onerror=alert(1)>\xff"\\\x0a"#);
    assert_eq!(hot.shard, format!("s{}", home(3, key)));
    assert!(hot.share > 0.9 && hot.served_by.starts_with("shard"), "{hot:?}");
    eventually("what would be done is counted", || {
        app.send(&get.repeat(200));
        (0..200).for_each(|_| drop(app.reply()));
        main_pool(&hotring).observed.hot_would_serve.total > 0
    });
}

#[test]
fn names_with_quotes_and_backslashes_are_told_as_they_are() {
    let (_redis, at) = shards(3);
    let names = [r#"a"b\c"#, r"a\", r#"a",backend="x"#];
    let (main, other) = (r#"p"\"#, r#"p"\","#);
    let mut yaml = pool(&at, &["hot_keys: {reads: observe}"]).replace("  main:", &format!("  '{main}':"));
    for (number, name) in names.iter().enumerate() {
        yaml = yaml.replace(&format!(" s{number}\n"), &format!(" {name}\n"));
    }
    yaml += &format!("  '{other}': {{listen: '127.0.0.1:0', servers: ['{}:1 {}']}}\n", at[0], names[0]);
    let hotring = Hotring::with_admin(&yaml);
    let mut app = hotring.app();
    let total = |pool: &Pool| pool.shards.iter().map(|shard| shard.requests.total).collect::<Vec<_>>();
    eventually("each has requests of its own, and a rate", || {
        (0..300).for_each(|n| drop(app.ask(&format!("GET {n}:{}", n * 7919))));
        main_pool(&hotring).shards.iter().all(|shard| shard.requests.total > 0 && shard.requests.per_second > 0.0)
    });
    let told = status(&hotring);
    let called: Vec<&str> = told.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(called, [main, other]);
    assert_eq!(told.pools[0].shards.iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(total(&told.pools[1]), [0], "what is asked of a pool is not told of another");
    // In the metrics the names are escaped as their format wants it. `/status` has what was counted up to a second ago.
    let series = [r#"a\"b\\c"#, r"a\\", r#"a\",backend=\"x"#]
        .map(|name| format!(r#"hotring_server_requests_total{{pool="p\"\\",backend="{name}"}}"#));
    eventually("all that is asked is told of its server", || {
        let pool = main_pool(&hotring);
        let metrics: Vec<f64> = series.iter().map(|series| hotring.metric(series)).collect();
        let counts: Vec<f64> = total(&pool).into_iter().map(|count| count as f64).collect();
        counts == metrics && pool.requests.total as f64 == counts.iter().sum::<f64>()
    });
    // So are they in what else is JSON or YAML.
    eventually("a key is hot", || {
        app.send(&wire(&["GET", r#"k"\"#]).repeat(200));
        (0..200).for_each(|_| drop(app.reply()));
        let (_, page) = hotring.page("/hotkeys");
        let page: serde_json::Value = serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"));
        assert_eq!(page["pools"][0]["pool"], main);
        let key = &page["pools"][0]["keys"][0];
        // A key is told with escapes of its own, for people.
        key["level"] == "hot" && key["key"] == r#"k\"\\"# && names.iter().any(|name| key["shard"] == **name)
    });
    let (_, shown) = hotring.page("/config");
    // Secrets are not told.
    let shown = shown.replace("admin_token: ", "# ");
    let config = hotring::config::parse(&shown, std::path::Path::new("proxy.yaml")).unwrap();
    assert_eq!(config.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), [main, other]);
}

#[test]
fn the_last_reload_is_told_taken_or_not() {
    let (_redis, at) = shards(2);
    let site = Site::new(&pool(&at[..1], &["^watch: off"]));
    let before = status(&site.hotring).process;
    assert_eq!(site.reload(&pool(&at, &["^watch: off"])).0, 200);
    let reload = status(&site.hotring).process.last_reload.unwrap();
    assert!(reload.taken && reload.told.contains("comes s1") && reload.at >= before.started, "{reload:?}");
    assert_eq!(main_pool(&site.hotring).shards.len(), 2);
    eventually("the number is another", || status(&site.hotring).process.config_hash != before.config_hash);
    assert_eq!(site.reload("pools: {main: {servers: 3}}\n").0, 422);
    let reload = status(&site.hotring).process.last_reload.unwrap();
    assert!(!reload.taken && reload.told.contains("pools.main.listen: missing"), "{reload:?}");
    assert_eq!(main_pool(&site.hotring).shards.len(), 2, "the last good one stays");
    site.hotring.ask_admin("POST", "/reload?dry_run", "");
    assert_eq!(status(&site.hotring).process.last_reload.unwrap(), reload, "asking is none");
}

#[test]
fn stampedes_are_told() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["misses: {lease: local, lease_wait: 60s, lease_term: 60s}"]));
    let (mut first, mut second, mut writer) = (hotring.app(), hotring.app(), hotring.app());
    assert_eq!(first.ask("GET k"), "$-1\r\n");
    second.send(&wire(&["GET", "k"]));
    eventually("one waits", || main_pool(&hotring).misses.waiting == 1);
    assert_eq!(writer.ask("SET k v"), "+OK\r\n");
    assert_eq!(second.reply(), b"$1\r\nv\r\n");
    eventually("a load was saved", || {
        let misses = main_pool(&hotring).misses;
        misses.waiting == 0 && misses.loads_saved.total == 1 && misses.stampedes.total == 1 && misses.leased.total == 1
    });
}

#[test]
fn in_a_cluster_the_ring_is_made_of_slots() {
    let cluster = Cluster::start(3, 0);
    let hotring = Hotring::with_admin(&over_cluster(&[cluster.address(0)], &[]));
    eventually("they are known", || main_pool(&hotring).shards.iter().filter(|s| s.role == "primary").count() == 3);
    let pool = main_pool(&hotring);
    assert_eq!((pool.kind.as_str(), pool.ring.of.as_str()), ("cluster", "slots"));
    assert_eq!(pool.shards.iter().filter_map(|shard| shard.slots).sum::<u32>(), 16384);
    assert!(pool.ring.sectors.iter().all(|owner| (0..3).contains(owner)), "{:?}", pool.ring);
    assert!(pool.topology.is_some_and(|topology| topology.error.is_none() && topology.age_seconds.is_some()));
}

#[test]
fn a_key_of_a_pool_does_not_count_in_another_whose_name_begins_alike() {
    let yaml = "pools:\n  a: {listen: '127.0.0.1:0', servers: embedded:1}\n  a\\\"b: {listen: '127.0.0.1:0', servers: embedded:2}\n";
    let hotring = Hotring::with_admin(yaml);
    let mut app = support::Client::connect(hotring.address(1));
    for _ in 0..5 {
        app.ask(&format!("GET {}", key_on(0, 2)));
    }
    eventually("they are counted", || status(&hotring).pools[1].requests.total == 5);
    let told = status(&hotring);
    assert_eq!(told.pools[0].requests.total, 0);
    assert_eq!((told.pools[0].apps, told.pools[1].apps), (0, 1));
    assert_eq!((told.pools[1].kind.as_str(), told.pools[1].shards.len()), ("embedded", 2));
}
