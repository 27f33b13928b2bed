//! What servers tell of themselves: INFO, asked by one worker every `info_interval` on a connection that is for nothing else.
//!
//! Promises: whatever a server does not tell is not made up, and what it has told is forgotten as soon as it does not answer. One
//! that refuses INFO costs one line of the log. Does not keep a server from being used, whatever it tells; that is the health
//! stage's business.

use super::connection::{Plan, Target};
use super::{dial, handshake};
use crate::contain::contained;
use crate::engine::port::Taken;
use crate::hub::{Hub, Socket};
use crate::metrics::{
    Exporter, InfoCounts, InfoMetrics, Role, Told, ToldCount, VersionCounts, VersionMetrics, Written,
};
use crate::resp::{ReplyResume, Skim, reply, skim, write};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes of an answer that are read at most; some servers tell a line of each client library or replica.
const LONGEST: usize = 256 * 1024;
/// How long it is let be after a panic.
const REST: Duration = Duration::from_secs(10);
const SECOND: u64 = 1_000_000;

/// Asks one server for as long as the worker lives, whenever it is to be asked.
pub struct Watch {
    /// The worker.
    pub hub: Rc<Hub>,
    /// The number of its pool.
    pub pool: u16,
    /// Its number.
    pub shard: u16,
    /// What its connection is to be; the line is not used.
    pub plan: Plan,
    /// Where what it tells is published.
    pub exporter: Arc<Exporter>,
    /// Its settings may have changed.
    pub knock: Rc<Notify>,
}

/// What has been told, and where it is published; dropping it takes it back.
struct Published {
    name: String,
    info: InfoMetrics,
    version: Option<(String, VersionMetrics)>,
}

/// What became of a question.
enum Answer {
    Told(String),
    /// It says that it may not be asked.
    Refused(String),
    /// It could not be asked, for this reason.
    None(&'static str),
}

#[derive(Default)]
struct State {
    socket: Option<Socket>,
    published: Option<Published>,
    /// The log knows that it refuses.
    refused: bool,
}

impl Watch {
    /// Asks until the worker ends.
    pub async fn keep(self) {
        while let Err(message) = contained(self.run()).await {
            self.hub.panicked("the one who asks a server about itself", &message);
            tokio::time::sleep(REST).await;
        }
    }

    async fn run(&self) {
        let mut state = State::default();
        loop {
            let target = self.plan.target();
            let gone = self.hub.engine().is_gone(self.pool, self.shard);
            let Some(interval) = target.config.info_interval.filter(|_| !gone) else {
                state = State::default();
                self.knock.notified().await;
                continue;
            };
            let answer = self.ask(&target, &mut state.socket).await;
            self.take(&target, answer, &mut state);
            // Time out or not: it is looked again.
            let _ = timeout(interval, self.knock.notified()).await;
        }
    }

    /// Asks on the connection there is, or on a new one.
    async fn ask(&self, target: &Target, held: &mut Option<Socket>) -> Answer {
        let patience = target.config.probe_within();
        if let Some(mut socket) = held.take()
            && let Ok(Some(answer)) = timeout(patience, info(&mut socket)).await
        {
            *held = Some(socket);
            return answer;
        }
        // It was closed meanwhile, or hangs: a new one tells which.
        tokio::time::sleep(target.gate.turn(None).unwrap_or_default()).await;
        let opening = dial::dial(&self.hub, &self.plan, target, target.config.connect_timeout);
        match timeout(patience, opening).await {
            Err(_) => Answer::None("no answer"),
            Ok(Err(reason)) => Answer::None(reason),
            Ok(Ok(opened)) => {
                let mut socket = opened.socket;
                match timeout(patience, info(&mut socket)).await {
                    Ok(Some(answer)) => {
                        *held = Some(socket);
                        answer
                    }
                    _ => Answer::None("no answer"),
                }
            }
        }
    }

