//! The network between members: a proxy before each member's peer port, with a gate for each direction.
//!
//! A gate that is shut holds bytes back, as a network does that swallows packets: nothing is closed,
//! and what was held goes on when the gate opens, unless the connections were reset meanwhile. A slow
//! gate lets bytes through after a delay, in order. The direction is that of the bytes, whoever dialled.
//!
//! Knows nothing of what the bytes mean.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::history::Member;
use super::owner;

/// Chunks under way in one direction of a connection, of at most [`CHUNK`] bytes each.
const UNDER_WAY: usize = 256;
const CHUNK: usize = 16 << 10;

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Gate {
    is_shut: bool,
    delay: Duration,
    /// Raised to close all connections of the pair.
    resets: u64,
}

/// Gates from each member to each other, and who the members are.
pub(super) struct Proxies {
    gates: Vec<Vec<watch::Sender<Gate>>>,
    /// The process of each member that runs.
    pids: Mutex<Vec<Option<u32>>>,
}

impl Proxies {
    /// Starts a proxy for each member: `(the port it is dialled at, the port it listens on)`.
    pub(super) async fn start(ports: &[(u16, u16)]) -> Result<Arc<Self>> {
        let row = || ports.iter().map(|_| watch::Sender::new(Gate::default()));
        let proxies = Arc::new(Self {
            gates: ports.iter().map(|_| row().collect()).collect(),
            pids: Mutex::new(vec![None; ports.len()]),
        });
        for (to, (dialled, listens)) in ports.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", *dialled)).await?;
            tokio::spawn(serve(Arc::clone(&proxies), listener, to, *listens));
        }
        Ok(proxies)
    }

    /// Says which process is a member now.
    pub(super) fn is_run_by(&self, member: Member, pid: Option<u32>) {
        self.pids.lock().expect("no task panics with it")[member] = pid;
    }

    /// Lets nothing through from one member to another.
    pub(super) fn shut(&self, from: Member, to: Member) {
        self.gates[from][to].send_modify(|gate| gate.is_shut = true);
    }

    /// Lets everything through from one member to another again, at once.
    pub(super) fn open(&self, from: Member, to: Member) {
        self.gates[from][to].send_modify(|gate| {
            (gate.is_shut, gate.delay) = (false, Duration::ZERO);
        });
    }

    /// Delays all that goes from one member to another.
    pub(super) fn slow(&self, from: Member, to: Member, delay: Duration) {
        self.gates[from][to].send_modify(|gate| gate.delay = delay);
    }

    /// Closes all connections between two members, with what is under way on them.
    pub(super) fn reset(&self, one: Member, other: Member) {
        for (from, to) in [(one, other), (other, one)] {
            self.gates[from][to].send_modify(|gate| gate.resets += 1);
        }
    }

    /// The member that made a connection.
    fn who(&self, stream: &TcpStream) -> Result<Option<Member>> {
        let pids = self.pids.lock().expect("no task panics with it").clone();
        let known = pids.iter().flatten().copied();
        let pid = owner::of_connection(stream.local_addr()?, stream.peer_addr()?, known)?;
        Ok(pid.and_then(|pid| pids.iter().position(|at| *at == Some(pid))))
    }
}

/// Takes the connections to one member.
async fn serve(proxies: Arc<Proxies>, listener: TcpListener, to: Member, port: u16) {
    while let Ok((stream, _)) = listener.accept().await {
        match proxies.who(&stream) {
            Ok(Some(from)) => {
                let (out, back) = (&proxies.gates[from][to], &proxies.gates[to][from]);
                tokio::spawn(connection(stream, port, out.subscribe(), back.subscribe()));
            }
            // It ended before we looked.
            Ok(None) => {}
            Err(error) => println!("proxy before member {to}: {error:#}"),
        }
    }
}

/// Carries one connection until both sides are done or it is reset.
async fn connection(
    stream: TcpStream,
    port: u16,
    out: watch::Receiver<Gate>,
    back: watch::Receiver<Gate>,
) {
    let resets = out.borrow().resets;
    let mut reset = out.clone();
    let carried = async {
        passed(&mut out.clone()).await?;
        let onward = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        onward.set_nodelay(true)?;
        let (near_read, near_write) = stream.into_split();
        let (far_read, far_write) = onward.into_split();
        tokio::try_join!(
            carry(near_read, far_write, out),
            carry(far_read, near_write, back)
        )
    };
    // An error is a side that went away; dropping both ends tells the other.
    tokio::select! {
        _ = carried => {}
        _ = reset.wait_for(|gate| gate.resets != resets) => {}
    }
}

/// Waits until a gate is open.
async fn passed(gate: &mut watch::Receiver<Gate>) -> Result<()> {
    let open = gate.wait_for(|gate| !gate.is_shut).await;
    open.context("the network is gone").map(drop)
}

/// Carries one direction of a connection.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<Gate>,
) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let delays = gate.clone();
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let is_end = from.read_buf(&mut chunk).await? == 0;
            let due = Instant::now() + delays.borrow().delay;
            // An empty chunk says that this side has no more to say.
            if sender.send((due, chunk)).await.is_err() || is_end {
                return anyhow::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            passed(&mut gate).await?;
            to.write_all(&chunk).await?;
        }
        to.shutdown().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::Proxies;

    /// A network of two whose members are both this process; only who dials first is known.
    async fn pair() -> (std::sync::Arc<Proxies>, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = free.local_addr().unwrap().port();
        drop(free);
        let ports = [(0, 0), (dialled, listener.local_addr().unwrap().port())];
        let proxies = Proxies::start(&ports).await.unwrap();
        proxies.is_run_by(0, Some(std::process::id()));
        let near = TcpStream::connect(("127.0.0.1", dialled)).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (proxies, near, far)
    }

    #[tokio::test]
    async fn a_shut_gate_holds_one_direction_back_and_loses_nothing() {
        let (proxies, mut near, mut far) = pair().await;
        proxies.shut(0, 1);
        near.write_all(b"held").await.unwrap();
        far.write_all(b"free").await.unwrap();
        let mut bytes = [0; 4];
        near.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"free");
        let early = timeout(Duration::from_millis(50), far.read(&mut bytes)).await;
        assert!(early.is_err(), "{early:?}");
        proxies.open(0, 1);
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"held");
    }

    #[tokio::test]
    async fn a_reset_closes_both_ends() {
        let (proxies, mut near, mut far) = pair().await;
        proxies.shut(0, 1);
        proxies.reset(0, 1);
        let mut bytes = [0; 4];
        assert_eq!(near.read(&mut bytes).await.unwrap_or(0), 0);
        assert_eq!(far.read(&mut bytes).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn an_end_is_passed_on() {
        let (_proxies, near, mut far) = pair().await;
        drop(near);
        let mut bytes = [0; 4];
        assert_eq!(far.read(&mut bytes).await.unwrap_or(0), 0);
    }
}
