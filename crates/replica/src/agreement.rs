//! Whether the members' states are the same: compared at equal applied index, about once a second.
//!
//! The leader asks all at the index that it has applied; each answers once it is there. Who is of
//! another mind than most voters is told so, and stops. Nothing is repaired here.

use std::collections::{BTreeMap, VecDeque};

use crate::conf::quorum;

/// Digests are remembered for so many entries.
const REMEMBERED: usize = 4_096;

/// This member's own digests, and what it has asked or was asked.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    /// Of the entries up to `applied`, newest last.
    digests: VecDeque<u64>,
    applied: u64,
    /// The leader that asks, and at which index.
    asked: Option<(u64, u64)>,
    /// What this leader asks at, and the answers.
    poll: Option<(u64, BTreeMap<u64, u64>)>,
}

/// What a poll came to.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// Members whose state is not that of most voters.
    pub(crate) odd: Vec<u64>,
    /// There is no majority of one mind.
    pub(crate) is_split: bool,
}

impl Agreement {
    /// Entries were applied, up to `applied`.
    pub(crate) fn applied(&mut self, applied: u64, digests: &[u64]) {
        self.applied = applied;
        self.digests.extend(digests);
        let excess = self.digests.len().saturating_sub(REMEMBERED);
        self.digests.drain(..excess);
    }

    fn digest_at(&self, index: u64) -> Option<u64> {
        let back = usize::try_from(self.applied.checked_sub(index)?).ok()?;
        let at = self.digests.len().checked_sub(back + 1)?;
        self.digests.get(at).copied()
    }

    /// The leader asks.
    pub(crate) fn ask(&mut self, leader: u64, index: u64) {
        self.asked = Some((leader, index));
    }

    /// What to answer whom, once the state is there: leader, index, digest.
    pub(crate) fn answer(&mut self) -> Option<(u64, u64, u64)> {
        let (leader, index) = self.asked.filter(|(_, index)| *index <= self.applied)?;
        self.asked = None;
        Some((leader, index, self.digest_at(index)?))
    }

    /// Begins to ask all at the index that is applied here; `None` when nothing was applied yet.
    pub(crate) fn begin(&mut self, own: u64) -> Option<u64> {
        let index = self.applied;
        let digest = self.digest_at(index)?;
        self.poll = Some((index, BTreeMap::from([(own, digest)])));
        Some(index)
    }

    /// A member answers.
    pub(crate) fn told(&mut self, member: u64, index: u64, digest: u64) {
        if let Some((_, answers)) = self.poll.as_mut().filter(|(asked, _)| *asked == index) {
            answers.insert(member, digest);
        }
    }

    /// Ends the poll with what came.
    pub(crate) fn end(&mut self, voters: &[u64]) -> Option<(u64, Verdict)> {
        let (index, answers) = self.poll.take()?;
        Some((index, judge(&answers, voters)))
    }
}

fn judge(answers: &BTreeMap<u64, u64>, voters: &[u64]) -> Verdict {
    let mut minds: BTreeMap<u64, usize> = BTreeMap::new();
    for voter in voters {
        if let Some(digest) = answers.get(voter) {
            *minds.entry(*digest).or_default() += 1;
        }
    }
    let differ = answers
        .values()
        .any(|digest| Some(digest) != answers.values().next());
    if !differ {
        return Verdict::default();
    }
    let most = minds
        .iter()
        .find(|(_, count)| **count >= quorum(voters.len()));
    let Some((most, _)) = most else {
        // As long as some have not answered, it may still be found who is wrong.
        let is_split = voters.iter().all(|voter| answers.contains_key(voter));
        let odd = Vec::new();
        return Verdict { odd, is_split };
    };
    let odd = answers.iter().filter(|(_, digest)| *digest != most);
    Verdict {
        odd: odd.map(|(member, _)| *member).collect(),
        is_split: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(answers: &[(u64, u64)], voters: &[u64]) -> (Vec<u64>, bool) {
        let verdict = judge(&answers.iter().copied().collect(), voters);
        (verdict.odd, verdict.is_split)
    }

    #[test]
    fn the_odd_one_is_found_by_a_majority_of_voters_and_by_nothing_less() {
        let voters = [1, 2, 3];
        assert_eq!(verdict(&[(1, 7), (2, 7), (3, 7)], &voters), (vec![], false));
        assert_eq!(
            verdict(&[(1, 7), (2, 8), (3, 7)], &voters),
            (vec![2], false)
        );
        assert_eq!(
            verdict(&[(1, 8), (2, 7), (3, 7)], &voters),
            (vec![1], false)
        );
        // One has not answered yet.
        assert_eq!(verdict(&[(1, 7), (2, 8)], &voters), (vec![], false));
        assert_eq!(verdict(&[(1, 7), (2, 8), (3, 9)], &voters), (vec![], true));
        // A learner has no say.
        let four = [(1, 7), (2, 7), (4, 8)];
        assert_eq!(verdict(&four, &voters), (vec![4], false));
        assert_eq!(verdict(&[(1, 7), (4, 8)], &voters), (vec![], false));
        assert_eq!(verdict(&[(1, 7), (2, 8)], &[1, 2]), (vec![], true));
    }

    #[test]
    fn a_digest_is_told_once_it_is_there_and_not_when_it_is_forgotten() {
        let mut agreement = Agreement::default();
        agreement.applied(10, &[1, 2]);
        agreement.ask(5, 11);
        assert_eq!(agreement.answer(), None);
        agreement.applied(12, &[3, 4]);
        assert_eq!(agreement.answer(), Some((5, 11, 3)));
        assert_eq!(agreement.answer(), None, "once");
        agreement.ask(5, 8);
        assert_eq!(agreement.answer(), None, "it is not known what it was");
        assert_eq!(agreement.begin(1), Some(12));
        agreement.told(2, 11, 9);
        agreement.told(3, 12, 4);
        let (index, verdict) = agreement.end(&[1, 2, 3]).expect("it was begun");
        assert_eq!(
            (index, verdict),
            (12, Verdict::default()),
            "an old answer does not count"
        );
    }
}
