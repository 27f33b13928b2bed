//! What must hold for any bytes at all: used by the mutations of `tests/properties.rs` and by the targets of `tests/fuzz`.
//!
//! Each function takes bytes that mean nothing and panics where a promise is broken.

use super::support::pool;
use hotring::config;
use hotring::engine::line::Owner;
use hotring::engine::port::{Port, Taken};
use hotring::engine::window::Bounds;
use hotring::engine::{Engine, LineId, PoolConfig, SessionId, Then};
use hotring::error::{Cause, Failure};
use hotring::resp::control::{self, Control};
use hotring::resp::{Limits, ReplyResume, Request, Resume, Scan, Skim, request, scan, skim};
use hotring::stages::routes::Routes;
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
    apps: Vec<App>,
    wires: Vec<Wire>,
    /// What the replies to marked requests begin with.
    mark: Vec<u8>,
}

/// An app, and what it was sent.
#[derive(Default)]
struct App {
    /// No whole reply yet.
    rest: Vec<u8>,
    /// Replies, but for what it is told of channels.
    replies: u64,
    /// What is answered at least once at most: requests and protocol errors.
    asked: u64,
    /// Marks it has sent whose replies have not come.
    marks: VecDeque<u64>,
}

/// A connection to a shard.
#[derive(Default)]
struct Wire {
    /// What was sent on it and is no whole request yet.
    sent: Vec<u8>,
    /// What came on it and is no whole reply yet.
    came: Vec<u8>,
    open: bool,
    wanted: bool,
    given_up: bool,
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

    fn wire(&mut self, line: LineId) -> &mut Wire {
        let least = self.wires.len().max(line as usize + 1);
        self.wires.resize_with(least, Wire::default);
        &mut self.wires[line as usize]
    }
}

impl App {
    fn hears(&mut self, reply: &[u8], mark: &[u8]) {
        let start = &reply[..reply.len().min(32)];
        let about_channels = |text: &[u8]| start.windows(text.len()).any(|part| part == text);
        if !about_channels(b"subscribe\r\n") && !about_channels(b"message\r\n") {
            self.replies += 1;
        }
        let body = reply.iter().position(|&byte| byte == b'\n').map(|end| &reply[end + 1..]);
        let Some(number) = body.filter(|_| reply[0] == b'$').and_then(|body| body.strip_prefix(mark)) else { return };
        let number: u64 = std::str::from_utf8(number).expect("as it was asked").trim_end().parse().expect("a number");
        // Those before it were asked not to be answered (CLIENT REPLY), or in a transaction.
        while self.marks.pop_front().expect("a reply that was not asked for, or comes late") != number {}
    }
}

impl Port for Watched {
    fn to_app(&mut self, session: SessionId, bytes: &[u8]) -> Taken {
        let taken = self.takes(bytes.len());
        if let Taken::Some(n) | Taken::Full(n) = taken {
            let app = &mut self.apps[session as usize];
            app.rest.extend_from_slice(&bytes[..n]);
            while let Skim::Reply(length) = skim(&app.rest, &mut ReplyResume::default()).expect("an app got no reply") {
                let reply: Vec<u8> = app.rest.drain(..length).collect();
                app.hears(&reply, &self.mark);
            }
        }
        taken
    }

    fn to_shard(&mut self, line: LineId, bytes: &[u8]) -> Taken {
        let taken = self.takes(bytes.len());
        if let Taken::Some(n) | Taken::Full(n) = taken {
            let wire = self.wire(line);
            assert!(wire.open, "bytes for a connection that is not open");
            wire.sent.extend_from_slice(&bytes[..n]);
            loop {
                match scan(&wire.sent, &mut Resume::default(), &Limits::default()).expect("a shard got no request") {
                    Scan::Request(request) => {
                        let length = request.wire().len();
                        wire.sent.drain(..length);
                    }
                    Scan::Incomplete { .. } => break,
                    other => panic!("a shard got {other:?}"),
                }
            }
        }
        taken
    }

    fn wake(&mut self, _session: SessionId) {}

    fn open(&mut self, line: LineId) {
        self.wire(line).wanted = true;
    }

    fn give_up(&mut self, line: LineId) {
        self.wire(line).given_up = true;
    }
}

/// What the shell does for the engine's connections.
struct Shell {
    engine: Engine,
    port: Watched,
    now: u64,
}

impl Shell {
    const LOST: Failure = Failure { cause: Cause::Lost, reason: "reset" };

