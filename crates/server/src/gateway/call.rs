//! One gRPC call within this process: its frames, its end, and its deadline.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, Request};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use crate::v3::Services;

/// One byte that says whether the message is compressed, four with its length.
const PREFIX_BYTES: usize = 5;

/// A message in gRPC's frame.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a request is bounded"));
    frame.put_slice(message);
    frame.freeze()
}

/// The replies to a call, one after the other.
pub(super) struct Replies {
    body: Body,
    received: BytesMut,
    /// What is still to come of a reply that is taken in parts.
    part_bytes: usize,
    deadline: Option<Instant>,
}

impl Replies {
    /// Makes a call; `body` holds its framed messages.
    ///
    /// # Errors
    /// What the call was refused with before its first reply.
    pub(super) async fn open(
        services: &Services,
        path: &str,
        metadata: HeaderMap,
        body: Body,
        deadline: Option<Instant>,
    ) -> Result<Self, Status> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().expect("a method's path is a URI");
        *request.headers_mut() = metadata;
        let grpc = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(CONTENT_TYPE, grpc);
        let response = within(deadline, services.answer(request)).await?;
        succeeded(response.headers())?;
        Ok(Self {
            body: response.into_body(),
            received: BytesMut::new(),
            part_bytes: 0,
            deadline,
        })
    }

    /// The next reply; `None` after the last one of a call that succeeded.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        let deadline = self.deadline;
        within(deadline, self.receive())
            .await
            .and_then(|received| received)
            .transpose()
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            if !self.receive_frame().await? {
                return Ok(None);
            }
        }
    }

    /// Takes in what comes next. Returns whether anything did.
    async fn receive_frame(&mut self) -> Result<bool, Status> {
        let Some(frame) = self.body.frame().await else {
            return Ok(false);
        };
        let frame = frame.map_err(|error| Status::internal(error.to_string()))?;
        match frame.into_data() {
            Ok(data) => self.received.extend_from_slice(&data),
            Err(frame) => succeeded(&frame.into_trailers().unwrap_or_default())?,
        }
        Ok(true)
    }

    /// Whether the next reply is longer than so many bytes; its frame is then taken off.
    pub(super) async fn is_longer_than(&mut self, bytes: usize) -> Result<bool, Status> {
        let deadline = self.deadline;
        let receive = async {
            while self.received.len() < PREFIX_BYTES {
                if !self.receive_frame().await? {
                    return Ok::<_, Status>(false);
                }
            }
            Ok(true)
        };
        if !within(deadline, receive).await?? {
            return Ok(false);
        }
        let len = (&self.received[1..PREFIX_BYTES]).get_u32() as usize;
        if len <= bytes {
            return Ok(false);
        }
        self.received.advance(PREFIX_BYTES);
        self.part_bytes = len;
        Ok(true)
    }

    /// What has arrived of a long reply, as far as `whole` says that it can be used; `None` behind
    /// its end, if the call has succeeded.
    pub(super) async fn part(
        &mut self,
        whole: impl Fn(&[u8]) -> usize,
    ) -> Result<Option<Bytes>, Status> {
        let deadline = self.deadline;
        let receive = async {
            loop {
                let there = self.received.len().min(self.part_bytes);
                let usable = whole(&self.received[..there]);
                if usable > 0 {
                    self.part_bytes -= usable;
                    return Ok(Some(self.received.split_to(usable).freeze()));
                }
                if !self.receive_frame().await? {
                    break;
                }
            }
            if self.part_bytes > 0 {
                return Err(Status::internal("the reply ended too early"));
            }
            Ok(None)
        };
        within(deadline, receive).await?
    }

    /// A whole message, if one was received.
    fn take(&mut self) -> Option<Bytes> {
        let mut prefix = self.received.get(1..PREFIX_BYTES)?;
        let len = prefix.get_u32() as usize;
        if self.received.len() - PREFIX_BYTES < len {
            return None;
        }
        self.received.advance(PREFIX_BYTES);
        Some(self.received.split_to(len).freeze())
    }
}

async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Status> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => timeout_at(deadline, work)
            .await
            .map_err(|_| Status::deadline_exceeded("context deadline exceeded")),
    }
}

/// What headers or trailers say of a call's end, if anything.
fn succeeded(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}
