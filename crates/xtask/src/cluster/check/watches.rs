//! Watches against the log, and the log itself (C1, C5).

use super::super::history::{Event, History, Watch};
use super::{Findings, Kind, Log};

/// The log that all members tell. `None` if there is none to go by.
pub(super) fn common_log<'a>(history: &'a History, findings: &mut Findings) -> Option<Log<'a>> {
    let (first, others) = history.logs.split_first()?;
    let mut log = Log::new();
    let mut last = history.base_revision;
    for event in &first.events {
        if event.revision < last {
            let (name, revision) = (&first.name, event.revision);
            findings.push(
                Kind::WatchAgain,
                format!("{name} steps back from {last} to {revision}: {event:?}"),
            );
            return None;
        }
        last = event.revision;
        log.entry(event.revision).or_default().push(event);
    }
    for other in others {
        let same = |(a, b): (&Event, &Event)| {
            a.revision == b.revision && a.key == b.key && a.change == b.change
        };
        let pairs = first.events.iter().zip(&other.events);
        if let Some((a, b)) = pairs.clone().find(|(a, b)| !same((a, b))) {
            let text = format!("{}: {a:?}\n    {}: {b:?}", first.name, other.name);
            findings.push(Kind::MembersDiffer, text);
        } else if first.events.len() != other.events.len() {
            let text = format!(
                "{} tells {} events, {} {}",
                first.name,
                first.events.len(),
                other.name,
                other.events.len()
            );
            findings.push(Kind::MembersDiffer, text);
        }
    }
    let all = history.base_revision + 1..=history.end_revision;
    for revision in all.filter(|revision| !log.contains_key(revision)) {
        findings.push(Kind::Hole, format!("revision {revision} has no event"));
    }
    Some(log)
}

/// Compares a watch with the log, event by event, and stops at the first difference.
pub(super) fn compare(watch: &Watch, log: &Log<'_>, end: i64, findings: &mut Findings) {
    let mut expected = log.range(watch.from..=end).flat_map(|(_, events)| events);
    let mut last: Option<&Event> = None;
    for event in &watch.events {
        if let Some(last) = last.filter(|last| last.revision >= event.revision) {
            let is_torn = last.revision == event.revision && last.message != event.message;
            if watch.is_whole && is_torn {
                let text = format!(
                    "{}: revision {} came in two messages",
                    watch.name, event.revision
                );
                findings.push(Kind::WatchTorn, text);
                return;
            }
        }
        let Some(wanted) = expected.next() else {
            let text = format!("{}: beyond the log's end: {event:?}", watch.name);
            findings.push(Kind::WatchAgain, text);
            return;
        };
        if let Some(kind) = difference(wanted, event) {
            let text = format!(
                "{}:\n    got    {event:?}\n    wanted {wanted:?}\n    after  {last:?}",
                watch.name
            );
            findings.push(kind, text);
            return;
        }
        last = Some(event);
    }
    if let Some(missing) = expected.next() {
        let text = format!("{}: ended before {missing:?}", watch.name);
        findings.push(Kind::WatchGap, text);
    }
}

fn difference(wanted: &Event, got: &Event) -> Option<Kind> {
    if got.revision > wanted.revision {
        return Some(Kind::WatchGap);
    }
    if got.revision < wanted.revision {
        return Some(Kind::WatchAgain);
    }
    let is_same = got.key == wanted.key && super::replay::shows(&got.change, &wanted.change);
    (!is_same).then_some(Kind::WatchDiffers)
}
