//! How a hotring ends: in order, at once if told twice, and by handing its listeners to the one that replaces it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::{Client, FOREVER, Fake, Redis, Scratch, eventually, free_port, wire};

/// The program itself, with a file of its own.
struct Process {
    child: Child,
    admin: String,
}

impl Process {
    fn start(path: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hotring"))
            .args(["-c", path])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let admin =
            lines.find_map(|line| Some(line.ok()?.split_once("  admin")?.1.split_whitespace().next()?.to_owned()));
        Self { child, admin: admin.expect("hotring tells where its admin listener is") }
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The status and text of an admin page; none if nobody answers.
    fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(&self.admin).ok()?;
        socket.set_read_timeout(Some(FOREVER)).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some((answer.split(' ').nth(1)?.parse().ok()?, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Its exit code, once it has ended.
    fn end(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("it ends", || {
            let ended = self.child.try_wait().unwrap();
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file with one pool over this server, and more keys at its top.
fn yaml(port: u16, server: &str, top: &str) -> String {
    format!(
        "admin: 127.0.0.1:0\n{top}\npools:\n  main:\n    listen: 127.0.0.1:{port}\n    servers: [\"{server}:1 s\"]\n    \
         timeout: off\n    connect_timeout: 1m\n    probe_timeout: 1m\n"
    )
}

/// A server that answers GET when it is told to.
fn held() -> (Fake, std::sync::mpsc::Sender<()>) {
    let (answer, may_answer) = std::sync::mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let fake = Fake::start(move |visit| {
        visit.shake_hands();
        while visit.request().is_some() {
            let _ = may_answer.lock().unwrap().recv();
            visit.send(b"$4\r\nheld\r\n");
        }
    });
    (fake, answer)
}

#[test]
fn it_is_not_ready_first_and_ends_when_all_is_answered() {
    let (server, answer) = held();
    let dir = Scratch::new();
    let port = free_port();
    let file = dir.write("proxy.yaml", &yaml(port, server.address(), "drain: {delay: 4s, timeout: 60s}"));
    let mut hotring = Process::start(&file);
    let at = format!("127.0.0.1:{port}");
    let (mut idle, mut asks) = (Client::connect(&at), Client::connect(&at));
    assert_eq!(idle.ask("PING"), "+PONG\r\n");
    asks.send(&wire(&["GET", "k"]));
    assert_eq!(hotring.page("/readyz").unwrap().0, 200);
    hotring.tell(Signal::TERM);
    eventually("it is not ready", || hotring.page("/readyz").unwrap().0 == 503);
    // For now all goes on, for apps that come, too.
    assert_eq!(Client::connect(&at).ask("PING"), "+PONG\r\n");
    assert_eq!(idle.ask("PING"), "+PONG\r\n");
    // Then the idle ones are closed; who waits for a reply gets it.
    assert_eq!(idle.rest(), b"");
    eventually("it accepts nothing more", || Client::try_connect(&at).is_err());
    assert!(!hotring.has_ended());
    answer.send(()).unwrap();
    assert_eq!(asks.text(), "$4\r\nheld\r\n");
    assert_eq!(asks.rest(), b"");
    assert_eq!(hotring.end(), Some(0));
}

#[test]
fn told_twice_it_stops_at_once() {
    let (server, _answer) = held();
    let dir = Scratch::new();
    let port = free_port();
    let file = dir.write("proxy.yaml", &yaml(port, server.address(), "drain: {delay: 10m, timeout: 10m}"));
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let mut hotring = Process::start(&file);
        let mut asks = Client::connect(&format!("127.0.0.1:{port}"));
        asks.send(&wire(&["GET", "k"]));
        hotring.tell(signals[0]);
        eventually("it is not ready", || hotring.page("/readyz").unwrap().0 == 503);
        hotring.tell(signals[1]);
        assert_eq!(hotring.end(), Some(0));
    }
}

#[test]
fn drain_timeout_ends_what_never_ends() {
    let (server, _answer) = held();
    let dir = Scratch::new();
    let port = free_port();
    let file = dir.write("proxy.yaml", &yaml(port, server.address(), "drain: {timeout: 200ms}"));
    let mut hotring = Process::start(&file);
    let mut asks = Client::connect(&format!("127.0.0.1:{port}"));
    asks.send(&wire(&["GET", "k"]));
    hotring.tell(Signal::TERM);
    assert_eq!(hotring.end(), Some(0));
}

#[test]
fn another_process_takes_over_and_nobody_is_refused() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let port = free_port();
    let socket = dir.file("app.sock");
    let top = format!("handover: {}\ndrain: {{delay: 2s, timeout: 60s}}", dir.file("handover.sock"));
    let text = yaml(port, redis.address(), &top).replace("listen: ", &format!("listen:\n      - {socket}\n      - "));
    let file = dir.write("proxy.yaml", &text);
    let mut running = Process::start(&file);
    let (over, asked, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let at = format!("127.0.0.1:{port}");
    std::thread::scope(|scope| {
        for place in [&at, &at, &socket, &socket] {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut app) = Client::try_connect(place) else {
                        failed.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    if app.ask("INCR count").starts_with(':') {
                        asked.fetch_add(1, Ordering::Relaxed);
                    } else {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // One that has been there since before is served by the old process as long as that drains.
        let mut old = Client::connect(&at);
        assert_eq!(old.ask("PING"), "+PONG\r\n");
        for _ in 0..3 {
            let next = Process::start(&file);
            let mut before = std::mem::replace(&mut running, next);
            assert_eq!(old.ask("PING"), "+PONG\r\n");
            assert_eq!(before.end(), Some(0));
            old = Client::connect(&at);
            assert_eq!(old.ask("PING"), "+PONG\r\n");
            let counted = asked.load(Ordering::Relaxed);
            eventually("the new one serves", || asked.load(Ordering::Relaxed) > counted + 10);
            assert_eq!(running.page("/readyz").unwrap().0, 200);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.into_inner(), 0);
    let count = redis.client().ask("GET count");
    assert!(count.contains(&format!("\r\n{}\r\n", asked.into_inner())), "each was counted once: {count}");
    // The last one's files go with it.
    running.tell(Signal::TERM);
    assert_eq!(running.end(), Some(0));
    assert!(!std::path::Path::new(&socket).exists() && !std::path::Path::new(&dir.file("handover.sock")).exists());
}

#[test]
fn a_process_that_does_not_come_up_takes_nothing() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let (port, taken) = (free_port(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let top = format!("handover: {}", dir.file("handover.sock"));
    let text = yaml(port, redis.address(), &top);
    let hotring = Process::start(&dir.write("proxy.yaml", &text));
    let mut app = Client::connect(&format!("127.0.0.1:{port}"));
    // It wants an address that is taken, too.
    let there = taken.local_addr().unwrap();
    let other = text.replace("listen: ", &format!("listen:\n      - {there}\n      - "));
    let status = Command::new(env!("CARGO_BIN_EXE_hotring"))
        .args(["-c", &dir.write("other.yaml", &other)])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(71));
    assert_eq!(app.ask("PING"), "+PONG\r\n");
    assert_eq!(Client::connect(&format!("127.0.0.1:{port}")).ask("PING"), "+PONG\r\n");
    assert_eq!(hotring.page("/readyz").unwrap().0, 200);
    // Nor does one that only listens to what it is offered.
    let mut nosy = std::os::unix::net::UnixStream::connect(dir.file("handover.sock")).unwrap();
    nosy.read_exact(&mut [0; 4]).unwrap();
    drop(nosy);
    assert_eq!(Client::connect(&format!("127.0.0.1:{port}")).ask("PING"), "+PONG\r\n");
}

#[test]
fn listeners_that_may_be_handed_over_are_closed_all_the_same() {
    let (server, answer) = held();
    let dir = Scratch::new();
    let port = free_port();
    let top = format!("handover: {}\ndrain: {{timeout: 60s}}", dir.file("handover.sock"));
    let mut hotring = Process::start(&dir.write("proxy.yaml", &yaml(port, server.address(), &top)));
    let at = format!("127.0.0.1:{port}");
    let mut asks = Client::connect(&at);
    asks.send(&wire(&["GET", "k"]));
    let sent = "hotring_server_out_queue{pool=\"main\",backend=\"s\"} 1";
    eventually("it is on its way", || hotring.page("/metrics").unwrap().1.contains(sent));
    hotring.tell(Signal::TERM);
    eventually("it lets nobody in to wait for nothing", || Client::try_connect(&at).is_err());
    answer.send(()).unwrap();
    assert_eq!(asks.text(), "$4\r\nheld\r\n");
    assert_eq!(hotring.end(), Some(0));
}

#[test]
fn a_process_that_does_not_come_up_removes_no_files() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let (port, socket) = (free_port(), dir.file("app.sock"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let top = format!("handover: {}", dir.file("handover.sock"));
    let text = yaml(port, redis.address(), &top).replace("listen: ", &format!("listen:\n      - {socket}\n      - "));
    let text = text.replace("127.0.0.1:0\n", &format!("{}\n", dir.file("admin.sock")));
    let file = dir.write("proxy.yaml", &text);
    let mut hotring = Command::new(env!("CARGO_BIN_EXE_hotring"))
        .args(["-c", &file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let files = [socket.as_str(), &dir.file("admin.sock"), &dir.file("handover.sock")].map(str::to_owned);
    eventually("it is up", || files.iter().all(|file| Client::try_connect(file).is_ok()));
    // In vain for its pool, and once more for its admin listener.
    let there = taken.local_addr().unwrap();
    let last = format!("127.0.0.1:{port}\n");
    let bad_pool = text.replace(&last, &format!("{last}      - {there}\n"));
    let bad_admin = text.replace(&dir.file("admin.sock"), &there.to_string());
    for other in [bad_pool, bad_admin] {
        let status = Command::new(env!("CARGO_BIN_EXE_hotring"))
            .args(["-c", &dir.write("other.yaml", &other)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(71), "{other}");
        for file in &files {
            assert!(Client::try_connect(file).is_ok(), "{file} is still there");
        }
    }
    assert_eq!(Client::connect(&socket).ask("PING"), "+PONG\r\n");
    hotring.kill().unwrap();
    hotring.wait().unwrap();
}

#[test]
fn what_the_next_process_does_not_want_is_closed_and_its_admin_listener_is_where_it_says() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let (port, other) = (free_port(), free_port());
    let socket = dir.file("app.sock");
    let top = format!("handover: {}", dir.file("handover.sock"));
    let text = yaml(port, redis.address(), &top);
    let both = text.replace("listen: ", &format!("listen:\n      - {socket}\n      - "));
    let mut first = Process::start(&dir.write("proxy.yaml", &both));
    assert_eq!(Client::connect(&socket).ask("PING"), "+PONG\r\n");
    let text = text.replace("admin: 127.0.0.1:0", &format!("admin: 127.0.0.1:{other}"));
    let second = Process::start(&dir.write("other.yaml", &text));
    assert_eq!(second.admin, format!("127.0.0.1:{other}"));
    assert_eq!(second.page("/readyz").unwrap().0, 200);
    assert_eq!(first.end(), Some(0));
    assert_eq!(Client::connect(&format!("127.0.0.1:{port}")).ask("PING"), "+PONG\r\n");
    assert!(!std::path::Path::new(&socket).exists(), "nobody listens there any more");
}

#[test]
fn neither_a_silent_successor_nor_a_file_without_an_end_holds_the_stop() {
    let redis = Redis::start(&[]);
    let dir = Scratch::new();
    let handover = dir.file("handover.sock");
    let text = yaml(free_port(), redis.address(), &format!("watch: off\nhandover: {handover}"));
    let file = dir.write("proxy.yaml", &text);
    let mut hotring = Process::start(&file);
    let mut silent = std::os::unix::net::UnixStream::connect(&handover).unwrap();
    silent.read_exact(&mut [0; 4]).unwrap();
    let started = support::now();
    hotring.tell(Signal::TERM);
    assert_eq!(hotring.end(), Some(0));
    // What it was offered, it would hold.
    drop(silent);
    let mut hotring = Process::start(&file);
    std::fs::remove_file(&file).unwrap();
    let is_made = Command::new("mkfifo").arg(&file).status().unwrap().success();
    assert!(is_made);
    hotring.tell(Signal::HUP);
    // One after the other, and so after that.
    hotring.tell(Signal::TERM);
    assert_eq!(hotring.end(), Some(0));
    // A successor may take a minute to start.
    assert!(started.elapsed() < FOREVER / 2);
}
