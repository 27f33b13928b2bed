//! Real servers and a hotring before them, for as long as a test runs, and connections that give replies as raw bytes.

use hotring::proxy::Proxy;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Only a test that fails waits this long for a reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of the test's own, gone with it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hotring-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for the servers");
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A redis-server on a unix socket.
pub(crate) struct Server {
    process: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts one; without a redis-server on this machine there is nothing to test, and that is a failure.
    pub(crate) fn start(directory: &Directory, name: &str) -> Self {
        let socket = directory.path().join(name);
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server cannot be started ({error}); `tests/setup` installs it"));
        let mut log = BufReader::new(process.stdout.take().expect("its log")).lines();
        let ready = log.any(|line| line.is_ok_and(|line| line.contains("ready to accept connections")));
        assert!(ready, "redis-server did not come up");
        // It goes on logging; nobody reading would stop it in the end.
        std::thread::spawn(move || log.for_each(drop));
        Server { process, socket }
    }

    pub(crate) fn connect(&self) -> Connection {
        let stream = UnixStream::connect(&self.socket).expect("the server's socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Connection::new(Stream::Unix(stream))
    }

    /// As it stands in a pool's `servers`.
    pub(crate) fn entry(&self) -> String {
        let name = self.socket.file_name().expect("a name").to_string_lossy();
        format!("{}:1 {name}", self.socket.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A hotring in this process with one pool over some servers.
pub(crate) struct Hotring {
    proxy: Option<Proxy>,
    address: String,
}

impl Hotring {
    /// `more` are further lines of the pool, each with its indentation of four blanks.
    pub(crate) fn start(shards: &[Server], more: &str) -> Self {
        let mut yaml = String::from("admin: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    hash_tag: \"{}\"\n");
        // Servers that get no turn for a while are none that break.
        yaml += "    timeout: 1m\n    connect_timeout: 1m\n";
        yaml += more;
        yaml += "    servers:\n";
        for shard in shards {
            yaml += &format!("      - {}\n", shard.entry());
        }
        Self::of(&yaml)
    }

    /// One with a pool `main`, some of whose keys live in other pools.
    pub(crate) fn with_routes(pools: &[(&str, &[Server])], routes: &str) -> Self {
        let mut yaml = String::from("admin: off\npools:\n");
        for (name, servers) in pools {
            yaml += &format!("  {name}:\n    hash_tag: \"{{}}\"\n    timeout: 1m\n    connect_timeout: 1m\n");
            if *name == "main" {
                yaml += &format!("    listen: 127.0.0.1:0\n    routes: {routes}\n");
            }
            yaml += "    servers:\n";
            for server in *servers {
                yaml += &format!("      - {}\n", server.entry());
            }
        }
        Self::of(&yaml)
    }

    fn of(yaml: &str) -> Self {
        let config = hotring::config::parse(yaml, Path::new("test.yaml")).expect("a good configuration");
        let proxy = Proxy::start(config).expect("hotring starts");
        let address = proxy.addresses()[0].1.clone();
        Hotring { proxy: Some(proxy), address }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::to(&self.address)
    }
}

impl Drop for Hotring {
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            let _ = proxy.stop();
        }
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// An app's connection.
pub(crate) struct Connection {
    stream: Stream,
    unread: Vec<u8>,
    at: usize,
}

impl Connection {
    /// To a host and port.
    pub(crate) fn to(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a socket that listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Connection::new(Stream::Tcp(stream))
    }

    fn new(stream: Stream) -> Self {
        Connection { stream, unread: Vec::new(), at: 0 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
        }
    }

    /// One reply's bytes; none when the other side closed.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            let unread = &self.unread[self.at..];
            if let Some(length) = reply_length(unread) {
                let reply = unread[..length].to_vec();
                self.at += length;
                return Some(reply);
            }
            self.unread.drain(..self.at);
            self.at = 0;
            if self.read_some() == 0 {
                return None;
            }
        }
    }

    /// All that comes until the other side closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_some() > 0 {}
        self.unread.split_off(self.at)
    }

    /// Sends no more, as an app that has asked for all it wants.
    pub(crate) fn finish(&self) {
        let done = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
        // The other side may have closed already.
        drop(done);
    }

    fn read_some(&mut self) -> usize {
        let mut buffer = [0; 1 << 16];
        let read = match &mut self.stream {
            Stream::Unix(stream) => stream.read(&mut buffer),
            Stream::Tcp(stream) => stream.read(&mut buffer),
        };
        let count = match read {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            // The process was stopped and continued.
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.read_some(),
            Err(error) => panic!("no reply in time: {error}; unread {}", self.unread[self.at..].escape_ascii()),
        };
        self.unread.extend_from_slice(&buffer[..count]);
        count
    }

    /// The replies to some commands, all sent at once.
    pub(crate) fn ask_all<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Vec<u8>> {
        // So few at a time that neither side's socket buffers fill up.
        let mut replies = Vec::new();
        for batch in commands.chunks(64) {
            let bytes: Vec<u8> = batch.iter().flat_map(|args| wire(args)).collect();
            self.send(&bytes).expect("a request sent");
            for args in batch {
                replies.push(self.receive().unwrap_or_else(|| panic!("closed, no reply to {}", show(args))));
            }
        }
        replies
    }

    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(&wire(args)).expect("a request sent");
        self.receive().unwrap_or_else(|| panic!("closed, no reply to {}", show(args)))
    }

    /// The reply to a command without blanks in its arguments.
    pub(crate) fn tell(&mut self, line: &str) -> Vec<u8> {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }
}

/// A request as clients send it.
pub(crate) fn wire<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut wire = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        wire.extend(format!("${}\r\n", arg.as_ref().len()).into_bytes());
        wire.extend(arg.as_ref());
        wire.extend(b"\r\n");
    }
    wire
}

/// A command for people, cut where it gets long.
pub(crate) fn show<A: AsRef<[u8]>>(args: &[A]) -> String {
    let mut text = String::new();
    for arg in args {
        let arg = arg.as_ref();
        let plain = !arg.is_empty() && arg.iter().all(|b| b.is_ascii_graphic() && *b != b'"' && *b != b'\\');
        let quote = if plain { "" } else { "\"" };
        let (shown, more) = if arg.len() > 80 { (&arg[..80], "...") } else { (arg, "") };
        text += &format!("{quote}{}{quote}{more} ", shown.escape_ascii());
    }
    text
}

/// How long the reply at the front is, in either protocol, if all of it is there.
pub(crate) fn reply_length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || -> i64 {
        let text = std::str::from_utf8(&bytes[1..line - 2]).expect("a number");
        text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
    };
    let parts = match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => return Some(line),
        b'$' | b'=' | b'!' => {
            return match usize::try_from(number()) {
                Err(_) => Some(line),
                Ok(length) => Some(line + length + 2).filter(|&end| end <= bytes.len()),
            };
        }
        b'*' | b'~' | b'>' => number(),
        b'%' => 2 * number(),
        other => panic!("no reply begins with {:?}: {}", char::from(other), bytes[..line].escape_ascii()),
    };
    let mut at = line;
    for _ in 0..parts {
        at += reply_length(&bytes[at..])?;
    }
    Some(at)
}
