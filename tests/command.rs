//! The command table against a real server: what COMMAND says of each command, what COMMAND GETKEYS says of each
//! request, and the words of errors.
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use hotring::command::{self, Keys, Spec, Treatment};
use hotring::resp::Request;
use hotring::resp::control::{self, Control};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The server whose answers the lists below were made for. With another, only what cannot differ is compared.
const VERSION: &str = "7.0.";

/// Commands that the table has as later servers have them, and what differs.
const CHANGED_LATER: &[(&str, &str)] = &[
    ("blmove", "noscript went in 7.2"),
    ("blpop", "noscript went in 7.2"),
    ("brpop", "noscript went in 7.2"),
    ("brpoplpush", "noscript went in 7.2"),
    ("bzpopmax", "noscript went in 7.2"),
    ("bzpopmin", "noscript went in 7.2"),
    ("wait", "blocking instead of noscript since 7.2"),
    ("zrank", "WITHSCORE since 7.2"),
    ("zrevrank", "WITHSCORE since 7.2"),
    ("command|getkeys", "commands without arguments since 7.2"),
    ("command|getkeysandflags", "commands without arguments since 7.2"),
];

/// Commands that later servers have.
const ADDED_LATER: &[&str] = &[
    // Redis 7.2, 7.4, 8
    "waitaof client|no-touch client|setinfo cluster|myshardid",
    "hexpire hexpireat hexpiretime hpersist hpexpire hpexpireat hpexpiretime hpttl httl",
    "hgetdel hgetex hsetex xackdel xdelex delex digest",
    // Valkey 8, 8.1, 9
    "client|capa client|import-source cluster|slot-stats script|show delifeq",
    "commandlog commandlog|get commandlog|help commandlog|len commandlog|reset",
    // Never: it is hotring's own
    "hotring hotring|help hotring|hotkeys",
];

/// Commands whose channels are keys to hotring, and not to GETKEYS.
const CHANNELS: &[&str] = &["spublish", "ssubscribe", "sunsubscribe"];

/// A server of the test's own, on a unix socket, gone with it.
struct Server {
    process: Child,
    stream: UnixStream,
    directory: std::path::PathBuf,
    unread: Vec<u8>,
}

impl Server {
    /// `None`, with a word why, where there is no redis-server.
    fn start() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("hotring-command-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let socket = directory.join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.arg("--dir").arg(&directory).stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                eprintln!("SKIPPED: redis-server cannot be started here: {error}");
                let _ = std::fs::remove_dir_all(&directory);
                return None;
            }
        };
        let mut log = BufReader::new(process.stdout.take().expect("its log")).lines();
        let ready = log.any(|line| line.is_ok_and(|line| line.contains("ready to accept connections")));
        assert!(ready, "redis-server did not come up");
        // It goes on logging; nobody reading would stop it in the end.
        std::thread::spawn(move || log.for_each(drop));
        let stream = UnixStream::connect(&socket).expect("the server's socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Some(Server { process, stream, directory, unread: Vec::new() })
    }

    fn read(&mut self) -> Control {
        loop {
            if let Some((reply, used)) = control::parse(&self.unread).expect("a reply") {
                self.unread.drain(..used);
                return reply;
            }
            let mut buffer = [0; 1 << 16];
            let read = match self.stream.read(&mut buffer) {
                // The process was stopped and continued.
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.expect("a reply in time"),
            };
            assert!(read > 0, "the server hung up");
            self.unread.extend(&buffer[..read]);
        }
    }

    fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Control {
        self.stream.write_all(&wire(args)).expect("a request sent");
        self.read()
    }

    /// All requests at once, so many at a time that neither side's buffer fills up.
    fn ask_all(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<Control> {
        let mut replies = Vec::new();
        for batch in requests.chunks(100) {
            let bytes: Vec<u8> = batch.iter().flat_map(|args| wire(args)).collect();
            self.stream.write_all(&bytes).expect("requests sent");
            replies.extend(batch.iter().map(|_| self.read()));
        }
        replies
    }

    fn is_expected_version(&mut self) -> bool {
        let Control::Bulk(info) = self.ask(&["INFO", "server"]) else { panic!("no INFO") };
        let info = String::from_utf8_lossy(&info).into_owned();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
        let expected = version.starts_with(VERSION);
        if !expected {
            eprintln!("SKIPPED in part: the server is {version}, the lists are for {VERSION}x");
        }
        expected
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn wire<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut wire = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        wire.extend(format!("${}\r\n", arg.as_ref().len()).into_bytes());
        wire.extend(arg.as_ref());
        wire.extend(b"\r\n");
    }
    wire
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| if word == "''" { Vec::new() } else { word.as_bytes().to_vec() }).collect()
}

fn show(args: &[Vec<u8>]) -> String {
    args.iter().map(|arg| format!("{:?} ", String::from_utf8_lossy(arg))).collect()
}

