//! The messages of a call that sends many: read from gRPC's frames one at a time.
//!
//! Nothing is read ahead: what the client sends beyond the message asked for waits in HTTP/2's
//! window, so one that is not listened to is held up.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::BytesMut;
use hyper::body::Body as HttpBody;
use prost::Message;
use tonic::Status;

use super::{limits, unary};

/// A client's side of a call.
pub(super) struct Messages<Q> {
    body: Body,
    /// At most a message and one frame of HTTP/2.
    received: BytesMut,
    /// The longest message taken, in bytes.
    limit: usize,
    of: PhantomData<fn() -> Q>,
}

impl<Q: Message + Default> Messages<Q> {
    pub(super) fn new(body: Body, limit: usize) -> Self {
        let received = BytesMut::new();
        Self {
            body,
            received,
            limit,
            of: PhantomData,
        }
    }

    /// The next message; `None` once the client has closed its side.
    ///
    /// # Errors
    /// As [`unary::read`]; nothing comes behind one.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Q, Status>>> {
        loop {
            if let Some(message) = self.take().transpose() {
                return Poll::Ready(Some(message));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.received.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    let text = format!("the request broke off: {error}");
                    return Poll::Ready(Some(Err(Status::cancelled(text))));
                }
                None if self.received.is_empty() => return Poll::Ready(None),
                None => {
                    self.received.clear();
                    let cut = Status::internal("the request ends inside a message");
                    return Poll::Ready(Some(Err(cut)));
                }
            }
        }
    }

    /// A whole message, if one is there.
    fn take(&mut self) -> Result<Option<Q>, Status> {
        if self.received.len() < unary::PREFIX_BYTES {
            return Ok(None);
        }
        let (compressed, len) = unary::prefix(&self.received);
        unary::check(compressed, len, self.limit)?;
        let whole = unary::PREFIX_BYTES + len;
        if self.received.len() < whole {
            return Ok(None);
        }
        let message = self.received.split_to(whole).freeze();
        if self.received.is_empty() {
            // Or an idle stream would keep the room of its largest message.
            self.received = BytesMut::new();
        }
        let message = Q::decode(message.slice(unary::PREFIX_BYTES..));
        message
            .map(Some)
            .map_err(|error| limits::undecodable(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_proto::etcdserverpb::WatchProgressRequest as Empty;
    use quorate_proto::etcdserverpb::watch_request::RequestUnion;
    use quorate_proto::etcdserverpb::{WatchCancelRequest, WatchRequest};

    fn request(watch_id: i64) -> WatchRequest {
        let request_union = match watch_id {
            0 => Some(RequestUnion::ProgressRequest(Empty {})),
            _ => Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })),
        };
        WatchRequest { request_union }
    }

    /// All messages, up to an error.
    fn read(pieces: &[&[u8]]) -> (Vec<WatchRequest>, Option<Status>) {
        let pieces: Vec<Result<Bytes, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let mut messages = Messages::<WatchRequest>::new(body, 100);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            match messages.poll_next(&mut context) {
                Poll::Ready(Some(Ok(message))) => all.push(message),
                Poll::Ready(Some(Err(status))) => return (all, Some(status)),
                Poll::Ready(None) => return (all, None),
                // `iter` pauses now and then.
                Poll::Pending => {}
            }
        }
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let sent = [request(1), request(0), request(i64::MIN)];
        let bytes: Vec<u8> = sent.iter().flat_map(unary::framed).collect();
        for piece in 1..=bytes.len() {
            let pieces: Vec<&[u8]> = bytes.chunks(piece).collect();
            let (all, error) = read(&pieces);
            assert_eq!(all, sent, "in pieces of {piece}");
            assert!(error.is_none());
        }
    }

    #[test]
    fn what_is_no_message_ends_the_call_behind_those_that_are() {
        let good = unary::framed(&request(1));
        for (bad, code) in [
            (&[0, 0][..], tonic::Code::Internal),
            (&[0, 0, 0, 0, 1, 0xff], tonic::Code::Internal),
            (&[0, 0, 0, 0, 101], tonic::Code::ResourceExhausted),
            (&[1, 0, 0, 0, 0], tonic::Code::Unimplemented),
        ] {
            let (all, error) = read(&[&good, bad]);
            assert_eq!(all, [request(1)]);
            assert_eq!(error.expect("an error").code(), code, "{bad:?}");
        }
    }
}
