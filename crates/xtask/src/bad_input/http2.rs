//! Floods within HTTP/2, each of which has felled some server: the connection ends with GOAWAY, or
//! what came is answered; memory and the other connections must not feel it.

use std::io::{Read as _, Write as _};

use anyhow::{Context, Result, ensure};
use http::Request;

use super::{Case, Target, grpc, raw};

pub(super) const CASES: &[Case] = &[
    ("streams that are reset at once", rapid_reset),
    ("CONTINUATION frames without end", continuation_flood),
    ("PING frames by the million", ping_flood),
    ("SETTINGS frames by the million", settings_flood),
    ("empty DATA frames by the million", empty_data_flood),
    ("headers that grow when decoded", header_bomb),
    ("windows that overflow", windows),
    ("frames out of order", disorder),
    ("requests that hold memory and do not end", held_memory),
    ("streams by the ten thousand", many_streams),
];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The preface and a first SETTINGS.
pub(super) fn opening() -> Vec<u8> {
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &[]),
    ]
    .concat()
}

/// A header field that is not indexed.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        let len = u8::try_from(text.len()).expect("short");
        assert!(len < 127, "an integer of one byte");
        out.push(len);
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The headers of a Range.
pub(super) fn range_headers() -> Vec<u8> {
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":authority", "x"),
        literal(":path", "/etcdserverpb.KV/Range"),
        literal("content-type", "application/grpc"),
    ]
    .concat()
}

/// Sends as much of a flood as the server takes, and reads until it closes; the code of its GOAWAY.
fn flood(target: &Target, bytes: &[u8]) -> Result<Option<u32>> {
    let mut stream = raw::connect(target.client)?;
    let mut reader = stream.try_clone()?;
    let read = std::thread::spawn(move || raw::to_end(&mut reader));
    let _ = stream.write_all(&opening());
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let answer = read.join().expect("reading does not panic")?;
    Ok(goaway(&answer))
}

/// The error code of the last GOAWAY, if there is one.
fn goaway(mut answer: &[u8]) -> Option<u32> {
    let mut code = None;
    while let Some(&[a, b, c, kind, ..]) = answer.first_chunk::<9>() {
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let Some(frame) = answer.get(9..end) else {
            break;
        };
        if let (GOAWAY, Some(bytes)) = (kind, frame.get(4..8)) {
            code = Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")));
        }
        answer = &answer[end..];
    }
    code
}

/// A flood that the server must end with the given code.
fn ended(target: &Target, bytes: &[u8], code: u32) -> Result<String> {
    let found = flood(target, bytes)?;
    // A closed connection may lose its last words.
    ensure!(
        found.is_none_or(|found| found == code),
        "GOAWAY {found:?} instead of {code}"
    );
    Ok(format!("ended with code {code}"))
}

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

fn rapid_reset(target: &Target) -> Result<String> {
    let headers = range_headers();
    let streams = (0..100_000_u32).map(|n| 2 * n + 1).flat_map(|stream| {
        let begun = frame(HEADERS, END_HEADERS, stream, &headers);
        [begun, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let found = flood(target, &streams.collect::<Vec<_>>())?;
    ensure!(found == Some(ENHANCE_YOUR_CALM), "GOAWAY {found:?}");
    Ok("100,000 streams; ended with code 11".to_owned())
}

fn continuation_flood(target: &Target) -> Result<String> {
    let mut bytes = frame(HEADERS, END_STREAM, 1, &range_headers());
    let piece = literal("x", &"y".repeat(100)).repeat(100);
    for _ in 0..5_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &piece));
    }
    let long = ended(target, &bytes, ENHANCE_YOUR_CALM)?;
    let mut empty = frame(HEADERS, END_STREAM, 1, &range_headers());
    for _ in 0..500_000 {
        empty.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    ended(target, &empty, ENHANCE_YOUR_CALM)?;
    Ok(format!("50 MB of headers and 500,000 empty frames; {long}"))
}

/// Answered while the client reads, and not gathered while it does not.
fn ping_flood(target: &Target) -> Result<String> {
    unread(target, &frame(PING, 0, 0, &[7; 8]))
}

fn settings_flood(target: &Target) -> Result<String> {
    unread(target, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))
}

/// Sends a frame that wants an answer until the server stops reading, and reads nothing.
fn unread(target: &Target, frame: &[u8]) -> Result<String> {
    let mut stream = raw::connect(target.client)?;
    stream.write_all(&opening())?;
    stream.set_write_timeout(Some(std::time::Duration::from_secs(2)))?;
    let piece = frame.repeat(10_000);
    let mut sent = 0_usize;
    while sent < 2_000_000 && stream.write_all(&piece).is_ok() {
        sent += 10_000;
    }
    let memory = super::memory_bytes(target.pid)?;
    ensure!(memory < super::MAX_MEMORY_BYTES, "{memory} bytes");
    Ok(format!("{sent} sent, none read"))
}

