//! What one command does to the model.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_store::command::{Body, Compare, DeleteRange, Op, Operand, Put, Relation, Txn};
use quorate_store::{Action, AlarmBy, AlarmKind, Command, KeyRange, tree};

use super::{Answer, Dir, Due, File, Lease, Model, Moment, Name, TreeEvent, is_below};

/// The command was refused.
pub(super) struct Refused;

/// One command on its way into the model.
pub(super) struct Apply<'a> {
    pub(super) model: &'a mut Model,
    pub(super) command: &'a Command,
    pub(super) moment: Moment,
    pub(super) revision: u64,
    pub(super) answer: Answer,
}

impl Apply<'_> {
    pub(super) fn body(&mut self, body: &Body) -> Result<(), Refused> {
        self.may(body)?;
        match body {
            Body::Put(put) => {
                self.may_put(put)?;
                self.put(put);
            }
            Body::DeleteRange(delete) => self.delete_range(delete),
            Body::Txn(txn) => self.txn(txn)?,
            Body::Compact { revision } => {
                let latest = i64::try_from(self.model.revision).expect("small");
                if *revision <= self.model.compacted || *revision > latest {
                    return Err(Refused);
                }
                self.model.compacted = *revision;
            }
            Body::LeaseGrant { id, ttl_s } => {
                if self.model.leases.contains_key(id) {
                    return Err(Refused);
                }
                let lease = Lease {
                    ttl_s: *ttl_s,
                    since: self.moment.now,
                };
                self.model.leases.insert(*id, lease);
            }
            Body::LeaseRevoke { id } => self.revoke(*id)?,
            Body::Tree(request) => self.tree(request)?,
            Body::Expire => self.expire(),
            Body::Alarm { alarm, raise, by } => {
                let clients = self.model.alarms.get(alarm) == Some(&AlarmBy::Client);
                match (raise, by) {
                    (_, AlarmBy::Member) if clients => {}
                    (true, by) => {
                        self.model.alarms.insert(*alarm, *by);
                    }
                    (false, _) => {
                        self.model.alarms.remove(alarm);
                    }
                }
            }
            Body::Tick | Body::Member { .. } => {}
        }
        Ok(())
    }

    /// Under an alarm only what frees space, ends by itself, or clears the alarm goes on; when
    /// members differ, not even deletes do.
    fn may(&self, body: &Body) -> Result<(), Refused> {
        let raised = |kind| self.model.alarms.keys().any(|alarm| alarm.kind == kind);
        let frees = match body {
            Body::LeaseRevoke { .. }
            | Body::Alarm { .. }
            | Body::Expire
            | Body::Tick
            | Body::Member { .. } => return Ok(()),
            Body::DeleteRange(_) | Body::Compact { .. } => true,
            Body::Tree(request) => matches!(
                request.op,
                tree::Op::Delete { .. } | tree::Op::CompareAndDelete { .. }
            ),
            // Scripted ones put in both branches.
            Body::Txn(_) | Body::Put(_) | Body::LeaseGrant { .. } => false,
        };
        if raised(AlarmKind::Corrupt) || (raised(AlarmKind::NoSpace) && !frees) {
            return Err(Refused);
        }
        Ok(())
    }

    fn may_put(&self, put: &Put) -> Result<(), Refused> {
        let exists = self.model.files.contains_key(&put.key[..]);
        let keeps = put.ignore_value || put.ignore_lease;
        let no_lease = put.lease != 0 && !self.model.leases.contains_key(&put.lease);
        if (keeps && !exists) || no_lease {
            return Err(Refused);
        }
        Ok(())
    }

    fn put(&mut self, put: &Put) {
        let old = self.model.files.get(&put.key[..]).cloned();
        let value = match &old {
            Some(old) if put.ignore_value => old.value.clone(),
            _ => put.value.bytes.clone(),
        };
        let (lease, due) = match &old {
            Some(old) if put.ignore_lease => (old.lease, old.due),
            _ => (put.lease, None),
        };
        let action = match old {
            Some(_) => Action::Update,
            None => Action::Create,
        };
        self.write(&put.key, value, lease, due, false);
        self.tell(action, &put.key);
    }

    /// Writes a file; `new_life` even where one is alive.
    fn write(&mut self, key: &[u8], value: Bytes, lease: i64, due: Option<Due>, new_life: bool) {
        let old = self.model.files.get(key);
        self.answer
            .prev
            .extend(old.map(|old| (key.to_vec(), old.clone())));
        let old = old.filter(|_| !new_life);
        let file = File {
            value,
            create: old.map_or(self.revision, |old| old.create),
            modified: self.revision,
            version: old.map_or(1, |old| old.version + 1),
            lease,
            due,
        };
        self.model.files.insert(key.to_vec(), file.clone());
        self.model
            .file_log
            .push((self.revision, key.to_vec(), Some(file)));
    }

    fn remove(&mut self, key: &[u8]) {
        let old = self.model.files.remove(key);
        self.answer.prev.extend(old.map(|old| (key.to_vec(), old)));
        self.model
            .file_log
            .push((self.revision, key.to_vec(), None));
    }

    fn tell(&mut self, action: Action, path: &[u8]) {
        if path.first() != Some(&b'/') {
            return;
        }
        self.answer.event = Some((action, path.to_vec()));
        let value = self.model.files.get(path).map(|file| file.value.clone());
        self.model.tree_log.push(TreeEvent {
            revision: self.revision,
            action,
            path: path.to_vec(),
            value,
            wall: self.command.wall.0,
        });
    }

    fn keys_in(&self, range: &KeyRange) -> Vec<Name> {
        let keys = self.model.files.keys();
        keys.filter(|key| range.contains(key)).cloned().collect()
    }

    fn delete_range(&mut self, delete: &DeleteRange) {
        for key in self.keys_in(&delete.range) {
            self.remove(&key);
            self.tell(Action::Delete, &key);
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<(), Refused> {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        self.answer.succeeded = holds;
        let branch = if holds { &txn.success } else { &txn.failure };
        for op in branch {
            if let Op::Put(put) = op {
                self.may_put(put)?;
            }
        }
        for op in branch {
            match op {
                Op::Put(put) => self.put(put),
                Op::DeleteRange(delete) => self.delete_range(delete),
                Op::Range(_) => {}
                Op::Txn(_) => unreachable!("scripts do not nest"),
            }
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let file = self.model.files.get(&compare.range.start[..]);
        let number = |of: fn(&File) -> u64| i64::try_from(file.map_or(0, of)).expect("small");
        let order = match &compare.operand {
            Operand::Version(wanted) => number(|file| file.version).cmp(wanted),
            Operand::Create(wanted) => number(|file| file.create).cmp(wanted),
            Operand::Mod(wanted) => number(|file| file.modified).cmp(wanted),
            Operand::Lease(wanted) => file.map_or(0, |file| file.lease).cmp(wanted),
            Operand::Value(wanted) => match file {
                Some(file) => file.value.cmp(wanted),
                None => return false,
            },
        };
        match compare.relation {
            Relation::Equal => order.is_eq(),
            Relation::Greater => order.is_gt(),
            Relation::Less => order.is_lt(),
            Relation::NotEqual => order.is_ne(),
        }
    }

    fn revoke(&mut self, id: i64) -> Result<(), Refused> {
        let lease = self.model.leases.remove(&id).ok_or(Refused)?;
        // What the leader proposes by itself has no counter.
        if self.command.id.counter == 0 {
            let ends = lease.since + u64::try_from(lease.ttl_s).expect("positive") * 1000;
            let now = self.moment.now;
            assert!(now >= ends, "P5: lease {id} ended {} ms early", ends - now);
        }
        let keys: Vec<Name> = self
            .model
            .files
            .iter()
            .filter(|(_, file)| file.lease == id)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.remove(&key);
            self.tell(Action::Expire, &key);
        }
        Ok(())
    }

    fn expire(&mut self) {
        let time = self.command.time.0;
        loop {
            let dues = self.model.dues();
            let Some((&(at, path, is_file), due)) = dues.first_key_value() else {
                return;
            };
            if at > time {
                return;
            }
            let (path, due) = (path.to_vec(), *due);
            let now = self.moment.now + self.moment.skew;
            let name = String::from_utf8_lossy(&path);
            assert!(
                now >= due.not_before,
                "P5: {name} ended {} ms early",
                due.not_before - now
            );
            if is_file {
                self.remove(&path);
                self.tell(Action::Expire, &path);
            } else {
                self.remove_dir(&path, Action::Expire);
            }
            self.revision += 1;
        }
    }

    fn remove_dir(&mut self, path: &[u8], action: Action) {
        let files: BTreeSet<Name> = self.model.files.keys().cloned().collect();
        for key in files.iter().filter(|key| is_below(key, path)) {
            self.remove(key);
        }
        let dirs: BTreeSet<Name> = self.model.dirs.keys().cloned().collect();
        for dir in dirs.iter().filter(|dir| is_below(dir, path)) {
            self.model.dirs.remove(dir);
            self.model.dir_log.push((self.revision, dir.clone(), None));
        }
        self.model.dirs.remove(path);
        self.model
            .dir_log
            .push((self.revision, path.to_vec(), None));
        self.tell(action, path);
    }

    fn tree(&mut self, request: &tree::Request) -> Result<(), Refused> {
        let path = request.path.as_bytes();
        let file = self.model.files.get(path).cloned();
        let dir = self.model.dir_image(path);
        match &request.op {
            tree::Op::Set { dir: false, write } => {
                let due = self.due(write);
                self.write(path, write.value.bytes.clone(), 0, due, true);
                self.make_ancestors(path);
                self.tell(Action::Set, path);
            }
            tree::Op::Set { dir: true, write } => self.make_dir(path, Action::Set, write)?,
            tree::Op::Create {
                dir: true, write, ..
            } => self.make_dir(path, Action::Create, write)?,
            tree::Op::Create {
                in_order, write, ..
            } => {
                let mut path = path.to_vec();
                if *in_order {
                    path.extend(format!("/{:020}", self.revision).bytes());
                } else if file.is_some() {
                    return Err(Refused);
                }
                let due = self.due(write);
                self.write(&path, write.value.bytes.clone(), 0, due, true);
                self.make_ancestors(&path);
                self.tell(Action::Create, &path);
            }
            tree::Op::Update { write } => match (file, dir) {
                (Some(file), _) => self.rewrite(path, &file, write, Action::Update),
                (None, Some((created, modified))) => {
                    let due = self.due(write);
                    let dir = Dir {
                        created,
                        modified,
                        due,
                    };
                    self.put_dir(path, dir);
                    self.make_ancestors(path);
                    self.tell(Action::Update, path);
                }
                (None, None) => return Err(Refused),
            },
            tree::Op::CompareAndSwap { condition, write } => {
                let file = self.expected(path, condition)?;
                self.rewrite(path, &file, write, Action::CompareAndSwap);
            }
            tree::Op::CompareAndDelete { condition } => {
                self.expected(path, condition)?;
                self.remove(path);
                self.tell(Action::CompareAndDelete, path);
            }
            tree::Op::Delete { .. } if file.is_some() => {
                self.remove(path);
                self.tell(Action::Delete, path);
            }
            tree::Op::Delete {
                dir: may,
                recursive,
            } => {
                let below_files = self.model.files.keys().any(|key| is_below(key, path));
                let below_dirs = self.model.dirs.keys().any(|key| is_below(key, path));
                let has_content = below_files || below_dirs;
                if dir.is_none() || !(*recursive || (*may && !has_content)) {
                    return Err(Refused);
                }
                self.remove_dir(path, Action::Delete);
            }
        }
        Ok(())
    }

    fn make_dir(
        &mut self,
        path: &[u8],
        action: Action,
        write: &tree::Write,
    ) -> Result<(), Refused> {
        if self.model.dir_image(path).is_some() {
            return Err(Refused);
        }
        let due = self.due(write);
        let (created, modified) = (self.revision, self.revision);
        self.put_dir(
            path,
            Dir {
                created,
                modified,
                due,
            },
        );
        self.make_ancestors(path);
        self.tell(action, path);
        Ok(())
    }

    fn rewrite(&mut self, path: &[u8], old: &File, write: &tree::Write, action: Action) {
        let value = if write.refresh {
            &old.value
        } else {
            &write.value.bytes
        };
        let due = self.due(write);
        self.write(path, value.clone(), 0, due, false);
        if write.refresh {
            self.answer.event = Some((action, path.to_vec()));
        } else {
            self.tell(action, path);
        }
    }

    fn put_dir(&mut self, path: &[u8], dir: Dir) {
        self.model.dirs.insert(path.to_vec(), dir.clone());
        self.model
            .dir_log
            .push((self.revision, path.to_vec(), Some(dir)));
    }

    fn make_ancestors(&mut self, path: &[u8]) {
        for at in (1..path.len()).filter(|at| path[*at] == b'/') {
            if !self.model.dirs.contains_key(&path[..at]) {
                let (created, modified) = (self.revision, self.revision);
                let due = None;
                self.put_dir(
                    &path[..at],
                    Dir {
                        created,
                        modified,
                        due,
                    },
                );
            }
        }
    }

    fn expected(&self, path: &[u8], condition: &tree::Condition) -> Result<File, Refused> {
        let file = self.model.files.get(path).ok_or(Refused)?;
        let value = condition.value.as_ref();
        let same_value = value.is_none_or(|value| *value == file.value);
        let same_index = condition.index == 0 || condition.index == file.modified;
        (same_value && same_index)
            .then(|| file.clone())
            .ok_or(Refused)
    }

    fn due(&self, write: &tree::Write) -> Option<Due> {
        let ttl_ms = write.ttl_s? * 1000;
        Some(Due {
            at: self.command.time.0 + ttl_ms,
            shown: self.command.wall.0 + ttl_ms,
            not_before: self.moment.asked + ttl_ms,
        })
    }
}
