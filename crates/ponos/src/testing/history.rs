//! What happened between processes and their broker, as the broker knows it.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::broker::DeliveryTag;
use ponos_core::envelope::{GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::name::{EventName, QueueName};

use super::faults::Fault;

/// Everything that happened, oldest first. Cloning is cheap and gives the same history.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Vec<Entry>>>);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// When, since the beginning.
    pub at: Duration,
    /// To which process: the application, its instance, and the how manieth life of it.
    pub process: Arc<str>,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Happened {
    /// A process began.
    Began,
    /// A process could not start, for this reason.
    NotStarted(String),
    /// A process works this queue.
    Serves {
        /// The queue.
        queue: QueueName,
        /// The most attempts that a handler has; `None` for no limit, or where nothing is retried.
        attempts: Option<u32>,
        /// The most jobs that run at once.
        concurrency: u32,
        /// Whether a recovery function follows.
        recovers: bool,
    },
    /// A fault was injected, to this message where it was one's.
    Fault(Fault, Option<MessageId>),
    /// A process died. Nothing of it goes on.
    Died,
    /// A queue hears an event from now on.
    Bound {
        /// The queue.
        queue: QueueName,
        /// The event.
        event: EventName,
    },
    /// The broker has a message.
    Taken {
        /// The message.
        id: MessageId,
        /// Its name.
        name: Arc<str>,
        /// The queues that it went to.
        to: Vec<QueueName>,
        /// How often.
        copies: u32,
        /// How it was sent.
        sent: Sent,
        /// Its transaction.
        tid: Tid,
        /// The message whose handler published it.
        cause: Option<MessageId>,
    },
    /// A process was told what became of a message.
    Told {
        /// The message.
        id: MessageId,
        /// What.
        outcome: Told,
    },
    /// Whoever published a message was told for good that it is.
    Promised {
        /// The message.
        id: MessageId,
    },
    /// A process was given a message.
    Delivered {
        /// The delivery.
        tag: DeliveryTag,
        /// The queue.
        queue: QueueName,
        /// The message.
        id: MessageId,
        /// Which function runs next.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
        /// When it was due, if it was delayed.
        due: Option<Timestamp>,
        /// How often a process went away with it.
        losses: u32,
    },
    /// A handler or a recovery function began.
    Runs {
        /// The delivery.
        tag: DeliveryTag,
        /// The queue.
        queue: QueueName,
        /// The message.
        id: MessageId,
        /// Which function.
        phase: Phase,
        /// The number of the attempt.
        attempt: u32,
    },
    /// It ended.
    Ran {
        /// The delivery.
        tag: DeliveryTag,
        /// The queue.
        queue: QueueName,
        /// The message.
        id: MessageId,
        /// How.
        end: RunEnd,
    },
    /// A worker settles, perhaps again.
    Settles {
        /// The delivery.
        tag: DeliveryTag,
        /// The message.
        id: MessageId,
        /// What is to become of it.
        ruling: Ruling,
        /// What is to be sent.
        sends: Vec<MessageId>,
    },
    /// What a worker wants is so at the broker.
    Settled {
        /// The delivery.
        tag: DeliveryTag,
        /// The queue.
        queue: QueueName,
        /// The message.
        id: MessageId,
        /// What became of it.
        ruling: Ruling,
        /// Whether the delivery was still this process's.
        held: bool,
    },
    /// A message whose copy was sent before is gone.
    Acknowledged {
        /// The delivery.
        tag: DeliveryTag,
        /// Whether the delivery was still this process's.
        held: bool,
    },
    /// A worker was told what became of its settlement.
    SettleTold {
        /// The delivery.
        tag: DeliveryTag,
        /// The message.
        id: MessageId,
        /// What.
        outcome: SettleTold,
    },
    /// A delivery is no longer this process's, and will come again.
    Returned {
        /// The delivery.
        tag: DeliveryTag,
        /// The queue.
        queue: QueueName,
        /// The message.
        id: MessageId,
        /// Whether its process handed it back by itself.
        handed_back: bool,
    },
}

/// How a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// By a publisher.
    Published,
    /// As the effect of a job.
    Effect(DeliveryTag),
    /// As the copy of a message, to be tried again or kept as failed.
    Copy(DeliveryTag),
}

/// What a publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// The broker has it.
    Confirmed,
    /// The broker does not have it.
    Refused,
    /// There is no such queue.
    Returned,
    /// Nobody knows.
    Unknown,
}

