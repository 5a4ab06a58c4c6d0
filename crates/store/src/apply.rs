//! What a command does.
//!
//! A refusal is part of the state machine's answer, the same on every member. A value that cannot
//! be read is this member's trouble: it must stop before its state departs from the others'.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::chain::Chain;
use crate::command::{Body, Command, DeleteRange, Put};
use crate::store::{NewFile, Writing};
use crate::{
    Action, Alarm, ClusterTime, FileVersion, Key, KeyRange, KeyValue, Lease, Limit, Mark, Place,
    Refusal, Revision, Store, UnixMs, ValueError, Values, tree,
};

/// What an entry brings beside its command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp {
    /// The leader's time.
    pub time: ClusterTime,
    /// The proposing member's wall clock.
    pub wall: UnixMs,
    /// Where the command's bytes begin in this member's log.
    pub place: Place,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The store's revision after it.
    pub revision: Revision,
    /// The answer.
    pub result: Result<Reply, Refusal>,
}

/// The answer to a command that was not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a put.
    Put {
        /// What stood there, if asked for.
        prev: Option<KeyValue>,
    },
    /// To a delete.
    Deleted {
        /// How many keys are gone.
        count: u64,
        /// What they were, if asked for.
        prev: Vec<KeyValue>,
    },
    /// To a range inside a txn.
    Range(RangeReply),
    /// To a txn.
    Txn(TxnReply),
    /// To a compaction.
    Compacted,
    /// To a grant.
    LeaseGranted {
        /// The lease.
        id: i64,
        /// Its length in seconds.
        ttl_s: i64,
    },
    /// To a revoke.
    LeaseRevoked,
    /// To an alarm.
    Alarm(Option<Alarm>),
    /// To a v2 write.
    Tree(Box<tree::Reply>),
    /// To what nobody waits for.
    Done,
}

/// A range's answer, values included.
#[derive(Clone, Debug, PartialEq)]
pub struct RangeReply {
    /// The keys found.
    pub kvs: Vec<KeyValue>,
    /// The limit cut something off.
    pub more: bool,
    /// Keys in the range.
    pub count: u64,
}

/// A txn's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnReply {
    /// All comparisons held.
    pub succeeded: bool,
    /// One for each operation of the branch taken, with the revision its header shows.
    pub responses: Vec<(Revision, Reply)>,
}

impl Store {
    /// Applies a command: the one way in which the store changes.
    ///
    /// # Errors
    /// [`ValueError`] when a value that the command needs cannot be read: this member must stop,
    /// for others may go on.
    pub fn apply(
        &mut self,
        command: Command,
        place: Place,
        values: &dyn Values,
    ) -> Result<Outcome, ValueError> {
        let mut writing = self.begin(command.wall, command.time, place);
        let result = self.perform(command.body, &mut writing, values)?;
        // S5.
        assert!(
            result.is_ok() || !writing.has_written(),
            "a refused command changed nothing"
        );
        self.finish(&writing);
        Ok(Outcome {
            revision: self.revision,
            result,
        })
    }

    fn perform(
        &mut self,
        body: Body,
        writing: &mut Writing,
        values: &dyn Values,
    ) -> Result<Result<Reply, Refusal>, ValueError> {
        if let Err(refusal) = self.check_alarms(&body) {
            return Ok(Err(refusal));
        }
        Ok(match body {
            Body::Put(put) => match self.check_put(&put) {
                Ok(()) => Ok(self.put(put, writing, values)?),
                Err(refusal) => Err(refusal),
            },
            Body::DeleteRange(delete) => Ok(self.delete_range(&delete, writing, values)?),
            Body::Txn(txn) => self.txn(*txn, writing, values)?.map(Reply::Txn),
            Body::Compact { revision } => self.compact(revision),
            Body::LeaseGrant { id, ttl_s } => self.grant(id, ttl_s),
            Body::LeaseRevoke { id } => self.revoke(id, writing),
            Body::Alarm { alarm, raise, by } => Ok(self.alarm(alarm, raise, by)),
            Body::Tree(request) => tree::apply(self, request, writing, values)?
                .map(|reply| Reply::Tree(Box::new(reply)))
                .map_err(Refusal::Tree),
            Body::Expire => {
                tree::expire(self, writing);
                Ok(Reply::Done)
            }
            Body::Tick => Ok(Reply::Done),
            Body::Member { id, change } => self.change_member(id, change).map(|()| Reply::Done),
        })
    }

