//! Writes a bbolt file front to back, one page in memory.

use std::io::{self, Write};

use super::page::{
    BRANCH, BUCKET_HEAD, ELEMENT_BYTES, FREE_LIST, Head, IS_BUCKET, LEAF, META, Meta, PAGE_BYTES,
    PAGE_HEAD,
};
use super::shape::{FIRST_PAGES, FileShape, Levels, PageShape};

const FREE_LIST_PAGE: u64 = 2;
/// The transaction that the file is of. Two meta pages tell of this one and the one before.
const TRANSACTION: u64 = 2;

/// Writes what a [`FileShape`] foretold.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    page: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the first pages.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(shape: &FileShape, out: W) -> io::Result<Self> {
        let mut writer = Self { out, page: 0 };
        for id in 0..2 {
            let meta = Meta {
                page_bytes: PAGE_BYTES as u32,
                root: shape.root_page,
                free_list: FREE_LIST_PAGE,
                pages: shape.pages,
                // As bbolt does it: a transaction's meta page is that of its lowest bit.
                transaction: TRANSACTION - id,
            };
            writer.whole_page(META, &meta.encode())?;
        }
        writer.whole_page(FREE_LIST, &[])?;
        debug_assert_eq!(writer.page, FIRST_PAGES);
        Ok(writer)
    }

    /// Begins the bucket of this number, whose items come next.
    pub fn bucket<'a>(&'a mut self, shape: &'a FileShape, number: usize) -> BucketWriter<'a, W> {
        self.tree(&shape.buckets[number].1)
    }

    /// Writes the bucket of buckets, which comes last, and gives `out` back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self, shape: &FileShape) -> io::Result<W> {
        let mut root = self.tree(&shape.root);
        root.flags = IS_BUCKET;
        for (name, _, at) in &shape.buckets {
            let mut head = [0; BUCKET_HEAD];
            head[..8].copy_from_slice(&at.to_le_bytes());
            root.item(name, &head)?;
        }
        root.finish()?;
        assert_eq!(self.page, shape.pages, "B3: every page has been written");
        self.out.flush()?;
        Ok(self.out)
    }

    fn tree<'a>(&'a mut self, levels: &'a Levels) -> BucketWriter<'a, W> {
        BucketWriter {
            first_page: self.page,
            writer: self,
            levels,
            leaf: 0,
            open: Gathered::default(),
            first_keys: Vec::new(),
            flags: 0,
        }
    }

    fn whole_page(&mut self, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut bytes = self.head(flags, 0, 1).to_vec();
        bytes.extend_from_slice(body);
        self.write(bytes, 1)
    }

    fn head(&self, flags: u16, count: u32, pages: u32) -> [u8; PAGE_HEAD] {
        let head = Head {
            id: self.page,
            flags,
            count: u16::try_from(count).expect("the shape bounds elements"),
            overflow: pages - 1,
        };
        head.encode()
    }

    fn write(&mut self, mut bytes: Vec<u8>, pages: u32) -> io::Result<()> {
        let whole = pages as usize * PAGE_BYTES;
        assert!(bytes.len() <= whole, "a page is as long as its shape");
        bytes.resize(whole, 0);
        self.page += u64::from(pages);
        self.out.write_all(&bytes)
    }

    /// Writes a branch or a leaf.
    fn elements(&mut self, flags: u16, shape: PageShape, gathered: &Gathered) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(shape.pages as usize * PAGE_BYTES);
        bytes.extend_from_slice(&self.head(flags, shape.items, shape.pages));
        for (number, element) in gathered.elements.iter().enumerate() {
            // A place is told from the element's own.
            let behind = (gathered.elements.len() - number) * ELEMENT_BYTES;
            let at = u32::try_from(behind + element.at).expect("a page is below 4 GiB");
            let (key, value) = (element.key_bytes, element.value_bytes);
            match element.child {
                Some(child) => {
                    [at, key]
                        .iter()
                        .for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
                    bytes.extend_from_slice(&child.to_le_bytes());
                }
                None => {
                    let fields = [element.flags, at, key, value];
                    fields
                        .iter()
                        .for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
                }
            }
        }
        bytes.extend_from_slice(&gathered.bytes);
        self.write(bytes, shape.pages)
    }
}

