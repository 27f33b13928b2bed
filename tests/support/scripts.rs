//! Programs in other languages that talk to hotring: where `tests/setup` puts what they need, and how they are run.

use super::{Cluster, Hotring, Redis};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Several real servers on TCP ports with one hotring before them, and programs run on it.
pub(crate) struct Stand {
    hotring: Hotring,
    servers: Vec<String>,
    cluster: bool,
    /// They run as long as this is there.
    _alive: (Vec<Redis>, Option<Cluster>),
}

impl Stand {
    /// A pool of so many shards, with hash tags in braces.
    pub(crate) fn over(count: usize) -> Self {
        let shards: Vec<Redis> = (0..count).map(|_| Redis::tcp(&[])).collect();
        let servers: Vec<String> = shards.iter().map(|shard| shard.address().to_owned()).collect();
        let hotring = Hotring::over(&servers, &["hash_tag: \"{}\""]);
        Self { hotring, servers, cluster: false, _alive: (shards, None) }
    }

    /// A pool over a cluster of so many primaries. Programs find `HOTRING_CLUSTER` in their environment.
    pub(crate) fn over_cluster(primaries: usize) -> Self {
        let cluster = Cluster::start(primaries, 0);
        let servers = (0..primaries).map(|node| cluster.address(node).to_owned()).collect();
        let hotring = Hotring::start(&cluster.yaml(&[0], &[]));
        Self { hotring, servers, cluster: true, _alive: (Vec::new(), Some(cluster)) }
    }

    /// What redis-cli prints for these lines on its input.
    pub(crate) fn redis_cli(&self, arguments: &[&str], lines: &str) -> String {
        let (host, port) = self.hotring.address(0).rsplit_once(':').unwrap();
        let mut command = Command::new("redis-cli");
        command.args(["-h", host, "-p", port]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("`tests/setup` installs it");
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a script of `tests/clients` in Python to a good end, in the environment that `tests/setup` made.
    pub(crate) fn python(&self, environment: &str, script: &str) {
        if is_there(script, environment) {
            let python = installed(&format!("{environment}/bin/python"));
            self.run(Command::new(python).arg("-B").arg(source(script)));
        }
    }

    /// Runs a script of `tests/clients` in JavaScript to a good end.
    pub(crate) fn node(&self, script: &str) {
        if is_there(script, "node") {
            self.run(Command::new("node").arg(source(script)).arg(installed("node/node_modules")));
        }
    }

    /// Runs a program with the host and port of hotring and the addresses of the servers behind its arguments. It tells of
    /// each check in a line; those are shown when one of them failed.
    pub(crate) fn run(&self, command: &mut Command) {
        let (host, port) = self.hotring.address(0).rsplit_once(':').unwrap();
        command.args([host, port]).args(&self.servers).stdin(Stdio::null());
        if self.cluster {
            command.env("HOTRING_CLUSTER", "1");
        }
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
        assert!(out.contains(" passed\n"), "{command:?} has checked nothing\n{out}\n{err}");
    }
}

/// A file of `tests/clients`.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// Where `tests/setup` puts libraries.
pub(crate) fn installed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients").join(path)
}

/// Whether what a script needs is there; if not, that is told whether or not the output of tests is shown.
fn is_there(script: &str, directory: &str) -> bool {
    // Written when all the rest is there.
    if installed(directory).join("installed").exists() {
        return true;
    }
    let text = format!("\nSKIPPED: {script} needs what `tests/setup` puts into {}\n", installed(directory).display());
    io::stderr().write_all(text.as_bytes()).expect("told");
    false
}
