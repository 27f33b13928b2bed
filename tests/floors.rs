//! A module uses only modules of lower floors, foreign types stop at one module, and no stage names another.
//! `src/architecture.md` says why.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: &[&[&str]] = &[
    &["resp", "ring", "metrics", "units", "pace", "chance", "glob", "bucket"],
    &["command", "error", "tls"],
    &["stages", "acl"],
    &["engine"],
    &["encrypted", "scribe"],
    &["hub", "contain", "memory", "audit", "log"],
    &["downstream", "upstream", "admin", "embedded", "traces"],
    &["topology"],
    &["config"],
    &["live"],
    &["reload", "handover", "plan"],
    &["lines"],
    &["worker"],
    &["proxy"],
    &["demo"],
    &["bench", "top"],
    &["cli"],
];

/// The first floor that may name sockets, clocks and futures.
const SHELL: usize = 4;

/// A foreign name, and the module (a file or a folder) that alone may say it.
const FOREIGN: &[(&str, &str)] = &[
    ("redis_protocol", "src/resp/control.rs"),
    ("hashring", "src/ring/"),
    ("serde_yaml", "src/config/"),
    ("metrics_exporter_prometheus", "src/metrics/"),
    ("moka", "src/embedded/"),
    ("sha2", "src/acl/"),
    ("rustls", "src/tls/"),
    ("rustls_native_certs", "src/tls/"),
    ("axum", "src/admin/"),
    ("fastbloom", "src/stages/lease/"),
    ("clap", "src/cli/"),
    ("ratatui", "src/top/"),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn visit(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                visit(&entry.unwrap().path(), found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.to_owned(), fs::read_to_string(path).unwrap()));
        }
    }
    let mut found = Vec::new();
    visit(Path::new("src"), &mut found);
    assert!(found.len() > 20, "the sources are not where this test looks");
    found
}

fn module(path: &Path) -> &str {
    path.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs")
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|names| names.contains(&name))
}

/// A line without what follows `//`: words in comments import nothing.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap()
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module(&path);
        if matches!(module, "main" | "lib") {
            continue;
        }
        let here = floor(module).unwrap_or_else(|| panic!("`{module}` has no floor: give it one in FLOORS"));
        for (number, line) in text.lines().enumerate() {
            for rest in code(line).split("crate::").skip(1) {
                let used = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if used != module && floor(used).is_none_or(|there| there >= here) {
                    wrong.push(format!("{}:{}: `{module}` may not use `{used}`", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_core_knows_no_socket_clock_or_chance() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if floor(module(&path)).is_none_or(|here| here >= SHELL) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in [
                "tokio",
                "async ",
                ".await",
                "Instant",
                "SystemTime",
                "RandomState",
                "TcpStream",
                "UnixStream",
                "std::thread",
            ] {
                if code(line).contains(word) {
                    wrong.push(format!("{}:{}: `{word}` below floor {SHELL}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn foreign_types_stop_at_one_module() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for (name, home) in FOREIGN {
                let said = code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name);
                if said && !path.to_str().unwrap().starts_with(home) {
                    wrong.push(format!("{}:{}: `{name}` belongs in {home}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_stage_names_another() {
    let stages: Vec<_> = sources().into_iter().filter(|(path, _)| path.starts_with("src/stages")).collect();
    // A stage is a file, or a folder of them.
    let stage = |path: &Path| path.iter().nth(2).unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
    let mut names: Vec<String> = stages.iter().map(|(path, _)| stage(path)).filter(|name| name != "mod").collect();
    names.sort();
    names.dedup();
    assert!(names.len() >= 4, "{names:?}");
    for (path, text) in &stages {
        let own = stage(path);
        for other in names.iter().filter(|name| **name != own && own != "mod") {
            let (used, imported) = (format!("{other}::"), format!("use super::{other}"));
            // Not as the end of a longer word, such as `Default::`.
            let names = |code: &str| {
                code.match_indices(&used)
                    .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            };
            for (number, line) in text.lines().enumerate() {
                assert!(
                    !names(code(line)) && !code(line).contains(&imported),
                    "{}:{}: names the stage `{other}`",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

/// What reads the bytes of apps and shards; the lints at its top hold for all its submodules.
const MEETS_THE_NETWORK: &[&str] = &[
    "src/resp/mod.rs",
    "src/stages/mod.rs",
    "src/engine/mod.rs",
    "src/hub.rs",
    "src/downstream/mod.rs",
    "src/upstream/mod.rs",
    "src/topology/mod.rs",
];

#[test]
fn what_meets_the_network_is_held_free_of_panics() {
    for path in MEETS_THE_NETWORK {
        let text = fs::read_to_string(path).unwrap();
        let lints = text.split("#![cfg_attr(").nth(1).and_then(|rest| rest.split(")]").next()).unwrap_or_default();
        for lint in [
            "unwrap_used",
            "expect_used",
            "indexing_slicing",
            "string_slice",
            "arithmetic_side_effects",
            "panic",
            "unreachable",
        ] {
            assert!(lints.contains(&format!("clippy::{lint}")), "{path} does without {lint}");
        }
    }
}
