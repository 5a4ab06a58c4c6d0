//! Reads a bbolt file, item by item, holding one page of each level of a tree.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::page::{
    BRANCH, BUCKET_HEAD, ELEMENT_BYTES, Head, IS_BUCKET, LEAF, META, META_BYTES, Meta, PAGE_HEAD,
    u32_at, u64_at,
};

/// The page lengths that are tried where the first meta page does not say it.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 9..=16;
/// The longest leaf, with the pages that follow as part of it. A value may be as long.
const MAX_LEAF_BYTES: u64 = 512 << 20;
/// The longest branch page: a few of the longest keys.
const MAX_BRANCH_BYTES: u64 = 16 << 20;
/// Levels of a tree. Two children a branch would make 2^32 pages.
const MAX_DEPTH: usize = 32;

/// Where bytes are read from: a file, or memory.
pub trait ReadAt {
    /// How many bytes there are.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// Those of the system; that the bytes end too early is one.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither of the first two pages is one that bbolt writes there.
    #[error("it is no bbolt file: neither meta page verifies")]
    NoMeta,
    /// It ends before its last page.
    #[error("it is cut short: it has {bytes} bytes, and its {pages} pages take {needed}")]
    Short {
        /// The file's length.
        bytes: u64,
        /// Pages that the meta page tells of.
        pages: u64,
        /// Bytes that they take.
        needed: u64,
    },
    /// A page is not as bbolt writes it.
    #[error("page {page} is damaged: {what}")]
    Page {
        /// Which.
        page: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// An open file, as its newest whole transaction left it.
#[derive(Debug)]
pub struct Database<S> {
    source: S,
    meta: Meta,
}

/// A bucket of a file.
#[derive(Clone, Debug)]
pub enum Bucket {
    /// Its tree begins at this page.
    Root(u64),
    /// It is so small that its only page is its value in the parent: there, in this page.
    Inline(u64, Vec<u8>),
}

/// One key and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; of a bucket, what [`Database::bucket_of`] takes.
    pub value: &'a [u8],
    /// Whether it is a bucket.
    pub is_bucket: bool,
    /// The page it lies in.
    page: u64,
}

impl<S: ReadAt> Database<S> {
    /// Reads the meta pages.
    ///
    /// # Errors
    /// [`ReadError::NoMeta`] for what is no bbolt file, [`ReadError::Short`].
    pub fn open(source: S) -> Result<Self, ReadError> {
        let bytes = source.length()?;
        let meta = newest_meta(&source, bytes)?;
        let needed = meta.pages.saturating_mul(meta.page_bytes.into());
        if needed > bytes {
            let pages = meta.pages;
            return Err(ReadError::Short {
                bytes,
                pages,
                needed,
            });
        }
        Ok(Self { source, meta })
    }

    /// Bytes of all pages in use. What lies behind them is none of the file's.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// What it reads from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The bucket that holds all others.
    pub fn root(&self) -> Bucket {
        Bucket::Root(self.meta.root)
    }

    /// The bucket with this name, if there is one.
    ///
    /// # Errors
    /// [`ReadError`] for what is damaged on the way.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, ReadError> {
        let mut items = self.items(&self.root())?;
        while let Some(item) = items.next()? {
            if item.key == name {
                return self.bucket_of(&item).map(Some);
            }
        }
        Ok(None)
    }

    /// The bucket that an item is.
    ///
    /// # Errors
    /// [`ReadError::Page`] if it is none.
    pub fn bucket_of(&self, item: &Item<'_>) -> Result<Bucket, ReadError> {
        let page = item.page;
        let damaged = |what| ReadError::Page { page, what };
        let root = u64_at(item.value, 0).filter(|_| item.is_bucket);
        match (root, item.value.get(BUCKET_HEAD..)) {
            (Some(0), Some(inline)) => Ok(Bucket::Inline(page, inline.to_vec())),
            (Some(root), Some(_)) => Ok(Bucket::Root(root)),
            _ => Err(damaged("an item is no bucket")),
        }
    }

    /// All items of a bucket, in the order of their keys.
    ///
    /// # Errors
    /// [`ReadError`] for a first page that is damaged.
    pub fn items(&self, bucket: &Bucket) -> Result<Items<'_, S>, ReadError> {
        let first = match bucket {
            Bucket::Root(id) => self.page(*id)?,
            Bucket::Inline(page, bytes) => Page::new(*page, bytes.clone(), Some(LEAF))?,
        };
        Ok(Items {
            database: self,
            levels: vec![first],
            last: None,
        })
    }

    fn page(&self, id: u64) -> Result<Page, ReadError> {
        let damaged = |what| ReadError::Page { page: id, what };
        let page_bytes = u64::from(self.meta.page_bytes);
        if id < 2 || id >= self.meta.pages {
            return Err(damaged("it is outside the pages in use"));
        }
        let mut head = [0; PAGE_HEAD];
        self.source.read_exact_at(&mut head, id * page_bytes)?;
        let head = Head::decode(&head).ok_or(damaged("it has no header"))?;
        if head.id != id {
            return Err(damaged("it bears another number"));
        }
        let limit = match head.flags {
            LEAF => MAX_LEAF_BYTES,
            BRANCH => MAX_BRANCH_BYTES,
            _ => return Err(damaged("it is neither branch nor leaf")),
        };
        let pages = u64::from(head.overflow) + 1;
        if pages > self.meta.pages - id || pages * page_bytes > limit {
            return Err(damaged("it is too long"));
        }
        // B1: at most `limit`, and no more than the file has.
        let mut bytes = vec![0; (pages * page_bytes) as usize];
        self.source.read_exact_at(&mut bytes, id * page_bytes)?;
        Page::new(id, bytes, None)
    }
}

