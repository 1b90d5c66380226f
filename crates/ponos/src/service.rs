//! A service: what it reacts to, what it does, and under which policies. The definition needs no state and no broker.

pub(crate) mod handler;
mod orders;
pub(crate) mod policy;
mod running;

pub use policy::{ReactionPolicy, TaskPolicy};
pub(crate) use running::start;
pub use running::{Running, StartError};

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use ponos_core::manifest::{
    EventManifest, MANIFEST_VERSION, Manifest, OrdersManifest, ReactionManifest, TaskManifest,
};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};
use ponos_core::policy::{BreakerConfig, DEFAULT_HOP_LIMIT, Rate};

use self::handler::{HealthCheck, RecoverFn, TaskFn, blocking_fn, health_fn, reaction_fn, task_fn};
use self::orders::OrdersPolicy;
use self::policy::NpmFallbacks;
use crate::clock::Clock;
use crate::context::TaskCx;
use crate::message::{App, Event, EventInfo, IntoTasks, OwnedBy, Task};
use crate::outcome::Outcome;
use crate::worker::{
    CircuitChange, ErrorReport, ErroredEvents, Hooks, LimitStore, Resolved, RunFn, Undecodable,
};

/// The definition of a service of the application `A`: reactions, tasks and their policies.
///
/// It can be printed as a [`manifest`](Self::manifest), run in a test, or [`run`](Self::run) for real.
///
/// ```
/// # use ponos::prelude::*;
/// # #[event("order.placed")] pub struct OrderPlaced { pub id: u64 }
/// # #[app("shop")] pub struct Shop;
/// # #[task("shop.parcel.send", app = Shop)] pub struct ParcelSend { pub id: u64 }
/// fn send_what_was_ordered(e: OrderPlaced) -> ParcelSend { ParcelSend { id: e.id } }
/// async fn send(t: ParcelSend, cx: TaskCx<ParcelSend>) -> Outcome { Ok(()) }
///
/// let service = Service::<Shop>::new().on(send_what_was_ordered).task(send, |p| p.max_retries(3));
/// assert_eq!(service.manifest().tasks[0].name, "shop.parcel.send");
/// ```
#[must_use = "a service does nothing until it is run"]
pub struct Service<A: App> {
    version: Option<String>,
    reactions: Vec<ReactionDef>,
    tasks: Vec<TaskDef<A>>,
    dependencies: BTreeMap<String, DependencyPolicy<A>>,
    hooks: Hooks,
    errored_events: ErroredEvents,
    /// Whether records are kept.
    lifecycle: bool,
    orders: OrdersPolicy,
    /// What is wrong with the environment.
    problems: Vec<String>,
    hop_limit: u32,
    /// What it shows of itself.
    #[cfg(feature = "metrics")]
    observe: Option<crate::metrics::Observe>,
    #[cfg(feature = "reqwest")]
    http: crate::http::HttpOptions,
    #[cfg(feature = "redis")]
    shared_limits: Option<crate::RedisLimits>,
}

/// A reaction and how its queue is worked.
struct ReactionDef {
    event: EventInfo,
    creates: Vec<&'static str>,
    conditional: bool,
    policy: ReactionPolicy,
    run: RunFn,
}

/// A task, its handler and how its queue is worked.
struct TaskDef<A: App> {
    name: &'static str,
    schema: fn() -> serde_json::Value,
    emits: Vec<EventInfo>,
    /// Fills in the defaults of the task's policy, whose type is forgotten here.
    resolve: Resolve,
    run: TaskFn<A>,
    recover: Option<RecoverFn<A>>,
    health: Option<HealthCheck<A>>,
}

/// Fills in the defaults of a policy, and names its problems.
type Resolve = Box<dyn Fn(&NpmFallbacks, &mut Vec<String>) -> Resolved + Send + Sync>;

/// What the handlers that depend on one thing share.
pub struct DependencyPolicy<A: App> {
    rate: Option<Rate>,
    breaker: Option<BreakerConfig>,
    health: Option<HealthCheck<A>>,
}

impl<A: App> std::fmt::Debug for DependencyPolicy<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DependencyPolicy")
            .field("rate", &self.rate)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

impl<A: App> Default for DependencyPolicy<A> {
    fn default() -> Self {
        Self { rate: None, breaker: None, health: None }
    }
}

impl<A: App> DependencyPolicy<A> {
    /// How many starts are allowed per period, over all its handlers and instances.
    #[must_use]
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// When the listeners are cut off. Default: see [`BreakerConfig`].
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerConfig) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Asks whether the dependency is healthy again while the breaker is open, every 5 s with a limit of 2 s.
    #[must_use]
    pub fn health_check<F, Fut, E>(mut self, check: F) -> Self
    where
        F: Fn(Arc<A::State>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: 'static,
    {
        self.health = Some(health_fn::<A, _, _, _>(check));
        self
    }
}

