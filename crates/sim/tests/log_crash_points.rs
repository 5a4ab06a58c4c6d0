//! Every effect of scripted runs is a crash point, with each kind of crash; and every effect of
//! the recovery from it is one again.

mod log_member;

use log_member::{Found, Member, Model, Step, check, entry, script};
use quorate_log::{Config, DiskErrorKind, HardState, LogError, verify};
use quorate_sim::disk::{Crash, SimDisk};

/// Runs `steps` until they end or the power does, and returns what may be found.
fn run(disk: &SimDisk, config: Config, steps: &[Step]) -> Model {
    let mut model = Model::default();
    let result = (|| {
        let (mut member, found) = Member::open(disk, config)?;
        check(disk, &found, &model);
        steps
            .iter()
            .try_for_each(|step| member.step(step, &mut model))
    })();
    if let Err(error) = result {
        assert!(
            disk.is_without_power(),
            "the log failed on a disk that did not: {error}"
        );
    }
    model
}

fn crashes(seed: u64) -> [Crash; 5] {
    let torn = |number, sector_bytes| Crash::Torn {
        seed: seed * 8 + number,
        sector_bytes,
    };
    [
        Crash::Clean,
        Crash::Lost,
        torn(0, 512),
        torn(1, 512),
        torn(2, 4096),
    ]
}

/// Opens what a crash left, checks it, crashes that recovery at each of its effects too, and
/// goes on from there.
fn recover(disk: &SimDisk, config: Config, crash: Crash, model: &Model, seed: u64) {
    let once = disk.survivors(crash);
    let undisturbed = once.survivors(Crash::Clean);
    let (member, found) = Member::open(&undisturbed, config).expect("recovery works");
    let effects = undisturbed.effects();
    if matches!(crash, Crash::Clean | Crash::Lost) {
        assert_eq!(found.recovered.torn, None, "nothing is torn");
    }
    go_on(member, &found, config, model);

    for effect in 0..effects {
        let kind = usize::try_from((seed + effect) % 5).expect("less than five");
        let crash = crashes(seed + effect)[kind];
        let interrupted = once.survivors(Crash::Clean);
        interrupted.crash_at(effect);
        assert!(
            Member::open(&interrupted, config).is_err(),
            "it was without power"
        );
        let twice = interrupted.survivors(crash);
        let (_, found) = Member::open(&twice, config).expect("the second recovery works");
        check(&twice, &found, model);
    }
}

/// What a recovered member was told is durable by then. It writes on, and remembers that too;
/// then its directory is sound.
fn go_on(mut member: Member, found: &Found, config: Config, model: &Model) {
    let disk = member.disk.clone();
    let mut model = Model {
        possible: vec![check(&disk, found, model)],
        ..model.clone()
    };
    let left = disk.survivors(Crash::Lost);
    let (_, found) = Member::open(&left, config).expect("it opens again");
    assert_eq!(found.recovered.torn, None, "a torn batch is dropped once");
    check(&left, &found, &model);
    let latest = model.latest().clone();
    let term = latest.term + 1;
    let hard = Some(HardState {
        term,
        vote: 9,
        commit: 0,
    });
    let entries = vec![entry(latest.last_index() + 1, term, 100)];
    let append = Step::Append {
        hard,
        entries,
        commit: latest.commit,
    };
    for step in [append, Step::Sync, Step::Idle] {
        member.step(&step, &mut model).expect("the disk works");
    }
    let left = disk.survivors(Crash::Lost);
    let report = verify(&left).expect("the disk works");
    assert!(report.is_sound() && report.torn.is_none(), "{report}");
    let (_, found) = Member::open(&left, config).expect("it opens again");
    check(&left, &found, &model);
}

/// Cuts the power at each effect of a run once, with each kind of crash.
fn cut_power_everywhere(script: &Script) {
    let (seed, config, steps) = (script.seed, script.config(), script.steps());
    let whole = SimDisk::new();
    run(&whole, config, &steps);
    assert!(whole.effects() > 100, "the script does something");
    for effect in 0..whole.effects() {
        let disk = SimDisk::new();
        disk.crash_at(effect);
        let model = run(&disk, config, &steps);
        assert!(disk.is_without_power(), "runs are repeatable");
        for (kind, crash) in crashes(seed + effect).into_iter().enumerate() {
            recover(
                &disk,
                config,
                crash,
                &model,
                seed + effect * 5 + kind as u64,
            );
        }
    }
}

