//! The single place where an instance says what happened. What it says goes to its journal, its metrics, or both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ponos_core::envelope::{Envelope, ErrorClass, MessageName};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    AttemptRecord, Entry, Journal, Notice, Origin, PublishedRecord, Record, Said, UnpublishedRecord, What,
};

#[cfg(feature = "metrics")]
use crate::metrics::Meter;

/// `off` in this variable of the environment switches the records of every service and publisher of the process off.
pub(crate) const LIFECYCLE_VARIABLE: &str = "PONOS_LIFECYCLE";

/// Whether the environment leaves records on.
pub(crate) fn is_wanted() -> bool {
    std::env::var(LIFECYCLE_VARIABLE).as_deref() != Ok("off")
}

/// What an instance says, and to whom. There is one where a journal or metrics are kept.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    log: Option<Log>,
    #[cfg(feature = "metrics")]
    meter: Option<Arc<Meter>>,
}

/// The journal of one instance.
#[derive(Debug)]
struct Log {
    journal: Arc<dyn Journal>,
    origin: Arc<Origin>,
    /// The number of the next entry. Taken for each, whether it is kept or not: that is how readers see a loss.
    next: AtomicU64,
}

/// What a broker said about a message that it did not take. Only metrics tell these apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// No answer: it may have it.
    Unknown,
    /// It took nothing for too long.
    Blocked,
    /// There is no queue for it.
    NoQueue,
    /// It said no.
    Refused,
}

#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "some of what is said is for metrics only")
)]
impl Lifecycle {
    /// Says everything to a journal.
    pub(crate) fn new(journal: Arc<dyn Journal>, origin: Origin) -> Self {
        let log = Log { journal, origin: Arc::new(origin), next: AtomicU64::new(0) };
        Self {
            log: Some(log),
            #[cfg(feature = "metrics")]
            meter: None,
        }
    }

    /// Says everything to these metrics too.
    #[cfg(feature = "metrics")]
    pub(crate) fn measured(self, meter: Arc<Meter>) -> Self {
        Self { meter: Some(meter), ..self }
    }

    /// Whether a journal is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.log.is_some()
    }

    /// Tells that the broker has taken a message, and how long that took.
    pub(crate) fn published(
        &self,
        at: Timestamp,
        message: &Envelope,
        what: PublishedRecord,
        took: Option<Duration>,
    ) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.published(at, &message.tid, &what, took);
        }
        self.keep(at, message, What::Published(what));
    }

    /// Tells that the broker has not taken a message, or that nobody knows.
    pub(crate) fn unpublished(
        &self,
        at: Timestamp,
        message: &Envelope,
        what: UnpublishedRecord,
        why: NotTaken,
    ) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.unpublished(at, &message.tid, &what, why);
        }
        self.keep(at, message, What::Unpublished(what));
    }

    /// Tells how an attempt at a job ended, of what kind its error was, and under which rate limit it waited if it did.
    pub(crate) fn attempt(
        &self,
        at: Timestamp,
        job: &Envelope,
        what: AttemptRecord,
        class: Option<ErrorClass>,
        limit: impl FnOnce() -> Option<Arc<str>>,
    ) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.attempt(at, job, &what, class, limit);
        }
        self.keep(at, job, What::Attempt(what));
    }

    /// Tells what else happened to a message.
    pub(crate) fn record(&self, at: Timestamp, tid: Tid, message: MessageId, what: What) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.happened(at, &tid, &what);
        }
        self.say(|| Said::Record(Record { at, tid, message, what }));
    }

    /// Tells what happened to the instance.
    pub(crate) fn notice(&self, at: Timestamp, notice: Notice) {
        #[cfg(feature = "metrics")]
        if let Some(meter) = &self.meter {
            meter.noticed(&notice);
        }
        self.say(|| Said::Notice(at, notice));
    }

    /// How many entries of the process were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.journal.dropped())
    }

    /// How many entries this instance has written, those too that were dropped.
    #[cfg(feature = "metrics")]
    pub(crate) fn said(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.next.load(Ordering::Relaxed))
    }

    fn keep(&self, at: Timestamp, message: &Envelope, what: What) {
        self.say(|| Said::Record(Record { at, tid: message.tid.clone(), message: message.id, what }));
    }

    fn say(&self, said: impl FnOnce() -> Said) {
        let Some(log) = &self.log else { return };
        let seq = log.next.fetch_add(1, Ordering::Relaxed);
        log.journal.append(Entry { origin: Arc::clone(&log.origin), seq, said: said() });
    }
}

/// A message's name, shared.
pub(crate) fn shared(name: &MessageName) -> Arc<str> {
    Arc::from(name.as_str())
}
