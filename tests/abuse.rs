//! Who asks for more than is decent, or answers it, costs memory that the config bounds, and costs others nothing.
//!
//! The memory is that of the process, as the system counts it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "chaos/mod.rs"]
mod chaos;
mod support;

use chaos::{Gone, Link, Process, Reply};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use support::{Client, Fake, Redis, Scratch, eventually, key_on, now, pool, shards, wire};

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;
/// What a debug build may take besides what its queues hold, in KiB.
const SLACK: usize = 16 * KIB;

fn start(dir: &Scratch, servers: &[impl AsRef<str>], keys: &[&str]) -> Process {
    let keys: Vec<&str> = keys.iter().copied().chain(["^log: {level: off}"]).collect();
    Process::start(&dir.write("proxy.yaml", &pool(servers, &keys)))
}

/// A client whose side of the network holds as little as the system allows.
fn narrow(hotring: &Process) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * KIB).unwrap();
    socket.set_send_buffer_size(16 * KIB).unwrap();
    socket.connect(&hotring.address().parse::<SocketAddr>().unwrap().into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Sends what the other side takes now; how much that was.
fn push(socket: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// Others are served.
fn serves(hotring: &Process, shards: usize) {
    let mut app = hotring.app();
    for round in 0..20 {
        for shard in 0..shards {
            let key = key_on(shard, shards);
            assert_eq!(app.ask(&format!("SET other:{key} {round}")), "+OK\r\n");
            assert_eq!(app.ask(&format!("GET other:{key}")), format!("${}\r\n{round}\r\n", round.to_string().len()));
        }
    }
}

#[test]
fn a_hundred_thousand_requests_whose_replies_nobody_reads() {
    const COUNT: usize = 100_000;
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let hotring = start(&dir, &at, &[]);
    let mut other = hotring.app();
    assert_eq!(other.call(&[&b"SET"[..], b"k", &vec![b'x'; KIB]]), b"+OK\r\n");
    serves(&hotring, 3);
    let before = hotring.memory().0;
    let requests = wire(&["GET", "k"]).repeat(COUNT);
    let mut greedy = narrow(&hotring);
    let mut sent = 0;
    // It is read from no longer, after some megabytes at the most: so many rounds bring nothing more.
    let mut idle = 0;
    while idle < 50 && sent < requests.len() {
        let more = push(&mut greedy, &requests[sent..]);
        sent += more;
        idle = if more == 0 { idle + 1 } else { 0 };
        assert_eq!(other.ask("PING"), "+PONG\r\n");
    }
    assert!(sent < requests.len(), "it has taken all of it");
    serves(&hotring, 3);
    let most = hotring.memory().1;
    assert!(most < before + 2 * KIB + SLACK, "{before} KiB before, {most} KiB at the most");
    // And whoever reads after all gets all of it.
    let (mut left, mut chunk) = (COUNT * (KIB + "$1024\r\n\r\n".len()), vec![0; MIB]);
    let start = now();
    while left > 0 {
        sent += push(&mut greedy, &requests[sent..]);
        match greedy.read(&mut chunk) {
            Ok(count) if count > 0 => left -= count,
            Ok(_) => panic!("closed with {left} bytes to come"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(start.elapsed() < support::FOREVER * 2, "{left} bytes do not come");
    }
    let most = hotring.memory().1;
    assert!(most < before + 2 * KIB + SLACK, "{before} KiB before, {most} KiB at the most");
}

#[test]
fn a_crowd_that_reads_nothing_has_its_output_limit_each() {
    const CROWD: usize = 200;
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let hotring = start(&dir, &at, &["max_output: 128kb"]);
    assert_eq!(hotring.app().call(&[&b"SET"[..], b"k", &vec![b'x'; KIB]]), b"+OK\r\n");
    serves(&hotring, 3);
    let before = hotring.memory().0;
    let requests = wire(&["GET", "k"]).repeat(1000);
    let mut crowd: Vec<TcpStream> = (0..CROWD).map(|_| narrow(&hotring)).collect();
    for _ in 0..10 {
        for socket in &mut crowd {
            // Whoever did not read is closed in the end.
            let _ = socket.write(&requests);
        }
        serves(&hotring, 3);
    }
    let most = hotring.memory().1;
    let bound = CROWD * 2 * 128;
    assert!(most < before + bound + SLACK, "{before} KiB before, {most} KiB at the most");
}

#[test]
fn uploads_that_stand_still_hold_what_has_arrived_and_not_what_was_announced() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let hotring = start(&dir, &at, &["max_outbox: 1mb"]);
    serves(&hotring, 3);
    let before = hotring.memory().0;
    let head = |bytes: usize| format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${bytes}\r\n").into_bytes();
    // One that is half through with 512 MiB, as far as this machine is patient, and many that have only begun.
    let mut half = Link::to(hotring.address()).unwrap();
    half.send(&head(512 * MIB)).unwrap();
    let piece = vec![b'x'; MIB];
    for _ in 0..64 {
        half.send(&piece).unwrap();
    }
    let crowd: Vec<Link> = (0..100)
        .map(|_| {
            let mut link = Link::to(hotring.address()).unwrap();
            link.send(&head(64 * MIB)).unwrap();
            link.send(&piece[..200 * KIB]).unwrap();
            link
        })
        .collect();
    serves(&hotring, 3);
    let most = hotring.memory().1;
    assert!(most < before + 100 * 256 + SLACK, "{before} KiB before, {most} KiB at the most");
    drop((half, crowd));
    let mut app = hotring.app();
    assert_eq!(app.ask("EXISTS k"), ":0\r\n", "none of them was carried out");
    serves(&hotring, 3);
}

/// A server that lies on its first connection and is honest after that; `more` is said again and again behind the lie.
fn liar(lie: Vec<u8>, more: Option<Vec<u8>>) -> Fake {
    Fake::start(move |visit| {
        visit.shake_hands();
        while visit.request().is_some() {
            if visit.number > 0 {
                visit.send(b"$4\r\ntrue\r\n");
                continue;
            }
            visit.send(&lie);
            if let Some(more) = &more {
                // 64 MiB; whoever believes it keeps that.
                let _ = (0..64 * MIB / more.len()).all(|_| visit.send(more));
                return;
            }
        }
    })
}

#[test]
fn more_clients_than_there_may_be_files() {
    let (_redis, at) = shards(3);
    let dir = Scratch::new();
    let config = dir.write("proxy.yaml", &pool(&at, &["^log: {level: off}", "preconnect: true"]));
    let hotring = Process::with_files(&config, 60);
    let mut first = hotring.app();
    let keys: Vec<String> = (0..3).map(|shard| key_on(shard, 3)).collect();
    let mut works = |n: usize| {
        for key in &keys {
            assert_eq!(first.ask(&format!("SET {key} {n}")), "+OK\r\n");
        }
        // What needs a connection of its own may get none, and says so.
        let said = [first.ask("MULTI"), first.ask(&format!("GET {}", keys[0])), first.ask("EXEC")];
        assert!(said[0] == "+OK\r\n" && (said[2].starts_with('*') || said[2].starts_with("-EXECABORT ")), "{said:?}");
    };
    works(0);
    for round in 1..4 {
        // The kernel accepts them, hotring cannot.
        let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(hotring.address()).unwrap()).collect();
        eventually("all files are in use", || {
            works(round);
            hotring.files() >= 60
        });
        (0..20).for_each(&mut works);
        drop(crowd);
        eventually("they are free again", || {
            works(round);
            hotring.files() < 40
        });
        // Whoever comes now is served, once those are gone that the kernel had accepted.
        eventually("all of them are gone", || hotring.app().ask("PING") == "+PONG\r\n" && hotring.files() < 40);
        serves(&hotring, 3);
    }
}

/// What it is, what is said, and what is said again and again behind it.
type Lie = (&'static str, Vec<u8>, Option<Vec<u8>>);

#[test]
fn lies_cost_the_connection_they_are_told_on() {
    let long = vec![b'a'; MIB];
    let lies: Vec<Lie> = vec![
        ("a length beyond all", b"$9223372036854775807\r\n".to_vec(), Some(long.clone())),
        ("one more", b"$9223372036854775808\r\n".to_vec(), Some(long.clone())),
        ("a negative length", b"$-2\r\n".to_vec(), None),
        ("as many elements", b"*9223372036854775807\r\n".to_vec(), Some(b":1\r\n".repeat(1000))),
        ("a line without end", b"+".to_vec(), Some(long.clone())),
        ("a number without end", b":".to_vec(), Some(b"1".repeat(MIB))),
        ("a length without end", b"$".to_vec(), Some(b"1".repeat(MIB))),
        ("an error without end", b"-".to_vec(), Some(long)),
        ("arrays in arrays", [b"*1\r\n".repeat(100_000), b"$1\r\n".to_vec()].concat(), Some(b"*1\r\n".repeat(10_000))),
        ("a string that does not end as it should", b"$4\r\ntrueXX$4\r\n".to_vec(), None),
        ("a map", b"%9223372036854775807\r\n".to_vec(), Some(b"+a\r\n".repeat(1000))),
        ("a push", b">2\r\n+invalidate\r\n:1\r\n".to_vec(), None),
        ("a stream", b"$?\r\n;4\r\ntrue\r\n;0\r\n".to_vec(), None),
        ("nothing but ends", b"\r\n\r\n\r\n".to_vec(), None),
        ("nothing at all", b"\0".repeat(100), None),
    ];
    for (name, lie, more) in lies {
        let redis = Redis::start(&[]);
        let liar = liar(lie, more);
        let dir = Scratch::new();
        let hotring = start(&dir, &[redis.address(), liar.address()], &["timeout: 3s"]);
        let (a, b) = (key_on(0, 2), key_on(1, 2));
        let mut other = hotring.app();
        assert_eq!(other.ask(&format!("SET {a} 1")), "+OK\r\n");
        let before = hotring.memory().0;
        let mut asking = Link::to(hotring.address()).unwrap();
        asking.send(&wire(&["GET", &b])).unwrap();
        // An error, or, where a part of it has been passed on already, the end. A well-formed reply is one, whatever it says.
        let said = asking.reply();
        let is_told = match &said {
            Ok(Reply::Error(text)) => text.starts_with("ERR shard s1 "),
            Ok(_) => false,
            Err(gone) => *gone != Gone::Hung,
        };
        assert!(is_told, "{name}: {said:?}");
        for _ in 0..20 {
            assert_eq!(other.ask(&format!("GET {a}")), "$1\r\n1\r\n", "{name}");
        }
        eventually(&format!("the shard is used again: {name}"), || {
            let mut app = hotring.app();
            app.ask(&format!("GET {b}")) == "$4\r\ntrue\r\n" && app.ask(&format!("GET {a}")) == "$1\r\n1\r\n"
        });
        let most = hotring.memory().1;
        assert!(most < before + SLACK, "{name}: {before} KiB before, {most} KiB at the most");
    }
}

/// What cannot be put together is an error; the connection is honest as far as hotring can see.
#[test]
fn parts_of_another_kind_are_not_put_together() {
    for (lie, asked) in [
        ("+OK\r\n", "MGET"),
        (":1\r\n", "MGET"),
        ("*3\r\n:1\r\n:2\r\n:3\r\n", "MGET"),
        ("*0\r\n", "MGET"),
        ("*-1\r\n", "MGET"),
        ("$4\r\ntrue\r\n", "DEL"),
        ("*1\r\n:1\r\n", "DEL"),
        ("+OK\r\n", "EXISTS"),
        (":99999999999999999999999999\r\n", "DEL"),
    ] {
        let redis = Redis::start(&[]);
        let liar = Fake::answering(move |_| lie.as_bytes().to_vec());
        let dir = Scratch::new();
        let hotring = start(&dir, &[redis.address(), liar.address()], &[]);
        let (a, b) = (key_on(0, 2), key_on(1, 2));
        let mut app: Client = hotring.app();
        let said = app.ask(&format!("{asked} {a} {b}"));
        assert!(said.starts_with("-ERR "), "{asked} with {lie:?}: {said:?}");
        assert_eq!(app.ask(&format!("SET {a} 1")), "+OK\r\n");
        assert_eq!(app.ask(&format!("GET {a}")), "$1\r\n1\r\n");
    }
}
