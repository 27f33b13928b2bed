//! Pools whose servers real sentinels tell, end to end: an app keeps its connection over failovers, and what its primaries'
//! replicas had is there afterwards.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::ring::{Distribution, KeyHash, Ring, Shard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use support::sentinel::{Manner, Watch, is_replica, liar};
use support::{Client, Hotring, eventually};

/// A pool over these sentinels; `keys` are more lines of it.
fn yaml(sentinels: &str, masters: &str, keys: &[&str]) -> String {
    let mut yaml = format!(
        "admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    topology: sentinel\n    servers: {sentinels}\n    \
         masters: {masters}\n    timeout: 5s\n    server_retry_timeout: 1s\n"
    );
    keys.iter().for_each(|key| yaml += &format!("    {key}\n"));
    yaml
}

/// An app that writes numbers which grow, and looks whether it reads what it may.
struct Load {
    app: Client,
    keys: Vec<String>,
    turn: u64,
    /// What was written last, and what of that is certain to be kept.
    last: HashMap<String, u64>,
    acked: HashMap<String, u64>,
    kept: HashMap<String, u64>,
    /// Keys whose requests were answered by an error, since that was last asked.
    failed: Vec<String>,
}

impl Load {
    fn new(hotring: &Hotring, keys: Vec<String>) -> Self {
        let none = HashMap::new;
        Self { app: hotring.app(), keys, turn: 0, last: none(), acked: none(), kept: none(), failed: Vec::new() }
    }

    /// One write and one read.
    fn step(&mut self) {
        self.turn += 1;
        let key = self.keys[self.turn as usize * 7 % self.keys.len()].clone();
        self.last.insert(key.clone(), self.turn);
        let said = self.app.ask(&format!("SET {key} {key}={}", self.turn));
        match said.as_str() {
            "+OK\r\n" => drop(self.acked.insert(key.clone(), self.turn)),
            said => self.fail(&key, said),
        }
        let other = self.keys[self.turn as usize * 11 % self.keys.len()].clone();
        self.read(&other);
    }

    fn read(&mut self, key: &str) {
        let said = self.app.ask(&format!("GET {key}"));
        if said.starts_with('-') {
            return self.fail(key, &said);
        }
        let kept = self.kept.get(key).copied();
        let value = said.lines().nth(1).map(|text| {
            let (name, value) = text.split_once('=').unwrap();
            assert_eq!(name, key, "another key's value");
            value.parse::<u64>().unwrap()
        });
        assert!(value >= kept, "{key} is {value:?}, and {kept:?} was kept");
        assert!(value <= self.last.get(key).copied(), "{key} is {value:?}, which was never written");
    }

    fn fail(&mut self, key: &str, said: &str) {
        assert!(said.starts_with('-'), "{key}: {said}");
        self.failed.push(key.to_owned());
    }

    /// Goes on until nothing fails any more, and then for long enough to be sure.
    fn settle(&mut self) {
        eventually("requests are answered again", || {
            self.failed.clear();
            (0..50).for_each(|_| self.step());
            self.failed.is_empty()
        });
        (0..500).for_each(|_| self.step());
        assert!(self.failed.is_empty(), "{:?}", self.failed);
    }

    /// All that was acknowledged is at these primaries' replicas, too.
    fn keep(&mut self, primaries: &[&str]) {
        for primary in primaries {
            eventually("a replica has it all", || {
                let mut client = Client::connect(primary);
                client.ask("SET fence 1") == "+OK\r\n" && client.ask("WAIT 1 1000") == ":1\r\n"
            });
        }
        self.kept.clone_from(&self.acked);
    }

    fn read_all(&mut self) {
        self.keys.clone().iter().for_each(|key| self.read(key));
        assert!(self.failed.is_empty(), "{:?}", self.failed);
    }

    /// Goes on while something is done.
    fn during<T: Send>(&mut self, what: impl FnOnce() -> T + Send) -> T {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let doing = scope.spawn(|| {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
                over.store(true, Ordering::Release);
                done.unwrap()
            });
            while !over.load(Ordering::Acquire) {
                self.step();
            }
            doing.join().unwrap()
        })
    }
}

fn keys() -> Vec<String> {
    (0..200).map(|n| format!("key:{n}")).collect()
}

/// Which of these names has a key.
fn home<'a>(names: &[&'a str], key: &str) -> &'a str {
    let shards: Vec<Shard> = names.iter().map(|name| Shard { name: (*name).to_owned(), weight: 1 }).collect();
    let ring = Ring::new(&shards, &[], KeyHash::Fnv1a_64, Distribution::Ketama, None);
    names[usize::from(ring.shard_at(ring.position(key.as_bytes()), 0).unwrap())]
}

