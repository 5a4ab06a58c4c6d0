//! One connection of HTTP/2, as bytes in and bytes out: unary gRPC calls, and streams of messages.
//!
//! Answers are walked over, not kept: of a unary call only the length of its message and its status
//! matter. Settings and pings are answered, the server's window is respected.
//!
//! Source: RFC 9113; gRPC over HTTP/2.

use std::collections::VecDeque;

use crate::connection::Event;
use crate::hpack::{self, Table};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The window of a connection before anything is said about it.
const FIRST_WINDOW: u32 = 65_535;
/// When so much has come, the server may send as much again.
const GRANT_BYTES: u32 = 1 << 28;
/// Stream ids are not used beyond this; the connection must then be replaced.
const LAST_ID: u32 = if cfg!(test) { 41 } else { MAX_WINDOW - 1 };

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Ends the stream, of DATA and HEADERS; is the answer, of SETTINGS and PING.
pub(crate) const END_OR_ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// A call that waits for room in the server's window.
struct Held {
    call: Call,
    body: Vec<u8>,
}

/// A call, for as long as it is under way.
pub(crate) struct Call {
    pub(crate) slot: usize,
    pub(crate) path: String,
    /// An answer of fewer bytes, frame of the message included, has failed.
    pub(crate) wanted_bytes: usize,
    /// Its messages are handed over, and our side of the stream stays open.
    pub(crate) is_stream: bool,
}

struct Stream {
    id: u32,
    call: Call,
    received: usize,
    failure: Option<String>,
    has_status: bool,
    message: Vec<u8>,
}

/// The state of a connection.
pub(crate) struct Http2 {
    table: Table,
    next_id: u32,
    window: i64,
    held: VecDeque<Held>,
    streams: Vec<Stream>,
    incoming: Vec<u8>,
    /// A header block of which more must come.
    block: Option<Block>,
    ungranted: u32,
    /// Header blocks that said all is well, and whether they held a gRPC status.
    good: Vec<(Vec<u8>, bool)>,
}

struct Block {
    id: u32,
    ends_stream: bool,
    bytes: Vec<u8>,
}

pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
    payload: &'a [u8],
}

impl Http2 {
    /// Opens a connection: writes what a client says first.
    pub(crate) fn new(out: &mut Vec<u8>) -> Self {
        out.extend(PREFACE);
        let mut settings = Vec::new();
        // HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE.
        for (name, value) in [(1_u16, 0), (2, 0), (4, MAX_WINDOW)] {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        write_frame(out, SETTINGS, 0, 0, &settings);
        write_frame(
            out,
            WINDOW_UPDATE,
            0,
            0,
            &(MAX_WINDOW - FIRST_WINDOW).to_be_bytes(),
        );
        Self {
            table: Table::default(),
            next_id: 1,
            window: FIRST_WINDOW.into(),
            held: VecDeque::new(),
            streams: Vec::new(),
            incoming: Vec::new(),
            block: None,
            ungranted: 0,
            good: Vec::new(),
        }
    }

    /// Whether no further call can be made.
    pub(crate) fn is_spent(&self) -> bool {
        self.next_id > LAST_ID
    }

    /// Whether no call is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.streams.is_empty() && self.held.is_empty()
    }

    /// Makes a call; `body` is its framed message.
    pub(crate) fn request(&mut self, call: Call, body: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() && self.window >= body.len() as i64 {
            self.send(call, body, out);
        } else {
            self.held.push_back(Held {
                call,
                body: body.to_vec(),
            });
        }
    }

    fn send(&mut self, call: Call, body: &[u8], out: &mut Vec<u8>) {
        self.window -= body.len() as i64;
        let id = self.next_id;
        self.next_id += 2;
        let start = out.len();
        write_frame(out, HEADERS, END_HEADERS, id, &[]);
        self.table.write_request(&call.path, out);
        let length = u8::try_from(out.len() - start - HEAD_BYTES).expect("short paths");
        out[start + 2] = length;
        let flags = if call.is_stream { 0 } else { END_OR_ACK };
        write_frame(out, DATA, flags, id, body);
        self.streams.push(Stream {
            id,
            call,
            received: 0,
            failure: None,
            has_status: false,
            message: Vec::new(),
        });
    }

