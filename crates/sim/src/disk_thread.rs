//! The server's disk thread, as calls: everything queued becomes one write and one sync.
//!
//! Owns the journal. Nothing is written but in [`DiskThread::run`], [`DiskThread::prepare`] and
//! [`DiskThread::stop`], so the world decides how much gathers, and what else happens meanwhile.
//!
//! Source: `server::disk::thread`, `server::disk::prepare`.

use std::collections::VecDeque;

use quorate_log::{Entry, EntryAt, HardState, Journal, LogError, Moved, Position, Reserve};

use crate::disk::SimDisk;

/// A batch is written when it has grown to this, whatever else is queued.
const BATCH_TARGET: usize = 8 << 10;

/// What is to become durable.
#[derive(Debug)]
pub(crate) struct Persist {
    pub(crate) ready: u64,
    pub(crate) hard: Option<HardState>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) commit: u64,
}

/// What became durable.
#[derive(Debug)]
pub(crate) struct Persisted {
    pub(crate) ready: u64,
    pub(crate) at: Vec<(u64, EntryAt)>,
}

#[derive(Debug)]
enum Message {
    Persist(Persist),
    Copy(Vec<Moved>),
    PositionFor(u64),
    Install(u64, HardState),
    Free(Vec<Position>),
    KeepRoom(u64),
}

#[derive(Debug)]
pub(crate) struct DiskThread {
    journal: Journal<SimDisk>,
    reserve: Reserve<SimDisk>,
    queue: VecDeque<Message>,
    done: Vec<Persisted>,
    /// Where copies will stand, before and after the sync.
    copying: Vec<EntryAt>,
    copied: Option<Vec<EntryAt>>,
    /// The answer to the last `PositionFor`.
    position: Option<Position>,
    /// A segment that is asked for and not made yet.
    asked: Option<u32>,
    prepared: Option<u32>,
    /// Segments whose files nothing needs any more.
    freed: Vec<u32>,
    /// The reserve may have been touched.
    fill: bool,
    is_short: bool,
    /// The journal ends in the idle mark.
    marked: bool,
    /// A fault: it reports before it syncs.
    early: bool,
}

impl DiskThread {
    pub(crate) fn start(journal: Journal<SimDisk>, reserve: Reserve<SimDisk>, early: bool) -> Self {
        let mut thread = Self {
            journal,
            reserve,
            queue: VecDeque::new(),
            done: Vec::new(),
            copying: Vec::new(),
            copied: None,
            position: None,
            asked: None,
            prepared: None,
            freed: Vec::new(),
            fill: true,
            is_short: false,
            marked: false,
            early,
        };
        thread.prepare_ahead();
        thread
    }

    pub(crate) fn persist(&mut self, persist: Persist) {
        self.queue.push_back(Message::Persist(persist));
    }

    /// Copies values forward; one such batch at a time.
    pub(crate) fn copy(&mut self, moved: Vec<Moved>) {
        self.queue.push_back(Message::Copy(moved));
    }

    /// Where the copies stand, once they are durable.
    pub(crate) fn take_copied(&mut self) -> Option<Vec<EntryAt>> {
        self.copied.take()
    }

    pub(crate) fn position_for(&mut self, applied: u64) {
        self.queue.push_back(Message::PositionFor(applied));
    }

    /// The log goes on behind a received state; where, [`Self::take_position`] says.
    pub(crate) fn install(&mut self, index: u64, hard: HardState) {
        self.queue.push_back(Message::Install(index, hard));
    }

    pub(crate) fn take_position(&mut self) -> Option<Position> {
        self.position.take()
    }

    pub(crate) fn free(&mut self, kept: Vec<Position>) {
        self.queue.push_back(Message::Free(kept));
    }

    /// A checkpoint may take so many bytes; the last one may have taken the room of the reserve.
    pub(crate) fn keep_room(&mut self, checkpoint_bytes: u64) {
        self.queue.push_back(Message::KeepRoom(checkpoint_bytes));
    }

