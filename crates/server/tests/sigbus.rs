//! A disk that does not give what is read, played by a segment file that is cut short.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

#[allow(dead_code)]
#[path = "support/ports.rs"]
mod ports;

/// Long enough to live in the log and not in the index.
const VALUE: &str = "a value of which the index holds no more than its place in the log";

/// The answer to one HTTP request; what there is of it, if the server ends meanwhile.
fn ask(port: u16, request: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let head =
            "Host: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded";
        let (line, body) = request.split_once('\n').unwrap_or((request, ""));
        let len = body.len();
        let text = format!("{line} HTTP/1.1\r\n{head}\r\nContent-Length: {len}\r\n\r\n{body}");
        let _ = stream.write_all(text.as_bytes());
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn start(directory: &std::path::Path, port: u16) -> Child {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{}", ports::free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command
        .args(["--data-dir".as_ref(), directory.as_os_str()])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args(["--listen-peer-urls", &peer])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().expect("the binary")
}

#[test]
fn a_page_that_cannot_be_read_ends_the_member_and_is_named() {
    const SIGBUS: i32 = 7;
    let directory = tempfile::tempdir().expect("a directory");
    let port = ports::free_port();
    let mut child = start(directory.path(), port);
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("ready to serve") {
        line.clear();
        assert!(log.read_line(&mut line).expect("text") > 0, "it starts");
    }
    let put = ask(port, &format!("PUT /v2/keys/a\nvalue={VALUE}"));
    assert!(put.contains(VALUE), "{put}");
    let segment = directory.path().join("0000000001.segment");
    let segment = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .expect("a segment");
    // The idle mark may make it long again, with zeros: then a read is answered with an error.
    while child.try_wait().expect("a child").is_none() {
        segment.set_len(0).expect("cut");
        let got = ask(port, "GET /v2/keys/a");
        assert!(!got.contains(VALUE), "{got}");
    }
    assert_eq!(child.wait().expect("a child").signal(), Some(SIGBUS));
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("text");
    assert!(
        rest.contains("SIGBUS") && rest.contains("of segment 1; this member must stop"),
        "{rest}"
    );
}