    fn take(&self, target: &Target, answer: Answer, state: &mut State) {
        let (mut counts, version) = match answer {
            Answer::Told(text) => {
                state.refused = false;
                read(&text)
            }
            Answer::None(handshake::LOADING) => (InfoCounts { loading: Told(Some(1)), ..InfoCounts::default() }, None),
            Answer::None(_) => {
                state.published = None;
                return;
            }
            Answer::Refused(text) => {
                state.published = None;
                if !std::mem::replace(&mut state.refused, true) {
                    let (pool, shard) = (&target.pool, &target.server.name);
                    tracing::warn!(%pool, %shard, reason = text, "a server refuses INFO: there are no metrics of what it tells");
                }
                return;
            }
        };
        let name = &target.server.name;
        let same = state.published.take().filter(|published| published.name == *name);
        let mut published = same.unwrap_or_else(|| Published {
            name: name.clone(),
            info: self.exporter.info(&target.pool, name),
            version: None,
        });
        published.info.fold(&mut counts);
        if published.version.as_ref().map(|(known, _)| known) != version.as_ref() {
            published.version = version.map(|version| {
                let mut metrics = self.exporter.version(&target.pool, name, &version);
                metrics.fold(&mut VersionCounts { info: Told(Some(1)) });
                (version, metrics)
            });
        }
        state.published = Some(published);
    }
}

/// Asks on a connection; nothing when it has ended, or answers with what is no answer to INFO.
async fn info(socket: &mut Socket) -> Option<Answer> {
    let mut request = Vec::new();
    write::request(&mut request, &[b"INFO"]);
    if socket.offer(&request) != Taken::Some(request.len()) {
        return None;
    }
    let mut bytes = vec![0; 8 * 1024];
    let mut have: usize = 0;
    loop {
        let read = poll_fn(|cx| socket.poll_read(cx, bytes.get_mut(have..).unwrap_or_default())).await;
        match read {
            Ok(count) if count > 0 => have = have.saturating_add(count),
            _ => return None,
        }
        let got = bytes.get(..have).unwrap_or_default();
        match skim(got, &mut ReplyResume::default()) {
            Ok(Skim::Reply(length)) if length == have => {
                if let Some(text) = reply::error_text(got) {
                    return Some(Answer::Refused(String::from_utf8_lossy(text).into_owned()));
                }
                return reply::bulk(got).map(|text| Answer::Told(String::from_utf8_lossy(text).into_owned()));
            }
            Ok(Skim::Incomplete { need }) if need <= LONGEST => {
                let room = need.max(have.saturating_add(1));
                if bytes.len() < room {
                    bytes.resize(room, 0);
                }
            }
            _ => return None,
        }
    }
}

/// What an answer to INFO says, and the version of the server.
fn read(text: &str) -> (InfoCounts, Option<String>) {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let number = |name: &str| field(name).and_then(|value| value.parse::<u64>().ok());
    let told = |name: &str| Told(number(name));
    let count = |name: &str| ToldCount(number(name));
    let seconds = |name: &str| number(name).map(|value| value.saturating_mul(SECOND));
    let mut counts = InfoCounts {
        used_memory: told("used_memory"),
        max_memory: told("maxmemory"),
        evicted_keys: count("evicted_keys"),
        expired_keys: count("expired_keys"),
        keyspace_hits: count("keyspace_hits"),
        keyspace_misses: count("keyspace_misses"),
        clients: told("connected_clients"),
        max_clients: told("maxclients"),
        rejected_clients: count("rejected_connections"),
        commands: count("total_commands_processed"),
        operations: told("instantaneous_ops_per_sec"),
        loading: told("loading"),
        uptime: Told(seconds("uptime_in_seconds")),
        ..InfoCounts::default()
    };
    let primary = field("role").and_then(|role| match role {
        "master" => Some(true),
        "slave" => Some(false),
        _ => None,
    });
    if let Some(primary) = primary {
        counts.role[Role::Primary] = Told(Some(u64::from(primary)));
        counts.role[Role::Replica] = Told(Some(u64::from(!primary)));
    }
    if primary == Some(true) {
        counts.replicas = told("connected_slaves");
        let (bytes, silence) = replicas(text, number("master_repl_offset"));
        counts.replica_lag_bytes = Told(bytes);
        counts.replica_lag = Told(silence.map(|seconds| seconds.saturating_mul(SECOND)));
    }
    if primary == Some(false) {
        counts.link_up = Told(field("master_link_status").map(|status| u64::from(status == "up")));
        // Without a connection to its primary the one is -1, and the other is there.
        let silence = seconds("master_last_io_seconds_ago").or_else(|| seconds("master_link_down_since_seconds"));
        counts.link_silence = Told(silence);
    }
    let failed = |name: &str| field(name).map(|status| status != "ok");
    counts.write_failed[Written::Rdb] = Told(failed("rdb_last_bgsave_status").map(u64::from));
    if field("aof_enabled") == Some("1") {
        let parts = [failed("aof_last_write_status"), failed("aof_last_bgrewrite_status")];
        counts.write_failed[Written::Aof] = Told(parts.into_iter().flatten().max().map(u64::from));
    }
    let version = field("valkey_version").or_else(|| field("redis_version")).filter(|version| !version.is_empty());
    (counts, version.map(|version| version.chars().take(64).collect()))
}

/// Of a primary's replicas how many bytes the last is behind, and how long the quietest was quiet, in seconds; nothing without any.
fn replicas(text: &str, written: Option<u64>) -> (Option<u64>, Option<u64>) {
    let (mut bytes, mut silence) = (None, None);
    for line in text.lines().filter_map(|line| line.strip_prefix("slave")) {
        // As in `slave0:ip=10.0.0.1,port=6379,state=online,offset=14,lag=0`; other lines that begin so have no number next.
        let Some((number, fields)) = line.split_once(':') else { continue };
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let value = |name: &str| {
            let found = fields.trim().split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            found.and_then(|value| value.parse::<u64>().ok())
        };
        if let (Some(written), Some(offset)) = (written, value("offset")) {
            bytes = bytes.max(Some(written.saturating_sub(offset)));
        }
        silence = silence.max(value("lag"));
    }
    (bytes, silence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_tells_of_the_replica_farthest_behind() {
        let text = "# Server\r\nredis_version:7.2.4\r\nuptime_in_seconds:12\r\n# Clients\r\nconnected_clients:3\r\nmaxclients:100\r\n\
            used_memory:1000\r\nused_memory_human:1K\r\nmaxmemory:0\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=10.0.0.1,port=1,state=online,offset=90,lag=1\r\nslave1:ip=10.0.0.2,port=1,state=online,offset=40,lag=0\r\n\
            master_repl_offset:100\r\nslave_expires_tracked_keys:0\r\nrdb_last_bgsave_status:err\r\naof_enabled:0\r\n\
            aof_last_write_status:ok\r\nloading:0\r\n";
        let (counts, version) = read(text);
        assert_eq!(version.as_deref(), Some("7.2.4"));
        assert_eq!((counts.used_memory, counts.max_memory), (Told(Some(1000)), Told(Some(0))));
        assert_eq!((counts.replica_lag_bytes, counts.replica_lag), (Told(Some(60)), Told(Some(SECOND))));
        assert_eq!((counts.replicas, counts.link_up), (Told(Some(2)), Told(None)));
        assert_eq!(counts.role[Role::Primary], Told(Some(1)));
        assert_eq!(counts.role[Role::Replica], Told(Some(0)));
        assert_eq!(counts.write_failed[Written::Rdb], Told(Some(1)));
        assert_eq!(counts.write_failed[Written::Aof], Told(None), "what it does not write cannot fail");
        assert_eq!((counts.uptime, counts.evicted_keys), (Told(Some(12 * SECOND)), ToldCount(None)));
    }

    #[test]
    fn a_replica_tells_of_its_primary() {
        let up = "role:slave\nmaster_link_status:up\nmaster_last_io_seconds_ago:2\nmaster_repl_offset:5\n";
        let (counts, version) = read(up);
        assert_eq!((counts.link_up, counts.link_silence), (Told(Some(1)), Told(Some(2 * SECOND))));
        assert_eq!((counts.replica_lag_bytes, version), (Told(None), None));
        let down =
            "role:slave\nmaster_link_status:down\nmaster_last_io_seconds_ago:-1\nmaster_link_down_since_seconds:70\n";
        let (counts, _) = read(down);
        assert_eq!((counts.link_up, counts.link_silence), (Told(Some(0)), Told(Some(70 * SECOND))));
    }

    #[test]
    fn what_makes_no_sense_is_not_told() {
        let (counts, version) =
            read("used_memory:lots\nrole:king\nvalkey_version:\nslave0:offset=x\nconnected_clients:-4");
        assert_eq!((counts.used_memory, counts.clients, version), (Told(None), Told(None), None));
        assert_eq!(counts.role[Role::Primary], Told(None));
    }
}
