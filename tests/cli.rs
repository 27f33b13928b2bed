//! The binary: what it prints, how it ends, and that it stops without losing a reply.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use support::authority::Authority;
use support::{Client, Redis, Scratch, eventually, key_on, pool, shards, wire};

const BINARY: &str = env!("CARGO_BIN_EXE_hotring");

/// Runs it to its end: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let done = Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// A process that serves.
struct Serving {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What it said before it began.
    greeting: Vec<String>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(BINARY);
        let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut greeting: Vec<String> = Vec::new();
        while !greeting.last().is_some_and(|line| line.contains(" GET greeting") || line.ends_with(" PING")) {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended after {greeting:?}");
            greeting.push(line.trim_end().to_owned());
        }
        Self { child, output, greeting }
    }

    /// The address in a line of the greeting.
    fn address(&self, of: &str) -> String {
        let line = self.greeting.iter().find(|line| line.trim_start().starts_with(of)).unwrap();
        line.trim_start()[of.len()..].split_whitespace().next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing more is said to standard output");
        self.child.wait().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_greets_and_ends_with_0() {
    let dir = Scratch::new();
    let (_redis, at) = shards(2);
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}"]));
    for signal in [Signal::TERM, Signal::INT] {
        let mut hotring = Serving::start(&["-c", &config]);
        let address = hotring.address("pool main");
        let port = address.strip_prefix("127.0.0.1:").unwrap();
        let lines = [
            format!("hotring {}", env!("CARGO_PKG_VERSION")),
            format!("  pool main         {address:<24} over 2 servers"),
            "  admin             off".to_owned(),
            format!("try: redis-cli -p {port} PING"),
        ];
        assert_eq!(hotring.greeting, lines);
        let mut app = Client::connect(&address);
        assert_eq!(app.ask("SET greeting hello"), "+OK\r\n");
        assert_eq!(app.ask("GET greeting"), "$5\r\nhello\r\n");
        hotring.signal(signal);
        assert_eq!(app.rest(), b"");
        assert_eq!(hotring.end().code(), Some(0));
    }
}

#[test]
fn the_greeting_tells_where_apps_speak_tls() {
    let (dir, ca) = (Scratch::new(), Authority::new());
    let own = ca.local("hotring");
    let tls = format!("tls: {{cert: {}, key: {}}}", own.cert, own.key);
    let yaml = format!("admin: off\npools: {{a: {{listen_tls: '127.0.0.1:0', {tls}, servers: 'embedded:1'}}}}\n");
    let config = dir.write("proxy.yaml", &yaml);
    let mut hotring = Serving::start(&["-c", &config]);
    let [_, pool, _, tries @ ..] = &hotring.greeting[..] else { panic!("{:?}", hotring.greeting) };
    assert!(pool.ends_with(" over 1 embedded nodes (no Redis needed), with TLS"), "{pool}");
    assert!(tries[0].starts_with("try: redis-cli --tls --cacert CA -p "), "{tries:?}");
    hotring.signal(Signal::TERM);
    assert_eq!(hotring.end().code(), Some(0));
}

