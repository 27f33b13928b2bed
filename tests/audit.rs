//! The audit log: who was denied what and who could not log in; nothing that is a key, a value or a password; and no flood.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rustls::version::{TLS12, TLS13};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::authority::{Authority, Dialer};
use support::{Client, Scratch, eventually, free_port, pool, shards};

/// A hotring of its own process, whose standard output and standard error are kept.
struct Process {
    child: Child,
    address: String,
    stdout: BufReader<std::process::ChildStdout>,
    dir: Scratch,
}

const USERS: &str = "users: {default: {password: hidden-one, rules: \"+@all ~* &*\"}, app: {password: hidden-two, rules: \"+get +ping ~app:*\"}}";

impl Process {
    fn start(at: &[&str], keys: &[&str]) -> Self {
        let dir = Scratch::new();
        let path = dir.write("proxy.yaml", &pool(at, keys));
        let mut child = Command::new(env!("CARGO_BIN_EXE_hotring"))
            .args(["-c", &path])
            .current_dir(&dir.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once("127.0.0.1:") {
                break format!("127.0.0.1:{}", rest.split_whitespace().next().unwrap());
            }
        };
        Self { child, address, stdout, dir }
    }

    fn app(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Ends it; all that it wrote to standard output and standard error.
    fn stop(mut self) -> (String, String) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        self.stdout.read_to_string(&mut out).unwrap();
        assert!(self.child.wait().unwrap().success());
        (out, err)
    }
}

fn at(addresses: &[String]) -> Vec<&str> {
    addresses.iter().map(String::as_str).collect()
}

/// A field of a line, a text or a number.
fn field(line: &str, name: &str) -> String {
    let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name}: {line}"));
    let end = if rest.starts_with('"') { "\"" } else { ",}" };
    rest.trim_start_matches('"').split(|c| end.contains(c)).next().unwrap().to_owned()
}

/// Does something of each kind that is told; what the app's address was.
fn provoke(process: &Process) -> String {
    let mut app = process.app();
    assert!(app.ask("AUTH default hidden-wrong").starts_with("-WRONGPASS"));
    assert!(app.ask("AUTH hidden-two app").starts_with("-WRONGPASS"), "the wrong way round");
    assert_eq!(app.ask("AUTH app hidden-two"), "+OK\r\n");
    assert!(app.ask("SET app:hidden-key hidden-value").starts_with("-NOPERM"));
    assert!(app.ask("GET hidden-key").starts_with("-NOPERM"));
    assert_eq!(app.ask("AUTH hidden-one"), "+OK\r\n");
    assert!(app.ask("FLUSHALL").starts_with("-NOPERM"));
    assert!(app.ask("MSET hidden-a 1 hidden-b hidden-long-value").starts_with("-ERR a value of"));
    assert_eq!(app.ask("SET a 1"), "+OK\r\n");
    let info = app.ask("CLIENT INFO");
    info.split_once(" addr=").unwrap().1.split(' ').next().unwrap().to_owned()
}

const DENIALS: [&str; 3] = [USERS, "deny_commands: [FLUSHALL]", "max_value: 10b"];

/// The lines that are to be there: event, user, command, reason, keys.
const TOLD: [(&str, &str, &str, &str, &str); 6] = [
    ("auth", "default", "auth", "password", "0"),
    ("auth", "-", "auth", "password", "0"),
    ("denied", "app", "set", "rules", "1"),
    ("denied", "app", "get", "rules", "1"),
    ("denied", "default", "flushall", "deny_commands", "0"),
    ("denied", "default", "mset", "max_value", "2"),
];

fn look(lines: &[&str], address: &str) {
    assert_eq!(lines.len(), TOLD.len(), "{lines:#?}");
    for (line, (event, user, command, reason, keys)) in lines.iter().zip(TOLD) {
        for (name, expected) in [
            ("event", event),
            ("user", user),
            ("command", command),
            ("reason", reason),
            ("keys", keys),
            ("pool", "main"),
            ("outcome", "refused"),
            ("peer", address),
        ] {
            assert_eq!(field(line, name), expected, "{name} of {line}");
        }
    }
}

#[test]
fn a_file_has_a_line_of_each() {
    let (_redis, addresses) = shards(2);
    let path = |process: &Process| PathBuf::from(process.dir.file("audit.log"));
    let mut keys = vec!["^log: {audit: ./audit.log, level: error}"];
    keys.extend(DENIALS);
    let process = Process::start(&at(&addresses), &keys);
    let address = provoke(&process);
    let file = path(&process);
    let read = || std::fs::read_to_string(&file).unwrap();
    eventually("all lines are there", || read().lines().count() == TOLD.len());
    let text = read();
    look(&text.lines().collect::<Vec<_>>(), &address);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (out, err) = process.stop();
    for (what, text) in [("the file", &text), ("standard output", &out), ("standard error", &err)] {
        assert!(!text.contains("hidden"), "{what}: {text}");
    }
    assert!(!err.contains("denied"), "{err}");
}

