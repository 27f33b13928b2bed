//! What replies must be: the server's, byte for byte, but for what is listed here.

use super::generate::Args;
use hotring::command::{Fault, Keys, Need, Treatment, Why, identify, integer, keys, treatment};
use hotring::error::{EVERYBODYS, NOT_IN_TRANSACTION, ONE_SHARD_ONLY};
use hotring::resp::Request;

/// Commands that hotring may refuse whatever their arguments are, if only as many as they may be, and why.
const REFUSED: &[(Why, &str)] = &[
    (
        Why::Admin,
        "bgrewriteaof bgsave debug failover monitor psync replconf replicaof save shutdown slaveof swapdb sync migrate \
         pfdebug pfselftest acl|cat acl|deluser acl|dryrun acl|genpass acl|getuser acl|list acl|load acl|log acl|save \
         acl|setuser acl|users acl|whoami config|get config|resetstat config|rewrite config|set module|list \
         module|load module|loadex module|unload client|caching client|getredir client|kill client|list client|pause \
         client|reply client|tracking client|trackinginfo client|unblock client|unpause client|capa \
         client|import-source script|debug",
    ),
    (
        Why::OneServer,
        "commandlog|get commandlog|len commandlog|reset latency|doctor latency|graph \
         latency|histogram latency|history latency|latest latency|reset memory|doctor memory|malloc-stats \
         memory|purge memory|stats command|getkeysandflags",
    ),
    (Why::Cluster, "asking restore-asking"),
];

/// Commands whose form hotring knows and judges, though this server does not have them.
const LATER: &[&str] = &["waitaof", "commandlog"];

/// Commands that must not come near a server that others use, not even with wrong arguments.
const NEVER_SENT: &[&str] = &[
    "acl",
    "bgrewriteaof",
    "bgsave",
    "cluster",
    "config",
    "debug",
    "failover",
    // No server has it.
    "hotring",
    "latency",
    "migrate",
    "module",
    "monitor",
    "pfdebug",
    "pfselftest",
    "psync",
    "replconf",
    "replicaof",
    "save",
    "shutdown",
    "slaveof",
    "slowlog",
    "sync",
];

/// What a node of a cluster says of keys of several slots, and hotring of keys of several shards.
pub(crate) const CROSS_SLOT: &[u8] = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n";

/// What hotring answers by itself and otherwise than a server would; see [`own_answer`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As documented; the server need not be asked, and has nothing to carry out.
    Fine,
    /// All keys of the command must be asked for, and be on more than one shard.
    CrossShard,
    /// The server's reply decides.
    Ask,
    /// Neither.
    Wrong(&'static str),
}

/// How two replies are compared. Errors are always compared byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    Same,
    /// The same elements in any order.
    Unordered,
    /// The same pairs of elements in any order.
    Pairs,
    /// As `Same`, with numbers that the clock has moved a little.
    Close,
    /// The same elements in any order behind an equal cursor.
    Scan,
    /// As `Same`, or less of it.
    AtMost,
    /// Chance has chosen: as many elements of the same kinds.
    Shape,
    /// Chance has chosen, and how many.
    Kind,
}

/// What the session is in the midst of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Midst {
    pub(crate) multi: bool,
    pub(crate) watching: bool,
}

/// What hotring stands before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) shards: usize,
    /// They are nodes of a cluster.
    pub(crate) cluster: bool,
    /// The session's keys have a prefix.
    pub(crate) tenant: bool,
}

/// What is about everybody's keys, and refused to who has a prefix.
pub(crate) fn is_everybodys(name: &str) -> bool {
    let all = "dbsize flushall flushdb randomkey pubsub|numpat script|flush script|kill";
    name.starts_with("function|") || all.split(' ').any(|one| one == name)
}