    /// Takes bytes that the server sent.
    ///
    /// # Errors
    /// If the connection is of no use any more.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        if self.incoming.is_empty() {
            let rest = self.frames(bytes, out, events)?;
            self.incoming.extend(rest);
        } else {
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.extend(bytes);
            let rest = self.frames(&incoming, out, events)?.len();
            incoming.drain(..incoming.len() - rest);
            self.incoming = incoming;
        }
        Ok(())
    }

    /// Reads the whole frames and returns what is left.
    fn frames<'a>(
        &mut self,
        mut bytes: &'a [u8],
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<&'a [u8], String> {
        while let Some((frame, rest)) = read_frame(bytes) {
            self.frame(&frame, out, events)?;
            bytes = rest;
        }
        Ok(bytes)
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let is_ack = frame.flags & END_OR_ACK != 0;
        match frame.kind {
            DATA => self.data(frame, out, events)?,
            HEADERS => {
                let priority = if frame.flags & PRIORITY != 0 { 5 } else { 0 };
                let bytes = unpadded(frame)?.get(priority..).ok_or("a short frame")?;
                if frame.flags & END_HEADERS != 0 {
                    self.headers(frame.id, is_ack, bytes, events)?;
                } else {
                    let bytes = bytes.to_vec();
                    self.block = Some(Block {
                        id: frame.id,
                        ends_stream: is_ack,
                        bytes,
                    });
                }
            }
            CONTINUATION => {
                let mut block = self.block.take().ok_or("a CONTINUATION of nothing")?;
                block.bytes.extend(frame.payload);
                if frame.flags & END_HEADERS != 0 {
                    self.headers(block.id, block.ends_stream, &block.bytes, events)?;
                } else {
                    self.block = Some(block);
                }
            }
            RST_STREAM => {
                if let Some(stream) = self.take(frame.id) {
                    let result = Err(format!("the stream was reset: {:?}", frame.payload));
                    events.push(Event::Done {
                        slot: stream.call.slot,
                        result,
                    });
                }
            }
            SETTINGS if !is_ack => write_frame(out, SETTINGS, END_OR_ACK, 0, &[]),
            PING if !is_ack => write_frame(out, PING, END_OR_ACK, 0, frame.payload),
            GOAWAY => {
                let text = String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default());
                return Err(format!("the server says GOAWAY: {text}"));
            }
            WINDOW_UPDATE if frame.id == 0 => {
                let more = frame.payload.try_into().map_err(|_| "a short frame")?;
                self.window += i64::from(u32::from_be_bytes(more));
                self.release(out);
            }
            _ => {}
        }
        Ok(())
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        while let Some(held) = self.held.pop_front() {
            if self.window < held.body.len() as i64 {
                self.held.push_front(held);
                return;
            }
            self.send(held.call, &held.body, out);
        }
    }

    fn data(
        &mut self,
        frame: &Frame<'_>,
        out: &mut Vec<u8>,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        self.ungranted += u32::try_from(frame.payload.len()).expect("24 bits");
        if self.ungranted >= GRANT_BYTES {
            write_frame(out, WINDOW_UPDATE, 0, 0, &self.ungranted.to_be_bytes());
            self.ungranted = 0;
        }
        let Some(at) = self.streams.iter().position(|stream| stream.id == frame.id) else {
            return Ok(());
        };
        let stream = &mut self.streams[at];
        let bytes = unpadded(frame)?;
        stream.received += bytes.len();
        if stream.call.is_stream {
            stream.message.extend(bytes);
            take_messages(stream, events)?;
        }
        if frame.flags & END_OR_ACK != 0 {
            let stream = self.streams.swap_remove(at);
            events.push(stream.done());
        }
        Ok(())
    }

    fn headers(
        &mut self,
        id: u32,
        ends_stream: bool,
        block: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let known = self.good.iter().find(|(good, _)| good == block);
        let (has_status, failure) = match known {
            Some((_, has_status)) => (*has_status, None),
            None => {
                let said = hpack::read(block).ok_or("headers that cannot be read")?;
                let judged = (said.grpc_status.is_some(), failure(said));
                if judged.1.is_none() && self.good.len() < 8 {
                    self.good.push((block.to_vec(), judged.0));
                }
                judged
            }
        };
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else {
            return Ok(());
        };
        let stream = &mut self.streams[at];
        stream.has_status |= has_status;
        stream.failure = stream.failure.take().or(failure);
        if ends_stream {
            let stream = self.streams.swap_remove(at);
            events.push(stream.done());
        }
        Ok(())
    }

    fn take(&mut self, id: u32) -> Option<Stream> {
        let at = self.streams.iter().position(|stream| stream.id == id)?;
        Some(self.streams.swap_remove(at))
    }
}

impl Stream {
    fn done(self) -> Event {
        let result = match self.failure {
            Some(text) => Err(text),
            None if !self.has_status => Err("an answer without a status".into()),
            None if self.received < self.call.wanted_bytes => {
                Err(format!("an answer of only {} bytes", self.received))
            }
            None => Ok(()),
        };
        Event::Done {
            slot: self.call.slot,
            result,
        }
    }
}

/// What headers say went wrong.
fn failure(said: hpack::Said) -> Option<String> {
    let message = said.message.unwrap_or_default();
    match (said.http_status.as_deref(), said.grpc_status.as_deref()) {
        (None | Some("200"), None | Some("0")) => None,
        (_, Some(status)) => Some(format!("gRPC status {status}: {message}")),
        (status, None) => Some(format!("HTTP status {}", status.unwrap_or_default())),
    }
}

/// Hands over the whole messages that a stream has gathered.
fn take_messages(stream: &mut Stream, events: &mut Vec<Event>) -> Result<(), String> {
    let mut at = 0;
    while let Some(head) = stream.message.get(at..at + 5) {
        if head[0] != 0 {
            return Err("a compressed message".into());
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(message) = stream.message.get(at + 5..at + 5 + length) else {
            break;
        };
        events.push(Event::Message(message.to_vec()));
        at += 5 + length;
    }
    stream.message.drain(..at);
    Ok(())
}

pub(crate) fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len())
        .expect("at most 16 KiB")
        .to_be_bytes();
    out.extend([length[1], length[2], length[3], kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(payload);
}

pub(crate) fn read_frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & MAX_WINDOW;
    Some((
        Frame {
            kind: head[3],
            flags: head[4],
            id,
            payload,
        },
        rest,
    ))
}

fn unpadded<'a>(frame: &Frame<'a>) -> Result<&'a [u8], String> {
    if frame.flags & PADDED == 0 {
        return Ok(frame.payload);
    }
    let (padding, rest) = frame.payload.split_first().ok_or("a short frame")?;
    let length = rest
        .len()
        .checked_sub(usize::from(*padding))
        .ok_or("a short frame")?;
    Ok(&rest[..length])
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
