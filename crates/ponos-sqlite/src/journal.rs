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
use ponos_core::journal::{Entry, From, Journal, JournalReader, Position, decode, encode};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::error;
use crate::file_lock::FileLock;
use crate::location::Location;
use crate::schema;

/// "PonJ": the journal's application id.
const APPLICATION_ID: i32 = 0x506f_6e4a;

/// How many entries may wait to be written.
const CHANNEL: usize = 8192;

/// How many entries one batch holds at most.
const BATCH: usize = 2048;

/// How long entries gather before they are written, so that a busy service does not commit for each.
const GATHER: Duration = Duration::from_millis(20);

/// How many surplus batches one transaction deletes at most.
const SURPLUS: i64 = 4096;

/// How many bytes of batches a reader takes at once.
const PAGE: usize = 256 * 1024;

/// By how much the clocks of those who write records may differ.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// The journal's own form; a higher one is another program's business.
///
/// `upto` counts all entries that were ever written, this batch's included: what is kept is a difference of two.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS batch (
  id    INTEGER PRIMARY KEY AUTOINCREMENT,
  at    INTEGER NOT NULL,   -- the latest entry's time, milliseconds since the epoch
  upto  INTEGER NOT NULL,
  bytes BLOB    NOT NULL    -- ponos_core::journal::encode
) STRICT;
CREATE INDEX IF NOT EXISTS batch_at ON batch (at);
CREATE TABLE IF NOT EXISTS log (
  id    INTEGER NOT NULL,
  began INTEGER NOT NULL    -- when it was made, milliseconds since the epoch
) STRICT;
INSERT INTO log SELECT random(), unixepoch('subsec') * 1000 WHERE NOT EXISTS (SELECT 1 FROM log);
DROP TABLE IF EXISTS record;";

/// The journal beside one broker's file; see the [module](self).
#[derive(Debug)]
pub(crate) struct SqliteJournal {
    writer: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Append(Box<Entry>),
    Read(Ask, oneshot::Sender<Result<Answer, BrokerError>>),
    Close(oneshot::Sender<()>),
}

/// What a reader wants.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// Where to begin.
    Place(From),
    /// Batches behind this one, as many as [`PAGE`] bytes hold.
    After(u64),
}

/// What it gets.
#[derive(Debug)]
enum Answer {
    /// The log, and the batch behind which it begins.
    Place { log: u64, began: Timestamp, after: u64 },
    /// Entries, and the last batch that they come from.
    Entries(Vec<Entry>, u64),
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
    fn append(&self, entry: Entry) {
        if self.writer.try_send(Message::Append(Box::new(entry))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(&self, from: From) -> BoxFuture<'_, Result<Box<dyn JournalReader>, BrokerError>> {
        Box::pin(async move {
            let Answer::Place { log, began, after } = ask(&self.writer, Ask::Place(from)).await? else {
                return Err(closed());
            };
            let reader = SqliteReader { writer: self.writer.clone(), log, began, after, position: None };
            Ok(Box::new(reader) as Box<dyn JournalReader>)
        })
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn closed() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Closed, "the journal was closed")
}

/// Through the channel of the writer: what was appended before is written before.
async fn ask(writer: &mpsc::Sender<Message>, question: Ask) -> Result<Answer, BrokerError> {
    let (reply, answer) = oneshot::channel();
    writer.send(Message::Read(question, reply)).await.map_err(|_| closed())?;
    answer.await.map_err(|_| closed())?
}

/// A reader of the journal.
#[derive(Debug)]
struct SqliteReader {
    writer: mpsc::Sender<Message>,
    log: u64,
    began: Timestamp,
    /// The last batch that was read.
    after: u64,
    position: Option<Position>,
}

impl JournalReader for SqliteReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>> {
        Box::pin(async move {
            loop {
                let Answer::Entries(entries, last) = ask(&self.writer, Ask::After(self.after)).await? else {
                    return Err(closed());
                };
                let moved = last > self.after;
                if moved {
                    self.after = last;
                    self.position = Some(Position { log: self.log, offset: last });
                }
                // Batches that cannot be read are passed over.
                if !entries.is_empty() || !moved {
                    return Ok(entries);
                }
            }
        })
    }

    fn position(&self) -> Option<Position> {
        self.position
    }

