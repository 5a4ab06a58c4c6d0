//! The thread that writes the journal.
//!
//! Group commit: all that is queued when the last sync has finished becomes one batch, one write
//! and one sync; then all of it is reported at once, in order. When nothing has come for 100 ms,
//! and when it stops, it writes the idle mark.
//!
//! Never decides what is written. After a failure it reports once and ends; nothing is retried.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use quorate_log::{Entry, EntryAt, HardState, Journal, Kept, LogError, Moved, Position, Reserve};
use tokio::sync::watch;

use super::prepare::{LOOK, Preparer};
use super::{FsDisk, Segments};

/// How long nothing must come before the idle mark is written.
const IDLE: Duration = Duration::from_millis(100);
/// A batch is written when it has grown to this, whatever else is queued.
const BATCH_TARGET: usize = 1 << 20;

/// What is to become durable.
#[derive(Clone, Debug)]
pub struct Persist {
    /// The number by which [`Persisted`] names it.
    pub ready: u64,
    /// The hard state, if it changed. Written before the entries.
    pub hard: Option<HardState>,
    /// Entries; each one cancels those at its index and behind.
    pub entries: Vec<Entry>,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// What became durable.
#[derive(Clone, Debug)]
pub struct Persisted {
    /// The number of the [`Persist`].
    pub ready: u64,
    /// Each of its entries' index, and where its data stands.
    pub at: Vec<(u64, EntryAt)>,
}

/// The disk refused, or the journal is closed. The member must halt.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the disk thread has stopped: {0}")]
pub struct DiskFailure(pub LogError);

enum Message {
    Persist(Persist),
    Copy(Vec<Moved>, Sender<Vec<EntryAt>>),
    PositionFor(u64, Sender<Position>),
    Install(u64, HardState, Sender<Position>),
    Free(Vec<Position>),
    KeepRoom(u64),
    Stop,
}

/// What is kept for a full disk, and who hears of it.
#[derive(Debug)]
pub struct KeepRoom {
    /// What a checkpoint may take, in bytes.
    pub checkpoint_bytes: u64,
    /// The disk was short when the member was stopped.
    pub is_short: bool,
    /// Hears what is kept, once it is known.
    pub kept: watch::Sender<Option<Kept>>,
}

/// Hands values to the thread that are to be copied forward.
#[derive(Clone, Debug)]
pub struct Mover(Sender<Message>);

impl Mover {
    /// Queues the copies. The answer, where each stands, comes once they are durable, and never if
    /// the thread has ended.
    #[must_use]
    pub fn copy(&self, moved: Vec<Moved>) -> Receiver<Vec<EntryAt>> {
        let (answer, answered) = channel();
        let _ = self.0.send(Message::Copy(moved, answer));
        answered
    }
}

/// A handle to the thread. Dropped, it stops the thread as [`DiskThread::stop`] does.
#[derive(Debug)]
pub struct DiskThread {
    queue: Sender<Message>,
    thread: Option<JoinHandle<Result<(), DiskFailure>>>,
}

impl DiskThread {
    /// Starts the thread that owns `journal`, and one that prepares segments for it and keeps room.
    ///
    /// `on_done` is called on the thread, once a sync, with everything that it covered, and once
    /// with the failure after which nothing is written any more. It must not block.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(
        journal: Journal<FsDisk>,
        segments: Arc<Segments>,
        room: KeepRoom,
        on_done: impl Fn(Result<Vec<Persisted>, DiskFailure>) + Send + 'static,
    ) -> Self {
        let (queue, messages) = channel();
        // What is prepared ahead keeps nobody waiting.
        let disk = journal.disk().untimed();
        let KeepRoom {
            checkpoint_bytes,
            is_short,
            kept,
        } = room;
        let reserve = Reserve::new(
            disk,
            journal.directory(),
            journal.config().segment_bytes,
            checkpoint_bytes,
            is_short,
        );
        let preparer = Preparer::start(reserve, kept);
        let mut writer = Writer {
            journal,
            preparer,
            segments,
            mapped: 0,
            messages,
        };
        let run = move || {
            let ended = writer.run(&on_done).map_err(DiskFailure);
            if let Err(failure) = &ended {
                on_done(Err(failure.clone()));
            }
            ended
        };
        let thread = Builder::new().name("quorate-disk".into()).spawn(run);
        let thread = thread.expect("a process that starts gets its first few threads");
        Self {
            queue,
            thread: Some(thread),
        }
    }