impl<A: App> std::fmt::Debug for Service<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks: Vec<_> = self.tasks.iter().map(|task| task.name).collect();
        let events: Vec<_> = self.reactions.iter().map(|reaction| reaction.event.name).collect();
        f.debug_struct("Service")
            .field("app", &A::NAME)
            .field("on", &events)
            .field("tasks", &tasks)
            .finish_non_exhaustive()
    }
}

impl<A: App> Default for Service<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: App> Service<A> {
    /// A service that does nothing yet.
    pub fn new() -> Self {
        Self {
            version: None,
            reactions: Vec::new(),
            tasks: Vec::new(),
            dependencies: BTreeMap::new(),
            hooks: Hooks::default(),
            errored_events: ErroredEvents::Off,
            lifecycle: true,
            orders: OrdersPolicy::Follow,
            problems: Vec::new(),
            hop_limit: DEFAULT_HOP_LIMIT,
            #[cfg(feature = "metrics")]
            observe: None,
            #[cfg(feature = "reqwest")]
            http: crate::http::HttpOptions::default(),
            #[cfg(feature = "redis")]
            shared_limits: None,
        }
    }

    /// The version of the service, for traces and reports: usually `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Reacts to an event with tasks of the own application.
    ///
    /// A reaction is a plain function of the event: it is given no state, no clock and no publisher, and can capture
    /// none. What it returns tells which tasks it makes: a task, or an `Option`, a `Vec` or a tuple of tasks.
    pub fn on<E: Event, R: IntoTasks<A> + 'static>(self, reaction: fn(only_the_event: E) -> R) -> Self {
        self.on_with(reaction, |policy| policy)
    }

    /// Reacts to an event, with options for its queue.
    pub fn on_with<E: Event, R: IntoTasks<A> + 'static>(
        mut self,
        reaction: fn(only_the_event: E) -> R,
        policy: impl FnOnce(ReactionPolicy) -> ReactionPolicy,
    ) -> Self {
        self.reactions.push(ReactionDef {
            event: E::info(),
            creates: R::names(),
            conditional: R::conditional(),
            policy: policy(ReactionPolicy::default()),
            run: reaction_fn::<A, E, R>(reaction),
        });
        self
    }

    /// Reacts to an event as a prototype: short for `on_with(reaction, |p| p.prototype())`.
    ///
    /// See [`ReactionPolicy::prototype`].
    pub fn on_prototype<E: Event, R: IntoTasks<A> + 'static>(
        self,
        reaction: fn(only_the_event: E) -> R,
    ) -> Self {
        self.on_with(reaction, ReactionPolicy::prototype)
    }

    /// Serves a task of the own application with `async fn(Task, TaskCx<Task>) -> Outcome`.
    pub fn task<T, F, Fut>(self, handler: F, policy: impl FnOnce(TaskPolicy<T>) -> TaskPolicy<T>) -> Self
    where
        T: OwnedBy<A>,
        F: Fn(T, TaskCx<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static, // over an `.await` hold `Arc`, not `Rc`, and no lock of std
    {
        self.serve(task_fn(handler), policy(TaskPolicy::default()), false)
    }

    /// Serves a task with a function that blocks its thread: `fn(Task, TaskCx<Task>) -> Outcome`.
    ///
    /// It runs on the runtime's pool for blocking work. When its time is up the next attempt may run beside it,
    /// because blocking work cannot be stopped; the log says so.
    pub fn blocking_task<T, F>(self, handler: F, policy: impl FnOnce(TaskPolicy<T>) -> TaskPolicy<T>) -> Self
    where
        T: OwnedBy<A>,
        F: Fn(T, TaskCx<T>) -> Outcome + Send + Sync + 'static,
    {
        self.serve(blocking_fn(handler), policy(TaskPolicy::default()), true)
    }

    fn serve<T: Task<App = A>>(mut self, run: TaskFn<A>, policy: TaskPolicy<T>, blocking: bool) -> Self {
        self.tasks.push(TaskDef {
            name: T::NAME,
            schema: T::schema,
            emits: T::emits(),
            run,
            recover: policy.recover.clone(),
            health: policy.health.clone(),
            resolve: Box::new(move |npm, problems| policy.resolve(blocking, npm, problems)),
        });
        self
    }

    /// What the handlers that `depends_on` this share: one breaker and one rate limit.
    pub fn dependency(
        mut self,
        name: impl Into<String>,
        policy: impl FnOnce(DependencyPolicy<A>) -> DependencyPolicy<A>,
    ) -> Self {
        self.dependencies.insert(name.into(), policy(DependencyPolicy::default()));
        self
    }

    /// Is called after each attempt that failed, before it is settled: for an error reporter. It must not block.
    pub fn on_error(mut self, hook: impl Fn(&ErrorReport<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.error = Some(Arc::new(hook));
        self
    }

    /// Is called with each message that no handler can read. It must not block.
    pub fn on_undecodable(mut self, hook: impl Fn(&Undecodable<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.undecodable = Some(Arc::new(hook));
        self
    }

    /// Is called when a circuit opens, half-opens or closes. It must not block.
    pub fn on_circuit(mut self, hook: impl Fn(&CircuitChange) + Send + Sync + 'static) -> Self {
        self.hooks.circuit = Some(Arc::new(hook));
        self
    }

    /// Emits the npm package's event `worker.errored` when a job fails for good. Default: off.
    pub fn errored_events(mut self, events: ErroredEvents) -> Self {
        self.errored_events = events;
        self
    }

    /// Keeps no records: nothing of this service is seen by `ponos trace` and its siblings. Default: records are kept.
    ///
    /// `PONOS_LIFECYCLE=off` in the environment does the same for every service of a process.
    pub fn without_lifecycle(mut self) -> Self {
        self.lifecycle = false;
        self
    }

    /// Serves metrics and health, from the start until the shutdown has ended. Default: off.
    ///
    /// `PONOS_METRICS_ADDR` in the environment switches it on for every service of a process, says where, or switches it
    /// off: it goes before what is said here.
    #[cfg(feature = "metrics")]
    pub fn observe(mut self, observe: crate::metrics::Observe) -> Self {
        self.observe = Some(observe);
        self
    }

    /// Ignores standing orders (`ponos pause`, `rate`, `circuit`): for a service that must go on whatever others order.
    /// Default: they are carried out. `PONOS_ORDERS=off` says the same for one process, `PONOS_ORDERS=on` takes it back.
    ///
    /// An order that stands is then told in the log, once, as a warning.
    pub fn ignore_orders(mut self) -> Self {
        self.orders = OrdersPolicy::Ignore;
        self
    }

    /// How many messages may lie between a job and the start of its chain; at least 1. Default: 64.
    ///
    /// A job beyond that does not run: it fails at once, as [`GaveUpReason::HopLimit`](crate::core::envelope::GaveUpReason),
    /// so that a loop (an event, a reaction, a task, the event again) comes to an end and is heard of. Its recovery function
    /// runs if it is the first beyond the limit, and not for what that sets off. A retry by hand fails again, until the limit
    /// is raised.
    pub fn hop_limit(mut self, messages: u32) -> Self {
        self.hop_limit = messages;
        self
    }

    /// The options of `cx.http()`: which hosts may see the transaction id.
    #[cfg(feature = "reqwest")]
    pub fn http(mut self, options: crate::http::HttpOptions) -> Self {
        self.http = options;
        self
    }

    /// Keeps the rate limits in Redis, exact over all instances. Default: each instance takes its share of a limit.
    ///
    /// With three instances of which one has jobs, that one starts them at the full rate and not at a third of it. See
    /// [`RedisLimits`](crate::RedisLimits) for what happens when Redis is away.
    #[cfg(feature = "redis")]
    pub fn shared_limits(mut self, limits: crate::RedisLimits) -> Self {
        self.shared_limits = Some(limits);
        self
    }

    /// Where its rate limits are kept besides, or what is wrong with that.
    #[cfg_attr(not(feature = "redis"), expect(unused_variables, reason = "nothing is kept elsewhere"))]
    fn limit_store(&self, clock: &Clock) -> Result<LimitStore, String> {
        Ok(LimitStore {
            #[cfg(feature = "redis")]
            link: self.shared_limits.as_ref().map(|limits| limits.link(clock)).transpose()?.flatten(),
        })
    }

    /// Answers its requests as these options do, if they hold a stub.
    #[cfg(all(feature = "reqwest", feature = "testing"))]
    pub(crate) fn stubbed(mut self, options: &crate::http::HttpOptions) -> Self {
        self.http = self.http.stubbed_as(options);
        self
    }

    /// The definition as data.
    #[must_use]
    pub fn manifest(&self) -> Manifest {
        let npm = NpmFallbacks::default();
        let mut events = BTreeMap::new();
        let mut add = |info: &EventInfo| {
            events.entry(info.name.to_owned()).or_insert_with(|| EventManifest { schema: (info.schema)() });
        };
        A::emits().iter().for_each(&mut add);
        self.tasks.iter().flat_map(|task| &task.emits).for_each(&mut add);
        self.reactions.iter().map(|reaction| &reaction.event).for_each(&mut add);
        let mut emits: Vec<_> = A::emits().iter().map(|event| event.name.to_owned()).collect();
        if self.errored_events != ErroredEvents::Off {
            let errored = crate::worker::errored_event().to_string();
            // The npm package's event: an object of its making.
            let schema = serde_json::json!({ "type": "object" });
            events.entry(errored.clone()).or_insert(EventManifest { schema });
            emits.push(errored);
        }
        let reactions = self.reactions.iter().map(|reaction| ReactionManifest {
            event: reaction.event.name.to_owned(),
            queue: reaction.queue::<A>().to_string(),
            creates: reaction.creates.iter().map(|&name| name.to_owned()).collect(),
            prototype: reaction.policy.prototype,
            conditional: reaction.conditional,
            policy: reaction.policy.resolve(reaction.event.name, &mut Vec::new()).manifest(),
        });
        let tasks = self.tasks.iter().map(|task| TaskManifest {
            name: task.name.to_owned(),
            queue: task.name.to_owned(),
            emits: task.emits.iter().map(|event| event.name.to_owned()).collect(),
            schema: (task.schema)(),
            recovers: task.recover.is_some(),
            policy: (task.resolve)(&npm, &mut Vec::new()).manifest(),
        });
        Manifest {
            ponos_manifest: MANIFEST_VERSION,
            app: A::NAME.to_owned(),
            version: self.version.clone(),
            hop_limit: (self.hop_limit != DEFAULT_HOP_LIMIT).then_some(self.hop_limit),
            emits,
            reactions: reactions.collect(),
            tasks: tasks.collect(),
            events,
            orders: match self.orders {
                OrdersPolicy::Follow => OrdersManifest::Followed,
                OrdersPolicy::Ignore => OrdersManifest::Ignored,
            },
        }
    }

    /// Prints the manifest and ends the process if `PONOS_MANIFEST=1`. Called right after the definition, before state
    /// is made and a broker is named: `service().manifest_if_asked().run(State::from_env()?, …)`.
    pub fn manifest_if_asked(self) -> Self {
        if std::env::var_os("PONOS_MANIFEST").is_some_and(|value| value == "1") {
            use std::io::Write;
            let written = std::io::stdout().write_all(self.manifest().to_json().as_bytes());
            std::process::exit(i32::from(written.is_err()));
        }
        self
    }

    /// Runs the service until the process is told to end (Ctrl-C or SIGTERM), then shuts it down gracefully.
    /// With `PONOS_MANIFEST=1` it prints the manifest instead.
    ///
    /// # Errors
    ///
    /// When it cannot start; see [`StartError`].
    pub async fn run(self, state: A::State, broker: impl Into<crate::Broker>) -> Result<(), StartError> {
        let running = self.manifest_if_asked().start(state, broker).await?;
        running::until_told_to_end().await;
        running.shutdown().await;
        Ok(())
    }

    /// Starts the service and returns at once, for a process that also serves HTTP.
    ///
    /// # Errors
    ///
    /// When the definition has a problem (all of them are named), metrics cannot be served where they should, or the broker
    /// cannot be used.
    pub async fn start(
        self,
        state: A::State,
        broker: impl Into<crate::Broker>,
    ) -> Result<Running<A>, StartError> {
        let get = |name: &str| std::env::var(name).ok();
        let npm = NpmFallbacks::from_env(get);
        start(self.environment(get), state, broker.into(), Clock::real(), npm).await
    }

    /// What the environment says about this process.
    fn environment(mut self, get: impl Fn(&str) -> Option<String>) -> Self {
        match OrdersPolicy::from_env(&get) {
            Ok(orders) => self.orders = orders.unwrap_or(self.orders),
            Err(problem) => self.problems.push(problem),
        }
        #[cfg(feature = "metrics")]
        {
            self.observe =
                crate::metrics::Observe::or_env(self.observe, get(crate::metrics::METRICS_ADDR_VARIABLE));
        }
        self
    }
}

impl ReactionDef {
    fn queue<A: App>(&self) -> QueueName {
        QueueName::subscription(&AppName::from_checked(A::NAME), &event_name(self.event.name))
    }
}

impl<A: App> TaskDef<A> {
    fn queue(&self) -> QueueName {
        queue_of_task(self.name)
    }
}

fn queue_of_task(name: &'static str) -> QueueName {
    QueueName::task(&TaskName::from_checked(name))
}

fn event_name(name: &'static str) -> EventName {
    EventName::from_checked(name)
}
