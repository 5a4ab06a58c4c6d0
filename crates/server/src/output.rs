//! A connection's output: gathered while its task runs, written once when the task pauses.
//!
//! HTTP/2 hands over one answer at a time and wants each on its way. Here an answer only joins the
//! buffer; whoever polls the connection calls [`Output::write_out`] afterwards, so that all answers
//! of one turn leave in one write.
//!
//! O1. Bytes leave in the order in which they came, each once.
//! O2. The buffer holds at most [`BOUND_BYTES`] and one write more; then the connection waits.
//!     As much does not wait for the turn's end: it leaves at once, as far as the socket takes it.
//! O3. After every poll of the connection either all that was taken has left, from below the buffer
//!     too, or the task will be woken when the socket has room.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// With so much waiting to leave, no more is taken. A listing comes in frames of 16 KiB: a copy of
/// each here costs less than a write of each, and a wake of its reader.
const BOUND_BYTES: usize = 128 << 10;
/// What an idle connection keeps of its buffer.
const KEEP_BYTES: usize = 16 << 10;
/// Behind a write of so many bytes more will come: there is room for it at once.
const LARGE_BYTES: usize = 8 << 10;

/// A connection for hyper: reads as ever, writes into the buffer.
pub(crate) struct Gathered<R, W> {
    read: R,
    output: Arc<Output<W>>,
}

/// What waits to leave a connection.
pub(crate) struct Output<W> {
    waiting: Mutex<Waiting<W>>,
}

struct Waiting<W> {
    write: W,
    buffer: BytesMut,
    /// Something was written and may wait below, as it does where it is encrypted.
    unflushed: bool,
    /// A write was told to wait.
    refused: bool,
    failed: Option<io::Error>,
}

/// Both ends of the arrangement.
pub(crate) fn gather<R, W>(read: R, write: W) -> (Gathered<R, W>, Arc<Output<W>>) {
    let waiting = Waiting {
        write,
        buffer: BytesMut::new(),
        unflushed: false,
        refused: false,
        failed: None,
    };
    let output = Arc::new(Output {
        waiting: Mutex::new(waiting),
    });
    (
        Gathered {
            read,
            output: output.clone(),
        },
        output,
    )
}

impl<W: AsyncWrite + Unpin> Output<W> {
    /// Writes what has gathered; to be called after each poll of the connection, by its task.
    pub(crate) fn write_out(&self, context: &mut Context<'_>) {
        let mut waiting = self.waiting();
        if waiting.buffer.is_empty() && !waiting.unflushed {
            return;
        }
        if let Poll::Ready(Err(error)) = waiting.flush(context) {
            waiting.buffer.clear();
            waiting.failed = Some(error);
            context.waker().wake_by_ref();
        }
        if waiting.refused && waiting.buffer.len() < BOUND_BYTES {
            waiting.refused = false;
            context.waker().wake_by_ref();
        }
    }

    /// Adds last words, if nothing waits to leave before them.
    pub(crate) fn say(&self, words: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.buffer.is_empty() {
            waiting.buffer.extend_from_slice(words);
        }
    }