    fn is_own(&self, line: LineId) -> bool {
        self.engine.line(line).is_some_and(|line| matches!(line.owner, Owner::Free | Owner::Session(..)))
    }

    fn connects(&mut self, line: LineId) {
        let own = self.is_own(line);
        let wire = self.port.wire(line);
        // Connections beside the first ones are opened when they are wanted.
        if wire.open || (line >= LINES && !wire.wanted) {
            return;
        }
        if own && self.engine.is_given_up(line) {
            return self.fails(line);
        }
        wire.open = true;
        self.engine.opening(line);
        self.engine.connected(line, self.now);
    }

    fn fails(&mut self, line: LineId) {
        let own = self.is_own(line);
        let wire = self.port.wire(line);
        if line >= LINES && !wire.open && !wire.wanted {
            return;
        }
        *wire = Wire { wanted: !own, ..Wire::default() };
        if !(own && self.engine.is_given_up(line)) {
            self.engine.fail(line, Self::LOST, self.now, &mut self.port);
        }
        if own {
            self.engine.ended(line);
        }
    }

    fn receives(&mut self, line: LineId, piece: &[u8]) {
        let wire = self.port.wire(line);
        if !wire.open {
            return;
        }
        let mut bytes = std::mem::take(&mut wire.came);
        bytes.extend_from_slice(piece);
        match self.engine.receive(line, &bytes, self.now, &mut self.port) {
            Ok((consumed, need)) => {
                bytes.drain(..consumed);
                assert!(need > bytes.len());
                self.port.wire(line).came = bytes;
            }
            Err(_) => self.fails(line),
        }
    }

    /// Connections that the engine has given up and forgotten.
    fn lets_go(&mut self) {
        for line in 0..self.port.wires.len() as LineId {
            if self.port.wire(line).given_up && self.port.wire(line).open {
                *self.port.wire(line) = Wire::default();
                self.engine.ended(line);
            }
        }
    }

    fn levels(&mut self) -> [u64; 3] {
        let mut all = [0; 3];
        let mut number = 0;
        while let Some(counts) = self.engine.pool_counts(number) {
            let levels = [counts.client_connections, counts.requests_pending, counts.client_output_bytes];
            all.iter_mut().zip(levels).for_each(|(sum, level)| *sum += level.get());
            number += 1;
        }
        all
    }

    fn answered_at_most(&mut self) -> u64 {
        let requests = self.engine.requests();
        // What is no request at all is answered, too, once.
        let mut all = requests;
        let mut number = 0;
        while let Some(counts) = self.engine.pool_counts(number) {
            all += counts.errors[Cause::Protocol];
            number += 1;
        }
        all
    }
}

/// Connections of the pool from its start.
const LINES: LineId = 4;

