//! What settings mean, and the rules between them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use quorate::bootstrap;
use quorate::config::{
    self, AllowList, AutoCompaction, ClusterState, Config, InitialCluster, Invocation, LogFormat,
    LogLevel, LogOutput,
};

fn parse(line: &str) -> Result<Config, String> {
    let args = line.split_whitespace().map(OsString::from);
    match config::parse(args, [], |path| {
        panic!("nothing asked for {}", path.display())
    }) {
        Ok(Invocation::Serve(config, _)) => Ok(*config),
        Ok(other) => panic!("{line}: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn served(line: &str) -> Config {
    parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn assert_refused(line: &str, part: &str) {
    match parse(line) {
        Err(text) => assert!(text.contains(part), "{line}: {text}"),
        Ok(config) => panic!("{line} is served: {config:?}"),
    }
}

fn texts<T>(items: &[T], text: impl Fn(&T) -> String) -> Vec<String> {
    items.iter().map(text).collect()
}

#[test]
fn nothing_set_is_one_member_on_localhost() {
    let config = served("");
    assert_eq!(config, Config::default());
    assert_eq!(config.data_dir.to_str(), Some("default.etcd"));
    assert_eq!(
        texts(&config.listen_client_urls, |l| l.address.to_string()),
        ["127.0.0.1:2379"]
    );
    assert_eq!(
        texts(&config.listen_peer_urls, |l| l.address.to_string()),
        ["127.0.0.1:2380"]
    );
    let plan = bootstrap::plan_alone(&config).unwrap();
    assert_eq!(plan.member_id, 0x8e9e_05c5_2164_694d);
    assert_eq!(plan.cluster_id, 0xcdf8_1819_4e3a_8c32);
    assert_eq!(config.quota_bytes, Some(2_147_483_648));
    assert_eq!(config.history_memory_bytes, 268_435_456);
    assert!(config.enable_v2);
}

#[test]
fn the_usual_line_for_one_member_is_taken() {
    let config = served(
        "--name m1 --listen-client-urls http://127.0.0.1:21379,http://[::1]:21379 \
         --advertise-client-urls http://m1.example:21379 --listen-peer-urls http://127.0.0.1:21380 \
         --initial-advertise-peer-urls http://127.0.0.1:21380 \
         --initial-cluster m1=http://127.0.0.1:21380 --initial-cluster-token tok",
    );
    assert_eq!(config.data_dir.to_str(), Some("m1.etcd"));
    assert_eq!(
        texts(&config.listen_client_urls, |l| l.address.to_string()),
        ["127.0.0.1:21379", "[::1]:21379"]
    );
    assert_eq!(
        texts(&config.advertise_client_urls, ToString::to_string),
        ["http://m1.example:21379"]
    );
    let plan = bootstrap::plan_alone(&config).unwrap();
    assert_eq!(plan.member_id, 10_798_702_569_113_003_990);
    assert_eq!(plan.cluster_id, 9_296_732_719_946_741_756);
}

#[test]
fn the_initial_cluster_is_named_or_found_in_one_way() {
    let named = |line: &str| match served(line).initial_cluster {
        InitialCluster::Static(members) => config::peer_urls_text(&members),
        other => panic!("{line}: {other:?}"),
    };
    let two = "--name x --initial-advertise-peer-urls http://b:2,http://a:1";
    assert_eq!(named(two), "x=http://a:1,x=http://b:2");
    assert_eq!(
        named("--initial-cluster y=http://c:3,x=http://b:2,y=http://a:1"),
        "x=http://b:2,y=http://a:1,y=http://c:3",
        "who this member is, is judged when a cluster begins"
    );
    assert_refused(
        "--initial-cluster default",
        "\"default\" does not have the form name=URL",
    );
    assert_refused("--name=", "--name must not be empty");
    assert_eq!(
        served("--discovery http://d:1/t/").initial_cluster,
        InitialCluster::Discovery("http://d:1/t/".to_owned())
    );
    assert_eq!(
        served("--discovery-srv example.com --discovery-srv-name x").initial_cluster,
        InitialCluster::Srv {
            domain: "example.com".to_owned(),
            service_suffix: "x".to_owned(),
        }
    );
    for (one, other) in [
        ("--initial-cluster a=http://b:1", "--discovery http://d/t"),
        ("--initial-cluster a=http://b:1", "--discovery-srv d"),
        ("--discovery http://d/t", "--discovery-srv d"),
    ] {
        let text = "error verifying flags, multiple discovery or bootstrap flags are set. Choose one \
                    of \"initial-cluster\", \"discovery\" or \"discovery-srv\". See";
        assert_refused(&format!("{one} {other}"), text);
    }
    assert_refused("--discovery d/t", "discovery: invalid URL \"d/t\"");
    assert_refused(
        "--discovery-srv-name x",
        "--discovery-srv-name needs --discovery-srv",
    );
    let existing = served("--initial-cluster-state existing").initial_cluster_state;
    assert_eq!(existing, ClusterState::Existing);
}

#[test]
fn what_would_be_a_lie_is_refused() {
    for (line, part) in [
        (
            "--discovery-token t",
            "--discovery-token: discovery by v3 keys is not in Quorate",
        ),
        (
            "--discovery-endpoints http://d:1",
            "--discovery-endpoints: discovery by v3 keys is not in Quorate",
        ),
        ("--proxy on", "--proxy=on: there is no v2 proxy in Quorate"),
        (
            "--listen-peer-urls unix://a:1",
            "unix sockets are not served by Quorate yet",
        ),
        (
            "--max-request-bytes 33554433",
            "at most 33554432, since a request must fit a log segment",
        ),
    ] {
        assert_refused(line, part);
    }
    assert_eq!(
        served("--max-request-bytes 33554432").max_request_bytes,
        33_554_432
    );
}

#[test]
fn listening_for_clients_needs_an_advertised_url() {
    assert_refused(
        "--listen-client-urls http://127.0.0.1:22379",
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    );
    served("--advertise-client-urls https://behind.a.proxy.example:443");
    assert_refused(
        "--listen-peer-urls http://foo.bar:23",
        "expected IP in URL for binding",
    );
    assert_refused("--listen-peer-urls=", "no valid URLs given");
    let config = served("--listen-metrics-urls http://0.0.0.0:9100");
    assert_eq!(
        texts(&config.listen_metrics_urls, |l| l.address.to_string()),
        ["0.0.0.0:9100"]
    );
}

#[test]
fn an_election_takes_five_heartbeats_and_fifty_seconds_at_most() {
    let config = served("--heartbeat-interval 200 --election-timeout 1000");
    assert_eq!(config.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(config.election_timeout, Duration::from_secs(1));
    served("--election-timeout 50000");
    for (line, part) in [
        (
            "--heartbeat-interval 500",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[500ms]",
        ),
        (
            "--heartbeat-interval 18446744073709551615",
            "should be at least as 5 times",
        ),
        (
            "--election-timeout 50001",
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            "--heartbeat-interval 0",
            "--heartbeat-interval must be >0 (set to 0ms)",
        ),
        (
            "--election-timeout 0",
            "--election-timeout must be >0 (set to 0ms)",
        ),
    ] {
        assert_refused(line, part);
    }
}

#[test]
fn compaction_that_is_unset_is_not_compaction_that_is_off() {
    let hours = |hours: u64, keep_at_least| AutoCompaction::Periodic {
        retention: Duration::from_secs(hours * 3_600),
        keep_at_least,
    };
    for (line, expected) in [
        ("", hours(1, 1_000)),
        ("--auto-compaction-mode periodic", hours(1, 1_000)),
        ("--auto-compaction-retention 0", AutoCompaction::Off),
        ("--auto-compaction-retention 0s", AutoCompaction::Off),
        ("--auto-compaction-retention 1", hours(1, 0)),
        (
            "--auto-compaction-mode=periodic --auto-compaction-retention=72h",
            hours(72, 0),
        ),
        (
            "--auto-compaction-retention 10m",
            AutoCompaction::Periodic {
                retention: Duration::from_secs(600),
                keep_at_least: 0,
            },
        ),
        ("--auto-compaction-mode revision", AutoCompaction::Off),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 0",
            AutoCompaction::Off,
        ),
        (
            "--auto-compaction-retention 1000 --auto-compaction-mode revision",
            AutoCompaction::Revision { retention: 1_000 },
        ),
    ] {
        assert_eq!(served(line).auto_compaction, expected, "{line}");
    }
    for (line, part) in [
        (
            "--auto-compaction-retention xx",
            "error parsing CompactionRetention: time: invalid duration \"xx\"",
        ),
        (
            "--auto-compaction-retention -1h",
            "time: negative duration \"-1h\"",
        ),
        (
            "--auto-compaction-retention 18446744073709551615",
            "hours are too many",
        ),
        (
            "--auto-compaction-mode foo",
            "unknown auto-compaction-mode \"foo\"",
        ),
        (
            "--auto-compaction-mode revision --auto-compaction-retention 1h",
            "\"1h\" is not a number of revisions",
        ),
    ] {
        assert_refused(line, part);
    }
}

#[test]
fn zero_and_negative_quotas_have_their_meaning() {
    for (value, bytes) in [("0", Some(2 << 30)), ("-1", None), ("4096", Some(4_096))] {
        assert_eq!(
            served(&format!("--quota-backend-bytes={value}")).quota_bytes,
            bytes
        );
    }
}

#[test]
fn lists_of_what_is_allowed_may_be_open() {
    for value in ["*", "", "http://a,*"] {
        assert_eq!(served(&format!("--cors={value}")).cors, AllowList::All);
    }
    let config = served("--cors=http://a:1 --host-whitelist=b,c");
    let only = |items: &[&str]| {
        AllowList::Only(
            items
                .iter()
                .map(|item| (*item).to_owned())
                .collect::<BTreeSet<_>>(),
        )
    };
    assert_eq!(
        (&config.cors, &config.host_whitelist),
        (&only(&["http://a:1"]), &only(&["b", "c"]))
    );
    assert!(config.host_whitelist.allows("c") && !config.host_whitelist.allows("d"));
    assert!(AllowList::All.allows("d"));
}

#[test]
fn logs_go_where_they_are_sent() {
    use LogOutput::{File, Stderr, Stdout};
    for (value, outputs) in [
        ("default", vec![Stderr]),
        ("systemd/journal", vec![Stderr]),
        (
            "stderr,stdout,/tmp/x.log,default",
            vec![Stderr, Stdout, File("/tmp/x.log".into())],
        ),
    ] {
        assert_eq!(
            served(&format!("--log-outputs={value}")).log_outputs,
            outputs
        );
        assert_eq!(
            served(&format!("--log-output={value}")).log_outputs,
            outputs
        );
    }
    for (word, level) in [
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("panic", LogLevel::Error),
        ("fatal", LogLevel::Error),
    ] {
        assert_eq!(served(&format!("--log-level={word}")).log_level, level);
    }
    assert_eq!(served("--debug").log_level, LogLevel::Debug);
    assert_eq!(served("--debug=false").log_level, LogLevel::Info);
    assert_eq!(
        served("--log-format console").log_format,
        LogFormat::Console
    );
    assert_refused("--log-level foo", "unknown level \"foo\"");
    assert_refused("--log-outputs=", "no log output given");
    assert_refused("--logger foo", "invalid value");
}

#[test]
fn progress_intervals_have_a_least_and_a_default() {
    let interval = |value: &str| {
        let config = served(&format!("--watch-progress-notify-interval={value}"));
        config.watch_progress_interval
    };
    assert_eq!(interval("3s"), Duration::from_secs(3));
    assert_eq!(interval("1ms"), Duration::from_millis(100));
    for unset in ["0s", "-1s", "10m"] {
        assert_eq!(interval(unset), Duration::from_secs(600), "{unset}");
    }
}
