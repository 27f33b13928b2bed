//! Sentinels and clusters over TLS.

use super::server;
use super::support::authority::Authority;
use super::support::{Client, Hotring, Redis, Scratch, eventually, free_port};
use std::process::{Command, Stdio};

struct Sentinel(std::process::Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sentinels_are_asked_over_tls() {
    let ca = Authority::new();
    let own = ca.local("redis");
    let (_primary, at) = server(&ca, &own, &[]);
    let (port, dir) = (free_port(), Scratch::new());
    let server_port = at.rsplit_once(':').unwrap().1;
    let text = format!(
        "port 0\ntls-port {port}\nbind 127.0.0.1\ndir {0}\nlogfile {0}/log\ntls-cert-file {1}\ntls-key-file {2}\n\
         tls-ca-cert-file {3}\ntls-auth-clients no\ntls-replication yes\nsentinel monitor one 127.0.0.1 {server_port} 1\n",
        dir.0.display(),
        own.cert,
        own.key,
        ca.ca()
    );
    let file = dir.write("sentinel.conf", &text);
    let mut command = Command::new("redis-server");
    command.arg(file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
    let _sentinel = Sentinel(command.spawn().unwrap());
    let yaml = |more: &str| {
        format!(
            "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"127.0.0.1:{port}\"]\n    \
             topology: sentinel\n    masters: [one]\n    topology_interval: 200ms\n    server_tls: {{ca: {}}}\n{more}",
            ca.ca()
        )
    };
    let hotring = Hotring::with_admin(&yaml(""));
    let mut app = hotring.app();
    eventually("the sentinel has told", || app.ask("SET k v") == "+OK\r\n");
    // Of a name that is not its own, it is not believed.
    let hotring =
        Hotring::with_admin(&yaml(&format!("    sentinel_tls: {{ca: {}, server_name: other.example}}\n", ca.ca())));
    eventually("the reason is told", || hotring.page("/topology").1.contains("its certificate is for another name"));
    assert!(hotring.app().ask("GET k").starts_with("-ERR"));
}

#[test]
fn nodes_of_a_cluster_are_asked_and_used_over_tls() {
    let ca = Authority::new();
    let own = ca.local("node");
    let nodes: Vec<(Redis, String)> = (0..3)
        .map(|_| {
            let bus = free_port().to_string();
            server(&ca, &own, &["--cluster-enabled", "yes", "--cluster-port", &bus, "--tls-cluster", "yes"])
        })
        .collect();
    let bus = |redis: &Redis| redis.client().ask("CONFIG GET cluster-port").lines().last().unwrap().to_owned();
    for (number, (redis, _)) in nodes.iter().enumerate() {
        let (from, to) = (16384 * number / 3, 16384 * (number + 1) / 3 - 1);
        assert_eq!(redis.client().ask(&format!("CLUSTER ADDSLOTSRANGE {from} {to}")), "+OK\r\n");
        assert_eq!(redis.client().ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)), "+OK\r\n");
    }
    let (first, at) = &nodes[0];
    let port = at.rsplit_once(':').unwrap().1;
    for (redis, _) in &nodes[1..] {
        assert_eq!(redis.client().ask(&format!("CLUSTER MEET 127.0.0.1 {port} {}", bus(first))), "+OK\r\n");
    }
    let is_well = |redis: &Redis| {
        let mut client = redis.client();
        client.ask("CLUSTER INFO").contains("cluster_state:ok") && client.ask("CLUSTER INFO").contains("cluster_size:3")
    };
    eventually("the cluster is well", || nodes.iter().all(|(redis, _)| is_well(redis)));
    let yaml = format!(
        "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"{at}\"]\n    topology: cluster\n    \
         server_tls: {{ca: {}}}\n",
        ca.ca()
    );
    let hotring = Hotring::with_admin(&yaml);
    let mut app = hotring.app();
    eventually("a node has told", || app.ask("SET k v") == "+OK\r\n");
    for number in 0..100 {
        assert_eq!(app.ask(&format!("SET k{number} {number}")), "+OK\r\n");
    }
    let counts: Vec<String> = nodes.iter().map(|(redis, _)| redis.client().ask("DBSIZE")).collect();
    assert!(counts.iter().all(|count| count != ":0\r\n"), "{counts:?}");
    // A slot that has moved: the redirection tells the port for TLS.
    let slot: u16 = first.client().ask("CLUSTER KEYSLOT k").trim_start_matches(':').trim_end().parse().unwrap();
    let home = nodes.iter().position(|(redis, _)| {
        let mut client: Client = redis.client();
        client.ask("GET k") == "$1\r\nv\r\n"
    });
    let (home, next) = (home.unwrap(), (home.unwrap() + 1) % 3);
    let id = nodes[next].0.client().ask("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    assert_eq!(nodes[home].0.client().ask("DEL k"), ":1\r\n");
    for number in [next, home] {
        nodes[number].0.client().ask(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
    }
    eventually("it is followed", || app.ask("SET k new") == "+OK\r\n");
    eventually("it is there", || nodes[next].0.client().ask("GET k") == "$3\r\nnew\r\n");
}
