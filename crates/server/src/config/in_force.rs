//! The flags that this server heeds.
//!
//! Each row holds the flag's name, its documentation and what it does to the [`Draft`]. Rules that
//! hold between flags are in [`Draft::finish`], since flags come in any order.

use std::time::Duration;

use super::cluster::{ClusterState, discovery_url, parse_peer_urls};
use super::draft::Draft;
use super::flags::{Apply, Effect, Flag, Kind, boolean, choice, int, list, uint};
use super::{AllowList, DEFAULT_PROGRESS_INTERVAL, LogFormat, LogLevel, LogOutput, Url, duration};
use Kind::{Bool, Choice, Int, List, Text, Uint};

/// A row of a flag that is in force.
pub(super) const fn flag(
    name: &'static str,
    versions: &'static str,
    default: &'static str,
    kind: Kind,
    doc: &'static str,
    apply: Apply,
) -> Flag {
    Flag {
        name,
        versions,
        default,
        kind,
        doc,
        effect: Effect::InForce(apply),
    }
}

/// The rows, in the order of the help text.
pub(super) const TABLE: &[Flag] = &[
    flag(
        "name",
        "all",
        "default",
        Text,
        "The name of this member.",
        |draft, value| {
            draft.config.name = value.to_owned();
            Ok(())
        },
    ),
    flag(
        "data-dir",
        "all",
        "",
        Text,
        "The data directory; <name>.etcd in the current folder by default.",
        |draft, value| {
            draft.data_dir = (!value.is_empty()).then(|| value.into());
            Ok(())
        },
    ),
    flag(
        "listen-client-urls",
        "all",
        "http://localhost:2379",
        List,
        "Where to listen for clients: IP addresses or localhost, with a port.",
        |draft, value| {
            draft.listen_client_urls = Some(urls(value)?);
            Ok(())
        },
    ),
    flag(
        "advertise-client-urls",
        "all",
        "http://localhost:2379",
        List,
        "Where clients reach this member. Needed when --listen-client-urls is set.",
        |draft, value| {
            draft.advertise_client_urls = Some(urls(value)?);
            Ok(())
        },
    ),
    flag(
        "listen-peer-urls",
        "all",
        "http://localhost:2380",
        List,
        "Where to listen for other members.",
        |draft, value| {
            draft.listen_peer_urls = urls(value)?;
            Ok(())
        },
    ),
    flag(
        "initial-advertise-peer-urls",
        "all",
        "http://localhost:2380",
        List,
        "Where other members reach this one.",
        |draft, value| {
            draft.config.advertise_peer_urls = urls(value)?;
            Ok(())
        },
    ),
    flag(
        "initial-cluster",
        "all",
        "",
        Text,
        "The members as name=peer-URL, parted by commas. By default this member alone, with its \
         advertised peer URLs. Like all of --initial-cluster*, only heeded without data.",
        |draft, value| {
            draft.initial_cluster = parse_peer_urls(value)?;
            Ok(())
        },
    ),
    flag(
        "initial-cluster-state",
        "all",
        "new",
        Choice(&CLUSTER_STATES),
        "Whether to begin a cluster (new), or to join one where this member was added (existing).",
        |draft, value| {
            draft.config.initial_cluster_state = match choice(value, &CLUSTER_STATES)? {
                "existing" => ClusterState::Existing,
                _ => ClusterState::New,
            };
            Ok(())
        },
    ),
    flag(
        "initial-cluster-token",
        "all",
        "etcd-cluster",
        Text,
        "Tells clusters apart that have the same URLs; goes into the ids.",
        |draft, value| {
            draft.config.initial_cluster_token = value.to_owned();
            Ok(())
        },
    ),
    flag(
        "discovery",
        "3.4 to 3.5",
        "",
        Text,
        "The URL of a token of a discovery service, or of a directory of an etcd's v2 keys, where the \
         members of a new cluster find one another; instead of --initial-cluster.",
        |draft, value| {
            draft.discovery = match value {
                "" => None,
                url => Some(discovery_url(url)?),
            };
            Ok(())
        },
    ),
    flag(
        "discovery-fallback",
        "all",
        "exit",
        Choice(&FALLBACKS),
        "What to do when the discovered cluster is full: exit. etcd's proxy is not in Quorate.",
        |draft, value| {
            if choice(value, &FALLBACKS)? == "proxy" {
                draft.warn_once(
                    "--discovery-fallback=proxy: there is no v2 proxy in Quorate; a member that \
                     finds the cluster full exits"
                        .to_owned(),
                );
            }
            Ok(())
        },
    ),
    flag(
        "discovery-srv",
        "all",
        "",
        Text,
        "The domain whose SRV records _etcd-server-ssl._tcp and _etcd-server._tcp name the members; \
         instead of --initial-cluster.",
        |draft, value| {
            draft.discovery_srv = (!value.is_empty()).then(|| value.to_owned());
            Ok(())
        },
    ),
    flag(
        "discovery-srv-name",
        "all",
        "",
        Text,
        "NAME in the records _etcd-server-ssl-NAME._tcp and _etcd-server-NAME._tcp.",
        |draft, value| {
            draft.discovery_srv_name = value.to_owned();
            Ok(())
        },
    ),
    flag(
        "force-new-cluster",
        "all",
        "false",
        Bool,
        "Go on as a cluster of this member alone, with its data; the others must never come back.",
        |draft, value| {
            draft.config.force_new_cluster = boolean(value)?;
            Ok(())
        },
    ),
    flag(
        "strict-reconfig-check",
        "all",
        "true",
        Bool,
        "Refuse to add or remove members when that would cost the quorum.",
        |draft, value| {
            draft.config.strict_reconfig_check = boolean(value)?;
            Ok(())
        },
    ),
    flag(
        "max-learners",
        "from 3.6",
        "1",
        Uint,
        "How many learners there may be.",
        max_learners,
    ),
    flag(
        "experimental-max-learners",
        "3.6",
        "1",
        Uint,
        "The older name of --max-learners.",
        max_learners,
    ),
    flag(
        "initial-election-tick-advance",
        "all",
        "true",
        Bool,
        "Begin the first election soon after the start, instead of after a whole timeout.",
        |draft, value| {
            draft.config.initial_election_tick_advance = boolean(value)?;
            Ok(())
        },
    ),
    flag(
        "heartbeat-interval",
        "all",
        "100",
        Uint,
        "Milliseconds between heartbeats.",
        |draft, value| {
            draft.heartbeat_ms = uint(value)?;
            Ok(())
        },
    ),
    flag(
        "election-timeout",
        "all",
        "1000",
        Uint,
        "Milliseconds without a leader until an election: at least 5 heartbeats, at most 50000.",
        |draft, value| {
            draft.election_ms = uint(value)?;
            Ok(())
        },
    ),
    flag(
        "quota-backend-bytes",
        "all",
        "0",
        Int,
        "Live bytes above which writes are refused: 0 is 2 GiB, a negative number is no quota.",
        |draft, value| {
            let bytes = int(value)?;
            draft.config.quota_bytes = match bytes {
                0 => Some(super::DEFAULT_QUOTA_BYTES),
                _ => u64::try_from(bytes).ok(),
            };
            Ok(())
        },
    ),
    flag(
        "history-memory-bytes",
        "Quorate",
        "268435456",
        Uint,
        "Memory for older versions of keys; when it is used up, history is compacted early.",
        |draft, value| {
            draft.config.history_memory_bytes = uint(value)?;
            Ok(())
        },
    ),
    flag(
        "max-request-bytes",
        "all",
        "1572864",
        Uint,
        "The largest request in bytes, at most 33554432.",
        |draft, value| {
            let bytes = uint(value)?;
            let bound = super::MAX_REQUEST_BYTES_BOUND;
            if bytes > bound {
                return Err(format!(
                    "at most {bound}, since a request must fit a log segment"
                ));
            }
            draft.config.max_request_bytes = bytes;
            Ok(())
        },
    ),
    flag(
        "max-txn-ops",
        "all",
        "128",
        Uint,
        "The most operations in a transaction.",
        |draft, value| {
            draft.config.max_txn_ops = uint(value)?;
            Ok(())
        },
    ),
    flag(
        "max-concurrent-streams",
        "all",
        "4294967295",
        Uint,
        "The most requests that one connection may have open.",
        |draft, value| {
            let streams = uint(value)?;
            draft.config.max_concurrent_streams =
                u32::try_from(streams).map_err(|_| "value out of range".to_owned())?;
            Ok(())
        },
    ),
    flag(
        "watch-progress-notify-interval",
        "from 3.6",
        "10m",
        Kind::Duration,
        "How often a watcher that asked for it is told that nothing happened.",
        progress_interval,
    ),
    flag(
        "experimental-watch-progress-notify-interval",
        "3.4 to 3.6",
        "10m",
        Kind::Duration,
        "The older name of --watch-progress-notify-interval.",
        progress_interval,
    ),
    flag(
        "auto-compaction-mode",
        "all",
        "periodic",
        Choice(&COMPACTION_MODES),
        "Whether --auto-compaction-retention is a time or a number of revisions.",
        |draft, value| {
            draft.compaction_mode = Some(value.to_owned());
            Ok(())
        },
    ),
    flag(
        "auto-compaction-retention",
        "all",
        "",
        Text,
        "How much history to keep: hours or a duration, or a number of revisions; 0 compacts \
         never. When unset: 1h, and always the newest 1000 revisions.",
        |draft, value| {
            draft.compaction_retention = Some(value.to_owned());
            Ok(())
        },
    ),
    flag(
        "enable-v2",
        "3.4 to 3.5",
        "true",
        Bool,
        "Whether to serve the v2 API.",
        |draft, value| {
            draft.config.enable_v2 = boolean(value)?;
            Ok(())
        },
    ),
    flag(
        "enable-grpc-gateway",
        "all",
        "true",
        Bool,
        "Whether to serve v3 as JSON under /v3/.",
        |draft, value| {
            draft.config.enable_grpc_gateway = boolean(value)?;
            Ok(())
        },
    ),
    flag(
        "cors",
        "all",
        "*",
        List,
        "Origins that browsers may call from; empty or * for all.",
        |draft, value| {
            draft.config.cors = AllowList::parse(value);
            Ok(())
        },
    ),
    flag(
        "host-whitelist",
        "all",
        "*",
        List,
        "Host names that HTTP requests may be for; empty or * for all.",
        |draft, value| {
            draft.config.host_whitelist = AllowList::parse(value);
            Ok(())
        },
    ),
    flag(
        "listen-metrics-urls",
        "all",
        "",
        List,
        "Where to serve /metrics and /health besides the client URLs.",
        |draft, value| {
            draft.listen_metrics_urls = Url::parse_list(value)?;
            Ok(())
        },
    ),
    flag(
        "logger",
        "all",
        "zap",
        Choice(&LOGGERS),
        "Only for etcd's sake: both words mean the one logger there is.",
        |_, value| choice(value, &LOGGERS).map(drop),
    ),
    flag(
        "log-level",
        "all",
        "info",
        Text,
        "debug, info, warn or error (panic and fatal are taken as error).",
        |draft, value| {
            draft.config.log_level = value.parse::<LogLevel>()?;
            Ok(())
        },
    ),
    flag(
        "log-outputs",
        "all",
        "default",
        List,
        "Where logs go: default and systemd/journal are stderr; stdout; names of files.",
        |draft, value| {
            draft.config.log_outputs = outputs(value)?;
            Ok(())
        },
    ),
    flag(
        "log-output",
        "3.4",
        "default",
        List,
        "The older name of --log-outputs.",
        |draft, value| {
            draft.config.log_outputs = outputs(value)?;
            Ok(())
        },
    ),
    flag(
        "log-format",
        "from 3.6",
        "json",
        Choice(&LOG_FORMATS),
        "json, or console for lines parted by tabs.",
        |draft, value| {
            draft.config.log_format = match choice(value, &LOG_FORMATS)? {
                "console" => LogFormat::Console,
                _ => LogFormat::Json,
            };
            Ok(())
        },
    ),
    flag(
        "debug",
        "3.4",
        "false",
        Bool,
        "The older form of --log-level=debug.",
        |draft, value| {
            if boolean(value)? {
                draft.config.log_level = LogLevel::Debug;
            }
            Ok(())
        },
    ),
    flag(
        "config-file",
        "all",
        "",
        Text,
        "A YAML or JSON file of settings. All other flags and ETCD_* variables are then ignored.",
        |draft, value| {
            draft.config_file = (!value.is_empty()).then(|| value.into());
            Ok(())
        },
    ),
    // What would make this server something that it is not, if it were only warned of.
    flag(
        "discovery-token",
        "from 3.6",
        "",
        Text,
        REFUSED,
        |draft, value| no_v3_discovery(draft, "discovery-token", value),
    ),
    flag(
        "discovery-endpoints",
        "from 3.6",
        "",
        List,
        REFUSED,
        |draft, value| no_v3_discovery(draft, "discovery-endpoints", value),
    ),
    flag(
        "proxy",
        "3.4 to 3.5",
        "off",
        Choice(&PROXY_MODES),
        REFUSED,
        |draft, value| {
            if choice(value, &PROXY_MODES)? != "off" {
                draft.refuse(format!("--proxy={value}: there is no v2 proxy in Quorate"));
            }
            Ok(())
        },
    ),
];

