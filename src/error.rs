//! Every error that hotring itself sends to an app. Errors of a shard are passed on word for word and are not here.
//!
//! One [`Cause`] is one text, one label of `hotring_errors_total`, one line of README's table. A text says on which side it
//! broke, why, and whether sending the command again is safe.

use crate::resp::write;

pub use crate::metrics::Cause;

impl Cause {
    /// What README's table says of it: the text as sent (`…` where a name or a reason stands), then what to do.
    #[must_use]
    pub const fn manual(self) -> (&'static str, &'static str) {
        match self {
            Self::UnknownCommand => ("ERR unknown command '…', with args beginning with: …", "Redis' own words."),
            Self::Syntax => {
                ("ERR wrong number of arguments for '…' command", "Redis' own words, as for other syntax errors.")
            }
            Self::Protocol => ("ERR Protocol error: …", "Redis' own words; the connection is closed."),
            Self::CrossShard => {
                (CROSS_SHARD, "Give the keys one hash tag (`hash_tag: \"{}\"`), or send one command a key.")
            }
            Self::Unsupported => (
                "ERR hotring …",
                "A known command that hotring refuses; the text says why and what to do instead. All of them: docs/commands.md.",
            ),
            Self::Auth => ("NOAUTH Authentication required.", "Send AUTH; `WRONGPASS …` if the password is wrong."),
            Self::Denied => (
                "NOPERM this user has no permissions to …",
                "Redis' own words: the rules of the app's user (`users:`) do not allow the command, a key or a channel; `NOPERM the '…' command is denied by 'deny_commands' …` where nobody may run it.",
            ),
            Self::ReadOnly => (
                "READONLY You can't write against a read only pool: 'read_only' is set; nothing was sent",
                "The pool is for reading. Scripts that only read go as EVAL_RO, EVALSHA_RO and FCALL_RO.",
            ),
            Self::TooLong => (
                "ERR a value of … bytes is longer than 'max_value' of this pool (…); nothing was sent",
                "The same of keys and `max_key`. The connection stays as it is; a MSET is refused as a whole.",
            ),
            Self::RateLimited => (
                "ERR rate limited: the limit '…' of this pool is reached; nothing was sent, slow down",
                "Safe to retry, later and less often; the limit is the one of that name under `rate_limits`.",
            ),
            Self::Injected => ("…", "Somebody asked for it by `POST /faults`, and chose the text; nothing was sent."),
            Self::MissBudget => (
                "BUSY the miss budget of … is used up: the key is not there, and too many are being loaded; nothing was changed, slow down",
                "The key is missing and `miss_budget` lets no more of them be loaded now: answer without it, or retry a good deal later.",
            ),
            Self::MaxClients => {
                (MAX_CLIENTS, "`client_connections` is reached, or no descriptor is left; the connection is closed.")
            }
            Self::Memory => (
                OUT_OF_MEMORY,
                "What clients and servers make hotring hold has reached `max_memory`: raise it, or find out who does not read. Safe to retry later.",
            ),
            Self::ShardDown => {
                ("ERR shard … is down (…); nothing was sent", "Safe to retry later; hotring reconnects by itself.")
            }
            Self::NoShard => (
                "ERR no shard is left: all are ejected, or nobody has told yet which there are; nothing was sent",
                "Safe to retry later.",
            ),
            Self::NoSlot => (
                NO_SLOT,
                "Redis Cluster's own words: no node serves the key's slot, or none could be asked yet. Safe to retry later.",
            ),
            Self::Moving => (
                MOVING,
                "The key's slot is moving, and its nodes did not agree within `redirect_wait`; nothing was done. Safe to retry.",
            ),
            Self::Connect => ("ERR shard … cannot be reached (…); nothing was sent", "Safe to retry later."),
            Self::Timeout => (
                "ERR shard … timed out (…); the command may have run",
                "A write may have happened: read before retrying.",
            ),
            Self::Lost => (
                "ERR shard … was lost (…); the command may have run",
                "A write may have happened: read before retrying.",
            ),
            Self::Exhausted => (
                "ERR all … dedicated connections to shard … are in use; nothing was sent",
                "Raise `dedicated_connections`, or have fewer apps block or hold transactions open at a time.",
            ),
            Self::Garbage => ("ERR shard … broke the protocol (…); the command may have run", "Is it a Redis server?"),
        }
    }
}

/// What Redis Cluster answers, so that clients know it.
pub const CROSS_SHARD: &str = "CROSSSLOT Keys in request don't hash to the same slot";
/// What Redis Cluster answers for a slot that no node serves.
pub const NO_SLOT: &str = "CLUSTERDOWN Hash slot not served";
/// In place of a redirection that cannot be followed, or not any more.
pub const MOVING: &str = "TRYAGAIN the slot of this key is moving from one node to another; nothing was done";
/// The same of a part of a request that was split.
pub const PART_MOVING: &str = "TRYAGAIN the slot of one of these keys is moving from one node to another; of the other keys the command may have run";
/// In place of a redirection of EXEC.
pub const MOVED_TRANSACTION: &str =
    "EXECABORT Transaction discarded because the slot of its keys has moved; nothing of it was carried out";
/// For a transaction whose connection broke.
pub const TRANSACTION_LOST: &str =
    "EXECABORT Transaction discarded because the connection to its shard was lost; nothing of it was carried out";
/// For WAIT in a pool of several shards.
pub const ONE_SHARD_ONLY: &str =
    "ERR hotring carries WAIT only where a pool has one shard: the replicas of several cannot be told in one number";
