//! From a data directory to a running member.

use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use quorate_log::{Config as JournalConfig, DiskError, DiskErrorKind, Identity, LogError};
use quorate_replica::{Halt, Machine, Opened, Replica, Settings, has_no_state, write_genesis};
use quorate_store::command::Body;
use quorate_store::{Alarm, AlarmBy, AlarmKind, MemberChange, Refusal};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use super::checkpoint::{self, Checkpoints, LEAST_GROWTH};
use super::driver::Driver;
use super::leader::Leadership;
use super::peers::Peers;
use super::reclaim::Reclaims;
use super::space::{self, Space};
use super::{Inbox, Node, Shared, Unavailable, compaction, history};
use crate::bootstrap::{self, BootError};
use crate::config::Config;
use crate::disk::{DirLock, DiskThread, FsDisk, KeepRoom, LockError, Segments, available_bytes};
use crate::metrics::DiskTimes;
use crate::tls::{Tls, TlsError};

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be made.
    #[error("cannot make the data directory {path}: {error}")]
    Directory {
        /// Which.
        path: String,
        /// What the system said.
        error: io::Error,
    },
    /// The data directory cannot be used, or another process has it.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The data directory belongs to etcd.
    #[error("the data directory {0} is etcd's own; give Quorate another one with --data-dir")]
    Etcd(String),
    /// There is no room to begin in.
    #[error("there is no room for a new data directory in {path}: {error}")]
    NoRoom {
        /// Where.
        path: String,
        /// What the disk said.
        error: DiskError,
    },
    /// It is not to be a member of the cluster that it was started for.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The directory was made for another member.
    #[error(
        "the data directory was begun as member {member:x} of cluster {cluster:x}, which these settings \
         do not make: remove it, or start it as it was started first"
    )]
    OtherMember {
        /// Whose it is.
        member: u64,
        /// And of which cluster.
        cluster: u64,
    },
    /// There is no state to go on with.
    #[error(
        "--force-new-cluster: this member's data directory does not say that it is a member, so there \
         is nothing to go on with; take another member's, or restore a snapshot"
    )]
    NotAMember,
    /// TLS cannot be had as it was configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no random bytes.
    #[error("cannot read /dev/urandom: {0}")]
    Entropy(io::Error),
    /// What is on disk cannot be trusted.
    #[error("{0}")]
    Log(#[from] LogError),
    /// What is on disk makes no member.
    #[error("{0}")]
    Halt(#[from] Halt),
    /// What is on disk could not be read back.
    #[error(transparent)]
    Read(#[from] quorate_replica::OpenError),
    /// The cluster does not take this member back.
    #[error(
        "the cluster refuses this member: {0}; remove it, and add it again with an empty directory"
    )]
    Refused(Refusal),
    /// The member ran, but did not get to serve.
    #[error("the member did not become ready: {0}")]
    NotReady(#[from] Unavailable),
}

/// A member with the task that drives it.
pub struct Running {
    /// The handle for requests.
    pub node: Node,
    stop: oneshot::Sender<()>,
    driver: JoinHandle<()>,
    /// What goes on beside: compaction, the bound of history, and the alarm.
    beside: [JoinHandle<()>; 3],
    /// Held as long as the member runs.
    _lock: DirLock,
}

impl Running {
    /// Opens the data directory, replays its log, and runs the member until [`Self::stop`].
    ///
    /// Must be called within the runtime that is to drive it.
    ///
    /// # Errors
    /// [`OpenError`], each with a sentence for the operator.
    pub async fn start(config: Config) -> Result<Self, OpenError> {
        let began = Instant::now();
        let lock = prepare(&config.data_dir)?;
        let disk = FsDisk::open(&config.data_dir).map_err(LogError::from)?;
        let tls = Tls::load(&config)?;
        let (identity, first) = identify(&disk, &config, &tls).await?;
        // The other half is for the index and what requests take.
        let resident_bytes = available_bytes() / 2;
        let segments = Segments::open(&disk, resident_bytes).map_err(LogError::from)?;

        let directory = identity.directory;
        let config_of_journal = JournalConfig::default();
        let (log_disk, log_times) = disk.timed();
        let (checkpoint_disk, checkpoint_times) = disk.timed();
        let mut opened = {
            let reader = segments.reader();
            Opened::read(log_disk, directory, config_of_journal, &reader, &mut |_| {})?
        };
        for corrupt in &opened.rejected {
            tracing::warn!(%corrupt, "a checkpoint does not verify; starting from an older one");
        }
        if let Some(torn) = &opened.recovered.torn {
            tracing::warn!(
                file = torn.file,
                offset = torn.offset,
                last_index = torn.last_index,
                "dropped the log's last batch, which does not verify: if the member was stopped \
                 while it wrote, nobody was answered; if it was not, the disk has lost a write"
            );
        }
        tracing::info!(
            member_id = format!("{:x}", identity.member),
            cluster_id = format!("{:x}", identity.cluster),
            incarnation = identity.incarnation,
            revision = opened.machine.store().revision().get(),
            applied_index = opened.machine.applied().0,
            last_index = opened.recovered.last_index,
            took_ms = began.elapsed().as_millis() as u64,
            "opened the data directory"
        );

        let schedule = opened.schedule(LEAST_GROWTH);
        let checkpoints = Checkpoints::new(checkpoint_disk, directory, schedule);
        let settings = settings(&config, &identity)?;
        let boot = if config.force_new_cluster {
            check_may_be_alone(&opened, &identity)?;
            opened.boot_alone(settings)
        } else {
            opened.boot(settings)
        };
        let replica = Replica::new(boot)?;
        let Opened {
            journal, machine, ..
        } = opened;
        let times = DiskTimes {
            log: log_times,
            checkpoints: checkpoint_times,
        };
        let own = Alarm {
            member: identity.member,
            kind: AlarmKind::NoSpace,
        };
        let alarms = machine.store().alarms();
        let (kept, keeps) = watch::channel(None);
        let room = KeepRoom {
            checkpoint_bytes: checkpoint::room(&disk).map_err(LogError::from)?,
            is_short: alarms.get(&own) == Some(&AlarmBy::Member),
            kept,
        };
        let space = Space::new(keeps);
        let member = (machine, replica);
        let shared = Self::share(
            config,
            &identity,
            member,
            &segments,
            times,
            space,
            (tls, first),
        );
        let reports = shared.clone();
        let thread = DiskThread::start(journal, segments, room, move |done| {
            reports.inbox().done.push(done);
            reports.wake.notify_one();
        });
        let reclaims = Reclaims::new(disk, thread.mover());
        let segment_bytes = config_of_journal.segment_bytes;
        // Set once, here.
        let _ = shared.peers.mover.set(thread.mover());
        let driver = Driver::new(
            shared.clone(),
            thread,
            checkpoints,
            reclaims,
            segment_bytes,
            settings,
        );
        let (stop, stopping) = oneshot::channel();
        // The election of a lone voter is over, its first effects wait.
        shared.wake.notify_one();
        let driver = tokio::spawn(driver.run(stopping));
        let node = Node(shared);
        let beside = [
            tokio::spawn(compaction::run(node.clone())),
            tokio::spawn(history::run(node.clone())),
            tokio::spawn(space::run(node.clone())),
        ];
        Ok(Self {
            node,
            stop,
            driver,
            beside,
            _lock: lock,
        })
    }

    fn share(
        config: Config,
        identity: &Identity,
        (machine, replica): (Machine, Replica),
        segments: &Arc<Segments>,
        disk_times: DiskTimes,
        space: Space,
        (tls, first): (Arc<Tls>, Vec<(u64, Vec<String>)>),
    ) -> Arc<Shared> {
        Arc::new(Shared {
            cluster_id: identity.cluster,
            member_id: identity.member,
            directory: identity.directory,
            incarnation: identity.incarnation,
            started: Instant::now(),
            started_wall: super::wall(),
            machine: RwLock::new(machine),
            replica: Mutex::new(replica),
            segments: segments.clone(),
            inbox: Mutex::new(Inbox::default()),
            moving: Mutex::default(),
            wake: Notify::new(),
            tidy: watch::Sender::new(false),
            stopped: watch::Sender::new(None),
            closed: watch::Sender::new(false),
            watch_hub: Arc::default(),
            tree_hub: Arc::default(),
            metrics: Arc::default(),
            disk_times,
            space,
            peers: Peers::new(tls, first),
            leadership: Leadership::default(),
            learns: AtomicBool::new(false),
            config,
        })
    }

    /// Removes all other members, if that was asked for.
    async fn go_on_alone(&self) -> Result<(), OpenError> {
        let (node, change) = (&self.node, MemberChange::Alone);
        if node.config().force_new_cluster {
            let id = node.member_id();
            let outcome = node.propose(Body::Member { id, change }).await?;
            outcome.result.map_err(OpenError::Refused)?;
            tracing::warn!(
                "the cluster has this member only now, as --force-new-cluster asks: the others are \
                 removed for good; start this one without the flag from now on"
            );
        }
        Ok(())
    }

    /// Makes this member's name and addresses known, as soon as there is a leader.
    ///
    /// # Errors
    /// The cluster does not take this member back, or the member has stopped.
    pub async fn publish(&self) -> Result<(), OpenError> {
        self.go_on_alone().await?;
        let node = &self.node;
        let config = node.config();
        let texts = |urls: &[crate::config::Url]| urls.iter().map(ToString::to_string).collect();
        let id = node.member_id();
        let change = MemberChange::Publish {
            name: config.name.clone(),
            client_urls: texts(&config.advertise_client_urls),
            life: node.life(),
        };
        let body = Body::Member { id, change };
        // One that joins is sent the state first, and is not done with its start before.
        while node.machine().applied().0 == 0 {
            tokio::time::sleep(config.heartbeat_interval).await;
        }
        loop {
            match node.propose(body.clone()).await {
                Ok(outcome) => {
                    outcome.result.map_err(OpenError::Refused)?;
                    break;
                }
                Err(Unavailable::Stopped) => return Err(Unavailable::Stopped.into()),
                Err(error) => {
                    tracing::warn!(%error, "no leader has taken this member's name yet: trying again");
                    tokio::time::sleep(config.heartbeat_interval).await;
                }
            }
        }
        tracing::info!(
            name = config.name,
            "published local member to cluster through raft"
        );
        Ok(())
    }

    /// Ends the member: what waits is told, what was written is synced.
    pub async fn stop(self) {
        self.beside.iter().for_each(JoinHandle::abort);
        // A member that halted by itself no longer listens.
        let _ = self.stop.send(());
        if let Err(error) = self.driver.await {
            tracing::error!(%error, "the driver did not end cleanly");
        }
    }
}

fn settings(config: &Config, identity: &Identity) -> Result<Settings, OpenError> {
    let tick = config.heartbeat_interval.as_millis().max(1);
    let ticks = config.election_timeout.as_millis().div_ceil(tick);
    Ok(Settings {
        member: identity.member,
        incarnation: identity.incarnation,
        strict_reconfig: config.strict_reconfig_check,
        election_ticks: usize::try_from(ticks).unwrap_or(usize::MAX).max(2),
        tick_ms: tick as u64,
        seed: u64::from_le_bytes(random().map_err(OpenError::Entropy)?),
        now: quorate_replica::Now::default(),
    })
}

/// Only a member that is one can be left alone.
fn check_may_be_alone(opened: &Opened<FsDisk>, identity: &Identity) -> Result<(), OpenError> {
    let members = opened.machine.store().members();
    let is_member = members.contains_key(&identity.member);
    is_member.then_some(()).ok_or(OpenError::NotAMember)
}

/// Makes and locks the data directory.
fn prepare(path: &Path) -> Result<DirLock, OpenError> {
    if path.join("member").join("wal").exists() {
        return Err(OpenError::Etcd(path.display().to_string()));
    }
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| OpenError::Directory {
        path: path.display().to_string(),
        error,
    })?;
    Ok(DirLock::take(path)?)
}

