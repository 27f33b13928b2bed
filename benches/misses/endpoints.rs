//! What apps connect to: proxies, each with several pools that know nothing of each other, or the shard itself.

use crate::Options;
use crate::chaos::Process;
use crate::stand::{Proxy, nutcracker, peer, ring};
use crate::support::{Redis, Scratch, pool};

/// By what misses are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No proxy: for one key, whose shard every app knows.
    Direct,
    Nutcracker,
    /// hotring, with these words for `misses`; none is a pool that does not say it.
    Misses(&'static str),
}

impl Mode {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Direct => "no proxy".to_owned(),
            Self::Nutcracker => "nutcracker".to_owned(),
            Self::Misses("") => "hotring, `lease: off`".to_owned(),
            Self::Misses(words) => format!("hotring, `{words}`"),
        }
    }

    pub(crate) fn is_there(self) -> bool {
        self != Self::Nutcracker || nutcracker().is_some()
    }
}

/// Servers on ports, so that apps reach them as they reach a proxy.
pub(crate) fn servers(count: usize) -> (Vec<Redis>, Vec<String>) {
    let all: Vec<Redis> = (0..count).map(|_| Redis::tcp(&[])).collect();
    let at = all.iter().map(|redis| redis.address().to_owned()).collect();
    (all, at)
}

/// How many of them: processes, pools in each of them if it is hotring, and workers of a process.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) processes: usize,
    pub(crate) pools: usize,
    pub(crate) workers: usize,
}

/// Where apps connect to.
pub(crate) struct Endpoints {
    pub(crate) addresses: Vec<String>,
    _proxies: Vec<Proxy>,
    _dir: Scratch,
}

impl Endpoints {
    /// `key` is the one that is asked for, if there is one.
    pub(crate) fn start(mode: Mode, size: Size, servers: &[String], key: &str, options: &Options) -> Self {
        let dir = Scratch::new();
        let (mut addresses, mut proxies) = (Vec::new(), Vec::new());
        match mode {
            Mode::Direct => {
                let ring = ring(servers.len());
                let home = usize::from(ring.shard_at(ring.position(key.as_bytes()), 0).unwrap());
                addresses.push(servers[home].clone());
            }
            Mode::Nutcracker => {
                proxies.extend((0..size.processes).map(|number| peer(number, servers, &dir)));
                addresses.extend(proxies.iter().map(Proxy::address));
            }
            Mode::Misses(words) => {
                let misses = format!("misses: {{{words}}}");
                let lines: &[&str] = if words.is_empty() { &[] } else { &[&misses] };
                let text = pool(servers, lines).replace("admin: off", "admin: 127.0.0.1:0");
                let (head, one) = text.split_once("  main:\n").unwrap();
                let mut text = format!("log: {{level: off}}\nworkers: {}\n{head}", size.workers);
                for number in 0..size.pools {
                    text += &format!("  main{number}:\n{one}");
                }
                let config = dir.write("proxy.yaml", &text);
                for _ in 0..size.processes {
                    let process = Process::of(&options.hotring, &config);
                    addresses.extend(process.addresses().iter().cloned());
                    proxies.push(Proxy::Ours(process));
                }
            }
        }
        Self { addresses, _proxies: proxies, _dir: dir }
    }
}
