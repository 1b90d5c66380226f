//! The entries of six hours: one file.
//!
//! A row of `entry` is what indexes need; what the entry says lies with its neighbours in a batch, compressed. Each entry
//! is there once, however often it is given.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{Entry, Said, decode, encode};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::database::{self, Opened, SEGMENT, sql, unsql};
use crate::directory;
use crate::error::ReadModelError;
use crate::facts::{facts_of, kind_of, message_key};
use crate::tail::Tail;

/// How many entries a batch holds at most: to read one entry is to unpack so many.
const BATCH: usize = 64;

/// One file of entries.
#[derive(Debug)]
pub(crate) struct Segment {
    connection: Connection,
    /// Which file it is, in case that another takes its name.
    pub(crate) identity: u64,
}

/// What a segment knows of a transaction without looking at its entries.
#[derive(Debug, Clone)]
pub(crate) struct TraceRow {
    pub(crate) id: i64,
    pub(crate) tid: Tid,
    pub(crate) first_at: u64,
    pub(crate) last_at: u64,
    pub(crate) root: Option<String>,
    pub(crate) root_rank: i64,
    pub(crate) records: u64,
    pub(crate) failed: u64,
    pub(crate) retries: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
}

/// What entries of one call change in a row of `trace`.
#[derive(Debug)]
struct Change {
    id: i64,
    first_at: u64,
    last_at: u64,
    /// The best rank and the word that has it.
    root: Option<(u64, i64)>,
    records: u64,
    failed: u64,
    retries: u64,
    opened: u64,
    closed: u64,
}

/// The columns of a [`TraceRow`].
const TRACE: &str = "t.id, t.tail, t.first_at, t.last_at, (SELECT text FROM word WHERE word.id = t.root), \
                     t.root_rank, t.records, t.failed, t.retries, t.opened, t.closed";

/// What [`Segment::traces`] looks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct TraceWish<'a> {
    pub(crate) words: Vec<&'a str>,
    pub(crate) only: &'static str,
    pub(crate) since: u64,
    pub(crate) until: u64,
    /// Only rows with a lower id.
    pub(crate) before: i64,
    /// Only this row.
    pub(crate) id: Option<i64>,
    pub(crate) limit: usize,
}

impl Segment {
    /// Opens a segment; `None` for one that holds nothing or is gone. The error text says why it cannot be used.
    pub(crate) fn open(path: &Path) -> Result<Result<Option<Self>, String>, ReadModelError> {
        let identity = directory::identity(path);
        Ok(match database::open(path, &SEGMENT)? {
            Opened::Ready(connection) => Ok(Some(Self { connection, identity })),
            Opened::Absent => Ok(None),
            Opened::Unusable(why) => Err(why),
        })
    }

    /// Opens a segment or makes it. The lock must be held.
    pub(crate) fn create(path: &Path) -> Result<Result<Self, String>, ReadModelError> {
        Ok(match database::open_or_create(path, &SEGMENT)? {
            Opened::Ready(connection) => Ok(Self { connection, identity: directory::identity(path) }),
            Opened::Absent => Err("it cannot be written to".to_owned()),
            Opened::Unusable(why) => Err(why),
        })
    }

    /// Whether the whole file can be read.
    pub(crate) fn is_sound(&self) -> bool {
        let check = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        check.is_ok_and(|said| said == "ok")
    }

    /// The highest number of an entry, 0 for none.
    pub(crate) fn highest(&self) -> rusqlite::Result<i64> {
        let highest = "SELECT coalesce(max(id), 0) FROM entry";
        self.connection.prepare_cached(highest)?.query_row([], |row| row.get(0))
    }