/// Writes that a server refused since it is a replica.
fn refused_writes(address: &str) -> bool {
    Client::connect(address).ask("INFO errorstats").contains("errorstat_READONLY")
}

#[test]
fn an_app_keeps_its_connection_over_failovers() {
    let mut watch = Watch::over(3, &["one"]);
    let hotring = Hotring::with_admin(&yaml(&watch.list(), "one", &[]));
    let mut load = Load::new(&hotring, keys());
    let first = watch.primary("one").unwrap();
    (0..500).for_each(|_| load.step());
    assert!(load.failed.is_empty());
    load.keep(&[&first]);
    let second = load.during(|| watch.failover("one"));
    load.settle();
    load.keep(&[&second]);
    load.read_all();
    // The same where it is lost without a word.
    watch.server(&second).kill();
    let third = load.during(|| watch.primary_after("one", &second));
    assert_eq!(third, first);
    load.settle();
    load.read_all();
    // It comes back as a master, is made a replica, and is not written to in between or after.
    load.during(|| {
        watch.server(&second).restart();
        eventually("the old primary follows the new one", || is_replica(&second));
    });
    load.settle();
    load.keep(&[&third]);
    load.read_all();
    assert!(!refused_writes(&second));
    assert_eq!(Client::connect(&second).ask("DBSIZE"), Client::connect(&third).ask("DBSIZE"));
    let page = hotring.page("/topology").1;
    assert!(page.contains(&format!("one primary at {third}")), "{page}");
}

#[test]
fn one_name_of_two_fails_alone() {
    let names = ["one", "two"];
    let mut watch = Watch::over(3, &names);
    let hotring = Hotring::with_admin(&yaml(&watch.list(), "[one, two]", &[]));
    let mut load = Load::new(&hotring, keys());
    (0..400).for_each(|_| load.step());
    assert!(load.failed.is_empty());
    // Keys are where the ring of the names says.
    let at: HashMap<&str, String> = names.iter().map(|&name| (name, watch.primary(name).unwrap())).collect();
    for key in &load.keys {
        assert_eq!(Client::connect(&at[home(&names, key)]).ask(&format!("EXISTS {key}")), ":1\r\n", "{key}");
    }
    load.keep(&[&at["one"], &at["two"]]);
    watch.server(&at["one"]).kill();
    let new = load.during(|| watch.primary_after("one", &at["one"]));
    let failed = std::mem::take(&mut load.failed);
    assert!(!failed.is_empty() && failed.iter().all(|key| home(&names, key) == "one"), "{failed:?}");
    load.settle();
    load.read_all();
    // No key has moved by it.
    for key in &load.keys {
        let place = if home(&names, key) == "one" { &new } else { &at["two"] };
        assert_eq!(Client::connect(place).ask(&format!("EXISTS {key}")), ":1\r\n", "{key}");
    }
}

