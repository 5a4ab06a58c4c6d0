//! Snapshot, and what `quorate util` makes of it.

use std::path::{Path, PathBuf};

use quorate::config::{Restore, SnapshotCommand, UtilCommand};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, PutRequest,
    SnapshotRequest,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::member::{Member, block_on};

/// The body of v2's answer.
async fn http(member: &Member, method: &str, path: &str, form: &str) -> String {
    let address = member.url.strip_prefix("http://").expect("a URL");
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it is read");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 20"),
        "{method} {path} {form}: {answer}"
    );
    body.to_owned()
}

async fn save(channel: &Channel, path: &Path) {
    let mut client = MaintenanceClient::new(channel.clone());
    let stream = client.snapshot(SnapshotRequest {}).await;
    let mut stream = stream.expect("a stream").into_inner();
    let (mut bytes, mut left) = (Vec::new(), None);
    while let Some(response) = stream.message().await.expect("a whole snapshot") {
        assert!(response.blob.len() <= 64 << 10);
        let length = response.blob.len() as u64;
        bytes.extend_from_slice(&response.blob);
        if let Some(before) = left {
            let is_hash = before == 0 && length == 32;
            assert!(
                is_hash || before == response.remaining_bytes + length,
                "it falls"
            );
        }
        left = Some(response.remaining_bytes);
    }
    assert_eq!(left, Some(0));
    assert_eq!(bytes.len() % 4096, 32, "pages, and a SHA-256");
    std::fs::write(path, bytes).expect("a file that can be written");
}

fn restore(file: &Path, data_dir: &Path) {
    let restore = Restore {
        file: file.to_owned(),
        data_dir: Some(data_dir.display().to_string()),
        name: "default".to_owned(),
        initial_cluster: None,
        initial_cluster_token: None,
        initial_advertise_peer_urls: None,
        bump_revision: 0,
        mark_compacted: false,
        without_auth: false,
    };
    let command = UtilCommand::Snapshot(SnapshotCommand::Restore {
        restore,
        skip_hash_check: false,
    });
    assert_eq!(
        quorate::util::run(&command),
        std::process::ExitCode::SUCCESS
    );
}

fn put(key: &str, value: String, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.into(),
        lease,
        ..PutRequest::default()
    }
}

/// Writes of both dialects: directories, times to live, sets, swaps, refreshes, deletes, a lease.
async fn fill(member: &Member, channel: &Channel) {
    let mut kv = KvClient::new(channel.clone());
    let request = LeaseGrantRequest { id: 77, ttl: 5000 };
    let granted = LeaseClient::new(channel.clone()).lease_grant(request).await;
    granted.expect("a lease");
    for n in 0..300 {
        let value = "v".repeat(n * 7);
        kv.put(put(&format!("k{}", n % 90), value, 0))
            .await
            .expect("a put");
    }
    for (method, path, body) in [
        ("PUT", "/v2/keys/a/b/file", "value=1&ttl=4000"),
        ("PUT", "/v2/keys/a/b/file", "value=2"),
        ("PUT", "/v2/keys/a/b/file?prevValue=2", "value=3&ttl=9000"),
        (
            "PUT",
            "/v2/keys/a/b/file?prevExist=true",
            "refresh=true&ttl=5000",
        ),
        ("PUT", "/v2/keys/a/dir", "dir=true&ttl=6000"),
        ("PUT", "/v2/keys/a/dir/in", "value=in"),
        ("POST", "/v2/keys/queue", "value=first"),
        ("PUT", "/v2/keys/gone/deep/er", "value=x"),
        ("DELETE", "/v2/keys/gone?recursive=true", ""),
        ("PUT", "/v2/keys/empty", "dir=true"),
    ] {
        http(member, method, path, body).await;
    }
    kv.put(put("/a/b/file", "by v3".into(), 77))
        .await
        .expect("a put");
    let delete = DeleteRangeRequest {
        key: "k7".into(),
        ..DeleteRangeRequest::default()
    };
    kv.delete_range(delete).await.expect("a delete");
    let compaction = CompactionRequest {
        revision: 250,
        physical: true,
    };
    kv.compact(compaction).await.expect("a compaction");
    // The last change is one that v3 does not see.
    http(member, "PUT", "/v2/keys/last", "dir=true").await;
}

/// Everything that a client can see: hashes, listings and events of each revision.
async fn seen(member: &Member, channel: &Channel) -> Vec<String> {
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let hash = maintenance.hash_kv(HashKvRequest { revision: 0 }).await;
    let hash = hash.expect("a hash").into_inner();
    let last = hash.header.expect("a header").revision;
    let mut seen = vec![format!("{last} {} {}", hash.hash, hash.compact_revision)];
    for revision in hash.compact_revision..=last {
        let path = format!("/v2/keys/?recursive=true&quorum=true&revision={revision}");
        seen.push(timeless(&http(member, "GET", &path, "").await));
        if revision > hash.compact_revision {
            let path = format!("/v2/keys/?wait=true&recursive=true&waitIndex={revision}");
            // What was left of a time to live at an event is part of the event.
            seen.push(http(member, "GET", &path, "").await);
        }
    }
    seen
}

