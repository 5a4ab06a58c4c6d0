//! One member, its clients, its disk and its clocks, moved on step by step.
//!
//! Owns virtual time and the order in which everything happens, all drawn from the plan's seed.
//! Whatever is wrong panics, with the broken promise's number where there is one.

mod script;

use std::collections::BTreeMap;

use quorate_log::{Disk as _, DiskErrorKind, segment_number};
use quorate_replica::{Committed, Monotonic, Now, OpenError};
use quorate_store::command::{Body, Draft};
use quorate_store::{
    Alarm, AlarmBy, AlarmKind, ClusterTime, Command, Life, MemberChange, Reply, UnixMs,
};

use crate::chance::Chance;
use crate::disk::{Crash, SimDisk};
use crate::known::Known;
use crate::member::{ALONE, Down, Happened, SimMember, TICK_MS, Who};
use crate::plan::{Fault, Plan};
use crate::trace::Trace;
use crate::workload;

/// The wall clock at the beginning, in milliseconds since 1970.
const WALL_START: u64 = 1_700_000_000_000;
/// Each thread of the member runs at least this often, in milliseconds.
const PATIENCE_MS: u64 = 50;
/// Nothing must come for this long before the idle mark is written, in milliseconds.
const IDLE_MS: u64 = 100;
/// How late a lease or TTL may end under a leader that runs (P5), in milliseconds.
const LATE_MS: u64 = 1000;

/// What the member raises by itself.
const OWN_ALARM: Alarm = Alarm {
    member: 7,
    kind: AlarmKind::NoSpace,
};

/// A member in its surroundings.
#[derive(Debug)]
pub struct World {
    pub(crate) plan: Plan,
    pub(crate) disk: SimDisk,
    chance: Chance,
    trace: Trace,
    known: Known,
    clock: Clock,
    member: Option<SimMember>,
    counter: u64,
    /// Leases whose end a client has asked for, and the last request that did.
    going: BTreeMap<i64, u64>,
    /// Reads under way, with the last index that was answered when they were asked.
    reads: Vec<(u64, u64)>,
    newest_checkpoint: u64,
    /// What happened so far, for tests that want to know that something did.
    pub(crate) seen: Seen,
    /// The last that the member asked of its own alarm since it started.
    alarm_asked: Option<bool>,
}

/// How often things happened that a run should meet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Checkpoints taken.
    pub checkpoints: u64,
    /// Rounds of reclaiming that have emptied segments.
    pub reclaims: u64,
    /// Starts that had to drop a torn batch.
    pub torn: u64,
    /// Leases and deadlines that ended by themselves.
    pub ended: u64,
    /// Commands applied.
    pub applied: u64,
    /// Events delivered to watchers.
    pub watched: u64,
    /// Starts from a checkpoint.
    pub from_checkpoint: u64,
    /// Segments that are gone.
    pub freed: u64,
    /// Checkpoints that rotted.
    pub rotten: u64,
    /// Times that the disk got short of room.
    pub short: u64,
    /// Starts while it was.
    pub started_short: u64,
    /// Times that the member said that the disk's reserve was used up, and ended.
    pub used_up: u64,
}

#[derive(Clone, Debug)]
struct Clock {
    /// True time, in milliseconds.
    now_ms: u64,
    /// By how much the wall clock is wrong.
    wall_jump_ms: u64,
    /// When the member was started.
    started_ms: u64,
    /// Cluster time then.
    cluster_at_start: ClusterTime,
    /// When the member last came out of a pause.
    awake_since_ms: u64,
    next_tick_ms: u64,
    last_turn_ms: u64,
    last_disk_ms: u64,
    last_busy_ms: u64,
    speed: u64,
}

