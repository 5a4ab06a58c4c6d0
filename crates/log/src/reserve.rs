//! Room kept back for when the disk is full, and the making of segments out of it.
//!
//! Spare files of a segment's length, of which [`RESERVE_SEGMENTS`] are the reserve, beside the
//! segment that is made ready ahead of need, and one more may be kept, and one file as long as a checkpoint may become. Their blocks are allocated; what
//! they hold means nothing. A segment is made from the spare beyond the reserve, or else from new
//! room, or else from the reserve; then the disk is short until the reserve is whole again and
//! there is room for one more.
//!
//! Owns which files are spares, and their names. Never decides what to do when the disk is short.
//!
//! F1. A file is overwritten only once its name as a segment is durably gone.
//! F2. The reserve is used only after the disk has refused new room, and until it is whole again.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::identity::DirectoryId;
use crate::segment::{fill_segment, segment_name};

/// Spare segments that are kept for a full disk.
pub const RESERVE_SEGMENTS: usize = 1;

const SPARE: &str = ".spare";
const CHECKPOINT_SPARE: &str = "checkpoint.spare";

/// The room kept back in one data directory. One at a time, on any thread; whoever else calls
/// [`prepare_segment`] must wait until no call is under way.
#[derive(Debug)]
pub struct Reserve<D> {
    disk: D,
    directory: DirectoryId,
    segment_bytes: u32,
    checkpoint_bytes: u64,
    is_short: bool,
}

/// What is kept back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    /// Spare files of a segment's length.
    pub segments: usize,
    /// Bytes for a checkpoint.
    pub checkpoint_bytes: u64,
    /// The disk has refused room, and has not had enough since.
    pub is_short: bool,
}

impl<D: Disk> Reserve<D> {
    /// `checkpoint_bytes` is what a checkpoint may take; `is_short` says that the disk was short
    /// when the member was stopped. Nothing is kept until [`Self::fill`].
    pub fn new(
        disk: D,
        directory: DirectoryId,
        segment_bytes: u32,
        checkpoint_bytes: u64,
        is_short: bool,
    ) -> Self {
        Self {
            disk,
            directory,
            segment_bytes,
            checkpoint_bytes,
            is_short,
        }
    }

