//! A thread that prepares the next segment before it is needed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use quorate_log::{Config, DirectoryId, DiskError, prepare_segment};

use super::FsDisk;

/// Prepares one segment at a time. Dropped, it waits for the one in hand.
#[derive(Debug)]
pub(super) struct Preparer {
    ask: Option<Sender<u32>>,
    done: Receiver<(u32, Result<(), DiskError>)>,
    /// Whether a question has not been answered yet.
    busy: bool,
    /// The highest number asked for; 0 for none.
    asked: u32,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// # Panics
    /// If the system gives no thread.
    pub(super) fn start(disk: FsDisk, directory: DirectoryId, config: Config) -> Self {
        let (ask, asks) = channel::<u32>();
        let (report, done) = channel();
        let run = move || {
            for number in asks {
                let result = prepare_segment(&disk, directory, number, config.segment_bytes);
                if report.send((number, result)).is_err() {
                    return;
                }
            }
        };
        let thread = Builder::new().name("quorate-prepare".into()).spawn(run);
        let thread = thread.expect("a process that starts gets its first few threads");
        Self {
            ask: Some(ask),
            done,
            busy: false,
            asked: 0,
            thread: Some(thread),
        }
    }

    /// Asks for segment `number`, once. If that fails, the journal prepares it when it needs it,
    /// and reports the failure if it fails again.
    pub(super) fn ask(&mut self, number: u32) {
        if !self.busy
            && number > self.asked
            && let Some(ask) = &self.ask
        {
            self.asked = number;
            self.busy = ask.send(number).is_ok();
        }
    }

    /// The segment that has become ready, if one has.
    pub(super) fn poll(&mut self) -> Option<u32> {
        let answer = self.done.try_recv().ok()?;
        self.settle(answer)
    }

    /// Waits until nothing is being prepared; the segment that has become ready, if one has.
    pub(super) fn wait(&mut self) -> Option<u32> {
        if !self.busy {
            return None;
        }
        let answer = self.done.recv().ok()?;
        self.settle(answer)
    }

    fn settle(&mut self, (number, result): (u32, Result<(), DiskError>)) -> Option<u32> {
        self.busy = false;
        match result {
            Ok(()) => Some(number),
            Err(error) => {
                tracing::warn!(segment = number, %error, "cannot prepare a segment ahead of need");
                None
            }
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was already printed, and takes nothing with it.
            let _ = thread.join();
        }
    }
}
