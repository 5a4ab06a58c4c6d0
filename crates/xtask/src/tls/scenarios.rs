//! What the clients do, and what must come of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::clients::{Ends, curl, curl_refused, openssl};
use super::files::{Authority, Identity};
use super::{Bench, Secured};
use crate::member;

const HOST: &[&str] = &["127.0.0.1"];

/// A server's own certificate for both ports.
fn server_flags(server: &Identity) -> Vec<String> {
    [server.flags(""), server.flags("peer-")].concat()
}

fn trusting(mut flags: Vec<String>, authority: &Authority) -> Vec<String> {
    flags.push(format!("--trusted-ca-file={}", authority.file.display()));
    flags
}

fn text(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

pub(super) fn served(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let other = Authority::new(bench.dir, "other")?;
    let server = bench.start(&server_flags(&ours.sign("server", "server", HOST)?))?;
    let ca = text(&ours.file)?;
    let url = |path: &str| format!("https://127.0.0.1:{}{path}", server.client);
    let h2 = curl(&[
        "--http2",
        "-w",
        "%{http_version}",
        "--cacert",
        ca,
        &url("/version"),
    ])?;
    ensure!(h2.contains("etcdserver") && h2.ends_with('2'), "{h2}");
    let v2 = &url("/v2/keys/over");
    let put = curl(&["--http1.1", "--cacert", ca, v2, "-XPUT", "-dvalue=tls"])?;
    ensure!(put.contains("\"action\":\"set\""), "{put}");
    let body = r#"{"key":"anNvbg==","value":"dGxz"}"#;
    let put = curl(&["--cacert", ca, &url("/v3/kv/put"), "-d", body])?;
    ensure!(put.contains("revision"), "{put}");
    server
        .asker(&ours.file, None)
        .gets(&["put", "grpc", "tls"], "OK")?;
    server
        .asker(&ours.file, None)
        .gets(&["get", "json"], "json\ntls")?;
    let metrics = curl(&["--cacert", ca, &url("/metrics")])?;
    ensure!(metrics.contains("etcd_server_has_leader 1"), "{metrics}");
    let peers = format!("https://127.0.0.1:{}/version", server.peer);
    ensure!(curl(&["--http1.1", "--cacert", ca, &peers])?.contains("etcdserver"));
    // Without ALPN, and in the oldest version.
    let request = "GET /version HTTP/1.0\r\nHost: a\r\n\r\n";
    let answer = openssl(server.client, &["-tls1_2", "-CAfile", ca], request)?;
    ensure!(
        answer.contains("etcdcluster") && answer.contains("TLSv1.2"),
        "{answer}"
    );

    let error = curl_refused(&["--cacert", text(&other.file)?, &url("/version")])?;
    ensure!(error.contains("certificate"), "{error}");
    server.asker(&other.file, None).is_refused()?;
    large_values(&server, ca)
}

/// Larger than what TLS holds ready, in both directions.
fn large_values(server: &Secured, ca: &str) -> Result<()> {
    let url = format!("https://127.0.0.1:{}/v2/keys/large", server.client);
    let value = "0123456789abcdef".repeat(60_000);
    let file = std::env::temp_dir().join(format!("quorate-tls-{}", std::process::id()));
    fs::write(&file, &value)?;
    let sent = format!("value@{}", text(&file)?);
    for version in ["--http1.1", "--http2"] {
        let put = curl(&[
            version,
            "--cacert",
            ca,
            &url,
            "-XPUT",
            "--data-urlencode",
            &sent,
        ])?;
        ensure!(put.contains(&value));
        ensure!(curl(&[version, "--cacert", ca, &url])?.contains(&value));
    }
    fs::remove_file(&file)?;
    Ok(())
}

pub(super) fn client_certificates(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let other = Authority::new(bench.dir, "other")?;
    // Its address is not compared with the certificate's, on this port.
    let friend = ours.sign("friend", "friend", &["10.9.8.7", "elsewhere.example"])?;
    let stranger = other.sign("stranger", "stranger", HOST)?;
    let own = ours.sign("server", "server", HOST)?;
    let mut flags = trusting(server_flags(&own), &ours);
    flags.push("--client-cert-auth".to_owned());
    let server = bench.start(&flags)?;
    let ca = &ours.file;
    server
        .asker(ca, Some(&friend))
        .gets(&["put", "a", "b"], "OK")?;
    server.asker(ca, Some(&stranger)).is_refused()?;
    server.asker(ca, None).is_refused()?;
    let url = format!("https://127.0.0.1:{}/v2/keys/", server.client);
    curl_refused(&["--cacert", text(ca)?, &url])?;
    let shown = ["--cert", text(&friend.cert)?, "--key", text(&friend.key)?];
    let all = [&["--cacert", text(ca)?, &url], &shown[..]].concat();
    ensure!(curl(&all)?.contains("\"action\":\"get\""));
    server.asker(ca, Some(&friend)).gets(&["get", "a"], "a\nb")
}

pub(super) fn allowed_names(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let own = ours.sign("server", "server", HOST)?;
    let mut flags = trusting(server_flags(&own), &ours);
    flags.push("--client-cert-allowed-hostname=db.corp.example".to_owned());
    flags.push(format!("--peer-trusted-ca-file={}", ours.file.display()));
    flags.push("--peer-cert-allowed-cn=server".to_owned());
    let server = bench.start(&flags)?;
    let ca = text(&ours.file)?;
    let named = ours.sign("named", "x", &["db.corp.example"])?;
    let wild = ours.sign("wild", "x", &["*.corp.example"])?;
    let misnamed = ours.sign("misnamed", "db.corp.example", &["web.corp.example"])?;
    for good in [&named, &wild] {
        server
            .asker(&ours.file, Some(good))
            .gets(&["put", "a", "b"], "OK")?;
    }
    server.asker(&ours.file, Some(&misnamed)).is_refused()?;

    // On the peer port: a name, and the address that it comes from.
    let url = format!("https://127.0.0.1:{}/version", server.peer);
    let ask = |identity: &Identity, is_served: bool| {
        let (cert, key) = (text(&identity.cert)?, text(&identity.key)?);
        let all = [
            "--http1.1",
            "--cacert",
            ca,
            "--cert",
            cert,
            "--key",
            key,
            &url,
        ];
        match is_served {
            true => curl(&all),
            false => curl_refused(&all),
        }
    };
    ask(&own, true)?;
    ask(&ours.sign("unnamed", "server", &[])?, true)?;
    ask(&ours.sign("false", "web", HOST)?, false)?;
    ask(&ours.sign("away", "server", &["10.9.8.7"])?, false)?;
    ask(
        &ours.sign("home", "server", &["10.9.8.7", "localhost"])?,
        true,
    )?;
    Ok(())
}

pub(super) fn own_certificate(bench: &Bench<'_>) -> Result<()> {
    let flags = ["--auto-tls", "--peer-auto-tls"].map(str::to_owned);
    let mut server = bench.start(&flags)?;
    let fixtures = member::data_dir(bench.dir).join("fixtures");
    let certificates = [
        "client/cert.pem",
        "client/key.pem",
        "peer/cert.pem",
        "peer/key.pem",
    ];
    let read = || {
        let all = certificates
            .iter()
            .map(|name| fs::read(fixtures.join(name)));
        all.collect::<Result<Vec<_>, _>>()
    };
    let first = read()?;
    let cert = fixtures.join("client/cert.pem");
    server.asker(&cert, None).gets(&["put", "a", "b"], "OK")?;
    for port in [server.client, server.peer] {
        let url = format!("https://127.0.0.1:{port}/version");
        ensure!(curl(&["--http1.1", "-k", &url])?.contains("etcdserver"));
    }
    server.member.kill()?;
    let server = bench.start(&flags)?;
    ensure!(read()? == first, "the certificates were made again");
    server.asker(&cert, None).gets(&["get", "a"], "a\nb")
}

pub(super) fn files_change(bench: &Bench<'_>) -> Result<()> {
    let old = Authority::new(bench.dir, "old")?;
    let new = Authority::new(bench.dir, "new")?;
    let both = bench.dir.join("both.pem");
    fs::copy(&old.file, &both)?;
    let own = old.sign("server", "first", HOST)?;
    let mut flags = server_flags(&own);
    flags.push(format!("--trusted-ca-file={}", both.display()));
    let server = bench.start(&flags)?;
    let friend = old.sign("friend", "friend", HOST)?;
    let successor = new.sign("successor", "successor", HOST)?;
    server.asker(&old.file, Some(&successor)).is_refused()?;

    let mut watch = server.asker(&old.file, Some(&friend)).command("10s");
    let watching = watch.args(["watch", "a"]).stdout(Stdio::piped()).spawn()?;
    let mut watching = Ends(watching);
    let output = watching.0.stdout.take().context("no output")?;
    let mut events = BufReader::new(output).lines();
    await_watcher(&server)?;

    // Another authority for clients, and a certificate of its for the server. etcd reads its
    // authorities at start alone.
    new.sign("server", "second", HOST)?;
    let (shown, trusted) = match bench.is_ours {
        true => {
            fs::write(&both, &new.pem)?;
            server.asker(&new.file, Some(&friend)).is_refused()?;
            (&successor, &new.file)
        }
        false => (&friend, &new.file),
    };
    server
        .asker(trusted, Some(shown))
        .gets(&["put", "a", "b"], "OK")?;
    let mut next = || {
        events
            .next()
            .context("the watch ended")?
            .context("its output")
    };
    ensure!([next()?, next()?, next()?] == ["PUT", "a", "b"]);
    server.asker(&old.file, Some(shown)).is_refused()?;
    if !bench.is_ours {
        return Ok(());
    }

    // What has become bad changes nothing, and is said.
    fs::write(&own.cert, "nonsense")?;
    fs::write(&both, "nonsense")?;
    server
        .asker(trusted, Some(shown))
        .gets(&["put", "a", "c"], "OK")?;
    ensure!([next()?, next()?, next()?] == ["PUT", "a", "c"]);
    let log = server.member.log_tail();
    for file in [&own.cert, &both] {
        ensure!(
            log.contains(text(file)?),
            "{} is not in {log}",
            file.display()
        );
    }
    Ok(())
}

/// Waits until the server has a watcher.
fn await_watcher(server: &Secured) -> Result<()> {
    for _ in 0..2_000 {
        let metrics = member::get(server.metrics, "/metrics")?;
        if metrics.contains("etcd_debugging_mvcc_watcher_total 1") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("nobody watches")
}

pub(super) fn revoked(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let own = ours.sign("server", "server", HOST)?;
    let good = ours.sign_numbered("good", "good", HOST, 0xfeed)?;
    let bad = ours.sign_numbered("bad", "bad", HOST, 0xbad)?;
    let mut flags = trusting(server_flags(&own), &ours);
    let list = ours.revoke(&[0xbad])?;
    flags.push(format!("--client-crl-file={}", list.display()));
    let server = bench.start(&flags)?;
    let (good, bad) = (
        server.asker(&ours.file, Some(&good)),
        server.asker(&ours.file, Some(&bad)),
    );
    good.gets(&["put", "a", "b"], "OK")?;
    bad.is_refused()?;
    ours.revoke(&[0xfeed])?;
    good.is_refused()?;
    bad.gets(&["put", "a", "b"], "OK")
}

pub(super) fn versions(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let own = ours.sign("server", "server", HOST)?;
    // Go wants this one for HTTP/2.
    let suite = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let mut flags = server_flags(&own);
    flags.push(format!("--cipher-suites={suite}"));
    let mut server = bench.start(&flags)?;
    let answer = openssl(server.client, &["-tls1_2"], "GET /version HTTP/1.0\r\n\r\n")?;
    ensure!(
        answer.contains("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"),
        "{answer}"
    );
    let other = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"];
    let answer = openssl(server.client, &other, "")?;
    ensure!(answer.contains("handshake failure"), "{answer}");
    server.member.kill()?;
    if !bench.is_ours {
        return Ok(());
    }
    for (flag, old, new) in [
        ("min-version=TLS1.3", false, true),
        ("max-version=TLS1.2", true, false),
    ] {
        let mut flags = server_flags(&own);
        flags.push(format!("--tls-{flag}"));
        let server = bench.start(&flags)?;
        let url = format!("https://127.0.0.1:{}/version", server.client);
        let old_one = ["-k", "--tls-max", "1.2", &url];
        let new_one = ["-k", "--tlsv1.3", "--http1.1", &url];
        for (arguments, is_served) in [(old_one, old), (new_one, new)] {
            match is_served {
                true => drop(curl(&arguments)?),
                false => drop(curl_refused(&arguments)?),
            }
        }
        ensure!(server.connections("failed")? == 1);
    }
    Ok(())
}

pub(super) fn members(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let mut each = Vec::new();
    for name in ["m0", "m1", "m2"] {
        let mut flags = server_flags(&ours.sign(name, name, HOST)?);
        flags.push(format!("--peer-trusted-ca-file={}", ours.file.display()));
        flags.push("--peer-client-cert-auth".to_owned());
        flags.push("--peer-cert-allowed-cn=m0,m1,m2".to_owned());
        each.push(flags);
    }
    if !bench.is_ours {
        // 3.4 knows one name.
        each.iter_mut().for_each(|flags| flags.truncate(6));
    }
    let each: Vec<_> = each.iter().map(Vec::as_slice).collect();
    let members = bench.start_cluster(&each)?;
    members[0]
        .asker(&ours.file, None)
        .gets(&["put", "a", "b"], "OK")?;
    for member in &members {
        member.asker(&ours.file, None).gets(&["get", "a"], "a\nb")?;
    }
    drop(members);

    // Members that made their certificates themselves.
    let dir = bench.dir.join("auto");
    let bench = Bench {
        dir: &dir,
        ..*bench
    };
    let own = ours.sign("server", "server", HOST)?;
    let flags = [own.flags(""), vec!["--peer-auto-tls".to_owned()]].concat();
    let members = bench.start_cluster(&[&flags, &flags])?;
    members[0]
        .asker(&ours.file, None)
        .gets(&["put", "a", "b"], "OK")?;
    members[1]
        .asker(&ours.file, None)
        .gets(&["get", "a"], "a\nb")
}

pub(super) fn wrong_port(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let server = bench.start(&server_flags(&ours.sign("server", "server", HOST)?))?;
    if !bench.is_ours {
        return Ok(());
    }
    for port in [server.client, server.peer] {
        let url = format!("http://127.0.0.1:{port}/version");
        let answer = curl(&["-w", "%{http_code}", &url])?;
        let sentence = "Client sent an HTTP request to an HTTPS server.\n400";
        ensure!(answer == sentence, "{answer}");
    }
    // Counted after the answer.
    let counted = Instant::now() + Duration::from_secs(10);
    while server.connections("not_tls")? != 2 {
        ensure!(Instant::now() < counted, "not counted");
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = format!("https://127.0.0.1:{}/metrics", server.metrics);
    curl_refused(&["-k", &url])?;
    ensure!(server.connections("unexpected")? == 1);
    let log = server.member.log_tail();
    for sentence in [
        "rejected connection on client endpoint",
        "rejected connection on peer endpoint",
        "TLS was spoken to an http URL",
    ] {
        ensure!(log.contains(sentence), "{log}");
    }
    Ok(())
}

pub(super) fn refused(bench: &Bench<'_>) -> Result<()> {
    let ours = Authority::new(bench.dir, "ours")?;
    let (one, two) = (
        ours.sign("one", "one", HOST)?,
        ours.sign("two", "two", HOST)?,
    );
    let mixed = Identity {
        cert: one.cert.clone(),
        key: two.key,
    };
    let missing = Identity {
        cert: bench.dir.join("missing.crt"),
        key: one.key.clone(),
    };
    let mut no_authority = server_flags(&one);
    no_authority.push(format!(
        "--trusted-ca-file={}",
        bench.dir.join("ca").display()
    ));
    for (flags, sentence) in [
        (one.flags("peer-"), "must be provided for client url"),
        (
            server_flags(&mixed),
            "private key does not match public key",
        ),
        (
            server_flags(&missing),
            "missing.crt: no such file or directory",
        ),
        (no_authority, "ca: no such file or directory"),
    ] {
        let mut server = bench.spawn(&flags)?;
        let ended = server.member.await_end(Duration::from_secs(30))?;
        let status = ended.with_context(|| format!("it runs with {flags:?}"))?;
        let log = server.member.log_tail();
        ensure!(
            !status.success() && log.contains(sentence),
            "{sentence}: {log}"
        );
        if bench.is_ours {
            let data = member::data_dir(bench.dir);
            ensure!(!data.exists(), "{} was made", data.display());
        }
    }
    Ok(())
}
