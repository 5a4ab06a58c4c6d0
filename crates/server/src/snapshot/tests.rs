//! Files of an etcd, and files that no etcd writes, made into directories.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use quorate_log::{Config as JournalConfig, Identity};
use quorate_proto::mvccpb::KeyValue;
use quorate_replica::{Machine, OpenError, Opened};
use quorate_store::{KeyRange, Revision, Store};
use tempfile::TempDir;

use super::rows::{self, LeaseRow};
use super::{HashCheck, ImportError, Imported, Options, import, open};
use crate::bolt::{Database, FileShape, Shape, Writer};
use crate::config::{Config, InitialCluster, parse_peer_urls};
use crate::disk::{FsDisk, Segments};

type Items = Vec<(Vec<u8>, Vec<u8>)>;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/etcd-3.4.23.snapshot");

struct Case {
    parent: TempDir,
}

impl Case {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        Self { parent }
    }

    fn config(&self) -> Config {
        Config {
            data_dir: self.parent.path().join("data"),
            ..Config::default()
        }
    }

    /// A file with these buckets, in the order of their names.
    fn file(&self, buckets: &[(&[u8], Items)]) -> Database<File> {
        let shapes = buckets.iter().map(|(name, items)| {
            let mut shape = Shape::default();
            items
                .iter()
                .for_each(|(key, value)| shape.add(key.len(), value.len()));
            (name.to_vec(), shape)
        });
        let shape = FileShape::new(shapes.collect());
        let path = self.parent.path().join("file");
        let mut writer = Writer::begin(&shape, File::create(&path).unwrap()).unwrap();
        for (number, (_, items)) in buckets.iter().enumerate() {
            let mut bucket = writer.bucket(&shape, number);
            items
                .iter()
                .for_each(|(key, value)| bucket.item(key, value).unwrap());
            bucket.finish().unwrap();
        }
        writer.finish(&shape).unwrap();
        open(&path, HashCheck::IfThere).unwrap()
    }

    fn import(&self, database: &Database<File>, options: Options) -> Result<Imported, ImportError> {
        import(database, &self.config(), options)
    }

    /// What a start makes of the directory.
    fn opened(&self) -> Result<(Machine, Arc<Segments>), OpenError> {
        let disk = FsDisk::open(&self.config().data_dir).unwrap();
        let directory = Identity::load(&disk).unwrap().unwrap().directory;
        let segments = Segments::open(&disk, 0).unwrap();
        let config = JournalConfig::default();
        let opened = Opened::read(disk, directory, config, &segments.reader(), &mut |_| {})?;
        Ok((opened.machine, segments))
    }
}

/// Keys, values and numbers at a revision: `a=3 create 2 modified 4 version 2 lease 0`.
fn shown(store: &Store, segments: &Segments, revision: u64) -> Vec<String> {
    let values = segments.reader();
    let all = KeyRange {
        start: vec![0].into(),
        end: quorate_store::KeyEnd::Open,
    };
    let rows = store.scan(&all, Revision::new(revision));
    let show = |row: quorate_store::Row<'_>| {
        let kv = Store::key_value(row.key, row.version, &values).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "{}={} {}/{}/{} {:x}",
            text(&kv.key),
            text(&kv.value),
            kv.create,
            kv.modified,
            kv.version,
            kv.lease
        )
    };
    rows.map(show).collect()
}

fn put(revision: u64, sub: u32, kv: KeyValue) -> (Vec<u8>, Vec<u8>) {
    let key = rows::revision_key(Revision::new(revision), sub, false);
    (key, kv.encode_to_vec())
}

fn kv(key: &str, value: &str, (create, modified, version): (i64, i64, i64)) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

fn tombstone(revision: u64, key: &str) -> (Vec<u8>, Vec<u8>) {
    let row = rows::revision_key(Revision::new(revision), 0, true);
    (row, kv(key, "", (0, 0, 0)).encode_to_vec())
}

#[test]
fn an_etcd_s_snapshot_keeps_revisions_history_and_leases() {
    let case = Case::new();
    let database = open(Path::new(GOLDEN), HashCheck::Needed).unwrap();
    let imported = case.import(&database, Options::default()).unwrap();
    assert_eq!(imported.notes, Vec::<String>::new());
    let (machine, values) = case.opened().unwrap();
    let store = machine.store();
    assert_eq!((store.revision().get(), store.compacted()), (6, 3));
    assert_eq!(shown(store, &values, 3), ["a=1 2/2/1 0", "b=2 3/3/1 0"]);
    assert_eq!(shown(store, &values, 4), ["a=3 2/4/2 0", "b=2 3/3/1 0"]);
    let (lease, held) = store.leases().first_key_value().expect("a lease");
    let leased = format!("c=x 6/6/1 {lease:x}");
    assert_eq!(shown(store, &values, 6), ["a=3 2/4/2 0", &leased]);
    assert_eq!(
        (held.ttl_s, held.keys.len(), store.leases().len()),
        (3_600, 1, 1)
    );
}