#[test]
fn needs_no_redis_with_embedded_nodes_and_tells_every_address() {
    let dir = Scratch::new();
    let path = dir.file("app.sock");
    let text = format!(
        "log: {{level: off}}\npools:\n  nodes:\n    listen: [\"{path}\", \"[::1]:0\"]\n    servers: embedded:3\n  one:\n    listen: 127.0.0.1:0\n    \
         servers: embedded:1\n"
    );
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 cannot be asked.
        return;
    }
    let config = dir.write("proxy.yaml", &text);
    let mut hotring = Serving::start(&["--config", &config, "--admin", "127.0.0.1:0"]);
    let [_, first, second, third, admin, tries @ ..] = &hotring.greeting[..] else { panic!("{:?}", hotring.greeting) };
    assert_eq!(*first, format!("  pool nodes        {path:<24} over 3 embedded nodes (no Redis needed)"));
    assert!(second.starts_with("  pool nodes        [::1]:"), "{second}");
    assert!(third.starts_with("  pool one          127.0.0.1:"), "{third}");
    assert!(admin.starts_with("  admin             127.0.0.1:"), "{admin}");
    assert!(admin.ends_with(" / is for browsers; /metrics /readyz /backends /hotkeys /explain and more"), "{admin}");
    assert_eq!(tries[0], format!("try: redis-cli -s {path} SET greeting hello"));
    let one = hotring.address("pool one");
    for (n, address) in [path.as_str(), &hotring.address("pool nodes"), &one].into_iter().enumerate() {
        let mut app = Client::connect(address);
        for k in 0..100 {
            assert_eq!(app.ask(&format!("SET key:{k} {n}")), "+OK\r\n");
            assert_eq!(app.ask(&format!("GET key:{k}")), format!("$1\r\n{n}\r\n"));
        }
        assert!(app.ask("MGET key:1 key:50 nothing").ends_with("$-1\r\n"));
    }
    hotring.signal(Signal::TERM);
    assert_eq!(hotring.end().code(), Some(0));
    assert!(!std::fs::exists(&path).unwrap(), "its socket is gone");
}

#[test]
fn a_signal_right_behind_the_greeting_ends_it_in_order() {
    let dir = Scratch::new();
    let config = dir
        .write("proxy.yaml", "admin: off\nlog: {level: off}\npools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n");
    for _ in 0..10 {
        let mut hotring = Serving::start(&["-c", &config]);
        hotring.signal(Signal::TERM);
        assert_eq!(hotring.end().code(), Some(0));
    }
}

#[test]
fn open_requests_get_their_replies_before_it_ends() {
    let dir = Scratch::new();
    let (redis, at) = shards(2);
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}"]));
    let mut hotring = Serving::start(&["-c", &config]);
    let address = hotring.address("pool main");
    let [a, b] = [0, 1].map(|shard| key_on(shard, 2));
    let mut apps: Vec<Client> = (0..5).map(|_| Client::connect(&address)).collect();
    assert_eq!(apps[0].ask(&format!("MSET {a} 1 {b} 2")), "+OK\r\n");
    redis[1].freeze();
    for app in &mut apps {
        app.send(&[wire(&["GET", &b]).repeat(100), wire(&["MGET", &a, &b])].concat());
    }
    let mut idle = Client::connect(&address);
    for _ in 0..2 {
        assert_eq!(idle.ask("PING"), "+PONG\r\n");
    }
    hotring.signal(Signal::TERM);
    assert_eq!(idle.rest(), b"", "who waits for nothing is let go at once");
    eventually("no one is accepted any more", || Client::try_connect(&address).is_err());
    redis[1].thaw();
    for app in &mut apps {
        let expected = "$1\r\n2\r\n".repeat(100) + "*2\r\n$1\r\n1\r\n$1\r\n2\r\n";
        assert_eq!(String::from_utf8(app.rest()).unwrap(), expected);
    }
    assert_eq!(hotring.end().code(), Some(0));
}

#[test]
fn an_address_in_use_is_71() {
    let dir = Scratch::new();
    let redis = Redis::tcp(&[]);
    let taken = redis.address();
    let text = format!("admin: off\npools: {{a: {{listen: \"{taken}\", servers: embedded:1}}}}\n");
    let (code, said, complained) = run(&["-c", &dir.write("pool.yaml", &text)]);
    assert_eq!((code, said.as_str()), (71, ""));
    assert_eq!(
        complained,
        format!("hotring: pool a: cannot listen on {taken}: Address already in use (os error 98)\n")
    );
    let text = "log: {level: off}\npools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n";
    let (code, said, complained) = run(&["-c", &dir.write("admin.yaml", text), "--admin", taken]);
    assert_eq!((code, said.as_str()), (71, ""));
    assert_eq!(complained, format!("hotring: admin: cannot listen on {taken}: Address already in use (os error 98)\n"));
    // A unix socket that somebody listens on is not taken away, nor is a file of another kind.
    let busy = Redis::start(&[]);
    let other = dir.write("notes.txt", "mine");
    for (path, why) in [(busy.address(), "another process listens there"), (&other, "there is a file of another kind")]
    {
        let text = format!("admin: off\npools: {{a: {{listen: {path}, servers: embedded:1}}}}\n");
        let (code, _, complained) = run(&["-c", &dir.write("unix.yaml", &text)]);
        assert_eq!((code, complained), (71, format!("hotring: pool a: cannot listen on {path}: {why}\n")));
    }
    assert_eq!(busy.client().ask("PING"), "+PONG\r\n");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
}