    /// The disk has refused room, and has not had enough since.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }

    /// What became durable since this was asked last.
    pub(crate) fn take_done(&mut self) -> Vec<Persisted> {
        std::mem::take(&mut self.done)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Nothing is queued or done and not taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.done.is_empty()
    }

    /// One round of the thread: takes what is queued, writes, syncs, reports. With an empty queue
    /// the idle mark, once.
    pub(crate) fn run(&mut self) -> Result<(), LogError> {
        if self.queue.is_empty() {
            return if self.marked { Ok(()) } else { self.mark() };
        }
        let done = self.gather()?;
        if !self.early {
            self.journal.sync()?;
        }
        self.marked &= done.is_empty() && self.copying.is_empty();
        if !self.copying.is_empty() {
            self.copied = Some(std::mem::take(&mut self.copying));
        }
        self.done.extend(done);
        self.prepare_ahead();
        Ok(())
    }

    /// Makes durable all that was queued, and the idle mark.
    pub(crate) fn stop(&mut self) -> Result<(), LogError> {
        while !self.queue.is_empty() {
            self.run()?;
        }
        self.mark()
    }

    /// What the preparing thread does, if it was asked.
    pub(crate) fn prepare(&mut self) -> Result<(), LogError> {
        let freed = std::mem::take(&mut self.freed);
        if !freed.is_empty() {
            self.fill = true;
            self.reserve.recycle(&freed)?;
        }
        if let Some(number) = self.asked.take() {
            self.fill = true;
            self.reserve.prepare(number)?;
            self.prepared = Some(number);
        }
        if std::mem::take(&mut self.fill) {
            self.reserve.fill()?;
        }
        let kept = self.reserve.kept()?;
        // While it is short, it is looked for room again and again.
        self.fill = kept.is_short;
        self.is_short = kept.is_short;
        Ok(())
    }

    fn gather(&mut self) -> Result<Vec<Persisted>, LogError> {
        let mut done = Vec::new();
        while let Some(message) = self.queue.pop_front() {
            match message {
                Message::Persist(persist) => done.push(self.append(persist)?),
                Message::Copy(moved) => {
                    if self.journal.may_roll(&[], &moved) {
                        self.await_prepared();
                    }
                    self.journal.append_moved(&moved, &mut self.copying)?;
                }
                Message::PositionFor(applied) => {
                    self.position = Some(self.journal.position_for(applied));
                }
                Message::Install(index, hard) => {
                    self.position = Some(self.journal.install(index, hard)?);
                }
                Message::KeepRoom(bytes) => {
                    self.reserve.raise_checkpoint_bytes(bytes);
                    self.fill = true;
                }
                Message::Free(kept) => {
                    self.freed.extend(self.journal.free(&kept));
                }
            }
            if self.journal.gathered_bytes() >= BATCH_TARGET {
                break;
            }
        }
        Ok(done)
    }

    fn append(&mut self, persist: Persist) -> Result<Persisted, LogError> {
        let Persist {
            ready,
            hard,
            entries,
            commit,
        } = persist;
        if self.journal.may_roll(&entries, &[]) {
            self.await_prepared();
        }
        let mut at = Vec::with_capacity(entries.len());
        self.journal.append(hard, &entries, commit, &mut at)?;
        Ok(Persisted { ready, at })
    }

    fn mark(&mut self) -> Result<(), LogError> {
        if self.journal.may_roll(&[], &[]) {
            self.await_prepared();
        }
        self.journal.idle_mark()?;
        self.marked = true;
        Ok(())
    }

    fn await_prepared(&mut self) {
        // Where it cannot, the journal does so itself, or says why not.
        let _ = self.prepare();
        self.take_prepared();
    }

    fn prepare_ahead(&mut self) {
        self.take_prepared();
        if self.asked.is_none() {
            self.asked = self.journal.wants_prepared();
        }
    }

    fn take_prepared(&mut self) {
        if let Some(number) = self.prepared.take() {
            self.journal.set_prepared(number);
        }
    }
}
