//! Reading checkpoints, and choosing the one to start from.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::bytes::{Fields, crc32c};
use crate::checkpoint::{
    BLOCK_HEAD, BlockKind, CheckpointHead, FILE_HEAD, MAGIC, REJECTED, block_crc, checkpoint_name,
    decode_head, file_head, list_checkpoints, remove_unfinished,
};
use crate::disk::Disk;
use crate::error::{Corrupt, LogError};
use crate::identity::DirectoryId;
use crate::place::Position;
use crate::segment::{FORMAT_VERSION, list_segments};
use crate::window::Window;

/// What a member starts from.
#[derive(Debug)]
pub struct NewestCheckpoint<D> {
    /// The newest checkpoint that verifies as a whole, at its first row. `None`: start from an
    /// empty state and the journal's beginning.
    pub reader: Option<CheckpointReader<D>>,
    /// Newer checkpoints that do not verify. They were set aside; tell the operator.
    pub rejected: Vec<Corrupt>,
}

/// Finds the newest checkpoint that verifies, reading it once as a whole, and sets aside those
/// that do not.
///
/// # Errors
/// [`LogError::Corrupt`] if none verifies and the journal's beginning is gone too.
pub fn newest_checkpoint<D: Disk + Clone>(
    disk: &D,
    directory: DirectoryId,
) -> Result<NewestCheckpoint<D>, LogError> {
    remove_unfinished(disk)?;
    let mut rejected = Vec::new();
    let mut reader = None;
    for index in list_checkpoints(disk)? {
        match verify_checkpoint(disk, directory, index) {
            Ok(_) => {
                reader = Some(CheckpointReader::open(disk.clone(), directory, index)?);
                break;
            }
            Err(LogError::Corrupt(corrupt)) => rejected.push(corrupt),
            Err(other) => return Err(other),
        }
    }
    if reader.is_none()
        && let Some(corrupt) = rejected.first()
        && list_segments(disk)?.first() != Some(&1)
    {
        return Err(corrupt.clone().into());
    }
    set_aside(disk, &rejected)?;
    Ok(NewestCheckpoint { reader, rejected })
}

fn set_aside<D: Disk>(disk: &D, rejected: &[Corrupt]) -> Result<(), LogError> {
    for corrupt in rejected {
        let mut name = corrupt.file.clone();
        name.push_str(REJECTED);
        disk.rename(&corrupt.file, &name)?;
    }
    if !rejected.is_empty() {
        disk.sync_dir()?;
    }
    Ok(())
}

/// Reads every byte of a checkpoint and returns its head and the number of its rows.
pub(crate) fn verify_checkpoint<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    index: u64,
) -> Result<(CheckpointHead, u64), LogError> {
    let mut reader = CheckpointReader::open(disk, directory, index)?;
    while reader.row()?.is_some() {}
    Ok((reader.head, reader.rows))
}

/// Reads one checkpoint from its first row to its last.
#[derive(Debug)]
pub struct CheckpointReader<D> {
    window: Window<D>,
    directory: DirectoryId,
    name: String,
    length: u64,
    head: CheckpointHead,
    /// Where the next block starts, and its number.
    offset: u64,
    blocks: u64,
    /// What is left of the block being read.
    block: Bytes,
    rows: u64,
    finished: bool,
}

impl<D: Disk> CheckpointReader<D> {
    /// Opens the checkpoint of `index` and reads its head.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the head is not as it was written.
    pub(crate) fn open(disk: D, directory: DirectoryId, index: u64) -> Result<Self, LogError> {
        let name = checkpoint_name(index);
        check_file_head(&disk, directory, index, &name)?;
        let length = disk.len(&name)?;
        // Until it is read.
        let position = Position::beginning();
        let head = CheckpointHead {
            index,
            term: 0,
            position,
            meta: Bytes::new(),
        };
        let mut reader = Self {
            window: Window::new(disk, &name, length),
            directory,
            name,
            length,
            head,
            offset: FILE_HEAD as u64,
            blocks: 0,
            block: Bytes::new(),
            rows: 0,
            finished: false,
        };
        let (kind, block) = reader.next_block()?;
        let head = (kind == BlockKind::Head)
            .then(|| decode_head(index, &block))
            .flatten();
        reader.head = head.ok_or_else(|| reader.corrupt("the head is malformed"))?;
        Ok(reader)
    }