/// Every command and subcommand of the table.
fn leaves() -> impl Iterator<Item = &'static Spec> {
    command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
}

/// The first seven elements of what COMMAND INFO says, of a command and of its subcommands, by name.
fn flatten(description: &Control, into: &mut BTreeMap<String, String>) {
    let Control::Array(parts) = description else { panic!("not a description: {description:?}") };
    let Control::Bulk(name) = &parts[0] else { panic!("no name: {description:?}") };
    into.insert(String::from_utf8_lossy(name).into_owned(), format!("{:?}", &parts[1..7]));
    if let Control::Array(subcommands) = &parts[9] {
        subcommands.iter().for_each(|sub| flatten(sub, into));
    }
}

#[test]
fn the_table_says_what_the_server_says() {
    let Some(mut server) = Server::start() else { return };
    let Control::Array(descriptions) = server.ask(&["COMMAND"]) else { panic!("no COMMAND") };
    let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
    descriptions.iter().for_each(|description| flatten(description, &mut theirs));
    command::all().for_each(|spec| {
        let mut wire = Vec::new();
        control::encode(&command::describe(spec), &mut wire);
        flatten(&control::decode(&wire).expect("a whole reply").0, &mut ours);
    });

    let missing: Vec<_> = theirs.keys().filter(|name| !ours.contains_key(*name)).collect();
    assert!(missing.is_empty(), "commands of the server that are not in the table: {missing:?}");
    if !server.is_expected_version() {
        return;
    }
    let added: BTreeSet<_> = ADDED_LATER.iter().flat_map(|names| names.split(' ')).map(str::to_owned).collect();
    let more: BTreeSet<_> = ours.keys().filter(|name| !theirs.contains_key(*name)).cloned().collect();
    assert_eq!(more, added, "commands of the table that are not the server's");
    let mut wrong = Vec::new();
    for (name, said) in &theirs {
        let listed = CHANGED_LATER.iter().any(|(changed, _)| changed == name);
        if (ours[name] == *said) == listed {
            wrong.push(format!("{name}{}\n  {}\n  {said}", if listed { " (listed)" } else { "" }, ours[name]));
        }
    }
    assert!(wrong.is_empty(), "ours and the server's:\n{}", wrong.join("\n"));
}

/// A random generator (xorshift64*), the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Words that commands look for, where keys and values are expected too.
const TOKENS: &[&str] = &[
    "a",
    "b",
    "k1",
    "{t}k",
    "store",
    "STORE",
    "by",
    "get",
    "#",
    "limit",
    "Count",
    "streams",
    "STREAMS",
    "group",
    "block",
    "noack",
    "keys",
    "KEYS",
    "auth",
    "auth2",
    "copy",
    "db",
    "replace",
    "storedist",
    "alpha",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "x",
    "w_*",
    "",
];

fn random_request(spec: &Spec, chance: &mut Chance) -> Vec<Vec<u8>> {
    let mut args: Vec<String> = spec.name.split('|').map(str::to_owned).collect();
    let least = usize::from(spec.arity.unsigned_abs());
    let length = if spec.arity < 0 { least + chance.below(7) } else { least };
    while args.len() < length {
        args.push(chance.pick(TOKENS).to_owned());
    }
    match spec.keys {
        Keys::Counted(counted) if chance.below(8) > 0 => {
            args[usize::from(counted.at)] = chance.below(5).to_string();
        }
        Keys::Streams { group } if chance.below(8) > 0 => {
            args.truncate(1);
            if group && chance.below(8) > 0 {
                args.extend(["GROUP", chance.pick(TOKENS), chance.pick(TOKENS)].map(str::to_owned));
            }
            for _ in 0..chance.below(3) {
                match chance.below(3) {
                    0 => args.extend(["count", "2"].map(str::to_owned)),
                    1 => args.extend(["Block", "1"].map(str::to_owned)),
                    _ if group => args.push("NOACK".to_owned()),
                    _ => {}
                }
            }
            args.push("STREAMS".to_owned());
            let streams = 1 + chance.below(3);
            args.extend((0..streams).map(|_| chance.pick(TOKENS).to_owned()));
            args.extend((0..streams).map(|_| "0".to_owned()));
        }
        Keys::Movable(_) if spec.name.starts_with("sort") => {
            let options = ["store", "BY", "get", "LIMIT", "a", "b"];
            args.extend((0..chance.below(6)).map(|_| chance.pick(&options).to_owned()));
        }
        Keys::Movable(_) if spec.name == "migrate" && chance.below(2) == 0 => args[3].clear(),
        _ => {}
    }
    args.into_iter().map(String::into_bytes).collect()
}

