//! What is said on a new connection before requests: AUTH, SELECT, READONLY to replicas in a cluster, ROLE where only a master
//! will do, and a PING that proves that the shard serves.

use super::Config;
use crate::engine::line::Dialect;
use crate::error::{NO_DATABASE, NO_HANDSHAKE, NO_RESP3};
use crate::resp::reply::{Elements, bulk};
use crate::resp::{ReplyResume, Skim, reply, skim, write};

/// Bytes of a handshake's replies that are read at most.
pub(super) const LONGEST: usize = 16 * 1024;

/// What is said of one that is.
pub(super) const LOADING: &str = "still loading its data";

/// The requests to send, and how many replies they get. `extra` is one more: READONLY, or ROLE, which asks whether it is a
/// master, since what sentinels name may have been demoted by the time a connection to it is opened.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "at most five requests; a database's number is bounded by the config"
)]
pub(super) fn requests(config: &Config, dialect: Dialect, extra: Option<&[u8]>) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    let mut count = 1;
    if let Some(password) = &config.password {
        match &config.user {
            Some(user) => write::request(&mut out, &[b"AUTH", user.as_bytes(), password.expose().as_bytes()]),
            None => write::request(&mut out, &[b"AUTH", password.expose().as_bytes()]),
        }
        count += 1;
    }
    // Apps count from the pool's own database, and have no other one where it is not 0.
    let db = config.db + u32::from(dialect.db);
    if db != 0 {
        write::request(&mut out, &[b"SELECT", db.to_string().as_bytes()]);
        count += 1;
    }
    if dialect.resp3 {
        write::request(&mut out, &[b"HELLO", b"3"]);
        count += 1;
    }
    if let Some(extra) = extra {
        write::request(&mut out, &[extra]);
        count += 1;
    }
    write::request(&mut out, &[b"PING"]);
    (out, count)
}

/// What is said of a server that is to be a master and is none.
const NO_MASTER: &str = "a replica, not the master that sentinels name";

/// What the replies so far mean.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More are to come.
    More,
    /// The shard serves.
    Done,
    /// It does not; the reason in a few words.
    Refused(&'static str),
}

/// Reads the replies to `count` requests of a handshake.
pub(super) fn read(replies: &[u8], count: usize) -> Progress {
    let mut rest = replies;
    for number in 0..count {
        let length = match skim(rest, &mut ReplyResume::default()) {
            Ok(Skim::Reply(length)) => length,
            Ok(Skim::Incomplete { .. }) if replies.len() < LONGEST => return Progress::More,
            _ => return Progress::Refused("not a Redis server"),
        };
        let Some((reply, others)) = rest.split_at_checked(length) else { return Progress::More };
        if let Some(text) = reply::error_text(reply) {
            let last = number.checked_add(1) == Some(count);
            if let Some(reason) = refusal(&String::from_utf8_lossy(text), last) {
                return Progress::Refused(reason);
            }
        } else if Elements::of(reply).is_some_and(|mut role| role.next().and_then(bulk) != Some(b"master")) {
            // Nothing but ROLE is answered by an array.
            return Progress::Refused(NO_MASTER);
        }
        rest = others;
    }
    if rest.is_empty() { Progress::Done } else { Progress::Refused("not a Redis server") }
}

/// Why an error in the handshake means that the shard does not serve, if it does.
fn refusal(text: &str, is_ping: bool) -> Option<&'static str> {
    let code = text.split(' ').next().unwrap_or_default();
    match code {
        "LOADING" => Some(LOADING),
        "MASTERDOWN" => Some("a replica without its master"),
        "NOAUTH" => Some("it wants a password"),
        "WRONGPASS" => Some("it refused the password"),
        // It answers. An ACL that does not grant PING still serves what it grants; one that is busy with a script or cannot
        // save says so to whoever asks for what it cannot do now.
        // The sentinels' word has to do.
        "NOPERM" if text.contains("'role'") => None,
        "NOPERM" | "BUSY" | "MISCONF" | "READONLY" | "OOM" if is_ping => None,
        // To READONLY: it is in no cluster (any more), and needs no leave to be read from.
        _ if text.contains("cluster support disabled") => None,
        "NOPROTO" => Some(NO_RESP3),
        _ if text.contains("unknown command") => Some(NO_RESP3),
        _ if text.contains("max number of clients") => Some("it has reached its maxclients"),
        _ if text.contains("without any password configured") => Some("it has no password but one is configured"),
        _ if text.contains("DB index") => Some(NO_DATABASE),
        _ => Some(NO_HANDSHAKE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_answers_serves() {
        assert_eq!(read(b"+PONG\r\n", 1), Progress::Done);
        assert_eq!(read(b"+OK\r\n+OK\r\n+PONG\r\n", 3), Progress::Done);
        assert_eq!(read(b"+OK\r\n-NOPERM no ping\r\n", 2), Progress::Done);
    }

    #[test]
    fn only_a_master_will_do_where_it_is_asked_for() {
        let config = super::super::connection::tests::config();
        let (asked, count) = requests(&config, Dialect::default(), Some(b"ROLE"));
        assert_eq!((asked.as_slice(), count), (&b"*1\r\n$4\r\nROLE\r\n*1\r\n$4\r\nPING\r\n"[..], 2));
        assert_eq!(read(b"*3\r\n$6\r\nmaster\r\n:151\r\n*0\r\n+PONG\r\n", 2), Progress::Done);
        let replica = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7999\r\n$9\r\nconnected\r\n:14\r\n+PONG\r\n";
        assert_eq!(read(replica, 2), Progress::Refused(NO_MASTER));
        let forbidden = b"-NOPERM this user has no permissions to run the 'role' command\r\n+PONG\r\n";
        assert_eq!(read(forbidden, 2), Progress::Done);
    }

    #[test]
    fn cut_anywhere_it_waits() {
        let replies = b"+OK\r\n+OK\r\n+PONG\r\n";
        for end in 0..replies.len() {
            assert_eq!(read(&replies[..end], 3), Progress::More, "{end}");
        }
    }

    #[test]
    fn reasons() {
        for (reply, reason) in [
            (&b"-LOADING Redis is loading the dataset in memory\r\n"[..], "still loading its data"),
            (b"-NOAUTH Authentication required.\r\n", "it wants a password"),
            (b"-WRONGPASS invalid\r\n", "it refused the password"),
            (b"-ERR max number of clients reached\r\n", "it has reached its maxclients"),
            (b"HTTP/1.1 400 Bad Request\r\n", "not a Redis server"),
            (b"+PONG\r\n+PONG\r\n", "not a Redis server"),
        ] {
            assert_eq!(read(reply, 1), Progress::Refused(reason));
        }
    }

    #[test]
    fn says_only_what_is_needed() {
        let mut config = super::super::connection::tests::config();
        assert_eq!(requests(&config, Dialect::default(), None), (b"*1\r\n$4\r\nPING\r\n".to_vec(), 1));
        config.db = 3;
        config.password = Some(crate::units::Secret::new("pw"));
        assert_eq!(
            requests(&config, Dialect::default(), None),
            (b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n".to_vec(), 3)
        );
        config = super::super::connection::tests::config();
        let readonly = b"*1\r\n$8\r\nREADONLY\r\n*1\r\n$4\r\nPING\r\n".to_vec();
        assert_eq!(requests(&config, Dialect::default(), Some(b"READONLY")), (readonly, 2));
        assert_eq!(read(b"-ERR This instance has cluster support disabled\r\n+PONG\r\n", 2), Progress::Done);
    }
}
