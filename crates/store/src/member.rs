//! Who is in the cluster.
//!
//! The configuration is a part of the state: voters are the members whose role says so. Every
//! change is one entry, refused or done alike on every member; the replica hands what it did to Raft.
//!
//! M1. An id that was removed never returns.
//! M2. No two members share a peer URL.
//! M3. A voter is never removed if it is the last one.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{DecodeError, Read, Write};
use crate::{AlarmBy, Refusal, Store};

/// A member as the cluster knows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it is known.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
    /// What it counts for.
    pub role: Role,
    /// Which life of it the cluster knows.
    pub life: Life,
}

/// What a member counts for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// It votes.
    #[default]
    Voter = 0,
    /// It has the data and no vote.
    Learner = 1,
    /// A learner that is to vote once it keeps up.
    Joining = 2,
}

/// A data directory and how often it was opened. A member that comes back with less is a copy, or
/// was rolled back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Life {
    /// The directory's random identity; 0 until the member has started.
    pub directory: u128,
    /// Counts its starts.
    pub incarnation: u64,
}

/// A change of who is in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MemberChange {
    /// It is new.
    Add {
        /// Where peers reach it.
        peer_urls: Vec<String>,
        /// Not [`Role::Voter`]: the quorum never waits for an empty disk.
        role: Role,
        /// How many plain learners there may be.
        max_learners: u32,
    },
    /// It leaves, for good.
    Remove,
    /// Peers reach it elsewhere.
    Update {
        /// Where.
        peer_urls: Vec<String>,
    },
    /// A learner gets its vote.
    Promote,
    /// It goes on alone: all others are removed at once. For a cluster whose majority is lost.
    Alone,
    /// It has started.
    Publish {
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
        /// Its directory.
        life: Life,
    },
}

impl Role {
    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        match read.u8()? {
            0 => Ok(Self::Voter),
            1 => Ok(Self::Learner),
            2 => Ok(Self::Joining),
            _ => Err(DecodeError::Bad("role of a member")),
        }
    }
}

impl Store {
    /// Changes who is in the cluster.
    pub(crate) fn change_member(&mut self, id: u64, change: MemberChange) -> Result<(), Refusal> {
        if self.removed.contains(&id) {
            return Err(Refusal::MemberRemoved { id });
        }
        match change {
            MemberChange::Add {
                peer_urls,
                role,
                max_learners,
            } => self.add_member(id, peer_urls, role, max_learners),
            MemberChange::Remove => {
                let member = self.known_member(id)?;
                let is_last = member.role == Role::Voter && self.voters().count() == 1;
                if is_last {
                    return Err(Refusal::LastVoter);
                }
                self.members.remove(&id);
                self.removed.insert(id);
                // Nobody is left to clear what it has raised for itself.
                self.alarms
                    .retain(|alarm, by| alarm.member != id || *by == AlarmBy::Client);
                Ok(())
            }
            MemberChange::Update { peer_urls } => {
                self.known_member(id)?;
                self.check_peer_urls(id, &peer_urls)?;
                self.known_member(id)?.peer_urls = peer_urls;
                Ok(())
            }
            MemberChange::Promote => {
                let member = self.known_member(id)?;
                if member.role == Role::Voter {
                    return Err(Refusal::NotLearner);
                }
                member.role = Role::Voter;
                Ok(())
            }
            MemberChange::Alone => {
                self.known_member(id)?.role = Role::Voter;
                let others = self.members.extract_if(.., |other, _| *other != id);
                self.removed.extend(others.map(|(other, _)| other));
                Ok(())
            }
            MemberChange::Publish {
                name,
                client_urls,
                life,
            } => {
                let member = self.known_member(id)?;
                member.life.check(&life)?;
                (member.name, member.client_urls, member.life) = (name, client_urls, life);
                Ok(())
            }
        }
    }

    fn add_member(
        &mut self,
        id: u64,
        peer_urls: Vec<String>,
        role: Role,
        max_learners: u32,
    ) -> Result<(), Refusal> {
        if self.members.contains_key(&id) {
            return Err(Refusal::MemberExists);
        }
        self.check_peer_urls(id, &peer_urls)?;
        let learners = self.members.values().filter(|m| m.role == Role::Learner);
        if role == Role::Learner && learners.count() >= max_learners as usize {
            return Err(Refusal::TooManyLearners);
        }
        let member = Member {
            id,
            peer_urls,
            role,
            ..Member::default()
        };
        self.members.insert(id, member);
        Ok(())
    }

