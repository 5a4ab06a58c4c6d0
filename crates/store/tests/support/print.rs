//! Answers as text.

use std::fmt::Write as _;

use quorate_store::{
    Change, Class, KeyValue, Mark, Outcome, RangeReply, Reply, Revision, Store, Values, tree,
};

/// Bytes as scripts write them: `""` for none, `c{40}` for a run, `\x00` for what is not shown.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    match bytes {
        [] => "\"\"".to_owned(),
        [first, rest @ ..] if rest.len() > 8 && rest.iter().all(|byte| byte == first) => {
            format!("{}{{{}}}", byte(*first), bytes.len())
        }
        _ => bytes.iter().map(|&shown| byte(shown)).collect(),
    }
}

fn byte(byte: u8) -> String {
    if byte.is_ascii_graphic() && byte != b'\\' {
        char::from(byte).to_string()
    } else {
        format!("\\x{byte:02x}")
    }
}

pub(crate) fn key_value(kv: &KeyValue) -> String {
    let mut line = format!(
        "{} = {}  created {}  modified {}  version {}",
        bytes(&kv.key),
        bytes(&kv.value),
        kv.create,
        kv.modified,
        kv.version
    );
    if kv.lease != 0 {
        let _ = write!(line, "  lease {}", kv.lease);
    }
    line
}

pub(crate) fn change(store: &Store, change: &Change, values: &dyn Values) -> String {
    let Change {
        revision, sub, key, ..
    } = change;
    let at = format!("{revision}.{sub}");
    if change.class == Class::Dir {
        return format!("{at} directory {}", bytes(key));
    }
    let version = store.file_written_at(key, *revision);
    let Some(version) = version else {
        return format!("{at} {} compacted", bytes(key));
    };
    let mark = mark(version.mark);
    if version.count == 0 {
        return format!(
            "{at} deleted {}, created {}{mark}",
            bytes(key),
            version.create
        );
    }
    let kv = Store::key_value(key, version, values).expect("a value in the log");
    format!("{at} {}{mark}", key_value(&kv))
}

fn mark(mark: Mark) -> String {
    let covered = if mark.covered { ", covered" } else { "" };
    let refresh = if mark.refresh { ", refresh" } else { "" };
    format!("  ({:?}{covered}{refresh})", mark.action)
}

/// What came of a command; a refusal is `Err`.
pub(crate) fn outcome(outcome: &Outcome) -> Result<String, String> {
    match &outcome.result {
        Ok(reply) => {
            let mut out = String::new();
            print(&mut out, "", outcome.revision, reply);
            Ok(out)
        }
        Err(refusal) => Err(format!("{refusal}\n")),
    }
}

/// A range's answer: its keys, then a line about all.
pub(crate) fn range(out: &mut String, indent: &str, revision: Revision, reply: &RangeReply) {
    for kv in &reply.kvs {
        let _ = writeln!(out, "{indent}{}", key_value(kv));
    }
    let more = if reply.more { ", more" } else { "" };
    let _ = writeln!(
        out,
        "{indent}get: revision {revision}, count {}{more}",
        reply.count
    );
}

fn print(out: &mut String, indent: &str, revision: Revision, reply: &Reply) {
    let mut line = |text: &str| {
        let _ = writeln!(out, "{indent}{text}");
    };
    match reply {
        Reply::Put { prev } => {
            line(&format!("put: revision {revision}"));
            prev.iter()
                .for_each(|kv| line(&format!("  before: {}", key_value(kv))));
        }
        Reply::Deleted { count, prev } => {
            line(&format!("del: revision {revision}, deleted {count}"));
            prev.iter()
                .for_each(|kv| line(&format!("  before: {}", key_value(kv))));
        }
        Reply::Range(reply) => range(out, indent, revision, reply),
        Reply::Txn(reply) => {
            let succeeded = if reply.succeeded {
                "succeeded"
            } else {
                "failed"
            };
            line(&format!("txn: revision {revision}, {succeeded}"));
            let indent = format!("{indent}  ");
            for (revision, reply) in &reply.responses {
                print(out, &indent, *revision, reply);
            }
        }
        Reply::Compacted => line(&format!("compact: revision {revision}")),
        Reply::LeaseGranted { id, ttl_s } => {
            line(&format!(
                "grant: revision {revision}, lease {id}, {ttl_s} s"
            ));
        }
        Reply::LeaseRevoked => line(&format!("revoke: revision {revision}")),
        Reply::Tree(reply) => line(&format!("tree: revision {revision}, {}", event(reply))),
        Reply::Alarm(alarm) => line(&format!("alarm: revision {revision}, {alarm:?}")),
        Reply::Done => line(&format!("done: revision {revision}")),
    }
}

fn event(event: &tree::Event) -> String {
    let node = &event.node;
    format!(
        "{:?} {}, created {}",
        event.action,
        bytes(&node.path),
        node.created
    )
}
