//! How much memory this process may use.

use std::fs;
use std::path::Path;

/// The least of the machine's memory and the limits of the control groups that the process is in,
/// in bytes.
pub(crate) fn available_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(total_bytes);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups
        .lines()
        .flat_map(|line| limits(Path::new("/sys/fs/cgroup"), line));
    limits.chain(machine).min().unwrap_or(u64::MAX)
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The limits of one group of `/proc/self/cgroup` and of those above it.
fn limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (root, file) = if controllers.is_empty() {
        (root.to_owned(), "memory.max")
    } else if controllers.split(',').any(|each| each == "memory") {
        (root.join("memory"), "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let group = root.join(path.trim_start_matches('/'));
    let above = group.ancestors().take_while(|each| each.starts_with(&root));
    // "max" is no limit, and of what is not there (the root's, or another namespace's) none is known.
    above
        .filter_map(|each| {
            fs::read_to_string(each.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_each_group_above_may_set_the_limit() {
        let meminfo = "MemTotal:       16384256 kB\nMemFree:          263036 kB\n";
        assert_eq!(total_bytes(meminfo), Some(16_384_256 << 10));
        assert!(available_bytes() < 1 << 50);

        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/quorate.service");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("system.slice/memory.max"), "1048576\n").unwrap();
        let line = "0::/system.slice/quorate.service";
        assert_eq!(limits(root.path(), line), [1 << 20]);

        let old = root.path().join("memory/a");
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join("memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(limits(root.path(), "5:cpu,memory:/a"), [4096]);
        assert_eq!(limits(root.path(), "6:cpu:/a"), [0; 0]);
    }
}
