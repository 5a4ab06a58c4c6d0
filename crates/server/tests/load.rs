//! The load generator of `cargo xtask bench` against a member: what it counts is what was done.
//!
//! It is tested here since `load` itself must know nothing of ours.

#[path = "support/ports.rs"]
mod ports;

use std::sync::mpsc;
use std::time::Duration;

use ports::{free_port, listen};
use prost::Message;
use quorate::config::Config;
use quorate::serve;
use quorate_load::{DIGITS, Generator, Keys, Pace, Spread, TIME, Template, Until, Work};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use tokio::sync::oneshot;

const TEN: Spread = Spread {
    connections: 5,
    clients: 2,
};
const TEN_CONNECTIONS: Spread = Spread {
    connections: 10,
    clients: 1,
};

/// Starts a member on a thread of its own and calls back with its client port and its revision.
fn with_member(test: impl FnOnce(u16, &dyn Fn() -> i64)) {
    let (client, peer) = (free_port(), free_port());
    let directory = tempfile::tempdir().expect("a directory");
    let urls = listen(client);
    let config = Config {
        data_dir: directory.path().join("data"),
        advertise_client_urls: vec![urls.url.clone()],
        listen_client_urls: vec![urls],
        listen_peer_urls: vec![listen(peer)],
        ..Config::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, started) = mpsc::channel();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let stopped = async { drop(stopped.await) };
        let served = serve::run(config, stopped, |node| drop(ready.send(node.clone())));
        runtime.expect("a runtime").block_on(served)
    });
    let node = started.recv().expect("it starts");
    test(client, &|| node.machine().store().revision().to_wire());
    drop(node);
    stop.send(()).expect("it runs");
    serving.join().expect("no panic").expect("it stops cleanly");
}

fn put(value: &str) -> Template {
    let message = PutRequest {
        key: format!("/load/{DIGITS}").into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    Template::grpc("/etcdserverpb.KV/Put", &message.encode_to_vec(), 2)
}

fn range(wanted_bytes: usize) -> Template {
    let message = RangeRequest {
        key: format!("/load/{DIGITS}").into(),
        ..RangeRequest::default()
    };
    Template::grpc(
        "/etcdserverpb.KV/Range",
        &message.encode_to_vec(),
        wanted_bytes,
    )
}

#[test]
fn every_put_that_is_counted_is_a_revision() {
    with_member(|port, revision| {
        let put = put("~~~~~~~~~~~~~~~~");
        let mut generator = Generator::connect(port, TEN, &put).expect("it listens");
        let before = revision();
        let work = Work::closed(put, Keys::Any(100), Duration::from_secs(1));
        let report = generator.run(&work).expect("a good connection");
        assert_eq!((report.failed, report.failure), (0, None));
        assert!(report.done > 0 && report.latencies.count() == report.done);
        assert_eq!(
            revision() - before,
            i64::try_from(report.done).expect("few")
        );
    });
}

#[test]
fn each_key_is_written_once_and_then_found() {
    with_member(|port, _| {
        let work = |template, count| Work {
            templates: vec![(1, template)],
            keys: Keys::Each((0..300).collect()),
            pace: Pace::Closed,
            until: Until::Count(count),
        };
        let mut generator = Generator::connect(port, TEN, &put("v")).expect("it listens");
        assert_eq!(
            generator.run(&work(put("v"), 299)).expect("answers").done,
            299
        );
        // A key, its value and its revisions; an empty answer has the header alone.
        let report = generator.run(&work(range(45), 300)).expect("answers");
        assert_eq!(
            (report.done, report.failed),
            (299, 1),
            "{:?}",
            report.failure
        );
    });
}

#[test]
fn what_the_server_refuses_is_counted() {
    with_member(|port, revision| {
        let work = |template| Work {
            templates: vec![(1, template)],
            keys: Keys::Any(10),
            pace: Pace::Open(1000),
            until: Until::Count(50),
        };
        let before = revision();
        for (template, text) in [
            (
                Template::grpc("/etcdserverpb.KV/Nothing", &[], 0),
                "status 12",
            ),
            (Template::grpc("/etcdserverpb.KV/Put", &[], 0), "status 3"),
            (Template::http("GET", "/v2/keys/nothing", "", 0), "404"),
        ] {
            let connected = Generator::connect(port, TEN_CONNECTIONS, &template);
            let report = connected
                .expect("it listens")
                .run(&work(template))
                .expect("answers");
            assert_eq!((report.done, report.failed), (0, 50));
            assert!(
                report.failure.is_some_and(|failure| failure.contains(text)),
                "{text}"
            );
        }
        assert_eq!(revision(), before);
    });
}

#[test]
fn every_watcher_is_told_of_every_put() {
    with_member(|port, _| {
        let create = WatchCreateRequest {
            key: "/load/".into(),
            range_end: "/load0".into(),
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let watch = Template::grpc("/etcdserverpb.Watch/Watch", &create.encode_to_vec(), 0);
        let put = put(TIME);
        let mut generator = Generator::connect(port, TEN, &put).expect("it listens");
        generator.watch(7, &watch).expect("watches");
        let work = Work {
            templates: vec![(1, put)],
            keys: Keys::Any(5),
            pace: Pace::Open(2000),
            until: Until::Count(400),
        };
        let report = generator.run(&work).expect("answers");
        assert_eq!((report.done, report.told), (400, 2800));
        assert!(report.told_latencies.count() > 0);
        // Times of another run would be off by hours or more.
        assert!(report.told_latencies.max() < 60_000_000_000);
    });
}

#[test]
fn forms_are_written_over_http_1() {
    with_member(|port, revision| {
        let path = format!("/v2/keys/load/{DIGITS}");
        let put = Template::http("PUT", &path, "value=v", 0);
        let mut generator = Generator::connect(port, TEN_CONNECTIONS, &put).expect("it listens");
        let before = revision();
        let work = Work::closed(put, Keys::Any(100), Duration::from_millis(300));
        let report = generator.run(&work).expect("answers");
        assert_eq!(report.failed, 0);
        assert_eq!(
            revision() - before,
            i64::try_from(report.done).expect("few")
        );
    });
}
