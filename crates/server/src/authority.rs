//! Lets clients in that send a URL where HTTP/2 wants an authority.
//!
//! Go's etcd client of 3.4 and before calls the maintenance service with `:authority:
//! http://host:port` when its endpoint was given so. That is malformed, etcd does not mind, and the
//! h2 crate resets the stream. Here the three characters `://` in the first request's header block
//! become `B--`, which an authority may contain and which nobody reads.
//!
//! A1. No length changes: both the characters and their Huffman codes have the length of those they
//!     replace, so frames and the client's picture of the header table stay true.
//! A2. Only the head of a connection is looked at, up to its first HEADERS frame; a client repeats
//!     its authority by reference to the header table, which then holds the mended one.
//!
//! Source: RFC 9113 §4.1, §6.2; RFC 7541 §5, §6, appendix B.

// A group of binary digits is a character's code.
#![allow(clippy::unusual_byte_groupings)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::arrival::Stage;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// A frame longer than this before the first HEADERS is none that a client sends.
const LONGEST: usize = 16 << 10;
/// What TLS begins with, and nothing else that is spoken here.
const TLS_HANDSHAKE: u8 = 0x16;
/// `:authority` in the static table.
const AUTHORITY: usize = 1;

/// Passes input that comes in pieces: it keeps its length, and all of it if it is no HTTP/2.
#[cfg(fuzzing)]
pub(crate) fn fuzz(piece: u8, input: &[u8]) {
    struct Pieces<'a>(&'a [u8], usize);
    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let (piece, rest) = self
                .0
                .split_at(self.0.len().min(self.1).min(to.remaining()));
            to.put_slice(piece);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }
    let mut mended = Mended::new(Pieces(input, usize::from(piece).max(1)), Stage::new());
    let mut output = Vec::new();
    let mut context = Context::from_waker(std::task::Waker::noop());
    loop {
        let mut bytes = [0; 1000];
        let mut to = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut mended).poll_read(&mut context, &mut to);
        assert!(matches!(read, Poll::Ready(Ok(()))));
        if to.filled().is_empty() {
            break;
        }
        output.extend_from_slice(to.filled());
    }
    assert_eq!(output.len(), input.len(), "A1");
    assert!(input.starts_with(PREFACE) || output == input);
}

/// A connection's input.
pub(crate) struct Mended<R> {
    read: R,
    /// While the first HEADERS frame has not passed.
    head: Option<Head>,
    stage: Arc<Stage>,
}

#[derive(Default)]
struct Head {
    /// Read, not yet looked at whole.
    held: Vec<u8>,
    /// To be handed on, from `handed` on.
    passed: Vec<u8>,
    handed: usize,
    preface: bool,
    /// A frame has passed behind the preface.
    framed: bool,
    done: bool,
}

impl<R> Mended<R> {
    pub(crate) fn new(read: R, stage: Arc<Stage>) -> Self {
        Self {
            read,
            head: Some(Head::default()),
            stage,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Mended<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(head) = &mut this.head {
            if head.hand_on(to) {
                return Poll::Ready(Ok(()));
            }
            if head.done {
                this.head = None;
                break;
            }
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.read).poll_read(context, &mut read))?;
            if !head.preface
                && head.held.is_empty()
                && read.filled().first() == Some(&TLS_HANDSHAKE)
            {
                this.stage.speaks_tls();
            }
            head.take(read.filled());
            if head.framed {
                this.stage.speaks_http2();
            }
        }
        let before = to.filled().len();
        let read = Pin::new(&mut this.read).poll_read(context, to);
        if to.filled().len() > before {
            this.stage.received();
        }
        read
    }
}

impl Head {
    /// Hands on what has passed; whether there was anything.
    fn hand_on(&mut self, to: &mut ReadBuf<'_>) -> bool {
        let left = &self.passed[self.handed..];
        let any = !left.is_empty();
        let count = left.len().min(to.remaining());
        to.put_slice(&left[..count]);
        self.handed += count;
        any
    }

    /// Takes what was read; nothing is the end of the input.
    fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        if bytes.is_empty() {
            self.pass_all();
        }
        while !self.done && self.look() {}
    }

    /// Looks at the next whole thing that is held; whether there was one.
    fn look(&mut self) -> bool {
        if !self.preface {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                self.pass_all();
                return false;
            }
            self.preface = known == PREFACE.len();
            if self.preface {
                self.pass(PREFACE.len());
            }
            return self.preface;
        }
        let Some(&[a, b, c, kind, flags]) = self.held.first_chunk::<5>() else {
            return false;
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > LONGEST {
            self.pass_all();
            return false;
        }
        let whole = FRAME_HEAD + length;
        if self.held.len() < whole {
            return false;
        }
        self.framed = true;
        if kind == HEADERS {
            mend(&mut self.held[FRAME_HEAD..whole], flags);
            self.pass_all();
        } else {
            self.pass(whole);
        }
        true
    }

    fn pass(&mut self, count: usize) {
        self.passed.extend(self.held.drain(..count));
    }

    fn pass_all(&mut self) {
        self.passed.append(&mut self.held);
        self.done = true;
    }
}

/// Mends the authority in a HEADERS frame's payload. What cannot be understood is left to h2.
fn mend(payload: &mut [u8], flags: u8) -> Option<()> {
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    let block = payload.get_mut(before..)?;
    let mut at = 0;
    while at < block.len() {
        let (prefix_bits, is_literal) = match block[at] {
            0x80.. => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            0x00..=0x1f => (4, true),
        };
        let name = integer(block, &mut at, prefix_bits)?;
        if !is_literal {
            continue;
        }
        if name == 0 {
            let (_, name) = string(block, &mut at)?;
            at += name;
        }
        let (is_huffman, length) = string(block, &mut at)?;
        let value = block.get_mut(at..at + length)?;
        if name == AUTHORITY {
            if is_huffman {
                mend_huffman(value)
            } else {
                mend_plain(value)
            }
        }
        at += length;
    }
    Some(())
}

