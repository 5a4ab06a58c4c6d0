//! What a member answers while it is cut off from the others.
//!
//! Whatever needs the cluster is answered within the server's own limit, with etcd's errors; what does
//! not, goes on.
//!
//! Source: spec/v3-api.md §3.2 (without quorum, hasleader), spec/v2-api.md §1.13.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest,
    WatchCreateRequest, WatchRequest, request_op, watch_request,
};
use tokio::task::JoinSet;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::history::Member;
use super::members::{Cluster, Program};
use super::v3;
use crate::http::Http;

/// Beyond the server's own limit, for a busy machine.
const SLACK: Duration = Duration::from_secs(3);
const KEY: &str = "/cutoff/key";

type Call = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// Cuts one member off and asks it everything. Returns what was asked.
pub(super) async fn check(cluster: &mut Cluster, member: Member) -> Result<String> {
    let (port, program) = (cluster.faces[member].client_port, cluster.setup.program);
    let channel = v3::channel(port)?;
    put(channel.clone(), false).await?;
    let lease = grant(channel.clone()).await?;
    let led = watch(channel.clone(), true).await?;
    let mut plain = watch(channel.clone(), false).await?;
    for other in (0..cluster.len()).filter(|other| *other != member) {
        cluster.network.cut(member, other)?;
    }
    await_no_leader(channel.clone()).await?;
    let limit = Duration::from_secs(5) + cluster.setup.election * 2 + SLACK;
    let mut asked = JoinSet::new();
    asked.spawn(async move { ends_without_leader(led, limit).await });
    for (name, call) in needing_the_cluster(&channel, lease) {
        asked.spawn(async move { refused(name, call, limit, program).await });
    }
    for (name, call) in needing_a_leader_now(&channel) {
        asked.spawn(async move { refused(name, call, SLACK, program).await });
    }
    for (method, path, form) in V2_NEEDING_THE_CLUSTER {
        asked.spawn(async move { refused_v2(port, method, path, form, limit).await });
    }
    let count = asked.len();
    for _ in 0..5 {
        goes_on(channel.clone(), port).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut wrong = 0;
    while let Some(done) = asked.join_next().await {
        match done? {
            Ok(text) => println!("{text}"),
            Err(error) => {
                wrong += 1;
                println!("WRONG: {error:#}");
            }
        }
    }
    goes_on(channel.clone(), port).await?;
    cluster.heal()?;
    cluster.await_ready().await?;
    put(channel, false).await?;
    let event = tokio::time::timeout(limit, plain.message()).await;
    let event = event.context("a watch without hasleader is silent after healing")??;
    ensure!(event.is_some(), "a watch without hasleader ended");
    ensure!(
        wrong == 0,
        "{wrong} of {count} requests were not refused as they should"
    );
    Ok(format!("{count} requests refused in time"))
}

/// Waits until the member itself says that there is no leader.
async fn await_no_leader(channel: Channel) -> Result<()> {
    let since = Instant::now();
    let mut client = MaintenanceClient::new(channel);
    loop {
        let status = client.status(StatusRequest {}).await?.into_inner();
        if status.leader == 0 {
            let says = status
                .errors
                .iter()
                .any(|error| error == "etcdserver: no leader");
            ensure!(says, "Status has no error: {status:?}");
            return Ok(());
        }
        ensure!(
            since.elapsed() < Duration::from_secs(20),
            "a member that is cut off still has a leader: {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Calls that wait for the cluster and give up.
fn needing_the_cluster(channel: &Channel, lease: i64) -> Vec<(&'static str, Call)> {
    let kv = || KvClient::new(channel.clone());
    let leases = || LeaseClient::new(channel.clone());
    let delete = DeleteRangeRequest {
        key: KEY.into(),
        ..DeleteRangeRequest::default()
    };
    let compact = CompactionRequest {
        revision: 1,
        physical: false,
    };
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    vec![
        ("put", Box::pin(put(channel.clone(), false))),
        ("range", Box::pin(range(channel.clone(), false, false))),
        (
            "delete",
            unary(kv(), |mut kv| async move {
                kv.delete_range(delete).await.map(drop)
            }),
        ),
        (
            "txn",
            unary(kv(), |mut kv| async move { kv.txn(txn()).await.map(drop) }),
        ),
        (
            "compact",
            unary(kv(), move |mut kv| async move {
                kv.compact(compact).await.map(drop)
            }),
        ),
        (
            "lease grant",
            unary(leases(), move |mut leases| async move {
                leases.lease_grant(grant).await.map(drop)
            }),
        ),
        (
            "lease revoke",
            unary(leases(), move |mut leases| async move {
                let request = LeaseRevokeRequest { id: lease };
                leases.lease_revoke(request).await.map(drop)
            }),
        ),
        (
            "keep-alive",
            unary(leases(), move |mut leases| async move {
                let requests = tokio_stream::iter([LeaseKeepAliveRequest { id: lease }]);
                let mut answers = leases.lease_keep_alive(requests).await?.into_inner();
                answers.message().await.map(drop)
            }),
        ),
    ]
}

/// Calls that say that they need a leader, and are refused at once.
fn needing_a_leader_now(channel: &Channel) -> Vec<(&'static str, Call)> {
    let watched = channel.clone();
    vec![
        ("put with hasleader", Box::pin(put(channel.clone(), true))),
        (
            "range with hasleader",
            Box::pin(range(channel.clone(), false, true)),
        ),
        (
            "local range with hasleader",
            Box::pin(range(channel.clone(), true, true)),
        ),
        (
            "watch with hasleader",
            Box::pin(async move {
                let mut answers = watch(watched, true).await?;
                answers.message().await.map(drop)
            }),
        ),
    ]
}

const V2_NEEDING_THE_CLUSTER: [(&str, &str, &str); 5] = [
    ("PUT", "/v2/keys/cutoff/v2", "value=x"),
    ("PUT", "/v2/keys/cutoff/v2", "value=x&prevExist=false"),
    ("POST", "/v2/keys/cutoff/v2", "value=x"),
    ("DELETE", "/v2/keys/cutoff/v2", ""),
    ("GET", "/v2/keys/cutoff?quorum=true", ""),
];

fn unary<C, F>(client: C, call: impl FnOnce(C) -> F + Send + 'static) -> Call
where
    C: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    Box::pin(async move { call(client).await })
}

/// A request, with the wish to be refused when there is no leader.
fn with<T>(message: T, needs_leader: bool) -> Request<T> {
    let mut request = Request::new(message);
    if needs_leader {
        let yes = MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", yes);
    }
    request
}

async fn put(channel: Channel, needs_leader: bool) -> Result<(), Status> {
    let request = PutRequest {
        key: KEY.into(),
        value: "x".into(),
        ..PutRequest::default()
    };
    let answer = KvClient::new(channel)
        .put(with(request, needs_leader))
        .await;
    answer.map(drop)
}

async fn range(channel: Channel, is_local: bool, needs_leader: bool) -> Result<(), Status> {
    let request = RangeRequest {
        key: KEY.into(),
        serializable: is_local,
        ..RangeRequest::default()
    };
    let answer = KvClient::new(channel)
        .range(with(request, needs_leader))
        .await;
    answer.map(drop)
}

fn txn() -> TxnRequest {
    let put = PutRequest {
        key: KEY.into(),
        ..PutRequest::default()
    };
    TxnRequest {
        success: vec![RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }],
        ..TxnRequest::default()
    }
}

async fn grant(channel: Channel) -> Result<i64> {
    let request = LeaseGrantRequest { ttl: 600, id: 0 };
    let answer = LeaseClient::new(channel).lease_grant(request).await?;
    Ok(answer.into_inner().id)
}

async fn watch(
    channel: Channel,
    needs_leader: bool,
) -> Result<Streaming<quorate_proto::etcdserverpb::WatchResponse>, Status> {
    let create = WatchCreateRequest {
        key: KEY.into(),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    // Stays open: the end of the requests might end the watch.
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::iter([create]), tokio_stream::pending());
    let mut client = WatchClient::new(channel);
    let mut answers = client
        .watch(with(requests, needs_leader))
        .await?
        .into_inner();
    answers.message().await?;
    Ok(answers)
}

/// Reads a watch until it ends, as it must, since there is no leader.
async fn ends_without_leader(
    mut answers: Streaming<quorate_proto::etcdserverpb::WatchResponse>,
    limit: Duration,
) -> Result<String> {
    let end = async {
        loop {
            match answers.message().await {
                Ok(Some(answer)) if answer.canceled => return Ok(answer.cancel_reason),
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("a watch with hasleader ended without a word"),
                Err(status) => return Ok(status.message().to_owned()),
            }
        }
    };
    let end = tokio::time::timeout(limit, end).await;
    let text = end.context("a watch with hasleader goes on without a leader")??;
    ensure!(
        text == "etcdserver: no leader",
        "a watch ended with {text:?}"
    );
    Ok(format!("a watch with hasleader: {text}"))
}

/// Waits for the refusal of a call.
async fn refused(name: &str, call: Call, limit: Duration, program: Program) -> Result<String> {
    let since = Instant::now();
    let answer = tokio::time::timeout(limit, call).await;
    let answer = answer.with_context(|| format!("{name}: no answer within {limit:?}"))?;
    let Err(status) = answer else {
        anyhow::bail!("{name}: answered without a leader");
    };
    let is_right = status.code() == Code::Unavailable && is_refusal(status.message());
    // What etcd 3.4 says where later ones say that the request timed out.
    let is_old = program == Program::Etcd && status.message() == "context deadline exceeded";
    ensure!(is_right || is_old, "{name}: {status:?}");
    Ok(format!(
        "{name}: {} after {:.1?}",
        status.message(),
        since.elapsed()
    ))
}

fn is_refusal(text: &str) -> bool {
    text == "etcdserver: no leader" || text.starts_with("etcdserver: request timed out")
}

async fn refused_v2(
    port: u16,
    method: &str,
    path: &str,
    form: &str,
    limit: Duration,
) -> Result<String> {
    let name = format!("{method} {path} {form}");
    let since = Instant::now();
    let mut http = Http::connect(port).await?;
    let answer = tokio::time::timeout(limit, http.request(method, path, form)).await;
    let answer = answer.with_context(|| format!("{name}: no answer within {limit:?}"))??;
    let body: serde_json::Value = serde_json::from_str(&answer.body)?;
    let cause = body["cause"].as_str().unwrap_or_default();
    let is_right = answer.status == 500 && body["errorCode"] == 300 && is_refusal(cause);
    ensure!(is_right, "{name}: {answer:?}");
    Ok(format!("{name}: {cause} after {:.1?}", since.elapsed()))
}

/// What needs no cluster is answered as ever.
async fn goes_on(channel: Channel, port: u16) -> Result<()> {
    let local = tokio::time::timeout(SLACK, range(channel, true, false)).await;
    local.context("a local range waits")??;
    let mut http = Http::connect(port).await?;
    let plain = http.request("GET", "/v2/keys/", "");
    let plain = tokio::time::timeout(SLACK, plain).await;
    let plain = plain.context("a plain v2 read waits")??;
    ensure!(plain.status == 200, "a plain v2 read: {plain:?}");
    Ok(())
}