/// Whether GETKEYS and the command itself disagree on such a request, in which case the table follows the command.
fn getkeys_is_wrong(args: &[Vec<u8>]) -> bool {
    let name = args[0].as_slice();
    if name == b"pfmerge" {
        // It wants a source; the command does not.
        return args.len() == 2;
    }
    if name == b"sort" {
        // It takes a destination named like an option for that option.
        let option =
            |arg: &[u8]| ["store", "by", "get", "limit"].iter().any(|o| arg.eq_ignore_ascii_case(o.as_bytes()));
        return args.windows(2).any(|pair| pair[0].eq_ignore_ascii_case(b"store") && option(&pair[1]));
    }
    let is_keys = |arg: &Vec<u8>| arg.eq_ignore_ascii_case(b"keys");
    if name == b"migrate" {
        // It looks for KEYS among the arguments that are not options too, and from the end.
        let last = args.last().is_some_and(is_keys);
        return last || args[..6].iter().any(is_keys) || args.iter().filter(|arg| is_keys(arg)).count() > 1;
    }
    if name != b"georadius" && name != b"georadiusbymember" {
        return false;
    }
    // It tells every destination; the command writes to the last.
    let destination = |arg: &&Vec<u8>| arg.eq_ignore_ascii_case(b"store") || arg.eq_ignore_ascii_case(b"storedist");
    args.iter().skip(5).filter(destination).count() > 1
}

/// Errors that the server may find before the one the table finds, by the command.
fn finds_others_first(name: &str) -> bool {
    // A function or script that is not there; an option's value.
    ["fcall", "fcall_ro", "evalsha", "evalsha_ro", "xread", "xreadgroup"].contains(&name)
}

#[test]
fn keys_are_where_the_server_finds_them() {
    let Some(mut server) = Server::start() else { return };
    let expected_version = server.is_expected_version();
    let mut chance = Chance(0x5eed_0001);
    let (mut compared, mut with_keys, mut refused) = (0, 0, 0);
    for spec in leaves() {
        let known = server.ask(&["COMMAND", "INFO", spec.name]);
        if known == Control::Array(vec![Control::Null]) || CHANNELS.contains(&spec.name) {
            continue;
        }
        if !expected_version && spec.name.starts_with("command|") {
            continue;
        }
        let rounds = if matches!(spec.keys, Keys::None | Keys::One) { 10 } else { 200 };
        let requests: Vec<_> = (0..rounds)
            .map(|_| random_request(spec, &mut chance))
            // A container alone is not the subcommand's business; random words are not subcommands.
            .filter(|args| spec.subcommands.is_empty() && args.len() > 1 && !getkeys_is_wrong(args))
            .collect();
        let asked: Vec<_> = requests.iter().map(|args| [words("COMMAND GETKEYS"), args.clone()].concat()).collect();
        for (args, answer) in requests.iter().zip(server.ask_all(&asked)) {
            let bytes = wire(args);
            let request = Request::parse(&bytes).expect("a request");
            let found = command::identify(&request).map(|found| found.name);
            let shown = show(args);
            if found.is_err() {
                assert!(matches!(answer, Control::Error(_)), "{shown}: not accepted, yet {answer:?}");
                continue;
            }
            assert_eq!(found.ok(), Some(spec.name), "{shown}");
            let mut keys = Vec::new();
            let outcome = command::each_key(spec, &request, &mut |at, key| {
                assert_eq!(args[at], key, "{shown}");
                keys.push(Control::bulk(key));
            });
            compared += 1;
            match (outcome, answer) {
                (Ok(()), Control::Array(theirs)) => {
                    assert_eq!(keys, theirs, "{shown}");
                    with_keys += usize::from(!keys.is_empty());
                }
                (Ok(()), Control::Error(text)) if text.starts_with("ERR Invalid number of arguments") => {
                    assert!(CHANGED_LATER.iter().any(|(name, _)| *name == spec.name), "{shown}: {text}");
                }
                (Ok(()), Control::Error(text)) => {
                    assert!(keys.is_empty(), "{shown}: keys {keys:?}, yet {text}");
                }
                (Err(_), Control::Error(_)) => {}
                // GETKEYS does not look as closely as the command itself.
                (Err(text), Control::Array(_)) if spec.name != "migrate" => {
                    let answer = server.ask(args);
                    let Control::Error(said) = &answer else { panic!("{shown}: {text}, yet {answer:?}") };
                    assert!(said == text || finds_others_first(spec.name), "{shown}: {text}, yet {said}");
                    refused += 1;
                }
                (ours, theirs) => panic!("{shown}: {ours:?} and {theirs:?}"),
            }
        }
    }
    assert!(compared > 5_000 && with_keys > 4_000 && refused > 100, "{compared} {with_keys} {refused}");
}

