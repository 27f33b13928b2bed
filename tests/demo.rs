//! `hotring demo`: what it shows is true, and it ends when it is told to.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

const HERD: [&str; 8] = ["demo", "stampede", "--apps", "60", "--ttl", "600ms", "--load", "100ms"];

fn hotring() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotring"));
    command.args(HERD).stdin(Stdio::null());
    command
}

/// What a row of the last table says of both pools, the one without a lease first.
fn row(text: &str, name: &str) -> [f64; 2] {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    let values: Vec<f64> = line.split_whitespace().map(|word| word.trim_end_matches("ms").parse().unwrap()).collect();
    values.try_into().unwrap()
}

#[test]
fn the_herd_is_counted_on_both_sides() {
    let done = hotring().args(["--expiries", "1"]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap().as_str()), (Some(0), ""), "{text}");
    assert_eq!(row(&text, "expiries"), [1.0, 1.0]);
    let [plain, leased] = row(&text, "loads of the database");
    assert!(plain > 1.0, "nobody else missed it: {text}");
    assert!(leased >= 1.0 && leased <= plain, "{text}");
    assert_eq!(row(&text, "loads an expiry, mean"), [plain, leased]);
    assert_eq!(row(&text, "errors"), [0.0, 0.0]);
    assert!(text.contains("0s  expiry "), "no progress: {text}");
    assert!(!text.contains(['\r', '\u{1b}']), "it is no terminal: {text}");
}

#[test]
fn it_ends_when_it_is_told_to() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = hotring().args(["--expiries", "1000"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(" expiry ") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended on its own");
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
        assert!(rest.contains("Ended early.\n"), "{rest}");
        row(&rest, "loads of the database");
    }
}

#[test]
fn a_herd_that_proves_nothing_is_refused() {
    for wrong in [["--load", "1s"], ["--load", "0"], ["--apps", "0"], ["--expiries", "0"]] {
        let done = Command::new(env!("CARGO_BIN_EXE_hotring")).args(["demo", "stampede"]).args(wrong).output().unwrap();
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(64), &[][..]), "{wrong:?}");
    }
}

/// Runs a demo to its end.
fn play(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotring"));
    let done = command.arg("demo").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap().as_str()), (Some(0), ""), "{text}");
    assert!(!text.contains(['\r', '\u{1b}']), "it is no terminal: {text}");
    text
}

#[test]
fn a_hot_key_is_a_load_of_one_server_only_without() {
    let text = play(&["hot-key", "--apps", "40", "--time", "3s"]);
    let [plain, auto] = row(&text, "GETs answered a second");
    assert!(plain > 0.0 && auto > 0.0, "{text}");
    let [times, _] = row(&text, "busiest, times the average");
    assert!(times > 2.0, "three of four questions are for a server of five: {text}");
    let [_, asked] = row(&text, "all servers");
    assert!(asked < auto, "servers were spared nothing: {text}");
    assert_eq!(row(&text, "errors"), [0.0, 0.0]);
}

#[test]
fn many_apps_are_few_connections() {
    let text = play(&["connections", "--apps", "40", "--time", "500ms"]);
    assert_eq!(row(&text, "apps connected"), [40.0, 40.0]);
    let [direct, proxied] = row(&text, "connections at the servers");
    assert!(direct == 120.0 && (3.0..=12.0).contains(&proxied), "{text}");
    assert_eq!(row(&text, "errors"), [0.0, 0.0]);
}

#[test]
fn the_whole_story_ends_with_all_of_it() {
    let text = play(&[]);
    let (_, summary) = text.split_once("All of it ").unwrap_or_else(|| panic!("no summary: {text}"));
    for (what, by) in
        [("a hot key", "reads: auto"), ("a stampede", "lease: local"), ("1000 apps", "a hotring before them")]
    {
        let line = summary.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("no {what}: {text}"));
        assert!(line.contains(by) && line.ends_with(".md"), "{line}");
    }
}
