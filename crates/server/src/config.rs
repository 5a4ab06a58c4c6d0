//! How the server is started: etcd's flags, `ETCD_*` variables and file, read into one [`Config`].
//!
//! [`parse`] is a function of its arguments: it reads neither the process's arguments nor its
//! environment, and a file only through what it is handed. What it returns has been judged whole;
//! nothing after it needs to check a setting again.
//!
//! Owns the table of flags ([`flags`]), the rules between them, ids and versions. Never binds,
//! opens or prints anything.
//!
//! C1. Nothing that is set is ignored in silence: it is in force, warned of, or refused.
//! C2. A file of settings stands alone; flags and variables beside it are ignored, and warned of.

mod cluster;
mod draft;
mod duration;
mod flags;
mod help;
mod ids;
mod in_force;
mod inert;
mod security;
mod sources;
mod url;
mod util;
mod yaml;

pub mod version;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Parser as _;

pub use cluster::{ClusterState, InitialCluster, PeerUrls, parse_peer_urls, peer_urls_text};
pub use flags::{Flag, Kind, flags};
pub use ids::{cluster_id, member_id};
#[cfg(test)]
pub(crate) use security::SUITES;
pub use security::{TlsChoice, TlsVersion, Transport};
pub use url::{ListenUrl, Scheme, Url};
pub use util::{Restore, SnapshotCommand, UtilCommand, WriteOut};

use draft::Draft;
use sources::CommandLine;

/// The quota that `--quota-backend-bytes=0` means: 2 GiB.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

/// The largest `--max-request-bytes`: half of a log segment, since a request must fit one.
pub const MAX_REQUEST_BYTES_BOUND: u64 = 32 << 20;

/// How often a watcher that asked for it is told that nothing happened, unless configured.
pub const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// All settings of a server, judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// This member's name, not empty.
    pub name: String,
    /// The data directory, as given; relative to the current folder.
    pub data_dir: PathBuf,
    /// Where to listen for clients; not empty.
    pub listen_client_urls: Vec<ListenUrl>,
    /// Where clients are told to reach this member; sorted as text, not empty.
    pub advertise_client_urls: Vec<Url>,
    /// Where to listen for members; not empty.
    pub listen_peer_urls: Vec<ListenUrl>,
    /// Where members are told to reach this one; sorted as text, not empty.
    pub advertise_peer_urls: Vec<Url>,
    /// Where else to serve `/metrics` and `/health`; often empty.
    pub listen_metrics_urls: Vec<ListenUrl>,
    /// Who the members are to be, for a member without data.
    pub initial_cluster: InitialCluster,
    /// Whether a member without data begins a cluster or joins one.
    pub initial_cluster_state: ClusterState,
    /// TLS of the client URLs and the metrics URLs.
    pub client_tls: Transport,
    /// TLS of the peer URLs and of the connections to other members.
    pub peer_tls: Transport,
    /// What TLS may be on either.
    pub tls: TlsChoice,
    /// Goes into the member's and the cluster's id.
    pub initial_cluster_token: String,
    /// Go on as a cluster of this member alone, with the data that it has.
    pub force_new_cluster: bool,
    /// Refuse changes of the members that would cost the quorum.
    pub strict_reconfig_check: bool,
    /// How many learners that nobody wants as voters there may be.
    pub max_learners: u64,
    /// Begin the first election soon, instead of after a whole timeout.
    pub initial_election_tick_advance: bool,
    /// Time between heartbeats; not zero.
    pub heartbeat_interval: Duration,
    /// Time without a leader until an election: 5 heartbeats to 50 s.
    pub election_timeout: Duration,
    /// Live bytes above which writes are refused; `None` for no quota.
    pub quota_bytes: Option<u64>,
    /// Memory for older versions of keys, in bytes.
    pub history_memory_bytes: u64,
    /// The largest encoded request, in bytes; at most [`MAX_REQUEST_BYTES_BOUND`].
    pub max_request_bytes: u64,
    /// The most operations in one transaction.
    pub max_txn_ops: u64,
    /// The most HTTP/2 streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// How often a watcher that asked for it is told that nothing happened; at least 100 ms.
    pub watch_progress_interval: Duration,
    /// What to compact without being asked.
    pub auto_compaction: AutoCompaction,
    /// Whether `/v2` is served.
    pub enable_v2: bool,
    /// Whether v3 is also answered as JSON over HTTP.
    pub enable_grpc_gateway: bool,
    /// Origins that browsers may call from.
    pub cors: AllowList,
    /// Host names that HTTP requests may be for.
    pub host_whitelist: AllowList,
    /// The least severe messages that are logged.
    pub log_level: LogLevel,
    /// How a message is written.
    pub log_format: LogFormat,
    /// Where messages go; not empty.
    pub log_outputs: Vec<LogOutput>,
}

