//! gRPC's frame around one message each way, for the calls that are made most.
//!
//! It does what tonic does for a unary call, without its layers: a request is decoded from the
//! bytes that the connection received, an answer is written once, into a buffer of its size.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message;
use tonic::Status;

use super::listing::Listing;
use super::{limits, status};
use crate::arrival::{self, Held};
use crate::metrics::{Counter, Metrics};
use crate::node::Unavailable;

/// One byte that says whether the message is compressed, four with its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Reads the one message of a request, of at most `limit` bytes, which are added to `received_bytes`.
///
/// # Errors
/// As Go's gRPC words them for a message that is too large or compressed.
pub(super) async fn read<B, Q>(
    mut body: B,
    limit: usize,
    metrics: &Arc<Metrics>,
    received_bytes: &Counter,
) -> Result<Q, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
    Q: Message + Default,
{
    let mut received = next(&mut body).await?.unwrap_or_default();
    // Nearly always the first piece is the whole request.
    if !(body.is_end_stream() && received.len() >= PREFIX_BYTES) {
        received = gather(received, body, limit, Held::new(metrics)).await?;
    }
    if received.len() < PREFIX_BYTES {
        return Err(Status::internal("the request holds no message"));
    }
    let (compressed, len) = prefix(&received);
    check(compressed, len, limit)?;
    let message = received.split_off(PREFIX_BYTES);
    received_bytes.add(message.len() as u64);
    if message.len() != len {
        return Err(Status::internal(
            "the request does not hold exactly one message",
        ));
    }
    Q::decode(message).map_err(|error| limits::undecodable(&error))
}

/// The rest of a request that came in pieces.
async fn gather<B>(first: Bytes, mut body: B, limit: usize, mut held: Held) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    let mut received = BytesMut::from(first);
    while let Some(piece) = next(&mut body).await? {
        if !held.grow(piece.len()) {
            return Err(status::unavailable(&Unavailable::TooManyRequests));
        }
        received.extend_from_slice(&piece);
        if received.len() >= PREFIX_BYTES {
            let (compressed, len) = prefix(&received);
            check(compressed, len, limit)?;
            let Some(left) = (PREFIX_BYTES + len).checked_sub(received.len()) else {
                break;
            };
            // Once, and no more than that: memory that was not written is not there.
            received.reserve(left);
        }
    }
    Ok(received.freeze())
}

async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    match arrival::next(body).await {
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(broken)) => Err(status::broken(&broken)),
        None => Ok(None),
    }
}

pub(super) fn prefix(received: &[u8]) -> (bool, usize) {
    let len = u32::from_be_bytes([received[1], received[2], received[3], received[4]]);
    (received[0] != 0, len as usize)
}

pub(super) fn check(compressed: bool, len: usize, limit: usize) -> Result<(), Status> {
    if compressed {
        return Err(Status::unimplemented("grpc: Decompressor is not installed"));
    }
    if len > limit {
        Err(limits::too_large(len, limit))
    } else {
        Ok(())
    }
}

/// An empty message buffer with its prefix, and room for exactly `len` bytes.
pub(super) fn prefixed(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + len);
    put_prefix(&mut buffer, len);
    buffer
}

/// Writes what comes before a message of `len` bytes.
pub(super) fn put_prefix(to: &mut BytesMut, len: usize) {
    to.put_u8(0);
    // An answer is bounded by what memory held; gRPC cannot say more than this.
    to.put_u32(u32::try_from(len).expect("an answer is smaller than 4 GiB"));
}

/// A message in its frame.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let mut buffer = prefixed(message.encoded_len());
    message
        .encode(&mut buffer)
        .expect("the buffer has room for it");
    buffer.freeze()
}

/// The response that holds an answer's body, or says what went wrong.
pub(super) fn respond(answer: Result<Body, Status>) -> Response<Body> {
    match answer {
        Ok(body) => {
            let mut response = Response::new(body);
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, grpc);
            response
        }
        Err(status) => status.into_http(),
    }
}

/// What stands behind the last message.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Its text is none that a header can hold.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    trailers
}

/// What a call is answered with.
pub(super) enum Answer {
    /// A framed message.
    Whole(Bytes),
    /// One that is written while it is sent.
    Pieces(Box<Listing>),
}

impl From<Bytes> for Answer {
    fn from(message: Bytes) -> Self {
        Self::Whole(message)
    }
}

/// The body of one framed message, and the trailers of success.
pub(super) fn whole(message: Bytes) -> Body {
    Body::new(Whole {
        message,
        ended: false,
    })
}

/// The trailers of success.
pub(super) fn success() -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    Frame::trailers(trailers)
}

struct Whole {
    /// Empty once it was taken.
    message: Bytes,
    ended: bool,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.message.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.message)))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.ended = true;
        Poll::Ready(Some(Ok(success())))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.message.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_proto::etcdserverpb::RangeRequest;

    fn read_pieces(pieces: &[&[u8]], limit: usize) -> Result<RangeRequest, Status> {
        let pieces: Vec<Result<Bytes, std::io::Error>> = pieces
            .iter()
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = Body::from_stream(tokio_stream::iter(pieces));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(read(body, limit, &Arc::default(), &Counter::default()))
    }

    fn request() -> RangeRequest {
        RangeRequest {
            key: "key".into(),
            limit: 7,
            ..RangeRequest::default()
        }
    }

    #[test]
    fn a_message_is_read_however_it_is_cut() {
        let bytes = framed(&request());
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(
                read_pieces(&[head, tail], 100).expect("whole"),
                request(),
                "{cut}"
            );
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read_pieces(&single, 100).expect("whole"), request());
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        let bytes = framed(&request());
        let cases: [(&[&[u8]], tonic::Code); 6] = [
            (&[], tonic::Code::Internal),
            (&[&bytes[..3]], tonic::Code::Internal),
            (&[&bytes[..bytes.len() - 1]], tonic::Code::Internal),
            (&[&bytes, b"x"], tonic::Code::Internal),
            (&[&[0, 0, 0, 0, 1, 0xff]], tonic::Code::Internal),
            (&[&[1, 0, 0, 0, 0]], tonic::Code::Unimplemented),
        ];
        for (pieces, code) in cases {
            assert_eq!(
                read_pieces(pieces, 100).expect_err("refused").code(),
                code,
                "{pieces:?}"
            );
        }
        let status = read_pieces(&[&bytes], 3).expect_err("too large");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (7 vs. 3)"
        );
    }
}
