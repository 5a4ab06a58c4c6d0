//! A thread that has the next segment ready before it is needed, and keeps the reserve whole.
//!
//! Owns all making, recycling and removing of segment files while the member runs, so that the
//! thread which syncs the journal does none of it. Says what is kept after every piece of work.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use quorate_log::{DiskError, Kept, Reserve};
use tokio::sync::watch;

use super::FsDisk;

/// How often a disk that is short is looked at for room.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// A piece of work.
#[derive(Debug)]
enum Job {
    Prepare(u32),
    /// Of segments that nothing needs or reads.
    Recycle(Vec<u32>),
    /// With so many bytes for a checkpoint, or those before if they are more.
    Fill(u64),
}

/// What became of it; the number of a segment that was asked for.
type Done = (Option<u32>, Result<(), DiskError>);

/// Does one job after another. Dropped, it waits for those in hand.
#[derive(Debug)]
pub(super) struct Preparer {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Jobs without an answer yet.
    under_way: usize,
    /// The highest number asked for; 0 for none.
    asked: u32,
    looked: Instant,
    kept: watch::Receiver<Option<Kept>>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// `kept` hears what is kept, from the first filling on.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub(super) fn start(mut reserve: Reserve<FsDisk>, kept: watch::Sender<Option<Kept>>) -> Self {
        let (jobs, todo) = channel::<Job>();
        let (report, done) = channel();
        let hears = kept.subscribe();
        let run = move || {
            for job in todo {
                let prepares = match &job {
                    Job::Prepare(number) => Some(*number),
                    Job::Recycle(_) | Job::Fill(_) => None,
                };
                let worked = work(&mut reserve, job);
                match reserve.kept() {
                    Ok(now) => {
                        kept.send_replace(Some(now));
                    }
                    Err(error) => tracing::error!(%error, "cannot look at the reserve"),
                }
                if report.send((prepares, worked)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("quorate-prepare".into()).spawn(run);
        let thread = thread.expect("a process that starts gets its first few threads");
        let mut preparer = Self {
            jobs: Some(jobs),
            done,
            under_way: 0,
            asked: 0,
            looked: Instant::now(),
            kept: hears,
            thread: Some(thread),
        };
        preparer.fill(0);
        preparer
    }

    /// Asks for segment `number`, once. If that fails, the journal prepares it when it needs it,
    /// and reports the failure if it fails again.
    pub(super) fn ask(&mut self, number: u32) {
        if number > self.asked {
            self.asked = number;
            self.send(Job::Prepare(number));
        }
    }

    /// Makes use of the files of segments that nothing needs or reads any more.
    pub(super) fn recycle(&mut self, freed: Vec<u32>) {
        if !freed.is_empty() {
            self.send(Job::Recycle(freed));
        }
    }

    /// Makes the reserve whole, with so many bytes for a checkpoint or those before.
    pub(super) fn fill(&mut self, checkpoint_bytes: u64) {
        self.looked = Instant::now();
        self.send(Job::Fill(checkpoint_bytes));
    }

    /// Looks for room now and then while the disk is short. Returns whether it is.
    pub(super) fn look(&mut self) -> bool {
        let is_short = self.kept.borrow().is_some_and(|kept| kept.is_short);
        if is_short && self.under_way == 0 && self.looked.elapsed() >= LOOK {
            self.fill(0);
        }
        is_short
    }

    /// The segment that has become ready, if one has.
    pub(super) fn poll(&mut self) -> Option<u32> {
        let mut ready = None;
        while let Ok(done) = self.done.try_recv() {
            ready = self.settle(done).or(ready);
        }
        ready
    }

    /// Waits until nothing is under way; the segment that has become ready, if one has. Until the
    /// next job, whoever asked may touch the reserve.
    pub(super) fn wait(&mut self) -> Option<u32> {
        let mut ready = None;
        while self.under_way > 0 {
            let Ok(done) = self.done.recv() else {
                break;
            };
            ready = self.settle(done).or(ready);
        }
        ready
    }

    fn send(&mut self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_ok()
        {
            self.under_way += 1;
        }
    }

    fn settle(&mut self, (number, worked): Done) -> Option<u32> {
        self.under_way -= 1;
        match worked {
            Ok(()) => number,
            Err(error) => {
                tracing::warn!(segment = number, %error, "cannot prepare room ahead of need");
                None
            }
        }
    }
}

fn work(reserve: &mut Reserve<FsDisk>, job: Job) -> Result<(), DiskError> {
    let worked = match job {
        Job::Prepare(number) => reserve.prepare(number),
        Job::Recycle(freed) => reserve.recycle(&freed),
        Job::Fill(checkpoint_bytes) => {
            reserve.raise_checkpoint_bytes(checkpoint_bytes);
            Ok(())
        }
    };
    worked.and(reserve.fill())
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already printed, and takes nothing with it.
            let _ = thread.join();
        }
    }
}
