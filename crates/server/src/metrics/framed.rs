//! Counts what calls of tonic's send and receive, from the frames that pass by.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};

use super::{Call, MethodId, Metrics};

/// One byte that says whether the message is compressed, four with its length.
const PREFIX_BYTES: usize = 5;

/// Has the messages of a request counted.
pub(crate) fn count_request(body: Body, metrics: &Arc<Metrics>, method: MethodId) -> Body {
    let (metrics, mut messages) = (metrics.clone(), Messages::default());
    let see = move |frame: &Frame<Bytes>| {
        if let Some(data) = frame.data_ref() {
            let (count, bytes) = messages.take(data);
            metrics.calls.received(method, count);
            metrics.received_bytes.add(bytes);
        }
    };
    Body::new(Seen { body, see })
}

/// Has the messages of a response counted, and the call ended with what its trailers say.
pub(crate) fn count_response(response: Response<Body>, call: Call<Arc<Metrics>>) -> Response<Body> {
    if let Some(code) = code(response.headers()) {
        call.end(code);
        return response;
    }
    let (mut call, mut messages) = (Some(call), Messages::default());
    response.map(|body| {
        Body::new(Seen {
            body,
            see: move |frame: &Frame<Bytes>| {
                let Some(open) = &call else { return };
                if let Some(data) = frame.data_ref() {
                    let (count, bytes) = messages.take(data);
                    open.metrics.calls.sent(open.method, count);
                    open.metrics.sent_bytes.add(bytes);
                } else if let Some(code) = frame.trailers_ref().and_then(code)
                    && let Some(call) = call.take()
                {
                    call.end(code);
                }
            },
        })
    })
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let status = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(status.as_bytes()))
}

/// A body whose frames are shown to `see` on their way.
struct Seen<F> {
    body: Body,
    see: F,
}

impl<F: FnMut(&Frame<Bytes>) + Unpin> HttpBody for Seen<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            (this.see)(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Finds the messages in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    filled: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// How many messages begin in `bytes`, and how long they are together.
    fn take(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut count, mut total) = (0, 0);
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            if self.left > 0 || bytes.is_empty() {
                break;
            }
            let taken = (PREFIX_BYTES - self.filled).min(bytes.len());
            self.prefix[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == PREFIX_BYTES {
                let [_, a, b, c, d] = self.prefix;
                let len = u32::from_be_bytes([a, b, c, d]);
                (self.filled, self.left) = (0, len as usize);
                count += 1;
                total += u64::from(len);
            }
        }
        (count, total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_once_however_they_are_cut() {
        let mut stream = Vec::new();
        for len in [0_u32, 3, 300, 0, 1] {
            stream.push(0);
            stream.extend_from_slice(&len.to_be_bytes());
            stream.resize(stream.len() + len as usize, 0xff);
        }
        for piece in 1..=stream.len() {
            let mut messages = Messages::default();
            let sum = stream.chunks(piece).fold((0, 0), |sum, bytes| {
                let (count, len) = messages.take(bytes);
                (sum.0 + count, sum.1 + len)
            });
            assert_eq!(sum, (5, 304), "in pieces of {piece}");
        }
    }
}
