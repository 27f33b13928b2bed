//! Real clients through hotring over three shards, with all that needs more than a request and its reply: transactions,
//! WATCH, blocking commands, publish and subscribe, scripts, SCAN, databases, RESP3.
//!
//! What they do is in `clients/`; `setup` installs them. A client that is not installed is told of and skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Command;
use support::{Stand, installed, source};

#[test]
fn redis_py_5() {
    Stand::over(3).python("venv", "redis_py_all.py");
}

#[test]
fn redis_py_8() {
    Stand::over(3).python("apps", "redis_py_all.py");
}

#[test]
fn valkey_glide() {
    Stand::over(3).python("apps", "glide_all.py");
}

#[test]
fn ioredis_5_and_6() {
    Stand::over(3).node("ioredis_all.js");
}

#[test]
fn node_redis_4_and_6() {
    Stand::over(3).node("node_redis_all.js");
}

#[test]
fn redis_cli_in_both_protocols() {
    let stand = Stand::over(3);
    for (resp, protocol, between) in [("-2", 2, "\n"), ("-3", 3, " ")] {
        let told = stand.redis_cli(&[resp], "HELLO\nHSET {t}:h f v\nHGETALL {t}:h\nDEL {t}:h\n");
        assert!(told.contains(&format!("\nproto{between}{protocol}\n")), "{told}");
        assert!(told.ends_with(&format!("\n1\nf{between}v\n1\n")), "{told}");
        let told = stand.redis_cli(&[resp], "MULTI\nSET {t}:a 1\nINCR {t}:b\nEXEC\nDEL {t}:a {t}:b\n");
        assert_eq!(told, "OK\nQUEUED\nQUEUED\nOK\n1\n2\n");
        let told = stand.redis_cli(&[resp], "RPUSH q x\nBLPOP q 1\nEVAL \"return ARGV[1]\" 0 said\n");
        assert_eq!(told, "1\nq\nx\nsaid\n");
        let lines: String = (0..100).map(|n| format!("SET {n}:key {n}\n")).collect();
        assert_eq!(stand.redis_cli(&[resp, "-n", "1"], &lines), "OK\n".repeat(100));
        assert_eq!(stand.redis_cli(&[resp, "-n", "1", "--scan", "--pattern", "*:key"], "").lines().count(), 100);
        assert!(stand.redis_cli(&[resp, "-n", "1", "--bigkeys"], "").contains("Sampled 100 keys in the keyspace"));
        assert_eq!(stand.redis_cli(&[resp], "DBSIZE\n"), "0\n");
        assert_eq!(stand.redis_cli(&[resp, "-n", "1"], "FLUSHDB\nDBSIZE\n"), "OK\n0\n");
    }
}

/// The clients in Rust are a package of their own, with a lock file of its own: none of what they need is hotring's.
#[test]
fn redis_rs_and_fred() {
    let (manifest, target) = (source("rust/Cargo.toml"), installed("rust"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    let built = cargo.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Stand::over(3).run(&mut Command::new(target.join("debug/hotring-test-clients")));
}