/// The engine: apps and shards say what they like. Each request has one reply at most, in order; what is held is bounded by
/// what was said; nobody is left waiting, and nothing is left behind.
pub fn engines(data: &[u8]) {
    const SESSIONS: usize = 3;
    let whole = data;
    let Some((&kind, mut data)) = data.split_first() else { return };
    let mut config = pool(2, 2, kind & 1 == 1);
    config.bounds = Bounds { open: 1 + usize::from(kind >> 4), output: 1 << (4 + (kind >> 5)) };
    config.outbox = usize::from(kind) * 4;
    config.limits = LIMITS;
    config.timeout = Some(1000);
    if kind & 8 == 8 {
        config.long = 64;
    }
    if kind & 6 == 6 {
        let password = hotring::units::Secret::new("pw");
        config.users = std::sync::Arc::new(hotring::acl::Users::new(&[], Some(&password)).expect("a password"));
    }
    let most_out = SESSIONS as u64 * (config.bounds.output as u64 + 4 * whole.len() as u64 + (1 << 20));
    let most_queued = config.outbox + 2 * whole.len() + (1 << 16);
    let mut engine = Engine::new(1, 1);
    // Some of its keys live in other pools.
    let routed = kind & 6 == 2;
    if routed {
        let routes = [("b", "other"), ("k", "other"), ("z", "third")];
        config.routes = Routes::new(routes.map(|(start, to)| (start.as_bytes().into(), to.to_owned())).into());
    }
    let (outbox, long) = (config.outbox, config.long);
    engine.add_pool(config);
    for (name, shards) in [("other", 2), ("third", 1)].into_iter().filter(|_| routed) {
        let name = name.to_owned();
        engine.add_pool(PoolConfig { name, outbox, long, timeout: Some(1000), ..pool(shards, 1, kind & 8 == 8) });
    }
    // No input can hold the mark that is made of it.
    let mark =
        whole.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mark = format!("mark-{mark:016x}-").into_bytes();
    let apps = std::iter::repeat_with(App::default).take(SESSIONS).collect();
    let port = Watched { moods: VecDeque::new(), apps, wires: Vec::new(), mark };
    let mut sessions: Vec<(SessionId, Vec<u8>)> = (0..SESSIONS).map(|_| (engine.open(0), Vec::new())).collect();
    let mut shell = Shell { engine, port, now: 0 };
    let mut number = 0;
    while let [step, length, rest @ ..] = data {
        let (piece, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        data = rest;
        let line = LineId::from(step >> 4) % shell.engine.line_count();
        let (id, tail) = &mut sessions[usize::from(step >> 4) % SESSIONS];
        shell.now += u64::from(*length);
        match step & 15 {
            0..=4 if !shell.engine.is_paused(*id) && !shell.engine.is_over(*id) => {
                if step & 15 == 4 && tail.is_empty() && length & 1 == 1 {
                    number += 1;
                    let marked = [&shell.port.mark[..], number.to_string().as_bytes()].concat();
                    hotring::resp::write::request(tail, &[b"ECHO", &marked]);
                    shell.port.apps[*id as usize].marks.push_back(number);
                }
                tail.extend_from_slice(piece);
                let before = shell.answered_at_most();
                let done = shell.engine.submit(*id, tail, shell.now, &mut shell.port);
                tail.drain(..done.consumed);
                if let Then::Read { need } = done.then {
                    assert!(need > tail.len());
                }
                shell.port.apps[*id as usize].asked += shell.answered_at_most() - before;
            }
            5..=7 => shell.receives(line, piece),
            8 | 9 => shell.engine.flush(&mut shell.port),
            10 => {
                shell.connects(line);
                if shell.port.wire(line).open {
                    shell.engine.shard_writable(line);
                }
            }
            11 if length & 1 == 1 => {
                let before = shell.levels();
                assert_eq!(shell.engine.mend(&mut shell.port), 0, "somebody waits in vain");
                assert_eq!(shell.levels(), before);
            }
            11 => shell.engine.app_writable(*id),
            12 => shell.fails(line),
            13 => {
                shell.engine.close(*id, length & 1 == 0, &mut shell.port);
                tail.clear();
                *id = shell.engine.open(0);
                shell.port.apps[*id as usize] = App::default();
            }
            14 => {
                let overdue = shell.engine.tick(shell.now, &mut shell.port);
                overdue.iter().for_each(|&(line, _)| shell.fails(line));
            }
            15 if length & 1 == 0 => {
                shell.engine.finish(*id);
            }
            15 => shell.port.moods.extend(piece),
            _ => {}
        }
        shell.lets_go();
        let asked = shell.answered_at_most();
        let replies = shell.engine.pool_counts(0).expect("the pool").replies;
        // What is split over pools has a part in this one.
        assert!(routed || replies <= asked, "{replies} replies to {asked} requests");
        for app in &shell.port.apps {
            assert!(app.replies <= app.asked, "an app got {} replies to {} requests", app.replies, app.asked);
        }
        let out = shell.levels()[2];
        assert!(out <= most_out, "{out} bytes wait for apps");
        for line in 0..shell.engine.line_count() {
            let queued = shell.engine.line(line).map_or(0, |line| line.queued());
            assert!(queued <= most_queued, "{queued} bytes wait for a shard");
        }
        let spare = shell.engine.holdings().spare_bytes;
        assert!(spare <= 16 << 20, "{spare} bytes are kept for later");
    }
    // What was asked for is flushed some time, and wants its connection then.
    shell.port.moods.clear();
    shell.engine.flush(&mut shell.port);
    (0..shell.engine.line_count()).for_each(|line| shell.fails(line));
    assert_eq!(shell.engine.mend(&mut shell.port), 0, "somebody waits in vain");
    sessions.iter().for_each(|(id, _)| shell.engine.close(*id, false, &mut shell.port));
    shell.engine.flush(&mut shell.port);
    shell.lets_go();
    (0..shell.engine.line_count()).for_each(|line| shell.fails(line));
    let (engine, held) = (&shell.engine, shell.engine.holdings());
    assert_eq!((engine.in_flight(), engine.session_count(), held.gathers, held.attempts, held.joined), (0, 0, 0, 0, 0));
    assert_eq!((shell.levels(), shell.engine.branch_count()), ([0; 3], 0));
}
