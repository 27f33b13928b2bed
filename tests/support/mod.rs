//! What the integration tests stand on: hotring in this process, real redis-servers, scripted faulty servers, and a small
//! client that sees bytes. Nothing here sleeps: whoever waits reads from a socket or asks again until a deadline.
#![allow(dead_code, unused_imports, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod authority;
mod client;
mod cluster;
mod fake;
mod redis;
mod relay;
mod replicas;
mod scripts;
pub(crate) mod sentinel;

pub(crate) use client::{Client, wire};
pub(crate) use cluster::{Cluster, over as over_cluster};
pub(crate) use fake::{Fake, Visit};
pub(crate) use redis::{Process, Redis, free_port, shards, shards_with};
pub(crate) use relay::{Cut, Relay, Way};
pub(crate) use replicas::{primary, read_until, replica, replicated, until_read_from};
pub(crate) use scripts::{Stand, installed, source};

use hotring::config::Config;
use hotring::proxy::{Proxy, Signal};
use hotring::ring::{Distribution, KeyHash, Ring, Shard};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Only a test that fails waits this long.
pub(crate) const FOREVER: Duration = Duration::from_secs(60);

/// How patient a pool is where a test does not say it: a server that gets no turn for seconds is not what is tested.
const PATIENT: [&str; 2] = ["timeout: 1m", "connect_timeout: 1m"];

/// What the tests show to change something over the admin listener.
pub(crate) const TOKEN: &str = "the-token-of-the-tests";

/// Asks until the answer is yes. What is asked goes through a socket, so that others get their turn meanwhile.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = now();
    while !is_so() {
        assert!(start.elapsed() < FOREVER, "still not so: {what}");
        std::thread::yield_now();
    }
}

/// The clock, for deadlines and for what must not take long.
#[allow(clippy::disallowed_methods, reason = "a test has a clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A directory of the test's own, removed with it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hotring-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A `proxy.yaml` is given the tests' token, unless it has one, behind all else: lines keep their numbers. It is for nobody else.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        let token = name == "proxy.yaml" && text.contains("\npools:\n") && !text.contains("admin_token");
        let token = if token { format!("admin_token: {TOKEN}\n") } else { String::new() };
        std::fs::write(&path, format!("{text}{token}")).unwrap();
        if !token.is_empty() {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running hotring in this process; stopped when dropped.
pub(crate) struct Hotring {
    addresses: Vec<String>,
    proxy: Option<Proxy>,
    admin: Option<(String, tokio::sync::mpsc::Sender<Signal>, JoinHandle<()>)>,
}

impl Hotring {
    /// From the text of a proxy.yaml. What it says of `admin` is not used.
    pub(crate) fn start(yaml: &str) -> Self {
        let proxy = start(yaml);
        Self { addresses: addresses(&proxy), proxy: Some(proxy), admin: None }
    }

    /// One pool `main` on a TCP port over servers that are named `s0`, `s1` ...; `keys` are more lines of the pool.
    pub(crate) fn over<S: AsRef<str>>(servers: &[S], keys: &[&str]) -> Self {
        Self::start(&pool(servers, keys))
    }

    /// The same with the admin listener, also on a port of its own.
    pub(crate) fn with_admin(yaml: &str) -> Self {
        Self::with_file(yaml, Path::new("test.yaml"))
    }

    /// The same, as if from this file.
    pub(crate) fn with_file(yaml: &str, path: &Path) -> Self {
        let mut config = config(yaml, path);
        (config.admin, config.source.admin_given) = (Some("127.0.0.1:0".parse().unwrap()), true);
        config.admin_token.get_or_insert_with(|| hotring::units::Secret::new(TOKEN));
        let proxy = Proxy::start(config).unwrap_or_else(|error| panic!("{error}"));
        let addresses = addresses(&proxy);
        let (stop, mut stopped) = tokio::sync::mpsc::channel(1);
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let tell = |_: &Proxy, admin: Option<&str>| ready.send(admin.unwrap().to_owned()).unwrap();
            #[expect(clippy::disallowed_methods, reason = "the process' own runtime, not a worker's")]
            let watch = |signals: tokio::sync::mpsc::Sender<Signal>| {
                tokio::spawn(async move {
                    while let Some(signal) = stopped.recv().await {
                        signals.send(signal).await.unwrap();
                    }
                });
            };
            proxy.run(tell, watch).unwrap();
        });
        let admin = is_ready.recv_timeout(FOREVER).expect("the admin listener starts");
        Self { addresses, proxy: None, admin: Some((admin, stop, thread)) }
    }

    /// Where it listens, in the order of the file.
    pub(crate) fn address(&self, number: usize) -> &str {
        &self.addresses[number]
    }

    /// Where the admin listener is.
    pub(crate) fn admin_address(&self) -> &str {
        &self.admin.as_ref().unwrap().0
    }

    /// A new app at the first address.
    pub(crate) fn app(&self) -> Client {
        Client::connect(self.address(0))
    }

    /// Tells it something, as a signal would.
    pub(crate) fn tell(&self, signal: Signal) {
        self.admin.as_ref().unwrap().1.blocking_send(signal).unwrap();
    }

    /// Status and body of an admin page.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        self.ask_admin("GET", path, "")
    }

    /// Status and body of what the admin listener answers to another method; `headers` end with a line break each. Shows the
    /// token, unless they say what to show.
    pub(crate) fn ask_admin(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let token = format!("Authorization: Bearer {TOKEN}\r\n");
        let token = if method == "GET" || headers.contains("Authorization") { "" } else { &token };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{token}{headers}\r\n");
        let answer = String::from_utf8(self.raw_admin(request.as_bytes())).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// All that the admin listener answers to these bytes.
    pub(crate) fn raw_admin(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.admin_at()).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        socket.write_all(request).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        answer
    }

    /// Where the admin listener is.
    pub(crate) fn admin_at(&self) -> &str {
        &self.admin.as_ref().unwrap().0
    }

    /// The value of a series as `/metrics` says it, such as `hotring_fragments_total{pool="main"}`; 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let (_, page) = self.page("/metrics");
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(value).unwrap_or(0.0)
    }

    /// Stops and says whether it went well.
    pub(crate) fn stop(mut self) -> std::io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> std::io::Result<()> {
        if let Some((_, stop, thread)) = self.admin.take() {
            let _ = stop.blocking_send(Signal::Stop);
            return thread.join().map_err(|_| std::io::Error::other("it panicked"));
        }
        self.proxy.take().map_or(Ok(()), Proxy::stop)
    }
}

