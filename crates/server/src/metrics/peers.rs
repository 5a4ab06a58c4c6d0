//! What is counted of each other member.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::text::Text;
use crate::node::Node;

/// Upper bounds of the buckets of round trips: 0.1 ms, and twice as much each time. Source: etcd's
/// `etcd_network_peer_round_trip_time_seconds`.
const BUCKETS: usize = 16;
const FIRST_BOUND_S: f64 = 0.0001;

/// By the members' ids.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<u64, Peer>>);

#[derive(Clone, Debug, Default)]
struct Peer {
    sent: Traffic,
    received: Traffic,
    /// Connections to it that broke.
    breaks: u64,
    round_trips: RoundTrips,
}

#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    bytes: u64,
    frames: u64,
}

#[derive(Clone, Debug, Default)]
struct RoundTrips {
    /// The last is without a bound.
    buckets: [u64; BUCKETS + 1],
    count: u64,
    last_s: f64,
    sum_s: f64,
    sum_of_squares: f64,
    shortest_s: f64,
    longest_s: f64,
}

impl RoundTrips {
    fn record(&mut self, took: Duration) {
        let took_s = took.as_secs_f64();
        let bucket = (0..BUCKETS).find(|bucket| took_s <= bound_s(*bucket));
        self.buckets[bucket.unwrap_or(BUCKETS)] += 1;
        self.shortest_s = match self.count {
            0 => took_s,
            _ => self.shortest_s.min(took_s),
        };
        self.longest_s = self.longest_s.max(took_s);
        self.count += 1;
        self.last_s = took_s;
        self.sum_s += took_s;
        self.sum_of_squares += took_s * took_s;
    }

    fn average_s(&self) -> f64 {
        self.sum_s / self.count.max(1) as f64
    }

    fn deviation_s(&self) -> f64 {
        let mean_of_squares = self.sum_of_squares / self.count.max(1) as f64;
        (mean_of_squares - self.average_s().powi(2)).max(0.0).sqrt()
    }
}

fn bound_s(bucket: usize) -> f64 {
    FIRST_BOUND_S * f64::from(1_u32 << bucket)
}

impl Peers {
    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames went to a peer.
    pub(crate) fn sent(&self, member: u64, frames: u64, bytes: u64) {
        let mut peers = self.peers();
        let sent = &mut peers.entry(member).or_default().sent;
        sent.frames += frames;
        sent.bytes += bytes;
    }

    /// A frame came from a peer.
    pub(crate) fn received(&self, member: u64, bytes: u64) {
        let mut peers = self.peers();
        let received = &mut peers.entry(member).or_default().received;
        received.frames += 1;
        received.bytes += bytes;
    }

    /// A connection to it broke.
    pub(crate) fn broke(&self, member: u64) {
        self.peers().entry(member).or_default().breaks += 1;
    }

    /// It answered at once, and the answer was here after so long.
    pub(crate) fn round_trip(&self, member: u64, took: Duration) {
        let mut peers = self.peers();
        peers.entry(member).or_default().round_trips.record(took);
    }

    /// Frames sent, and received.
    pub(crate) fn frames(&self) -> (u64, u64) {
        let peers = self.peers();
        peers.values().fold((0, 0), |(sent, received), peer| {
            (sent + peer.sent.frames, received + peer.received.frames)
        })
    }

