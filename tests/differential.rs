//! hotring against a real server: thousands of random commands, right and wrong ones, must be answered as the server alone
//! answers them, byte for byte, and leave the same behind.
//!
//! Over one shard every reply is the server's, but for what hotring documents as refused or answered by itself; over three
//! shards a command may besides be refused because its keys are on several. What is excepted is listed in
//! `differential/compare.rs`.
//!
//! `HOTRING_SEED=n` runs the round of that seed alone, `HOTRING_ROUNDS=n` as many rounds.
#![allow(clippy::print_stderr, reason = "a failure tells how to see it again")]

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/grammar.rs"]
mod grammar;
#[path = "differential/servers.rs"]
#[allow(dead_code, reason = "tests with clients use the rest")]
mod servers;

use compare::{Midst, Reply, Verdict, alike, own_answer};
use generate::{Args, LIBRARY, Maker, SCRIPTS};
use hotring::command::{self, Keys, Need, Treatment};
use servers::{Connection, Directory, Hotring, Server, show, wire};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The server whose words for errors hotring uses. With another, that there is an error is all that must be equal.
const VERSION: &str = "7.0.";
/// Rounds of a run, each from a seed of its own.
const ROUNDS: u64 = 22;
/// Commands of a round.
const COMMANDS: usize = 700;

/// What the server alone is asked, too.
struct Asked<'a> {
    /// Which of the batch it is.
    at: usize,
    args: Args,
    /// What it carries out, if it is EXEC.
    queued: Vec<Args>,
    /// What hotring said; nothing where only the server is asked.
    ours: &'a [u8],
}

/// A server, and a hotring over other ones, that are told the same.
struct Pair {
    alone: Connection,
    through: Connection,
    /// Others to both, for questions that are no part of the test.
    judge: Connection,
    probe: Connection,
    midst: Midst,
    /// What the open transaction consists of.
    queued: Vec<Args>,
    shards: Vec<Connection>,
    exact: bool,
    /// On which shard a key is, as far as it was asked for.
    homes: HashMap<Vec<u8>, usize>,
    /// Commands that were answered with anything but an error.
    succeeded: BTreeSet<&'static str>,
    told: BTreeMap<&'static str, usize>,
}

impl Pair {
    /// Sends commands at once through hotring; what it has carried out goes to the server alone, and the replies must be
    /// alike. An error says which of the commands it was, and why.
    fn compare(&mut self, batch: &[Args]) -> Result<(), (usize, String)> {
        let ours = self.through.ask_all(batch);
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for (at, (args, reply)) in batch.iter().zip(&ours).enumerate() {
            let midst = self.midst;
            let verdict = own_answer(args, reply, self.shards.len(), midst);
            let queued = self.follow(args, reply);
            let counted = match &verdict {
                Verdict::Fine if midst.multi => "refused within transactions",
                Verdict::Fine => "answered or refused as documented",
                Verdict::CrossShard => "refused for its keys",
                _ => "compared",
            };
            *self.told.entry(counted).or_default() += 1;
            let wrong = match verdict {
                Verdict::Wrong(what) => Some(what.to_owned()),
                Verdict::Ask => {
                    asked.push(Asked { at, args: args.clone(), queued, ours: reply });
                    None
                }
                // Whatever is refused within a transaction spoils it: the server is told something that it must refuse.
                _ if midst.multi && !reply.starts_with(b"-") => Some("neither queued nor refused".to_owned()),
                Verdict::Fine => None,
                Verdict::CrossShard if midst.multi || midst.watching => None,
                Verdict::CrossShard => self.judge_keys(args),
            };
            if midst.multi && asked.last().is_none_or(|last| last.at != at) {
                asked.push(Asked { at, args: vec![b"GET".to_vec()], queued: Vec::new(), ours: b"" });
            }
            if let Some(what) = wrong {
                return Err((at, format!("{}\n  {what}: {}", show(args), reply.escape_ascii())));
            }
        }
        let commands: Vec<Args> = asked.iter().map(|asked| asked.args.clone()).collect();
        let theirs = self.alone.ask_all(&commands);
        for (Asked { at, args, queued, ours }, theirs) in asked.iter().zip(&theirs) {
            if ours.is_empty() {
                continue;
            }
            if !alike(args, queued, ours, theirs, self.exact) {
                let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
                return Err((*at, format!("{}\n  through hotring: {ours}\n  server alone:    {theirs}", show(args))));
            }
            if !queued.is_empty() {
                let counted = if ours.starts_with(b"-") {
                    "transactions aborted"
                } else if ours.starts_with(b"*-") || ours.starts_with(b"_") {
                    "transactions whose watch saw a change"
                } else {
                    "transactions carried out"
                };
                *self.told.entry(counted).or_default() += 1;
            }
            if !ours.starts_with(b"-") && ours != b"+QUEUED\r\n" {
                let bytes = wire(args);
                let request = hotring::resp::Request::parse(&bytes).expect("a request");
                self.succeeded.extend(command::identify(&request).ok().map(|spec| spec.name));
            }
        }
        Ok(())
    }

