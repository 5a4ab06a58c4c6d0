//! Fills a server, and looks at all that its clients can see.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, request_op::Request as Op,
};
use quorate_proto::mvccpb::KeyValue;
use tonic::transport::{Channel, Endpoint};

/// Keys that are written.
const KEYS: usize = 150;
/// Revisions at which history is looked at.
const LOOKS: i64 = 12;
/// Long enough that none ends while a suite runs.
const TTL_S: i64 = 5_000;

pub(super) struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

/// What a server shows.
#[derive(Debug)]
pub(super) struct Seen {
    compacted: i64,
    /// Keys and HashKV by revision; the last is the latest.
    at: BTreeMap<i64, (u32, Vec<KeyValue>)>,
    /// Length and keys by id.
    leases: BTreeMap<i64, (i64, Vec<Bytes>)>,
}

impl Seen {
    pub(super) fn revision(&self) -> i64 {
        self.at.keys().next_back().copied().unwrap_or_default()
    }

    pub(super) fn revisions(&self) -> Vec<i64> {
        self.at.keys().copied().collect()
    }

    pub(super) fn compare(&self, found: &Self) -> Result<()> {
        ensure!(
            self.compacted == found.compacted,
            "compacted at {}",
            found.compacted
        );
        ensure!(
            self.revisions() == found.revisions(),
            "revision {}",
            found.revision()
        );
        for (revision, (hash, keys)) in &self.at {
            let (found_hash, found_keys) = &found.at[revision];
            ensure!(
                keys.len() == found_keys.len(),
                "{} keys at {revision}",
                found_keys.len()
            );
            for (wanted, found) in keys.iter().zip(found_keys) {
                ensure!(wanted == found, "{:?} differs at {revision}", wanted.key);
            }
            ensure!(hash == found_hash, "HashKV differs at {revision}");
        }
        ensure!(self.leases == found.leases, "leases {:?}", found.leases);
        Ok(())
    }
}