/// The items of a bucket, one after the other.
#[derive(Debug)]
pub struct Items<'a, S> {
    database: &'a Database<S>,
    /// From the root down to the leaf at hand.
    levels: Vec<Page>,
    last: Option<Vec<u8>>,
}

impl<S: ReadAt> Items<'_, S> {
    /// The next item; it lasts until the one after it is asked for.
    ///
    /// # Errors
    /// [`ReadError`] for a page that is damaged; ask no further then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an item lends from the page at hand"
    )]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ReadError> {
        loop {
            let depth = self.levels.len();
            let Some(page) = self.levels.last_mut() else {
                return Ok(None);
            };
            if page.next == page.count {
                self.levels.pop();
                continue;
            }
            page.next += 1;
            if page.flags == LEAF {
                break;
            }
            let (parent, child) = (page.id, page.child(page.next - 1)?);
            let damaged = |what| ReadError::Page { page: parent, what };
            if depth == MAX_DEPTH {
                return Err(damaged("the tree is too deep"));
            }
            let child = self.database.page(child)?;
            // B2: what has no keys could be given out without end.
            if child.count == 0 {
                return Err(damaged("a page below it is empty"));
            }
            self.levels.push(child);
        }
        let page = self.levels.last().expect("just seen");
        let item = page.item(page.next - 1)?;
        if self.last.as_deref().is_some_and(|last| last >= item.key) {
            let (page, what) = (page.id, "its keys do not rise");
            return Err(ReadError::Page { page, what });
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(item.key);
        Ok(Some(item))
    }
}

/// A branch or a leaf in memory.
#[derive(Debug)]
struct Page {
    id: u64,
    flags: u16,
    bytes: Vec<u8>,
    count: usize,
    /// The element to look at next.
    next: usize,
}

impl Page {
    fn new(id: u64, bytes: Vec<u8>, flags: Option<u16>) -> Result<Self, ReadError> {
        let damaged = |what| ReadError::Page { page: id, what };
        let head = Head::decode(&bytes).ok_or(damaged("it has no header"))?;
        if flags.is_some_and(|flags| flags != head.flags) {
            return Err(damaged("the bucket in it has no leaf"));
        }
        let count = usize::from(head.count);
        if PAGE_HEAD + count * ELEMENT_BYTES > bytes.len() {
            return Err(damaged("it has too many elements"));
        }
        Ok(Self {
            id,
            flags: head.flags,
            bytes,
            count,
            next: 0,
        })
    }

    fn damaged(&self) -> ReadError {
        let what = "an element points outside of it";
        ReadError::Page {
            page: self.id,
            what,
        }
    }

    fn child(&self, number: usize) -> Result<u64, ReadError> {
        u64_at(&self.bytes, PAGE_HEAD + number * ELEMENT_BYTES + 8).ok_or_else(|| self.damaged())
    }

    fn item(&self, number: usize) -> Result<Item<'_>, ReadError> {
        let element = PAGE_HEAD + number * ELEMENT_BYTES;
        let found = || {
            let field = |at| u32_at(&self.bytes, element + at);
            let (flags, at, key_bytes, value_bytes) = (field(0)?, field(4)?, field(8)?, field(12)?);
            let rest = self.bytes.get(element..)?.get(at as usize..)?;
            let (key, rest) = rest.split_at_checked(key_bytes as usize)?;
            Some(Item {
                key,
                value: rest.get(..value_bytes as usize)?,
                is_bucket: flags & IS_BUCKET != 0,
                page: self.id,
            })
        };
        found().ok_or_else(|| self.damaged())
    }
}

/// The meta page of the newest transaction. The first two pages take turns, so that one is whole
/// whatever was cut short.
fn newest_meta<S: ReadAt>(source: &S, bytes: u64) -> Result<Meta, ReadError> {
    let read = |at: u64, page_bytes: Option<u32>| -> Result<Option<Meta>, ReadError> {
        let mut page = [0; PAGE_HEAD + META_BYTES];
        if at + page.len() as u64 > bytes {
            return Ok(None);
        }
        source.read_exact_at(&mut page, at)?;
        let is_meta = Head::decode(&page).is_some_and(|head| head.flags == META);
        let meta = Meta::decode(&page[PAGE_HEAD..]).filter(|meta| {
            let is_size = is_page_size(meta.page_bytes);
            is_meta && is_size && page_bytes.is_none_or(|known| known == meta.page_bytes)
        });
        Ok(meta)
    };
    let first = read(0, None)?;
    let mut second = None;
    match first {
        Some(first) => second = read(first.page_bytes.into(), Some(first.page_bytes))?,
        None => {
            for size in PAGE_SIZES.map(|power| 1 << power) {
                second = second.or(read(u64::from(size), Some(size))?);
            }
        }
    }
    let newest = first.into_iter().chain(second);
    newest
        .max_by_key(|meta| meta.transaction)
        .ok_or(ReadError::NoMeta)
}

fn is_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && PAGE_SIZES.contains(&bytes.ilog2())
}
