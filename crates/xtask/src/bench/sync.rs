//! What the disk itself takes: the floor under a put that is durable.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::Result;
use quorate_load::Histogram;

use super::results::Figures;
use crate::workspace;

const BLOCK_BYTES: usize = 4096;
/// Overwritten in turn.
const BLOCKS: u64 = 256;

/// Overwrites of 4 KiB, each made durable.
#[derive(Default)]
pub(super) struct Syncs {
    times: Histogram,
}

impl Syncs {
    /// Takes the times of so many.
    pub(super) fn measure(&mut self, count: u64) -> Result<()> {
        let path = workspace::scratch()?.join("bench/sync");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        let block = [7; BLOCK_BYTES];
        let place = |at: u64| at % BLOCKS * BLOCK_BYTES as u64;
        for at in 0..BLOCKS {
            file.write_all_at(&block, place(at))?;
        }
        file.sync_all()?;
        for at in 0..count {
            let start = Instant::now();
            file.write_all_at(&block, place(at))?;
            file.sync_data()?;
            self.times
                .record(u64::try_from(start.elapsed().as_nanos())?);
        }
        Ok(())
    }

    pub(super) fn figures(&self) -> Figures {
        let millis = |share| self.times.quantile(share) as f64 / 1e6;
        [
            ("p50_ms".to_owned(), millis(0.5)),
            ("p99_ms".to_owned(), millis(0.99)),
        ]
        .into()
    }
}
