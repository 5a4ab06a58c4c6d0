//! What v2 clients did to the tree: for `/metrics` and `/v2/stats/store`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use quorate_store::tree::Op;

use super::Counter;
use super::text::Text;

/// The HTTP methods that `/v2/keys` has.
const HTTP_METHODS: [&str; 5] = ["HEAD", "GET", "PUT", "POST", "DELETE"];
/// The writes, in the order in which `/v2/stats/store` shows them, by what they are called there
/// and in `/metrics`.
const WRITES: [(&str, &str); 6] = [
    ("sets", "set"),
    ("delete", "delete"),
    ("update", "update"),
    ("create", "create"),
    ("compareAndSwap", "compareAndSwap"),
    ("compareAndDelete", "compareAndDelete"),
];

/// Requests to the tree, of this member and since it started.
#[derive(Debug, Default)]
pub(crate) struct TreeCounts {
    gets: Outcomes,
    recursive_gets: Outcomes,
    writes: [Outcomes; WRITES.len()],
    expired: Counter,
    watches: Counter,
    received: [Counter; HTTP_METHODS.len()],
    /// By method and status.
    failed: Mutex<BTreeMap<(usize, u16), u64>>,
}

#[derive(Debug, Default)]
struct Outcomes {
    successes: Counter,
    failures: Counter,
}

impl Outcomes {
    fn add(&self, is_success: bool) {
        if is_success {
            self.successes.one();
        } else {
            self.failures.one();
        }
    }
}

/// A write as it is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteKind(usize);

impl From<&Op> for WriteKind {
    fn from(op: &Op) -> Self {
        Self(match op {
            Op::Set { .. } => 0,
            Op::Delete { .. } => 1,
            Op::Update { .. } => 2,
            Op::Create { .. } => 3,
            Op::CompareAndSwap { .. } => 4,
            Op::CompareAndDelete { .. } => 5,
        })
    }
}

impl TreeCounts {
    /// Counts a request by its method.
    pub(crate) fn received(&self, method: &str) {
        if let Some(at) = position(method) {
            self.received[at].one();
        }
    }

    /// Requests that came.
    pub(crate) fn requests(&self) -> u64 {
        self.received.iter().map(Counter::get).sum()
    }

    /// Counts a request that was answered with an error.
    pub(crate) fn failed(&self, method: &str, status: u16) {
        if let Some(at) = position(method) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed.entry((at, status)).or_default() += 1;
        }
    }

    /// Counts a read that reached the tree.
    pub(crate) fn read(&self, is_recursive: bool, is_success: bool) {
        let counts = if is_recursive {
            &self.recursive_gets
        } else {
            &self.gets
        };
        counts.add(is_success);
    }

    /// Counts a write that reached the tree.
    pub(crate) fn wrote(&self, kind: WriteKind, is_success: bool) {
        self.writes[kind.0].add(is_success);
    }

    /// Counts a request that waits.
    pub(crate) fn watched(&self) {
        self.watches.one();
    }

    /// Counts nodes whose time was over.
    pub(crate) fn expired(&self, nodes: u64) {
        self.expired.add(nodes);
    }

    /// `/v2/stats/store`, with so many watches open.
    pub(crate) fn stats(&self, watchers: usize) -> String {
        let (gets, all) = (&self.gets, &self.recursive_gets);
        let mut fields = vec![
            (
                "getsSuccess".to_owned(),
                gets.successes.get() + all.successes.get(),
            ),
            (
                "getsFail".to_owned(),
                gets.failures.get() + all.failures.get(),
            ),
        ];
        for ((name, _), counts) in WRITES.iter().zip(&self.writes) {
            fields.push((format!("{name}Success"), counts.successes.get()));
            fields.push((format!("{name}Fail"), counts.failures.get()));
        }
        fields.push(("expireCount".to_owned(), self.expired.get()));
        fields.push(("watchers".to_owned(), watchers as u64));
        let fields = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", Vec::from_iter(fields).join(","))
    }

    pub(super) fn render(&self, out: &mut Text, watchers: usize) {
        for (is_success, reads, writes, word) in [
            (
                true,
                "etcd_debugging_store_reads_total",
                "etcd_debugging_store_writes_total",
                "succeeded",
            ),
            (
                false,
                "etcd_debugging_store_reads_failed_total",
                "etcd_debugging_store_writes_failed_total",
                "failed",
            ),
        ] {
            let value = |counts: &Outcomes| {
                let counter = if is_success {
                    &counts.successes
                } else {
                    &counts.failures
                };
                counter.get()
            };
            out.family(reads, "counter", &format!("Reads through v2 that {word}."));
            out.sample(reads, &[("action", "get")], value(&self.gets));
            let recursive = value(&self.recursive_gets);
            out.sample(reads, &[("action", "getRecursive")], recursive);
            let help = format!("Writes through v2 that {word}.");
            out.family(writes, "counter", &help);
            for ((_, action), counts) in WRITES.iter().zip(&self.writes) {
                out.sample(writes, &[("action", action)], value(counts));
            }
        }
        out.counter(
            "etcd_debugging_store_expires_total",
            "Nodes whose v2 ttl ended.",
            self.expired.get(),
        );
        out.counter(
            "etcd_debugging_store_watch_requests_total",
            "Watches begun through v2.",
            self.watches.get(),
        );
        out.gauge(
            "etcd_debugging_store_watchers",
            "Watches open through v2.",
            watchers,
        );
        self.render_http(out);
    }

    fn render_http(&self, out: &mut Text) {
        let name = "etcd_http_received_total";
        out.family(name, "counter", "Requests to /v2/keys.");
        for (method, count) in HTTP_METHODS.iter().zip(&self.received) {
            out.sample(name, &[("method", method)], count.get());
        }
        let name = "etcd_http_failed_total";
        let help = "Requests to /v2/keys that were answered with an error.";
        out.family(name, "counter", help);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        for (&(method, status), count) in failed.iter() {
            let status = status.to_string();
            let labels = [("code", &status[..]), ("method", HTTP_METHODS[method])];
            out.sample(name, &labels, count);
        }
    }
}

fn position(method: &str) -> Option<usize> {
    HTTP_METHODS.iter().position(|known| *known == method)
}