/// Takes the items of one bucket.
#[derive(Debug)]
pub struct BucketWriter<'a, W> {
    writer: &'a mut Writer<W>,
    levels: &'a Levels,
    first_page: u64,
    /// The leaf that is being gathered.
    leaf: usize,
    open: Gathered,
    /// The first key of each leaf written, one behind the other.
    first_keys: Vec<u8>,
    flags: u32,
}

/// The elements of a page before they are written.
#[derive(Debug, Default)]
struct Gathered {
    elements: Vec<Element>,
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Element {
    flags: u32,
    /// Where its key begins in the bytes.
    at: usize,
    key_bytes: u32,
    value_bytes: u32,
    /// In a branch, the page below.
    child: Option<u64>,
}

impl Gathered {
    fn add(&mut self, flags: u32, child: Option<u64>, key: &[u8], value: &[u8]) {
        let number = |bytes: &[u8]| u32::try_from(bytes.len()).expect("below 4 GiB");
        self.elements.push(Element {
            flags,
            at: self.bytes.len(),
            key_bytes: number(key),
            value_bytes: number(value),
            child,
        });
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
    }
}

impl<W: Write> BucketWriter<'_, W> {
    /// The next item.
    ///
    /// # Errors
    /// Those of the writer's `out`.
    ///
    /// # Panics
    /// If the shape did not foretell it.
    pub fn item(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let shape = self.levels.0[0].get(self.leaf);
        let shape = *shape.expect("items are those of the shape");
        if self.open.elements.is_empty() {
            assert_eq!(key.len(), shape.key_bytes as usize, "the shape's key");
            self.first_keys.extend_from_slice(key);
        }
        self.open.add(self.flags, None, key, value);
        if self.open.elements.len() == shape.items as usize {
            self.close_leaf(shape)?;
        }
        Ok(())
    }

    /// Writes what stands above the leaves.
    ///
    /// # Errors
    /// Those of the writer's `out`.
    ///
    /// # Panics
    /// If items are missing.
    pub fn finish(mut self) -> io::Result<()> {
        let leaves = &self.levels.0[0];
        if leaves.len() == 1 && leaves[0].items == 0 {
            self.close_leaf(leaves[0])?;
        }
        assert_eq!(self.leaf, leaves.len(), "all items have come");
        let mut first_page = self.first_page;
        for (below, level) in self.levels.0.iter().zip(&self.levels.0[1..]) {
            let next_page = self.writer.page;
            self.branches(first_page, below, level)?;
            first_page = next_page;
        }
        Ok(())
    }

    fn close_leaf(&mut self, shape: PageShape) -> io::Result<()> {
        self.leaf += 1;
        let gathered = std::mem::take(&mut self.open);
        self.writer.elements(LEAF, shape, &gathered)
    }

    /// Writes one level of branches; `first_keys` of `below` become those of `level`.
    fn branches(
        &mut self,
        mut child: u64,
        below: &[PageShape],
        level: &[PageShape],
    ) -> io::Result<()> {
        let keys = std::mem::take(&mut self.first_keys);
        let mut keys = &keys[..];
        let mut below = below.iter();
        for shape in level {
            let mut gathered = Gathered::default();
            for page in below.by_ref().take(shape.items as usize) {
                let (key, rest) = keys.split_at(page.key_bytes as usize);
                gathered.add(0, Some(child), key, &[]);
                child += u64::from(page.pages);
                keys = rest;
            }
            let first = &gathered.bytes[..shape.key_bytes as usize];
            self.first_keys.extend_from_slice(first);
            self.writer.elements(BRANCH, *shape, &gathered)?;
        }
        Ok(())
    }
}
