//! Many keys: how fast they go in, and what a server takes to hold them and to start with them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_load::{Keys, Pace, Spread, Until, Work};
use rustix::process::{Pid, Signal, kill_process};

use super::cases::{VALUE_BYTES, put_random, range};
use super::pair::{Side, fill};
use super::results::Figures;

/// How long a server may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(120);
const ONE: Spread = Spread {
    connections: 1,
    clients: 1,
};
const MB: f64 = 1e6;

/// Puts `count` keys of 24 B in random order, with random values of 256 B, and looks at the server.
pub(super) fn measure(side: &mut Side, count: u32) -> Result<Figures> {
    let mut keys: Vec<u32> = (0..count).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut keys);
    let cpu = side.cpu()?;
    let report = fill(side, put_random(VALUE_BYTES), keys)?;
    let cpu = side.cpu()? - cpu;
    let (memory, disk) = (side.memory()?, side.disk()?);
    let live = side.metric("etcd_mvcc_db_total_size_in_use_in_bytes")?;
    end(side, Signal::KILL)?;
    let restart_killed = restart(side, count)?;
    let again = side.memory()?;
    end(side, Signal::TERM)?;
    let restart_stopped = restart(side, count)?;
    let pairs = [
        ("keys", f64::from(count)),
        (
            "per_second",
            report.done as f64 / report.elapsed.as_secs_f64(),
        ),
        ("cpu_us", cpu.as_secs_f64() * 1e6 / report.done as f64),
        ("anonymous_mb", memory.anonymous as f64 / MB),
        ("resident_mb", memory.resident as f64 / MB),
        ("anonymous_restarted_mb", again.anonymous as f64 / MB),
        ("live_mb", live.unwrap_or(f64::NAN) / MB),
        ("written_mb", disk.written as f64 / MB),
        ("length_mb", disk.length as f64 / MB),
        ("allocated_mb", disk.allocated as f64 / MB),
        ("restart_s", restart_stopped.as_secs_f64()),
        ("restart_killed_s", restart_killed.as_secs_f64()),
    ];
    Ok(pairs.map(|(name, value)| (name.to_owned(), value)).into())
}

fn end(side: &mut Side, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(side.member.pid())?).context("no process id")?;
    kill_process(pid, signal)?;
    let ended = side.member.await_end(END_LIMIT)?;
    ensure!(ended.is_some(), "{} did not end", side.name);
    Ok(())
}

/// The time from the start of the program to the first answer of a linearizable range.
fn restart(side: &mut Side, count: u32) -> Result<Duration> {
    let start = Instant::now();
    side.start_again()?;
    let work = Work {
        templates: vec![(1, range(false))],
        keys: Keys::Any(count),
        pace: Pace::Closed,
        until: Until::Count(1),
    };
    loop {
        // Refused, or closed, or without a leader as yet.
        let answered = side.connect(ONE, &work.templates[0].1);
        if answered.is_ok_and(|mut one| one.run(&work).is_ok_and(|report| report.done == 1)) {
            return Ok(start.elapsed());
        }
        let log = side.member.log_tail();
        ensure!(
            start.elapsed() < START_LIMIT,
            "{} does not start:\n{log}",
            side.name
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
