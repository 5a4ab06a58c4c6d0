//! The rules between the flags for TLS, in etcd's words.

use std::ffi::OsString;

use quorate::config::{self, Config, Invocation, TlsVersion};

const CLIENTS: &str =
    "--listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1";
const PEERS: &str = "--listen-peer-urls=https://127.0.0.1:2";
const CERTIFICATE: &str = "--cert-file=c --key-file=k";

fn parse(flags: &[&str]) -> Result<(Config, String), String> {
    let line = flags.join(" ");
    let args = line.split_whitespace().map(OsString::from);
    let no_file = |path: &std::path::Path| panic!("nothing asked for {}", path.display());
    match config::parse(args, [], no_file) {
        Ok(Invocation::Serve(config, warnings)) => {
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            Ok((*config, warnings.join("\n")))
        }
        Ok(other) => panic!("{line}: {other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (flags, sentence) in [
        (
            &[CLIENTS][..],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url \
             https://127.0.0.1:1 with HTTPS scheme",
        ),
        (
            &[PEERS, CERTIFICATE],
            "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url \
             https://127.0.0.1:2 with HTTPS scheme",
        ),
        (
            &["--listen-metrics-urls=https://127.0.0.1:3"],
            "must be provided for metrics url https://127.0.0.1:3 with HTTPS scheme",
        ),
        (
            &["--cert-file=c"],
            "--key-file and --cert-file must both be present[key: , cert: c]",
        ),
        (
            &["--peer-key-file=k"],
            "--peer-key-file and --peer-cert-file must both be present[key: k, cert: ]",
        ),
        (
            &["--peer-client-cert-file=c"],
            "--peer-client-key-file and --peer-client-cert-file must both be present",
        ),
        (
            &["--peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b"],
            "--peer-cert-allowed-cn and --peer-cert-allowed-hostname are mutually exclusive \
             (cns=[\"a\"], hostnames=[\"b\"])",
        ),
        (
            &["--auto-tls --self-signed-cert-validity=0", CLIENTS],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            &["--tls-min-version=TLS1.3 --tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &["--tls-min-version=TLS1.1"],
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--cipher-suites=TLS_NOPE"],
            "unexpected TLS cipher suite \"TLS_NOPE\"",
        ),
        (
            &["--tls-min-version=TLS1.3 --cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--tls-max-version=TLS1.2 --cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA"],
            "--cipher-suites leaves none for TLS 1.2",
        ),
    ] {
        let error = parse(flags).expect_err("refused");
        assert!(error.contains(sentence), "{flags:?}: {error}");
    }
}

#[test]
fn what_has_no_effect_is_warned_of() {
    for (flags, warning) in [
        (
            &[CERTIFICATE][..],
            "scheme is HTTP while key and cert files are present; ignoring key and cert files \
             (client-url http://localhost:2379)",
        ),
        (
            &["--trusted-ca-file=a"],
            "scheme is HTTP while --client-cert-auth is enabled; ignoring client cert auth for \
             this URL (client-url http://localhost:2379)",
        ),
        (
            &["--peer-auto-tls"],
            "scheme is HTTP while key and cert files are present; ignoring key and cert files \
             (peer-url http://localhost:2380)",
        ),
        (
            &["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "--cipher-suites: TLS_RSA_WITH_AES_128_CBC_SHA is not in Quorate",
        ),
    ] {
        let (_, warnings) = parse(flags).expect("served");
        assert!(warnings.contains(warning), "{flags:?}: {warnings}");
    }
    let (_, warnings) = parse(&[CLIENTS, CERTIFICATE, PEERS, "--peer-auto-tls"]).expect("served");
    assert_eq!(warnings, "");
}

#[test]
fn with_no_suite_of_tls_1_2_only_1_3_is_spoken() {
    let (config, _) = parse(&["--cipher-suites=TLS_AES_128_GCM_SHA256"]).expect("served");
    assert_eq!(config.tls.min_version, TlsVersion::Tls13);
    assert_eq!(config.tls.cipher_suites, [""; 0]);
}

#[test]
fn an_authority_asks_for_certificates_as_the_switch_does() {
    for flag in ["--trusted-ca-file=a", "--client-cert-auth"] {
        let (config, _) = parse(&[CLIENTS, CERTIFICATE, flag]).expect("served");
        assert!(config.client_tls.asks_for_certificates(), "{flag}");
    }
    let (config, _) = parse(&[CLIENTS, CERTIFICATE]).expect("served");
    assert!(!config.client_tls.asks_for_certificates());
}
