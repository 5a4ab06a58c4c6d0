//! The network between members as the kernel makes it: a namespace for each member, and one that routes.
//!
//! A rule of the router swallows what goes from one member to another: no side is told, nothing is
//! closed, and what was swallowed comes again by TCP's own timers, as on a real network. Clients reach
//! members through a forwarder on loopback. Needs root; dropping it removes everything it made.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, TcpStream};

use super::history::Member;
use crate::tools;

/// Namespaces of members, and the router's.
pub(super) struct Namespaces {
    /// What all names begin with.
    prefix: String,
    /// The second octet of all addresses, 10.NET.MEMBER.2.
    net: u8,
    members: usize,
}

/// The number, among members, of the machine itself.
const ROOT: usize = 99;

impl Namespaces {
    /// Makes the namespaces, and a forwarder from each client port on loopback.
    ///
    /// # Errors
    /// If this is not root's process, or the kernel has no namespaces.
    pub(super) async fn start(client_ports: &[u16]) -> Result<Self> {
        let namespaces = Self {
            prefix: format!("quorate-{}-{}", std::process::id(), fastrand::u16(..)),
            net: fastrand::u8(64..128),
            members: client_ports.len(),
        };
        remove_orphans()?;
        namespaces.make()?;
        for (member, port) in client_ports.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", *port)).await?;
            tokio::spawn(forward(listener, namespaces.address(member), *port));
        }
        Ok(namespaces)
    }

    fn make(&self) -> Result<()> {
        let (router, net) = (self.router(), self.net);
        ip(&format!("netns add {router}"))?;
        let forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let args = ["netns", "exec", &router, "sh", "-c", forwarding];
        tools::run(Command::new("ip").args(args))?;
        for member in 0..self.members {
            let name = self.name(member);
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "link add eth netns {name} type veth peer name m{member} netns {router}"
            ))?;
            ip(&format!("-n {name} link set lo up"))?;
            self.join(member, &format!("-n {name} "), "eth", &format!("m{member}"))?;
            ip(&format!(
                "-n {name} route add default via 10.{net}.{member}.1"
            ))?;
        }
        let own = format!("q{}", std::process::id());
        ip(&format!(
            "link add {own} type veth peer name root netns {router}"
        ))?;
        self.join(ROOT, "", &own, "root")?;
        ip(&format!("route add 10.{net}.0.0/16 via 10.{net}.{ROOT}.1"))
    }

    /// Gives the two ends of a member's link their addresses.
    fn join(&self, member: usize, at: &str, end: &str, routers_end: &str) -> Result<()> {
        let (net, router) = (self.net, self.router());
        ip(&format!("{at}addr add 10.{net}.{member}.2/30 dev {end}"))?;
        ip(&format!("{at}link set {end} up"))?;
        ip(&format!(
            "-n {router} addr add 10.{net}.{member}.1/30 dev {routers_end}"
        ))?;
        ip(&format!("-n {router} link set {routers_end} up"))
    }

    fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    /// The namespace of a member.
    pub(super) fn name(&self, member: Member) -> String {
        format!("{}-{member}", self.prefix)
    }

    /// The address of a member.
    pub(super) fn address(&self, member: Member) -> String {
        format!("10.{}.{member}.2", self.net)
    }

    /// Swallows what goes from one member to another.
    pub(super) fn shut(&self, from: Member, to: Member) -> Result<()> {
        self.open(from, to);
        ip(&self.rule("add", from, to))
    }

    /// Lets through again what goes from one member to another.
    pub(super) fn open(&self, from: Member, to: Member) {
        // Fails if there is no such rule.
        let _ = ip(&self.rule("del", from, to));
    }

    fn rule(&self, verb: &str, from: Member, to: Member) -> String {
        let (router, address) = (self.router(), self.address(to));
        format!("-n {router} rule {verb} iif m{from} to {address}/32 blackhole pref 100")
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What was not made cannot be removed; the links go with the namespaces.
        for member in 0..self.members {
            let _ = ip(&format!("netns del {}", self.name(member)));
        }
        let _ = ip(&format!("netns del {}", self.router()));
    }
}

/// Removes what a run left that was killed: a name holds the process that made it.
fn remove_orphans() -> Result<()> {
    let listed = Command::new("ip").args(["netns", "list"]).output()?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name
            .strip_prefix("quorate-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            ip(&format!("netns del {name}"))?;
        }
    }
    Ok(())
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip").args(args.split_whitespace()).output();
    let output = output.context("ip, of the package iproute2")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {args}: {error}");
    Ok(())
}

/// Carries clients' connections to a member.
async fn forward(listener: TcpListener, address: String, port: u16) {
    while let Ok((mut near, _)) = listener.accept().await {
        let address = address.clone();
        tokio::spawn(async move {
            if let Ok(mut far) = TcpStream::connect((address.as_str(), port)).await {
                // An end of either side that is not clean is passed on by dropping both.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}
