//! What is seen of hotring: that metrics say what has happened, that servers are asked what they tell, and that the dashboard, the
//! alerts and the runbook are about what there is. A real Prometheus reads a live hotring; promtool looks at all that it can.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/engine.rs"]
#[allow(dead_code, unreachable_pub, reason = "parts of several tests")]
mod inner;
#[path = "sight/prometheus.rs"]
mod prometheus;
mod support;

use hotring::metrics::{Exporter, METRICS};
use prometheus::{Prometheus, alerts, dashboard, filled_in, promtool, queries, read};
use std::collections::{BTreeMap, BTreeSet};
use support::{Fake, Hotring, Redis, Site, eventually, pool, shards, shards_with};

/// Names of metrics in a query.
fn names(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("hotring_") || word.starts_with("process_")).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let dashboard = dashboard();
    let mut all: Vec<String> = queries().into_iter().map(|(_, query)| query).collect();
    assert!(all.len() > 80, "{}", all.len());
    all.extend(alerts().into_iter().map(|alert| alert.expr));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    all.extend(variables.iter().filter_map(|variable| Some(variable["definition"].as_str()?.to_owned())));
    all.extend(
        dashboard["annotations"]["list"].as_array().unwrap().iter().map(|one| one["expr"].as_str().unwrap().to_owned()),
    );
    for query in &all {
        let found = names(query);
        assert!(!found.is_empty(), "{query}");
        for name in found {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(METRICS.iter().any(|metric| metric.name == family || metric.name == name), "{name} in {query}");
        }
    }
    let known: BTreeSet<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(known, ["backend", "datasource", "instance", "pool"].into());
}

#[test]
fn panels_have_their_place_and_their_source() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeMap::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is beside the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(place, title);
            assert_eq!(other, None, "{title} lies over another panel");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let rows: Vec<&str> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows.len(), 8, "{rows:?}");
}

#[test]
fn alerts_fire_when_they_are_to_and_have_their_page() {
    promtool(&["check", "rules", "alerts.yaml"], "").unwrap_or_else(|said| panic!("{said}"));
    promtool(&["test", "rules", "alerts_test.yaml"], "").unwrap_or_else(|said| panic!("{said}"));
    assert!(
        read("deploy/prometheus/alerts.yaml") == read("deploy/helm/hotring/alerts.yaml"),
        "deploy/prometheus/alerts.yaml and that of the chart are not the same"
    );
    let (tests, page) = (read("deploy/prometheus/alerts_test.yaml"), read("docs/runbook.md"));
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let alerts = alerts();
    assert_eq!(
        alerts.iter().map(|alert| alert.name.as_str()).collect::<BTreeSet<_>>(),
        sections.iter().copied().collect::<BTreeSet<_>>(),
        "alerts, and sections of docs/runbook.md"
    );
    assert_eq!(sections.len(), alerts.len());
    for alert in &alerts {
        let name = &alert.name;
        assert!(tests.contains(&format!("name: {name} fires\n")), "{name}");
        assert!(tests.contains(&format!("name: {name} does not fire\n")), "{name}");
        assert_eq!(alert.runbook, format!("docs/runbook.md#{}", name.to_lowercase()));
        assert!(alert.annotations.iter().all(|text| text.len() > 20), "{name}");
        assert!(["critical", "warning", "info"].contains(&alert.severity.as_str()), "{name}");
    }
    for section in page.split("\n### ").skip(1) {
        for part in ["**Means:**", "**Users see:**", "**Look:**", "**Do:**", "**Ignore:**"] {
            assert!(section.contains(part), "{part} of {}", section.lines().next().unwrap());
        }
    }
}

