//! A value that was copied forward is read where it was copied to, also after a restart.

use std::borrow::Cow;

use bytes::Bytes;
use quorate_log::{
    Config, Disk, Entry, EntryKind, HardState, Identity, Journal, Moved, segment_name,
};
use quorate_replica::{Opened, write_genesis};
use quorate_sim::disk::SimDisk;
use quorate_store::command::{Blob, Body, Draft, Put, RequestId};
use quorate_store::{ClusterTime, Store, UnixMs, ValueAt, ValueError, Values};

const CONFIG: Config = Config {
    segment_bytes: 4096,
};

struct Log(SimDisk);

impl Values for Log {
    fn read<'a>(&'a self, at: &ValueAt) -> Result<Cow<'a, [u8]>, ValueError> {
        let mut bytes = vec![0; at.len as usize];
        let name = segment_name(at.segment);
        self.0
            .read_at(&name, at.offset.into(), &mut bytes)
            .map_err(|_| ValueError::Rotten(*at))?;
        Ok(Cow::Owned(bytes))
    }
}

fn entry(index: u64, key: &'static str, value: &Bytes) -> Entry {
    let put = Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Blob::new(value.clone()),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let draft = Draft::new(RequestId::default(), UnixMs(0), &Body::Put(put));
    Entry {
        index,
        term: 1,
        kind: EntryKind::Normal,
        data: draft.stamp(ClusterTime(0)),
    }
}

#[test]
fn a_copy_is_the_home_of_its_value_after_a_restart() {
    let disk = SimDisk::new();
    let directory = Identity::create(&disk, CONFIG, [7; 16], 1, 2)
        .expect("the disk works")
        .directory;
    let (mut journal, _) = Journal::open(disk.clone(), directory, CONFIG, None).expect("it opens");
    let (first, second) = (Bytes::from(vec![1; 1500]), Bytes::from(vec![2; 1500]));
    let hard = HardState {
        term: 1,
        vote: 1,
        commit: 3,
    };
    let entries = [entry(2, "a", &first), entry(3, "b", &second)];
    let mut places = Vec::new();
    journal
        .append(Some(hard), &entries, 3, &mut places)
        .expect("it is written");
    journal.sync().expect("it is synced");
    // One that is there, one of a revision that is not, and one that is not the value.
    let moved = |key: &'static str, revision, data: &Bytes| Moved {
        key: Bytes::from_static(key.as_bytes()),
        revision,
        data: data.clone(),
    };
    let moved = [
        moved("a", 2, &first),
        moved("a", 9, &first),
        moved("b", 3, &first),
        moved("a", u64::MAX, &first),
    ];
    let mut to = Vec::new();
    journal
        .append_moved(&moved, &mut to)
        .expect("it is written");
    journal.sync().expect("it is synced");
    drop(journal);
    write_genesis(disk.clone(), directory, []).expect("it is written");
    let log = Log(disk.clone());
    let opened = Opened::read(disk, directory, CONFIG, &log, &mut |_| {}).expect("it opens");
    let store = opened.machine.store();
    for (key, value, segment) in [
        ("a", first, to[0].segment),
        ("b", second, places[1].1.segment),
    ] {
        let version = store.file(key.as_bytes()).expect("it was put");
        let read = Store::key_value(&key.as_bytes().into(), version, &log).expect("it verifies");
        assert_eq!(read.value, value);
        assert_eq!(store.bytes_in_segment(segment), 1500, "{key}");
    }
    assert_ne!(to[0].segment, places[0].1.segment, "the copy is elsewhere");
}
