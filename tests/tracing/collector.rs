//! A collector of spans that answers as a test tells it to, and what it was sent, read by OpenTelemetry's own definitions.

use super::support::{FOREVER, eventually, installed};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What is answered to the next request: status and more of the head, then the body. `None`: nothing.
type Answer = Option<(String, String)>;
type Script = dyn Fn(usize) -> Answer + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct Collector {
    address: String,
    posts: Arc<Mutex<Vec<Post>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    /// One that takes all.
    pub(crate) fn start() -> Self {
        Self::answering(|_| Some(("200 OK".into(), "{}".into())))
    }

    /// One that answers the requests, which count from 0, as this says.
    pub(crate) fn answering(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (posts, stopping) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, stop, script) = (Arc::clone(&posts), Arc::clone(&stopping), Arc::new(script));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let (all, script): (_, Arc<Script>) = (Arc::clone(&all), script.clone());
                std::thread::spawn(move || serve(socket.unwrap(), &all, &*script));
            }
        });
        Self { address, posts, stopping, thread: Some(thread) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        decoded(&self.posts())
    }

    /// Waits until a request of this name was told of, then all spans so far.
    pub(crate) fn spans_until(&self, name: &str) -> Vec<Span> {
        let wanted = format!("\"name\":\"{name}\"");
        eventually(&format!("{name} was exported"), || self.posts().iter().any(|post| post.body.contains(&wanted)));
        self.spans()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

fn serve(mut socket: TcpStream, posts: &Mutex<Vec<Post>>, script: &Script) {
    socket.set_read_timeout(Some(FOREVER)).unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let number = {
        let mut posts = posts.lock().unwrap();
        posts.push(Post { head, body: String::from_utf8(body).unwrap() });
        posts.len() - 1
    };
    match script(number) {
        Some((status, body)) => {
            let length = body.len();
            let _ = write!(socket, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
        // Until the other side has enough.
        None => drop(reader.read(&mut [0])),
    }
}

/// A span as it was sent.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) failed: bool,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) resource: Map<String, Value>,
}

impl Span {
    pub(crate) fn is_root(&self) -> bool {
        self.parent.is_empty()
    }

    /// An attribute as text; empty if it is not there.
    pub(crate) fn get(&self, name: &str) -> String {
        match self.attributes.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

fn decoded(posts: &[Post]) -> Vec<Span> {
    let python = installed("otlp/bin/python");
    assert!(python.exists(), "{} is missing: run tests/setup", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracing/decode.py");
    let mut child =
        Command::new(python).arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bodies: Vec<String> = posts.iter().map(|post| post.body.clone()).collect();
    let writer = std::thread::spawn(move || bodies.iter().for_each(|body| writeln!(stdin, "{body}").unwrap()));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(done.status.success(), "OpenTelemetry does not read what was sent");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let span = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        Span {
            trace: text(&value["trace"]),
            id: text(&value["id"]),
            parent: text(&value["parent"]),
            name: text(&value["name"]),
            kind: value["kind"].as_u64().unwrap(),
            start: value["start"].as_u64().unwrap(),
            end: value["end"].as_u64().unwrap(),
            failed: value["failed"].as_bool().unwrap(),
            attributes: value["attributes"].as_object().unwrap().clone(),
            resource: value["resource"].as_object().unwrap().clone(),
        }
    };
    String::from_utf8(done.stdout).unwrap().lines().map(span).collect()
}
