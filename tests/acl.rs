//! Users against a real server: the same rules and the same requests, asked of ours and, by ACL DRYRUN, of Redis; and what
//! the server answers to those who are denied.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::print_stderr, reason = "a test that can compare only in part says so")]

mod support;

use hotring::acl::{Account, User};
use hotring::command::{self, Keys, Spec};
use hotring::resp::Request;
use std::collections::BTreeMap;
use support::{Client, Redis, wire};

/// The server whose answers ours are.
const VERSION: &str = "redis_version:7.0.";

/// Numbers that look random and are the same each time (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % end as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len());
        &of[at]
    }
}

/// A server, the commands it has in common with the table, and one connection to ask with.
struct Server {
    redis: Redis,
    client: Client,
    specs: Vec<&'static Spec>,
}

impl Server {
    /// `None` where the server is another than the one to compare with.
    fn start() -> Option<Self> {
        let redis = Redis::start(&["--enable-debug-command", "yes", "--enable-module-command", "yes"]);
        let mut client = redis.client();
        if !client.ask("INFO server").contains(VERSION) {
            eprintln!("SKIPPED: the server is not 7.0");
            return None;
        }
        let known = client.ask("COMMAND LIST").to_lowercase();
        let known: Vec<&str> = known.split("\r\n").collect();
        let all = command::all().flat_map(|spec| [spec].into_iter().chain(spec.subcommands));
        // A container by itself is no request, but for COMMAND.
        let runs = |spec: &&Spec| spec.subcommands.is_empty() || spec.arity == -1;
        let mut specs: Vec<_> =
            all.filter(runs).filter(|spec| known.contains(&spec.name.split('|').next().unwrap())).collect();
        specs.retain(|spec| !say(&mut client, &["COMMAND", "INFO", spec.name]).starts_with("*1\r\n*-1"));
        assert!(specs.len() > 300, "only {} commands", specs.len());
        Some(Self { redis, client, specs })
    }

    fn set_user(&mut self, rules: &str) {
        self.client.ask("ACL DELUSER u");
        let words: Vec<&str> = ["ACL", "SETUSER", "u", "on", ">secret"].into_iter().chain(rules.split(' ')).collect();
        assert_eq!(say(&mut self.client, &words), "+OK\r\n", "{rules}");
    }

    /// `command`, `key` or `channel` where that is denied; `None` where the server is too old for the request.
    fn denies(&mut self, args: &[&str]) -> Option<&'static str> {
        let asked: Vec<&str> = ["ACL", "DRYRUN", "u"].iter().chain(args).copied().collect();
        let said = say(&mut self.client, &asked);
        Some(match said.as_str() {
            "+OK\r\n" => "",
            said if said.contains("permissions to run the") => "command",
            said if said.ends_with("' key\r\n") => "key",
            said if said.ends_with("' channel\r\n") => "channel",
            said if said.ends_with("not found\r\n") || said.contains("wrong number of arguments") => return None,
            said => panic!("{args:?}: {said}"),
        })
    }
}

fn say(client: &mut Client, args: &[&str]) -> String {
    String::from_utf8_lossy(&client.call(args)).into_owned()
}

fn user(rules: &str) -> User {
    let (name, rules) = ("u".to_owned(), rules.to_owned());
    User::new(&Account {
        name,
        passwords: Vec::new(),
        nopass: true,
        rules,
        read_only: false,
        connections: None,
        prefix: None,
    })
    .unwrap()
}

/// What ours says: the kind of denial, and its text. `None` if the keys of the request cannot be told.
fn ours(user: &User, args: &[&str]) -> Option<(String, String)> {
    let bytes = wire(args);
    let request = Request::parse(&bytes).unwrap();
    let spec = command::identify(&request).unwrap_or_else(|fault| panic!("{args:?}: {fault:?}"));
    command::keys(spec, &request, &mut |_| ()).ok()?;
    Some(match user.check(spec, &request) {
        Ok(()) => Default::default(),
        Err(denied) => {
            let mut text = Vec::new();
            denied.write(spec, &mut text);
            (format!("{denied:?}").to_lowercase(), String::from_utf8(text).unwrap())
        }
    })
}

