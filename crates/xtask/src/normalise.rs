//! Replaces what differs from run to run in a program's output by placeholders.
//!
//! Identifiers keep their identity (`<id1>` is one id wherever it stands in a script), and v2
//! indexes their distance from the script's start (`<i+2>`). Both sides of a comparison go through
//! the same rules, and the rules leave placeholders as they are.

use regex::{Captures, Regex};

/// The rules and what they have learnt from the output so far.
pub(crate) struct Normaliser {
    rules: Vec<(Regex, &'static str)>,
    indexes: Vec<Regex>,
    in_order_key: Regex,
    id: Regex,
    ids: Vec<String>,
    base: Option<i64>,
}

/// Pattern and replacement, in order.
const RULES: &[(&str, &str)] = &[
    // etcdctl's own log, which tells of its retries.
    (r#"(?m)^\{"level":.*\n?"#, ""),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?Z|[+-]\d\d:\d\d| [+-]\d{4} [A-Z]+)?",
        "<time>",
    ),
    (r"(took = )[\d.]+[nµm]?s", "${1}<duration>"),
    (r#"("took":")[\d.]+[nµm]?s"#, "${1}<duration>"),
    (r#"("Took" : )"[\d.]+[nµm]?s""#, "${1}<duration>"),
    (r"\b3\.\d+\.\d+\b", "<version>"),
    (r"\b\d+(\.\d+)? [kMG]?B\b", "<size>"),
    (
        r#"("raft_term":|"raftTerm":|"RaftTerm" : |Raft-Term: )\d+"#,
        "${1}<term>",
    ),
    (r#"("ttl":|TTL: |remaining\()\d+"#, "${1}<ttl>"),
    (
        r"\b(true|false), (true|false), \d+, \d+, \d+,",
        "$1, $2, <term>, <index>, <index>,",
    ),
    (
        r#"("(?:raftIndex|raftAppliedIndex|dbSize|dbSizeInUse)":)\d+"#,
        "${1}<number>",
    ),
    (
        r#"("(?:RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse)" : )\d+"#,
        "${1}<number>",
    ),
    (r"(Raft-Index: )\d+", "${1}<number>"),
    (r#"("hash":|"Hash" : )\d+"#, "${1}<number>"),
];

/// Where etcdctl prints a v2 index; group 1 is what stands before it, 2 the index, 3 what follows.
const INDEXES: &[&str] = &[
    r#"("modifiedIndex":|"createdIndex":|Created-Index: |Modified-Index: |Etcd-Index: |"index":)(\d+)()"#,
    r"(?m)^(Index: )(\d+)()$",
    r"(Error:\s+\d+: .* \[)(\d+)(\])",
    r"(\(\[)(\d+)( != )",
    r"( != )(\d+)(\]\))",
];

impl Normaliser {
    /// With the v2 index at the script's start, if indexes are to be told relative to it.
    pub(crate) fn new(base: Option<i64>) -> Self {
        let compile = |pattern: &str| Regex::new(pattern).expect("the patterns are constants");
        Self {
            rules: RULES
                .iter()
                .map(|(pattern, to)| (compile(pattern), *to))
                .collect(),
            indexes: INDEXES.iter().map(|pattern| compile(pattern)).collect(),
            in_order_key: compile(r"\b0\d{19}\b"),
            id: compile(r"\b(?:\d{16,20}|[0-9a-f]{12,16})\b"),
            ids: Vec::new(),
            base,
        }
    }

    /// The output with its placeholders, without the empty lines at its end.
    pub(crate) fn text(&mut self, output: &str) -> String {
        let mut text = output.to_owned();
        for (pattern, to) in &self.rules {
            text = pattern.replace_all(&text, *to).into_owned();
        }
        if let Some(base) = self.base {
            text = self.relative(&text, base);
        }
        let ids = &mut self.ids;
        let text = self
            .id
            .replace_all(&text, |found: &Captures<'_>| number(ids, &found[0]));
        text.trim_end().to_owned()
    }

    fn relative(&self, text: &str, base: i64) -> String {
        let distance = |digits: &str| digits.parse::<i64>().map_or(0, |index| index - base);
        let padded = |found: &Captures<'_>| format!("<i{:+}:020>", distance(&found[0]));
        let mut text = self.in_order_key.replace_all(text, padded).into_owned();
        for pattern in &self.indexes {
            let plain = |found: &Captures<'_>| {
                format!("{}<i{:+}>{}", &found[1], distance(&found[2]), &found[3])
            };
            text = pattern.replace_all(&text, plain).into_owned();
        }
        text
    }

    /// A command with its `<i+2>` and `<i+2:020>` replaced by real indexes.
    pub(crate) fn command(&self, command: &str) -> String {
        let Some(base) = self.base else {
            return command.to_owned();
        };
        let pattern = Regex::new(r"<i([+-]\d+)(:020)?>").expect("the pattern is a constant");
        let real = |found: &Captures<'_>| {
            let index = base
                + found[1]
                    .parse::<i64>()
                    .expect("the pattern admits only digits");
            if found.get(2).is_some() {
                format!("{index:020}")
            } else {
                index.to_string()
            }
        };
        pattern.replace_all(command, real).into_owned()
    }
}

fn number(ids: &mut Vec<String>, id: &str) -> String {
    let at = ids.iter().position(|known| known == id).unwrap_or_else(|| {
        ids.push(id.to_owned());
        ids.len() - 1
    });
    format!("<id{}>", at + 1)
}

#[cfg(test)]
mod tests {
    use super::Normaliser;

    #[test]
    fn ids_keep_their_identity() {
        let mut normaliser = Normaliser::new(None);
        let first = normaliser.text("lease 694d7f8c01a2b3c4 granted; 694d7f8c01a2b3ff too\n");
        assert_eq!(first, "lease <id1> granted; <id2> too");
        assert_eq!(normaliser.text("694d7f8c01a2b3ff"), "<id2>");
    }

    #[test]
    fn indexes_are_relative_and_commands_are_made_absolute() {
        let mut normaliser = Normaliser::new(Some(4));
        assert_eq!(
            normaliser.text("Error:  100: Key not found (/a) [6]"),
            "Error:  100: Key not found (/a) [<i+2>]"
        );
        assert_eq!(
            normaliser.command("rm --with-index <i+2> /a"),
            "rm --with-index 6 /a"
        );
    }

    #[test]
    fn placeholders_stay_as_they_are() {
        let once = Normaliser::new(Some(4)).text("\"ttl\":59 took = 1.5ms 127.0.0.1:2379 20 kB");
        assert_eq!(once, "\"ttl\":<ttl> took = <duration> <address> <size>");
        assert_eq!(Normaliser::new(Some(4)).text(&once), once);
    }
}