    /// M2.
    fn check_peer_urls(&self, id: u64, urls: &[String]) -> Result<(), Refusal> {
        let mut others = self.members.values().filter(|member| member.id != id);
        if others.any(|member| member.peer_urls.iter().any(|url| urls.contains(url))) {
            return Err(Refusal::PeerUrlExists);
        }
        Ok(())
    }

    fn known_member(&mut self, id: u64) -> Result<&mut Member, Refusal> {
        self.members
            .get_mut(&id)
            .ok_or(Refusal::MemberNotFound { id })
    }

    /// Ids of the members that vote.
    pub fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        let voting = self.members.values().filter(|m| m.role == Role::Voter);
        voting.map(|member| member.id)
    }

    /// Ids of the members that do not.
    pub fn learners(&self) -> impl Iterator<Item = u64> + '_ {
        let silent = self.members.values().filter(|m| m.role != Role::Voter);
        silent.map(|member| member.id)
    }
}

impl Life {
    /// Whether a member that was known by this life may go on with `next`.
    ///
    /// # Errors
    /// [`Refusal::MemberOtherDirectory`], [`Refusal::MemberOutdated`].
    pub fn check(&self, next: &Self) -> Result<(), Refusal> {
        if self.directory != 0 && self.directory != next.directory {
            return Err(Refusal::MemberOtherDirectory);
        }
        if next.incarnation < self.incarnation {
            return Err(Refusal::MemberOutdated);
        }
        Ok(())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.directory.to_le_bytes());
        out.u64(self.incarnation);
    }

    fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        let (low, high) = (read.u64()?, read.u64()?);
        Ok(Self {
            directory: u128::from(high) << 64 | u128::from(low),
            incarnation: read.u64()?,
        })
    }
}

impl Member {
    /// Writes all of it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.id);
        out.bytes(self.name.as_bytes());
        encode_urls(&self.peer_urls, out);
        encode_urls(&self.client_urls, out);
        out.u8(self.role as u8);
        self.life.encode(out);
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(Self {
            id: read.u64()?,
            name: read.string()?,
            peer_urls: decode_urls(read)?,
            client_urls: decode_urls(read)?,
            role: Role::decode(read)?,
            life: Life::decode(read)?,
        })
    }
}

const ADD: u8 = 1;
const REMOVE: u8 = 2;
const UPDATE: u8 = 3;
const PROMOTE: u8 = 4;
const PUBLISH: u8 = 5;
const ALONE: u8 = 6;

impl MemberChange {
    /// Writes it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Add {
                peer_urls,
                role,
                max_learners,
            } => {
                out.u8(ADD);
                encode_urls(peer_urls, out);
                out.u8(*role as u8);
                out.u32(*max_learners);
            }
            Self::Remove => out.u8(REMOVE),
            Self::Update { peer_urls } => {
                out.u8(UPDATE);
                encode_urls(peer_urls, out);
            }
            Self::Promote => out.u8(PROMOTE),
            Self::Alone => out.u8(ALONE),
            Self::Publish {
                name,
                client_urls,
                life,
            } => {
                out.u8(PUBLISH);
                out.bytes(name.as_bytes());
                encode_urls(client_urls, out);
                life.encode(out);
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(read: &mut Read) -> Result<Self, DecodeError> {
        Ok(match read.u8()? {
            ADD => {
                let peer_urls = decode_urls(read)?;
                let role = Role::decode(read)?;
                if role == Role::Voter {
                    return Err(DecodeError::Bad("role of a new member"));
                }
                let max_learners = read.u32()?;
                Self::Add {
                    peer_urls,
                    role,
                    max_learners,
                }
            }
            REMOVE => Self::Remove,
            UPDATE => Self::Update {
                peer_urls: decode_urls(read)?,
            },
            PROMOTE => Self::Promote,
            ALONE => Self::Alone,
            PUBLISH => Self::Publish {
                name: read.string()?,
                client_urls: decode_urls(read)?,
                life: Life::decode(read)?,
            },
            _ => return Err(DecodeError::Bad("change of a member")),
        })
    }
}

fn encode_urls(urls: &[String], out: &mut Vec<u8>) {
    out.u32(urls.len() as u32);
    urls.iter().for_each(|url| out.bytes(url.as_bytes()));
}

fn decode_urls(read: &mut Read) -> Result<Vec<String>, DecodeError> {
    (0..read.count()?).map(|_| read.string()).collect()
}
