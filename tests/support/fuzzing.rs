//! What must hold for any bytes at all: used by the mutations of `tests/properties.rs` and by the targets of `tests/fuzz`.
//!
//! Each function takes bytes that mean nothing and panics where a promise is broken.

use super::support::pool;
use hotring::config;
use hotring::engine::line::State;
use hotring::engine::port::{Port, Taken};
use hotring::engine::window::Bounds;
use hotring::engine::{Engine, LineId, SessionId, Then};
use hotring::error::{Cause, Failure};
use hotring::resp::control::{self, Control};
use hotring::resp::{Limits, ReplyResume, Request, Resume, Scan, Skim, request, scan, skim};
use std::collections::VecDeque;
use std::path::Path;

/// Tight enough that small inputs meet them.
const LIMITS: Limits = Limits { arguments: 1000, bulk: 100_000, request: 200_000 };

/// What was found in a run of bytes, up to the first error or the incomplete rest.
type Found = (Vec<String>, Result<(), String>);

/// Cuts bytes into pieces; the bytes themselves decide where.
fn pieces(data: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let mut at = 0;
    let mut state =
        data.iter().fold(0x9e37_79b9u32, |state, &byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = if state & 0x300 == 0 { 40 } else { 4 };
        at = (at + 1 + (state >> 16) as usize % most).min(data.len());
        Some(at)
    })
    .take(data.len() + 1)
}

/// Reads requests from bytes that come in pieces.
fn requests(data: &[u8], ends: impl Iterator<Item = usize>) -> Found {
    let (mut found, mut start, mut resume, mut needed) = (Vec::new(), 0, Resume::default(), 1);
    for end in ends {
        if end - start < needed {
            continue;
        }
        loop {
            let bytes = &data[start..end];
            match scan(bytes, &mut resume, &LIMITS) {
                Ok(Scan::Request(request)) => {
                    found.push(check_request(&request));
                    start += request.wire().len();
                }
                Ok(Scan::Inline { line, len }) => {
                    assert!(len > line.len() && len <= bytes.len());
                    let mut wire = Vec::new();
                    let expanded = request::expand_inline(line, &mut wire).map(|()| check_whole(&wire));
                    found.push(format!("{expanded:?}"));
                    start += len;
                }
                Ok(Scan::Nothing(len)) => {
                    assert!(0 < len && len <= bytes.len());
                    start += len;
                }
                Ok(Scan::Incomplete { need }) => {
                    assert!(need > bytes.len(), "asks for {need} bytes and has {}", bytes.len());
                    needed = need;
                    break;
                }
                Err(error) => return (found, Err(error.to_string())),
            }
        }
    }
    (found, Ok(()))
}

fn check_whole(wire: &[u8]) -> String {
    Request::parse(wire).map_or_else(|| "nothing".into(), |request| check_request(&request))
}

/// All ways to ask for an argument agree, and the arguments with the bytes.
fn check_request(request: &Request<'_>) -> String {
    let args: Vec<&[u8]> = request.args().collect();
    assert_eq!(args.len(), request.argc());
    assert!(args.iter().enumerate().all(|(index, arg)| request.arg(index) == Some(*arg)));
    assert_eq!(request.arg(args.len()), None);
    let mut again = Vec::new();
    hotring::resp::write::request(&mut again, &args);
    assert_eq!(again, request.wire(), "a request that Redis would write otherwise");
    if let Ok(spec) = hotring::command::identify(request) {
        hotring::command::treatment(spec, request);
        let _ = hotring::command::keys(spec, request, &mut |index| assert!(0 < index && index < args.len()));
    }
    format!("{args:?}")
}

/// Requests: the same whether bytes come at once, one by one or in pieces.
pub fn scanning(data: &[u8]) {
    let whole = requests(data, std::iter::once(data.len()));
    assert_eq!(requests(data, pieces(data)), whole);
    if data.len() < 512 {
        assert_eq!(requests(data, 1..=data.len()), whole);
    }
}

