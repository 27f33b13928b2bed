//! The embedded node against a real redis-server 7.0: the same commands, the same reply bytes.
//!
//! Replies that have no order (`KEYS`, a large hash) are compared sorted, times to live with a tolerance for the
//! milliseconds between the two. Where there is no redis-server, or one of another version, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hotring::embedded::{Config, Connection, Node};

type Args = Vec<Vec<u8>>;

/// A redis-server of the test's own, on a Unix socket, gone when dropped.
struct Redis {
    process: Child,
    folder: PathBuf,
    connection: BufReader<UnixStream>,
}

impl Redis {
    /// `None`, and the reason on standard error, where there is none to be had.
    fn start() -> Option<Redis> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let skip = |reason: &str| {
            // Not the macro, whose output is kept back for tests that pass.
            let _ = writeln!(std::io::stderr(), "SKIPPED: not compared with a real Redis: {reason}");
        };
        let version = match Command::new("redis-server").arg("--version").output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => {
                skip(&format!("redis-server cannot be run: {error}"));
                return None;
            }
        };
        if !version.contains("v=7.0.") {
            skip(&format!("replies are those of Redis 7.0, this is {}", version.trim()));
            return None;
        }
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("hotring-embedded-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("redis.sock");
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = BufReader::new(process.stdout.as_mut().unwrap())
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("accept connections"));
        assert!(ready, "redis-server ended before it was ready");
        let connection = BufReader::new(UnixStream::connect(&socket).unwrap());
        let mut redis = Redis { process, folder, connection };
        // Keys go when they are asked for, not at a time of Redis' choosing.
        assert_eq!(redis.ask(&args("DEBUG SET-ACTIVE-EXPIRE 0")), b"+OK\r\n");
        Some(redis)
    }

    fn ask(&mut self, request: &Args) -> Vec<u8> {
        self.connection.get_mut().write_all(&encode(request)).unwrap();
        let mut reply = Vec::new();
        self.read_reply(&mut reply);
        reply
    }

    fn read_reply(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.connection.read_until(b'\n', reply).unwrap();
        let length = || String::from_utf8_lossy(&reply[start + 1..]).trim().parse::<i64>().unwrap();
        match reply[start] {
            b'$' | b'=' if length() >= 0 => {
                let end = reply.len();
                reply.resize(end + length() as usize + 2, 0);
                self.connection.read_exact(&mut reply[end..]).unwrap();
            }
            b'%' => (0..2 * length()).for_each(|_| self.read_reply(reply)),
            b'*' => (0..length()).for_each(|_| self.read_reply(reply)),
            _ => {}
        }
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.folder.join("redis.sock")).unwrap())
    }

    /// What a fresh connection is told before it is closed.
    fn last_words(&self, bytes: &[u8]) -> Vec<u8> {
        let mut connection = UnixStream::connect(self.folder.join("redis.sock")).unwrap();
        connection.write_all(bytes).unwrap();
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).unwrap();
        reply
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn args(line: &str) -> Args {
    line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect()
}

