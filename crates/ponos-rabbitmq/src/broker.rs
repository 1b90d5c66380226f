//! The handle: two links, what is open over them, and the broker trait over what the modules do.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ponos_core::broker::{
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Delivery, Destination, Inspect, Inspection, LinkState,
    Order, Outgoing, Published, SettleError, Settlement, SubscribeOptions, Subscription, Topology,
};
use ponos_core::id::Timestamp;
use ponos_core::journal::Journal;
use ponos_core::name::{AppName, QueueName};
use ponos_core::wire;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::declare::Declarer;
use crate::gate::Gate;
use crate::journal::RabbitJournal;
use crate::link::{self, Link};
use crate::memory::Memory;
use crate::options::RabbitOptions;
use crate::orders::Orders;
use crate::publish::{Message, Outcome, Publisher};
use crate::settle::{LEFT, delay_until, header_bytes};
use crate::subscription::Intake;
use crate::topology::{self, Plan, step_for};
use crate::{convert, inspect, settle, subscription};

/// For how long a level of the delay ladder that did not answer is passed over, and how many of the next ones may be.
const SICK: Duration = Duration::from_secs(60);
const PASSED_OVER: u32 = 3;

/// How often what a service needs is declared, if the connection is lost each time.
const DECLARE_TRIES: u32 = 4;

/// For how long a queue that was there is believed to be there.
const BELIEVED: Duration = Duration::from_secs(30);

/// The distributed broker: RabbitMQ over two connections that are kept up.
///
/// Clones share the connections. See the [crate](crate) for what it promises.
///
/// # Cancel safety
///
/// Every future may be dropped at any time. A publish or a settlement whose future is dropped happened or did not.
#[derive(Debug, Clone)]
pub struct RabbitBroker {
    shared: Arc<Shared>,
}

/// Counters of this process, since it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// How often what exists had other arguments than it should, and was used as it is.
    pub mismatches: u64,
    /// How many deliveries were recognised as copies of what was settled before.
    pub duplicates: u64,
    /// How often the consuming connection was lost and restored, as far as it is remembered.
    pub reconnects: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    mismatches: AtomicU64,
    duplicates: AtomicU64,
}

impl Counters {
    pub(crate) fn duplicates(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }
}

/// What clones and background tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) options: Arc<RabbitOptions>,
    pub(crate) runtime: Handle,
    pub(crate) consume: Arc<Link>,
    pub(crate) publish: Arc<Link>,
    /// For suspects alone, from when there are some; see [`suspects`](crate::suspects).
    pub(crate) suspects: OnceCell<Arc<Link>>,
    pub(crate) counters: Counters,
    pub(crate) orders: Orders,
    journal: Arc<RabbitJournal>,
    /// Closed while a suspect is held, or about to be.
    pub(crate) gate: Arc<Gate>,
    /// For who publishes outside of a settlement.
    pub(crate) publisher: Publisher,
    pub(crate) memory: Memory,
    state: Mutex<State>,
    next: AtomicU64,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    intakes: HashMap<u64, Arc<Intake>>,
    /// Everything that was declared through this handle, to be declared again.
    known: Topology,
    /// Queues that were there, and when they were seen.
    seen: HashMap<QueueName, Instant>,
    /// Levels of the delay ladder that were declared.
    levels: HashSet<(AppName, Duration)>,
    /// Levels that did not answer, and until when they are passed over.
    sick_levels: HashMap<(AppName, Duration), Instant>,
}

