//! The KV service.

use prost::Message;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    request_op::Request as Op,
};
use quorate_store::{Body, Reply, Revision};
use tonic::{Request, Response, Status, async_trait};

use super::{Api, decode, encode, limits, status};

#[async_trait]
impl Kv for Api {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        let serializable = request.serializable;
        let asked = decode::range(request).map_err(|refusal| status::refused(&refusal))?;
        if !serializable {
            self.linearize().await?;
        }
        let header = self.header(Revision::ZERO);
        let (machine, values) = (self.node.machine(), self.node.values());
        let answer = machine
            .store()
            .range(&asked, values)
            .map_err(|e| status::read(&e))?;
        let response =
            encode::range(&asked, &answer, values).map_err(|error| status::value(&error))?;
        let header = encode::at(header, machine.store().revision());
        Ok(Response::new(RangeResponse {
            header: Some(header),
            ..response
        }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let put = decode::put(request).map_err(|refusal| status::refused(&refusal))?;
        match self.propose(bytes, Body::Put(put)).await? {
            (header, Reply::Put { prev }) => Ok(Response::new(encode::put(header, prev))),
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let delete = decode::delete(request).map_err(|refusal| status::refused(&refusal))?;
        match self.propose(bytes, Body::DeleteRange(delete)).await? {
            (header, Reply::Deleted { count, prev }) => {
                Ok(Response::new(encode::deleted(header, count, prev)))
            }
            (_, other) => Err(status::mismatch(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        let (bytes, serializable) = (request.encoded_len(), is_serializable(&request));
        let txn = decode::txn(request, limits::commands(self.node.config()))
            .map_err(|refusal| status::refused(&refusal))?;
        if !txn.only_reads() {
            return match self.propose(bytes, Body::Txn(Box::new(txn))).await? {
                (header, Reply::Txn(reply)) => Ok(Response::new(encode::txn(header, reply))),
                (_, other) => Err(status::mismatch(&other)),
            };
        }
        if !serializable {
            self.linearize().await?;
        }
        let header = self.header(Revision::ZERO);
        let machine = self.node.machine();
        let reply = machine.store().read_txn(&txn, self.node.values());
        let reply = reply.map_err(|error| status::read(&error))?;
        Ok(Response::new(encode::txn(
            encode::at(header, machine.store().revision()),
            reply,
        )))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let request = request.into_inner();
        let bytes = request.encoded_len();
        let body = Body::Compact {
            revision: request.revision,
        };
        match self.propose(bytes, body).await? {
            (header, Reply::Compacted) => {
                if request.physical {
                    self.node.purged().await;
                }
                Ok(Response::new(CompactionResponse {
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
