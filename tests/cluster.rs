//! A pool over a real Redis Cluster: apps need not know that it is one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Cluster, Fake, Hotring, Redis, Site, eventually, free_port, over_cluster};

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

/// The line of `/topology` about a node.
fn line_of(page: &str, address: &str) -> Option<String> {
    page.lines().find(|line| line.starts_with(&format!("  {address} "))).map(str::to_owned)
}

fn page(hotring: &Hotring) -> String {
    hotring.page("/topology").1
}

#[test]
fn seeds_may_be_wrong_or_dead_and_a_failover_is_noticed() {
    let mut cluster = Cluster::start(3, 3);
    // One where nobody listens, one that is no Redis, one that is no cluster, one that says nothing, and one that is right.
    let nobody = format!("127.0.0.1:{}", free_port());
    let odd = Fake::start(|visit| {
        visit.request();
        visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let plain = Redis::tcp(&[]);
    let silent = Fake::start(|visit| visit.until_gone());
    let seeds = [&nobody, odd.address(), plain.address(), silent.address(), cluster.address(0)];
    let hotring = Hotring::with_admin(&over_cluster(&seeds, &["timeout: 5s", "connect_timeout: 2s"]));
    let mut app = hotring.app();
    all_goes_well(&mut app, &cluster, "a");
    // The only seed that was right dies, a primary: its replica is found, and nobody was told to ask for that.
    let key = cluster.keys_at(0, 1).remove(0);
    cluster.kill(0);
    eventually("the replica is known as the primary", || {
        line_of(&page(&hotring), cluster.address(3)).is_some_and(|line| line.contains(" primary at "))
    });
    let told = page(&hotring);
    assert!(line_of(&told, cluster.address(0)).is_none(), "{told}");
    cluster.agree();
    eventually("the replica serves", || app.ask(&format!("SET {key} new")) == "+OK\r\n");
    all_goes_well(&mut app, &cluster, "b");
    eventually("the change is counted", || hotring.metric("hotring_topology_changes_total{pool=\"main\"}") >= 2.0);
    // All die: what was known last stays, and that nobody tells is told.
    for node in 1..6 {
        cluster.kill(node);
    }
    eventually("nobody tells the topology", || page(&hotring).contains("  last error: "));
    let told = page(&hotring);
    assert!(told.contains("cluster, 3 primaries") && told.contains("16384 of 16384 slots"), "{told}");
    assert_eq!(hotring.page("/readyz").0, 200);
    let reply = app.ask(&format!("GET {key}"));
    assert!(reply.starts_with("-ERR shard") || reply.starts_with("-CLUSTERDOWN"), "{reply}");
    // They are back, and so is all: without their keys, which they had in memory only.
    (0..6).for_each(|node| cluster.restart(node));
    eventually("it serves again", || app.ask(&format!("SET {key} again")) == "+OK\r\n");
    cluster.agree();
    all_goes_well(&mut app, &cluster, "c");
}

#[test]
fn a_cluster_that_is_not_there_at_the_start_is_found_later() {
    let mut cluster = Cluster::start(2, 0);
    cluster.kill(0);
    cluster.kill(1);
    let hotring = Hotring::with_admin(&cluster.yaml(&[0, 1], &["redirect_wait: 100ms"]));
    let mut app = hotring.app();
    let (status, told) = hotring.page("/readyz");
    assert_eq!(status, 503);
    assert!(told.contains("pool main: the topology is not known yet (cluster: 127.0.0.1:"), "{told}");
    assert!(told.contains("connection refused"), "{told}");
    let reply = app.ask("GET a");
    assert!(reply.starts_with("-CLUSTERDOWN "), "{reply}");
    // Whatever else is asked for is told the same, or needs no node.
    for words in ["DBSIZE", "MGET a b c", "SUBSCRIBE x", "RANDOMKEY", "SCRIPT LOAD x", "KEYS *", "EVAL 1 0", "FLUSHALL"]
    {
        let reply = hotring.app().ask(words);
        assert!(reply.starts_with("-CLUSTERDOWN "), "{words}: {reply}");
    }
    for words in [
        "PING",
        "SCAN 0",
        "PUBSUB CHANNELS",
        "FUNCTION LIST",
        "SCRIPT FLUSH",
        "BLPOP a 1",
        "SELECT 1",
        "MULTI",
        "XREAD BLOCK 0 STREAMS a 0",
    ] {
        assert!(!hotring.app().ask(words).is_empty(), "{words}");
    }
    let mut transaction = hotring.app();
    for words in ["MULTI", "PING", "EXEC"] {
        assert!(!transaction.ask(words).is_empty(), "{words}");
    }
    assert!(page(&hotring).starts_with("pool main: cluster, not known yet\n  answered never; 0 answers"));
    eventually("it is told as a metric", || hotring.metric("hotring_topology_unknown{pool=\"main\"}") == 1.0);
    cluster.restart(0);
    cluster.restart(1);
    eventually("it is ready", || hotring.page("/readyz").0 == 200);
    cluster.agree();
    eventually("it serves", || app.ask("SET a 1") == "+OK\r\n");
    all_goes_well(&mut app, &cluster, "a");
}

#[test]
fn a_password_is_said_to_all_nodes() {
    let cluster = Cluster::start_with(2, 0, &["--requirepass", "geheim", "--masterauth", "geheim"]);
    let yaml = cluster.yaml(&[0], &["server_auth: {password: geheim}"]);
    let hotring = Hotring::with_admin(&yaml);
    let mut app = hotring.app();
    for n in 0..20 {
        assert_eq!(app.ask(&format!("SET key:{n} {n}")), "+OK\r\n");
    }
    let hotring = Hotring::with_admin(&cluster.yaml(&[0], &["server_auth: {password: wrong}"]));
    let (status, told) = hotring.page("/readyz");
    assert!(status == 503 && told.contains("WRONGPASS"), "{told}");
    let hotring = Hotring::with_admin(&cluster.yaml(&[0], &[]));
    let (status, told) = hotring.page("/readyz");
    assert!(status == 503 && told.contains("NOAUTH"), "{told}");
}

#[test]
fn nodes_may_call_themselves_what_nobody_here_knows() {
    let cluster = Cluster::start(3, 0);
    let mut announce = Vec::new();
    for node in 0..3 {
        // By another port each, where nobody listens.
        let port = free_port();
        cluster.order(node, &format!("CONFIG SET cluster-announce-port {port}"));
        announce.push(format!("\"127.0.0.1:{port}\": \"{}\"", cluster.address(node)));
        eventually("all nodes have heard of the port", || {
            (0..3).all(|other| cluster.client(other).ask("CLUSTER SLOTS").contains(&format!(":{port}\r\n")))
        });
    }
    let rules = format!("announce: {{{}}}", announce.join(", "));
    let hotring = Hotring::with_admin(&cluster.yaml(&[1], &[&rules]));
    all_goes_well(&mut hotring.app(), &cluster, "a");
    let told = page(&hotring);
    for node in 0..3 {
        assert!(told.contains(&format!(" primary at {}, 546", cluster.address(node))), "{told}");
    }
    // A slot moves: the redirection spells the node as it calls itself.
    let key = cluster.keys_at(0, 1).remove(0);
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    cluster.move_slot(hotring::ring::slot_of(key.as_bytes()), 2);
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nv\r\n");
}

#[test]
fn nodes_may_be_called_by_names() {
    let cluster = Cluster::start(3, 0);
    for node in 0..3 {
        cluster.order(node, "CONFIG SET cluster-preferred-endpoint-type hostname");
        cluster.order(node, &format!("CONFIG SET cluster-announce-hostname node-{node}.invalid"));
    }
    eventually("all nodes have heard of the names", || {
        let all = |text: &str| (0..3).all(|node| text.contains(&format!("node-{node}.invalid")));
        (0..3).all(|node| all(&cluster.client(node).ask("CLUSTER SLOTS")))
    });
    // What a node is called is looked up; here nobody knows that, but `announce`.
    let hotring =
        Hotring::with_admin(&cluster.yaml(
            &[0],
            &["announce: {node-0.invalid: 127.0.0.1, node-1.invalid: 127.0.0.1, node-2.invalid: 127.0.0.1}"],
        ));
    let mut app = hotring.app();
    for n in 0..50 {
        assert_eq!(app.ask(&format!("SET key:{n} {n}")), "+OK\r\n");
    }
    let told = page(&hotring);
    assert!(told.contains("  node-0.invalid:") && told.contains(" primary at 127.0.0.1:"), "{told}");
}

#[test]
fn slots_move_and_nodes_come_and_go() {
    let mut cluster = Cluster::start(2, 0);
    let hotring = Hotring::with_admin(&cluster.yaml(&[0, 1], &["topology_interval: 200ms"]));
    let mut app = hotring.app();
    all_goes_well(&mut app, &cluster, "a");
    let has = |hotring: &Hotring, cluster: &Cluster, node: usize, slots: usize| {
        let text = format!(" primary at {}, {slots} slots", cluster.address(node));
        eventually(&text, || page(hotring).contains(&text));
    };
    // Slots only.
    let key = cluster.keys_at(0, 1).remove(0);
    assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
    let slot = hotring::ring::slot_of(key.as_bytes());
    cluster.move_slot(slot, 1);
    has(&hotring, &cluster, 0, 8191);
    has(&hotring, &cluster, 1, 8193);
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nv\r\n");
    let (_, told) = hotring.page(&format!("/explain?key={key}"));
    assert!(told.contains(cluster.address(1)), "{told}");
    // A node without slots is known before it gets some, so that redirections to it are followed.
    let new = cluster.add_node();
    has(&hotring, &cluster, new, 0);
    cluster.move_slot(slot, new);
    has(&hotring, &cluster, new, 1);
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nv\r\n");
    all_goes_well(&mut app, &cluster, "b");
    // And goes.
    cluster.move_slot(slot, 0);
    has(&hotring, &cluster, new, 0);
    cluster.remove_node(new);
    eventually("the node has gone", || line_of(&page(&hotring), cluster.address(new)).is_none());
    assert_eq!(app.ask(&format!("GET {key}")), "$1\r\nv\r\n");
    // Nodes that do not tell of shards are asked for slots, as those before Redis 7.
    for node in 0..2 {
        cluster.order(node, "ACL SETUSER default -cluster|shards");
    }
    let old = Hotring::with_admin(&cluster.yaml(&[1], &[]));
    all_goes_well(&mut old.app(), &cluster, "c");
    assert!(page(&old).contains("cluster, 2 primaries, 0 replicas, 16384 of 16384"), "{}", page(&old));
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut cluster = Cluster::start(2, 0);
    let keys = ["timeout: 5s", "connect_timeout: 1s", "watch: off"];
    let yaml = |more: &[&str]| {
        let mut all: Vec<&str> = keys[..2].to_vec();
        all.push("^watch: off");
        all.extend(more);
        cluster.yaml(&[0], &all)
    };
    let listen = format!("listen: 127.0.0.1:{}", free_port());
    let (first, second, third) =
        (yaml(&[&listen]), yaml(&[&listen, "max_pipeline: 7"]), yaml(&[&listen, "topology_interval: 7s"]));
    let site = Site::new(&first);
    let mut app = site.hotring.app();
    all_goes_well(&mut app, &cluster, "a");
    cluster.kill(1);
    cluster.kill(0);
    // Settings that are not the topology's: nobody need be asked.
    let (status, told) = site.reload(&second);
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("pool main: settings; 0.0 % of the keyspace moves"), "{told}");
    assert!(page(&site.hotring).contains("cluster, 2 primaries"), "{}", page(&site.hotring));
    // Those that are: nobody answers, what is known stays.
    let (status, told) = site.reload(&third);
    assert_eq!(status, 200, "{told}");
    assert!(page(&site.hotring).contains("cluster, 2 primaries"), "{}", page(&site.hotring));
    assert_eq!(site.hotring.page("/readyz").0, 200);
    // To servers of the file, and back.
    let (redis, at) = support::shards(1);
    let (status, told) = site.reload(&support::pool(&at, &[&listen, "^watch: off"]));
    assert_eq!(status, 200, "{told}");
    assert_eq!(app.ask("SET here 1"), "+OK\r\n");
    assert_eq!(redis[0].calls("set"), 1);
    cluster.restart(0);
    cluster.restart(1);
    cluster.agree();
    let (status, told) = site.reload(&first);
    assert_eq!(status, 200, "{told}");
    eventually("it serves", || app.ask("SET a 1") == "+OK\r\n");
    all_goes_well(&mut app, &cluster, "b");
}
