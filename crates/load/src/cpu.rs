//! Time that processes have used, to the nanosecond: the kernel's clocks, not its ticks.

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// User and system time of all threads of a process, ended ones included.
///
/// # Errors
/// If there is no such process.
pub fn of_process(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    Ok(clock_getcpuclockid(Pid::from_raw(pid))?.now()?.into())
}

/// User and system time of this thread.
pub(crate) fn of_this_thread() -> io::Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}

#[cfg(test)]
mod tests {
    use super::{of_process, of_this_thread};

    #[test]
    fn a_process_has_used_at_least_what_its_thread_has() {
        let thread = of_this_thread().expect("a thread has a clock");
        let process = of_process(std::process::id()).expect("a process has a clock");
        assert!(process >= thread && !process.is_zero());
        // Above any process id that Linux gives.
        assert!(of_process(4_194_305).is_err());
    }
}
