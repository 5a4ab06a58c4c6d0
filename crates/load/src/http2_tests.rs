use super::{
    CONTINUATION, Call, DATA, END_HEADERS, END_OR_ACK, GOAWAY, HEADERS, Http2, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, read_frame, write_frame,
};
use crate::connection::Event;

const STATUS_200: &[u8] = &[0x88];

/// A literal field of an answer.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.push(u8::try_from(text.len()).expect("short"));
        out.extend(text.as_bytes());
    }
    out
}

fn call(slot: usize, is_stream: bool) -> Call {
    Call {
        slot,
        path: "/S/M".into(),
        wanted_bytes: 7,
        is_stream,
    }
}

/// A connection with a call under way in slot 3, on stream 1.
fn under_way(is_stream: bool) -> Http2 {
    let mut out = Vec::new();
    let mut http = Http2::new(&mut out);
    http.request(call(3, is_stream), b"\0\0\0\0\0", &mut out);
    http
}

/// What a server's frames bring, byte by byte, and what is said to it.
fn receive(http: &mut Http2, frames: &[(u8, u8, u32, &[u8])]) -> (Vec<Event>, Vec<u8>) {
    let (mut bytes, mut out, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, flags, id, payload) in frames {
        write_frame(&mut bytes, *kind, *flags, *id, payload);
    }
    for byte in bytes {
        http.receive(&[byte], &mut out, &mut events)
            .expect("a good connection");
    }
    (events, out)
}

/// How the call under way ended.
fn end(frames: &[(u8, u8, u32, &[u8])]) -> Result<(), String> {
    let (mut events, _) = receive(&mut under_way(false), frames);
    assert_eq!(events.len(), 1, "one end");
    match events.pop() {
        Some(Event::Done { slot: 3, result }) => result,
        _ => panic!("not the end of the call"),
    }
}

#[test]
fn a_call_is_done_when_its_status_is_0() {
    let zero = field("grpc-status", "0");
    let good: [(u8, u8, u32, &[u8]); 3] = [
        (HEADERS, END_HEADERS, 1, STATUS_200),
        (DATA, 0, 1, b"\0\0\0\0\x02ab"),
        (HEADERS, END_HEADERS | END_OR_ACK, 1, &zero),
    ];
    assert_eq!(end(&good), Ok(()));
    let (first, rest) = zero.split_at(5);
    let in_parts: [(u8, u8, u32, &[u8]); 4] = [
        good[0],
        (DATA, 8, 1, b"\x01\0\0\0\0\x02abx"),
        (HEADERS, END_OR_ACK, 1, first),
        (CONTINUATION, END_HEADERS, 1, rest),
    ];
    assert_eq!(end(&in_parts), Ok(()));
}

#[test]
fn each_way_to_fail_is_told() {
    let status = field("grpc-status", "12");
    let text = field("grpc-message", "unknown method");
    let refused = [STATUS_200, &status, &text].concat();
    let last = END_HEADERS | END_OR_ACK;
    let failure = end(&[(HEADERS, last, 1, &refused)]).expect_err("refused");
    assert_eq!(failure, "gRPC status 12: unknown method");
    assert_eq!(
        end(&[(HEADERS, last, 1, &[0x8d])]).expect_err("404"),
        "HTTP status 404"
    );
    end(&[(HEADERS, last, 1, STATUS_200)]).expect_err("no status");
    end(&[
        (HEADERS, END_HEADERS, 1, STATUS_200),
        (DATA, END_OR_ACK, 1, b"\0\0\0\0\x02ab"),
    ])
    .expect_err("no trailers");
    let zero = [STATUS_200, &field("grpc-status", "0")].concat();
    end(&[(HEADERS, last, 1, &zero)]).expect_err("no message");
    end(&[(RST_STREAM, 0, 1, &[0, 0, 0, 7])]).expect_err("reset");
}

#[test]
fn a_goaway_ends_the_connection() {
    let (mut out, mut events) = (Vec::new(), Vec::new());
    let mut bytes = Vec::new();
    write_frame(&mut bytes, GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0too many");
    let ended = under_way(false).receive(&bytes, &mut out, &mut events);
    assert!(ended.is_err_and(|text| text.contains("too many")));
}

#[test]
fn pings_and_settings_are_answered() {
    let frames: [(u8, u8, u32, &[u8]); 4] = [
        (SETTINGS, 0, 0, &[]),
        (PING, 0, 0, b"12345678"),
        (SETTINGS, END_OR_ACK, 0, &[]),
        (PING, END_OR_ACK, 0, b"12345678"),
    ];
    let (_, out) = receive(&mut under_way(false), &frames);
    let (first, rest) = read_frame(&out).expect("a frame");
    let (second, rest) = read_frame(rest).expect("a frame");
    assert_eq!((first.kind, first.flags), (SETTINGS, END_OR_ACK));
    assert_eq!(
        (second.kind, second.flags, second.payload),
        (PING, END_OR_ACK, &b"12345678"[..])
    );
    assert!(rest.is_empty());
}

#[test]
fn a_call_waits_for_the_servers_window() {
    let mut http = under_way(false);
    let (mut out, body) = (Vec::new(), vec![0; 16_000]);
    for slot in 0..5 {
        http.request(call(slot, false), &body, &mut out);
    }
    // 65,535 less what the first call took is room for four of them.
    assert_eq!(out.len() / body.len(), 4);
    let (_, out) = receive(&mut http, &[(WINDOW_UPDATE, 0, 0, &100_u32.to_be_bytes())]);
    assert!(out.is_empty());
    let (_, out) = receive(
        &mut http,
        &[(WINDOW_UPDATE, 0, 0, &16_000_u32.to_be_bytes())],
    );
    assert_eq!(out.len() / body.len(), 1);
}

#[test]
fn messages_of_a_stream_are_put_together() {
    let mut http = under_way(true);
    let frames: [(u8, u8, u32, &[u8]); 3] = [
        (HEADERS, END_HEADERS, 1, STATUS_200),
        (DATA, 0, 1, b"\0\0\0\0\x02ab\0\0\0"),
        (DATA, 0, 1, b"\0\x01c"),
    ];
    let (events, _) = receive(&mut http, &frames);
    let messages: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Message(bytes) => bytes.as_slice(),
            Event::Done { .. } => b"ended",
        })
        .collect();
    assert_eq!(messages, [&b"ab"[..], b"c"]);
    assert!(!http.is_quiet());
}

#[test]
fn a_connection_is_spent_with_its_stream_ids() {
    let mut http = under_way(false);
    for _ in 1..21 {
        assert!(!http.is_spent());
        http.request(call(0, false), &[], &mut Vec::new());
    }
    assert!(http.is_spent() && !http.is_quiet());
}
