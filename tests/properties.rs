//! What holds for any bytes: drawn by proptest, by lot from a seed, and by an oracle.
//!
//! The mutations are a bounded stand-in for the fuzzing targets of `tests/fuzz`, which need a nightly toolchain; what those
//! have found is kept in `tests/fuzz/corpus` and played here.
//! `HOTRING_MUTATIONS=<count>` makes more of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, dead_code, reason = "parts shared with other tests")]

#[path = "simulation/chance.rs"]
mod chance;
#[path = "support/fuzzing.rs"]
mod fuzzing;
#[path = "support/engine.rs"]
mod support;

use chance::Chance;
use hotring::resp::control::{self, Control};
use hotring::resp::{Limits, ReplyError, ReplyResume, Request, Resume, Scan, Skim, scan, skim, write};
use proptest::prelude::*;
use redis_protocol::resp2::{decode, encode, types::OwnedFrame, types::Resp2Frame};
use std::panic::{AssertUnwindSafe, catch_unwind};

// --- round trips and the oracle ---------------------------------------------------------------------------------------

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let word = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => "[\r\n$*0-9]{0,8}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 250..300),
    ];
    proptest::collection::vec(word, 1..8)
}

fn frame() -> impl Strategy<Value = OwnedFrame> {
    let line = "[ -~]{0,30}";
    let leaf = prop_oneof![
        line.prop_map(|text| OwnedFrame::SimpleString(text.into_bytes())),
        line.prop_map(OwnedFrame::Error),
        any::<i64>().prop_map(OwnedFrame::Integer),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(OwnedFrame::BulkString),
        Just(OwnedFrame::Null),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| proptest::collection::vec(inner, 0..6).prop_map(OwnedFrame::Array))
}

/// The bytes of a reply of any type that RESP3 knows.
fn resp3() -> impl Strategy<Value = Vec<u8>> {
    let line = |kind: char, text: &str| format!("{kind}{text}\r\n").into_bytes();
    let blob =
        |kind: u8, body: Vec<u8>| [&[kind][..], format!("{}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat();
    let body = || proptest::collection::vec(any::<u8>(), 0..30);
    let leaf = prop_oneof![
        "[ -~]{0,20}".prop_map(move |text| line('+', &text)),
        "[ -~]{0,20}".prop_map(move |text| line('-', &text)),
        any::<i64>().prop_map(move |number| line(':', &number.to_string())),
        any::<f64>().prop_map(move |number| line(',', &number.to_string())),
        "-?[1-9][0-9]{0,60}".prop_map(move |number| line('(', &number)),
        any::<bool>().prop_map(move |yes| line('#', if yes { "t" } else { "f" })),
        Just(b"_\r\n".to_vec()),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        body().prop_map(move |body| blob(b'$', body)),
        body().prop_map(move |body| blob(b'!', body)),
        body().prop_map(move |body| blob(b'=', [b"txt:", &body[..]].concat())),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let many = move |kind: char, each: usize, items: Vec<Vec<u8>>| {
            let whole = items.len() / each * each;
            [format!("{kind}{}\r\n", whole / each).into_bytes(), items[..whole].concat()].concat()
        };
        let items = || proptest::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items().prop_map(move |items| many('*', 1, items)),
            items().prop_map(move |items| many('~', 1, items)),
            items().prop_map(move |items| many('>', 1, items)),
            items().prop_map(move |items| many('%', 2, items)),
            // An attribute, and what it stands before.
            (items(), inner.clone()).prop_map(move |(items, reply)| [many('|', 2, items), reply].concat()),
        ]
    })
}

/// A reply of hotring's own.
fn own() -> impl Strategy<Value = Control> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Control::Simple),
        any::<String>().prop_map(Control::Error),
        any::<i64>().prop_map(Control::Integer),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Control::Bulk),
        proptest::collection::vec(any::<u8>(), 0..30).prop_map(Control::Text),
        Just(Control::Null),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Control::Array),
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Control::Set),
            proptest::collection::vec((inner.clone(), inner), 0..4).prop_map(Control::Map),
        ]
    })
}

