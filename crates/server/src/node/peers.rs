//! The node as other members know it: who it says it is, whom it lets in, what comes from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_log::{EntryAt, Moved};
use quorate_replica::Machine;
use quorate_replica::transfer::Sending;
use quorate_store::codec::Read;
use quorate_store::{Life, Refusal};
use tokio::sync::{Notify, oneshot};

use super::Node;
use crate::disk::Mover;
use crate::peer::{self, Hello, Links, Refused};
use crate::tls::Tls;

/// Bytes of frames that wait for the driver; beyond, the connections they come on wait.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// What the driver hears of other members.
pub(crate) enum PeerInput {
    /// From this one's replica.
    Frame(u64, Bytes),
    /// Nothing can be sent to it.
    Unreachable(u64),
    /// It can be reached again.
    Reachable(u64),
    /// The state was sent to it, or was not.
    StateSent(u64, bool),
    /// Leadership is to go to it.
    Transfer(u64),
    /// A received state is to take the place of this member's; whoever received it hears how it went.
    Install(Box<Machine>, oneshot::Sender<Result<(), String>>),
}

/// What a member has to do with the others.
pub(super) struct Peers {
    tls: Arc<Tls>,
    pub(super) links: Links,
    /// Where the others were reached when this member had no state yet.
    pub(super) first: Vec<(u64, Vec<String>)>,
    pub(super) asks: super::asks::Asks,
    pub(super) mover: OnceLock<Mover>,
    known: Mutex<Known>,
    /// The driver has taken frames.
    pub(super) room: Notify,
}

#[derive(Default)]
struct Known {
    /// The newest life of each member that has said hello.
    lives: BTreeMap<u64, Life>,
    /// Counts each member's connections: only the newest one is listened to.
    connections: BTreeMap<u64, u64>,
    is_receiving: bool,
}

impl super::Shared {
    /// Whether a state is on its way in: what was put into the log for it must not be freed.
    pub(super) fn is_receiving(&self) -> bool {
        self.peers.known().is_receiving
    }
}

impl Peers {
    /// `first` is where the others are reached until the state says so.
    pub(super) fn new(tls: Arc<Tls>, first: Vec<(u64, Vec<String>)>) -> Self {
        Self {
            tls,
            links: Links::default(),
            first,
            asks: super::asks::Asks::default(),
            mover: OnceLock::new(),
            known: Mutex::default(),
            room: Notify::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// The connections to the others.
    pub(crate) fn links(&self) -> &Links {
        &self.0.peers.links
    }

    /// Who may connect, and how others are reached.
    pub(crate) fn tls(&self) -> &Arc<Tls> {
        &self.0.peers.tls
    }

    /// Who this member says it is.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            cluster: self.0.cluster_id,
            member: self.0.member_id,
            life: self.life(),
            last_index: self.0.replica().last_index(),
            wanted: 0,
        }
    }

    /// Whether a member that says this may speak to this one (P7).
    pub(crate) fn check_hello(&self, theirs: &Hello) -> Result<(), Refused> {
        if theirs.wanted != self.0.member_id {
            let ours = self.0.member_id;
            return Err(Refused::NotMe { ours });
        }
        self.check(theirs)?;
        let member = theirs.member;
        let progress = self.0.replica().progress();
        let known = progress.iter().find(|peer| peer.member == member);
        let acknowledged = known.map_or(0, |peer| peer.matched);
        let last = theirs.last_index;
        if last < acknowledged {
            return Err(Refused::Forgot { acknowledged, last });
        }
        let mut known = self.0.peers.known();
        let newest = known.lives.entry(member).or_insert(theirs.life);
        newest.check(&theirs.life).map_err(refused)?;
        *newest = theirs.life;
        Ok(())
    }

    /// Whether the member that answers is the one that was called.
    pub(crate) fn check_answer(&self, member: u64, theirs: &Hello) -> Result<(), Refused> {
        if theirs.member != member {
            let ours = theirs.member;
            return Err(Refused::NotMe { ours });
        }
        self.check(theirs)
    }

    fn check(&self, theirs: &Hello) -> Result<(), Refused> {
        if theirs.cluster != self.0.cluster_id {
            let (ours, theirs) = (self.0.cluster_id, theirs.cluster);
            return Err(Refused::Cluster { ours, theirs });
        }
        let member = theirs.member;
        let machine = self.machine();
        let store = machine.store();
        if store.removed().contains(&member) {
            return Err(Refused::Removed { member });
        }
        match store.members().get(&member) {
            Some(known) => known.life.check(&theirs.life).map_err(refused),
            // Without a state yet this member knows nobody.
            None if store.members().is_empty() => Ok(()),
            None => Err(Refused::Unknown { member }),
        }
    }

