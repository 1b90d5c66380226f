//! The trait that every broker implements: seven verbs, written around settlement.
//!
//! | verb | what |
//! | --- | --- |
//! | [`declare`](Broker::declare) | makes exchanges, queues and bindings exist |
//! | [`publish`](Broker::publish) | sends messages and says what became of each |
//! | [`subscribe`](Broker::subscribe) | opens a queue for one consumer |
//! | [`settle`](Broker::settle) | ends a delivery: what to send *and* the verdict, as one value |
//! | [`inspect`](Broker::inspect) | looks without changing anything |
//! | [`steer`](Broker::steer) | gives a standing order, which outlives who gives it |
//! | [`close`](Broker::close) | hands back what was not started and lets go |
//!
//! # Settlement
//!
//! A handler's effects leave it only if it succeeds, so the messages that it publishes and the verdict on its own
//! message belong together: a [`Settlement`] is both. A broker that has transactions does it in one. A broker that has
//! none publishes with confirms first and acknowledges after; message ids are computed and not drawn
//! ([`MessageId::of_effect`]), so the duplicate that a crash between the two leaves can be recognised.
//!
//! # What a broker must keep
//!
//! * A message whose publish was confirmed is delivered until it is settled with anything but `Release`.
//! * A delivery that was not settled when its consumer went away is delivered again, with `losses` counted.
//! * A delayed message is never delivered early.
//! * A settlement of a delivery that is no longer this consumer's has no effect at all and says so.
//!
//! The conformance suite (`ponos::testing::conformance`) holds each broker to this.

mod order;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::body::MAX_BODY;
use crate::envelope::{Envelope, Progress, Report};
use crate::id::{MessageId, Timestamp};
use crate::journal::Journal;
use crate::name::{AppName, EventName, QueueName};

pub use order::{Dependency, Order, OrderAction, OrderKey, OrderKind, OrderTarget};

/// A boxed future, so that the trait can be an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A broker. See the [module](self) for what it promises.
///
/// Every future may be dropped at any time without losing a message; dropping `publish` or `settle` leaves
/// open whether it happened.
pub trait Broker: Debug + Send + Sync + 'static {
    /// A short name for logs and errors, without credentials: `memory`, `sqlite:ponos.db`.
    fn name(&self) -> &str;

    /// Makes everything in `topology` exist. Doing it again changes nothing; start order does not matter.
    ///
    /// # Errors
    ///
    /// When what exists cannot be used as asked, or the broker cannot be reached.
    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Sends messages. The answer has one outcome per message, in order; a batch may succeed in part.
    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>>;

    /// Opens a queue for one consumer.
    ///
    /// # Errors
    ///
    /// When the queue does not exist or the broker cannot be reached.
    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>>;

    /// Ends a delivery. On success it answers what became of each message in `settlement.send`.
    ///
    /// # Errors
    ///
    /// See [`SettleError`]: each case says whether the delivery is still this consumer's.
    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>>;

    /// Looks at queues, messages or standing orders without changing them.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not know the queue.
    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>>;

    /// Gives a standing order: it replaces the one of its [key](Order::key) and is known to instances that start later.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Hands back unsettled deliveries and lets go of files and connections. Later calls fail with [`BrokerErrorKind::Closed`].
    ///
    /// # Errors
    ///
    /// When something could not be handed back; it returns by itself after the broker's lease.
    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>>;

    /// Whether a message can come again although it was settled as done. A worker then remembers what it has done.
    fn may_duplicate(&self) -> bool {
        true
    }

    /// Where records of what happens are kept; `None` for a broker that keeps none.
    fn journal(&self) -> Option<Arc<dyn Journal>> {
        None
    }

    /// The connections that it keeps, as they are at this moment, for metrics and health; none for a broker that needs
    /// none.
    fn links(&self) -> Vec<LinkState> {
        Vec::new()
    }
}

/// A connection that a broker keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// What it is for: `publish` or `consume`.
    pub role: &'static str,
    /// Whether it is there.
    pub up: bool,
    /// How often it was there again after it had been lost.
    pub reconnects: u64,
    /// Whether the broker takes nothing from it at the moment.
    pub blocked: bool,
}

/// An open queue. Dropping it hands back what was delivered and not settled, without counting a loss
/// where the broker can tell.
pub trait Subscription: Debug + Send {
    /// Appends at least one and at most `max` deliveries to `out`, or waits.
    ///
    /// As a poll function it is cancel safe by its form: what was not appended was not delivered.
    ///
    /// # Errors
    ///
    /// [`SubscriptionLost`] when this subscription will never deliver again; the owner subscribes anew.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>>;
}

/// A subscription ended from the broker's side.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the subscription was lost: {reason}")]
pub struct SubscriptionLost {
    /// What the broker said.
    pub reason: String,
}

/// How many messages are ready in a prototype's queue at most; the oldest ones make room for new ones.
pub const PROTOTYPE_LENGTH: u64 = 100_000;