/// A reply is found behind any beginning of it that came before, and nothing is found in the beginning.
fn found_wherever_cut(wire: &[u8], length: usize) -> Result<(), TestCaseError> {
    for cut in 0..=length {
        let mut resume = ReplyResume::default();
        if cut < length {
            match skim(&wire[..cut], &mut resume) {
                Ok(Skim::Incomplete { need }) => prop_assert!(cut < need && need <= length, "{} at {}", need, cut),
                other => prop_assert!(false, "{:?} at {}", other, cut),
            }
        }
        prop_assert_eq!(skim(wire, &mut resume), Ok(Skim::Reply(length)), "after {}", cut);
    }
    Ok(())
}

fn bytes_of(frame: &OwnedFrame) -> Vec<u8> {
    let mut out = vec![0; frame.encode_len(false)];
    encode::encode(&mut out, frame, false).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_request_is_found_wherever_it_is_cut(words in words(), tail in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut wire = Vec::new();
        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        write::request(&mut wire, &args);
        let length = wire.len();
        let limits = Limits::default();
        // The oracle agrees on where it ends and what is in it.
        let (told, used) = decode::decode(&wire).unwrap().unwrap();
        let items = args.iter().map(|arg| OwnedFrame::BulkString(arg.to_vec())).collect();
        prop_assert_eq!((told, used), (OwnedFrame::Array(items), length));
        wire.extend(tail);
        for cut in 0..=length {
            let mut resume = Resume::default();
            if cut < length {
                match scan(&wire[..cut], &mut resume, &limits) {
                    Ok(Scan::Incomplete { need }) => prop_assert!(cut < need && need <= length, "{} at {}", need, cut),
                    other => prop_assert!(false, "{:?} at {}", other, cut),
                }
            }
            match scan(&wire, &mut resume, &limits) {
                Ok(Scan::Request(found)) => {
                    prop_assert_eq!(found.wire(), &wire[..length]);
                    prop_assert_eq!(found.args().collect::<Vec<_>>(), args.clone());
                    prop_assert!((0..args.len()).all(|index| found.arg(index) == Some(args[index])));
                }
                other => prop_assert!(false, "{:?} after {}", other, cut),
            }
        }
    }

    #[test]
    fn a_reply_is_found_wherever_it_is_cut(frame in frame(), tail in proptest::collection::vec(any::<u8>(), 0..20)) {
        let mut wire = bytes_of(&frame);
        let length = wire.len();
        prop_assert_eq!(decode::decode(&wire).unwrap().unwrap().1, length);
        wire.extend(tail);
        found_wherever_cut(&wire, length)?;
    }

    #[test]
    fn a_reply_of_resp3_is_found_wherever_it_is_cut(
        reply in resp3(),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let length = reply.len();
        found_wherever_cut(&[reply, tail].concat(), length)?;
    }

    #[test]
    fn a_reply_of_its_own_is_one_reply_in_either_protocol(reply in own(), resp3 in any::<bool>()) {
        let mut wire = Vec::new();
        control::encode_for(resp3, &reply, &mut wire);
        found_wherever_cut(&wire, wire.len())?;
    }

    #[test]
    fn a_control_reply_is_skimmed_as_it_is_read(frame in frame()) {
        let wire = bytes_of(&frame);
        let (_, length) = control::parse(&wire).unwrap().unwrap();
        prop_assert_eq!(length, wire.len());
        fuzzing::controls(&wire);
    }

    #[test]
    fn an_inline_request_is_what_its_words_are(words in words()) {
        // Quoted as `redis-cli` quotes: everything that is not plain as \xHH.
        let quote = |word: &Vec<u8>| {
            let inner: String = word.iter().map(|&byte| match byte {
                b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            }).collect();
            format!("\"{inner}\"")
        };
        let line = words.iter().map(quote).collect::<Vec<_>>().join(" ") + "\r\n";
        let Ok(Scan::Inline { line, len }) = scan(line.as_bytes(), &mut Resume::default(), &Limits::default()) else {
            return Err(TestCaseError::fail("no inline request"));
        };
        prop_assert_eq!(len, line.len() + 2);
        let mut wire = Vec::new();
        hotring::resp::request::expand_inline(line, &mut wire).unwrap();
        let request = Request::parse(&wire).unwrap();
        prop_assert_eq!(request.args().map(<[u8]>::to_vec).collect::<Vec<_>>(), words);
    }

    #[test]
    fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzzing::scanning(&data);
        fuzzing::skimming(&data);
        fuzzing::controls(&data);
        fuzzing::engines(&data);
    }
}

