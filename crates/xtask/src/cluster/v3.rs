//! Calls in the v3 dialect, over gRPC.
//!
//! Which errors say that nothing was done: spec/v3-api.md §2.14.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, compare, request_op, response_op,
};
use quorate_proto::mvccpb::KeyValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::clients::PATIENCE;
use super::history::{Answer, Guard, Op, Outcome, Request, Shown, Txn};

/// One client of one member.
pub(super) struct V3 {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

/// A connection that is made when it is first used, and again when it breaks.
pub(super) fn channel(port: u16) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(2))
        .connect_lazy())
}

impl V3 {
    pub(super) fn new(port: u16) -> Result<Self> {
        let channel = channel(port)?;
        Ok(Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel),
        })
    }

    /// Sends a request and reads its answer.
    pub(super) async fn call(&mut self, request: &Request) -> Result<Outcome> {
        let answer = match tokio::time::timeout(PATIENCE, self.perform(request)).await {
            Ok(answer) => answer,
            Err(error) => return Ok(Outcome::Unknown(format!("no answer: {error}"))),
        };
        match answer {
            Ok(answer) => Ok(Outcome::Ok(answer)),
            Err(status) => failure(&status).with_context(|| format!("{request:?}: {status:?}")),
        }
    }

    async fn perform(&mut self, request: &Request) -> Result<Answer, Status> {
        match request {
            Request::Txn { txn, is_local } => match (&txn.guards[..], &txn.then[..]) {
                ([], [op]) => self.operation(op, *is_local).await,
                _ => self.transaction(txn).await,
            },
            Request::Grant { lease, ttl_s } => {
                let request = LeaseGrantRequest {
                    id: *lease,
                    ttl: ttl_s.cast_signed(),
                };
                let answer = self.lease.lease_grant(request).await?.into_inner();
                Ok(plain(answer.header.as_ref()))
            }
            Request::Revoke { lease } => {
                let request = LeaseRevokeRequest { id: *lease };
                let answer = self.lease.lease_revoke(request).await?.into_inner();
                Ok(plain(answer.header.as_ref()))
            }
            Request::KeepAlive { lease, .. } => self.keep_alive(*lease).await,
        }
    }

    async fn operation(&mut self, op: &Op, is_local: bool) -> Result<Answer, Status> {
        let (header, result) = match encode(op, is_local) {
            request_op::Request::RequestPut(put) => {
                let answer = self.kv.put(put).await?.into_inner();
                (answer.header, put_result(&answer))
            }
            request_op::Request::RequestDeleteRange(delete) => {
                let answer = self.kv.delete_range(delete).await?.into_inner();
                (answer.header, delete_result(&answer))
            }
            request_op::Request::RequestRange(range) => {
                let answer = self.kv.range(range).await?.into_inner();
                (answer.header, range_result(&answer))
            }
            request_op::Request::RequestTxn(_) => unreachable!("no operation is a transaction"),
        };
        Ok(Answer {
            results: vec![Some(result)],
            ..plain(header.as_ref())
        })
    }

    async fn transaction(&mut self, txn: &Txn) -> Result<Answer, Status> {
        let branch = |ops: &[Op]| {
            let op = |op| RequestOp {
                request: Some(encode(op, false)),
            };
            ops.iter().map(op).collect()
        };
        let request = TxnRequest {
            compare: txn.guards.iter().map(guard).collect(),
            success: branch(&txn.then),
            failure: branch(&txn.otherwise),
        };
        let answer = self.kv.txn(request).await?.into_inner();
        let results = answer.responses.iter().map(|op| Some(op_result(op)));
        Ok(Answer {
            succeeded: answer.succeeded,
            results: results.collect(),
            ..plain(answer.header.as_ref())
        })
    }

    async fn keep_alive(&mut self, lease: i64) -> Result<Answer, Status> {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease }]);
        let mut answers = self.lease.lease_keep_alive(requests).await?.into_inner();
        match answers.message().await? {
            Some(answer) if answer.ttl > 0 => Ok(plain(answer.header.as_ref())),
            Some(_) => Err(Status::not_found("etcdserver: requested lease not found")),
            None => Err(Status::unavailable("the stream ended")),
        }
    }
}

