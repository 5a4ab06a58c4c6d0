//! The KV calls. Each takes a request and gives the framed answer.

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest,
    ResponseHeader, TxnRequest, request_op::Request as Op,
};
use quorate_replica::Machine;
use quorate_store::command::Range;
use quorate_store::{Body, ReadError, Refusal, Reply, Revision, Values};
use tonic::Status;

use super::listing::{Listing, Pinned};
use super::unary::{Answer, framed};
use super::{Api, decode, encode, limits, rows, status};

/// How often a long range is begun before it is read under one hold of the machine.
const LONG_RANGE_TRIES: usize = 4;

/// What of a range is answered at once: more would hold the machine, or memory, for long.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Keys that are or were in the range.
    pub(super) keys: usize,
    /// The message's length. One row is never too long.
    pub(super) bytes: usize,
}

impl Bounds {
    pub(super) const DEFAULT: Self = Self {
        keys: 4_096,
        bytes: 1 << 20,
    };
    const NONE: Self = Self {
        keys: usize::MAX,
        bytes: usize::MAX,
    };
}

impl Api {
    /// Range.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<Answer, Status> {
        let serializable = request.serializable;
        let asked = decode::range(request).map_err(|refusal| status::refused(&refusal))?;
        if !serializable {
            if self.node.only_learns() {
                return Err(status::not_for_learner());
            }
            self.linearize().await?;
        }
        self.node.metrics().ranges.one();
        let header = self.header(Revision::ZERO);
        match self.range_within(&asked, header, self.whole).await? {
            Some(message) => Ok(Answer::Whole(message)),
            // Boxed, or every call would carry the room for it.
            None => Box::pin(self.long_range(asked, header)).await,
        }
    }

    /// A range's answer at once, if it is within `bounds`.
    async fn range_within(
        &self,
        asked: &Range,
        header: ResponseHeader,
        bounds: Bounds,
    ) -> Result<Option<Bytes>, Status> {
        let read = self.node.read(|machine, values| {
            let store = machine.store();
            let Some(answer) = store.range_within(asked, values, bounds.keys)? else {
                return Ok(None);
            };
            let header = encode::at(header, store.revision());
            let response = rows::response(header, &answer, asked.keys_only, bounds.bytes, values)?;
            Ok(response)
        });
        read.await.map_err(|error| status::read(&error))
    }

    /// A range's answer in pieces. One that asks for "now" is begun again when a compaction has
    /// overtaken it, and in the end read under one hold of the machine.
    async fn long_range(&self, asked: Range, header: ResponseHeader) -> Result<Answer, Status> {
        for _ in 0..LONG_RANGE_TRIES {
            let (revision, latest) = {
                let machine = self.node.machine();
                let revision = machine.store().revision_asked(asked.revision);
                let revision = revision.map_err(|refusal| status::refused(&refusal))?;
                (revision, machine.store().revision())
            };
            let pinned = Pinned {
                node: self.node.clone(),
                asked: asked.clone(),
                revision,
            };
            match Listing::begin(pinned, encode::at(header, latest)).await {
                Err(ReadError::Refused(Refusal::Compacted { .. })) if asked.revision <= 0 => {}
                Err(error) => return Err(status::read(&error)),
                Ok(listing) => {
                    listing.check_len()?;
                    return Ok(Answer::Pieces(Box::new(listing)));
                }
            }
        }
        let whole = self.range_within(&asked, header, Bounds::NONE).await?;
        Ok(Answer::Whole(whole.expect("without bounds it is whole")))
    }

    /// Put.
    pub(super) async fn put(&self, request: PutRequest) -> Result<Bytes, Status> {
        let bytes = request.encoded_len();
        let put = decode::put(request).map_err(|refusal| status::refused(&refusal))?;
        match self.propose(bytes, Body::Put(put)).await? {
            (header, Reply::Put { prev }) => Ok(framed(&encode::put(header, prev))),
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    /// DeleteRange.
    pub(super) async fn delete_range(&self, request: DeleteRangeRequest) -> Result<Bytes, Status> {
        let bytes = request.encoded_len();
        let delete = decode::delete(request).map_err(|refusal| status::refused(&refusal))?;
        match self.propose(bytes, Body::DeleteRange(delete)).await? {
            (header, Reply::Deleted { count, prev }) => {
                Ok(framed(&encode::deleted(header, count, prev)))
            }
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    /// Txn. One that only reads does not go through the log.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<Bytes, Status> {
        let (bytes, serializable) = (request.encoded_len(), is_serializable(&request));
        let txn = decode::txn(request, limits::commands(self.node.config()))
            .map_err(|refusal| status::refused(&refusal))?;
        if !txn.only_reads() {
            return match self.propose(bytes, Body::Txn(Box::new(txn))).await? {
                (header, Reply::Txn(reply)) => Ok(framed(&encode::txn(header, reply))),
                (_, other) => Err(status::mismatch(&other)),
            };
        }
        if !serializable {
            self.linearize().await?;
        }
        let header = self.header(Revision::ZERO);
        let read = |machine: &Machine, values: &dyn Values| {
            let reply = machine.store().read_txn(&txn, values)?;
            Ok((machine.store().revision(), reply))
        };
        let read = self.node.read(read).await;
        let (revision, reply) = read.map_err(|error| status::read(&error))?;
        self.node.metrics().ranges.add(reply.responses.len() as u64);
        Ok(framed(&encode::txn(encode::at(header, revision), reply)))
    }

    /// Compact; `physical` waits until what it left behind is cleared up.
    pub(super) async fn compact(&self, request: CompactionRequest) -> Result<Bytes, Status> {
        let body = Body::Compact {
            revision: request.revision,
        };
        match self.propose(request.encoded_len(), body).await? {
            (header, Reply::Compacted) => {
                if request.physical {
                    self.node.purged().await;
                }
                Ok(framed(&CompactionResponse {
                    header: Some(header),
                }))
            }
            (_, other) => Err(status::mismatch(&other)),
        }
    }
}

/// Whether a txn that only reads may be answered from this member's state as it is.
fn is_serializable(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .all(|op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable))
}