fn replies(data: &[u8], ends: impl Iterator<Item = usize>) -> (Vec<usize>, Result<(), String>) {
    let (mut found, mut start, mut resume, mut needed) = (Vec::new(), 0, ReplyResume::default(), 1);
    for end in ends {
        while end - start >= needed {
            let bytes = &data[start..end];
            match skim(bytes, &mut resume) {
                Ok(Skim::Reply(length)) => {
                    assert!(0 < length && length <= bytes.len());
                    found.push(length);
                    start += length;
                    needed = 1;
                }
                Ok(Skim::Incomplete { need }) => {
                    assert!(need > bytes.len(), "asks for {need} bytes and has {}", bytes.len());
                    needed = need;
                }
                Err(error) => return (found, Err(error.to_string())),
            }
        }
    }
    (found, Ok(()))
}

/// Replies: the same whether bytes come at once, one by one or in pieces.
pub fn skimming(data: &[u8]) {
    let whole = replies(data, std::iter::once(data.len()));
    assert_eq!(replies(data, pieces(data)), whole);
    if data.len() < 512 {
        assert_eq!(replies(data, 1..=data.len()), whole);
    }
}

/// Control replies: what is read can be written, and is then read as the same.
pub fn controls(data: &[u8]) {
    if let Ok(Some((reply, length))) = control::parse(data) {
        assert!(length <= data.len());
        assert_eq!(skim(data, &mut ReplyResume::default()), Ok(Skim::Reply(length)), "skimmed otherwise");
        let mut again = Vec::new();
        control::encode(&reply, &mut again);
        let read = control::parse(&again).expect("well formed").expect("whole");
        assert_eq!(read.1, again.len());
        if !has_line_break(&reply) {
            assert_eq!(read.0, reply);
        }
    }
}

fn has_line_break(reply: &Control) -> bool {
    match reply {
        Control::Simple(text) | Control::Error(text) => text.contains(['\r', '\n']),
        Control::Array(items) => items.iter().any(has_line_break),
        _ => false,
    }
}

/// A config file: told what is wrong with it, or taken; what was taken can be shown, and what is shown is a config file.
pub fn configs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The one key that makes the reader open another file.
    if text.contains("password_file") {
        return;
    }
    let path = Path::new("fuzzed.yaml");
    match config::parse(text, path) {
        Ok(config) => {
            config.warnings();
            let shown = config.masked_yaml();
            let again = config::parse(&shown, path).unwrap_or_else(|problems| panic!("{problems}\n{shown}\n{text}"));
            assert_eq!(again.masked_yaml(), shown);
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
    let _ = config::import(text, path);
}

// --- the engine -----------------------------------------------------------------------------------------------------

/// Sockets whose capacity the input decides, and that look at what goes through them.
struct Watched {
    moods: VecDeque<u8>,
    apps: Vec<Stream>,
    shards: Vec<Stream>,
}

/// What was sent on a socket and is no whole frame yet.
#[derive(Default)]
struct Stream {
    rest: Vec<u8>,
    frames: u64,
}

impl Watched {
    fn takes(&mut self, length: usize) -> Taken {
        match self.moods.pop_front().unwrap_or(0) {
            250..=252 => Taken::Full(0),
            253 => Taken::Full(length.div_ceil(2)),
            254 => Taken::Some(1),
            255 => Taken::Gone,
            _ => Taken::Some(length),
        }
    }
}

impl Port for Watched {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        let taken = self.takes(bytes.len());
        if let Taken::Some(n) | Taken::Full(n) = taken {
            let app = &mut self.apps[session as usize];
            app.rest.extend_from_slice(&bytes[..n]);
            while let Skim::Reply(length) = skim(&app.rest, &mut ReplyResume::default()).expect("an app got no reply") {
                app.rest.drain(..length);
                app.frames += 1;
            }
        }
        taken
    }

    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken {
        let taken = self.takes(bytes.len());
        if let Taken::Some(n) | Taken::Full(n) = taken {
            let shard = &mut self.shards[line as usize];
            shard.rest.extend_from_slice(&bytes[..n]);
            loop {
                match scan(&shard.rest, &mut Resume::default(), &Limits::default()).expect("a shard got no request") {
                    Scan::Request(request) => {
                        let length = request.wire().len();
                        shard.rest.drain(..length);
                        shard.frames += 1;
                    }
                    Scan::Incomplete { .. } => break,
                    other => panic!("a shard got {other:?}"),
                }
            }
        }
        taken
    }

    fn wake(&mut self, _session: SessionId) {}

    fn open(&mut self, _line: LineId) {}
}

