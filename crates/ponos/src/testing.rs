//! Whole systems in one process, on a clock of their own: no sleeps, no servers, no flakes.
//!
//! A [`System`] runs any number of real services on the in-memory broker. Its clock is virtual and its own: it moves
//! only when every handler waits for a timer of Ponos (a retry's delay, a rate limit, an open circuit, `cx.sleep`), so
//! a handler that awaits a real socket never sees its timeout fire early. Publish, wait until everything has
//! [`settled`](System::settled), then look at the cascade as a tree.
//!
//! ```
//! use ponos::prelude::*;
//! use ponos::testing::System;
//!
//! # #[event("order.placed")] pub struct OrderPlaced { pub id: u64 }
//! # #[event("parcel.sent")] pub struct ParcelSent { pub id: u64 }
//! # #[app("shop")] pub struct Shop;
//! # #[task("shop.parcel.send", app = Shop, emits(ParcelSent))] pub struct ParcelSend { pub id: u64 }
//! # fn send_what_was_ordered(e: OrderPlaced) -> ParcelSend { ParcelSend { id: e.id } }
//! async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome {
//!     if cx.attempt() < 3 {
//!         Err("the carrier is busy")?;
//!     }
//!     cx.emit(ParcelSent { id: t.id })?;
//!     Ok(())
//! }
//! # fn service() -> Service<Shop> { Service::new().on(send_what_was_ordered).task(send, |p| p) }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let system = System::seeded(1).service(service(), ()).start().await;
//! let tid = system.emit(OrderPlaced { id: 7 }).await;
//! system.settled().await;
//! assert_eq!(system.cascade(&tid).await.to_string(), "\
//! ◇ order.placed
//! └ shop → on order.placed — done
//!   └ ▸ shop.parcel.send — done, attempt 3 (error ×2)
//!     └ ◇ parcel.sent — nobody listens");
//! # }
//! ```
//!
//! # Limits
//!
//! Run it on tokio's ordinary clock, not under `start_paused`. A handler that waits for another handler through a
//! channel counts as waiting for something outside, and the clock stands still until it goes on.

pub mod conformance;
mod faults;
mod faulty;
pub mod history;
mod manual_clock;
pub(crate) mod process;
pub mod simulation;

pub use faults::{Fault, Faults};
pub use faulty::FaultyBroker;
pub use history::History;
pub use simulation::Simulation;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{Broker as _, Inspect};
use ponos_core::envelope::Envelope;
use ponos_core::id::Tid;
use ponos_core::journal::{JournalQuery, Record};
use ponos_core::name::{AppName, QueueName};
use ponos_core::policy::Moment;

use crate::broker::memory::{MemoryBroker, Rough};
use crate::clock::Clock;
use crate::clock::virtual_time::{HORIZON, Stillness, VirtualClock};
use crate::context::Local;
use crate::failed::FailedJobs;
use crate::message::{App, Event, Task};
use crate::publisher::Publisher;
use crate::service::policy::NpmFallbacks;
use crate::service::{Running, Service, start};
use crate::trace::Cascade;

pub use self::manual_clock::ManualClock;

/// How long of real time a system may be busy, or wait for something outside, before a test is told why.
const PATIENCE: Duration = Duration::from_secs(30);

/// A system that is being put together.
#[must_use = "a system does nothing until it is started"]
pub struct SystemBuilder {
    seed: u64,
    rough: Option<Rough>,
    services: Vec<Launch>,
    #[cfg(feature = "reqwest")]
    http: crate::http::HttpOptions,
}

/// Starts one service of a system.
type Launch = Box<dyn FnOnce(Setting) -> Pin<Box<dyn Future<Output = Box<dyn AnyRunning>>>>>;

/// What a service of a system starts with.
struct Setting {
    clock: Clock,
    broker: MemoryBroker,
    #[cfg(feature = "reqwest")]
    http: crate::http::HttpOptions,
}

impl std::fmt::Debug for SystemBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemBuilder")
            .field("seed", &self.seed)
            .field("services", &self.services.len())
            .finish_non_exhaustive()
    }
}

