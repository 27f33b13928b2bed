//! What a tenant asks, as its server is asked: every name with the prefix before it.
//!
//! Promises: a request is only carried if all names in it are known to be names, and have the prefix; it is written once, into
//! a buffer that is kept. What is about everybody's keys is refused.

use super::names::{self, Place};
use super::replies::Shape;
use crate::acl::Prefix;
use crate::command::{self, Keys, Local, Spec, Treatment, Why, flag};
use crate::error::{Cause, EVERYBODYS, KEY_TOLD_LATE, NO_DECLARED_KEYS};
use crate::resp::{Insert, Request, write};

/// The prefix, into an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// The argument's number.
    arg: u32,
    /// Where in it.
    at: u32,
    /// As it stands in patterns.
    pattern: bool,
}

/// Arguments that are added, as arguments 2 and on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Added {
    #[default]
    Nothing,
    /// A pattern for all of the tenant's names.
    All,
    /// The same behind MATCH.
    MatchAll,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outcome {
    pub(super) added: Added,
    /// What is told of keys in the reply.
    pub(super) shape: Shape,
}

/// Why a request is not carried.
pub(super) type Refused = (Cause, &'static str);

fn unsupported<T>(text: &'static str) -> Result<T, Refused> {
    Err((Cause::Unsupported, text))
}

/// Notes where the prefix has to stand in a request, in rising order.
///
/// # Errors
/// It cannot be carried for a tenant.
#[inline]
pub(super) fn edits(spec: &'static Spec, request: &Request<'_>, edits: &mut Vec<Edit>) -> Result<Outcome, Refused> {
    edits.clear();
    let added = match way(spec) {
        Way::First => {
            edits.push(plain(1));
            return Ok(Outcome { shape: Shape::of_first(spec.name), added: Added::Nothing });
        }
        Way::Declared => {
            declared(spec, request, edits)?;
            return Ok(Outcome::default());
        }
        Way::Told => others(spec, request, edits)?,
    };
    Ok(Outcome { shape: Shape::of(spec.name), added })
}

/// Which names there are in a command's requests, as far as that can be told by the command alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Argument 1.
    First,
    /// The declared keys, and none in its replies.
    Declared,
    /// Its arguments tell, or its name does.
    Told,
}

#[inline]
fn way(spec: &Spec) -> Way {
    match (spec.keys, spec.treatment) {
        (Keys::One, Treatment::Forward) => Way::First,
        (Keys::Range { .. }, Treatment::Split(_)) if spec.flags & flag::SETTLED == 0 => Way::Declared,
        _ => Way::Told,
    }
}

fn plain(arg: usize) -> Edit {
    Edit { arg: arg as u32, at: 0, pattern: false }
}

fn pattern(arg: usize) -> Edit {
    Edit { arg: arg as u32, at: 0, pattern: true }
}

fn others(spec: &'static Spec, request: &Request<'_>, edits: &mut Vec<Edit>) -> Result<Added, Refused> {
    let name = spec.name;
    match name {
        "dbsize" | "flushall" | "flushdb" | "randomkey" | "pubsub|numpat" | "script|flush" | "script|kill"
        | "slowlog|get" | "slowlog|len" | "slowlog|reset" => return unsupported(EVERYBODYS),
        _ if name.starts_with("function|") && !name.ends_with("|help") => return unsupported(EVERYBODYS),
        "keys" => edits.push(pattern(1)),
        "scan" => return Ok(scan(request, edits)),
        "sort" | "sort_ro" => {
            declared(spec, request, edits)?;
            sort_patterns(request, edits);
        }
        "publish" => {
            channel(request, 1, false, edits)?;
            if names::is_event(request.arg(1).unwrap_or_default()) {
                edits.push(plain(2));
            }
        }
        "subscribe" | "unsubscribe" | "pubsub|numsub" => {
            let first = if name == "pubsub|numsub" { 2 } else { 1 };
            (first..request.argc()).try_for_each(|at| channel(request, at, false, edits))?;
        }
        "psubscribe" | "punsubscribe" => {
            (1..request.argc()).try_for_each(|at| channel(request, at, true, edits))?;
        }
        "pubsub|channels" if request.argc() > 2 => channel(request, 2, true, edits)?,
        "pubsub|shardchannels" if request.argc() > 2 => edits.push(pattern(2)),
        "pubsub|channels" | "pubsub|shardchannels" => return Ok(Added::All),
        "pubsub|shardnumsub" => edits.extend((2..request.argc()).map(plain)),
        _ => {
            match command::treatment(spec, request) {
                // It is told of even where the pool carries it: what it tells of is everybody's.
                Treatment::Refuse(why @ (Why::OneServer | Why::Admin | Why::Cluster)) => {
                    return unsupported(why.text());
                }
                // Of a command that the configuration describes nothing else is known.
                Treatment::Forward if matches!(spec.keys, Keys::None) && !is_nobodys(name) => {
                    return unsupported(NO_DECLARED_KEYS);
                }
                _ => {}
            }
            declared(spec, request, edits)?;
        }
    }
    Ok(Added::Nothing)
}

