//! One running member: the replica, its machine and its disk, for the handlers of both dialects.
//!
//! [`Node`] is the handle that handlers hold. Everything they ask goes through an inbox that the
//! driver empties once a turn of the runtime, so that what arrives together is proposed, synced and
//! answered together. Owns the threads and locks around the replica; never knows a wire format.
//!
//! N1. A proposal is answered by what its entry did when it was applied here, or by
//!     [`Unavailable`]; nothing repeats it (P1).
//! N2. Hubs hear of changes before the write lock of their apply is given back.

mod asks;
mod checkpoint;
mod compaction;
mod driver;
mod history;
mod hold;
mod install;
mod leader;
mod members;
mod open;
mod peers;
mod reclaim;
mod space;
mod values;
mod waiters;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use quorate_log::DirectoryId;
use quorate_replica::{Machine, Monotonic, NotDone, Now, Replica};
use quorate_store::command::{Body, Draft, RequestId};
use quorate_store::{Life, Outcome, UnixMs};
use tokio::sync::{Notify, oneshot, watch};

use crate::config::Config;
use crate::disk::{Reader, Segments};
use crate::metrics::{DiskTimes, Metrics};
use waiters::Waiters;

pub(crate) use hold::Rests;
pub(crate) use open::random;
pub use open::{OpenError, Running};
pub(crate) use peers::PeerInput;
pub(crate) use values::Waits;

/// Requests that wait at once; one more is refused.
pub(crate) const MAX_WAITING: usize = 100_000;
/// Bytes of requests that wait at once; one more is refused. They fit the reserve for a full disk,
/// with what records and the ends of segments take: they may all be logged after it got short.
pub(crate) const MAX_WAITING_BYTES: usize = 64 << 20;

/// A request that took too long, before it is asked why.
const LATE: Unavailable = Unavailable::TimedOut(Late::Unknown);
/// Why the machine's lock is never found poisoned.
const MACHINE_WHOLE: &str = "a panic while applying ends the process";

/// Why a request was not answered, in etcd's words. No layer repeats one that is not [`Self::TooManyRequests`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unavailable {
    /// Not done: too much is waiting already.
    #[error("too many requests")]
    TooManyRequests,
    /// Not done: the leader did not let it into the log.
    #[error("{}", why_not_done(*.0))]
    NotDone(NotDone),
    /// Not done: there is no leader to ask.
    #[error("no leader")]
    NoLeader,
    /// It took too long, and may still happen.
    #[error("request timed out{}", .0.suspicion())]
    TimedOut(Late),
    /// The member is stopping; the request may have happened.
    #[error("server stopped")]
    Stopped,
}

/// What has probably made a request late.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Late {
    /// Nobody can say.
    Unknown,
    /// The leader was lost when it had been made.
    LeaderLost,
    /// This member lost its connection to the leader, or as the leader to a quorum.
    ConnectionLost,
}

impl Late {
    fn suspicion(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::LeaderLost => ", possibly due to previous leader failure",
            Self::ConnectionLost => ", possibly due to connection lost",
        }
    }
}

fn why_not_done(why: NotDone) -> &'static str {
    match why {
        NotDone::LeaderChanged => "leader changed",
        NotDone::TooMany => "too many requests",
        NotDone::Unhealthy => "unhealthy cluster",
        NotDone::NotEnoughStarted => "re-configuration failed due to not enough started members",
        NotDone::LearnerNotReady => {
            "can only promote a learner member which is in sync with leader"
        }
    }
}

/// What this member knows of the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// The leader's id, if one is known.
    pub leader: Option<u64>,
    /// The current term.
    pub term: u64,
    /// The commit index.
    pub committed: u64,
    /// The last index applied here.
    pub applied: u64,
}

/// What waits at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Proposals without an answer.
    pub(crate) requests: usize,
    /// Their bytes.
    pub(crate) bytes: usize,
}

/// A running member.
#[derive(Clone)]
pub struct Node(Arc<Shared>);