/// Judges a reply of hotring's before the server is asked.
pub(crate) fn own_answer(args: &Args, reply: &[u8], over: Over, midst: Midst) -> Verdict {
    let Over { shards, cluster, tenant } = over;
    let bytes = super::servers::wire(args);
    let Some(request) = Request::parse(&bytes) else { return Verdict::Wrong("not a request") };
    let (spec, name, treated) = match identify(&request) {
        Ok(spec) => (spec, spec.name, treatment(spec, &request)),
        Err(fault) => {
            let own = lower(&args[0]);
            let later = matches!(fault, Fault::Arity(spec) if added_later(spec.name));
            if NEVER_SENT.contains(&own.as_str()) || later || LATER.contains(&own.as_str()) {
                let faulted = [&b"-ERR wrong number of arguments for '"[..], b"-ERR unknown subcommand '"];
                let fine = faulted.iter().any(|text| reply.starts_with(text));
                return if fine { Verdict::Fine } else { Verdict::Wrong("a malformed command was carried") };
            }
            return Verdict::Ask;
        }
    };
    let (container, _) = name.split_once('|').unwrap_or((name, ""));
    if tenant && is_everybodys(name) && !name.ends_with("|help") {
        return fine(is_error(reply, EVERYBODYS));
    }
    if midst.multi && reply == b"+QUEUED\r\n" {
        return Verdict::Ask;
    }
    if midst.multi && keys(spec, &request, &mut |_| {}).is_err_and(|text| is_error(reply, text)) {
        // Where its keys are cannot be told: said at once, and not in the midst of EXEC's reply.
        return Verdict::Fine;
    }
    if midst.multi && is_error(reply, NOT_IN_TRANSACTION) {
        // What is not a matter of one shard.
        return fine(matches!(
            treated,
            Treatment::Local(_) | Treatment::Own(Need::Subscription) | Treatment::Broadcast(_)
        ));
    }
    if shards > 1 && is_error(reply, ONE_SHARD_ONLY) {
        return fine(matches!(name, "wait" | "waitaof"));
    }
    if shards > 1 && name == "scan" && reply == b"-ERR invalid cursor\r\n" {
        // A server takes nothing at all for 0, and a negative number for a large one.
        let plain = args[1].iter().all(u8::is_ascii_digit) && !args[1].is_empty();
        return if plain { Verdict::Ask } else { Verdict::Fine };
    }
    if name.ends_with("|help") {
        // hotring's lines, with a first one like Redis'.
        let usage =
            format!("+{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n", container.to_uppercase());
        return fine(contains(reply, usage.as_bytes()));
    }
    let refused = if container == "cluster" {
        Some(Why::Cluster)
    } else {
        REFUSED.iter().find(|(_, names)| names.split(' ').any(|one| one == name)).map(|(why, _)| *why)
    };
    match refused {
        Some(why) if is_refusal(reply, why) => return Verdict::Fine,
        Some(_) if matches!(treated, Treatment::Refuse(_)) => return Verdict::Wrong("not the documented refusal"),
        _ => {}
    }
    if NEVER_SENT.contains(&container) {
        let own = matches!(treated, Treatment::Local(_)) || midst.multi && is_error(reply, NOT_IN_TRANSACTION);
        return if own { Verdict::Fine } else { Verdict::Wrong("not listed as refused") };
    }
    // What only some arguments make refused, where there are several shards.
    if shards > 1 && is_refusal(reply, Why::Pattern) {
        return fine(match name {
            "sort" | "sort_ro" => {
                let star = args[2..]
                    .windows(2)
                    .any(|pair| (lower(&pair[0]) == "by" || lower(&pair[0]) == "get") && pair[1].contains(&b'*'));
                is_refusal(reply, Why::Pattern) && star
            }
            _ => false,
        });
    }
    if cluster && is_refusal(reply, Why::Database) && ["select", "move", "copy", "swapdb"].contains(&name) {
        // As a server with one database says; a node says that there are none in cluster mode.
        return Verdict::Fine;
    }
    // That of EXEC is the node's: it takes keys of several of its slots, and refuses them together.
    if shards > 1 && name != "exec" && reply == CROSS_SLOT {
        let split = matches!(treated, Treatment::Split(_)) && !midst.multi;
        return if split { Verdict::Wrong("it is to be split") } else { Verdict::CrossShard };
    }
    answered_here(name, args, reply)
}