/// A run that overwrites, rolls, takes checkpoints and frees, as the last test here shows.
struct Script {
    seed: u64,
    steps: usize,
    longest_value: u64,
    segment_bytes: u32,
}

const ROLLS_OFTEN: Script = Script {
    seed: 7,
    steps: 70,
    longest_value: 300,
    segment_bytes: 2048,
};
const LONG_BATCHES: Script = Script {
    seed: 6,
    steps: 60,
    longest_value: 3000,
    segment_bytes: 16 << 10,
};
const FULL_SEGMENTS: Script = Script {
    seed: 14,
    steps: 50,
    longest_value: 700,
    segment_bytes: 1024,
};

impl Script {
    fn steps(&self) -> Vec<Step> {
        script(self.seed, self.steps, self.longest_value)
    }

    fn config(&self) -> Config {
        Config {
            segment_bytes: self.segment_bytes,
        }
    }
}

#[test]
fn small_segments_that_roll_often() {
    cut_power_everywhere(&ROLLS_OFTEN);
}

#[test]
fn batches_of_several_sectors() {
    cut_power_everywhere(&LONG_BATCHES);
}

#[test]
fn segments_that_a_batch_fills() {
    cut_power_everywhere(&FULL_SEGMENTS);
}

/// A refused effect, once: the journal is closed for good, and what it promised is there.
#[test]
fn a_failed_effect_closes_the_journal_and_breaks_no_promise() {
    let (_, closed) = refuse_everywhere(DiskErrorKind::Other);
    assert!(closed > 50, "most effects are the journal's: {closed}");
}

/// A full disk, once: what needs room takes it from the reserve, or goes on without.
#[test]
fn a_disk_that_is_full_for_a_moment_breaks_no_promise() {
    let (survived, closed) = refuse_everywhere(DiskErrorKind::Full);
    assert!(survived > 20, "there is a reserve: {survived}");
    assert!(closed > 50, "room in a segment is never refused: {closed}");
}

/// Refuses each effect of a run once. Returns how many runs went on, and in how many the journal
/// was closed.
fn refuse_everywhere(kind: DiskErrorKind) -> (u64, u64) {
    let config = Config {
        segment_bytes: 2048,
    };
    let steps = script(4, 60, 300);
    let whole = SimDisk::new();
    run(&whole, config, &steps);
    let opened = {
        let disk = SimDisk::new();
        Member::open(&disk, config).expect("the disk works");
        disk.effects()
    };
    let (mut survived, mut closed) = (0, 0);
    for effect in opened..whole.effects() {
        let disk = SimDisk::new();
        let mut model = Model::default();
        let (mut member, _) = Member::open(&disk, config).expect("the disk works");
        disk.refuse_at(effect, kind);
        let failed = steps
            .iter()
            .any(|step| member.step(step, &mut model).is_err());
        assert!(disk.has_refused(), "effect {effect} was refused");
        assert!(failed || kind == DiskErrorKind::Full, "{effect} was heeded");
        survived += u64::from(!failed);
        if member.journal.sync() == Err(LogError::Poisoned) {
            closed += 1;
            assert_eq!(member.journal.idle_mark(), Err(LogError::Poisoned));
        }
        drop(member);
        for crash in crashes(effect) {
            let left = disk.survivors(crash);
            let (_, found) = Member::open(&left, config).expect("recovery works");
            check(&left, &found, &model);
        }
    }
    (survived, closed)
}

/// The scripts are worth running: they do all that the log can do.
#[test]
fn scripts_overwrite_roll_take_checkpoints_and_free() {
    for script in [ROLLS_OFTEN, LONG_BATCHES, FULL_SEGMENTS] {
        let disk = SimDisk::new();
        let steps = script.steps();
        let model = run(&disk, script.config(), &steps);
        let mut last = 0;
        let overwrites = steps.iter().any(|step| match step {
            Step::Append { entries, .. } => entries.iter().any(|entry| {
                let overwrites = entry.index <= last;
                last = entry.index;
                overwrites
            }),
            _ => false,
        });
        let files = verify(&disk).expect("the disk works").segments;
        assert!(overwrites, "seed {} overwrites", script.seed);
        assert!(files.len() > 3, "seed {} rolls", script.seed);
        assert!(
            files[0].file != "0000000001.segment",
            "seed {} frees",
            script.seed
        );
        assert!(
            model.finished > Some(5),
            "seed {} takes checkpoints",
            script.seed
        );
        assert!(steps.iter().any(|step| matches!(step, Step::Idle)));
    }
}
