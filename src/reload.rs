//! What a change of the configuration means for a running process: when a file counts as changed, what of it cannot be taken
//! without a restart, and how the change is told.
//!
//! Promises: pure, but for looking at files. The change itself is made by `proxy`, `worker` and the engine.

use crate::config::Config;
use crate::downstream;
use crate::live::Change;
use crate::units::Address;
use crate::upstream::Servers;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Reloads since they were last published.
#[derive(Debug, Default)]
pub struct ReloadCounts {
    /// Files that were taken.
    pub done: u64,
    /// Files that were not.
    pub refused: u64,
}

/// The files that a configuration was read from, as they were then.
///
/// They are looked at from time to time and not watched by inotify: that sees neither network file systems nor, without much
/// care, the symlinks by which Kubernetes swaps a ConfigMap; and a look is one `stat(2)` a file.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    taken: Vec<Print>,
    last: Vec<Print>,
}

/// What tells one state of a file from another: device, inode, size, time of change. Nothing for a file that is not there.
type Print = Option<(u64, u64, u64, i64, i64)>;

impl Watched {
    /// The files of this configuration, as they are now.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let files = files_of(config);
        let taken: Vec<Print> = files.iter().map(print).collect();
        Self { files, last: taken.clone(), taken }
    }

    /// The files are about to be read: as they are now they count as taken. What changes from here on is a change.
    pub fn look(&mut self) {
        self.taken = self.files.iter().map(print).collect();
        self.last.clone_from(&self.taken);
    }

    /// Follows the files of this configuration from now on. Those that it had before are as they were seen last.
    pub fn follow(&mut self, config: &Config) {
        let files = files_of(config);
        if files == self.files {
            return;
        }
        let before = |file: &PathBuf| self.taken.get(self.files.iter().position(|known| known == file)?).copied();
        self.taken = files.iter().map(|file| before(file).unwrap_or_else(|| print(file))).collect();
        self.last.clone_from(&self.taken);
        self.files = files;
    }

    /// Whether the files are others than they were, and the same as when this was last asked: one that is still being written
    /// is left alone.
    pub fn has_settled(&mut self) -> bool {
        let now: Vec<Print> = self.files.iter().map(print).collect();
        let settled = now != self.taken && now == self.last;
        self.last = now;
        if settled {
            // Taken or refused: it is not read again as it is.
            self.taken.clone_from(&self.last);
        }
        settled
    }
}

fn files_of(config: &Config) -> Vec<PathBuf> {
    [&config.source.path].into_iter().chain(&config.source.files).cloned().collect()
}

fn print(file: &PathBuf) -> Print {
    let found = fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Keeps of a new configuration what a running process cannot change as it was, and names it.
pub fn keep_what_needs_a_restart(now: &Config, next: &mut Config) -> Vec<String> {
    let mut kept = Vec::new();
    let mut keep = |is_same: bool, what: &str| {
        if !is_same {
            kept.push(what.to_owned());
        }
    };
    keep(now.workers == next.workers, "`workers`");
    keep(now.max_pause == next.max_pause, "`max_pause`");
    keep(now.admin == next.admin || now.source.admin_given, "`admin`");
    keep(now.log == next.log, "`log`");
    keep(now.handover == next.handover, "`handover`");
    next.handover.clone_from(&now.handover);
    (next.workers, next.max_pause, next.log) = (now.workers, now.max_pause, now.log.clone());
    next.admin.clone_from(&now.admin);
    next.source.admin_given = now.source.admin_given;
    for pool in &mut next.pools {
        let Some(before) = now.pools.iter().find(|before| before.name == pool.name) else { continue };
        let (new, old) = (&mut pool.downstream, &before.downstream);
        let options = |config: &downstream::Config| (config.backlog, config.reuseport, config.client_tcpkeepalive);
        let stays = |address: &Address| old.listeners().any(|(before, _)| before.is_same_place(address));
        let sockets = options(new) == options(old) || !new.listeners().any(|(address, _)| stays(address));
        keep(
            sockets,
            &format!(
                "`backlog`, `reuseport` and `client_tcpkeepalive` of pool `{}`, for addresses that it listens on already",
                pool.name
            ),
        );
        let unix = |address: &&Address| matches!(address, Address::Unix { .. }) && stays(address);
        for address in new.listeners().map(|(address, _)| address).filter(unix) {
            keep(old.listeners().any(|(before, _)| before == address), &format!("the mode of `{address}`"));
        }
        if let (
            Servers::Embedded { maxmemory, eviction, .. },
            Servers::Embedded { maxmemory: old_maxmemory, eviction: old_eviction, .. },
        ) = (&mut pool.upstream.servers, &before.upstream.servers)
        {
            let same = (*maxmemory, *eviction) == (*old_maxmemory, *old_eviction);
            keep(same, &format!("`maxmemory` and `eviction` of pool `{}`", pool.name));
            (*maxmemory, *eviction) = (*old_maxmemory, *old_eviction);
        }
    }
    kept
}

/// The settings of the process that are others, by name.
#[must_use]
pub fn settings(now: &Config, next: &Config) -> Vec<&'static str> {
    let same = [
        ("admin_token", now.admin_token == next.admin_token),
        ("admin_token_for", now.admin_token_for_reads == next.admin_token_for_reads),
        ("admin_hosts", now.admin_hosts == next.admin_hosts),
        ("watch", now.watch == next.watch),
        ("drain", now.drain == next.drain),
        ("max_memory", now.max_memory == next.max_memory),
        ("tracing", now.tracing == next.tracing),
        ("access_log", now.access_log == next.access_log),
        ("commands", now.commands == next.commands),
    ];
    same.into_iter().filter_map(|(name, same)| (!same).then_some(name)).collect()
}

/// A change in words, one line each.
#[must_use]
pub fn report(settings: &[&str], changes: &[(String, Change)], restart: &[String]) -> String {
    let mut told = String::new();
    for name in settings {
        let _ = writeln!(told, "`{name}` changes");
    }
    for (pool, change) in changes {
        let _ = match change {
            Change::Added => writeln!(told, "pool {pool}: new"),
            Change::Removed => writeln!(told, "pool {pool}: gone; its sessions end when they are answered"),
            Change::Changed { come, go, moved } => {
                let mut line = format!("pool {pool}:");
                if !come.is_empty() {
                    let _ = write!(line, " comes {};", come.join(", "));
                }
                if !go.is_empty() {
                    let _ = write!(line, " goes {};", go.join(", "));
                }
                if come.is_empty() && go.is_empty() {
                    line.push_str(" settings;");
                }
                let _ = write!(line, " {:.1} % of the keyspace moves", moved * 100.0);
                writeln!(told, "{line}")
            }
        };
    }
    for what in restart {
        let _ = writeln!(told, "{what}: needs a restart, stays as it is");
    }
    if told.is_empty() {
        told.push_str("nothing has changed\n");
    }
    told
}
