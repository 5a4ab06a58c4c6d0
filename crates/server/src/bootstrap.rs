//! Which cluster a member without data belongs to, and as whom.
//!
//! [`plan`] reads the settings, asks whoever they name (the other members, a discovery service, the
//! DNS), and says which ids and members the new directory is for; or why the member must not start.
//! A directory that has a member needs no plan: then all these settings are ignored, as in etcd.
//!
//! Owns the rules of etcd's bootstrap and their sentences. Writes nothing, and changes nothing but
//! this member's entry under a discovery token. Every question has a time limit; only the wait for
//! members that have not registered has none.
//!
//! O1. A plan's members have different ids and no URL in common, and this member is one of them.
//! O2. No plan is made for a member that its cluster knows as started: its data is gone, and with it
//!     what it promised.
//!
//! Source: spec/v2-api.md §3.1, §4; spec/v3-api.md §2.11, §3.

mod address;
#[cfg(test)]
mod canned;
mod client;
mod discovery;
mod others;
mod rules;
mod srv;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::Client;
use quorate_store::Member;

use crate::config::{ClusterState, Config, InitialCluster, PeerUrls};
use crate::tls::Tls;

pub use discovery::DiscoveryError;

/// What a new directory is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
    /// All members, this one among them, sorted by id, with their peer URLs. One that the DNS found and
    /// that is not this one has a number for a name.
    pub members: Vec<Member>,
    /// Whether the cluster is there already and knows this member.
    pub joining: bool,
}

/// Why a member without data does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The settings make no cluster that this member is part of.
    #[error("{0}")]
    Settings(String),
    /// The cluster knows this member as one that has started.
    #[error(
        "member {id:x} has already been bootstrapped: the cluster at {url} knows it as started, and \
         its data directory is empty. If the data is lost, remove the member, add it again, and start \
         it with --initial-cluster-state=existing"
    )]
    Bootstrapped {
        /// This member.
        id: u64,
        /// Who said so.
        url: String,
    },
    /// The cluster ran without this member.
    #[error(
        "member {id:x} is not in its cluster any more, says {url}: it was removed. Add it again and \
         start it with --initial-cluster-state=existing"
    )]
    Removed {
        /// This member.
        id: u64,
        /// Who said so.
        url: String,
    },
    /// Another cluster runs at the other members' URLs.
    #[error(
        "the member at {url} is of cluster {theirs:x}, which runs, and not of {ours:x}, which this \
         member would begin. To join it, add this member to it and start with \
         --initial-cluster-state=existing"
    )]
    OtherCluster {
        /// Who said so.
        url: String,
        /// Its cluster.
        theirs: u64,
        /// Ours to be.
        ours: u64,
    },
    /// Nobody tells which cluster to join.
    #[error("cannot fetch cluster info from peer urls: {0}")]
    Unreachable(String),
    /// The cluster to join is not the one of `--initial-cluster`.
    #[error("error validating peerURLs: {0}")]
    Mismatch(String),
    /// No cluster by the discovery service.
    #[error("failed to join discovery cluster ({0})")]
    Discovery(#[from] DiscoveryError),
    /// No cluster by the DNS.
    #[error("error setting up initial cluster: {0}")]
    Srv(String),
}

/// Finds out what a member without data is to be.
///
/// Takes as long as the others take to register, with discovery; else at most some 30 s. `again`: this
/// member's start was cut short after an earlier plan, so that it may be registered already.
///
/// # Errors
/// [`BootError`], each with a sentence for the operator.
pub async fn plan(config: &Config, again: bool, tls: &Arc<Tls>) -> Result<Plan, BootError> {
    let plan = unlogged(config, again, &Client::new(tls)).await?;
    let named = |one: &Member| format!("{:x}={}={}", one.id, one.name, one.peer_urls.join("|"));
    tracing::info!(
        cluster_id = format!("{:x}", plan.cluster_id),
        member_id = format!("{:x}", plan.member_id),
        members = plan.members.iter().map(named).collect::<Vec<_>>().join(","),
        "{}",
        match plan.joining {
            true => "joining a cluster",
            false => "beginning a cluster",
        }
    );
    Ok(plan)
}

async fn unlogged(config: &Config, again: bool, client: &Client) -> Result<Plan, BootError> {
    let name = &config.name;
    let (members, token) = match &config.initial_cluster {
        InitialCluster::Static(members) => (members.clone(), &config.initial_cluster_token),
        InitialCluster::Srv {
            domain,
            service_suffix,
        } => {
            let members = srv::members(config, domain, service_suffix).await?;
            (members, &config.initial_cluster_token)
        }
        // Only this member is known yet.
        InitialCluster::Discovery(url) => {
            let own = (name.clone(), config.advertise_peer_urls.clone());
            (PeerUrls::from([own]), url)
        }
    };
    let begun = rules::found(name, &members, token)?;
    if config.initial_cluster_state == ClusterState::Existing {
        if matches!(config.initial_cluster, InitialCluster::Discovery(_)) {
            let text = "discovery URL should not be set when joining existing initial cluster";
            return Err(BootError::Settings(text.to_owned()));
        }
        return others::join(client, &begun).await;
    }
    rules::check_advertised(config, &members).await?;
    others::refuse_running(client, &begun).await?;
    match &config.initial_cluster {
        InitialCluster::Discovery(url) => {
            let members = discovery::join(url, &begun, &members, again).await?;
            rules::found(name, &members, url)
        }
        InitialCluster::Static(_) | InitialCluster::Srv { .. } => Ok(begun),
    }
}

/// The plan of a new cluster whose members `--initial-cluster` names, without asking anybody: for a
/// directory that is made beside a running cluster.
///
/// # Errors
/// [`BootError::Settings`], also where only a look-up could tell whether two URLs are one.
pub fn plan_alone(config: &Config) -> Result<Plan, BootError> {
    let InitialCluster::Static(members) = &config.initial_cluster else {
        let text = "the members must be named by --initial-cluster".to_owned();
        return Err(BootError::Settings(text));
    };
    rules::check_advertised_text(config, members)?;
    rules::found(&config.name, members, &config.initial_cluster_token)
}

/// Says what was set and is ignored, since the directory has a member.
pub fn note_ignored(config: &Config) {
    let flag = match &config.initial_cluster {
        InitialCluster::Static(_) => return,
        InitialCluster::Discovery(_) => "--discovery",
        InitialCluster::Srv { .. } => "--discovery-srv",
    };
    tracing::warn!("{flag} is ignored: the data directory has a member, which has its cluster");
}

impl Plan {
    /// The members as each of them writes them into its first state, which must be the same: without
    /// names, since their lists may call one member differently. Each tells its own once it runs.
    pub fn first_members(&self) -> impl Iterator<Item = Member> + '_ {
        self.members.iter().map(|member| Member {
            name: String::new(),
            ..member.clone()
        })
    }

    /// This member.
    fn own(&self) -> &Member {
        let own = self.members.iter().find(|one| one.id == self.member_id);
        own.expect("O1: this member is one of the plan's")
    }
}
