//! The NOSPACE alarm that a member raises for itself, and clears by itself: for its quota on live
//! bytes, and for its disk.
//!
//! Judged here, decided through the log: the quota is this member's own flag, and every member must
//! refuse the same writes. Refuses what grows before it takes room in the log; deletes, compaction
//! and the end of leases go on. Never touches an alarm that a client has raised.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_log::Kept;
use quorate_store::command::Body;
use quorate_store::{Alarm, AlarmBy, AlarmKind, Outcome, Refusal, Revision, Store};
use tokio::sync::{Notify, watch};

use super::{Node, Unavailable};

/// How often a member looks whether its alarm can go.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks whether others have let in more than its own quota.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// What there is room for, and what was refused for want of it and is not told yet.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes that a write would have added over the quota; 0 for none.
    over_quota: AtomicU64,
    /// A write was refused because the disk is short.
    no_room: AtomicBool,
    /// Something must be logged, or a checkpoint would be of the same index as the last.
    wants_entry: AtomicBool,
    /// The disk's reserve, once it is known.
    kept: watch::Receiver<Option<Kept>>,
    wake: Notify,
}

impl Space {
    pub(super) fn new(kept: watch::Receiver<Option<Kept>>) -> Self {
        Self {
            over_quota: AtomicU64::new(0),
            no_room: AtomicBool::new(false),
            wants_entry: AtomicBool::new(false),
            kept,
            wake: Notify::new(),
        }
    }

    /// What is kept for a full disk; `None` before it is known.
    pub(super) fn kept(&self) -> Option<Kept> {
        *self.kept.borrow()
    }

    /// Whether the disk has refused room, and has not had enough since.
    pub(super) fn is_short(&self) -> bool {
        self.kept().is_some_and(|kept| kept.is_short)
    }

    /// Has something logged that changes nothing.
    pub(super) fn want_entry(&self) {
        self.wants_entry.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

impl Node {
    /// Refuses a write for which there is no space, and sees to it that the alarm is raised.
    pub(super) fn refuse_for_space(&self, body: &Body) -> Option<Outcome> {
        let cost = body.growth_bytes()?;
        let machine = self.machine();
        let store = machine.store();
        let is_over = self.is_over_quota(store, cost);
        // Where members differ, that is what the log says.
        let is_raised = store.is_raised(AlarmKind::NoSpace) && !store.is_raised(AlarmKind::Corrupt);
        let space = &self.0.space;
        let is_short = space.is_short();
        if !is_over && !is_raised && !is_short {
            return None;
        }
        if !is_raised {
            if is_over {
                space.over_quota.fetch_max(cost, Ordering::Relaxed);
            }
            space.no_room.fetch_or(is_short, Ordering::Relaxed);
            space.wake.notify_one();
        }
        Some(Outcome {
            revision: store.revision(),
            result: Err(Refusal::NoSpace),
        })
    }

    fn is_over_quota(&self, store: &Store, cost: u64) -> bool {
        let quota = self.0.config.quota_bytes;
        quota.is_some_and(|quota| store.live_bytes().saturating_add(cost) > quota)
    }

    /// Whether the quota has room again: a tenth of it, and for what was refused.
    fn has_room(&self, store: &Store, refused: u64) -> bool {
        let quota = self.0.config.quota_bytes;
        quota.is_none_or(|quota| {
            store.live_bytes() < quota - quota / 10 && !self.is_over_quota(store, refused)
        })
    }
}

/// Raises and clears this member's alarm, for ever. One proposal at a time.
pub(super) async fn run(node: Node) {
    let member = node.member_id();
    let kind = AlarmKind::NoSpace;
    let mut watch = Watch {
        alarm: Alarm { member, kind },
        refused: 0,
        was_short: false,
        revision: Revision::ZERO,
    };
    let mut kept = node.0.space.kept.clone();
    loop {
        let by = AlarmBy::Member;
        let step = watch.look(&node);
        let proposed = match step {
            Step::Raise | Step::Clear => {
                let (alarm, raise) = (watch.alarm, step == Step::Raise);
                node.propose(Body::Alarm { alarm, raise, by }).await
            }
            Step::LogSomething => node.propose(Body::Tick).await,
            Step::LookAgain => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            Step::Wait => {
                tokio::select! {
                    () = node.0.space.wake.notified() => continue,
                    () = tokio::time::sleep(LOOK_AROUND) => continue,
                    changed = kept.changed() => match changed {
                        Ok(()) => continue,
                        // The disk thread has ended, and with it the member.
                        Err(_) => return,
                    },
                }
            }
        };
        match (proposed, step) {
            (Ok(_), Step::Raise) => tracing::warn!("raised the alarm NOSPACE for this member"),
            (Ok(_), Step::Clear) => tracing::info!("cleared this member's alarm NOSPACE"),
            (Ok(_), _) => {}
            (Err(Unavailable::Stopped), _) => return,
            (Err(error), _) => {
                tracing::warn!(%error, "could not change this member's alarm NOSPACE");
                watch.was_short = false;
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What is to be done about the alarm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Raise,
    Clear,
    LogSomething,
    LookAgain,
    Wait,
}

struct Watch {
    alarm: Alarm,
    /// The dearest write that was over the quota when the alarm was raised.
    refused: u64,
    was_short: bool,
    /// The store's when the quota was last looked at.
    revision: Revision,
}

impl Watch {
    /// Whether the state has grown over this member's quota, which other members need not have.
    fn is_overrun(&mut self, node: &Node, store: &Store) -> bool {
        let before = std::mem::replace(&mut self.revision, store.revision());
        let is_news = before != store.revision() && before != Revision::ZERO;
        is_news && store.members().len() > 1 && node.is_over_quota(store, 0)
    }

    fn look(&mut self, node: &Node) -> Step {
        let space = &node.0.space;
        if space.wants_entry.swap(false, Ordering::Relaxed) {
            return Step::LogSomething;
        }
        let over_quota = space.over_quota.swap(0, Ordering::Relaxed);
        // What never fits says nothing about other writes.
        let quota = node.0.config.quota_bytes;
        let fits_never = quota.is_some_and(|quota| over_quota > quota);
        let is_over = over_quota > 0 && !fits_never;
        let no_room = space.no_room.swap(false, Ordering::Relaxed);
        let is_short = space.is_short();
        let is_news = is_short && (no_room || !self.was_short);
        self.was_short = is_short;
        let machine = node.machine();
        let store = machine.store();
        let is_overrun = self.is_overrun(node, store);
        match store.alarms().get(&self.alarm) {
            None if is_over || is_news || is_overrun => {
                self.refused = over_quota;
                Step::Raise
            }
            Some(AlarmBy::Member) => {
                let is_known = space.kept().is_some();
                if is_known && !is_short && node.has_room(store, self.refused) {
                    Step::Clear
                } else {
                    Step::LookAgain
                }
            }
            None | Some(AlarmBy::Client) => Step::Wait,
        }
    }
}
