//! What an instance tells its journal: the entries' numbers, and a switch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ponos_core::envelope::MessageName;
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{Entry, Journal, Notice, Origin, Record, Said, What};

/// `off` in this variable of the environment switches the records of every service and publisher of the process off.
pub(crate) const LIFECYCLE_VARIABLE: &str = "PONOS_LIFECYCLE";

/// Whether the environment leaves records on.
pub(crate) fn is_wanted() -> bool {
    std::env::var(LIFECYCLE_VARIABLE).as_deref() != Ok("off")
}

/// The journal of one instance.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    journal: Arc<dyn Journal>,
    origin: Arc<Origin>,
    /// The number of the next entry. Taken for each, whether it is kept or not: that is how readers see a loss.
    next: AtomicU64,
}

impl Lifecycle {
    pub(crate) fn new(journal: Arc<dyn Journal>, origin: Origin) -> Self {
        Self { journal, origin: Arc::new(origin), next: AtomicU64::new(0) }
    }

    /// Tells what happened to a message.
    pub(crate) fn record(&self, at: Timestamp, tid: Tid, message: MessageId, what: What) {
        self.say(Said::Record(Record { at, tid, message, what }));
    }

    /// Tells what happened to the instance.
    pub(crate) fn notice(&self, at: Timestamp, notice: Notice) {
        self.say(Said::Notice(at, notice));
    }

    /// How many entries of the process were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.journal.dropped()
    }

    fn say(&self, said: Said) {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        self.journal.append(Entry { origin: Arc::clone(&self.origin), seq, said });
    }
}

/// A message's name, shared.
pub(crate) fn shared(name: &MessageName) -> Arc<str> {
    Arc::from(name.as_str())
}
