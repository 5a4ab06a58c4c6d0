//! Connections to the other members: one each, for what goes there.
//!
//! What comes from a member comes on the connection that it made. A link that is down loses what is
//! given to it, and the replica is told; one that is up keeps the order. Its queue is bounded: a peer
//! that does not read costs no more than that.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::connect::{Connected, LinkError, connect};
use super::hello::LINK;
use super::{PING, wire};
use crate::node::{Node, PeerInput};

/// Bytes that wait for one peer; beyond, the link counts as broken.
const MAX_QUEUED: usize = 96 << 20;
/// What is written at once.
const WRITE_BYTES: usize = 1 << 20;
/// How long to wait before a peer that cannot be reached is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A peer that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(10);
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_secs(1);

/// The links of a member.
#[derive(Default)]
pub(crate) struct Links(Mutex<BTreeMap<u64, Link>>);

struct Link {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// How one stands.
pub(crate) struct LinkState {
    /// The member at its other end.
    pub(crate) member: u64,
    pub(crate) is_up: bool,
    /// Frames that were given to it in vain.
    pub(crate) lost: u64,
}

struct Shared {
    member: u64,
    lost: AtomicU64,
    urls: Mutex<Vec<String>>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(u8, Bytes)>,
    bytes: usize,
    up_since: Option<Instant>,
}

impl Links {
    /// Makes links to these members and no others; `urls` are where each is reached.
    pub(crate) fn set(&self, node: &Node, members: &[(u64, Vec<String>)]) {
        let mut links = self.links();
        links.retain(|id, link| {
            let stays = members.iter().any(|(member, _)| member == id);
            if !stays {
                link.task.abort();
            }
            stays
        });
        for (member, urls) in members {
            if let Some(link) = links.get(member) {
                link.shared.urls().clone_from(urls);
                continue;
            }
            let shared = Arc::new(Shared {
                member: *member,
                lost: AtomicU64::new(0),
                urls: Mutex::new(urls.clone()),
                queue: Mutex::default(),
                wake: Notify::new(),
            });
            node.peer_input(PeerInput::Unreachable(*member));
            let task = tokio::spawn(shared.clone().run(node.clone()));
            links.insert(*member, Link { shared, task });
        }
    }

    /// Hands a frame over; it is lost if the link is down, or breaks before it was read there.
    pub(crate) fn send(&self, member: u64, channel: u8, frame: Bytes) {
        let links = self.links();
        let Some(link) = links.get(&member) else {
            return;
        };
        let mut queue = link.shared.queue();
        if queue.up_since.is_none() {
            link.shared.lost.fetch_add(1, Relaxed);
            return;
        }
        queue.bytes += frame.len();
        queue.frames.push_back((channel, frame));
        drop(queue);
        link.shared.wake.notify_one();
    }

    /// Whether a member can be sent something now.
    pub(crate) fn is_up(&self, member: u64) -> bool {
        let links = self.links();
        links
            .get(&member)
            .is_some_and(|link| link.shared.queue().up_since.is_some())
    }

    /// Whether that has been so since `at`.
    pub(crate) fn is_up_since(&self, member: u64, at: Instant) -> bool {
        let links = self.links();
        let up_since = links
            .get(&member)
            .and_then(|link| link.shared.queue().up_since);
        up_since.is_some_and(|up| up <= at)
    }

    /// How each of them stands.
    pub(crate) fn states(&self) -> Vec<LinkState> {
        let links = self.links();
        let states = links.iter().map(|(member, link)| LinkState {
            member: *member,
            is_up: link.shared.queue().up_since.is_some(),
            lost: link.shared.lost.load(Relaxed),
        });
        states.collect()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.links().is_empty()
    }

    /// Where a member is reached.
    pub(crate) fn urls(&self, member: u64) -> Vec<String> {
        let links = self.links();
        links
            .get(&member)
            .map_or_else(Vec::new, |link| link.shared.urls().clone())
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        for link in std::mem::take(&mut *self.links()).into_values() {
            link.task.abort();
        }
    }

