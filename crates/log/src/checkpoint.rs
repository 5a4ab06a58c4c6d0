//! Checkpoints: the state machine at one index, as rows that nobody here looks into.
//!
//! Written under a temporary name, synced every few MiB so that the journal's sync does not
//! queue behind it, renamed when all is durable (W5). The two newest are kept. On a full disk it
//! takes the room that the reserve keeps for it.
//!
//! This module owns the bytes and writes them; `read_checkpoint` reads them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::bytes::{Crc32c, Fields, crc32c};
use crate::disk::{Disk, DiskError, TEMPORARY};
use crate::error::LogError;
use crate::identity::DirectoryId;
use crate::place::Position;
use crate::reserve::with_reserve;
use crate::segment::FORMAT_VERSION;

pub(crate) const MAGIC: [u8; 8] = *b"QRTCHKP\0";
/// Bytes of the file's header: magic, format, index, directory, checksum.
pub(crate) const FILE_HEAD: usize = 40;
/// Bytes of a block's header: checksum, length, kind.
pub(crate) const BLOCK_HEAD: usize = 12;
const BLOCK_TARGET: usize = 64 << 10;
const SYNC_EVERY: u64 = 4 << 20;
const SUFFIX: &str = ".checkpoint";
/// How the name of a checkpoint ends that did not verify.
pub(crate) const REJECTED: &str = ".bad";
const UNFINISHED: &str = "checkpoint.tmp";

/// What a block holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BlockKind {
    Head = 1,
    Rows = 2,
    Foot = 3,
}

