//! v3's JSON gateway: text that is no JSON, and JSON that is no message.

use anyhow::{Context, Result, ensure};

use super::{Case, Target, raw};

pub(super) const CASES: &[Case] = &[
    ("JSON that is none", malformed),
    ("JSON that is no request", meaningless),
    ("JSON that is too large or too deep", oversized),
    ("JSON to streams", streams),
];

/// Posts and compares status, gRPC's code, and a part of the message.
fn refused(target: &Target, cases: &[(&str, Vec<u8>, u16, i64, &str)]) -> Result<String> {
    for (path, json, status, code, text) in cases {
        let answer = raw::post(target.client, path, json)?;
        let shown = json[..json.len().min(60)].escape_ascii().to_string();
        let found: serde_json::Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("{path} {shown}: {}", answer.body))?;
        let message = found["message"].as_str().unwrap_or_default();
        ensure!(
            answer.status == *status
                && found["code"].as_i64().unwrap_or_default() == *code
                && message.contains(text),
            "{path} {shown}: {} {} instead of {status} {code} {text:?}",
            answer.status,
            answer.body
        );
    }
    Ok(format!("{} answered as they should be", cases.len()))
}

const RANGE: &str = "/v3/kv/range";

fn malformed(target: &Target) -> Result<String> {
    let texts: &[&[u8]] = &[
        b"{",
        b"{\"key\"",
        b"{\"key\":}",
        b"[1,",
        b"nul",
        b"-",
        b"1.",
        b"\"",
        b"\"\\u12\"",
        b"{\"key\":\"YQ==\",}",
        b"{'key':1}",
        b"\xff\xfe\x00",
        b"\0",
        b"<xml/>",
        b"{\"a\":1 \"b\":2}",
        b"{\"key\":\"\xff\"}",
        b"}{",
        b"]",
        b"\"\x01\"",
        b"01x",
    ];
    let cases: Vec<_> = texts
        .iter()
        .map(|text| (RANGE, text.to_vec(), 400, 3, ""))
        .collect();
    refused(target, &cases)
}

fn meaningless(target: &Target) -> Result<String> {
    let case =
        |path, json: &str, status, code, text| (path, json.as_bytes().to_vec(), status, code, text);
    let cases = [
        case(RANGE, "[]", 400, 3, "unexpected token ["),
        case(RANGE, "null", 400, 3, "unexpected token null"),
        case(RANGE, "7", 400, 3, "unexpected token 7"),
        case(RANGE, "{}", 400, 3, "etcdserver: key is not provided"),
        case(RANGE, "", 400, 3, "etcdserver: key is not provided"),
        case(
            RANGE,
            "{\"key\":5}",
            400,
            3,
            "invalid value for bytes field key",
        ),
        case(
            RANGE,
            "{\"key\":\"@@\"}",
            400,
            3,
            "invalid value for bytes field key",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"limit\":\"x\"}",
            400,
            3,
            "invalid value for int64 field limit",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"limit\":9223372036854775808}",
            400,
            3,
            "limit",
        ),
        case(RANGE, "{\"key\":\"YQ==\",\"limit\":1e999}", 400, 3, "limit"),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"sort_target\":9}",
            400,
            3,
            "etcdserver: invalid sort option",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"sort_order\":-1}",
            400,
            3,
            "etcdserver: invalid sort option",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"key\":\"Yg==\"}",
            400,
            3,
            "duplicate field \"key\"",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"sort_order\":\"UP\"}",
            200,
            0,
            "",
        ),
        case(
            RANGE,
            "{\"key\":\"YQ==\",\"what\":{\"is\":[\"this\"]}}",
            200,
            0,
            "",
        ),
        case(RANGE, "{\"key\":\"YQ==\"} and more", 200, 0, ""),
        case(
            "/v3/kv/txn",
            "{\"compare\":[{\"key\":\"YQ==\",\"version\":1,\"lease\":1}]}",
            400,
            3,
            "already set",
        ),
        case(
            "/v3/kv/txn",
            "{\"compare\":[{\"key\":\"YQ==\",\"target\":99,\"result\":99}]}",
            200,
            0,
            "",
        ),
        case(
            "/v3/kv/txn",
            "{\"success\":[{}]}",
            400,
            3,
            "etcdserver: key not found",
        ),
        case(
            "/v3/lease/revoke",
            "{\"ID\":77}",
            404,
            5,
            "etcdserver: requested lease not found",
        ),
        case(
            "/v3/maintenance/downgrade",
            "{\"action\":99}",
            500,
            2,
            "etcdserver: unknown method",
        ),
        case("/v3/kv/nothing", "{}", 404, 5, "Not Found"),
        case("/v3/", "{}", 404, 5, "Not Found"),
        case("/v3/kv/range%00", "{}", 404, 5, "Not Found"),
    ];
    let answered = refused(target, &cases)?;
    let answer = raw::get(target.client, RANGE)?;
    ensure!(
        answer.status == 501 && answer.body.contains("\"code\":12"),
        "{answer:?}"
    );
    Ok(answered)
}

fn oversized(target: &Target) -> Result<String> {
    let nested = |levels: usize| {
        let open = "{\"success\":[{\"request_txn\":".repeat(levels);
        format!("{open}{{}}{}", "}]}".repeat(levels)).into_bytes()
    };
    let put = |value: usize| {
        let value = "QUFB".repeat(value / 3);
        format!("{{\"key\":\"YmlnCg==\",\"value\":\"{value}\"}}").into_bytes()
    };
    let spaces = vec![b' '; 20 << 20];
    let cases = [
        ("/v3/kv/txn", nested(1_000), 400, 3, ""),
        ("/v3/kv/txn", nested(100_000), 400, 3, ""),
        (RANGE, [b'['].repeat(100_000), 400, 3, "exceeded max depth"),
        (
            RANGE,
            [b"{\"a\":".repeat(9_000), b"1".to_vec(), b"}".repeat(9_000)].concat(),
            400,
            3,
            "etcdserver: key is not provided",
        ),
        (
            "/v3/kv/put",
            put(1_572_864),
            400,
            3,
            "etcdserver: request is too large",
        ),
        (
            "/v3/kv/put",
            put(3 << 20),
            429,
            8,
            "grpc: received message larger than max",
        ),
        (
            "/v3/kv/put",
            put(30 << 20),
            429,
            8,
            "grpc: received message larger than max",
        ),
        (RANGE, spaces, 400, 3, "etcdserver: key is not provided"),
        (
            RANGE,
            format!("{{\"key\":\"YQ==\",\"limit\":{}}}", "9".repeat(100_000)).into_bytes(),
            400,
            3,
            "limit",
        ),
    ];
    refused(target, &cases)
}

/// A stream's request is read as far as it is one; the stream then ends or is silent, as in etcd.
fn streams(target: &Target) -> Result<String> {
    let texts: &[&[u8]] = &[
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"{\"create_request\":{\"key\":5}}",
        b"{\"ID\":77}{\"ID\":",
        b"{\"ID\":\"x\"}",
    ];
    for text in texts {
        let answer = raw::post(target.client, "/v3/lease/keepalive", text)?;
        ensure!(answer.status == 200, "{text:?}: {answer:?}");
    }
    for text in texts {
        let mut stream = raw::connect(target.client)?;
        let head = format!(
            "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        std::io::Write::write_all(&mut stream, &[head.as_bytes(), text].concat())?;
    }
    Ok(format!("{} answered, ended or silent", texts.len() * 2))
}