#[test]
fn an_admin_listener_on_a_unix_socket_can_be_started_again() {
    let dir = Scratch::new();
    let socket = dir.file("admin.sock");
    let text = format!("admin: {socket}\npools: {{a: {{listen: 127.0.0.1:0, servers: embedded:1}}}}\n");
    let config = dir.write("pool.yaml", &text);
    let mut killed = Serving::start(&["-c", &config]);
    killed.signal(Signal::KILL);
    killed.end();
    // The file that was left behind is replaced.
    let mut hotring = Serving::start(&["-c", &config]);
    let (code, _, complained) = run(&["-c", &config]);
    assert_eq!(code, 71, "{complained}");
    hotring.signal(Signal::TERM);
    assert_eq!(hotring.end().code(), Some(0));
    assert!(!std::path::Path::new(&socket).exists());
}

#[test]
fn bad_configuration_and_bad_arguments_are_64_and_a_missing_file_is_78() {
    let dir = Scratch::new();
    let bad =
        dir.write("bad.yaml", "pools:\n  a:\n    listen: 127.0.0.1:0\n    servers: embedded:1\n    timeout: soon\n");
    for arguments in [&["-c", &bad][..], &["check", "-c", &bad], &["-t", "-c", &bad], &["route", "-c", &bad, "k"]] {
        let (code, said, complained) = run(arguments);
        assert_eq!((code, said.as_str()), (64, ""), "{arguments:?}");
        assert!(complained.contains("bad.yaml:5:14") && complained.contains("pools.a.timeout"), "{complained}");
    }
    for arguments in [&["--nonsense"][..], &["route"], &["import"], &["check", "a", "b"], &["-c"]] {
        let (code, said, complained) = run(arguments);
        assert_eq!((code, said.as_str()), (64, ""), "{arguments:?}");
        assert!(complained.starts_with("error: "), "{complained}");
    }
    let nowhere = dir.file("nowhere.yaml");
    for arguments in
        [&["-c", &nowhere][..], &["check", "-c", &nowhere], &["import", &nowhere], &["route", "-c", &nowhere, "k"]]
    {
        let (code, said, complained) = run(arguments);
        assert_eq!((code, said.as_str()), (78, ""), "{arguments:?}");
        assert!(complained.contains(&nowhere), "{complained}");
    }
    let good = dir.write("good.yaml", "pools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n");
    let (code, _, complained) = run(&["-c", &good, "--admin", "nonsense"]);
    assert_eq!(code, 64);
    assert!(complained.starts_with("--admin: read `nonsense`, expected "), "{complained}");
}

