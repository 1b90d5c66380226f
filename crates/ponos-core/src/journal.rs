//! What happened, without bodies: records of messages and notices of instances, and the log that keeps them.
//!
//! A journal is bounded and never blocks a handler; what it drops is seen. It is for looking, not for deciding:
//! no job's fate depends on an entry.
//!
//! | what | who | when |
//! | --- | --- | --- |
//! | [`Record`] | one message | it was published, an attempt at it ended, it was recognised as a duplicate, … |
//! | [`Notice`] | one instance | it started, it is alive and has these jobs in flight, a circuit changed, … |
//!
//! # Loss
//!
//! Every instance numbers its entries, those too that it cannot keep: a number that is missing is an entry that was
//! lost, whatever lost it, and readers can say how many, whose, and when. Nothing else is needed to notice a gap.
//!
//! # Form
//!
//! Entries travel and rest in batches ([`encode`], [`decode`]): a compact binary form with a version, a dictionary of
//! names and ids, and compression where it pays. A reader skips kinds that it does not know, and fields that a later
//! version has appended to one that it knows.

mod binary;
mod codec;
mod notice;
mod record;

use std::fmt::Debug;
use std::sync::Arc;

use crate::broker::{BoxFuture, BrokerError};
use crate::id::{Tid, Timestamp};
use crate::name::AppName;

pub use self::codec::{DamagedBatch, MAX_BATCH_BYTES, RECORD_VERSION, decode, encode};
pub use self::notice::{
    Beat, CircuitNotice, CircuitPhase, Flight, LimitNotice, MAX_FLIGHTS, Notice, OrderNotice, QueueBeat,
};
pub use self::record::{
    AttemptEnd, AttemptRecord, DelayBy, HandMade, PublishedRecord, Record, UnpublishedRecord, What,
};

/// One instance of a service, or one publisher: a process may have several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Origin {
    /// Drawn at random when it started, as hexadecimal digits in JSON.
    #[serde(serialize_with = "as_hex")]
    pub id: u64,
    /// The application.
    pub app: AppName,
    /// The version of the service, where it says one.
    pub version: Option<Arc<str>>,
    /// The host and process: `host/pid`.
    pub host: Arc<str>,
    /// When it started, on its own clock.
    pub started: Timestamp,
}

fn as_hex<S: serde::Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{id:016x}"))
}

/// One line of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who wrote it.
    pub origin: Arc<Origin>,
    /// Its number among those of its origin, from 0, without gaps.
    pub seq: u64,
    /// What it says.
    pub said: Said,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Something happened to a message.
    Record(Record),
    /// Something happened to an instance.
    Notice(Timestamp, Notice),
    /// Something that only a later version can read. It is not lost.
    Later(Timestamp),
}

impl Said {
    /// When it happened, on the clock of the one who wrote it.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Record(record) => record.at,
            Self::Notice(at, _) | Self::Later(at) => *at,
        }
    }
}

impl Entry {
    /// The record, if it is one.
    #[must_use]
    pub fn into_record(self) -> Option<Record> {
        match self.said {
            Said::Record(record) => Some(record),
            Said::Notice(..) | Said::Later(_) => None,
        }
    }
}

/// A log of entries: where they go, and from where on they are read.
pub trait Journal: Debug + Send + Sync + 'static {
    /// Takes an entry, or drops it, without waiting. The entry's number tells readers of the loss.
    fn append(&self, entry: Entry);

    /// Opens a reader. What was appended before by this process is seen by it.
    ///
    /// Some brokers keep entries only from the first look on; [`From::End`] is the cheapest look.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    fn open(&self, from: From) -> BoxFuture<'_, Result<Box<dyn JournalReader>, BrokerError>>;

    /// How many entries this process has dropped.
    fn dropped(&self) -> u64;
}

/// A reader of a journal.
pub trait JournalReader: Debug + Send {
    /// The next entries. The first empty answer says that everything was read that stood there when the reader was
    /// opened; after it, an empty answer says that nothing has come since.
    ///
    /// # Errors
    ///
    /// When the log cannot be read any more; open another reader behind [`position`](Self::position).
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>>;

    /// Where to go on: behind what [`next`](Self::next) has given so far. `None` before the first entry.
    fn position(&self) -> Option<Position>;

    /// Since when the log keeps entries, where this reader has seen that: what an instance that is older wrote before is not
    /// lost, nobody kept it.
    fn began(&self) -> Option<Timestamp> {
        None
    }
}

/// A place in a log. Only the journal that it comes from understands it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which log: one that was deleted and made anew is another.
    pub log: u64,
    /// The place, growing.
    pub offset: u64,
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest that is kept.
    Start,
    /// With entries of about this time; some older ones may come too.
    Time(Timestamp),
    /// Behind this place; at the oldest that is kept where that place is no more, or was in another log.
    After(Position),
    /// Behind all that stands there.
    End,
}

/// Which records [`read`] looks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JournalQuery {
    /// Those of one transaction.
    Tid(Tid),
    /// Those of transactions whose id ends so.
    TidSuffix(String),
    /// The newest so many.
    Last(usize),
    /// Those that are not older than this.
    Since(Timestamp),
}

/// Reads a journal from where the query allows to its end and keeps what it asks for, oldest first.
///
/// It looks at every entry on the way. For many questions, or over a long log, use a read model.
///
/// # Errors
///
/// When the log cannot be read.
pub async fn read(journal: &dyn Journal, query: &JournalQuery) -> Result<Vec<Record>, BrokerError> {
    let from = match query {
        JournalQuery::Last(0) => From::End,
        JournalQuery::Tid(tid) => tid.began().map_or(From::Start, From::Time),
        JournalQuery::Since(since) => From::Time(*since),
        JournalQuery::TidSuffix(_) | JournalQuery::Last(_) => From::Start,
    };
    let mut reader = journal.open(from).await?;
    let mut found = std::collections::VecDeque::new();
    loop {
        let entries = reader.next().await?;
        if entries.is_empty() {
            return Ok(found.into());
        }
        for record in entries.into_iter().filter_map(Entry::into_record) {
            let wanted = match query {
                JournalQuery::Tid(tid) => record.tid == *tid,
                JournalQuery::TidSuffix(suffix) => record.tid.to_string().ends_with(suffix.as_str()),
                JournalQuery::Since(since) => record.at >= *since,
                JournalQuery::Last(_) => true,
            };
            if wanted {
                found.push_back(record);
            }
            if let JournalQuery::Last(count) = query
                && found.len() > *count
            {
                found.pop_front();
            }
        }
    }
}
