//! Finds the v3 watchers that a change concerns, and wakes their streams.
//!
//! A watcher is a cursor into history: what it is sent is read by its stream's task from the
//! store, past and live events alike. The hub only says "from this revision on there is something
//! for you", so it holds no events, and a slow reader costs nothing but an older cursor (P4).
//!
//! Owns the index of watched keys and ranges: a change costs a look-up among the keys, and in the
//! tree of ranges ([`ranges`]) the logarithm of their number and the matches. A hub is an object
//! that is shown the changes, so several can stand beside each other. Never reads the store and
//! never sends.
//!
//! W1. A registered watcher is told of every matching change published after its registration:
//!     with the first one since it last took its news, and with no other until it takes them.
//! W2. Changes are published before the machine's guard of their apply is given back, so whoever
//!     reads the machine at revision R has been told of everything up to R.

mod ranges;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use bytes::Bytes;
use quorate_store::{Change, Class, KeyEnd, KeyRange, Revision};
use ranges::{End, Ranges};

/// All v3 watchers of this member.
#[derive(Default)]
pub struct Hub {
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    points: HashMap<Bytes, Marks>,
    ranges: Ranges<Marks>,
    watchers: usize,
}

/// Who watches one key or one range; never nobody.
type Marks = Vec<Arc<Mark>>;

/// What a stream has been told and has not looked at yet.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<InboxState>,
}

#[derive(Default)]
struct InboxState {
    news: Vec<News>,
    waker: Option<Waker>,
}

/// There is something for a watcher from `from` on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct News {
    /// The watcher, by the id its stream registered it with.
    pub watcher: i64,
    /// The first matching revision.
    pub from: Revision,
}

/// A watcher as the index holds it.
struct Mark {
    watcher: i64,
    inbox: Arc<Inbox>,
    told: AtomicBool,
    /// Its place among the marks of its range; changes under the index's lock only.
    place: AtomicUsize,
}

/// Keeps a watcher in the hub; dropping it takes the watcher out.
pub struct Registration {
    hub: Arc<Hub>,
    range: KeyRange,
    mark: Arc<Mark>,
}

impl Hub {
    /// Adds a watcher of `range`, whose news go to `inbox` under the id `watcher`.
    ///
    /// Register first, then read the store's revision: then nothing falls between.
    pub fn register(
        self: &Arc<Self>,
        range: &KeyRange,
        watcher: i64,
        inbox: &Arc<Inbox>,
    ) -> Registration {
        let range = owned(range);
        let mark = {
            let mut index = self.index();
            index.watchers += 1;
            let marks = index.marks_or_none(&range);
            let mark = Arc::new(Mark {
                watcher,
                inbox: inbox.clone(),
                told: AtomicBool::new(false),
                place: AtomicUsize::new(marks.len()),
            });
            marks.push(mark.clone());
            mark
        };
        Registration {
            hub: self.clone(),
            range,
            mark,
        }
    }

    /// Tells the watchers of these changes, which are in order.
    pub fn publish<'a>(&self, changes: impl Iterator<Item = &'a Change>) {
        let index = self.index();
        if index.watchers == 0 {
            return;
        }
        for change in changes {
            match change.class {
                Class::File => index.tell(&change.key, change.revision),
                Class::Dir => {}
            }
        }
    }

    /// Tells every watcher to look at history from `from` on: another state has taken this one's
    /// place, and what lies between is in its history, or compacted there.
    pub fn publish_all(&self, from: Revision) {
        let index = self.index();
        let tell = |marks: &Marks| marks.iter().for_each(|mark| mark.tell(from));
        index.points.values().for_each(tell);
        index.ranges.for_each(&mut { tell });
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.index().watchers
    }

    /// How many watchers were told of something that they have not taken yet.
    pub fn slow_watchers(&self) -> usize {
        let index = self.index();
        let mut slow = 0;
        let mut count = |marks: &Marks| {
            let told = marks
                .iter()
                .filter(|mark| mark.told.load(Ordering::Relaxed));
            slow += told.count();
        };
        index.points.values().for_each(&mut count);
        index.ranges.for_each(&mut count);
        slow
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index
            .lock()
            .expect("nothing panics while it holds the index")
    }
}

impl Index {
    fn marks(&mut self, range: &KeyRange) -> Option<&mut Marks> {
        match end(range) {
            None => self.points.get_mut(&range.start),
            Some(end) => self.ranges.get_mut(&range.start, &end),
        }
    }

    /// The marks of a range; if it has none, a place for some.
    fn marks_or_none(&mut self, range: &KeyRange) -> &mut Marks {
        let start = &range.start;
        match end(range) {
            None => self.points.entry(start.clone()).or_default(),
            Some(end) => {
                if self.ranges.get_mut(start, &end).is_none() {
                    self.ranges.insert(start.clone(), end.clone(), Marks::new());
                }
                self.ranges.get_mut(start, &end).expect("it is there now")
            }
        }
    }

    fn forget(&mut self, range: &KeyRange) {
        match end(range) {
            None => self.points.remove(&range.start),
            Some(end) => self.ranges.remove(&range.start, &end),
        };
    }

    fn tell(&self, key: &[u8], revision: Revision) {
        let mut tell = |marks: &Marks| marks.iter().for_each(|mark| mark.tell(revision));
        if let Some(marks) = self.points.get(key) {
            tell(marks);
        }
        self.ranges.find(key, &mut tell);
    }
}