#[test]
fn check_says_what_is_valid_and_what_is_seldom_meant() {
    let dir = Scratch::new();
    let good = dir.write("good.yaml", "pools: {a: {listen: 127.0.0.1:0, servers: embedded:1}}\n");
    let two = "pools:\n  a: {listen: 127.0.0.1:0, servers: [\"h:1:1\"], timeout: off}\n  b: {listen: 127.0.0.1:0, servers: \
               embedded:1}\n";
    let two = dir.write("two.yaml", two);
    for check in [&["check", "-c"][..], &["-t", "-c"]] {
        let said = run(&[check, &[&good]].concat());
        assert_eq!(said, (0, format!("{good} is valid: 1 pool, 1 embedded node\n"), String::new()));
        let warning = "warning: pool `a`: no `timeout`: a server that hangs holds its requests for ever\n";
        assert_eq!(
            run(&[check, &[&two]].concat()),
            (
                0,
                format!("{warning}{two} is valid: 2 pools, 1 embedded node, 1 server (not contacted)\n"),
                String::new()
            )
        );
    }
    let (code, version, _) = run(&["--version"]);
    assert_eq!((code, version), (0, format!("hotring {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, help, _) = run(&["--help"]);
    assert!(code == 0 && help.contains("Usage: hotring"), "{help}");
}

#[test]
fn import_makes_a_proxy_yaml_that_routes_the_same() {
    let dir = Scratch::new();
    let nutcracker = dir.write(
        "nutcracker.yml",
        "alpha:\n  listen: 127.0.0.1:22121\n  hash: murmur\n  distribution: modula\n  redis: true\n  servers:\n   - \
         10.0.0.1:6379:1\n   - 10.0.0.2:6379:2 two\n",
    );
    let (code, yaml, complained) = run(&["import", &nutcracker]);
    assert_eq!((code, complained.as_str()), (0, ""));
    let imported = dir.write("proxy.yaml", &yaml);
    for key in ["a", "user:1", ""] {
        let [from, to] = [&nutcracker, &imported].map(|config| run(&["route", "-c", config, key]));
        assert_eq!(from, to);
        assert_eq!(from.0, 0);
    }
    let (code, said, complained) = run(&["import", &imported]);
    assert_eq!((code, said.as_str()), (64, ""));
    assert!(complained.contains("expected a nutcracker.yml"), "{complained}");
}

#[test]
fn route_tells_the_shard_that_a_live_process_uses() {
    let dir = Scratch::new();
    let (redis, at) = shards(3);
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}", "hash_tag: \"{}\""]));
    let hotring = Serving::start(&["-c", &config]);
    let mut app = Client::connect(&hotring.address("pool main"));
    let keys: Vec<String> = (0..10).map(|n| format!("user:{{{}}}:x", n * 997)).collect();
    let arguments: Vec<&str> = ["route", "-c", &config].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let (code, said, _) = run(&arguments);
    assert_eq!(code, 0);
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("  -> ")).collect();
    assert_eq!(told.len(), keys.len(), "{said}");
    assert!(said.contains(" (the hash of its hash tag), home is s"), "{said}");
    for (key, told) in keys.iter().zip(told) {
        assert_eq!(app.ask(&format!("SET {key} v")), "+OK\r\n");
        let shard = redis.iter().position(|redis| redis.client().ask(&format!("EXISTS {key}")) == ":1\r\n").unwrap();
        assert_eq!(told, format!("  -> s{shard}, connection 0"), "{key}");
    }
    assert_eq!(said.matches("  health     not known: no server was asked; /explain on ").count(), keys.len(), "{said}");
    let [a, b] = [0, 1].map(|shard| key_on(shard, 3));
    for (request, answer) in [
        (&["MGET", &a, &b][..], "\n-> split over 2 shards\n"),
        (&["MGET", &a, &a], "\n-> forwarded to s0\n"),
        (&["SINTER", &a, &b], "\n-> refused: CROSSSLOT Keys in request don't hash to the same slot\n"),
        (&["SINTER", &b, &b], "\n-> forwarded to s1\n"),
        (&["LRANGE", &b, "0", "-1"], "\n-> forwarded to s1\n"),
        (&["ECHO", "k"], "\n-> answered by hotring itself\n"),
        (&["DBSIZE"], "\n-> sent to all shards\n"),
        (&["SCAN", "0"], "\n-> sent to all shards, one after the other\n"),
        (&["EVAL", "return 1", "0"], "\nno key: goes to the pool's first shard\n-> forwarded to s0\n"),
        (&["MULTI"], "\n-> carried on a connection of the app's own, to the shard of the keys that follow\n"),
        (&["BLPOP", &b, "0"], "\n-> carried to s1 on a connection of the app's own\n"),
        (&["BLPOP", &a, &b, "0"], "\n-> refused: CROSSSLOT"),
        (&["SUBSCRIBE", "k"], "\n-> subscribed where it is published"),
        (&["PUBLISH", &b, "k"], "\n-> forwarded to s1\n"),
        (&["SHUTDOWN"], "\n-> refused: ERR hotring does not carry administration"),
    ] {
        let (code, said, complained) = run(&[&["route", "-c", &config, "--command"], request].concat());
        assert!(code == 0 && said.contains(answer), "{said}{complained}");
    }
    let (code, said, complained) = run(&["route", "-c", &config, "--command", "GETSET", "k"]);
    assert_eq!((code, said.as_str()), (64, ""));
    assert_eq!(complained, "ERR wrong number of arguments for 'getset' command\n");
    let (code, _, complained) = run(&["route", "-c", &config, "--pool", "none", "k"]);
    assert_eq!((code, complained.as_str()), (64, "there is no pool `none`, only: main\n"));
}