/// A listing without the times to live that are counted from now.
fn timeless(listing: &str) -> String {
    let parts = listing.split("\"ttl\":");
    let rest = |part: &str| {
        part.trim_start_matches(|c: char| c.is_ascii_digit())
            .to_owned()
    };
    parts.map(rest).collect()
}

#[test]
fn a_snapshot_restored_here_loses_nothing() {
    let parent = TempDir::new().unwrap();
    let (file, data_dir) = (parent.path().join("s"), parent.path().join("data"));
    let (before, again) = (parent.path().join("before"), parent.path().join("again"));
    block_on(async {
        let member = Member::start().await;
        let channel = member.channel().await;
        fill(&member, &channel).await;
        save(&channel, &file).await;
        let wanted = seen(&member, &channel).await;
        member.stop().await;

        restore(&file, &data_dir);
        let restored = Member::start_on(data_dir.clone()).await;
        let channel = restored.channel().await;
        let found = seen(&restored, &channel).await;
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found, wanted);
        }
        save(&channel, &again).await;
        restored.stop_and_keep().await;
    });
    // And offline: the same bytes but for what only a start has changed.
    let export = UtilCommand::Export {
        data_dir,
        file: before.clone(),
    };
    assert_eq!(quorate::util::run(&export), std::process::ExitCode::SUCCESS);
    let read = |path: &PathBuf| std::fs::read(path).unwrap();
    assert!(
        read(&before) == read(&again),
        "export and Snapshot write alike"
    );
}

#[test]
fn a_snapshot_is_of_one_revision_while_writes_and_compactions_go_on() {
    let parent = TempDir::new().unwrap();
    let (file, data_dir) = (parent.path().join("s"), parent.path().join("data"));
    block_on(async {
        let member = Member::start().await;
        let channel = member.channel().await;
        let mut kv = KvClient::new(channel.clone());
        let write = async |kv: &mut KvClient<Channel>, n: usize| {
            let request = put(&format!("k{}", n % 50), "v".repeat(1_000 + n), 0);
            kv.put(request).await.expect("a put");
        };
        for n in 0..1_000 {
            write(&mut kv, n).await;
        }
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let stream = maintenance.snapshot(SnapshotRequest {}).await;
        let mut stream = stream.expect("a stream").into_inner();
        let mut bytes = Vec::new();
        let mut n = 1_000;
        while let Some(response) = stream.message().await.expect("a whole snapshot") {
            bytes.extend_from_slice(&response.blob);
            for _ in 0..20 {
                write(&mut kv, n).await;
                n += 1;
            }
            let compaction = CompactionRequest {
                revision: n as i64 - 10,
                physical: false,
            };
            kv.compact(compaction).await.expect("a compaction");
        }
        std::fs::write(&file, bytes).unwrap();
        // Let go of, what compaction left behind is cleared up.
        member.node.purged().await;
        let hash = maintenance.hash_kv(HashKvRequest { revision: 0 }).await;
        assert!(hash.expect("a hash").into_inner().compact_revision > 1_000);
        member.stop().await;

        restore(&file, &data_dir);
        let restored = Member::start_on(data_dir).await;
        let mut kv = KvClient::new(restored.channel().await);
        for n in 0..1_000 {
            let request = quorate_proto::etcdserverpb::RangeRequest {
                key: format!("k{}", n % 50).into(),
                revision: n as i64 + 2,
                ..Default::default()
            };
            let found = kv.range(request).await.expect("history").into_inner();
            assert_eq!(found.kvs[0].value.len(), 1_000 + n);
            assert_eq!(found.header.expect("a header").revision, 1_001);
        }
        restored.stop_and_keep().await;
    });
}

#[test]
fn a_client_that_goes_away_holds_nothing() {
    block_on(async {
        let member = Member::start().await;
        let channel = member.channel().await;
        let mut kv = KvClient::new(channel.clone());
        for n in 0..400 {
            let request = put("k", "v".repeat(10_000 + n), 0);
            kv.put(request).await.expect("a put");
        }
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let stream = maintenance.snapshot(SnapshotRequest {}).await;
        let mut stream = stream.expect("a stream").into_inner();
        stream.message().await.expect("a first blob");
        let compaction = CompactionRequest {
            revision: 300,
            physical: false,
        };
        kv.compact(compaction).await.expect("a compaction");
        drop(stream);
        // Would wait for ever.
        member.node.purged().await;
        member.stop().await;
    });
}
