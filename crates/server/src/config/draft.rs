//! A configuration while its flags come in, and the rules that hold between them.
//!
//! Flags come in any order, so each only fills its place; [`Draft::finish`] judges the whole and
//! makes the [`Config`]. Sentences are etcd's where etcd has one.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    AutoCompaction, Config, InitialCluster, ListenUrl, PeerUrls, Url, Warning, duration, security,
};

/// A configuration in the making.
pub(super) struct Draft {
    /// What needs no further judging; the rest of it is filled by [`Draft::finish`].
    pub(super) config: Config,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listen_client_urls: Option<Vec<Url>>,
    pub(super) advertise_client_urls: Option<Vec<Url>>,
    pub(super) listen_peer_urls: Vec<Url>,
    pub(super) listen_metrics_urls: Vec<Url>,
    /// Empty when unset.
    pub(super) initial_cluster: PeerUrls,
    pub(super) discovery: Option<String>,
    pub(super) discovery_srv: Option<String>,
    pub(super) discovery_srv_name: String,
    pub(super) heartbeat_ms: u64,
    pub(super) election_ms: u64,
    pub(super) compaction_mode: Option<String>,
    pub(super) compaction_retention: Option<String>,
    pub(super) config_file: Option<PathBuf>,
    pub(super) warnings: Vec<Warning>,
    /// Why this server must not start, however good the values are.
    refusal: Option<String>,
}

/// The longest election timeout, in milliseconds.
const MAX_ELECTION_MS: u64 = 50_000;

impl Draft {
    /// A draft where nothing is set.
    pub(super) fn new() -> Self {
        Self {
            config: Config::default(),
            data_dir: None,
            listen_client_urls: None,
            advertise_client_urls: None,
            listen_peer_urls: vec![super::default_peer_url()],
            listen_metrics_urls: Vec::new(),
            initial_cluster: PeerUrls::new(),
            discovery: None,
            discovery_srv: None,
            discovery_srv_name: String::new(),
            heartbeat_ms: 100,
            election_ms: 1_000,
            compaction_mode: None,
            compaction_retention: None,
            config_file: None,
            warnings: Vec::new(),
            refusal: None,
        }
    }

    /// Adds a warning, unless it is there already.
    pub(super) fn warn_once(&mut self, text: String) {
        if !self.warnings.iter().any(|warning| warning.0 == text) {
            self.warnings.push(Warning(text));
        }
    }

    /// Remembers why this server must not start; the first reason holds.
    pub(super) fn refuse(&mut self, why: String) {
        self.refusal.get_or_insert(why);
    }

    /// Judges the whole.
    ///
    /// # Errors
    /// A sentence that says which flags do not go together, or what does not work yet.
    pub(super) fn finish(mut self) -> Result<(Config, Vec<Warning>), String> {
        if let Some(why) = self.refusal.take() {
            return Err(why);
        }
        if self.config.name.is_empty() {
            return Err("--name must not be empty".to_owned());
        }
        self.check_timing()?;
        let initial_cluster = self.initial_cluster()?;
        let auto_compaction = self.auto_compaction()?;

        if self.listen_client_urls.is_some() && self.advertise_client_urls.is_none() {
            return Err(
                "--advertise-client-urls is required when --listen-client-urls is set \
                        explicitly"
                    .to_owned(),
            );
        }
        let clients = match self.listen_client_urls.take() {
            Some(urls) => bindable(urls)?,
            None => self.config.listen_client_urls.clone(),
        };
        let peers = bindable(std::mem::take(&mut self.listen_peer_urls))?;
        let metrics = bindable(std::mem::take(&mut self.listen_metrics_urls))?;
        let listen = security::Listen {
            clients: &clients,
            peers: &peers,
            metrics: &metrics,
        };
        security::judge(&mut self, &listen)?;
        let mut config = self.config;
        config.auto_compaction = auto_compaction;
        config.initial_cluster = initial_cluster;
        config.data_dir = self
            .data_dir
            .unwrap_or_else(|| format!("{}.etcd", config.name).into());
        config.heartbeat_interval = Duration::from_millis(self.heartbeat_ms);
        config.election_timeout = Duration::from_millis(self.election_ms);
        config.listen_client_urls = clients;
        config.listen_peer_urls = peers;
        config.listen_metrics_urls = metrics;
        if let Some(urls) = self.advertise_client_urls {
            config.advertise_client_urls = urls;
        }
        Ok((config, self.warnings))
    }