/// What is compacted without being asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AutoCompaction {
    /// Nothing, but for the bound on history's memory.
    Off,
    /// What is older than `retention`, though never the newest `keep_at_least` revisions.
    Periodic {
        /// Not zero.
        retention: Duration,
        /// A number of revisions; 0 when the retention was set, since etcd keeps none then.
        keep_at_least: u64,
    },
    /// All but the newest `retention` revisions; not zero.
    Revision {
        /// A number of revisions.
        retention: u64,
    },
}

/// Which texts are allowed, out of a list that may be open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AllowList {
    /// All of them: nothing was set, or `*`.
    All,
    /// These only.
    Only(BTreeSet<String>),
}

/// The least severe messages that are logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// All messages.
    Debug,
    /// All but debugging.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors only.
    Error,
}

/// How a log message is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// An object on a line, in etcd's shape.
    Json,
    /// Columns parted by tabs.
    Console,
}

/// Where log messages go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogOutput {
    /// Standard error, which systemd hands to its journal.
    Stderr,
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Something that was set and does not do what one may expect of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning(String);

/// What a command line asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Invocation {
    /// Run a server. The warnings are to be logged once there is a log.
    Serve(Box<Config>, Vec<Warning>),
    /// Print [`version::text`].
    Version,
    /// Print this.
    Help(String),
    /// Work on a data directory.
    Util(UtilCommand),
}

/// Why a command line asks for nothing that can be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageError {
    text: String,
    exit_code: u8,
}

