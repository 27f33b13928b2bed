//! The log on standard error: nobody waits for who reads it, what is left out is counted, and what was told last is written.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use support::authority::Authority;
use support::{Client, FOREVER, Redis, Scratch, eventually};

/// More lines than wait.
const FLOOD: usize = 1500;

/// A pipe that takes nothing more.
fn full() -> (PipeReader, PipeWriter) {
    /// `O_NONBLOCK` of Linux.
    const AT_ONCE: i32 = 0o4000;
    let (reader, writer) = std::io::pipe().unwrap();
    // The same pipe, opened once more, so that only this one does not wait.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut filler = OpenOptions::new().write(true).custom_flags(AT_ONCE).open(path).unwrap();
    for piece in [&[b'.'; 4096][..], b"."] {
        loop {
            match filler.write(piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    (reader, writer)
}

/// A hotring in a process of its own: a plain listener, one with TLS, and the admin listener.
struct Process {
    child: Child,
    addresses: Vec<String>,
    /// What it prints more, nobody reads.
    _stdout: BufReader<ChildStdout>,
    _dir: Scratch,
    _ca: Authority,
    _redis: Redis,
}

impl Process {
    fn start(log: impl Into<Stdio>) -> Self {
        let (ca, redis, dir) = (Authority::new(), Redis::start(&[]), Scratch::new());
        let own = ca.local("hotring");
        let path = dir.write(
            "proxy.yaml",
            &format!(
                "admin: 127.0.0.1:0\nlog: {{level: debug}}\npools:\n  main:\n    listen: 127.0.0.1:0\n    listen_tls: 127.0.0.1:0\n    \
                 tls: {{cert: {}, key: {}}}\n    servers: [\"{}:1 s\"]\n",
                own.cert,
                own.key,
                redis.address()
            ),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_hotring"));
        let mut child = command.args(["-c", &path]).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut addresses = Vec::new();
        while addresses.len() < 3 {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once("127.0.0.1:") {
                addresses.push(format!("127.0.0.1:{}", rest.split_whitespace().next().unwrap()));
            }
        }
        Self { child, addresses, _stdout: stdout, _dir: dir, _ca: ca, _redis: redis }
    }

    /// Apps that cannot shake hands: a line each.
    fn flood(&self) {
        for _ in 0..FLOOD {
            let mut app = TcpStream::connect(&self.addresses[1]).unwrap();
            app.set_read_timeout(Some(FOREVER)).unwrap();
            app.write_all(b"PING\r\n").unwrap();
            // A reset is an end, too.
            let _ = app.read_to_end(&mut Vec::new());
        }
    }

    fn dropped(&self) -> f64 {
        let mut admin = TcpStream::connect(&self.addresses[2]).unwrap();
        admin.set_read_timeout(Some(FOREVER)).unwrap();
        admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut page = String::new();
        admin.read_to_string(&mut page).unwrap();
        let value = |line: &str| line.strip_prefix("hotring_log_dropped_total ")?.parse().ok();
        page.lines().find_map(value).expect("it is there")
    }

    /// Stops it; its exit code.
    fn end(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let (mut reader, writer) = full();
    let mut hotring = Process::start(writer);
    hotring.flood();
    let mut app = Client::connect(&hotring.addresses[0]);
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    assert_eq!(app.ask("SET k v"), "+OK\r\n");
    eventually("what is beyond is counted", || hotring.dropped() > 0.0);
    // Whoever begins to read is told how much is missing.
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    let said = "lines of this log were left out: they were not read as fast as they came";
    while !String::from_utf8_lossy(&text).contains(said) {
        let count = reader.read(&mut chunk).unwrap();
        assert!(count > 0);
        text.extend_from_slice(&chunk[..count]);
    }
    let rest = std::thread::spawn(move || {
        reader.read_to_end(&mut text).unwrap();
        text
    });
    assert_eq!(hotring.end(), Some(0));
    let text = String::from_utf8(rest.join().unwrap()).unwrap();
    let told = text.lines().filter(|line| line.contains("no TLS handshake")).count();
    let count = |line: &str| line.split_once("count=")?.1.split_whitespace().next()?.parse::<usize>().ok();
    let missing: usize = text.lines().filter(|line| line.contains(said)).filter_map(count).sum();
    assert!(told >= 1000 && missing > 0 && told + missing >= FLOOD, "{told} told, {missing} missing");
    assert!(text.lines().last().unwrap().len() > 1 && text.contains("SIGTERM"), "what came last is written");
}

#[test]
fn a_process_ends_though_nobody_reads_its_log() {
    let (_reader, writer) = full();
    let mut hotring = Process::start(writer);
    hotring.flood();
    assert_eq!(hotring.end(), Some(0));
    // Nor is one held up that cannot start.
    let (_reader, writer) = full();
    let (dir, taken) = (Scratch::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let there = taken.local_addr().unwrap();
    let path = dir
        .write("proxy.yaml", &format!("admin: off\npools:\n  main:\n    listen: {there}\n    servers: embedded:1\n"));
    let start =
        |log: Stdio| Command::new(env!("CARGO_BIN_EXE_hotring")).args(["-c", &path]).stderr(log).output().unwrap();
    assert_eq!(start(writer.into()).status.code(), Some(71));
    let ended = start(Stdio::piped());
    let text = String::from_utf8(ended.stderr).unwrap();
    let last = format!("hotring: pool main: cannot listen on {there}");
    assert_eq!(ended.status.code(), Some(71));
    assert!(text.lines().last().unwrap().contains(&last), "{text}");
}