#[test]
fn a_directory_whose_checkpoint_is_lost_does_not_begin_empty() {
    let case = Case::new();
    let database = open(Path::new(GOLDEN), HashCheck::Needed).unwrap();
    case.import(&database, Options::default()).unwrap();
    for entry in std::fs::read_dir(case.config().data_dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "checkpoint")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = case
        .opened()
        .map(|_| ())
        .expect_err("it is not opened")
        .to_string();
    assert!(
        error.contains("no checkpoint that verifies leads up to it"),
        "{error}"
    );
}

#[test]
fn a_directory_that_is_in_use_is_left_alone() {
    let case = Case::new();
    let database = open(Path::new(GOLDEN), HashCheck::Needed).unwrap();
    let data_dir = case.config().data_dir;
    std::fs::create_dir(&data_dir).unwrap();
    case.import(&database, Options::default())
        .expect("an empty one is taken");
    let error = case.import(&database, Options::default()).unwrap_err();
    assert!(matches!(error, ImportError::Exists(_)), "{error}");
}

#[test]
fn an_unfinished_compaction_bumps_and_lost_leases_are_settled() {
    let case = Case::new();
    let leased = KeyValue {
        lease: 5,
        ..kv("l", "x", (4, 4, 1))
    };
    let large = "v".repeat(5_000);
    let keys = vec![
        put(2, 0, kv("k", &large, (2, 2, 1))),
        put(2, 1, kv("m", "1", (2, 2, 1))),
        put(3, 0, kv("k", "2", (2, 3, 2))),
        put(4, 0, leased),
        tombstone(5, "m"),
        // As etcdutl's --bump-revision leaves it.
        (rows::revision_key(Revision::new(90), 0, false), Vec::new()),
    ];
    let scheduled = rows::revision_key(Revision::new(4), 0, false);
    let finished = rows::revision_key(Revision::new(2), 0, false);
    let meta = vec![
        (rows::FINISHED_COMPACTION.to_vec(), finished),
        (rows::SCHEDULED_COMPACTION.to_vec(), scheduled),
    ];
    let database = case.file(&[
        (rows::KEY, keys),
        (b"lasers", Vec::new()),
        (rows::META, meta),
    ]);
    let imported = case.import(&database, Options::default()).unwrap();
    let notes = [
        "left out: bucket \"lasers\", which is unknown here",
        "1 keys name leases that are not there: they have none now",
    ];
    assert_eq!(imported.notes, notes);
    let (machine, values) = case.opened().unwrap();
    let store = machine.store();
    assert_eq!((store.revision().get(), store.compacted()), (90, 4));
    let kept = ["k=2 2/3/2 0", "l=x 4/4/1 0"];
    assert_eq!(shown(store, &values, 4), [kept[0], kept[1], "m=1 2/2/1 0"]);
    assert_eq!(shown(store, &values, 5), kept);
}

#[test]
fn a_bumped_revision_is_a_compaction_s() {
    let case = Case::new();
    let database = open(Path::new(GOLDEN), HashCheck::Needed).unwrap();
    let mut options = Options {
        bump_revision: u64::MAX,
        mark_compacted: true,
        ..Options::default()
    };
    let error = case.import(&database, options).unwrap_err();
    assert!(matches!(error, ImportError::Revision(_)), "{error}");
    options.bump_revision = 1_000;
    case.import(&database, options).unwrap();
    let (machine, values) = case.opened().unwrap();
    let store = machine.store();
    assert_eq!((store.revision().get(), store.compacted()), (1_006, 1_006));
    let now = shown(store, &values, 1_006);
    assert!(now[0].starts_with("a=3 2/4/2") && now.len() == 2, "{now:?}");
}

