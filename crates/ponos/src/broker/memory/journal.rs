//! Entries in memory: a ring.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ponos_core::broker::{BoxFuture, BrokerError};
use ponos_core::journal::{Entry, From, Journal, JournalReader, Position};

/// How many entries are kept.
const CAPACITY: usize = 20_000;

/// How many entries a reader takes at once.
const PAGE: usize = 1024;

/// The newest entries.
#[derive(Debug, Default)]
pub(super) struct MemoryJournal {
    ring: Arc<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Held for one push or one read.
    entries: Mutex<Entries>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    kept: VecDeque<Entry>,
    /// The number of the first that is kept.
    first: u64,
}

impl Ring {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn append(&self, entry: Entry) {
        let mut entries = self.ring.entries();
        if entries.kept.len() == CAPACITY {
            entries.kept.pop_front();
            entries.first += 1;
            self.ring.dropped.fetch_add(1, Ordering::Relaxed);
        }
        entries.kept.push_back(entry);
    }

    fn open(&self, from: From) -> BoxFuture<'_, Result<Box<dyn JournalReader>, BrokerError>> {
        let entries = self.ring.entries();
        let next = match from {
            From::Start | From::Time(_) => entries.first,
            From::After(position) => position.offset + 1,
            From::End => entries.first + entries.kept.len() as u64,
        };
        drop(entries);
        let reader = MemoryReader { ring: Arc::clone(&self.ring), next, position: None };
        Box::pin(ready(Ok(Box::new(reader) as Box<dyn JournalReader>)))
    }

    fn dropped(&self) -> u64 {
        self.ring.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct MemoryReader {
    ring: Arc<Ring>,
    next: u64,
    position: Option<Position>,
}

impl JournalReader for MemoryReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>> {
        let entries = self.ring.entries();
        let skip = self.next.saturating_sub(entries.first);
        self.next = self.next.max(entries.first);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let found: Vec<Entry> = entries.kept.iter().skip(skip).take(PAGE).cloned().collect();
        drop(entries);
        self.next += found.len() as u64;
        if !found.is_empty() {
            self.position = Some(Position { log: 0, offset: self.next - 1 });
        }
        Box::pin(ready(Ok(found)))
    }

    fn position(&self) -> Option<Position> {
        self.position
    }
}
