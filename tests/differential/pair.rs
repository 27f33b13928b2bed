//! Two sides that are told the same, and must answer the same and keep the same.

use super::compare::{Midst, Over, Reply, Verdict, alike, is_everybodys, own_answer};
use super::generate::{Args, LIBRARY, Maker, SCRIPTS};
use super::servers::{Connection, show, wire};
use hotring::command::{self, Keys, Need, Treatment};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The server whose words for errors hotring uses. With another, that there is an error is all that must be equal.
pub(crate) const VERSION: &str = "7.0.";
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

/// What hotring is compared with.
pub(crate) trait Other {
    /// The replies to some commands, in their order.
    fn ask_all(&mut self, commands: &[Args]) -> Vec<Vec<u8>>;

    fn ask(&mut self, words: &[&str]) -> Vec<u8> {
        let args = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.ask_all(&[args]).remove(0)
    }

    /// The reply to a command without blanks in its arguments.
    fn tell(&mut self, line: &str) -> Vec<u8> {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }
}

impl Other for Connection {
    fn ask_all(&mut self, commands: &[Args]) -> Vec<Vec<u8>> {
        Connection::ask_all(self, commands)
    }
}

/// Something that is one server to an app, and a hotring over other servers, that are told the same.
pub(crate) struct Pair<O> {
    alone: O,
    through: Connection,
    /// Others to hotring and to the servers on the other side, for questions that are no part of the test.
    probe: Connection,
    judges: Vec<Connection>,
    /// Whether the servers of both sides are a cluster's.
    cluster: bool,
    /// How the session's keys begin on hotring's servers.
    prefix: &'static str,
    /// Commands that are not sent: hotring carries them to some of its servers only.
    left_out: &'static [&'static str],
    midst: Midst,
    /// What the open transaction consists of.
    queued: Vec<Args>,
    /// A transaction has named a script, carried out or not: hotring knows it from then on, and sends it where it is not.
    named: bool,
    shards: Vec<Connection>,
    exact: bool,
    /// On which shard a key is, as far as it was asked for.
    homes: HashMap<Vec<u8>, usize>,
    /// Commands that were answered with anything but an error.
    succeeded: BTreeSet<&'static str>,
    told: BTreeMap<&'static str, usize>,
}

impl<O: Other> Pair<O> {
    /// hotring's side, the other one, and the servers of each.
    pub(crate) fn of(
        hotring: &dyn Fn() -> Connection,
        alone: O,
        shards: Vec<Connection>,
        judges: Vec<Connection>,
        cluster: bool,
    ) -> Self {
        let mut pair = Pair {
            through: hotring(),
            judges,
            probe: hotring(),
            midst: Midst::default(),
            queued: Vec::new(),
            named: false,
            shards,
            alone,
            cluster,
            prefix: "",
            left_out: &[],
            exact: false,
            homes: HashMap::new(),
            succeeded: BTreeSet::new(),
            told: BTreeMap::new(),
        };
        let info = String::from_utf8_lossy(&pair.alone.tell("INFO server")).into_owned();
        pair.exact = info.contains(&format!("redis_version:{VERSION}"));
        pair
    }

    /// The same, where the keys of hotring's side begin so.
    pub(crate) fn behind(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// The same, without these commands.
    pub(crate) fn without(self, left_out: &'static [&'static str]) -> Self {
        Self { left_out, ..self }
    }

