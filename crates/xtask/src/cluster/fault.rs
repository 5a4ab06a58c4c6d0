//! What goes wrong in a round, drawn from the seed where it is not fixed.
//!
//! A fault strikes and lasts; undoing it is [`Cluster::heal`]'s.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;

use super::history::Member;
use super::members::Cluster;

/// Which members a fault strikes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    Leader,
    Follower,
    /// As many as may be away, the leader among them.
    Minority,
    All,
}

/// One way to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// SIGKILL, and a start after a while.
    Kill(Who),
    /// SIGTERM, and a start after a while.
    Terminate(Who),
    /// SIGSTOP beyond election timeouts, then SIGCONT.
    Pause(Who),
    /// Nothing passes between these and the others.
    CutOff(Who),
    /// As [`Fault::CutOff`], and connections are closed when it begins and when it ends.
    Reset(Who),
    /// Nothing from these reaches the others; what the others say reaches them.
    Mute(Who),
    /// Nothing reaches these; what they say reaches the others.
    Deaf(Who),
    /// Two halves that meet only in one member.
    Bridge,
    /// Everything comes late, by up to a fourth of an election timeout.
    Delay,
    /// The leader is cut off and back, again and again.
    Flap,
    /// A follower is killed, and so much is written that the others no longer hold its place in the log.
    Away,
}

impl Fault {
    /// All faults, as a soak draws them.
    pub(crate) const ALL: [Self; 21] = [
        Self::Kill(Who::Leader),
        Self::Kill(Who::Follower),
        Self::Kill(Who::Minority),
        Self::Kill(Who::All),
        Self::Terminate(Who::Leader),
        Self::Terminate(Who::Follower),
        Self::Pause(Who::Leader),
        Self::Pause(Who::Follower),
        Self::Pause(Who::Minority),
        Self::CutOff(Who::Leader),
        Self::CutOff(Who::Follower),
        Self::CutOff(Who::Minority),
        Self::Reset(Who::Leader),
        Self::Reset(Who::Follower),
        Self::Mute(Who::Leader),
        Self::Deaf(Who::Leader),
        Self::Mute(Who::Follower),
        Self::Bridge,
        Self::Delay,
        Self::Flap,
        Self::Away,
    ];

    /// Strikes and lasts for two to five election timeouts.
    pub(super) async fn strike(self, cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
        let leader = cluster.leader().await?;
        let lasts = cluster.setup.election * rng.u32(20..50) / 10;
        let members = cluster.len();
        match self {
            Self::Kill(who) => {
                for member in who.choose(leader, members, rng) {
                    cluster.kill(member)?;
                }
            }
            Self::Terminate(who) => {
                for member in who.choose(leader, members, rng) {
                    cluster.terminate(member)?;
                    cluster.await_end(member).await?;
                }
            }
            Self::Pause(who) => {
                for member in who.choose(leader, members, rng) {
                    cluster.pause(member)?;
                }
            }
            Self::CutOff(who) => {
                for (one, other) in across(&who.choose(leader, members, rng), members) {
                    cluster.network.cut(one, other)?;
                }
            }
            Self::Reset(who) => {
                return reset(cluster, who.choose(leader, members, rng), lasts).await;
            }
            Self::Mute(who) => {
                for (one, other) in across(&who.choose(leader, members, rng), members) {
                    cluster.network.shut(one, other)?;
                }
            }
            Self::Deaf(who) => {
                for (one, other) in across(&who.choose(leader, members, rng), members) {
                    cluster.network.shut(other, one)?;
                }
            }
            Self::Bridge => bridge(cluster, leader, rng)?,
            Self::Delay => delay(cluster, rng),
            // What is written meanwhile is the round's.
            Self::Away => {
                for member in Who::Follower.choose(leader, members, rng) {
                    cluster.kill(member)?;
                }
                return Ok(());
            }
            Self::Flap => return flap(cluster, leader, rng).await,
        }
        tokio::time::sleep(lasts).await;
        Ok(())
    }
}

impl Who {
    fn choose(self, leader: Member, members: usize, rng: &mut Rng) -> Vec<Member> {
        let mut followers: Vec<_> = (0..members).filter(|member| *member != leader).collect();
        rng.shuffle(&mut followers);
        match self {
            Self::Leader => vec![leader],
            Self::Follower => followers.into_iter().take(1).collect(),
            Self::Minority => {
                let others = followers.into_iter().take((members - 1) / 2);
                std::iter::once(leader)
                    .chain(others)
                    .take(((members - 1) / 2).max(1))
                    .collect()
            }
            Self::All => (0..members).collect(),
        }
    }
}

/// All pairs of one of these and one of the others.
fn across(these: &[Member], members: usize) -> Vec<(Member, Member)> {
    let others = (0..members).filter(|member| !these.contains(member));
    let pairs = others.flat_map(|other| these.iter().map(move |one| (*one, other)));
    pairs.collect()
}

async fn reset(cluster: &Cluster, these: Vec<Member>, lasts: Duration) -> Result<()> {
    let pairs = across(&these, cluster.len());
    for (one, other) in &pairs {
        cluster.network.cut(*one, *other)?;
        cluster.network.reset(*one, *other);
    }
    tokio::time::sleep(lasts).await;
    for (one, other) in &pairs {
        cluster.network.reset(*one, *other);
    }
    Ok(())
}

/// One member reaches all; the others fall into two halves. The leader is not the bridge.
fn bridge(cluster: &Cluster, leader: Member, rng: &mut Rng) -> Result<()> {
    let members = cluster.len();
    let mut others: Vec<_> = (0..members).filter(|member| *member != leader).collect();
    rng.shuffle(&mut others);
    others.pop();
    others.push(leader);
    let (one_half, other_half) = others.split_at(others.len() / 2);
    for one in one_half {
        for other in other_half {
            cluster.network.cut(*one, *other)?;
        }
    }
    Ok(())
}

fn delay(cluster: &Cluster, rng: &mut Rng) {
    for from in 0..cluster.len() {
        for to in 0..cluster.len() {
            if from != to {
                let delay = cluster.setup.election * rng.u32(..25) / 100;
                cluster.network.slow(from, to, delay);
            }
        }
    }
}

async fn flap(cluster: &Cluster, leader: Member, rng: &mut Rng) -> Result<()> {
    for _ in 0..6 {
        let pairs = across(&[leader], cluster.len());
        for (one, other) in &pairs {
            cluster.network.cut(*one, *other)?;
        }
        tokio::time::sleep(cluster.setup.election * rng.u32(1..15) / 10).await;
        for (one, other) in &pairs {
            cluster.network.open(*one, *other);
        }
        tokio::time::sleep(cluster.setup.election * rng.u32(1..10) / 10).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Who, across};

    #[test]
    fn a_minority_leaves_a_majority() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (members, away) in [(3, 1), (5, 2), (1, 1)] {
            let chosen = Who::Minority.choose(0, members, &mut rng);
            assert_eq!(chosen.len(), away, "{members} members");
            assert!(chosen.contains(&0));
        }
    }

    #[test]
    fn a_cut_divides_these_from_the_others() {
        assert_eq!(across(&[0], 3), [(0, 1), (0, 2)]);
        assert_eq!(across(&[0, 2], 3), [(0, 1), (2, 1)]);
    }
}