#[test]
fn errors_that_hide_keys_are_worded_as_the_server_words_them() {
    let Some(mut server) = Server::start() else { return };
    if !server.is_expected_version() {
        return;
    }
    for line in [
        "EVAL x a",
        "EVAL x -1",
        "EVAL x 3 a",
        "EVAL x 01",
        "EVAL_RO x 9999999999",
        "EVAL x 99999999999999999999",
        "EVALSHA aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -1",
        "ZUNION 0 a",
        "ZUNIONSTORE d 3 a b",
        "ZDIFF x a",
        "ZDIFFSTORE d 0 a",
        "ZINTERSTORE d -1 a",
        "ZINTERCARD 0 a",
        "ZINTER 9 a",
        "SINTERCARD 0 a",
        "SINTERCARD x a",
        "SINTERCARD 2 a",
        "LMPOP 0 a LEFT",
        "LMPOP x a LEFT",
        "LMPOP 9 a LEFT",
        "ZMPOP -1 a MIN",
        "BLMPOP 1 0 a LEFT",
        "BZMPOP 1 9 a MIN",
        "XREAD STREAMS a b 0",
        "XREAD COUNT 1 foo",
        "XREAD COUNT 1 STREAMS",
        "XREAD GROUP a b STREAMS a 1",
        "XREAD NOACK STREAMS a 1",
        "XREADGROUP GROUP g c STREAMS a b 0",
        "XREADGROUP COUNT 1 NOACK BLOCK 1 STREAMS a 1",
        "MSET a 1 b",
        "MSETNX a 1 b",
        "MIGRATE h 1 k 0 5 KEYS a b",
    ] {
        let args = words(line);
        let bytes = wire(&args);
        let request = Request::parse(&bytes).expect("a request");
        let spec = command::identify(&request).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
        let ours = command::keys(spec, &request, &mut |_| {}).expect_err(line);
        assert_eq!(server.ask(&args), Control::Error(ours.to_owned()), "{line}");
    }
}

#[test]
fn the_form_of_a_request_is_faulted_as_the_server_faults_it() {
    let Some(mut server) = Server::start() else { return };
    if !server.is_expected_version() {
        return;
    }
    let long = "x".repeat(300);
    let mut requests: Vec<Vec<Vec<u8>>> = [
        "foo",
        "FoO a b",
        "''",
        "'' a",
        "object foo",
        "XINFO Foo k",
        "client MAINT_NOTIFICATIONS on",
        "object",
        "client",
        "xgroup",
        "foo|bar",
        "object|encoding k",
    ]
    .map(words)
    .to_vec();
    let many = "a ".repeat(90);
    requests.extend([
        words(&format!("{long} a")),
        words(&format!("foo a {long} b")),
        words(&format!("foo {} b", "y".repeat(124))),
        words(&format!("foo {} bcd e", "y".repeat(122))),
        words(&format!("foo {many}b")),
        words(&format!("object {long}")),
        vec![b"fo\r\no".to_vec(), b"a\nb".to_vec(), b"c\0d".to_vec()],
        vec![b"f\0oo".to_vec(), b"\0".to_vec(), b"e".to_vec()],
        vec![b"get\0".to_vec(), b"k".to_vec()],
        vec![b"object".to_vec(), b"a\0\r\n".to_vec()],
    ]);
    let added: Vec<_> = ADDED_LATER.iter().flat_map(|names| names.split(' ')).collect();
    for spec in leaves() {
        if added.contains(&spec.name) || CHANGED_LATER.iter().any(|(name, _)| *name == spec.name) {
            continue;
        }
        let name: Vec<Vec<u8>> = spec.name.split('|').map(|part| part.as_bytes().to_vec()).collect();
        let arity = usize::from(spec.arity.unsigned_abs());
        let with = |length: usize| {
            let mut args = name.clone();
            args.resize(length, b"1".to_vec());
            args
        };
        if arity > name.len() {
            requests.push(with(arity - 1));
        }
        if spec.arity > 0 {
            requests.push(with(arity + 1));
        }
    }
    assert!(requests.len() > 300);
    for args in requests {
        let bytes = wire(&args);
        let request = Request::parse(&bytes).expect("a request");
        let fault = command::identify(&request).expect_err(&show(&args));
        let mut text = Vec::new();
        fault.write(&request, &mut text);
        let answer = server.ask(&args);
        assert_eq!(Control::Error(String::from_utf8_lossy(&text).into_owned()), answer, "{}", show(&args));
    }
}

#[test]
fn every_command_has_something_done_with_it() {
    let rows: Vec<_> = command::rows().collect();
    for spec in leaves() {
        let told = rows.iter().any(|row| row.name == spec.name.replace('|', " "));
        assert!(told || !spec.subcommands.is_empty(), "{} is not told", spec.name);
        if let Treatment::Refuse(why) = spec.treatment {
            assert!(why.text().starts_with("ERR "));
        }
    }
}