    /// What the checkpoint says of itself.
    #[must_use]
    pub fn head(&self) -> &CheckpointHead {
        &self.head
    }

    /// The next row; `None` behind the last.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if the file is not as it was written, or ends early.
    pub fn row(&mut self) -> Result<Option<Bytes>, LogError> {
        while self.block.is_empty() {
            if self.finished {
                return Ok(None);
            }
            match self.next_block()? {
                (BlockKind::Rows, block) => self.block = block,
                (BlockKind::Foot, block) => self.check_foot(&block)?,
                (BlockKind::Head, _) => return Err(self.corrupt("a second head")),
            }
        }
        let mut fields = Fields(&self.block);
        let row = fields.u32().and_then(|length| fields.take(length as usize));
        let row = row.map(|row| self.block.slice_ref(row));
        let rest = self.block.slice_ref(fields.0);
        let row = row.ok_or_else(|| self.corrupt("a row is malformed"))?;
        self.block = rest;
        self.rows += 1;
        Ok(Some(row))
    }

    fn check_foot(&mut self, block: &Bytes) -> Result<(), LogError> {
        if Fields(block).u64() != Some(self.rows) {
            return Err(self.corrupt("the footer counts other rows than there are"));
        }
        if self.offset != self.length {
            return Err(self.corrupt("bytes follow the footer"));
        }
        self.finished = true;
        Ok(())
    }

    fn next_block(&mut self) -> Result<(BlockKind, Bytes), LogError> {
        let start = self.window.get(self.offset, BLOCK_HEAD)?;
        let mut fields = Fields(&start);
        let (Some(crc), Some(length), Some(kind)) = (fields.u32(), fields.u32(), fields.u32())
        else {
            return Err(self.corrupt("the file ends before its footer"));
        };
        let bytes = BLOCK_HEAD + length as usize;
        if self.offset + bytes as u64 > self.length {
            return Err(self.corrupt("a block is longer than the file"));
        }
        let block = self.window.get(self.offset, bytes)?;
        let kind = BlockKind::decode(kind);
        let good = block.len() == bytes
            && block_crc(self.directory, self.head.index, self.blocks, &block[4..]) == crc;
        let Some(kind) = kind.filter(|_| good) else {
            return Err(self.corrupt("a block's checksum is wrong"));
        };
        self.offset += bytes as u64;
        self.blocks += 1;
        Ok((kind, block.slice(BLOCK_HEAD..)))
    }

    fn corrupt(&self, what: &str) -> LogError {
        Corrupt::new(&self.name[..], self.offset, what).into()
    }
}

fn check_file_head<D: Disk>(
    disk: &D,
    directory: DirectoryId,
    index: u64,
    name: &str,
) -> Result<(), LogError> {
    let mut found = [0; FILE_HEAD];
    let read = disk.read_at(name, 0, &mut found)?;
    let corrupt = |what: &str| LogError::Corrupt(Corrupt::new(name, 0, what));
    if read < FILE_HEAD || found[..8] != MAGIC {
        return Err(corrupt("the header is not a checkpoint's"));
    }
    if crc32c(&found[..36]).to_le_bytes() != found[36..] {
        return Err(corrupt("the header's checksum is wrong"));
    }
    let version = Fields(&found[8..]).u32().unwrap_or_default();
    if version > FORMAT_VERSION {
        let file = String::from(name);
        return Err(LogError::Newer {
            file,
            found: version,
            known: FORMAT_VERSION,
        });
    }
    if found != file_head(directory, index) {
        return Err(corrupt(
            "the checkpoint belongs to another directory or index",
        ));
    }
    Ok(())
}