#[test]
fn a_certificate_that_is_refused_is_told() {
    let (_redis, addresses) = shards(1);
    let (ca, other) = (Authority::new(), Authority::new());
    let (own, stranger) = (ca.local("hotring"), other.issue("app", &["DNS:app"]));
    let address = format!("127.0.0.1:{}", free_port());
    let listen = format!("listen_tls: {address}");
    let tls = format!("tls: {{cert: {}, key: {}, client_ca: {}}}", own.cert, own.key, ca.ca());
    let process = Process::start(&at(&addresses), &["^log: {audit: ./audit.log, level: error}", &listen, &tls]);
    // What is no TLS shows no certificate, and is not told here.
    assert!(Client::connect(&address).try_ask("PING").is_err());
    for shows in [None, Some(&stranger)] {
        let dialer = Dialer::believing(&ca.ca(), shows, &[&TLS13, &TLS12]);
        let app = dialer.app_as(&address, "127.0.0.1");
        assert!(!app.is_ok_and(|mut app| app.try_ask("PING").is_ok_and(|reply| reply == "+PONG\r\n")));
    }
    let read = || std::fs::read_to_string(process.dir.file("audit.log")).unwrap();
    eventually("both are told", || read().lines().count() == 2);
    let text = read();
    for (line, reason) in text.lines().zip(["no_certificate", "unknown_issuer"]) {
        for (name, expected) in [("event", "tls"), ("pool", "main"), ("reason", reason), ("outcome", "refused")] {
            assert_eq!(field(line, name), expected, "{name} of {line}");
        }
        assert!(field(line, "peer").starts_with("127.0.0.1:"), "{line}");
        assert!(["user", "command", "keys"].iter().all(|name| !line.contains(&format!("\"{name}\""))), "{line}");
    }
    process.stop();
}

#[test]
fn standard_output_and_the_log_have_the_same() {
    let (_redis, addresses) = shards(1);
    for (log, to_stdout) in
        [("^log: {audit: stdout}", true), ("^log: {format: json}", false), ("^log: {audit: 'off'}", false)]
    {
        let mut keys = vec![log];
        keys.extend(DENIALS);
        let process = Process::start(&at(&addresses), &keys);
        let address = provoke(&process);
        // A worker tells what it has noted before it ends.
        let (out, err) = process.stop();
        assert!(!out.contains("hidden") && !err.contains("hidden"), "{out}{err}");
        let of = |text: &'static str| -> Vec<&'static str> {
            text.lines().filter(|line| line.contains("\"outcome\"")).collect()
        };
        let (out, err) = (of(out.leak()), of(err.leak()));
        match (log.contains("json"), to_stdout) {
            (true, _) => {
                look(&err, &address);
                assert!(out.is_empty());
            }
            (_, true) => {
                look(&out, &address);
                assert!(err.is_empty());
            }
            _ => assert!(out.is_empty() && err.is_empty(), "off is off"),
        }
    }
}

#[test]
fn a_flood_is_a_number() {
    let (_redis, addresses) = shards(1);
    let process = Process::start(&at(&addresses), &["^log: {audit: ./audit.log}", "deny_commands: [KEYS]"]);
    let mut app = process.app();
    const DENIED: usize = 20_000;
    let wire = support::wire(&["KEYS", "*"]);
    for _ in 0..DENIED / 500 {
        app.send(&wire.repeat(500));
        for _ in 0..500 {
            assert!(app.text().starts_with("-NOPERM"));
        }
    }
    let file = PathBuf::from(process.dir.file("audit.log"));
    let count = || {
        let text = std::fs::read_to_string(&file).unwrap();
        let (told, sums): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("\"denied\""));
        let suppressed: usize = sums.iter().map(|line| field(line, "count").parse::<usize>().unwrap()).sum();
        (told.len(), sums.len(), suppressed)
    };
    eventually("each is told or counted", || {
        let (told, _, suppressed) = count();
        told + suppressed == DENIED
    });
    let (told, sums, _) = count();
    assert!((100..DENIED / 2).contains(&told) && sums >= 1, "{told} lines, {sums} sums");
    process.stop();
}

#[test]
fn a_file_that_cannot_be_written_is_told_at_the_start() {
    let dir = Scratch::new();
    let path = dir.write(
        "proxy.yaml",
        "log: {audit: /nowhere/audit.log}\npools: {a: {listen: '127.0.0.1:0', servers: 'embedded:1'}}\n",
    );
    let done = Command::new(env!("CARGO_BIN_EXE_hotring")).args(["--admin", "off", "-c"]).arg(path).output().unwrap();
    assert_eq!(done.status.code(), Some(71));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("the audit log /nowhere/audit.log cannot be opened: "), "{said}");
}

#[test]
fn who_guesses_is_closed() {
    let (_redis, addresses) = shards(1);
    for (key, most) in [("max_auth_failures: 16", 16), ("max_auth_failures: 3", 3)] {
        let hotring = support::Hotring::with_admin(&pool(&addresses, &["client_auth: {password: right}", key]));
        let mut app = hotring.app();
        for n in 1..=most {
            // RESET does not begin anew.
            assert!(n % 2 == 0 || app.ask("RESET") == "+RESET\r\n");
            let how = if n % 3 == 0 { "HELLO 3 AUTH default wrong" } else { "AUTH wrong" };
            assert!(app.ask(how).starts_with("-WRONGPASS"), "{n}");
        }
        assert_eq!(app.rest(), b"", "{most} and no more");
        let closed = "hotring_client_closed_total{pool=\"main\",why=\"wrong_passwords\"}";
        eventually("it is counted", || hotring.metric(closed) == 1.0);
        assert_eq!(hotring.app().ask("AUTH right"), "+OK\r\n");
    }
    let hotring = support::Hotring::over(&addresses, &["client_auth: {password: right}", "max_auth_failures: off"]);
    let mut app = hotring.app();
    for _ in 0..40 {
        assert!(app.ask("AUTH wrong").starts_with("-WRONGPASS"));
    }
    assert_eq!(app.ask("AUTH right"), "+OK\r\n");
}