/// Commands that hotring answers by itself, where its answer is not the server's.
fn answered_here(name: &str, args: &Args, reply: &[u8]) -> Verdict {
    let argument = |at: usize| args.get(at).map_or(&b""[..], Vec::as_slice);
    match name {
        // Of hotring's own client table.
        "client|id" => fine(reply.starts_with(b":")),
        "client|info" | "client|list" if !reply.starts_with(b"-") => {
            fine((reply.starts_with(b"$") || reply.starts_with(b"=")) && contains(reply, b"id="))
        }
        // Servers before 7.2 do not know these.
        "client|setinfo" => {
            let known = ["lib-name", "lib-ver"].contains(&lower(argument(2)).as_str());
            let plain = argument(3).iter().all(u8::is_ascii_graphic);
            fine(match (known, plain) {
                (true, true) => reply == b"+OK\r\n",
                (true, false) => reply.ends_with(b" cannot contain spaces, newlines or special characters.\r\n"),
                (false, _) => reply.starts_with(b"-ERR Unrecognized option '"),
            })
        }
        "client|no-touch" => {
            let known = ["on", "off"].contains(&lower(argument(2)).as_str());
            fine(if known { reply == b"+OK\r\n" } else { reply == b"-ERR syntax error\r\n" })
        }
        // Without tips, key specifications and documentation; with commands of later servers.
        "command" | "command|info" => fine(reply.starts_with(b"*")),
        "command|docs" => fine(reply.starts_with(b"*") || reply.starts_with(b"%")),
        "command|list" if !reply.starts_with(b"-") => fine(reply.starts_with(b"*") || reply.starts_with(b"~")),
        "command|count" => fine(reply.starts_with(b":")),
        // hotring's own; the fields that clients look at are tested where clients are.
        "info" => fine(reply.starts_with(b"$") || reply.starts_with(b"=")),
        "time" => fine(reply.starts_with(b"*2\r\n$10\r\n")),
        // Harmless here, though a server outside of a cluster refuses them.
        "readonly" | "readwrite" => fine(reply == b"+OK\r\n"),
        _ => Verdict::Ask,
    }
}

fn fine(is: bool) -> Verdict {
    if is { Verdict::Fine } else { Verdict::Wrong("not the documented answer") }
}

fn is_refusal(reply: &[u8], why: Why) -> bool {
    is_error(reply, why.text())
}

fn is_error(reply: &[u8], text: &str) -> bool {
    reply.strip_prefix(b"-").and_then(|rest| rest.strip_suffix(b"\r\n")) == Some(text.as_bytes())
}

/// Commands that servers of version 7.0 do not have: where the shards do not, they say so themselves, but a wrong number
/// of arguments is told by hotring.
fn added_later(name: &str) -> bool {
    let hash_fields = name.starts_with('h')
        && ["expire", "ttl", "persist", "getdel", "getex", "setex"].iter().any(|part| name.contains(part));
    hash_fields
        || ["xackdel", "xdelex", "delex", "digest", "delifeq"].contains(&name)
        || [
            "waitaof",
            "client|no-touch",
            "client|setinfo",
            "client|capa",
            "client|import-source",
            "script|show",
            "cluster|myshardid",
            "cluster|slot-stats",
        ]
        .contains(&name)
}

/// Whether both replies are errors of which either will do: hotring looks for a command's keys before anything else, and
/// what hides them is the error it tells; a server may come upon another one first.
fn another_error_first(args: &Args) -> bool {
    let name = lower(&args[0]);
    // No such script, or function; a number among the options that is none; a password that servers since 7.2 look at
    // when all options are read.
    ["hello", "evalsha", "evalsha_ro", "fcall", "fcall_ro", "xread", "xreadgroup"].contains(&name.as_str())
}

/// Whether a reply is what a server says of pairs that are none. A node looks for slots before it counts them.
fn formless(args: &Args, reply: &[u8]) -> bool {
    let name = lower(&args[0]);
    let text = format!("ERR wrong number of arguments for '{name}' command");
    ["mset", "msetnx"].contains(&name.as_str()) && is_error(reply, &text)
}

