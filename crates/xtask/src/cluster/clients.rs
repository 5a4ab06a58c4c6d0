//! What the clients of one round share, and the loop of each: draw, call, note.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;

use super::draw::{self, Drawn};
use super::history::{Answer, Call, Member, Nanos, Outcome, Request};
use super::members::Face;
use super::v2::V2;
use super::v3::V3;

/// How long a client waits. Above the server's own limit (5 s and two election timeouts), which it
/// must keep.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);
/// A client whose member is away tries again after this.
const RETRY: Duration = Duration::from_millis(50);
/// The longest pause between two calls of one client.
const PAUSE_MS: u64 = 20;

/// The keys of the test.
pub(super) const PREFIX: &str = "/chaos/";
/// The first key beyond them.
pub(super) const PREFIX_END: &str = "/chaos0";

/// What all clients of one store know.
pub(super) struct Shared {
    pub(super) faces: Arc<Vec<Face>>,
    pub(super) base_revision: i64,
    started: Instant,
    stopped: AtomicBool,
    /// Values that keys had, to compare with.
    values: Mutex<HashMap<String, String>>,
    newest: AtomicI64,
}

impl Shared {
    pub(super) fn new(faces: Arc<Vec<Face>>, base_revision: i64, started: Instant) -> Arc<Self> {
        Arc::new(Self {
            faces,
            base_revision,
            started,
            stopped: AtomicBool::new(false),
            values: Mutex::default(),
            newest: AtomicI64::new(base_revision),
        })
    }

    pub(super) fn now(&self) -> Nanos {
        let elapsed = self.started.elapsed().as_nanos();
        Nanos::try_from(elapsed).expect("no run takes centuries")
    }

    /// Ends the clients' loops.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Which process of a member answers now.
    pub(super) fn run(&self, member: Member) -> u32 {
        self.faces[member].run.load(Ordering::SeqCst)
    }

    /// The newest revision that anybody was answered.
    pub(super) fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// A value that the key had lately.
    pub(super) fn value(&self, key: &str) -> Option<String> {
        let values = self.values.lock().expect("no task panics with it");
        values.get(key).cloned()
    }

    fn learn(&self, answer: &Answer) {
        self.newest.fetch_max(answer.revision, Ordering::SeqCst);
        let mut values = self.values.lock().expect("no task panics with it");
        for (key, shown) in answer.results.iter().flatten().flatten() {
            values.insert(key.clone(), shown.value.clone());
        }
    }
}

/// A connection in either dialect.
pub(super) enum Dialect {
    V3(Box<V3>),
    V2(V2),
}

/// One client of one member.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) member: Member,
    dialect: Dialect,
    shared: Arc<Shared>,
    calls: Vec<Call>,
}

impl Client {
    pub(super) fn v3(name: &str, member: Member, shared: &Arc<Shared>) -> Result<Self> {
        let v3 = V3::new(shared.faces[member].client_port)?;
        Ok(Self::new(name, member, shared, Dialect::V3(Box::new(v3))))
    }

    pub(super) fn v2(name: &str, member: Member, shared: &Arc<Shared>) -> Self {
        let v2 = V2::new(shared.faces[member].client_port);
        Self::new(name, member, shared, Dialect::V2(v2))
    }

    fn new(name: &str, member: Member, shared: &Arc<Shared>, dialect: Dialect) -> Self {
        Self {
            name: name.to_owned(),
            member,
            dialect,
            shared: Arc::clone(shared),
            calls: Vec::new(),
        }
    }

    /// Makes one call and notes it.
    ///
    /// # Errors
    /// If the answer is none that a member may give, whatever state it is in.
    pub(super) async fn call(&mut self, request: Request) -> Result<Outcome> {
        let run = self.shared.run(self.member);
        let invoked = self.shared.now();
        let outcome = match &mut self.dialect {
            Dialect::V3(v3) => v3.call(&request).await?,
            Dialect::V2(v2) => v2.call(&request).await?,
        };
        let returned = self.shared.now();
        if let Outcome::Ok(answer) = &outcome {
            self.shared.learn(answer);
        }
        self.calls.push(Call {
            client: self.name.clone(),
            member: self.member,
            run: (run == self.shared.run(self.member)).then_some(run),
            invoked,
            returned,
            request,
            outcome: outcome.clone(),
        });
        Ok(outcome)
    }

    /// Calls until the round is over, and returns what was called.
    pub(super) async fn load(mut self, mut rng: Rng) -> Result<Vec<Call>> {
        let mut drawn = Drawn::new(&self.name);
        while !self.shared.is_stopped() {
            let request = match self.dialect {
                Dialect::V3(_) => draw::v3(&mut drawn, &self.shared, &mut rng),
                Dialect::V2(_) => draw::v2(&mut drawn, &self.shared, &mut rng),
            };
            let outcome = self.call(request.clone()).await?;
            drawn.learn(&request, &outcome);
            let pause = match outcome {
                Outcome::Ok(_) => Duration::from_millis(rng.u64(..PAUSE_MS)),
                Outcome::NotDone(_) | Outcome::Unknown(_) => RETRY,
            };
            tokio::time::sleep(pause).await;
        }
        Ok(self.calls)
    }

    /// Makes so many puts without a pause, and returns them.
    pub(super) async fn flood(mut self, count: usize) -> Result<Vec<Call>> {
        for at in 0..count {
            let op = draw::put(&format!("{PREFIX}flood"), format!("{}-{at}", self.name), 0);
            self.call(draw::only(op, false)).await?;
        }
        Ok(self.calls)
    }

    /// Gives back what was called.
    pub(super) fn into_calls(self) -> Vec<Call> {
        self.calls
    }
}
