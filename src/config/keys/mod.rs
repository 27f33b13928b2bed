//! Every key there is, with its default and its meaning; and which one was meant by a key there is not.
//!
//! Promises: the readers accept exactly these keys, and a key left out means its default as written here. README's table
//! is this list. The files of this folder have a part of it each.

mod access;
mod homes;
mod hot;
mod mirror;
mod misses;
mod process;
mod servers;
mod sessions;
mod sight;
mod tls;

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What is taken where the key is left out, as it would be written in a `proxy.yaml`; empty for "unset", `required` for
    /// keys that must be there.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    /// Whether twemproxy knows it, so that it may stand in a `nutcracker.yml`.
    pub twemproxy: bool,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of the file.
    Top,
    /// Under `log`.
    Log,
    /// Under `drain`.
    Drain,
    /// Under `tracing`.
    Tracing,
    /// Under `access_log`.
    AccessLog,
    /// Under `commands`, in a command.
    Command,
    /// Under `pools`, in a pool.
    Pool,
    /// In an entry of `servers` that is a map.
    Server,
    /// Under `server_auth`, `sentinel_auth` or, but for `user`, under `client_auth`.
    Auth,
    /// Under `tls`.
    Tls,
    /// In an entry of `certificates` under `tls`.
    Certificate,
    /// Under `server_tls` or `sentinel_tls`.
    ServerTls,
    /// Under `users`, in a user.
    User,
    /// In an entry of `rate_limits`.
    Limit,
    /// Under `hot_keys`.
    HotKeys,
    /// In an entry of `prefixes` under `hot_keys`.
    HotPrefix,
    /// Under `misses`.
    Misses,
    /// In an entry of `prefixes` under `misses`.
    MissPrefix,
    /// Under `mirror`.
    Mirror,
}

impl Place {
    /// In words, for messages.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Top => "at the top of the file",
            Self::Log => "under `log`",
            Self::Drain => "under `drain`",
            Self::Tracing => "under `tracing`",
            Self::AccessLog => "under `access_log`",
            Self::Command => "in a command under `commands`",
            Self::Pool => "in a pool",
            Self::Server => "in an entry of `servers`",
            Self::Auth => "under `server_auth`, `client_auth` or `sentinel_auth`",
            Self::Tls => "under `tls`",
            Self::Certificate => "in an entry of `certificates` under `tls`",
            Self::ServerTls => "under `server_tls` or `sentinel_tls`",
            Self::User => "in a user under `users`",
            Self::Limit => "in an entry of `rate_limits`",
            Self::HotKeys => "under `hot_keys`",
            Self::HotPrefix => "in an entry of `prefixes` under `hot_keys`",
            Self::Misses => "under `misses`",
            Self::MissPrefix => "in an entry of `prefixes` under `misses`",
            Self::Mirror => "under `mirror`",
        }
    }
}

const fn own(place: Place, name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, place, default, meaning, twemproxy: false }
}

const fn twemproxy(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, place: Place::Pool, default, meaning, twemproxy: true }
}

/// The parts, in the order of the whole.
const PARTS: &[&[Key]] = &[
    process::KEYS,
    servers::KEYS,
    sessions::KEYS,
    tls::KEYS,
    sight::KEYS,
    access::POOL,
    homes::KEYS,
    access::MAPS,
    hot::KEYS,
    misses::KEYS,
    mirror::KEYS,
];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

/// They are put together by the compiler, so that whoever reads the list has one slice.
const ALL: [Key; COUNT] = {
    let mut all = [PARTS[0][0]; COUNT];
    let (mut at, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut i = 0;
        while i < PARTS[part].len() {
            all[at] = PARTS[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    all
};

/// Every key, in the order in which README and `/config` show them.
pub const KEYS: &[Key] = &ALL;

/// The names of the keys at a place.
pub(super) fn names(place: Place) -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.place == place).map(|key| key.name).collect()
}

/// The names of the keys a pool of a `nutcracker.yml` may have.
pub(super) fn twemproxy_names() -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.twemproxy).map(|key| key.name).collect()
}

/// What to tell about a key that is none of `known`.
pub(super) fn unknown(name: &str, known: &[&'static str]) -> String {
    if name == "<<" {
        return "merge keys are not understood, write the keys out".to_owned();
    }
    match KEYS.iter().find(|key| key.name == name) {
        Some(_) if known.contains(&"hash") && names(Place::Pool).contains(&name) => {
            "unknown key, it is hotring's own; `hotring import` makes a proxy.yaml, which may have it".to_owned()
        }
        Some(Key { name: "user", .. }) => "unknown key, it stands under `server_auth`".to_owned(),
        Some(_) => {
            let places: Vec<&str> = KEYS.iter().filter(|key| key.name == name).map(|key| key.place.words()).collect();
            format!("unknown key, it stands {}", places.join(" or "))
        }
        None => match meant(name, known) {
            Some(meant) => format!("unknown key, did you mean `{meant}`?"),
            None => "unknown key".to_owned(),
        },
    }
}

/// The known key that `name` is closest to, if it is close.
pub(super) fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|known| (distance(&name, known), *known)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// Edits that make one text of the other: insert, delete, replace, swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("abc", "acb", 1), ("kitten", "sitting", 3), ("hash", "hash", 0)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn near_keys_are_meant() {
        let pool = names(Place::Pool);
        for (name, near) in [
            ("timout", Some("timeout")),
            ("server", Some("servers")),
            ("auto-eject-hosts", Some("auto_eject_hosts")),
            ("Timeout", Some("timeout")),
            ("reids", Some("redis")),
            ("nonsense", None),
            ("x", None),
        ] {
            assert_eq!(meant(name, &pool), near, "{name}");
        }
    }

    #[test]
    fn every_key_is_there_once() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..i].iter().any(|other| other.name == key.name && other.place == key.place), "{}", key.name);
        }
    }
}
