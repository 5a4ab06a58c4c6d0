//! A long answer to a Range: one message as ever, written piece by piece while it is sent.
//!
//! Its length comes first on the wire, so the range is walked once to measure it and once to write
//! it, both as of one revision and with the machine held for a bounded chunk at a time. Beside the
//! piece in hand nothing is kept; of rows in another order than the keys' ([`sorted`]) what each is
//! sorted by. HTTP/2 asks for a piece when its client has room for it.
//!
//! L1. Measured and written is the same: what stood at a revision does not change while that
//!     revision can be read.
//! L2. A message that ends cleanly is whole. If the revision is compacted meanwhile, or a value does
//!     not verify, the stream is reset.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use quorate_proto::etcdserverpb::ResponseHeader;
use quorate_store::command::{Range, SortTarget};
use quorate_store::{Key, KeyRange, ReadError, Revision, Row, Store, ValueError, Values};
use tokio::task::yield_now;
use tonic::{Code, Status};

use super::{rows, sorted, status, unary};
use crate::metrics::{Call, Metrics};
use crate::node::Node;

/// Keys looked at while the machine is held to measure them.
pub(super) const MEASURE_KEYS: usize = 2_048;
/// Keys looked at while the machine is held to write them.
const PIECE_KEYS: usize = 512;
/// A piece ends when it has grown to this.
const PIECE_BYTES: usize = 128 << 10;
/// gRPC's bound on a message, as etcd sets it.
const MAX_BYTES: usize = i32::MAX as usize;

/// What is to be listed: a range as it stood at a revision that could be read just now.
pub(super) struct Pinned {
    pub(super) node: Node,
    pub(super) asked: Range,
    pub(super) revision: Revision,
}

impl Pinned {
    /// Whether the revision can still be read.
    pub(super) fn check(&self, store: &Store) -> Result<(), ReadError> {
        store.revision_asked(self.revision.to_wire())?;
        Ok(())
    }
}

/// What measuring finds.
#[derive(Default)]
pub(super) struct Found {
    /// Keys in the range.
    pub(super) count: u64,
    /// Rows of the answer.
    pub(super) rows: u64,
    /// What they take of the message.
    pub(super) bytes: usize,
    /// The limit cut something off.
    pub(super) more: bool,
}

/// An answer that was measured and begun.
pub(super) struct Listing {
    pinned: Pinned,
    frame: rows::Frame,
    /// The message's length in bytes.
    len: usize,
    rest: Rest,
    /// Rows still to be written.
    rows: u64,
    /// The next piece, if it was written already.
    ready: Option<Bytes>,
    done: bool,
}

/// Where the next rows come from.
enum Rest {
    InOrder(KeyRange),
    Sorted(std::vec::IntoIter<Key>),
}

/// What one hold of the machine wrote.
struct Written<'a> {
    rows: u64,
    /// The last key looked at.
    last: Option<&'a Key>,
}

impl Listing {
    /// Measures the answer and writes its first piece, so that what is refused is refused by a
    /// status.
    ///
    /// # Errors
    /// [`ReadError`], also when the revision is compacted meanwhile.
    pub(super) async fn begin(pinned: Pinned, header: ResponseHeader) -> Result<Self, ReadError> {
        let sort = pinned.asked.sort;
        let in_order = sort.target == SortTarget::Key && !sort.descending;
        let (pinned, found, rest) = if in_order || pinned.asked.count_only {
            let found = measure(&pinned).await?;
            let range = pinned.asked.range.clone();
            (pinned, found, Rest::InOrder(range))
        } else {
            let keys = measure(&pinned).await?.count;
            let (pinned, found, keys) = sorted::read(pinned, keys).await?;
            (pinned, found, Rest::Sorted(keys.into_iter()))
        };
        let frame = rows::Frame {
            header,
            more: found.more,
            count: found.count,
        };
        let mut listing = Self {
            len: frame.message_len(found.bytes),
            pinned,
            frame,
            rest,
            rows: found.rows,
            ready: None,
            done: false,
        };
        let mut head = BytesMut::with_capacity(PIECE_BYTES);
        // A longer one is not sent: `check_len`.
        unary::put_prefix(&mut head, listing.len.min(MAX_BYTES));
        listing.frame.put_head(&mut head);
        listing.ready = Some(listing.write(head).await?);
        Ok(listing)
    }