    /// Keeps the entries that are not there yet, numbered from `next` on, which is moved. Gives how many they were.
    pub(crate) fn write(&mut self, entries: &[&Entry], next: &mut i64) -> rusqlite::Result<usize> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let written = Writing::new(&tx).write(entries, next)?;
        tx.commit()?;
        Ok(written)
    }

    /// The row of a transaction.
    pub(crate) fn trace(&self, tid: &Tid) -> rusqlite::Result<Option<TraceRow>> {
        let query = format!("SELECT {TRACE} FROM trace t WHERE tail = ?1");
        let mut statement = self.connection.prepare_cached(&query)?;
        Ok(statement.query_row([Tail::of(tid)], trace_row).optional()?.flatten())
    }

    /// The rows of transactions whose ids end so, the newest first.
    pub(crate) fn ending_so(&self, suffix: &str, limit: usize) -> rusqlite::Result<Vec<TraceRow>> {
        let query = format!(
            "SELECT {TRACE} FROM trace t WHERE tail >= ?1 AND tail < ?2 ORDER BY last_at DESC LIMIT ?3"
        );
        let mut statement = self.connection.prepare_cached(&query)?;
        let mut found = Vec::new();
        for (from, to) in Tail::ranges(suffix) {
            let rows = statement.query_map(params![from, to, sql(limit as u64)], trace_row)?;
            for row in rows {
                found.extend(row?);
            }
        }
        Ok(found)
    }

    /// The rows of transactions, the last that was begun first.
    pub(crate) fn traces(&self, wish: &TraceWish<'_>) -> rusqlite::Result<Vec<TraceRow>> {
        let mut words = Vec::new();
        for word in &wish.words {
            let id: Option<i64> = self
                .connection
                .prepare_cached("SELECT id FROM word WHERE text = ?1")?
                .query_row([word], |row| row.get(0))
                .optional()?;
            match id {
                Some(id) => words.push(id),
                None => return Ok(Vec::new()),
            }
        }
        let mut from = "trace t".to_owned();
        let mut conditions = String::new();
        for (place, word) in words.iter().enumerate() {
            if place == 0 {
                from = "seen s CROSS JOIN trace t ON t.id = s.trace".to_owned();
                conditions.push_str(&format!(" AND s.word = {word} AND s.trace < ?1"));
            } else {
                conditions.push_str(&format!(
                    " AND EXISTS (SELECT 1 FROM seen WHERE seen.word = {word} AND seen.trace = t.id)"
                ));
            }
        }
        if let Some(id) = wish.id {
            conditions.push_str(&format!(" AND t.id = {id}"));
        }
        if !wish.only.is_empty() {
            conditions.push_str(&format!(" AND {}", wish.only));
        }
        let query = format!(
            "SELECT {TRACE} FROM {from} WHERE t.id < ?1 AND t.last_at >= ?2 AND t.first_at <= ?3 {conditions} \
             ORDER BY {} DESC LIMIT ?4",
            if words.is_empty() { "t.id" } else { "s.trace" }
        );
        let mut statement = self.connection.prepare(&query)?;
        let rows = statement.query_map(
            params![wish.before, sql(wish.since), sql(wish.until), sql(wish.limit as u64)],
            trace_row,
        )?;
        rows.filter_map(Result::transpose).collect()
    }

    /// The entries of a transaction, in the order of their arrival.
    pub(crate) fn entries_of(&self, trace: i64) -> rusqlite::Result<Vec<Entry>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id FROM entry WHERE trace = ?1 ORDER BY id")?;
        let ids: Vec<i64> = statement.query_map([trace], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(self.read(&ids)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The entries about a message, in the order of their arrival.
    pub(crate) fn entries_about(&self, message: MessageId) -> rusqlite::Result<Vec<Entry>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id FROM entry WHERE message = ?1 ORDER BY id")?;
        let ids: Vec<i64> =
            statement.query_map([message_key(&message)], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut entries: Vec<Entry> = self.read(&ids)?.into_iter().map(|(_, entry)| entry).collect();
        entries.retain(|entry| matches!(&entry.said, Said::Record(record) if record.message == message));
        Ok(entries)
    }

    /// Entries with higher numbers, in their order.
    pub(crate) fn entries_after(&self, id: i64, limit: usize) -> rusqlite::Result<Vec<(i64, Entry)>> {
        let mut statement =
            self.connection.prepare_cached("SELECT id FROM entry WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let ids: Vec<i64> =
            statement.query_map([id, sql(limit as u64)], |row| row.get(0))?.collect::<Result<_, _>>()?;
        self.read(&ids)
    }

    /// The number of the first entry that is not older.
    pub(crate) fn first_since(&self, at: Timestamp) -> rusqlite::Result<Option<i64>> {
        let query = "SELECT id FROM entry WHERE at >= ?1 ORDER BY id LIMIT 1";
        self.connection.prepare_cached(query)?.query_row([sql(at.as_millis())], |row| row.get(0)).optional()
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> rusqlite::Result<u64> {
        let count = "SELECT count(*) FROM entry";
        self.connection.prepare_cached(count)?.query_row([], |row| row.get(0)).map(unsql)
    }

    /// The time of the first entry that came.
    pub(crate) fn oldest(&self) -> rusqlite::Result<Option<Timestamp>> {
        let oldest = "SELECT at FROM entry ORDER BY id LIMIT 1";
        let oldest: Option<i64> =
            self.connection.prepare_cached(oldest)?.query_row([], |row| row.get(0)).optional()?;
        Ok(oldest.map(|at| Timestamp::from_millis(unsql(at))))
    }

    /// What entries of these numbers, which ascend, say.
    fn read(&self, ids: &[i64]) -> rusqlite::Result<Vec<(i64, Entry)>> {
        let query = "SELECT first, bytes FROM batch WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
        let mut statement = self.connection.prepare_cached(query)?;
        let mut found = Vec::with_capacity(ids.len());
        let mut at_hand: Option<(i64, Vec<Option<Entry>>)> = None;
        for id in ids {
            let here = at_hand.as_ref().is_some_and(|(first, batch)| id - first < sql(batch.len() as u64));
            if !here {
                at_hand = statement
                    .query_row([id], |row| {
                        let read = decode(row.get_ref(1)?.as_blob()?).unwrap_or_else(|error| {
                            tracing::warn!(%error, "a batch of the read model is left out");
                            Vec::new()
                        });
                        Ok((row.get(0)?, read.into_iter().map(Some).collect()))
                    })
                    .optional()?;
            }
            let entry = at_hand.as_mut().and_then(|(first, batch)| {
                batch.get_mut(usize::try_from(id - *first).ok()?).and_then(Option::take)
            });
            found.extend(entry.map(|entry| (*id, entry)));
        }
        Ok(found)
    }
}

fn trace_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<TraceRow>> {
    let Some(tid) = Tail::read(row.get_ref(1)?) else {
        return Ok(None);
    };
    let count = |place| row.get::<_, i64>(place).map(unsql);
    Ok(Some(TraceRow {
        id: row.get(0)?,
        tid,
        first_at: count(2)?,
        last_at: count(3)?,
        root: row.get(4)?,
        root_rank: row.get(5)?,
        records: count(6)?,
        failed: count(7)?,
        retries: count(8)?,
        opened: count(9)?,
        closed: count(10)?,
    }))
}

/// One transaction that writes: what it has looked up so far.
struct Writing<'a> {
    tx: &'a Connection,
    origins: HashMap<u64, i64>,
    words: HashMap<String, i64>,
    traces: HashMap<Tid, Change>,
    seen: HashSet<(i64, i64)>,
    batch: Vec<Entry>,
    first: i64,
}

impl<'a> Writing<'a> {
    fn new(tx: &'a Connection) -> Self {
        Self {
            tx,
            origins: HashMap::new(),
            words: HashMap::new(),
            traces: HashMap::new(),
            seen: HashSet::new(),
            batch: Vec::with_capacity(BATCH),
            first: 0,
        }
    }

    fn write(mut self, entries: &[&Entry], next: &mut i64) -> rusqlite::Result<usize> {
        let insert = "INSERT INTO entry (id, origin, seq, at, kind, trace, message)
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (origin, seq) DO NOTHING";
        let mut insert = self.tx.prepare_cached(insert)?;
        let mut written = 0;
        for entry in entries {
            let origin = self.origin(entry.origin.id)?;
            let record = match &entry.said {
                Said::Record(record) => Some(record),
                _ => None,
            };
            let trace = record.map(|record| self.trace(&record.tid)).transpose()?;
            let values = params![
                *next,
                origin,
                sql(entry.seq),
                sql(entry.said.at().as_millis()),
                kind_of(&entry.said),
                trace,
                record.map(|record| message_key(&record.message)),
            ];
            if insert.execute(values)? == 0 {
                continue;
            }
            if let (Some(record), Some(trace)) = (record, trace) {
                self.count(record, trace)?;
            }
            if self.batch.is_empty() {
                self.first = *next;
            }
            self.batch.push((*entry).clone());
            *next += 1;
            written += 1;
            if self.batch.len() >= BATCH {
                self.flush()?;
            }
        }
        self.flush()?;
        self.update()?;
        Ok(written)
    }

    fn flush(&mut self) -> rusqlite::Result<()> {
        if !self.batch.is_empty() {
            let insert = "INSERT INTO batch (first, bytes) VALUES (?1, ?2)";
            self.tx.prepare_cached(insert)?.execute(params![self.first, encode(&self.batch)])?;
            self.batch.clear();
        }
        Ok(())
    }

    fn origin(&mut self, key: u64) -> rusqlite::Result<i64> {
        match self.origins.entry(key) {
            Slot::Occupied(known) => Ok(*known.get()),
            Slot::Vacant(unknown) => {
                let insert = "INSERT INTO origin (key) VALUES (?1) ON CONFLICT (key) DO UPDATE SET key = key RETURNING id";
                let id = self.tx.prepare_cached(insert)?.query_row([key.cast_signed()], |row| row.get(0))?;
                Ok(*unknown.insert(id))
            }
        }
    }

    fn word(&mut self, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.words.get(text) {
            return Ok(*id);
        }
        let insert =
            "INSERT INTO word (text) VALUES (?1) ON CONFLICT (text) DO UPDATE SET text = text RETURNING id";
        let id = self.tx.prepare_cached(insert)?.query_row([text], |row| row.get(0))?;
        self.words.insert(text.to_owned(), id);
        Ok(id)
    }

    fn trace(&mut self, tid: &Tid) -> rusqlite::Result<i64> {
        if let Some(change) = self.traces.get(tid) {
            return Ok(change.id);
        }
        let tail = Tail::of(tid);
        let known: Option<i64> = self
            .tx
            .prepare_cached("SELECT id FROM trace WHERE tail = ?1")?
            .query_row([&tail], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                let insert =
                    "INSERT INTO trace (tail, first_at, last_at, root_rank, records, failed, retries, opened,
                              closed) VALUES (?1, ?2, 0, ?2, 0, 0, 0, 0, 0)";
                self.tx.prepare_cached(insert)?.execute(params![tail, i64::MAX])?;
                self.tx.last_insert_rowid()
            }
        };
        let change = Change {
            id,
            first_at: u64::MAX,
            last_at: 0,
            root: None,
            records: 0,
            failed: 0,
            retries: 0,
            opened: 0,
            closed: 0,
        };
        self.traces.insert(tid.clone(), change);
        Ok(id)
    }

    fn count(&mut self, record: &ponos_core::journal::Record, trace: i64) -> rusqlite::Result<()> {
        let facts = facts_of(record);
        let mut word = None;
        if let Some(facts) = &facts {
            for text in [Some(facts.word), facts.app].into_iter().flatten() {
                let id = self.word(text)?;
                word = word.or(Some(id));
                if self.seen.insert((id, trace)) {
                    let insert = "INSERT OR IGNORE INTO seen (word, trace) VALUES (?1, ?2)";
                    self.tx.prepare_cached(insert)?.execute([id, trace])?;
                }
            }
        }
        if let Some(change) = self.traces.get_mut(&record.tid) {
            let at = record.at.as_millis();
            change.first_at = change.first_at.min(at);
            change.last_at = change.last_at.max(at);
            change.records += 1;
            if let (Some(facts), Some(word)) = (facts, word) {
                change.failed += u64::from(facts.failed);
                change.retries += u64::from(facts.retried);
                change.opened += u64::from(facts.opened);
                change.closed += u64::from(facts.closed);
                change.root = change.root.into_iter().chain([(facts.rank, word)]).min();
            }
        }
        Ok(())
    }

    fn update(&self) -> rusqlite::Result<()> {
        let update = "UPDATE trace SET first_at = min(first_at, ?2), last_at = max(last_at, ?3),
            root = CASE WHEN ?5 < root_rank THEN ?4 ELSE root END, root_rank = min(root_rank, ?5),
            records = records + ?6, failed = failed + ?7, retries = retries + ?8, opened = opened + ?9,
            closed = closed + ?10 WHERE id = ?1";
        let mut update = self.tx.prepare_cached(update)?;
        for change in self.traces.values().filter(|change| change.records > 0) {
            update.execute(params![
                change.id,
                sql(change.first_at),
                sql(change.last_at),
                change.root.map(|(_, word)| word),
                change.root.map_or(i64::MAX, |(rank, _)| sql(rank)),
                sql(change.records),
                sql(change.failed),
                sql(change.retries),
                sql(change.opened),
                sql(change.closed),
            ])?;
        }
        Ok(())
    }
}
