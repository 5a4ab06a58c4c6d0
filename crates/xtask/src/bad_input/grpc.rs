//! v3 over gRPC: messages that are none, that are too large, and that mean nothing.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use super::{Case, Target, raw};

pub(super) const CASES: &[Case] = &[
    ("gRPC requests that etcd refuses by name", refused),
    ("gRPC bytes that are no message", malformed),
    ("gRPC frames that lie about their message", frames),
    ("gRPC requests that are too large", oversized),
    (
        "gRPC requests with numbers that no enum has",
        unknown_numbers,
    ),
    ("gRPC txns nested a thousand deep", nested),
    ("gRPC random messages to every method", noise),
    ("gRPC watches that ask for nonsense", watches),
    ("gRPC paths and metadata that mean nothing", paths),
];

/// A field with a number: a varint, or bytes.
pub(super) fn field(number: u32, value: u64) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3);
    out.extend(varint(value));
    out
}

pub(super) fn bytes_field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(value.len() as u64));
    out.extend_from_slice(value);
    out
}

/// A message of byte strings.
pub(super) fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let fields = fields
        .iter()
        .map(|(number, value)| bytes_field(*number, value));
    fields.collect::<Vec<_>>().concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A message in gRPC's frame.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

pub(super) async fn connect(port: u16) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let (sender, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(sender.ready().await?)
}

/// Makes a call with a body that need not be a message; its status and text.
pub(super) fn call(port: u16, path: &str, body: &[u8]) -> Result<(i32, String)> {
    call_with(port, path, body, &[])
}

fn call_with(
    port: u16,
    path: &str,
    body: &[u8],
    metadata: &[(&str, &[u8])],
) -> Result<(i32, String)> {
    runtime()?.block_on(async {
        let mut request = Request::post(format!("http://127.0.0.1{path}"))
            .header("content-type", "application/grpc");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let mut sender = connect(port).await?;
        let (answer, mut stream) = sender.send_request(request.body(())?, false)?;
        // The server may have answered before it read all.
        let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        tokio::time::timeout(super::END_LIMIT, status(answer)).await?
    })
}

/// How a call ends.
pub(super) async fn status(answer: h2::client::ResponseFuture) -> Result<(i32, String)> {
    let (head, mut body) = answer.await?.into_parts();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let text = |name| {
        let value = trailers.get(name).map(|value| value.as_bytes());
        percent_decoded(value.unwrap_or_default())
    };
    let code = text("grpc-status").parse().context("no grpc-status")?;
    Ok((code, text("grpc-message")))
}

