//! Bytes to a port, and what comes back, by no rule but the socket's.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(20);

/// An HTTP/1.1 answer whose connection was closed behind it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

pub(super) fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Sends bytes and reads until the server closes. A server that stops reading in between is fine.
pub(super) fn exchange(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = connect(port)?;
    let written = stream.write_all(bytes);
    let answer = to_end(&mut stream)?;
    if answer.is_empty() {
        written.or_else(gone)?;
    }
    Ok(answer)
}

/// Sends bytes, then says that no more come, and reads until the server closes.
pub(super) fn exchange_and_end(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = connect(port)?;
    stream.write_all(bytes).or_else(gone)?;
    let _ = stream.shutdown(std::net::Shutdown::Write);
    to_end(&mut stream)
}

/// Reads until the server closes.
pub(super) fn to_end(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let (mut answer, mut piece) = (Vec::new(), [0; 64 << 10]);
    let started = Instant::now();
    loop {
        ensure!(started.elapsed() < LIMIT * 2, "the answer does not end");
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) => {
                gone(error).context("the connection was not closed")?;
                return Ok(answer);
            }
        }
    }
}

/// That a connection was closed is no failure.
pub(super) fn gone(error: std::io::Error) -> Result<()> {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Ok(()),
        _ => Err(error.into()),
    }
}

/// Sends a request, its head without the empty line, and reads the answer.
pub(super) fn request(port: u16, head: &str, body: &[u8]) -> Result<Answer> {
    let mut bytes = format!("{head}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    parse(&exchange(port, &bytes)?)
}

pub(super) fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("no HTTP answer: {text:?}");
    };
    let status = head.split(' ').nth(1).context("no status")?;
    let body = if head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Ok(Answer {
        status: status.parse()?,
        body,
    })
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(piece) = after.get(..size).filter(|piece| !piece.is_empty()) else {
            break;
        };
        body.push_str(piece);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    body
}

pub(super) fn get(port: u16, path: &str) -> Result<Answer> {
    request(port, &format!("GET {path} HTTP/1.1"), b"")
}

/// Sends a form.
pub(super) fn form(port: u16, method: &str, path: &str, form: &str) -> Result<Answer> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}",
        form.len()
    );
    request(port, &head, form.as_bytes())
}

/// Posts JSON.
pub(super) fn post(port: u16, path: &str, json: &[u8]) -> Result<Answer> {
    let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}", json.len());
    request(port, &head, json)
}

/// The same bytes in every run, which look like none of any protocol.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}
