//! Real primaries and replicas, what a pool over them is, and reads of them until something is so.

use super::{Client, FOREVER, Redis, now};

/// A server on a port, which begins to feed a replica at once.
pub(crate) fn primary() -> Redis {
    Redis::tcp(&["--repl-diskless-sync-delay", "0"])
}

/// A replica of the server at this address, on a unix socket.
pub(crate) fn replica(of: &str) -> Redis {
    let (host, port) = of.rsplit_once(':').unwrap();
    Redis::start(&["--replicaof", host, port])
}

/// A pool of one server with these replicas; `more` are lines of the pool.
pub(crate) fn replicated(primary: &str, replicas: &[&str], more: &str) -> String {
    let listed = replicas.iter().map(|at| format!("\"{at}\"")).collect::<Vec<_>>().join(", ");
    let listed = if replicas.is_empty() { String::new() } else { format!("    replicas: {{s0: [{listed}]}}\n") };
    format!(
        "watch: off\npools:\n  main:\n    listen: 127.0.0.1:0\n    servers: [\"{primary}:1 s0\"]\n{listed}    probe_interval: 100ms\n    \
         timeout: 1m\n    connect_timeout: 1m\n    {more}\n"
    )
}

/// Reads these keys in turn until something is so; every answer must be this one.
pub(crate) fn read_until(app: &mut Client, keys: &[&str], value: &str, what: &str, mut is_so: impl FnMut() -> bool) {
    let (start, reply) = (now(), format!("${}\r\n{value}\r\n", value.len()));
    loop {
        let batch = now();
        for key in keys.iter().cycle().take(50) {
            assert_eq!(app.ask(&format!("GET {key}")), reply, "while waiting: {what}");
        }
        // `timeout` is a minute: nobody has waited for that.
        assert!(batch.elapsed() < FOREVER / 2, "{what}");
        if is_so() {
            return;
        }
        assert!(start.elapsed() < FOREVER, "still not so: {what}");
    }
}

/// Reads them until each of these has answered, from now on.
pub(crate) fn until_read_from(app: &mut Client, keys: &[&str], value: &str, servers: &[&Redis]) {
    let before: Vec<u64> = servers.iter().map(|redis| redis.calls("get")).collect();
    read_until(app, keys, value, "all are read from", || {
        servers.iter().zip(&before).all(|(redis, before)| redis.calls("get") > before + 20)
    });
}