/// After how long without a consumer a prototype's queue is gone, with its binding and with what is in it.
pub const PROTOTYPE_EXPIRES: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a service needs to exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// The application that owns the queues; `None` for a publisher of events only.
    pub app: Option<AppName>,
    /// Events that are published or subscribed to.
    pub events: Vec<EventName>,
    /// Queues that hear an event.
    pub subscriptions: Vec<(QueueName, EventName)>,
    /// Queues of tasks.
    pub tasks: Vec<QueueName>,
    /// Which of the subscriptions are prototypes: they hold [`PROTOTYPE_LENGTH`] messages and are gone
    /// [`PROTOTYPE_EXPIRES`] after nobody listens any more.
    pub prototypes: Vec<QueueName>,
}

impl Topology {
    /// Checks the topology, for brokers.
    ///
    /// # Errors
    ///
    /// When a prototype is none of the subscriptions: a task's queue must not drop jobs.
    pub fn check(&self) -> Result<(), BrokerError> {
        let hears = |queue: &QueueName| self.subscriptions.iter().any(|(heard, _)| heard == queue);
        match self.prototypes.iter().find(|queue| !hears(queue)) {
            None => Ok(()),
            Some(queue) => Err(BrokerError::new(
                BrokerErrorKind::Invalid,
                format!(
                    "the prototype `{queue}` hears no event: only the queue of a reaction may drop messages"
                ),
            )),
        }
    }
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To every queue that hears the event, all or (if none does) nobody.
    Event(EventName),
    /// To one queue, which must exist: otherwise the message is [`Published::Returned`].
    Queue(QueueName),
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Destination,
    /// The message. `progress.due` in the future delays it.
    pub envelope: Envelope,
}

impl Outgoing {
    /// Why no broker takes the message's body, if so: it is larger than [`MAX_BODY`].
    ///
    /// What has failed, or was put away after that, is taken whatever its size: it came from a publisher that keeps to no
    /// limits, and would be lost if it could not be put anywhere.
    #[must_use]
    pub fn too_large(&self) -> Option<BrokerError> {
        let (size, name) = (self.envelope.body.len(), &self.envelope.name);
        let is_kept = self.envelope.report.is_some();
        (size > MAX_BODY && !is_kept).then(|| {
            let problem = format!(
                "the body of `{name}` has {size} bytes, the limit is {MAX_BODY}: send a reference to the data instead"
            );
            BrokerError::new(BrokerErrorKind::Invalid, problem)
        })
    }
}

/// What became of one published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The broker has it and will deliver it, to so many queues.
    Confirmed {
        /// How many queues it went to: 0 for an event that nobody hears, and at least 1 where the broker does not count.
        queues: u32,
    },
    /// The queue does not exist; the broker does not have the message.
    Returned,
    /// The broker said no and does not have the message; it may take it later.
    Refused(BrokerError),
    /// No answer: the broker may or may not have it. Publish it again under the same id.
    Unknown(BrokerError),
}

impl Published {
    /// Whether the broker has the message.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed { .. })
    }
}

/// How to consume a queue.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// How many deliveries may be unsettled at once, at least 1.
    pub prefetch: u32,
    /// Only these messages, for tools that pick; a broker that cannot pick scans and releases the rest.
    pub only: Option<Vec<MessageId>>,
}

impl SubscribeOptions {
    /// Everything, with so many unsettled at once.
    #[must_use]
    pub const fn prefetch(prefetch: u32) -> Self {
        Self { prefetch, only: None }
    }

    /// Checks the options, for brokers.
    ///
    /// # Errors
    ///
    /// When the prefetch is 0.
    pub fn check(&self) -> Result<(), BrokerError> {
        if self.prefetch == 0 {
            return Err(BrokerError::new(
                BrokerErrorKind::Invalid,
                "a subscription needs a prefetch of at least 1",
            ));
        }
        Ok(())
    }
}

/// A message that is this consumer's until it is settled.
#[derive(Debug)]
pub struct Delivery {
    /// The broker's handle for it.
    pub tag: DeliveryTag,
    /// The queue that it came from.
    pub queue: QueueName,
    /// The message; shared, because a broker that keeps it in memory need not copy it.
    pub envelope: Arc<Envelope>,
    /// How often a consumer went away while it held the message, as far as the broker knows, since the last
    /// settlement with `RetryAt` or `Recover`, which start the count anew. A process that dies counts for all that it held;
    /// so what may be a suspect ([`Progress::suspect`]) comes alone where the broker can see to it, and is counted alone.
    pub losses: u32,
}

/// A broker's handle for a delivery. Only the broker that made it reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryTag {
    /// The subscription or channel that delivered.
    pub subscription: u64,
    /// The message or delivery number.
    pub number: u64,
    /// The fence: a later delivery of the same message has another one.
    pub fence: u64,
}

/// What to send and the verdict on the delivery, as one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The messages that the handler published.
    pub send: Vec<Outgoing>,
    /// What becomes of the delivery.
    pub verdict: Verdict,
}