/// For a command that may not be part of a transaction here.
pub const NOT_IN_TRANSACTION: &str =
    "ERR hotring does not carry this command within a transaction: it is not about keys of the transaction's shard";
/// For a command of a session with a prefix that is about more than its own keys.
pub const EVERYBODYS: &str = "ERR hotring does not carry this command for apps whose keys have a 'prefix': it is about everybody's keys, not only yours";
/// For a command of such a session whose keys nobody has described.
pub const NO_DECLARED_KEYS: &str = "ERR hotring does not carry this command for apps whose keys have a 'prefix': it is not known which keys it is about";
/// For a pattern of such a session that may be about everybody's keys.
pub const KEY_TOLD_LATE: &str = "ERR hotring does not carry this pattern for apps whose keys have a 'prefix': '__:' has to stand in it before the key";
/// For SUBSCRIBE where the shards are embedded nodes.
pub const NO_CHANNELS: &str = "ERR embedded nodes do not publish, so that nothing can be subscribed to. Name real servers in 'servers:' to use it";
/// What Redis answers above `maxclients`.
pub const MAX_CLIENTS: &str = "ERR max number of clients reached";
/// For requests and connections while the memory budget is used up.
pub const OUT_OF_MEMORY: &str =
    "OOM command not allowed when hotring's memory budget ('max_memory') is used up; nothing was sent";
/// What Redis answers before AUTH.
pub const NO_AUTH: &str = "NOAUTH Authentication required.";
/// What Redis answers to a wrong password.
pub const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// Something broke between hotring and a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Which text and label: `ShardDown`, `Connect`, `Timeout`, `Lost` or `Garbage`.
    pub cause: Cause,
    /// The reason in a few words, such as `connection refused`.
    pub reason: &'static str,
}

/// The reason of a shard that refuses HELLO.
pub const NO_RESP3: &str = "it does not speak RESP3";
/// The reason of a shard that refuses SELECT.
pub const NO_DATABASE: &str = "it has no such database";
/// The reason of a shard that refuses anything else of a handshake.
pub const NO_HANDSHAKE: &str = "it refused the handshake";

/// What is told where only replicas may answer a read, and none of the shard's is fit.
pub const NO_REPLICA: Failure =
    Failure { cause: Cause::ShardDown, reason: "none of its replicas is fit to be read from" };

/// The reason of a connection that was not tried, since too many others were.
pub const NO_TURN: &str = "more connections are wanted than `reconnect_rate` allows";

impl Failure {
    /// Whether it may tell of the protocol or the database that was asked for, and not of the shard.
    #[must_use]
    pub fn is_of_dialect(&self) -> bool {
        [NO_RESP3, NO_DATABASE, NO_HANDSHAKE].contains(&self.reason)
    }

    /// Appends the error reply for a request to `shard`. `sent` tells whether bytes of it may have left.
    pub fn write(&self, shard: &str, sent: bool, out: &mut Vec<u8>) {
        let what = match self.cause {
            Cause::Connect => "cannot be reached",
            Cause::Timeout => "timed out",
            Cause::Lost => "was lost",
            Cause::Garbage => "broke the protocol",
            _ => "is down",
        };
        let retry = if sent { "the command may have run" } else { "nothing was sent" };
        write::error(out, format!("ERR shard {shard} {what} ({}); {retry}", self.reason).as_bytes());
    }
}

/// Appends the error reply for [`Cause::RateLimited`]. Its first word is none that clients take for "again, at once".
pub fn rate_limited(limit: &str, out: &mut Vec<u8>) {
    let text = format!("ERR rate limited: the limit '{limit}' of this pool is reached; nothing was sent, slow down");
    write::error(out, text.as_bytes());
}

/// Appends the error reply for [`Cause::MissBudget`], of a prefix or of all keys.
pub fn miss_budget(prefix: Option<&[u8]>, out: &mut Vec<u8>) {
    let of =
        prefix.map_or("this pool".to_owned(), |prefix| format!("'{}'", String::from_utf8_lossy(prefix).escape_debug()));
    let text = format!(
        "BUSY the miss budget of {of} is used up: the key is not there, and too many are being loaded; nothing was changed, slow down"
    );
    write::error(out, text.as_bytes());
}

/// Appends the error reply for [`Cause::NoSlot`].
pub fn no_slot(out: &mut Vec<u8>) {
    write::error(out, NO_SLOT.as_bytes());
}

/// An error as it is told of a part of a request: what says that nothing was sent is true of that part alone. `None` for all else.
#[must_use]
pub fn in_doubt(reply: &[u8]) -> Option<Vec<u8>> {
    const CERTAIN: &[u8] = b"nothing was sent";
    let error = reply.strip_prefix(b"-")?;
    let at = error.windows(CERTAIN.len()).position(|text| text == CERTAIN)?;
    let (before, rest) = error.split_at_checked(at)?;
    Some([b"-", before, b"the command may have run", rest.strip_prefix(CERTAIN)?].concat())
}

/// Appends the error reply for [`Cause::NoShard`].
pub fn no_shard(out: &mut Vec<u8>) {
    write::error(
        out,
        b"ERR no shard is left: all are ejected, or nobody has told yet which there are; nothing was sent",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_whether_retrying_is_safe() {
        let failure = Failure { cause: Cause::Lost, reason: "connection reset" };
        let mut out = Vec::new();
        failure.write("s1", true, &mut out);
        failure.write("s1", false, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "-ERR shard s1 was lost (connection reset); the command may have run\r\n\
             -ERR shard s1 was lost (connection reset); nothing was sent\r\n"
        );
    }
}