fn encode(request: &Args) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
    for arg in request {
        bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
        bytes.extend(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// A node and a connection to it.
struct Embedded {
    node: Node,
    connection: RefCell<Connection>,
}

impl Embedded {
    fn new(resp3: bool) -> Embedded {
        Embedded { node: Node::new(&Config::default()), connection: RefCell::new(Connection::new(resp3)) }
    }

    /// Asks on another connection.
    fn ask_by(&self, connection: &mut Connection, bytes: &[u8]) -> Vec<u8> {
        let mut reply = Vec::new();
        assert_eq!(self.node.serve(connection, bytes, now_ms(), &mut reply), bytes.len());
        reply
    }
}

fn serve(node: &Embedded, request: &Args) -> Vec<u8> {
    node.ask_by(&mut node.connection.borrow_mut(), &encode(request))
}

/// The bulk strings of a reply, those within arrays included.
fn bulks(mut reply: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some(end) = reply.iter().position(|&byte| byte == b'\n') {
        let (header, rest) = reply.split_at(end + 1);
        reply = rest;
        if header[0] == b'$' {
            let length = String::from_utf8_lossy(&header[1..]).trim().parse::<usize>().unwrap_or(0);
            if !header.starts_with(b"$-") {
                found.push(rest[..length].to_vec());
                reply = &rest[length + 2..];
            }
        }
    }
    found
}

fn number(reply: &[u8]) -> Option<i64> {
    std::str::from_utf8(reply.strip_prefix(b":")?).ok()?.trim().parse().ok()
}

/// Whether two replies are the same, as far as Redis promises them to be.
fn same(redis: &mut Redis, request: &Args, theirs: &[u8], ours: &[u8]) -> bool {
    if theirs == ours {
        return true;
    }
    let group = match request[0].to_ascii_lowercase().as_slice() {
        b"keys" | b"scan" => 1,
        // Large hashes may be among what is told.
        b"exec" => {
            let sorted = |reply: &[u8]| {
                let mut lines: Args = reply.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
                lines.sort();
                lines
            };
            return sorted(theirs) == sorted(ours);
        }
        // Small hashes do have an order.
        name @ (b"hkeys" | b"hvals" | b"hgetall" | b"hscan" | b"hrandfield") => {
            let encoding = redis.ask(&vec![b"OBJECT".to_vec(), b"ENCODING".to_vec(), request[1].clone()]);
            if bulks(&encoding) != [b"hashtable"] {
                return false;
            }
            let pairs = matches!(name, b"hgetall" | b"hscan") || (name == b"hrandfield" && request.len() == 4);
            if pairs { 2 } else { 1 }
        }
        name @ (b"ttl" | b"pttl" | b"expiretime" | b"pexpiretime") => {
            let tolerance = if name.starts_with(b"p") { 3_000 } else { 3 };
            return match (number(theirs), number(ours)) {
                (Some(theirs), Some(ours)) => theirs > 0 && ours > 0 && theirs.abs_diff(ours) <= tolerance,
                _ => false,
            };
        }
        _ => return false,
    };
    let sorted = |reply: &[u8]| {
        let bulks = bulks(reply);
        // The cursor in front of a scan's elements stays in front.
        let cursor = bulks.len() % 2 * (group - 1);
        let mut groups: Vec<Args> = bulks[cursor..].chunks(group).map(<[Vec<u8>]>::to_vec).collect();
        groups.sort();
        (reply.len(), bulks[..cursor].to_vec(), groups)
    };
    sorted(theirs) == sorted(ours)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// Commands as they are meant to be used; a capital letter stands for a random argument of its kind (see `fill_in`).
#[rustfmt::skip]
const TEMPLATES: &[&str] = &[
    "get K", "get K", "set K V", "set K V", "set K N", "set K X", "set K V O", "set K V O O", "set K V O O O", "setnx K V",
    "setex K L V", "psetex K M V", "getset K V", "getdel K", "getex K", "getex K O", "getex K O O", "mget K K K", "mget K",
    "mset K V K V", "mset K V", "msetnx K V K V", "append K V", "strlen K", "getrange K N N", "substr K I I",
    "getrange K I I", "setrange K I V", "setrange K I V", "incr K", "decr K", "incrby K N", "decrby K N", "incrby K I",
    "incrbyfloat K X", "incrbyfloat K X", "incrbyfloat K X", "setbit K I B", "setbit K N B", "getbit K I", "getbit K N",
    "bitcount K", "bitcount K I I", "bitcount K I I U", "bitcount K I I U", "bitcount K N", "hset H F V", "hset H F V",
    "hset H F N F X", "hset H F N F V F V", "hmset H F V F V", "hsetnx H F V", "hget H F", "hget H F", "hmget H F F F",
    "hgetall H", "hgetall H", "hdel H F", "hdel H F F F", "hlen H", "hexists H F", "hkeys H", "hvals H", "hstrlen H F",
    "hincrby H F N", "hincrby H F I", "hincrbyfloat H F X", "hincrbyfloat H F X", "hscan H C", "hscan H C match P", "hscan H 0 count Q",
    "hscan H 0 count 10000", "hscan H 0 count 10000 match P", "hscan H 0 count Q match", "hscan H 0 type hash",
    "hrandfield S", "hrandfield H 0", "hrandfield H 9999", "hrandfield H 9999 withvalues", "hrandfield S N withvalues",
    "del A", "del K K", "unlink K H", "exists A A A", "touch A A", "type A", "type A", "ttl A", "pttl A", "expiretime A",
    "pexpiretime A", "persist A", "expire A L", "expire A L E", "pexpire A M", "pexpire A M E", "expireat A D",
    "expireat A D G", "pexpireat A T", "pexpireat A T G", "pexpireat A T G G", "rename A A", "renamenx A A", "copy A A",
    "copy A A replace", "copy A A db 0", "copy A A db Z", "copy A A db 0 replace", "object encoding A",
    "object encoding A", "object foo A", "keys P", "keys *", "dbsize", "scan 0 count 10000",
    "scan 0 match P count 10000", "scan 0 count 10000 type Y", "scan 0 type Y count 10000 match P", "scan C", "scan 0 count Q", "ping",
    "ping V", "echo V", "select 0", "select Z", "flushall Z Z", "flushdb V",
];

/// Keys of strings, mostly, and of hashes, mostly.
const STRINGS: &[&[u8]] = &[b"s1", b"s2", b"s3", b"s4", b"s5", b"", b"\xff\r\n\0s"];
const HASHES: &[&[u8]] = &[b"h1", b"h2", b"h3", b"h[4]", b"h5"];

#[rustfmt::skip]
const NUMBERS: &[&str] = &[
    "0", "1", "-1", "10", "7", "123456", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
    "9223372036854775806", "-9223372036854775807", "4294967296", "-5", "01", "+1", "", " 1", "1 ", "1.0", "-0", "x",
];
#[rustfmt::skip]
const FLOATS: &[&str] = &[
    "0", "1", "-1", "0.1", "10.5", "3.0e3", "-0.0", "1e20", "-1e-17", "5e-18", "123456789.123456789", "1e17", "0.3", ".5",
    "5.", "1e-30", "1e4932", "-1e4932", "1e4933", "1e-4951", "1e-5000", "inf", "-inf", "nan", "infinity", "0x1p4", "0x.8",
    "0x", "1e", "", " 1", "1 ", "+2.5", "18446744073709551615", "18446744073709551616", "0.1234567890123456789", "2.0",
    "99999999999999999999999999", "-3.14159265358979323846", "1.5e300", "x", "1_0", "12345.678e-3", "1e1e1",
];

/// A random argument of the kind a template's capital letter stands for; `O` may be two.
fn fill_in(random: &mut Random, kind: &str) -> Args {
    let seconds =
        ["100", "100000", "0", "-1", "9223372036854775807", "9223372036854775", "9223372036854776", "x", "1.5"];
    let millis = ["100000", "99999999", "0", "-100", "9223372036854775807", "9223372036854775806", "y", ""];
    let dates = ["4000000000", "4000000001", "5000000000", "1", "-1", "9223372036854775807", "z", "9223372036854775"];
    let instants = ["4000000000499", "4000000000500", "5000000000000", "1", "0", "-9223372036854775808", "q"];
    let kind = match kind {
        "A" => random.one(&["K", "H"]),
        "K" if random.below(20) == 0 => "H",
        "H" if random.below(20) == 0 => "K",
        kind => kind,
    };
    let text: &str = match kind {
        "K" => return vec![random.one(STRINGS).to_vec()],
        "H" => return vec![random.one(HASHES).to_vec()],
        // Never there: what is picked from a hash is random.
        "S" => "none",
        "V" => match random.below(8) {
            0 => random.one(NUMBERS),
            1 => random.one(FLOATS),
            2 => return vec![vec![b'x'; random.below(100)]],
            3 => return vec![vec![b'y'; 40 + random.below(30)]],
            4 => return vec![(0..random.below(20)).map(|_| random.below(256) as u8).collect()],
            _ => random.one(&["a", "hello", "", "12345678901234567890", "value"]),
        },
        "F" => match random.below(30) {
            0 => return vec![vec![b'f'; 60 + random.below(10)]],
            1..4 => return vec![format!("field{}", random.below(400)).into_bytes()],
            _ => random.one(&["f1", "f2", "f3", "f4", "", "1", "12"]),
        },
        "N" => random.one(NUMBERS),
        "X" => random.one(FLOATS),
        "I" => random.one(&["0", "1", "-1", "2", "5", "-3", "-100", "100", "7", "40", "8", "13", "z"]),
        "B" => random.one(&["0", "1", "0", "1", "2", "-1", "x"]),
        "U" => random.one(&["bit", "byte", "BIT", "Byte", "bits"]),
        "L" => random.one(&seconds),
        "M" => random.one(&millis),
        "D" => random.one(&dates),
        "T" => random.one(&instants),
        "E" => random.one(&["nx", "xx", "NX", "XX", "zz"]),
        "G" => random.one(&["nx", "xx", "gt", "lt", "GT", "LT", "g\0t"]),
        "C" => random.one(&["x", " 0", "18446744073709551616", "+", "-", "1x", "1 "]),
        "Q" => random.one(&["10000", "0", "-1", "x", "", "9223372036854775808"]),
        "P" => {
            random.one(&["*", "s*", "h[1-3]", "*1", "?1", "[^s]*", "h\\[4\\]", "f?", "*f*1*", "field[0-9]*", "", "["])
        }
        "Y" => random.one(&["string", "hash", "HASH", "list", "nonsense"]),
        "Z" => random.one(&["-1", "x", "16", "", "99999999999", "9223372036854775808", "sync"]),
        "O" => {
            let (option, number) = match random.below(9) {
                0 => ("ex", random.one(&seconds)),
                1 => ("PX", random.one(&millis)),
                2 => ("EXAT", random.one(&dates)),
                3 => ("pxat", random.one(&instants)),
                _ => (random.one(&["nx", "XX", "get", "keepttl", "persist", "Get", "ex", "junk"]), ""),
            };
            let both = [option, number];
            return both[..if number.is_empty() { 1 } else { 2 }].iter().map(|text| text.as_bytes().to_vec()).collect();
        }
        literal => literal,
    };
    vec![text.as_bytes().to_vec()]
}

fn command(random: &mut Random) -> Args {
    let template = random.one(TEMPLATES);
    let mut command: Args = template.split(' ').flat_map(|kind| fill_in(random, kind)).collect();
    match random.below(60) {
        // Without a count it is random.
        0 if command[0] != b"hrandfield" => drop(command.pop()),
        1 => command.push(random.one(&["nx", "1", "", "junk\r\n"]).as_bytes().to_vec()),
        2 => command[0].make_ascii_uppercase(),
        3 if command[0].starts_with(b"h") => {
            // A hash that outgrows its compact form.
            command = [&b"hset"[..], random.one(HASHES)].map(<[u8]>::to_vec).to_vec();
            let pairs = 505 + random.below(15);
            command.extend((0..2 * pairs).map(|at| format!("field{at}").into_bytes()));
        }
        4 => command = vec![b"flushall".to_vec()],
        _ => {}
    }
    if command.is_empty() { args("ping") } else { command }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().chars().take(400).collect()
}

/// Asks both and fails unless they agree; the reply.
fn compare(redis: &mut Redis, node: &Embedded, request: &Args, context: &str) -> Vec<u8> {
    let (theirs, ours) = (redis.ask(request), serve(node, request));
    assert!(
        same(redis, request, &theirs, &ours),
        "{context}: {}\n redis: {}\n ours:  {}",
        request.iter().map(|arg| show(arg)).collect::<Vec<_>>().join(" | "),
        show(&theirs),
        show(&ours),
    );
    theirs
}

#[test]
fn random_commands_get_the_same_replies() {
    let Some(mut redis) = Redis::start() else { return };
    let (mut errors, mut values, mut nothings) = (0, 0, 0);
    for seed in 1..=6_u64 {
        // Both protocols, in turn.
        let resp3 = seed % 2 == 0;
        let node = Embedded::new(resp3);
        redis.ask(&args(if resp3 { "hello 3" } else { "hello 2" }));
        redis.ask(&args("flushall"));
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for turn in 0..6_000 {
            let command = command(&mut random);
            let reply = compare(&mut redis, &node, &command, &format!("seed {seed}, command {turn}"));
            errors += usize::from(reply[0] == b'-');
            values += usize::from(reply[0] == b'$' && !reply.starts_with(b"$-1"));
            nothings += usize::from(reply == b"_\r\n");
            if turn % 500 == 499 {
                compare_all(&mut redis, &node, &format!("seed {seed}, after command {turn}"));
            }
        }
    }
    // Neither all refused nor all misses.
    assert!(
        errors > 2_000 && values > 2_000 && nothings > 200,
        "{errors} errors, {values} values, {nothings} times nothing in RESP3"
    );
}

#[test]
fn transactions_are_carried_out_alike() {
    let Some(mut redis) = Redis::start() else { return };
    let mut theirs = redis.connect();
    let (mut executed, mut changed, mut aborted, mut resp3) = (0, 0, 0, false);
    let node = Embedded::new(resp3);
    let mut ours = Connection::default();
    let (mut random, mut history) = (Random(77), String::new());
    for turn in 0..12_000 {
        if turn % 3_000 == 2_999 {
            resp3 = !resp3;
            redis.ask(&args("discard"));
            redis.ask(&args("unwatch"));
            redis.ask(&args(if resp3 { "hello 3" } else { "hello 2" }));
            *node.connection.borrow_mut() = Connection::new(resp3);
        }
        let by_other = random.below(6) == 0;
        let text = match random.below(12) {
            0 | 1 => "multi",
            2 | 3 => "exec",
            4 if !by_other => random.one(&["watch s1", "watch s1 s2 h1", "watch none", "watch s3 s3"]),
            5 if random.below(3) == 0 => random.one(&["unwatch", "discard", "unwatch", "get", "nonsense", "exec 1"]),
            _ => "",
        };
        let command = if text.is_empty() { command(&mut random) } else { args(text) };
        // Times to live that are a millisecond apart cannot be told from others within the reply to EXEC, and a shortened
        // HSCAN ends elsewhere.
        let random_reply: [&[u8]; 5] = [b"ttl", b"pttl", b"expiretime", b"pexpiretime", b"hscan"];
        if random_reply.contains(&command[0].to_ascii_lowercase().as_slice()) {
            continue;
        }
        // What has happened since the last EXEC, for a failure.
        history += &format!(" / {}{}", if by_other { "OTHER " } else { "" }, show(&command.join(&b' ')));
        let context = format!("turn {turn}, RESP3 {resp3}:{history}");
        if by_other {
            std::mem::swap(&mut redis.connection, &mut theirs);
            std::mem::swap(&mut *node.connection.borrow_mut(), &mut ours);
        }
        let reply = compare(&mut redis, &node, &command, &context);
        if by_other {
            std::mem::swap(&mut redis.connection, &mut theirs);
            std::mem::swap(&mut *node.connection.borrow_mut(), &mut ours);
        }
        if command[0] == b"exec" {
            history.clear();
            executed += usize::from(reply.starts_with(b"*") && reply.len() > 8);
            changed += usize::from(reply == b"*-1\r\n" || reply == b"_\r\n");
            aborted += usize::from(reply.starts_with(b"-EXECABORT"));
        }
    }
    assert!(
        executed > 100 && changed > 20 && aborted > 20,
        "{executed} executed, {changed} changed, {aborted} aborted"
    );
}

/// Compares every key's value, time to live and encoding.
fn compare_all(redis: &mut Redis, node: &Embedded, context: &str) {
    for key in bulks(&compare(redis, node, &args("keys *"), context)) {
        for line in ["type", "object encoding", "pexpiretime", "get", "hgetall", "strlen", "hlen"] {
            let mut request = args(line);
            request.push(key.clone());
            compare(redis, node, &request, context);
        }
    }
}

#[test]
fn sums_of_floats_are_the_same_to_the_last_digit() {
    let Some(mut redis) = Redis::start() else { return };
    let node = Embedded::new(false);
    let mut random = Random(11);
    for turn in 0..4_000 {
        let mut float = || {
            let digits = |random: &mut Random, most| -> String {
                (0..random.below(most)).map(|_| char::from(b'0' + random.below(10) as u8)).collect()
            };
            let sign = random.one(&["", "-"]);
            let (whole, decimals) = (digits(&mut random, 22), digits(&mut random, 22));
            let exponent = match random.below(4) {
                0 => format!("e{}", random.below(60) as i32 - 30),
                1 if turn % 10 == 0 => format!("e{}", random.below(10_000) as i32 - 5_000),
                _ => String::new(),
            };
            format!("{sign}{whole}.{decimals}{exponent}")
        };
        let (one, two) = (float(), float());
        let context = format!("turn {turn}");
        compare(&mut redis, &node, &args(&format!("set f {one}")), &context);
        compare(&mut redis, &node, &args(&format!("incrbyfloat f {two}")), &context);
        compare(&mut redis, &node, &args(&format!("hset h f {two}")), &context);
        compare(&mut redis, &node, &args(&format!("hincrbyfloat h f {one}")), &context);
    }
}

#[test]
fn every_command_of_redis_is_had_or_named_and_wrong_numbers_of_arguments_are_refused_alike() {
    let Some(mut redis) = Redis::start() else { return };
    let node = Embedded::new(false);
    let names = bulks(&redis.ask(&args("COMMAND LIST")));
    let names: Vec<_> = names.into_iter().filter(|name| !name.contains(&b'|')).collect();
    assert!(names.len() > 200);
    let mut had = 0;
    for name in names {
        let ours = serve(&node, &vec![name.clone()]);
        assert!(!ours.starts_with(b"-ERR unknown command"), "{}", show(&name));
        if String::from_utf8_lossy(&ours).contains("the embedded node does not have") {
            continue;
        }
        had += 1;
        for count in 0..7 {
            let mut request = vec![name.clone()];
            request.extend(vec![b"1".to_vec(); count]);
            let (theirs, ours) = (redis.ask(&request), serve(&node, &request));
            let refused = |reply: &[u8]| reply.starts_with(b"-ERR wrong number of arguments");
            if refused(&theirs) || refused(&ours) {
                assert_eq!(show(&theirs), show(&ours), "{} with {count} arguments", show(&name));
            }
        }
    }
    assert!(had > 60, "{had}");
}

#[test]
fn unknown_commands_are_quoted_alike() {
    let Some(mut redis) = Redis::start() else { return };
    let node = Embedded::new(false);
    let long = |length: usize| vec![b'z'; length];
    for request in [
        args("foo"),
        args("FoO bar baz"),
        vec![b"".to_vec()],
        vec![b"a\r\nb".to_vec(), b"c\r\nd".to_vec()],
        vec![b"nul\0l".to_vec(), b"n\0ul".to_vec(), b"more".to_vec()],
        vec![long(300), long(300), long(3)],
        vec![b"foo".to_vec(), long(100), long(100), long(3)],
        vec![b"foo".to_vec(), long(125), long(3), long(3)],
        vec![b"foo".to_vec(), long(128), long(3)],
        vec![b"caf\xc3\xa9".to_vec(), b"\xff\xfe".to_vec()],
        vec![b"object".to_vec(), long(300), b"a".to_vec()],
        args("object encoding"),
        args("object"),
    ] {
        compare(&mut redis, &node, &request, "unknown");
    }
}

#[test]
fn scans_go_through_everything() {
    let Some(mut redis) = Redis::start() else { return };
    let node = Embedded::new(false);
    for key in 0..500 {
        compare(&mut redis, &node, &args(&format!("set key:{key} {key}")), "scan");
        compare(&mut redis, &node, &args(&format!("hset hash field:{key} {key}")), "scan");
    }
    for (start, rest) in
        [("scan", ""), ("scan", "match *7* count 30"), ("scan", "type hash"), ("hscan hash", "count 13")]
    {
        let walk = |ask: &mut dyn FnMut(&Args) -> Vec<u8>| {
            let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
            loop {
                let page = bulks(&ask(&args(format!("{start} {cursor} {rest}").trim_end())));
                cursor = String::from_utf8(page[0].clone()).unwrap();
                found.extend_from_slice(&page[1..]);
                if cursor == "0" {
                    found.sort();
                    return found;
                }
            }
        };
        let (theirs, ours) = (walk(&mut |request| redis.ask(request)), walk(&mut |request| serve(&node, request)));
        assert!(!theirs.is_empty());
        assert_eq!(theirs, ours, "{start} {rest}");
    }
}

#[test]
fn protocol_errors_are_the_same() {
    let Some(redis) = Redis::start() else { return };
    let node = Embedded::new(false);
    for bytes in [
        &b"*x\r\n"[..],
        b"*\r\n",
        b"*2147483648\r\n",
        b"*1\r\nx\r\n",
        b"*2\r\n$4\r\nPING\r\n:1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$4\r\nPING\r\n*0\r\n*-5\r\n*1\r\n$4\r\nPING\r\n*z\r\n",
    ] {
        let ours = node.ask_by(&mut Connection::default(), bytes);
        assert_eq!(show(&redis.last_words(bytes)), show(&ours), "{}", show(bytes));
    }
}
