//! Requests as they come from the wire, into commands and reads: valid, or refused.
//!
//! The checks that need no state are made here, in etcd's order where that shows in the answer;
//! [`command::Txn::check`] makes the rest. Nothing is copied: keys and values are slices of the receive
//! buffer until the command is encoded for the log.
//!
//! Source: spec/v3-api.md §2.2 to §2.5.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use quorate_store::command::{self, Blob, Limits, Op, Operand, Relation, Sort};
use quorate_store::{KeyRange, Refusal};

/// Reads bytes as one of the requests and makes of it what it is, without a panic.
#[cfg(fuzzing)]
pub(crate) fn fuzz(pick: u8, bytes: &[u8]) {
    use prost::Message;
    use quorate_proto::etcdserverpb as pb;
    let limits = Limits { max_txn_ops: 128 };
    match pick % 8 {
        0 => drop(RangeRequest::decode(bytes).map(range)),
        1 => drop(PutRequest::decode(bytes).map(put)),
        2 => drop(DeleteRangeRequest::decode(bytes).map(delete)),
        3 => {
            if let Ok(Ok(txn)) = TxnRequest::decode(bytes).map(|request| txn(request, limits)) {
                let body = command::Body::Txn(Box::new(txn));
                let id = command::RequestId::default();
                let entry = command::Draft::new(id, quorate_store::UnixMs(0), &body);
                let entry = entry.stamp(quorate_store::ClusterTime(0));
                quorate_store::Command::decode(&entry).expect("what is proposed can be applied");
            }
        }
        4 => drop(pb::WatchRequest::decode(bytes)),
        5 => drop(pb::LeaseGrantRequest::decode(bytes)),
        6 => drop(pb::AlarmRequest::decode(bytes)),
        _ => drop(pb::DowngradeRequest::decode(bytes)),
    }
}

/// A read.
pub(super) fn range(request: RangeRequest) -> Result<command::Range, Refusal> {
    Ok(command::Range {
        range: KeyRange::from_wire(request.key, request.range_end)?,
        limit: request.limit,
        revision: request.revision,
        sort: Sort::from_wire(request.sort_order, request.sort_target)?,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod: request.min_mod_revision,
        max_mod: request.max_mod_revision,
        min_create: request.min_create_revision,
        max_create: request.max_create_revision,
    })
}

/// A put.
pub(super) fn put(request: PutRequest) -> Result<command::Put, Refusal> {
    let put = command::Put {
        key: request.key,
        value: Blob::new(request.value),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    };
    put.check()?;
    Ok(put)
}

/// A delete.
pub(super) fn delete(request: DeleteRangeRequest) -> Result<command::DeleteRange, Refusal> {
    let range = KeyRange::from_wire(request.key, request.range_end)?;
    Ok(command::DeleteRange {
        range,
        prev_kv: request.prev_kv,
    })
}

/// A whole txn, checked.
pub(super) fn txn(request: TxnRequest, limits: Limits) -> Result<command::Txn, Refusal> {
    let txn = level(request, limits.max_txn_ops)?;
    txn.check(limits)?;
    Ok(txn)
}

/// One level of a txn: first its size, then its compares, then its operations.
fn level(request: TxnRequest, budget: usize) -> Result<command::Txn, Refusal> {
    let TxnRequest {
        compare,
        success,
        failure,
    } = request;
    let widest = compare.len().max(success.len()).max(failure.len());
    let left = budget.checked_sub(widest).ok_or(Refusal::TooManyOps)?;
    let ops = |branch: Vec<RequestOp>| -> Result<Vec<Op>, Refusal> {
        branch.into_iter().map(|each| op(each, left)).collect()
    };
    Ok(command::Txn {
        compare: compare
            .into_iter()
            .map(comparison)
            .collect::<Result<_, _>>()?,
        success: ops(success)?,
        failure: ops(failure)?,
    })
}

fn op(request: RequestOp, budget: usize) -> Result<Op, Refusal> {
    Ok(match request.request.ok_or(Refusal::KeyNotFound)? {
        Request::RequestRange(request) => Op::Range(range(request)?),
        Request::RequestPut(request) => Op::Put(put(request)?),
        Request::RequestDeleteRange(request) => Op::DeleteRange(delete(request)?),
        Request::RequestTxn(request) => Op::Txn(Box::new(level(request, budget)?)),
    })
}

/// A compare. As in etcd a target of an unknown number is equal to anything, and a result of an
/// unknown number always holds.
fn comparison(request: Compare) -> Result<command::Compare, Refusal> {
    let result = CompareResult::try_from(request.result);
    let target = CompareTarget::try_from(request.target);
    let range = KeyRange::from_wire(request.key, request.range_end)?;
    // A missing key has version 0, and no version is less.
    let (relation, operand) = match (result, target) {
        (Ok(result), Ok(target)) => (relation(result), operand(target, request.target_union)),
        // Holds of every value, and so of no missing key.
        (Err(_), Ok(CompareTarget::Value)) => (Relation::Greater, Operand::Version(0)),
        (Err(_), _) | (Ok(CompareResult::Equal), Err(_)) => {
            (Relation::Greater, Operand::Version(-1))
        }
        (Ok(_), Err(_)) => (Relation::Less, Operand::Version(0)),
    };
    Ok(command::Compare {
        range,
        relation,
        operand,
    })
}

fn relation(result: CompareResult) -> Relation {
    match result {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    }
}

/// A union that names another field than the target stands for 0 or the empty value.
fn operand(target: CompareTarget, union: Option<TargetUnion>) -> Operand {
    match (target, union) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Operand::Version(version),
        (CompareTarget::Version, _) => Operand::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(at))) => Operand::Create(at),
        (CompareTarget::Create, _) => Operand::Create(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(at))) => Operand::Mod(at),
        (CompareTarget::Mod, _) => Operand::Mod(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Operand::Value(value),
        (CompareTarget::Value, _) => Operand::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => Operand::Lease(lease),
        (CompareTarget::Lease, _) => Operand::Lease(0),
    }
}
