//! Bytes as no client library sends them: hotring and a real server say the same, and end the connection alike.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{Client, Hotring, Redis};

/// What the other side says to these bytes, when nothing follows them.
fn said(mut client: Client, bytes: &[u8]) -> Vec<u8> {
    // A side that has ended already takes no more.
    let _ = client.try_send(bytes);
    client.half_close();
    client.rest()
}

fn compare(redis: &Redis, hotring: &Hotring, cases: &[Vec<u8>]) {
    let mut wrong = Vec::new();
    for bytes in cases {
        let (ours, theirs) = (said(hotring.app(), bytes), said(redis.client(), bytes));
        if ours != theirs {
            let start = &bytes[..bytes.len().min(120)];
            let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
            wrong.push(format!("{} ({} bytes):\n  {ours}\n  {theirs}", start.escape_ascii(), bytes.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn inline_requests_are_split_as_redis_splits_them() {
    let (redis, hotring) = both(&[]);
    let cases: Vec<Vec<u8>> = INLINE.iter().map(|case| case.to_vec()).collect();
    compare(&redis, &hotring, &cases);
}

/// Requests that are not arrays.
const INLINE: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"ping\r\n",
    b"\r\n\r\nPING\r\n",
    b"\n\nPING\n",
    b"   \r\nPING\r\n",
    b"  PING  \r\n",
    b"\tPING\t\r\n",
    b"PING\x0bx\r\n",
    b"PING\x0cx\r\n",
    b"ECHO a b\r\n",
    b"ECHO \"a b\"\r\n",
    b"ECHO 'a b'\r\n",
    b"ECHO \"a\\\"b\"\r\n",
    b"ECHO 'a\\'b'\r\n",
    b"ECHO 'a\\nb'\r\n",
    b"ECHO \"a\\nb\\r\\t\\b\\a\\\\\\q\"\r\n",
    b"ECHO \"\\x41\\xfF\\x4\"\r\n",
    b"ECHO \"\\xzz\"\r\n",
    b"ECHO \"\"\r\n",
    b"ECHO ''\r\n",
    b"\"\"\r\nPING\r\n",
    b"ECHO a\"b\"\r\n",
    b"ECHO a\"b c\"\r\n",
    b"ECHO a'b c'\r\n",
    b"ECHO \"a\"b\r\n",
    b"ECHO 'a'b\r\n",
    b"ECHO \"a\r\nPING\r\n",
    b"ECHO 'a\r\n",
    b"ECHO 'a\\'\r\n",
    b"ECHO \"a\\\"\r\n",
    b"ECHO \"a\\\r\n",
    b"ECHO \xff\xfe\r\n",
    b"ECHO a\rb\r\n",
    b"ECHO a\r\r\n",
    b"SET k \"v w\"\r\nGET k\r\n",
    b"QUIT\r\nPING\r\n",
    b"$4\r\nPING\r\n",
    b"+PING\r\n",
    b"-1\r\n",
    b":1\r\n",
    b"%1\r\n",
    b"PING",
    b"NONSENSE 'a b' c\r\nPING\r\n",
];

#[test]
fn what_is_no_request_is_told_as_redis_tells_it() {
    let (redis, hotring) = both(&[]);
    let mut cases: Vec<Vec<u8>> = BROKEN.iter().map(|case| case.to_vec()).collect();
    // Lines that do not end, at the bound and beyond. Redis waits for as much of a number, too, and for the line of a zero
    // byte for ever; hotring says at once that it is none.
    for length in [65_534, 65_535, 65_536, 65_537, 70_000] {
        cases.push(vec![b'1'; length]);
    }
    for byte in 1..=255 {
        cases.push(vec![b'*', b'1', b'\r', b'\n', byte, b'4', b'\r', b'\n']);
        cases.push(vec![b'*', byte, b'\r', b'\n', b'$', b'4', b'\r', b'\n', b'P', b'I', b'N', b'G', b'\r', b'\n']);
        // A length that does not lead to a line end is an error to hotring; Redis skips two bytes, whatever they are.
        if (b'0'..=b'3').contains(&byte) {
            continue;
        }
        cases.push(vec![b'*', b'1', b'\r', b'\n', b'$', byte, b'\r', b'\n', b'P', b'I', b'N', b'G', b'\r', b'\n']);
    }
    compare(&redis, &hotring, &cases);
}

/// Arrays that are none.
const BROKEN: &[&[u8]] = &[
    b"*0\r\n*1\r\n$4\r\nPING\r\n",
    b"*-1\r\n*1\r\n$4\r\nPING\r\n",
    b"*-99999\r\n*1\r\n$4\r\nPING\r\n",
    b"*-9223372036854775809\r\n",
    b"*1048576\r\n",
    b"*2147483648\r\n",
    b"*9223372036854775807\r\n",
    b"*9223372036854775808\r\n",
    b"*18446744073709551617\r\n",
    b"*01\r\n$4\r\nPING\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"* 1\r\n$4\r\nPING\r\n",
    b"*1 \r\n$4\r\nPING\r\n",
    b"*\r\n$4\r\nPING\r\n",
    b"*x\r\n",
    b"*1x\r\n",
    b"*-0\r\n",
    b"*-\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-0\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$\r\nPING\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$4x\r\n",
    b"*1\r\n$536870912\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$9223372036854775808\r\n",
    b"*1\r\n$99999999999999999999999\r\n",
    b"*1\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n:4\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$1\r\n",
    b"*1\r\n$4\r\nPI",
    b"*1\r\n$4\r\nPING\r\nGARBAGE\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nPING\r\n*x\r\n*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$x\r\n",
];

#[test]
fn before_auth_requests_are_small() {
    let (redis, hotring) = both(&["--requirepass", "secret"]);
    let mut cases: Vec<Vec<u8>> = vec![
        b"*10\r\n".to_vec(),
        b"*11\r\n".to_vec(),
        b"*11\r\n$4\r\nPING\r\n".to_vec(),
        b"*99999999999\r\n".to_vec(),
        b"*x\r\n".to_vec(),
        b"*1\r\n$16384\r\n".to_vec(),
        b"*1\r\n$16385\r\n".to_vec(),
        b"*1\r\n$536870913\r\n".to_vec(),
        b"*1\r\n$-1\r\n".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"PING\r\n".to_vec(),
        b"AUTH secret\r\nPING\r\n".to_vec(),
        b"AUTH wrong\r\nPING\r\n".to_vec(),
        b"NONSENSE\r\nGET\r\nGET k\r\n".to_vec(),
        b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*11\r\n".to_vec(),
        b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*1\r\n$16385\r\n".to_vec(),
    ];
    let mut long = b"*2\r\n$4\r\nECHO\r\n$16384\r\n".to_vec();
    long.resize(long.len() + 16384, b'x');
    long.extend(b"\r\n");
    cases.push(long);
    let mut inline = b"ECHO ".to_vec();
    inline.resize(20_000, b'x');
    inline.extend(b"\r\n");
    cases.push(inline);
    compare(&redis, &hotring, &cases);
}

fn both(arguments: &[&str]) -> (Redis, Hotring) {
    let redis = Redis::tcp(arguments);
    let keys: &[&str] = if arguments.is_empty() { &[] } else { &["redis_auth: secret"] };
    let hotring = Hotring::over(&[redis.address()], keys);
    (redis, hotring)
}
