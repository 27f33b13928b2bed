//! A server that misbehaves as a test tells it to: a script in a thread for each connection.

use super::client::uninterrupted;
use super::{FOREVER, wire};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// A scripted server. Connections that are open when it is dropped end when the other side ends them.
pub(crate) struct Fake {
    address: String,
    visits: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One connection to a scripted server.
pub(crate) struct Visit {
    /// Which one it is, from 0.
    pub(crate) number: usize,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Fake {
    /// Plays `script` for each connection; the connection ends with it.
    pub(crate) fn start(script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (visits, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop, script) = (Arc::clone(&visits), Arc::clone(&stopping), Arc::new(script));
        let thread = std::thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::AcqRel);
                let script = Arc::clone(&script);
                let mut visit = Visit { number, socket: socket.unwrap(), buffer: Vec::new() };
                visit.socket.set_nodelay(true).unwrap();
                visit.socket.set_read_timeout(Some(FOREVER)).unwrap();
                std::thread::spawn(move || script(&mut visit));
            }
        });
        Self { address, visits, stopping, thread: Some(thread) }
    }

    /// Shakes hands, then answers each request with what `answer` says; nothing ends the connection.
    pub(crate) fn answering(answer: impl Fn(&[Vec<u8>]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(move |visit| {
            visit.shake_hands();
            while let Some(request) = visit.request() {
                let reply = answer(&request);
                if reply.is_empty() || !visit.send(&reply) {
                    return;
                }
            }
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many connections there have been.
    pub(crate) fn visits(&self) -> usize {
        self.visits.load(Ordering::Acquire)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes it from its accept.
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

impl Visit {
    /// The next request; nothing when the other side has ended.
    pub(crate) fn request(&mut self) -> Option<Vec<Vec<u8>>> {
        loop {
            if let Some((request, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Some(request);
            }
            let mut chunk = [0; 16 * 1024];
            match uninterrupted(|| self.socket.read(&mut chunk)) {
                Ok(count) if count > 0 => self.buffer.extend(&chunk[..count]),
                _ => return None,
            }
        }
    }

    /// Answers the PING that every connection begins with.
    pub(crate) fn shake_hands(&mut self) {
        if let Some(request) = self.request() {
            assert_eq!(wire(&request), b"*1\r\n$4\r\nPING\r\n");
            self.send(b"+PONG\r\n");
        }
    }

    /// Sends bytes; says whether the other side was still there.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Answers nothing until the other side ends.
    pub(crate) fn until_gone(&mut self) {
        while self.request().is_some() {}
    }
}

/// The request at the front, if it is all there, and its length.
fn parse(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let mut at = 0;
    let mut number = |mark: u8| {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")? + at;
        assert_eq!(bytes[at], mark, "hotring sends arrays of bulk strings only");
        let number: usize = std::str::from_utf8(&bytes[at + 1..line]).unwrap().parse().unwrap();
        at = line + 2;
        if mark == b'*' {
            return Some(number..number);
        }
        at += number + 2;
        (at <= bytes.len()).then_some(at - number - 2..at - 2)
    };
    let count = number(b'*')?.start;
    let request = (0..count).map(|_| number(b'$').map(|place| bytes[place].to_vec())).collect::<Option<_>>()?;
    Some((request, at))
}
