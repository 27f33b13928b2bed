//! hotring as its own process, and what the system knows of it.

use crate::support::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

pub(crate) struct Process {
    child: Child,
    address: String,
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
        let mut command = Command::new(binary);
        command.args(["-c", config]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{binary}: {error}"));
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut address = String::new();
        loop {
            let mut line = String::new();
            assert!(output.read_line(&mut line).unwrap() > 0, "it ended at its start");
            if let Some(pool) = line.trim_start().strip_prefix("pool ") {
                pool.split_whitespace().nth(1).unwrap().clone_into(&mut address);
            }
            if line.starts_with("try: ") {
                break;
            }
        }
        Self { child, address, _output: output }
    }

    /// Where its pool listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn app(&self) -> Client {
        Client::connect(&self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; gives its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
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