impl World {
    /// A fresh directory, and no member yet.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let disk = SimDisk::new();
        let speed = if plan.fault == Some(Fault::FastClock) {
            2
        } else {
            1
        };
        let clock = Clock {
            now_ms: 0,
            wall_jump_ms: 0,
            started_ms: 0,
            cluster_at_start: ClusterTime(0),
            awake_since_ms: 0,
            next_tick_ms: 0,
            last_turn_ms: 0,
            last_disk_ms: 0,
            last_busy_ms: 0,
            speed,
        };
        Self {
            chance: Chance::new(plan.seed),
            plan,
            disk,
            trace,
            known: Known::default(),
            clock,
            member: None,
            counter: 0,
            going: BTreeMap::new(),
            reads: Vec::new(),
            newest_checkpoint: 0,
            seen: Seen::default(),
            alarm_asked: None,
        }
    }

    /// The same world at the moment when the power comes back, with what a disk kept.
    #[must_use]
    pub fn after_crash(&self, disk: SimDisk) -> Self {
        let mut clock = self.clock.clone();
        clock.now_ms += 3000;
        Self {
            plan: self.plan.clone(),
            disk,
            chance: self.chance.clone(),
            trace: Trace::Silent,
            known: self.known.clone(),
            clock,
            member: None,
            counter: self.counter,
            going: BTreeMap::new(),
            reads: Vec::new(),
            newest_checkpoint: 0,
            seen: self.seen,
            alarm_asked: None,
        }
    }

    /// The disk as it is found after a crash now.
    #[must_use]
    pub fn survivors(&self, crash: Crash) -> SimDisk {
        self.disk.survivors(crash)
    }

    pub(crate) fn take_trace(&mut self) -> Trace {
        std::mem::take(&mut self.trace)
    }

    /// Starts the member. Returns false if the power failed meanwhile.
    pub fn start(&mut self) -> bool {
        let started = self.try_start();
        self.survived(started)
    }

    /// Goes on for `steps`. Returns false once the member is down.
    pub fn run(&mut self, steps: u64) -> bool {
        (0..steps).all(|_| {
            let stepped = self.step();
            self.survived(stepped)
        })
    }

    /// Brings everything that is under way to its end, then checks all there is to check.
    /// Returns false if the power failed meanwhile.
    pub fn settle(&mut self) -> bool {
        let settled = self.try_settle();
        self.survived(settled)
    }

    /// Writes something and requires that it is answered, so that a member that started is of use.
    pub fn put_something(&mut self) -> bool {
        for alarm in self.known.model.alarms.clone().into_keys() {
            let (raise, by) = (false, AlarmBy::Client);
            self.ask(&Body::Alarm { alarm, raise, by });
        }
        let before = self.known.model.revision;
        self.ask(&Body::Put(workload::plain_put()));
        let settled = self.settle();
        assert!(
            !settled || self.known.model.revision > before,
            "nothing was answered"
        );
        settled
    }

    /// Ends the member as SIGTERM does.
    pub fn stop(&mut self) -> bool {
        let stopped = self.member.take().map_or(Ok(()), SimMember::stop);
        self.trace.note(format_args!("stopped"));
        self.survived(stopped)
    }

    /// The member is gone, as by kill -9 or a loss of power.
    pub fn kill(&mut self, crash: Crash) {
        self.member = None;
        self.disk = self.survivors(crash);
        if self.chance.one_in(3) {
            self.rot_newest_checkpoint();
        }
        self.reads.clear();
        self.going.clear();
        self.newest_checkpoint = 0;
        let away = self.chance.below(5000);
        self.clock.now_ms += away;
        self.trace
            .note(format_args!("gone by {crash:?} for {away} ms"));
    }

    /// Whether the member goes on; if not, the only excuse is that its disk failed.
    fn survived(&mut self, result: Result<(), Down>) -> bool {
        if let Err(down) = &result {
            let of_disk = matches!(down, Down::Log(_) | Down::Open(OpenError::Log(_)));
            let refused = self.disk.has_refused() || self.disk.was_full();
            let excused = self.disk.is_without_power() || (of_disk && refused);
            assert!(excused, "the member went down by itself: {down}");
            let is_of_room = !self.disk.is_without_power() && !self.disk.has_refused();
            let spares = self.spares();
            assert!(
                !is_of_room || spares == 0,
                "it went down with {spares} segments in reserve: {down}"
            );
            let says_so = down.to_string().contains("its reserve used up");
            self.seen.used_up += u64::from(is_of_room && says_so);
            self.trace.note(format_args!("down: {down}"));
        }
        let on = result.is_ok() && !self.disk.is_without_power();
        if !on {
            self.member = None;
        }
        on
    }

    fn now(&self) -> Now {
        let since = (self.clock.now_ms - self.clock.started_ms) * self.clock.speed;
        Now {
            monotonic: Monotonic(since),
            wall: UnixMs(WALL_START + self.clock.now_ms + self.clock.wall_jump_ms),
        }
    }

    fn try_start(&mut self) -> Result<(), Down> {
        let now_ms = self.clock.now_ms;
        self.clock.started_ms = now_ms;
        self.alarm_asked = None;
        let (member, found) = SimMember::open(&self.disk, &self.plan, self.now(), &Who::alone())?;
        self.trace.note(format_args!(
            "started at {now_ms}: log behind {}, applied {}, torn {}",
            found.start, found.applied, found.torn
        ));
        self.known.reopened(&found, now_ms);
        // Stamps of entries that are not applied count too.
        let stamps = found.entries.iter();
        let stamps = stamps.filter_map(|(entry, _)| Command::stamp_of(&entry.data));
        self.clock.cluster_at_start = stamps.fold(self.known.time, ClusterTime::max);
        self.clock.next_tick_ms = now_ms;
        (self.clock.last_turn_ms, self.clock.last_disk_ms) = (now_ms, now_ms);
        self.seen.torn += u64::from(found.torn);
        self.seen.from_checkpoint += u64::from(found.start > 1);
        self.member = Some(member);
        if self.plan.fault == Some(Fault::LyingDisk) {
            self.disk.lie_about_syncs();
        }
        let skip = u64::from(self.plan.fault == Some(Fault::SkipsRevision));
        self.known.resume_watchers(skip);
        let change = MemberChange::Publish {
            name: format!("start {}", found.start),
            client_urls: vec!["http://127.0.0.1:2379".to_owned()],
            life: Life::default(),
        };
        self.ask(&Body::Member { id: ALONE, change });
        Ok(())
    }

    fn step(&mut self) -> Result<(), Down> {
        self.clock.now_ms += self.chance.below(8);
        match self.chance.below(32) {
            0..=13 => {
                let longest = self.plan.longest_value;
                let body = workload::request(&mut self.chance, &self.known.model, longest);
                self.ask(&body);
            }
            14..=16 => self.renew(),
            17..=18 => self.ask_read(),
            19..=20 => {
                let max = 1 + self.chance.below(6) as usize;
                self.poll_watchers(max);
            }
            21 => self.check_reads(),
            22 => self.clock.wall_jump_ms = self.chance.below(100_000_000),
            24 if self.chance.one_in(8) => {
                let ms = self.chance.below(4000);
                self.pause(ms);
            }
            23 => {
                let until = self.clock.now_ms + self.chance.below(2500);
                while self.clock.now_ms < until {
                    self.clock.now_ms += 1 + self.chance.below(PATIENCE_MS - 1);
                    self.beat()?;
                }
            }
            _ => {}
        }
        self.beat()
    }

    /// Lets some of the member's threads run, and those that have waited long enough.
    fn beat(&mut self) -> Result<(), Down> {
        let now_ms = self.clock.now_ms;
        let disk_waits = now_ms - self.clock.last_disk_ms >= PATIENCE_MS;
        if self.chance.one_in(3) || disk_waits {
            self.run_disk()?;
        }
        let (prepare, walk) = (self.chance.one_in(4), self.chance.one_in(2));
        let member = self.member.as_mut().expect("a member that beats");
        if prepare {
            member.prepare_segment()?;
        }
        if walk {
            member.work_on_checkpoint();
        } else {
            self.seen.reclaims += u64::from(member.work_on_reclaim());
        }
        if self.disk.is_without_power() {
            return Ok(());
        }
        let turn_waits = now_ms - self.clock.last_turn_ms >= PATIENCE_MS;
        if self.chance.one_in(2) || turn_waits {
            self.turn()?;
        }
        Ok(())
    }

    fn run_disk(&mut self) -> Result<(), Down> {
        let now_ms = self.clock.now_ms;
        self.clock.last_disk_ms = now_ms;
        let member = self.member.as_mut().expect("a member with a disk");
        if member.disk_is_idle() {
            if now_ms - self.clock.last_busy_ms < IDLE_MS {
                return Ok(());
            }
        } else {
            self.clock.last_busy_ms = now_ms;
        }
        member.run_disk()
    }

    fn turn(&mut self) -> Result<(), Down> {
        let now = self.now();
        let now_ms = self.clock.now_ms;
        self.clock.last_turn_ms = now_ms;
        let ticked = now_ms >= self.clock.next_tick_ms;
        if ticked {
            self.clock.next_tick_ms = now_ms + TICK_MS;
        }
        let member = self.member.as_mut().expect("a member that turns");
        let mut happened = Vec::new();
        let turned = member.turn(now, ticked, &mut happened);
        for happened in happened {
            self.see(happened);
        }
        self.check_times();
        if turned.is_ok() {
            self.look_for_room();
        }
        turned
    }

    /// The member's own part in a full disk: the alarm, and an entry for a checkpoint that is early.
    fn look_for_room(&mut self) {
        let member = self.member.as_ref().expect("a member that turned");
        let (is_short, wants_entry) = (member.is_short(), member.wants_entry());
        if wants_entry {
            self.ask(&Body::Tick);
        }
        let raised = self.known.model.alarms.get(&OWN_ALARM).copied();
        let wanted = match raised {
            None => is_short,
            Some(by) => is_short || by == AlarmBy::Client,
        };
        if wanted != raised.is_some() && self.alarm_asked != Some(wanted) {
            let (alarm, raise, by) = (OWN_ALARM, wanted, AlarmBy::Member);
            self.ask(&Body::Alarm { alarm, raise, by });
            self.alarm_asked = Some(wanted);
            self.seen.short += u64::from(wanted);
        }
    }

    fn see(&mut self, happened: Happened) {
        match happened {
            Happened::Applied { entries, outcomes } => {
                let mut outcomes = outcomes.into_iter();
                for entry in &entries {
                    let verdict = self.known.committed(entry, self.clock.now_ms);
                    if entry.data.is_empty() {
                        self.trace
                            .note(format_args!("entry {}: a new term", entry.index));
                        continue;
                    }
                    let (id, outcome) = outcomes.next().expect("an outcome for each command");
                    let Some(verdict) = verdict else {
                        // It was applied before the restart, but its commit was not on disk yet.
                        if let Ok(Reply::LeaseGranted { id, .. }) = outcome.result {
                            self.known.granted_again(id, self.clock.now_ms);
                        }
                        continue;
                    };
                    self.going.retain(|_, counter| *counter != id.counter);
                    let found = (outcome.result.is_ok(), outcome.revision.get());
                    self.trace.note(format_args!(
                        "{}: entry {} at {}/{}, {}: {found:?}",
                        self.clock.now_ms,
                        entry.index,
                        entry.place.segment,
                        entry.place.offset,
                        describe(entry)
                    ));
                    verdict.check(&outcome);
                    self.seen.applied += 1;
                    self.seen.ended += u64::from(id.counter == 0 && found.0);
                }
            }
            Happened::ReadHolds(id, index) => {
                let at = self.reads.iter().position(|(read, _)| *read == id);
                let (_, needed) = self.reads.remove(at.expect("a read is answered once"));
                assert!(
                    index >= needed,
                    "P2: a read at {index} misses entry {needed}"
                );
            }
            Happened::Sends(..)
            | Happened::SendsState(_)
            | Happened::NotDone { .. }
            | Happened::Installed(_) => {
                panic!("a member alone has nobody to write to")
            }
            Happened::CheckpointTaken(index) => {
                let newer = index > self.newest_checkpoint;
                assert!(newer, "two checkpoints of index {index} count as two");
                self.newest_checkpoint = index;
                self.seen.checkpoints += 1;
                self.trace
                    .note(format_args!("checkpoint of index {index} taken"));
            }
        }
    }

    /// P5: nothing that is due stays, once the member has run for long enough.
    fn check_times(&self) {
        let now_ms = self.clock.now_ms;
        let up_ms = now_ms - self.clock.started_ms;
        if up_ms.min(now_ms - self.clock.awake_since_ms) < LATE_MS {
            return;
        }
        for (id, lease) in &self.known.model.leases {
            let ttl_ms = u64::try_from(lease.ttl_s).expect("positive") * 1000;
            let late = now_ms.saturating_sub(lease.since + ttl_ms);
            assert!(late <= LATE_MS, "P5: lease {id} is {late} ms late");
        }
        let cluster = self.clock.cluster_at_start.0 + up_ms;
        for (at, path, _) in self.known.model.dues().into_keys() {
            let late = cluster.saturating_sub(at);
            let path = String::from_utf8_lossy(path);
            assert!(late <= LATE_MS, "P5: {path} is {late} ms late");
        }
    }

    /// Whether the member refuses what grows, and says so.
    pub(crate) fn is_short(&self) -> bool {
        let alarms = &self.known.model.alarms;
        let is_short = self.member.as_ref().is_some_and(SimMember::is_short);
        is_short || alarms.get(&OWN_ALARM) == Some(&AlarmBy::Member)
    }

    /// Whether anything is left of what is kept for a full disk, be it in half a checkpoint.
    pub(crate) fn has_reserve(&self) -> bool {
        let names = self.disk.list().unwrap_or_default();
        let of_checkpoint = ["checkpoint.spare", "checkpoint.tmp"];
        let has_one = |name: &&str| self.disk.len(name).is_ok_and(|bytes| bytes > 0);
        names
            .iter()
            .map(String::as_str)
            .filter(|name| of_checkpoint.contains(name))
            .any(|name| has_one(&name))
            || self.spares() > 0
    }

    /// Segments that are kept for a full disk. None is without power.
    pub(crate) fn spares(&self) -> usize {
        let segment_bytes = u64::from(self.plan.segment_bytes);
        let mut names = self.disk.list().unwrap_or_default();
        names.retain(|name| name.ends_with(".spare") && name != "checkpoint.spare");
        let whole = names
            .iter()
            .filter(|name| self.disk.len(name) == Ok(segment_bytes));
        whole.count()
    }

    fn ask(&mut self, body: &Body) {
        let is_short = self.member.as_ref().is_some_and(SimMember::is_short);
        if is_short && body.growth_bytes().is_some() {
            // Refused at once: it takes no room in the log.
            return;
        }
        let now_ms = self.clock.now_ms;
        let wall = self.now().wall;
        let member = self.member.as_mut().expect("a member that is asked");
        self.counter += 1;
        if let Body::LeaseRevoke { id } = body {
            self.going.insert(*id, self.counter);
        }
        let id = member.request_id(self.counter);
        let entry = Draft::new(id, wall, body).stamp(ClusterTime(0));
        self.known.ask(id, entry, now_ms);
        member.propose(Draft::new(id, wall, body));
    }

    fn ask_read(&mut self) {
        self.counter += 1;
        self.reads.push((self.counter, self.known.last_index()));
        let member = self.member.as_mut().expect("a member that is asked");
        member.read(self.counter);
    }

    /// Asks how long a lease has, and renews it.
    fn renew(&mut self) {
        let now = self.now();
        let now_ms = self.clock.now_ms;
        let id = 1 + self.chance.below(5) as i64;
        let member = self.member.as_mut().expect("a member that is asked");
        if !member.leads() {
            return;
        }
        let Some(lease) = self.known.lease(id) else {
            return;
        };
        let ends = lease.since + u64::try_from(lease.ttl_s).expect("positive") * 1000;
        let left = member
            .lease_left(now, id)
            .expect("a lease that exists")
            .left_ms;
        assert_eq!(
            left,
            ends.saturating_sub(now_ms),
            "P5: what is left of lease {id}"
        );
        if self.chance.one_in(2) {
            let renewed = member.renew(now, id);
            // Its end may be on the way already: by its time, or because a client wants it.
            let may_go = now_ms >= ends || self.going.contains_key(&id);
            assert!(renewed.is_some() || may_go, "P5: lease {id} is not renewed");
            self.trace
                .note(format_args!("{now_ms}: renewed {id}: {renewed:?}"));
            if renewed.is_some() {
                self.known.renewed(id, now_ms);
            }
        }
    }

    fn check_reads(&mut self) {
        let member = self.member.as_ref().expect("a member that is read from");
        if self.known.is_caught_up(member) {
            self.known.check_reads(member, &mut self.chance);
        }
    }

    fn poll_watchers(&mut self, max: usize) {
        let member = self.member.as_ref().expect("a member that is watched");
        if !self.known.is_caught_up(member) {
            return;
        }
        let told = self.known.poll_watchers(member, max);
        self.seen.watched += told as u64;
    }

    fn try_settle(&mut self) -> Result<(), Down> {
        let mut rounds = 0;
        loop {
            self.clock.now_ms += 10;
            self.run_disk()?;
            let member = self.member.as_mut().expect("a member that settles");
            member.prepare_segment()?;
            member.work_on_checkpoint();
            self.seen.reclaims += u64::from(member.work_on_reclaim());
            if self.disk.is_without_power() {
                return Ok(());
            }
            self.turn()?;
            let member = self.member.as_ref().expect("a member that settles");
            if member.leads() && member.is_quiet() && !member.is_walking() {
                break;
            }
            rounds += 1;
            let state = (member.leads(), member.is_quiet(), member.is_walking());
            assert!(rounds < 1000, "the member does not come to rest: {state:?}");
        }
        assert!(self.reads.is_empty(), "every read is answered");
        let names = self.disk.list().expect("a disk with power");
        let segments = names.iter().filter_map(|name| segment_number(name));
        let (count, last) = segments.fold((0, 0), |(count, last), number| {
            (count + 1, last.max(u64::from(number)))
        });
        self.seen.freed = last - count;
        let member = self.member.as_mut().expect("a member that settles");
        assert!(
            self.known.is_caught_up(member),
            "P1: a leader has applied everything"
        );
        self.seen.watched += self.known.poll_watchers(member, usize::MAX) as u64;
        self.known.check_reads(member, &mut self.chance);
        self.known.check_all(member);
        self.trace.note(format_args!(
            "settled at {}: index {}, revision {}, {} effects",
            self.clock.now_ms,
            self.known.last_index(),
            self.known.model.revision,
            self.disk.effects()
        ));
        Ok(())
    }

    /// With two there, a member must be able to start from the older one, and without any from the
    /// log's beginning.
    fn rot_newest_checkpoint(&mut self) {
        let mut names = self.disk.list().expect("a disk with power");
        names.retain(|name| name.ends_with(".checkpoint"));
        names.sort();
        let newest = match &names[..] {
            [.., _, newest] => newest,
            _ => return,
        };
        let mut content = self.disk.content(newest).expect("it was listed");
        if content.is_empty() {
            // It was never synced.
            return;
        }
        let at = self.chance.below(content.len() as u64) as usize;
        content[at] ^= 1 << self.chance.below(8);
        self.disk.place(newest, content);
        self.seen.rotten += 1;
        self.trace.note(format_args!("{newest} rots at {at}"));
    }

    /// A fault of the disk, somewhere in the effects to come.
    pub(crate) fn draw_fault(&mut self) {
        let at = self.disk.effects() + self.chance.below(150);
        match self.chance.below(8) {
            0 => {}
            1 => self.disk.refuse_at(at, DiskErrorKind::Other),
            2 => self.disk.refuse_at(at, DiskErrorKind::Full),
            _ => self.disk.crash_at(at),
        }
    }

    /// What of the unsynced survives.
    pub(crate) fn draw_crash(&mut self) -> Crash {
        match self.chance.below(4) {
            0 => Crash::Clean,
            1 => Crash::Lost,
            _ => Crash::Torn {
                seed: self.chance.next(),
                sector_bytes: self.plan.sector_bytes,
            },
        }
    }
}

fn describe(entry: &Committed) -> String {
    let command = Command::decode(&entry.data).expect("a committed entry is a command");
    let mut body = format!("{:?}", command.body);
    if body.len() > 200 {
        body = body.chars().take(200).collect();
    }
    format!(
        "request {} at {}: {body}",
        command.id.counter, command.time.0
    )
}