const NAMES: &[&str] = &["r", "r1", "w", "w1", "b", "b1", "x", "xr", "r*", "", "\\r"];
const KEY_RULES: &[&str] = &[
    "~b*",
    "%R~r*",
    "%W~w*",
    "%W~r*",
    "%RW~[xw]1",
    "~?",
    "allkeys",
    "resetkeys",
    "%R~",
    "%W~x?",
    "%R~*",
    "~\\\\r",
    "%W~*",
];
const CHANNEL_RULES: &[&str] = &["&r*", "&b*", "&x", "allchannels", "resetchannels", "&w?", "&r\\*"];

/// A request of a command, well formed more or less, with names for keys.
fn request(spec: &Spec, chance: &mut Chance) -> Vec<String> {
    let mut args: Vec<String> = spec.name.split('|').map(str::to_owned).collect();
    let least = usize::from(spec.arity.unsigned_abs());
    let most = if spec.arity < 0 { least + 3 } else { least };
    let count = least + chance.below(most - least + 1);
    let counted = match spec.keys {
        Keys::Counted(counted) => usize::from(counted.at),
        _ => usize::MAX,
    };
    while args.len() < count.max(if counted == usize::MAX { 0 } else { counted + 3 })
        && (spec.arity < 0 || args.len() < least)
    {
        args.push(if args.len() == counted {
            (*chance.one(&["1", "2"])).to_owned()
        } else {
            (*chance.one(NAMES)).to_owned()
        });
    }
    let mut more = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
    let mut name = || *chance.one(NAMES);
    match spec.name {
        // What follows would be a subcommand.
        "command" => args.truncate(1),
        "xread" => {
            let words = ["xread", "COUNT", "2", "STREAMS", name(), name(), "0", "0"];
            args = words.map(str::to_owned).to_vec();
        }
        "xreadgroup" => {
            let words = ["xreadgroup", "GROUP", "g", "c", "STREAMS", name(), ">"];
            args = words.map(str::to_owned).to_vec();
        }
        "set" if name() < "r" => more(&["GET"]),
        "sort" if name() < "w" => more(&["LIMIT", "0", "1", "STORE", name()]),
        "georadius" | "georadiusbymember" => {
            let words = [spec.name, name(), "1", "2", "3", "m", "COUNT", "1", "STORE", name()];
            args = words.map(str::to_owned).to_vec();
            if spec.name != "georadius" {
                args.remove(2);
            }
        }
        "bitfield" => {
            args.truncate(2);
            let mut more = |words: &[&str]| args.extend(words.iter().map(|&word| word.to_owned()));
            more(&["GET", "u8", "0"]);
            match name() {
                "r" | "w" => more(&["OVERFLOW", "WRAP"]),
                "b" | "x" => more(&["INCRBY", "u8", "0", "1"]),
                "r1" => more(&["GET", "u8"]),
                _ => more(&["get", "u8", "8"]),
            }
        }
        "migrate" => args = ["migrate", "h", "1", name(), "0", "5"].map(str::to_owned).to_vec(),
        _ => {}
    }
    args
}