    /// Notes what a command makes of the session's transaction. Returns what is carried out with it.
    fn follow(&mut self, args: &Args, reply: &[u8]) -> Vec<Args> {
        let (multi, watching) = (&mut self.midst.multi, &mut self.midst.watching);
        match (String::from_utf8_lossy(&args[0]).to_lowercase().as_str(), reply) {
            ("multi", b"+OK\r\n") => *multi = true,
            ("watch", b"+OK\r\n") => *watching = true,
            ("unwatch", b"+OK\r\n") => *watching = false,
            ("discard", b"+OK\r\n") | ("reset", b"+RESET\r\n") => {
                (*multi, *watching) = (false, false);
                self.queued.clear();
            }
            // Of whatever form: `EXEC x` ends it, too.
            ("exec", reply) if !reply.starts_with(b"-ERR ") => {
                (*multi, *watching) = (false, false);
                return std::mem::take(&mut self.queued);
            }
            (_, b"+QUEUED\r\n") if *multi => self.queued.push(args.clone()),
            _ => {}
        }
        Vec::new()
    }

    /// Whether a command was rightly refused for where its keys are.
    fn judge_keys(&mut self, args: &Args) -> Option<String> {
        let asked = [vec![b"COMMAND".to_vec(), b"GETKEYS".to_vec()], args.clone()].concat();
        let keys = match Reply::parse(&self.judge.ask(&asked)) {
            Reply::Array(keys) => keys,
            // It wants a source, which the command does not.
            Reply::Line(error) if error.starts_with(b"-ERR The command has no key") => Vec::new(),
            other => return Some(format!("keys cannot be told: {other:?}")),
        };
        let homes: BTreeSet<usize> = keys
            .into_iter()
            .map(|key| match key {
                Reply::Bulk(key) => self.home(key),
                other => panic!("not a key: {other:?}"),
            })
            .collect();
        (homes.len() < 2).then(|| format!("its keys are on shard {homes:?} only"))
    }

    /// The shard of a key: the one that counts a TYPE more when hotring is asked for it.
    fn home(&mut self, key: Vec<u8>) -> usize {
        if let Some(&home) = self.homes.get(&key) {
            return home;
        }
        let mut count = || -> Vec<Vec<u8>> {
            let mark = b"cmdstat_type:calls=";
            let calls = |info: Vec<u8>| {
                let at = info.windows(mark.len()).position(|window| window == mark)?;
                Some(info[at + mark.len()..].split(|&b| b == b',').next()?.to_vec())
            };
            self.shards.iter_mut().map(|shard| calls(shard.tell("INFO commandstats")).unwrap_or_default()).collect()
        };
        let before = count();
        self.probe.ask(&[b"TYPE", key.as_slice()]);
        let after = count();
        let home = before.iter().zip(&after).position(|(before, after)| before != after).expect("a shard was asked");
        self.homes.insert(key, home);
        home
    }

    /// All that is stored must be the same, each key on one shard only.
    fn compare_stored(&mut self) -> Result<(), String> {
        let theirs = stored(&mut self.judge);
        let mut ours = BTreeMap::new();
        for shard in &mut self.shards {
            for (key, value) in stored(shard) {
                if ours.insert(key.clone(), value).is_some() {
                    return Err(format!("{:?} is on two shards", key.escape_ascii().to_string()));
                }
            }
        }
        if ours == theirs {
            return Ok(());
        }
        let keys: BTreeSet<_> =
            ours.keys().chain(theirs.keys()).filter(|key| ours.get(*key) != theirs.get(*key)).collect();
        let key = keys.first().expect("a difference");
        Err(format!("{} is\n  {:?}\n  {:?}", key.escape_ascii(), ours.get(*key), theirs.get(*key)))
    }
}

