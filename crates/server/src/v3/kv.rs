//! The KV calls. Each takes a request and gives the framed answer.

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, PutRequest, RangeRequest,
    TxnRequest, request_op::Request as Op,
};
use quorate_replica::Machine;
use quorate_store::{Body, Reply, Revision, Values};
use tonic::Status;

use super::unary::framed;
use super::{Api, decode, encode, limits, rows, status};

impl Api {
    /// Range.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<Bytes, Status> {
        let serializable = request.serializable;
        let asked = decode::range(request).map_err(|refusal| status::refused(&refusal))?;
        if !serializable {
            self.linearize().await?;
        }
        self.node.metrics().ranges.one();
        let header = self.header(Revision::ZERO);
        let (machine, values) = (self.node.machine(), self.node.values());
        let answer = machine
            .store()
            .range(&asked, &values)
            .map_err(|e| status::read(&e))?;
        let header = encode::at(header, machine.store().revision());
        rows::response(&header, &answer, asked.keys_only, &values)
            .map_err(|error| status::value(&error))
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
