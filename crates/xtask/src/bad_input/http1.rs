//! v2, and HTTP/1.1 itself, on both ports.

use anyhow::{Context, Result, ensure};

use super::{Case, Target, raw};

pub(super) const CASES: &[Case] = &[
    ("v2 parameters that are none", parameters),
    ("v2 keys and forms that are too large", oversized),
    ("v2 bodies that lie", bodies),
    ("HTTP heads that are none", heads),
    ("garbage on both ports", garbage),
    ("a TLS hello on both ports", tls),
    ("the peer port", peers),
];

fn parameters(target: &Target) -> Result<String> {
    let cases = [
        ("GET", "/v2/keys/a?recursive", 400, "\"errorCode\":209"),
        ("GET", "/v2/keys/a?wait=maybe", 400, "\"errorCode\":209"),
        ("GET", "/v2/keys/a?waitIndex=-1", 400, "\"errorCode\":203"),
        (
            "GET",
            "/v2/keys/a?waitIndex=18446744073709551616",
            400,
            "\"errorCode\":203",
        ),
        ("GET", "/v2/keys/a?x=%zz", 400, "\"errorCode\":210"),
        ("GET", "/v2/keys/a?x=1;y=2", 400, "\"errorCode\":210"),
        ("PUT", "/v2/keys/a?prevIndex=x", 400, "\"errorCode\":203"),
        ("PUT", "/v2/keys/a?ttl=1.5", 400, "\"errorCode\":202"),
        (
            "PUT",
            "/v2/keys/a?ttl=99999999999999999999",
            400,
            "\"errorCode\":202",
        ),
        ("PUT", "/v2/keys/a?prevValue=", 400, "\"errorCode\":201"),
        (
            "PUT",
            "/v2/keys/a?refresh=true&value=x",
            400,
            "\"errorCode\":211",
        ),
        ("PUT", "/v2/keys/a?refresh=true", 400, "\"errorCode\":212"),
        ("PUT", "/v2/keys/?value=x", 400, "\"errorCode\":107"),
        ("DELETE", "/v2/keys", 400, "\"errorCode\":107"),
        ("DELETE", "/v2/keys/kept", 403, "\"errorCode\":102"),
        ("DELETE", "/v2/keys/kept?dir=true", 403, "\"errorCode\":108"),
        ("PATCH", "/v2/keys/a", 405, "Method Not Allowed"),
        ("BREW", "/v2/keys/a", 405, "Method Not Allowed"),
        ("GET", "/v2/keys//a", 301, "Moved Permanently"),
        (
            "GET",
            "/v2/keys/../../../etc/passwd",
            301,
            "Moved Permanently",
        ),
        ("GET", "/v2/keys/%2e%2e/%2e%2e/x", 301, "Moved Permanently"),
        ("GET", "/v2/keys/%00%ff%0d%0a", 404, "\"errorCode\":100"),
        ("GET", "/v2/keysfoo", 404, "404 page not found"),
        ("GET", "/%zz", 400, ""),
        ("GET", "/v2/nothing", 404, "404 page not found"),
        ("GET", "/v2/stats/nothing", 404, ""),
    ];
    for (method, path, status, text) in cases {
        let answer = raw::request(target.client, &format!("{method} {path} HTTP/1.1"), b"")?;
        ensure!(
            answer.status == status && answer.body.contains(text),
            "{method} {path}: {answer:?} instead of {status} {text}"
        );
    }
    Ok(format!("{} answered as they should be", cases.len()))
}

