//! A member whose disk has too little room, at many sizes and moments.

use quorate_log::{Config, Identity};
use quorate_sim::disk::SimDisk;
use quorate_sim::{Plan, full_disk, reserve_used_up};

#[test]
fn a_member_killed_on_a_full_disk_starts_again_and_is_left_in_peace_once_there_is_room() {
    let (mut short, mut started_short) = (0, 0);
    for seed in 0..300 {
        let seen = full_disk(Plan::draw(seed));
        short += u64::from(seen.short > 0);
        started_short += seen.started_short;
    }
    assert!(short > 200, "disks got full: {short}");
    assert!(started_short > 200, "started while full: {started_short}");
}

#[test]
fn a_member_ends_with_a_sentence_once_its_reserve_is_used_up_and_loses_nothing() {
    for seed in 0..100 {
        let seen = reserve_used_up(Plan::draw(seed));
        assert_eq!(
            seen.used_up, 2,
            "seed {seed}: as it ran and as it was started"
        );
    }
}

#[test]
fn a_start_finds_the_reserve_in_a_checkpoint_that_was_cut_short() {
    let (disk, config) = (
        SimDisk::new(),
        Config {
            segment_bytes: 1 << 10,
        },
    );
    let made = Identity::create(&disk, config, [7; 16], 1, 2);
    let mut identity = made.expect("an empty disk");
    disk.place("checkpoint.tmp", vec![1; 4_096]);
    disk.set_capacity(disk.used_bytes());
    identity.raise(&disk).expect("there is room");
    assert_eq!(identity.incarnation, 2);
}
