//! Raft's messages as bytes: our own codec, for the library's would let in more than it can bear.
//!
//! K1. What is decoded is one of the kinds that members send one another, from the member that the
//!     frame came from, its entries contiguous and their terms rising. Never a proposal, a read or a
//!     transfer: those the library believes, or panics over.

use bytes::Bytes;
use quorate_store::codec::{DecodeError, Read, Write};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

const APPEND: u8 = 1;
const APPEND_ANSWER: u8 = 2;
const HEARTBEAT: u8 = 3;
const HEARTBEAT_ANSWER: u8 = 4;
const VOTE: u8 = 5;
const VOTE_ANSWER: u8 = 6;
const PRE_VOTE: u8 = 7;
const PRE_VOTE_ANSWER: u8 = 8;
const TIMEOUT_NOW: u8 = 9;

/// A message's bytes behind room for `head` more; `None` for a kind that stays here.
pub(super) fn encode(message: &Message, head: usize) -> Option<Vec<u8>> {
    let kind = match message.get_msg_type() {
        MessageType::MsgAppend => APPEND,
        MessageType::MsgAppendResponse => APPEND_ANSWER,
        MessageType::MsgHeartbeat => HEARTBEAT,
        MessageType::MsgHeartbeatResponse => HEARTBEAT_ANSWER,
        MessageType::MsgRequestVote => VOTE,
        MessageType::MsgRequestVoteResponse => VOTE_ANSWER,
        MessageType::MsgRequestPreVote => PRE_VOTE,
        MessageType::MsgRequestPreVoteResponse => PRE_VOTE_ANSWER,
        MessageType::MsgTimeoutNow => TIMEOUT_NOW,
        _ => return None,
    };
    let data: usize = message.entries.iter().map(|e| e.data.len() + 24).sum();
    let mut out = Vec::with_capacity(head + 80 + message.context.len() + data);
    out.resize(head, 0);
    out.u8(kind);
    out.varint(message.term);
    out.varint(message.log_term);
    out.varint(message.index);
    out.varint(message.commit);
    out.varint(message.commit_term);
    out.bool(message.reject);
    out.varint(message.reject_hint);
    out.bytes(&message.context);
    out.varint(message.entries.len() as u64);
    for entry in &message.entries {
        out.varint(entry.term);
        out.bytes(&entry.data);
    }
    Some(out)
}

/// The message that `from` sent to `to`.
pub(super) fn decode(from: u64, to: u64, frame: Bytes) -> Result<Message, DecodeError> {
    let mut read = Read::new(frame);
    let kind = match read.u8()? {
        APPEND => MessageType::MsgAppend,
        APPEND_ANSWER => MessageType::MsgAppendResponse,
        HEARTBEAT => MessageType::MsgHeartbeat,
        HEARTBEAT_ANSWER => MessageType::MsgHeartbeatResponse,
        VOTE => MessageType::MsgRequestVote,
        VOTE_ANSWER => MessageType::MsgRequestVoteResponse,
        PRE_VOTE => MessageType::MsgRequestPreVote,
        PRE_VOTE_ANSWER => MessageType::MsgRequestPreVoteResponse,
        TIMEOUT_NOW => MessageType::MsgTimeoutNow,
        _ => return Err(DecodeError::Bad("kind of message")),
    };
    let mut message = Message {
        from,
        to,
        term: read.varint()?,
        log_term: read.varint()?,
        index: read.varint()?,
        commit: read.varint()?,
        commit_term: read.varint()?,
        reject: read.bool()?,
        reject_hint: read.varint()?,
        context: read.bytes()?,
        ..Message::default()
    };
    message.set_msg_type(kind);
    let count = read.varint()?;
    let is_append = kind == MessageType::MsgAppend;
    if message.term == 0 || count > 0 && !is_append {
        return Err(DecodeError::Bad("message"));
    }
    let mut term = message.log_term;
    for at in 0..count {
        let entry = Entry {
            entry_type: EntryType::EntryNormal,
            index: index_behind(message.index, at)?,
            term: read.varint()?,
            data: read.bytes()?,
            ..Entry::default()
        };
        if entry.term < term || entry.term > message.term {
            return Err(DecodeError::Bad("terms of entries"));
        }
        term = entry.term;
        message.entries.push(entry);
    }
    read.finish()?;
    Ok(message)
}

fn index_behind(index: u64, at: u64) -> Result<u64, DecodeError> {
    let behind = index.checked_add(at).and_then(|sum| sum.checked_add(1));
    behind.ok_or(DecodeError::Bad("index of an entry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> Message {
        let mut message = Message {
            from: 3,
            to: 4,
            term: 9,
            log_term: 7,
            index: 100,
            commit: 99,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        for (index, term) in [(101, 7), (102, 9)] {
            message.entries.push(Entry {
                index,
                term,
                data: Bytes::from_static(b"command"),
                ..Entry::default()
            });
        }
        message
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(&append(), 0).expect("it is sent");
        assert_eq!(decode(3, 4, bytes.into()), Ok(append()));
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = encode(&append(), 0).expect("it is sent");
        for length in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..length]);
            assert!(decode(3, 4, cut).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn falling_terms_are_refused() {
        let mut message = append();
        message.entries[1].term = 6;
        let bytes = encode(&message, 0).expect("it is sent");
        assert!(decode(3, 4, bytes.into()).is_err());
        message.entries[1].term = 10;
        let bytes = encode(&message, 0).expect("it is sent");
        assert!(decode(3, 4, bytes.into()).is_err(), "above its message's");
    }

    #[test]
    fn proposals_and_reads_do_not_travel() {
        for kind in [
            MessageType::MsgPropose,
            MessageType::MsgReadIndex,
            MessageType::MsgTransferLeader,
            MessageType::MsgSnapshot,
        ] {
            let mut message = append();
            message.set_msg_type(kind);
            assert_eq!(encode(&message, 0), None);
        }
    }
}
