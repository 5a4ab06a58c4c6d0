//! What a Watch stream has ready for its client: gRPC messages, one behind the other, in chunks.
//!
//! O1. A message is whole before the next one begins, and they leave in the order they came.
//! O2. Whoever adds looks at [`Outgoing::is_full`] first, so that what is ready is at most
//!     [`CHUNK_BYTES`] and one message more.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchResponse};
use tonic::Status;

use super::event::Event;
use crate::v3::unary;

/// A stream gathers so many bytes before they leave.
pub(crate) const CHUNK_BYTES: usize = 32 << 10;
/// An event of so many bytes is not copied: it leaves as it is, shared with other streams.
const SHARED_BYTES: usize = 4 << 10;
/// The longest message that Go's gRPC sends.
const MAX_BYTES: usize = i32::MAX as usize;

/// The messages that are ready.
#[derive(Default)]
pub(super) struct Outgoing {
    /// They leave before what is in the buffer.
    chunks: VecDeque<Bytes>,
    buffer: BytesMut,
    bytes: usize,
}

/// Whom events are for.
pub(super) struct Address {
    pub(super) watch_id: i64,
    /// Responses of so many bytes are cut in pieces, if their client takes pieces.
    pub(super) limit: Option<usize>,
}

impl Outgoing {
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// The next bytes to leave.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.cut();
        }
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    /// Adds a response as it is.
    pub(super) fn add(&mut self, response: &WatchResponse) {
        self.begin(response, response.encoded_len());
    }

    /// Adds a response of these events, in pieces where that is asked for and needed.
    ///
    /// # Errors
    /// As Go's gRPC words it for a message that is longer than any client takes.
    pub(super) fn add_events(
        &mut self,
        header: &ResponseHeader,
        to: &Address,
        events: &[Event],
    ) -> Result<(), Status> {
        let mut head = WatchResponse {
            header: Some(*header),
            watch_id: to.watch_id,
            ..WatchResponse::default()
        };
        let whole = head.encoded_len() + bytes(events);
        let Some(limit) = to.limit.filter(|limit| events.len() > 1 && whole >= *limit) else {
            return self.add_piece(&head, events);
        };
        head.fragment = true;
        let mut rest = events;
        while !rest.is_empty() {
            let mut len = head.encoded_len();
            let fits = rest.iter().take_while(|event| {
                len += event.field.len();
                len < limit
            });
            // One event is sent whatever its size.
            let (piece, behind) = rest.split_at(fits.count().max(1));
            head.fragment = !behind.is_empty();
            self.add_piece(&head, piece)?;
            rest = behind;
        }
        Ok(())
    }

    fn add_piece(&mut self, head: &WatchResponse, events: &[Event]) -> Result<(), Status> {
        let len = head.encoded_len() + bytes(events);
        if len > MAX_BYTES {
            return Err(Status::resource_exhausted(format!(
                "grpc: trying to send message larger than max ({len} vs. {MAX_BYTES})"
            )));
        }
        self.begin(head, len);
        for Event { field, .. } in events {
            self.bytes += field.len();
            if field.len() < SHARED_BYTES {
                self.buffer.put_slice(field);
            } else {
                self.cut();
                self.chunks.push_back(field.clone());
            }
        }
        Ok(())
    }

    /// Begins a message of `len` bytes with its head.
    fn begin(&mut self, head: &WatchResponse, len: usize) {
        let head_len = head.encoded_len();
        self.buffer
            .reserve(unary::PREFIX_BYTES + len.min(head_len + CHUNK_BYTES));
        self.bytes += unary::PREFIX_BYTES + head_len;
        self.buffer.put_u8(0);
        self.buffer
            .put_u32(u32::try_from(len).expect("checked to be shorter"));
        head.encode_raw(&mut self.buffer);
    }

    /// Has what is in the buffer leave before what comes next.
    fn cut(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_empty() {
            self.chunks.push_back(buffer.freeze());
        }
    }
}

