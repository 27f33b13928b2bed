//! What the process takes of its machine, as `process_*`, the names that any Prometheus client uses.
//!
//! What the system does not tell is absent. Read on the side, a few times a minute where it costs more than a call.

use crate::metrics::{ProcessCounts, Told};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Rounds between two counts of descriptors: there may be a hundred thousand.
const SELDOM: u32 = 10;

/// What was published last.
#[derive(Debug, Default)]
pub(super) struct Usage {
    cpu: u64,
    rounds: u32,
}

impl Usage {
    /// Brings the counts up to date.
    pub(super) fn measure(&mut self, counts: &mut ProcessCounts) {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = (time.tv_sec as u64).saturating_mul(1_000_000).saturating_add(time.tv_nsec as u64 / 1000);
        counts.cpu = counts.cpu.saturating_add(cpu.saturating_sub(self.cpu));
        self.cpu = cpu;
        counts.resident = Told(resident());
        if self.rounds.is_multiple_of(SELDOM) {
            counts.open_fds = Told(open_fds());
            counts.max_fds = Told(getrlimit(Resource::Nofile).current);
        }
        self.rounds = self.rounds.wrapping_add(1);
    }
}

/// Bytes; what proc_pid_status(5) calls VmRSS, which it tells in KiB.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The directory that is read is one of them.
fn open_fds() -> Option<u64> {
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_of_this_process() {
        let (mut usage, mut counts) = (Usage::default(), ProcessCounts::default());
        let file = std::fs::File::open("/dev/null").expect("a file");
        usage.measure(&mut counts);
        let first = counts.cpu;
        assert!(counts.resident.0 > Some(1 << 20) && counts.max_fds.0 >= counts.open_fds.0, "{counts:?}");
        assert!(counts.open_fds.0 >= Some(4) && first > 0, "{counts:?}");
        drop(file);
        usage.measure(&mut counts);
        assert!(counts.cpu - first < first.max(60_000_000), "what was counted is counted once");
    }
}
