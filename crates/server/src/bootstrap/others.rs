//! What the other members say about the cluster: `GET /members` of their peer ports.
//!
//! All are asked at once, and the first good answer holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::client::{Answer, Client};
use super::{BootError, Member, Plan, address};
use crate::tls::Tls;

/// How long the others may take to answer: they are there, or they are about to start.
pub(super) const JOINING: Duration = Duration::from_secs(10);
/// As in etcd: a new cluster's others are mostly not there yet.
pub(super) const NEW: Duration = Duration::from_secs(1);
/// How long the names in URLs may take.
const LOOKUP: Duration = Duration::from_secs(30);

/// A cluster as one of its members tells it.
#[derive(Debug)]
struct Told {
    by: String,
    cluster_id: u64,
    members: Vec<ToldMember>,
}

#[derive(Debug)]
struct ToldMember {
    member: Member,
    /// Whether it has told where clients reach it, which is the first thing a member does.
    is_started: bool,
}

/// Refuses to begin a cluster at URLs where one runs that does not wait for this member.
pub(super) async fn refuse_running(
    begun: &Plan,
    tls: &Arc<Tls>,
    within: &Duration,
) -> Result<(), BootError> {
    let mut asked = ask(begun, tls, *within);
    while let Some(answer) = asked.join_next().await {
        let Ok((_, Ok(told))) = answer else { continue };
        check_running(begun, &told)?;
    }
    Ok(())
}

fn check_running(begun: &Plan, told: &Told) -> Result<(), BootError> {
    let (id, url) = (begun.member_id, told.by.clone());
    let own = told.members.iter().find(|one| one.member.id == id);
    match own {
        Some(own) if own.is_started => Err(BootError::Bootstrapped { id, url }),
        Some(_) => Ok(()),
        // They are about to begin, too.
        None if !told.members.iter().any(|one| one.is_started) => Ok(()),
        None if told.cluster_id == begun.cluster_id => Err(BootError::Removed { id, url }),
        None => Err(BootError::OtherCluster {
            url,
            theirs: told.cluster_id,
            ours: begun.cluster_id,
        }),
    }
}

/// The plan to join the cluster that the others are in; `listed` is what `--initial-cluster` says.
pub(super) async fn join(
    listed: &Plan,
    tls: &Arc<Tls>,
    within: &Duration,
) -> Result<Plan, BootError> {
    let mut asked = ask(listed, tls, *within);
    let mut failures = Vec::new();
    let mut refused = None;
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((_, Ok(told))) => match matched(listed, &told, Instant::now() + LOOKUP).await {
                Ok(plan) => return Ok(plan),
                // Another one may know more.
                Err(error) => refused = refused.or(Some(error)),
            },
            Ok((url, Err(why))) => failures.push(format!("{url}: {why}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if let Some(error) = refused {
        return Err(error);
    }
    let why = match failures.is_empty() {
        true => {
            "--initial-cluster names no other member; it must name all, as `member add` printed"
                .to_owned()
        }
        false => failures.join("; "),
    };
    Err(BootError::Unreachable(format!(
        "could not retrieve cluster information from the given URLs ({why})"
    )))
}

/// The plan, if each of the cluster's members is listed with its URLs, and this one waits to start.
async fn matched(listed: &Plan, told: &Told, deadline: Instant) -> Result<Plan, BootError> {
    let mut members = Vec::new();
    let mut own = None;
    let mut stranger = None;
    for one in &told.members {
        match listed_as(&one.member, listed, deadline).await {
            Ok(entry) => {
                if entry.id == listed.member_id {
                    own = Some(one);
                }
                members.push(Member {
                    name: entry.name.clone(),
                    ..one.member.clone()
                });
            }
            Err(why) => stranger = stranger.or(Some(why)),
        }
    }
    let by = &told.by;
    let unknown = match own {
        Some(_) => String::new(),
        None => format!(
            "; the cluster at {by} does not know this member's peer URLs {}: add it first with \
             member add",
            listed.own().peer_urls.join(",")
        ),
    };
    let (here, there) = (listed.members.len(), told.members.len());
    if here != there {
        return Err(BootError::Mismatch(format!(
            "member count is unequal: --initial-cluster has {here}, the cluster at {by} has \
             {there}{unknown}"
        )));
    }
    if let Some(why) = stranger {
        return Err(BootError::Mismatch(format!("{why}{unknown}")));
    }
    let own = own.expect("as many as are listed, all different, and each of them is listed");
    let id = own.member.id;
    if own.is_started {
        let url = by.clone();
        return Err(BootError::Bootstrapped { id, url });
    }
    Ok(Plan {
        cluster_id: told.cluster_id,
        member_id: id,
        members,
        joining: true,
    })
}

/// The entry of `listed` that has this member's URLs.
async fn listed_as<'a>(
    member: &Member,
    listed: &'a Plan,
    deadline: Instant,
) -> Result<&'a Member, String> {
    let mut last = String::new();
    for entry in &listed.members {
        match address::same(&member.peer_urls, &entry.peer_urls, deadline).await {
            Ok(()) => return Ok(entry),
            Err(why) => last = why,
        }
    }
    Err(format!(
        "PeerURLs: no match found for existing member ({:x}, {:?}), last resolver error ({last})",
        member.id, member.peer_urls
    ))
}

/// Asks all members of the plan but this one.
fn ask(plan: &Plan, tls: &Arc<Tls>, within: Duration) -> JoinSet<(String, Result<Told, String>)> {
    let client = Client::new(tls);
    let mut asked = JoinSet::new();
    let others = plan.members.iter().filter(|one| one.id != plan.member_id);
    for url in others.flat_map(|member| member.peer_urls.clone()) {
        let client = client.clone();
        asked.spawn(async move {
            let answer = client.get(&format!("{url}/members"), within).await;
            let told = answer.and_then(|answer| read(&url, &answer));
            if let Err(why) = &told {
                tracing::warn!("{url} does not say what cluster it is in: {why}");
            }
            (url, told)
        });
    }
    asked
}

/// Reads what etcd's and our peer ports answer.
fn read(url: &str, answer: &Answer) -> Result<Told, String> {
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    let cluster = answer.headers.get("X-Etcd-Cluster-ID");
    let cluster = cluster.and_then(|id| u64::from_str_radix(id.to_str().ok()?, 16).ok());
    let cluster_id = cluster.ok_or("no cluster ID: it is the peer URL of no etcd")?;
    let members: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    let members = members
        .as_array()
        .map(|all| all.iter().map(read_member).collect());
    let members: Option<Vec<_>> = members.unwrap_or(None);
    let mut members = members.ok_or("the list of its members cannot be read")?;
    if members.is_empty() {
        return Err("it has no members yet".to_owned());
    }
    members.sort_by_key(|one| one.member.id);
    Ok(Told {
        by: url.to_owned(),
        cluster_id,
        members,
    })
}

fn read_member(value: &Value) -> Option<ToldMember> {
    let urls = |field| {
        let all = match &value[field] {
            Value::Null => return Some(Vec::new()),
            other => other.as_array()?,
        };
        let mut urls: Vec<String> = all
            .iter()
            .map(|url| url.as_str().map(str::to_owned))
            .collect::<Option<_>>()?;
        urls.sort();
        Some(urls)
    };
    Some(ToldMember {
        member: Member {
            id: value["id"].as_u64()?,
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            peer_urls: urls("peerURLs")?,
        },
        is_started: !urls("clientURLs")?.is_empty(),
    })
}
