//! A member that is too far behind is sent the state, on a connection of its own.
//!
//! The sender walks its state while it goes on, a few versions at a time, and makes way for requests; the receiver puts values
//! into its log as they come and builds the new state beside the old one. Both have a chunk in
//! memory, the receiver the new index too. What is received is put in place by the driver.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quorate_replica::transfer::{Receiving, Sending, frame};
use quorate_store::ValueError;
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::Connected;
use super::connect::{LinkError, connect};
use super::hello::STATE;
use super::wire::{self, Frames};
use crate::node::{Node, PeerInput, Rests};

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 512 << 10;
/// Versions walked under one hold of the machine, at first and at most.
const FIRST_VERSIONS: usize = 16;
const MOST_VERSIONS: usize = 512;
/// Chunks on their way to the socket.
const WAITING: usize = 4;
/// How long the other side may take nothing, or say nothing.
const STALL: Duration = Duration::from_secs(60);
/// Progress is logged this often.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// What the receiver answers when all is in place.
const DONE: &[u8] = b"done";

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Value(#[from] ValueError),
    #[error("the other side took or said nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("the receiver says: {0}")]
    Refused(String),
    #[error("what came is no state: {0}")]
    Garbled(String),
    #[error("the member stops")]
    Stopped,
}

/// Sends the state of this moment to a member, and tells the replica how it went.
pub(crate) fn send(node: &Node, member: u64) {
    let node = node.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let sent = send_to(&node, member).await;
        let peer = format!("{member:x}");
        match &sent {
            Ok(bytes) => {
                let took_ms = began.elapsed().as_millis() as u64;
                tracing::info!(
                    peer,
                    bytes,
                    took_ms,
                    "sent the state to a member that was behind"
                );
            }
            Err(error) => {
                tracing::warn!(peer, %error, "could not send the state to a member");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        node.peer_input(PeerInput::StateSent(member, sent.is_ok()));
    });
}

async fn send_to(node: &Node, member: u64) -> Result<u64, Broken> {
    let urls = node.links().urls(member);
    let mut connected = Err(LinkError::NoAddress);
    for url in &urls {
        connected = connect(node, member, url, STATE).await;
        if connected.is_ok() {
            break;
        }
    }
    let (read, mut write) = tokio::io::split(connected?);
    let (sender, mut chunks) = mpsc::channel::<Bytes>(WAITING);
    let walking = node.clone();
    let walk = tokio::task::spawn_blocking(move || walk(&walking, member, &sender));
    let mut bytes = 0;
    let mut out = BytesMut::new();
    while let Some(chunk) = chunks.recv().await {
        bytes += chunk.len() as u64;
        wire::put(&chunk, &mut out);
        let written = tokio::time::timeout(STALL, write.write_all(&out)).await;
        written.map_err(|_| Broken::Stalled)??;
        out.clear();
    }
    walk.await.map_err(|_| Broken::Stopped)??;
    write.flush().await?;
    // It has to write a checkpoint before it says so.
    let mut frames = Frames::new(read);
    match frames.next().await? {
        Some(answer) if &answer[..] == DONE => Ok(bytes),
        Some(answer) => Err(Broken::Refused(String::from_utf8_lossy(&answer).into())),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Nothing is purged until it is dropped.
struct Hold<'a>(&'a Node);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.end_walk();
    }
}