    /// What a put needs of the state.
    pub(crate) fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound { id: put.lease });
        }
        if (put.ignore_value || put.ignore_lease) && self.file(&put.key).is_none() {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    pub(crate) fn put(
        &mut self,
        put: Put,
        writing: &mut Writing,
        values: &dyn Values,
    ) -> Result<Reply, ValueError> {
        let found = self.files.get_key_value(&put.key[..]);
        let key: Key = found.map_or_else(|| Key::from(&put.key[..]), |(key, _)| key.clone());
        let previous = found.and_then(|(_, chain)| chain.live());
        let prev = match previous {
            Some(version) if put.prev_kv => Some(Self::key_value(&key, version, values)?),
            _ => None,
        };
        let action = if previous.is_some() {
            Action::Update
        } else {
            Action::Create
        };
        let keep = "a put that keeps something was checked";
        let value = if put.ignore_value {
            previous.expect(keep).value.clone()
        } else {
            writing.value(&put.value)
        };
        let limit = if put.ignore_lease {
            previous.expect(keep).limit.clone()
        } else {
            Limit::from_lease(put.lease)
        };
        let new = NewFile {
            value,
            limit,
            mark: Mark::shown(action),
            new_life: false,
        };
        self.put_file(writing, &key, new);
        Ok(Reply::Put { prev })
    }

    pub(crate) fn delete_range(
        &mut self,
        delete: &DeleteRange,
        writing: &mut Writing,
        values: &dyn Values,
    ) -> Result<Reply, ValueError> {
        let mut prev = Vec::new();
        let mut keys = Vec::new();
        for (key, version) in self.live_in(&delete.range) {
            keys.push(key.clone());
            if delete.prev_kv {
                prev.push(Self::key_value(key, version, values)?);
            }
        }
        for key in &keys {
            self.delete_file(writing, key, Mark::shown(Action::Delete));
        }
        Ok(Reply::Deleted {
            count: keys.len() as u64,
            prev,
        })
    }

    /// Keys of `range` that are alive, in order.
    pub(crate) fn live_in<'a>(
        &'a self,
        range: &KeyRange,
    ) -> impl Iterator<Item = (&'a Key, &'a FileVersion)> + use<'a> {
        let found = range.bounds().map(|bounds| self.files.range(bounds));
        found
            .into_iter()
            .flatten()
            .filter_map(|(key, chain): (&Key, &Chain<FileVersion>)| Some((key, chain.live()?)))
    }

    fn compact(&mut self, asked: i64) -> Result<Reply, Refusal> {
        if asked <= self.compacted {
            return Err(Refusal::Compacted {
                asked,
                oldest: self.oldest(),
            });
        }
        if asked > self.revision.to_wire() {
            return Err(Refusal::Future {
                asked,
                latest: self.revision,
            });
        }
        self.compacted = asked;
        Ok(Reply::Compacted)
    }

    fn grant(&mut self, id: i64, ttl_s: i64) -> Result<Reply, Refusal> {
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists { id });
        }
        self.leases.insert(
            id,
            Lease {
                ttl_s,
                keys: Default::default(),
            },
        );
        Ok(Reply::LeaseGranted { id, ttl_s })
    }

    /// Ends a lease and deletes its keys, in order, at one revision.
    fn revoke(&mut self, id: i64, writing: &mut Writing) -> Result<Reply, Refusal> {
        let lease = self
            .leases
            .remove(&id)
            .ok_or(Refusal::LeaseNotFound { id })?;
        for key in &lease.keys {
            // S4.
            let named = self
                .file(key)
                .is_some_and(|version| version.limit.lease() == id);
            assert!(named, "each key of a lease names it");
            self.delete_file(writing, key, Mark::shown(Action::Expire));
        }
        Ok(Reply::LeaseRevoked)
    }
}