/// All that is in any database.
fn stored(server: &mut Connection) -> BTreeMap<Vec<u8>, Vec<Reply>> {
    let info = String::from_utf8_lossy(&server.tell("INFO keyspace")).into_owned();
    let databases = info.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':').map(|(number, _)| number));
    let mut all = BTreeMap::new();
    for number in databases {
        assert_eq!(server.tell(&format!("SELECT {number}")), b"+OK\r\n");
        let named = |(key, value): (Vec<u8>, _)| ([number.as_bytes(), b":", &key].concat(), value);
        all.extend(stored_here(server).into_iter().map(named));
    }
    assert_eq!(server.tell("SELECT 0"), b"+OK\r\n");
    all
}

/// Every key with its type, whether it expires, and its value, independent of the order in tables.
fn stored_here(server: &mut Connection) -> BTreeMap<Vec<u8>, Vec<Reply>> {
    let Reply::Array(keys) = Reply::parse(&server.tell("KEYS *")) else { panic!("no keys") };
    let mut values = BTreeMap::new();
    for key in keys {
        let Reply::Bulk(key) = key else { panic!("not a key: {key:?}") };
        let kind = server.ask(&[b"TYPE", key.as_slice()]);
        let words: &[&str] = match &kind[1..kind.len() - 2] {
            b"string" => &["GET"],
            b"hash" => &["HGETALL"],
            b"list" => &["LRANGE", "0", "-1"],
            b"set" => &["SMEMBERS"],
            b"zset" => &["ZRANGE", "0", "-1", "WITHSCORES"],
            b"stream" => &["XRANGE", "-", "+"],
            other => panic!("unknown type {}", other.escape_ascii()),
        };
        let mut args: Vec<&[u8]> = vec![words[0].as_bytes(), &key];
        args.extend(words[1..].iter().map(|word| word.as_bytes()));
        let value = match (words[0], Reply::parse(&server.ask(&args))) {
            ("HGETALL", Reply::Array(elements)) => {
                let mut pairs: Vec<Reply> = elements.chunks(2).map(|pair| Reply::Array(pair.to_vec())).collect();
                pairs.sort();
                Reply::Array(pairs)
            }
            ("SMEMBERS", Reply::Array(mut elements)) => {
                elements.sort();
                Reply::Array(elements)
            }
            (_, value) => value,
        };
        let expires = Reply::Integer(i64::from(server.ask(&[b"PTTL", key.as_slice()]) != b":-1\r\n"));
        values.insert(key, vec![Reply::Line(kind), expires, value]);
    }
    values
}