    /// `followers` of `/v2/stats/leader`: times in milliseconds.
    pub(crate) fn stats(&self, node: &Node) -> String {
        let peers = self.peers();
        let links = node.links().states().into_iter();
        let mut followers: Vec<_> = links
            .map(|link| {
                let peer = peers.get(&link.member).cloned().unwrap_or_default();
                (format!("{:x}", link.member), link.lost, peer.round_trips)
            })
            .collect();
        followers.sort_by(|one, other| one.0.cmp(&other.0));
        let mut out = String::from("{");
        for (at, (member, lost, times)) in followers.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let latency = [
                ("current", times.last_s),
                ("average", times.average_s()),
                ("standardDeviation", times.deviation_s()),
                ("minimum", times.shortest_s),
                ("maximum", times.longest_s),
            ];
            let latency = latency.map(|(name, s)| format!("\"{name}\":{}", s * 1_000.0));
            write!(
                out,
                "{comma}\"{member}\":{{\"latency\":{{{}}},\"counts\":{{\"fail\":{lost},\
                 \"success\":{}}}}}",
                latency.join(","),
                times.count
            )
            .expect("writing to a String does not fail");
        }
        out + "}"
    }

    /// Their families; none for a member alone.
    pub(super) fn render(&self, out: &mut Text, node: &Node) {
        let peers = self.peers();
        let links = node.links().states();
        if links.is_empty() && peers.is_empty() {
            return;
        }
        let own = format!("{:x}", node.member_id());
        let name = "etcd_network_known_peers";
        out.family(name, "gauge", "Members that this one has a link to.");
        for link in &links {
            let remote = format!("{:x}", link.member);
            out.sample(name, &[("Local", &own), ("Remote", &remote)], 1);
        }
        let name = "etcd_network_active_peers";
        out.family(name, "gauge", "Members that this one can send to now.");
        for link in &links {
            let remote = format!("{:x}", link.member);
            let labels = [("Local", &own[..]), ("Remote", &remote)];
            out.sample(name, &labels, u8::from(link.is_up));
        }
        let name = "etcd_network_disconnected_peers_total";
        out.family(name, "counter", "How often a connection to a member broke.");
        for (member, peer) in peers.iter() {
            let remote = format!("{member:x}");
            out.sample(name, &[("Local", &own), ("Remote", &remote)], peer.breaks);
        }
        let name = "etcd_network_peer_sent_failures_total";
        out.family(
            name,
            "counter",
            "Frames that were lost for want of a connection.",
        );
        for link in &links {
            out.sample(name, &[("To", &format!("{:x}", link.member))], link.lost);
        }
        let name = "etcd_network_peer_sent_bytes_total";
        out.family(name, "counter", "Bytes sent to a member.");
        for (member, peer) in peers.iter() {
            out.sample(name, &[("To", &format!("{member:x}"))], peer.sent.bytes);
        }
        let name = "etcd_network_peer_received_bytes_total";
        out.family(name, "counter", "Bytes that a member has sent.");
        for (member, peer) in peers.iter() {
            let labels = [("From", &format!("{member:x}")[..])];
            out.sample(name, &labels, peer.received.bytes);
        }
        round_trips(out, &peers);
    }
}

fn round_trips(out: &mut Text, peers: &BTreeMap<u64, Peer>) {
    let name = "etcd_network_peer_round_trip_time_seconds";
    let help = "How long a member took to answer, measured once a second.";
    out.family(name, "histogram", help);
    for (member, peer) in peers {
        let (to, times) = (format!("{member:x}"), &peer.round_trips);
        let mut count = 0;
        for (bucket, within) in times.buckets.iter().enumerate() {
            count += within;
            let bound = match bucket {
                BUCKETS => "+Inf".to_owned(),
                _ => bound_s(bucket).to_string(),
            };
            out.sample(
                &format!("{name}_bucket"),
                &[("To", &to), ("le", &bound)],
                count,
            );
        }
        out.sample(&format!("{name}_sum"), &[("To", &to)], times.sum_s);
        out.sample(&format!("{name}_count"), &[("To", &to)], times.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_summed_up_and_fall_into_etcds_buckets() {
        let mut times = RoundTrips::default();
        assert_eq!((times.average_s(), times.deviation_s()), (0.0, 0.0));
        for ms in [1, 3, 10_000] {
            times.record(Duration::from_millis(ms));
        }
        assert_eq!(
            (times.shortest_s, times.longest_s, times.last_s),
            (0.001, 10.0, 10.0)
        );
        assert!((times.average_s() - 3.334_666).abs() < 0.001);
        assert!((times.deviation_s() - 4.713).abs() < 0.001);
        // 1.6 ms, 3.2 ms, none.
        assert_eq!(
            (times.buckets[4], times.buckets[5], times.buckets[16]),
            (1, 1, 1)
        );
        assert!((bound_s(15) - 3.2768).abs() < 1e-9);
    }
}
