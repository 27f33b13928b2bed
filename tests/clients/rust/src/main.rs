//! redis-rs and fred through hotring: what needs a connection of its own, all shards, or RESP3.
//!
//! Arguments: host and port of what it talks to and the addresses of the servers behind. A redis-server of its own is a
//! pool of one: then both are the same address, and a check over several shards has nothing to refuse. Prints a line for
//! each check; ends badly if one of them failed.

mod fred_all;
mod redis_rs;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Only a run that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

static FAILURES: AtomicUsize = AtomicUsize::new(0);

/// What the checks talk to.
struct Site {
    host: String,
    port: u16,
    shards: Vec<String>,
}

impl Site {
    /// How many connections wait in a blocking command, as the shards themselves say.
    fn blocked(&self) -> usize {
        self.shards.iter().map(|shard| blocked_at(shard)).sum()
    }

    /// Waits until so many connections wait in a blocking command.
    fn until_blocked(&self, count: usize) {
        let start = Instant::now();
        while self.blocked() != count {
            assert!(start.elapsed() < PATIENCE, "still not {count} that wait");
        }
    }
}

fn blocked_at(shard: &str) -> usize {
    let mut socket = TcpStream::connect(shard).expect("a shard");
    socket.write_all(b"INFO clients\r\nQUIT\r\n").expect("a question");
    let mut info = String::new();
    socket.read_to_string(&mut info).expect("an answer");
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    line.expect("its line").parse().expect("a number")
}

/// Keys on all shards. They differ in their beginning: some hashes put those that differ in their end side by side.
fn apart(prefix: &str) -> Vec<String> {
    (0..50).map(|n| format!("{n}:{prefix}:apart")).collect()
}

/// Runs a check and tells how it went.
fn check(name: &str, title: &str, body: impl FnOnce()) {
    let passed = catch_unwind(AssertUnwindSafe(body)).is_ok();
    FAILURES.fetch_add(usize::from(!passed), Ordering::Relaxed);
    println!("{name}: {title} {}", if passed { "passed" } else { "FAILED" });
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let host = arguments.next().expect("a host");
    let port = arguments.next().and_then(|port| port.parse().ok()).expect("a port");
    let site = Site { host, port, shards: arguments.collect() };
    redis_rs::checks(&site, "redis-rs", "");
    redis_rs::checks(&site, "redis-rs-resp3", "?protocol=resp3");
    fred_all::checks(&site, "fred", false);
    fred_all::checks(&site, "fred-resp3", true);
    ExitCode::from(u8::from(FAILURES.load(Ordering::Relaxed) > 0))
}