/// The engine: apps and shards say what they like; nobody else is harmed, and nothing is left behind.
pub fn engines(data: &[u8]) {
    const SESSIONS: usize = 3;
    const LINES: usize = 4;
    const LOST: Failure = Failure { cause: Cause::Lost, reason: "reset" };
    let Some((&kind, mut data)) = data.split_first() else { return };
    let mut config = pool(2, 2, kind & 1 == 1);
    config.bounds = Bounds { open: 1 + usize::from(kind >> 4), output: 1 << (4 + (kind >> 5)) };
    config.outbox = usize::from(kind) * 4;
    config.limits = LIMITS;
    config.timeout = Some(1000);
    if kind & 6 == 6 {
        let password = hotring::units::Secret::new("pw");
        config.users = std::sync::Arc::new(hotring::acl::Users::new(&[], Some(&password)).expect("a password"));
    }
    let mut engine = Engine::new(1, 1);
    engine.add_pool(config);
    let streams = |count: usize| std::iter::repeat_with(Stream::default).take(count).collect();
    let mut port = Watched { moods: VecDeque::new(), apps: streams(SESSIONS), shards: streams(LINES) };
    let mut sessions: Vec<(SessionId, Vec<u8>)> = (0..SESSIONS).map(|_| (engine.open(0), Vec::new())).collect();
    let mut buffers: Vec<Vec<u8>> = vec![Vec::new(); LINES];
    let mut now = 0;
    let reset = |engine: &mut Engine, port: &mut Watched, buffers: &mut Vec<Vec<u8>>, line: usize, now| {
        engine.fail(line as LineId, LOST, now, port);
        port.shards[line] = Stream::default();
        buffers[line].clear();
    };
    while let [step, length, rest @ ..] = data {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        let (who, line) = (usize::from(step >> 4) % SESSIONS, usize::from(step >> 4) % LINES);
        let (id, tail) = &mut sessions[who];
        now += u64::from(*length);
        match step & 15 {
            0..=4 if !engine.is_paused(*id) && !engine.is_over(*id) => {
                tail.extend_from_slice(piece);
                let done = engine.submit(*id, tail, now, &mut port);
                tail.drain(..done.consumed);
                if let Then::Read { need } = done.then {
                    assert!(need > tail.len());
                }
            }
            5..=7 if engine.line(line as LineId).is_some_and(|line| line.state == State::Up) => {
                buffers[line].extend_from_slice(piece);
                match engine.receive(line as LineId, &buffers[line], now, &mut port) {
                    Ok((consumed, need)) => {
                        buffers[line].drain(..consumed);
                        assert!(need > buffers[line].len());
                    }
                    Err(_) => reset(&mut engine, &mut port, &mut buffers, line, now),
                }
            }
            8 | 9 => engine.flush(&mut port),
            10 => {
                engine.connected(line as LineId, now);
                engine.shard_writable(line as LineId);
            }
            11 => engine.app_writable(*id),
            12 => reset(&mut engine, &mut port, &mut buffers, line, now),
            13 => {
                engine.close(*id, length & 1 == 0, &mut port);
                tail.clear();
                *id = engine.open(0);
                port.apps[*id as usize] = Stream::default();
            }
            14 => {
                let overdue = engine.tick(now, &mut port);
                overdue.iter().for_each(|(line, _)| reset(&mut engine, &mut port, &mut buffers, *line as usize, now));
            }
            15 if length & 1 == 0 => {
                engine.finish(*id);
            }
            15 => port.moods.extend(piece),
            _ => {}
        }
        let requests = engine.requests();
        let counts = engine.pool_counts(0).expect("the pool");
        // What is no request at all is answered, too, once.
        let asked = requests + counts.errors[Cause::Protocol];
        assert!(counts.replies <= asked, "{} replies to {asked} requests", counts.replies);
    }
    (0..LINES).for_each(|line| reset(&mut engine, &mut port, &mut buffers, line, now));
    sessions.iter().for_each(|(id, _)| engine.close(*id, false, &mut port));
    let held = engine.holdings();
    assert_eq!((engine.in_flight(), engine.session_count(), held.gathers, held.attempts, held.joined), (0, 0, 0, 0, 0));
    let counts = engine.pool_counts(0).expect("the pool");
    let levels = [counts.client_connections, counts.client_output_bytes, counts.requests_pending];
    assert_eq!(levels.map(hotring::metrics::Level::get), [0; 3]);
}