    /// What is kept now.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn kept(&self) -> Result<Kept, DiskError> {
        Ok(Kept {
            segments: spares(&self.disk, self.segment_bytes)?.len(),
            checkpoint_bytes: checkpoint_bytes(&self.disk)?,
            is_short: self.is_short,
        })
    }

    /// A checkpoint may take so many bytes from now on, or what it might before if that is more.
    pub fn raise_checkpoint_bytes(&mut self, bytes: u64) {
        self.checkpoint_bytes = self.checkpoint_bytes.max(bytes);
    }

    /// Makes segment `number` ready for use.
    ///
    /// # Errors
    /// Those of the disk; [`DiskErrorKind::Full`] if the reserve is used up.
    pub fn prepare(&mut self, number: u32) -> Result<(), DiskError> {
        // What room there is while the disk is short is for a checkpoint.
        let least = if self.is_short { 0 } else { RESERVE_SEGMENTS };
        let (disk, directory) = (&self.disk, self.directory);
        let prepared = prepare(disk, directory, number, self.segment_bytes, least);
        self.is_short |= match &prepared {
            Ok(had_room) => !had_room,
            Err(error) => error.kind == DiskErrorKind::Full,
        };
        prepared.map(drop)
    }

    /// Makes spares of the files of segments that nothing needs or reads any more, as many as may
    /// be kept, and removes the others.
    ///
    /// # Errors
    /// Those of the disk. What is still there then is freed again after the next start.
    pub fn recycle(&mut self, freed: &[u32]) -> Result<(), DiskError> {
        let mut kept = spares(&self.disk, self.segment_bytes)?.len();
        for number in freed {
            let segment = segment_name(*number);
            let fits = self.disk.len(&segment)? == u64::from(self.segment_bytes);
            if fits && kept <= RESERVE_SEGMENTS {
                self.disk.rename(&segment, &free_name(&self.disk)?)?;
                kept += 1;
            } else {
                self.disk.remove(&segment)?;
            }
        }
        // F1.
        self.disk.sync_dir()
    }

    /// Makes the reserve whole, and while the disk is short sees whether there is room for one
    /// segment more: then it no longer is.
    ///
    /// # Errors
    /// Those of the disk, but not that it is full.
    pub fn fill(&mut self) -> Result<(), DiskError> {
        match self.try_fill() {
            Ok(()) => self.is_short = false,
            Err(error) if error.kind == DiskErrorKind::Full => self.is_short = true,
            Err(other) => return Err(other),
        }
        Ok(())
    }

    fn try_fill(&self) -> Result<(), DiskError> {
        self.remove_others()?;
        let wanted = RESERVE_SEGMENTS + usize::from(self.is_short);
        let mut kept = spares(&self.disk, self.segment_bytes)?;
        // First, since no segment is freed without a checkpoint.
        match self.fill_checkpoint() {
            Err(error) if error.kind == DiskErrorKind::Full && kept.len() > RESERVE_SEGMENTS => {
                let beyond = kept.pop().expect("more than none");
                self.disk.remove(&beyond)?;
                self.fill_checkpoint()?;
            }
            other => other?,
        }
        while kept.len() < wanted {
            kept.push(add_spare(&self.disk, self.segment_bytes)?);
        }
        Ok(())
    }

    fn fill_checkpoint(&self) -> Result<(), DiskError> {
        let kept = checkpoint_bytes(&self.disk)?;
        if kept >= self.checkpoint_bytes {
            return Ok(());
        }
        if kept == 0 {
            self.disk.create(CHECKPOINT_SPARE)?;
        }
        self.disk
            .allocate(CHECKPOINT_SPARE, self.checkpoint_bytes)?;
        self.disk.sync(CHECKPOINT_SPARE)?;
        self.disk.sync_dir()
    }

    /// Spares of another length are left from a crash or another configuration.
    fn remove_others(&self) -> Result<(), DiskError> {
        for name in self.disk.list()? {
            if is_spare(&name) && self.disk.len(&name)? != u64::from(self.segment_bytes) {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// Makes segment `number` ready for use: whole, zero-filled, under its final name, durable.
///
/// May run on another thread than the journal's: touches no file but this one and spares. Returns
/// false if the disk had no room and it came out of the reserve.
///
/// # Errors
/// Those of the disk; what is left then is made anew by the next call.
pub fn prepare_segment<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    number: u32,
    segment_bytes: u32,
) -> Result<bool, DiskError> {
    prepare(disk, directory, number, segment_bytes, RESERVE_SEGMENTS)
}

/// The same, with no new room as long as there are more spares than `least`.
fn prepare<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    number: u32,
    segment_bytes: u32,
    least: usize,
) -> Result<bool, DiskError> {
    let mut kept = spares(disk, segment_bytes)?;
    let beyond = (kept.len() > least).then(|| kept.pop()).flatten();
    let (spare, had_room) = match beyond {
        Some(spare) => (spare, true),
        None => match add_spare(disk, segment_bytes) {
            Ok(spare) => (spare, true),
            Err(error) => match kept.pop().filter(|_| error.kind == DiskErrorKind::Full) {
                // F2.
                Some(spare) => (spare, false),
                None => return Err(error),
            },
        },
    };
    fill_segment(disk, &spare, directory, number, segment_bytes)?;
    disk.rename(&spare, &segment_name(number))?;
    disk.sync_dir()?;
    Ok(had_room)
}

/// Does what needs room: if the disk is full, after the room of a checkpoint was given up, and then
/// of spare segments all but so many as are to be left.
pub(crate) fn with_reserve<D: Disk, T>(
    disk: &D,
    leave_segments: usize,
    act: impl Fn() -> Result<T, DiskError>,
) -> Result<T, DiskError> {
    let is_full = |done: &Result<T, DiskError>| matches!(done, Err(error) if error.kind == DiskErrorKind::Full);
    let mut done = act();
    if !is_full(&done) {
        return done;
    }
    let mut given_up = disk.list()?;
    given_up.retain(|name| is_spare(name));
    given_up.drain(..leave_segments.min(given_up.len()));
    given_up.insert(0, String::from(CHECKPOINT_SPARE));
    for name in given_up {
        if is_full(&done) && disk.remove(&name).is_ok() {
            done = act();
        }
    }
    done
}

/// Adds a spare with its room.
fn add_spare<D: Disk>(disk: &D, segment_bytes: u32) -> Result<String, DiskError> {
    let name = free_name(disk)?;
    let added = disk
        .create(&name)
        .and_then(|()| disk.allocate(&name, segment_bytes.into()))
        .and_then(|()| disk.sync(&name))
        .and_then(|()| disk.sync_dir());
    if added.is_err() {
        // Half a spare is of no use. If it stays, the next filling removes it.
        let _ = disk.remove(&name);
    }
    added.map(|()| name)
}

fn is_spare(name: &str) -> bool {
    name.ends_with(SPARE) && name != CHECKPOINT_SPARE
}

/// The spares of that length.
fn spares<D: Disk>(disk: &D, segment_bytes: u32) -> Result<Vec<String>, DiskError> {
    let mut spares = disk.list()?;
    spares.retain(|name| is_spare(name));
    spares.sort_unstable();
    let mut whole = Vec::new();
    for name in spares {
        if disk.len(&name)? == u64::from(segment_bytes) {
            whole.push(name);
        }
    }
    Ok(whole)
}

fn free_name<D: Disk>(disk: &D) -> Result<String, DiskError> {
    let names = disk.list()?;
    let mut free = (1..).map(|number: u32| format!("{number}{SPARE}"));
    Ok(free
        .find(|name| !names.contains(name))
        .expect("there are fewer files than numbers"))
}

fn checkpoint_bytes<D: Disk>(disk: &D) -> Result<u64, DiskError> {
    match disk.len(CHECKPOINT_SPARE) {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(0),
        other => other,
    }
}