    /// Refuses a message that is longer than gRPC lets one be.
    pub(super) fn check_len(&self) -> Result<(), Status> {
        if self.len <= MAX_BYTES {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({} vs. {MAX_BYTES})",
            self.len
        )))
    }

    /// The whole answer; `call` ends with it.
    pub(super) fn into_body(self, call: Call<Arc<Metrics>>) -> Body {
        let frames = stream::unfold(Some((self, call)), |state| async {
            let (mut listing, call) = state?;
            Some(match listing.piece().await {
                Ok(Some(piece)) => (Ok(Frame::data(piece)), Some((listing, call))),
                Ok(None) => {
                    call.metrics.sent_bytes.add(listing.len as u64);
                    call.end(Code::Ok);
                    (Ok(unary::success()), None)
                }
                // L2.
                Err(error) => {
                    call.end(status::read(&error).code());
                    (Err(error), None)
                }
            })
        });
        Body::new(StreamBody::new(frames))
    }

    /// The next piece of the message; `None` behind the last.
    async fn piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        if let Some(ready) = self.ready.take() {
            return Ok(Some(ready));
        }
        if self.done {
            return Ok(None);
        }
        yield_now().await;
        let piece = self.write(BytesMut::with_capacity(PIECE_BYTES)).await?;
        Ok(Some(piece))
    }

    /// Writes the next rows, and behind the last one the message's tail.
    async fn write(&mut self, mut piece: BytesMut) -> Result<Bytes, ReadError> {
        let start = piece.len();
        while self.rows > 0 && piece.len() == start {
            let written = self.pinned.node.read(|machine, values| {
                piece.truncate(start);
                let store = machine.store();
                self.pinned.check(store)?;
                let written = self.write_on(&mut piece, store, values)?;
                Ok::<_, ReadError>((written.rows, written.last.cloned()))
            });
            let (rows, last) = written.await?;
            self.advance(rows, last);
            if piece.len() == start {
                yield_now().await;
            }
        }
        if self.rows == 0 {
            self.frame.put_tail(&mut piece);
            self.done = true;
        }
        Ok(piece.freeze())
    }

    fn write_on<'a>(
        &self,
        to: &mut BytesMut,
        store: &'a Store,
        values: &dyn Values,
    ) -> Result<Written<'a>, ValueError> {
        let (asked, revision) = (&self.pinned.asked, self.pinned.revision);
        let mut written = Written {
            rows: 0,
            last: None,
        };
        match &self.rest {
            Rest::InOrder(range) => {
                for (key, version) in store.visit(range, revision).take(PIECE_KEYS) {
                    if let Some(version) = version.filter(|version| asked.admits(version))
                        && !self.put(to, &mut written, Row { key, version }, values)?
                    {
                        break;
                    }
                    written.last = Some(key);
                }
            }
            Rest::Sorted(keys) => {
                for key in keys.as_slice().iter().take(PIECE_KEYS) {
                    let version = store.file_at(key, revision);
                    let version = version.expect("it stood there when it was measured (L1)");
                    if !self.put(to, &mut written, Row { key, version }, values)? {
                        break;
                    }
                }
            }
        }
        Ok(written)
    }

    /// Writes a row. Returns whether it did: else it belongs to the next piece, or to none.
    fn put(
        &self,
        to: &mut BytesMut,
        written: &mut Written<'_>,
        row: Row<'_>,
        values: &dyn Values,
    ) -> Result<bool, ValueError> {
        let start = to.len();
        if written.rows == self.rows || start >= PIECE_BYTES {
            return Ok(false);
        }
        match rows::put_entry(to, &row, self.pinned.asked.keys_only, values) {
            Ok(()) => {
                written.rows += 1;
                Ok(true)
            }
            // What was read so far is not read again.
            Err(ValueError::NotResident(_)) if written.rows > 0 => {
                to.truncate(start);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn advance(&mut self, rows: u64, last: Option<Key>) {
        self.rows -= rows;
        match &mut self.rest {
            Rest::InOrder(range) => {
                let last = last.expect("what was measured is in the range (L1)");
                *range = range.after(&last);
            }
            Rest::Sorted(keys) => keys.by_ref().take(rows as usize).for_each(drop),
        }
    }
}

/// Measures rows in the order of their keys.
async fn measure(pinned: &Pinned) -> Result<Found, ReadError> {
    let mut found = Found::default();
    let mut range = pinned.asked.range.clone();
    loop {
        let last = measure_on(pinned, &range, &mut found)?;
        let Some(last) = last else {
            return Ok(found);
        };
        range = range.after(&last);
        yield_now().await;
    }
}

/// Measures a chunk; the last key looked at.
fn measure_on(
    pinned: &Pinned,
    range: &KeyRange,
    found: &mut Found,
) -> Result<Option<Key>, ReadError> {
    let asked = &pinned.asked;
    let limit = u64::try_from(asked.limit).ok().filter(|limit| *limit > 0);
    let machine = pinned.node.machine();
    let store = machine.store();
    pinned.check(store)?;
    let mut last = None;
    for (key, version) in store.visit(range, pinned.revision).take(MEASURE_KEYS) {
        last = Some(key);
        let Some(version) = version else { continue };
        found.count += 1;
        if asked.count_only || found.more || !asked.admits(version) {
            continue;
        }
        if limit == Some(found.rows) {
            found.more = true;
            continue;
        }
        found.rows += 1;
        found.bytes += rows::entry_len(&Row { key, version }, asked.keys_only);
    }
    Ok(last.cloned())
}