/// A pool's name says nothing to apps: they know an address. What leads elsewhere there is told, whatever the pools are called.
#[test]
fn plan_tells_what_apps_see_at_their_addresses() {
    let dir = Scratch::new();
    let pool = |name: &str, listen: &str, ports: &[u16], more: &str| {
        let list: Vec<String> = ports.iter().map(|port| format!("'10.0.0.1:{port}:1 s{port}'")).collect();
        format!("  {name}: {{listen: [{listen}], distribution: even, servers: [{}]{more}}}\n", list.join(", "))
    };
    let write = |file: &str, pools: &[String]| dir.write(file, &format!("pools:\n{}", pools.concat()));
    let told = |old: &str, new: &str| {
        let (code, told, complained) = run(&["plan", old, new]);
        assert_eq!((code, complained.as_str()), (0, ""));
        told
    };
    let (one, two) = ("'127.0.0.1:6380', /run/one.sock", "'127.0.0.1:6381'");
    let old = write("old.yaml", &[pool("main", one, &[1, 2], ""), pool("new", two, &[3, 4], "")]);
    // The pools are what they were, and the apps of each are at the other one's servers.
    let swapped = write("swapped.yaml", &[pool("main", two, &[1, 2], ""), pool("new", one, &[3, 4], "")]);
    let said = told(&old, &swapped);
    let first = "warning: 127.0.0.1:6380, /run/one.sock lead to pool new in place of main: for apps that connect there 100.0 % of the \
                 keyspace is at another server\n";
    assert!(said.contains(first), "{said}");
    assert!(said.starts_with("warning: 127.0.0.1:6381 leads to pool main in place of new: "), "{said}");
    assert!(said.contains("  sessions that are open stay with pool main until they end\n"), "{said}");
    assert!(
        said.contains("  not covered: `warm_from: main` in pool new, with a pool main of the servers of before,"),
        "{said}"
    );
    assert!(said.contains("  s1 -> s3 ") && said.contains("  s2 -> s4 "), "{said}");
    assert!(said.contains("pool main: 2 servers, then 2; 0.0 % of the keyspace moves\n"), "{said}");
    // Another name, and a server more: a third of what the apps see.
    let renamed = write("renamed.yaml", &[pool("other", one, &[1, 2, 3], ""), pool("new", two, &[3, 4], "")]);
    let said = told(&old, &renamed);
    let share = said.split("connect there ").nth(1).unwrap().split(' ').next().unwrap();
    assert!((30.0..37.0).contains(&share.parse::<f64>().unwrap()), "{said}");
    assert!(said.contains("pool main: gone\npool other: new; it begins with what its servers have\n"), "{said}");
    assert!(!said.contains("stay with"), "{said}");
    let keys = dir.write("keys.txt", &(0..1000).map(|n| format!("user:{n}\n")).collect::<String>());
    let (_, said, _) = run(&["plan", &old, &renamed, "--keys", &keys]);
    assert!(said.contains(" % of keys are at another server\n  s") && said.contains(" -> s3 "), "{said}");
    // Another name alone moves nothing.
    let renamed = write("alike.yaml", &[pool("other", one, &[1, 2], ""), pool("new", two, &[3, 4], "")]);
    let said = told(&old, &renamed);
    let nothing = "127.0.0.1:6380, /run/one.sock lead to pool other in place of main: for apps that connect there nothing moves\n";
    assert!(said.starts_with(nothing) && !said.contains("warning"), "{said}");
    // But with another database, or another prefix, which a pool may get as well without another name.
    let db = write("db.yaml", &[pool("other", one, &[1, 2], ", redis_db: 3"), pool("new", two, &[3, 4], "")]);
    assert!(told(&old, &db).contains("connect there 100.0 % of the keyspace is at another server\n"));
    let prefix = write("prefix.yaml", &[pool("main", one, &[1, 2], ", prefix: 'a:'"), pool("new", two, &[3, 4], "")]);
    let said = told(&old, &prefix);
    let none = "warning: 127.0.0.1:6380, /run/one.sock (pool main): keys have the prefix `a:` on the servers and had no prefix: apps that \
                connect there find none of their keys\n";
    assert!(said.starts_with(none), "{said}");
    // What would look for them.
    let warm = write("warm.yaml", &[pool("main", two, &[1, 2], ""), pool("new", one, &[3, 4], ", warm_from: main")]);
    assert!(told(&old, &warm).contains("  `warm_from: main` looks for keys in that pool for 1h, "));
    // A cluster says itself where keys live, so the same one moves nothing, and another one may.
    let cluster = |name: &str, seed: &str| {
        let text = format!("  {name}: {{listen: '127.0.0.1:6380', topology: cluster, servers: ['{seed}:7000']}}\n");
        write(&format!("{name}-{seed}.yaml"), &[text])
    };
    let before = cluster("a", "10.0.0.1");
    assert!(told(&before, &cluster("b", "10.0.0.1")).contains("nothing moves\n"));
    assert!(
        told(&before, &cluster("c", "10.0.0.2")).contains("how much is not known, where they live is asked of servers")
    );
    // Nodes in this process have the keys of one pool.
    let nodes = |name: &str| {
        dir.write(name, &format!("pools: {{{name}: {{listen: '127.0.0.1:6380', servers: embedded:2}}}}\n"))
    };
    let said = told(&nodes("x"), &nodes("y"));
    assert!(
        said.contains(" 100.0 % of the keyspace ") && said.contains("  not covered: an embedded node knows"),
        "{said}"
    );
    // A port that the system chooses is another one each time.
    let any =
        |name: &str| dir.write(name, &format!("pools: {{{name}: {{listen: '127.0.0.1:0', servers: embedded:2}}}}\n"));
    assert!(!told(&any("v"), &any("w")).contains("127.0.0.1"));
}

