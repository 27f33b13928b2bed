//! A side: where it is, how it is spoken to, what it says that it is.

use crate::demo::{Answer, App};
use crate::units::{Address, Secret};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::fs;
use std::io;
use std::time::Duration;

/// How long connecting and the first question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server, or a proxy.
#[derive(Debug, Clone)]
pub struct Side {
    at: String,
    local: bool,
    auth: Option<Auth>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The user; without one the password is sent alone.
    pub user: Option<String>,
    /// The password.
    pub password: Secret,
}

impl Auth {
    /// From the text of a file: the password, or the user, a blank and the password.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let line = text.lines().next()?.trim_end_matches('\r');
        let (user, password) = match line.split_once(' ') {
            Some((user, password)) => (Some(user.to_owned()), password),
            None => (None, line),
        };
        (!password.is_empty()).then(|| Self { user, password: Secret::new(password) })
    }
}

impl From<&Address> for Side {
    fn from(address: &Address) -> Self {
        match address {
            Address::Tcp { host, .. } => {
                let local = host.eq_ignore_ascii_case("localhost")
                    || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                Self { at: address.to_string(), local, auth: None }
            }
            Address::Unix { path, .. } => Self { at: path.display().to_string(), local: true, auth: None },
        }
    }
}

impl Side {
    /// One on this machine.
    pub(super) fn to(at: String) -> Self {
        Self { at, local: true, auth: None }
    }

    /// The same, which wants to know first who asks.
    #[must_use]
    pub fn with_auth(self, auth: Option<Auth>) -> Self {
        Self { auth, ..self }
    }

    /// What it is told first.
    pub(super) fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Whether its address says that it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// A connection that may be used.
    pub(super) async fn connect(&self) -> io::Result<App> {
        let connecting = async {
            let mut app = App::to(&self.at).await?;
            if let Some(Auth { user, password }) = &self.auth {
                let password = password.expose().as_bytes();
                let answer = match user {
                    Some(user) => app.ask(&[b"AUTH", user.as_bytes(), password]).await?,
                    None => app.ask(&[b"AUTH", password]).await?,
                };
                if let Answer::Error(text) = answer {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                }
            }
            Ok(app)
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What it says of itself.
    pub(super) async fn facts(&self) -> io::Result<Facts> {
        let mut app = self.connect().await?;
        let asking = app.ask(&[b"INFO", b"server"]);
        match tokio::time::timeout(PATIENCE, asking).await.map_err(|_| io::ErrorKind::TimedOut)?? {
            Answer::Value(text) => Ok(Facts::read(&String::from_utf8_lossy(&text), self.local)),
            // A proxy that knows no INFO, such as twemproxy, closes the connection or says that it does not.
            Answer::Error(text) if text.starts_with("NOAUTH") => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
            _ => Ok(Facts::default()),
        }
    }
}

/// What a side says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    redis: Option<String>,
    hotring: Option<String>,
    /// Its process, if it is a hotring on this machine.
    process: Option<u32>,
}

impl Facts {
    fn read(info: &str, local: bool) -> Self {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.chars().filter(|c| !c.is_control()).take(64).collect::<String>())
        };
        let hotring = field("hotring_version");
        let process = field("process_id").and_then(|id| id.parse().ok());
        // In a container of its own its number is another's here.
        let process = process.filter(|&id| {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            hotring.is_some() && local && (name.trim_end() == "hotring" || id == std::process::id())
        });
        Self { redis: field("redis_version"), hotring, process }
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        match (self, self.process) {
            (Self { hotring: Some(version), .. }, Some(id)) => format!("hotring {version}, process {id}"),
            (Self { hotring: Some(version), .. }, None) => format!("hotring {version}"),
            (Self { redis: Some(version), .. }, _) => format!("Redis {version}"),
            _ => "it does not say what it is".to_owned(),
        }
    }

    /// Whether it is this process.
    pub(super) fn is_own(&self) -> bool {
        self.process == Some(std::process::id())
    }

    /// The CPU that the process has had, if it is a hotring on this machine.
    pub(super) fn cpu(&self) -> Option<Duration> {
        let id = self.process?;
        if self.is_own() {
            return Some(span(clock_gettime(ClockId::ProcessCPUTime)));
        }
        of_process(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?, rustix::param::clock_ticks_per_second())
    }
}

/// A clock's time as what it counts.
pub(super) fn span(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `utime` and `stime` of `/proc/<pid>/stat`, which counts all threads.
fn of_process(stat: &str, ticks: u64) -> Option<Duration> {
    // A program's name may have blanks and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let spent = next()? + next()?;
    Some(Duration::from_secs_f64(spent as f64 / ticks.max(1) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_of_a_process_is_read() {
        let stat = "7 (a )b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 3 0 1 1 1";
        assert_eq!(of_process(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(of_process("7 (a", 100), None);
    }

    #[test]
    fn a_side_is_what_it_says() {
        let redis = Facts::read("# Server\r\nredis_version:7.0.15\r\nprocess_id:1\r\n", true);
        assert_eq!((redis.told().as_str(), redis.process), ("Redis 7.0.15", None));
        let own = format!("redis_version:7.2.0\r\nhotring_version:0.1.0\r\nprocess_id:{}\r\n", std::process::id());
        assert!(Facts::read(&own, true).is_own() && Facts::read(&own, true).cpu().is_some());
        assert_eq!(Facts::read(&own, false), Facts { process: None, ..Facts::read(&own, true) });
        assert_eq!(Facts::default().cpu(), None);
        assert_eq!(Facts::read("redis_version:\u{1b}[2J7\r\n", true).told(), "Redis [2J7");
    }

    #[test]
    fn what_is_on_this_machine_is_known_by_its_address() {
        for (at, local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("LOCALHOST:1", true),
            ("/run/a.sock", true),
            ("10.0.0.1:1", false),
            ("redis:1", false),
        ] {
            assert_eq!(Side::from(&at.parse::<Address>().unwrap()).is_local(), local, "{at}");
        }
        assert_eq!(Side::from(&"/run/a.sock 0660".parse::<Address>().unwrap()).at(), "/run/a.sock");
    }

    #[test]
    fn a_password_may_have_a_user() {
        let read = |text| Auth::read(text).map(|auth| (auth.user, auth.password.expose().to_owned()));
        assert_eq!(read("secret\n"), Some((None, "secret".into())));
        assert_eq!(read("app top secret\r\n"), Some((Some("app".into()), "top secret".into())));
        assert_eq!((read(""), read("\nsecret"), read("app ")), (None, None, None));
    }
}