// --- what attackers send ----------------------------------------------------------------------------------------------

fn scanned(bytes: &[u8]) -> String {
    match scan(bytes, &mut Resume::default(), &Limits::default()) {
        Ok(found) => format!("{found:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn depth_costs_nothing() {
    let deep = b"*1\r\n".repeat(100_000);
    assert_eq!(scanned(&deep), "Protocol error: expected '$', got '*'");
    let mut resume = ReplyResume::default();
    assert_eq!(skim(&deep, &mut resume), Ok(Skim::Incomplete { need: deep.len() + 1 }));
    let whole = [deep.as_slice(), b":1\r\n"].concat();
    assert_eq!(skim(&whole, &mut resume), Ok(Skim::Reply(whole.len())));
    assert_eq!(skim(&whole, &mut ReplyResume::default()), Ok(Skim::Reply(whole.len())));
    assert_eq!(control::parse(&whole), Err(control::Malformed));
}

#[test]
fn announced_lengths_cost_nothing() {
    for (request, told) in [
        ("*2\r\n$3\r\nGET\r\n$99999999999\r\n", "Protocol error: invalid bulk length"),
        ("*99999999999\r\n", "Protocol error: invalid multibulk length"),
        ("*1048577\r\n", "Protocol error: invalid multibulk length"),
        ("*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$-99999999999\r\n", "Protocol error: invalid bulk length"),
        ("*1\r\n$9223372036854775808\r\n", "Protocol error: invalid bulk length"),
        ("*-2147483649\r\n", "Nothing(14)"),
        ("*1\r\n$536870912\r\n", "Incomplete { need: 536870930 }"),
        ("*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"),
    ] {
        assert_eq!(scanned(request.as_bytes()), told, "{request:?}");
    }
    for reply in ["$99999999999\r\n", "$-2\r\n", "*-2\r\n", "*99999999999\r\n", "%99999999999\r\n", "$x\r\n", "$01\r\n"]
    {
        assert_eq!(skim(reply.as_bytes(), &mut ReplyResume::default()), Err(ReplyError::Length), "{reply:?}");
    }
    // Nor does what no server sends, and nobody could say the length of: RESP3's streamed strings and aggregates.
    for reply in ["$?\r\n;4\r\nHell\r\n;0\r\n", "*?\r\n:1\r\n.\r\n", "~?\r\n:1\r\n.\r\n", "%?\r\n+a\r\n:1\r\n.\r\n"] {
        assert_eq!(skim(reply.as_bytes(), &mut ReplyResume::default()), Err(ReplyError::Length), "{reply:?}");
    }
    for (reply, kind) in [(";4\r\nHell\r\n", b';'), (".\r\n", b'.')] {
        assert_eq!(skim(reply.as_bytes(), &mut ReplyResume::default()), Err(ReplyError::Type(kind)), "{reply:?}");
    }
    // Arrays in arrays: how many frames are to come is counted, and must not overflow.
    let nested = b"*1073741824\r\n".repeat(1000);
    assert!(matches!(skim(&nested, &mut ReplyResume::default()), Ok(Skim::Incomplete { .. })));
}

/// Twice the bytes take about twice the time, however small the pieces: nothing is looked at again.
#[test]
fn a_long_request_in_small_pieces_is_looked_at_once() {
    let wire = |count: usize| {
        let words = vec![&b"0123456789"[..]; count];
        let mut out = Vec::new();
        write::request(&mut out, &words);
        out
    };
    let bytes = wire(100_000);
    let mut resume = Resume::default();
    // 1.6 MB byte by byte: 100,000 times as much work, were each step to begin at the start.
    for end in 1..bytes.len() {
        assert!(matches!(scan(&bytes[..end], &mut resume, &Limits::default()), Ok(Scan::Incomplete { .. })));
    }
    assert!(matches!(scan(&bytes, &mut resume, &Limits::default()), Ok(Scan::Request(_))));
    let reply = [b"*100000\r\n".to_vec(), b"$10\r\n0123456789\r\n".repeat(100_000)].concat();
    let mut resume = ReplyResume::default();
    for end in 1..reply.len() {
        assert!(matches!(skim(&reply[..end], &mut resume), Ok(Skim::Incomplete { .. })));
    }
    assert_eq!(skim(&reply, &mut resume), Ok(Skim::Reply(reply.len())));
}

// --- mutations ----------------------------------------------------------------------------------------------------------

const REQUESTS: &[&[u8]] = &[
    b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n",
    b"*4\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    b"*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
    b"*3\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nz\r\n",
    b"*3\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n0\r\n",
    b"*4\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n1\r\n$1\r\nk\r\n",
    b"*6\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$1\r\n1\r\n$7\r\nSTREAMS\r\n$1\r\nk\r\n$1\r\n0\r\n",
    b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n",
    b"*3\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$1\r\nn\r\n",
    b"*3\r\n$7\r\nCOMMAND\r\n$4\r\nINFO\r\n$3\r\nget\r\n",
    b"*1\r\n$4\r\nQUIT\r\n",
    b"*2\r\n$5\r\nWATCH\r\n$1\r\nk\r\n",
    b"*1\r\n$5\r\nMULTI\r\n",
    b"*1\r\n$4\r\nEXEC\r\n",
    b"*1\r\n$7\r\nDISCARD\r\n",
    b"*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n",
    b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n$1\r\nd\r\n",
    b"*2\r\n$10\r\nPSUBSCRIBE\r\n$2\r\nc*\r\n",
    b"*1\r\n$11\r\nUNSUBSCRIBE\r\n",
    b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$1\r\nm\r\n",
    b"*2\r\n$4\r\nSCAN\r\n$1\r\n0\r\n",
    b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n",
    b"*1\r\n$6\r\nDBSIZE\r\n",
    b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n",
    b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n",
    b"*1\r\n$5\r\nRESET\r\n",
    b"*4\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n$1\r\n1\r\n$1\r\nk\r\n",
    b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$1\r\nx\r\n",
    b"*1\r\n$8\r\nFLUSHALL\r\n",
    b"GET 'k' \"\\x41\"\r\n",
    b"PING\n",
    b"*0\r\n",
    b"\r\n",
];

const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b"$5\r\nvalue\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*2\r\n$1\r\na\r\n$-1\r\n",
    b"*1\r\n*2\r\n:1\r\n+x\r\n",
    b"%1\r\n+a\r\n:1\r\n",
    b"|1\r\n+a\r\n:1\r\n+OK\r\n",
    b"~1\r\n#t\r\n",
    b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n",
    b"+QUEUED\r\n",
    b"-NOSCRIPT No matching script.\r\n",
    b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n",
    b"_\r\n,1.5\r\n(12345\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n",
];

/// Well-formed things, one after the other, with some damage.
fn mutated(chance: &mut Chance, seeds: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + chance.below(6) {
        bytes.extend_from_slice(chance.pick(seeds));
    }
    for _ in 0..chance.pick(&[0, 1, 1, 2, 5]) {
        damage(chance, &mut bytes);
    }
    bytes
}

fn damage(chance: &mut Chance, bytes: &mut Vec<u8>) {
    let at = chance.below(bytes.len().max(1)).min(bytes.len());
    let until = (at + chance.below(8)).min(bytes.len());
    match chance.below(7) {
        0 => bytes.insert(at, chance.next() as u8),
        1 => bytes.insert(at, chance.pick(b"*$+-:\r\n0129 '\"\\")),
        2 if at < bytes.len() => bytes[at] = chance.next() as u8,
        3 => drop(bytes.drain(at..until)),
        4 => bytes.extend_from_within(at..until),
        5 => bytes.truncate(at),
        _ => {
            let number =
                chance.pick(&[&b"-1"[..], b"0", b"00", b"99999999999", b"9223372036854775807", b"1048577", b"12"]);
            drop(bytes.splice(at..until, number.iter().copied()));
        }
    }
}

/// Steps of the engine's target, with well-formed bytes in most of them.
fn played(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = vec![chance.next() as u8];
    for _ in 0..4 + chance.below(30) {
        let step = chance.next() as u8;
        let piece = match step & 15 {
            0..=4 => mutated(chance, REQUESTS),
            5..=7 => mutated(chance, REPLIES),
            15 => vec![chance.next() as u8 | 0xf0; 3],
            _ => Vec::new(),
        };
        let length = piece.len().min(255);
        bytes.extend([step, length as u8]);
        bytes.extend_from_slice(&piece[..length]);
    }
    bytes
}

fn mutations(thousandth: u64, name: &str, make: impl Fn(&mut Chance) -> Vec<u8>, check: fn(&[u8])) {
    let all = std::env::var("HOTRING_MUTATIONS").map_or(200_000, |count| count.parse().expect("a number"));
    for seed in 0..all * thousandth / 1000 {
        let bytes = make(&mut Chance::new(seed));
        let survived = catch_unwind(AssertUnwindSafe(|| check(&bytes)));
        assert!(survived.is_ok(), "{name}, seed {seed}: {}", bytes.escape_ascii());
    }
}

#[test]
fn damaged_requests_are_survived() {
    mutations(400, "requests", |chance| mutated(chance, REQUESTS), fuzzing::scanning);
}

#[test]
fn damaged_replies_are_survived() {
    mutations(
        300,
        "replies",
        |chance| mutated(chance, REPLIES),
        |bytes| {
            fuzzing::skimming(bytes);
            fuzzing::controls(bytes);
        },
    );
}

#[test]
fn damaged_conversations_are_survived() {
    mutations(100, "conversations", played, fuzzing::engines);
}

#[test]
fn damaged_configs_are_survived() {
    let files: Vec<Vec<u8>> = std::fs::read_dir("tests/config")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .map(|path| std::fs::read(path).unwrap())
        .chain([std::fs::read("proxy.yaml").unwrap()])
        .collect();
    let seeds: Vec<&[u8]> = files.iter().map(Vec::as_slice).filter(|text| text.len() < 4000).collect();
    assert!(seeds.len() > 20);
    let make = |chance: &mut Chance| {
        let mut bytes = chance.pick(&seeds).to_vec();
        (0..chance.below(4)).for_each(|_| damage(chance, &mut bytes));
        bytes
    };
    mutations(10, "configs", make, fuzzing::configs);
}

// --- the corpus of tests/fuzz ---------------------------------------------------------------------------------------------

/// What a target has found to be worth keeping: as it is, and so many times with damage and parts of one another.
fn corpus(target: &str, thousandth: u64, check: fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(format!("tests/fuzz/corpus/{target}"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "bytes"))
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{} files for {target}", files.len());
    for (name, bytes) in &files {
        assert!(catch_unwind(AssertUnwindSafe(|| check(bytes))).is_ok(), "{name}");
    }
    let make = |chance: &mut Chance| {
        let any = |chance: &mut Chance| files[chance.below(files.len())].1.as_slice();
        let mut bytes = any(chance).to_vec();
        if chance.below(3) == 0 {
            bytes.truncate(chance.below(bytes.len().max(1)));
            let other = any(chance);
            bytes.extend_from_slice(&other[chance.below(other.len().max(1)).min(other.len())..]);
        }
        (0..chance.below(4)).for_each(|_| damage(chance, &mut bytes));
        bytes
    };
    mutations(thousandth, target, make, check);
}

#[test]
fn the_corpus_of_scan_is_survived() {
    corpus("scan", 20, fuzzing::scanning);
}

#[test]
fn the_corpus_of_skim_is_survived() {
    corpus("skim", 20, fuzzing::skimming);
}

#[test]
fn the_corpus_of_control_is_survived() {
    corpus("control", 40, fuzzing::controls);
}

#[test]
fn the_corpus_of_config_is_survived() {
    corpus("config", 2, fuzzing::configs);
}

#[test]
fn the_corpus_of_engine_is_survived() {
    corpus("engine", 5, fuzzing::engines);
}

#[test]
fn what_is_written_for_control_is_skimmed() {
    let mut wire = Vec::new();
    control::encode(&Control::Array(vec![Control::bulk("a"), Control::Null, Control::Integer(-1)]), &mut wire);
    assert_eq!(skim(&wire, &mut ReplyResume::default()), Ok(Skim::Reply(wire.len())));
}