/// Every query of the dashboard is answered while there is traffic, and none of the alerts cannot be asked.
#[test]
fn a_prometheus_answers_every_query() {
    let (servers, at) = shards_with(2, &["--maxmemory", "100mb"]);
    let primary = Redis::tcp(&[]);
    let (host, port) = primary.address().rsplit_once(':').unwrap();
    let replica = Redis::tcp(&["--replicaof", host, port]);
    let at = [&at[0], &at[1], primary.address()];
    let replicas = format!("replicas: {{s2: [\"{}\"]}}", replica.address());
    let keys =
        ["info_interval: 100ms", "metrics_prefixes: [\"user:\", \"session:\"]", &replicas, "misses: {lease: local}"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let prometheus = Prometheus::reading(hotring.admin_address());
    let mut open: Vec<(String, String)> =
        queries().into_iter().map(|(title, query)| (title, filled_in(&query))).collect();
    let mut app = hotring.app();
    let mut round = 0;
    eventually("each query has an answer", || {
        for key in 0..9 {
            app.ask(&format!("SET user:{round}:{key} x"));
            app.ask(&format!("GET user:{round}:{key}"));
            app.ask(&format!("MGET user:{round}:{key} session:{key}"));
        }
        app.ask("NONSENSE");
        round += 1;
        open.retain(|(_, query)| prometheus.ask(query).is_none_or(|found| found.is_empty()));
        let told = hotring.page("/metrics").1;
        assert!(round < 100_000, "still without an answer: {open:#?}\n{told}");
        open.is_empty()
    });
    for alert in alerts() {
        assert!(prometheus.ask(&alert.expr).is_some(), "{}", alert.name);
    }
    // A server that is gone is told of.
    drop(servers);
    let gone = alerts().into_iter().find(|alert| alert.name == "HotringServerUnreachable").unwrap();
    eventually("the alert about a server that is gone", || {
        let mut app = hotring.app();
        (0..9).for_each(|key| drop(app.ask(&format!("GET user:{key}"))));
        prometheus.ask(&gone.expr).is_some_and(|found| found.iter().any(|one| one["metric"]["backend"] == "s0"))
    });
}

/// The text of `/metrics` has nothing that promtool would have otherwise, but for what it takes for units.
#[test]
fn promtool_finds_nothing_wrong_with_metrics() {
    let (_servers, at) = shards(1);
    let keys = ["info_interval: 100ms", "metrics_prefixes: [\"user:\"]"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET user:1 x"), "+OK\r\n");
    eventually("all is told", || {
        let told = hotring.page("/metrics").1;
        ["hotring_server_build_info{", "hotring_prefix_requests_total{", "hotring_command_duration_seconds_count{"]
            .iter()
            .all(|name| told.contains(name))
    });
    let page = hotring.page("/metrics").1;
    promtool(&["check", "metrics"], &page).unwrap_or_else(|said| panic!("{said}"));
    assert!(promtool(&["check", "metrics"], &page.replace("# TYPE", "# TYPO")).is_err(), "it can find something");
}

#[test]
fn hits_misses_commands_and_prefixes_are_counted_exactly() {
    let (_servers, at) = shards(2);
    let keys = ["metrics_prefixes: [\"user:\", \"user:vip:\", \"session:\"]"];
    let hotring = Hotring::with_admin(&pool(&at, &keys));
    let mut app = hotring.app();
    for n in 0..10 {
        app.ask(&format!("SET user:{n} 12345"));
    }
    app.ask("SET user:vip:1 x");
    app.ask("HSET h f x");
    for n in 0..15 {
        app.ask(&format!("GET user:{n}"));
    }
    app.ask("GET user:vip:1");
    app.ask("HGET h f");
    app.ask("HGET h other");
    // Five are there, of two prefixes, and three are not.
    app.ask("MGET user:1 user:2 session:1 user:vip:1 nothing user:3 user:4 session:2");
    app.ask("GET h");
    app.ask("GET");
    app.ask("INCR user:vip:1");
    app.ask("MULTI");
    app.ask("GET user:1");
    app.ask("EXEC");
    let wanted = [
        ("hotring_hits_total{pool=\"main\"}", 10.0 + 1.0 + 1.0 + 5.0),
        ("hotring_misses_total{pool=\"main\"}", 5.0 + 1.0 + 3.0),
        ("hotring_command_requests_total{pool=\"main\",command=\"get\"}", 15.0 + 1.0 + 1.0 + 1.0),
        ("hotring_command_requests_total{pool=\"main\",command=\"mget\"}", 1.0),
        ("hotring_command_errors_total{pool=\"main\",command=\"get\"}", 1.0),
        ("hotring_command_errors_total{pool=\"main\",command=\"incr\"}", 1.0),
        ("hotring_command_duration_seconds_count{pool=\"main\",command=\"hget\"}", 2.0),
        ("hotring_prefix_requests_total{pool=\"main\",prefix=\"user:\"}", 10.0 + 15.0 + 1.0 + 1.0),
        ("hotring_prefix_requests_total{pool=\"main\",prefix=\"user:vip:\"}", 3.0),
        ("hotring_prefix_requests_total{pool=\"main\",prefix=\"session:\"}", 0.0),
        ("hotring_prefix_hits_total{pool=\"main\",prefix=\"user:\"}", 10.0 + 4.0),
        ("hotring_prefix_misses_total{pool=\"main\",prefix=\"user:\"}", 5.0),
        ("hotring_prefix_hits_total{pool=\"main\",prefix=\"user:vip:\"}", 2.0),
        ("hotring_prefix_misses_total{pool=\"main\",prefix=\"session:\"}", 2.0),
        ("hotring_prefix_reply_bytes_total{pool=\"main\",prefix=\"user:vip:\"}", 5.0 + 7.0 + 46.0),
    ];
    let mut wrong = Vec::new();
    eventually("counts", || {
        wrong =
            wanted.iter().map(|&(name, value)| (name, value, hotring.metric(name))).filter(|w| w.1 != w.2).collect();
        let late = hotring.metric("hotring_replies_total{pool=\"main\"}") < 38.0;
        assert!(late || wrong.len() < wanted.len(), "name, wanted, found: {wrong:#?}");
        wrong.is_empty() || !late && panic_after(&wrong)
    });
}

/// What is passed on while it arrives is counted as what is held whole, however it is cut: requests to their last byte, and replies.
#[test]
fn long_requests_and_replies_are_counted_by_prefix() {
    let (_servers, at) = shards(2);
    let yaml = |more: &[&str]| pool(&at, &[&["metrics_prefixes: [\"user:\", \"t:user:\"]"], more].concat());
    let value = vec![b'x'; (2 << 20) + 5];
    for (tenant, prefix) in [("", "user:"), ("t:", "t:user:")] {
        let own = format!("prefix: '{tenant}'");
        let more = if tenant.is_empty() { "timeout: 1m" } else { &own };
        let hotring = Hotring::with_admin(&yaml(&[more]));
        let mut app = hotring.app();
        let set = support::wire(&[b"SET".as_slice(), b"user:1", &value, b"EX", b"100"]);
        let push = support::wire(&[b"RPUSH".as_slice(), b"user:list", b"a", &value, b"b", &value]);
        let other = support::wire(&[b"SET".as_slice(), b"other", &value]);
        let (mut bytes, mut requests) = (0, 0);
        for (wire, cut) in [(&set, 1 << 16), (&push, 1 << 20), (&other, 4093), (&set, 100_003)] {
            let mut writer = app.writer();
            for part in wire.chunks(cut) {
                writer.send(part);
            }
            assert!(!app.text().starts_with('-'));
            if !std::ptr::eq(wire, &other) {
                (bytes, requests) = (bytes + wire.len(), requests + 1);
            }
        }
        let get = support::wire(&["GET", "user:1"]);
        app.send(&get);
        let reply = app.reply().len();
        let own =
            |name: &str| hotring.metric(&format!("hotring_prefix_{name}_total{{pool=\"main\",prefix=\"{prefix}\"}}"));
        let wanted = [
            ("requests", requests + 1),
            ("reply_bytes", 2 * "+OK\r\n".len() + ":4\r\n".len() + reply),
            ("hits", 1),
            ("misses", 0),
        ];
        let mut found = Vec::new();
        eventually("counts", || {
            let pending = hotring.metric("hotring_requests_pending{pool=\"main\"}");
            let replies = hotring.metric("hotring_replies_total{pool=\"main\"}");
            found = wanted.iter().map(|(name, _)| (*name, own(name) as usize)).collect();
            replies == 5.0 && pending == 0.0
        });
        assert_eq!(found, wanted, "{prefix}");
        // A short request of a tenant is counted as it is on the server, with the prefix.
        assert_eq!(own("request_bytes") as usize, bytes + get.len() + tenant.len(), "{prefix}");
        // One whose app leaves in its midst is a request without a reply.
        let mut gone = hotring.app();
        gone.send(&set[..set.len() - 20]);
        eventually("it is on its way", || own("requests") as usize == requests + 2);
        drop(gone);
        eventually("it is gone", || hotring.metric("hotring_client_connections{pool=\"main\"}") == 1.0);
        assert_eq!(own("reply_bytes") as usize, wanted[1].1);
    }
}

/// Told once all replies are counted: what is wrong then stays wrong.
fn panic_after(wrong: &[(&str, f64, f64)]) -> bool {
    panic!("name, wanted, found: {wrong:#?}")
}

/// What is not wanted is not told.
#[test]
fn commands_are_not_told_apart_where_that_is_not_wanted() {
    let (_servers, at) = shards(1);
    let yaml = |more: &[&str]| pool(&at, more);
    let site = Site::new(&yaml(&["command_metrics: false"]));
    let mut app = site.hotring.app();
    app.ask("SET user:1 x");
    app.ask("GET user:1");
    eventually("the hit", || site.hotring.metric("hotring_hits_total{pool=\"main\"}") == 1.0);
    let page = site.hotring.page("/metrics").1;
    assert!(
        !page.contains("hotring_command_")
            && !page.contains("hotring_prefix_")
            && !page.contains("hotring_server_clients")
    );
    // All of it from the next configuration on.
    assert_eq!(site.reload(&yaml(&["metrics_prefixes: [\"user:\"]", "info_interval: 100ms"])).0, 200);
    app.ask("GET user:1");
    let told = |name: &str| site.hotring.metric(name);
    eventually("by command", || told("hotring_command_requests_total{pool=\"main\",command=\"get\"}") == 2.0);
    eventually("by prefix", || told("hotring_prefix_hits_total{pool=\"main\",prefix=\"user:\"}") == 1.0);
    eventually("what the server tells", || told("hotring_server_clients{pool=\"main\",backend=\"s0\"}") > 0.0);
    assert_eq!(site.reload(&yaml(&["command_metrics: false"])).0, 200);
    eventually("none of it", || {
        let page = site.hotring.page("/metrics").1;
        !["hotring_command_", "hotring_prefix_", "hotring_server_clients"].iter().any(|name| page.contains(name))
    });
}

#[test]
fn servers_tell_of_themselves_and_nothing_is_made_up() {
    let primary = Redis::tcp(&["--maxmemory", "64mb", "--maxclients", "321"]);
    let (host, port) = primary.address().rsplit_once(':').unwrap();
    let mut replica = Redis::tcp(&["--replicaof", host, port]);
    let closed = Redis::tcp(&[]);
    assert_eq!(closed.client().ask("ACL SETUSER default -info"), "+OK\r\n");
    let replicas = format!("replicas: {{s0: [\"{}\"]}}", replica.address());
    let keys = ["info_interval: 100ms", &replicas];
    let hotring = Hotring::with_admin(&pool(&[primary.address(), closed.address()], &keys));
    let told = |name: &str, backend: &str, more: &str| {
        hotring.metric(&format!("hotring_server_{name}{{pool=\"main\",backend=\"{backend}\"{more}}}"))
    };
    eventually("what the primary tells", || told("max_memory_bytes", "s0", "") == 67_108_864.0);
    assert_eq!(told("max_clients", "s0", ""), 321.0);
    assert_eq!((told("role", "s0", ",role=\"primary\""), told("role", "s0", ",role=\"replica\"")), (1.0, 0.0));
    assert!(told("used_memory_bytes", "s0", "") > 500_000.0);
    eventually("the primary knows its replica", || told("replicas", "s0", "") == 1.0);
    eventually("so does the replica", || told("replication_link_up", "s0/replica-1", "") == 1.0);
    let page = hotring.page("/metrics").1;
    assert!(page.contains("hotring_server_replica_lag_bytes{pool=\"main\",backend=\"s0\"}"), "{page}");
    assert!(!page.contains("hotring_server_replica_lag_bytes{pool=\"main\",backend=\"s0/replica-1\"}"), "{page}");
    let info = |line: &str| line.starts_with("hotring_server_used_memory_bytes{");
    assert!(!page.lines().any(|line| info(line) && line.contains("\"s1\"")), "{page}");
    // Its refusal is of no consequence for anything else.
    eventually("it was asked", || closed.denied() > 0);
    let mut app = hotring.app();
    (0..9).for_each(|key| assert_eq!(app.ask(&format!("SET {key} x")), "+OK\r\n"));
    replica.kill();
    eventually("nothing of one that is gone", || {
        !hotring.page("/metrics").1.lines().any(|line| info(line) && line.contains("replica-1"))
    });
}

/// One worker asks, and no more often than it is told to.
#[test]
fn one_worker_asks() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let fake = Fake::answering(move |request| {
        if request[0].eq_ignore_ascii_case(b"info") {
            count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            return b"$21\r\nconnected_clients:7\r\n\r\n".to_vec();
        }
        b"+PONG\r\n".to_vec()
    });
    let keys = ["^workers: 3", "info_interval: 1h", "probe_interval: off"];
    let hotring = Hotring::with_admin(&pool(&[fake.address()], &keys));
    eventually("what it tells", || hotring.metric("hotring_server_clients{pool=\"main\",backend=\"s0\"}") == 7.0);
    let rounds = hotring.metric("hotring_worker_passes_total{worker=\"2\"}");
    assert_eq!((asked.load(std::sync::atomic::Ordering::Acquire), fake.visits()), (1, 1), "{rounds}");
}

/// What the page says of the engine in virtual time.
fn sums(engine: &mut hotring::engine::Engine) -> BTreeMap<&'static str, f64> {
    let exporter = Exporter::new();
    let (mut pool, mut backend) = (exporter.pool("p"), exporter.backend("p", "b"));
    pool.fold(engine.pool_counts(0).unwrap());
    backend.fold(engine.line_mut(0).unwrap().measure());
    let page = exporter.render();
    let value = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
    };
    [
        ("server", "hotring_server_duration_seconds_sum{pool=\"p\",backend=\"b\"}"),
        ("servers", "hotring_server_duration_seconds_count{pool=\"p\",backend=\"b\"}"),
        ("proxy", "hotring_proxy_duration_seconds_sum{pool=\"p\"}"),
        ("all", "hotring_request_duration_seconds_sum{pool=\"p\",class=\"read\"}"),
    ]
    .map(|(name, series)| (name, value(series)))
    .into()
}