const REFUSED: &str = "Refused when it is set; see the error.";
const FALLBACKS: [&str; 2] = ["proxy", "exit"];
const CLUSTER_STATES: [&str; 2] = ["new", "existing"];
const COMPACTION_MODES: [&str; 2] = ["periodic", "revision"];
const LOGGERS: [&str; 2] = ["zap", "capnslog"];
const LOG_FORMATS: [&str; 2] = ["json", "console"];
const PROXY_MODES: [&str; 3] = ["off", "readonly", "on"];

const LEAST_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

fn progress_interval(draft: &mut Draft, value: &str) -> Result<(), String> {
    // As in etcd: nothing and less is the default, and there is a least.
    let ns = u64::try_from(duration::parse_ns(value)?).unwrap_or(0);
    draft.config.watch_progress_interval = match ns {
        0 => DEFAULT_PROGRESS_INTERVAL,
        ns => Duration::from_nanos(ns).max(LEAST_PROGRESS_INTERVAL),
    };
    Ok(())
}

fn max_learners(draft: &mut Draft, value: &str) -> Result<(), String> {
    draft.config.max_learners = uint(value)?;
    Ok(())
}

fn no_v3_discovery(draft: &mut Draft, name: &str, value: &str) -> Result<(), String> {
    if !value.is_empty() {
        draft.refuse(format!(
            "--{name}: discovery by v3 keys is not in Quorate; use --discovery, by v2 keys, or \
             --initial-cluster"
        ));
    }
    Ok(())
}

fn urls(value: &str) -> Result<Vec<Url>, String> {
    let urls = Url::parse_list(value)?;
    if urls.is_empty() {
        return Err("no valid URLs given".to_owned());
    }
    Ok(urls)
}

fn outputs(value: &str) -> Result<Vec<LogOutput>, String> {
    let mut outputs: Vec<LogOutput> = Vec::new();
    for name in list(value) {
        let output = match name.as_str() {
            "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            file => LogOutput::File(file.into()),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if outputs.is_empty() {
        return Err("no log output given".to_owned());
    }
    Ok(outputs)
}
