//! Shards, what stands before them, and what the shards say that they did.

use crate::Options;
use crate::chaos::Process;
use crate::support::{self, Client, Redis, Scratch, free_port, pool, wire};
use hotring::ring::{Distribution, KeyHash, Ring, Shard};
use std::fmt::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// What stands before the shards.
pub(crate) enum Proxy {
    Ours(Process),
    Peer { child: Child, address: String },
}

impl Proxy {
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Ours(process) => process.address().to_owned(),
            Self::Peer { address, .. } => address.clone(),
        }
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Ours(process) => {
                process.signal(rustix::process::Signal::KILL);
                process.end();
            }
            Self::Peer { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    /// What it says of its hot keys; nothing if it has no such page.
    pub(crate) fn hot_keys(&self) -> Option<String> {
        let Self::Ours(process) = self else { return None };
        let page = process.page("/hotkeys");
        let (head, body) = page.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }

    /// Processor time that it has taken, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        let id = match self {
            Self::Ours(process) => process.id(),
            Self::Peer { child, .. } => child.id(),
        };
        // Its first thread's name may have blanks; what follows has none.
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        // Linux counts hundredths of a second there, whatever its own clock.
        ticks * 10_000.0
    }

    /// A counter, over all its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Self::Ours(process) = self else { return 0.0 };
        let fits =
            |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        process.metrics().iter().filter(|(series, _)| fits(series)).map(|(_, value)| value).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Self::Peer { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// By what reads of hot keys are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// hotring with this word for `reads`.
    Reads(&'static str),
    Nutcracker,
}

impl Mode {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Reads("off") => "hotring, `reads: off`".to_owned(),
            Self::Reads(reads) => format!("hotring, `reads: {reads}`"),
            Self::Nutcracker => "nutcracker".to_owned(),
        }
    }

    pub(crate) fn is_there(self) -> bool {
        self != Self::Nutcracker || nutcracker().is_some()
    }
}

/// So many of them before these servers, named s0, s1 ..., with these lines more of the pool.
pub(crate) fn proxies(
    mode: Mode,
    count: usize,
    servers: &[String],
    dir: &Scratch,
    lines: &[&str],
    options: &Options,
) -> Vec<Proxy> {
    match mode {
        Mode::Reads(reads) => {
            let hot = format!("hot_keys: {{reads: {reads}}}");
            let mut all = vec!["^log: {level: off}"];
            all.extend(lines);
            if !lines.iter().any(|line| line.starts_with("^workers:")) {
                all.push("^workers: 1");
            }
            if reads != "off" && !lines.iter().any(|line| line.starts_with("hot_keys:")) {
                all.push(&hot);
            }
            let text = pool(servers, &all).replace("admin: off", "admin: 127.0.0.1:0");
            let config = dir.write(&format!("{reads}.yaml"), &text);
            (0..count).map(|_| Proxy::Ours(Process::of(&options.hotring, &config))).collect()
        }
        Mode::Nutcracker => (0..count).map(|number| peer(number, servers, dir)).collect(),
    }
}