    fn links(&self) -> MutexGuard<'_, BTreeMap<u64, Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn urls(&self) -> MutexGuard<'_, Vec<String>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, node: Node) {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        let mut at = 0;
        loop {
            let urls = self.urls().clone();
            let url = urls.get(at % urls.len().max(1)).cloned();
            at += 1;
            let connected = match &url {
                Some(url) => connect(&node, self.member, url, LINK).await,
                None => Err(LinkError::NoAddress),
            };
            match connected {
                Ok(connected) => {
                    pause = FIRST_PAUSE;
                    said.clear();
                    at -= 1;
                    self.up();
                    node.peer_input(PeerInput::Reachable(self.member));
                    tracing::info!(peer = format!("{:x}", self.member), "connected to a peer");
                    let error = self.serve(&node, connected).await;
                    self.down();
                    node.metrics().peers.broke(self.member);
                    node.peer_input(PeerInput::Unreachable(self.member));
                    tracing::warn!(peer = format!("{:x}", self.member), %error, "lost a peer");
                }
                Err(error) => {
                    if let LinkError::Refused { status, text } = &error
                        && super::hello::Refused::is_final(*status)
                    {
                        node.halt(text.clone());
                        return;
                    }
                    // Once, until it is another reason: it may be away for days.
                    let text = error.to_string();
                    if said != text {
                        tracing::warn!(
                            peer = format!("{:x}", self.member),
                            url = url.unwrap_or_default(),
                            error = text,
                            "cannot reach a peer"
                        );
                        said = text;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn up(&self) {
        self.queue().up_since = Some(Instant::now());
    }

    fn down(&self) {
        *self.queue() = Queue::default();
    }

    /// Writes what is queued until the connection breaks.
    async fn serve(&self, node: &Node, connected: Connected) -> io::Error {
        let (mut read, mut write) = tokio::io::split(connected);
        let mut nothing = [0; 16];
        let mut out = BytesMut::new();
        let mut ping_at = Instant::now();
        loop {
            if Instant::now() >= ping_at {
                ping_at = Instant::now() + PING_EVERY;
                let frame = node.ping();
                let mut queue = self.queue();
                queue.bytes += frame.len();
                queue.frames.push_back((PING, frame));
            }
            let taken = match self.take(&mut out) {
                Ok(taken) => taken,
                Err(error) => return error,
            };
            if taken == 0 {
                tokio::select! {
                    () = self.wake.notified() => continue,
                    () = tokio::time::sleep_until(ping_at.into()) => continue,
                    // The other side writes nothing here, so what comes is its end.
                    end = read.read(&mut nothing) => {
                        return end.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
            let writing = async {
                write.write_all(&out).await?;
                // TLS may still hold some of it.
                write.flush().await
            };
            let written = tokio::time::timeout(STALL, writing).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return io::ErrorKind::TimedOut.into(),
            }
            let (frames, bytes) = (taken as u64, out.len() as u64);
            node.metrics().peers.sent(self.member, frames, bytes);
            out.clear();
            if out.capacity() > 2 * WRITE_BYTES {
                out = BytesMut::new();
            }
        }
    }

    /// Moves frames of up to about a chunk into `out`; how many.
    fn take(&self, out: &mut BytesMut) -> io::Result<usize> {
        let mut queue = self.queue();
        if queue.bytes > MAX_QUEUED {
            let why = "the peer does not take what is sent to it";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let mut taken = 0;
        while out.len() < WRITE_BYTES
            && let Some((channel, frame)) = queue.frames.pop_front()
        {
            queue.bytes -= frame.len();
            let parts = [&[channel][..], &frame];
            out.extend_from_slice(&wire::head(&parts));
            parts.iter().for_each(|part| out.extend_from_slice(part));
            taken += 1;
        }
        Ok(taken)
    }
}
