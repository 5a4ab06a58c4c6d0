//! The loop that serves all connections.

use std::io;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::connection::{Connection, Event};
use crate::cpu;
use crate::histogram::Histogram;
use crate::template::Template;
use crate::watch;
use crate::work::{Pace, Schedule, Work};

/// How long the server may be silent while something is under way.
const SILENCE_MS: u16 = 20_000;
/// What tells a watcher's connection from one that makes requests.
const WATCHER: u64 = 1 << 32;
const TIMER: u64 = u64::MAX;
const BUFFER_BYTES: usize = 256 << 10;

/// How clients are spread: each has one request under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spread {
    /// TCP connections.
    pub connections: usize,
    /// Clients on each; more than one only with HTTP/2.
    pub clients: usize,
}

/// Connections to one server.
pub struct Generator {
    port: u16,
    spread: Spread,
    epoll: Epoll,
    origin: Instant,
    rng: Rng,
    connections: Vec<Connection>,
    /// Clients without a request: connection and slot.
    idle: Vec<(usize, usize)>,
    watchers: Vec<Connection>,
    buffer: Vec<u8>,
    events: Vec<Event>,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests that were done.
    pub done: u64,
    /// Requests that were not.
    pub failed: u64,
    /// What the first of those says.
    pub failure: Option<String>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// Of requests that were done.
    pub latencies: Histogram,
    /// What watchers were told.
    pub told: u64,
    /// From when a put was due until a watcher was told.
    pub told_latencies: Histogram,
    /// What the load itself cost.
    pub own_cpu: Duration,
    created: u64,
}

impl Report {
    /// The same, with watchers' events in place of requests.
    pub fn of_events(&self) -> Self {
        let (done, latencies) = (self.told, self.told_latencies.clone());
        Self {
            done,
            latencies,
            ..self.clone()
        }
    }
}