impl Settlement {
    /// A settlement that sends nothing.
    #[must_use]
    pub const fn just(verdict: Verdict) -> Self {
        Self { send: Vec::new(), verdict }
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The job is done; the message is gone.
    Done,
    /// Again, not before the time, in the same queue, with this progress.
    RetryAt(Timestamp, Box<Progress>),
    /// The handler gave up: again at once, in the same queue, with this progress, whose phase is `Recover`.
    Recover(Box<Progress>),
    /// The job failed: it goes to its application's queue of failed jobs with this report.
    Failed(Box<Report>),
    /// Handed back as it is, to the front of the queue or to its place where the broker keeps that; no loss is counted
    /// where the broker can tell.
    Release,
}

/// Why a delivery is not settled.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The delivery is no longer this consumer's and will come (or came) to another; nothing may be done about it here.
    #[error("the delivery is no longer ours: its lease or its connection was lost")]
    Lost {
        /// Whether everything was sent before it was lost, so that only the acknowledgement is missing: a worker then
        /// recognises the message when it comes again.
        sent: bool,
    },
    /// Not every message could be sent. The delivery is still ours: settle again with the same messages.
    #[error("{} of {} messages could not be sent", .0.iter().filter(|p| !p.is_confirmed()).count(), .0.len())]
    NotSent(Vec<Published>),
    /// The broker did not answer or said no for now. The delivery may still be ours: settle again.
    #[error(transparent)]
    Unavailable(#[from] BrokerError),
}

/// A question to a broker.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Inspect {
    /// The figures of all queues, or of those of one application, by name.
    Queues(Option<AppName>),
    /// The figures of this queue alone, if it exists. A broker that cannot list its queues still knows this.
    Queue(QueueName),
    /// Up to `limit` messages of a queue, oldest first, after the one that a previous page ended with.
    Messages {
        /// The queue to look into.
        queue: QueueName,
        /// How many at most.
        limit: usize,
        /// The last message of the page before.
        after: Option<MessageId>,
    },
    /// One message of a queue.
    Message {
        /// The queue to look into.
        queue: QueueName,
        /// The message.
        id: MessageId,
    },
    /// The standing orders for an application's queues and dependencies, by their keys.
    Orders(AppName),
}

/// A broker's answer, of the kind that was asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Inspection {
    /// To [`Inspect::Queues`] and [`Inspect::Queue`].
    Queues(Vec<QueueStats>),
    /// To [`Inspect::Messages`] and [`Inspect::Message`].
    Messages(Vec<Envelope>),
    /// To [`Inspect::Orders`].
    Orders(Vec<Order>),
}

impl Inspection {
    /// The queues, or nothing for another kind of answer.
    #[must_use]
    pub fn into_queues(self) -> Vec<QueueStats> {
        if let Self::Queues(queues) = self { queues } else { Vec::new() }
    }

    /// The messages, or nothing for another kind of answer.
    #[must_use]
    pub fn into_messages(self) -> Vec<Envelope> {
        if let Self::Messages(messages) = self { messages } else { Vec::new() }
    }

    /// The orders, or nothing for another kind of answer.
    #[must_use]
    pub fn into_orders(self) -> Vec<Order> {
        if let Self::Orders(orders) = self { orders } else { Vec::new() }
    }
}

/// The figures of one queue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueueStats {
    /// The queue.
    pub queue: QueueName,
    /// Messages that could be delivered now.
    pub ready: u64,
    /// Messages that wait for their time; `None` where the broker keeps them apart from the queue.
    pub delayed: Option<u64>,
    /// Messages that a consumer holds; `None` where the broker does not tell.
    pub unsettled: Option<u64>,
    /// Open subscriptions, over all processes.
    pub consumers: u32,
    /// When the oldest message that is ready was published or became due; `None` also where the broker does not tell.
    pub oldest: Option<Timestamp>,
}

impl QueueStats {
    /// All messages of the queue, as far as the broker tells.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.ready + self.delayed.unwrap_or(0) + self.unsettled.unwrap_or(0)
    }
}

/// What a broker could not do. The message says what to do about it and never holds credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    kind: BrokerErrorKind,
    message: Arc<str>,
}

/// The classes of [`BrokerError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// Not reachable or not answering now; worth another try.
    Unavailable,
    /// The broker is full or blocked; worth another try later.
    Blocked,
    /// The message breaks a limit; it will never be taken.
    Invalid,
    /// What is asked about does not exist.
    NotFound,
    /// What exists differs from what was asked for.
    Mismatch,
    /// Not allowed.
    Denied,
    /// The store is damaged, of another kind or of another version.
    Unusable,
    /// The broker was closed.
    Closed,
}

impl BrokerError {
    /// An error of this class; `message` is a lowercase fragment that names the thing and the way out.
    pub fn new(kind: BrokerErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into().into() }
    }

    /// Which class of error it is.
    #[must_use]
    pub fn kind(&self) -> BrokerErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, BrokerErrorKind::Unavailable | BrokerErrorKind::Blocked)
    }
}
