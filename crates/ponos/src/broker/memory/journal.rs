//! Records in memory: a ring.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ponos_core::broker::{BoxFuture, BrokerError};
use ponos_core::journal::{Journal, JournalQuery, Record};

/// How many records are kept.
const CAPACITY: usize = 20_000;

/// The newest records.
#[derive(Debug, Default)]
pub(super) struct MemoryJournal {
    /// Held for one push or one read.
    records: Mutex<VecDeque<Record>>,
    dropped: AtomicU64,
}

impl Journal for MemoryJournal {
    fn append(&self, record: Record) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == CAPACITY {
            records.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        records.push_back(record);
    }

    fn read(&self, query: JournalQuery) -> BoxFuture<'_, Result<Vec<Record>, BrokerError>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<Record> = match query {
            JournalQuery::Tid(tid) => records.iter().filter(|record| record.tid == tid).cloned().collect(),
            JournalQuery::TidSuffix(suffix) => {
                records.iter().filter(|record| record.tid.to_string().ends_with(&suffix)).cloned().collect()
            }
            JournalQuery::Last(n) => records.iter().skip(records.len().saturating_sub(n)).cloned().collect(),
            JournalQuery::Since(since) => {
                records.iter().filter(|record| record.at >= since).cloned().collect()
            }
            _ => Vec::new(),
        };
        drop(records);
        Box::pin(ready(Ok(found)))
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
