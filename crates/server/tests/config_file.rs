//! The configuration file, in YAML and JSON.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::time::Duration;

use quorate::config::{self, AutoCompaction, Config, Invocation, LogOutput, Transport, UsageError};

fn parse(args: &[&str], env: &[(&str, &str)], file: &str) -> Result<Invocation, UsageError> {
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::parse(args.iter().map(OsString::from), env, |path| {
        assert_eq!(path, Path::new("q.yaml"));
        Ok(file.to_owned())
    })
}

fn served(file: &str) -> (Config, Vec<String>) {
    match parse(&["--config-file", "q.yaml"], &[], file) {
        Ok(Invocation::Serve(config, warnings)) => {
            (*config, warnings.iter().map(ToString::to_string).collect())
        }
        other => panic!("{file}: {other:?}"),
    }
}

fn assert_refused(file: &str, part: &str) {
    match parse(&["--config-file=q.yaml"], &[], file) {
        Err(error) => {
            assert!(error.to_string().contains(part), "{file}: {error}");
            assert_eq!(error.exit_code(), 1);
        }
        Ok(invocation) => panic!("{file}: {invocation:?}"),
    }
}

const SETTINGS: &str = "
# As in etcd's sample file.
name: 'm1'
data-dir: /var/lib/quorate
heartbeat-interval: 50
listen-client-urls: http://localhost:2379,http://127.0.0.1:7001
advertise-client-urls: http://a.example:2379
listen-peer-urls:
  - http://localhost:2380
quota-backend-bytes: 0
cors:
auto-compaction-mode: periodic
auto-compaction-retention: \"1\"
log-outputs: [stderr, /tmp/q.log]
enable-v2: yes
grpc-keepalive-min-time: 5000000000
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
  allowed-cn: [a, b]
discovery-config:
";

fn check_settings(config: &Config, warnings: &[String]) {
    assert_eq!(config.name, "m1");
    assert_eq!(config.data_dir, Path::new("/var/lib/quorate"));
    assert_eq!(config.heartbeat_interval, Duration::from_millis(50));
    assert_eq!(config.listen_client_urls.len(), 2);
    assert_eq!(
        config.log_outputs,
        [LogOutput::Stderr, LogOutput::File("/tmp/q.log".into())]
    );
    assert!(config.enable_v2);
    assert_eq!(
        config.auto_compaction,
        AutoCompaction::Periodic {
            retention: Duration::from_secs(3_600),
            keep_at_least: 0
        }
    );
    assert!(config.client_tls.cert_file.is_none() && !config.client_tls.client_cert_auth);
    assert_eq!(config.peer_tls.allowed_cns, ["a", "b"]);
    let named: Vec<_> = warnings
        .iter()
        .filter_map(|text| text.split(' ').next())
        .collect();
    assert_eq!(named, ["--grpc-keepalive-min-time"]);
}

#[test]
fn keys_are_flags_and_some_stand_in_groups() {
    let (config, warnings) = served(SETTINGS);
    check_settings(&config, &warnings);
}

#[test]
fn json_is_yaml() {
    let (config, warnings) = served(
        r#"{"name": "m1", "data-dir": "/var/lib/quorate", "heartbeat-interval": 50,
            "listen-client-urls": "http://localhost:2379,http://127.0.0.1:7001",
            "advertise-client-urls": "http://a.example:2379", "enable-v2": true,
            "auto-compaction-retention": "1", "log-outputs": ["stderr", "/tmp/q.log"],
            "grpc-keepalive-min-time": 5000000000, "cors": null,
            "client-transport-security": {"client-cert-auth": false},
            "peer-transport-security": {"allowed-cn": ["a", "b"]}}"#,
    );
    check_settings(&config, &warnings);
}

#[test]
fn a_file_stands_alone_and_says_so() {
    let args = &["--config-file", "q.yaml", "--name", "ignored"];
    let env = &[("ETCD_DATA_DIR", "ignored"), ("ETCD_NAME", "ignored")];
    let Ok(Invocation::Serve(config, warnings)) = parse(args, env, "heartbeat-interval: 20") else {
        panic!("not served");
    };
    assert_eq!(
        *config,
        Config {
            heartbeat_interval: Duration::from_millis(20),
            ..Config::default()
        }
    );
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        ["settings come from q.yaml alone; ignored beside it: --name, ETCD_DATA_DIR, ETCD_NAME"]
    );
}