impl BlockKind {
    pub(crate) fn decode(number: u32) -> Option<Self> {
        [Self::Head, Self::Rows, Self::Foot]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckpointHead {
    /// The last index applied to the state.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Where the journal goes on.
    pub position: Position,
    /// The owner's own words.
    pub meta: Bytes,
}

pub(crate) fn checkpoint_name(index: u64) -> String {
    format!("{index:020}{SUFFIX}")
}

pub(crate) fn checkpoint_index(name: &str) -> Option<u64> {
    let index = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (checkpoint_name(index) == name).then_some(index)
}

/// The indexes of all finished checkpoints, newest first.
pub(crate) fn list_checkpoints<D: Disk>(disk: &D) -> Result<Vec<u64>, DiskError> {
    let names = disk.list()?;
    let mut indexes: Vec<u64> = names
        .iter()
        .filter_map(|name| checkpoint_index(name))
        .collect();
    indexes.sort_unstable_by(|a, b| b.cmp(a));
    Ok(indexes)
}

pub(crate) fn file_head(directory: DirectoryId, index: u64) -> [u8; FILE_HEAD] {
    let mut head = [0; FILE_HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[12..20].copy_from_slice(&index.to_le_bytes());
    head[20..36].copy_from_slice(&directory.0);
    let crc = crc32c(&head[..36]);
    head[36..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// The checksum of a block: good only in this directory, checkpoint and order.
pub(crate) fn block_crc(directory: DirectoryId, index: u64, number: u64, checked: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&directory.0);
    crc.update(&index.to_le_bytes());
    crc.update(&number.to_le_bytes());
    crc.update(checked);
    crc.finish()
}

/// Writes one checkpoint. Dropped before [`CheckpointWriter::finish`] it leaves none.
///
/// One at a time in a directory; may run on another thread than the journal's.
#[derive(Debug)]
pub struct CheckpointWriter<D> {
    disk: D,
    directory: DirectoryId,
    index: u64,
    /// The block being gathered, behind room for its header.
    block: Vec<u8>,
    blocks: u64,
    rows: u64,
    written: u64,
    synced: u64,
}

impl<D: Disk> CheckpointWriter<D> {
    /// Begins the checkpoint of the state at `index`, an entry of `term`.
    ///
    /// `position` is what [`crate::Journal::position_for`] said for `index`; `meta` is the
    /// owner's, and returned with the head.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn begin(
        disk: D,
        directory: DirectoryId,
        index: u64,
        term: u64,
        position: &Position,
        meta: &[u8],
    ) -> Result<Self, LogError> {
        disk.create(UNFINISHED)?;
        with_reserve(&disk, 1, || {
            disk.write_at(UNFINISHED, 0, &file_head(directory, index))
        })?;
        let block = alloc::vec![0; BLOCK_HEAD];
        let written = FILE_HEAD as u64;
        let mut writer = Self {
            disk,
            directory,
            index,
            block,
            blocks: 0,
            rows: 0,
            written,
            synced: 0,
        };
        writer.block.extend_from_slice(&term.to_le_bytes());
        position.encode(&mut writer.block);
        writer.block.extend_from_slice(meta);
        writer.write_block(BlockKind::Head)?;
        Ok(writer)
    }

    /// Adds a row of less than 4 GiB.
    ///
    /// # Errors
    /// Those of the disk; drop the writer then.
    pub fn row(&mut self, row: &[u8]) -> Result<(), LogError> {
        let length = u32::try_from(row.len()).expect("a row is smaller than a segment");
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(row);
        self.rows += 1;
        if self.block.len() >= BLOCK_TARGET {
            self.write_block(BlockKind::Rows)
        } else {
            Ok(())
        }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written
    }

    /// Makes the checkpoint durable and visible, and removes all but the two newest.
    ///
    /// # Errors
    /// Those of the disk; the checkpoint may then exist or not.
    pub fn finish(self) -> Result<(), LogError> {
        self.finish_keeping(2)
    }

    /// The same, but removes all the others: the journal does not lead from them to this one (see
    /// [`crate::Journal::install`]).
    ///
    /// # Errors
    /// Those of the disk; the checkpoint may then exist or not, and so may older ones beside it.
    pub fn finish_alone(self) -> Result<(), LogError> {
        self.finish_keeping(1)
    }

    fn finish_keeping(mut self, kept: usize) -> Result<(), LogError> {
        if self.block.len() > BLOCK_HEAD {
            self.write_block(BlockKind::Rows)?;
        }
        self.block.extend_from_slice(&self.rows.to_le_bytes());
        self.write_block(BlockKind::Foot)?;
        self.disk.sync(UNFINISHED)?;
        self.disk.rename(UNFINISHED, &checkpoint_name(self.index))?;
        self.disk.sync_dir()?;
        self.remove_old(kept)
    }

    fn remove_old(&self, kept: usize) -> Result<(), LogError> {
        let finished = list_checkpoints(&self.disk)?;
        let mut old: Vec<String> = finished
            .iter()
            .skip(kept)
            .map(|i| checkpoint_name(*i))
            .collect();
        // Those that did not verify are kept for inspection until two good ones stand.
        if finished.len() >= kept {
            old.extend(
                self.disk
                    .list()?
                    .into_iter()
                    .filter(|name| name.ends_with(REJECTED)),
            );
        }
        if old.is_empty() {
            return Ok(());
        }
        for name in old {
            self.disk.remove(&name)?;
        }
        Ok(self.disk.sync_dir()?)
    }

    fn write_block(&mut self, kind: BlockKind) -> Result<(), LogError> {
        let length = u32::try_from(self.block.len() - BLOCK_HEAD).expect("blocks are bounded");
        self.block[4..8].copy_from_slice(&length.to_le_bytes());
        self.block[8..BLOCK_HEAD].copy_from_slice(&(kind as u32).to_le_bytes());
        let crc = block_crc(self.directory, self.index, self.blocks, &self.block[4..]);
        self.block[..4].copy_from_slice(&crc.to_le_bytes());
        let written = with_reserve(&self.disk, 1, || {
            self.disk.write_at(UNFINISHED, self.written, &self.block)
        });
        if written.is_err() {
            // Half a checkpoint takes room. If it stays, the next one replaces it.
            let _ = self.disk.remove(UNFINISHED);
        }
        written?;
        self.written += self.block.len() as u64;
        self.blocks += 1;
        self.block.truncate(BLOCK_HEAD);
        if self.written - self.synced >= SYNC_EVERY {
            self.disk.sync(UNFINISHED)?;
            self.synced = self.written;
        }
        Ok(())
    }
}

/// Removes what unfinished writes left behind.
pub(crate) fn remove_unfinished<D: Disk>(disk: &D) -> Result<(), DiskError> {
    for name in disk.list()?.iter().filter(|name| name.ends_with(TEMPORARY)) {
        disk.remove(name)?;
    }
    Ok(())
}

/// Reads what [`CheckpointWriter::begin`] put into the head block.
pub(crate) fn decode_head(index: u64, block: &Bytes) -> Option<CheckpointHead> {
    let mut fields = Fields(block);
    let term = fields.u64()?;
    let position = Position::decode(&mut fields)?;
    Some(CheckpointHead {
        index,
        term,
        position,
        meta: block.slice_ref(fields.0),
    })
}
