//! What pages a file will have, told before a byte of it is written.
//!
//! The meta pages stand first and name pages behind them, so sizes are gathered first.

use super::page::{BUCKET_HEAD, ELEMENT_BYTES, PAGE_BYTES, PAGE_HEAD};

/// Elements that one page may have; its header counts them in 16 bits.
const MAX_ELEMENTS: u32 = 0xFFFE;

/// A page that is to be: 12 bytes for each of a file's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct PageShape {
    pub(super) items: u32,
    /// Pages of [`PAGE_BYTES`] that it takes.
    pub(super) pages: u32,
    /// The length of its first key.
    pub(super) key_bytes: u32,
}

/// Packs items into pages.
#[derive(Debug, Default)]
struct Packer {
    pages: Vec<PageShape>,
    open: PageShape,
    open_bytes: u64,
}

impl Packer {
    fn add(&mut self, key_bytes: usize, value_bytes: usize) {
        let bytes = (ELEMENT_BYTES + key_bytes + value_bytes) as u64;
        let is_full = self.open_bytes + bytes > PAGE_BYTES as u64;
        if self.open.items > 0 && (is_full || self.open.items == MAX_ELEMENTS) {
            self.close();
        }
        if self.open.items == 0 {
            self.open.key_bytes = u32::try_from(key_bytes).expect("keys are short");
            self.open_bytes = PAGE_HEAD as u64;
        }
        self.open.items += 1;
        self.open_bytes += bytes;
    }

    fn close(&mut self) {
        let bytes = self.open_bytes.max(PAGE_HEAD as u64);
        let pages = bytes.div_ceil(PAGE_BYTES as u64);
        self.open.pages = u32::try_from(pages).expect("a value is shorter than 16 TiB");
        self.pages.push(std::mem::take(&mut self.open));
        self.open_bytes = 0;
    }

    fn finish(mut self) -> Vec<PageShape> {
        // A bucket without items has a leaf all the same.
        if self.open.items > 0 || self.pages.is_empty() {
            self.close();
        }
        self.pages
    }
}

/// The sizes of a bucket's items, in the order of their keys.
#[derive(Debug, Default)]
pub struct Shape(Packer);

impl Shape {
    /// The next item's sizes.
    pub fn add(&mut self, key_bytes: usize, value_bytes: usize) {
        self.0.add(key_bytes, value_bytes);
    }

    fn finish(self) -> Levels {
        let mut levels = vec![self.0.finish()];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let mut packer = Packer::default();
            for page in below {
                packer.add(page.key_bytes as usize, 0);
            }
            levels.push(packer.finish());
        }
        Levels(levels)
    }
}

/// The pages of one tree, leaves first, its root last.
#[derive(Debug)]
pub(super) struct Levels(pub(super) Vec<Vec<PageShape>>);

impl Levels {
    fn pages(&self) -> u64 {
        self.0
            .iter()
            .flatten()
            .map(|page| u64::from(page.pages))
            .sum()
    }

    fn root_pages(&self) -> u64 {
        let root = self.0.last().and_then(|level| level.first());
        root.map_or(0, |page| page.pages.into())
    }
}

/// The pages of a whole file.
#[derive(Debug)]
pub struct FileShape {
    /// Buckets by name, with their root pages; written in this order, behind the first pages.
    pub(super) buckets: Vec<(Vec<u8>, Levels, u64)>,
    pub(super) root: Levels,
    pub(super) root_page: u64,
    pub(super) pages: u64,
}

/// Two meta pages and the free list.
pub(super) const FIRST_PAGES: u64 = 3;

impl FileShape {
    /// Of a file with these buckets, in the order of their names.
    ///
    /// # Panics
    /// If the names do not rise.
    pub fn new(buckets: Vec<(Vec<u8>, Shape)>) -> Self {
        let rises = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0);
        assert!(rises, "buckets stand in the order of their names");
        let mut pages = FIRST_PAGES;
        let mut root = Shape::default();
        let buckets = buckets.into_iter().map(|(name, shape)| {
            root.add(name.len(), BUCKET_HEAD);
            let levels = shape.finish();
            pages += levels.pages();
            let at = pages - levels.root_pages();
            (name, levels, at)
        });
        let buckets = buckets.collect();
        let root = root.finish();
        pages += root.pages();
        Self {
            buckets,
            root_page: pages - root.root_pages(),
            root,
            pages,
        }
    }

    /// The file's length.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}
