//! The checks a request passes before it may become a command.
//!
//! Source: spec/v3-api.md §2.2 to §2.5.

use super::wire::MAX_DEPTH;
use super::writes::Writes;
use super::{Body, Op, Put, Txn};
use crate::Refusal;

/// Bounds on a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations in one txn, `--max-txn-ops`.
    pub max_txn_ops: usize,
}

impl Body {
    /// Checks what can be known without the state.
    ///
    /// # Errors
    /// As etcd's API layer, in its order.
    pub fn check(&self, limits: Limits) -> Result<(), Refusal> {
        match self {
            Self::Put(put) => put.check(),
            Self::Txn(txn) => txn.check(limits),
            Self::LeaseGrant { ttl_s, .. } if *ttl_s > crate::lease::MAX_TTL_S => {
                Err(Refusal::LeaseTtlTooLarge { ttl_s: *ttl_s })
            }
            Self::DeleteRange(_)
            | Self::Compact { .. }
            | Self::LeaseGrant { .. }
            | Self::LeaseRevoke { .. }
            | Self::Alarm { .. }
            | Self::Tree(_)
            | Self::Expire
            | Self::Tick
            | Self::Member { .. } => Ok(()),
        }
    }
}

impl Put {
    /// Checks a put without knowing the state.
    ///
    /// # Errors
    /// As [`Body::check`].
    pub fn check(&self) -> Result<(), Refusal> {
        if self.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if self.ignore_value && !self.value.bytes.is_empty() {
            return Err(Refusal::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(Refusal::LeaseProvided);
        }
        Ok(())
    }
}

impl Txn {
    /// Checks a txn without knowing the state.
    ///
    /// # Errors
    /// As [`Body::check`].
    pub fn check(&self, limits: Limits) -> Result<(), Refusal> {
        self.check_ops(limits.max_txn_ops, MAX_DEPTH)?;
        for branch in [&self.success, &self.failure] {
            Writes::of(branch)?;
        }
        Ok(())
    }

    /// `budget` operations and `depth` levels of nested txns are left.
    fn check_ops(&self, budget: usize, depth: usize) -> Result<(), Refusal> {
        let ops = self
            .compare
            .len()
            .max(self.success.len())
            .max(self.failure.len());
        let left = budget.checked_sub(ops).ok_or(Refusal::TooManyOps)?;
        for op in self.success.iter().chain(&self.failure) {
            match op {
                Op::Put(put) => put.check()?,
                Op::Txn(txn) => {
                    let depth = depth.checked_sub(1).ok_or(Refusal::TooManyOps)?;
                    txn.check_ops(left, depth)?;
                }
                Op::Range(_) | Op::DeleteRange(_) => {}
            }
        }
        Ok(())
    }
}
