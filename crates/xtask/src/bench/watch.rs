//! What it costs to tell a hundred watchers of each put.

use anyhow::{Result, ensure};
use prost::Message;
use quorate_load::{Keys, Pace, Spread, TIME, Template, Until, Work};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};

use super::cases::{KEYS, VALUE_BYTES, put_of};
use super::pair::{Side, run};
use super::results::Figures;
use super::rounds::{Length, Sums};

/// Each on a connection of its own, all of the same prefix.
const WATCHERS: usize = 100;
/// Puts of one client, whatever the answers take.
const PUTS_PER_SECOND: u32 = 500;
/// One connection on which puts need not wait for one another.
const ONE: Spread = Spread {
    connections: 1,
    clients: 10,
};

/// Measures both servers. A round ends when each watcher has been told of each put.
pub(super) fn measure(sides: &[Side], length: Length) -> Result<Vec<Figures>> {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..TIME.len()].copy_from_slice(TIME.as_bytes());
    let put = put_of(value);
    let mut generators = Vec::new();
    for side in sides {
        let mut generator = side.connect(ONE, &put)?;
        generator.watch(WATCHERS, &watch())?;
        generators.push(generator);
    }
    let mut sums: Vec<_> = sides.iter().map(|_| Sums::default()).collect();
    let work = |time| Work {
        templates: vec![(1, put.clone())],
        keys: Keys::Any(KEYS),
        pace: Pace::Open(PUTS_PER_SECOND),
        until: Until::Elapsed(time),
    };
    for _ in 0..length.rounds {
        for ((side, generator), sums) in sides.iter().zip(&mut generators).zip(&mut sums) {
            run(side, generator, &work(length.warm_up()))?;
            let before = side.cpu()?;
            let report = run(side, generator, &work(length.round))?;
            let cpu = side.cpu()? - before;
            ensure!(
                report.told == report.done * WATCHERS as u64,
                "an event was told twice"
            );
            sums.add(&report.of_events(), cpu);
        }
    }
    Ok(sums.iter().map(Sums::figures).collect())
}

/// A watch of all keys.
fn watch() -> Template {
    let create = WatchCreateRequest {
        key: "/bench/".into(),
        range_end: "/bench0".into(),
        ..WatchCreateRequest::default()
    };
    let message = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    Template::grpc("/etcdserverpb.Watch/Watch", &message.encode_to_vec(), 0)
}
