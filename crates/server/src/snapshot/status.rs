//! What a snapshot holds, told as etcdctl and etcdutl tell it.

use std::fs::File;

use crc_fast::{CrcAlgorithm, Digest};

use super::rows;
use crate::bolt::{Database, ReadError};

/// What there is to tell of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct SnapshotStatus {
    /// CRC32C over all names, keys and values.
    pub(crate) hash: u32,
    /// The last revision in it.
    pub(crate) revision: u64,
    /// Items of all buckets.
    pub(crate) total_keys: u64,
    /// Bytes of its pages.
    pub(crate) total_bytes: u64,
}

/// Reads all of a snapshot.
///
/// # Errors
/// [`ReadError`] for the first page that is damaged.
pub(crate) fn status(database: &Database<File>) -> Result<SnapshotStatus, ReadError> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let (mut revision, mut total_keys) = (0, 0);
    let mut roots = database.items(&database.root())?;
    while let Some(root) = roots.next()? {
        digest.update(root.key);
        let mut items = database.items(&database.bucket_of(&root)?)?;
        while let Some(item) = items.next()? {
            digest.update(item.key);
            digest.update(item.value);
            total_keys += 1;
            if root.key == rows::KEY
                && let Some((found, _, _)) = rows::read_revision_key(item.key)
            {
                revision = found;
            }
        }
    }
    Ok(SnapshotStatus {
        hash: u32::try_from(digest.finalize()).expect("a CRC32 has 32 bits"),
        revision,
        total_keys,
        total_bytes: database.bytes(),
    })
}

impl SnapshotStatus {
    /// One line, with commas.
    pub(crate) fn simple(&self) -> String {
        self.cells().join(", ")
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        let Self {
            hash,
            revision,
            total_keys,
            total_bytes,
        } = self;
        format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_keys},\
             \"totalSize\":{total_bytes}}}"
        )
    }

    /// A table of one row.
    pub(crate) fn table(&self) -> String {
        let heads = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"];
        let cells = self.cells();
        let widths: Vec<usize> = heads
            .iter()
            .zip(&cells)
            .map(|(head, cell)| head.len().max(cell.len()))
            .collect();
        let line: String = widths
            .iter()
            .map(|width| format!("+{}", "-".repeat(width + 2)))
            .collect();
        let head: String = heads
            .iter()
            .zip(&widths)
            .map(|(head, width)| format!("| {head:^width$} "))
            .collect();
        let row: String = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("| {cell:>width$} "))
            .collect();
        format!("{line}+\n{head}|\n{line}+\n{row}|\n{line}+")
    }

    fn cells(&self) -> [String; 4] {
        [
            format!("{:x}", self.hash),
            self.revision.to_string(),
            self.total_keys.to_string(),
            human(self.total_bytes),
        ]
    }
}

/// Bytes for a person, as etcd's tools write them: 20 kB, 1.5 MB.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog10() / 3) as usize;
    let tenths = (bytes as f64 / 1000_f64.powi(unit as i32) * 10.0 + 0.5).floor() / 10.0;
    let decimals = usize::from(tenths < 10.0);
    format!("{tenths:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::snapshot::{HashCheck, open};

    #[test]
    fn an_etcd_s_file_is_told_of_as_etcdctl_tells_it() {
        // What etcdctl 3.4.23 printed for this file.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/etcd-3.4.23.snapshot");
        let found = status(&open(&path, HashCheck::Needed).unwrap()).unwrap();
        assert_eq!(found.simple(), "445475a6, 6, 12, 20 kB");
        let json = r#"{"hash":1146385830,"revision":6,"totalKey":12,"totalSize":20480}"#;
        assert_eq!(found.json(), json);
        let table = "\
+----------+----------+------------+------------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |
+----------+----------+------------+------------+
| 445475a6 |        6 |         12 |      20 kB |
+----------+----------+------------+------------+";
        assert_eq!(found.table(), table);
    }

    #[test]
    fn bytes_are_told_as_etcdctl_tells_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (32, "32 B"),
            (1_500, "1.5 kB"),
            (12_288, "12 kB"),
            (99_999, "100 kB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