impl SystemBuilder {
    /// Adds a service with its state.
    ///
    /// # Panics
    ///
    /// When the system is started and the service's definition has a problem.
    pub fn service<A: App>(mut self, service: Service<A>, state: A::State) -> Self {
        self.services.push(Box::new(move |setting| {
            Box::pin(async move {
                #[cfg(feature = "reqwest")]
                let service = service.stubbed(&setting.http);
                let broker = crate::Broker::from(Arc::new(setting.broker));
                match start(service, state, broker, setting.clock, Ok(NpmFallbacks::default())).await {
                    Ok(running) => Box::new(running) as Box<dyn AnyRunning>,
                    Err(error) => panic!("{error}"),
                }
            })
        }));
        self
    }

    /// Makes the broker behave as one across a network may: refuse, lose, repeat, block.
    pub fn rough(self) -> Self {
        let rough = Rough::seeded(self.seed);
        self.rough_as(rough)
    }

    /// As [`rough`](Self::rough), with faults of this kind and number.
    pub fn rough_as(mut self, rough: Rough) -> Self {
        self.rough = Some(rough);
        self
    }

    /// Answers every request of `cx.http()` instead of the network.
    #[cfg(feature = "reqwest")]
    pub fn http<F, Fut>(mut self, stub: F) -> Self
    where
        F: Fn(reqwest::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<http::Response<Vec<u8>>, String>> + Send + 'static,
    {
        self.http = self.http.stub(stub);
        self
    }

    /// Starts all services.
    ///
    /// # Panics
    ///
    /// When a service's definition has a problem.
    pub async fn start(self) -> System {
        let time = Arc::new(VirtualClock::default());
        let clock = Clock::simulated(Arc::clone(&time), self.seed);
        let broker = MemoryBroker::with_clock(clock.clone(), self.rough);
        let mut services = Vec::new();
        for launch in self.services {
            let setting = Setting {
                clock: clock.clone(),
                broker: broker.clone(),
                #[cfg(feature = "reqwest")]
                http: self.http.clone(),
            };
            services.push(launch(setting).await);
        }
        let outside = Local::new(AppName::from_checked("outside"), clock.clone()).telling(&broker);
        let publisher = Publisher::new(Arc::new(outside), Arc::new(broker.clone()));
        System { time, broker, services, publisher }
    }
}

/// A service at work whose application is forgotten.
trait AnyRunning {
    fn app(&self) -> &'static str;
    fn served(&self) -> Vec<QueueName>;
    fn shutdown(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>>;
}

impl<A: App> AnyRunning for Running<A> {
    fn app(&self) -> &'static str {
        A::NAME
    }

    fn served(&self) -> Vec<QueueName> {
        Running::served(self)
    }

    fn shutdown(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move { Running::shutdown(*self).await })
    }
}

/// Several services at work on one broker in memory and one virtual clock.
pub struct System {
    time: Arc<VirtualClock>,
    broker: MemoryBroker,
    services: Vec<Box<dyn AnyRunning>>,
    publisher: Publisher<()>,
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let apps: Vec<_> = self.services.iter().map(|service| service.app()).collect();
        f.debug_struct("System")
            .field("services", &apps)
            .field("elapsed", &self.elapsed())
            .finish_non_exhaustive()
    }
}

impl System {
    /// A system whose chance (jitter, ids, faults) is drawn from `seed`: the same seed gives the same run.
    pub fn seeded(seed: u64) -> SystemBuilder {
        SystemBuilder {
            seed,
            rough: None,
            services: Vec::new(),
            #[cfg(feature = "reqwest")]
            http: crate::http::HttpOptions::default(),
        }
    }

    /// Emits an event from outside, as the start of a new chain, and gives its transaction id.
    ///
    /// # Panics
    ///
    /// When the event cannot be published.
    pub async fn emit<E: Event>(&self, event: E) -> Tid {
        let emitted = self.driving(self.publisher.emit_any(&event)).await;
        emitted.unwrap_or_else(|error| panic!("{error}")).tid
    }

    /// Creates a task in its application's name, as the start of a new chain, and gives its transaction id.
    ///
    /// # Panics
    ///
    /// When the task cannot be published.
    pub async fn create<T: Task>(&self, task: T) -> Tid {
        let created = self.driving(self.publisher.create_any(&task)).await;
        created.unwrap_or_else(|error| panic!("{error}")).tid
    }

