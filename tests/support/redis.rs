//! Real redis-servers, each in a directory of its own, killed when dropped.

use super::{Client, Scratch};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// One redis-server.
pub(crate) struct Redis {
    address: String,
    arguments: Vec<String>,
    process: Option<(Child, BufReader<ChildStdout>)>,
    _dir: Scratch,
}

impl Redis {
    /// On a unix socket; `arguments` are redis-server's.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut redis = Self::spawn(arguments);
        assert!(redis.is_ready(), "redis-server ended at its start");
        redis
    }

    /// On a port of 127.0.0.1.
    pub(crate) fn tcp(arguments: &[&str]) -> Self {
        let port = free_port();
        let dir = Scratch::new();
        let mut all = common(&dir, arguments);
        all.extend(["--port", &port.to_string(), "--bind", "127.0.0.1"].map(str::to_owned));
        let mut redis =
            Self { address: format!("127.0.0.1:{port}"), process: Some(run(&all)), arguments: all, _dir: dir };
        assert!(redis.is_ready(), "redis-server ended at its start");
        redis
    }

    fn spawn(arguments: &[&str]) -> Self {
        let dir = Scratch::new();
        let path = dir.file("redis.sock");
        let mut all = common(&dir, arguments);
        all.extend(["--port", "0", "--unixsocket", &path].map(str::to_owned));
        Self { address: path, process: Some(run(&all)), arguments: all, _dir: dir }
    }

    /// Its address as a config file has it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A connection to it that does not go through hotring.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Ends it without a word, as `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some((mut child, _)) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again at the same address, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = Some(run(&self.arguments));
        assert!(self.is_ready(), "redis-server ended at its start");
    }

    /// Removes what it has written, so that it begins empty; for one that is not running.
    pub(crate) fn forget(&self) {
        assert!(self.process.is_none(), "it would write on");
        let _ = std::fs::remove_dir_all(self._dir.0.join("appendonlydir"));
        let _ = std::fs::remove_file(self._dir.0.join("appendonly.aof"));
    }

    /// Lets it stand still: its socket takes bytes, nobody answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let (child, _) = self.process.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// How often it has carried out a command, as it says itself.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.client().ask("INFO commandstats");
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")).map(str::to_owned));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// How often its rules have kept anyone from a command.
    pub(crate) fn denied(&self) -> usize {
        self.client().ask("ACL LOG").matches("command").count()
    }

    /// Its connections, but for the one that asks.
    pub(crate) fn connections(&self) -> usize {
        self.connected().len()
    }

    /// The ids of its connections, but for the one that asks.
    pub(crate) fn connected(&self) -> Vec<String> {
        let all = self.client().ask("CLIENT LIST");
        let id = |line: &str| line.strip_prefix("id=")?.split(' ').next().map(str::to_owned);
        all.lines().filter(|line| !line.contains(" cmd=client|list ")).filter_map(id).collect()
    }

    /// Waits until it says that it serves; false when it ends instead.
    fn is_ready(&mut self) -> bool {
        let Some((_, log)) = &mut self.process else { return false };
        let mut line = String::new();
        while log.read_line(&mut line).unwrap() > 0 {
            if line.contains("eady to accept connections") || line.contains("now ready at") {
                return true;
            }
            line.clear();
        }
        false
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process of a test's own, killed when dropped; what it prints is not read.
pub(crate) struct Process(Child);

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}")))
    }

    /// Lets it stand still.
    pub(crate) fn stop(&self) {
        kill_process(Pid::from_child(&self.0), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// So many servers on unix sockets.
pub(crate) fn shards(count: usize) -> (Vec<Redis>, Vec<String>) {
    shards_with(count, &[])
}

/// The same, each with these arguments.
pub(crate) fn shards_with(count: usize, arguments: &[&str]) -> (Vec<Redis>, Vec<String>) {
    let mut all: Vec<Redis> = (0..count).map(|_| Redis::spawn(arguments)).collect();
    assert!(all.iter_mut().all(Redis::is_ready), "redis-server ended at its start");
    let addresses = all.iter().map(|redis| redis.address.clone()).collect();
    (all, addresses)
}

/// A port of 127.0.0.1 where nobody listens, and that the system gives to nobody: whoever names it can listen there.
pub(crate) fn free_port() -> u16 {
    static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    KEPT.lock().unwrap().push(socket);
    port
}

fn common(dir: &Scratch, arguments: &[&str]) -> Vec<String> {
    let quiet =
        ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "", "--databases", "16", "--dir"];
    quiet.into_iter().chain([dir.0.to_str().unwrap()]).chain(arguments.iter().copied()).map(str::to_owned).collect()
}

fn run(arguments: &[String]) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new("redis-server");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("redis-server cannot be started ({error}); these tests run against real servers: install Redis 7 first")
    });
    let log = BufReader::new(child.stdout.take().unwrap());
    (child, log)
}