fn walk(node: &Node, member: u64, sender: &mpsc::Sender<Bytes>) -> Result<(), Broken> {
    let mut sending = node.begin_state();
    let _hold = Hold(node);
    let give = |chunk: Vec<u8>| {
        let sent = sender.blocking_send(chunk.into());
        sent.map_err(|_| Broken::Stopped)
    };
    tracing::info!(
        peer = format!("{member:x}"),
        index = sending.index(),
        "sending the state to a member that is behind"
    );
    give(sending.head())?;
    let rests = Rests::new(node);
    let (mut versions, mut more) = (FIRST_VERSIONS, true);
    let (mut chunk, mut bytes, mut told) = (Vec::new(), 0, Instant::now());
    while more {
        let before = chunk.len();
        let walked = node.read(|machine, values| {
            // It may be made again, once what is not in memory was fetched.
            let mut trial: Sending = sending.clone();
            chunk.truncate(before);
            let mut rows = Vec::new();
            let more = trial.rows(machine, versions, &mut rows);
            rows.iter()
                .try_for_each(|row| frame(row, values, &mut chunk))?;
            Ok::<_, ValueError>((trial, more))
        });
        (sending, more) = Handle::current().block_on(walked)?;
        versions = match chunk.len() - before {
            ..=65_536 => (versions * 2).min(MOST_VERSIONS),
            65_537..=524_288 => versions,
            _ => (versions / 2).max(1),
        };
        if chunk.len() >= CHUNK_BYTES {
            bytes += chunk.len();
            give(std::mem::take(&mut chunk))?;
        }
        rests.rest(node);
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(peer = format!("{member:x}"), bytes, "sending the state");
        }
    }
    chunk.extend_from_slice(&sending.end());
    give(chunk)
}

/// Takes a state that a member sends.
pub(super) async fn receive(node: &Node, member: u64, connected: Connected) {
    let peer = format!("{member:x}");
    let (read, mut write) = tokio::io::split(connected);
    let (receiving, from) = (node.clone(), peer.clone());
    // Until the state is in place.
    let turn = node.begin_receiving();
    let taken = match &turn {
        Some(_) => tokio::task::spawn_blocking(move || take(&receiving, &from, read)).await,
        None => Ok(Err(Broken::Refused(
            "a state is being received already".into(),
        ))),
    };
    let taken = match taken {
        Ok(Ok(Some(machine))) => {
            let (answer, answered) = oneshot::channel();
            node.peer_input(PeerInput::Install(Box::new(machine), answer));
            answered.await.unwrap_or(Err("the member stops".to_owned()))
        }
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the receiving thread panicked".to_owned()),
    };
    drop(turn);
    if let Err(error) = &taken {
        tracing::warn!(peer, error, "could not take the state that a member sent");
    }
    let answer = taken.err().map_or(DONE.to_vec(), String::into_bytes);
    let mut out = BytesMut::new();
    wire::put(&answer, &mut out);
    // Whoever sent it may be gone; the state is here all the same.
    let _ = write.write_all(&out).await;
    let _ = write.shutdown().await;
}

/// `None` when it is of no use: what it holds is in the log here.
fn take(
    node: &Node,
    peer: &str,
    read: impl AsyncRead + Unpin,
) -> Result<Option<quorate_replica::Machine>, Broken> {
    let garbled = |error: &dyn std::fmt::Display| Broken::Garbled(error.to_string());
    let mut frames = Frames::new(read);
    let mut next = || {
        let next = tokio::time::timeout(STALL, frames.next());
        Handle::current()
            .block_on(next)
            .map_err(|_| Broken::Stalled)?
            .map_err(Broken::Io)
    };
    let end = || Broken::Io(io::ErrorKind::UnexpectedEof.into());
    let head = next()?.ok_or_else(end)?;
    let mut receiving = Receiving::begin(head).map_err(|error| garbled(&error))?;
    let (index, term) = receiving.applied();
    if node.has_entry(index, term) {
        return Ok(None);
    }
    tracing::info!(
        peer,
        index,
        "receiving the state: this member is too far behind for the log"
    );
    let (mut bytes, mut told) = (0, Instant::now());
    while !receiving.is_whole() {
        let frame = next()?.ok_or_else(end)?;
        bytes += frame.len();
        let values = Receiving::values(&frame).map_err(|error| garbled(&error))?;
        let places = if values.is_empty() {
            Vec::new()
        } else {
            node.copy(values).ok_or(Broken::Stopped)?
        };
        receiving
            .take(frame, &places)
            .map_err(|error| garbled(&error))?;
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            tracing::info!(peer, bytes, "receiving the state");
        }
    }
    let machine = receiving.finish().map_err(|error| garbled(&error))?;
    tracing::info!(peer, index, bytes, "received the state");
    Ok(Some(machine))
}
