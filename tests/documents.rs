//! The documentation is true: its tables are the code's, its examples load and run, its links lead somewhere.
//!
//! `HOTRING_WRITE_DOCS=1 cargo test --test documents` writes the tables instead of comparing them.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "documents/pages.rs"]
mod pages;
#[path = "documents/tables.rs"]
mod tables;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hotring::config::{self, Kind};
use hotring::metrics::METRICS;
use pages::{pages, readme, root};

/// File, marker, and what stands between the markers.
type Generated = (&'static str, &'static str, fn() -> String);

const GENERATED: &[Generated] = &[
    ("README.md", "keys", tables::keys),
    ("README.md", "help", tables::help),
    ("README.md", "metrics", tables::all_metrics),
    ("README.md", "errors", tables::errors),
    ("README.md", "commands", tables::commands),
    ("docs/commands.md", "all commands", tables::all_commands),
    ("docs/commands.md", "refusals", tables::refusals),
];

fn hotring() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotring"));
    command.current_dir(root());
    command
}

/// A file of this test's own.
fn scratch(name: &str, text: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("documents-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn generated_parts_are_the_codes() {
    let write = std::env::var_os("HOTRING_WRITE_DOCS").is_some();
    for (file, marker, make) in GENERATED {
        let page = pages().into_iter().find(|page| page.name() == *file).unwrap_or_else(|| panic!("no {file}"));
        let wanted = page.with(marker, &make());
        if write {
            // The other tests read meanwhile: they must never see half a page.
            let new = page.path.with_extension("md.new");
            fs::write(&new, wanted).unwrap();
            fs::rename(new, &page.path).unwrap();
        } else {
            assert!(
                wanted == page.text,
                "{file}: `{marker}` is not what the code says; HOTRING_WRITE_DOCS=1 cargo test --test documents"
            );
        }
    }
}

/// Each YAML block is a whole file, but for those that say `fragment`.
#[test]
fn yaml_examples_load() {
    let mut kinds = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            if block.info != "yaml" {
                continue;
            }
            let loaded = config::parse(&block.text, Path::new("example.yaml"));
            let config = loaded.unwrap_or_else(|problems| panic!("{}: {problems}", block.place));
            kinds.push(config.source.kind);
        }
    }
    assert!(kinds.contains(&Kind::Proxy) && kinds.contains(&Kind::Nutcracker), "{kinds:?}");
    config::load(&root().join("proxy.yaml")).unwrap();
}

/// What stands under `$ hotring ...` in a console block is what it prints.
#[test]
fn console_examples_are_true() {
    let mut ran = 0;
    for page in pages() {
        let mut yaml = String::new();
        for block in page.blocks() {
            if block.info == "yaml" {
                yaml.clone_from(&block.text);
            }
            if block.info != "console" {
                continue;
            }
            for example in block.text.split("$ ").skip(1) {
                let (line, wanted) = example.split_once('\n').unwrap();
                let arguments = line.strip_prefix("hotring ").unwrap_or_else(|| panic!("{}: {line}", block.place));
                let mut command = hotring();
                command.args(arguments.split_whitespace());
                if arguments.starts_with("route ") {
                    // It is about the file that is shown above it.
                    command.arg("-c").arg(scratch("shown.yaml", &yaml));
                }
                let done = command.output().unwrap();
                let said = String::from_utf8(done.stdout).unwrap();
                assert_eq!(said.trim_end(), wanted.trim_end(), "{}: {line}", block.place);
                ran += 1;
            }
        }
    }
    assert!(ran >= 2, "only {ran} examples");
}

/// A warning is told once, whichever part of the code knows of it.
#[test]
fn check_tells_each_warning_once() {
    let text = "pools: {a: {listen: '127.0.0.1:1', servers: ['h:1:1 light', 'h:2:1000 heavy'], timeout: off}}\n";
    let done = hotring().arg("check").arg("-c").arg(scratch("warned.yaml", text)).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said.matches("`light` gets no keys").count(), 1, "{said}");
    assert_eq!(said.matches("a server that hangs").count(), 1, "{said}");
    assert!(
        said.lines().filter(|line| line.starts_with("warning: ")).all(|line| line.contains("pool `a`: ")),
        "{said}"
    );
}

/// The figures of README and of the page on clusters were made by the script that they name, with all workloads and without a
/// failure.
#[test]
fn the_figures_come_from_the_script() {
    let script = fs::read_to_string(root().join("benches/side_by_side.py")).unwrap();
    let (script, over_cluster) = script.split_once("CLUSTER_WORKLOADS = [").unwrap();
    for (name, script, least) in [("README.md", script, 7), ("docs/cluster.md", over_cluster, 6)] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let (_, rest) = text.split_once("<!-- side-by-side -->").unwrap();
        let (figures, _) = rest.split_once("<!-- /side-by-side -->").unwrap();
        assert!(figures.contains("by `benches/side_by_side.py") && !figures.contains("failed"), "{figures}");
        let workloads: Vec<&str> =
            script.split("Workload(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(workloads.len() >= least, "{workloads:?}");
        for workload in workloads {
            assert!(figures.contains(&format!("| {workload} |")), "{name} has no figures of {workload}");
        }
    }
}

