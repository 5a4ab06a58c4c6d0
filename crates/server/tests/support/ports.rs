//! Where in-process members of the tests listen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use quorate::config::{ListenUrl, Url};

/// Ports below those that the system gives to clients, and how many of them are ours.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
/// Tests run as processes with neighbouring ids: each begins with ports that are its own, or one
/// would take what its neighbour has just found free.
const EACH: u32 = 16;

/// A loopback URL to listen on.
pub(crate) fn listen(port: u16) -> ListenUrl {
    let url = Url::parse(&format!("http://127.0.0.1:{port}")).expect("a URL");
    ListenUrl {
        url,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    }
}

/// A port that is free.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = std::process::id() % (COUNT / EACH) * EACH;
        let port = u16::try_from(FIRST + (start + offset) % COUNT).expect("below 32,768");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
