//! Services on a broker that fails, with everything random drawn from one seed.
//!
//! A [`Simulation`] runs instances of real services in one process, on one thread and on a virtual clock. Between them and
//! the broker in memory lies a [`FaultyBroker`]. The seed chooses the load, how long each way takes, in which order tasks
//! go on, which [`Fault`] happens where, and what the handlers of a test do with [`Load::draw`]. So a run is a function of
//! its seed, and what went wrong once goes wrong again.
//!
//! When the load has ended, the faults do too, and all that is left must come to an end. Then [`invariants`] are checked
//! against the [`History`], and those that a test adds of its own.
//!
//! ```
//! use ponos::prelude::*;
//! use ponos::testing::{Faults, Simulation};
//!
//! # #[event("order.placed")] pub struct OrderPlaced { pub id: u64 }
//! # #[event("parcel.sent")] pub struct ParcelSent { pub id: u64 }
//! # #[app("shop")] pub struct Shop;
//! # #[task("shop.parcel.send", app = Shop, emits(ParcelSent))] pub struct ParcelSend { pub id: u64 }
//! # fn send_what_was_ordered(e: OrderPlaced) -> ParcelSend { ParcelSend { id: e.id } }
//! # async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome { cx.emit(ParcelSent { id: t.id })?; Ok(()) }
//! # fn service() -> Service<Shop> { Service::new().on(send_what_was_ordered).task(send, |p| p) }
//! let run = Simulation::seeded(7)
//!     .faults(Faults::swarm(7))
//!     .instances(2, || (service(), ()))
//!     .load(|mut load| async move {
//!         for id in 0..5 {
//!             load.emit(OrderPlaced { id }).await;
//!             let pause = millis(load.draw(500));
//!             load.pause(pause).await;
//!         }
//!     })
//!     .run();
//! assert!(run.violations.is_empty(), "{run}");
//! ```

mod explore;
pub mod invariants;
mod load;

pub use explore::{Explored, Failure, explore};
pub use load::Load;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ponos_core::broker::{BoxFuture, Inspect};
use ponos_core::policy::Moment;

use self::invariants::Violation;
use super::faults::{Fault, Faults};
use super::faulty::FaultyBroker;
use super::history::{Happened, History};
use crate::broker::memory::MemoryBroker;
use crate::clock::Clock;
use crate::clock::virtual_time::{Stillness, VirtualClock};
use crate::message::App;
use crate::service::policy::NpmFallbacks;
use crate::service::{Running, Service, StartError, start};

/// How long faults have ended before all must be done: what is on its way may need so long.
const QUIET: Duration = Duration::from_secs(180);

/// How long what is left may take to come to an end.
const HORIZON: Duration = Duration::from_secs(10 * 86_400);

/// How many entries a history may have: what goes on and on comes to no end, however far time is moved.
const LONGEST: usize = 50_000;

/// How long a process may live before it dies or is restarted at any moment.
const LIFE: Duration = Duration::from_secs(60);

/// How long a process is away between two lives.
const AWAY: Duration = Duration::from_secs(5);

/// Services, a load, faults and a seed.
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation {
    seed: u64,
    faults: Faults,
    instances: Vec<(&'static str, Launch)>,
    loads: Vec<LoadFn>,
    oracles: Vec<Oracle>,
}

type Launch = Arc<dyn Fn(Clock, crate::Broker) -> Starting + Send + Sync>;
type Starting = BoxFuture<'static, Result<Box<dyn Alive>, StartError>>;
type LoadFn = Box<dyn FnOnce(Load) -> BoxFuture<'static, ()>>;
type Oracle = (String, Box<dyn Fn(&History) -> Result<(), String>>);

/// A service at work whose application is forgotten.
trait Alive: Send {
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, ()>;
}

impl<A: App> Alive for Running<A> {
    fn shutdown(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(Self::shutdown(*self))
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("seed", &self.seed)
            .field("faults", &self.faults)
            .field("instances", &self.instances.len())
            .finish_non_exhaustive()
    }
}

/// What became of a simulation.
#[derive(Debug)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// What happened.
    pub history: History,
    /// What should not have.
    pub violations: Vec<Violation>,
    /// How much virtual time has passed.
    pub elapsed: Duration,
}

