//! What both ways share: headers, flags and the meta page.
//!
//! All numbers are little-endian, as every machine that etcd runs on writes them.

/// The length of the pages that are written here; files with others are read.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a page's header: id, flags, count of elements, pages that follow as part of it.
pub(super) const PAGE_HEAD: usize = 16;
/// Bytes that an element of a branch or a leaf takes in front of the keys.
pub(super) const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket as its parent's value: root page, sequence. An inline one's page follows.
pub(super) const BUCKET_HEAD: usize = 16;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREE_LIST: u16 = 0x10;

/// The flag of a leaf's element that is a bucket.
pub(super) const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Bytes of a meta page's body, its checksum at the end.
pub(super) const META_BYTES: usize = 64;
const CHECKED_BYTES: usize = META_BYTES - 8;

/// A page's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Head {
    pub(super) fn encode(self) -> [u8; PAGE_HEAD] {
        let mut bytes = [0; PAGE_HEAD];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// What a meta page says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// The page where the bucket of buckets begins.
    pub(super) root: u64,
    pub(super) free_list: u64,
    /// How many pages are in use, from the file's start.
    pub(super) pages: u64,
    pub(super) transaction: u64,
}

impl Meta {
    pub(super) fn encode(self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_bytes.to_le_bytes());
        // Flags, which nobody uses, are between, and the root's sequence behind it.
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.free_list.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.pages.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let checksum = fnv(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are no meta page, or do not verify.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let is_meta = u32_at(bytes, 0)? == MAGIC && u32_at(bytes, 4)? == VERSION;
        let checksum = u64_at(bytes, CHECKED_BYTES)?;
        // No checksum is asked for where decoders are fuzzed, or no input would get behind it.
        let verifies = cfg!(fuzzing) || fnv(bytes.get(..CHECKED_BYTES)?) == checksum;
        if !is_meta || !verifies {
            return None;
        }
        Some(Self {
            page_bytes: u32_at(bytes, 8)?,
            root: u64_at(bytes, 16)?,
            free_list: u64_at(bytes, 32)?,
            pages: u64_at(bytes, 40)?,
            transaction: u64_at(bytes, 48)?,
        })
    }
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
