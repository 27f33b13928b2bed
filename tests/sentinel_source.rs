//! What real sentinels tell, and who of them is believed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::topology::sentinel::Source as Sentinels;
use hotring::topology::talk::Access;
use hotring::topology::{Answer, Settings};
use hotring::units::Secret;
use hotring::upstream::Topology;
use hotring::upstream::topology::{Announce, Asked, Master};
use std::time::Duration;
use support::eventually;
use support::sentinel::{Manner, Watch, is_replica, liar};
use tokio::runtime::{Builder, Runtime};

/// Asks as a proxy does, on a runtime of its own.
struct Source {
    sentinels: Sentinels,
    runtime: Runtime,
}

/// What a pool says: where the sentinels are, what they watch over, and who one is to them and to the servers.
#[derive(Clone)]
struct Wanted {
    at: Vec<String>,
    names: Vec<String>,
    password: Option<&'static str>,
    server_password: Option<&'static str>,
    announce: Vec<Announce>,
}

fn wanted<S: AsRef<str>>(at: &[S], names: &[&str]) -> Wanted {
    Wanted {
        at: at.iter().map(|at| at.as_ref().to_owned()).collect(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        password: None,
        server_password: None,
        announce: Vec::new(),
    }
}

fn at(watch: &Watch) -> Vec<String> {
    watch.sentinels.iter().map(|sentinel| sentinel.address().to_owned()).collect()
}

impl Source {
    fn new(wanted: &Wanted) -> Self {
        let secret = |password: Option<&str>| password.map(Secret::new);
        let asked = Asked {
            at: wanted.at.iter().map(|at| at.parse().unwrap()).collect(),
            announce: wanted.announce.clone(),
            interval: Duration::from_secs(30),
        };
        let master = |name: &String| Master { name: name.clone(), weight: 1 };
        let masters = wanted.names.iter().map(master).collect();
        let topology = Topology::Sentinel { asked, masters, user: None, password: secret(wanted.password), tls: None };
        let access = Access { password: secret(wanted.server_password), ..Access::default() };
        let settings = Settings { topology, access, patience: Duration::from_secs(60) };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { sentinels: Sentinels::new(settings, 7), runtime }
    }

    fn ask(&mut self) -> Result<Answer, String> {
        self.runtime.block_on(self.sentinels.ask())
    }

    /// The primaries' addresses.
    fn primaries(&mut self) -> Vec<String> {
        let layout = self.ask().unwrap().layout;
        layout.nodes.into_iter().map(|node| node.address.to_string()).collect()
    }

    fn is_settled(&mut self) -> bool {
        self.ask().is_ok_and(|answer| answer.settled)
    }

    /// Listens until it is told of another primary.
    fn until_switched(&mut self) {
        let patient = async { while !self.sentinels.heard().await {} };
        self.runtime.block_on(async { tokio::time::timeout(support::FOREVER, patient).await }).unwrap();
    }

    /// Listens for a moment, so that all are listened to.
    fn listen(&mut self) {
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_millis(1), self.sentinels.heard()).await });
    }
}

#[test]
fn names_in_their_order_with_primaries_and_replicas() {
    let watch = Watch::over(3, &["one", "two"]);
    let mut source = Source::new(&wanted(&at(&watch), &["two", "one"]));
    let answer = source.ask().unwrap();
    assert!(answer.settled);
    let layout = answer.layout;
    assert!(layout.slots.is_none());
    for (node, (name, servers)) in layout.nodes.iter().zip(watch.groups.iter().rev()) {
        assert_eq!(node.id, *name);
        assert_eq!(node.address.to_string(), servers[0].address());
        let replicas: Vec<String> = node.replicas.iter().map(|replica| replica.address.to_string()).collect();
        assert_eq!(replicas, [servers[1].address()]);
    }
    // One leads to the others; a name that nobody watches over does not keep the rest from being served.
    let mut source = Source::new(&wanted(&at(&watch)[..1], &["one", "nobody"]));
    assert!(!source.ask().unwrap().settled);
    eventually("all three are listened to", || {
        source.listen();
        watch.sentinels.iter().all(|sentinel| sentinel.listeners() > 0)
    });
    assert_eq!(source.primaries(), [watch.groups[0].1[0].address(), "0.0.0.0:0"]);
    let mut nobody = Source::new(&wanted(&at(&watch), &["nobody"]));
    assert!(nobody.ask().is_err());
}

#[test]
fn a_failover_is_heard_of_and_followed() {
    let mut watch = Watch::over(3, &["one"]);
    let mut source = Source::new(&wanted(&at(&watch), &["one"]));
    let first = watch.primary("one").unwrap();
    assert_eq!(source.primaries(), [first.as_str()]);
    eventually("all three are listened to", || {
        source.listen();
        watch.sentinels.iter().all(|sentinel| sentinel.listeners() > 0)
    });
    let second = watch.failover("one");
    source.until_switched();
    assert_eq!(source.primaries(), [second.as_str()]);
    // The same where the primary is lost without a word. It comes back as a master, and is none for the sentinels.
    watch.server(&second).kill();
    assert_eq!(watch.primary_after("one", &second), first);
    source.until_switched();
    assert_eq!(source.primaries(), [first.as_str()]);
    watch.server(&second).restart();
    eventually("the old primary follows the new one", || {
        assert_eq!(source.primaries(), [first.as_str()]);
        is_replica(&second)
    });
    eventually("all agree", || source.is_settled());
    eventually("the old primary is a replica", || {
        let replicas = source.ask().unwrap().layout.nodes.remove(0).replicas;
        replicas.iter().map(|replica| replica.address.to_string()).collect::<Vec<_>>() == [second.as_str()]
    });
}

