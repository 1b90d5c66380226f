//! The lock that writers of several processes take turns by.
//!
//! SQLite's own busy handler polls with sleeps: with eight writing processes one waited 7.5 s for the lock, where a
//! blocking lock on a file beside the database, which the kernel queues for, cost 0.26 s. Five processes that
//! create a file at once get `SQLITE_BUSY` past any timeout otherwise.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ponos_core::broker::BrokerError;

use crate::error;

/// `FILE.writer.lock`: whoever holds it may write.
///
/// It locks an open file *description*, so two brokers in one process exclude each other too.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    waits: Arc<LockWaits>,
}

/// How long this process waited for the lock; written by whoever takes it, read by statistics.
#[derive(Debug, Default)]
pub(crate) struct LockWaits {
    longest_micros: AtomicU64,
    /// Since when somebody waits, for the warning about a process that was stopped while it held the lock.
    waiting_since: Mutex<Option<Instant>>,
}

impl LockWaits {
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros.load(Ordering::Relaxed))
    }

    /// How long the writer has been waiting by now.
    pub(crate) fn current(&self) -> Duration {
        let since = *self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn waiting(&self, since: Option<Instant>) {
        *self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

/// Holding it is holding the lock.
#[derive(Debug)]
pub(crate) struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // It cannot fail for a lock that is held; if it did, closing the file frees it.
        let _ = self.0.unlock();
    }
}

impl FileLock {
    /// Opens the lock's file, or makes it with mode 0600.
    pub(crate) fn open(path: &Path) -> Result<Self, BrokerError> {
        let file = open_private(path).map_err(|e| error::of_io("create the lock file", path, &e))?;
        Ok(Self { file, waits: Arc::default() })
    }

    pub(crate) fn waits(&self) -> Arc<LockWaits> {
        Arc::clone(&self.waits)
    }

    /// Waits for the lock. The kernel frees it when its holder dies.
    pub(crate) fn lock(&self) -> io::Result<Held<'_>> {
        if self.file.try_lock().is_ok() {
            return Ok(Held(&self.file));
        }
        let since = Instant::now();
        self.waits.waiting(Some(since));
        let locked = loop {
            match self.file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.waits.waiting(None);
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waits.longest_micros.fetch_max(waited, Ordering::Relaxed);
        locked.map(|()| Held(&self.file))
    }
}

/// Opens a file for writing, or makes it, for its owner alone.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create(true).truncate(false)).open(path)
}

/// Makes a file that must not exist yet, for its owner alone.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().read(true).write(true).create_new(true)).open(path)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
