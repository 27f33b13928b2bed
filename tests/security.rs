//! docs/security.md is true: each line of its tables names a test that is there, and those that no other file has are here.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::command::{self, Keys, flag};
use hotring::config;
use hotring::units::Address;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use support::authority::Authority;
use support::{Client, Hotring, Redis, Scratch, eventually, pool, shards, wire};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of the tables: what is claimed, what protects, and the test.
fn claims() -> Vec<[String; 3]> {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut claims = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [claim, protects, test] = cells[..] else { panic!("three cells: {line}") };
        if claim != "Claim" {
            claims.push([claim, protects, test].map(str::to_owned));
        }
    }
    claims
}

#[test]
fn every_line_of_the_page_has_its_test() {
    let claims = claims();
    assert!(claims.len() > 40, "{} lines", claims.len());
    let mut told = BTreeSet::new();
    for [claim, protects, test] in claims {
        assert!(claim.ends_with('.') && !protects.is_empty(), "{claim}");
        let name = test.strip_prefix('`').and_then(|test| test.strip_suffix('`'));
        let (file, function) = name.and_then(|name| name.split_once("::")).unwrap_or_else(|| panic!("{claim}: {test}"));
        let text = fs::read_to_string(root().join(format!("tests/{file}.rs")))
            .unwrap_or_else(|error| panic!("{claim}: tests/{file}.rs: {error}"));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let at = lines.iter().position(|line| line.starts_with(&format!("fn {function}(")));
        let at = at.unwrap_or_else(|| panic!("{claim}: tests/{file}.rs has no {function}"));
        let above = lines[..at].iter().rev().take_while(|line| !line.is_empty() && !line.starts_with('}'));
        let is_test = above.clone().any(|line| *line == "#[test]")
            // Within `proptest!` and the like.
            || text.contains("proptest!");
        assert!(is_test && !above.clone().any(|line| line.contains("ignore")), "{claim}: {test} is no test that runs");
        told.insert((file.to_owned(), function.to_owned()));
    }
    // And what is here stands on the page.
    let own = fs::read_to_string(root().join("tests/security.rs")).unwrap();
    for test in own.split("\n#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next()) {
        let known = told.contains(&("security".to_owned(), test.to_owned()));
        assert!(known || test.starts_with("every_line_"), "{test} is on no line of docs/security.md");
    }
}

#[test]
fn it_listens_on_loopback_unless_told_otherwise() {
    let is_private = |address: &Address| match address {
        Address::Tcp { host, .. } => host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        Address::Unix { .. } => true,
    };
    let least =
        config::parse("pools: {a: {listen: '127.0.0.1:1', servers: 'embedded:1'}}", Path::new("a.yaml")).unwrap();
    assert!(is_private(least.admin.as_ref().unwrap()));
    // The example as it is, and with all that is commented out.
    let text = fs::read_to_string(root().join("proxy.yaml")).unwrap();
    let example = config::parse(&text, Path::new("a.yaml")).unwrap();
    assert!(example.admin.iter().chain(example.pools.iter().flat_map(|pool| &pool.downstream.listen)).all(is_private));
    let listening = |line: &&str| {
        let line = line.trim_start_matches(['#', ' ']);
        line.starts_with("listen") && !line.ends_with(':')
    };
    assert!(text.lines().filter(listening).count() > 3);
    for line in text.lines().filter(listening) {
        assert!(line.contains("127.0.0.1:") || line.contains("/run/"), "{line}");
    }
    // There is no default address for apps that could be another.
    let without = config::parse("pools: {a: {servers: 'embedded:1'}}", Path::new("a.yaml")).unwrap_err().to_string();
    assert!(without.contains("pools.a.listen: missing"), "{without}");
}

/// A request of a command, as short as it may be.
fn least_request(spec: &command::Spec) -> Vec<u8> {
    let mut args: Vec<String> = spec.name.split('|').map(str::to_owned).collect();
    while args.len() < usize::from(spec.arity.unsigned_abs()) {
        let counted = matches!(spec.keys, Keys::Counted(counted) if usize::from(counted.at) == args.len());
        args.push(if counted { "1" } else { "k" }.to_owned());
    }
    wire(&args)
}

