//! hotring as its own process, and what the system knows of it.

use crate::support::{Client, FOREVER};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

pub(crate) struct Process {
    child: Child,
    address: String,
    admin: String,
    /// Kept open, for whatever is said there.
    _output: BufReader<ChildStdout>,
}

impl Process {
    /// The hotring of this build.
    pub(crate) fn start(config: &str) -> Self {
        Self::of(env!("CARGO_BIN_EXE_hotring"), config)
    }

    /// Any hotring, with a config of one pool that listens on TCP.
    pub(crate) fn of(binary: &str, config: &str) -> Self {
        Self::run(Command::new(binary), config)
    }

    /// The hotring of this build where so many files are the most it can have.
    pub(crate) fn with_files(config: &str, files: usize) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_hotring")]);
        Self::run(command, config)
    }

    fn run(mut command: Command, config: &str) -> Self {
        // The allocator gives back what is freed, so that what a process has is what it uses. On its own it keeps more and more
        // of it, the larger what is freed, and a leak cannot be told from its habits before it has none left to take up.
        command.envs([("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")]);
        command.args(["-c", config]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut address, mut admin) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended at its start");
            if let Some(pool) = line.trim_start().strip_prefix("pool ") {
                pool.split_whitespace().nth(1).unwrap().clone_into(&mut address);
            }
            if let Some(at) = line.trim_start().strip_prefix("admin ") {
                at.split_whitespace().next().unwrap().clone_into(&mut admin);
            }
            if line.starts_with("try: ") {
                break;
            }
        }
        Self { child, address, admin, _output: output }
    }

    /// Where its pool listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn app(&self) -> Client {
        Client::connect(&self.address)
    }

    /// What `/metrics` says, by series.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let page = self.page("/metrics");
        let samples = page.lines().filter(|line| line.starts_with("hotring_")).filter_map(|line| line.rsplit_once(' '));
        samples.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
    }

    /// An admin page with its head.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.admin).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; gives its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory it has now, and the most it ever had, in KiB.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().split(' ').next().unwrap().parse().unwrap()
        };
        (value("VmRSS:"), value("VmHWM:"))
    }

    /// Its open files.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
