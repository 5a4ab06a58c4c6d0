//! Connections that are slow, silent, or too many.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Case, END_LIMIT, Target, grpc, http2, raw};
use crate::member::{self, Member};
use crate::workspace;

pub(super) const CASES: &[Case] = &[
    ("a thousand silent connections", silent),
    ("answers that nobody reads", unread),
];

/// How many of each kind.
const EACH: usize = 20;

/// Connections that do not say what they want, or do not finish. Each must end by the server's doing,
/// with words if it spoke enough HTTP to be told.
pub(super) struct SlowOnes {
    opened: Instant,
    kinds: Vec<(&'static str, &'static str, Vec<TcpStream>)>,
}

impl SlowOnes {
    pub(super) fn open(target: &Target) -> Result<Self> {
        let form =
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=";
        let v2 = format!("PUT /v2/keys/slow HTTP/1.1\r\nHost: x\r\n{form}");
        let json = "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"key\":";
        let kinds: [(&str, &str, &[u8]); 10] = [
            ("nothing", "", b""),
            ("half a request line", "HTTP/1.1 408", b"GET /v2/ke"),
            (
                "half a head",
                "HTTP/1.1 408",
                b"GET /v2/keys HTTP/1.1\r\nHost: x\r\nX-A: b\r\n",
            ),
            ("half a second head", "HTTP/1.1 408", b"GET /ver"),
            (
                "half a v2 body",
                "did not come within 20 seconds",
                v2.as_bytes(),
            ),
            (
                "half a JSON body",
                "did not come within 20 seconds",
                json.as_bytes(),
            ),
            ("half a preface", "", b"PRI * HTTP/2.0\r\n\r\nSM"),
            (
                "a preface without a frame",
                "",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ),
            ("half a TLS hello", "", &[0x16, 3, 1, 2, 0, 1]),
            (
                "half a gRPC message",
                "did not come within 20 seconds",
                &half_message(),
            ),
        ];
        let mut opened = Vec::new();
        for (name, words, bytes) in kinds {
            let mut streams = Vec::new();
            for port in [target.client].repeat(EACH) {
                let mut stream = raw::connect(port)?;
                if name == "half a second head" {
                    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")?;
                    ensure!(stream.read(&mut [0; 4096])? > 0, "no answer");
                }
                stream.write_all(bytes)?;
                streams.push(stream);
            }
            opened.push((name, words, streams));
        }
        Ok(Self {
            opened: Instant::now(),
            kinds: opened,
        })
    }

    /// Waits until all are ended.
    pub(super) fn end(self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for (name, words, streams) in self.kinds {
            for mut stream in streams {
                // What HTTP/2 has answered stays open for the next request.
                let text = if name == "half a gRPC message" {
                    until(&mut stream, words)
                } else {
                    raw::to_end(&mut stream)
                        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                };
                let text = text.with_context(|| format!("slow connection: {name}"))?;
                ensure!(text.contains(words), "slow connection: {name}: {text:?}");
            }
            let took = self.opened.elapsed();
            ensure!(
                took < Duration::from_secs(20) + END_LIMIT * 3,
                "{name}: {took:?}"
            );
            lines.push(format!("slow connection, {name}: ended"));
        }
        Ok(lines)
    }
}

fn half_message() -> Vec<u8> {
    let message = grpc::framed(&grpc::message(&[(1, b"slow")]));
    [
        http2::opening(),
        http2::frame(1, 4, 1, &http2::range_headers()),
        http2::frame(0, 0, 1, &message[..message.len() - 1]),
    ]
    .concat()
}

/// Reads until some words came.
fn until(stream: &mut TcpStream, words: &str) -> Result<String> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece)?;
        read.extend_from_slice(&piece[..count]);
        // gRPC escapes nothing but what is no visible ASCII, and spaces are; h2 may have used its own
        // code for the text, so that the end of the stream has to do.
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.contains(words) {
            return Ok(text);
        }
        let is_reset = count == 0 || read.windows(9).any(|w| w[3] == 1 && w[4] & 1 == 1);
        if is_reset {
            return Ok(words.to_owned());
        }
    }
}

fn silent(target: &Target) -> Result<String> {
    let streams = (0..1_000)
        .map(|_| raw::connect(target.client))
        .collect::<Result<Vec<_>>>()?;
    super::write(target)?;
    Ok(format!("{} open, and a write beside them", streams.len()))
}

/// Clients that ask for all keys and do not read what they get.
fn unread(target: &Target) -> Result<String> {
    let request = "GET /v2/keys/kept?recursive=true HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20);
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = raw::connect(target.client)?;
        stream.write_all(request.as_bytes())?;
        streams.push(stream);
    }
    super::write(target)?;
    let memory = super::memory_bytes(target.pid)?;
    ensure!(memory < super::MAX_MEMORY_BYTES, "{memory} bytes");
    Ok(format!(
        "2,000 answers of 220 kB asked for, {} MiB held",
        memory >> 20
    ))
}

/// A server that may open few files keeps some for its log, and lets further clients wait.
pub(super) fn too_many(server: &std::path::Path) -> Result<String> {
    use std::os::unix::fs::PermissionsExt as _;
    const FILES: u32 = 256;
    /// More than have a place, and few enough for the system to keep those that wait.
    const CONNECTIONS: u32 = 200;
    let dir = workspace::empty_dir("bad-input-files")?;
    let script = dir.join("few-files");
    let text = format!(
        "#!/bin/sh\nulimit -n {FILES} && exec '{}' \"$@\"\n",
        server.display()
    );
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let config = member::Config {
        server: &script,
        dir: &dir,
        flags: &[],
    };
    let member = Member::start(&config)?;
    let port = member.client_port;
    let mut first = raw::connect(port)?;
    let others = (1..CONNECTIONS)
        .map(|_| raw::connect(port))
        .collect::<Result<Vec<_>>>()?;
    let open = Command::new("ls")
        .arg(format!("/proc/{}/fd", member.pid()))
        .output()?;
    let open = String::from_utf8_lossy(&open.stdout).lines().count();
    ensure!(
        open < FILES as usize - 40,
        "{open} of {FILES} files are taken"
    );
    // Who is connected is served.
    let put = "PUT /v2/keys/few?value=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    first.write_all(put.as_bytes())?;
    let answer = raw::parse(&raw::to_end(&mut first)?)?;
    ensure!(answer.status == 201, "{answer:?}");
    drop(others);
    let answer = raw::get(port, "/v2/keys/few")?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(format!(
        "{open} of {FILES} files taken by {} connections",
        CONNECTIONS
    ))
}
