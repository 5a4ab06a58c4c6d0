//! Whether the cluster may be changed now: what only the leader knows.
//!
//! Whether a change makes sense at all (the id exists, no URL is used twice) the store decides, when
//! it is applied. Here is decided what must be so for the change not to cost the quorum.
//!
//! Source: etcd's strict-reconfig-check, spec/v3-api.md §2.11.

use quorate_store::{Member, MemberChange, Role};

use crate::core::PeerProgress;
use crate::replica::NotDone;

/// A member as the replica needs to know it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seat {
    /// Its id.
    pub id: u64,
    /// What it counts for.
    pub role: Role,
    /// It has told its name.
    pub has_started: bool,
}

impl Seat {
    /// What is to be known of a member.
    pub fn of(member: &Member) -> Self {
        Self {
            id: member.id,
            role: member.role,
            has_started: !member.name.is_empty(),
        }
    }

    fn is_wanted_to_vote(&self) -> bool {
        self.role != Role::Learner
    }
}

/// Who is there now.
pub(crate) struct Situation<'a> {
    pub(crate) own: u64,
    pub(crate) seats: &'a [Seat],
    /// The others that have been heard lately.
    pub(crate) active: &'a [u64],
    pub(crate) progress: &'a [PeerProgress],
    pub(crate) last_index: u64,
    pub(crate) is_strict: bool,
}

impl Situation<'_> {
    pub(crate) fn check(&self, id: u64, change: &MemberChange) -> Result<(), NotDone> {
        match change {
            MemberChange::Add { role, .. } => self.check_add(*role),
            MemberChange::Remove => self.check_remove(id),
            MemberChange::Promote => self.check_promote(id),
            MemberChange::Update { .. } | MemberChange::Publish { .. } | MemberChange::Alone => {
                Ok(())
            }
        }
    }

    fn check_add(&self, role: Role) -> Result<(), NotDone> {
        if !self.is_strict {
            return Ok(());
        }
        if role != Role::Learner {
            let started = self.voting().filter(|seat| seat.has_started).count();
            let members = self.voting().count();
            let is_first_growth = started == 1 && members == 1;
            if started < quorum(members + 1) && !is_first_growth {
                return Err(NotDone::NotEnoughStarted);
            }
        }
        let voters = self.voters().count();
        let active = self.voters().filter(|seat| self.is_active(seat.id)).count();
        if active < quorum(voters) {
            return Err(NotDone::Unhealthy);
        }
        Ok(())
    }

    fn check_remove(&self, id: u64) -> Result<(), NotDone> {
        let Some(leaving) = self.seats.iter().find(|seat| seat.id == id) else {
            return Ok(());
        };
        if !self.is_strict || !leaving.is_wanted_to_vote() {
            return Ok(());
        }
        let rest = self.voting().filter(|seat| seat.id != id);
        let (started, count) = rest.fold((0, 0), |(started, count), seat| {
            (started + usize::from(seat.has_started), count + 1)
        });
        if count == 0 || started < quorum(count) {
            return Err(NotDone::NotEnoughStarted);
        }
        if leaving.role == Role::Joining || !self.is_active(id) {
            // It is no part of the quorum there is.
            return Ok(());
        }
        let rest = self.voters().filter(|seat| seat.id != id);
        let (active, count) = rest.fold((0, 0), |(active, count), seat| {
            (active + usize::from(self.is_active(seat.id)), count + 1)
        });
        if active < quorum(count) {
            return Err(NotDone::Unhealthy);
        }
        Ok(())
    }

    /// Nine tenths of the log, as etcd asks.
    fn check_promote(&self, id: u64) -> Result<(), NotDone> {
        let seat = self.seats.iter().find(|seat| seat.id == id);
        if seat.is_none_or(|seat| seat.role == Role::Voter) {
            return Ok(());
        }
        let progress = self.progress.iter().find(|peer| peer.member == id);
        let matched = progress.map_or(0, |peer| peer.matched);
        if !self.is_active(id) || matched < self.last_index / 10 * 9 {
            return Err(NotDone::LearnerNotReady);
        }
        Ok(())
    }

    fn voters(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| seat.role == Role::Voter)
    }

    /// Those that vote, and those that will.
    fn voting(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| seat.is_wanted_to_vote())
    }

    fn is_active(&self, id: u64) -> bool {
        id == self.own || self.active.contains(&id)
    }
}

pub(crate) fn quorum(members: usize) -> usize {
    members / 2 + 1
}
