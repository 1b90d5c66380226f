//! What happens to one message.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::envelope::{ErrorClass, GaveUpReason, Phase};
use crate::id::{MessageId, Tid, Timestamp};
use crate::name::{AppName, QueueName};

/// One thing that happened to one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, on the clock of the process that wrote it.
    pub at: Timestamp,
    /// The transaction.
    pub tid: Tid,
    /// The message.
    pub message: MessageId,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The broker has confirmed the message.
    Published(PublishedRecord),
    /// The broker did not take the message for good, or nobody knows whether it did.
    Unpublished(UnpublishedRecord),
    /// An attempt has ended.
    Attempt(AttemptRecord),
    /// It came again although this process had done it, and was recognised.
    Duplicate {
        /// The queue that it came from.
        queue: QueueName,
    },
    /// It may have killed its process, and runs alone from now on.
    Suspected {
        /// Its queue.
        queue: QueueName,
        /// How often a process died with it.
        losses: u32,
    },
    /// Somebody did something with it by hand.
    ByHand(HandMade),
}

/// A message that a broker has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedRecord {
    /// The event's or the task's name.
    pub name: Arc<str>,
    /// Whether it is an event.
    pub event: bool,
    /// The application that published it.
    pub app: Option<AppName>,
    /// The message that caused it.
    pub cause: Option<MessageId>,
    /// The queue of the handler that published it.
    pub by: Option<Arc<str>>,
    /// How many queues it went to; at least so many where the broker does not count.
    pub queues: u32,
    /// How many messages lie between it and the start of its chain.
    #[serde(default)]
    pub hops: u32,
    /// The bytes of its body.
    #[serde(default)]
    pub size: u32,
}

/// A message that a broker has not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpublishedRecord {
    /// The event's or the task's name.
    pub name: Arc<str>,
    /// Whether it is an event.
    pub event: bool,
    /// The message that caused it.
    pub cause: Option<MessageId>,
    /// The queue of the handler that published it.
    pub by: Option<Arc<str>>,
    /// Whether it may have been taken after all.
    pub open: bool,
    /// Why, in one line.
    pub error: Arc<str>,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The queue that the job was in.
    pub queue: QueueName,
    /// The number of the attempt in its phase, from 1.
    pub attempt: u32,
    /// Which function ran.
    pub phase: Phase,
    /// When it started.
    pub started: Timestamp,
    /// How long it ran.
    #[serde(with = "micros")]
    pub took: Duration,
    /// How it ended.
    pub end: AttemptEnd,
    /// The error's first line, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Arc<str>>,
    /// When the job could have started at the earliest: it was published then, or due. On the broker's or another
    /// process's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Timestamp>,
    /// How many runs there are at most in this phase; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u32>,
    /// Who chose the time of the next attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_by: Option<DelayBy>,
    /// Of a job that failed: what groups failures that are alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Arc<str>>,
    /// How long it waited in this process for its rate limit or its turn behind a circuit.
    #[serde(default, skip_serializing_if = "Duration::is_zero", with = "micros")]
    pub held: Duration,
}

impl AttemptRecord {
    /// The first attempt of a phase, at this moment, of which nothing else is known; the rest is filled in by name.
    #[must_use]
    pub fn first(queue: QueueName, phase: Phase, started: Timestamp, end: AttemptEnd) -> Self {
        Self {
            queue,
            attempt: 1,
            phase,
            started,
            took: Duration::ZERO,
            end,
            error: None,
            ready: None,
            of: None,
            delay_by: None,
            fingerprint: None,
            held: Duration::ZERO,
        }
    }
}

/// Who chose the time of a job's next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DelayBy {
    /// The backoff of the handler's policy.
    Backoff,
    /// The handler, with `.retry_after(…)`.
    Handler,
    /// The handler, with `snooze(…)`: no attempt was spent.
    Snooze,
}

/// How an attempt ended, and what follows for its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttemptEnd {
    /// The job is done.
    Done,
    /// The job will be tried again.
    Retry {
        /// What went wrong.
        class: ErrorClass,
        /// When.
        due: Timestamp,
    },
    /// The handler gave up; the recovery function runs next.
    GaveUp {
        /// What went wrong last.
        class: ErrorClass,
        /// Why it is not tried again.
        reason: GaveUpReason,
    },
    /// The job failed and is kept in the queue of failed jobs.
    Failed {
        /// Why it was not tried again.
        reason: GaveUpReason,
        /// Whether a recovery function ran and succeeded.
        recovered: bool,
    },
    /// The result came too late: the job was no longer this worker's.
    Lost,
}

/// What somebody did with a message by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandMade {
    /// `retried`, `discarded`, `restored`, `edited`.
    pub verb: Arc<str>,
    /// The queue that it went to.
    pub queue: QueueName,
    /// Who.
    pub by: Arc<str>,
    /// Which operation it was part of.
    pub operation: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Arc<str>>,
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_micros)
    }
}