impl RabbitBroker {
    /// Connects, and keeps the connections up from then on.
    ///
    /// Must be called within a Tokio runtime, which then carries the connections and must live as long as they do.
    ///
    /// # Errors
    ///
    /// `Denied` for wrong credentials, a virtual host that is closed to the user, or `guest` on another machine, `NotFound` for one that does not
    /// exist, both at once; `Unavailable` when no node answers within the time that the options give.
    pub async fn connect(options: RabbitOptions) -> Result<Self, BrokerError> {
        options.refuse_guest_abroad()?;
        let options = Arc::new(options);
        let consume = Arc::new(Link::open(Arc::clone(&options), "consuming").await?);
        let publish = Arc::new(Link::open(Arc::clone(&options), "publishing").await?);
        let runtime = Handle::current();
        let journal = RabbitJournal::start(&consume, &publish, &runtime);
        let shared = Shared {
            name: options.shown(),
            publisher: Publisher::new(Arc::clone(&publish), runtime.clone()),
            runtime,
            consume,
            publish,
            suspects: OnceCell::new(),
            options,
            counters: Counters::default(),
            orders: Orders::default(),
            gate: Arc::new(Gate::new()),
            journal,
            memory: Memory::default(),
            state: Mutex::default(),
            next: AtomicU64::new(1),
            closed: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        shared.runtime.spawn(keep_declared(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Whether both connections are up at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.consume.is_up() && self.shared.publish.is_up()
    }

    /// Makes everything of a plan exist.
    ///
    /// # Errors
    ///
    /// `Mismatch` when something that exists cannot be used, `Denied` when something is not allowed.
    pub async fn carry_out(&self, plan: &Plan) -> Result<(), BrokerError> {
        self.shared.check_open()?;
        self.shared.declarer().carry_out(plan).await
    }

    /// What a queue says of itself at this moment; `None` when it does not exist.
    #[cfg(feature = "management")]
    pub(crate) async fn figures(&self, queue: &str) -> Result<Option<crate::declare::Figures>, BrokerError> {
        self.shared.declarer().figures(queue).await
    }

    /// Counters of this process.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            mismatches: counters.mismatches.load(Ordering::Relaxed),
            duplicates: counters.duplicates.load(Ordering::Relaxed),
            reconnects: self.shared.consume.outages_since(Timestamp::EPOCH).into(),
        }
    }
}

/// Declares everything again when the connection was restored (the broker may be another one), and now and then.
async fn keep_declared(shared: Weak<Shared>) {
    let mut generation = 1;
    loop {
        let (link, interval) = match shared.upgrade() {
            Some(shared) => (Arc::clone(&shared.consume), shared.options.check_every),
            None => return,
        };
        let jittered = interval.mul_f64(1.0 + fastrand::f64() / 4.0);
        match tokio::time::timeout(jittered, link.until_another(generation)).await {
            Ok(Some(other)) => generation = other,
            Ok(None) => return,
            Err(_) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = shared.declare_known().await {
            tracing::warn!(%error, "what this service needs could not be declared again");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new_publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.publish), self.runtime.clone())
    }

    pub(crate) fn declarer(&self) -> Declarer<'_> {
        Declarer::new(&self.consume, &self.counters.mismatches)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        if self.is_closed() { Err(link::closed()) } else { Ok(()) }
    }

    // Subscriptions.

    pub(crate) fn enter(&self, intake: Arc<Intake>) {
        self.state().intakes.insert(intake.id, intake);
    }

    pub(crate) fn leave(&self, id: u64) {
        self.state().intakes.remove(&id);
        self.memory.forget_subscription(id);
    }

    pub(crate) fn intake(&self, id: u64) -> Option<Arc<Intake>> {
        self.state().intakes.get(&id).cloned()
    }

    /// Whether no subscription holds anything that it delivered.
    pub(crate) fn is_idle(&self) -> bool {
        self.state().intakes.values().all(|intake| intake.is_idle())
    }