fn percent_decoded(text: &[u8]) -> String {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| byte == b'%')
        {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A call, its message, and the code and text that answer it; a text ending in `…` is a beginning.
type Refusal<'a> = (&'a str, Vec<u8>, i32, &'a str);

fn all_refused(target: &Target, cases: &[Refusal<'_>]) -> Result<String> {
    for (path, message, code, text) in cases {
        let found = call(
            target.client,
            &format!("/etcdserverpb.{path}"),
            &framed(message),
        )?;
        matches(&found, *code, text).with_context(|| format!("{path} {:?}", short(message)))?;
    }
    Ok(format!("{} answered as they should be", cases.len()))
}

fn matches((code, text): &(i32, String), wanted: i32, wording: &str) -> Result<()> {
    let is_text = match wording.strip_suffix('…') {
        Some(start) => text.starts_with(start),
        None => text == wording,
    };
    ensure!(
        *code == wanted && is_text,
        "{code} {text:?} instead of {wanted} {wording:?}"
    );
    Ok(())
}

fn short(message: &[u8]) -> String {
    message[..message.len().min(60)].escape_ascii().to_string()
}

const NO_KEY: &str = "etcdserver: key is not provided";
const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";

/// An operation of a txn: a put, a delete, or a txn.
fn op(number: u32, message: &[u8]) -> Vec<u8> {
    bytes_field(number, message)
}

fn txn(success: &[Vec<u8>]) -> Vec<u8> {
    let ops = success.iter().map(|op| bytes_field(2, op));
    ops.collect::<Vec<_>>().concat()
}

fn refused(target: &Target) -> Result<String> {
    let key = |more: &[u8]| [bytes_field(1, b"k"), more.to_vec()].concat();
    let put = |name: &[u8]| op(2, &bytes_field(1, name));
    let many: Vec<_> = (0..129)
        .map(|n: u32| put(n.to_string().as_bytes()))
        .collect();
    let cases = [
        ("KV/Range", vec![], 3, NO_KEY),
        ("KV/Put", bytes_field(2, b"v"), 3, NO_KEY),
        ("KV/DeleteRange", vec![], 3, NO_KEY),
        (
            "KV/Range",
            key(&field(4, 1 << 40)),
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "KV/Put",
            key(&field(3, 77)),
            5,
            "etcdserver: requested lease not found",
        ),
        (
            "KV/Put",
            key(&[bytes_field(2, b"v"), field(5, 1)].concat()),
            3,
            "etcdserver: value is provided",
        ),
        (
            "KV/Put",
            key(&[field(3, 77), field(6, 1)].concat()),
            3,
            "etcdserver: lease is provided",
        ),
        (
            "KV/Put",
            [bytes_field(1, b"missing"), field(5, 1)].concat(),
            3,
            "etcdserver: key not found",
        ),
        ("KV/Txn", txn(&[vec![]]), 3, "etcdserver: key not found"),
        ("KV/Txn", txn(&[op(2, b"")]), 3, NO_KEY),
        ("KV/Txn", bytes_field(1, b""), 3, NO_KEY),
        ("KV/Txn", txn(&many), 3, TOO_MANY_OPS),
        ("KV/Txn", txn(&[put(b"a"), put(b"a")]), 3, DUPLICATE),
        (
            "KV/Txn",
            txn(&[put(b"a"), op(3, &message(&[(1, b"\0"), (2, b"\0")]))]),
            3,
            DUPLICATE,
        ),
        (
            "KV/Compact",
            field(1, 1 << 40),
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "Lease/LeaseGrant",
            field(1, 9_000_000_001),
            11,
            "etcdserver: too large lease TTL",
        ),
        (
            "Lease/LeaseRevoke",
            field(1, 77),
            5,
            "etcdserver: requested lease not found",
        ),
        (
            "Maintenance/HashKV",
            field(1, 1 << 40),
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ];
    all_refused(target, &cases)
}

fn malformed(target: &Target) -> Result<String> {
    const BAD: &str = "grpc: error unmarshalling request: …";
    let varint_without_end = [0x08].iter().chain([0xff; 11].iter()).copied().collect();
    let cases = [
        // A tag of field 0, a wire type that does not exist, an end of a group that never began.
        ("KV/Range", vec![0x00, 0x00], 13, BAD),
        ("KV/Range", vec![0x0f], 13, BAD),
        ("KV/Range", vec![0x0c], 13, BAD),
        ("KV/Range", varint_without_end, 13, BAD),
        // A key that is a number, a limit that is text, a length beyond the message.
        ("KV/Range", field(1, 5), 13, BAD),
        ("KV/Range", bytes_field(3, b"1"), 13, BAD),
        (
            "KV/Put",
            vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x'],
            13,
            BAD,
        ),
        ("KV/Put", vec![0x0a, 0x05, b'x'], 13, BAD),
        // Groups within groups that no field has.
        ("KV/Range", [0x7b].repeat(1 << 20), 13, BAD),
        // A name that is no UTF-8.
        (
            "Maintenance/Downgrade",
            bytes_field(2, b"\xff\xfe"),
            13,
            "…",
        ),
        ("Lease/LeaseGrant", bytes_field(1, b"soon"), 13, "…"),
    ];
    let refused = all_refused(target, &cases)?;
    // Fields that nobody knows are passed over.
    let unknown = [bytes_field(1, b"k"), bytes_field(500_000_000, b"?")].concat();
    let found = call(target.client, "/etcdserverpb.KV/Range", &framed(&unknown))?;
    matches(&found, 0, "")?;
    Ok(refused)
}

fn frames(target: &Target) -> Result<String> {
    let key = bytes_field(1, b"k");
    let whole = framed(&key);
    let cases: [(&[u8], i32, &str); 9] = [
        (b"", 13, "the request holds no message"),
        (b"\0\0\0", 13, "the request holds no message"),
        (
            &whole[..whole.len() - 1],
            13,
            "the request does not hold exactly one message",
        ),
        (
            &[&whole[..], b"x"].concat(),
            13,
            "the request does not hold exactly one message",
        ),
        (
            &whole.repeat(2),
            13,
            "the request does not hold exactly one message",
        ),
        (
            &whole.repeat(10_000),
            13,
            "the request does not hold exactly one message",
        ),
        (
            b"\0\xff\xff\xff\xff",
            8,
            "grpc: received message larger than max (4294967295 vs. 2097152)",
        ),
        (
            &[&[1], &whole[1..]].concat(),
            12,
            "grpc: Decompressor is not installed",
        ),
        (
            &[&[0xff], &whole[1..]].concat(),
            12,
            "grpc: Decompressor is not installed",
        ),
    ];
    for (body, code, text) in &cases {
        let found = call(target.client, "/etcdserverpb.KV/Range", body)?;
        matches(&found, *code, text).with_context(|| short(body))?;
        // Calls that are framed elsewhere: refused, in whatever words.
        let (other, text) = call(target.client, "/etcdserverpb.Lease/LeaseRevoke", body)?;
        ensure!(other != 0, "LeaseRevoke {} succeeded: {text}", short(body));
    }
    Ok(format!("{} answered as they should be", cases.len() * 2))
}

fn oversized(target: &Target) -> Result<String> {
    const TOO_LARGE: &str = "etcdserver: request is too large";
    const TOO_LONG: &str = "grpc: received message larger than max …";
    let put = |value: usize| message(&[(1, b"big"), (2, &vec![b'x'; value])]);
    let key = |key: usize| bytes_field(1, &vec![b'k'; key]);
    let cases = [
        ("KV/Put", put(1_572_864), 3, TOO_LARGE),
        ("KV/Put", key(1_572_864), 3, TOO_LARGE),
        (
            "KV/Txn",
            txn(&[op(2, &put(800_000)), op(2, &put(800_001))]),
            3,
            DUPLICATE,
        ),
        (
            "KV/Txn",
            txn(&[op(2, &put(800_000)), op(2, &key(800_000))]),
            3,
            TOO_LARGE,
        ),
        ("KV/Put", put(2_097_152), 8, TOO_LONG),
        ("KV/Put", put(50 << 20), 8, TOO_LONG),
        ("KV/Range", key(3 << 20), 8, TOO_LONG),
        (
            "Lease/LeaseGrant",
            bytes_field(9, &vec![0; 3 << 20]),
            8,
            TOO_LONG,
        ),
        // What is large and allowed.
        ("KV/Put", put(1_500_000), 0, ""),
        ("KV/Put", key(1_000_000), 0, ""),
        (
            "KV/DeleteRange",
            message(&[(1, &vec![b'k'; 1_000_000])]),
            0,
            "",
        ),
        ("KV/DeleteRange", message(&[(1, b"big")]), 0, ""),
    ];
    all_refused(target, &cases)
}

fn unknown_numbers(target: &Target) -> Result<String> {
    const SORT: &str = "etcdserver: invalid sort option";
    let key = |more: Vec<u8>| [bytes_field(1, b"kept"), more].concat();
    let huge = u64::MAX;
    let compare = |more: Vec<u8>| bytes_field(1, &[bytes_field(3, b"kept"), more].concat());
    let cases = [
        // etcd 3.5.1 ends by this one.
        ("KV/Range", key(field(6, 9)), 3, SORT),
        ("KV/Range", key(field(6, huge)), 3, SORT),
        ("KV/Range", key(field(5, 3)), 3, SORT),
        ("KV/Range", key(field(5, 1 << 31)), 3, SORT),
        ("KV/Txn", compare(field(1, 99)), 0, ""),
        ("KV/Txn", compare(field(2, 99)), 0, ""),
        (
            "KV/Txn",
            compare([field(1, huge), field(2, huge)].concat()),
            0,
            "",
        ),
        (
            "Maintenance/Downgrade",
            field(1, 99),
            2,
            "etcdserver: unknown method",
        ),
        // Numbers at their ends.
        ("KV/Range", key(field(3, 1 << 63)), 0, ""),
        (
            "KV/Range",
            key([field(10, huge), field(11, 1 << 63)].concat()),
            0,
            "",
        ),
        ("KV/Range", key(field(4, huge)), 0, ""),
        (
            "KV/Compact",
            field(1, huge),
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        ("Lease/LeaseTimeToLive", field(1, huge), 0, ""),
        (
            "Lease/LeaseGrant",
            [field(1, huge), field(2, huge)].concat(),
            0,
            "",
        ),
        ("Lease/LeaseRevoke", field(1, huge), 0, ""),
    ];
    let known = all_refused(target, &cases)?;
    // Whatever they answer.
    for number in [3, 99, huge] {
        for message in [
            field(1, number),
            field(3, number),
            [field(1, 1), field(3, number)].concat(),
        ] {
            let (code, _) = call(
                target.client,
                "/etcdserverpb.Maintenance/Alarm",
                &framed(&message),
            )?;
            ensure!(matches!(code, 0 | 2 | 3), "Alarm {number}: code {code}");
        }
    }
    let (_, alarms) = call(
        target.client,
        "/etcdserverpb.Maintenance/Alarm",
        &framed(b""),
    )?;
    ensure!(alarms.is_empty(), "an alarm of an unknown kind was raised");
    Ok(known)
}

fn nested(target: &Target) -> Result<String> {
    let put = op(2, &bytes_field(1, b"deep"));
    let deep = |levels: usize| {
        (0..levels).fold(txn(std::slice::from_ref(&put)), |inner, _| {
            txn(&[op(4, &inner)])
        })
    };
    let wide: Vec<_> = (0..60)
        .map(|_| op(4, &txn(&vec![op(4, b""); 60])))
        .collect();
    let cases = [
        ("KV/Txn", deep(1_000), 3, TOO_MANY_OPS),
        ("KV/Txn", deep(50_000), 3, TOO_MANY_OPS),
        ("KV/Txn", deep(100), 3, TOO_MANY_OPS),
        ("KV/Txn", deep(40), 0, ""),
        ("KV/Txn", txn(&wide), 0, ""),
    ];
    all_refused(target, &cases)
}

/// Every method of every service, those that are not built, too.
const METHODS: &[&str] = &[
    "KV/Range",
    "KV/RangeStream",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseKeepAlive",
    "Lease/LeaseTimeToLive",
    "Lease/LeaseLeases",
    "Cluster/MemberAdd",
    "Cluster/MemberRemove",
    "Cluster/MemberUpdate",
    "Cluster/MemberList",
    "Cluster/MemberPromote",
    "Maintenance/Status",
    "Maintenance/Hash",
    "Maintenance/HashKV",
    "Maintenance/MoveLeader",
    "Maintenance/Downgrade",
    "Auth/AuthStatus",
    "Auth/Authenticate",
    "Auth/UserAdd",
    "Auth/RoleAdd",
    "Auth/RoleGrantPermission",
];

fn noise(target: &Target) -> Result<String> {
    let mut refused = 0;
    for (at, method) in METHODS.iter().enumerate() {
        for round in 0..12 {
            let len = [0, 1, 7, 100, 5_000][round % 5];
            let bytes = raw::noise((at * 100 + round) as u64, len);
            let path = format!("/etcdserverpb.{method}");
            let body = if round < 10 { framed(&bytes) } else { bytes };
            let (code, _) = call(target.client, &path, &body)?;
            refused += usize::from(code != 0);
        }
    }
    ensure!(refused > METHODS.len() * 6, "only {refused} were refused");
    Ok(format!(
        "{} messages, {refused} refused",
        METHODS.len() * 12
    ))
}

/// Every message gets the stream to answer, to end, or to be silent; never to fall.
fn watches(target: &Target) -> Result<String> {
    let create = |fields: Vec<u8>| bytes_field(1, &fields);
    let cancel = |id: u64| bytes_field(2, &field(1, id));
    let mut messages = vec![
        vec![],
        create(vec![]),
        create([bytes_field(1, b"a"), field(3, u64::MAX)].concat()),
        create([bytes_field(1, b"a"), field(3, 1 << 62)].concat()),
        create(message(&[(1, b"b"), (2, b"a")])),
        create([bytes_field(1, b"a"), field(7, 5)].concat()),
        create([bytes_field(1, b"a"), field(7, 5)].concat()),
        create([bytes_field(1, b"a"), field(7, u64::MAX)].concat()),
        create([bytes_field(1, b"a"), field(5, 9), field(5, 9)].concat()),
        cancel(5),
        cancel(5),
        cancel(77),
        cancel(u64::MAX),
        bytes_field(3, b""),
        [create(bytes_field(1, b"a")), cancel(0)].concat(),
    ];
    messages.extend((0..500).map(|_| bytes_field(3, b"")));
    let answered = runtime()?.block_on(watch(target.client, messages))?;
    ensure!(answered > 9, "only {answered} answers");
    for seed in 0..20 {
        let _ = call(
            target.client,
            "/etcdserverpb.Watch/Watch",
            &framed(&raw::noise(seed, 50)),
        );
    }
    Ok(format!("{answered} bytes and more of answers"))
}

async fn watch(port: u16, messages: Vec<Vec<u8>>) -> Result<usize> {
    let request = Request::post("http://127.0.0.1/etcdserverpb.Watch/Watch")
        .header("content-type", "application/grpc")
        .body(())?;
    let mut sender = connect(port).await?;
    let (answer, mut stream) = sender.send_request(request, false)?;
    for message in messages {
        stream.send_data(framed(&message).into(), false)?;
    }
    // Behind all the nonsense: one that must be answered.
    let last = bytes_field(1, &[bytes_field(1, b"z"), field(7, 4_711)].concat());
    stream.send_data(framed(&last).into(), false)?;
    let mut body = answer.await?.into_body();
    let mut received = Vec::new();
    let wanted = field(2, 4_711);
    while !received.windows(wanted.len()).any(|found| found == wanted) {
        let data = tokio::time::timeout(super::END_LIMIT, body.data()).await?;
        let data = data.context("the stream ended before the last watch was answered")??;
        body.flow_control().release_capacity(data.len())?;
        received.extend_from_slice(&data);
    }
    Ok(received.len())
}

fn paths(target: &Target) -> Result<String> {
    let cases = [
        (
            "/etcdserverpb.KV/Rang",
            "unknown method Rang for service etcdserverpb.KV",
        ),
        ("/etcdserverpb.Kv/Range", "unknown service etcdserverpb.Kv"),
        (
            "/etcdserverpb.KV/Range/x",
            "unknown service etcdserverpb.KV/Range",
        ),
        ("/x", "…"),
        ("/", "…"),
    ];
    for (path, text) in cases {
        let found = call(target.client, path, &framed(b""))?;
        matches(&found, 12, text).with_context(|| path.to_owned())?;
    }
    let long = format!("/etcdserverpb.KV/{}", "R".repeat(20_000));
    let found = call(target.client, &long, &framed(b""))?;
    matches(&found, 12, "…")?;
    let range = framed(&bytes_field(1, b"k"));
    let of = |name, value| {
        call_with(
            target.client,
            "/etcdserverpb.KV/Range",
            &range,
            &[(name, value)],
        )
    };
    matches(
        &of("client-api-version", b"\xff")?,
        3,
        "etcdserver: invalid client api version",
    )?;
    matches(&of("hasleader", b"true")?, 0, "")?;
    for (name, value) in [
        ("grpc-timeout", &b"99999999999999999999H"[..]),
        ("grpc-timeout", b"soon"),
        ("grpc-encoding", b"zip"),
        ("token", b"\xff\xfe"),
        ("authorization", b"Bearer"),
    ] {
        of(name, value).with_context(|| name.to_owned())?;
    }
    Ok(format!("{} answered as they should be", cases.len() + 8))
}