struct Shared {
    config: Config,
    cluster_id: u64,
    member_id: u64,
    directory: DirectoryId,
    incarnation: u64,
    started: Instant,
    started_wall: UnixMs,
    machine: RwLock<Machine>,
    replica: Mutex<Replica>,
    segments: Arc<Segments>,
    inbox: Mutex<Inbox>,
    /// Held while values are copied, from before the copy until the machine knows of it. Taken
    /// before the machine's lock, and never by the driver.
    moving: Mutex<()>,
    wake: Notify,
    /// Everything compaction left behind is cleared up.
    tidy: watch::Sender<bool>,
    /// Why the member has stopped, once it has.
    stopped: watch::Sender<Option<String>>,
    /// No more requests are taken.
    closed: watch::Sender<bool>,
    watch_hub: Arc<crate::watch::Hub>,
    tree_hub: Arc<crate::v2::watch::Hub>,
    metrics: Arc<Metrics>,
    disk_times: DiskTimes,
    space: space::Space,
    peers: peers::Peers,
    leadership: leader::Leadership,
    /// This member is to have no vote.
    learns: AtomicBool,
}

/// What waits for the driver's next turn.
#[derive(Default)]
struct Inbox {
    drafts: Vec<Draft>,
    reads: Vec<oneshot::Sender<()>>,
    peers: Vec<PeerInput>,
    /// Bytes of the frames in them.
    frame_bytes: usize,
    done: Vec<Result<Vec<crate::disk::Persisted>, crate::disk::DiskFailure>>,
    waiters: Waiters,
    /// No more requests are taken.
    closed: bool,
}

impl Node {
    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// This member's id.
    pub fn member_id(&self) -> u64 {
        self.0.member_id
    }

    /// Which life of this member runs.
    pub(crate) fn life(&self) -> Life {
        Life {
            directory: u128::from_be_bytes(self.0.directory.0),
            incarnation: self.0.incarnation,
        }
    }