/// Whether COMMAND GETKEYS is known to be answered otherwise: hotring tells the keys that the command uses.
fn getkeys_differs(args: &Args) -> bool {
    if !lower(&args[0]).eq("command")
        || args.get(1).is_none_or(|sub| !["getkeys", "getkeysandflags"].contains(&lower(sub).as_str()))
    {
        return false;
    }
    let asked = &args[2..];
    let Some(name) = asked.first().map(|name| lower(name)) else { return false };
    let bytes = super::servers::wire(asked);
    let request = Request::parse(&bytes).expect("a request");
    let spec = match identify(&request) {
        Ok(spec) | Err(Fault::Arity(spec)) => Some(spec),
        Err(Fault::Unknown) => None,
    };
    // It takes for a number of keys what is none to the command.
    if let Some(Keys::Counted(counted)) = spec.map(|spec| spec.keys)
        && asked.get(usize::from(counted.at)).is_some_and(|number| integer(number).is_none())
    {
        return true;
    }
    // A server before 7.2 knows no GETKEYS of commands without arguments, and no WITHSCORE of ZRANK.
    asked.len() == 1
        || ["zrank", "zrevrank"].contains(&name.as_str())
        // It does not have the command.
        || spec.is_some_and(|spec| added_later(spec.name))
        || LATER.contains(&name.as_str())
        || name == "hotring"
        // It looks less closely than these do: a destination that another one replaces, a source that may be left out,
        // options in the place of keys, a key without a value. To hotring channels are keys.
        || ["sort", "georadius", "georadiusbymember", "migrate", "pfmerge", "xread", "xreadgroup", "mset", "msetnx"].contains(&name.as_str())
        || ["spublish", "ssubscribe", "sunsubscribe"].contains(&name.as_str())
}

/// The replies that an array consists of.
fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = reply.strip_prefix(b"*").filter(|rest| !rest.starts_with(b"-"))?;
    rest = &rest[rest.windows(2).position(|pair| pair == b"\r\n")? + 2..];
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (element, behind) = rest.split_at(super::servers::reply_length(rest)?);
        elements.push(element);
        rest = behind;
    }
    Some(elements)
}

/// Whether hotring's reply is as good as the server's to the same command; `queued` are those that an EXEC carries out. `exact`: errors that hotring words are those of
/// this version of the server.
pub(crate) fn alike(args: &Args, queued: &[Args], ours: &[u8], theirs: &[u8], exact: bool) -> bool {
    if lower(&args[0]) == "exec" && !queued.is_empty() && ours != theirs {
        let (ours, theirs) = (elements(ours), elements(theirs));
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
        return ours.len() == queued.len()
            && theirs.len() == queued.len()
            && ours.iter().zip(theirs).zip(queued).all(|((ours, theirs), args)| alike(args, &[], ours, theirs, exact));
    }
    if ours == theirs || getkeys_differs(args) {
        return true;
    }
    if theirs.starts_with(b"-") || ours.starts_with(b"-") {
        let both = theirs.starts_with(b"-") && ours.starts_with(b"-");
        return both && (!exact || another_error_first(args) || theirs == CROSS_SLOT && formless(args, ours));
    }
    let (ours, theirs) = (Reply::parse(ours), Reply::parse(theirs));
    match likeness(args) {
        Likeness::Same => false,
        Likeness::Unordered => ours.sorted(1) == theirs.sorted(1),
        Likeness::Pairs => ours.sorted(2) == theirs.sorted(2),
        Likeness::Close => ours.is_close(&theirs),
        Likeness::AtMost => ours.is_at_most(&theirs),
        Likeness::Shape => ours.has_shape(&theirs),
        Likeness::Kind => {
            ours.kind() == theirs.kind() && ours.parts().map(<[Reply]>::len) == theirs.parts().map(<[Reply]>::len)
        }
        Likeness::Scan => match (&ours, &theirs) {
            (Reply::Array(a), Reply::Array(b)) => a[0] == b[0] && a[1].sorted(1) == b[1].sorted(1),
            _ => false,
        },
    }
}

fn likeness(args: &Args) -> Likeness {
    let has = |word: &str| args[1..].iter().any(|arg| lower(arg) == word);
    match lower(&args[0]).as_str() {
        // Hash tables tell their elements in an order of their own.
        "smembers" | "sinter" | "sunion" | "sdiff" | "hkeys" | "hvals" | "keys" => Likeness::Unordered,
        "hgetall" => Likeness::Pairs,
        "hscan" | "sscan" | "zscan" if args.get(2).is_some_and(|cursor| cursor == b"0") && has("1000") => {
            Likeness::Scan
        }
        // A table may be told in several parts, of any size.
        "hscan" | "sscan" | "zscan" | "scan" => Likeness::Kind,
        // The clock.
        "ttl" | "pttl" | "expiretime" | "pexpiretime" | "xpending" | "xinfo" => Likeness::Close,
        // When each server started, as long as none has saved.
        "lastsave" => Likeness::Close,
        "object" if has("idletime") => Likeness::Close,
        // Chance.
        "spop" | "srandmember" | "hrandfield" | "zrandmember" | "randomkey" | "memory" => Likeness::Shape,
        // The clock, and an id.
        "time" | "hello" => Likeness::Shape,
        // What EVAL brought to one shard is not on all; EVALSHA finds it all the same.
        "script" if has("exists") => Likeness::AtMost,
        // A table of functions, in its order.
        "function" if has("list") => Likeness::Kind,
        "sort" | "sort_ro" if has("by") => Likeness::Shape,
        // A table is dumped in its order.
        "dump" => Likeness::Shape,
        _ => Likeness::Same,
    }
}

