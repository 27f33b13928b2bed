//! `hotring bench`: it compares what it says, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use support::{Hotring, Redis, Scratch, eventually};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotring"));
    command.arg("bench").args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let done = bench(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

/// What it prints with `--json`, where nothing goes wrong.
fn json(arguments: &[&str]) -> Value {
    let (code, said, complained) = run(&[arguments, &["--json"]].concat());
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    serde_json::from_str(&said).unwrap()
}

fn count(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn both_sides_are_measured_and_nothing_is_left() {
    let redis = Redis::tcp(&[]);
    assert_eq!(redis.client().ask("SET mine 1"), "+OK\r\n");
    let hotring = Hotring::over(&[redis.address()], &[]);
    let both = ["--direct", redis.address(), "--proxy", hotring.address(0), "--requests", "500", "--rounds", "3"];
    for workload in ["get", "set", "mixed", "mget"] {
        let own = ["--workload", workload, "--keys", "300", "--clients", "7", "--threads", "2", "--pipeline", "4"];
        let told = json(&[&both[..], &own].concat());
        assert_eq!(told["rounds"].as_array().unwrap().len(), 3);
        for side in ["direct", "proxy"] {
            for round in told["rounds"].as_array().unwrap() {
                assert_eq!((count(&round[side]["requests"]), count(&round[side]["errors"])), (500.0, 0.0), "{told}");
            }
            let quantile = |name| count(&told[side][name]["median"]);
            assert!(quantile("p50_us") <= quantile("p95_us") && quantile("p95_us") <= quantile("p99_us"), "{told}");
        }
        let ratio = &told["proxy_to_direct"]["requests_per_second"];
        assert!(count(&ratio["least"]) <= count(&ratio["median"]), "{told}");
        assert!(count(&ratio["median"]) <= count(&ratio["most"]), "{told}");
        assert_eq!((&told["proxy_in_this_process"], &told["load"]["workload"]), (&false.into(), &workload.into()));
    }
    assert_eq!(redis.client().ask("KEYS *"), "*1\r\n$4\r\nmine\r\n");
}

#[test]
fn without_a_proxy_there_is_one_in_the_process() {
    let redis = Redis::start(&["--requirepass", "it's\"secret\""]);
    let dir = Scratch::new();
    let file = dir.write("password", "it's\"secret\"\n");
    let (code, said, complained) =
        run(&["--direct", redis.address(), "--direct-auth", &file, "--time", "50ms", "--rounds", "2", "--keys", "50"]);
    assert_eq!((code, complained.as_str()), (0, ""), "{said}");
    assert!(said.contains("hotring in this process, before the server above"), "{said}");
    let row =
        |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {said}"));
    assert_eq!(row("errors").split_whitespace().collect::<Vec<_>>(), ["errors", "0", "0"]);
    assert!(row("proxy's CPU a request, us").split_whitespace().count() == 7, "{said}");
    assert!(row("round 2/2: direct ").contains("| proxy/direct "), "{said}");
    // Neither is named: nodes in the process, and nothing to compare them with.
    let told = json(&["--requests", "100", "--rounds", "1", "--clients", "3"]);
    assert_eq!((&told["direct"], &told["proxy_in_this_process"]), (&serde_json::json!({}), &true.into()));
    assert_eq!(count(&told["rounds"][0]["proxy"]["requests"]), 100.0);
    assert!(count(&told["proxy"]["cpu_us_per_request"]["median"]) > 0.0, "{told}");
}

#[test]
fn it_cleans_up_when_it_is_interrupted() {
    let redis = Redis::tcp(&[]);
    for signal in [Signal::INT, Signal::TERM] {
        let arguments = ["--direct", redis.address(), "--time", "50ms", "--rounds", "1000", "--keys", "500"];
        let mut child = bench(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("round 1/") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended on its own");
        }
        assert_eq!(redis.client().ask("DBSIZE"), ":500\r\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
        assert!(rest.contains("\nEnded early.\n") && rest.contains("\nrequests a second "), "{rest}");
        assert_eq!(redis.client().ask("DBSIZE"), ":0\r\n");
    }
    // Killed, it cannot; then its keys go by themselves.
    let arguments = ["--direct", redis.address(), "--time", "1h", "--rounds", "1", "--keys", "1"];
    let mut child = bench(&arguments).stdout(Stdio::null()).spawn().unwrap();
    let mut client = redis.client();
    eventually("it writes its keys", || client.ask("DBSIZE") == ":1\r\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let key = client.ask("RANDOMKEY");
    let key = key.split("\r\n").nth(1).unwrap();
    assert!(key.starts_with("hotring-bench:"), "{key}");
    let ttl = client.ask(&format!("TTL {key}"));
    assert!(ttl.trim_start_matches(':').trim_end().parse::<i64>().unwrap() > 3600, "{ttl}");
}

#[test]
fn what_may_harm_is_asked_for_twice() {
    for (arguments, why) in [
        (&["--direct", "192.0.2.1:6379"][..], "192.0.2.1:6379 is on another machine"),
        (&["--proxy", "redis.example:6379"], "redis.example:6379 is on another machine"),
        (&["--direct", "127.0.0.1:1", "--size", "1mb"], "10000 MiB would be written"),
        (&["--time", "0"], "--time must not be 0"),
        (&["--direct-auth", "/dev/null"], "/dev/null: there is no side that it is for"),
        (&["--direct", "127.0.0.1:1", "--direct-auth", "/dev/null"], "/dev/null: its first line has no password"),
        (&["--direct", "nowhere"], "invalid value 'nowhere'"),
    ] {
        let (code, said, complained) = run(arguments);
        assert_eq!((code, said.as_str()), (64, ""), "{arguments:?}");
        assert!(complained.contains(why), "{arguments:?}: {complained}");
    }
}

#[test]
fn what_goes_wrong_is_said_with_whose_it_is() {
    let closed = format!("127.0.0.1:{}", support::free_port());
    let (code, _, complained) = run(&["--direct", &closed]);
    assert!(code == 71 && complained.starts_with(&format!("hotring: direct {closed}: ")), "{complained}");
    // A server that takes no writes has no keys that could be read.
    let redis = Redis::tcp(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let (code, said, complained) = run(&["--direct", redis.address()]);
    assert!(code == 71 && complained.contains("OOM command not allowed"), "{said}{complained}");
    let locked = Redis::tcp(&["--requirepass", "secret"]);
    let (code, _, complained) = run(&["--direct", locked.address()]);
    assert!(code == 71 && complained.contains("NOAUTH"), "{complained}");
}
