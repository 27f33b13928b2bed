//! Real clients with their defaults, which know nothing of clusters, through hotring over a real cluster: all that they do over
//! static shards, and what a client that knows of clusters is told by the nodes themselves.
//!
//! What they do is in `clients/`; `setup` installs them. A client that is not installed is told of and skipped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Stand;

#[test]
fn redis_py_5_and_8_are_told_what_their_cluster_clients_are() {
    let stand = Stand::over_cluster(3);
    stand.python("venv", "redis_py_cluster.py");
    stand.python("apps", "redis_py_cluster.py");
}

#[test]
fn redis_py_5_and_8() {
    let stand = Stand::over_cluster(3);
    stand.python("venv", "redis_py_all.py");
    stand.python("apps", "redis_py_all.py");
}

#[test]
fn ioredis_5_and_6() {
    Stand::over_cluster(3).node("ioredis_all.js");
}
