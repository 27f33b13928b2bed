//! Commands about the node itself.

use super::Eviction;
use super::commands::{Call, Outcome};
use super::keys;
use super::reply::{self, Refusal};

/// The Redis whose behaviour the node has.
const REDIS_VERSION: &str = "7.0.15";

/// `PING [message]`
pub(super) fn ping(call: &mut Call<'_>) -> Outcome {
    match call.args {
        [_] => reply::status(call.out, "PONG"),
        [_, message] => reply::bulk(call.out, message),
        _ => return Err(Refusal::arity(call.name)),
    }
    Ok(())
}

/// `ECHO message`
pub(super) fn echo(call: &mut Call<'_>) -> Outcome {
    reply::bulk(call.out, call.args[1]);
    Ok(())
}

/// `SELECT 0`
pub(super) fn select(call: &mut Call<'_>) -> Outcome {
    keys::database(call.args[1], "select")?;
    reply::ok(call.out);
    Ok(())
}

/// `TIME`, to the millisecond
pub(super) fn time(call: &mut Call<'_>) -> Outcome {
    let now = call.store.now();
    reply::array(call.out, 2);
    reply::bulk(call.out, (now / 1_000).to_string().as_bytes());
    reply::bulk(call.out, (now % 1_000 * 1_000).to_string().as_bytes());
    Ok(())
}

/// `LASTSAVE`: never
pub(super) fn lastsave(call: &mut Call<'_>) -> Outcome {
    reply::integer(call.out, 0);
    Ok(())
}

/// `INFO [section ...]`: those of Redis' fields that mean something here
pub(super) fn info(call: &mut Call<'_>) -> Outcome {
    const ALL: [&[u8]; 3] = [b"all", b"default", b"everything"];
    let stats = call.store.stats();
    let (maxmemory, eviction) = call.store.limit();
    let policy = match (maxmemory, eviction) {
        (0, _) => "noeviction",
        (_, Eviction::Lru) => "allkeys-lru",
        (_, Eviction::Lfu) => "allkeys-lfu",
    };
    let keyspace = match stats.keys {
        0 => String::new(),
        keys => format!("db0:keys={keys},expires={},avg_ttl=0\r\n", call.store.volatile()),
    };
    let sections = [
        (
            "Server",
            format!("redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nserver_name:hotring-embedded\r\n"),
        ),
        ("Memory", format!("used_memory:{}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n", stats.bytes)),
        (
            "Stats",
            format!(
                "expired_keys:{}\r\nevicted_keys:{}\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\n",
                stats.expired, stats.evictions, stats.hits, stats.misses
            ),
        ),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".to_owned()),
        ("Keyspace", keyspace),
    ];
    let wanted = &call.args[1..];
    let everything = wanted.is_empty() || wanted.iter().any(|name| ALL.contains(&name.to_ascii_lowercase().as_slice()));
    let text: Vec<String> = sections
        .iter()
        .filter(|(title, _)| everything || wanted.iter().any(|name| name.eq_ignore_ascii_case(title.as_bytes())))
        .map(|(title, fields)| format!("# {title}\r\n{fields}"))
        .collect();
    reply::verbatim(call.out, text.join("\r\n").as_bytes());
    Ok(())
}