fn empty_data_flood(target: &Target) -> Result<String> {
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &range_headers());
    bytes.extend(frame(DATA, 0, 1, &[]).repeat(1_000_000));
    let found = flood(target, &bytes)?;
    Ok(format!("GOAWAY {found:?}"))
}

/// A long value, put into the table once and named ten thousand times.
fn header_bomb(target: &Target) -> Result<String> {
    let value = "v".repeat(3_900);
    // Indexed literal: 0x40, the name, and a length of more than one byte.
    let mut block = range_headers();
    block.extend([0x40, 1, b'x', 0x7f]);
    let mut rest = value.len() - 127;
    while rest > 127 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.extend_from_slice(value.as_bytes());
    block.extend(vec![0x80 | 62; 10_000]);
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let found = flood(target, &bytes)?;
    Ok(format!("39 MB of headers in 14 kB; GOAWAY {found:?}"))
}

fn windows(target: &Target) -> Result<String> {
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let twice = frame(WINDOW_UPDATE, 0, 0, &most).repeat(2);
    ended(target, &twice, 3)?;
    ended(target, &frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR)?;
    ended(
        target,
        &frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        PROTOCOL_ERROR,
    )?;
    ended(
        target,
        &frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        PROTOCOL_ERROR,
    )?;
    Ok("refused by name".to_owned())
}

fn disorder(target: &Target) -> Result<String> {
    let headers = range_headers();
    let cases = [
        frame(DATA, 0, 1, b"x"),
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, END_HEADERS, 0, &headers),
        frame(HEADERS, END_HEADERS, 2, &headers),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 50]),
        frame(HEADERS, END_HEADERS | 8, 1, &[0xff; 5]),
        frame(CONTINUATION, END_HEADERS, 1, &headers),
        frame(PING, 0, 0, b"short"),
        frame(PING, 0, 3, &[0; 8]),
        frame(5, END_HEADERS, 1, &[0, 0, 0, 2]),
        frame(RST_STREAM, 0, 9, &[0; 4]),
        frame(DATA, 0, 1, &vec![0; 70_000]),
        [frame(HEADERS, 0, 1, &headers), frame(PING, 0, 0, &[0; 8])].concat(),
        frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &literal("Upper", "case"),
        ),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &literal(":path", "/")),
        frame(0xfe, 0xff, 77, b"unknown"),
    ];
    for (at, bytes) in cases.iter().enumerate() {
        flood(target, bytes).with_context(|| format!("case {at}"))?;
    }
    Ok(format!("{} connections were ended", cases.len()))
}

/// More than all bodies together may hold: what is too much is refused, and room comes back.
fn held_memory(target: &Target) -> Result<String> {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 25;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let whole = grpc::framed(&grpc::message(&[(1, b"held"), (2, &vec![b'x'; 1_500_000])]));
    let (refused, memory) = runtime.block_on(async {
        let (mut senders, mut open, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let mut sender = grpc::connect(target.client).await?;
            for _ in 0..STREAMS {
                let request = Request::post("http://127.0.0.1/etcdserverpb.KV/Put")
                    .header("content-type", "application/grpc")
                    .body(())?;
                let (answer, mut stream) = sender.send_request(request, false)?;
                stream.send_data(whole[..whole.len() - 1].to_vec().into(), false)?;
                open.push(stream);
                answers.push(grpc::status(answer));
            }
            senders.push(sender);
        }
        let mut refused = 0;
        for answer in answers {
            let ended = tokio::time::timeout(std::time::Duration::from_millis(100), answer).await;
            if let Ok(ended) = ended {
                let (code, text) = ended?;
                ensure!(
                    code == 8 && text == "etcdserver: too many requests",
                    "{code} {text}"
                );
                refused += 1;
            }
        }
        Ok((refused, super::memory_bytes(target.pid)?))
    })?;
    ensure!(refused > 0, "no request was refused");
    ensure!(
        memory < super::MAX_MEMORY_BYTES,
        "the server held {memory} bytes"
    );
    Ok(format!(
        "{refused} of {} refused, {} MiB held",
        CONNECTIONS * STREAMS,
        memory >> 20
    ))
}

fn many_streams(target: &Target) -> Result<String> {
    const STREAMS: u32 = 20_000;
    let mut stream = raw::connect(target.client)?;
    stream.write_all(&opening())?;
    let headers = range_headers();
    let mut reader = stream.try_clone()?;
    let read = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while reader.read(&mut piece).is_ok_and(|count| count > 0) {}
    });
    for stream_id in (0..STREAMS).map(|n| 2 * n + 1) {
        stream.write_all(&frame(HEADERS, END_HEADERS, stream_id, &headers))?;
    }
    super::write(target)?;
    let memory = super::memory_bytes(target.pid)?;
    stream.shutdown(std::net::Shutdown::Both)?;
    read.join().expect("reading does not panic");
    ensure!(
        memory < super::MAX_MEMORY_BYTES,
        "the server held {memory} bytes"
    );
    Ok(format!("{STREAMS} open, {} MiB held", memory >> 20))
}