#[test]
fn a_variable_may_name_the_file() {
    let Ok(Invocation::Serve(config, warnings)) =
        parse(&[], &[("ETCD_CONFIG_FILE", "q.yaml")], "name: m2")
    else {
        panic!("not served");
    };
    assert_eq!((config.name.as_str(), warnings.len()), ("m2", 0));
}

#[test]
fn an_empty_file_sets_nothing() {
    for file in ["", "# nothing\n", "~", "---\n"] {
        assert_eq!(served(file).0, Config::default(), "{file:?}");
    }
}

#[test]
fn scalars_are_taken_as_written() {
    for (file, name) in [
        ("name: y", "y"),
        ("name: 0123", "0123"),
        ("name: 'null'", "null"),
    ] {
        assert_eq!(served(file).0.name, name);
    }
}

#[test]
fn what_a_file_cannot_say_is_refused_by_name() {
    for (file, part) in [
        (
            "nope: 3",
            "q.yaml: \"nope\" is no setting that etcd or Quorate knows",
        ),
        ("config-file: x", "\"config-file\" is no setting"),
        (
            "peer-transport-security: {nope: 1}",
            "\"peer-transport-security.nope\" is no setting",
        ),
        (
            "peer-transport-security: 3",
            "peer-transport-security must hold keys with values",
        ),
        (
            "discovery-config: {token: t}",
            "--discovery-token: discovery by v3 keys",
        ),
        (
            "heartbeat-interval: abc",
            "invalid value \"abc\" for heartbeat-interval: parse error",
        ),
        (
            "heartbeat-interval: 5s",
            "invalid value \"5s\" for heartbeat-interval: parse error",
        ),
        (
            "enable-v2: maybe",
            "invalid value \"maybe\" for enable-v2: parse error",
        ),
        (
            "name: {a: b}",
            "name must be a text, a number, a boolean or a list of these",
        ),
        ("- name", "the file must hold keys with values"),
        ("[a]: b", "the file has a key that is no text"),
        ("name: a\nname: b", "duplicated key"),
        ("name: a\n---\nname: b", "several YAML documents"),
        ("name: [", "q.yaml: "),
        (
            "election-timeout: 60000",
            "--election-timeout[60000ms] is too long",
        ),
    ] {
        assert_refused(file, part);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = ["--config-file", "none.yaml"].map(OsString::from);
    let result = config::parse(args, [], |_| Err(io::Error::from(io::ErrorKind::NotFound)));
    let text = result.expect_err("refused").to_string();
    assert!(text.contains("none.yaml: entity not found"), "{text}");
}

#[test]
fn both_groups_of_security_have_etcds_keys() {
    let group = "
  cert-file: c
  key-file: k
  client-cert-file: cc
  client-key-file: ck
  client-cert-auth: true
  trusted-ca-file: ca
  auto-tls: true
  allowed-hostname: [h, i]
  skip-client-san-verification: true
";
    let (config, warnings) = served(&format!(
        "client-transport-security:{group}peer-transport-security:{group}\
         listen-client-urls: https://127.0.0.1:1\nadvertise-client-urls: https://127.0.0.1:1\n\
         listen-peer-urls: https://127.0.0.1:2\ncipher-suites: \
         [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305]\n\
         self-signed-cert-validity: 3\ntls-min-version: TLS1.2\n"
    ));
    let whole = Transport {
        cert_file: Some("c".into()),
        key_file: Some("k".into()),
        client_cert_file: Some("cc".into()),
        client_key_file: Some("ck".into()),
        client_cert_auth: true,
        trusted_ca_file: Some("ca".into()),
        crl_file: None,
        allowed_cns: vec![],
        allowed_hostnames: vec!["h".to_owned(), "i".to_owned()],
        auto: true,
        skip_client_san: true,
    };
    assert_eq!(config.peer_tls, whole);
    let client = Transport {
        skip_client_san: false,
        ..whole
    };
    assert_eq!(config.client_tls, client);
    assert_eq!(
        config.tls.cipher_suites,
        [
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
        ]
    );
    assert_eq!(config.tls.self_signed_years, 3);
    let warnings = warnings.join("\n");
    for part in [
        "--client-skip-client-san-verification does nothing",
        "ignoring client auto TLS since certs given",
        "ignoring peer auto TLS since certs given",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
}
