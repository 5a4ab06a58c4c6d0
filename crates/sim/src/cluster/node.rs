//! One member of a cluster in its own surroundings: its disk, its clock, its process.

use quorate_log::{Disk as _, DiskErrorKind};
use quorate_replica::{Monotonic, Now};
use quorate_store::UnixMs;

use crate::chance::Chance;
use crate::disk::{Crash, SimDisk};
use crate::member::{Down, Found, Happened, SimMember, TICK_MS, Who};
use crate::plan::Plan;

/// Each thread of a member runs at least this often, in milliseconds.
const PATIENCE_MS: u64 = 50;
/// Nothing must come for this long before the idle mark is written, in milliseconds.
const IDLE_MS: u64 = 100;
const WALL_START: u64 = 1_700_000_000_000;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) who: Who,
    pub(crate) disk: SimDisk,
    pub(crate) plan: Plan,
    pub(crate) member: Option<SimMember>,
    /// Counts its processes; 0 before the first.
    pub(crate) life: u64,
    /// Counts the requests of a start.
    pub(crate) counter: u64,
    /// When it is started next, if it is down.
    pub(crate) starts_ms: u64,
    /// It stands still until then.
    pub(crate) paused_ms: u64,
    /// Up to where its process has applied.
    pub(crate) applied: u64,
    /// Since when all voters know that it was removed.
    pub(crate) known_ms: Option<u64>,
    /// The entry that removed it.
    pub(crate) removed_index: Option<u64>,
    /// How many times slower its disk is than others.
    pub(crate) disk_pace: u64,
    /// It has no future: it was removed.
    pub(crate) is_gone: bool,
    /// When it tells the others again that it has started, until they know.
    pub(crate) publishes_ms: Option<u64>,
    /// Whether it leads, and its term, as last told.
    pub(crate) role: (bool, u64),
    clock: Clock,
    next_tick_ms: u64,
    last_turn_ms: u64,
    last_disk_ms: u64,
    last_busy_ms: u64,
}

#[derive(Clone, Debug)]
struct Clock {
    started_ms: u64,
    /// What the monotonic clock said then.
    offset: u64,
    /// Thousandths of true time; never more, for a clock is slow but not fast.
    speed: u64,
    wall_jump_ms: u64,
}

impl Node {
    pub(crate) fn new(who: Who, plan: Plan, starts_ms: u64) -> Self {
        Self {
            who,
            disk: SimDisk::new(),
            plan,
            member: None,
            life: 0,
            counter: 0,
            starts_ms,
            paused_ms: 0,
            applied: 0,
            known_ms: None,
            disk_pace: 1,
            removed_index: None,
            is_gone: false,
            publishes_ms: None,
            role: (false, 0),
            clock: Clock {
                started_ms: 0,
                offset: 0,
                speed: 1000,
                wall_jump_ms: 0,
            },
            next_tick_ms: 0,
            last_turn_ms: 0,
            last_disk_ms: 0,
            last_busy_ms: 0,
        }
    }

    pub(crate) fn now(&self, now_ms: u64) -> Now {
        let since = (now_ms - self.clock.started_ms) * self.clock.speed / 1000;
        Now {
            monotonic: Monotonic(self.clock.offset + since),
            wall: UnixMs(WALL_START + now_ms + self.clock.wall_jump_ms),
        }
    }

    /// Its process runs and is not stopped.
    pub(crate) fn is_awake(&self, now_ms: u64) -> bool {
        self.member.is_some() && self.paused_ms <= now_ms
    }

    pub(crate) fn start(
        &mut self,
        now_ms: u64,
        speed: u64,
        chance: &mut Chance,
    ) -> Result<Found, Down> {
        self.clock = Clock {
            started_ms: now_ms,
            offset: chance.below(1 << 40),
            speed,
            wall_jump_ms: self.clock.wall_jump_ms,
        };
        self.life += 1;
        self.paused_ms = 0;
        self.publishes_ms = Some(now_ms);
        (self.next_tick_ms, self.last_turn_ms, self.last_disk_ms) = (now_ms, now_ms, now_ms);
        // Another election timeout each time.
        let plan = Plan {
            seed: chance.next(),
            ..self.plan.clone()
        };
        let (member, found) = SimMember::open(&self.disk, &plan, self.now(now_ms), &self.who)?;
        self.member = Some(member);
        Ok(found)
    }

    /// Ends its process, and perhaps the power, and says when it comes back.
    pub(crate) fn end(&mut self, crash: Crash, starts_ms: u64) {
        self.member = None;
        self.applied = 0;
        self.disk = self.disk.survivors(crash);
        self.starts_ms = starts_ms;
    }

    pub(crate) fn jump_wall(&mut self, ms: u64) {
        self.clock.wall_jump_ms = ms;
    }

    /// A fault of the disk, somewhere in the effects to come.
    pub(crate) fn draw_fault(&self, chance: &mut Chance) {
        let at = self.disk.effects() + chance.below(150);
        match chance.below(6) {
            0 => self.disk.refuse_at(at, DiskErrorKind::Other),
            _ => self.disk.crash_at(at),
        }
    }

    /// With two there, a member must be able to start from the older one.
    pub(crate) fn rot_newest_checkpoint(&self, chance: &mut Chance) {
        let mut names = self.disk.list().unwrap_or_default();
        names.retain(|name| name.ends_with(".checkpoint"));
        names.sort();
        let [.., _, newest] = &names[..] else { return };
        let mut content = self.disk.content(newest).expect("it was listed");
        if !content.is_empty() {
            let at = chance.below(content.len() as u64) as usize;
            content[at] ^= 1 << chance.below(8);
            self.disk.place(newest, content);
        }
    }

    /// Lets some of the member's threads run, and those that have waited long enough.
    pub(crate) fn beat(
        &mut self,
        now_ms: u64,
        chance: &mut Chance,
        out: &mut Vec<Happened>,
    ) -> Result<(), Down> {
        let pace = self.disk_pace;
        if chance.one_in(3 * pace) || now_ms - self.last_disk_ms >= PATIENCE_MS * pace {
            self.run_disk(now_ms)?;
        }
        let (prepare, walk) = (chance.one_in(4), chance.below(3));
        let member = self.member.as_mut().expect("a member that beats");
        if prepare {
            member.prepare_segment()?;
        }
        match walk {
            0 => member.work_on_checkpoint(),
            1 => drop(member.work_on_reclaim()),
            _ => member.work_on_incoming()?,
        }
        if self.disk.is_without_power() {
            return Ok(());
        }
        if chance.one_in(2) || now_ms - self.last_turn_ms >= PATIENCE_MS {
            self.last_turn_ms = now_ms;
            let ticked = now_ms >= self.next_tick_ms;
            if ticked {
                self.next_tick_ms = now_ms + TICK_MS;
            }
            let now = self.now(now_ms);
            let member = self.member.as_mut().expect("a member that turns");
            member.turn(now, ticked, out)?;
            self.applied = self.applied.max(member.machine.applied().0);
        }
        Ok(())
    }

    fn run_disk(&mut self, now_ms: u64) -> Result<(), Down> {
        self.last_disk_ms = now_ms;
        let member = self.member.as_mut().expect("a member with a disk");
        if !member.disk_is_idle() {
            self.last_busy_ms = now_ms;
        } else if now_ms - self.last_busy_ms < IDLE_MS {
            return Ok(());
        }
        member.run_disk()
    }
}
