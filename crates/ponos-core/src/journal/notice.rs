//! What happens to one instance of a service.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::id::{MessageId, Tid, Timestamp};
use crate::name::QueueName;

/// How many jobs in flight a beat names at most, the oldest first.
pub const MAX_FLIGHTS: usize = 100;

/// One thing that happened to an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// It started.
    Hello {
        /// Its manifest as JSON; `None` for a publisher, which has none.
        manifest: Option<Arc<str>>,
    },
    /// It is alive.
    Beat(Beat),
    /// It ended in order; what it had in flight was finished or handed back.
    Bye,
    /// A circuit changed.
    Circuit(CircuitNotice),
    /// A standing order was carried out or has ended.
    Order(OrderNotice),
    /// A queue rests for its rate limit, or goes on.
    Limit(LimitNotice),
}

/// What an instance does at the moment. An instance that died without a word had in flight what its last beat names.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Beat {
    /// When the next one is to be expected, in milliseconds.
    pub every_ms: u32,
    /// Its queues.
    pub queues: Vec<QueueBeat>,
    /// What runs, at most [`MAX_FLIGHTS`].
    pub flights: Vec<Flight>,
    /// Circuits that are not closed, by name, and what they are.
    pub circuits: Vec<(Arc<str>, CircuitPhase)>,
    /// How many entries its process has dropped.
    pub dropped: u64,
}

/// One queue of an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueBeat {
    /// The queue.
    pub queue: QueueName,
    /// Jobs that run.
    pub in_flight: u32,
    /// Jobs that were delivered and have not started.
    pub buffered: u32,
    /// Jobs that the process may hold.
    pub prefetch: u32,
    /// Whether it is subscribed.
    pub up: bool,
    /// Whether an order stands to deliver nothing.
    pub paused: bool,
    /// When something was delivered last.
    pub last_delivery: Option<Timestamp>,
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flight {
    /// The message.
    pub message: MessageId,
    /// Its transaction.
    pub tid: Tid,
    /// Its queue.
    pub queue: QueueName,
    /// The number of the attempt in its phase, from 1.
    pub attempt: u32,
    /// When the attempt started.
    pub started: Timestamp,
}

/// A circuit of an instance has changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CircuitNotice {
    /// The dependency, or the queue where it depends on nothing named.
    pub circuit: Arc<str>,
    /// The queues that listen through it.
    pub queues: Vec<QueueName>,
    /// What it is now.
    pub phase: CircuitPhase,
    /// For how long, where it is open.
    pub open_for: Option<Duration>,
    /// Why, in a few words.
    pub cause: Arc<str>,
}

/// What a circuit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CircuitPhase {
    /// Work flows.
    Closed,
    /// The listeners are cut off.
    Open,
    /// One job at a time is tried.
    HalfOpen,
}

impl CircuitPhase {
    /// `closed`, `open` or `half_open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A standing order was carried out by an instance, or has ended for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrderNotice {
    /// The queue or the dependency.
    pub target: Arc<str>,
    /// What was ordered, such as `pause` or `rate 5/s`.
    pub action: Arc<str>,
    /// Whether it stands now.
    pub stands: bool,
    /// Who gave it.
    pub by: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// A queue rests because its rate limit's next token is too far away, or goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitNotice {
    /// The queue.
    pub queue: QueueName,
    /// Until when it rests; `None` when it goes on.
    pub until: Option<Timestamp>,
}
