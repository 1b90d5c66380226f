//! A service at work: starting it, steering it, shutting it down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{Broker, BrokerError, Order, OrderAction, Topology};
use ponos_core::journal::{Beat, CircuitNotice, CircuitPhase, MAX_FLIGHTS, Notice};
use ponos_core::name::{AppName, EventName, QueueName};
use ponos_core::policy::BreakerConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::orders::{self, Orders, Steered};
use super::policy::NpmFallbacks;
use super::{DependencyPolicy, Service, queue_of_task};
use crate::clock::Clock;
use crate::context::Local;
use crate::lifecycle::Lifecycle;
use crate::message::App;
#[cfg(feature = "metrics")]
use crate::metrics::{Consumer, Listener, Observe, View};
use crate::publisher::Publisher;
use crate::worker::{
    BoundRecoverFn, Circuit, CircuitState, Control, ErroredEvents, LimitStore, Limiter, QueueSpec,
    QueueWorker, Resolved, RunFn, Shared, Solo, Told, Vitals,
};

/// How long running handlers may go on after the shutdown has begun.
pub(crate) const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

/// How long the broker may take to make everything exist, or to close.
const BROKER_DEADLINE: Duration = Duration::from_secs(30);

/// How often an instance says that it is alive.
const BEAT_INTERVAL: Duration = Duration::from_secs(5);

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The definition has problems; each is on a line of its own.
    #[error("the service `{app}` cannot start:\n  {}", .problems.join("\n  "))]
    Definition {
        /// The application.
        app: &'static str,
        /// What is wrong, and what to do about it.
        problems: Vec<String>,
    },
    /// The broker cannot be used.
    #[error("the service `{app}` cannot start: {source}")]
    Broker {
        /// The application.
        app: &'static str,
        /// What the broker said.
        source: BrokerError,
    },
    /// Metrics and health cannot be served.
    #[cfg(feature = "metrics")]
    #[error(
        "the service `{app}` cannot start: metrics cannot be served at {addr}: {source}; name another address with `Observe::at` or `PONOS_METRICS_ADDR`, such as `127.0.0.1:0` for any free port, or `PONOS_METRICS_ADDR=off`"
    )]
    Metrics {
        /// The application.
        app: &'static str,
        /// Where they should be served.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A service at work. Dropping it without [`shutdown`](Self::shutdown) cuts its jobs off; they return to the queue.
pub struct Running<A: App> {
    publisher: Publisher<A>,
    shared: Arc<Shared>,
    orders: Arc<Orders>,
    workers: Vec<JoinHandle<()>>,
    /// Keepers of circuits, limits and orders, which never end by themselves.
    keepers: Vec<JoinHandle<()>>,
    /// Whether the broker was connected for this service alone.
    owns_broker: bool,
    /// What metrics and health see of it, where they are kept.
    #[cfg(feature = "metrics")]
    view: Option<Arc<View>>,
    #[cfg(feature = "metrics")]
    listener: Option<Listener>,
}

impl<A: App> std::fmt::Debug for Running<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("app", &A::NAME)
            .field("broker", &self.shared.broker)
            .field("queues", &self.orders.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A queue of the service, before it is bound to state and broker.
struct Queue {
    queue: QueueName,
    policy: Resolved,
    run: RunFn,
    recover: Option<BoundRecoverFn>,
    health: Option<BoundHealth>,
}

type BoundHealth = Arc<dyn Fn() -> ponos_core::broker::BoxFuture<'static, bool> + Send + Sync>;

pub(crate) async fn start<A: App>(
    service: Service<A>,
    state: A::State,
    broker: crate::Broker,
    clock: Clock,
    npm: Result<NpmFallbacks, String>,
) -> Result<Running<A>, StartError> {
    let mut problems = service.problems.clone();
    if service.hop_limit == 0 {
        problems.push("`hop_limit` is 0, so that no job would ever run: the least is 1".into());
    }
    let npm = npm.unwrap_or_else(|problem| {
        problems.push(problem);
        NpmFallbacks::default()
    });
    let topology = topology(&service);
    let queues = bind(&service, &Arc::new(state), &npm, &mut problems);
    check_queues(&queues, &topology.prototypes, &mut problems);
    check_dependencies(&service.dependencies, &queues, &mut problems);
    let limit_store = service.limit_store(&clock).unwrap_or_else(|problem| {
        problems.push(problem);
        LimitStore::default()
    });
    #[cfg(feature = "metrics")]
    let listens_at = listens_at(&service, &clock).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if !problems.is_empty() {
        return Err(StartError::Definition { app: A::NAME, problems });
    }
    #[cfg(feature = "metrics")]
    let listener = match listens_at {
        // Before the broker is connected: that may take its time, and probes ask meanwhile.
        Some(addr) => Some(Listener::open(addr).await.map_err(|source| StartError::Metrics {
            app: A::NAME,
            addr,
            source,
        })?),
        None => None,
    };
    let failed = |source| StartError::Broker { app: A::NAME, source };
    let owns_broker = broker.is_unconnected();
    let broker = broker.connect().await.map_err(failed)?;
    match clock.timeout(BROKER_DEADLINE, broker.declare(&topology)).await {
        Some(declared) => declared.map_err(failed)?,
        None => return Err(failed(no_answer("the declaration of queues"))),
    }
    let orders = if queues.is_empty() {
        None
    } else {
        // Before the first job is taken: an instance that starts during a pause keeps it.
        let read = orders::standing(&*broker, AppName::from_checked(A::NAME), &clock).await;
        read.inspect_err(|error| {
            tracing::warn!(%error, "starting without the standing orders, which cannot be read yet");
        })
        .ok()
    };
    let running = launch(service, queues, orders, limit_store, broker, clock, owns_broker);
    #[cfg(feature = "metrics")]
    let running = running.shown_by(listener);
    Ok(running)
}

/// Where metrics are served. A virtual clock has no sockets.
#[cfg(feature = "metrics")]
fn listens_at<A: App>(service: &Service<A>, clock: &Clock) -> Result<Option<std::net::SocketAddr>, String> {
    let observe = service.observe.as_ref().filter(|_| clock.is_real());
    observe.map_or(Ok(None), Observe::listens_at)
}

fn no_answer(what: &str) -> BrokerError {
    let kind = ponos_core::broker::BrokerErrorKind::Unavailable;
    BrokerError::new(
        kind,
        format!("{what} was not answered within {BROKER_DEADLINE:?}: is the broker overloaded?"),
    )
}

/// Everything that the service publishes, hears and serves.
fn topology<A: App>(service: &Service<A>) -> Topology {
    let mut events: BTreeSet<EventName> =
        A::emits().iter().map(|info| super::event_name(info.name)).collect();
    events.extend(service.tasks.iter().flat_map(|task| &task.emits).map(|info| super::event_name(info.name)));
    let mut subscriptions = Vec::new();
    let mut prototypes = Vec::new();
    let mut tasks: BTreeSet<QueueName> = service.tasks.iter().map(super::TaskDef::queue).collect();
    for reaction in &service.reactions {
        let event = super::event_name(reaction.event.name);
        events.insert(event.clone());
        subscriptions.push((reaction.queue::<A>(), event));
        if reaction.policy.prototype {
            prototypes.push(reaction.queue::<A>());
        }
        tasks.extend(reaction.creates.iter().map(|&name| queue_of_task(name)));
    }
    if service.errored_events != ErroredEvents::Off {
        events.insert(crate::worker::errored_event());
    }
    Topology {
        app: Some(AppName::from_checked(A::NAME)),
        events: events.into_iter().collect(),
        subscriptions,
        tasks: tasks.into_iter().collect(),
        prototypes,
    }
}

fn bind<A: App>(
    service: &Service<A>,
    state: &Arc<A::State>,
    npm: &NpmFallbacks,
    problems: &mut Vec<String>,
) -> Vec<Queue> {
    let mut queues = Vec::new();
    for reaction in &service.reactions {
        queues.push(Queue {
            queue: reaction.queue::<A>(),
            policy: reaction.policy.resolve(reaction.event.name, problems),
            run: Arc::clone(&reaction.run),
            recover: None,
            health: None,
        });
    }
    for task in &service.tasks {
        let run = {
            let (run, state) = (Arc::clone(&task.run), Arc::clone(state));
            Arc::new(move |job| run(job, Arc::clone(&state)))
        };
        let recover = task.recover.clone().map(|recover| {
            let state = Arc::clone(state);
            Arc::new(move |job, why| recover(job, Arc::clone(&state), why)) as BoundRecoverFn
        });
        queues.push(Queue {
            queue: task.queue(),
            policy: (task.resolve)(npm, problems),
            run,
            recover,
            health: task.health.clone().map(|health| bind_health::<A>(health, state)),
        });
    }
    for (name, dependency) in &service.dependencies {
        if let Some(health) = &dependency.health {
            let first =
                queues.iter_mut().find(|queue| queue.policy.depends_on.as_deref() == Some(name.as_str()));
            if let Some(queue) = first {
                queue.health = Some(bind_health::<A>(Arc::clone(health), state));
            }
        }
    }
    queues
}

fn bind_health<A: App>(health: super::handler::HealthCheck<A>, state: &Arc<A::State>) -> BoundHealth {
    let state = Arc::clone(state);
    Arc::new(move || health(Arc::clone(&state)))
}

/// All queue names of a service are distinct.
fn check_queues(queues: &[Queue], prototypes: &[QueueName], problems: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for queue in queues {
        let kind = if queue.policy.retry.is_some() { "task" } else { "reaction" };
        if let Some(other) = seen.insert(queue.queue.clone(), kind) {
            problems.push(if prototypes.contains(&queue.queue) {
                format!(
                    "two handlers for `{}`, and one of them is a prototype: a queue has one handler; give the prototype an application of its own",
                    queue.queue
                )
            } else if other == kind {
                format!("two handlers for `{}`: a queue has one handler; remove one, or let one do both", queue.queue)
            } else {
                format!(
                    "a task and a reaction would share the queue `{}`: rename the task, so that it does not read like an event after the application's name",
                    queue.queue
                )
            });
        }
    }
}

/// Handlers that share a dependency agree about what they share.
fn check_dependencies<A: App>(
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    queues: &[Queue],
    problems: &mut Vec<String>,
) {
    for (name, dependency) in dependencies {
        if !queues.iter().any(|queue| queue.policy.depends_on.as_deref() == Some(name.as_str())) {
            problems.push(format!("no handler says `.depends_on(\"{name}\")`: add it to those that need it, or remove the dependency"));
        }
        if let Some(Err(error)) = dependency.rate.map(|rate| rate.validate()) {
            problems.push(format!("dependency `{name}`: {error}"));
        }
        if let Some(Err(error)) = dependency.breaker.map(|breaker| breaker.validate()) {
            problems.push(format!("dependency `{name}`: {error}"));
        }
    }
    let mut rates = BTreeMap::new();
    for queue in queues {
        let (Some(name), Some(rate)) = (&queue.policy.depends_on, queue.policy.rate) else {
            continue;
        };
        let shared = dependencies.get(name).and_then(|dependency| dependency.rate);
        let first = *rates.entry(name.clone()).or_insert(shared.unwrap_or(rate));
        if first != rate {
            problems.push(format!(
                "the handlers that depend on `{name}` name different rate limits, but share one: name it once, with `.dependency(\"{name}\", |d| d.rate_limit(…))`"
            ));
        }
    }
}

fn launch<A: App>(
    service: Service<A>,
    queues: Vec<Queue>,
    orders: Option<Vec<Order>>,
    limit_store: LimitStore,
    broker: Arc<dyn Broker>,
    clock: Clock,
    owns_broker: bool,
) -> Running<A> {
    let manifest = service.manifest();
    let local = Local {
        version: service.version.as_deref().map(Into::into),
        #[cfg(feature = "reqwest")]
        http: crate::http::Client::new(service.http, clock.clone()),
        ..Local::new(AppName::from_checked(A::NAME), clock.clone())
    };
    let local = if service.lifecycle { local.telling(&*broker) } else { local };
    #[cfg(feature = "metrics")]
    let meter = service.observe.as_ref().map(|observe| Arc::new(observe.meter(&manifest, broker.name())));
    #[cfg(feature = "metrics")]
    let local = match &meter {
        Some(meter) => local.measured(Arc::clone(meter)),
        None => local,
    };
    let local = Arc::new(local);
    if let Some(lifecycle) = &local.lifecycle {
        lifecycle.notice(clock.wall(), Notice::Hello { manifest: Some(manifest.to_json().into()) });
    }
    let shared = Arc::new(Shared {
        local: Arc::clone(&local),
        broker: Arc::clone(&broker),
        hooks: service.hooks,
        errored_events: service.errored_events,
        hop_limit: service.hop_limit,
        solo: Solo::new(),
        limit_store,
    });
    let mut keepers = Vec::new();
    let circuits = circuits(&queues, &service.dependencies, &shared, &mut keepers);
    let limiters = limiters(&queues, &service.dependencies, &shared, &mut keepers);
    let mut steered = BTreeMap::new();
    let mut workers = Vec::new();
    let mut vitals = Vec::new();
    #[cfg(feature = "metrics")]
    let keys: Vec<_> = queues.iter().map(share_key).collect();
    for (member, queue) in queues.into_iter().enumerate() {
        let share = share_key(&queue);
        let own = (share != queue.queue.as_str()).then(|| Arc::clone(&limiters[queue.queue.as_str()]));
        let spec = QueueSpec {
            circuit: circuits.get(&share).map(|circuit| (Arc::clone(circuit), member)),
            limiter: Arc::clone(&limiters[&share]),
            own_limiter: own,
            queue: queue.queue.clone(),
            vitals: Vitals::new(queue.queue.clone(), queue.policy.held(queue.policy.rate)),
            policy: queue.policy,
            run: queue.run,
            recover: queue.recover,
        };
        vitals.push(Arc::clone(&spec.vitals));
        let (control, receiver) = watch::channel(Control::default());
        steered.insert(queue.queue, Steered { control, share });
        workers.push(QueueWorker::new(Arc::new(spec), Arc::clone(&shared), receiver));
    }
    let known = orders;
    let orders =
        Arc::new(Orders::new(service.orders, steered, circuits.clone(), limiters, Arc::clone(&local)));
    if let Some(known) = known {
        orders.learn(known, &clock);
    }
    keepers.push(clock.spawn(Arc::clone(&orders).keep(Arc::clone(&shared))));
    let workers = workers.into_iter().map(|worker| clock.spawn(worker.run())).collect();
    let vitals: Arc<[_]> = vitals.into();
    #[cfg(feature = "metrics")]
    let view = service.observe.zip(meter).map(|(observe, meter)| {
        let consumers = vitals.iter().zip(&keys);
        let consumers = consumers
            .map(|(vitals, key)| Consumer::new(Arc::clone(vitals), circuits.get(key).cloned()))
            .collect();
        let (local, broker, circuits) = (Arc::clone(&local), Arc::clone(&broker), circuits.clone());
        let view = View::new(A::NAME, local, broker, meter, consumers, circuits, observe);
        keepers.push(clock.spawn(Arc::clone(&view).keep_turning()));
        keepers.push(clock.spawn(Arc::clone(&view).keep_finding_stalls()));
        view
    });
    if clock.is_real() && local.lifecycle.as_ref().is_some_and(Lifecycle::is_kept) {
        keepers.push(clock.spawn(keep_beating(Arc::clone(&shared), vitals, circuits)));
    }
    let publisher = Publisher::new(local, broker);
    Running {
        publisher,
        shared,
        orders,
        workers,
        keepers,
        owns_broker,
        #[cfg(feature = "metrics")]
        view,
        #[cfg(feature = "metrics")]
        listener: None,
    }
}

/// What a queue's breaker and limit are shared under: its dependency, or itself. A queue's name holds a dot, a
/// dependency's does not, so they never meet.
fn share_key(queue: &Queue) -> String {
    queue.policy.depends_on.clone().unwrap_or_else(|| queue.queue.to_string())
}

fn circuits<A: App>(
    queues: &[Queue],
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    shared: &Arc<Shared>,
    keepers: &mut Vec<JoinHandle<()>>,
) -> BTreeMap<String, Arc<Circuit>> {
    let mut circuits = BTreeMap::new();
    for queue in queues {
        let key = share_key(queue);
        let named = dependencies.get(&key).and_then(|dependency| dependency.breaker);
        let Some(config): Option<BreakerConfig> = queue.policy.breaker.map(|own| named.unwrap_or(own)) else {
            continue;
        };
        if circuits.contains_key(&key) {
            continue;
        }
        let health =
            queues.iter().filter(|other| share_key(other) == key).find_map(|other| other.health.clone());
        let clock = shared.local.clock.clone();
        let members =
            queues.iter().filter(|other| share_key(other) == key).map(|other| other.queue.clone()).collect();
        let told = told_of_circuits(shared, members);
        let circuit = Arc::new(Circuit::new(key.clone(), config, health, told, clock));
        keepers.push(shared.local.clock.spawn(Arc::clone(&circuit).keep()));
        circuits.insert(key, circuit);
    }
    circuits
}

/// Tells the service's hook and its journal of a circuit's changes.
fn told_of_circuits(shared: &Arc<Shared>, members: Vec<QueueName>) -> Told {
    let shared = Arc::clone(shared);
    Arc::new(move |change| {
        shared.hooks.circuit(change);
        let local = &shared.local;
        let Some(lifecycle) = &local.lifecycle else { return };
        let (phase, open_for, cause) = match &change.state {
            CircuitState::Closed => (CircuitPhase::Closed, None, String::new()),
            CircuitState::HalfOpen => (CircuitPhase::HalfOpen, None, String::new()),
            CircuitState::Open { time, cause } => (CircuitPhase::Open, Some(*time), cause.to_string()),
        };
        let circuit = change.circuit.as_str().into();
        let notice = CircuitNotice { circuit, queues: members.clone(), phase, open_for, cause: cause.into() };
        lifecycle.notice(local.clock.wall(), Notice::Circuit(notice));
    })
}

/// Says every few seconds that the instance is alive, and what it does. A process that dies says nothing: what its last
/// beat names is what it had in flight.
async fn keep_beating(
    shared: Arc<Shared>,
    vitals: Arc<[Arc<Vitals>]>,
    circuits: BTreeMap<String, Arc<Circuit>>,
) {
    let local = &shared.local;
    let Some(lifecycle) = &local.lifecycle else { return };
    loop {
        local.clock.background_sleep(BEAT_INTERVAL).await;
        let mut flights: Vec<_> = vitals.iter().flat_map(|queue| queue.flights()).collect();
        flights.sort_by_key(|flight| flight.started);
        flights.truncate(MAX_FLIGHTS);
        let beat = Beat {
            every_ms: u32::try_from(BEAT_INTERVAL.as_millis()).unwrap_or(u32::MAX),
            queues: vitals.iter().map(|queue| queue.beat()).collect(),
            flights,
            circuits: circuits
                .iter()
                .filter_map(|(name, circuit)| {
                    let phase = circuit.phase();
                    (phase != CircuitPhase::Closed).then(|| (name.as_str().into(), phase))
                })
                .collect(),
            dropped: lifecycle.dropped(),
        };
        lifecycle.notice(local.clock.wall(), Notice::Beat(beat));
    }
}

/// A limiter for each name under which a limit is shared, and one for each queue, so that there is one to be ordered.
fn limiters<A: App>(
    queues: &[Queue],
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    shared: &Arc<Shared>,
    keepers: &mut Vec<JoinHandle<()>>,
) -> BTreeMap<String, Arc<Limiter>> {
    let mut users = BTreeMap::<String, Vec<&Queue>>::new();
    for queue in queues {
        users.entry(share_key(queue)).or_default().push(queue);
        if queue.policy.depends_on.is_some() {
            users.entry(queue.queue.to_string()).or_default().push(queue);
        }
    }
    let clock = &shared.local.clock;
    let mut limiters = BTreeMap::new();
    for (name, users) in users {
        let named = dependencies.get(&name).and_then(|dependency| dependency.rate);
        // What a handler says is the limit of what it depends on.
        let own = users.iter().filter(|queue| share_key(queue) == name).find_map(|queue| queue.policy.rate);
        let configured = named.or(own);
        let queues = users.into_iter().map(|queue| queue.queue.clone()).collect();
        let limiter = Arc::new(Limiter::new(configured, queues, &shared.limit_store));
        #[cfg(feature = "redis")]
        if let Some((link, rate)) = shared.limit_store.link.as_ref().zip(configured) {
            let key = format!("ponos:rate:{}:{name}", shared.local.app);
            keepers.push(clock.spawn(Arc::clone(link).keep_limit(Arc::clone(&limiter), rate, key)));
        }
        let (app, broker) = (shared.local.app.clone(), Arc::clone(&shared.broker));
        keepers.push(clock.spawn(Arc::clone(&limiter).keep_fresh(app, broker, clock.clone())));
        limiters.insert(name, limiter);
    }
    #[cfg(feature = "redis")]
    if let Some(link) = &shared.limit_store.link
        && limiters.values().any(|limiter| limiter.watch().borrow().rate.is_some())
    {
        keepers.push(clock.spawn(Arc::clone(link).keep()));
    }
    limiters
}

impl<A: App> Running<A> {
    /// Publishes in the name of the application, for what starts outside its tasks.
    #[must_use]
    pub fn publisher(&self) -> Publisher<A> {
        self.publisher.clone()
    }

    /// Pauses one of the service's queues until [`resume`](Self::resume), in every instance, also those that start later.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn pause(&self, queue: &QueueName, reason: &str) -> Result<(), BrokerError> {
        self.steer(queue, OrderAction::Pause, reason).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn resume(&self, queue: &QueueName, reason: &str) -> Result<(), BrokerError> {
        self.steer(queue, OrderAction::Resume, reason).await
    }

    async fn steer(&self, queue: &QueueName, action: OrderAction, reason: &str) -> Result<(), BrokerError> {
        let local = &self.shared.local;
        let order = Order {
            target: queue.clone().into(),
            action,
            by: local.host.to_string(),
            reason: reason.to_owned(),
            at: local.clock.wall(),
            until: None,
        };
        self.shared.broker.steer(order.clone()).await?;
        // Here at once; the other instances look within a second.
        self.orders.add(order, &local.clock);
        Ok(())
    }

    /// How many blocking handlers go on although their time is up. They cannot be stopped: each keeps a thread busy beside
    /// the next attempt at its job.
    #[must_use]
    pub fn overdue(&self) -> usize {
        self.shared.local.overdue.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Its metrics as OpenMetrics' text, to be served by a server of your own with the content type
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`. `None` where [`observe`](Service::observe) was not
    /// asked for.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics_text(&self) -> Option<String> {
        self.view.as_ref().map(View::open_metrics)
    }

    /// How it is. `None` where [`observe`](Service::observe) was not asked for.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn health(&self) -> Option<crate::metrics::Health> {
        self.view.as_ref().map(|view| view.health())
    }

    /// Where metrics and health are served, if they are: for port 0, and for tests.
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics_addr(&self) -> Option<std::net::SocketAddr> {
        self.listener.as_ref().map(Listener::addr)
    }

    #[cfg(feature = "metrics")]
    fn shown_by(mut self, listener: Option<Listener>) -> Self {
        if let (Some(listener), Some(view)) = (&listener, &self.view) {
            listener.show(Arc::clone(view));
        }
        self.listener = listener;
        self
    }

    /// Whether the rate limits are exact at the moment, and how often they were not; `None` where
    /// [`shared_limits`](Service::shared_limits) was not asked for. For a gauge and a counter of the process's metrics.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn shared_limits(&self) -> Option<crate::SharedLimits> {
        self.shared.limit_store.link.as_ref().map(|link| link.status())
    }

    /// Stops the intake, lets running handlers finish for up to 25 s, cuts off and hands back what still runs, settles
    /// and closes. What was handed back runs again; it spends no attempt.
    pub async fn shutdown(self) {
        self.shutdown_within(SHUTDOWN_DEADLINE).await;
    }

    /// As [`shutdown`](Self::shutdown), with another deadline for running handlers.
    pub async fn shutdown_within(mut self, deadline: Duration) {
        let clock = self.shared.local.clock.clone();
        #[cfg(feature = "metrics")]
        if let Some(view) = &self.view {
            view.drain();
        }
        let stop_by = Some(clock.now() + deadline);
        for control in self.orders.controls() {
            control.send_modify(|control| control.stop_by = stop_by);
        }
        for worker in std::mem::take(&mut self.workers) {
            // A worker that panicked has let go of its jobs; the others still end in order.
            let _ = worker.await;
        }
        for keeper in &self.keepers {
            keeper.abort();
        }
        if let Some(lifecycle) = &self.shared.local.lifecycle {
            lifecycle.notice(clock.wall(), Notice::Bye);
        }
        if self.owns_broker {
            match clock.timeout(BROKER_DEADLINE, self.shared.broker.close()).await {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, "the broker was not closed cleanly; what it held returns by itself");
                }
                None => tracing::warn!("the broker did not close in time; what it held returns by itself"),
            }
        }
        // Last, so that what happens until the end is seen.
        #[cfg(feature = "metrics")]
        if let Some(listener) = self.listener.take() {
            listener.close().await;
        }
    }
}

#[cfg(feature = "testing")]
impl<A: App> Running<A> {
    /// The queues that are worked at the moment.
    pub(crate) fn served(&self) -> Vec<QueueName> {
        self.orders.served()
    }
}

impl<A: App> Drop for Running<A> {
    fn drop(&mut self) {
        for task in self.workers.iter().chain(&self.keepers) {
            task.abort();
        }
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn until_told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
