//! What the scanner and the skimmer cost, with `redis_protocol`'s decoder beside them. `cargo bench --bench resp` prints
//! nanoseconds and allocations for each frame.

#![allow(unsafe_code, reason = "an allocator that counts can only be unsafe")]
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]
#![allow(missing_docs, unreachable_pub, reason = "not a library")]

mod support;

use hotring::resp::{Limits, ReplyResume, Resume, Scan, Skim, request, scan, skim, write};
use redis_protocol::resp2::decode::decode;
use std::hint::black_box;
use support::{head, measure};

fn wire(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, words);
    out
}

/// Scans all of `bytes`, which hold whole requests; returns how many.
fn scan_all(bytes: &[u8], limits: &Limits) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        match scan(&bytes[at..], &mut Resume::default(), limits) {
            Ok(Scan::Request(request)) => {
                black_box(request.arg(1));
                at += request.wire().len();
            }
            Ok(Scan::Inline { line, len }) => {
                black_box(line);
                at += len;
            }
            other => panic!("{other:?}"),
        }
        count += 1;
    }
    count
}

fn skim_all(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        match skim(&bytes[at..], &mut ReplyResume::default()) {
            Ok(Skim::Reply(length)) => at += length,
            other => panic!("{other:?}"),
        }
        count += 1;
    }
    count
}

fn decode_all(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let (frame, length) = decode(&bytes[at..]).expect("a frame").expect("a whole one");
        black_box(frame);
        at += length;
        count += 1;
    }
    count
}

fn main() {
    let limits = Limits::default();
    let key = b"user:00000012345";
    let keys: Vec<String> = (0..10_000).map(|i| format!("user:{i:011}")).collect();
    let mget = |count: usize| {
        let words: Vec<&[u8]> =
            std::iter::once(&b"MGET"[..]).chain(keys[..count].iter().map(String::as_bytes)).collect();
        wire(&words)
    };
    let requests = [
        ("GET", wire(&[b"GET", key]).repeat(100)),
        ("SET, 64 B", wire(&[b"SET", key, &[b'x'; 64]]).repeat(100)),
        ("SET, 64 KiB", wire(&[b"SET", key, &[b'x'; 65_536]])),
        ("MGET of 100", mget(100)),
    ];
    head("scan, for each request");
    for (name, bytes) in &requests {
        let count = scan_all(bytes, &limits) as u64;
        measure(name, count, || {
            black_box(scan_all(black_box(bytes), &limits));
        });
    }
    let inline = b"GET user:00000012345\r\n".repeat(100);
    measure("GET, inline, expanded", 100, || {
        let mut at = 0;
        let mut out = Vec::with_capacity(64);
        while let Ok(Scan::Inline { line, len }) = scan(&inline[at..], &mut Resume::default(), &limits) {
            out.clear();
            request::expand_inline(line, &mut out).expect("balanced");
            black_box(&out);
            at += len;
        }
    });
    let large = mget(10_000);
    for piece in [16 * 1024, 1024] {
        measure(&format!("MGET of 10,000 in pieces of {piece} B"), 1, || {
            let mut resume = Resume::default();
            for end in (piece..large.len()).step_by(piece).chain([large.len()]) {
                let found = scan(&large[..end], &mut resume, &limits).expect("well formed");
                assert_eq!(matches!(found, Scan::Request(_)), end == large.len());
            }
        });
    }
    measure("MGET of 10,000 at once", 1, || {
        black_box(scan_all(black_box(&large), &limits));
    });

    let hash = [b"*200\r\n".to_vec(), b"$16\r\n0123456789abcdef\r\n".repeat(200)].concat();
    let replies = [
        ("$16", b"$16\r\n0123456789abcdef\r\n".repeat(100)),
        ("+OK", b"+OK\r\n".repeat(100)),
        (":1", b":1\r\n".repeat(100)),
        ("$-1", b"$-1\r\n".repeat(100)),
        ("array of 200", hash),
    ];
    head("skim, for each reply");
    for (name, bytes) in &replies {
        let count = skim_all(bytes) as u64;
        measure(name, count, || {
            black_box(skim_all(black_box(bytes)));
        });
    }

    head("redis_protocol's decoder, for each frame");
    for (name, bytes) in requests.iter().chain(&replies) {
        let count = decode_all(bytes) as u64;
        measure(name, count, || {
            black_box(decode_all(black_box(bytes)));
        });
    }
    measure("MGET of 10,000 in pieces of 16384 B", 1, || {
        for end in (16 * 1024..large.len()).step_by(16 * 1024).chain([large.len()]) {
            black_box(decode(&large[..end]).expect("well formed"));
        }
    });
}
