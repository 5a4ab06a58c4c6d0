//! What members tell one another before anything else, and why one refuses another.
//!
//! A connection begins as an HTTP/1.1 upgrade, so that a member of etcd, a proxy or a person gets a
//! sentence. Both sides say who they are in headers; either refuses what does not fit (P7).

use std::fmt;

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use quorate_store::Life;

/// The protocol's name and version, as `Upgrade` says it.
pub(super) const PROTOCOL: &str = "quorate-1";
/// Where frames between replicas go.
pub(super) const LINK: &str = "/quorate/link";
/// Where a state goes.
pub(super) const STATE: &str = "/quorate/state";

const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const MEMBER: HeaderName = HeaderName::from_static("x-quorate-member");
const WANTED: HeaderName = HeaderName::from_static("x-quorate-wanted");
const DIRECTORY: HeaderName = HeaderName::from_static("x-quorate-directory");
const INCARNATION: HeaderName = HeaderName::from_static("x-quorate-incarnation");
const LAST_INDEX: HeaderName = HeaderName::from_static("x-quorate-last-index");

/// Who a member says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) life: Life,
    /// The last entry of its log.
    pub(crate) last_index: u64,
    /// The member that it wants to speak to; 0 in an answer.
    pub(crate) wanted: u64,
}

/// Why a member is refused. Some reasons are final: it must stop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// Not a member of this software at all, or of another version.
    Garbled,
    Cluster {
        ours: u64,
        theirs: u64,
    },
    NotMe {
        ours: u64,
    },
    /// This member does not know it, perhaps not yet.
    Unknown {
        member: u64,
    },
    Removed {
        member: u64,
    },
    OtherDirectory,
    Outdated,
    /// It has acknowledged more than its log holds.
    Forgot {
        acknowledged: u64,
        last: u64,
    },
}

impl Refused {
    /// The HTTP status that says it.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Garbled => 400,
            Self::Cluster { .. } | Self::NotMe { .. } => 412,
            Self::Unknown { .. } => 404,
            Self::Removed { .. } => 410,
            Self::OtherDirectory | Self::Outdated | Self::Forgot { .. } => 409,
        }
    }

    /// Whether a member that is answered by this status must stop.
    pub(crate) fn is_final(status: u16) -> bool {
        matches!(status, 409 | 410)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbled => write!(
                out,
                "this is a Quorate member that speaks {PROTOCOL}: it forms no cluster with members \
                 of etcd, and needs peers of its own version"
            ),
            Self::Cluster { ours, theirs } => write!(
                out,
                "cluster ID mismatch: this member is of cluster {ours:x}, the other one of \
                 {theirs:x}; check --initial-cluster and --initial-cluster-token, and the peer URLs"
            ),
            Self::NotMe { ours } => write!(
                out,
                "this is member {ours:x}: another one was expected at this address; check the peer URLs"
            ),
            Self::Unknown { member } => {
                write!(out, "member {member:x} is not known here, perhaps not yet")
            }
            Self::Removed { member } => write!(
                out,
                "the member {member:x} has been permanently removed from the cluster"
            ),
            Self::OtherDirectory => write!(
                out,
                "this member is known by another data directory: a wiped or replaced directory cannot \
                 go on in its name; remove the member and add it again with an empty directory"
            ),
            Self::Outdated => write!(
                out,
                "the data directory is older than what is known of this member: it was copied or \
                 rolled back; remove the member and add it again with an empty directory"
            ),
            Self::Forgot { acknowledged, last } => write!(
                out,
                "the data directory is older than what this member promised: it has acknowledged \
                 entry {acknowledged}, and its log ends at {last}; remove the member and add it again \
                 with an empty directory"
            ),
        }
    }
}

impl Hello {
    /// Puts it into a request's or an answer's headers.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        for (name, number) in [
            (CLUSTER, u128::from(self.cluster)),
            (MEMBER, u128::from(self.member)),
            (WANTED, u128::from(self.wanted)),
            (DIRECTORY, self.life.directory),
            (INCARNATION, u128::from(self.life.incarnation)),
            (LAST_INDEX, u128::from(self.last_index)),
        ] {
            let value = HeaderValue::from_str(&format!("{number:x}"));
            headers.insert(name, value.expect("a number is visible text"));
        }
    }

    /// Reads it; `None` if it is not all there.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let number = |name: HeaderName| {
            let text = headers.get(name)?.to_str().ok()?;
            u128::from_str_radix(text, 16).ok()
        };
        let short = |name| u64::try_from(number(name)?).ok();
        Some(Self {
            cluster: short(CLUSTER)?,
            member: short(MEMBER)?,
            wanted: short(WANTED)?,
            life: Life {
                directory: number(DIRECTORY)?,
                incarnation: short(INCARNATION)?,
            },
            last_index: short(LAST_INDEX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_as_it_was_written() {
        let hello = Hello {
            cluster: u64::MAX,
            member: 1,
            life: Life {
                directory: u128::MAX,
                incarnation: 7,
            },
            last_index: 0,
            wanted: 0x8e9e_05c5_2164_694d,
        };
        let mut headers = HeaderMap::new();
        hello.write(&mut headers);
        assert_eq!(Hello::read(&headers), Some(hello));
        headers.remove("x-quorate-directory");
        assert_eq!(Hello::read(&headers), None);
    }
}
