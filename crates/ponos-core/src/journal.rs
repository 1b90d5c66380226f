//! Records of what was published and how each attempt ended, without bodies.
//!
//! A journal is bounded and never blocks a handler; what it drops it counts. It is for looking, not for deciding:
//! no job's fate depends on a record.

use std::fmt::Debug;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::{BoxFuture, BrokerError};
use crate::envelope::{ErrorClass, GaveUpReason, Phase};
use crate::id::{MessageId, Tid, Timestamp};
use crate::name::{AppName, QueueName};

/// A version of the record's form; readers skip records of a later one.
pub const RECORD_VERSION: u32 = 1;

/// Where records go.
pub trait Journal: Debug + Send + Sync + 'static {
    /// Takes a record, or drops it and counts, without waiting.
    fn append(&self, record: Record);

    /// Reads records, oldest first. What was appended before by this process is seen.
    ///
    /// Some brokers keep records only from the first look on; [`Last(0)`](JournalQuery::Last) is the cheapest look.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    fn read(&self, query: JournalQuery) -> BoxFuture<'_, Result<Vec<Record>, BrokerError>>;

    /// How many records this process has dropped.
    fn dropped(&self) -> u64;
}

/// Which records to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JournalQuery {
    /// Those of one transaction.
    Tid(Tid),
    /// Those of transactions whose id ends so; for people, who type the last eight characters.
    TidSuffix(String),
    /// The newest so many.
    Last(usize),
    /// Those that are not older than this.
    Since(Timestamp),
}

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
    /// An attempt has ended.
    Attempt(AttemptRecord),
}

/// A message that a broker has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedRecord {
    /// The event's or the task's name.
    pub name: String,
    /// Whether it is an event.
    pub event: bool,
    /// The application that published it.
    pub app: Option<AppName>,
    /// The message that caused it.
    pub cause: Option<MessageId>,
    /// The queue of the handler that published it.
    pub by: Option<String>,
    /// How many queues it went to.
    pub queues: u32,
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
    pub error: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_encoding() {
        let record = Record {
            at: Timestamp::from_millis(7),
            tid: Tid::from_foreign("t").unwrap(),
            message: MessageId::from_bytes([3; 16]),
            what: What::Attempt(AttemptRecord {
                queue: QueueName::parse("a.b.do").unwrap(),
                attempt: 2,
                phase: Phase::Run,
                started: Timestamp::from_millis(5),
                took: Duration::from_micros(1500),
                end: AttemptEnd::Retry { class: ErrorClass::Timeout, due: Timestamp::from_millis(9) },
                error: Some("slow".into()),
            }),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
    }
}
