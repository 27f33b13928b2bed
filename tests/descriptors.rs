//! More clients than there may be, or than there are descriptors for: each is told so at once, and nobody else notices.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use support::{Client, Hotring, Scratch, eventually, wire};

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// hotring in a process that may open so many files.
struct Limited {
    child: Child,
    addresses: Vec<String>,
}

impl Limited {
    fn start(scratch: &Scratch, limit: u32, yaml: &str) -> Self {
        let config = scratch.write("proxy.yaml", yaml);
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {limit}; exec \"$0\" -c \"$1\""), env!("CARGO_BIN_EXE_hotring"), &config])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut addresses = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("  pool ") {
                addresses.push(rest.split_whitespace().nth(1).unwrap().to_owned());
            }
            if line.contains(" GET greeting") {
                return Self { child, addresses };
            }
        }
        let _ = child.wait();
        panic!("it ended at its start");
    }

    /// Ends it and tells what it wrote to its log.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

/// What a new client is told, and the client if it may stay.
fn greet(address: &str) -> (Vec<u8>, Option<Client>) {
    let mut app = Client::connect(address);
    // It may be closed before it has taken this.
    let _ = app.try_send(&wire(&["PING"]));
    let said = app.reply();
    let stays = said == b"+PONG\r\n";
    (said, stays.then_some(app))
}

#[test]
fn who_finds_no_descriptor_is_told_so() {
    let scratch = Scratch::new();
    let yaml = "admin: off\nworkers: 2\npools:\n  a: {listen: [127.0.0.1:0, 127.0.0.1:0], servers: embedded:2}\n";
    let limited = Limited::start(&scratch, 64, yaml);
    let mut apps = Vec::new();
    let mut refused = 0;
    for n in 0..100 {
        match greet(&limited.addresses[n % 2]) {
            (_, Some(app)) => apps.push(app),
            (said, None) => {
                assert_eq!(said, TOO_MANY);
                refused += 1;
            }
        }
    }
    assert!(apps.len() > 20 && refused > 20, "{} stay, {refused} do not", apps.len());
    for app in &mut apps {
        assert_eq!(app.ask("SET k v"), "+OK\r\n");
    }
    apps.truncate(5);
    for address in &limited.addresses {
        eventually("there is room again", || greet(address).1.is_some());
    }
    let log = limited.end();
    assert_eq!(log.matches("no descriptor is left").count(), 1, "{log}");
}

#[test]
fn a_limit_that_is_too_low_is_told_at_the_start() {
    let scratch = Scratch::new();
    let yaml = "admin: off\npools:\n  a: {listen: 127.0.0.1:0, servers: embedded:2, client_connections: 1000}\n";
    let log = Limited::start(&scratch, 500, yaml).end();
    assert!(log.contains("the limit of open files is below") && log.contains("1064"), "{log}");
    let log = Limited::start(&scratch, 1064, yaml).end();
    assert!(!log.contains("the limit of open files"), "{log}");
}

#[test]
fn client_connections_counts_over_workers_and_listeners() {
    let yaml = "admin: off\nworkers: 3\npools:\n  a: {listen: [127.0.0.1:0, 127.0.0.1:0], servers: embedded:1, \
                client_connections: 10}\n  b: {listen: 127.0.0.1:0, servers: embedded:1, client_connections: 1}\n";
    let hotring = Hotring::start(yaml);
    let mut apps: Vec<Client> = (0..10).map(|n| greet(hotring.address(n % 2)).1.expect("there is room")).collect();
    for n in 0..4 {
        assert_eq!(greet(hotring.address(n % 2)).0, TOO_MANY);
    }
    let only = greet(hotring.address(2)).1.expect("another pool counts by itself");
    assert_eq!(greet(hotring.address(2)).0, TOO_MANY);
    drop(only);
    drop(apps.pop());
    for listener in [0, 2] {
        eventually("there is room again", || {
            let (_, app) = greet(hotring.address(listener));
            let stays = app.is_some();
            apps.extend(app);
            stays
        });
    }
    assert_eq!(greet(hotring.address(1)).0, TOO_MANY);
    apps.iter_mut().for_each(|app| assert_eq!(app.ask("PING"), "+PONG\r\n"));
}
