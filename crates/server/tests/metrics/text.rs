//! A strict reader of Prometheus' text format: what a scraper would trip over is a panic here.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// All of `/metrics`.
pub(crate) struct Scrape {
    /// Name and type.
    families: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Reads the text.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is whole");
        let mut scrape = Self {
            families: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        let mut family = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a help");
                assert!(is_name(name) && !help.is_empty(), "{line}");
                let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
                let (named, kind) = kind.and_then(|kind| kind.split_once(' ')).expect(line);
                assert_eq!(named, name);
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{kind}");
                let before = scrape.families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} comes once");
                family = name.to_owned();
                continue;
            }
            let (name, labels, value) = sample(line);
            scrape.check_name(&family, &name, &labels);
            let before = scrape.samples.insert((name, labels), value);
            assert_eq!(before, None, "once only: {line}");
        }
        scrape.check_histograms();
        scrape
    }

    /// Names and types.
    pub(crate) fn families(&self) -> BTreeSet<(&str, &str)> {
        let families = self.families.iter();
        families
            .map(|(name, kind)| (&name[..], &kind[..]))
            .collect()
    }

    /// The sample with exactly these labels.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let key = (name.to_owned(), labels.collect());
        self.samples.get(&key).copied()
    }

    /// The samples that have at least these labels.
    pub(crate) fn all(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let matching = self.samples.iter().filter(|((sample, has), _)| {
            let mut wanted = labels.iter();
            sample == name && wanted.all(|(k, v)| has.get(*k).is_some_and(|value| value == v))
        });
        matching.map(|(_, value)| *value).collect()
    }

    fn check_name(&self, family: &str, name: &str, labels: &Labels) {
        let is_histogram = self.families.get(family).expect("a family") == "histogram";
        let suffix = name.strip_prefix(family).expect("of the family begun last");
        if is_histogram {
            assert!(matches!(suffix, "_bucket" | "_sum" | "_count"), "{name}");
            assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{name}");
        } else {
            assert_eq!(suffix, "", "{name}");
        }
    }

    /// Buckets rise with their bounds, and the last holds all.
    fn check_histograms(&self) {
        let families = self.families.iter();
        for (name, _) in families.filter(|(_, kind)| *kind == "histogram") {
            let counts = format!("{name}_count");
            let counts = self
                .samples
                .iter()
                .filter(|((sample, _), _)| *sample == counts);
            let counts: Vec<_> = counts.collect();
            assert!(!counts.is_empty(), "{name} has a count");
            for ((_, of), count) in counts {
                self.check_buckets(name, of, *count);
            }
        }
    }

    fn check_buckets(&self, name: &str, of: &Labels, count: f64) {
        let bucket = format!("{name}_bucket");
        let series = self.samples.iter().filter(|((sample, labels), _)| {
            let mut others = labels.iter().filter(|(label, _)| *label != "le");
            *sample == bucket && others.all(|(label, text)| of.get(label) == Some(text))
        });
        let mut buckets: Vec<(f64, f64)> = series
            .map(|((_, labels), count)| (number(&labels["le"]), *count))
            .collect();
        buckets.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        assert!(
            buckets.is_sorted_by_key(|(_, count)| *count),
            "{name}: {buckets:?}"
        );
        let last = buckets.last().expect("a bucket");
        assert_eq!(*last, (f64::INFINITY, count), "{name}");
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').expect(line)),
        None => (series, ""),
    };
    assert!(is_name(name), "{line}");
    let mut read = Labels::new();
    for pair in labels.split(',').filter(|pair| !pair.is_empty()) {
        let (label, text) = pair.split_once('=').expect(line);
        let text = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let text = text.expect(line);
        assert!(
            is_name(label) && !text.contains(['"', '\\', '\n']),
            "{line}"
        );
        let before = read.insert(label.to_owned(), text.to_owned());
        assert_eq!(before, None, "{line}");
    }
    (name.to_owned(), read, number(value))
}

fn number(text: &str) -> f64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