/// Runs all rounds over so many shards; `more` are further lines of the pool.
fn run(shard_count: usize, more: &str) {
    let directory = Directory::new("differential");
    let server = Server::start(&directory, "alone");
    let shards: Vec<Server> = (0..shard_count).map(|n| Server::start(&directory, &format!("shard-{n}"))).collect();
    let hotring = Hotring::start(&shards, more);
    let mut alone = server.connect();
    let info = String::from_utf8_lossy(&alone.tell("INFO server")).into_owned();
    let exact = info.contains(&format!("redis_version:{VERSION}"));
    let mut pair = Pair {
        through: hotring.connect(),
        judge: server.connect(),
        probe: hotring.connect(),
        midst: Midst::default(),
        queued: Vec::new(),
        shards: shards.iter().map(Server::connect).collect(),
        alone,
        exact,
        homes: HashMap::new(),
        succeeded: BTreeSet::new(),
        told: BTreeMap::new(),
    };
    load(&mut pair, &["FUNCTION", "LOAD", LIBRARY]);
    let dumps = dumps(&mut pair.alone);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, rounds) = match number("HOTRING_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("HOTRING_ROUNDS").unwrap_or(ROUNDS)),
    };
    for seed in first..first + rounds {
        for server in pair.shards.iter_mut().chain([&mut pair.alone]) {
            assert_eq!(server.tell("FLUSHALL"), b"+OK\r\n");
        }
        let shas: Vec<String> = SCRIPTS.iter().map(|script| load(&mut pair, &["SCRIPT", "LOAD", script])).collect();
        load(&mut pair, &["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
        (pair.through, pair.alone) = (hotring.connect(), server.connect());
        (pair.midst, pair.queued) = (Midst::default(), Vec::new());
        if seed % 2 == 0 {
            for side in [&mut pair.through, &mut pair.alone] {
                assert!(side.tell("HELLO 3").starts_with(b"%7\r\n"));
            }
        }
        let mut history = Vec::new();
        if let Err(what) = round(&mut pair, Maker::new(seed, &dumps, &shas), &mut history) {
            let first = history.len().saturating_sub(60);
            let told: String = history[first..].iter().map(|args| format!("  {}\n", show(args))).collect();
            panic!(
                "over {shard_count} shards, seed {seed}, command {}:\n{what}\nthe last commands until then:\n{told}\
                 again with HOTRING_SEED={seed} cargo test --test differential",
                history.len()
            );
        }
    }
    eprintln!("{shard_count} shards: {:?}", pair.told);
    assert!(pair.told.values().sum::<usize>() >= COMMANDS, "{:?}", pair.told);
    if first == 1 && rounds >= ROUNDS && pair.exact {
        assert_coverage(&mut pair);
    }
}

fn round(pair: &mut Pair, mut maker: Maker, history: &mut Vec<Args>) -> Result<(), String> {
    let mut batch: Vec<Args> = (0..60).map(|_| maker.filler()).collect();
    while history.len() < COMMANDS {
        let size = 1 + maker.chance.below(40);
        while batch.len() < size {
            batch.extend(maker.commands());
        }
        let (outcome, before) = (pair.compare(&batch), history.len());
        history.append(&mut batch);
        outcome.map_err(|(at, what)| {
            history.truncate(before + at + 1);
            what
        })?;
    }
    // A transaction that is open still is one.
    pair.compare(&[vec![b"RESET".to_vec()]]).map_err(|(_, what)| what)?;
    pair.compare_stored()
}

/// Tells all servers something and gives its answer, a bulk string.
fn load(pair: &mut Pair, args: &[&str]) -> String {
    let replies: Vec<_> = pair.shards.iter_mut().chain([&mut pair.alone]).map(|server| server.ask(args)).collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    match Reply::parse(&replies[0]) {
        Reply::Bulk(text) => String::from_utf8(text).expect("text"),
        other => panic!("{other:?}"),
    }
}

/// What DUMP says of a value of each type; bytes that are none; what FUNCTION DUMP says.
fn dumps(server: &mut Connection) -> Vec<Vec<u8>> {
    let values = [
        "SET k text",
        "SET k 12",
        "RPUSH k a b 3",
        "SADD k 1 2",
        "SADD k a",
        "HSET k f v",
        "ZADD k 1 a 2 b",
        "XADD k 5-1 f v",
    ];
    let mut dumps: Vec<Vec<u8>> = values
        .iter()
        .map(|value| {
            server.tell("DEL k");
            server.tell(value);
            match Reply::parse(&server.tell("DUMP k")) {
                Reply::Bulk(dump) => dump,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    dumps.push(b"no dump".to_vec());
    match Reply::parse(&server.tell("FUNCTION DUMP")) {
        Reply::Bulk(dump) => dumps.push(dump),
        other => panic!("{other:?}"),
    }
    dumps
}

/// Every command that hotring carries, and the server has, must have been carried out at least once.
fn assert_coverage(pair: &mut Pair) {
    let mut missing = Vec::new();
    for spec in command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
        let carried = match spec.treatment {
            Treatment::Forward | Treatment::Split(_) | Treatment::Publish | Treatment::Own(Need::Transaction) => true,
            // WAIT, which is for pools of one shard.
            Treatment::Own(Need::Blocking) => pair.shards.len() == 1 || !matches!(spec.keys, Keys::None),
            Treatment::Broadcast(_) => !matches!(spec.name, "script|kill" | "function|kill"),
            Treatment::Own(Need::Subscription) | Treatment::Local(_) | Treatment::Refuse(_) => false,
        } && spec.subcommands.is_empty();
        let known = Reply::parse(&pair.alone.ask(&["COMMAND", "INFO", spec.name]))
            != Reply::Array(vec![Reply::Line(b"$-1\r\n".to_vec())]);
        // Its policy decides whether a server counts uses.
        if carried && known && !pair.succeeded.contains(spec.name) && spec.name != "object|freq" {
            missing.push(spec.name);
        }
    }
    assert!(missing.is_empty(), "never carried out: {missing:?}");
}

#[test]
fn one_shard_is_the_server_itself() {
    run(1, "");
}

#[test]
fn three_shards_are_one_server_or_refuse() {
    run(3, "");
}

#[test]
fn nor_do_shared_replies_and_more_connections_show() {
    run(3, "    coalesce: true\n    server_connections: 2\n");
}

/// What is sent as it stands, on a connection of its own; then the reading ends.
const FORMS: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"ping hello\r\n",
    b"  ECHO  'a b'  \r\n",
    b"ECHO \"\\x41\\n\\q\"\r\n",
    b"ECHO 'it\\'s'\r\n",
    b"ECHO \"a\r\nPING\r\n",
    b"ECHO 'a'b\r\nPING\r\n",
    b"ECHO \"\"\r\n",
    b"SET k v\r\nGET k\r\nNONESUCH 'a b'\r\nGET\r\n",
    b"SET k 'a\\r\\nb'\r\nGET k\r\n",
    b"\r\n\r\n  \r\nPING\r\n",
    b"*0\r\n*-1\r\n*-7\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\nPING\r\n",
    b"*1\r\n$0\r\n\r\nPING\r\n",
    b"PING\r\n*x\r\nPING\r\n",
    b"*\r\nPING\r\n",
    b"* 1\r\nPING\r\n",
    b"*1 \r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775808\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\nPING\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*2\r\n$4\r\nECHO\r\n*1\r\n",
    b"QUIT\r\nPING\r\n",
    b"*1\r\n$4\r\nquit\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nQUIT\r\n$3\r\nnow\r\n",
    b"PING\r\nQUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"RESET\r\nPING\r\n",
    b"SELECT 0\r\nGET none\r\n",
];

/// Forms that hotring answers otherwise, and how.
const OTHER_FORMS: &[(&[u8], &[u8])] = &[
    // A server skips two bytes after an argument without looking at them.
    (b"*1\r\n$4\r\nPINGxxPING\r\n", b"-ERR Protocol error: bulk string without CRLF at its end\r\n"),
    // A server has had no such bound since 7.0, but for that of numbers.
    (b"*1048577\r\n$4\r\nPING\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    // Browsers that were led here: a server hangs up without a word.
    (b"POST / HTTP/1.1\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'H'\r\n"),
    (
        b"GET / HTTP/1.1\r\nHost: x\r\nPING\r\n",
        b"-ERR wrong number of arguments for 'get' command\r\n-ERR Protocol error: expected '$', got 'H'\r\n",
    ),
];

#[test]
fn all_forms_of_requests_are_read_as_the_server_reads_them() {
    let directory = Directory::new("forms");
    let (server, shard) = (Server::start(&directory, "alone"), Server::start(&directory, "shard"));
    let shards = [shard];
    let hotring = Hotring::start(&shards, "");
    let exact =
        String::from_utf8_lossy(&server.connect().tell("INFO server")).contains(&format!("redis_version:{VERSION}"));
    let told = |mut connection: Connection, form: &[u8]| {
        connection.send(form).expect("a request sent");
        connection.finish();
        connection.rest()
    };
    let endless = [b'a'; 70_000];
    let long = [&b"ECHO "[..], &[b'a'; 60_000], b"\r\n"].concat();
    for form in FORMS.iter().copied().chain([&endless[..], &long]) {
        let (ours, theirs) = (told(hotring.connect(), form), told(server.connect(), form));
        let form = &form[..form.len().min(80)];
        if exact || !theirs.starts_with(b"-") {
            assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{}", form.escape_ascii());
        }
    }
    for (form, expected) in OTHER_FORMS {
        let ours = told(hotring.connect(), form);
        assert_eq!(ours.escape_ascii().to_string(), expected.escape_ascii().to_string(), "{}", form.escape_ascii());
    }
}