fn oversized(target: &Target) -> Result<String> {
    const TOO_LARGE: &str = "http: POST too large";
    let value = |len: usize| format!("value={}", "x".repeat(len));
    let escaped = |len: usize| format!("value={}", "%41".repeat(len));
    let pairs = "a=b&".repeat(200_000);
    let cases = [
        ("/v2/keys/a", value(1_572_864), 400, TOO_LARGE),
        ("/v2/keys/a", value(10 << 20), 400, TOO_LARGE),
        ("/v2/keys/a", value(40 << 20), 400, TOO_LARGE),
        ("/v2/keys/a", escaped(1_572_864), 400, TOO_LARGE),
        ("/v2/keys/a", escaped(1_500_000), 201, ""),
        ("/v2/keys/a", pairs, 200, ""),
        ("/v2/keys/a", "=".repeat(100_000), 200, ""),
        (
            "/v2/keys/a",
            "%zz".repeat(100_000),
            400,
            "\"errorCode\":210",
        ),
        (
            "/v2/keys/a",
            format!("prevValue={}", "x".repeat(1_000_000)),
            412,
            "\"errorCode\":101",
        ),
    ];
    for (path, form, status, text) in &cases {
        let answer = raw::form(target.client, "PUT", path, form)
            .with_context(|| format!("a form of {} bytes", form.len()))?;
        ensure!(
            answer.status == *status && answer.body.contains(text),
            "a form of {} bytes: {} {} instead of {status} {text}",
            form.len(),
            answer.status,
            &answer.body[..answer.body.len().min(300)]
        );
    }
    let path = |elements: usize, len: usize| {
        format!(
            "/v2/keys{}",
            format!("/{}", "e".repeat(len)).repeat(elements)
        )
    };
    for (path, status, text) in [
        (path(129, 1), 400, "path too long"),
        (path(1, 4_097), 400, "path too long"),
        (path(5_000, 2), 400, "path too long"),
        (path(128, 1), 201, ""),
        (path(1, 70_000), 414, ""),
        (path(1, 5 << 20), 414, ""),
    ] {
        let answer = raw::form(target.client, "PUT", &path, "value=1");
        let answer = answer.with_context(|| format!("a path of {} bytes", path.len()))?;
        let is_long = answer.status == status || (status == 414 && answer.status == 431);
        ensure!(is_long && answer.body.contains(text), "{status} {answer:?}");
    }
    raw::form(target.client, "DELETE", "/v2/keys/e?recursive=true", "")?;
    raw::form(target.client, "DELETE", "/v2/keys/a", "")?;
    Ok(format!("{} answered as they should be", cases.len() + 6))
}

fn bodies(target: &Target) -> Result<String> {
    const FORM: &str = "PUT /v2/keys/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                        Content-Type: application/x-www-form-urlencoded\r\n";
    let cases: [(&str, &str, u16, &str); 9] = [
        ("Content-Length: 100\r\n", "value=1", 400, "unexpected EOF"),
        (
            "Transfer-Encoding: chunked\r\n",
            "zz\r\nvalue=1",
            400,
            "unexpected EOF",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "7\r\nvalue=1",
            400,
            "unexpected EOF",
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            "ffffffffffffffffff\r\nvalue=1",
            400,
            "unexpected EOF",
        ),
        ("Transfer-Encoding: gzip\r\n", "value=1", 400, ""),
        (
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "value=1",
            400,
            "",
        ),
        ("Content-Length: -7\r\n", "value=1", 400, ""),
        (
            "Content-Length: 18446744073709551616\r\n",
            "value=1",
            400,
            "",
        ),
        ("Content-Length: seven\r\n", "value=1", 400, ""),
    ];
    for (headers, body, status, text) in cases {
        let bytes = format!("{FORM}{headers}\r\n{body}");
        let answer = raw::parse(&raw::exchange_and_end(target.client, bytes.as_bytes())?);
        let answer = answer.with_context(|| format!("{headers:?} {body:?}"))?;
        ensure!(
            answer.status == status && answer.body.contains(text),
            "{headers:?} {body:?}: {answer:?} instead of {status} {text}"
        );
    }
    smuggled(target)?;
    let odd = "application/x-www-form-urlencoded; charset";
    let head = format!("PUT /v2/keys/a HTTP/1.1\r\nContent-Type: {odd}\r\nContent-Length: 7");
    let answer = raw::request(target.client, &head, b"value=1")?;
    ensure!(
        answer.body.contains("mime: invalid media parameter"),
        "{answer:?}"
    );
    Ok(format!("{} answered as they should be", cases.len() + 2))
}

