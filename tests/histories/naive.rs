//! A proxy that does it wrong, for the checker to find out: it keeps what it has read for a while and knows of no writes.

use super::Clock;
use crate::chaos::Link;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Stands before a hotring.
pub(crate) struct Naive {
    address: String,
}

/// By key, since when which reply is kept.
type Replies = HashMap<Vec<u8>, (u64, Vec<u8>)>;

struct Kept {
    replies: Mutex<Replies>,
    clock: Clock,
    span: u64,
    /// Whether a write removes what is kept of its key when it is sent.
    removes: bool,
}

impl Naive {
    /// Keeps replies to GET for such a time. Ends with the process.
    pub(crate) fn before(hotring: &str, span: Duration, removes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let span = span.as_nanos() as u64;
        let kept = Arc::new(Kept { replies: Mutex::default(), clock: Clock::start(), span, removes });
        let hotring = hotring.to_owned();
        std::thread::spawn(move || {
            for app in listener.incoming() {
                let (app, server) = (app.unwrap(), TcpStream::connect(&hotring).unwrap());
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(&app, &server, &kept));
            }
        });
        Self { address }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

/// Until the app ends it.
fn serve(app: &TcpStream, server: &TcpStream, kept: &Kept) -> Option<()> {
    app.set_nodelay(true).ok()?;
    server.set_nodelay(true).ok()?;
    let (mut requests, mut replies) = (BufReader::new(app), BufReader::new(server));
    let (mut app, mut server) = (app, server);
    loop {
        let request = message(&mut requests)?;
        let words: Vec<&[u8]> = request.split(|&byte| byte == b'\n').collect();
        let (command, key) = (words[2].trim_ascii().to_ascii_lowercase(), words[4].trim_ascii().to_vec());
        let is_read = command == b"get";
        let now = kept.clock.now();
        if !is_read && kept.removes {
            kept.replies.lock().unwrap().remove(&key);
        }
        let known = kept.replies.lock().unwrap().get(&key).filter(|(since, _)| now < since + kept.span).cloned();
        if let (true, Some((_, reply))) = (is_read, known) {
            app.write_all(&reply).ok()?;
            continue;
        }
        server.write_all(&request).ok()?;
        let reply = message(&mut replies)?;
        if is_read {
            kept.replies.lock().unwrap().insert(key, (kept.clock.now(), reply.clone()));
        }
        app.write_all(&reply).ok()?;
    }
}

/// A request or a reply without arrays in it.
fn message(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    if from.read_until(b'\n', &mut all).ok()? == 0 {
        return None;
    }
    let number = |line: &[u8]| std::str::from_utf8(line[1..].trim_ascii()).ok()?.parse::<i64>().ok();
    match all[0] {
        b'*' => {
            for _ in 0..number(&all)? {
                all.extend(message(from)?);
            }
        }
        b'$' => {
            let length = number(&all)?;
            if length >= 0 {
                from.take(length as u64 + 2).read_to_end(&mut all).ok()?;
            }
        }
        _ => {}
    }
    Some(all)
}
