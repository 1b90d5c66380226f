//! What is known besides a transaction's own records: who listens, what was lost, what held jobs back, what runs now.
//!
//! With it a tree shows more than what happened: what has not happened yet, and what cannot be known.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::QueueStats;
use ponos_core::id::Timestamp;
use ponos_core::journal::{Flight, Origin};
use ponos_core::name::{AppName, QueueName};

/// By how much the clocks of those who write records may differ, and how long an entry may be on its way.
const SLACK: Duration = Duration::from_secs(5);

/// What is known besides a transaction's own records. By default nothing is: a tree then says what its records say.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Which queues hear which events, by the manifests of those who listen.
    pub listeners: Vec<Listener>,
    /// Whether the broker counts the queues that an event goes to, or says "at least one".
    pub counted: bool,
    /// Entries that were lost.
    pub gaps: Vec<Gap>,
    /// What held jobs back, and when.
    pub holds: Vec<Hold>,
    /// Jobs that run, or ran when their instance was heard of last.
    pub flights: Vec<InFlight>,
    /// The figures of queues as they are now.
    pub queues: Vec<QueueStats>,
    /// What time it is; nothing is measured from it where it is the epoch.
    pub now: Timestamp,
}

/// A queue that hears an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The event.
    pub event: String,
    /// The queue.
    pub queue: QueueName,
    /// Since when it is known to.
    pub since: Timestamp,
}

/// Entries of one instance that were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose they were.
    pub origin: Arc<Origin>,
    /// How many.
    pub count: u64,
    /// They were written after this moment,
    pub after: Timestamp,
    /// and before this one.
    pub before: Timestamp,
}

impl Gap {
    /// Whether an entry of this application between the two moments may be among them.
    #[must_use]
    pub fn may_hide(&self, app: &AppName, from: Timestamp, until: Timestamp) -> bool {
        self.origin.app == *app && self.touches(from, until)
    }

    /// Whether something between the two moments may be among them.
    #[must_use]
    pub fn touches(&self, from: Timestamp, until: Timestamp) -> bool {
        self.after <= until + SLACK && from <= self.before + SLACK
    }
}

/// A time in which jobs of some queues did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The queues.
    pub queues: Vec<QueueName>,
    /// Why, such as `circuit smtp open (10 attempts failed in a row)`.
    pub why: String,
    /// Since when.
    pub from: Timestamp,
    /// Until when; `None` while it lasts.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// How much of the time between the two moments it covers.
    #[must_use]
    pub fn within(&self, from: Timestamp, until: Timestamp) -> Duration {
        let end = self.until.unwrap_or(until).min(until);
        end.since(self.from.max(from))
    }
}

/// A job that an instance was running when it was heard of last.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// The job.
    pub flight: Flight,
    /// Whose it is.
    pub origin: Arc<Origin>,
    /// When the instance was heard of last.
    pub seen: Timestamp,
    /// Whether the instance is expected to be at work still.
    pub alive: bool,
}

impl Surroundings {
    /// Whether entries of this application between the two moments may have been lost.
    pub(super) fn may_hide(&self, app: &AppName, from: Timestamp, until: Timestamp) -> bool {
        self.gaps.iter().any(|gap| gap.may_hide(app, from, until))
    }

    /// What held a queue's jobs back between the two moments, each reason once, the longest first.
    pub(super) fn held(&self, queue: &str, from: Timestamp, until: Timestamp) -> Vec<(Duration, &str)> {
        let mut by_reason: Vec<(Duration, &str)> = Vec::new();
        for hold in self.holds.iter().filter(|hold| hold.queues.iter().any(|held| *held == *queue)) {
            let time = hold.within(from, until);
            if time.is_zero() {
                continue;
            }
            // Several instances hold at the same time: the longest counts, they do not add up.
            match by_reason.iter_mut().find(|(_, why)| *why == hold.why) {
                Some((longest, _)) => *longest = time.max(*longest),
                None => by_reason.push((time, &hold.why)),
            }
        }
        by_reason.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        by_reason
    }

    /// The queue's figures, where they are known.
    pub(super) fn figures(&self, queue: &str) -> Option<&QueueStats> {
        self.queues.iter().find(|stats| stats.queue == *queue)
    }
}