/// Commands without keys that tell nothing of anybody's.
fn is_nobodys(name: &str) -> bool {
    matches!(name, "lolwut" | "script|show")
}

/// The declared keys.
fn declared(spec: &'static Spec, request: &Request<'_>, edits: &mut Vec<Edit>) -> Result<(), Refused> {
    command::keys(spec, request, &mut |at| edits.push(plain(at))).map_err(|text| (Cause::Syntax, text))
}

fn channel(request: &Request<'_>, at: usize, is_pattern: bool, edits: &mut Vec<Edit>) -> Result<(), Refused> {
    match names::place(request.arg(at).unwrap_or_default()) {
        Place::Nowhere => Ok(()),
        Place::Open => unsupported(KEY_TOLD_LATE),
        Place::At(place) => {
            edits.push(Edit { arg: at as u32, at: place as u32, pattern: is_pattern });
            Ok(())
        }
    }
}

/// MATCH, of which the last one counts; one is added where there is none. In front of the other options, so that what is wrong
/// with those stays as it is.
fn scan(request: &Request<'_>, edits: &mut Vec<Edit>) -> Added {
    let mut args = request.args().enumerate().skip(2);
    while let Some((_, option)) = args.next() {
        let Some((at, _)) = args.next() else { break };
        if option.eq_ignore_ascii_case(b"MATCH") {
            edits.push(pattern(at));
        }
    }
    if edits.is_empty() { Added::MatchAll } else { Added::Nothing }
}

/// BY and GET, where they name keys.
fn sort_patterns(request: &Request<'_>, edits: &mut Vec<Edit>) {
    let is = |option: &[u8], word: &str| option.eq_ignore_ascii_case(word.as_bytes());
    let mut args = request.args().enumerate().skip(2);
    while let Some((_, option)) = args.next() {
        if is(option, "LIMIT") {
            args.nth(1);
        } else if is(option, "STORE") {
            args.next();
        } else if (is(option, "BY") || is(option, "GET"))
            && let Some((at, value)) = args.next()
            && value.contains(&b'*')
        {
            edits.push(plain(at));
        }
    }
    edits.sort_unstable_by_key(|edit| edit.arg);
}

/// Whether a command may make the session another user's.
pub(super) fn changes_user(spec: &Spec) -> bool {
    matches!(spec.treatment, Treatment::Local(Local::Auth | Local::Hello | Local::Reset))
}

/// Writes the request as its server is asked, in the place of what `out` holds; `None` where it is too long to be one.
#[inline]
pub(super) fn written<'o>(
    request: &Request<'_>,
    prefix: &Prefix,
    edits: &[Edit],
    added: Added,
    out: &'o mut Vec<u8>,
) -> Option<Request<'o>> {
    if added != Added::Nothing {
        return with_pattern(request, prefix, added, out);
    }
    let insert = |edit: &Edit| {
        let bytes = if edit.pattern { prefix.pattern() } else { prefix.plain() };
        Insert { arg: edit.arg, at: edit.at, bytes }
    };
    request.with(edits.iter().map(insert), out)
}

/// The same with arguments that are added.
#[cold]
fn with_pattern<'o>(request: &Request<'_>, prefix: &Prefix, added: Added, out: &'o mut Vec<u8>) -> Option<Request<'o>> {
    let (wire, mut args) = (request.wire(), request.args());
    let first = args.at();
    args.nth(1);
    out.clear();
    write::array(out, request.argc().saturating_add(if added == Added::MatchAll { 2 } else { 1 }));
    out.extend_from_slice(wire.get(first..args.at())?);
    if added == Added::MatchAll {
        write::bulk(out, b"MATCH");
    }
    bulk(out, &[prefix.pattern(), b"*"]);
    out.extend_from_slice(wire.get(args.at()..)?);
    Request::of_any_length(out)
}

/// A request that asks for nothing.
#[cold]
pub(super) fn nothing(out: &mut Vec<u8>) -> Option<Request<'_>> {
    out.clear();
    write::request(out, &[b"PING"]);
    Request::of_any_length(out)
}

