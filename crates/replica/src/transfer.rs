//! The state of one member for another one: what a checkpoint holds, and the values beside it.
//!
//! A stream is a head and then frames of items. A row stands as in a checkpoint; the values that it
//! refers to come before it, and the receiver puts them into its own log, where its rows then say
//! that they are. Nothing here waits for a disk or a network.
//!
//! X1. What is received is a valid state or is refused: lengths and checksums of values too.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_log::{EntryAt, Moved};
use quorate_store::codec::{DecodeError, Read, Write};
use quorate_store::command::Blob;
use quorate_store::{
    Cursor, FileVersion, Loader, Value, ValueAt, ValueError, Values, file_row, file_versions,
};

use crate::Halt;
use crate::machine::Machine;

const FORMAT: u8 = 1;
const VALUE: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;

/// A state on its way out. A copy goes on from the same place.
#[derive(Clone, Debug)]
pub struct Sending {
    index: u64,
    term: u64,
    meta: Vec<u8>,
    cursor: Cursor,
    rows: u64,
}

impl Sending {
    /// Begins with the state as it is now. Until [`Machine::end_walk`] nothing is purged.
    pub fn begin(machine: &mut Machine) -> Self {
        let (index, term) = machine.applied();
        let (meta, cursor) = machine.begin_walk();
        Self {
            index,
            term,
            meta,
            cursor,
            rows: 0,
        }
    }

    /// What goes first.
    pub fn head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.u8(FORMAT);
        out.u64(self.index);
        out.u64(self.term);
        out.bytes(&self.meta);
        out
    }

    /// The index that the state is of.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next rows, of at most `max` versions, for [`frame`]. Returns whether more are left.
    pub fn rows(&mut self, machine: &Machine, max: usize, rows: &mut Vec<Bytes>) -> bool {
        let before = rows.len();
        let mut take = |row: &[u8]| rows.push(Bytes::copy_from_slice(row));
        let more = machine.store().walk(&mut self.cursor, max, &mut take);
        self.rows += (rows.len() - before) as u64;
        more
    }

    /// What goes last.
    pub fn end(&self) -> Vec<u8> {
        let mut out = vec![END];
        out.u64(self.rows);
        out
    }
}

/// A frame of a row and the values that it refers to.
///
/// # Errors
/// Those of reading a value.
pub fn frame(row: &Bytes, values: &dyn Values, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let file = file_versions(row).expect("a walk's own row");
    if let Some((key, versions)) = file {
        for version in &versions {
            if let Value::Logged(at) = &version.value {
                out.u8(VALUE);
                out.u64(version.revision.get());
                out.u32(at.crc);
                out.bytes(&key);
                out.bytes(&values.read(at)?);
            }
        }
    }
    out.u8(ROW);
    out.bytes(row);
    Ok(())
}

/// A state on its way in.
#[derive(Debug)]
pub struct Receiving {
    index: u64,
    term: u64,
    meta: Bytes,
    loader: Loader,
    /// Values that are in the log, for the rows to come.
    placed: VecDeque<ValueAt>,
    rows: u64,
    is_whole: bool,
}

impl Receiving {
    /// Begins with what [`Sending::head`] gave.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn begin(head: Bytes) -> Result<Self, DecodeError> {
        let mut read = Read::new(head);
        let format = read.u8()?;
        if format > FORMAT {
            return Err(DecodeError::Newer(format));
        }
        let (index, term) = (read.u64()?, read.u64()?);
        let meta = read.bytes()?;
        read.finish()?;
        Ok(Self {
            index,
            term,
            meta,
            loader: Loader::default(),
            placed: VecDeque::new(),
            rows: 0,
            is_whole: false,
        })
    }

    /// Index and term of the last entry in the state.
    pub fn applied(&self) -> (u64, u64) {
        (self.index, self.term)
    }

    /// Whether the end has come.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The values in a frame, for the log; then [`Self::take`] is told where they came to stand.
    ///
    /// # Errors
    /// [`DecodeError`]; values that do not fit their checksum are refused too (X1).
    pub fn values(frame: &Bytes) -> Result<Vec<Moved>, DecodeError> {
        let mut moved = Vec::new();
        let mut read = Read::new(frame.clone());
        while !read.is_empty() {
            match read.u8()? {
                VALUE => {
                    let (revision, crc) = (read.u64()?, read.u32()?);
                    let (key, data) = (read.bytes()?, read.bytes()?);
                    if Blob::new(data.clone()).crc != crc {
                        return Err(DecodeError::Bad("checksum of a value"));
                    }
                    moved.push(Moved {
                        key,
                        revision,
                        data,
                    });
                }
                ROW => {
                    read.bytes()?;
                }
                END => {
                    read.u64()?;
                }
                _ => return Err(DecodeError::Bad("item of a state")),
            }
        }
        Ok(moved)
    }

    /// Takes a frame whose values stand at `places` now.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn take(&mut self, frame: Bytes, places: &[EntryAt]) -> Result<(), DecodeError> {
        let mut places = places.iter();
        let mut read = Read::new(frame);
        while !read.is_empty() {
            if self.is_whole {
                return Err(DecodeError::Bad("end of a state"));
            }
            match read.u8()? {
                VALUE => {
                    let (_, crc) = (read.u64()?, read.u32()?);
                    let (_, data) = (read.bytes()?, read.bytes()?);
                    let at = places.next().expect("a place for each value");
                    self.placed.push_back(ValueAt {
                        segment: at.segment,
                        offset: at.offset,
                        len: u32::try_from(data.len()).map_err(|_| DecodeError::Bad("value"))?,
                        crc,
                    });
                }
                ROW => {
                    let row = read.bytes()?;
                    self.row(row)?;
                }
                END if read.u64()? == self.rows => self.is_whole = true,
                _ => return Err(DecodeError::Bad("end of a state")),
            }
        }
        Ok(())
    }

    fn row(&mut self, row: Bytes) -> Result<(), DecodeError> {
        self.rows += 1;
        let Some((key, mut versions)) = file_versions(&row)? else {
            return self.loader.row(row);
        };
        for version in &mut versions {
            if let Value::Logged(at) = &mut version.value {
                let placed = self.placed.pop_front();
                let placed = placed.filter(|placed| (placed.len, placed.crc) == (at.len, at.crc));
                *at = placed.ok_or(DecodeError::Bad("value of a row"))?;
            }
        }
        let versions: Vec<&FileVersion> = versions.iter().collect();
        let mut own = Vec::with_capacity(row.len());
        file_row(&key, &versions, &mut own);
        self.loader.row(own.into())
    }

    /// The state, once all of it was taken.
    ///
    /// # Errors
    /// [`Halt::State`]: it is not whole, or no state.
    pub fn finish(self) -> Result<Machine, Halt> {
        if !self.is_whole || !self.placed.is_empty() {
            return Err(Halt::State(DecodeError::Bad("end of a state")));
        }
        Machine::load((self.index, self.term), &self.meta, self.loader)
    }
}
