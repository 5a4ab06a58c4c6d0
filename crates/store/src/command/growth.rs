//! How much a command may add to what counts against the quota.

use super::{Body, Op, Put, Txn};
use crate::store::VERSION_BYTES;
use crate::tree;

/// What a lease counts, in bytes. Source: etcd's quota.
const LEASE_BYTES: u64 = 64;

impl Body {
    /// Bytes that it may add at most; `None` for what only frees, and is always allowed.
    pub fn growth_bytes(&self) -> Option<u64> {
        match self {
            Self::Put(put) => Some(put.growth_bytes()),
            Self::Txn(txn) => Some(txn.growth_bytes()).filter(|&bytes| bytes > 0),
            Self::LeaseGrant { .. } => Some(LEASE_BYTES),
            Self::Tree(request) => match request.op {
                tree::Op::Set { .. }
                | tree::Op::Create { .. }
                | tree::Op::Update { .. }
                | tree::Op::CompareAndSwap { .. } => {
                    Some(VERSION_BYTES + request.size_bytes() as u64)
                }
                tree::Op::Delete { .. } | tree::Op::CompareAndDelete { .. } => None,
            },
            Self::DeleteRange(_)
            | Self::Compact { .. }
            | Self::LeaseRevoke { .. }
            | Self::Alarm { .. }
            | Self::Expire
            | Self::Tick
            | Self::Member { .. } => None,
        }
    }
}

impl Put {
    fn growth_bytes(&self) -> u64 {
        VERSION_BYTES + (self.key.len() + self.value.bytes.len()) as u64
    }
}

impl Txn {
    /// That of the dearer branch.
    fn growth_bytes(&self) -> u64 {
        let branch = |ops: &[Op]| -> u64 {
            let bytes = ops.iter().map(|op| match op {
                Op::Put(put) => put.growth_bytes(),
                Op::Txn(inner) => inner.growth_bytes(),
                Op::Range(_) | Op::DeleteRange(_) => 0,
            });
            bytes.sum()
        };
        branch(&self.success).max(branch(&self.failure))
    }
}
