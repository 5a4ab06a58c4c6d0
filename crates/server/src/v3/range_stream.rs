//! RangeStream: a range's answer in pieces, so that no side holds a long one whole.
//!
//! All pieces are of the revision at which the first was read. The machine is held for one piece
//! at a time; a compaction that overtakes the revision ends the stream with an error.
//!
//! Source: spec/v3-api.md §2.2.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader,
};
use quorate_store::command::{Range, SortTarget};
use quorate_store::{KeyRange, ReadError, Revision, ValueError};
use tonic::{Code, Status};

use super::{Api, Responses, decode, encode, status, unary};

/// Keys of the first piece.
const FIRST_KEYS: usize = 10;
/// Keys looked at while the machine is held.
const MAX_KEYS: usize = 10_000;

impl Api {
    /// RangeStream: head, pieces, and the call's end in the trailers.
    ///
    /// # Errors
    /// What is refused before there is a first piece.
    pub(super) async fn range_stream(
        &self,
        request: RangeRequest,
    ) -> Result<Response<Body>, Status> {
        let reading = Reading::begin(self, request).await?;
        let pieces = stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            let piece = reading.piece().await;
            let goes_on = piece.is_ok() && !matches!(reading.stage, Stage::Done);
            Some((piece, goes_on.then_some(reading)))
        });
        let frames = frames(self.until_closed(pieces));
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        Ok(response)
    }
}

fn frames(pieces: Responses<Bytes>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        Some(match pieces.next().await {
            Some(Ok(piece)) => (Ok(Frame::data(piece)), Some(pieces)),
            Some(Err(status)) => (Ok(end(&status)), None),
            None => (Ok(end(&Status::new(Code::Ok, ""))), None),
        })
    })
}

fn end(status: &Status) -> Frame<Bytes> {
    Frame::trailers(unary::trailers(status))
}

/// How far the answer has come.
struct Reading {
    api: Api,
    /// What is left to read.
    range: KeyRange,
    revision: Revision,
    header: ResponseHeader,
    keys_only: bool,
    /// Keys that may still be sent.
    left: usize,
    /// Keys of the next piece.
    next_keys: usize,
    /// All keys found so far.
    count: u64,
    /// The limit cut something off.
    more: bool,
    stage: Stage,
}

enum Stage {
    Keys,
    /// Nothing more is sent but how many there are.
    Count,
    Done,
}

impl Reading {
    async fn begin(api: &Api, request: RangeRequest) -> Result<Self, Status> {
        let serializable = request.serializable;
        let asked = decode::range(request).map_err(|refusal| status::refused(&refusal))?;
        check(&asked)?;
        if !serializable {
            api.linearize().await?;
        }
        let header = api.header(Revision::ZERO);
        let machine = api.node.machine();
        let revision = machine.store().revision_asked(asked.revision);
        let revision = revision.map_err(|refusal| status::refused(&refusal))?;
        let limit = usize::try_from(asked.limit).ok().filter(|limit| *limit > 0);
        Ok(Self {
            api: api.clone(),
            header: encode::at(header, machine.store().revision()),
            range: asked.range,
            revision,
            keys_only: asked.keys_only,
            left: limit.unwrap_or(usize::MAX),
            next_keys: FIRST_KEYS,
            count: 0,
            more: false,
            stage: if asked.count_only {
                Stage::Count
            } else {
                Stage::Keys
            },
        })
    }

    /// The next piece, framed; the last one has header, more and count.
    async fn piece(&mut self) -> Result<Bytes, Status> {
        let mut response = RangeResponse::default();
        if matches!(self.stage, Stage::Keys) {
            let goes_on = self.read(&mut response).await?;
            self.resize(response.encoded_len());
            if !goes_on {
                self.stage = Stage::Done;
            } else if self.left == 0 {
                self.stage = Stage::Count;
                self.more = true;
            }
        } else {
            while self.count_on()? {
                tokio::task::yield_now().await;
            }
            self.stage = Stage::Done;
        }
        if matches!(self.stage, Stage::Done) {
            response.header = Some(self.header);
            response.more = self.more;
            response.count = encode::count(self.count);
        }
        Ok(unary::framed(&RangeStreamResponse {
            range_response: Some(response),
        }))
    }

    /// Reads the next keys. Returns whether the range goes on behind them.
    async fn read(&mut self, response: &mut RangeResponse) -> Result<bool, Status> {
        let read = self.api.node.read(|machine, values| {
            let store = machine.store();
            store.revision_asked(self.revision.to_wire())?;
            let wanted = self.next_keys.min(self.left);
            let mut kvs = Vec::new();
            for row in store.scan(&self.range, self.revision) {
                if kvs.len() == wanted {
                    return Ok((kvs, true));
                }
                let kv = if self.keys_only {
                    Ok(encode::without_value(row.key, row.version))
                } else {
                    encode::version(row.key, row.version, values)
                };
                match kv {
                    // What was read so far is not read again.
                    Err(ValueError::NotResident(_)) if !kvs.is_empty() => return Ok((kvs, true)),
                    kv => kvs.push(kv?),
                }
            }
            Ok::<_, ReadError>((kvs, false))
        });
        let (kvs, goes_on) = read.await.map_err(|error| status::read(&error))?;
        self.left -= kvs.len();
        self.count += kvs.len() as u64;
        if let Some(last) = kvs.last() {
            self.range = self.range.after(&last.key);
        }
        response.kvs = kvs;
        Ok(goes_on)
    }

    /// Counts the next keys. Returns whether the range goes on behind them.
    fn count_on(&mut self) -> Result<bool, Status> {
        let machine = self.api.node.machine();
        let store = machine.store();
        let pinned = store.revision_asked(self.revision.to_wire());
        pinned.map_err(|refusal| status::refused(&refusal))?;
        let mut last = None;
        for (key, version) in store.visit(&self.range, self.revision).take(MAX_KEYS) {
            self.count += u64::from(version.is_some());
            last = Some(key);
        }
        if let Some(last) = last {
            self.range = self.range.after(last);
        }
        Ok(last.is_some())
    }

    /// Larger pieces while they are small, smaller ones when they are large.
    fn resize(&mut self, bytes: usize) {
        let wanted = self.api.node.config().max_request_bytes;
        let bytes = bytes as u64;
        if bytes < wanted / 2 {
            self.next_keys = (self.next_keys * 2).min(MAX_KEYS);
        } else if bytes > wanted.saturating_mul(2) {
            self.next_keys = (self.next_keys / 2).max(1);
        }
    }
}

/// What only a whole answer can give is refused.
fn check(asked: &Range) -> Result<(), Status> {
    if asked.sort.target != SortTarget::Key || asked.sort.descending {
        return Err(Status::unimplemented(
            "RangeStream does not support custom sort orders",
        ));
    }
    let bounds = [
        asked.min_mod,
        asked.max_mod,
        asked.min_create,
        asked.max_create,
    ];
    if bounds.iter().any(|bound| *bound != 0) {
        return Err(Status::unimplemented(
            "RangeStream does not support revision filters",
        ));
    }
    Ok(())
}
