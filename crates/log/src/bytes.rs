//! Little-endian numbers out of bytes that nobody vouches for yet.

/// Reads numbers from the front of a byte slice; every read says `None` at its end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Checksums are 0 when decoders are fuzzed, or no input would get behind them.
const CHECKED: bool = !cfg!(fuzzing);

/// A CRC32C over bytes that come in pieces.
pub(crate) struct Crc32c(crc_fast::Digest);

impl Crc32c {
    pub(crate) fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u32 {
        if !CHECKED {
            return 0;
        }
        u32::try_from(self.0.finalize()).expect("a CRC of 32 bits has 32 bits")
    }
}

/// The CRC32C of one piece.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    if CHECKED {
        crc_fast::crc32_iscsi(bytes)
    } else {
        0
    }
}