    // Topology.

    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        topology.check()?;
        let plan = Plan::of(topology, self.options.queue_type);
        let mut declarer = self.declarer();
        self.insist(&mut declarer, &plan).await?;
        if let Some(app) = &topology.app
            && let Err(error) = self.insist(&mut declarer, &Plan::orders(app)).await
        {
            // The stream may need a while after a restart; it is declared again with everything else.
            tracing::warn!(%app, %error, "standing orders (pause, rate, circuit) are not available yet");
        }
        let mut state = self.state();
        let known = &mut state.known;
        known.app = topology.app.clone().or_else(|| known.app.take());
        merge(&mut known.events, &topology.events);
        merge(&mut known.subscriptions, &topology.subscriptions);
        merge(&mut known.tasks, &topology.tasks);
        // What was a prototype may have become an ordinary reaction.
        known.prototypes.retain(|queue| !topology.subscriptions.iter().any(|(other, _)| other == queue));
        merge(&mut known.prototypes, &topology.prototypes);
        let now = Instant::now();
        let queues = topology.subscriptions.iter().map(|(queue, _)| queue).chain(&topology.tasks);
        for queue in queues.cloned().chain(topology.app.as_ref().map(QueueName::failed)) {
            state.seen.insert(queue, now);
        }
        Ok(())
    }

    /// Makes a plan exist, also if the connection is lost meanwhile: everything is declared again on the next one.
    ///
    /// Instances that start at the same moment need that. RabbitMQ 3.10.8 ends the whole connection (`INTERNAL_ERROR`)
    /// of who reads a stream that somebody else is just declaring, and the orders of an application are one.
    async fn insist(&self, declarer: &mut Declarer<'_>, plan: &Plan) -> Result<(), BrokerError> {
        let mut tries = 1;
        loop {
            match declarer.carry_out(plan).await {
                Err(error) if error.is_temporary() && tries < DECLARE_TRIES => {
                    tracing::debug!(%error, tries, "not declared yet; trying again");
                    tries += 1;
                }
                carried_out => return carried_out,
            }
        }
    }

    /// Whether a queue is one that was declared through this handle.
    pub(crate) fn declares(&self, queue: &QueueName) -> bool {
        self.known_queues().contains(queue)
    }

    /// The queues that were declared through this handle.
    pub(crate) fn known_queues(&self) -> Vec<QueueName> {
        let state = self.state();
        let mut queues: Vec<_> = state
            .known
            .subscriptions
            .iter()
            .map(|(queue, _)| queue)
            .chain(&state.known.tasks)
            .cloned()
            .collect();
        let apps: HashSet<_> = queues.iter().map(QueueName::app).chain(state.known.app.clone()).collect();
        queues.extend(apps.iter().map(QueueName::failed));
        queues.sort();
        queues.dedup();
        queues
    }

    /// Declares everything again that was declared through this handle.
    pub(crate) async fn declare_known(&self) -> Result<(), BrokerError> {
        let known = self.state().known.clone();
        let apps: HashSet<AppName> = known
            .subscriptions
            .iter()
            .map(|(queue, _)| queue.app())
            .chain(known.tasks.iter().map(QueueName::app))
            .chain(known.app.clone())
            .collect();
        self.declarer()
            .carry_out(&Plan::of(
                &Topology { events: known.events.clone(), ..Topology::default() },
                self.options.queue_type,
            ))
            .await?;
        for app in apps {
            let own = |queue: &QueueName| queue.app() == app;
            let topology = Topology {
                subscriptions: known.subscriptions.iter().filter(|(queue, _)| own(queue)).cloned().collect(),
                tasks: known.tasks.iter().filter(|queue| own(queue)).cloned().collect(),
                prototypes: known.prototypes.iter().filter(|queue| own(queue)).cloned().collect(),
                app: Some(app.clone()),
                events: Vec::new(),
            };
            self.declarer().carry_out(&Plan::of(&topology, self.options.queue_type)).await?;
            self.declarer().carry_out(&Plan::orders(&app)).await?;
        }
        for (app, step) in self.known_levels() {
            self.declarer().carry_out(&Plan::level(&app, step)).await?;
        }
        Ok(())
    }

    /// Whether a queue is there. Asked before a message goes to an application's exchange, which would send what it
    /// cannot route to the failed jobs instead of returning it.
    async fn is_there(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        if self.state().seen.get(queue).is_some_and(|seen| seen.elapsed() < BELIEVED) {
            return Ok(true);
        }
        let there = self.declarer().figures(queue.as_str()).await?.is_some();
        let mut state = self.state();
        if there {
            state.seen.insert(queue.clone(), Instant::now());
        } else {
            state.seen.remove(queue);
        }
        Ok(there)
    }

    async fn ensure_level(&self, app: &AppName, step: Duration) -> Result<(), BrokerError> {
        let key = (app.clone(), step);
        if self.state().levels.contains(&key) {
            return Ok(());
        }
        self.declarer().carry_out(&Plan::level(app, step)).await?;
        self.state().levels.insert(key);
        Ok(())
    }

    /// The level to use instead of one that did not answer lately: one of the next longer ones, where the message waits for
    /// its own time all the same.
    fn healthy_step(&self, app: &AppName, step: Duration) -> Duration {
        let state = self.state();
        let is_sick = |step: Duration| {
            state.sick_levels.get(&(app.clone(), step)).is_some_and(|until| *until > Instant::now())
        };
        (0..=PASSED_OVER).map(|k| step * 2u32.pow(k)).find(|step| !is_sick(*step)).unwrap_or(step)
    }

    fn note_sick(&self, levels: &[Option<(AppName, Duration)>], answers: &[Outcome]) {
        for (level, answer) in levels.iter().zip(answers) {
            if let (Some((app, step)), Outcome::NoAnswer(error)) = (level, answer) {
                let level = topology::level_name(app, *step);
                tracing::warn!(level, %error, "a level of the delay ladder does not answer: the next one is used for a while");
                self.state().sick_levels.insert((app.clone(), *step), Instant::now() + SICK);
            }
        }
    }

    /// The levels that were needed so far, of one application or all.
    pub(crate) fn known_levels(&self) -> Vec<(AppName, Duration)> {
        self.state().levels.iter().cloned().collect()
    }

    // Publishing.

    /// Publishes a batch through one of the publishers: one outcome per message, in order.
    pub(crate) async fn send(
        self: &Arc<Self>,
        publisher: &Publisher,
        batch: Vec<Outgoing>,
        moved: Option<usize>,
    ) -> Vec<Published> {
        let mut outcomes: Vec<Option<Published>> = vec![None; batch.len()];
        // What is missing is made once, and the messages that missed it go out again.
        for last in [false, true] {
            let mut messages = Vec::new();
            let mut places = Vec::new();
            for (place, outgoing) in batch.iter().enumerate() {
                if outcomes[place].is_some() {
                    continue;
                }
                match self.prepare(outgoing, moved == Some(place)).await {
                    Ok(Some(message)) => {
                        messages.push(message);
                        places.push(place);
                    }
                    Ok(None) => outcomes[place] = Some(Published::Returned),
                    Err(error) => outcomes[place] = Some(Published::Refused(error)),
                }
            }
            if messages.is_empty() {
                break;
            }
            let levels: Vec<_> = messages.iter().map(|message| message.level.clone()).collect();
            let answers = publisher.publish(messages).await;
            self.note_sick(&levels, &answers);
            let mut missing = false;
            for (place, answer) in places.into_iter().zip(answers) {
                let outgoing = &batch[place];
                let delayed = delay_until(outgoing.envelope.progress.due).is_some();
                outcomes[place] = match answer {
                    Outcome::Routed => Some(Published::Confirmed { queues: 1 }),
                    Outcome::Unrouted if !delayed && matches!(outgoing.to, Destination::Event(_)) => {
                        Some(Published::Confirmed { queues: 0 })
                    }
                    Outcome::Unrouted if last => Some(Published::Returned),
                    Outcome::Unrouted => None,
                    Outcome::Refused(error) if error.kind() == BrokerErrorKind::NotFound && !last => None,
                    Outcome::Refused(error) => Some(Published::Refused(error)),
                    Outcome::Unknown(error) | Outcome::NoAnswer(error) => Some(Published::Unknown(error)),
                };
                missing |= outcomes[place].is_none();
            }
            if !missing {
                break;
            }
            self.make_what_is_missing(&batch, &outcomes).await;
        }
        let none = || Published::Refused(crate::error::unavailable("not sent"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(none)).collect()
    }

    /// Declares again what messages without an outcome need. What fails here fails them when they are sent again.
    async fn make_what_is_missing(&self, batch: &[Outgoing], outcomes: &[Option<Published>]) {
        let mut events = Vec::new();
        let mut ours = false;
        {
            let mut state = self.state();
            for (outgoing, _) in batch.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_none()) {
                match &outgoing.to {
                    Destination::Event(event) => events.push(event.clone()),
                    Destination::Queue(queue) => {
                        let app = queue.app();
                        state.levels.retain(|(other, _)| *other != app);
                        state.seen.remove(queue);
                        ours = true;
                    }
                }
            }
        }
        let mut declared = Ok(());
        if !events.is_empty() {
            tracing::warn!(?events, "the exchange is gone: declaring it again");
            let plan = Plan::of(&Topology { events, ..Topology::default() }, self.options.queue_type);
            declared = self.declarer().carry_out(&plan).await;
        }
        if ours && declared.is_ok() {
            declared = self.declare_known().await;
        }
        if let Err(error) = declared {
            tracing::warn!(%error, "what a message needs could not be declared again");
        }
    }

    /// A message as AMQP takes it; `None` when its queue does not exist. What is `moved` was in a queue before and goes on
    /// whatever its size.
    async fn prepare(
        self: &Arc<Self>,
        outgoing: &Outgoing,
        moved: bool,
    ) -> Result<Option<Message>, BrokerError> {
        self.check_open()?;
        let Outgoing { to, envelope } = outgoing;
        let invalid = |problem: String| Err(BrokerError::new(BrokerErrorKind::Invalid, problem));
        if let Some(error) = outgoing.too_large().filter(|_| !moved) {
            return Err(error);
        }
        let parts = wire::parts(envelope);
        let size = header_bytes(&parts);
        if size > wire::MAX_HEADERS {
            let (name, limit) = (&envelope.name, wire::MAX_HEADERS);
            return invalid(format!("the headers of `{name}` have {size} bytes, the limit is {limit}"));
        }
        let mut properties = convert::to_amqp(&parts);
        let delay = delay_until(envelope.progress.due);
        let mut left = Duration::ZERO;
        let mut level = None;
        let (exchange, routing_key) = match (to, delay) {
            (Destination::Event(event), None) => (event.as_str().to_owned(), event.as_str().to_owned()),
            (Destination::Event(event), Some(_)) => {
                return invalid(format!("the event `{event}` cannot be delayed: it says what has happened"));
            }
            (Destination::Queue(queue), delay) => {
                if !self.is_there(queue).await? {
                    return Ok(None);
                }
                let app = queue.app();
                let exchange = match delay {
                    None => app.as_str().to_owned(),
                    Some(delay) => {
                        let step = self.healthy_step(&app, step_for(delay));
                        self.ensure_level(&app, step).await?;
                        level = Some((app.clone(), step));
                        // Rounded up, never early; the level's own bound is a quarter above its step.
                        let asked = delay.min(step).as_millis() + 1;
                        left = delay.saturating_sub(step);
                        properties = properties.with_expiration(asked.to_string().into());
                        topology::level_name(&app, step)
                    }
                };
                let suspect = envelope.progress.suspect.is_some() && envelope.report.is_none();
                let routing_key = if suspect {
                    self.ensure_suspects(queue).await?;
                    topology::suspects_name(queue)
                } else {
                    queue.as_str().to_owned()
                };
                (exchange, routing_key)
            }
        };
        if envelope.progress.due.is_some() {
            properties =
                convert::with_int(properties, LEFT, i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
        }
        let body = envelope.body.clone();
        Ok(Some(Message { exchange, routing_key, properties, body, mandatory: true, level }))
    }

    async fn close(self: &Arc<Self>) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let intakes: Vec<_> = self.state().intakes.drain().map(|(_, intake)| intake).collect();
        for intake in &intakes {
            if intake.end(self) {
                intake.close_channel().await;
            }
        }
        self.orders.stop();
        self.journal.stop().await;
        if let Some(suspects) = self.suspects.get() {
            suspects.close().await;
        }
        self.consume.close().await;
        self.publish.close().await;
    }
}

fn merge<T: Clone + PartialEq>(known: &mut Vec<T>, new: &[T]) {
    for item in new {
        if !known.contains(item) {
            known.push(item.clone());
        }
    }
}

impl Broker for RabbitBroker {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.shared.declare(topology))
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        Box::pin(self.shared.send(&self.shared.publisher, batch, None))
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(subscription::subscribe(&self.shared, queue, options))
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        Box::pin(settle::settle(&self.shared, delivery, settlement))
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        Box::pin(inspect::inspect(&self.shared, query))
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(crate::orders::steer(&self.shared, order))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async {
            self.shared.close().await;
            Ok(())
        })
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        Some(Arc::clone(&self.shared.journal) as Arc<dyn Journal>)
    }

    fn links(&self) -> Vec<LinkState> {
        vec![self.shared.publish.state("publish"), self.shared.consume.state("consume")]
    }
}