/// Every command line that begins with `hotring` is one that it takes.
#[test]
fn command_lines_are_accepted() {
    let mut lines = Vec::new();
    for page in pages() {
        let mut shown = page.spans();
        for block in page.blocks().iter().filter(|b| matches!(b.info.as_str(), "sh" | "console" | "text")) {
            shown.extend(block.text.lines().map(|line| line.trim_start_matches("$ ").to_owned()));
        }
        let ours = shown.into_iter().filter(|line| line.starts_with("hotring ") && !line.contains("hotring <"));
        lines.extend(ours.map(|line| (page.name(), line)));
    }
    assert!(lines.len() >= 8, "{lines:?}");
    for (page, line) in lines {
        let words = line.split(['>', '|', '&', ';']).next().unwrap_or_default();
        // With --help at its end, a line is read as a whole and nothing is done.
        let done = hotring().args(words.split_whitespace().skip(1)).arg("--help").output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{page}: `{line}`: {said}");
    }
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let bad = scratch("bad.yaml", "pools: 3\n");
    let bad = bad.to_str().unwrap();
    for (arguments, code) in [
        (&["check"][..], 0),
        (&["--version"], 0),
        (&["--no-such-option"], 64),
        (&["check", "-c", bad], 64),
        (&["-t", "-c", bad], 64),
        (&["--admin", "nowhere"], 64),
        (&["-c", "no-such-file.yaml"], 78),
    ] {
        let done = hotring().args(arguments).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}");
    }
    for code in [0, 64, 71, 78] {
        assert!(readme().text.contains(&format!("\n| {code} | ")), "README.md: no exit code {code}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("admin: off\npools: {{a: {{listen: '{address}', servers: embedded:1}}}}\n");
    // The warning makes it log; a log that goes to a file has no colours.
    let text = text.replace("embedded:1", "embedded:1, redis_db: 1");
    let done = hotring().arg("-c").arg(scratch("taken.yaml", &text)).output().unwrap();
    assert_eq!(done.status.code(), Some(71));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains(&address.to_string()) && said.contains("WARN") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    for page in &pages {
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(path) };
            let target = target.canonicalize().unwrap_or_else(|e| panic!("{}: {link}: {e}", page.name()));
            if anchor.is_empty() {
                continue;
            }
            let there = pages.iter().find(|other| other.path.canonicalize().unwrap() == target);
            let anchors = there.unwrap_or_else(|| panic!("{}: {link} is no page", page.name())).anchors();
            assert!(anchors.iter().any(|a| a == anchor), "{}: {link} is not among {anchors:?}", page.name());
        }
    }
}

/// A page names no metric that is not there, and no key.
#[test]
fn metrics_that_are_named_exist() {
    let mut named = 0;
    for page in pages() {
        for word in page.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if !word.starts_with("hotring_") {
                continue;
            }
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            let exists = METRICS.iter().any(|metric| metric.name == family || metric.name == word);
            assert!(exists, "{}: there is no metric {word}", page.name());
            named += 1;
        }
    }
    assert!(named > METRICS.len());
}

#[test]
fn pages_know_nothing_of_this_machine() {
    let here = root().to_str().unwrap();
    let home = std::env::var("HOME").unwrap_or_default();
    for page in pages() {
        for private in [here, home.as_str(), "/home/", "/root/", "/Users/"] {
            // `/` or `/app` would be found in honest examples.
            let telling = private.matches('/').count() >= 2;
            assert!(!(telling && page.text.contains(private)), "{}: has the path {private}", page.name());
        }
    }
}

/// A hotring with embedded nodes on a free port.
struct Running {
    child: Child,
    port: String,
}

impl Running {
    fn start() -> Self {
        let text = "admin: off\npools: {a: {listen: '127.0.0.1:0', servers: embedded:3}}\n";
        let file = scratch("embedded.yaml", text);
        let mut child = hotring().arg("-c").arg(file).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let port = said.filter_map(|line| Some(line.split_once("127.0.0.1:")?.1.split(' ').next()?.to_owned())).next();
        Self { child, port: port.expect("it says where it listens") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example in a language; there is one.
fn example(language: &str) -> String {
    let blocks = readme().blocks();
    let mut found = blocks.into_iter().filter(|block| block.info == language);
    let block = found.next().unwrap_or_else(|| panic!("README.md has no {language}"));
    assert!(found.next().is_none());
    assert!(block.text.contains("6380"), "the port that proxy.yaml listens on");
    block.text
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs it if `tests/setup` has put redis-py where it belongs; its syntax is checked with any Python.
#[test]
fn the_python_example_runs() {
    let source = example("python");
    let python = root().join("target/test-clients/venv/bin/python3");
    let has_client = Command::new(&python).args(["-c", "import redis"]).stderr(Stdio::null()).status();
    if has_client.is_ok_and(|status| status.success()) {
        let running = Running::start();
        let done = Command::new(python).args(["-c", &source.replace("6380", &running.port)]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(out, "hello ['hello', None]\n[True, 42]\n['hello', '42']\n", "{err}");
    } else if is_there("python3") {
        let parse = "import ast, sys; ast.parse(sys.argv[1])";
        assert!(Command::new("python3").args(["-c", parse, &source]).status().unwrap().success());
    }
}

#[test]
fn the_other_examples_are_well_formed() {
    let node = scratch("example.mjs", &example("js"));
    if is_there("node") {
        assert!(Command::new("node").arg("--check").arg(node).status().unwrap().success());
    }
    let go = scratch("example.go", &example("go"));
    if is_there("gofmt") {
        let done = Command::new("gofmt").arg("-l").arg(go).output().unwrap();
        assert!(done.status.success() && done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