#[test]
fn sentinels_that_are_dead_are_not_missed() {
    let mut watch = Watch::over(3, &["one"]);
    let hotring = Hotring::with_admin(&yaml(&watch.list(), "one", &["topology_interval: 200ms"]));
    let mut load = Load::new(&hotring, keys());
    let first = watch.primary("one").unwrap();
    // With one of them dead a failover is followed.
    watch.sentinels[0].kill();
    let second = load.during(|| watch.failover("one"));
    load.settle();
    load.keep(&[&second]);
    // With two of them, and with all, there is none; what is known stays.
    for number in [1, 2] {
        watch.sentinels[number].kill();
        let series = r#"hotring_topology_errors_total{pool="main"}"#;
        let (errors, asked) =
            (hotring.metric(series), hotring.metric(r#"hotring_topology_refreshes_total{pool="main"}"#));
        eventually("it is asked again", || {
            let now = hotring.metric(series) + hotring.metric(r#"hotring_topology_refreshes_total{pool="main"}"#);
            load.step();
            now >= errors + asked + 2.0
        });
        assert!(load.failed.is_empty(), "{:?}", load.failed);
    }
    // A server that is a master again where the primary was is not used: nobody says that it is to be.
    watch.server(&first).restart();
    assert!(Client::connect(&first).ask("ROLE").contains("$6\r\nmaster"));
    // It has what was sent to it as a replica.
    assert_eq!(Client::connect(&first).ask("FLUSHALL"), "+OK\r\n");
    (0..300).for_each(|_| load.step());
    load.read_all();
    assert_eq!(Client::connect(&first).ask("DBSIZE"), ":0\r\n");
    assert_eq!(watch.server(&first).connections(), 0);
    // They are back, and say what they did.
    for sentinel in &mut watch.sentinels {
        sentinel.restart();
    }
    eventually("the old primary follows the new one", || is_replica(&first));
    load.settle();
    load.read_all();
    assert!(!refused_writes(&first));
}

#[test]
fn sentinels_and_servers_want_passwords() {
    let servers = ["--requirepass", "pw", "--masterauth", "pw"].map(str::to_owned).to_vec();
    let lines = vec!["sentinel auth-pass NAME pw".to_owned()];
    let manner = Manner { replicas: 1, servers, lines, password: Some("secret".into()), ..Manner::default() };
    let watch = Watch::with(3, &["one"], &manner);
    let auth = ["server_auth: {password: pw}", "sentinel_auth: {password: secret}"];
    let hotring = Hotring::with_admin(&yaml(&watch.list(), "one", &auth));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET a 1"), "+OK\r\n");
    let old = watch.primary("one").unwrap();
    assert_ne!(watch.primary_after_failover("one"), old);
    eventually("writes are taken again", || app.ask("SET a 2") == "+OK\r\n");
    assert_eq!(app.ask("GET a"), "$1\r\n2\r\n");
}

#[test]
fn a_sentinel_that_lies_leads_nobody_astray() {
    let watch = Watch::over(3, &["one"]);
    let astray = support::Redis::tcp(&[]);
    let liar = liar(astray.address(), 1_000_000);
    let real: Vec<&str> = watch.sentinels.iter().map(support::sentinel::Sentinel::address).collect();
    let list = format!("[\"{}\", \"{}\", \"{}\"]", liar.address(), real[0], real[1]);
    let hotring = Hotring::with_admin(&yaml(&list, "one", &["topology_interval: 100ms"]));
    let mut load = Load::new(&hotring, keys());
    eventually("it was asked often", || {
        load.step();
        liar.visits() > 10
    });
    let new = load.during(|| watch.failover("one"));
    load.settle();
    load.keep(&[&new]);
    load.read_all();
    assert_eq!(astray.client().ask("DBSIZE"), ":0\r\n");
    assert_eq!(astray.connections(), 0);
}

#[test]
fn a_write_that_a_replica_refuses_is_told_and_asks_anew() {
    // Nobody tells of the change but the server itself.
    let watch = Watch::over(1, &["one"]);
    let servers = &watch.groups[0].1;
    let said = std::sync::Arc::new(std::sync::Mutex::new(servers[0].address().to_owned()));
    let sentinel = support::sentinel::quiet(std::sync::Arc::clone(&said));
    let hotring =
        Hotring::with_admin(&yaml(&format!("[\"{}\"]", sentinel.address()), "one", &["topology_interval: 10m"]));
    let mut app = hotring.app();
    assert_eq!(app.ask("SET a 1"), "+OK\r\n");
    let (old, new) = (servers[0].address(), servers[1].address());
    watch.sentinels[0].freeze();
    assert_eq!(Client::connect(new).ask("REPLICAOF NO ONE"), "+OK\r\n");
    *said.lock().unwrap() = new.to_owned();
    assert_eq!(Client::connect(old).ask(&format!("REPLICAOF {}", new.replace(':', " "))), "+OK\r\n");
    assert_eq!(app.ask("SET a 2"), "-READONLY You can't write against a read only replica.\r\n");
    eventually("writes go to the new primary", || app.ask("SET a 3") == "+OK\r\n");
    assert_eq!(Client::connect(new).ask("GET a"), "$1\r\n3\r\n");
    watch.sentinels[0].thaw();
}

#[test]
fn nobody_answers_at_the_start() {
    let mut watch = Watch::over(1, &["one"]);
    watch.sentinels[0].kill();
    let hotring = Hotring::with_admin(&yaml(&watch.list(), "one", &[]));
    let mut app = hotring.app();
    assert!(app.ask("SET a 1").starts_with('-'));
    let (status, page) = hotring.page("/readyz");
    assert!(status == 503 && page.contains("refused"), "{status} {page}");
    watch.sentinels[0].restart();
    eventually("it is served", || app.ask("SET a 1") == "+OK\r\n");
    assert_eq!(hotring.page("/readyz").0, 200);
}
