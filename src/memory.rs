//! How much memory the process may have: what its control group allows, or what the machine has.
//!
//! Promises: reads what the kernel tells and guesses nothing; where it tells nothing there is no answer. The limit of a
//! container is that of its control group, which is smaller than the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// In bytes.
#[must_use]
pub fn limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_machine(&text));
    of_groups(&own, Path::new(GROUPS)).into_iter().chain(machine).min()
}

/// The least limit of the process' groups, whose names `own` has, and all above them.
fn of_groups(own: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // Version 2 has one tree for all, version 1 one for memory.
        let (tree, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // Within a container the own group is mounted at the root, whatever its name outside.
        let groups = Path::new(group.trim_start_matches('/')).ancestors().map(|group| tree.join(group));
        for path in groups.map(|group: PathBuf| group.join(file)) {
            let limit = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
            least = limit.into_iter().chain(least).min();
        }
    }
    least
}

/// `MemTotal` of `/proc/meminfo`.
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_groups_counts() {
        let root = std::env::temp_dir().join(format!("hotring-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "3000\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "2000\n");
        assert_eq!(of_groups("0::/a/b\n", &root), Some(3000));
        assert_eq!(of_groups("0::/\n", &root), None);
        assert_eq!(of_groups("5:cpu,cpuacct:/c\n4:memory:/c\n0::/a/b\n", &root), Some(2000));
        assert_eq!(of_groups("nonsense\n1:memory:\n", &root), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_machine_tells_kilobytes() {
        assert_eq!(of_machine("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(of_machine("MemFree: 1 kB\n"), None);
        assert!(limit().is_none_or(|limit| limit > 1 << 20));
    }
}
