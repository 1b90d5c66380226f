use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// How many kinds are told apart; callers choose the names, so there must be an end.
const MAX_KINDS: usize = 500;

/// The longest kind that is kept, in characters.
const MAX_KIND_LEN: usize = 100;

/// What became of one webhook.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// It became this event.
    Emitted(&'static str),
    /// Its kind maps to nothing.
    Ignored(&'a str),
    /// It was malformed, or could not be published.
    Refused,
}

/// Counts webhooks. Held only while one is counted.
#[derive(Debug, Default)]
pub(super) struct Stats(Mutex<Counts>);

/// What `GET /stats` answers.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Counts {
    received: u64,
    emitted: u64,
    ignored: u64,
    refused: u64,
    events: BTreeMap<&'static str, u64>,
    ignored_kinds: BTreeMap<String, u64>,
}

impl Stats {
    pub(super) fn count(&self, seen: Seen<'_>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.received += 1;
        match seen {
            Seen::Emitted(event) => {
                counts.emitted += 1;
                *counts.events.entry(event).or_default() += 1;
            }
            Seen::Ignored(kind) => {
                counts.ignored += 1;
                let mut kind: String = kind.chars().take(MAX_KIND_LEN).collect();
                if counts.ignored_kinds.len() >= MAX_KINDS && !counts.ignored_kinds.contains_key(&kind) {
                    kind = "(others)".into();
                }
                *counts.ignored_kinds.entry(kind).or_default() += 1;
            }
            Seen::Refused => counts.refused += 1,
        }
    }

    pub(super) fn snapshot(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_fill_the_memory_with_kinds() {
        let stats = Stats::default();
        for n in 0..2 * MAX_KINDS {
            stats.count(Seen::Ignored(&format!("{n}{}", "x".repeat(1000))));
        }
        let counts = stats.snapshot();
        assert_eq!((counts.ignored, counts.ignored_kinds.len()), (1000, MAX_KINDS + 1));
        assert!(counts.ignored_kinds.keys().all(|kind| kind.len() <= MAX_KIND_LEN));
    }
}
