//! Real clients through hotring over three real shards: redis-py, ioredis, redis-cli and redis-benchmark.
//!
//! What they do is in `clients/`; `setup` installs them. Without a redis-server these tests fail; without the library of
//! another language its test says so and is skipped.

#[path = "differential/servers.rs"]
#[allow(dead_code, reason = "the differential test uses the rest")]
mod servers;

use servers::{Directory, Hotring, Server};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Three shards, one hotring before them that is open to all, and one with the password `secret`.
struct Site {
    open: Hotring,
    guarded: Hotring,
    shards: Vec<Server>,
    _directory: Directory,
}

impl Site {
    fn start() -> Self {
        let directory = Directory::new("clients");
        let shards: Vec<Server> = (0..3).map(|n| Server::start(&directory, &format!("shard-{n}"))).collect();
        let open = Hotring::start(&shards, "");
        let guarded = Hotring::start(&shards, "    client_auth:\n      password: secret\n");
        Site { open, guarded, shards, _directory: directory }
    }

    /// A command of redis-tools towards the open hotring.
    fn tool(&self, name: &str) -> Command {
        let (host, port) = parts(&self.open);
        let mut command = Command::new(name);
        command.args(["-h", host, "-p", port]);
        command
    }
}

fn parts(hotring: &Hotring) -> (&str, &str) {
    hotring.address().rsplit_once(':').expect("host and port")
}

/// Where `setup` puts libraries.
fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients").join(path)
}

/// Whether something is there; if not, that is told whether or not the output of tests is shown.
fn is_there(what: &str, path: &Path) -> bool {
    if path.exists() {
        return true;
    }
    let text = format!("\nSKIPPED: {what} is not at {}; `tests/setup` installs it\n", path.display());
    std::io::stderr().write_all(text.as_bytes()).expect("told");
    false
}

/// Runs a command, with something on its input, to a good end. Gives what it wrote to its output.
fn run(command: &mut Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/setup` installs it"));
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("its output");
    // A command that ends early reads no further; its status tells.
    let _ = writing.join().expect("no panic");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

fn run_script(site: &Site, command: &mut Command) {
    let (host, port) = parts(&site.open);
    let out = run(command.args([host, port, parts(&site.guarded).1]), b"");
    assert!(out.ends_with("passed\n"), "{out}");
}

#[test]
fn redis_py() {
    let python = installed("venv/bin/python");
    if is_there("redis-py", &python) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py.py");
        run_script(&Site::start(), Command::new(python).arg(script));
    }
}

#[test]
fn ioredis() {
    let library = installed("node/node_modules/ioredis");
    if is_there("ioredis", &library) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/ioredis.js");
        run_script(&Site::start(), Command::new("node").arg(script).arg(library));
    }
}

#[test]
fn redis_cli() {
    let site = Site::start();
    let ask = |args: &[&str]| run(site.tool("redis-cli").args(args), b"");
    assert_eq!(ask(&["SET", "greeting", "hello world"]), "OK\n");
    assert_eq!(ask(&["--no-raw", "GET", "greeting"]), "\"hello world\"\n");
    assert_eq!(ask(&["--csv", "MGET", "greeting", "none", "greeting"]), "\"hello world\",NULL,\"hello world\"\n");
    assert_eq!(ask(&["-n", "0", "-r", "3", "INCR", "counter"]), "1\n2\n3\n");
    assert_eq!(ask(&["MULTI"]), "OK\n");
    assert_eq!(ask(&["EVAL", "return KEYS[1]", "1", "k"]), "k\n");
    // Values from the input, commands from the input.
    assert_eq!(run(site.tool("redis-cli").args(["-x", "SET", "piped"]), b"\0\xffbytes"), "OK\n");
    assert_eq!(ask(&["STRLEN", "piped"]), "7\n");
    let lines: String = (0..500).map(|n| format!("SET line:{n} {n}\nGET line:{n}\n")).collect();
    let expected: String = (0..500).map(|n| format!("OK\n{n}\n")).collect();
    assert_eq!(run(&mut site.tool("redis-cli"), lines.as_bytes()), expected);
    // Mass insertion, which ends with an ECHO.
    let bytes: Vec<u8> =
        (0..20_000).flat_map(|n| servers::wire(&["SET".into(), format!("mass:{n}"), n.to_string()])).collect();
    let told = run(site.tool("redis-cli").arg("--pipe"), &bytes);
    assert!(told.ends_with("errors: 0, replies: 20000\n"), "{told}");
    assert_eq!(ask(&["MGET", "mass:0", "mass:12345", "mass:19999"]), "0\n12345\n19999\n");
}

#[test]
fn redis_benchmark() {
    let site = Site::start();
    let (clients, depth, requests) = (200, 16, 100_000);
    let load = format!("-q -e -t set,get,incr,mset -P {depth} -c {clients} -n {requests} -r 10000");
    let told = run(site.tool("redis-benchmark").args(load.split(' ')), b"");
    assert!(!told.to_lowercase().contains("error from server"), "{told}");
    for test in ["SET", "GET", "INCR", "MSET"] {
        assert!(told.contains(&format!("{test}: ")) || told.contains(&format!("{test} (10 keys): ")), "{told}");
    }
    // Each INCR was carried out once. The benchmark may send up to one more pipeline for each client than it is told to.
    let sum: u64 = site.shards.iter().map(|shard| counted(shard, "incr")).sum();
    assert!((requests..=requests + clients * depth).contains(&sum), "{sum} INCRs");
    let spread: Vec<u64> = site.shards.iter().map(|shard| counted(shard, "mset")).collect();
    assert!(spread.iter().all(|&calls| calls > requests / 2), "MSETs on each shard: {spread:?}");
}

/// How often a shard has carried out a command.
fn counted(shard: &Server, command: &str) -> u64 {
    let info = shard.connect().tell("INFO commandstats");
    let info = String::from_utf8_lossy(&info);
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}