    /// Waits until nothing is left to do: every queue that a running service works is empty, whatever has to be waited
    /// for in virtual time. Jobs of stopped services, and of queues that an order holds, stay where they are.
    ///
    /// # Panics
    ///
    /// When a handler waits for something outside for more than 30 s of real time, or when after 400 days of virtual
    /// time something is still not done.
    pub async fn settled(&self) {
        let horizon = self.time.now() + HORIZON;
        loop {
            self.still().await;
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(
                self.time.now() < horizon,
                "not settled after 400 days of virtual time; messages left: {left:?}"
            );
            assert!(
                self.time.advance(),
                "nothing moves any more, and no timer is set; messages left: {left:?}"
            );
        }
    }

    /// Lets `time` pass, with everything that happens in it.
    ///
    /// # Panics
    ///
    /// As [`settled`](Self::settled).
    pub async fn advance(&self, time: Duration) {
        let target = self.time.now() + time;
        loop {
            self.still().await;
            if !self.time.advance_within(target) {
                break;
            }
        }
        self.time.advance_to(target);
        self.still().await;
    }

    /// How much virtual time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.time.now().since(Moment::ORIGIN)
    }

    /// Everything that one transaction has set off, as a tree.
    pub async fn cascade(&self, tid: &Tid) -> Cascade {
        Cascade::from_records(self.read(JournalQuery::Tid(tid.clone())).await)
    }

    /// All records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        self.read(JournalQuery::Last(usize::MAX)).await
    }

    /// The failed jobs of an application, oldest first.
    pub async fn failed<A: App>(&self) -> Vec<Envelope> {
        let jobs = FailedJobs::new(Arc::new(self.broker.clone()), AppName::from_checked(A::NAME));
        jobs.list(usize::MAX, None).await.unwrap_or_default()
    }

    /// The broker, to look into.
    #[must_use]
    pub fn broker(&self) -> Arc<MemoryBroker> {
        Arc::new(self.broker.clone())
    }

    /// Shuts the services of an application down, gracefully. What happens next waits for them in their queues.
    pub async fn stop<A: App>(&mut self) {
        let (stopping, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.services).into_iter().partition(|service| service.app() == A::NAME);
        self.services = others;
        for service in stopping {
            self.driving(service.shutdown()).await;
        }
    }

    /// Starts another service, or one that was stopped.
    ///
    /// # Panics
    ///
    /// When the service's definition has a problem.
    pub async fn add<A: App>(&mut self, service: Service<A>, state: A::State) {
        let clock = self.publisher.clock();
        let broker = crate::Broker::from(self.broker());
        let started = start(service, state, broker, clock, Ok(NpmFallbacks::default())).await;
        self.services.push(Box::new(started.unwrap_or_else(|error| panic!("{error}"))));
    }

    async fn read(&self, query: JournalQuery) -> Vec<Record> {
        let journal = self.broker.journal();
        let Some(journal) = journal else { return Vec::new() };
        ponos_core::journal::read(&*journal, &query).await.unwrap_or_default()
    }

    /// Messages in queues that are worked.
    fn left(&self) -> Vec<(QueueName, usize)> {
        let served: Vec<_> = self.services.iter().flat_map(|service| service.served()).collect();
        self.broker.messages_in(served.iter())
    }

    /// Awaits something that needs the clock to move.
    async fn driving<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = self.still() => {
                    self.time.advance();
                }
            }
        }
    }

    /// Waits until nothing can happen unless the clock moves.
    async fn still(&self) {
        loop {
            let waiting = match self.time.stillness() {
                Stillness::Still(epoch) => {
                    // The runtime may owe a task a wake-up that it puts off until the end of a turn.
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    if self.time.stillness() == Stillness::Still(epoch) {
                        return;
                    }
                    continue;
                }
                Stillness::Active => Vec::new(),
                Stillness::Outside(queues) => queues,
            };
            if tokio::time::timeout(PATIENCE, self.time.became_idle()).await.is_err() {
                assert!(
                    waiting.is_empty(),
                    "for {PATIENCE:?} handlers of {waiting:?} have waited for something that is no timer of Ponos: \
                     use `cx.sleep` to wait, and answer HTTP with `.http(stub)`"
                );
                panic!("a handler has kept the system busy for {PATIENCE:?}: does it loop, or block?");
            }
        }
    }
}

/// What became of the queues of an application, for assertions about what waits.
impl System {
    /// The figures of an application's queues, by name.
    pub async fn queues<A: App>(&self) -> Vec<ponos_core::broker::QueueStats> {
        let query = Inspect::Queues(Some(AppName::from_checked(A::NAME)));
        self.broker.inspect(query).await.map(ponos_core::broker::Inspection::into_queues).unwrap_or_default()
    }
}
