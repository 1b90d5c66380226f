//! The journal: records of what happened, in a file of its own beside the broker's.
//!
//! No job's fate depends on a record, so this file trades safety for speed where the broker's does not: a record that
//! finds the channel full is dropped and counted, commits do not wait for the disk, and a journal that cannot be opened
//! is a warning. It has its own thread and its own lock, and never delays the broker's commits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use ponos_core::broker::{BoxFuture, BrokerError, BrokerErrorKind};
use ponos_core::id::Timestamp;
use ponos_core::journal::{Journal, JournalQuery, RECORD_VERSION, Record};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::error;
use crate::file_lock::FileLock;
use crate::location::Location;
use crate::schema;

/// "PonJ": the journal's application id.
const APPLICATION_ID: i32 = 0x506f_6e4a;

/// How many records may wait to be written.
const CHANNEL: usize = 8192;

/// How many records one transaction writes at most.
const BATCH: usize = 2048;

/// How long records gather before they are written, so that a busy service does not commit for each.
const GATHER: Duration = Duration::from_millis(5);

/// How many surplus records one transaction deletes at most beyond as many as it wrote.
const SURPLUS: u64 = 4096;

/// By how much the clocks of those who write records may differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// A later minor only adds columns with a default. `tail` is the transaction id backwards: people type its last
/// characters, and so both the whole id and its end are found by one index.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS record (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  version INTEGER NOT NULL,   -- ponos_core::journal::RECORD_VERSION
  tail    TEXT    NOT NULL,
  json    TEXT    NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS record_tail ON record (tail);";

/// The journal beside one broker's file; see the [module](self).
#[derive(Debug)]
pub(crate) struct SqliteJournal {
    writer: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Append(Box<Record>),
    Read(JournalQuery, oneshot::Sender<Result<Vec<Record>, BrokerError>>),
    Close(oneshot::Sender<()>),
}

impl SqliteJournal {
    /// Opens the journal of a broker's file, keeping so many records. What is wrong with it is only logged.
    pub(crate) fn open_or_warn(location: &Location, limit: u64) -> Option<Arc<Self>> {
        match Self::open(location, limit.max(1)) {
            Ok(journal) => Some(Arc::new(journal)),
            Err(error) => {
                tracing::warn!(%error, "no journal is written: mend or delete it, and start again");
                None
            }
        }
    }

    fn open(location: &Location, limit: u64) -> Result<Self, BrokerError> {
        let path = location.journal();
        let shown = path.display().to_string();
        let lock = FileLock::open(&location.journal_lock())?;
        let connection = {
            let _held = lock.lock().map_err(|e| error::of_io("lock", &location.journal_lock(), &e))?;
            schema::create_empty(&path)?;
            create(&path).map_err(|error| error::of_sqlite(&shown, &error))?
        };
        let Some(connection) = connection else {
            return Err(BrokerError::new(
                BrokerErrorKind::Unusable,
                format!("`{shown}` is another program's database"),
            ));
        };
        let (writer, inbox) = mpsc::channel(CHANNEL);
        let dropped = Arc::new(AtomicU64::new(0));
        let thread =
            Thread { inbox, connection: Some(connection), lock, shown, limit, dropped: Arc::clone(&dropped) };
        thread::Builder::new()
            .name("ponos-journal".into())
            .spawn(move || thread.run())
            .map_err(|e| error::of_io("start a thread for", &path, &e))?;
        Ok(Self { writer, dropped })
    }

    /// Writes what was appended and closes the file; records appended later are dropped.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.writer.send(Message::Close(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

impl Journal for SqliteJournal {
    fn append(&self, record: Record) {
        if self.writer.try_send(Message::Append(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self, query: JournalQuery) -> BoxFuture<'_, Result<Vec<Record>, BrokerError>> {
        Box::pin(async move {
            let closed = || BrokerError::new(BrokerErrorKind::Closed, "the journal was closed");
            let (reply, answer) = oneshot::channel();
            // Through the same channel: what was appended before is written before.
            self.writer.send(Message::Read(query, reply)).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        })
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Opens and prepares the file; `None` for a database that is not a journal.
fn create(path: &std::path::Path) -> rusqlite::Result<Option<Connection>> {
    let mut connection = schema::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, 2048)?;
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id != APPLICATION_ID {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if id != 0 || tables != 0 {
            return Ok(None);
        }
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // In WAL mode this waits for the disk at checkpoints only, and never leaves a damaged file.
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304")?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1; {SCHEMA}"
    ))?;
    tx.commit()?;
    Ok(Some(connection))
}

/// The journal thread's own state.
struct Thread {
    inbox: mpsc::Receiver<Message>,
    /// `Some` until the end: it is closed under the lock.
    connection: Option<Connection>,
    lock: FileLock,
    shown: String,
    limit: u64,
    dropped: Arc<AtomicU64>,
}

impl Thread {
    fn run(mut self) {
        let mut records = Vec::with_capacity(BATCH);
        let mut others = VecDeque::new();
        while let Some(first) = self.inbox.blocking_recv() {
            let mut next = Some(first);
            let mut gathered = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Append(record) => records.push(record),
                    other => {
                        others.push_back(other);
                        break;
                    }
                }
                if records.len() >= BATCH {
                    break;
                }
                next = self.inbox.try_recv().ok();
                if next.is_none() && !gathered {
                    gathered = true;
                    thread::sleep(GATHER);
                    next = self.inbox.try_recv().ok();
                }
            }
            self.write(&records);
            records.clear();
            while let Some(message) = others.pop_front() {
                match message {
                    Message::Append(_) => {}
                    Message::Read(query, reply) => drop(reply.send(self.read(&query))),
                    Message::Close(reply) => {
                        self.close();
                        let _ = reply.send(());
                        return;
                    }
                }
            }
        }
        self.close();
    }

