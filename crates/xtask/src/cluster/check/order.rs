//! Real time (C4).

use std::collections::HashMap;

use super::super::history::{Call, History, Nanos, Request};
use super::replay::Replayed;
use super::{Findings, Kind};

/// Something with a revision that takes up time.
struct Span<'a> {
    invoked: Nanos,
    /// `None` if it never returned.
    returned: Option<Nanos>,
    revision: i64,
    is_write: bool,
    /// Nothing is asked of it, but others must not be behind it.
    is_excused: bool,
    call: Option<&'a Call>,
}

impl Span<'_> {
    fn name(&self) -> String {
        let watch = || format!("a watch, at {} ns", self.invoked);
        self.call.map_or_else(watch, ToString::to_string)
    }
}

/// Looks for what is older than something that ended before it began.
pub(super) fn real_time(history: &History, replayed: &Replayed, findings: &mut Findings) {
    let mut spans = Vec::new();
    for (at, call) in history.calls.iter().enumerate() {
        let (revision, returned) = match (call.answer(), replayed.unknown_done.get(&at)) {
            (Some(answer), _) => (answer.revision, Some(call.returned)),
            (None, Some(revision)) => (*revision, None),
            (None, None) => continue,
        };
        // Its header is made before it asks the leader.
        if matches!(call.request, Request::KeepAlive { .. }) {
            continue;
        }
        spans.push(Span {
            invoked: call.invoked,
            returned,
            revision,
            is_write: replayed.writers.contains(&at),
            is_excused: call.is_local(),
            call: Some(call),
        });
    }
    let events = history.watches.iter().flat_map(|watch| &watch.events);
    spans.extend(events.map(|event| Span {
        invoked: event.at,
        returned: Some(event.at),
        revision: event.revision,
        is_write: false,
        is_excused: true,
        call: None,
    }));
    judge(&spans, findings);
}

fn judge(spans: &[Span<'_>], findings: &mut Findings) {
    let mut ends: Vec<(Nanos, &Span<'_>)> = spans
        .iter()
        .filter_map(|span| Some((span.returned?, span)))
        .collect();
    ends.sort_by_key(|(at, _)| *at);
    let mut begins: Vec<&Span<'_>> = spans.iter().filter(|span| !span.is_excused).collect();
    begins.sort_by_key(|span| span.invoked);
    let mut ends = ends.into_iter().peekable();
    let mut newest: Option<&Span<'_>> = None;
    for span in begins {
        while let Some((_, ended)) = ends.next_if(|(at, _)| *at < span.invoked) {
            if newest.is_none_or(|newest| ended.revision > newest.revision) {
                newest = Some(ended);
            }
        }
        let Some(newest) = newest else { continue };
        let is_behind =
            span.revision < newest.revision || (span.is_write && span.revision == newest.revision);
        if is_behind {
            let text = format!(
                "revision {} was seen before revision {} was asked for\n    by {}\n    then {}",
                newest.revision,
                span.revision,
                newest.name(),
                span.name()
            );
            findings.push(Kind::Stale, text);
        }
    }
}

/// Looks for a read of a member's own state that is older than what the same process had answered.
pub(super) fn local_reads(history: &History, findings: &mut Findings) {
    let mut runs: HashMap<(usize, u32), Vec<&Call>> = HashMap::new();
    for call in &history.calls {
        if let (Some(run), Some(_)) = (call.run, call.answer()) {
            runs.entry((call.member, run)).or_default().push(call);
        }
    }
    for calls in runs.values() {
        let span = |call: &&&Call| !matches!(call.request, Request::KeepAlive { .. });
        let spans: Vec<Span<'_>> = calls.iter().filter(span).map(|call| local(call)).collect();
        let mut found = Findings::default();
        judge(&spans, &mut found);
        for violation in found.0 {
            findings.push(Kind::StepBack, violation.text);
        }
    }
}

fn local(call: &Call) -> Span<'_> {
    Span {
        invoked: call.invoked,
        returned: Some(call.returned),
        revision: call.answer().map_or(0, |answer| answer.revision),
        is_write: false,
        is_excused: !call.is_local(),
        call: Some(call),
    }
}