impl fmt::Display for Run {
    /// The violations, and the history of the first message that one is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} violations", self.seed, self.violations.len())?;
        self.violations.iter().take(20).try_for_each(|violation| writeln!(f, "  {violation}"))?;
        match self.violations.iter().find_map(|violation| violation.message) {
            None => Ok(()),
            Some(id) => write!(f, "the history of {id}:\n{}", self.history.of(id)),
        }
    }
}

impl Simulation {
    /// A simulation in which everything random is drawn from `seed`, with [`Faults::seeded`].
    pub fn seeded(seed: u64) -> Self {
        let faults = Faults::seeded(seed);
        Self { seed, faults, instances: Vec::new(), loads: Vec::new(), oracles: Vec::new() }
    }

    /// What goes wrong.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Adds so many instances of a service. Each life of each of them is made by `make`.
    pub fn instances<A: App>(
        mut self,
        count: usize,
        make: impl Fn() -> (Service<A>, A::State) + Send + Sync + 'static,
    ) -> Self {
        let launch: Launch = Arc::new(move |clock, broker| {
            let (service, state) = make();
            Box::pin(async move {
                let running = start(service, state, broker, clock, Ok(NpmFallbacks::default())).await?;
                Ok(Box::new(running) as Box<dyn Alive>)
            })
        });
        self.instances.extend((0..count).map(|_| (A::NAME, Arc::clone(&launch))));
        self
    }

    /// Adds a source of events and tasks. Several of them run side by side.
    pub fn load<Fut>(mut self, load: impl FnOnce(Load) -> Fut + 'static) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.loads.push(Box::new(move |handle| Box::pin(load(handle))));
        self
    }

