//! Nodes and events as JSON.
//!
//! Source: spec v2-api.md §1.2.

use quorate_store::tree::{Event, Found, Node};
use quorate_store::{Action, Revision, UnixMs, ValueError, Values};

use super::json;

/// Writes nodes inside nodes, as they are opened and closed.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// By which ttls are counted.
    now: UnixMs,
    open: Vec<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    has_children: bool,
    modified: Revision,
    created: Revision,
}

impl Nodes {
    pub(super) fn new(now: UnixMs) -> Self {
        Self {
            now,
            open: Vec::new(),
        }
    }

    /// Begins a node, inside the one that is open.
    pub(super) fn open(
        &mut self,
        out: &mut Vec<u8>,
        path: &[u8],
        found: Found<'_>,
        values: &dyn Values,
    ) -> Result<(), ValueError> {
        if let Some(parent) = self.open.last_mut() {
            let before: &[u8] = if parent.has_children {
                b","
            } else {
                b",\"nodes\":["
            };
            out.extend_from_slice(before);
            parent.has_children = true;
        }
        let (modified, created) = match found {
            Found::File(version) => {
                let value = version.value.read(values)?;
                let expiration = version.limit.deadline().map(|deadline| deadline.shown);
                fields(out, path, Some(&value), false, self.timed(expiration));
                (version.revision, version.create)
            }
            Found::Dir(image) => {
                let expiration = image.deadline.map(|deadline| deadline.shown);
                fields(out, path, None, true, self.timed(expiration));
                (image.modified, image.created)
            }
        };
        self.open.push(Open {
            has_children: false,
            modified,
            created,
        });
        Ok(())
    }

    /// Ends the node opened last.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        let node = self.open.pop().expect("a walk closes what it opened");
        if node.has_children {
            out.push(b']');
        }
        indexes(out, node.modified, node.created);
    }

    fn timed(&self, expiration: Option<UnixMs>) -> Option<(UnixMs, i64)> {
        expiration.map(|end| (end, json::seconds_left(end, self.now)))
    }
}

/// Appends an event, without a newline. `siblings` further ones of its index match the same watch.
pub(super) fn event(out: &mut Vec<u8>, event: &Event, siblings: usize) {
    out.extend_from_slice(b"{\"action\":");
    json::string(out, action_name(event.action).as_bytes());
    out.extend_from_slice(b",\"node\":");
    let left = |end| (end, json::seconds_left(end, event.wall));
    event_node(out, &event.node, event.node.expiration.map(left));
    if let Some(previous) = &event.previous {
        out.extend_from_slice(b",\"prevNode\":");
        // Cluster time ended it, and nothing was left, whatever the wall clocks say.
        let ended = event.action == Action::Expire;
        let timed = previous
            .expiration
            .map(|end| if ended { (end, 0) } else { left(end) });
        event_node(out, previous, timed);
    }
    if siblings > 0 {
        out.extend_from_slice(b",\"siblings\":");
        json::number(out, siblings);
    }
    out.push(b'}');
}

/// v2's name of an action.
pub(super) fn action_name(action: Action) -> &'static str {
    match action {
        Action::Set => "set",
        Action::Create => "create",
        Action::Update => "update",
        Action::CompareAndSwap => "compareAndSwap",
        Action::Delete => "delete",
        Action::CompareAndDelete => "compareAndDelete",
        Action::Expire => "expire",
    }
}

fn event_node(out: &mut Vec<u8>, node: &Node, timed: Option<(UnixMs, i64)>) {
    fields(out, &node.path, node.value.as_deref(), node.dir, timed);
    indexes(out, node.modified, node.created);
}

/// Begins an object with what stands before `nodes`.
fn fields(
    out: &mut Vec<u8>,
    path: &[u8],
    value: Option<&[u8]>,
    dir: bool,
    timed: Option<(UnixMs, i64)>,
) {
    let mut before = b'{';
    let mut field = |out: &mut Vec<u8>, name: &str| {
        out.push(before);
        before = b',';
        out.extend_from_slice(name.as_bytes());
    };
    if !path.is_empty() {
        field(out, "\"key\":");
        json::string(out, path);
    }
    if let Some(value) = value {
        field(out, "\"value\":");
        json::string(out, value);
    }
    if dir {
        field(out, "\"dir\":true");
    }
    if let Some((expiration, ttl)) = timed {
        field(out, "\"expiration\":\"");
        out.extend_from_slice(json::rfc3339(expiration).as_bytes());
        out.push(b'"');
        if ttl != 0 {
            field(out, "\"ttl\":");
            json::number(out, ttl);
        }
    }
}

/// Ends an object with its indexes, which the root does not have.
fn indexes(out: &mut Vec<u8>, modified: Revision, created: Revision) {
    if modified > Revision::ZERO {
        out.extend_from_slice(b",\"modifiedIndex\":");
        json::number(out, modified);
        out.extend_from_slice(b",\"createdIndex\":");
        json::number(out, created);
    }
    out.push(b'}');
}