/// A request within a request's body, for whoever believes Content-Length when there are chunks.
fn smuggled(target: &Target) -> Result<()> {
    let inner = "PUT /v2/keys/smuggled?value=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let bytes = format!(
        "POST /v2/keys/q HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    raw::exchange_and_end(target.client, bytes.as_bytes())?;
    let answer = raw::get(target.client, "/v2/keys/smuggled")?;
    ensure!(
        answer.status == 404,
        "a request within a body was done: {answer:?}"
    );
    Ok(())
}

fn heads(target: &Target) -> Result<String> {
    let long = "x".repeat(3 << 20);
    let many = (0..5_000)
        .map(|n| format!("X-{n}: y\r\n"))
        .collect::<String>();
    let cases = [
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 0..=505),
        ("GET /\r\n\r\n".to_owned(), 400..=400),
        ("GET  /  HTTP/1.1\r\n\r\n".to_owned(), 400..=400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400..=400),
        ("GET / HTTP/1.1\r\n: empty\r\n\r\n".to_owned(), 400..=400),
        ("GET / HTTP/1.1\r\nA\0: b\r\n\r\n".to_owned(), 400..=400),
        (
            "GET / HTTP/1.1\nHost: x\nConnection: close\n\n".to_owned(),
            404..=404,
        ),
        (format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n"), 431..=431),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431..=431),
        (
            format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(100_000)),
            400..=431,
        ),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414..=431),
        (
            "CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            400..=405,
        ),
    ];
    for (head, statuses) in &cases {
        let bytes = raw::exchange_and_end(target.client, head.as_bytes())?;
        let shown: String = head.chars().take(40).collect();
        let status = match bytes.is_empty() {
            true => 0,
            false => raw::parse(&bytes)?.status,
        };
        ensure!(
            statuses.contains(&status),
            "{shown:?}: {status}, not {statuses:?}"
        );
    }
    Ok(format!("{} refused", cases.len()))
}

fn garbage(target: &Target) -> Result<String> {
    let mut count = 0;
    for port in [target.client, target.peer] {
        for seed in 0..100 {
            let len = [1, 10, 100, 5_000, 200_000][seed as usize % 5];
            count += 1;
            raw::exchange_and_end(port, &raw::noise(seed, len))?;
        }
        for text in [
            &b"\r\n\r\n\r\n"[..],
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"EHLO example.com\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame, is it?",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ] {
            count += 1;
            raw::exchange_and_end(port, text)?;
        }
    }
    Ok(format!("{count} connections were ended"))
}

/// The beginning of a real hello: a record of TLS 1.0 with a hello of TLS 1.2 in it.
fn tls(target: &Target) -> Result<String> {
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.extend(raw::noise(1, 505));
    for port in [target.client, target.peer] {
        let answer = raw::exchange(port, &hello)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(
            text.is_empty() || text.starts_with("HTTP/1.1 400"),
            "{text:?}"
        );
    }
    Ok("refused".to_owned())
}

fn peers(target: &Target) -> Result<String> {
    let body = raw::noise(7, 3 << 20);
    for (head, status) in [
        ("GET /version HTTP/1.1", 200),
        ("GET /v2/keys/kept HTTP/1.1", 404),
        ("GET /nothing HTTP/1.1", 404),
        ("GET /raft HTTP/1.1", 501),
    ] {
        let answer = raw::request(target.peer, head, b"")?;
        ensure!(answer.status == status, "{head}: {answer:?}");
    }
    for path in [
        "/raft",
        "/raft/snapshot",
        "/raft/stream/msgapp/1",
        "/nothing",
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}", body.len());
        let answer = raw::request(target.peer, &head, &body);
        // Whatever was said may be lost when the connection is closed on what nobody read.
        if let Ok(answer) = answer {
            ensure!(matches!(answer.status, 404 | 501), "{answer:?}");
        }
    }
    Ok("answers HTTP as a member of no cluster of etcd's".to_owned())
}