    /// Adds an invariant of your own, checked at the end.
    pub fn invariant(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&History) -> Result<(), String> + 'static,
    ) -> Self {
        self.oracles.push((name.into(), Box::new(holds)));
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    ///
    /// When no runtime can be made, or a handler waits for anything but a timer of Ponos.
    #[must_use]
    pub fn run(self) -> Run {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap_or_else(|error| panic!("no runtime: {error}")).block_on(self.drive())
    }

    async fn drive(self) -> Run {
        let time = Arc::new(VirtualClock::stepping());
        let clock = Clock::simulated(Arc::clone(&time), self.seed);
        let inner = Arc::new(MemoryBroker::with_clock(clock.clone(), None));
        let broker = FaultyBroker::on(clock.clone(), inner, self.faults);
        let history = broker.history();
        let mut stage = Stage { time, random: fastrand::Rng::with_seed(self.seed ^ 0x57e9) };
        for (number, (app, launch)) in self.instances.into_iter().enumerate() {
            clock.spawn(keep(format!("{app}-{}", number + 1), launch, broker.clone(), clock.clone()));
        }
        let loading = Arc::new(AtomicUsize::new(self.loads.len()));
        for (number, load) in self.loads.into_iter().enumerate() {
            let handle = Load::new(number + 1, self.seed, broker.clone(), clock.clone());
            let (work, loading) = (load(handle), Arc::clone(&loading));
            clock.spawn(async move {
                work.await;
                loading.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let stuck = stage.play(&broker, &loading).await;
        let mut violations: Vec<Violation> = stuck.into_iter().collect();
        violations.extend(invariants::check(&history));
        for (name, holds) in &self.oracles {
            if let Err(problem) = holds(&history) {
                violations.push(Violation { rule: name.clone(), message: None, problem });
            }
        }
        // What ends when the runtime goes away is no part of the history.
        let history = history.snapshot();
        Run { seed: self.seed, history, violations, elapsed: stage.elapsed() }
    }
}

/// Moves time, and lets one task after the other go on.
struct Stage {
    time: Arc<VirtualClock>,
    random: fastrand::Rng,
}

impl Stage {
    fn elapsed(&self) -> Duration {
        self.time.now().since(Moment::ORIGIN)
    }

    /// Plays until the load has ended and then until nothing is left; what is left although it should not be.
    async fn play(&mut self, broker: &FaultyBroker, loading: &AtomicUsize) -> Option<Violation> {
        let mut quiet = None;
        loop {
            self.still().await;
            if broker.history().len() > LONGEST {
                return Some(stuck("it goes on and on"));
            }
            if quiet.is_none() && loading.load(Ordering::Relaxed) == 0 {
                broker.heal();
                quiet = Some(self.time.now() + QUIET);
            }
            let Some(quiet) = quiet else {
                if !self.time.advance() || self.elapsed() > HORIZON {
                    return Some(stuck("the load does not end"));
                }
                continue;
            };
            if self.time.now() < quiet {
                if !self.time.advance_within(quiet) {
                    self.time.advance_to(quiet);
                }
                continue;
            }
            let left = left(broker).await;
            if left.is_empty() {
                return None;
            }
            if !self.time.advance() || self.elapsed() > HORIZON {
                return Some(stuck(&format!("not drained, these are left: {left:?}")));
            }
        }
    }

    /// Lets tasks go on, in an order drawn from the seed, until all wait for the clock.
    async fn still(&mut self) {
        let mut idle = 0;
        while idle < 3 {
            if self.time.is_busy() || !self.time.step(|tasks| self.random.usize(0..tasks)) {
                // Twice more: what was cut off goes away without being woken.
                idle = if self.time.is_busy() { 0 } else { idle + 1 };
                tokio::task::yield_now().await;
            } else {
                idle = 0;
            }
        }
        if let Stillness::Outside(queues) = self.time.stillness() {
            panic!("handlers of {queues:?} wait for something that is no timer of Ponos: use `cx.sleep`");
        }
    }
}

fn stuck(problem: &str) -> Violation {
    Violation { rule: "I9: after the end queues are empty".into(), message: None, problem: problem.into() }
}

/// What is in queues that are not for failed jobs.
async fn left(broker: &FaultyBroker) -> Vec<(String, u64)> {
    let queues = broker.inner().inspect(Inspect::Queues(None)).await;
    let queues = queues.map(ponos_core::broker::Inspection::into_queues).unwrap_or_default();
    let failed = |name: &str| name.ends_with(".failed");
    queues
        .into_iter()
        .map(|stats| (stats.queue.to_string(), stats.messages()))
        .filter(|(name, messages)| *messages > 0 && !failed(name))
        .collect()
}

/// Keeps an instance of a service alive, from one death to the next.
async fn keep(name: String, launch: Launch, broker: FaultyBroker, clock: Clock) {
    let world = Arc::clone(&broker.process.world);
    for life in 1_u32.. {
        let handle = broker.process(&format!("{name}.{life}"));
        let process = &handle.process;
        process.record(Happened::Began);
        let starting = launch(clock.of(Arc::clone(process)), Arc::new(handle.clone()).into());
        tokio::select! {
            biased;
            () = handle.crashed() => {}
            started = starting => match started {
                Ok(running) => live(running, &handle, &clock).await,
                Err(error) => process.record(Happened::NotStarted(error.to_string())),
            },
        }
        world.sever_process(&process.name, true);
        let away = world.within(AWAY);
        clock.sleep(away).await;
    }
}

/// Lets an instance work until it dies or is restarted.
async fn live(running: Box<dyn Alive>, handle: &FaultyBroker, clock: &Clock) {
    let world = &handle.process.world;
    let fault = [Fault::CrashAnytime, Fault::Restart].into_iter().find(|fault| world.rolls(*fault));
    let Some(fault) = fault else { return handle.crashed().await };
    let at = world.within(LIFE);
    tokio::select! {
        biased;
        () = handle.crashed() => return,
        () = clock.sleep(at) => {}
    }
    if world.is_healed() {
        return handle.crashed().await;
    }
    handle.process.record(Happened::Fault(fault, None));
    if fault == Fault::CrashAnytime {
        handle.crash();
        return;
    }
    tokio::select! {
        biased;
        () = handle.crashed() => {}
        () = running.shutdown() => {}
    }
}
