//! Which of our processes opened a connection: by the kernel's table of sockets.
//!
//! All members dial from 127.0.0.1, and each peer is reached at one address. So a proxy that must know
//! who dials asks `/proc/net/tcp` for the socket at the other end, and `/proc/PID/fd` for its holder.
//! That works for any program, whatever it says first.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};

/// The process among `candidates` that holds the other end of a connection that was accepted by
/// `local` from `peer`. `None` if it is already gone.
pub(super) fn of_connection(
    local: SocketAddr,
    peer: SocketAddr,
    candidates: impl Iterator<Item = u32>,
) -> Result<Option<u32>> {
    let table = fs::read_to_string("/proc/net/tcp").context("the kernel's table of sockets")?;
    let Some(inode) = inode(&table, peer.port(), local.port()) else {
        return Ok(None);
    };
    let link = format!("socket:[{inode}]");
    Ok(candidates.into_iter().find(|pid| holds(*pid, &link)))
}

/// The inode of the socket from one local port to another. A line of the table: number, local
/// address, remote address, state, queues, timer, retransmits, user, timeout, inode.
fn inode(table: &str, from: u16, to: u16) -> Option<&str> {
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next()?.ends_with(&from) && fields.next()?.ends_with(&to);
        is_it.then(|| fields.nth(6))?
    })
}

fn holds(pid: u32, link: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.to_str() == Some(link)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_process_at_the_other_end_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let local = server.local_addr().unwrap();
        let own = std::process::id();
        let found = |candidates: &[u32]| {
            super::of_connection(local, peer, candidates.iter().copied()).unwrap()
        };
        assert_eq!(found(&[1, own]), Some(own));
        assert_eq!(found(&[]), None);
        drop(client);
    }
}