/// A member's identity, and where the others are reached that its state does not know yet.
type Identified = (Identity, Vec<(u64, Vec<String>)>);

/// Reads who this directory is, or makes it this member's.
async fn identify(disk: &FsDisk, config: &Config, tls: &Arc<Tls>) -> Result<Identified, OpenError> {
    let known = Identity::load(disk)?;
    if let Some(mut identity) = known.clone()
        && !has_no_state(disk)?
    {
        identity.raise(disk)?;
        bootstrap::note_ignored(config);
        return Ok((identity, Vec::new()));
    }
    let plan = bootstrap::plan(config, known.is_some(), tls).await?;
    let no_room = |error| match error {
        LogError::Disk(error) | LogError::Full(error) if error.kind == DiskErrorKind::Full => {
            OpenError::NoRoom {
                path: config.data_dir.display().to_string(),
                error,
            }
        }
        other => other.into(),
    };
    let identity = match known {
        // It came as far as this before, and then no state.
        Some(mut identity) => {
            if (identity.cluster, identity.member) != (plan.cluster_id, plan.member_id) {
                return Err(OpenError::OtherMember {
                    member: identity.member,
                    cluster: identity.cluster,
                });
            }
            identity.raise(disk)?;
            identity
        }
        None => {
            let random = random().map_err(OpenError::Entropy)?;
            let (cluster, member) = (plan.cluster_id, plan.member_id);
            let journal = JournalConfig::default();
            Identity::create(disk, journal, random, cluster, member).map_err(no_room)?
        }
    };
    if !plan.joining {
        let (directory, members) = (identity.directory, plan.first_members());
        write_genesis(disk.clone(), directory, members).map_err(no_room)?;
    }
    let others = plan.members.iter().filter(|one| one.id != plan.member_id);
    let others = others.map(|one| (one.id, one.peer_urls.clone()));
    Ok((identity, others.collect()))
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map(|()| bytes)
}
