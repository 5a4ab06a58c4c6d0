//! The network between members, of either kind, and where each member sits in it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::history::Member;
use super::namespaces::Namespaces;
use super::proxy::Proxies;

/// How members reach each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// On loopback, through proxies of ours.
    Proxies,
    /// Each in a namespace of its own; needs root.
    Namespaces,
}

/// The ports of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) client: u16,
    /// Where other members dial it.
    pub(super) dialled: u16,
    /// Where it listens, if that is behind a proxy.
    pub(super) behind: u16,
}

/// Where a member sits.
pub(super) struct Place {
    /// What stands before the command that starts it.
    pub(super) before: Vec<String>,
    pub(super) client_url: String,
    pub(super) listen_peer_url: String,
    pub(super) peer_url: String,
}

/// All links.
pub(super) enum Network {
    Proxies(Arc<Proxies>),
    Namespaces(Namespaces),
}

impl Network {
    pub(super) async fn start(kind: Kind, ports: &[Ports]) -> Result<Self> {
        Ok(match kind {
            Kind::Proxies => {
                let ports: Vec<_> = ports.iter().map(|at| (at.dialled, at.behind)).collect();
                Self::Proxies(Proxies::start(&ports).await?)
            }
            Kind::Namespaces => {
                let ports: Vec<_> = ports.iter().map(|at| at.client).collect();
                Self::Namespaces(Namespaces::start(&ports).await?)
            }
        })
    }

    /// Where a member with these ports sits.
    pub(super) fn place(&self, member: Member, ports: Ports) -> Place {
        let url = |address: &str, port: u16| format!("http://{address}:{port}");
        match self {
            Self::Proxies(_) => Place {
                before: Vec::new(),
                client_url: url("127.0.0.1", ports.client),
                listen_peer_url: url("127.0.0.1", ports.behind),
                peer_url: url("127.0.0.1", ports.dialled),
            },
            Self::Namespaces(namespaces) => {
                let name = namespaces.name(member);
                let address = namespaces.address(member);
                let before = ["ip", "netns", "exec", &name];
                Place {
                    before: before.map(String::from).to_vec(),
                    client_url: url(&address, ports.client),
                    listen_peer_url: url(&address, ports.dialled),
                    peer_url: url(&address, ports.dialled),
                }
            }
        }
    }

    /// Says which process is a member now.
    pub(super) fn is_run_by(&self, member: Member, pid: Option<u32>) {
        match self {
            Self::Proxies(proxies) => proxies.is_run_by(member, pid),
            Self::Namespaces(_) => {}
        }
    }

    /// Lets nothing through from one member to another.
    pub(super) fn shut(&self, from: Member, to: Member) -> Result<()> {
        match self {
            Self::Proxies(proxies) => proxies.shut(from, to),
            Self::Namespaces(namespaces) => namespaces.shut(from, to)?,
        }
        Ok(())
    }

    /// Lets nothing through between two members, in either direction.
    pub(super) fn cut(&self, one: Member, other: Member) -> Result<()> {
        self.shut(one, other)?;
        self.shut(other, one)
    }

    /// Lets everything through between two members again, at once.
    pub(super) fn open(&self, one: Member, other: Member) {
        for (from, to) in [(one, other), (other, one)] {
            match self {
                Self::Proxies(proxies) => proxies.open(from, to),
                Self::Namespaces(namespaces) => namespaces.open(from, to),
            }
        }
    }

    /// Delays all that goes from one member to another; a namespace has no means for it.
    pub(super) fn slow(&self, from: Member, to: Member, delay: Duration) {
        match self {
            Self::Proxies(proxies) => proxies.slow(from, to, delay),
            Self::Namespaces(_) => {}
        }
    }

    /// Closes all connections between two members, with what is under way; only proxies can.
    pub(super) fn reset(&self, one: Member, other: Member) {
        match self {
            Self::Proxies(proxies) => proxies.reset(one, other),
            Self::Namespaces(_) => {}
        }
    }

    /// Opens everything between so many members.
    pub(super) fn heal(&self, members: usize) {
        for one in 0..members {
            for other in 0..one {
                self.open(one, other);
            }
        }
    }
}
