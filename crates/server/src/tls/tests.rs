//! Two sides of handshakes, with files that change between them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::TlsVersion;

/// An authority, and a folder for what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), &pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a certificate for `common_name` and its key; `hosts` are its other names.
    fn sign(&self, common_name: &str, hosts: &[&str], serial: u64) -> Transport {
        let (cert, key) = self.signed(common_name, hosts, serial);
        let files = ["crt", "key"].map(|end| self.path(&format!("{common_name}.{end}")));
        std::fs::write(&files[0], cert).unwrap();
        std::fs::write(&files[1], key).unwrap();
        let [cert_file, key_file] = files;
        Transport {
            cert_file: Some(cert_file),
            key_file: Some(key_file),
            trusted_ca_file: Some(self.path("ca.pem")),
            ..Transport::default()
        }
    }

    fn signed(&self, common_name: &str, hosts: &[&str], serial: u64) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = called(common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn revoke(&self, serials: &[u64]) -> PathBuf {
        let day = rcgen::date_time_ymd(2026, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: day,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day,
            next_update: rcgen::date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = params.signed_by(&self.issuer).unwrap().pem().unwrap();
        std::fs::write(self.path("crl.pem"), pem).unwrap();
        self.path("crl.pem")
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn config(peer_tls: Transport) -> Config {
    Config {
        peer_tls,
        ..Config::default()
    }
}

fn member(peer_tls: Transport) -> Arc<Tls> {
    Tls::load(&config(peer_tls)).expect("loaded")
}

/// A handshake between two members, and a word in each direction.
///
/// What the server found, and whether the one who connected got its word back.
async fn meet(server: &Arc<Tls>, client: &Arc<Tls>) -> (Result<String, String>, io::Result<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (stream, from) = listener.accept().await.unwrap();
        let accepted = server.accept(stream, from, Port::Peer).await;
        let mut accepted = accepted.map_err(|error| error.to_string())?;
        let mut word = [0; 5];
        // A client that does not like us says so here.
        let read = accepted.stream.read_exact(&mut word).await;
        read.map_err(|error| error.to_string())?;
        accepted.stream.write_all(&word).await.unwrap();
        accepted.stream.flush().await.unwrap();
        let name = accepted.client.map(|client| client.common_name.to_string());
        Ok(name.unwrap_or_default())
    };
    let ask = async {
        let url = Url::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        let mut stream = client.connect(&url).await?;
        stream.write_all(b"hello").await?;
        stream.flush().await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        assert_eq!(&word, b"hello");
        Ok(())
    };
    tokio::join!(serve, ask)
}

async fn assert_refused(server: &Arc<Tls>, client: &Arc<Tls>, why: &str) {
    let (served, asked) = meet(server, client).await;
    let error = served.expect_err("refused");
    assert!(error.contains(why), "{error}");
    assert!(asked.is_err());
}

#[tokio::test]
async fn members_of_one_authority_meet_and_know_names() {
    let ours = Authority::new("ours");
    let server = member(ours.sign("m1", &["127.0.0.1"], 1));
    let client = member(ours.sign("m2", &["127.0.0.1"], 2));
    let (served, asked) = meet(&server, &client).await;
    assert_eq!(served, Ok("m2".to_owned()));
    asked.unwrap();
}

#[tokio::test]
async fn strangers_are_refused_on_either_side() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = member(ours.sign("m1", &["127.0.0.1"], 1));
    let trusting = |transport: Transport| Transport {
        trusted_ca_file: Some(ours.path("ca.pem")),
        ..transport
    };
    let stranger = member(trusting(theirs.sign("m2", &["127.0.0.1"], 2)));
    assert_refused(&server, &stranger, "UnknownIssuer").await;
    let nobody = member(Transport {
        trusted_ca_file: Some(ours.path("ca.pem")),
        ..Transport::default()
    });
    assert_refused(&server, &nobody, "peer sent no certificates").await;

    let client = member(ours.sign("m3", &["127.0.0.1"], 3));
    let false_server = member(trusting(theirs.sign("m4", &["127.0.0.1"], 4)));
    let (_, asked) = meet(&false_server, &client).await;
    let error = asked.expect_err("not trusted").to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let misnamed = member(ours.sign("m5", &["127.0.0.2"], 5));
    let (_, asked) = meet(&misnamed, &client).await;
    let error = asked.expect_err("not for this host").to_string();
    assert!(
        error.contains("not valid for name \"127.0.0.1\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_must_have_an_allowed_name() {
    let ours = Authority::new("ours");
    let own = ours.sign("m1", &["127.0.0.1"], 1);
    let allowing = |cns: &[&str], hosts: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        member(Transport {
            allowed_cns: all(cns),
            allowed_hostnames: all(hosts),
            ..own.clone()
        })
    };
    let (good, bad) = (
        member(ours.sign("m2", &["127.0.0.1", "etcd.example"], 2)),
        member(ours.sign("m3", &["127.0.0.1", "web.example"], 3)),
    );
    for server in [
        allowing(&["x", "m2"], &[]),
        allowing(&[], &["y", "etcd.example"]),
    ] {
        assert_eq!(meet(&server, &good).await.0, Ok("m2".to_owned()));
        assert_refused(&server, &bad, "ApplicationVerificationFailure").await;
    }
}

#[tokio::test]
async fn a_member_may_not_come_from_an_address_that_it_does_not_name() {
    let ours = Authority::new("ours");
    let own = ours.sign("m1", &["127.0.0.1"], 1);
    let server = member(own.clone());
    let lax = member(Transport {
        skip_client_san: true,
        ..own
    });
    let elsewhere = member(ours.sign("m2", &["10.9.8.7"], 2));
    assert_refused(
        &server,
        &elsewhere,
        "x509: certificate is valid for 10.9.8.7, not 127.0.0.1",
    )
    .await;
    assert_eq!(meet(&lax, &elsewhere).await.0, Ok("m2".to_owned()));
    let by_name = member(ours.sign("m3", &["10.9.8.7", "localhost"], 3));
    assert_eq!(meet(&server, &by_name).await.0, Ok("m3".to_owned()));
    let unnamed = member(ours.sign("m4", &[], 4));
    assert_eq!(meet(&server, &unnamed).await.0, Ok("m4".to_owned()));
}

#[tokio::test]
async fn files_are_read_again_when_they_change_and_bad_ones_are_not_used() {
    let (ours, next) = (Authority::new("ours"), Authority::new("next"));
    let server = member(ours.sign("m1", &["127.0.0.1"], 1));
    let old = member(ours.sign("m2", &["127.0.0.1"], 2));
    let new = member(Transport {
        trusted_ca_file: Some(ours.path("ca.pem")),
        ..next.sign("m3", &["127.0.0.1"], 3)
    });
    assert_eq!(meet(&server, &old).await.0, Ok("m2".to_owned()));
    assert_refused(&server, &new, "UnknownIssuer").await;

    // The authority: first something bad, then both, then the new one alone.
    let ca = ours.path("ca.pem");
    std::fs::write(&ca, "nonsense").unwrap();
    assert_eq!(meet(&server, &old).await.0, Ok("m2".to_owned()));
    std::fs::remove_file(&ca).unwrap();
    assert_eq!(meet(&server, &old).await.0, Ok("m2".to_owned()));
    std::fs::write(&ca, format!("{}{}", ours.pem, next.pem)).unwrap();
    assert_eq!(meet(&server, &old).await.0, Ok("m2".to_owned()));
    assert_eq!(meet(&server, &new).await.0, Ok("m3".to_owned()));
    std::fs::write(&ca, &next.pem).unwrap();
    let replaced = member(Transport {
        trusted_ca_file: Some(ca.clone()),
        ..next.sign("m4", &["127.0.0.1"], 4)
    });
    // The server's own certificate is still of the old authority.
    let (served, asked) = meet(&server, &replaced).await;
    assert!(served.is_err() && asked.is_err());

    // A key that does not fit yet, then the pair.
    let (cert, key) = next.signed("m1", &["127.0.0.1"], 5);
    std::fs::write(ours.path("m1.key"), key).unwrap();
    assert!(meet(&server, &replaced).await.0.is_err());
    std::fs::write(ours.path("m1.crt"), cert).unwrap();
    assert_eq!(meet(&server, &replaced).await.0, Ok("m4".to_owned()));
    assert_refused(&server, &old, "").await;
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_the_next_handshake_on() {
    let ours = Authority::new("ours");
    let server = member(Transport {
        crl_file: Some(ours.revoke(&[9])),
        ..ours.sign("m1", &["127.0.0.1"], 1)
    });
    let client = member(ours.sign("m2", &["127.0.0.1"], 0x80_01));
    assert_eq!(meet(&server, &client).await.0, Ok("m2".to_owned()));
    ours.revoke(&[9, 0x80_01]);
    assert_refused(&server, &client, "Revoked").await;
    ours.revoke(&[]);
    assert_eq!(meet(&server, &client).await.0, Ok("m2".to_owned()));
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_needs_no_authority() {
    let alone = Authority::new("alone");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // As `openssl req -x509` makes them.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(alone.path("m.crt"), cert.pem()).unwrap();
    std::fs::write(alone.path("m.key"), key.serialize_pem()).unwrap();
    let both = member(Transport {
        cert_file: Some(alone.path("m.crt")),
        key_file: Some(alone.path("m.key")),
        trusted_ca_file: Some(alone.path("m.crt")),
        ..Transport::default()
    });
    let (served, asked) = meet(&both, &both).await;
    served.unwrap();
    asked.unwrap();
}

#[tokio::test]
async fn members_with_certificates_of_their_own_making_meet() {
    let directory = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let config = Config {
            data_dir: directory.path().join(name),
            ..config(Transport {
                auto: true,
                ..Transport::default()
            })
        };
        Tls::load(&config).expect("loaded")
    };
    let (one, two) = (start("one"), start("two"));
    let made = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let first = made("one/fixtures/peer/cert.pem");
    let (served, asked) = meet(&one, &two).await;
    assert_eq!(served, Ok(String::new()));
    asked.unwrap();
    drop(one);
    start("one");
    assert_eq!(made("one/fixtures/peer/cert.pem"), first, "used again");
    assert_ne!(made("two/fixtures/peer/cert.pem"), first);
}

#[tokio::test]
async fn versions_out_of_bounds_are_refused() {
    let ours = Authority::new("ours");
    let of = |min_version, max_version| {
        let mut config = config(ours.sign("m1", &["127.0.0.1"], 1));
        config.tls.min_version = min_version;
        config.tls.max_version = max_version;
        Tls::load(&config).expect("loaded")
    };
    use TlsVersion::{Tls12, Tls13};
    let (old, new, any) = (of(Tls12, Tls12), of(Tls13, Tls13), of(Tls12, Tls13));
    for server in [&old, &new] {
        assert_eq!(meet(server, &any).await.0, Ok("m1".to_owned()));
    }
    assert_refused(&new, &old, "peer").await;
}

#[tokio::test]
async fn who_speaks_in_clear_is_told() {
    let ours = Authority::new("ours");
    let server = member(ours.sign("m1", &["127.0.0.1"], 1));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (stream, from) = listener.accept().await.unwrap();
        server.accept(stream, from, Port::Peer).await.map(drop)
    };
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (served, answer) = tokio::join!(serve, ask);
    assert!(matches!(served, Err(Refused::Cleartext)));
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    assert!(answer.ends_with("Client sent an HTTP request to an HTTPS server.\n"));
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_does_not_hold_up_another() {
    let ours = Authority::new("ours");
    let server = member(ours.sign("m1", &["127.0.0.1"], 1));
    let client = member(ours.sign("m2", &["127.0.0.1"], 2));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut slow = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    slow.write_all(&[0x16, 3, 1]).await.unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let held = {
        let server = server.clone();
        tokio::spawn(async move { server.accept(stream, from, Port::Peer).await.map(drop) })
    };
    assert_eq!(meet(&server, &client).await.0, Ok("m2".to_owned()));
    assert!(!held.is_finished());
    drop(slow);
    assert!(matches!(held.await.unwrap(), Err(Refused::Failed(_))));
}

#[test]
fn bad_files_are_refused_by_flag_and_name() {
    let ours = Authority::new("ours");
    let good = ours.sign("m1", &["127.0.0.1"], 1);
    let other = ours.sign("m2", &["127.0.0.1"], 2);
    let missing = |path: &str| Some(PathBuf::from(path));
    std::fs::write(ours.path("empty"), "").unwrap();
    for (transport, sentence) in [
        (
            Transport {
                cert_file: missing("/nowhere/c"),
                ..good.clone()
            },
            "--peer-cert-file: /nowhere/c: no such file or directory",
        ),
        (
            Transport {
                key_file: good.cert_file.clone(),
                ..good.clone()
            },
            "m1.crt: it holds no private key in PEM that is not encrypted",
        ),
        (
            Transport {
                key_file: other.key_file.clone(),
                ..good.clone()
            },
            "--peer-key-file and --peer-cert-file: tls: private key does not match public key",
        ),
        (
            Transport {
                trusted_ca_file: Some(ours.path("empty")),
                ..good.clone()
            },
            "empty: it holds no certificate in PEM",
        ),
        (
            Transport {
                crl_file: Some(ours.path("empty")),
                ..good.clone()
            },
            "--peer-crl-file: ",
        ),
    ] {
        let error = Tls::check(&config(transport)).expect_err("refused");
        assert!(error.to_string().contains(sentence), "{error}");
    }
    Tls::check(&config(good)).expect("good");
}
