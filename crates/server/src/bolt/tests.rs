//! What is written is read back; what is damaged is refused.

use super::{Database, FileShape, ReadAt, ReadError, Shape, Writer};

type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// Small and steady: a test's chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

fn written(buckets: &[(&[u8], Items)]) -> Vec<u8> {
    let shapes = buckets.iter().map(|(name, items)| {
        let mut shape = Shape::default();
        for (key, value) in items {
            shape.add(key.len(), value.len());
        }
        (name.to_vec(), shape)
    });
    let shape = FileShape::new(shapes.collect());
    let mut writer = Writer::begin(&shape, Vec::new()).unwrap();
    for (number, (_, items)) in buckets.iter().enumerate() {
        let mut bucket = writer.bucket(&shape, number);
        for (key, value) in items {
            bucket.item(key, value).unwrap();
        }
        bucket.finish().unwrap();
    }
    let bytes = writer.finish(&shape).unwrap();
    assert_eq!(bytes.len() as u64, shape.bytes());
    bytes
}

/// Everything in a file: its buckets, and what is in them.
fn read<S: ReadAt>(database: &Database<S>) -> Result<Vec<(Vec<u8>, Items)>, ReadError> {
    let mut names = Vec::new();
    let mut roots = database.items(&database.root())?;
    while let Some(item) = roots.next()? {
        names.push((item.key.to_vec(), database.bucket_of(&item)?));
    }
    let mut found = Vec::new();
    for (name, bucket) in names {
        let mut items = database.items(&bucket)?;
        let mut all = Vec::new();
        while let Some(item) = items.next()? {
            all.push((item.key.to_vec(), item.value.to_vec()));
        }
        found.push((name, all));
    }
    Ok(found)
}

fn random_items(chance: &mut Chance, count: u64, longest: u64) -> Items {
    let mut items = std::collections::BTreeMap::new();
    for _ in 0..count {
        let length = 1 + chance.below(40);
        let key = chance.bytes(length);
        let length = chance.below(longest);
        items.insert(key, chance.bytes(length));
    }
    items.into_iter().collect()
}

#[test]
fn what_is_written_is_read_back() {
    let mut chance = Chance(7);
    for round in 0..40 {
        let (count, longest) = (chance.below(3_000), 1 + chance.below(120));
        let buckets = [
            (&b"empty"[..], Vec::new()),
            (
                b"large values",
                random_items(&mut chance, round % 7, 20_000),
            ),
            (b"many", random_items(&mut chance, count, longest)),
            (b"one", vec![(b"k".to_vec(), Vec::new())]),
        ];
        let database = Database::open(written(&buckets)).unwrap();
        let found = read(&database).unwrap();
        let wanted = buckets.map(|(name, items)| (name.to_vec(), items));
        assert_eq!(found, wanted, "round {round}");
        assert!(database.bucket(b"one").unwrap().is_some());
        assert!(database.bucket(b"two").unwrap().is_none());
    }
}

#[test]
fn a_tree_has_as_many_levels_as_it_needs() {
    let key = |n: u32| [&n.to_be_bytes()[..], &[7; 396]].concat();
    let items: Items = (0..3_000).map(|n| (key(n), vec![1; 100])).collect();
    let bytes = written(&[(b"deep", items.clone())]);
    let database = Database::open(bytes).unwrap();
    assert_eq!(read(&database).unwrap(), [(b"deep".to_vec(), items)]);
}

