//! Leases and TTLs by virtual time (P5). The world itself checks, at every turn, that nothing ends
//! early or late; here are the cases that a swarm would meet too rarely.

use bytes::Bytes;
use quorate_sim::disk::Crash;
use quorate_sim::{Plan, Trace, World};
use quorate_store::command::{Blob, Body, Put};
use quorate_store::tree::{Op, Path, Request, Write};

const KEY: &str = "/t/leased";

fn started() -> World {
    let mut world = World::new(Plan::short(1, 0), Trace::Silent);
    assert!(world.start() && world.settle());
    world
}

fn grant(id: i64, ttl_s: i64) -> Body {
    Body::LeaseGrant { id, ttl_s }
}

fn put(lease: i64) -> Body {
    Body::Put(Put {
        key: Bytes::from_static(KEY.as_bytes()),
        value: Blob::new(Bytes::from_static(b"v")),
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn set(ttl_s: u64) -> Body {
    let write = Write {
        value: Blob::new(Bytes::from_static(b"v")),
        ttl_s: Some(ttl_s),
        refresh: false,
    };
    let path = Path::parse(Bytes::from_static(KEY.as_bytes())).expect("a clean path");
    Body::Tree(Request {
        path,
        op: Op::Set { dir: false, write },
    })
}

fn lives(world: &World) -> bool {
    world.machine().store().file(KEY.as_bytes()).is_some()
}

#[test]
fn a_lease_ends_with_its_key_in_time_and_not_before() {
    let mut world = started();
    world.request(&grant(1, 3));
    world.request(&put(1));
    world.pass(200);
    assert!(lives(&world));
    world.pass(2500);
    assert!(world.keep_alive(1), "it has not ended yet");
    world.pass(2950);
    assert!(lives(&world), "it was kept alive");
    world.pass(1050);
    assert!(!lives(&world) && world.machine().store().leases().is_empty());
    assert!(world.settle());
}

#[test]
fn a_restart_gives_a_lease_its_full_time_again() {
    let mut world = started();
    world.request(&grant(1, 10));
    world.request(&put(1));
    world.pass(9_000);
    world.kill(Crash::Lost);
    assert!(world.start() && world.settle());
    world.pass(9_900);
    assert!(lives(&world), "ten seconds from the start on");
    world.pass(1_100);
    assert!(!lives(&world));
}

#[test]
fn a_ttl_goes_on_by_cluster_time_which_stands_while_the_member_is_down() {
    let mut world = started();
    world.request(&set(10));
    world.pass(5_000);
    world.request(&put_other());
    world.pass(200);
    let stamp = world.machine().time();
    world.kill(Crash::Lost);
    assert!(world.start() && world.settle());
    assert!(
        world.machine().time() >= stamp,
        "cluster time does not step back"
    );
    world.pass(4_500);
    assert!(lives(&world), "five seconds were left");
    world.pass(1_500);
    assert!(!lives(&world));
}

fn put_other() -> Body {
    Body::Put(Put {
        key: Bytes::from_static(b"other"),
        value: Blob::new(Bytes::new()),
        lease: 0,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

#[test]
fn a_jump_of_the_wall_clock_changes_what_is_shown_and_nothing_else() {
    let mut world = started();
    world.request(&grant(1, 5));
    world.request(&set(5));
    world.pass(1_000);
    let shown = |world: &World| {
        let store = world.machine().store();
        let file = store.file(KEY.as_bytes()).unwrap();
        file.limit.deadline().unwrap().shown.0
    };
    let before = shown(&world);
    world.jump_wall(86_400_000);
    world.pass(3_500);
    assert!(lives(&world) && world.machine().store().leases().contains_key(&1));
    world.request(&set(5));
    world.pass(300);
    assert!(shown(&world) > before + 86_400_000);
    world.jump_wall(0);
    world.pass(4_600);
    assert!(lives(&world), "five seconds from the second write on");
    world.pass(1_200);
    assert!(!lives(&world) && world.machine().store().leases().is_empty());
}

#[test]
fn cluster_time_does_not_step_back_behind_a_stamp_that_was_not_applied() {
    let mut world = started();
    world.request(&set(30));
    world.pass(10_000);
    // Durable, but nobody was told, so nothing of it is applied or known to be committed.
    world.request(&put_other());
    world.turn_only();
    world.disk_only();
    let applied = world.machine().applied();
    world.kill(Crash::Lost);
    assert!(world.start());
    assert_eq!(
        world.machine().applied(),
        applied,
        "the stamp lies behind what is applied"
    );
    // A lower stamp would panic when it is applied (R2).
    assert!(world.settle() && world.put_something());
}

/// The leader's own end of the first lease must not reach the second of the same id.
#[test]
fn a_lease_granted_anew_lives_on_when_the_time_of_the_old_one_runs_out() {
    let mut world = started();
    world.request(&grant(1, 1));
    world.pass(900);
    // The old one is revoked when its end is due, in one turn with the new one.
    world.pause(300);
    world.request(&Body::LeaseRevoke { id: 1 });
    world.request(&grant(1, 60));
    world.turn_only();
    world.pass(2_000);
    let store = world.machine().store();
    assert!(
        store
            .leases()
            .get(&1)
            .is_some_and(|lease| lease.ttl_s == 60)
    );
    assert!(world.settle());
}

#[test]
fn a_restart_costs_a_ttl_a_minute_at_most() {
    let mut world = started();
    world.request(&set(100));
    // Nobody writes; but while a deadline exists, the time is logged once a minute.
    world.pass(95_000);
    world.kill(Crash::Lost);
    assert!(world.start() && world.settle());
    world.pass(4_500);
    assert!(lives(&world), "five seconds were left");
    world.pass(61_500);
    assert!(!lives(&world), "five seconds, a minute, and one second");
}