    fn check_timing(&self) -> Result<(), String> {
        let (heartbeat, election) = (self.heartbeat_ms, self.election_ms);
        for (flag, ms) in [
            ("heartbeat-interval", heartbeat),
            ("election-timeout", election),
        ] {
            if ms == 0 {
                return Err(format!("--{flag} must be >0 (set to {ms}ms)"));
            }
        }
        if heartbeat.saturating_mul(5) > election {
            return Err(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if election > MAX_ELECTION_MS {
            return Err(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {MAX_ELECTION_MS}ms"
            ));
        }
        Ok(())
    }

    /// Where the members are from: one of three ways, or nobody but this member. Whether they can make
    /// a cluster is judged once one is to be made: with data there, all of this is ignored.
    fn initial_cluster(&mut self) -> Result<InitialCluster, String> {
        let suffix = std::mem::take(&mut self.discovery_srv_name);
        if !suffix.is_empty() && self.discovery_srv.is_none() {
            return Err("--discovery-srv-name needs --discovery-srv".to_owned());
        }
        let mut members = std::mem::take(&mut self.initial_cluster);
        match (
            members.is_empty(),
            self.discovery.take(),
            self.discovery_srv.take(),
        ) {
            (true, None, None) => {
                let urls = self.config.advertise_peer_urls.clone();
                members.insert(self.config.name.clone(), urls);
                Ok(InitialCluster::Static(members))
            }
            (false, None, None) => Ok(InitialCluster::Static(members)),
            (true, Some(url), None) => Ok(InitialCluster::Discovery(url)),
            (true, None, Some(domain)) => Ok(InitialCluster::Srv {
                domain,
                service_suffix: suffix,
            }),
            _ => Err(
                "multiple discovery or bootstrap flags are set. Choose one of \
                      \"initial-cluster\", \"discovery\" or \"discovery-srv\""
                    .to_owned(),
            ),
        }
    }

    fn auto_compaction(&self) -> Result<AutoCompaction, String> {
        let bad = |why: String| format!("error parsing CompactionRetention: {why}");
        match (
            self.compaction_mode.as_deref(),
            self.compaction_retention.as_deref(),
        ) {
            (Some("periodic") | None, None) => Ok(AutoCompaction::default()),
            (Some("periodic") | None, Some(text)) => {
                let retention = match text.parse::<u64>() {
                    Ok(hours) => hours
                        .checked_mul(3_600)
                        .map(Duration::from_secs)
                        .ok_or_else(|| bad(format!("{text} hours are too many")))?,
                    Err(_) => duration::parse(text).map_err(bad)?,
                };
                Ok(match retention.is_zero() {
                    true => AutoCompaction::Off,
                    false => AutoCompaction::Periodic {
                        retention,
                        keep_at_least: 0,
                    },
                })
            }
            (Some("revision"), text) => match text.unwrap_or("0").parse() {
                Ok(0) => Ok(AutoCompaction::Off),
                Ok(retention) => Ok(AutoCompaction::Revision { retention }),
                Err(_) => Err(bad(format!(
                    "{:?} is not a number of revisions",
                    text.unwrap_or_default()
                ))),
            },
            (Some(mode), _) => Err(format!("unknown auto-compaction-mode {mode:?}")),
        }
    }
}

fn bindable(urls: Vec<Url>) -> Result<Vec<ListenUrl>, String> {
    urls.into_iter().map(ListenUrl::from_url).collect()
}