    /// Sends commands at once through hotring; what it has carried out goes to the server alone, and the replies must be
    /// alike. An error says which of the commands it was, and why.
    fn compare(&mut self, batch: &[Args]) -> Result<(), (usize, String)> {
        let mut ours = self.through.ask_all(batch);
        let over = Over { shards: self.shards.len(), cluster: self.cluster, tenant: !self.prefix.is_empty() };
        self.overlook_scripts(batch, &mut ours);
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for (at, (args, reply)) in batch.iter().zip(&ours).enumerate() {
            let midst = self.midst;
            let verdict = own_answer(args, reply, over, midst);
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
            self.named |= midst.multi && is_script(args);
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
            let is_script = is_script(args) && self.named;
            if is_script && theirs.starts_with(b"-NOSCRIPT") && !ours.starts_with(b"-") {
                continue;
            }
            // A server that does not know a command shows its arguments as they came.
            let unknown = |reply: &[u8]| reply.starts_with(b"-ERR unknown command");
            if !self.prefix.is_empty() && unknown(ours) && unknown(theirs) {
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

    /// Takes the prefix from what scripts say: nobody looks into them, and some of these give back their keys.
    fn overlook_scripts(&self, batch: &[Args], ours: &mut [Vec<u8>]) {
        if self.prefix.is_empty() {
            return;
        }
        // Of a transaction all that it was told at once.
        let mut queued = self.queued.iter().any(is_script);
        for (args, reply) in batch.iter().zip(ours) {
            let told = is_script(args) || queued && args[0].eq_ignore_ascii_case(b"exec");
            queued |= is_script(args);
            if told && !reply.starts_with(b"-") {
                *reply = without(reply, self.prefix.as_bytes());
            }
        }
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
        let keys = match Reply::parse(&self.judges[0].ask(&asked)) {
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

    /// The shard of a key: the one that counts a TYPE more when hotring is asked for it. In a cluster its slot, as a node says.
    fn home(&mut self, key: Vec<u8>) -> usize {
        if let Some(&home) = self.homes.get(&key) {
            return home;
        }
        if self.cluster {
            let Reply::Integer(slot) = Reply::parse(&self.judges[0].ask(&[b"CLUSTER", &b"KEYSLOT"[..], &key])) else {
                panic!("no slot");
            };
            return slot as usize;
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
        let theirs: BTreeMap<_, _> = self.judges.iter_mut().flat_map(stored).collect();
        let mut ours = BTreeMap::new();
        for shard in &mut self.shards {
            for (key, value) in stored(shard) {
                let key = own(&key, self.prefix).ok_or_else(|| format!("{} is nobody's", key.escape_ascii()))?;
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

/// Whether a command runs a script.
fn is_script(args: &Args) -> bool {
    ["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"]
        .iter()
        .any(|name| args[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// A reply without a prefix of the texts in it.
fn without(reply: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = reply;
    while !rest.is_empty() {
        let line = rest.windows(2).position(|pair| pair == b"\r\n").expect("a line") + 2;
        let length = std::str::from_utf8(&rest[1..line - 2]).ok().and_then(|text| text.parse::<usize>().ok());
        let (head, behind) = rest.split_at(line);
        match length.filter(|_| rest[0] == b'$') {
            Some(length) => {
                let text = behind[..length].strip_prefix(prefix).unwrap_or(&behind[..length]);
                out.extend(format!("${}\r\n", text.len()).into_bytes());
                out.extend(text);
                out.extend(b"\r\n");
                rest = &behind[length + 2..];
            }
            None => {
                out.extend(head);
                rest = behind;
            }
        }
    }
    out
}

/// A key with its database, as its owner knows it.
fn own(key: &[u8], prefix: &str) -> Option<Vec<u8>> {
    let at = key.iter().position(|byte| *byte == b':')? + 1;
    Some([&key[..at], key[at..].strip_prefix(prefix.as_bytes())?].concat())
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

/// Runs all rounds; each begins with connections of its own to both sides.
pub(crate) fn run<O: Other>(mut pair: Pair<O>, hotring: &dyn Fn() -> Connection, alone: &dyn Fn() -> O) {
    let shard_count = pair.shards.len();
    load(&mut pair, &["FUNCTION", "LOAD", LIBRARY]);
    let dumps = dumps(&mut pair.alone);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (first, rounds) = match number("HOTRING_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("HOTRING_ROUNDS").unwrap_or(ROUNDS)),
    };
    for seed in first..first + rounds {
        for server in pair.shards.iter_mut().chain(&mut pair.judges) {
            assert_eq!(server.tell("FLUSHALL"), b"+OK\r\n");
        }
        let shas: Vec<String> = SCRIPTS.iter().map(|script| load(&mut pair, &["SCRIPT", "LOAD", script])).collect();
        load(&mut pair, &["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
        (pair.through, pair.alone) = (hotring(), alone());
        (pair.midst, pair.queued, pair.named) = (Midst::default(), Vec::new(), false);
        if seed % 2 == 0 {
            assert!(pair.through.tell("HELLO 3").starts_with(b"%7\r\n"));
            assert!(pair.alone.tell("HELLO 3").starts_with(b"%7\r\n"));
        }
        let mut history = Vec::new();
        if let Err(what) = round(&mut pair, Maker::new(seed, &dumps, &shas), &mut history) {
            let first = history.len().saturating_sub(60);
            let told: String = history[first..].iter().map(|args| format!("  {}\n", show(args))).collect();
            panic!(
                "over {shard_count} {}, seed {seed}, command {}:\n{what}\nthe last commands until then:\n{told}\
                 again with HOTRING_SEED={seed} cargo test --test differential",
                if pair.cluster { "nodes" } else { "shards" },
                history.len(),
            );
        }
    }
    eprintln!("{shard_count} shards: {:?}", pair.told);
    assert!(pair.told.values().sum::<usize>() >= COMMANDS, "{:?}", pair.told);
    if first == 1 && rounds >= ROUNDS && pair.exact {
        assert_coverage(&mut pair);
    }
}

fn round<O: Other>(pair: &mut Pair<O>, mut maker: Maker, history: &mut Vec<Args>) -> Result<(), String> {
    let mut batch: Vec<Args> = (0..60).map(|_| maker.filler()).collect();
    while history.len() < COMMANDS {
        let size = 1 + maker.chance.below(40);
        while batch.len() < size {
            let left_out = |args: &Args| pair.left_out.iter().any(|name| args[0].eq_ignore_ascii_case(name.as_bytes()));
            batch.extend(maker.commands().into_iter().filter(|args| !left_out(args)));
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
fn load<O>(pair: &mut Pair<O>, args: &[&str]) -> String {
    let replies: Vec<_> = pair.shards.iter_mut().chain(&mut pair.judges).map(|server| server.ask(args)).collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    match Reply::parse(&replies[0]) {
        Reply::Bulk(text) => String::from_utf8(text).expect("text"),
        other => panic!("{other:?}"),
    }
}

/// What DUMP says of a value of each type; bytes that are none; what FUNCTION DUMP says.
fn dumps(server: &mut impl Other) -> Vec<Vec<u8>> {
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
fn assert_coverage<O: Other>(pair: &mut Pair<O>) {
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
        // Its policy decides whether a server counts uses. A cluster has one database.
        let elsewhere = spec.name == "object|freq"
            || pair.cluster && spec.name == "move"
            || pair.left_out.contains(&spec.name)
            || !pair.prefix.is_empty() && is_everybodys(spec.name);
        if carried && known && !pair.succeeded.contains(spec.name) && !elsewhere {
            missing.push(spec.name);
        }
    }
    assert!(missing.is_empty(), "never carried out: {missing:?}");
}
