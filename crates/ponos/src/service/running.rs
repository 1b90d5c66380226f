//! A service at work: starting it, steering it, shutting it down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{Broker, BrokerError, Order, OrderAction, Topology};
use ponos_core::journal::Notice;
use ponos_core::name::{AppName, EventName, QueueName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::beat;
use super::bound::{Queue, bind, check_dependencies, check_queues};
use super::orders::{self, Orders, Steered};
use super::policy::NpmFallbacks;
use super::shares::{circuits, limiters, share_key};
use super::{Service, queue_of_task};
use crate::clock::Clock;
use crate::context::Local;
use crate::lifecycle::Lifecycle;
use crate::message::App;
#[cfg(feature = "metrics")]
use crate::metrics::{Consumer, Listener, Observe, View};
use crate::publisher::Publisher;
use crate::worker::{Control, ErroredEvents, LimitStore, QueueSpec, QueueWorker, Shared, Solo, Vitals};

/// How long running handlers may go on after the shutdown has begun.
pub(crate) const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(25);

/// How long the broker may take to make everything exist, or to close.
const BROKER_DEADLINE: Duration = Duration::from_secs(30);

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
    #[cfg(feature = "testing")]
    let queues = match clock.process() {
        Some(process) => queues.into_iter().map(|queue| queue.watched(process)).collect(),
        None => queues,
    };
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
        keepers.push(clock.spawn(beat::keep(Arc::clone(&shared), vitals, circuits)));
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