fn plain(header: Option<&ResponseHeader>) -> Answer {
    Answer {
        revision: header.map_or(0, |header| header.revision),
        succeeded: true,
        results: Vec::new(),
    }
}

fn encode(op: &Op, is_local: bool) -> request_op::Request {
    match op {
        Op::Put {
            key, value, lease, ..
        } => request_op::Request::RequestPut(PutRequest {
            key: key.clone().into(),
            value: value.clone().into(),
            lease: *lease,
            prev_kv: true,
            ..PutRequest::default()
        }),
        Op::Delete { key } => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.clone().into(),
            prev_kv: true,
            ..DeleteRangeRequest::default()
        }),
        Op::Range { from, to, at } => request_op::Request::RequestRange(RangeRequest {
            key: from.clone().into(),
            range_end: to.clone().into(),
            revision: at.unwrap_or(0),
            serializable: is_local,
            ..RangeRequest::default()
        }),
    }
}

fn guard(guard: &Guard) -> Compare {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    let (key, result, target, union) = match guard {
        Guard::Value(key, Some(value)) => (
            key,
            CompareResult::Equal,
            CompareTarget::Value,
            TargetUnion::Value(value.clone().into()),
        ),
        Guard::Value(key, None) => (
            key,
            CompareResult::Equal,
            CompareTarget::Version,
            TargetUnion::Version(0),
        ),
        Guard::Exists(key) => (
            key,
            CompareResult::Greater,
            CompareTarget::Version,
            TargetUnion::Version(0),
        ),
        Guard::Modified(key, revision) => (
            key,
            CompareResult::Equal,
            CompareTarget::Mod,
            TargetUnion::ModRevision(*revision),
        ),
    };
    Compare {
        key: key.clone().into(),
        result: result.into(),
        target: target.into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

fn op_result(op: &ResponseOp) -> Vec<(String, Shown)> {
    match &op.response {
        Some(response_op::Response::ResponseRange(answer)) => range_result(answer),
        Some(response_op::Response::ResponsePut(answer)) => put_result(answer),
        Some(response_op::Response::ResponseDeleteRange(answer)) => delete_result(answer),
        Some(response_op::Response::ResponseTxn(_)) | None => Vec::new(),
    }
}

fn range_result(answer: &RangeResponse) -> Vec<(String, Shown)> {
    answer.kvs.iter().map(shown).collect()
}

fn put_result(answer: &PutResponse) -> Vec<(String, Shown)> {
    answer.prev_kv.iter().map(shown).collect()
}

fn delete_result(answer: &DeleteRangeResponse) -> Vec<(String, Shown)> {
    answer.prev_kvs.iter().map(shown).collect()
}

/// A key as an answer or an event shows it.
pub(super) fn shown(kv: &KeyValue) -> (String, Shown) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = Shown {
        value: text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: Some(kv.version),
        lease: Some(kv.lease),
    };
    (text(&kv.key), shown)
}

/// What a status says about the request.
///
/// # Errors
/// If no member may answer so, whatever state it is in.
fn failure(status: &Status) -> Result<Outcome> {
    let text = status.message().to_owned();
    let refused = format!("{status:?}").contains("ConnectionRefused");
    let is_not_done = matches!(
        status.message(),
        "etcdserver: no leader"
            | "etcdserver: too many requests"
            | "etcdserver: requested lease not found"
    );
    Ok(match status.code() {
        _ if refused || is_not_done => Outcome::NotDone(text),
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
            Outcome::Unknown(text)
        }
        // A connection that ends within an answer.
        Code::Internal if text.contains("h2") => Outcome::Unknown(text),
        // A member that is behind has not got the revision yet.
        Code::OutOfRange if text.contains("future revision") => Outcome::NotDone(text),
        _ => bail!("no answer of a member"),
    })
}