/// Appends a bulk string of several parts.
pub(super) fn bulk(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(b'$');
    write::number(out, parts.iter().map(|part| part.len() as u64).sum());
    out.extend_from_slice(b"\r\n");
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(line: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        write::request(&mut wire, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        wire
    }

    fn told(line: &str) -> Result<String, &'static str> {
        let (wire, prefix) = (wire(line), Prefix::new("t?:").unwrap());
        let request = Request::parse(&wire).unwrap();
        let spec = command::identify(&request).unwrap();
        let mut list = Vec::new();
        let Outcome { added, .. } = edits(spec, &request, &mut list).map_err(|(_, text)| text)?;
        let mut out = Vec::new();
        let request = written(&request, &prefix, &list, added, &mut out).expect("a request");
        let read = Request::parse(request.wire()).expect("well formed");
        assert_eq!(format!("{request:?}"), format!("{read:?}"), "it is known as it would be read");
        let words: Vec<String> = request.args().map(|arg| String::from_utf8(arg.to_vec()).unwrap()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn every_name_has_the_prefix() {
        for (line, expected) in [
            ("GET k", "GET t?:k"),
            ("MSET a 1 b 2", "MSET t?:a 1 t?:b 2"),
            ("EVAL x 2 a b c", "EVAL x 2 t?:a t?:b c"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZUNIONSTORE t?:d 2 t?:a t?:b WEIGHTS 1 2"),
            ("XREAD COUNT 1 STREAMS a b 0 0", "XREAD COUNT 1 STREAMS t?:a t?:b 0 0"),
            ("SORT k BY nosort GET # STORE d", "SORT t?:k BY nosort GET # STORE t?:d"),
            ("SORT k BY w_* GET # GET x*->f LIMIT BY w*", "SORT t?:k BY t?:w_* GET # GET t?:x*->f LIMIT BY w*"),
            ("MEMORY USAGE k", "MEMORY USAGE t?:k"),
            ("SCAN 0", "SCAN 0 MATCH t\\?:*"),
            ("SCAN 0 COUNT 5", "SCAN 0 MATCH t\\?:* COUNT 5"),
            ("SCAN 0 match a* COUNT 5 MATCH b", "SCAN 0 match t\\?:a* COUNT 5 MATCH t\\?:b"),
            ("SCAN 0 COUNT MATCH TYPE", "SCAN 0 MATCH t\\?:* COUNT MATCH TYPE"),
            ("KEYS *", "KEYS t\\?:*"),
            ("PUBLISH c m", "PUBLISH t?:c m"),
            ("PUBLISH __keyevent@0__:set k", "PUBLISH __keyevent@0__:set t?:k"),
            ("SPUBLISH c m", "SPUBLISH t?:c m"),
            ("SUBSCRIBE a __keyspace@0__:k", "SUBSCRIBE t?:a __keyspace@0__:t?:k"),
            ("PSUBSCRIBE a* __keyspace@*__:k* __keyevent@*", "PSUBSCRIBE t\\?:a* __keyspace@*__:t\\?:k* __keyevent@*"),
            ("PUBSUB CHANNELS", "PUBSUB CHANNELS t\\?:*"),
            ("PUBSUB CHANNELS a*", "PUBSUB CHANNELS t\\?:a*"),
            ("PUBSUB NUMSUB a b", "PUBSUB NUMSUB t?:a t?:b"),
            ("PUBSUB SHARDNUMSUB", "PUBSUB SHARDNUMSUB"),
            ("PING", "PING"),
            ("COMMAND GETKEYS GET k", "COMMAND GETKEYS GET k"),
        ] {
            assert_eq!(told(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn what_is_about_everybody_is_refused() {
        for line in [
            "FLUSHALL",
            "FLUSHDB ASYNC",
            "DBSIZE",
            "RANDOMKEY",
            "FUNCTION FLUSH",
            "FUNCTION LIST",
            "SCRIPT FLUSH",
            "PUBSUB NUMPAT",
            "SLOWLOG GET",
        ] {
            assert_eq!(told(line), Err(EVERYBODYS), "{line}");
        }
        assert_eq!(told("PSUBSCRIBE __keyspace@*"), Err(KEY_TOLD_LATE));
        assert_eq!(told("MEMORY STATS"), Err(Why::OneServer.text()));
        assert_eq!(told("MSETNX a 1 b"), Err("ERR wrong number of arguments for 'msetnx' command"));
    }

    #[test]
    fn of_described_commands_those_with_keys_are_carried() {
        let described = |name: &str, keys| command::Described { name: name.into(), keys, writes: false };
        command::teach(&[described("m.get", Some((1, -1, 1))), described("m.list", None)]);
        assert_eq!(told("M.GET a b").as_deref(), Ok("M.GET t?:a t?:b"));
        assert_eq!(told("M.LIST"), Err(NO_DECLARED_KEYS));
        command::teach(&[]);
    }

    proptest! {
        /// Whatever is asked: the same keys, each with the prefix, and nothing else is changed.
        #[test]
        fn nothing_but_names_is_changed(which in any::<usize>(), words in proptest::collection::vec(0usize..14, 0..9)) {
            const WORDS: [&str; 14] =
                ["a", "", "1", "2", "STORE", "STREAMS", "GROUP", "BY", "get", "COUNT", "LIMIT", "*", "x\r\ny", "BLOCK"];
            let all: Vec<&'static Spec> = command::all()
                .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
                .filter(|spec| !matches!(spec.keys, Keys::None) && spec.subcommands.is_empty())
                .collect();
            let spec = all[which % all.len()];
            let args: Vec<&[u8]> =
                spec.name.split('|').chain(words.iter().map(|&word| WORDS[word])).map(str::as_bytes).collect();
            let mut wire = Vec::new();
            write::request(&mut wire, &args);
            let request = Request::parse(&wire).unwrap();
            let prefix = Prefix::new("t?:").unwrap();
            let mut list = Vec::new();
            if let (Ok(spec), Ok(outcome)) = (command::identify(&request), edits(spec, &request, &mut list)) {
                let mut out = Vec::new();
                let changed = written(&request, &prefix, &list, outcome.added, &mut out).expect("a request");
                let read = Request::parse(changed.wire()).expect("well formed");
                prop_assert_eq!(format!("{:?}", &changed), format!("{:?}", &read));
                // It is carried as the command that it was.
                let same = command::identify(&changed).is_ok_and(|named| std::ptr::eq(named, spec));
                prop_assert!(same, "{}", spec.name);
                let (mut keys, mut same) = (Vec::new(), Vec::new());
                command::keys(spec, &request, &mut |at| keys.push(at)).expect("keys");
                command::keys(spec, &changed, &mut |at| same.push(at)).expect("keys");
                prop_assert_eq!(&keys, &same);
                prop_assert_eq!(request.argc(), changed.argc());
                for (at, (before, after)) in request.args().zip(changed.args()).enumerate() {
                    if keys.contains(&at) {
                        prop_assert_eq!([b"t?:", before].concat(), after);
                    } else {
                        // SORT's patterns are names of others.
                        let pattern = spec.name.starts_with("sort") && before.contains(&b'*');
                        prop_assert!(before == after || pattern);
                    }
                }
            }
        }
    }

    /// What is done for a command without a look at its name is what would be done with one.
    #[test]
    fn the_short_ways_lead_where_the_long_one_does() {
        let mut ways = [0; 3];
        for spec in command::numbered().filter(|spec| spec.subcommands.is_empty()) {
            ways[way(spec) as usize] += 1;
            let least = usize::from(spec.arity.unsigned_abs());
            let args: Vec<&[u8]> = spec.name.split('|').map(str::as_bytes).chain([&b"1"[..]; 8]).collect();
            let mut wire = Vec::new();
            write::request(&mut wire, &args[..if spec.arity < 0 { least | 1 } else { least }]);
            let request = Request::parse(&wire).unwrap();
            let (mut short, mut long) = (Vec::new(), Vec::new());
            let outcome = edits(spec, &request, &mut short);
            let told = others(spec, &request, &mut long).map(|added| Outcome { added, shape: Shape::of(spec.name) });
            assert_eq!((outcome, short), (told, long), "{}", spec.name);
        }
        assert!(ways[0] > 100 && ways[1] > 5, "{ways:?}");
    }

    /// Whatever the table has: a command that names keys, or channels, has the prefix before them or is refused.
    #[test]
    fn no_command_of_the_table_is_left_out() {
        let nameless = |spec: &Spec| {
            matches!(spec.treatment, Treatment::Local(_) | Treatment::Own(command::Need::Transaction))
                || matches!(spec.treatment, Treatment::Refuse(Why::Database))
                || spec.name.starts_with("wait")
                || matches!(spec.name, "lastsave" | "lolwut" | "script|show" | "script|exists" | "script|load")
                // From all.
                || spec.name.ends_with("unsubscribe")
        };
        let all = command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
        for spec in all.filter(|spec| spec.subcommands.is_empty()) {
            let mut args: Vec<&str> = spec.name.split('|').collect();
            let least = usize::from(spec.arity.unsigned_abs());
            let words: &[&str] = match spec.name {
                "pubsub|numsub" | "pubsub|shardnumsub" => &["1"],
                "xread" => &["STREAMS", "1", "1"],
                "xreadgroup" => &["GROUP", "1", "1", "STREAMS", "1", "1"],
                _ => &[],
            };
            args.extend(words);
            args.resize(args.len().max(least), "1");
            let line = args.join(" ");
            match told(&line) {
                Ok(out) => assert!(out.contains("t?:") || out.contains("t\\?:") || nameless(spec), "{line}: {out}"),
                Err(text) => assert!(!text.is_empty(), "{line}"),
            }
        }
    }
}
