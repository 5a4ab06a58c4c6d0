//! Values read from the mapped log, without waiting for the disk where that stops others.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quorate_replica::Machine;
use quorate_store::{ValueAt, ValueError, Values};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Node;
use crate::disk::{Fetched, NoBytes, Reader, Segments, Span};

impl Values for Reader<'_> {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let span = Span {
            segment: at.segment,
            offset: at.offset,
            len: at.len,
        };
        match self.bytes(span) {
            Ok(bytes) => Ok(Cow::Borrowed(bytes)),
            Err(NoBytes::Missing) => Err(ValueError::Rotten(*at)),
            Err(NoBytes::NotResident) => Err(ValueError::NotResident(*at)),
        }
    }
}

/// What a read has to wait for, from one poll to the next.
#[derive(Default)]
pub(crate) struct Waits {
    fetched: Fetched,
    fetching: Option<(Span, JoinHandle<Vec<u8>>)>,
}

impl Node {
    /// Reads state and values on a connection's task.
    ///
    /// `attempt` is made under the machine's lock. If it fails since a value is not in memory, the
    /// value is fetched by a thread that may wait, with no lock held, and the attempt made again:
    /// a failed one must leave nothing behind.
    ///
    /// # Errors
    /// Those of `attempt`; none for [`ValueError::NotResident`].
    pub(crate) async fn read<T, E>(
        &self,
        mut attempt: impl FnMut(&Machine, &dyn Values) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut waits = Waits::default();
        poll_fn(|context| self.poll_read(context, &mut waits, &mut attempt)).await
    }

    /// [`Self::read`] for a task that keeps its own state.
    pub(crate) fn poll_read<T, E>(
        &self,
        context: &mut Context<'_>,
        waits: &mut Waits,
        mut attempt: impl FnMut(&Machine, &dyn Values) -> Result<T, E>,
    ) -> Poll<Result<T, E>> {
        let hold = || self.machine();
        waits.poll(context, &self.0.segments, hold, |machine, values| {
            attempt(machine, values)
        })
    }
}

impl Waits {
    fn poll<G, T, E>(
        &mut self,
        context: &mut Context<'_>,
        segments: &Arc<Segments>,
        hold: impl Fn() -> G,
        mut attempt: impl FnMut(&G, &Reader<'_>) -> Result<T, E>,
    ) -> Poll<Result<T, E>> {
        loop {
            if let Some((span, fetching)) = &mut self.fetching {
                // A thread that failed has fetched nothing, which does not verify.
                let bytes = ready!(Pin::new(fetching).poll(context)).unwrap_or_default();
                self.fetched.insert(*span, bytes);
                self.fetching = None;
            }
            let (result, wanted) = {
                // M4 of `disk::segments`: the machine first.
                let held = hold();
                let reader = segments.prompt_reader(&self.fetched);
                (attempt(&held, &reader), reader.wanted())
            };
            match wanted {
                Some(span) if result.is_err() => {
                    let segments = segments.clone();
                    let fetching = spawn_blocking(move || segments.fetch(span));
                    self.fetching = Some((span, fetching));
                }
                _ => {
                    self.fetched.clear();
                    return Poll::Ready(result);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FsDisk;

    /// A segment that is one hole: what nobody has read of it is not in memory.
    fn cold() -> (tempfile::TempDir, Arc<Segments>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(quorate_log::segment_name(1));
        std::fs::File::create(path)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let disk = FsDisk::open(directory.path()).unwrap();
        let segments = Segments::open(&disk, 0).unwrap();
        (directory, segments)
    }

    fn at(offset: u32, len: u32) -> ValueAt {
        ValueAt {
            segment: 1,
            offset,
            len,
            crc: 0,
        }
    }

    /// Reads these places, and says how often it was tried.
    fn read(segments: &Arc<Segments>, places: &[ValueAt]) -> (Result<usize, ValueError>, usize) {
        let mut tries = 0;
        let lock = std::sync::RwLock::new(());
        let mut waits = Waits::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let reading = poll_fn(|context| {
            // Nothing is held while something is fetched.
            drop(lock.try_write().unwrap());
            let hold = || lock.read().unwrap();
            waits.poll(context, segments, hold, |_, values| {
                tries += 1;
                let lens = places
                    .iter()
                    .map(|place| Ok(values.read(place)?.len()))
                    .collect::<Result<Vec<_>, _>>();
                Ok(lens?.into_iter().sum())
            })
        });
        let result = runtime.unwrap().block_on(reading);
        (result, tries)
    }

    #[test]
    fn what_is_not_in_memory_is_fetched_and_read_again() {
        let (_directory, segments) = cold();
        let far = 512 << 10;
        // On some file systems to read a hole brings it into memory, on some it does not.
        let (result, tries) = read(&segments, &[at(0, 10), at(far, 20), at(far, 20)]);
        assert_eq!((result, tries), (Ok(50), 3));
        let (result, tries) = read(&segments, &[at(1 << 20, 1)]);
        assert_eq!(
            (result, tries),
            (Err(ValueError::Rotten(at(1 << 20, 1))), 1)
        );
    }

    #[test]
    fn what_cannot_be_fetched_does_not_verify() {
        let (directory, segments) = cold();
        std::fs::remove_file(directory.path().join(quorate_log::segment_name(1))).unwrap();
        let (result, tries) = read(&segments, &[at(0, 10)]);
        assert_eq!((result, tries), (Ok(0), 2), "a length that no value has");
    }
}