#[test]
fn the_file_of_an_etcd_is_read() {
    let bytes = include_bytes!("../../testdata/etcd-3.4.23.snapshot");
    let database = Database::open(bytes.to_vec()).unwrap();
    assert_eq!(database.bytes() + 32, bytes.len() as u64);
    let found = read(&database).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|(name, items)| (String::from_utf8_lossy(name).into_owned(), items.len()))
        .collect();
    let wanted = [
        ("alarm", 0),
        ("auth", 1),
        ("authRoles", 0),
        ("authUsers", 0),
        ("cluster", 1),
        ("key", 5),
        ("lease", 1),
        ("members", 1),
        ("members_removed", 0),
        ("meta", 3),
    ];
    assert_eq!(names, wanted.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn damaged_bytes_are_refused_or_harmless_and_never_panic() {
    let golden = include_bytes!("../../testdata/etcd-3.4.23.snapshot").to_vec();
    let mut chance = Chance(11);
    let items = random_items(&mut chance, 600, 60);
    let ours = written(&[(b"a", items), (b"b", Vec::new())]);
    let mut refused = 0;
    for whole in [golden, ours] {
        for _ in 0..3_000 {
            let mut bytes = whole.clone();
            for _ in 0..=chance.below(3) {
                let at = chance.below(bytes.len() as u64) as usize;
                // Headers and elements are where it hurts.
                let at = if chance.below(2) == 0 {
                    at & !0xFFF | at & 0x3F
                } else {
                    at
                };
                bytes[at] = chance.below(256) as u8;
            }
            if chance.below(4) == 0 {
                bytes.truncate(chance.below(whole.len() as u64) as usize);
            }
            refused += usize::from(Database::open(bytes).and_then(|d| read(&d)).is_err());
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn each_kind_of_damage_is_named() {
    let items: Items = (0..500_u32)
        .map(|n| (n.to_be_bytes().to_vec(), vec![3; 50]))
        .collect();
    let whole = written(&[(b"a", items)]);
    let pages = whole.len() / 4096;
    let (bucket_root, root) = (pages - 2, pages - 1);
    let said = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let read = Database::open(bytes).and_then(|database| read(&database));
        read.map(drop).map_err(|error| error.to_string())
    };
    let page = |id: usize, at: usize| id * 4096 + at;
    assert_eq!(said(&|_| {}), Ok(()));
    // One meta page of two is enough.
    assert_eq!(said(&|bytes| bytes[page(0, 30)] ^= 1), Ok(()));
    for (change, wanted) in [
        (
            &(|bytes: &mut Vec<u8>| bytes.truncate(4096 * 5)) as &dyn Fn(&mut Vec<u8>),
            "it is cut short: it has 20480 bytes",
        ),
        (&|bytes| bytes[..8192].fill(0), "it is no bbolt file"),
        (
            &|bytes| bytes[page(3, 0)] ^= 1,
            "page 3 is damaged: it bears another number",
        ),
        (
            &|bytes| bytes[page(3, 10)] = 255,
            "page 3 is damaged: an element points outside",
        ),
        (
            &|bytes| bytes[page(3, 11)] = 255,
            "page 3 is damaged: it has too many elements",
        ),
        (
            &|bytes| bytes[page(3, 15)] = 255,
            "page 3 is damaged: it is too long",
        ),
        (
            &|bytes| bytes[page(3, 8)] = 4,
            "page 3 is damaged: it is neither branch nor leaf",
        ),
        (
            &|bytes| bytes[page(3, 10)] = 0,
            "is damaged: a page below it is empty",
        ),
        (
            // The second child is the first again.
            &|bytes| {
                bytes.copy_within(
                    page(bucket_root, 24)..page(bucket_root, 32),
                    page(bucket_root, 40),
                )
            },
            "page 3 is damaged: its keys do not rise",
        ),
        (
            // Its only child is itself.
            &|bytes| {
                bytes[page(bucket_root, 10)] = 1;
                let id = (bucket_root as u64).to_le_bytes();
                bytes[page(bucket_root, 24)..page(bucket_root, 32)].copy_from_slice(&id);
            },
            "is damaged: the tree is too deep",
        ),
        (
            &|bytes| bytes[page(root, 16)] = 0,
            "is damaged: an item is no bucket",
        ),
        (
            &|bytes| bytes[page(bucket_root, 24)] = 255,
            "page 255 is damaged: it is outside",
        ),
    ] {
        let error = said(change).unwrap_err();
        assert!(error.contains(wanted), "{error} instead of {wanted}");
    }
}