    /// Tells the driver.
    pub(crate) fn peer_input(&self, input: PeerInput) {
        self.0.inbox().peers.push(input);
        self.0.wake.notify_one();
    }

    /// Takes a frame that a member sent, once there is room.
    pub(crate) async fn peer_frame(&self, member: u64, frame: Bytes) {
        let Some(channel) = frame.first().copied() else {
            return;
        };
        let frame = frame.slice(1..);
        match channel {
            peer::REPLICA => {}
            peer::ASK => return self.answer_ask(member, frame),
            peer::ANSWER => return self.0.peers.asks.answered(frame),
            peer::PING => return self.links().send(member, peer::PONG, frame),
            peer::PONG => return self.came_back(member, frame),
            // Of a later version.
            _ => return,
        }
        loop {
            {
                let mut inbox = self.0.inbox();
                if inbox.closed {
                    return;
                }
                if inbox.frame_bytes < MAX_FRAME_BYTES {
                    inbox.frame_bytes += frame.len();
                    inbox.peers.push(PeerInput::Frame(member, frame));
                    break;
                }
            }
            let room = self.0.peers.room.notified();
            tokio::select! {
                () = room => {}
                () = tokio::time::sleep(self.config().heartbeat_interval) => {}
            }
        }
        self.0.wake.notify_one();
    }

    /// What is sent to measure a round trip: when it is sent.
    pub(crate) fn ping(&self) -> Bytes {
        let since_start = u64::try_from(self.started().1.as_nanos()).unwrap_or(u64::MAX);
        Bytes::copy_from_slice(&since_start.to_le_bytes())
    }

    fn came_back(&self, member: u64, frame: Bytes) {
        let Ok(sent) = Read::new(frame).u64() else {
            return;
        };
        let took = self.started().1.checked_sub(Duration::from_nanos(sent));
        if let Some(took) = took {
            self.metrics().peers.round_trip(member, took);
        }
    }

    /// A member's newest connection begins.
    pub(crate) fn begin_connection(&self, member: u64) -> u64 {
        let mut known = self.0.peers.known();
        let count = known.connections.entry(member).or_default();
        *count += 1;
        *count
    }

    /// No connection of these members is listened to any more. One that was removed and did not hear of
    /// it finds its connections ended, and is told when it comes again.
    pub(super) fn end_connections(&self, removed: &BTreeSet<u64>) {
        let mut known = self.0.peers.known();
        for (member, count) in &mut known.connections {
            *count += u64::from(removed.contains(member));
        }
    }

    /// Whether it still is its newest.
    pub(crate) fn is_connection(&self, member: u64, turn: u64) -> bool {
        self.0.peers.known().connections.get(&member) == Some(&turn)
    }

    /// Ends the member, for a reason that others have told it.
    pub(crate) fn halt(&self, reason: String) {
        self.0.halt(reason);
        self.0.wake.notify_one();
    }

    /// The state of this moment, on its way out; [`Self::end_walk`] must follow.
    pub(crate) fn begin_state(&self) -> Sending {
        Sending::begin(&mut self.0.machine_mut())
    }

    /// What was held for a walk may be purged.
    pub(crate) fn end_walk(&self) {
        self.0.machine_mut().end_walk();
        self.0.wake.notify_one();
    }

    /// The turn to receive a state, until it is dropped: one at a time.
    pub(crate) fn begin_receiving(&self) -> Option<ReceivingTurn<'_>> {
        let was_receiving = std::mem::replace(&mut self.0.peers.known().is_receiving, true);
        (!was_receiving).then_some(ReceivingTurn(self))
    }

    /// Whether one is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.0.is_receiving()
    }

    /// Whether the log here has this entry already, so that a state that ends with it is of no use.
    pub(crate) fn has_entry(&self, index: u64, term: u64) -> bool {
        self.0.replica().has_entry(index, term)
    }

    /// Puts values into the log and waits until they are durable; `None` if the member stops.
    pub(crate) fn copy(&self, moved: Vec<Moved>) -> Option<Vec<EntryAt>> {
        let mover = self.0.peers.mover.get()?;
        let _moving = self.0.moving();
        mover.copy(moved).recv().ok()
    }
}

/// A state is being received.
pub(crate) struct ReceivingTurn<'a>(&'a Node);

impl Drop for ReceivingTurn<'_> {
    fn drop(&mut self) {
        self.0.0.peers.known().is_receiving = false;
    }
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::MemberOtherDirectory => Refused::OtherDirectory,
        _ => Refused::Outdated,
    }
}