fn bytes(events: &[Event]) -> usize {
    events.iter().map(|event| event.field.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::mvccpb;

    /// A put whose field has `len` bytes.
    fn event(number: i64, len: usize) -> (mvccpb::Event, Event) {
        let mut put = mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                mod_revision: number,
                ..mvccpb::KeyValue::default()
            }),
            ..mvccpb::Event::default()
        };
        let wrap = |put: &mvccpb::Event| {
            let events = vec![put.clone()];
            let response = WatchResponse {
                events,
                ..WatchResponse::default()
            };
            Bytes::from(response.encode_to_vec())
        };
        while wrap(&put).len() < len {
            let missing = len - wrap(&put).len();
            let kv = put.kv.as_mut().expect("a put");
            kv.value = vec![b'v'; kv.value.len() + missing.div_ceil(2)].into();
        }
        let field = wrap(&put);
        (
            put,
            Event {
                is_delete: false,
                field,
            },
        )
    }

    /// What leaves, and in how many chunks.
    fn sent(out: &mut Outgoing) -> (Vec<WatchResponse>, usize) {
        let chunks: Vec<Bytes> = std::iter::from_fn(|| out.take()).collect();
        assert_eq!((out.len(), out.take()), (0, None));
        assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
        let (mut rest, mut responses) = (Bytes::from(chunks.concat()), Vec::new());
        while !rest.is_empty() {
            let (compressed, len) = unary::prefix(&rest);
            assert!(!compressed);
            let message = rest.split_to(unary::PREFIX_BYTES + len);
            let message = message.slice(unary::PREFIX_BYTES..);
            responses.push(WatchResponse::decode(message).expect("a response"));
        }
        (responses, chunks.len())
    }

    fn header() -> ResponseHeader {
        ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 300,
            revision: 7,
            raft_term: 2,
        }
    }

    #[test]
    fn the_generated_code_reads_what_leaves() {
        let (puts, events): (Vec<_>, Vec<_>) = [20, SHARED_BYTES, 100_000, 30]
            .iter()
            .zip(1..)
            .map(|(len, number)| event(number, *len))
            .unzip();
        let mut out = Outgoing::default();
        let created = WatchResponse {
            header: Some(header()),
            watch_id: -1,
            created: true,
            ..WatchResponse::default()
        };
        out.add(&created);
        let to = Address {
            watch_id: 5,
            limit: None,
        };
        for events in [&events[..1], &events] {
            out.add_events(&header(), &to, events)
                .expect("short enough");
        }
        let len = out.len();
        let (responses, chunks) = sent(&mut out);
        let framed = |response: &WatchResponse| unary::framed(response).len();
        assert_eq!(len, responses.iter().map(framed).sum::<usize>());
        let expected = |puts: &[mvccpb::Event]| WatchResponse {
            header: Some(header()),
            watch_id: 5,
            events: puts.to_vec(),
            ..WatchResponse::default()
        };
        assert_eq!(responses, [created, expected(&puts[..1]), expected(&puts)]);
        assert_eq!(chunks, 4, "two small ones, and two that are shared");
    }

    #[test]
    fn pieces_are_under_the_limit_and_the_last_one_says_so() {
        let lens = [100, 100, 500, 40, 40, 40, 300];
        let (puts, events): (Vec<_>, Vec<_>) = lens
            .iter()
            .zip(1..)
            .map(|(len, number)| event(number, *len))
            .unzip();
        for (limit, pieces) in [(None, 1), (Some(10_000), 1), (Some(300), 4), (Some(1), 7)] {
            let mut out = Outgoing::default();
            let to = Address { watch_id: 0, limit };
            out.add_events(&header(), &to, &events)
                .expect("short enough");
            let (responses, _) = sent(&mut out);
            assert_eq!(responses.len(), pieces, "{limit:?}");
            let fragments: Vec<bool> = responses.iter().map(|piece| piece.fragment).collect();
            let expected: Vec<bool> = (1..=pieces).map(|number| number < pieces).collect();
            assert_eq!(fragments, expected);
            for piece in &responses {
                let len = piece.encoded_len();
                assert!(piece.events.len() == 1 || limit.is_none_or(|limit| len < limit));
            }
            let all: Vec<_> = responses
                .into_iter()
                .flat_map(|piece| piece.events)
                .collect();
            assert_eq!(all, puts);
        }
    }
}