    /// Queues what is to become durable, and returns at once. After a failure, which is reported
    /// to `on_done`, it is dropped.
    pub fn persist(&self, persist: Persist) {
        // The thread is gone only after it has reported why.
        let _ = self.queue.send(Message::Persist(persist));
    }

    /// For whoever copies values forward.
    #[must_use]
    pub fn mover(&self) -> Mover {
        Mover(self.queue.clone())
    }

    /// Asks where replay must start for a checkpoint of the state at index `applied`, which must
    /// not step back from call to call. Returns at once; the answer comes after the sync in
    /// flight, and never if the thread has ended.
    #[must_use]
    pub fn position_for(&self, applied: u64) -> Receiver<Position> {
        let (answer, answered) = channel();
        let _ = self.queue.send(Message::PositionFor(applied, answer));
        answered
    }

    /// The log goes on behind a received state that ends with entry `index`; see
    /// [`Journal::install`]. Returns at once; the answer comes when all before is durable, and never
    /// if the thread has ended.
    #[must_use]
    pub fn install(&self, index: u64, hard: HardState) -> Receiver<Position> {
        let (answer, answered) = channel();
        let _ = self.queue.send(Message::Install(index, hard, answer));
        answered
    }

    /// Frees the segments that none of the kept checkpoints' positions needs.
    pub fn free(&self, kept: Vec<Position>) {
        let _ = self.queue.send(Message::Free(kept));
    }

    /// A checkpoint has ended: it may have taken the room kept for it, and the next one may take so
    /// many bytes.
    pub fn keep_room(&self, checkpoint_bytes: u64) {
        let _ = self.queue.send(Message::KeepRoom(checkpoint_bytes));
    }

    /// Makes durable all that was queued, writes the idle mark and ends the thread.
    ///
    /// # Errors
    /// The failure that ended it, now or before.
    pub fn stop(mut self) -> Result<(), DiskFailure> {
        self.end()
    }

    fn end(&mut self) -> Result<(), DiskFailure> {
        let _ = self.queue.send(Message::Stop);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            // A panic was already printed; what it left on disk is not known.
            Some(Err(_)) => Err(DiskFailure(LogError::Poisoned)),
            None => Ok(()),
        }
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        // It was reported to `on_done`.
        let _ = self.end();
    }
}

/// What runs on the thread.
struct Writer {
    journal: Journal<FsDisk>,
    preparer: Preparer,
    segments: Arc<Segments>,
    /// The last segment of which something was reported.
    mapped: u32,
    messages: Receiver<Message>,
}

/// What a turn of the thread found in its queue.
struct Turn {
    done: Vec<Persisted>,
    copied: Vec<(Sender<Vec<EntryAt>>, Vec<EntryAt>)>,
    stop: bool,
}

impl Writer {
    fn run(
        &mut self,
        on_done: &impl Fn(Result<Vec<Persisted>, DiskFailure>),
    ) -> Result<(), LogError> {
        self.prepare_ahead();
        let mut marked = false;
        loop {
            let is_short = self.preparer.look();
            let first = match marked {
                true if is_short => self.wait_for(LOOK),
                true => self.wait(),
                false => self.wait_for(IDLE),
            };
            let Some(first) = first else {
                if !marked {
                    self.mark()?;
                    marked = true;
                }
                self.prepare_ahead();
                continue;
            };
            let turn = self.gather(first)?;
            self.journal.sync()?;
            marked &= turn.done.is_empty() && turn.copied.is_empty();
            let entries = turn.done.iter().flat_map(|done| &done.at);
            let copies = turn.copied.iter().flat_map(|(_, places)| places);
            self.map(entries.map(|(_, at)| *at).chain(copies.copied()));
            for (answer, places) in turn.copied {
                // Whoever copied may have given up.
                let _ = answer.send(places);
            }
            if !turn.done.is_empty() {
                on_done(Ok(turn.done));
            }
            if turn.stop {
                return self.mark();
            }
            self.prepare_ahead();
        }
    }

