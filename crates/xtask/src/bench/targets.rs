//! What is aimed at, and whether it was reached.

use super::results::Results;

/// An etcd whose put costs this much stands for a scale on which some targets are given.
const SCALE_US: f64 = 55.0;

/// One aim: what it is about, the most that it may be, and what was measured.
pub(super) struct Target {
    pub(super) about: &'static str,
    pub(super) most: f64,
    pub(super) measured: Option<f64>,
    pub(super) unit: &'static str,
}

/// All aims, in order.
pub(super) fn all(results: &Results) -> Vec<Target> {
    let ratio = |case, figure| results.ratio(case, figure);
    let scaled = |case| {
        let etcd_put = results.get("put-100", "etcd", "cpu_us")?;
        Some(results.get(case, "quorate", "cpu_us")? / etcd_put * SCALE_US)
    };
    let ours = |case, figure| results.get(case, "quorate", figure);
    // A quick run fills less, which says nothing of a million.
    let keys = results.get("fill", "quorate", "keys");
    let million = |figure| {
        keys.filter(|keys| *keys >= 1e6)
            .and_then(|_| ours("fill", figure))
    };
    // Where the quiet puts took longer than the busy ones, it was not quiet.
    let quiet_p50 = ours("busy", "quiet_p50_ms");
    let was_quiet = quiet_p50 <= ours("busy", "busy_p50_ms").map(|busy| 1.1 * busy);
    let sync_ms = results.get("sync", "disk", "p50_ms");
    let target = |about, most, measured, unit| Target {
        about,
        most,
        measured,
        unit,
    };
    // Where etcd's put with three members costs 150 µs.
    let three_range = ours("three-range", "cpu_us")
        .zip(results.get("three-put-100", "etcd", "cpu_us"))
        .map(|(ours, put)| ours / put * 150.0);
    let of_etcd = "of etcd's";
    vec![
        target(
            "CPU of a put, 100 clients",
            0.27,
            ratio("put-100", "cpu_us"),
            of_etcd,
        ),
        target(
            "p50 of a put, 100 clients",
            0.5,
            ratio("put-100", "p50_ms"),
            of_etcd,
        ),
        target(
            "p99 of a put, 100 clients",
            0.5,
            ratio("put-100", "p99_ms"),
            of_etcd,
        ),
        target(
            "p50 of a put, 1 client (1.3 × the disk's fdatasync + 0.15 ms)",
            sync_ms.map_or(f64::NAN, |ms| 1.3 * ms + 0.15),
            ours("put-1", "p50_ms"),
            "ms",
        ),
        target(
            "CPU of a range of one key, etcd's put being 55 µs",
            10.0,
            scaled("range"),
            "µs",
        ),
        target(
            "CPU of a range of 1,000 keys",
            0.1,
            ratio("list", "cpu_us"),
            of_etcd,
        ),
        target(
            "CPU of a txn, etcd's put being 55 µs",
            16.0,
            scaled("txn"),
            "µs",
        ),
        target(
            "CPU of a lease grant",
            0.15,
            ratio("lease", "cpu_us"),
            of_etcd,
        ),
        target(
            "CPU of a delivered event, its put included",
            0.5,
            ratio("watch", "cpu_us"),
            of_etcd,
        ),
        target("CPU of a v2 put", 0.35, ratio("v2-put", "cpu_us"), of_etcd),
        target("CPU of a v2 get", 0.45, ratio("v2-get", "cpu_us"), of_etcd),
        target(
            "CPU of a v2 quorum get",
            0.3,
            ratio("v2-quorum", "cpu_us"),
            of_etcd,
        ),
        target(
            "3 members: CPU of a put, 100 clients, all members'",
            0.3,
            ratio("three-put-100", "cpu_us"),
            of_etcd,
        ),
        target(
            "3 members: p50 of a put, 1 client",
            0.65,
            ratio("three-put-1", "p50_ms"),
            of_etcd,
        ),
        target(
            "3 members: p99 of a put, 100 clients",
            0.5,
            ratio("three-put-100", "p99_ms"),
            of_etcd,
        ),
        target(
            "3 members: CPU of a range of one key, etcd's put being 150 µs",
            16.0,
            three_range,
            "µs",
        ),
        target(
            "p99 of a put while the server is busy",
            1.5,
            ours("busy", "ratio").filter(|_| was_quiet),
            "of the quiet p99",
        ),
        target(
            "1 M keys: anonymous memory",
            200.0,
            million("anonymous_mb"),
            "MB",
        ),
        target("1 M keys: restart", 1.0, million("restart_s"), "s"),
        target(
            "1 M keys: restart after kill -9",
            1.0,
            million("restart_killed_s"),
            "s",
        ),
        target(
            "1 M keys: log and checkpoints",
            520.0,
            million("written_mb"),
            "MB",
        ),
        target(
            "1 M keys: allocated on the disk",
            720.0,
            million("allocated_mb"),
            "MB",
        ),
    ]
}

impl Target {
    /// Its row in the table.
    pub(super) fn row(&self) -> String {
        let verdict = match self.measured {
            None => "not measured",
            Some(measured) if measured <= self.most => "met",
            Some(_) => "MISSED",
        };
        let measured = self
            .measured
            .map_or("-".into(), |measured| format!("{measured:.3}"));
        let (about, most, unit) = (self.about, self.most, self.unit);
        format!("| {about} | {most:.2} | {measured} | {unit} | {verdict} |\n")
    }
}
