//! A member whose disk has too little room, at many sizes and moments.

use quorate_sim::{Plan, full_disk};

#[test]
fn a_full_disk_breaks_no_promise_and_is_left_by_itself() {
    let (mut short, mut started_short) = (0, 0);
    for seed in 0..150 {
        let seen = full_disk(Plan::draw(seed));
        short += u64::from(seen.short > 0);
        started_short += seen.started_short;
    }
    assert!(short > 50, "disks got full: {short}");
    assert!(started_short > 0, "members started while full");
}
