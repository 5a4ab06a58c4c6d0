//! A small HTTP/1.1 client for the v2 API: one connection, kept alive, with streamed bodies.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long an answer may take before its request counts as lost.
const LIMIT: Duration = Duration::from_secs(30);

/// One connection to a server on this machine.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer, its body read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `X-Etcd-Index`; 0 if there is none.
    pub(crate) index: i64,
    pub(crate) body: String,
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: u16,
    index: i64,
    length: Option<usize>,
}

/// The body of a streamed answer, line by line.
pub(crate) struct Lines {
    stream: BufReader<TcpStream>,
    pending: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request and reads the whole answer. `form` is the body, already encoded.
    pub(crate) async fn request(&mut self, method: &str, path: &str, form: &str) -> Result<Answer> {
        tokio::time::timeout(LIMIT, self.exchange(method, path, form)).await?
    }

    async fn exchange(&mut self, method: &str, path: &str, form: &str) -> Result<Answer> {
        self.send(method, path, form).await?;
        let head = self.head().await?;
        let body = match head.length {
            Some(length) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body).await?;
                body
            }
            None => {
                let mut body = Vec::new();
                while chunk(&mut self.stream, &mut body).await? {}
                body
            }
        };
        let body = String::from_utf8(body).context("an answer that is not UTF-8")?;
        Ok(Answer {
            status: head.status,
            index: head.index,
            body,
        })
    }

    /// Sends a request whose answer does not end by itself, and reads its head.
    pub(crate) async fn stream(mut self, path: &str) -> Result<(Head, Lines)> {
        self.send("GET", path, "").await?;
        let head = self.head().await?;
        if head.length.is_some() {
            bail!("{path} is not streamed");
        }
        Ok((
            head,
            Lines {
                stream: self.stream,
                pending: Vec::new(),
            },
        ))
    }

    async fn send(&mut self, method: &str, path: &str, form: &str) -> Result<()> {
        let length = form.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        Ok(())
    }

    async fn head(&mut self) -> Result<Head> {
        let status = read_line(&mut self.stream).await?;
        let status = status.split(' ').nth(1).context("no status")?.parse()?;
        let (mut index, mut length) = (0, None);
        loop {
            let line = read_line(&mut self.stream).await?;
            if line.is_empty() {
                return Ok(Head {
                    status,
                    index,
                    length,
                });
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            match name.to_ascii_lowercase().as_str() {
                "x-etcd-index" => index = value.trim().parse()?,
                "content-length" => length = Some(value.trim().parse()?),
                _ => {}
            }
        }
    }
}

impl Lines {
    /// The next line; `None` if the body ended as it should.
    pub(crate) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(at) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=at).collect();
                return Ok(Some(String::from_utf8(line)?));
            }
            if !chunk(&mut self.stream, &mut self.pending).await? {
                return Ok(None);
            }
        }
    }
}

/// Reads one chunk of a chunked body; false if it was the last.
async fn chunk(stream: &mut BufReader<TcpStream>, into: &mut Vec<u8>) -> Result<bool> {
    let size = usize::from_str_radix(read_line(stream).await?.trim(), 16)?;
    let start = into.len();
    into.resize(start + size, 0);
    stream.read_exact(&mut into[start..]).await?;
    read_line(stream).await?;
    Ok(size > 0)
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}
