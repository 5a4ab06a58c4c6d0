//! Transactions.
//!
//! T1. All comparisons of the whole tree are judged by the state before any write of it.
//! T2. The path taken is checked before its first write, so a refused txn wrote nothing (S5).
//!
//! Source: spec/v3-api.md §2.5.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use core::cmp::Ordering;

use crate::command::{Compare, Op, Operand, Range, Relation, Txn};
use crate::store::Writing;
use crate::{
    FileVersion, RangeReply, ReadError, Refusal, Reply, Store, TxnReply, ValueError, Values,
};

/// Which branch each txn of a tree takes, in the order in which they are met.
type Path = VecDeque<bool>;

impl Store {
    pub(crate) fn txn(
        &mut self,
        txn: Txn,
        writing: &mut Writing,
        values: &dyn Values,
    ) -> Result<Result<TxnReply, Refusal>, ValueError> {
        let mut path = Path::new();
        self.choose(&txn, values, &mut path)?;
        if let Err(refusal) = self.check_path(&txn, &mut path.clone()) {
            return Ok(Err(refusal));
        }
        Ok(Ok(self.execute(txn, &mut path, writing, values)?))
    }

    /// T1: which way each txn goes, the chosen branch's nested ones included.
    fn choose(&self, txn: &Txn, values: &dyn Values, path: &mut Path) -> Result<(), ValueError> {
        let mut holds = true;
        for compare in &txn.compare {
            holds = holds && self.holds(compare, values)?;
        }
        path.push_back(holds);
        for op in txn.branch(holds) {
            if let Op::Txn(inner) = op {
                self.choose(inner, values, path)?;
            }
        }
        Ok(())
    }

    /// T2.
    fn check_path(&self, txn: &Txn, path: &mut Path) -> Result<(), Refusal> {
        let holds = path.pop_front().expect("one step for each txn");
        for op in txn.branch(holds) {
            match op {
                Op::Range(range) => self.check_revision(range.revision)?,
                Op::Put(put) => self.check_put(put)?,
                Op::DeleteRange(_) => {}
                Op::Txn(inner) => self.check_path(inner, path)?,
            }
        }
        Ok(())
    }

    /// In a txn a revision below 0 is one before the oldest; by itself it means the latest.
    fn check_revision(&self, asked: i64) -> Result<(), Refusal> {
        if asked < 0 && asked < self.compacted {
            return Err(Refusal::Compacted {
                asked,
                oldest: self.oldest(),
            });
        }
        self.revision_asked(asked).map(|_| ())
    }

    fn execute(
        &mut self,
        txn: Txn,
        path: &mut Path,
        writing: &mut Writing,
        values: &dyn Values,
    ) -> Result<TxnReply, ValueError> {
        let succeeded = path.pop_front().expect("one step for each txn");
        let branch = if succeeded { txn.success } else { txn.failure };
        let mut responses = Vec::with_capacity(branch.len());
        for op in branch {
            let reply = match op {
                Op::Range(range) => Reply::Range(self.range_in_txn(&range, values)?),
                Op::Put(put) => self.put(put, writing, values)?,
                Op::DeleteRange(delete) => self.delete_range(&delete, writing, values)?,
                Op::Txn(inner) => Reply::Txn(self.execute(*inner, path, writing, values)?),
            };
            // A range after a write of this txn sees it, and shows its revision.
            self.finish(writing);
            responses.push((self.revision, reply));
        }
        Ok(TxnReply {
            succeeded,
            responses,
        })
    }

    fn range_in_txn(&self, range: &Range, values: &dyn Values) -> Result<RangeReply, ValueError> {
        match self.range_reply(range, values) {
            Ok(reply) => Ok(reply),
            Err(ReadError::Value(error)) => Err(error),
            Err(ReadError::Refused(refusal)) => unreachable!("T2 checked the revision: {refusal}"),
        }
    }

    /// A range with its values read.
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn range_reply(&self, range: &Range, values: &dyn Values) -> Result<RangeReply, ReadError> {
        let answer = self.range(range, values)?;
        let mut kvs = Vec::with_capacity(answer.rows.len());
        for row in &answer.rows {
            let mut kv = Self::without_value(row.key, row.version);
            if !range.keys_only {
                kv.value = Bytes::from(row.version.value.read(values)?.into_owned());
            }
            kvs.push(kv);
        }
        Ok(RangeReply {
            kvs,
            more: answer.more,
            count: answer.count,
        })
    }

    /// Answers a txn that only reads, outside the log.
    ///
    /// # Errors
    /// As [`Store::range`].
    pub fn read_txn(&self, txn: &Txn, values: &dyn Values) -> Result<TxnReply, ReadError> {
        let mut path = Path::new();
        self.choose(txn, values, &mut path)?;
        self.check_path(txn, &mut path.clone())?;
        self.read_path(txn, &mut path, values)
    }

    fn read_path(
        &self,
        txn: &Txn,
        path: &mut Path,
        values: &dyn Values,
    ) -> Result<TxnReply, ReadError> {
        let succeeded = path.pop_front().expect("one step for each txn");
        let mut responses = Vec::new();
        for op in txn.branch(succeeded) {
            let reply = match op {
                Op::Range(range) => Reply::Range(self.range_reply(range, values)?),
                Op::Txn(inner) => Reply::Txn(self.read_path(inner, path, values)?),
                Op::Put(_) | Op::DeleteRange(_) => unreachable!("only reads come here"),
            };
            responses.push((self.revision, reply));
        }
        Ok(TxnReply {
            succeeded,
            responses,
        })
    }

    fn holds(&self, compare: &Compare, values: &dyn Values) -> Result<bool, ValueError> {
        let mut found = false;
        for (_, version) in self.live_in(&compare.range) {
            found = true;
            if !compare.holds_for(Some(version), values)? {
                return Ok(false);
            }
        }
        if found {
            Ok(true)
        } else {
            compare.holds_for(None, values)
        }
    }
}

impl Txn {
    /// The operations done when the comparisons hold, or do not.
    pub fn branch(&self, holds: bool) -> &[Op] {
        if holds { &self.success } else { &self.failure }
    }

    /// Whether no branch writes.
    pub fn only_reads(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            Op::Range(_) => true,
            Op::Put(_) | Op::DeleteRange(_) => false,
            Op::Txn(inner) => inner.only_reads(),
        })
    }
}

impl Compare {
    /// A missing key counts as all zeros, but no comparison of its value holds.
    fn holds_for(
        &self,
        version: Option<&FileVersion>,
        values: &dyn Values,
    ) -> Result<bool, ValueError> {
        let number = |of: fn(&FileVersion) -> i64| version.map_or(0, of);
        let ordering = match &self.operand {
            Operand::Version(wanted) => number(|v| v.count as i64).cmp(wanted),
            Operand::Create(wanted) => number(|v| v.create.to_wire()).cmp(wanted),
            Operand::Mod(wanted) => number(|v| v.revision.to_wire()).cmp(wanted),
            Operand::Lease(wanted) => number(|v| v.limit.lease()).cmp(wanted),
            Operand::Value(wanted) => {
                let Some(version) = version else {
                    return Ok(false);
                };
                version.value.read(values)?.as_ref().cmp(&wanted[..])
            }
        };
        Ok(match self.relation {
            Relation::Equal => ordering == Ordering::Equal,
            Relation::Greater => ordering == Ordering::Greater,
            Relation::Less => ordering == Ordering::Less,
            Relation::NotEqual => ordering != Ordering::Equal,
        })
    }
}