impl Client {
    pub(super) async fn connect(port: u16) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        let channel = endpoint.connect().await?;
        Ok(Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        })
    }

    /// Puts of all sizes, deletes, txns and leases, and a compaction half way.
    pub(super) async fn write(&mut self, seed: u64, writes: usize) -> Result<()> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut leases = vec![0, 0, 0];
        for number in 0..5 {
            let id = i64::try_from(seed)? * 100 + number;
            let request = LeaseGrantRequest {
                id,
                ttl: TTL_S + number,
            };
            self.lease.lease_grant(request).await?;
            leases.push(id);
        }
        // A lease without keys stays one.
        let idle = leases.pop().context("five leases")?;
        ensure!(idle > 0, "the last lease is one");
        for number in 0..writes {
            let lease = leases[chance.usize(..leases.len())];
            match chance.u32(..10) {
                0 => drop(self.kv.delete_range(delete(&mut chance)).await?),
                1 => drop(self.kv.txn(txn(&mut chance, lease)).await?),
                _ => drop(self.kv.put(put(&mut chance, lease)).await?),
            }
            if number == writes / 2 {
                let revision = self.revision().await? - 200;
                let request = CompactionRequest {
                    revision,
                    physical: true,
                };
                self.kv.compact(request).await?;
            }
        }
        Ok(())
    }

    /// Writes and compacts until it is aborted.
    pub(super) async fn load(port: u16) -> Result<()> {
        let mut client = Self::connect(port).await?;
        let mut chance = fastrand::Rng::with_seed(9);
        for number in 1_u64.. {
            client.kv.put(put(&mut chance, 0)).await?;
            if number.is_multiple_of(200) {
                let revision = client.revision().await? - 5_000;
                let request = CompactionRequest {
                    revision,
                    physical: false,
                };
                // Early on there is nothing to compact yet.
                let _ = client.kv.compact(request).await;
            }
        }
        Ok(())
    }

    async fn revision(&mut self) -> Result<i64> {
        let request = RangeRequest {
            key: "none".into(),
            ..RangeRequest::default()
        };
        let answer = self.kv.range(request).await?.into_inner();
        Ok(answer.header.context("a header")?.revision)
    }

    /// At the latest revision, and some before.
    pub(super) async fn look(&mut self) -> Result<Seen> {
        let revision = self.revision().await?;
        let request = HashKvRequest { revision };
        let hash = self.maintenance.hash_kv(request).await?.into_inner();
        // HashKV of etcd 3.4 has none at the compaction itself.
        let oldest = hash.compact_revision.max(0) + 1;
        let at = |number| oldest + (revision - oldest) * number / LOOKS;
        self.look_at((0..=LOOKS).map(at).collect()).await
    }

    pub(super) async fn look_at(&mut self, revisions: Vec<i64>) -> Result<Seen> {
        let mut seen = Seen {
            compacted: 0,
            at: BTreeMap::new(),
            leases: BTreeMap::new(),
        };
        for revision in revisions {
            let request = HashKvRequest { revision };
            let hash = self.maintenance.hash_kv(request).await?.into_inner();
            seen.compacted = hash.compact_revision;
            seen.at
                .insert(revision, (hash.hash, self.keys_at(revision).await?));
        }
        let last = self.revision().await?;
        ensure!(seen.revision() == last, "{last} is the latest revision");
        for lease in self
            .lease
            .lease_leases(LeaseLeasesRequest {})
            .await?
            .into_inner()
            .leases
        {
            let request = LeaseTimeToLiveRequest {
                id: lease.id,
                keys: true,
            };
            let lease = self.lease.lease_time_to_live(request).await?.into_inner();
            let mut keys = lease.keys;
            keys.sort();
            seen.leases
                .insert(lease.id, (lease.granted_ttl, keys.into_iter().collect()));
        }
        Ok(seen)
    }

    /// All keys as they stood; 0 is now.
    pub(super) async fn keys_at(&mut self, revision: i64) -> Result<Vec<KeyValue>> {
        let request = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            revision,
            ..RangeRequest::default()
        };
        Ok(self.kv.range(request).await?.into_inner().kvs)
    }
}

fn key(chance: &mut fastrand::Rng) -> Bytes {
    let number = chance.usize(..KEYS);
    // Some are v2 paths, some are no text.
    let key = match number % 3 {
        0 => format!("/dir{}/file{number}", number % 7).into_bytes(),
        1 => format!("key{number}").into_bytes(),
        _ => vec![255, u8::try_from(number).unwrap_or_default(), 0],
    };
    key.into()
}

fn put(chance: &mut fastrand::Rng, lease: i64) -> PutRequest {
    let longest = [0, 1, 32, 33, 300, 4_096, 20_000, 300_000];
    // Rarely long.
    let class = chance.usize(..8).min(chance.usize(..8));
    let bytes = chance.usize(..=longest[class]);
    PutRequest {
        key: key(chance),
        value: std::iter::repeat_with(|| chance.u8(..))
            .take(bytes)
            .collect::<Vec<_>>()
            .into(),
        lease,
        ..PutRequest::default()
    }
}

fn delete(chance: &mut fastrand::Rng) -> DeleteRangeRequest {
    let key = key(chance);
    let range_end = match chance.u32(..10) {
        0 => Bytes::from([&key[..], b"9"].concat()),
        _ => Bytes::new(),
    };
    DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    }
}

/// Up to four puts of different keys at one revision.
fn txn(chance: &mut fastrand::Rng, lease: i64) -> TxnRequest {
    let puts: BTreeMap<Bytes, PutRequest> = std::iter::repeat_with(|| put(chance, lease))
        .take(4)
        .map(|put| (put.key.clone(), put))
        .collect();
    let op = |put| RequestOp {
        request: Some(Op::RequestPut(put)),
    };
    TxnRequest {
        success: puts.into_values().map(op).collect(),
        ..TxnRequest::default()
    }
}
