//! What a script's commands do.

use std::fmt::Write as _;

use bytes::Bytes;
use quorate_store::command::{Body, Limits};
use quorate_store::{AlarmBy, ClusterTime, Cursor, Refusal, Revision, Store};

use crate::parse::{self, Command, Parsed};
use crate::support::{World, everything, load, print};

/// A script's state.
pub(crate) struct Session {
    world: World,
    limits: Limits,
    /// A walk under way, with the rows it gave.
    walk: Option<(Cursor, Vec<Bytes>)>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            world: World::default(),
            limits: Limits { max_txn_ops: 128 },
            walk: None,
        }
    }
}

impl Session {
    /// Performs a block of commands, and gives what they print.
    pub(crate) fn run(&mut self, lines: &[&str]) -> Result<String, String> {
        let mut out = String::new();
        for Parsed {
            text,
            refused,
            command,
        } in parse::block(lines)?
        {
            match (self.perform(command), refused) {
                (Ok(printed), false) => out.push_str(&printed),
                (Err(why), true) => {
                    let _ = write!(out, "Error: {why}");
                }
                (Ok(_), true) => return Err(format!("{text:?} was not refused")),
                (Err(why), false) => return Err(format!("{text:?} was refused: {why}")),
            }
        }
        Ok(out)
    }

    fn perform(&mut self, command: Result<Command, Refusal>) -> Result<String, String> {
        let refused = |refusal: Refusal| format!("{refusal}\n");
        let world = &mut self.world;
        match command.map_err(refused)? {
            Command::Body(time, body) => {
                world.time = time.map_or(world.time, ClusterTime);
                body.check(self.limits).map_err(refused)?;
                print::outcome(&world.apply(&body))
            }
            Command::Get(range) => {
                let reply = world.store.range_reply(&range, &world.log);
                let reply = reply.map_err(|why| format!("{why}\n"))?;
                let mut out = String::new();
                print::range(&mut out, "", world.store.revision(), &reply);
                Ok(out)
            }
            Command::ReadTxn(txn) => {
                let reply = world.store.read_txn(&txn, &world.log);
                let reply = reply.map_err(|why| format!("{why}\n"))?;
                print::outcome(&quorate_store::Outcome {
                    revision: world.store.revision(),
                    result: Ok(quorate_store::Reply::Txn(reply)),
                })
            }
            Command::Limits(limits) => {
                self.limits = limits;
                Ok(String::new())
            }
            Command::Purge(max) => {
                let more = world.store.purge(max);
                Ok(format!("purge: {}\n", if more { "more" } else { "done" }))
            }
            Command::History(from) => Ok(history(world, Revision::new(from))),
            Command::Show(what) => show(world, &what),
            Command::Reload(chunk) => {
                self.reload(chunk);
                Ok("reloaded\n".to_owned())
            }
            Command::WalkBegin => {
                self.walk = Some((world.store.begin_walk(), Vec::new()));
                Ok(format!("walk: of revision {}\n", world.store.revision()))
            }
            Command::Walk(chunk) => {
                let (cursor, rows) = self.walk.as_mut().ok_or("no walk has begun\n")?;
                let before = rows.len();
                let mut take = |row: &[u8]| rows.push(Bytes::copy_from_slice(row));
                let more = world.store.walk(cursor, chunk, &mut take);
                let more = if more { "more" } else { "done" };
                Ok(format!("walk: {} rows, {more}\n", rows.len() - before))
            }
            Command::Load => {
                let (mut cursor, rows) = self.walk.take().ok_or("no walk has begun\n")?;
                let mut missing = 0;
                let more = world.store.walk(&mut cursor, 1, &mut |_| missing += 1);
                if more || missing > 0 {
                    return Err("the walk is not done\n".to_owned());
                }
                world.store = load(&rows).map_err(|why| format!("{why}\n"))?;
                Ok(format!("load: revision {}\n", world.store.revision()))
            }
        }
    }

    /// Walks and loads the store, which must answer as before, and goes on with the loaded one.
    pub(crate) fn reload(&mut self, chunk: usize) {
        let world = &mut self.world;
        let mut loaded = world.reloaded(chunk);
        assert_eq!(
            everything(&world.store, &world.log),
            everything(&loaded, &world.log)
        );
        // A loaded store has nothing to purge; the old one had perhaps.
        while world.store.purge(1) {}
        let [old, new] = [&world.store, &loaded].map(counts);
        assert_eq!(old, new);
        while loaded.purge(1) {}
        assert_eq!(new, counts(&loaded));
        world.store = loaded;
    }
}

fn counts(store: &Store) -> (u64, usize, Vec<u32>, String) {
    let segments = (0..100).filter(|&segment| store.needs_segment(segment));
    let changes: Vec<_> = store.changes(Revision::ZERO).collect();
    let changes = format!("{changes:?}");
    (
        store.live_bytes(),
        store.key_count(),
        segments.collect(),
        changes,
    )
}

fn history(world: &World, from: Revision) -> String {
    let World { store, log, .. } = world;
    let mut out = String::new();
    for change in store.changes(from) {
        let _ = writeln!(out, "{}", print::change(store, change, log));
    }
    out
}

fn show(world: &World, what: &str) -> Result<String, String> {
    let World { store, log, .. } = world;
    let mut out = String::new();
    let _ = match what {
        "live_bytes" => writeln!(out, "live_bytes: {}", store.live_bytes()),
        "keys" => writeln!(out, "keys: {}", store.key_count()),
        "revision" => writeln!(
            out,
            "revision {}, compacted {}, oldest {}",
            store.revision(),
            store.compacted(),
            store.oldest()
        ),
        "segments" => {
            let needed: Vec<u32> = log.numbers().filter(|&n| store.needs_segment(n)).collect();
            writeln!(out, "segments: {needed:?} of {}", log.numbers().end())
        }
        "deadline" => match store.next_deadline() {
            Some(at) => writeln!(out, "deadline: {} ms", at.0),
            None => writeln!(out, "deadline: none"),
        },
        "leases" => store.leases().iter().try_for_each(|(id, lease)| {
            let keys: Vec<String> = lease.keys.iter().map(|key| print::bytes(key)).collect();
            writeln!(
                out,
                "lease {id}: {} s, keys [{}]",
                lease.ttl_s,
                keys.join(" ")
            )
        }),
        "members" => store
            .members()
            .values()
            .try_for_each(|member| writeln!(out, "{member:?}"))
            .and_then(|()| writeln!(out, "removed {:?}", store.removed())),
        "alarms" => store.alarms().iter().try_for_each(|(alarm, by)| match by {
            AlarmBy::Client => writeln!(out, "{alarm:?}"),
            AlarmBy::Member => writeln!(out, "{alarm:?} by itself"),
        }),
        _ => return Err(format!("what is {what:?}?\n")),
    };
    Ok(out)
}

/// For the parser: a body that is none of the store's own time.
impl From<Body> for Command {
    fn from(body: Body) -> Self {
        Self::Body(None, body)
    }
}
