//! A disk in memory that loses power, tears writes, rots and refuses.
//!
//! It keeps two images: what a running process sees, and what is durable. [`SimDisk::survivors`]
//! is what another process finds after a crash: the durable image and, by the kind of [`Crash`],
//! none, all or some of what was written since.
//!
//! Owns the model of failure, and nothing of the format of what is written. Chance comes only
//! from the seed in [`Crash::Torn`].
//!
//! D1. A sector survives as it was before or after some write, never in between; a later write
//!     to a sector never survives without the earlier ones to it.
//! D2. A finished `sync` makes bytes and length durable, but no name; only `sync_dir` does that.
//!     Names made, moved and removed since survive each by itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use quorate_log::{Disk, DiskError, DiskErrorKind};

/// What of the unsynced survives a loss of power.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crash {
    /// All of it, still unsynced: a killed process on a machine that runs on.
    Clean,
    /// None of it.
    Lost,
    /// Some sectors and some names.
    Torn {
        /// Which ones.
        seed: u64,
        /// Bytes that are written whole or not at all.
        sector_bytes: usize,
    },
}

/// A handle to a disk; clones name the same one.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    /// Names to places in `files`: as seen now, and as durable.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    effects: u64,
    crash_at: Option<u64>,
    refuse_at: Option<(u64, DiskErrorKind)>,
    refused: bool,
    capacity: Option<u64>,
    was_full: bool,
    lies: bool,
    without_power: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Writes since the last sync: offset and bytes.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String, usize),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many effects took place: every call that changes or syncs something is one.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.0.borrow().effects
    }

    /// Cuts the power in the middle of effect number `effect`, counted from 0. That call and all
    /// later ones fail.
    pub fn crash_at(&self, effect: u64) {
        self.0.borrow_mut().crash_at = Some(effect);
    }

    /// Lets effect number `effect` fail without effect. Later calls work again.
    pub fn refuse_at(&self, effect: u64, kind: DiskErrorKind) {
        self.0.borrow_mut().refuse_at = Some((effect, kind));
    }

    /// No fault that was planned comes any more.
    pub fn mend(&self) {
        let state = &mut *self.0.borrow_mut();
        (state.crash_at, state.refuse_at) = (None, None);
    }

    /// From now on the files together have at most so many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.borrow_mut().capacity = Some(bytes);
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.0.borrow().used_bytes()
    }

    fn full_unless_fits(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        let state = &mut *self.0.borrow_mut();
        let len = state
            .names
            .get(name)
            .map(|file| state.files[*file].content.len());
        let more = bytes.saturating_sub(len.unwrap_or_default() as u64);
        let fits = |capacity| more == 0 || state.used_bytes() + more <= capacity;
        if state.capacity.is_none_or(fits) {
            return Ok(());
        }
        state.was_full = true;
        Err(error(
            DiskErrorKind::Full,
            "write",
            name,
            "no space is left",
        ))
    }

    /// Whether there was ever too little room for what was written.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.0.borrow().was_full
    }

    /// Lets every sync say that it was done and do nothing, to see that the loss is noticed.
    pub fn lie_about_syncs(&self) {
        self.0.borrow_mut().lies = true;
    }

    /// Whether an effect was refused.
    #[must_use]
    pub fn has_refused(&self) -> bool {
        self.0.borrow().refused
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_without_power(&self) -> bool {
        self.0.borrow().without_power
    }

    /// The disk as the next process finds it if this one ends now.
    ///
    /// After [`Crash::Clean`] what was not synced is there, but may still be lost.
    #[must_use]
    pub fn survivors(&self, crash: Crash) -> Self {
        let state = self.0.borrow();
        let (files, names) = match crash {
            Crash::Clean => {
                let (files, names) = (state.files.clone(), state.names.clone());
                let durable_names = state.durable_names.clone();
                let unsynced_names = state.unsynced_names.clone();
                let rest = state.capacity_only();
                let state = State {
                    files,
                    names,
                    durable_names,
                    unsynced_names,
                    ..rest
                };
                return Self(Rc::new(RefCell::new(state)));
            }
            Crash::Lost => {
                let durable = state.files.iter().map(|file| file.durable.clone());
                (
                    durable.map(File::new).collect(),
                    state.durable_names.clone(),
                )
            }
            Crash::Torn { seed, sector_bytes } => {
                let mut chance = Chance(seed);
                let mut torn = |file: &File| File::new(file.torn(sector_bytes, &mut chance));
                let files: Vec<File> = state.files.iter().map(&mut torn).collect();
                let mut names = state.durable_names.clone();
                for change in &state.unsynced_names {
                    if chance.below(2) == 0 {
                        change.apply(&mut names);
                    }
                }
                (files, names)
            }
        };
        let durable_names = names.clone();
        Self(Rc::new(RefCell::new(State {
            files,
            names,
            durable_names,
            ..state.capacity_only()
        })))
    }

    /// A file's bytes as seen now.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        state
            .names
            .get(name)
            .map(|file| state.files[*file].content.clone())
    }

    /// Puts a durable file there, as if it had always been: for rot, and for recorded files.
    pub fn place(&self, name: &str, content: Vec<u8>) {
        let mut state = self.0.borrow_mut();
        state.files.push(File::new(content));
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// Counts an effect, and lets it take place by `act` unless it is refused. `act` must not
    /// make anything durable when the power fails in the middle of it.
    fn effect<T>(
        &self,
        operation: &'static str,
        name: &str,
        act: impl FnOnce(&mut State, bool) -> Option<T>,
    ) -> Result<T, DiskError> {
        let state = &mut *self.0.borrow_mut();
        state.check_power(operation, name)?;
        let number = state.effects;
        state.effects += 1;
        if let Some((_, kind)) = state.refuse_at.filter(|(at, _)| *at == number) {
            state.refused = true;
            return Err(error(kind, operation, name, "the simulated disk refuses"));
        }
        state.without_power = state.crash_at == Some(number);
        let done = act(state, state.without_power);
        state.check_power(operation, name)?;
        done.ok_or_else(|| {
            error(
                DiskErrorKind::NotFound,
                operation,
                name,
                "there is no such file",
            )
        })
    }

    fn look<T>(
        &self,
        operation: &'static str,
        name: &str,
        look: impl FnOnce(&File) -> T,
    ) -> Result<T, DiskError> {
        let state = self.0.borrow();
        state.check_power(operation, name)?;
        let file = state.names.get(name).map(|file| &state.files[*file]);
        file.map(look).ok_or_else(|| {
            error(
                DiskErrorKind::NotFound,
                operation,
                name,
                "there is no such file",
            )
        })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let state = self.0.borrow();
        state.check_power("list", "the directory")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.look("look at", name, |file| file.content.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.look("read", name, |file| {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(file.content.len());
            let count = into.len().min(file.content.len() - start);
            into[..count].copy_from_slice(&file.content[start..start + count]);
            count
        })
    }

    fn create(&self, name: &str) -> Result<(), DiskError> {
        self.effect("create", name, |state, _| {
            state.files.push(File::default());
            state.change(NameChange::Create(name.to_owned(), state.files.len() - 1));
            Some(())
        })
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.full_unless_fits(name, offset + bytes.len() as u64)?;
        self.effect("write", name, |state, _| {
            let file = &mut state.files[*state.names.get(name)?];
            let offset = usize::try_from(offset).expect("simulated files are small");
            overwrite(&mut file.content, offset, bytes);
            file.unsynced.push((offset, bytes.to_vec()));
            Some(())
        })
    }

    fn allocate(&self, name: &str, bytes: u64) -> Result<(), DiskError> {
        self.full_unless_fits(name, bytes)?;
        self.effect("allocate", name, |state, _| {
            let file = &mut state.files[*state.names.get(name)?];
            let len = file.content.len();
            let bytes = usize::try_from(bytes).expect("simulated files are small");
            if len < bytes {
                file.content.resize(bytes, 0);
                file.unsynced.push((len, vec![0; bytes - len]));
            }
            Some(())
        })
    }

    fn sync(&self, name: &str) -> Result<(), DiskError> {
        self.effect("sync", name, |state, power_fails| {
            let lies = state.lies;
            let file = &mut state.files[*state.names.get(name)?];
            if !power_fails && !lies {
                for (offset, bytes) in file.unsynced.drain(..) {
                    overwrite(&mut file.durable, offset, &bytes);
                }
            }
            Some(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.effect("rename", from, |state, _| {
            let file = *state.names.get(from)?;
            state.change(NameChange::Rename(from.to_owned(), to.to_owned(), file));
            Some(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.effect("remove", name, |state, _| {
            let file = *state.names.get(name)?;
            state.change(NameChange::Remove(name.to_owned(), file));
            Some(())
        })
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.effect("sync", "the directory", |state, power_fails| {
            if !power_fails {
                state.unsynced_names.clear();
                state.durable_names = state.names.clone();
            }
            Some(())
        })
    }
}

impl State {
    fn check_power(&self, operation: &'static str, name: &str) -> Result<(), DiskError> {
        if self.without_power {
            return Err(error(
                DiskErrorKind::Other,
                operation,
                name,
                "the power is off",
            ));
        }
        Ok(())
    }

    fn capacity_only(&self) -> Self {
        Self {
            capacity: self.capacity,
            was_full: self.was_full,
            ..Self::default()
        }
    }

    fn used_bytes(&self) -> u64 {
        let lengths = self
            .names
            .values()
            .map(|file| self.files[*file].content.len() as u64);
        lengths.sum()
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Remove(name, file) => {
                if names.get(name) == Some(file) {
                    names.remove(name);
                }
            }
        }
    }
}

impl File {
    /// A file whose bytes are durable.
    fn new(content: Vec<u8>) -> Self {
        Self {
            durable: content.clone(),
            content,
            unsynced: Vec::new(),
        }
    }

    /// D1: every sector shows the first so many of the writes to it.
    fn torn(&self, sector_bytes: usize, chance: &mut Chance) -> Vec<u8> {
        let mut torn = self.durable.clone();
        let touched: BTreeSet<usize> = self
            .unsynced
            .iter()
            .flat_map(|(offset, bytes)| {
                let end = (offset + bytes.len()).div_ceil(sector_bytes);
                offset / sector_bytes..end
            })
            .collect();
        for sector in touched {
            let sector = sector * sector_bytes..(sector + 1) * sector_bytes;
            let writes: Vec<_> = self
                .unsynced
                .iter()
                .filter_map(|write| within(write, &sector))
                .collect();
            let survive = chance.below(writes.len() as u64 + 1);
            for (offset, bytes) in writes.iter().take(usize::try_from(survive).unwrap_or(0)) {
                overwrite(&mut torn, *offset, bytes);
            }
        }
        torn
    }
}

/// The part of a write that falls into a sector.
fn within<'a>(write: &'a (usize, Vec<u8>), sector: &Range<usize>) -> Option<(usize, &'a [u8])> {
    let (offset, bytes) = write;
    let start = sector.start.max(*offset);
    let end = sector.end.min(offset + bytes.len());
    (start < end).then(|| (start, &bytes[start - offset..end - offset]))
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn error(kind: DiskErrorKind, operation: &'static str, name: &str, reason: &str) -> DiskError {
    DiskError {
        kind,
        operation,
        file: name.to_owned(),
        reason: reason.to_owned(),
    }
}

/// SplitMix64: the same numbers from the same seed, everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_synced_bytes_and_names_survive_a_lost_crash() {
        let disk = SimDisk::new();
        disk.create("a").unwrap();
        disk.write_at("a", 0, b"old").unwrap();
        disk.sync("a").unwrap();
        assert_eq!(
            disk.survivors(Crash::Lost).list().unwrap(),
            Vec::<String>::new()
        );
        disk.sync_dir().unwrap();
        disk.write_at("a", 0, b"new!").unwrap();
        assert_eq!(disk.survivors(Crash::Lost).content("a").unwrap(), b"old");
        assert_eq!(disk.survivors(Crash::Clean).content("a").unwrap(), b"new!");
    }

    #[test]
    fn a_sector_is_torn_as_a_whole_and_in_order() {
        let disk = SimDisk::new();
        disk.place("a", vec![0; 8]);
        disk.write_at("a", 0, &[1; 8]).unwrap();
        disk.write_at("a", 0, &[2; 4]).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let torn = disk
                .survivors(Crash::Torn {
                    seed,
                    sector_bytes: 4,
                })
                .content("a")
                .unwrap();
            seen.insert(torn);
        }
        let all = [0, 1, 2].into_iter().flat_map(|first| {
            [0, 1]
                .into_iter()
                .map(move |second| [[first; 4], [second; 4]].concat())
        });
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn nothing_works_once_the_power_is_cut() {
        let disk = SimDisk::new();
        disk.crash_at(1);
        disk.create("a").unwrap();
        assert!(disk.sync_dir().is_err());
        assert!(disk.list().is_err());
        assert!(disk.is_without_power());
        assert_eq!(
            disk.survivors(Crash::Lost).list().unwrap(),
            Vec::<String>::new()
        );
    }
}