/// What a worker was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettleTold {
    /// It is so.
    Taken,
    /// The delivery is no longer its own.
    Lost {
        /// Whether everything was sent.
        sent: bool,
    },
    /// Not everything could be sent.
    NotSent,
    /// Nobody knows.
    Unavailable,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ruling {
    /// The job is done.
    Done,
    /// Again.
    Again {
        /// Not before.
        due: Timestamp,
        /// The attempt that follows.
        attempt: u32,
        /// Whether it runs alone from now on.
        suspect: bool,
    },
    /// The handler has given up.
    Recover(GaveUpReason),
    /// The job is kept as failed.
    Failed {
        /// Why the handler gave up.
        reason: GaveUpReason,
        /// Whether a recovery function ran, and whether it succeeded.
        recovered: Option<bool>,
    },
    /// As it was.
    Release,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunEnd {
    /// It succeeded, and wants these messages sent.
    Succeeded(Vec<MessageId>),
    /// It failed, and is not to be tried again before so long.
    Failed(Duration),
    /// It failed, and is not to be tried again at all.
    Stopped,
    /// It wants to be called again after so long, as the same attempt.
    Snoozed(Duration),
    /// It was cut off (its time was up, it panicked, its process died) and is not to be tried again before so long.
    Cut(Duration),
}

impl History {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, at: Duration, process: &Arc<str>, what: Happened) {
        self.entries().push(Entry { at, process: Arc::clone(process), what });
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// This history as it is now, to which nothing is added.
    pub(super) fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.all())))
    }

    /// A number that two histories have in common only if they are the same.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.entries().hash(&mut hasher);
        hasher.finish()
    }

    /// What happened to one message and to the processes that had it, one line each.
    #[must_use]
    pub fn of(&self, id: MessageId) -> String {
        let entries = self.entries();
        let about = |entry: &&Entry| entry.what.message() == Some(id);
        let processes: std::collections::BTreeSet<_> =
            entries.iter().filter(about).map(|entry| Arc::clone(&entry.process)).collect();
        let tags: Vec<_> = entries.iter().filter(about).filter_map(|entry| entry.what.tag()).collect();
        let mut text = String::new();
        for entry in entries.iter() {
            let shown = match &entry.what {
                what if what.message().is_some() => what.message() == Some(id),
                Happened::Acknowledged { tag, .. } => tags.contains(tag),
                Happened::Taken { sent: Sent::Effect(tag) | Sent::Copy(tag), .. } => tags.contains(tag),
                Happened::Fault(..) | Happened::Began | Happened::Died => processes.contains(&entry.process),
                _ => false,
            };
            if shown {
                text.push_str(&format!("{entry}\n"));
            }
        }
        text
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries().iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}

impl Happened {
    /// The message that it happened to.
    #[must_use]
    pub fn message(&self) -> Option<MessageId> {
        match self {
            Self::Fault(_, id) => *id,
            Self::Taken { id, .. }
            | Self::Told { id, .. }
            | Self::Promised { id }
            | Self::Delivered { id, .. }
            | Self::Runs { id, .. }
            | Self::Ran { id, .. }
            | Self::Settles { id, .. }
            | Self::Settled { id, .. }
            | Self::SettleTold { id, .. }
            | Self::Returned { id, .. } => Some(*id),
            _ => None,
        }
    }

    fn tag(&self) -> Option<DeliveryTag> {
        match self {
            Self::Delivered { tag, .. } => Some(*tag),
            _ => None,
        }
    }
}

/// The end of an id, enough to tell it from others of one history.
fn short(id: &MessageId) -> String {
    let text = id.to_string();
    text[text.len() - 8..].to_owned()
}

fn shorts(ids: &[MessageId]) -> String {
    ids.iter().map(short).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.3} s  {:<12} {}", self.at.as_secs_f64(), self.process, self.what)
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fence = |tag: &DeliveryTag| format!("#{}", tag.fence);
        match self {
            Self::Began => write!(f, "begins"),
            Self::NotStarted(why) => write!(f, "does not start: {why}"),
            Self::Serves { queue, .. } => write!(f, "serves {queue}"),
            Self::Fault(fault, Some(id)) => write!(f, "FAULT {fault:?} ({})", short(id)),
            Self::Fault(fault, None) => write!(f, "FAULT {fault:?}"),
            Self::Died => write!(f, "is dead"),
            Self::Bound { queue, event } => write!(f, "{queue} hears {event}"),
            Self::Taken { id, name, to, copies, sent, .. } => {
                let to = to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let how = match sent {
                    Sent::Published => "published".to_owned(),
                    Sent::Effect(tag) => format!("effect of {}", fence(tag)),
                    Sent::Copy(tag) => format!("copy of {}", fence(tag)),
                };
                let times = if *copies > 1 { format!(", {copies} times") } else { String::new() };
                write!(f, "broker has {} {name} → [{to}] ({how}{times})", short(id))
            }
            Self::Told { id, outcome } => write!(f, "told of {}: {outcome:?}", short(id)),
            Self::Promised { id } => write!(f, "publisher relies on {}", short(id)),
            Self::Delivered { tag, queue, id, phase, attempt, losses, .. } => {
                let phase = phase.as_str();
                write!(
                    f,
                    "gets {} from {queue} as {}: {phase} {attempt}, lost {losses}",
                    short(id),
                    fence(tag)
                )
            }
            Self::Runs { tag, queue, id, phase, attempt } => {
                write!(f, "runs {queue} {} of {}: {} {attempt}", fence(tag), short(id), phase.as_str())
            }
            Self::Ran { tag, queue, id, end } => match end {
                RunEnd::Succeeded(sends) => {
                    let sends = shorts(sends);
                    write!(f, "ran {queue} {} of {}: succeeded, sends [{sends}]", fence(tag), short(id))
                }
                other => write!(f, "ran {queue} {} of {}: {other:?}", fence(tag), short(id)),
            },
            Self::Settles { tag, id, ruling, sends } => {
                write!(f, "settles {} of {}: {ruling:?}, sends [{}]", fence(tag), short(id), shorts(sends))
            }
            Self::Settled { tag, id, ruling, held, .. } => {
                let stale = if *held { "" } else { " ALTHOUGH IT WAS NOT ITS OWN" };
                write!(f, "broker settled {} of {}: {ruling:?}{stale}", fence(tag), short(id))
            }
            Self::Acknowledged { tag, held } => {
                let stale = if *held { "" } else { " ALTHOUGH IT WAS NOT ITS OWN" };
                write!(f, "broker removed the original {}{stale}", fence(tag))
            }
            Self::SettleTold { tag, id, outcome } => {
                write!(f, "told of settling {} of {}: {outcome:?}", fence(tag), short(id))
            }
            Self::Returned { tag, id, handed_back, .. } => {
                let how = if *handed_back { "hands back" } else { "loses" };
                write!(f, "{how} {} of {}", fence(tag), short(id))
            }
        }
    }
}
