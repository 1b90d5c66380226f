//! The writer's connection: transactions, the persisted clock, checkpoints.

use std::cell::Cell;
use std::mem;
use std::sync::Arc;

use ponos_core::broker::BrokerError;
use ponos_core::id::Timestamp;
use rusqlite::{Connection, ErrorCode, params};

use crate::clock::Clock;
use crate::error;
use crate::file_lock::FileLock;
use crate::shared::Shared;
use crate::suspects::Suspect;
use crate::transaction::{Names, Tx, millis};

/// The write-ahead log is checkpointed whenever so many pages (4 KiB each) were added to it.
const CHECKPOINT_PAGES: i32 = 1000;

thread_local! {
    /// Pages in the write-ahead log after the last commit of this thread; SQLite's hook takes no state.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The database, as its only writer in this process has it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) connection: Connection,
    shared: Arc<Shared>,
    names: Names,
    /// See [`Tx::fence`].
    fence: i64,
    /// Broker time of the running transaction.
    now: Timestamp,
    /// Queues that got something to deliver in the running transaction.
    touched: Vec<i64>,
    /// The suspect that this process has.
    pub(crate) suspect: Option<Suspect>,
    /// What the file holds: latest time, offset.
    persisted: (Timestamp, u64),
    /// SQLite's counter of commits by other connections.
    data_version: Option<i64>,
    /// SQLite's count of changed rows when the running transaction began.
    changes: u64,
    /// The pages in the write-ahead log at the last checkpoint.
    checkpointed: i32,
}

/// The clock as earlier and other processes have left it in the file.
pub(crate) fn clock(connection: &Connection) -> rusqlite::Result<Clock> {
    let number = |key: &str| {
        let value = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0));
        value.map(i64::cast_unsigned)
    };
    let clock = Clock::default();
    clock.learn(number("last_now")?, number("clock_offset")?);
    Ok(clock)
}

impl Store {
    pub(crate) fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            shared,
            names: Names::default(),
            fence: fastrand::i64((1 << 60)..(1 << 61)),
            now: Timestamp::EPOCH,
            touched: Vec::new(),
            suspect: None,
            persisted: (Timestamp::EPOCH, 0),
            data_version: None,
            changes: 0,
            checkpointed: 0,
        }
    }

    /// Has this thread's commits tell how long the log is. It replaces SQLite's automatic checkpoints, which would run
    /// before a commit is answered.
    pub(crate) fn watch_log(&self) {
        self.connection.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(pages);
            Ok(())
        }));
    }

    /// Starts a transaction that may write from the start: one that began by reading fails at its first write if anybody
    /// has written meanwhile, whatever the busy timeout.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.touched.clear();
        self.changes = self.connection.total_changes();
        let version = self.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0));
        let seen = version.and_then(|version| {
            if self.data_version != Some(version) {
                self.learn()?;
                self.data_version = Some(version);
            }
            Ok(())
        });
        if seen.is_err() {
            self.rollback();
        }
        self.now = self.shared.clock.now();
        seen
    }

    /// Takes over what other processes have changed.
    fn learn(&mut self) -> rusqlite::Result<()> {
        let mut meta = self.connection.prepare_cached("SELECT key, value FROM meta")?;
        let mut rows = meta.query([])?;
        let (mut latest, mut offset) = (0, 0);
        while let Some(row) = rows.next()? {
            let value: i64 = row.get(1)?;
            match row.get_ref(0)?.as_str()? {
                "generation" => self.names.at_generation(value),
                "last_now" => latest = value.cast_unsigned(),
                "clock_offset" => offset = value.cast_unsigned(),
                _ => {}
            }
        }
        self.shared.clock.learn(latest, offset);
        self.persisted = (Timestamp::from_millis(latest), offset);
        Ok(())
    }

    /// The running transaction, for an operation.
    pub(crate) fn transaction(&mut self) -> Tx<'_> {
        Tx {
            connection: &self.connection,
            names: &mut self.names,
            now: self.now,
            owner: self.shared.process,
            fence: &mut self.fence,
            touched: &mut self.touched,
            shared: &self.shared,
        }
    }

    pub(crate) fn touched(&self) -> &[i64] {
        &self.touched
    }

    pub(crate) fn take_touched(&mut self) -> Vec<i64> {
        mem::take(&mut self.touched)
    }

    /// Commits, and persists the time where the transaction has written anything and it has moved on enough.
    pub(crate) fn commit(&mut self) -> rusqlite::Result<()> {
        let offset = self.shared.clock.offset();
        let moved = offset != self.persisted.1 || Clock::should_persist(self.now, self.persisted.0);
        if moved && self.connection.total_changes() != self.changes {
            self.connection
                .prepare_cached(
                    "UPDATE meta SET value = CASE key WHEN 'last_now' THEN ?1 ELSE ?2 END
                     WHERE key IN ('last_now', 'clock_offset')",
                )?
                .execute(params![millis(self.now), offset.cast_signed()])?;
            self.persisted = (self.now, offset);
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Undoes the running transaction; SQLite may have done so itself.
    pub(crate) fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
        self.touched.clear();
        // It may have made names and noted a time that no longer are in the file.
        self.names.forget();
        self.persisted = (Timestamp::EPOCH, 0);
        self.data_version = None;
    }

    pub(crate) fn explain(&self, error: &rusqlite::Error) -> BrokerError {
        error::of_sqlite(&self.shared.location.shown, error)
    }

    /// Whether a commit that failed so may come to light again when the log is recovered.
    pub(crate) fn is_doubtful(error: &rusqlite::Error) -> bool {
        error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
    }

    /// Copies the log into the database when it has grown enough; after the answers, under the lock.
    ///
    /// Passive: it takes what no reader still needs, and leaves the rest for the next time.
    pub(crate) fn checkpoint_if_due(&mut self, lock: &FileLock) {
        let pages = LOG_PAGES.get();
        if pages < self.checkpointed {
            // The log was begun anew since.
            self.checkpointed = 0;
        }
        if pages - self.checkpointed >= CHECKPOINT_PAGES {
            self.checkpointed = pages;
            if let Ok(_held) = lock.lock() {
                self.checkpoint("PASSIVE");
            }
        }
    }

    /// Leaves the file in order: leases handed back, nobody's rows left, the log emptied if no one else is there.
    pub(crate) fn leave(&mut self, process: i64) -> rusqlite::Result<()> {
        self.begin()?;
        let left = self.strike_off(process).and_then(|others| self.commit().map(|()| others));
        match left {
            Ok(0) => self.checkpoint("TRUNCATE"),
            Ok(_) => {}
            Err(error) => {
                self.rollback();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands back what a process that closes holds, which counts no loss; answers how many processes are left.
    fn strike_off(&self, process: i64) -> rusqlite::Result<i64> {
        let c = &self.connection;
        c.execute("UPDATE message SET state = 0 WHERE state = 1 AND owner = ?1", [process])?;
        c.execute("DELETE FROM consumer WHERE process_id = ?1", [process])?;
        c.execute("DELETE FROM process WHERE id = ?1", [process])?;
        c.query_row("SELECT count(*) FROM process", [], |row| row.get(0))
    }

    fn checkpoint(&self, mode: &str) {
        let done = self
            .connection
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get::<_, i64>(0));
        match done {
            Ok(0) => {}
            Ok(_) => tracing::debug!(mode, "a reader is in the way of the checkpoint"),
            Err(error) => tracing::warn!(mode, %error, "the write-ahead log could not be checkpointed"),
        }
    }
}