    /// Says this instead of whatever waits.
    pub(crate) fn say_instead(&self, words: &[u8]) {
        self.waiting().buffer.clear();
        self.say(words);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<W>> {
        self.waiting
            .lock()
            .expect("nothing panics while it holds the output")
    }
}

impl<W: AsyncWrite + Unpin> Waiting<W> {
    /// Writes the buffer and sees to it that all that was ever written leaves.
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_buffer(context))?;
        ready!(Pin::new(&mut self.write).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn write_buffer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            self.unflushed = true;
            let written = Pin::new(&mut self.write).poll_write(context, &self.buffer);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.buffer.advance(written),
            }
        }
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes: into the buffer, or straight to the socket, behind the buffer, when it is full.
    fn take(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.buffer.len() + len >= BOUND_BYTES
            && let Poll::Ready(written) = self.write_with_buffer(context, slices)
            && !matches!(written, Ok(0))
        {
            return Poll::Ready(written);
        }
        // O2.
        if self.buffer.len() >= BOUND_BYTES {
            // The task is woken by `write_out`, which follows.
            self.refused = true;
            return Poll::Pending;
        }
        if len >= LARGE_BYTES && self.buffer.capacity() < BOUND_BYTES {
            self.buffer.reserve(BOUND_BYTES - self.buffer.len());
        } else if self.buffer.capacity() == 0 {
            self.buffer.reserve(KEEP_BYTES.max(len));
        }
        slices
            .iter()
            .for_each(|slice| self.buffer.extend_from_slice(slice));
        Poll::Ready(Ok(len))
    }

    /// Writes what waits and then `slices`; how many bytes of the latter left.
    fn write_with_buffer(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let waited = self.buffer.len();
        let all: Vec<io::IoSlice<'_>> = std::iter::once(io::IoSlice::new(&self.buffer))
            .chain(slices.iter().map(|slice| io::IoSlice::new(slice)))
            .collect();
        self.unflushed = true;
        let written = ready!(Pin::new(&mut self.write).poll_write_vectored(context, &all))?;
        self.buffer.advance(written.min(waited));
        Poll::Ready(Ok(written.saturating_sub(waited)))
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Gathered<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, to)
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Gathered<R, W> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output
            .waiting()
            .take(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.output.waiting().take(context, slices)
    }

    /// So that data comes as it is and is copied here for the first time, if at all.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing leaves yet: O3 holds without.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.output.waiting().failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.output.waiting();
        ready!(waiting.write_buffer(context))?;
        Pin::new(&mut waiting.write).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// A socket that takes `room` bytes.
    #[derive(Default)]
    struct Socket {
        room: usize,
        taken: Vec<u8>,
        writes: usize,
        broken: bool,
    }

    impl AsyncWrite for Socket {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Poll::Pending;
            }
            self.room -= len;
            self.writes += 1;
            self.taken.extend_from_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn put(connection: &mut Gathered<(), Socket>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(connection).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn what_one_turn_writes_leaves_in_one_write() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut connection, output) = gather(
            (),
            Socket {
                room: 1 << 20,
                ..Socket::default()
            },
        );
        for word in ["one ", "two ", "three"] {
            assert!(put(&mut connection, word.as_bytes()).is_ready());
            assert!(
                Pin::new(&mut connection)
                    .poll_flush(&mut context)
                    .is_ready()
            );
        }
        assert!(output.waiting().write.taken.is_empty());
        output.write_out(&mut context);
        let waiting = output.waiting();
        assert_eq!(
            (waiting.write.taken.as_slice(), waiting.write.writes),
            (&b"one two three"[..], 1)
        );
    }

    #[test]
    fn a_reader_that_is_slow_bounds_what_waits_and_loses_nothing() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut connection, output) = gather((), Socket::default());
        let mut sent = Vec::new();
        let piece: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        for len in (1..600).map(|step| step * 7_919 % piece.len()) {
            let mut left = &piece[..len];
            while !left.is_empty() {
                if let Poll::Ready(taken) = put(&mut connection, left) {
                    left = &left[taken.expect("no error")..];
                    continue;
                }
                let mut waiting = output.waiting();
                assert!(waiting.buffer.len() < BOUND_BYTES + piece.len(), "O2");
                waiting.write.room = 77_777;
                drop(waiting);
                output.write_out(&mut context);
            }
            sent.extend_from_slice(&piece[..len]);
        }
        output.waiting().write.room = usize::MAX;
        assert!(
            Pin::new(&mut connection)
                .poll_shutdown(&mut context)
                .is_ready()
        );
        assert!(output.waiting().write.taken == sent, "O1");
    }

    #[test]
    fn a_broken_socket_is_told_at_the_next_write() {
        let mut context = Context::from_waker(Waker::noop());
        let (mut connection, output) = gather(
            (),
            Socket {
                broken: true,
                ..Socket::default()
            },
        );
        assert!(put(&mut connection, b"lost").is_ready());
        output.write_out(&mut context);
        let Poll::Ready(Err(error)) = put(&mut connection, b"more") else {
            panic!("no error")
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
