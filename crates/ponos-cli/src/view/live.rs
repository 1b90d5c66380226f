//! Entries, told to those who watch while they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ponos::core::broker::{BoxFuture, BrokerError};
use ponos::core::journal::{Entry, JournalReader, Position};
use tokio::sync::broadcast;

/// Those who watch.
#[derive(Debug, Clone)]
pub(crate) struct Entries {
    told: broadcast::Sender<Arc<Entry>>,
    /// Whether what is read is new: what stood in the log before is not told.
    current: Arc<AtomicBool>,
    /// How many were read, told or not.
    read: Arc<AtomicU64>,
}

impl Entries {
    pub(crate) fn new(told: broadcast::Sender<Arc<Entry>>) -> Self {
        Self { told, current: Arc::default(), read: Arc::default() }
    }

    /// What is read from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.told.subscribe()
    }

    /// How many entries were read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The log was read to its end.
    pub(super) fn is_current(&self) {
        self.current.store(true, Ordering::Relaxed);
    }

    pub(super) fn reader(&self, reader: Box<dyn JournalReader>) -> Box<dyn JournalReader> {
        Box::new(Telling { entries: self.clone(), reader })
    }
}

/// A reader that tells what it reads.
#[derive(Debug)]
struct Telling {
    entries: Entries,
    reader: Box<dyn JournalReader>,
}

impl JournalReader for Telling {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>> {
        Box::pin(async {
            let read = self.reader.next().await?;
            self.entries.read.fetch_add(read.len() as u64, Ordering::Relaxed);
            if self.entries.current.load(Ordering::Relaxed) && self.entries.told.receiver_count() > 0 {
                for entry in &read {
                    let _ = self.entries.told.send(Arc::new(entry.clone()));
                }
            }
            Ok(read)
        })
    }

    fn position(&self) -> Option<Position> {
        self.reader.position()
    }
}
