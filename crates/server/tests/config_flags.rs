//! Every flag of the table, in every form in which etcd takes it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use quorate::config::{self, Config, Flag, Invocation, Kind, UsageError};

fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Invocation, UsageError> {
    let env = env
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    config::parse(args.iter().map(OsString::from), env, |path| {
        panic!("nothing asked for {}", path.display())
    })
}

fn served(args: &[&str], env: &[(&str, &str)]) -> (Config, Vec<String>) {
    match parse(args, env) {
        Ok(Invocation::Serve(config, warnings)) => {
            (*config, warnings.iter().map(ToString::to_string).collect())
        }
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

fn refusal(args: &[&str], env: &[(&str, &str)]) -> (String, u8) {
    match parse(args, env) {
        Err(error) => (error.to_string(), error.exit_code()),
        Ok(invocation) => panic!("{args:?} {env:?}: {invocation:?}"),
    }
}

/// A value that the flag accepts and that is not its default, where there is such a value.
fn sample(flag: &Flag) -> &'static str {
    match flag.name {
        "name" => "default",
        "data-dir" => "elsewhere",
        "listen-client-urls" | "listen-metrics-urls" => "http://127.0.0.1:7001",
        "advertise-client-urls" => "http://a.example:7001",
        "listen-peer-urls" => "http://127.0.0.1:7002",
        "initial-advertise-peer-urls" => "http://b.example:7002",
        "initial-cluster" => "default=http://localhost:2380,b=http://b.example:2380",
        "heartbeat-interval" => "50",
        "log-level" => "warn",
        "log-outputs" | "log-output" => "stdout",
        "auto-compaction-retention" => "8",
        "auto-compaction-mode" => "revision",
        "max-request-bytes" => "1000",
        "election-timeout" => "2000",
        "discovery" => "http://d.example/token",
        "discovery-token" | "discovery-endpoints" => "",
        "proxy" => "off",
        "tls-min-version" => "TLS1.3",
        "tls-max-version" => "TLS1.2",
        "cipher-suites" => "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        _ => match flag.kind {
            Kind::Text | Kind::List => "x",
            Kind::Bool => match flag.default {
                "true" => "false",
                _ => "true",
            },
            Kind::Uint | Kind::Int | Kind::Legacy => "7",
            Kind::Duration => "1m30s",
            Kind::Choice(words) => words[words.len() - 1],
        },
    }
}

/// What a flag cannot stand without, or is warned of without.
fn companions(flag: &Flag) -> Vec<&'static str> {
    let https = "--listen-client-urls=https://127.0.0.1:1";
    let advertised = "--advertise-client-urls=http://a.example:1";
    let peers = "--listen-peer-urls=https://127.0.0.1:2";
    match flag.name {
        "listen-client-urls" => vec![advertised],
        "cert-file" => vec![https, advertised, "--key-file=k"],
        "key-file" => vec![https, advertised, "--cert-file=c"],
        "client-cert-auth" | "trusted-ca-file" => {
            vec![https, advertised, "--cert-file=c", "--key-file=k"]
        }
        "auto-tls" => vec![https, advertised],
        "client-cert-file" => vec!["--client-key-file=k"],
        "client-key-file" => vec!["--client-cert-file=c"],
        "peer-cert-file" => vec![peers, "--peer-key-file=k"],
        "peer-key-file" => vec![peers, "--peer-cert-file=c"],
        "peer-client-cert-auth" | "peer-trusted-ca-file" => {
            vec![peers, "--peer-cert-file=c", "--peer-key-file=k"]
        }
        "peer-auto-tls" => vec![peers],
        "peer-client-cert-file" => vec!["--peer-client-key-file=k"],
        "peer-client-key-file" => vec!["--peer-client-cert-file=c"],
        "discovery-srv-name" => vec!["--discovery-srv=d.example"],
        _ => vec![],
    }
}

/// The settings without the flag, if its companions can stand without it.
fn without(flag: &Flag) -> Option<Config> {
    match parse(&companions(flag), &[]) {
        Ok(Invocation::Serve(config, _)) => Some(*config),
        _ => None,
    }
}

