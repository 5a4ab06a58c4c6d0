//! A world moved on by hand, for tests of one case.

use quorate_replica::Machine;
use quorate_store::command::Body;

use super::World;

impl World {
    /// A client asks; [`World::settle`] or [`World::pass`] bring the answer.
    pub fn request(&mut self, body: &Body) {
        self.ask(body);
    }

    /// Lets time pass while the member runs.
    ///
    /// # Panics
    /// If the member goes down.
    pub fn pass(&mut self, ms: u64) {
        let until = self.clock.now_ms + ms;
        while self.clock.now_ms < until {
            self.clock.now_ms += 10.min(until - self.clock.now_ms);
            let beaten = self.run_disk().and_then(|()| self.turn());
            assert!(self.survived(beaten), "the member goes on");
        }
    }

    /// Sets the wall clock wrong by `ms`, forward of what it was at first.
    pub fn jump_wall(&mut self, ms: u64) {
        self.clock.wall_jump_ms = ms;
    }

    /// Lets time pass while the member's process gets no time.
    pub fn pause(&mut self, ms: u64) {
        self.clock.now_ms += ms;
        self.clock.awake_since_ms = self.clock.now_ms;
    }

    /// A turn of the driver, and nothing else.
    ///
    /// # Panics
    /// If the member goes down.
    pub fn turn_only(&mut self) {
        let turned = self.turn();
        assert!(self.survived(turned), "the member goes on");
    }

    /// A round of the disk thread, and nothing else: what it made durable is not reported yet.
    ///
    /// # Panics
    /// If the member goes down.
    pub fn disk_only(&mut self) {
        let run = self.run_disk();
        assert!(self.survived(run), "the member goes on");
    }

    /// The state, for tests.
    ///
    /// # Panics
    /// If the member is down.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        let member = self.member.as_ref();
        &member.expect("a member that is looked at").machine
    }

    /// True time since the beginning, in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms
    }

    /// Gives a lease its full time again; whether it did.
    ///
    /// # Panics
    /// If the member is down.
    pub fn keep_alive(&mut self, lease: i64) -> bool {
        let now = self.now();
        let member = self.member.as_mut().expect("a member that is asked");
        let renewed = member.renew(now, lease).is_some();
        if renewed {
            self.known.renewed(lease, self.clock.now_ms);
        }
        renewed
    }
}