/// Reads what the process was started with. `args` go without the program's name.
///
/// # Errors
/// What to print and how to exit: in etcd's words and with etcd's codes, where it has them.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Invocation, UsageError> {
    let args = args
        .into_iter()
        .map(|arg| {
            arg.into_string()
                .map_err(|arg| UsageError::flags(format!("argument {arg:?} is not UTF-8")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    match args.first().map(String::as_str) {
        Some("util") => return parse_util(args),
        Some(command @ ("gateway" | "grpc-proxy")) => {
            return Err(UsageError::config(format!(
                "'{command}' of etcd is not in Quorate"
            )));
        }
        _ => {}
    }

    let mut draft = Draft::new();
    let set = match sources::read_command_line(args, &mut draft)? {
        CommandLine::Help => return Ok(Invocation::Help(help::text())),
        CommandLine::Version => return Ok(Invocation::Version),
        CommandLine::Set(set) => set,
    };
    let variables = sources::etcd_variables(env)?;
    let draft = match config_file(&draft, &variables) {
        Some(path) => from_file(&path, &set, &variables, read_file)?,
        None => {
            sources::read_variables(&variables, &set, &mut draft)?;
            draft
        }
    };
    let (config, warnings) = draft.finish().map_err(UsageError::config)?;
    Ok(Invocation::Serve(Box::new(config), warnings))
}

const FILE_VARIABLE: &str = "ETCD_CONFIG_FILE";

fn config_file(draft: &Draft, variables: &[(String, String)]) -> Option<PathBuf> {
    let from_variable = || variables.iter().find(|(name, _)| name == FILE_VARIABLE);
    draft
        .config_file
        .clone()
        .or_else(|| from_variable().map(|(_, value)| value.into()))
}

/// The draft of a file alone, with a warning that names what was given beside it.
fn from_file(
    path: &Path,
    set: &[&Flag],
    variables: &[(String, String)],
    read_file: impl FnOnce(&Path) -> io::Result<String>,
) -> Result<Draft, UsageError> {
    let refuse = |why: String| UsageError::config(format!("{}: {why}", path.display()));
    let text = read_file(path).map_err(|error| refuse(error.to_string()))?;
    let mut draft = Draft::new();
    yaml::read(&text, &mut draft).map_err(refuse)?;

    let flags = set
        .iter()
        .map(|flag| flag.name)
        .filter(|name| *name != "config-file");
    let names = variables
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name != FILE_VARIABLE);
    let ignored: Vec<_> = flags
        .map(|name| format!("--{name}"))
        .chain(names.cloned())
        .collect();
    if !ignored.is_empty() {
        draft.warn_once(format!(
            "settings come from {} alone; ignored beside it: {}",
            path.display(),
            ignored.join(", ")
        ));
    }
    Ok(draft)
}

fn parse_util(args: Vec<String>) -> Result<Invocation, UsageError> {
    match util::Util::try_parse_from(args) {
        Ok(util) => Ok(Invocation::Util(util.command)),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            Ok(Invocation::Help(error.to_string()))
        }
        Err(error) => Err(UsageError {
            text: error.to_string(),
            exit_code: 2,
        }),
    }
}

impl Default for Config {
    /// What holds when nothing is set.
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: "default.etcd".into(),
            listen_client_urls: vec![listen_on_localhost(2379)],
            advertise_client_urls: vec![localhost(2379)],
            listen_peer_urls: vec![listen_on_localhost(2380)],
            advertise_peer_urls: vec![default_peer_url()],
            listen_metrics_urls: Vec::new(),
            initial_cluster: InitialCluster::Static(PeerUrls::from([(
                "default".to_owned(),
                vec![default_peer_url()],
            )])),
            initial_cluster_state: ClusterState::New,
            client_tls: Transport::default(),
            peer_tls: Transport::default(),
            tls: TlsChoice::default(),
            initial_cluster_token: "etcd-cluster".to_owned(),
            force_new_cluster: false,
            strict_reconfig_check: true,
            max_learners: 1,
            initial_election_tick_advance: true,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            quota_bytes: Some(DEFAULT_QUOTA_BYTES),
            history_memory_bytes: 256 << 20,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            max_concurrent_streams: u32::MAX,
            watch_progress_interval: DEFAULT_PROGRESS_INTERVAL,
            auto_compaction: AutoCompaction::default(),
            enable_v2: true,
            enable_grpc_gateway: true,
            cors: AllowList::All,
            host_whitelist: AllowList::All,
            log_level: LogLevel::Info,
            log_format: LogFormat::Json,
            log_outputs: vec![LogOutput::Stderr],
        }
    }
}

fn localhost(port: u16) -> Url {
    Url {
        scheme: Scheme::Http,
        host: "localhost".to_owned(),
        port,
    }
}

fn listen_on_localhost(port: u16) -> ListenUrl {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    ListenUrl {
        url: localhost(port),
        address,
    }
}

fn default_peer_url() -> Url {
    localhost(2380)
}

impl Default for AutoCompaction {
    /// An hour, and never the newest 1,000 revisions: v2 clients do not compact.
    fn default() -> Self {
        Self::Periodic {
            retention: Duration::from_secs(3_600),
            keep_at_least: 1_000,
        }
    }
}

impl AllowList {
    /// Reads a comma-separated list; an empty one or one with `*` allows all.
    fn parse(text: &str) -> Self {
        let items: BTreeSet<_> = flags::list(text).into_iter().collect();
        if items.is_empty() || items.contains("*") {
            Self::All
        } else {
            Self::Only(items)
        }
    }

    /// Whether `text` is allowed.
    #[must_use]
    pub fn allows(&self, text: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(items) => items.contains(text),
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Reads etcd's word for a level, in lower case.
    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" | "panic" | "fatal" => Ok(Self::Error),
            _ => Err(format!("unknown level {word:?}")),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl UsageError {
    /// Something that is no flag, or no value for one: Go says so, shows the usage and exits with 2.
    fn flags(text: String) -> Self {
        Self {
            text: format!("{text}\n{}", help::USAGE),
            exit_code: 2,
        }
    }

    /// Settings that were read and cannot be run with: exit code 1.
    fn config(text: String) -> Self {
        Self {
            text: format!("error verifying flags, {text}. See 'quorate --help'.\n"),
            exit_code: 1,
        }
    }

    /// The status that the process exits with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for UsageError {
    /// What to print on standard error, with its line's end.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for UsageError {}