#[test]
fn without_auth_no_command_does_anything() {
    let (redis, at) = shards(1);
    let before = redis[0].client().ask("DBSIZE");
    let hotring =
        Hotring::over(&at, &["client_auth: {password: secret}", "admin_commands: allow", "auth_timeout: off"]);
    let mut app = hotring.app();
    let specs: Vec<_> = command::all()
        .flat_map(|spec| [spec].into_iter().chain(spec.subcommands))
        .filter(|spec| spec.arity != 0)
        .collect();
    let (mut refused, mut free) = (0, BTreeSet::new());
    for spec in specs.iter().filter(|spec| spec.subcommands.is_empty() || spec.arity == -1) {
        if spec.flags & flag::NO_AUTH != 0 {
            free.insert(spec.name);
            continue;
        }
        app.send(&least_request(spec));
        assert_eq!(app.text(), "-NOAUTH Authentication required.\r\n", "{}", spec.name);
        refused += 1;
    }
    assert!(refused > 300, "{refused}");
    assert_eq!(free.into_iter().collect::<Vec<_>>(), ["auth", "hello", "quit", "reset"]);
    assert!(app.ask("HELLO 3").starts_with("-NOAUTH"));
    assert_eq!(app.ask("RESET"), "+RESET\r\n");
    assert_eq!(app.ask("GET k"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(redis[0].client().ask("DBSIZE"), before);
    assert_eq!(app.ask("QUIT"), "+OK\r\n");
    assert_eq!(app.rest(), b"");
}

#[test]
fn who_does_not_log_in_is_closed() {
    let (_redis, at) = shards(1);
    let hotring = Hotring::with_admin(&pool(&at, &["client_auth: {password: secret}", "auth_timeout: 100ms"]));
    let mut silent = hotring.app();
    assert_eq!(silent.rest(), b"");
    // Who asks on without a password is closed, too.
    let mut asking = hotring.app();
    eventually("it is closed", || asking.try_ask("GET k").is_err());
    let mut known = hotring.app();
    assert_eq!(known.ask("AUTH secret"), "+OK\r\n");
    let closed = "hotring_client_closed_total{pool=\"main\",why=\"no_auth\"}";
    eventually("it is counted", || hotring.metric(closed) == 2.0);
    assert_eq!(known.ask("PING"), "+PONG\r\n");
}

/// A hotring of its own process with its admin listener, and all that it writes.
struct Process {
    child: Child,
    address: String,
    admin: String,
    written: Vec<JoinHandle<String>>,
    _dir: Scratch,
}

impl Process {
    fn start(yaml: &str, files: &[(&str, &str)], env: &[(&str, &str)]) -> Self {
        let dir = Scratch::new();
        let path = dir.write("proxy.yaml", yaml);
        files.iter().for_each(|(name, text)| drop(dir.write(name, text)));
        let mut child = Command::new(env!("CARGO_BIN_EXE_hotring"))
            .args(["--admin", "127.0.0.1:0", "-c", &path])
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let logged = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let (mut text, mut found) = (String::new(), Vec::new());
        while found.len() < 2 {
            let begin = text.len();
            assert_ne!(stdout.read_line(&mut text).unwrap(), 0, "it ended");
            let line = &text[begin..];
            let address = line.split_once("127.0.0.1:").and_then(|(_, rest)| rest.split_whitespace().next());
            found.extend(address.map(|port| format!("127.0.0.1:{port}")));
        }
        let said = std::thread::spawn(move || {
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let [address, admin] = <[String; 2]>::try_from(found).unwrap();
        Self { child, address, admin, written: vec![logged, said], _dir: dir }
    }

    fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.admin).unwrap();
        let method = if path == "/reload" { "POST" } else { "GET" };
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        answer
    }

    /// All pages, and the arguments of the process.
    fn told(&self) -> Vec<(String, String)> {
        let pages = [
            "/metrics",
            "/status",
            "/config",
            "/backends",
            "/topology",
            "/warm",
            "/hotkeys",
            "/readyz",
            "/healthz",
            "/version",
            "/explain?key=k&pool=main",
            "/reload",
            "/nothing",
        ];
        let mut told: Vec<(String, String)> = pages.iter().map(|page| ((*page).to_owned(), self.page(page))).collect();
        let arguments = fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap();
        told.push(("its arguments".into(), String::from_utf8_lossy(&arguments).into_owned()));
        told
    }

    /// Ends it; what it wrote.
    fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let written: Vec<String> = self.written.drain(..).map(|thread| thread.join().unwrap()).collect();
        assert!(self.child.wait().unwrap().success());
        written.concat()
    }
}

/// Commands that tell of the process, its sessions and what passed through.
const TELLING: &[&str] = &[
    "INFO",
    "CLIENT LIST",
    "CLIENT INFO",
    "CONFIG GET *",
    "SLOWLOG GET 100",
    "HOTRING HOTKEYS COUNT 100",
    "ACL WHOAMI",
    "COMMAND COUNT",
    "MEMORY DOCTOR",
    "CLUSTER NODES",
    "ROLE",
    "NONSENSE",
    "CONFIG SET requirepass x",
];

#[test]
fn passwords_are_told_nowhere() {
    const SERVER: &str = "seen-server-pass";
    let redis = Redis::start(&["--requirepass", SERVER]);
    let file = "    server_auth: {password_file: server.secret}\n    client_auth: {password_env: HOTRING_TEST_APPS}\n    users:\n      app: {password: seen-app-pass, rules: \"+@all ~* &*\"}\n      other: {passwords: [seen-old-pass, seen-new-pass], rules: \"+get ~*\"}\n";
    let yaml = format!(
        "log: {{level: trace}}\npools:\n  main:\n    listen: 127.0.0.1:0\n    slowlog_slower_than: 0\n    servers: [\"{}:1 s0\"]\n{file}  broken:\n    listen: 127.0.0.1:0\n    servers: [\"{}:1 s0\"]\n    redis_auth: seen-wrong-pass\n",
        redis.address(),
        redis.address()
    );
    // The greeting tells the first pool, the second one, and the admin listener.
    let yaml = yaml.replacen("  broken:\n    listen: 127.0.0.1:0", "  broken:\n    listen: /tmp/hotring-PID.sock", 1);
    let socket = std::env::temp_dir().join(format!("hotring-security-{}.sock", std::process::id()));
    let yaml = yaml.replace("/tmp/hotring-PID.sock", socket.to_str().unwrap());
    let process = Process::start(&yaml, &[("server.secret", SERVER)], &[("HOTRING_TEST_APPS", "seen-env-pass")]);
    let mut replies = String::new();
    let mut app = Client::connect(&process.address);
    for line in [
        "AUTH seen-tried-pass",
        "AUTH app seen-tried-pass",
        "HELLO 3 AUTH nobody seen-tried-pass",
        "AUTH a seen-tried-pass b",
        "HELLO 3 AUTH seen-tried-pass",
        "AUTH other seen-new-pass",
        "SET k v",
        "AUTH seen-env-pass",
        "SET k v",
        "GET k",
        "AUTH app seen-app-pass",
    ] {
        replies += &app.ask(line);
    }
    assert_eq!(replies.matches("-WRONGPASS").count(), 3, "{replies}");
    assert_eq!(replies.matches("-NOPERM").count(), 1, "{replies}");
    for line in TELLING {
        replies += &app.ask(line);
    }
    let mut refused = Client::connect(socket.to_str().unwrap());
    replies += &refused.ask("AUTH seen-wrong-pass");
    // The server takes another password.
    replies += &refused.ask("GET k");
    tells_nothing(process, replies);
}

/// Nothing that may not be seen stands in any page, in the log, or in these replies.
fn tells_nothing(process: Process, replies: String) {
    let mut told = process.told();
    told.push(("the replies".into(), replies));
    told.push(("what it wrote".into(), process.stop()));
    for (what, text) in told {
        assert!(!text.contains("seen-"), "{what}: {text}");
    }
}

#[test]
fn values_are_told_nowhere() {
    let (_redis, at) = shards(2);
    let keys = ["slowlog_slower_than: 0", "deny_commands: [APPEND]", "max_value: 1kb", "hot_keys: {reads: near}"];
    let yaml = format!("log: {{level: trace}}\n{}", pool(&at, &keys));
    let process = Process::start(&yaml, &[], &[]);
    let mut app = Client::connect(&process.address);
    let long = "seen-value".repeat(200);
    let mut replies = String::new();
    for args in [
        &["SET", "k", "seen-value"][..],
        &["MSET", "a", "seen-value", "b", "seen-value"],
        &["HSET", "h", "seen-field", "seen-value"],
        &["APPEND", "k", "seen-value"],
        &["SET", "k", &long],
        &["EVAL", "return redis.call('seen-value')", "1", "k"],
        &["LPUSH", "k", "seen-value"],
        &["SET", "k", "seen-value", "seen-option"],
    ] {
        app.call(args);
    }
    // A key that is hot, and is answered from memory.
    for _ in 0..200 {
        let many = wire(&["GET", "k"]).repeat(100);
        app.send(&many);
        for _ in 0..100 {
            assert_eq!(app.text(), "$10\r\nseen-value\r\n");
        }
    }
    for line in TELLING {
        replies += &app.ask(line);
    }
    eventually("it is hot", || process.page("/hotkeys").contains("\"k\""));
    assert!(replies.contains("lpush") || app.ask("SLOWLOG LEN") != ":0\r\n");
    tells_nothing(process, replies);
}

#[test]
fn passwords_are_compared_as_digests_and_as_a_whole() {
    let text = fs::read_to_string(root().join("src/acl/password.rs")).unwrap();
    let (code, _) = text.split_once("#[cfg(test)]").unwrap();
    // What could be compared byte by byte, until one differs, is not there to be compared so.
    let (above, _) = code.split_once("struct Digest").unwrap();
    let derived = above.lines().rev().find(|line| line.starts_with("#[derive")).unwrap();
    assert!(!derived.contains("PartialEq") && !code.contains("impl PartialEq"), "{derived}");
    assert!(
        code.contains("black_box(differs) == 0") && code.matches("==").count() == 2,
        "all bytes, then one question"
    );
    // Passwords of apps are compared nowhere else, and are kept as nothing else.
    let user = fs::read_to_string(root().join("src/acl/mod.rs")).unwrap();
    assert!(user.contains("passwords: Vec<Digest>") && user.contains(".fold(false, |fits, own| fits | own.is(given))"));
}

#[test]
fn files_with_passwords_and_keys_that_everybody_may_read_are_told() {
    let dir = Scratch::new();
    let file = |name: &str, text: &str, mode: u32| {
        let path = dir.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let yaml = |auth: &str| format!("pools: {{a: {{listen: '127.0.0.1:1', servers: 'embedded:1', {auth}}}}}\n");
    let check = |path: &str| {
        let done = Command::new(env!("CARGO_BIN_EXE_hotring")).args(["check", "-c", path]).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap()
    };
    let (open, closed) = (file("open.secret", "x\n", 0o644), file("closed.secret", "x\n", 0o640));
    let ca = Authority::new();
    let (open_key, closed_key) = (ca.local("hotring"), ca.local("closed"));
    fs::set_permissions(&open_key.key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&closed_key.key, fs::Permissions::from_mode(0o640)).unwrap();
    let cert = |key: &str| key.replace(".key", ".crt");
    let tls = |key: &str| yaml(&format!("listen_tls: '127.0.0.1:2', tls: {{cert: {}, key: {key}}}", cert(key)));
    let to_servers = |key: &str| {
        let server_tls = format!("server_tls: {{ca: {}, cert: {}, key: {key}}}", ca.ca(), cert(key));
        yaml(&server_tls).replace("'embedded:1'", "['127.0.0.1:3']")
    };
    let plain = yaml("client_auth: {password: x}");
    for (text, mode, exposed) in [
        (plain.clone(), 0o644, Some("proxy.yaml")),
        (plain, 0o640, None),
        (yaml("redis_auth: x"), 0o604, Some("proxy.yaml")),
        (yaml(&format!("client_auth: {{password_file: {open}}}")), 0o644, Some("open.secret")),
        (yaml(&format!("client_auth: {{password_file: {closed}}}")), 0o644, None),
        (yaml(&format!("users: {{u: {{password: 'sha256:{}', rules: on}}}}", "0".repeat(64))), 0o644, None),
        (yaml("users: {u: {passwords: [x], rules: on}}"), 0o644, Some("proxy.yaml")),
        (yaml("backlog: 1"), 0o666, None),
        (format!("admin_token: 'sha256:{}'\n{}", "0".repeat(64), yaml("backlog: 1")), 0o644, Some("proxy.yaml")),
        (tls(&open_key.key), 0o644, Some("hotring.key")),
        (tls(&closed_key.key), 0o644, None),
        (to_servers(&open_key.key), 0o644, Some("hotring.key")),
    ] {
        let said = check(&file("proxy.yaml", &text, mode));
        let told = said.lines().find(|line| line.contains("holds a password"));
        assert_eq!(told.is_some(), exposed.is_some(), "{text}: {said}");
        if let (Some(told), Some(name)) = (told, exposed) {
            assert!(told.starts_with("warning: ") && told.contains(name) && told.contains("chmod o="), "{told}");
        }
    }
}

#[test]
fn no_code_of_its_own_is_unsafe() {
    for file in ["src/lib.rs", "src/main.rs"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

#[test]
fn dependencies_are_looked_at() {
    let gate = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(gate.contains("cargo deny") && gate.contains(".ci/dependencies"), "before each change is taken");
    let done = Command::new(root().join(".ci/dependencies")).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}
