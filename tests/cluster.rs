//! A pool over a real Redis Cluster: apps need not know that it is one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Cluster, Fake, Hotring, Redis, Scratch, Site, eventually, free_port, over_cluster, wire};

/// An app's round: what it writes it reads, by all commands that have several keys too.
fn all_goes_well(app: &mut Client, cluster: &Cluster, round: &str) {
    let keys: Vec<String> = (0..60).map(|n| format!("{round}:{n}")).collect();
    for key in &keys {
        assert_eq!(app.ask(&format!("SET {key} v-{key}")), "+OK\r\n");
    }
    for key in &keys {
        let value = format!("v-{key}");
        let reply = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(app.ask(&format!("GET {key}")), reply);
    }
    for key in keys.iter().step_by(20) {
        assert!(cluster.read(key).contains(&format!("v-{key}")), "{key}");
    }
    let some = &keys[..10];
    let values: String = some.iter().map(|key| format!("${}\r\nv-{key}\r\n", key.len() + 2)).collect();
    assert_eq!(app.ask(&format!("MGET {}", some.join(" "))), format!("*10\r\n{values}"));
    assert_eq!(app.ask(&format!("DEL {} none", some.join(" "))), ":10\r\n");
    assert_eq!(app.ask(&format!("GET {}", some[0])), "$-1\r\n");
}

#[test]
fn an_app_need_not_know_that_it_is_a_cluster() {
    let cluster = Cluster::start(3, 3);
    let hotring = Hotring::with_admin(&cluster.yaml(&[0], &[]));
    // Known before the first request: nothing is redirected.
    all_goes_well(&mut hotring.app(), &cluster, "a");
    assert_eq!(hotring.page("/readyz").0, 200);
    let (_, page) = hotring.page("/topology");
    assert!(
        page.starts_with("pool main: cluster, 3 primaries, 3 replicas, 16384 of 16384 slots are served\n"),
        "{page}"
    );
    for node in 0..3 {
        let address = cluster.address(node);
        assert!(page.contains(&format!("  {address} primary at {address}, 546")), "{page}");
        assert!(page.contains(&format!("    replica at {}\n", cluster.address(3 + node))), "{page}");
    }
    let (_, rows) = hotring.page("/backends");
    assert_eq!(rows.lines().filter(|row| row.ends_with("primary")).count(), 3, "{rows}");
    assert_eq!(rows.lines().filter(|row| row.ends_with("replica")).count(), 3, "{rows}");
    eventually("the first answer is counted", || {
        hotring.metric("hotring_topology_refreshes_total{pool=\"main\"}") >= 1.0
    });
    assert_eq!(hotring.metric("hotring_topology_errors_total{pool=\"main\"}"), 0.0);
    assert_eq!(hotring.metric("hotring_topology_unknown{pool=\"main\"}"), 0.0);
}
