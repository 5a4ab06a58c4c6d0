//! The Watch service: one stream, any number of watchers.
//!
//! The call is framed here, not by tonic: an event that many watch is encoded once ([`event`]), and
//! all that a stream has to say in a turn leaves as one piece ([`output`]).

mod event;
mod output;
mod stream;
mod watcher;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};

use super::Api;
use super::messages::Messages;
pub(super) use event::Recent;
pub(crate) use output::CHUNK_BYTES;
use stream::WatchStream;
use tonic::Status;

impl Api {
    /// Watch, with requests of at most `receive_bytes`, until it is `over`.
    pub(super) fn watch(
        &self,
        requests: Body,
        receive_bytes: usize,
        over: impl Future<Output = Status> + Send + 'static,
    ) -> Response<Body> {
        let requests = Messages::new(requests, receive_bytes);
        let stream = WatchStream::new(self.clone(), requests, Box::pin(over));
        let mut response = Response::new(Body::new(stream));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        response
    }
}