/// A nutcracker before these servers.
pub(crate) fn peer(number: usize, servers: &[String], dir: &Scratch) -> Proxy {
    let (address, statistics) = (format!("127.0.0.1:{}", free_port()), free_port().to_string());
    let mut text = format!("main:\n  listen: {address}\n  hash: fnv1a_64\n  distribution: ketama\n  redis: true\n");
    text += "  backlog: 1024\n  servers:\n";
    for (number, server) in servers.iter().enumerate() {
        let _ = writeln!(text, "    - {server}:1 s{number}");
    }
    let config = dir.write(&format!("nutcracker-{number}.yml"), &text);
    let mut command = Command::new(nutcracker().unwrap());
    command.args(["-c", &config, "-s", &statistics, "-a", "127.0.0.1"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    support::eventually("nutcracker listens", || TcpStream::connect(&address).is_ok());
    Proxy::Peer { child, address }
}

/// Where it is, if it is installed.
pub(crate) fn nutcracker() -> Option<&'static str> {
    ["nutcracker", "/usr/sbin/nutcracker", "/usr/local/sbin/nutcracker"]
        .into_iter()
        .find(|name| Command::new(name).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok())
}

/// Where keys live among so many servers.
pub(crate) fn ring(servers: usize) -> Ring {
    let shards: Vec<Shard> = (0..servers).map(|n| Shard { name: format!("s{n}"), weight: 1 }).collect();
    Ring::new(&shards, &[], KeyHash::Fnv1a_64, Distribution::Ketama, None)
}

/// Sets keys to one value, straight at their shards.
pub(crate) fn fill(redis: &[Redis], keys: impl Iterator<Item = String>, value: &str) {
    let ring = ring(redis.len());
    let mut clients: Vec<(Client, Vec<u8>, usize)> = redis.iter().map(|one| (one.client(), Vec::new(), 0)).collect();
    let flush = |(client, bytes, count): &mut (Client, Vec<u8>, usize)| {
        client.send(bytes);
        client.exactly(b"+OK\r\n".len() * *count);
        (*count, *bytes) = (0, Vec::new());
    };
    for key in keys {
        let shard = usize::from(ring.shard_at(ring.position(key.as_bytes()), 0).unwrap());
        clients[shard].1.extend(wire(&["SET", &key, value]));
        clients[shard].2 += 1;
        if clients[shard].2 == 1000 {
            flush(&mut clients[shard]);
        }
    }
    clients.iter_mut().for_each(flush);
}

/// What a shard has done so far, as it says itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Did {
    pub(crate) gets: u64,
    /// All commands but those that a proxy or this bench asks for its own sake.
    pub(crate) all: u64,
    /// Time that it was busy with them.
    pub(crate) micros: u64,
    /// Bytes that it sent.
    pub(crate) bytes: u64,
}

/// Asks shards what they did.
pub(crate) struct Witness(Vec<Client>);

impl Witness {
    pub(crate) fn of(redis: &[Redis]) -> Self {
        Self(redis.iter().map(Redis::client).collect())
    }

    /// Those at the other ends.
    pub(crate) fn at(clients: Vec<Client>) -> Self {
        Self(clients)
    }

    pub(crate) fn ask(&mut self) -> Vec<Did> {
        self.0.iter_mut().map(ask).collect()
    }

    /// What they did since.
    pub(crate) fn since(&mut self, before: &[Did]) -> Vec<Did> {
        let minus = |(now, before): (Did, &Did)| Did {
            gets: now.gets - before.gets,
            all: now.all - before.all,
            micros: now.micros - before.micros,
            bytes: now.bytes - before.bytes,
        };
        self.ask().into_iter().zip(before).map(minus).collect()
    }
}

fn ask(client: &mut Client) -> Did {
    client.send(&[wire(&["INFO", "commandstats"]), wire(&["INFO", "stats"])].concat());
    let page = client.text() + &client.text();
    let mut did = Did::default();
    for line in page.lines() {
        if let Some(bytes) = line.strip_prefix("total_net_output_bytes:") {
            did.bytes = bytes.trim().parse().unwrap();
        }
        let Some((name, rest)) = line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls=")) else {
            continue;
        };
        let mut numbers = rest.split(',');
        let calls: u64 = numbers.next().unwrap().parse().unwrap();
        let micros: u64 = numbers.next().unwrap().strip_prefix("usec=").unwrap().parse().unwrap();
        if ["info", "hello", "ping", "config|get", "monitor", "client|list"].contains(&name) {
            continue;
        }
        did.all += calls;
        did.micros += micros;
        if name == "get" {
            did.gets = calls;
        }
    }
    did
}

/// The greatest of them, the mean, and their quotient.
pub(crate) fn spread(all: impl Iterator<Item = u64> + Clone) -> (f64, f64, f64) {
    let count = all.clone().count().max(1) as f64;
    let (max, mean) = (all.clone().max().unwrap_or(0) as f64, all.sum::<u64>() as f64 / count);
    (max, mean, max / mean.max(1e-9))
}
