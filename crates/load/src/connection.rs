//! A socket, the protocol spoken on it, and when each of its requests was due.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::http1::Http1;
use crate::http2::{Call, Http2};
use crate::template::{Dialect, Template};

/// What an answer brought.
pub(crate) enum Event {
    /// The request of a slot has ended: done, or why not.
    Done {
        slot: usize,
        result: Result<(), String>,
    },
    /// A message of an open stream.
    Message(Vec<u8>),
}

enum Protocol {
    Http1(Http1),
    Http2(Box<Http2>),
}

/// A connection with a fixed number of requests under way at most.
pub(crate) struct Connection {
    socket: TcpStream,
    protocol: Protocol,
    out: Vec<u8>,
    /// By slot, when its request was due, in the generator's nanoseconds.
    pub(crate) due: Vec<u64>,
}

impl Connection {
    /// Connects to a server on this machine, speaking what the template is written in.
    pub(crate) fn open(port: u16, slots: usize, template: &Template) -> io::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut out = Vec::new();
        let protocol = match &template.dialect {
            Dialect::Http => Protocol::Http1(Http1::default()),
            Dialect::Grpc { .. } => Protocol::Http2(Box::new(Http2::new(&mut out))),
        };
        Ok(Self {
            socket,
            protocol,
            out,
            due: vec![0; slots],
        })
    }

    /// Writes a request into the buffer.
    pub(crate) fn request(
        &mut self,
        slot: usize,
        template: &Template,
        is_stream: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        match (&mut self.protocol, &template.dialect) {
            (Protocol::Http1(http), Dialect::Http) => {
                http.request(template.wanted_bytes);
                write(&mut self.out);
            }
            (Protocol::Http2(http), Dialect::Grpc { path }) => {
                let mut body = Vec::with_capacity(512);
                write(&mut body);
                let (path, wanted_bytes) = (path.clone(), template.wanted_bytes);
                let call = Call {
                    slot,
                    path,
                    wanted_bytes,
                    is_stream,
                };
                http.request(call, &body, &mut self.out);
            }
            _ => panic!("a connection speaks one dialect"),
        }
    }

    /// Whether it must be replaced before another request.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(&self.protocol, Protocol::Http2(http) if http.is_spent())
    }

    /// Whether nothing is under way on it.
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(http) => http.is_quiet(),
            Protocol::Http2(http) => http.is_quiet(),
        }
    }

    /// Sends what is buffered, as far as the socket takes it; it tells when it takes more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.socket.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }

    /// Reads what has come.
    ///
    /// # Errors
    /// If the connection has ended or is of no use any more.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> io::Result<()> {
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let received = match &mut self.protocol {
                Protocol::Http1(http) => http.receive(&buffer[..count], events),
                Protocol::Http2(http) => http.receive(&buffer[..count], &mut self.out, events),
            };
            received.map_err(io::Error::other)?;
            // What comes after a short read is told anew.
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
