//! How a server that is gone without a word is noticed: keepalive probes, and how long sent bytes may stay unacknowledged.

use super::Config;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Silence after which the other side is probed.
const IDLE: Duration = Duration::from_secs(15);
/// Time between probes.
const STEP: Duration = Duration::from_secs(5);
/// Probes without an answer that end a connection.
const PROBES: u32 = 3;

/// Sets the options of a connection to a server. `always` probes it whatever the pool's `tcpkeepalive` says: one that may
/// wait for ever (a blocking command, a subscription) has no timeout that would notice.
pub(super) fn watch_server(socket: &TcpStream, config: &Config, always: bool) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let probed = always || config.tcpkeepalive;
    if probed {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE).with_interval(STEP).with_retries(PROBES))?;
    }
    // The kernel takes it for the end of unanswered probes, too (tcp(7)): one lost probe is not to end a connection.
    let least = if probed { IDLE + STEP * PROBES } else { Duration::ZERO };
    match config.tcp_user_timeout {
        Some(span) => socket.set_tcp_user_timeout(Some(span.max(least))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::connection::tests::config;
    use tokio::runtime::Builder;

    /// Keepalive, idle seconds, user timeout.
    fn options(config: &Config, always: bool) -> (bool, Duration, Option<Duration>) {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            watch_server(&socket, config, always).unwrap();
            let socket = SockRef::from(&socket);
            if always {
                assert_eq!(socket.tcp_keepalive_interval().unwrap(), STEP);
                assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
            }
            let time = socket.tcp_keepalive_time().unwrap();
            (socket.keepalive().unwrap(), time, socket.tcp_user_timeout().unwrap())
        })
    }

    #[test]
    fn connections_that_may_wait_for_ever_are_always_probed() {
        let mut config = config();
        let (probed, _, user_timeout) = options(&config, false);
        assert_eq!((probed, user_timeout), (false, None));
        assert_eq!(options(&config, true), (true, IDLE, None));
        config.tcpkeepalive = true;
        assert_eq!(options(&config, false), (true, IDLE, None));
        config.tcp_user_timeout = Some(Duration::from_secs(5));
        assert_eq!(options(&config, false).2, Some(Duration::from_secs(30)));
        config.tcpkeepalive = false;
        assert_eq!(options(&config, false).2, Some(Duration::from_secs(5)));
        config.tcp_user_timeout = Some(Duration::from_secs(60));
        assert_eq!(options(&config, true).2, Some(Duration::from_secs(60)));
    }
}
