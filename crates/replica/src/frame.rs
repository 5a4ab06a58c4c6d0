//! What one replica tells another, as bytes.
//!
//! A frame is a kind and what belongs to it. Raft's messages are [`Frame::Raft`], and only
//! [`crate::core`] looks into them. A frame that cannot be read is lost, as if the network had been.

use bytes::Bytes;
use quorate_store::ClusterTime;
use quorate_store::codec::{DecodeError, Read, Write};

use crate::replica::NotDone;

/// Bytes before a message of Raft: kind and cluster time.
pub(crate) const HEAD: usize = 9;

const RAFT: u8 = 1;
const FORWARD: u8 = 2;
const NOT_DONE: u8 = 3;
const ASK_READ: u8 = 4;
const READ_AT: u8 = 5;
const ASK_DIGEST: u8 = 6;
const DIGEST: u8 = 7;
const DIFFERS: u8 = 8;

#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    /// A message of Raft; the sender's cluster time, which counts if it leads.
    Raft(ClusterTime, Bytes),
    /// Commands for the leader of this term and no other.
    Forward(u64, Vec<Bytes>),
    /// The request that your start of this number gave this counter did not get into the log.
    NotDone(u64, u64, NotDone),
    /// From where on do reads hold that wait now?
    AskRead(u64),
    /// The answer to a round: from this index on.
    ReadAt(u64, u64),
    /// What does your state come to at this index?
    AskDigest(u64),
    /// At this index it comes to this.
    Digest(u64, u64),
    /// At this index your state is not what most members' is.
    Differs(u64),
}

/// Fills in what stands before a message of Raft.
pub(crate) fn finish_raft(mut frame: Vec<u8>, time: ClusterTime) -> Bytes {
    frame[0] = RAFT;
    frame[1..HEAD].copy_from_slice(&time.0.to_le_bytes());
    Bytes::from(frame)
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32);
        match self {
            Self::Raft(time, message) => {
                out.resize(HEAD, 0);
                out.extend_from_slice(message);
                return finish_raft(out, *time);
            }
            Self::Forward(term, commands) => {
                out.reserve(commands.iter().map(|command| command.len() + 4).sum());
                out.u8(FORWARD);
                out.u64(*term);
                out.u32(commands.len() as u32);
                commands.iter().for_each(|command| out.bytes(command));
            }
            Self::NotDone(incarnation, counter, why) => {
                out.u8(NOT_DONE);
                out.u64(*incarnation);
                out.u64(*counter);
                out.u8(*why as u8);
            }
            Self::AskRead(round) => {
                out.u8(ASK_READ);
                out.u64(*round);
            }
            Self::AskDigest(index) | Self::Differs(index) => {
                out.u8(match self {
                    Self::Differs(_) => DIFFERS,
                    _ => ASK_DIGEST,
                });
                out.u64(*index);
            }
            Self::Digest(index, digest) => {
                out.u8(DIGEST);
                out.u64(*index);
                out.u64(*digest);
            }
            Self::ReadAt(round, index) => {
                out.u8(READ_AT);
                out.u64(*round);
                out.u64(*index);
            }
        }
        Bytes::from(out)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut read = Read::new(bytes);
        let frame = match read.u8()? {
            RAFT => return Ok(Self::Raft(ClusterTime(read.u64()?), read.rest())),
            FORWARD => {
                let term = read.u64()?;
                let commands = (0..read.count()?).map(|_| read.bytes());
                Self::Forward(term, commands.collect::<Result<_, _>>()?)
            }
            NOT_DONE => Self::NotDone(read.u64()?, read.u64()?, NotDone::decode(read.u8()?)?),
            ASK_READ => Self::AskRead(read.u64()?),
            READ_AT => Self::ReadAt(read.u64()?, read.u64()?),
            ASK_DIGEST => Self::AskDigest(read.u64()?),
            DIGEST => Self::Digest(read.u64()?, read.u64()?),
            DIFFERS => Self::Differs(read.u64()?),
            _ => return Err(DecodeError::Bad("kind of frame")),
        };
        read.finish()?;
        Ok(frame)
    }
}