#[test]
fn a_directory_is_made_for_each_member_of_a_new_cluster() {
    let case = Case::new();
    let database = open(Path::new(GOLDEN), HashCheck::Needed).unwrap();
    let two = "default=http://localhost:2380,b=http://b:2380";
    let of_two = |members| Config {
        initial_cluster: InitialCluster::Static(parse_peer_urls(members).unwrap()),
        ..case.config()
    };
    let error = import(&database, &of_two("b=http://b:2380"), Options::default()).unwrap_err();
    assert!(
        error.to_string().contains("couldn't find local name"),
        "{error}"
    );
    assert!(!case.config().data_dir.exists(), "nothing was made");
    import(&database, &of_two(two), Options::default()).unwrap();
    let (machine, _) = case.opened().unwrap();
    let members = machine.store().members().values();
    let mut urls: Vec<_> = members.map(|member| member.peer_urls.join(",")).collect();
    urls.sort();
    assert_eq!(urls, ["http://b:2380", "http://localhost:2380"]);
}

#[test]
fn a_file_that_asks_for_passwords_is_refused_unless_told_otherwise() {
    let case = Case::new();
    let enabled = vec![(rows::AUTH_ENABLED.to_vec(), vec![1])];
    let user = vec![(b"root".to_vec(), Vec::new())];
    let keys = vec![put(2, 0, kv("k", "1", (2, 2, 1)))];
    let database = case.file(&[
        (rows::AUTH, enabled),
        (rows::AUTH_USERS, user.clone()),
        (rows::KEY, keys.clone()),
    ]);
    let error = case.import(&database, Options::default()).unwrap_err();
    assert!(error.to_string().contains("--without-auth"), "{error}");
    assert!(!case.config().data_dir.exists(), "nothing was made");
    let options = Options {
        without_auth: true,
        ..Options::default()
    };
    let notes = case.import(&database, options).unwrap().notes;
    assert!(
        notes[0].starts_with("left out: 1 users and 0 roles"),
        "{notes:?}"
    );

    let case = Case::new();
    let database = case.file(&[(rows::AUTH_USERS, user), (rows::KEY, keys)]);
    let notes = case.import(&database, Options::default()).unwrap().notes;
    assert!(
        notes[0].ends_with("authentication was disabled"),
        "{notes:?}"
    );
}

#[test]
fn what_no_etcd_writes_is_refused_with_a_sentence_and_leaves_nothing() {
    let good = || put(2, 0, kv("k", "1", (2, 2, 1)));
    let lease = |id: i64| {
        let row = LeaseRow {
            id,
            ttl_s: 10,
            remaining_s: 0,
        };
        (5_i64.to_be_bytes().to_vec(), row.encode_to_vec())
    };
    let keys = |items: Items| (rows::KEY, items);
    for (buckets, wanted) in [
        (vec![(rows::META, Vec::new())], "bucket key: there is none"),
        (
            vec![keys(vec![(b"abc".to_vec(), Vec::new())])],
            "a key that is no revision: [97, 98, 99]",
        ),
        (
            vec![keys(vec![good(), tombstone(2, "k")])],
            "bucket key: revision 2.0: it stands twice",
        ),
        (
            vec![keys(vec![put(2, 0, kv("k", "1", (3, 2, 1)))])],
            "revision 2.0: the key's revisions do not fit",
        ),
        (
            vec![keys(vec![put(2, 0, kv("k", "1", (2, 2, 9)))])],
            "revision 2.0: the key's version does not fit",
        ),
        (
            vec![keys(vec![put(2, 0, kv("k", "1", (-1, 2, 1)))])],
            "revision 2.0: a number below zero",
        ),
        (
            vec![keys(vec![(good().0, b"\xff\xff".to_vec())])],
            "bucket key: revision 2.0: failed to decode",
        ),
        (
            vec![keys(vec![good()]), (rows::LEASE, vec![lease(6)])],
            "bucket lease: the id of lease 6",
        ),
        (
            vec![
                (rows::ALARM, vec![(b"\x10\x09".to_vec(), Vec::new())]),
                keys(vec![good()]),
            ],
            "bucket alarm: an alarm of unknown kind",
        ),
        (
            vec![
                keys(vec![good()]),
                (
                    rows::META,
                    vec![(rows::FINISHED_COMPACTION.to_vec(), vec![1])],
                ),
            ],
            "bucket meta: a compaction's revision",
        ),
        (
            vec![
                keys(vec![good()]),
                (rows::OURS, vec![(rows::OURS_HEAD.to_vec(), vec![9])]),
            ],
            "bucket quorate: format version 9 is newer",
        ),
        (
            vec![
                keys(vec![good()]),
                (rows::OURS, vec![(rows::row_key(0).to_vec(), vec![9])]),
            ],
            "does not open",
        ),
    ] {
        let case = Case::new();
        let database = case.file(&buckets);
        let error = case
            .import(&database, Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error} instead of {wanted}");
        let left: Vec<_> = std::fs::read_dir(case.parent.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the file is there: {left:?}");
    }
}