    /// Sees to it that what is reported can be read, whoever made its segments.
    fn map(&mut self, places: impl Iterator<Item = EntryAt>) {
        for at in places {
            if at.segment > self.mapped {
                self.segments.ensure_mapped(at.segment);
                self.mapped = at.segment;
            }
        }
    }

    fn wait(&self) -> Option<Message> {
        // Without a handle there is nobody left to wait for.
        Some(self.messages.recv().unwrap_or(Message::Stop))
    }

    /// `None` when nothing came in time.
    fn wait_for(&self, time: Duration) -> Option<Message> {
        match self.messages.recv_timeout(time) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
        }
    }

    /// Takes all that is queued, up to a full batch.
    fn gather(&mut self, first: Message) -> Result<Turn, LogError> {
        let mut turn = Turn {
            done: Vec::new(),
            copied: Vec::new(),
            stop: false,
        };
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Persist(persist) => turn.done.push(self.append(persist)?),
                Message::Copy(moved, answer) => {
                    let places = self.copy(&moved)?;
                    turn.copied.push((answer, places));
                }
                Message::PositionFor(applied, answer) => {
                    // Nobody waits any more: then nobody needs it.
                    let _ = answer.send(self.journal.position_for(applied));
                }
                Message::Install(index, hard, answer) => {
                    // Nobody waits any more: then the member stops.
                    let _ = answer.send(self.journal.install(index, hard)?);
                }
                Message::Free(kept) => {
                    let freed = self.journal.free(&kept);
                    self.segments.unmap(&freed);
                    self.preparer.recycle(freed);
                }
                Message::KeepRoom(checkpoint_bytes) => self.preparer.fill(checkpoint_bytes),
                Message::Stop => {
                    turn.stop = true;
                    break;
                }
            }
            if self.journal.gathered_bytes() >= BATCH_TARGET {
                break;
            }
            next = self.messages.try_recv().ok();
        }
        Ok(turn)
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

    fn copy(&mut self, moved: &[Moved]) -> Result<Vec<EntryAt>, LogError> {
        if self.journal.may_roll(&[], moved) {
            self.await_prepared();
        }
        let mut places = Vec::with_capacity(moved.len());
        self.journal.append_moved(moved, &mut places)?;
        Ok(places)
    }

    fn mark(&mut self) -> Result<(), LogError> {
        if self.journal.may_roll(&[], &[]) {
            self.await_prepared();
        }
        self.journal.idle_mark()
    }

    /// Sees to it that a segment in hand is not prepared a second time by the journal.
    fn await_prepared(&mut self) {
        let ready = self.preparer.wait();
        self.take_prepared(ready);
    }

    fn prepare_ahead(&mut self) {
        let ready = self.preparer.poll();
        self.take_prepared(ready);
        if let Some(number) = self.journal.wants_prepared() {
            self.preparer.ask(number);
        }
    }

    fn take_prepared(&mut self, ready: Option<u32>) {
        if let Some(number) = ready {
            self.journal.set_prepared(number);
            self.segments.map(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bytes::Bytes;
    use quorate_log::{Config, EntryKind, Identity, segment_name, verify};

    use super::super::Span;
    use super::*;
    const CONFIG: Config = Config {
        segment_bytes: 16 << 10,
    };

    fn room() -> KeepRoom {
        KeepRoom {
            checkpoint_bytes: 1 << 10,
            is_short: false,
            kept: watch::Sender::new(None),
        }
    }

    fn entry(index: u64) -> Entry {
        let data = Bytes::from(format!("value of {index} ").repeat(20));
        Entry {
            index,
            term: 1,
            kind: EntryKind::Normal,
            data,
        }
    }

    fn persist(ready: u64) -> Persist {
        let entries = (ready * 3 - 2..=ready * 3).map(entry).collect();
        let hard = (ready == 1).then_some(HardState {
            term: 1,
            vote: 1,
            commit: 0,
        });
        Persist {
            ready,
            hard,
            entries,
            commit: ready * 3 - 3,
        }
    }

    #[test]
    fn all_that_was_queued_is_reported_in_order_readable_and_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let identity = Identity::create(&disk, CONFIG, [7; 16], 1, 2).unwrap();
        let (timed, times) = disk.timed();
        let (journal, _) = Journal::open(timed, identity.directory, CONFIG, None).unwrap();
        let segments = Segments::open(&disk, u64::MAX).unwrap();
        let (report, reports) = mpsc::channel();
        let thread = DiskThread::start(journal, segments.clone(), room(), move |done| {
            report.send(done.unwrap()).unwrap();
        });
        for ready in 1..=100 {
            thread.persist(persist(ready));
        }
        let position = thread.position_for(300).recv().unwrap();
        assert!(
            position.segment() > 3,
            "100 kB went into segments of 16 KiB"
        );
        thread.stop().unwrap();
        let done: Vec<Persisted> = reports.iter().flatten().collect();
        assert_eq!(
            done.iter().map(|done| done.ready).collect::<Vec<_>>(),
            Vec::from_iter(1..=100)
        );
        assert!(times.counts().iter().sum::<u64>() > 0);

        let reader = segments.reader();
        for (index, at) in done.iter().flat_map(|done| &done.at) {
            let data = entry(*index).data;
            let len = u32::try_from(data.len()).unwrap();
            let span = Span {
                segment: at.segment,
                offset: at.offset,
                len,
            };
            assert_eq!(reader.bytes(span), Ok(&data[..]));
        }

        let report = verify(&disk).unwrap();
        assert!(report.is_sound() && report.torn.is_none(), "{report}");
        let (_, recovered) = Journal::open(disk, identity.directory, CONFIG, None).unwrap();
        let found: Vec<Entry> = recovered
            .entries
            .into_iter()
            .map(|(entry, _)| entry)
            .collect();
        assert_eq!(found, (1..=300).map(entry).collect::<Vec<_>>());
        assert_eq!(
            recovered.hard,
            HardState {
                term: 1,
                vote: 1,
                commit: 297
            }
        );
    }

    #[test]
    fn what_is_freed_is_no_longer_mapped_and_what_is_kept_is() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let identity = Identity::create(&disk, CONFIG, [7; 16], 1, 2).unwrap();
        let (journal, _) = Journal::open(disk.clone(), identity.directory, CONFIG, None).unwrap();
        let segments = Segments::open(&disk, u64::MAX).unwrap();
        let thread = DiskThread::start(journal, segments.clone(), room(), |_| {});
        for ready in 1..=100 {
            thread.persist(persist(ready));
        }
        let mut position = thread.position_for(300).recv().unwrap();
        let last = position.segment();
        position.retain(|segment| segment == 2);
        thread.free(vec![position.clone(), position]);
        thread.stop().unwrap();

        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = |number| directory.path().join(segment_name(number));
        for number in 1..=last {
            let is_kept = number == 2 || number == last;
            let span = Span {
                segment: number,
                offset: 0,
                len: 1,
            };
            let is_mapped = segments.reader().bytes(span).is_ok();
            assert_eq!(is_mapped, is_kept, "segment {number}");
            let is_in_maps = maps.contains(path(number).to_str().unwrap());
            assert_eq!(is_in_maps, is_kept, "segment {number}");
            assert_eq!(path(number).exists(), is_kept, "segment {number}");
        }
    }

    #[test]
    fn an_entry_that_fits_no_segment_is_reported_and_ends_the_thread() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let identity = Identity::create(&disk, CONFIG, [7; 16], 1, 2).unwrap();
        let (journal, _) = Journal::open(disk.clone(), identity.directory, CONFIG, None).unwrap();
        let segments = Segments::open(&disk, u64::MAX).unwrap();
        let (report, reports) = mpsc::channel();
        let thread = DiskThread::start(journal, segments.clone(), room(), move |done| {
            report.send(done.map(|done| done.len())).unwrap();
        });
        let data = Bytes::from(vec![0; 20 << 10]);
        let entries = vec![Entry { data, ..entry(1) }];
        thread.persist(Persist {
            ready: 1,
            hard: None,
            entries,
            commit: 0,
        });
        let failure = reports.recv().unwrap().unwrap_err();
        assert!(matches!(failure.0, LogError::TooLarge { .. }), "{failure}");
        assert!(thread.position_for(1).recv().is_err());
        assert!(matches!(
            thread.stop().unwrap_err().0,
            LogError::TooLarge { .. }
        ));
        assert!(
            reports.recv().is_err(),
            "nothing is reported after the failure"
        );
    }
}
