//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::disk::Times;

/// Families of samples, one behind another.
///
/// Names, helps and values of labels are the server's own words and must need no escaping.
#[derive(Default)]
pub(super) struct Text(String);

const WRITES: &str = "writing to a String does not fail";

impl Text {
    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(WRITES);
    }

    /// One value of the family begun last.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            write!(self.0, "{open}{label}=\"{text}\"").expect(WRITES);
        }
        let close = if labels.is_empty() { "" } else { "}" };
        writeln!(self.0, "{close} {value}").expect(WRITES);
    }

    /// A family of one number that only grows.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A family of one number that comes and goes.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of one 1, whose labels tell something.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.family(name, "gauge", help);
        self.sample(name, labels, 1);
    }

    /// A family that shows how long something took.
    pub(super) fn times<const FIRST_MS: u64, const BUCKETS: usize>(
        &mut self,
        name: &str,
        help: &str,
        times: &Times<FIRST_MS, BUCKETS>,
    ) {
        self.family(name, "histogram", help);
        let (total, bucket_name) = (times.total(), format!("{name}_bucket"));
        let mut count = 0;
        for (bucket, within) in times.counts().into_iter().enumerate() {
            count += within;
            let bound = Times::<FIRST_MS, BUCKETS>::bound_ms(bucket)
                .map_or("+Inf".to_owned(), |ms| (ms as f64 / 1_000.0).to_string());
            self.sample(&bucket_name, &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], total.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], count);
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}