#[test]
fn every_flag_is_taken_in_all_forms_and_from_its_variable_alike() {
    for flag in config::flags().filter(|flag| flag.name != "config-file") {
        let (name, value) = (flag.name, sample(flag));
        let serve = |own: &[&str], env: &[(&str, &str)]| {
            let args: Vec<_> = own.iter().copied().chain(companions(flag)).collect();
            parse(&args, env)
        };
        let first = serve(&[&format!("--{name}={value}")], &[]);
        assert!(first.is_ok(), "{name}: {first:?}");
        assert_eq!(serve(&[&format!("-{name}={value}")], &[]), first, "{name}");
        if flag.is_boolean() {
            let bare = serve(&[&format!("--{name}")], &[]);
            assert_eq!(serve(&[&format!("-{name}")], &[]), bare, "{name}");
            assert_eq!(serve(&[&format!("--{name}=true")], &[]), bare, "{name}");
        } else {
            assert_eq!(serve(&[&format!("--{name}"), value], &[]), first, "{name}");
            assert_eq!(serve(&[&format!("-{name}"), value], &[]), first, "{name}");
        }
        if !value.is_empty() {
            assert_eq!(serve(&[], &[(&flag.variable(), value)]), first, "{name}");
        }
    }
}

#[test]
fn a_flag_is_in_force_or_warned_of_once() {
    let (unset, _) = served(&[], &[]);
    // Their samples are the only values that they take, or mean what holds anyhow.
    let unchanged = [
        "name",
        "logger",
        "discovery-fallback",
        "discovery-token",
        "discovery-endpoints",
        "proxy",
    ];
    for flag in config::flags().filter(|flag| flag.name != "config-file") {
        let given = format!("--{}={}", flag.name, sample(flag));
        let args: Vec<_> = [given.as_str(), given.as_str()]
            .into_iter()
            .chain(companions(flag))
            .collect();
        let (config, warnings) = served(&args, &[]);
        if flag.is_in_force() {
            assert_eq!(warnings, [""; 0], "{given}");
            if let Some(without) = without(flag) {
                assert_eq!(config == without, unchanged.contains(&flag.name), "{given}");
            }
        } else {
            let warning = format!("--{} does nothing in Quorate: {}", flag.name, flag.doc);
            assert_eq!(warnings, [warning]);
            assert_eq!(config, unset, "{given}");
        }
    }
}

#[test]
fn names_stand_once_and_defaults_are_what_holds() {
    let mut names = BTreeSet::new();
    for flag in config::flags() {
        assert!(names.insert(flag.name), "{} stands twice", flag.name);
        assert!(
            !flag.doc.is_empty() && !flag.versions.is_empty(),
            "{}",
            flag.name
        );
        if !flag.default.is_empty() {
            let given = format!("--{}={}", flag.name, flag.default);
            let args: Vec<_> = [given.as_str()]
                .into_iter()
                .chain(companions(flag))
                .collect();
            // A refusal means that the flag's default is none of its companions'.
            match parse(&args, &[]) {
                Ok(Invocation::Serve(config, _)) => {
                    assert_eq!(Some(*config), without(flag), "the default of {}", flag.name);
                }
                other => assert!(without(flag).is_none(), "{}: {other:?}", flag.name),
            }
        }
    }
}

#[test]
fn what_is_no_flag_is_refused_in_gos_words() {
    for (args, first_line) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["-nope=1"], "flag provided but not defined: -nope"),
        (
            &["--version=false", "-x"],
            "flag provided but not defined: -x",
        ),
        (&["---name", "x"], "bad flag syntax: ---name"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["--name"], "flag needs an argument: -name"),
        (
            &["--enable-v2=maybe"],
            "invalid boolean value \"maybe\" for -enable-v2: parse error",
        ),
        (
            &["--version=junk"],
            "invalid boolean value \"junk\" for -version: parse error",
        ),
        (
            &["--heartbeat-interval", "abc"],
            "invalid value \"abc\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--max-txn-ops", "-1"],
            "invalid value \"-1\" for flag -max-txn-ops: parse error",
        ),
        (
            &["--max-concurrent-streams=4294967296"],
            "invalid value \"4294967296\" for flag -max-concurrent-streams: value out of range",
        ),
        (
            &["--grpc-keepalive-min-time", "5"],
            "invalid value \"5\" for flag -grpc-keepalive-min-time: time: invalid duration \"5\"",
        ),
        (
            &["--initial-cluster-state", "foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--listen-client-urls", "http://127.0.0.1"],
            "invalid value \"http://127.0.0.1\" for flag -listen-client-urls: \
             URL address does not have the form \"host:port\": http://127.0.0.1",
        ),
    ] {
        let (text, code) = refusal(args, &[]);
        assert_eq!((text.lines().next(), code), (Some(first_line), 2));
        assert!(text.contains("Usage:"), "{text}");
    }
}