/// Where a range ends; a single key does not.
fn end(range: &KeyRange) -> Option<End> {
    match &range.end {
        KeyEnd::Point => None,
        KeyEnd::Before(end) => Some(End::Before(end.clone())),
        KeyEnd::Open => Some(End::Open),
    }
}

impl Mark {
    fn tell(&self, from: Revision) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.inbox.push(News {
                watcher: self.watcher,
                from,
            });
        }
    }
}

impl Inbox {
    fn push(&self, news: News) {
        let mut state = self.state();
        state.news.push(news);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Moves what came in to `news`, and has the task woken for what comes next.
    ///
    /// Each watcher in it must then call [`Registration::listen`] before it reads the store.
    pub fn take(&self, context: &Context<'_>, news: &mut Vec<News>) {
        let mut state = self.state();
        news.append(&mut state.news);
        if !state
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            state.waker = Some(context.waker().clone());
        }
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.state().news.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, InboxState> {
        self.state
            .lock()
            .expect("nothing panics while it holds an inbox")
    }
}

impl Registration {
    /// Has the watcher told again of what is published from now on.
    pub fn listen(&self) {
        self.mark.told.store(false, Ordering::Release);
    }

    /// What is watched.
    pub fn range(&self) -> &KeyRange {
        &self.range
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut index = self.hub.index();
        index.watchers -= 1;
        let marks = index.marks(&self.range).expect("it is among them");
        // The last one takes its place, so that 10,000 watchers of a key leave as fast as one.
        let place = self.mark.place.load(Ordering::Relaxed);
        marks.swap_remove(place);
        if let Some(moved) = marks.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        if marks.is_empty() {
            index.forget(&self.range);
        }
    }
}

/// A copy that does not keep the receive buffer alive.
fn owned(range: &KeyRange) -> KeyRange {
    let end = match &range.end {
        KeyEnd::Point => KeyEnd::Point,
        KeyEnd::Before(end) => KeyEnd::Before(Bytes::copy_from_slice(end)),
        KeyEnd::Open => KeyEnd::Open,
    };
    KeyRange {
        start: Bytes::copy_from_slice(&range.start),
        end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_store::UnixMs;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_parts(Bytes::from_static(start.as_bytes()), end.as_bytes().into())
    }

    fn change(key: &str, revision: u64) -> Change {
        Change {
            revision: Revision::new(revision),
            sub: 0,
            class: Class::File,
            key: key.as_bytes().into(),
            wall: UnixMs(0),
        }
    }

    fn taken(inbox: &Inbox) -> Vec<(i64, u64)> {
        let mut news = Vec::new();
        inbox.take(&Context::from_waker(Waker::noop()), &mut news);
        news.into_iter()
            .map(|news| (news.watcher, news.from.get()))
            .collect()
    }

    #[test]
    fn each_kind_of_range_hears_of_its_keys_only() {
        let (hub, inbox) = (Arc::new(Hub::default()), Arc::new(Inbox::default()));
        let watchers = [
            range("b", ""),
            range("b", "d"),
            range("c", "\0"),
            range("bb", ""),
        ];
        let held: Vec<_> = (0..)
            .zip(&watchers)
            .map(|(id, range)| hub.register(range, id, &inbox))
            .collect();
        for (key, heard) in [
            ("a", vec![]),
            ("b", vec![0, 1]),
            ("c", vec![1, 2]),
            ("d", vec![2]),
        ] {
            hub.publish([change(key, 7)].iter());
            let heard: Vec<_> = heard.into_iter().map(|id| (id, 7)).collect();
            assert_eq!(taken(&inbox), heard, "{key}");
            held.iter().for_each(Registration::listen);
        }
    }

    #[test]
    fn a_watcher_is_told_once_until_it_listens_again() {
        let (hub, inbox) = (Arc::new(Hub::default()), Arc::new(Inbox::default()));
        let registration = hub.register(&range("k", ""), 5, &inbox);
        hub.publish([change("k", 2), change("k", 3)].iter());
        hub.publish([change("k", 4)].iter());
        assert_eq!(taken(&inbox), [(5, 2)]);
        hub.publish([change("k", 5)].iter());
        assert!(inbox.is_empty());
        registration.listen();
        hub.publish([change("k", 6)].iter());
        assert_eq!(taken(&inbox), [(5, 6)]);
    }

    #[test]
    fn those_that_stay_hear_on_whoever_leaves() {
        let (hub, inbox) = (Arc::new(Hub::default()), Arc::new(Inbox::default()));
        let mut held: Vec<_> = (0..6)
            .map(|id| hub.register(&range("k", ""), id, &inbox))
            .collect();
        for leaves in [2, 0, 3, 1, 1] {
            drop(held.remove(leaves));
            hub.publish([change("k", 2)].iter());
            let mut heard: Vec<_> = taken(&inbox).into_iter().map(|(id, _)| id).collect();
            heard.sort_unstable();
            let stayed: Vec<_> = held.iter().map(|each| each.mark.watcher).collect();
            assert_eq!(heard, stayed);
            held.iter().for_each(Registration::listen);
        }
    }

    #[test]
    fn a_dropped_registration_leaves_nothing_behind() {
        let (hub, inbox) = (Arc::new(Hub::default()), Arc::new(Inbox::default()));
        let point = hub.register(&range("k", ""), 1, &inbox);
        let other = hub.register(&range("k", "l"), 2, &inbox);
        assert_eq!(hub.watchers(), 2);
        drop((point, other));
        let index = hub.index();
        let mut left = index.points.len();
        index.ranges.for_each(&mut |_| left += 1);
        assert_eq!((index.watchers, left), (0, 0));
    }
}