#[test]
fn what_is_known_stays_when_sentinels_die() {
    let mut watch = Watch::over(3, &["one"]);
    let mut source = Source::new(&wanted(&at(&watch), &["one"]));
    let primary = watch.primary("one").unwrap();
    assert!(source.is_settled());
    watch.sentinels[0].kill();
    assert_eq!(source.primaries(), [primary.as_str()]);
    // One that takes bytes and answers nothing holds nobody up for long.
    watch.sentinels[1].freeze();
    let start = support::now();
    assert_eq!(source.primaries(), [primary.as_str()]);
    assert!(start.elapsed() < Duration::from_secs(20));
    watch.sentinels[2].kill();
    let error = source.ask().unwrap_err();
    assert!(error.contains("refused") && error.contains("no answer in time"), "{error}");
    watch.sentinels[1].thaw();
    watch.sentinels[0].restart();
    eventually("they are believed again", || source.is_settled() && source.primaries() == [primary.as_str()]);
}

#[test]
fn passwords_of_sentinels_and_of_servers() {
    let servers = ["--requirepass", "pw", "--masterauth", "pw"].map(str::to_owned).to_vec();
    let lines = vec!["sentinel auth-pass NAME pw".to_owned()];
    let manner = Manner { replicas: 1, servers, lines, password: Some("secret".into()), ..Manner::default() };
    let watch = Watch::with(3, &["one"], &manner);
    let mut wanted = wanted(&at(&watch), &["one"]);
    let mut source = Source::new(&wanted);
    assert!(source.ask().unwrap_err().contains("NOAUTH"));
    wanted.password = Some("wrong");
    assert!(Source::new(&wanted).ask().unwrap_err().contains("WRONGPASS"));
    wanted.password = Some("secret");
    // Without the servers' password nobody can say what they are: most sentinels name it, but it is not settled.
    let mut source = Source::new(&wanted);
    assert_eq!(source.primaries(), [watch.primary("one").unwrap()]);
    assert!(!source.is_settled());
    wanted.server_password = Some("pw");
    assert!(Source::new(&wanted).is_settled());
}

#[test]
fn a_sentinel_that_lies_is_outvoted() {
    let watch = Watch::over(3, &["one"]);
    let other = support::Redis::tcp(&[]);
    let liar = liar(other.address(), 1000);
    let primary = watch.primary("one").unwrap();
    let mut all = vec![liar.address().to_owned()];
    all.extend(at(&watch).into_iter().take(2));
    let mut source = Source::new(&wanted(&all, &["one"]));
    for _ in 0..5 {
        assert_eq!(source.primaries(), [primary.as_str()]);
    }
    assert!(liar.visits() >= 5 && !source.is_settled());
}

#[test]
fn a_majority_is_not_enough_where_no_master_is() {
    // All say the same, and what they name is a replica: it is named, but nobody calls it settled.
    let watch = Watch::over(1, &["one"]);
    let replica = watch.groups[0].1[1].address();
    let liars = [liar(replica, 5), liar(replica, 5), liar(replica, 5)];
    let all: Vec<&str> = liars.iter().map(support::Fake::address).collect();
    let mut source = Source::new(&wanted(&all, &["one"]));
    assert_eq!(source.primaries(), [replica]);
    assert!(!source.is_settled());
    // One of three that answers changes nothing by itself while that is so.
    let mut source = Source::new(&wanted(&[liars[0].address(), "127.0.0.1:1", "127.0.0.1:2"], &["one"]));
    assert!(source.ask().is_err());
}

#[test]
fn what_sentinels_call_a_server_may_be_elsewhere_here() {
    let watch = Watch::over(1, &["one"]);
    let (primary, replica) = (watch.groups[0].1[0].address(), watch.groups[0].1[1].address());
    let sentinel = liar("redis-0.internal:6379", 3);
    let mut wanted = wanted(&[sentinel.address()], &["one"]);
    let whole = Announce::Whole { from: ("redis-0.internal".into(), 6379), to: primary.parse().unwrap() };
    wanted.announce = vec![whole];
    let mut source = Source::new(&wanted);
    assert_eq!(source.primaries(), [primary]);
    assert!(source.is_settled());
    assert_eq!(source.ask().unwrap().layout.nodes[0].announced, ["redis-0.internal:6379"]);
    // The same for whole hosts.
    let port = replica.rsplit_once(':').unwrap().1;
    let sentinel = liar(&format!("redis-1.internal:{port}"), 3);
    wanted.at = vec![sentinel.address().to_owned()];
    wanted.announce = vec![Announce::Host { from: "redis-1.internal".into(), to: "localhost".into() }];
    assert_eq!(Source::new(&wanted).primaries(), [format!("localhost:{port}")]);
}

#[test]
fn hosts_may_have_names() {
    let servers = ["--replica-announce-ip", "localhost"].map(str::to_owned).to_vec();
    let watch =
        Watch::with(1, &["one"], &Manner { replicas: 1, servers, host: Some("localhost".into()), ..Manner::default() });
    let mut source = Source::new(&wanted(&at(&watch), &["one"]));
    let named = |n: usize| watch.groups[0].1[n].address().replace("127.0.0.1", "localhost");
    let layout = source.ask().unwrap().layout;
    assert_eq!(layout.nodes[0].address.to_string(), named(0));
    assert_eq!(layout.nodes[0].replicas[0].address.to_string(), named(1));
    watch.primary_after_failover("one");
    eventually("the other is the primary, and answers as one", || {
        let answer = source.ask().unwrap();
        answer.settled && answer.layout.nodes[0].address.to_string() == named(1)
    });
}
