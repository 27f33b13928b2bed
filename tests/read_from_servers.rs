//! Reads of all keys that real replicas answer, which lag, stand still, are killed, lose their link, and come and go.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::time::Duration;
use support::{
    Client, Cut, Hotring, Redis, Relay, Site, Way, eventually, free_port, now, primary, read_until, replica,
    replicated, until_read_from,
};

/// None of them is hot.
const KEYS: [&str; 10] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];

fn write_all(app: &mut Client, value: &str) {
    for n in 0..10 {
        assert_eq!(app.ask(&format!("SET k{n} {value}")), "+OK\r\n");
    }
}

/// Errors that apps were told.
fn errors(hotring: &Hotring) -> u64 {
    let (_, text) = hotring.page("/metrics");
    let counted = text.lines().filter_map(|line| line.strip_prefix("hotring_errors_total{")?.split_once(' '));
    counted.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

#[test]
fn all_reads_of_one_key_go_to_replicas_and_nothing_else_does() {
    let primary = primary();
    let replicas = [replica(primary.address()), replica(primary.address())];
    let at = replicas.each_ref().map(Redis::address);
    let more = "read_from: prefer_replica\n    read_from_prefixes: {\"lock:\": primary}";
    let hotring = Hotring::with_admin(&replicated(primary.address(), &at, more));
    let mut app = hotring.app();
    write_all(&mut app, "v");
    until_read_from(&mut app, &KEYS, "v", &[&replicas[0], &replicas[1]]);
    // What was written is long there by now.
    let before = primary.calls("get");
    for n in 0..300 {
        assert_eq!(app.ask(&format!("GET k{}", n % 10)), "$1\r\nv\r\n");
    }
    let at_home = primary.calls("get") - before;
    assert!(at_home < 30, "{at_home} of 300 reads went to the server");
    for _ in 0..20 {
        assert_eq!(app.ask("GET lock:1"), "$-1\r\n");
        assert_eq!(app.ask("TTL k1"), ":-1\r\n");
        assert_eq!(app.ask("MGET k1 k2"), "*2\r\n$1\r\nv\r\n$1\r\nv\r\n");
        assert_eq!(app.ask("DBSIZE"), ":10\r\n");
    }
    for (command, count) in [("ttl", 20), ("mget", 20), ("dbsize", 20)] {
        assert_eq!((primary.calls(command), replicas[0].calls(command) + replicas[1].calls(command)), (count, 0));
    }
    let (_, told) = hotring.page("/explain?pool=main&key=k1");
    assert!(told.contains("read_from prefer_replica: 2 of 2 replicas are fit"), "{told}");
    let reads = || hotring.metric("hotring_replica_reads_total{pool=\"main\"}");
    eventually("they are counted", || reads() > 270.0);
    assert_eq!(errors(&hotring), 0);
}

#[test]
fn what_was_written_is_read_though_replicas_lag() {
    let primary = primary();
    let link = Relay::to(primary.address());
    link.delay(Way::ToProxy, Duration::from_millis(30));
    let replica = replica(link.address());
    let hotring = Hotring::with_admin(&replicated(primary.address(), &[replica.address()], "read_from: replica"));
    let (mut app, mut other) = (hotring.app(), hotring.app());
    for round in 0..5 {
        let value = round.to_string();
        write_all(&mut other, &value);
        until_read_from(&mut app, &KEYS, &value, &[&replica]);
    }
    eventually("some were kept", || hotring.metric("hotring_replica_reads_kept_total{pool=\"main\"}") > 0.0);
}

#[test]
fn a_replica_that_is_stopped_or_killed_costs_nobody_an_error() {
    for word in ["prefer_replica", "any", "replica"] {
        let primary = primary();
        let mut replicas = [replica(primary.address()), replica(primary.address())];
        let at = replicas.each_ref().map(|redis| redis.address().to_owned());
        let more = format!("read_from: {word}");
        let hotring = Hotring::with_admin(&replicated(primary.address(), &[&at[0], &at[1]], &more));
        let mut app = hotring.app();
        write_all(&mut app, "v");
        until_read_from(&mut app, &KEYS, "v", &[&replicas[0], &replicas[1]]);
        replicas[0].freeze();
        let behind = || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0;
        read_until(&mut app, &KEYS, "v", "the frozen one is left out", behind);
        until_read_from(&mut app, &KEYS, "v", &[&replicas[1]]);
        replicas[0].thaw();
        until_read_from(&mut app, &KEYS, "v", &[&replicas[0], &replicas[1]]);
        replicas[1].kill();
        read_until(&mut app, &KEYS, "v", "the dead one is left out", behind);
        until_read_from(&mut app, &KEYS, "v", &[&replicas[0]]);
        replicas[1].restart();
        until_read_from(&mut app, &KEYS, "v", &[&replicas[0], &replicas[1]]);
        assert_eq!(errors(&hotring), 0, "{word}");
        // Both: only where nobody else may answer is that told.
        replicas.iter_mut().for_each(Redis::kill);
        let told = "-ERR shard s0 is down (none of its replicas is fit to be read from); nothing was sent\r\n";
        match word {
            "replica" => eventually("nobody is left", || app.ask("GET k1") == told),
            _ => until_read_from(&mut app, &KEYS, "v", &[&primary]),
        }
        replicas.iter_mut().for_each(Redis::restart);
        eventually("it is read again", || app.ask("GET k1") == "$1\r\nv\r\n");
        until_read_from(&mut app, &KEYS, "v", &[&replicas[0], &replicas[1]]);
    }
}

#[test]
fn a_replica_whose_link_is_cut_is_left_out_before_it_is_too_old() {
    let primary = primary();
    let link = Relay::to(primary.address());
    let replica = replica(link.address());
    let more = "read_from: prefer_replica\n    read_staleness: 500ms";
    let hotring = Hotring::with_admin(&replicated(primary.address(), &[replica.address()], more));
    let mut app = hotring.app();
    let mut writer = primary.client();
    write_all(&mut writer, "0");
    let mut stale = 0;
    for round in 0..10 {
        until_read_from(&mut app, &KEYS, &round.to_string(), &[&replica]);
        // Nothing is lost, nothing is told, nothing arrives: the worst kind of cut.
        link.hold(Way::ToProxy);
        write_all(&mut writer, &(round + 1).to_string());
        let written = now();
        let old = format!("$1\r\n{round}\r\n");
        while written.elapsed() < Duration::from_millis(1500) {
            let asked = written.elapsed();
            if app.ask("GET k3") == old {
                stale += 1;
                assert!(asked <= Duration::from_millis(500), "older than read_staleness: {asked:?}");
            }
        }
        eventually("it is left out", || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0);
        link.heal();
        if stale > 0 {
            until_read_from(&mut app, &KEYS, &(round + 1).to_string(), &[&replica]);
            break;
        }
    }
    assert!(stale > 0, "else the replica was never read from");
    // And one that says that its link is down.
    link.refuse();
    link.cut(Cut::Reset);
    let behind = || hotring.metric("hotring_replicas_behind{pool=\"main\"}") == 1.0;
    let value = primary.client().ask("GET k3")[4..5].to_owned();
    read_until(&mut app, &KEYS, &value, "it is left out", behind);
}

#[test]
fn the_nearest_is_read_from_and_another_one_when_that_is_far() {
    let primary = primary();
    let (far, near) = (replica(primary.address()), replica(primary.address()));
    let links = [Relay::to(primary.address()), Relay::to(far.address()), Relay::to(near.address())];
    let delay = |link: &Relay, millis| link.delay(Way::ToProxy, Duration::from_millis(millis));
    delay(&links[0], 30);
    delay(&links[1], 30);
    let at = [links[1].address(), links[2].address()];
    let hotring =
        Hotring::with_admin(&replicated(links[0].address(), &at, "read_from: nearest\n    read_staleness: 2s"));
    let mut app = hotring.app();
    write_all(&mut app, "v");
    until_read_from(&mut app, &KEYS, "v", &[&near]);
    let before = [primary.calls("get"), far.calls("get")];
    until_read_from(&mut app, &KEYS, "v", &[&near]);
    assert_eq!([primary.calls("get"), far.calls("get")], before);
    delay(&links[2], 120);
    delay(&links[1], 1);
    until_read_from(&mut app, &KEYS, "v", &[&far]);
    assert_eq!(errors(&hotring), 0);
}

#[test]
fn it_is_switched_on_and_off_and_replicas_come_and_go_while_it_runs() {
    let primary = primary();
    let replicas = [replica(primary.address()), replica(primary.address())];
    let at = replicas.each_ref().map(Redis::address);
    let site = Site::new(&replicated(primary.address(), &at[..1], ""));
    let mut app = site.hotring.app();
    write_all(&mut app, "v");
    until_read_from(&mut app, &KEYS, "v", &[&primary]);
    assert_eq!(replicas[0].calls("get"), 0);
    assert_eq!(site.reload(&replicated(primary.address(), &at[..1], "read_from: replica")).0, 200);
    until_read_from(&mut app, &KEYS, "v", &[&replicas[0]]);
    // Nobody is refused for it: what is known is known further on.
    for count in [2, 1, 2] {
        assert_eq!(site.reload(&replicated(primary.address(), &at[..count], "read_from: replica")).0, 200);
        let wanted: Vec<&Redis> = replicas[..count].iter().collect();
        until_read_from(&mut app, &KEYS, "v", &wanted);
    }
    assert_eq!(site.reload(&replicated(primary.address(), &at, "")).0, 200);
    let before = replicas.each_ref().map(|redis| redis.calls("get"));
    until_read_from(&mut app, &KEYS, "v", &[&primary]);
    assert_eq!(replicas.each_ref().map(|redis| redis.calls("get")), before);
    assert_eq!(errors(&site.hotring), 0);
}

#[test]
fn replicas_of_a_cluster_are_told_that_they_are_only_read_from() {
    let node = || Redis::tcp(&["--cluster-enabled", "yes", "--cluster-port", &free_port().to_string()]);
    let (primary, replica) = (node(), node());
    assert_eq!(primary.client().ask("CLUSTER ADDSLOTSRANGE 0 16383"), "+OK\r\n");
    let (_, port) = primary.address().rsplit_once(':').unwrap();
    let nodes = primary.client().ask("CLUSTER NODES");
    let line = nodes.lines().find(|line| line.contains("myself")).unwrap();
    let (id, bus) =
        (line.split(' ').next().unwrap(), line.split('@').nth(1).unwrap().split([',', ' ']).next().unwrap());
    let mut link = replica.client();
    assert_eq!(link.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")), "+OK\r\n");
    eventually("it follows", || link.ask(&format!("CLUSTER REPLICATE {id}")) == "+OK\r\n");
    for readonly in [true, false] {
        let text = replicated(primary.address(), &[replica.address()], "read_from: prefer_replica");
        let mut config = hotring::config::parse(&text, Path::new("test.yaml")).unwrap();
        config.pools[0].upstream.readonly = readonly;
        let proxy = hotring::proxy::Proxy::start(config).unwrap();
        let mut app = Client::connect(&proxy.addresses()[0].1);
        eventually("the cluster is up", || app.ask("SET k0 v") == "+OK\r\n");
        write_all(&mut app, "v");
        if readonly {
            until_read_from(&mut app, &KEYS, "v", &[&replica]);
        } else {
            // Else it refuses, and the server is asked.
            let refused = || replica.client().ask("INFO errorstats").contains("errorstat_MOVED");
            read_until(&mut app, &KEYS, "v", "the replica has refused", refused);
        }
        drop(app);
        proxy.stop().unwrap();
    }
}