/// Rules of all kinds, one after another.
fn rules(specs: &[&Spec], chance: &mut Chance) -> String {
    let mut words = Vec::new();
    if chance.below(2) == 0 {
        words.push("+@all".to_owned());
    }
    for _ in 0..chance.below(8) {
        let sign = chance.one(&["+", "-"]).to_owned();
        let command = chance.one(specs).name;
        words.push(match chance.below(6) {
            0 => "+@all".to_owned(),
            1 => "-@all".to_owned(),
            2 => format!("{sign}{command}"),
            3 => format!("{sign}{}", command.split('|').next().unwrap()),
            4 if !command.contains('|') && command::lookup(command.as_bytes()).unwrap().subcommands.is_empty() => {
                format!("+{command}|{}", chance.one(&["r", "R1", "x"]))
            }
            _ => format!("{sign}@{}", chance.one(command::category_names())),
        });
    }
    // What is all already takes no further pattern.
    let mut open = [false, false];
    for _ in 0..1 + chance.below(5) {
        let at = chance.below(2);
        let word = *chance.one([KEY_RULES, CHANNEL_RULES][at]);
        if word.starts_with("reset") || !open[at] {
            open[at] = word.starts_with("all");
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}

/// Compares a rule with requests; all that differs, in words. Counts what was denied in `seen`.
fn compare(
    server: &mut Server,
    rules: &str,
    requests: &[Vec<String>],
    seen: &mut BTreeMap<String, usize>,
) -> Vec<String> {
    server.set_user(rules);
    let user = user(rules);
    let mut wrong = Vec::new();
    let mut denied = Vec::new();
    for args in requests {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some((kind, text)) = ours(&user, &args) else { continue };
        let Some(theirs) = server.denies(&args) else { continue };
        if theirs != kind {
            wrong.push(format!("{rules}: {args:?}: ours says {kind:?}, Redis {theirs:?}"));
        } else if !kind.is_empty() {
            denied.push((args, text));
        }
        *seen.entry(kind).or_default() += 1;
    }
    let mut client = server.redis.client();
    assert_eq!(client.ask("AUTH u secret"), "+OK\r\n");
    for (args, text) in denied {
        let said = say(&mut client, &args);
        if said != format!("-{text}\r\n") {
            wrong.push(format!("{rules}: {args:?}: ours says {text:?}, Redis {said:?}"));
        }
    }
    wrong
}

/// Every command, with keys of all kinds, under rules that tell reading from writing.
#[test]
fn every_command_needs_what_redis_says() {
    let Some(mut server) = Server::start() else { return };
    let mut chance = Chance(1);
    let specs = server.specs.clone();
    let requests: Vec<_> = specs.iter().flat_map(|spec| [spec; 4]).map(|spec| request(spec, &mut chance)).collect();
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for rules in ["+@all %R~r* %W~w* ~b* &r* &b", "+@all %R~r* %W~w* %R~x &*", "+@all %R~[rb]* %W~[bw]* %RW~ ~*"] {
        wrong.extend(compare(&mut server, rules, &requests, &mut seen));
    }
    assert!(wrong.is_empty(), "{} of {seen:?} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen[""] > 500 && seen["key"] > 500 && seen["channel"] > 10, "{seen:?}");
}

/// Rules of all kinds, commands of all kinds.
#[test]
fn generated_rules_mean_what_redis_means() {
    let Some(mut server) = Server::start() else { return };
    let mut chance = Chance(2);
    let specs = server.specs.clone();
    let mut seen = BTreeMap::new();
    let mut wrong = Vec::new();
    for _ in 0..80 {
        let rules = rules(&specs, &mut chance);
        let mut requests = Vec::new();
        for _ in 0..40 {
            let spec = *chance.one(&specs);
            requests.push(request(spec, &mut chance));
        }
        // What the rules name is asked for too.
        for word in rules.split(' ').filter(|word| word.starts_with(['+', '-']) && !word.contains('@')) {
            let named = &word[1..];
            let related = |spec: &&&Spec| spec.name.split('|').next() == named.split('|').next();
            requests.extend(specs.iter().filter(related).map(|spec| request(spec, &mut chance)));
        }
        wrong.extend(compare(&mut server, &rules, &requests, &mut seen));
    }
    assert!(wrong.is_empty(), "{} of {seen:?} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen[""] > 300 && seen["command"] > 300 && seen["key"] > 100 && seen["channel"] > 5, "{seen:?}");
}

/// What is a rule to one is a rule to the other.
#[test]
fn rules_are_rules_to_redis_too() {
    let Some(mut server) = Server::start() else { return };
    for rules in [
        "+nonsense",
        "+@nonsense",
        "-get|x",
        "+get|x",
        "+get|",
        "+config|get",
        "+config|x",
        "-config|x",
        "+config|get|x",
        "%~x",
        "%RX~x",
        "%rw~x",
        "%W~",
        "~",
        "&",
        "+",
        "-",
        "++",
        "+@",
        "x",
        "~* ~a",
        "~* resetkeys ~a",
        "&* &a",
        "ALLKEYS",
        "~* %R~a",
        "%RW~* ~a",
        "allcommands",
        "NoCommands",
        "sanitize-payload",
        "off",
        "+CLIENT|kill",
        "+@SortedSet",
        "*",
        "allchannels allchannels",
        "+get|x|y",
        "+@all|x",
        "+select|0 -select|0",
    ] {
        let words: Vec<&str> = ["ACL", "SETUSER", "v"].into_iter().chain(rules.split(' ')).collect();
        server.client.ask("ACL DELUSER v");
        let theirs = say(&mut server.client, &words);
        assert_eq!(hotring::acl::check_rules(rules).is_ok(), theirs == "+OK\r\n", "{rules}: {theirs}");
    }
}
