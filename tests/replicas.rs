//! Hot keys that are read from real replicas.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;
use support::{
    Cut, Hotring, Redis, Relay, Site, Way, eventually, now, primary, read_until, replica, replicated, until_read_from,
};

fn yaml(primary: &Redis, replicas: &[&str]) -> String {
    replicated(primary.address(), replicas, "hot_keys: {reads: replicas, max_staleness: 500ms}")
}

#[test]
fn reads_of_a_hot_key_are_spread_and_nothing_else_is() {
    let primary = primary();
    let replicas = [replica(primary.address()), replica(primary.address())];
    let at = replicas.each_ref().map(Redis::address);
    let hotring = Hotring::with_admin(&yaml(&primary, &at));
    let mut app = hotring.app();
    assert_eq!(app.ask("MSET k v other 1"), "+OK\r\n");
    until_read_from(&mut app, &["k"], "v", &[&primary, &replicas[0], &replicas[1]]);
    // All others stay at home, whatever they are.
    let fed = replicas[0].calls("set");
    for _ in 0..50 {
        assert_eq!(app.ask("SET other 2"), "+OK\r\n");
        assert_eq!(app.ask("STRLEN other"), ":1\r\n");
        assert_eq!(app.ask("TTL k"), ":-1\r\n");
        assert_eq!(app.ask("DBSIZE"), ":2\r\n");
        assert!(app.ask("KEYS *").starts_with("*2\r\n"));
        assert!(app.ask("SCAN 0 COUNT 100").starts_with("*2\r\n"));
        assert_eq!(app.ask("PUBLISH c m"), ":0\r\n");
    }
    eventually("the replica is fed", || replicas[0].calls("set") == fed + 50);
    for replica in &replicas {
        for command in ["strlen", "ttl", "dbsize", "keys", "scan"] {
            assert_eq!(replica.calls(command), 0, "{command}");
        }
    }
    let (_, table) = hotring.page("/backends");
    let roles: Vec<(&str, &str)> = table
        .lines()
        .skip(1)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[1], *words.last().unwrap())
        })
        .collect();
    assert_eq!(roles, [("s0", "primary"), ("s0/replica-1", "replica"), ("s0/replica-2", "replica")]);
    let answered = || hotring.metric("hotring_server_responses_total{pool=\"main\",backend=\"s0/replica-1\"}");
    eventually("its replies are counted", || answered() > 20.0);
    eventually("and its reads", || hotring.metric("hotring_replica_reads_total{pool=\"main\"}") > 40.0);
}

#[test]
fn what_was_written_is_read_though_replicas_lag() {
    let primary = primary();
    let link = Relay::to(primary.address());
    link.delay(Way::ToProxy, Duration::from_millis(30));
    let replica = replica(link.address());
    let hotring = Hotring::with_admin(&yaml(&primary, &[replica.address()]));
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for round in 0..5 {
        let value = round.to_string();
        assert_eq!(other.ask(&format!("SET k {value}")), "+OK\r\n");
        until_read_from(&mut app, &["k"], &value, &[&replica]);
    }
}

#[test]
fn a_replica_that_is_stopped_or_killed_costs_nobody_an_error() {
    let primary = primary();
    let mut replicas = [replica(primary.address()), replica(primary.address())];
    let at = replicas.each_ref().map(|redis| redis.address().to_owned());
    let hotring = Hotring::with_admin(&yaml(&primary, &[&at[0], &at[1]]));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    until_read_from(&mut app, &["k"], "v", &[&replicas[0], &replicas[1]]);
    replicas[0].freeze();
    let behind = || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0;
    read_until(&mut app, &["k"], "v", "the frozen one is left out", behind);
    until_read_from(&mut app, &["k"], "v", &[&replicas[1]]);
    replicas[0].thaw();
    until_read_from(&mut app, &["k"], "v", &[&replicas[0], &replicas[1]]);
    replicas[1].kill();
    read_until(&mut app, &["k"], "v", "the dead one is left out", behind);
    until_read_from(&mut app, &["k"], "v", &[&replicas[0]]);
    replicas[1].restart();
    until_read_from(&mut app, &["k"], "v", &[&replicas[0], &replicas[1]]);
    for (_, counted) in hotring
        .page("/metrics")
        .1
        .lines()
        .filter_map(|line| line.strip_prefix("hotring_errors_total{")?.split_once(' '))
    {
        assert_eq!(counted, "0");
    }
}

#[test]
fn a_replica_whose_link_is_cut_is_left_out_before_it_is_too_old() {
    let primary = primary();
    let link = Relay::to(primary.address());
    let replica = replica(link.address());
    let hotring = Hotring::with_admin(&yaml(&primary, &[replica.address()]));
    let mut app = hotring.app();
    let mut writer = primary.client();
    assert_eq!(writer.ask("SET k 0"), "+OK\r\n");
    let mut stale = 0;
    for round in 0..10 {
        until_read_from(&mut app, &["k"], &round.to_string(), &[&replica]);
        // Nothing is lost, nothing is told, nothing arrives: the worst kind of cut.
        link.hold(Way::ToProxy);
        assert_eq!(writer.ask(&format!("SET k {}", round + 1)), "+OK\r\n");
        let written = now();
        let old = format!("$1\r\n{round}\r\n");
        while written.elapsed() < Duration::from_millis(1500) {
            let asked = written.elapsed();
            if app.ask("GET k") == old {
                stale += 1;
                assert!(asked <= Duration::from_millis(500), "older than max_staleness: {asked:?}");
            }
        }
        eventually("it is left out", || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0);
        link.heal();
        if stale > 0 {
            until_read_from(&mut app, &["k"], &(round + 1).to_string(), &[&replica]);
            break;
        }
    }
    assert!(stale > 0, "else the replica was never read from");
    // And one that says that its link is down.
    link.refuse();
    link.cut(Cut::Reset);
    let behind = || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0;
    let value = primary.client().ask("GET k")[4..5].to_owned();
    read_until(&mut app, &["k"], &value, "it is left out", behind);
}

#[test]
fn replicas_come_and_go_with_the_configuration() {
    let primary = primary();
    let replicas = [replica(primary.address()), replica(primary.address())];
    let site = Site::new(&yaml(&primary, &[]));
    let mut app = site.hotring.app();
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    until_read_from(&mut app, &["k"], "v", &[&primary]);
    let (status, told) = site.reload(&yaml(&primary, &[replicas[0].address()]));
    assert_eq!(status, 200, "{told}");
    until_read_from(&mut app, &["k"], "v", &[&primary, &replicas[0]]);
    let both = [replicas[1].address(), replicas[0].address()];
    assert_eq!(site.reload(&yaml(&primary, &both)).0, 200);
    until_read_from(&mut app, &["k"], "v", &[&primary, &replicas[0], &replicas[1]]);
    assert_eq!(site.reload(&yaml(&primary, &[])).0, 200);
    // Its own replication link is no client's.
    eventually("nothing is connected to them", || replicas.iter().all(|redis| clients(redis) == 0));
    let before = replicas.each_ref().map(|redis| redis.calls("get"));
    read_until(&mut app, &["k"], "v", "it is read at home", || true);
    assert_eq!(replicas.each_ref().map(|redis| redis.calls("get")), before);
}

/// Connections of others than the one that asks and of the server that is followed.
fn clients(redis: &Redis) -> usize {
    let list = redis.client().ask("CLIENT LIST");
    let is_other = |line: &&str| line.starts_with("id=") && !line.contains("flags=M") && !line.contains("cmd=client");
    list.lines().filter(is_other).count()
}