impl Drop for Hotring {
    fn drop(&mut self) {
        let ended = self.end();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A hotring that has a file of its own.
pub(crate) struct Site {
    pub(crate) hotring: Hotring,
    pub(crate) dir: Scratch,
}

impl Site {
    pub(crate) fn new(yaml: &str) -> Self {
        let dir = Scratch::new();
        let path = dir.write("proxy.yaml", yaml);
        Self { hotring: Hotring::with_file(yaml, Path::new(&path)), dir }
    }

    /// Writes another file and has it taken over the admin listener.
    pub(crate) fn reload(&self, yaml: &str) -> (u16, String) {
        self.dir.write("proxy.yaml", yaml);
        self.hotring.ask_admin("POST", "/reload", "")
    }
}

fn config(yaml: &str, path: &Path) -> Config {
    hotring::config::parse(yaml, path).unwrap_or_else(|wrong| panic!("{wrong}\n{yaml}"))
}

fn start(yaml: &str) -> Proxy {
    Proxy::start(config(yaml, Path::new("test.yaml"))).unwrap_or_else(|error| panic!("{error}"))
}

fn addresses(proxy: &Proxy) -> Vec<String> {
    proxy.addresses().iter().map(|(_, address)| address.clone()).collect()
}

/// The text of a proxy.yaml with one pool, see [`Hotring::over`]. Keys that begin with `^` are the file's and not the pool's.
pub(crate) fn pool<S: AsRef<str>>(servers: &[S], keys: &[&str]) -> String {
    let mut yaml = "admin: off\n".to_owned();
    for key in keys.iter().filter_map(|key| key.strip_prefix('^')) {
        yaml += &format!("{key}\n");
    }
    yaml += "pools:\n  main:\n";
    if !keys.iter().any(|key| key.starts_with("listen:")) {
        yaml += "    listen: 127.0.0.1:0\n";
    }
    yaml += "    servers:\n";
    for (number, server) in servers.iter().enumerate() {
        yaml += &format!("      - {}:1 s{number}\n", server.as_ref());
    }
    let own = PATIENT.iter().filter(|key| !keys.iter().any(|other| other.split(':').next() == key.split(':').next()));
    // Without a `timeout` a probe has a second.
    if keys.contains(&"timeout: off") && !keys.iter().any(|key| key.starts_with("probe_timeout:")) {
        yaml += "    probe_timeout: 1m\n";
    }
    for key in own.chain(keys.iter().filter(|key| !key.starts_with('^'))) {
        yaml += &format!("    {key}\n");
    }
    yaml
}

/// Which of so many servers named `s0`, `s1` ... has a key.
pub(crate) fn home(servers: usize, key: &[u8]) -> usize {
    let shards: Vec<Shard> = (0..servers).map(|n| Shard { name: format!("s{n}"), weight: 1 }).collect();
    let ring = Ring::new(&shards, &[], KeyHash::Fnv1a_64, Distribution::Ketama, None);
    ring.shard_at(ring.position(key), 0).unwrap().into()
}

/// So many keys that live on one of so many servers, all different.
pub(crate) fn keys_on(server: usize, servers: usize, count: usize) -> Vec<String> {
    let shards: Vec<Shard> = (0..servers).map(|n| Shard { name: format!("s{n}"), weight: 1 }).collect();
    let ring = Ring::new(&shards, &[], KeyHash::Fnv1a_64, Distribution::Ketama, None);
    let at = |key: &String| usize::from(ring.shard_at(ring.position(key.as_bytes()), 0).unwrap()) == server;
    (0..).map(|n| format!("key:{n}")).filter(at).take(count).collect()
}

/// A key that lives on one of so many servers.
pub(crate) fn key_on(server: usize, servers: usize) -> String {
    keys_on(server, servers, 1).remove(0)
}
