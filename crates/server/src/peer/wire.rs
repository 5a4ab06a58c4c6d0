//! Frames on a connection between members: length, checksum, bytes.
//!
//! What a network garbles is noticed here: entries go from a frame into the log, where they would
//! get a good checksum of bad bytes (P6).

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Length and checksum.
pub(super) const HEAD: usize = 8;
/// The longest frame: a batch of entries, of which one may be as long as a segment.
const MAX_BYTES: usize = 80 << 20;
/// So much is asked for at once.
const READ_BYTES: usize = 64 << 10;

/// What stands before a frame of these bytes.
pub(super) fn head(parts: &[&[u8]]) -> [u8; HEAD] {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).expect("a frame is shorter than a segment");
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        crc.update(part);
    }
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&(crc.finalize() as u32).to_le_bytes());
    head
}

/// Reads frames, many at once where they are short.
pub(super) struct Frames<R> {
    from: R,
    gathered: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            gathered: BytesMut::new(),
        }
    }

    /// The next frame, in memory of its own; `None` at the end.
    ///
    /// # Errors
    /// Those of the connection; a frame that was cut, that is too long or garbled.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.gathered.capacity() - self.gathered.len() < READ_BYTES {
                self.gathered.reserve(READ_BYTES);
            }
            if self.from.read_buf(&mut self.gathered).await? == 0 {
                if self.gathered.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some(head) = self.gathered.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [a, b, c, d, crc @ ..] = *head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_BYTES {
            let why = format!("a frame of {length} bytes; at most {MAX_BYTES} are taken");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if self.gathered.len() < HEAD + length {
            self.gathered.reserve(HEAD + length - self.gathered.len());
            return Ok(None);
        }
        let frame = Bytes::copy_from_slice(&self.gathered[HEAD..HEAD + length]);
        if self::head(&[&frame])[4..] != crc {
            let why = "a frame does not fit its checksum";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        bytes::Buf::advance(&mut self.gathered, HEAD + length);
        Ok(Some(frame))
    }
}

/// Appends a frame.
pub(super) fn put(frame: &[u8], into: &mut BytesMut) {
    into.reserve(HEAD + frame.len());
    into.put_slice(&head(&[frame]));
    into.put_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Vec<Bytes>> {
        let mut frames = Frames::new(bytes);
        let mut found = Vec::new();
        while let Some(frame) = frames.next().await? {
            found.push(frame);
        }
        Ok(found)
    }

    #[tokio::test]
    async fn frames_come_out_as_they_were_put_in_and_not_otherwise() {
        let long = vec![7; 300_000];
        let mut bytes = BytesMut::new();
        for frame in [&b"one"[..], b"", &long] {
            put(frame, &mut bytes);
        }
        assert_eq!(
            read(&bytes).await.expect("it is whole"),
            [&b"one"[..], b"", &long]
        );
        for cut in [1, HEAD, HEAD + 2, bytes.len() - 1] {
            assert!(read(&bytes[..cut]).await.is_err(), "cut at {cut}");
        }
        for at in [4, HEAD, HEAD + 3 + 4, bytes.len() - 1] {
            let mut garbled = bytes.clone();
            garbled[at] ^= 4;
            assert!(read(&garbled).await.is_err(), "garbled at {at}");
        }
        let mut endless = bytes.clone();
        endless[3] = 0xff;
        assert!(read(&endless).await.is_err(), "a length of gigabytes");
    }
}