/// Reads an integer with a prefix of so many bits.
fn integer(block: &[u8], at: &mut usize, prefix_bits: u32) -> Option<usize> {
    let largest = (1 << prefix_bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & largest;
    *at += 1;
    if value == largest {
        for shift in [0, 7, 14] {
            let byte = *block.get(*at)?;
            *at += 1;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        return None;
    }
    Some(value)
}

/// Reads a string's head: whether it is Huffman coded, and its length in bytes.
fn string(block: &[u8], at: &mut usize) -> Option<(bool, usize)> {
    let is_huffman = block.get(*at)? & 0x80 != 0;
    Some((is_huffman, integer(block, at, 7)?))
}

fn mend_plain(value: &mut [u8]) {
    for scheme in [&b"http"[..], b"https"] {
        if let Some(rest) = value.strip_prefix(scheme)
            && rest.starts_with(b"://")
        {
            value[scheme.len()..scheme.len() + 3].copy_from_slice(b"B--");
            return;
        }
    }
}

/// Codes of characters: the bits, and how many.
type Codes = (u64, u32);
const HTTP: Codes = (0b100111_01001_01001_101011, 22);
const HTTPS: Codes = (0b100111_01001_01001_101011_01000, 27);
const COLON_SLASHES: Codes = (0b1011100_011000_011000, 19);
const MENDED: u64 = 0b1011101_010110_010110;

fn mend_huffman(value: &mut [u8]) {
    for (scheme, scheme_bits) in [HTTP, HTTPS] {
        let bits = scheme_bits + COLON_SLASHES.1;
        let Some(chunk) = value.first_chunk_mut::<6>() else {
            return;
        };
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(chunk);
        let word = u64::from_be_bytes(wide);
        if word >> (64 - bits) == scheme << COLON_SLASHES.1 | COLON_SLASHES.0 {
            let mended = word ^ ((COLON_SLASHES.0 ^ MENDED) << (64 - bits));
            chunk.copy_from_slice(&mended.to_be_bytes()[..6]);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// `:method: POST`, then the authority as a literal, then `te: trailers` by another literal.
    fn block(authority: &[u8], is_huffman: bool) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap() | if is_huffman { 0x80 } else { 0 };
        [
            &[0x83, 0x41, length],
            authority,
            &[0x40, 2],
            b"te",
            &[8],
            b"trailers",
        ]
        .concat()
    }

    async fn through(input: &[u8], piece: usize) -> Vec<u8> {
        let (mut write, read) = tokio::io::duplex(piece);
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, &input)
                .await
                .unwrap();
        });
        let mut output = Vec::new();
        Mended::new(read, Stage::new())
            .read_to_end(&mut output)
            .await
            .unwrap();
        writing.await.unwrap();
        output
    }

    async fn connection(headers: Vec<u8>, piece: usize) -> Vec<u8> {
        let rest = frame(0, 0, b"http://data");
        let input = [
            PREFACE,
            &frame(4, 0, &[]),
            &frame(HEADERS, 4, &headers),
            &rest,
        ]
        .concat();
        let output = through(&input, piece).await;
        let mended = output.strip_prefix(PREFACE).unwrap();
        let mended = mended.strip_prefix(&frame(4, 0, &[])[..]).unwrap();
        let mended = mended.strip_suffix(&rest[..]).unwrap();
        mended[FRAME_HEAD..].to_vec()
    }

    #[tokio::test]
    async fn a_url_becomes_an_authority_of_the_same_length() {
        for piece in [1, 7, 4096] {
            let mended = connection(block(b"http://127.0.0.1:2379", false), piece).await;
            assert_eq!(mended, block(b"httpB--127.0.0.1:2379", false));
            let mended = connection(block(b"https://[::1]:2379", false), piece).await;
            assert_eq!(mended, block(b"httpsB--[::1]:2379", false));
        }
    }

    #[tokio::test]
    async fn a_huffman_coded_url_too() {
        // http://1.1.1.1:1 and what it becomes: 1 is 00001, a dot 010111, padded by ones.
        let bits = |scheme: &str| {
            let text = format!(
                "1001110100101001101011{scheme}{}101110000001",
                "00001010111".repeat(3) + "00001"
            );
            let text = format!("{text:1<width$}", width = text.len().next_multiple_of(8));
            let bytes = text.as_bytes().chunks(8);
            bytes
                .map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 2).unwrap())
                .collect()
        };
        let (url, mended): (Vec<u8>, Vec<u8>) =
            (bits("1011100011000011000"), bits("1011101010110010110"));
        assert_eq!(connection(block(&url, true), 5).await, block(&mended, true));
    }

    #[tokio::test]
    async fn everything_else_passes_as_it_came() {
        let authority = block(b"127.0.0.1:2379", false);
        assert_eq!(connection(authority.clone(), 3).await, authority);
        for input in [
            &b"GET /v2/keys HTTP/1.1\r\nHost: http://x\r\n\r\n"[..],
            b"PRI * HTTP/2.0",
            b"",
            b"\x16\x03\x01",
        ] {
            assert_eq!(through(input, 2).await, input);
        }
        let cut = [PREFACE, &frame(HEADERS, 4, &authority)[..12]].concat();
        assert_eq!(through(&cut, 4096).await, cut);
        let nonsense = [PREFACE, &frame(HEADERS, PADDED | PRIORITY, &[0x41])].concat();
        assert_eq!(through(&nonsense, 4096).await, nonsense);
    }
}
