//! What the system knows of this process, read from Linux's `/proc`. What cannot be read is left
//! out.

use std::fs;

use super::text::Text;

/// The unit of times in `/proc`, for user space the same on every machine.
const TICKS_PER_S: f64 = 100.0;

/// How many files this process may have open.
pub(crate) fn descriptor_limit() -> Option<u64> {
    limit("Max open files")
}

pub(super) fn render(out: &mut Text) {
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count);
    if let (Ok(open), Some(limit)) = (open, descriptor_limit()) {
        out.gauge("process_open_fds", "Files that are open.", open);
        out.gauge("process_max_fds", "Files that may be open.", limit);
        out.gauge("os_fd_used", "Files that are open.", open);
        out.gauge("os_fd_limit", "Files that may be open.", limit);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(bytes) = memory(&status, "VmRSS:") {
        let help = "Memory that is present, mapped files included.";
        out.gauge("process_resident_memory_bytes", help, bytes);
    }
    if let Some(bytes) = memory(&status, "RssAnon:") {
        let help = "Memory that is present and no file's.";
        out.gauge("quorate_anonymous_memory_bytes", help, bytes);
    }
    if let Some(bytes) = memory(&status, "VmSize:") {
        let help = "Addresses in use, mapped files included.";
        out.gauge("process_virtual_memory_bytes", help, bytes);
    }
    // -1 where there is no limit.
    let most = limit("Max address space").map_or("-1".to_owned(), |bytes| bytes.to_string());
    let help = "Addresses that may be in use.";
    out.gauge("process_virtual_memory_max_bytes", help, most);
    times(out);
}

fn times(out: &mut Text) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some((cpu_s, started_s)) = cpu_and_start(&stat) {
        let help = "CPU time used, in user and system mode.";
        out.counter("process_cpu_seconds_total", help, cpu_s);
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "));
        if let Some(boot) = boot.and_then(|seconds| seconds.trim().parse::<f64>().ok()) {
            let help = "When the process began, in seconds since 1970.";
            out.gauge("process_start_time_seconds", help, boot + started_s);
        }
    }
}

/// Seconds of CPU used, and seconds from the machine's start to the process's.
fn cpu_and_start(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let (user, system, started) = (ticks(14)?, ticks(15)?, ticks(22)?);
    Some(((user + system) / TICKS_PER_S, started / TICKS_PER_S))
}

/// A line of `/proc/self/status`, in bytes.
fn memory(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// The limit in force; `None` for none.
fn limit(name: &str) -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 12345 20";
        assert_eq!(cpu_and_start(stat), Some((2.0, 123.45)));
        assert_eq!(cpu_and_start("7 (a) S 1"), None);
        assert_eq!(memory("VmRSS:\t     12 kB\n", "VmRSS:"), Some(12_288));
    }
}