impl Generator {
    /// Connects the clients; they speak what the template is written in.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn connect(port: u16, spread: Spread, template: &Template) -> io::Result<Self> {
        let mut this = Self {
            port,
            spread,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            origin: Instant::now(),
            rng: Rng::new(),
            connections: Vec::new(),
            idle: Vec::new(),
            watchers: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            events: Vec::new(),
        };
        for at in 0..spread.connections {
            let connection = Connection::open(port, spread.clients, template)?;
            this.register(&connection, at as u64)?;
            this.connections.push(connection);
            this.idle.extend((0..spread.clients).map(|slot| (at, slot)));
        }
        Ok(this)
    }

    /// Opens so many watches, each on a connection of its own, and waits until all are there.
    ///
    /// # Errors
    /// If one is refused or not answered.
    pub fn watch(&mut self, count: usize, template: &Template) -> io::Result<()> {
        for at in 0..count {
            let mut watcher = Connection::open(self.port, 1, template)?;
            let rng = &mut self.rng;
            watcher.request(0, template, true, |out| template.write(0, 0, rng, out));
            watcher.flush()?;
            self.register(&watcher, WATCHER | at as u64)?;
            self.watchers.push(watcher);
        }
        let mut report = Report::default();
        while report.created < count as u64 {
            self.turn(None, &mut report)?;
        }
        Ok(())
    }

    /// Makes requests until no more are due, all are answered, and watchers know of each.
    ///
    /// # Errors
    /// If the server closes a connection, or is silent for long. What it refuses is counted.
    pub fn run(&mut self, work: &Work) -> io::Result<Report> {
        let mut report = Report::default();
        let (cpu, start) = (cpu::of_this_thread()?, self.now());
        let mut schedule = Schedule::new(work, start);
        let mut timer = self.timer(work.pace)?;
        loop {
            self.issue(work, &mut schedule)?;
            let is_idle = self.idle.len() == self.spread.connections * self.spread.clients;
            let is_told = report.told >= report.done * self.watchers.len() as u64;
            if is_idle && is_told && schedule.is_over(self.now()) {
                break;
            }
            self.turn(Some((work, &mut schedule)), &mut report)?;
            // Reading it sets it again. When nothing more is due it must not hide silence.
            match &timer {
                Some(_) if schedule.is_over(self.now()) => timer = None,
                Some(timer) => drop(timer.wait()),
                None => {}
            }
        }
        report.elapsed = Duration::from_nanos(self.now() - start);
        report.own_cpu = cpu::of_this_thread()? - cpu;
        assert_eq!(report.done + report.failed, schedule.issued(), "L1");
        Ok(report)
    }

    /// Edge-triggered: a connection is read until it has nothing more, and told when it takes more.
    fn register(&self, connection: &Connection, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        Ok(self.epoll.add(connection, EpollEvent::new(flags, token))?)
    }

    /// Wakes the loop when a request is due, if that is not for an answer to say.
    fn timer(&self, pace: Pace) -> io::Result<Option<TimerFd>> {
        let Pace::Open(per_second) = pace else {
            return Ok(None);
        };
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        let interval = TimeSpec::from(Duration::from_secs(1) / per_second);
        timer.set(Expiration::Interval(interval), TimerSetTimeFlags::empty())?;
        let flags = EpollFlags::EPOLLIN;
        self.epoll.add(&timer, EpollEvent::new(flags, TIMER))?;
        Ok(Some(timer))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).expect("584 years")
    }

    /// Gives idle clients what is due.
    fn issue(&mut self, work: &Work, schedule: &mut Schedule) -> io::Result<()> {
        while let Some(&(at, slot)) = self.idle.last() {
            if self.connections[at].is_spent() {
                // Its other clients will be answered, and it replaced.
                break;
            }
            let Some(due) = schedule.take(self.now()) else {
                break;
            };
            self.idle.pop();
            self.request(work, schedule, (at, slot), due);
            self.connections[at].flush()?;
        }
        Ok(())
    }

    fn request(&mut self, work: &Work, schedule: &Schedule, (at, slot): (usize, usize), due: u64) {
        let rng = &mut self.rng;
        let template = work.choose(rng);
        let key = work.keys.choose(schedule.issued() - 1, rng);
        let connection = &mut self.connections[at];
        connection.due[slot] = due;
        connection.request(slot, template, false, |out| {
            template.write(key, due, rng, out)
        });
    }

    /// Waits until something has come, and deals with it.
    fn turn(
        &mut self,
        mut work: Option<(&Work, &mut Schedule)>,
        report: &mut Report,
    ) -> io::Result<()> {
        let mut ready = [EpollEvent::empty(); 128];
        let count = match self.epoll.wait(&mut ready, EpollTimeout::from(SILENCE_MS)) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the server is silent",
                ));
            }
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for token in ready[..count].iter().map(EpollEvent::data) {
            let at = (token & (WATCHER - 1)) as usize;
            if token == TIMER {
                continue;
            } else if token & WATCHER != 0 {
                self.told(at, report)?;
            } else if let Some((work, schedule)) = &mut work {
                self.answered(at, work, schedule, report)?;
            }
        }
        Ok(())
    }

    /// Reads a connection's answers, and makes the next requests on it.
    fn answered(
        &mut self,
        at: usize,
        work: &Work,
        schedule: &mut Schedule,
        report: &mut Report,
    ) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        self.connections[at].receive(&mut self.buffer, &mut events)?;
        let now = self.now();
        for event in events.drain(..) {
            let Event::Done { slot, result } = event else {
                continue;
            };
            match result {
                Ok(()) => {
                    report.done += 1;
                    report
                        .latencies
                        .record(now - self.connections[at].due[slot]);
                }
                Err(text) => {
                    report.failed += 1;
                    report.failure.get_or_insert(text);
                }
            }
            let due = if self.connections[at].is_spent() {
                None
            } else {
                schedule.take(now)
            };
            match due {
                Some(due) => self.request(work, schedule, (at, slot), due),
                None => self.idle.push((at, slot)),
            }
        }
        self.events = events;
        if self.connections[at].is_spent() && self.connections[at].is_quiet() {
            self.renew(at, work)?;
        }
        self.connections[at].flush()
    }

    /// Replaces a connection that can carry no more requests.
    fn renew(&mut self, at: usize, work: &Work) -> io::Result<()> {
        let (_, template) = &work.templates[0];
        let connection = Connection::open(self.port, self.spread.clients, template)?;
        self.register(&connection, at as u64)?;
        self.connections[at] = connection;
        Ok(())
    }

    /// Reads what a watcher is told.
    fn told(&mut self, at: usize, report: &mut Report) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        self.watchers[at].receive(&mut self.buffer, &mut events)?;
        self.watchers[at].flush()?;
        let now = self.now();
        for event in events.drain(..) {
            let message = match event {
                Event::Message(message) => message,
                Event::Done { result, .. } => {
                    return Err(io::Error::other(format!("a watch ended: {result:?}")));
                }
            };
            let told = watch::read(&message).filter(|told| !told.is_canceled);
            let told = told.ok_or_else(|| io::Error::other("a watch was canceled"))?;
            report.created += u64::from(told.is_created);
            report.told += told.events;
            if let Some(due) = told.due {
                report.told_latencies.record(now.saturating_sub(due));
            }
        }
        self.events = events;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Generator, Spread};
    use crate::http2::{DATA, END_HEADERS, END_OR_ACK, HEADERS, PREFACE, read_frame, write_frame};
    use crate::template::Template;
    use crate::work::{Keys, Pace, Until, Work};

    /// Answers each call with an empty message and status 0.
    fn serve(mut socket: TcpStream) {
        let (mut bytes, mut buffer, mut greeted) = (Vec::new(), [0; 4096], false);
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            bytes.extend(&buffer[..count]);
            if !greeted && bytes.len() >= PREFACE.len() {
                assert_eq!(bytes.drain(..PREFACE.len()).as_slice(), PREFACE);
                greeted = true;
            }
            let mut out = Vec::new();
            while let Some((frame, rest)) = read_frame(&bytes).filter(|_| greeted) {
                if frame.kind == DATA && frame.flags & END_OR_ACK != 0 {
                    write_frame(&mut out, HEADERS, END_HEADERS, frame.id, &[0x88]);
                    write_frame(&mut out, DATA, 0, frame.id, &[0; 5]);
                    let status = b"\0\x0bgrpc-status\x010";
                    write_frame(
                        &mut out,
                        HEADERS,
                        END_HEADERS | END_OR_ACK,
                        frame.id,
                        status,
                    );
                }
                bytes = rest.to_vec();
            }
            // A client that has gone needs no answer.
            drop(socket.write_all(&out));
        }
    }

    #[test]
    fn a_spent_connection_is_replaced() {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(|| serve(socket));
            }
        });
        let template = Template::grpc("/S/M", &[], 0);
        let spread = Spread {
            connections: 2,
            clients: 3,
        };
        let mut generator = Generator::connect(port, spread, &template).expect("it listens");
        let work = Work {
            templates: vec![(1, template)],
            keys: Keys::Any(1),
            pace: Pace::Closed,
            until: Until::Count(1000),
        };
        let report = generator.run(&work).expect("answers");
        assert_eq!(
            (report.done, report.failed),
            (1000, 0),
            "{:?}",
            report.failure
        );
        // In tests a connection has ids for 21 calls.
        assert!(CONNECTIONS.load(Ordering::Relaxed) >= 1000 / 21);
    }
}
