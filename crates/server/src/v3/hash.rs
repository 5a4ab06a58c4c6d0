//! Checksums of the state, to compare members with.
//!
//! HashKV is etcd's own, to the bit: of two stores with the same history, whichever program keeps
//! them, it is the same. It is made on a thread beside the connections', in steps that hold the
//! machine briefly; a compaction in between makes it begin again.
//!
//! Source: spec/v3-api.md §2.12.

use bytes::BufMut;
use crc_fast::{CrcAlgorithm, Digest};
use prost::Message;
use quorate_proto::mvccpb::KeyValue;
use quorate_store::{FileVersion, Key, Refusal, Revision, Store, Values};
use tonic::Status;

use super::{encode, status};
use crate::node::Node;

/// Versions handled while the machine is held.
const STEP: usize = 1_000;
/// The name of etcd's table of versions, with which the sum begins.
const TABLE: &[u8] = b"key";

/// What HashKV found.
pub(super) struct KeysHash {
    pub(super) crc: u32,
    pub(super) compacted: i64,
    /// The revision it is of.
    pub(super) revision: Revision,
}

/// The CRC32C of all versions up to `asked`, 0 for now, that compaction has left.
///
/// # Errors
/// As a read at that revision.
pub(super) async fn keys(node: &Node, asked: i64) -> Result<KeysHash, Status> {
    let digested = digest(node, asked).await?;
    Ok(KeysHash {
        crc: sum(&digested.digest),
        compacted: digested.compacted,
        revision: digested.revision,
    })
}

/// A CRC32C of all that is replicated, directories excepted. Only members of one version agree.
///
/// # Errors
/// As a read.
pub(super) async fn state(node: &Node) -> Result<u32, Status> {
    let mut digest = digest(node, 0).await?.digest;
    let machine = node.machine();
    let mut cursor = machine.store().begin_walk();
    // The first step of a walk is what is not a key: leases, members, alarms.
    machine
        .store()
        .walk(&mut cursor, 1, &mut |row| digest.update(row));
    Ok(sum(&digest))
}

struct Digested {
    digest: Digest,
    compacted: i64,
    revision: Revision,
}

async fn digest(node: &Node, asked: i64) -> Result<Digested, Status> {
    let node = node.clone();
    let made = tokio::task::spawn_blocking(move || {
        loop {
            if let Some(digested) = attempt(&node, asked)? {
                return Ok(digested);
            }
        }
    });
    made.await
        .map_err(|error| Status::internal(error.to_string()))?
}

/// `None` if a compaction came in between.
fn attempt(node: &Node, asked: i64) -> Result<Option<Digested>, Status> {
    let (revision, compacted) = {
        let machine = node.machine();
        let store = machine.store();
        let revision = store.revision_asked(asked);
        let revision = revision.map_err(|refusal: Refusal| status::refused(&refusal))?;
        (revision, store.compacted())
    };
    let Some(versions) = in_order(node, revision, compacted) else {
        return Ok(None);
    };
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(TABLE);
    for step in versions.chunks(STEP) {
        let (machine, values) = (node.machine(), node.values());
        for (revision, _, key) in step {
            let store = machine.store();
            let version = store.file_written_at(key, *revision);
            let Some(version) = version.filter(|_| store.compacted() == compacted) else {
                return Ok(None);
            };
            update(&mut digest, &values, key, version)?;
        }
    }
    Ok(Some(Digested {
        digest,
        compacted,
        revision,
    }))
}

/// All versions that count, in the order in which they were written.
///
/// As in etcd, one at or below the compaction counts only while it stands at `last`, unless no key
/// is alive there.
fn in_order(node: &Node, last: Revision, compacted: i64) -> Option<Vec<(Revision, u32, Key)>> {
    let oldest = Revision::new(u64::try_from(compacted).unwrap_or(0));
    let mut versions = Vec::new();
    let mut replaced = Vec::new();
    let mut is_any_alive = false;
    let mut after = None;
    loop {
        let machine = node.machine();
        let store: &Store = machine.store();
        if store.compacted() != compacted {
            return None;
        }
        let kept = (oldest, last);
        let more = store.kept_versions(&mut after, kept, STEP, &mut |key, version, stands| {
            let named = (version.revision, version.sub, key.clone());
            if stands || version.revision > oldest {
                versions.push(named);
            } else {
                replaced.push(named);
            }
            is_any_alive |= stands && version.count > 0;
        });
        drop(machine);
        if !more {
            break;
        }
    }
    if !is_any_alive {
        versions.append(&mut replaced);
    }
    versions.sort_unstable_by_key(|(revision, sub, _)| (*revision, *sub));
    Some(versions)
}

/// Adds a version as etcd's table holds it: its revision as the key, a message as the value.
fn update(
    digest: &mut Digest,
    values: &dyn Values,
    key: &Key,
    version: &FileVersion,
) -> Result<(), Status> {
    let mut row = Vec::with_capacity(64 + key.len() + version.value.len());
    row.put_u64(version.revision.get());
    row.put_u8(b'_');
    row.put_u64(version.sub.into());
    let key_value = if version.count == 0 {
        row.put_u8(b't');
        KeyValue {
            key: bytes::Bytes::copy_from_slice(key),
            ..KeyValue::default()
        }
    } else {
        encode::version(key, version, values).map_err(|error| status::value(&error))?
    };
    key_value.encode_raw(&mut row);
    digest.update(&row);
    Ok(())
}

fn sum(digest: &Digest) -> u32 {
    u32::try_from(digest.finalize()).expect("a CRC32 has 32 bits")
}