#[test]
fn what_is_left_over_is_refused_in_etcds_words() {
    for args in [
        &["foo"][..],
        &["--", "foo"],
        &["--enable-v2", "foo"],
        &["--name", "a", "foo"],
    ] {
        let expected = "error verifying flags, 'foo' is not a valid flag. See 'quorate --help'.\n";
        assert_eq!(refusal(args, &[]), (expected.to_owned(), 1));
    }
    assert!(
        refusal(&["-", "foo"], &[])
            .0
            .contains("'-' is not a valid flag")
    );
    assert!(
        refusal(&["gateway", "start"], &[])
            .0
            .contains("'gateway' of etcd is not in Quorate")
    );
    assert_eq!(served(&["--name", "a", "--"], &[]).0.name, "a");
    assert_eq!(
        served(&["--name", "a", "--name", "b"], &[]).0.name,
        "b",
        "the last one holds"
    );
    assert_eq!(
        served(&["--name", "--debug"], &[]).0.name,
        "--debug",
        "a value may begin so"
    );
}

#[test]
fn variables_and_flags_do_not_mix_for_one_setting() {
    let (text, code) = refusal(&["--name", "b"], &[("ETCD_NAME", "a")]);
    assert_eq!(
        text,
        "error verifying flags, conflicting environment variable \"ETCD_NAME\" is shadowed by \
         corresponding command-line flag (either unset environment variable or disable flag). \
         See 'quorate --help'.\n"
    );
    assert_eq!(code, 1);
    assert_eq!(
        served(&["--name", "b"], &[("ETCD_NAME", "")]).0.name,
        "b",
        "empty is unset"
    );
    let (text, code) = refusal(&[], &[("ETCD_HEARTBEAT_INTERVAL", "abc")]);
    assert!(text.contains("invalid value \"abc\" for ETCD_HEARTBEAT_INTERVAL: parse error"));
    assert_eq!(code, 1);
    let (_, warnings) = served(
        &[],
        &[
            ("ETCD_FOO", "1"),
            ("PATH", "/bin"),
            ("ETCDCTL_API", "3"),
            ("XETCD_A", "1"),
        ],
    );
    assert_eq!(warnings, ["unrecognized environment variable ETCD_FOO=1"]);
}

#[test]
fn help_and_version_come_before_all_else() {
    assert_eq!(
        parse(&["--version", "--name", "x"], &[]),
        Ok(Invocation::Version)
    );
    assert_eq!(
        parse(&["-version=true", "foo"], &[("ETCD_NAME", "a")]),
        Ok(Invocation::Version)
    );
    for args in [
        &["--help", "--nope"][..],
        &["-h"],
        &["--name", "x", "-help"],
    ] {
        let Ok(Invocation::Help(text)) = parse(args, &[]) else {
            panic!("{args:?} is no help")
        };
        for flag in config::flags() {
            assert!(
                text.contains(&format!("--{} ", flag.name)),
                "{} is not in it",
                flag.name
            );
        }
    }
    let lines: Vec<_> = config::version::text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    let names: Vec<_> = lines
        .iter()
        .filter_map(|line| Some(line.split_once(": ")?.0))
        .collect();
    assert_eq!(
        names[1..],
        ["Git SHA", "Go Version", "Go OS/Arch", "Quorate Version"]
    );
}

#[test]
fn util_has_arguments_of_its_own() {
    let verify = config::UtilCommand::Verify {
        data_dir: "some/dir".into(),
    };
    assert_eq!(
        parse(&["util", "verify", "some/dir"], &[]),
        Ok(Invocation::Util(verify))
    );
    let Ok(Invocation::Help(text)) = parse(&["util", "--help"], &[]) else {
        panic!("no help")
    };
    assert!(
        text.contains("Usage: quorate util <COMMAND>") && text.contains("verify"),
        "{text}"
    );
    for args in [&["util"][..], &["util", "verify"], &["util", "nope"]] {
        assert_eq!(refusal(args, &[]).1, 2, "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let junk = || OsString::from_vec(vec![b'-', 0xff]);
    let no_file = |_: &std::path::Path| panic!("no file was named");
    let error = config::parse([junk()], [], no_file).expect_err("refused");
    assert!(error.to_string().contains("is not UTF-8"));
    let env = [(OsString::from("ETCD_NAME"), junk())];
    let error = config::parse([], env, no_file).expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("the value of ETCD_NAME is not UTF-8")
    );
}
