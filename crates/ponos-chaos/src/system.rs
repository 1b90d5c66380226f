//! A run while it goes on: the broker, the processes, the ledger, and the jobs that are given to the publishers.

mod end;
mod feed;
mod fleet;
mod site;

use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fastrand::Rng;

pub(crate) use feed::Load;
pub(crate) use fleet::Process;
pub(crate) use site::{BrokerKind, Site};

use self::feed::Feed;
use self::fleet::{Fleet, WorkerOptions};
use crate::ledger::{Book, Entry, Ledger, Micros, Scope, now};
use crate::scenarios::Figures;

/// Everything that a scenario acts on. Its methods block.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) site: Site,
    /// Drawn from the seed; nothing else in the driver is left to chance.
    pub(crate) chance: Rng,
    pub(crate) figures: Figures,
    /// What workers are started with; a scenario may change it before it starts them.
    pub(crate) worker: WorkerOptions,
    /// Where the processes that are started from now on find the broker; a scenario may put a relay before it.
    pub(crate) url: String,
    ledger: Ledger,
    fleet: Fleet,
    feed: Feed,
    faults: u32,
    began: Instant,
}

impl System {
    /// Starts the ledger, and nothing else yet.
    pub(crate) fn start(
        site: Site,
        dir: &Path,
        scenario: &str,
        seed: u64,
        figures: Figures,
    ) -> anyhow::Result<Self> {
        let mut fleet = Fleet::new(dir)?;
        fleet.start_ledger()?;
        let ledger = Ledger::connect(dir, 0)?;
        let broker = site.kind().to_string();
        ledger.write(Entry::Begun { seed, scenario: scenario.to_owned(), broker });
        let feed = Feed::start(dir, seed, Load::of(&figures))?;
        Ok(Self {
            url: site.url(),
            site,
            chance: Rng::with_seed(seed),
            worker: WorkerOptions::of(&figures),
            figures,
            ledger,
            fleet,
            feed,
            faults: 0,
            began: Instant::now(),
        })
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.fleet.dir().to_owned()
    }

    /// What the ledger says at this moment. Hold it briefly: jobs are given out under the same lock.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.feed.book()
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Starts so many workers beside those that are there.
    pub(crate) fn start_workers(&mut self, count: u32) -> anyhow::Result<()> {
        (0..count).try_for_each(|_| self.fleet.start_worker(&self.url, &self.worker))
    }

    /// Starts a publisher, which is given jobs as soon as it is there.
    pub(crate) fn start_publisher(&mut self) -> anyhow::Result<()> {
        let input = self.fleet.start_publisher(&self.url, &self.worker, self.figures.open)?;
        self.feed.add(input);
        Ok(())
    }

    /// Workers and a publisher, and waits until they have done something. The publisher comes when every worker has
    /// said what it listens to: an event that nobody hears yet goes to nobody.
    pub(crate) fn start_load(&mut self) -> anyhow::Result<()> {
        // The first one alone declares the queues: RabbitMQ 3.10.8 answers some who declare the same ones at the same
        // moment with an internal error, and closes their connection.
        let (first, rest) = (1.min(self.figures.workers), self.figures.workers.saturating_sub(1));
        for count in [first, rest] {
            self.start_workers(count)?;
            let workers = self.workers();
            self.until("the workers", |book| workers.iter().all(|number| book.up.contains_key(number)))?;
        }
        self.start_publisher()?;
        self.until("the first jobs", |book| book.ended > 0)
    }

    /// The workers that are there.
    pub(crate) fn workers(&self) -> Vec<u32> {
        self.fleet.numbers("worker")
    }

    /// The publishers that are there.
    pub(crate) fn publishers(&self) -> Vec<u32> {
        self.fleet.numbers("publisher")
    }

    /// A process by its number.
    pub(crate) fn process(&mut self, number: u32) -> anyhow::Result<&mut Process> {
        self.fleet.get(number).with_context(|| format!("process {number} is not there"))
    }

    /// Takes a process that has ended out of the system: nothing is given to it any more.
    pub(crate) fn forget(&mut self, number: u32) {
        self.feed.remove(number);
        self.fleet.forget(number);
    }

    /// No further job is given to anybody.
    pub(crate) fn stop_feeding(&self) {
        self.feed.set(|load| load.until = 0);
    }

    /// Writes down what each process needs of its machine.
    pub(crate) fn sample(&mut self) {
        for process in self.workers().into_iter().chain(self.publishers()) {
            let sample = self.fleet.get(process).and_then(|process| process.sample());
            if let Some((rss_kib, fds)) = sample {
                self.ledger.write(Entry::Sample { process, rss_kib, fds });
            }
        }
    }

    /// Workers that ended by themselves since the last call; they are forgotten.
    pub(crate) fn fallen(&mut self) -> Vec<u32> {
        let fallen = self.fleet.fallen();
        fallen.iter().for_each(|number| self.forget(*number));
        fallen
    }

    /// Writes down that a fault begins; give the number to [`over`](Self::over).
    pub(crate) fn fault(&mut self, kind: &str, scope: Scope, what: impl Into<String>) -> u32 {
        self.fault_at(now(), kind, scope, what)
    }

    /// The same for a fault that began at another time.
    pub(crate) fn fault_at(&mut self, at: Micros, kind: &str, scope: Scope, what: impl Into<String>) -> u32 {
        self.faults += 1;
        let fault = self.faults;
        self.ledger.write_at(at, Entry::Fault { fault, kind: kind.to_owned(), scope, what: what.into() });
        fault
    }

    /// The fault is taken back or complete.
    pub(crate) fn over(&self, fault: u32) {
        self.ledger.write(Entry::Over { fault });
    }

    /// Whether the run must go on: there were not enough jobs, `faults` are not enough faults, or it is too early.
    pub(crate) fn must_go_on(&self, faults: u32) -> bool {
        self.book().confirmed < self.figures.jobs
            || faults < self.figures.faults
            || self.began.elapsed() < self.figures.time
    }

    /// Waits for a time by chance, which is no synchronisation: the moment must not depend on what the others do.
    pub(crate) fn wait(&mut self, least: Duration, most: Duration) {
        let span = u64::try_from((most - least).as_micros()).unwrap_or(u64::MAX);
        let extra = Duration::from_micros(self.chance.u64(..=span));
        std::thread::sleep(least + extra);
    }

    /// The pause between two faults: about a share of the time that the run is to take, so that they fill it.
    pub(crate) fn wait_between(&mut self) {
        let (least, most) = self.figures.between;
        self.wait(least, most);
    }

    /// Waits for something that the ledger shows, as long as there is progress.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Book) -> bool) -> anyhow::Result<()> {
        let mut moved = (Instant::now(), (0, 0));
        loop {
            let state = {
                let book = self.book();
                if is_so(&book) {
                    return Ok(());
                }
                (book.confirmed, book.ended)
            };
            if state != moved.1 {
                moved = (Instant::now(), state);
            }
            if let Some(problem) = self.feed.problem() {
                bail!("the ledger cannot be followed: {problem}");
            }
            if moved.0.elapsed() >= self.figures.patience {
                let (confirmed, ended) = state;
                bail!(
                    "nothing has moved for {:?}, waiting for {what}: {confirmed} confirmed, {ended} ended",
                    self.figures.patience
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