    /// How it was started.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The state, for reading. Hold it for bounded work only, and never across an `await`.
    pub fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.0.machine()
    }

    /// Where older and larger values are read from: those of places that were found in the
    /// machine under a guard that is still held. A thread has one at a time. It waits for the
    /// disk where it must, so a connection's task takes [`Self::read`] instead.
    pub fn values(&self) -> Reader<'_> {
        self.0.segments.reader()
    }

    /// v3 watchers.
    pub fn watch_hub(&self) -> &Arc<crate::watch::Hub> {
        &self.0.watch_hub
    }

    /// v2 watchers.
    pub fn tree_hub(&self) -> &Arc<crate::v2::watch::Hub> {
        &self.0.tree_hub
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// How long syncs took.
    pub(crate) fn disk_times(&self) -> &DiskTimes {
        &self.0.disk_times
    }

    /// What is kept for a full disk; `None` before it is known.
    pub(crate) fn kept(&self) -> Option<quorate_log::Kept> {
        self.0.space.kept()
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Waiting {
        let inbox = self.0.inbox();
        Waiting {
            requests: inbox.waiters.len(),
            bytes: inbox.waiters.bytes(),
        }
    }

    /// When this run began, by the wall clock, and how long it has lasted.
    pub fn started(&self) -> (UnixMs, std::time::Duration) {
        (self.0.started_wall, self.0.started.elapsed())
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.0.replica().status().term
    }

    /// What this member knows of the cluster.
    pub fn status(&self) -> Status {
        let known = self.0.replica().status();
        Status {
            leader: known.leader,
            term: known.term,
            committed: known.committed,
            applied: self.machine().applied().0,
        }
    }

    /// Writes through the log.
    ///
    /// # Errors
    /// [`Unavailable`]; after [`Unavailable::TimedOut`] or [`Unavailable::Stopped`] the write may
    /// still happen.
    pub async fn propose(&self, body: Body) -> Result<Outcome, Unavailable> {
        if let Some(outcome) = self.refuse_for_space(&body) {
            return Ok(outcome);
        }
        let deadline = self.0.deadline();
        let answer = {
            let mut inbox = self.0.inbox();
            if inbox.closed {
                return Err(Unavailable::Stopped);
            }
            if inbox.waiters.len() >= MAX_WAITING || inbox.waiters.bytes() >= MAX_WAITING_BYTES {
                self.0.metrics.requests_refused.one();
                return Err(Unavailable::TooManyRequests);
            }
            let id = RequestId {
                member: self.0.member_id,
                incarnation: self.0.incarnation,
                counter: inbox.waiters.next_counter(),
            };
            let draft = Draft::new(id, wall(), &body);
            let answer = inbox.waiters.add(draft.len(), deadline);
            inbox.drafts.push(draft);
            answer
        };
        self.0.wake.notify_one();
        let answer = answer.await.unwrap_or(Err(LATE));
        answer.map_err(|error| {
            self.0.metrics.proposals_failed.one();
            match error {
                Unavailable::TimedOut(_) => {
                    Unavailable::TimedOut(self.why_late(deadline - self.0.patience()))
                }
                other => other,
            }
        })
    }

    /// Waits until the machine holds everything that was committed when this was called.
    ///
    /// # Errors
    /// [`Unavailable::TimedOut`] without a leader, [`Unavailable::Stopped`].
    pub async fn read_index(&self) -> Result<(), Unavailable> {
        if self.0.replica().reads_at_once() {
            return Ok(());
        }
        let (answer, confirmed) = oneshot::channel();
        {
            let mut inbox = self.0.inbox();
            if inbox.closed {
                return Err(Unavailable::Stopped);
            }
            if inbox.reads.len() >= MAX_WAITING {
                self.0.metrics.requests_refused.one();
                return Err(Unavailable::TooManyRequests);
            }
            inbox.reads.push(answer);
        }
        self.0.wake.notify_one();
        // A round that finds no leader is dropped by the driver when it has waited too long.
        confirmed.await.map_err(|_| {
            self.0.metrics.reads_failed.one();
            LATE
        })
    }

    /// The leases, soonest to end first.
    pub fn leases_by_end(&self) -> Vec<i64> {
        self.0.replica().leases_by_end()
    }

    /// Waits until everything that compaction left behind is cleared up.
    pub async fn purged(&self) {
        // The sender lives as long as this handle.
        let _ = self.0.tidy.subscribe().wait_for(|tidy| *tidy).await;
    }

    /// Waits until the member has stopped by itself, and says why.
    pub async fn halted(&self) -> String {
        let mut stopped = self.0.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or_default()
    }

    /// Hands leadership over, if this member has it and another one can take it: then nobody waits for
    /// an election when it stops.
    pub(crate) async fn hand_over(&self) {
        let successor = {
            let replica = self.0.replica();
            let leads = replica.status().leader == Some(self.0.member_id);
            leads.then(|| replica.successor(self.0.now())).flatten()
        };
        if let Some(member) = successor {
            // A leader that cannot is followed by an election, as if it had died.
            let _ = self.transfer(member).await;
        }
    }

    /// Has `member` lead, if this one does and that one can: whether it came so in time.
    pub(crate) async fn transfer(&self, member: u64) -> bool {
        self.peer_input(PeerInput::Transfer(member));
        let deadline = Instant::now() + self.config().election_timeout;
        while Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            let leader = self.0.replica().status().leader;
            if leader == Some(member) {
                return true;
            }
        }
        false
    }

    /// Waits until the member takes no more requests, which ends what is open for long.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.0.closed.subscribe();
        async move {
            // Without a sender the member is gone altogether.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }
}

impl Shared {
    fn machine(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().expect(MACHINE_WHOLE)
    }

    fn machine_mut(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().expect(MACHINE_WHOLE)
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Whoever panicked: the inbox is what tells everyone that the member has stopped.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica
            .lock()
            .expect("a panic in the replica ends the process")
    }

    fn now(&self) -> Now {
        let monotonic = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now {
            monotonic: Monotonic(monotonic),
            wall: wall(),
        }
    }

    /// When a request that comes now has waited too long: etcd's 5 s plus two elections.
    fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_secs(5) + 2 * self.config.election_timeout
    }

    /// Ends the member: everyone who waits is told, nobody new is taken.
    fn halt(&self, reason: String) {
        tracing::error!(%reason, "this member must stop");
        self.close();
        self.stopped.send_replace(Some(reason));
    }

    fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        inbox.drafts.clear();
        inbox.reads.clear();
        inbox.peers.clear();
        inbox.waiters.close();
        drop(inbox);
        self.peers.links.close();
        self.tree_hub.close();
        self.closed.send_replace(true);
    }
}

fn wall() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