    fn began(&self) -> Option<Timestamp> {
        Some(self.began)
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
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2; {SCHEMA}"
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
        let mut entries = Vec::with_capacity(BATCH);
        let mut others = VecDeque::new();
        while let Some(first) = self.inbox.blocking_recv() {
            let mut next = Some(first);
            let mut gathered = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Append(entry) => entries.push(*entry),
                    other => {
                        others.push_back(other);
                        break;
                    }
                }
                if entries.len() >= BATCH {
                    break;
                }
                next = self.inbox.try_recv().ok();
                if next.is_none() && !gathered {
                    gathered = true;
                    thread::sleep(GATHER);
                    next = self.inbox.try_recv().ok();
                }
            }
            self.write(&entries);
            entries.clear();
            while let Some(message) = others.pop_front() {
                match message {
                    Message::Append(_) => {}
                    Message::Read(question, reply) => drop(reply.send(self.read(question))),
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

    fn write(&mut self, entries: &[Entry]) {
        let Some(connection) = self.connection.as_mut().filter(|_| !entries.is_empty()) else {
            return;
        };
        let written = self.lock.lock().is_ok_and(|_held| match insert(connection, entries, self.limit) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(journal = self.shown, %error, "records were dropped");
                false
            }
        });
        if !written {
            self.dropped.fetch_add(entries.len() as u64, Ordering::Relaxed);
        }
    }

    fn read(&self, question: Ask) -> Result<Answer, BrokerError> {
        let Some(connection) = &self.connection else {
            return Err(closed());
        };
        let answer = match question {
            Ask::Place(from) => place(connection, from),
            Ask::After(after) => page(connection, after),
        };
        answer.map_err(|error| error::of_sqlite(&self.shown, &error))
    }
}

fn insert(connection: &mut Connection, entries: &[Entry], limit: u64) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let at = entries.iter().map(|entry| entry.said.at()).max().unwrap_or_default().as_millis();
        let upto = "SELECT coalesce((SELECT upto FROM batch ORDER BY id DESC LIMIT 1), 0)";
        let before: i64 = tx.prepare_cached(upto)?.query_row([], |row| row.get(0))?;
        let upto = before.saturating_add(sql(entries.len() as u64));
        let insert = "INSERT INTO batch (at, upto, bytes) VALUES (?1, ?2, ?3)";
        tx.prepare_cached(insert)?.execute(params![sql(at), upto, encode(entries)])?;
        // Only the oldest are ever deleted: what is kept is at least `limit`, and at most a batch more.
        let delete = "DELETE FROM batch WHERE upto <= ?1 AND id < (SELECT min(id) FROM batch) + ?2";
        tx.prepare_cached(delete)?.execute([upto.saturating_sub(sql(limit)), SURPLUS])?;
    }
    tx.commit()
}

fn place(connection: &Connection, from: From) -> rusqlite::Result<Answer> {
    let (log, began): (i64, i64) =
        connection.query_row("SELECT id, began FROM log", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let log = log.cast_unsigned();
    let ask = |question: &str, at: i64| -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(question)?.query_row([at], |row| row.get(0))
    };
    let last = "SELECT max(id) FROM batch WHERE id > ?1";
    let after = match from {
        From::Start => 0,
        From::Time(time) => {
            // Each process has its own clock, and gathers before it writes.
            let skew = u64::try_from(SKEW.as_millis()).unwrap_or(u64::MAX);
            let since = sql(time.as_millis().saturating_sub(skew));
            match ask("SELECT min(id) FROM batch WHERE at >= ?1", since)? {
                Some(first) => first - 1,
                None => ask(last, 0)?.unwrap_or(0),
            }
        }
        From::After(position) if position.log == log => sql(position.offset),
        From::After(_) => 0,
        From::End => ask(last, 0)?.unwrap_or(0),
    };
    let began = Timestamp::from_millis(u64::try_from(began).unwrap_or(0));
    Ok(Answer::Place { log, began, after: u64::try_from(after).unwrap_or(0) })
}

fn page(connection: &Connection, after: u64) -> rusqlite::Result<Answer> {
    let mut statement = connection.prepare_cached("SELECT id, bytes FROM batch WHERE id > ?1 ORDER BY id")?;
    let mut rows = statement.query([sql(after)])?;
    let (mut entries, mut last, mut bytes) = (Vec::new(), after, 0);
    while bytes < PAGE
        && let Some(row) = rows.next()?
    {
        last = row.get::<_, i64>(0)?.cast_unsigned();
        let batch = row.get_ref(1)?.as_blob()?;
        bytes += batch.len();
        match decode(batch) {
            Ok(read) => entries.extend(read),
            Err(error) => tracing::debug!(%error, "a batch that cannot be read is left out"),
        }
    }
    Ok(Answer::Entries(entries, last))
}

fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