#[test]
fn plan_tells_of_routes_that_change() {
    let dir = Scratch::new();
    let text = |routes: &str, users: &str| {
        format!(
            "pools:\n  main:\n    listen: 127.0.0.1:6380\n    servers: ['a:1:1']\n{routes}  users:\n    listen: 127.0.0.1:6381\n    servers: [{users}]\n"
        )
    };
    let old = dir.write("old.yaml", &text("", "'b:1:1'"));
    let new = dir.write("new.yaml", &text("    routes: {'user:': users}\n", "'b:1:1', 'c:1:1'"));
    let keys = dir.write("keys", "user:1\nuser:2\nother\n");
    let (code, told, complained) = run(&["plan", &old, &new, "--keys", &keys]);
    assert_eq!(code, 0, "{complained}");
    let first = "warning: pool main: keys that begin \"user:\" are looked for in pool users in place of main, and do not move by themselves\n";
    assert!(told.starts_with(first), "{told}");
    assert!(told.contains("pool main: 1 servers, then 1; of 1 keys 0 move"), "{told}");
    let (_, told, _) = run(&["plan", &new, &old]);
    assert!(told.starts_with(&first.replace("users in place of main", "main in place of users")), "{told}");
    let (_, told, _) = run(&["plan", &new, &new]);
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn plan_tells_what_moves_and_from_where_to_where() {
    let dir = Scratch::new();
    let pool = |servers: &[&str], more: &str| {
        let list: Vec<String> =
            servers.iter().map(|name| format!("'10.0.0.1:{}:1 {name}'", 7000 + name.len())).collect();
        format!("pools:\n  main: {{listen: '127.0.0.1:0', distribution: even, servers: [{}]{more}}}\n", list.join(", "))
    };
    let old = dir.write("old.yaml", &pool(&["a", "bb", "ccc"], ""));
    let new = dir.write("new.yaml", &pool(&["a", "bb", "ccc", "dddd"], ", warm_from: previous, warm_for: 30m"));
    let (code, told, complained) = run(&["plan", &old, &new]);
    assert_eq!((code, complained.as_str()), (0, ""));
    let lines: Vec<&str> = told.lines().collect();
    let share = |line: &str| -> f64 { line.split_whitespace().rev().nth(1).unwrap().parse().unwrap() };
    assert!(
        lines[0].starts_with("pool main: 3 servers, then 4; ") && lines[0].ends_with(" % of the keyspace moves"),
        "{told}"
    );
    let (whole, parts) = (lines[0].split("; ").nth(1).unwrap().split(' ').next().unwrap(), &lines[1..4]);
    assert!((22.0..28.0).contains(&whole.parse::<f64>().unwrap()), "{told}");
    assert!(parts.iter().all(|line| line.contains(" -> dddd ") && (5.0..12.0).contains(&share(line))), "{told}");
    assert!(lines[4].contains("of 100 reads of keys that are there, ") && lines.len() == 6, "{told}");
    assert!(lines[5].starts_with("  covered by `warm_from: previous` for 30m"), "{told}");
    // Without it, with keys of one's own, and where nothing moves.
    let plain = dir.write("plain.yaml", &pool(&["a", "bb", "ccc", "dddd"], ""));
    let (_, told, _) = run(&["plan", &old, &plain]);
    assert!(told.ends_with("  not covered: `warm_from: previous` would look for them where they were\n"), "{told}");
    let keys: String = (0..1000).map(|n| format!("user:{n}\r\n")).collect();
    let keys = dir.write("keys.txt", &format!("{keys}\n"));
    let (code, told, _) = run(&["plan", &old, &new, "--keys", &keys]);
    assert!(
        code == 0 && told.starts_with("pool main: 3 servers, then 4; of 1000 keys 2") && told.contains(" keys\n"),
        "{told}"
    );
    let (code, told, _) = run(&["plan", &old, &old]);
    assert_eq!((code, told.as_str()), (0, "pool main: 3 servers, then 3; 0.0 % of the keyspace moves\n"));
    // A server that has another address is another one, whatever its name.
    let moved = dir.write("moved.yaml", &pool(&["a"], "").replace("10.0.0.1", "10.0.0.9"));
    let alone = dir.write("alone.yaml", &pool(&["a"], ""));
    let (_, told, _) = run(&["plan", &alone, &moved]);
    assert!(told.contains("100.0 % of the keyspace moves\n  a -> a  100.0 %  (another address)\n"), "{told}");
    let random = dir.write("random.yaml", &pool(&["a", "bb"], "").replace("even", "random"));
    assert!(run(&["plan", &random, &new]).1.contains("keys have no home"));
    let other = dir.write("other.yaml", &pool(&["a"], "").replace("main", "other"));
    let (_, told, _) = run(&["plan", &alone, &other]);
    assert_eq!(told, "pool main: gone\npool other: new; nothing moves, it begins with what its servers have\n");
    // What cannot be read.
    assert_eq!(run(&["plan", &old, "no-such.yaml"]).0, 78);
    assert_eq!(run(&["plan", &old]).0, 64);
    let bad = dir.write("bad.yaml", "pools: 3\n");
    assert_eq!(run(&["plan", &bad, &old]).0, 64);
    let (code, _, complained) = run(&["plan", &old, &new, "--keys", "no-such.txt"]);
    assert!(code == 64 && complained.starts_with("no-such.txt: cannot be read: "), "{complained}");
}