/// A reply taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reply {
    /// A simple string, an error, a null, a double and so on, as it is.
    Line(Vec<u8>),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    /// Keys and values in turn.
    Map(Vec<Reply>),
}

impl Reply {
    pub(crate) fn parse(bytes: &[u8]) -> Reply {
        let (reply, used) = Self::front(bytes);
        assert_eq!(used, bytes.len(), "more than one reply");
        reply
    }

    fn front(bytes: &[u8]) -> (Reply, usize) {
        let line = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a whole reply") + 2;
        let number = std::str::from_utf8(&bytes[1..line - 2]).ok().and_then(|text| text.parse::<i64>().ok());
        match (bytes[0], number) {
            (b':', Some(number)) => (Reply::Integer(number), line),
            (b'$', Some(length @ 0..)) => {
                let end = line + length as usize;
                (Reply::Bulk(bytes[line..end].to_vec()), end + 2)
            }
            (kind @ (b'*' | b'~' | b'%'), Some(count @ 0..)) => {
                let mut at = line;
                let elements = (0..if kind == b'%' { 2 * count } else { count }).map(|_| {
                    let (element, used) = Self::front(&bytes[at..]);
                    at += used;
                    element
                });
                let elements = elements.collect();
                let reply = match kind {
                    b'*' => Reply::Array(elements),
                    b'~' => Reply::Set(elements),
                    _ => Reply::Map(elements),
                };
                (reply, at)
            }
            (b'=' | b'!' | b'>' | b'|', _) => panic!("no command replies so: {}", bytes[..line].escape_ascii()),
            _ => (Reply::Line(bytes[..line].to_vec()), line),
        }
    }

    fn kind(&self) -> std::mem::Discriminant<Reply> {
        std::mem::discriminant(self)
    }

    fn parts(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(parts) | Reply::Set(parts) | Reply::Map(parts) => Some(parts),
            _ => None,
        }
    }

    /// The elements, so many together, in order, and what they are elements of.
    fn sorted(&self, together: usize) -> (std::mem::Discriminant<Reply>, Vec<Vec<Reply>>) {
        let Some(elements) = self.parts() else { return (self.kind(), vec![vec![self.clone()]]) };
        let mut groups: Vec<Vec<Reply>> = elements.chunks(together).map(<[Reply]>::to_vec).collect();
        groups.sort();
        (self.kind(), groups)
    }

    /// Whether both are of one kind and their elements alike.
    fn all_alike(&self, other: &Reply, alike: impl Fn(&Reply, &Reply) -> bool) -> bool {
        match (self.parts(), other.parts()) {
            (Some(a), Some(b)) => {
                self.kind() == other.kind() && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
            }
            _ => self == other,
        }
    }

    fn is_close(&self, other: &Reply) -> bool {
        match (self, other) {
            // Negative numbers say something else than a time.
            (Reply::Integer(a), Reply::Integer(b)) => a == b || (*a >= 0 && *b >= 0 && a.abs_diff(*b) < 20_000),
            _ => self.all_alike(other, Reply::is_close),
        }
    }

    fn has_shape(&self, other: &Reply) -> bool {
        match (self, other) {
            (Reply::Integer(_), Reply::Integer(_)) | (Reply::Bulk(_), Reply::Bulk(_)) => true,
            (Reply::Line(a), Reply::Line(b)) if a.starts_with(b",") && b.starts_with(b",") => true,
            _ => self.all_alike(other, Reply::has_shape),
        }
    }

    /// Whether no number is more than the other's.
    fn is_at_most(&self, other: &Reply) -> bool {
        match (self, other) {
            (Reply::Integer(a), Reply::Integer(b)) => a <= b,
            _ => self.all_alike(other, Reply::is_at_most),
        }
    }
}

fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_lowercase()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