/// A backend that takes long is told from a proxy that does.
#[test]
fn time_is_the_ones_that_takes_it() {
    use inner::{engine, request};
    let (mut engine, mut wires) = engine(inner::pool(1, 1, false), 1);
    let get = request("GET key");
    let nil = b"$-1\r\n";
    // The server takes 250 ms, hotring nothing.
    engine.submit(0, &get, 1_000_000, &mut wires);
    engine.flush(&mut wires);
    engine.receive(0, nil, 1_250_000, &mut wires).unwrap();
    let slow_server = sums(&mut engine);
    assert_eq!((slow_server["server"], slow_server["proxy"], slow_server["all"]), (0.25, 0.0, 0.25));
    // Its socket is full for 300 ms, and then it takes 10 ms.
    wires.room = Some(0);
    engine.submit(0, &get, 2_000_000, &mut wires);
    engine.flush(&mut wires);
    wires.room = None;
    engine.tick(2_300_000, &mut wires);
    engine.shard_writable(0);
    engine.flush(&mut wires);
    engine.receive(0, nil, 2_310_000, &mut wires).unwrap();
    let slow_proxy = sums(&mut engine);
    assert_eq!((slow_proxy["server"], slow_proxy["proxy"], slow_proxy["all"]), (0.01, 0.3, 0.31));
    // Two that leave together come back one after the other; each has its own time.
    engine.submit(0, &[get.clone(), get.clone()].concat(), 3_000_000, &mut wires);
    engine.flush(&mut wires);
    engine.submit(0, &get, 3_050_000, &mut wires);
    engine.flush(&mut wires);
    engine.receive(0, nil, 3_100_000, &mut wires).unwrap();
    engine.receive(0, &nil.repeat(2), 3_200_000, &mut wires).unwrap();
    let several = sums(&mut engine);
    assert_eq!((several["server"], several["servers"], several["proxy"]), (0.45, 3.0, 0.0));
    // One that is never answered was waited for there and not here.
    engine.submit(0, &get, 4_000_000, &mut wires);
    engine.flush(&mut wires);
    let late = hotring::error::Failure { cause: hotring::error::Cause::Timeout, reason: "late" };
    engine.fail(0, late, 5_000_000, &mut wires);
    let lost = sums(&mut engine);
    assert_eq!((lost["servers"], lost["proxy"], lost["all"]), (0.0, 0.0, 1.0));
}