    /// The last connection to a database clears its log away when it closes: that is writing, so it takes the lock.
    fn close(&mut self) {
        let _held = self.lock.lock();
        self.connection = None;
    }

    fn write(&mut self, records: &[Box<Record>]) {
        let Some(connection) = self.connection.as_mut().filter(|_| !records.is_empty()) else {
            return;
        };
        let written = self.lock.lock().is_ok_and(|_held| match insert(connection, records, self.limit) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(journal = self.shown, %error, "records were dropped");
                false
            }
        });
        if !written {
            self.dropped.fetch_add(records.len() as u64, Ordering::Relaxed);
        }
    }

    fn read(&self, query: &JournalQuery) -> Result<Vec<Record>, BrokerError> {
        let Some(connection) = &self.connection else {
            return Ok(Vec::new());
        };
        select(connection, query).map_err(|error| error::of_sqlite(&self.shown, &error))
    }
}

fn insert(connection: &mut Connection, records: &[Box<Record>], limit: u64) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut insert = tx.prepare_cached("INSERT INTO record (version, tail, json) VALUES (?1, ?2, ?3)")?;
        for record in records {
            let json = serde_json::to_string(record)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            insert.execute(params![RECORD_VERSION, backwards(&record.tid.to_string()), json])?;
        }
        // Ids are given in sequence and only the oldest are ever deleted, so their span is the count.
        let delete = "DELETE FROM record WHERE id <= (SELECT max(id) FROM record) - ?1
                      AND id < (SELECT min(id) FROM record) + ?2";
        let most = records.len() as u64 + SURPLUS;
        tx.prepare_cached(delete)?.execute([limit, most].map(|n| i64::try_from(n).unwrap_or(i64::MAX)))?;
    }
    tx.commit()
}

fn select(connection: &Connection, query: &JournalQuery) -> rusqlite::Result<Vec<Record>> {
    let (by_tail, last) = (
        "SELECT json FROM record WHERE tail >= ?1 AND tail < ?2 AND version <= ?3 ORDER BY id",
        "SELECT json FROM (SELECT id, json FROM record WHERE version <= ?2 ORDER BY id DESC LIMIT ?1) ORDER BY id",
    );
    let version = i64::from(RECORD_VERSION);
    let mut statement;
    let mut rows = match query {
        JournalQuery::Tid(tid) => {
            let tail = backwards(&tid.to_string());
            statement = connection.prepare_cached(by_tail)?;
            // The least text that is greater.
            statement.query(params![tail, format!("{tail}\u{0}"), version])?
        }
        JournalQuery::TidSuffix(suffix) if suffix.is_empty() => return Ok(Vec::new()),
        JournalQuery::TidSuffix(suffix) => {
            let tail = backwards(suffix);
            statement = connection.prepare_cached(by_tail)?;
            // Transaction ids are ASCII, so this is greater than any that begins so.
            statement.query(params![tail, format!("{tail}\u{7f}"), version])?
        }
        JournalQuery::Last(count) => {
            statement = connection.prepare_cached(last)?;
            statement.query(params![i64::try_from(*count).unwrap_or(i64::MAX), version])?
        }
        JournalQuery::Since(since) => return newer(connection, *since),
        _ => return Ok(Vec::new()),
    };
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        match serde_json::from_str(row.get_ref(0)?.as_str()?) {
            Ok(record) => records.push(record),
            Err(error) => tracing::debug!(%error, "a record that cannot be read is left out"),
        }
    }
    Ok(records)
}

/// Records stand in the order in which they were written, which is nearly that of their time: each process has its own
/// clock, and gathers before it writes.
fn newer(connection: &Connection, since: Timestamp) -> rusqlite::Result<Vec<Record>> {
    let sql = "SELECT json FROM record WHERE version <= ?1 ORDER BY id DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([i64::from(RECORD_VERSION)])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        match serde_json::from_str::<Record>(row.get_ref(0)?.as_str()?) {
            Ok(record) if record.at >= since => records.push(record),
            Ok(record) if since.since(record.at) > SKEW => break,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a record that cannot be read is left out"),
        }
    }
    records.reverse();
    Ok(records)
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}
