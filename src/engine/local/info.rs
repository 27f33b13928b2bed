//! INFO and CONFIG GET: what clients ask of a server before they trust it, and hotring's own.
//!
//! Nothing is invented: what hotring does not know of its shards (memory, persistence, replicas) is not told.

use super::{Answer, Asked, REDIS_VERSION};
use crate::command::Why;
use crate::engine::Engine;
use crate::error::Cause;
use crate::glob;
use crate::resp::control::Control;
use crate::resp::write;

pub(super) fn info(engine: &Engine, asked: &mut Asked<'_>) -> Answer {
    let wanted: Vec<&[u8]> = asked.request.args().skip(1).collect();
    let is = |name: &str| wanted.iter().any(|w| w.eq_ignore_ascii_case(name.as_bytes()));
    let all = wanted.is_empty() || is("all") || is("default") || is("everything");
    let mut text = String::new();
    for (section, body) in sections(engine, asked) {
        if all || is(section) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            for part in ["# ", section, "\r\n", &body] {
                text.push_str(part);
            }
        }
    }
    write::text(&mut asked.out, text.as_bytes(), asked.resp3);
    Ok(())
}

fn sections(engine: &Engine, asked: &Asked<'_>) -> [(&'static str, String); 7] {
    let about = engine.about;
    let number = engine.sessions.get(asked.id as usize).map(|session| session.pool);
    let pool = number.and_then(|number| engine.pools.get(usize::from(number)));
    let (name, shards, connections) =
        pool.map_or(("", 0, 0), |p| (p.config.name.as_str(), p.config.path.route.shards().len(), p.config.dealt));
    let uptime = engine.now / 1_000_000;
    [
        (
            "Server",
            format!(
                "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nhotring_version:{}\r\nos:{}\r\n\
                 arch_bits:{}\r\nprocess_id:{}\r\ntcp_port:{}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\n\
                 uptime_in_days:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::OS,
                usize::BITS,
                about.process,
                about.port,
                about.epoch.saturating_add(engine.now),
                uptime / 86_400,
            ),
        ),
        ("Clients", format!("connected_clients:{}\r\nblocked_clients:{}\r\n", engine.session_count(), engine.blocked)),
        ("Persistence", "loading:0\r\nasync_loading:0\r\n".into()),
        ("Stats", format!("total_commands_processed:{}\r\n", engine.requests)),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".into()),
        ("Cluster", "cluster_enabled:0\r\n".into()),
        (
            "Hotring",
            format!(
                "hotring_pool:{name}\r\nhotring_shards:{shards}\r\nhotring_connections_per_shard:{connections}\r\n\
                 hotring_in_flight:{}\r\n",
                engine.in_flight
            ),
        ),
    ]
}

/// CONFIG GET: the few parameters that clients ask for, as far as hotring has an answer.
pub(super) fn config(engine: &Engine, asked: &mut Asked<'_>) -> Answer {
    if asked.spec.name != "config|get" {
        return Err((Cause::Unsupported, Why::Admin.text().into()));
    }
    let number = engine.sessions.get(asked.id as usize).map(|session| session.pool);
    let pool = number.and_then(|number| engine.pools.get(usize::from(number)));
    let Some(pool) = pool.map(|pool| &pool.config) else { return Ok(()) };
    let slower_than = pool.slowlog.slower_than;
    let parameters = [
        ("appendonly", "no".into()),
        ("databases", pool.databases.to_string()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", pool.limits.bulk.to_string()),
        ("replica-read-only", "yes".into()),
        ("save", String::new()),
        ("slave-read-only", "yes".into()),
        ("slowlog-log-slower-than", slower_than.map_or("-1".into(), |span| span.as_micros().to_string())),
        ("slowlog-max-len", pool.slowlog.max_len.to_string()),
        ("timeout", "0".into()),
    ];
    let patterns: Vec<&[u8]> = asked.request.args().skip(2).collect();
    // A name is told as it was asked for, what a pattern found in lower case.
    let told = |name: &'static str| {
        let is_name = |pattern: &&[u8]| !pattern.iter().any(|b| b"[*?".contains(b));
        let mut asked_for = patterns.iter().copied();
        let found = asked_for.find(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()))?;
        Some(if is_name(&found) { found } else { name.as_bytes() })
    };
    let found = parameters.into_iter().filter_map(|(name, value)| Some((told(name)?, value)));
    let pairs = found.map(|(name, value)| (Control::bulk(name), Control::bulk(value))).collect();
    asked.reply(&Control::Map(pairs));
    Ok(())
}
