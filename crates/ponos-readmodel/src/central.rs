//! The file that knows all segments' origins, gaps and figures, and how far the log was read.
//!
//! What an entry changes here is changed once: an entry is new if its number is beyond all that its origin was seen to
//! use, or in one of its gaps. Numbers, gaps, figures and the place in the log are one transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::path::Path;

use ponos_core::journal::{Entry, Notice, Origin, Position, Said, encode};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::database::{self, MODEL, Opened, sql, unsql};
use crate::directory::{self, Held};
use crate::error::ReadModelError;
use crate::rollup::Rollup;

/// `model.db`.
#[derive(Debug)]
pub(crate) struct Central {
    pub(crate) connection: Connection,
    pub(crate) identity: u64,
}

/// What is known of an origin while entries are taken.
#[derive(Debug)]
struct Known {
    next: i64,
    latest: i64,
    first_at: i64,
    last_at: i64,
    hello_at: Option<i64>,
    bye_at: Option<i64>,
    beat: Option<(i64, Vec<u8>)>,
}

impl Central {
    /// Opens the file, or makes it; whether it was made. One that cannot be used is replaced.
    pub(crate) fn open(path: &Path, held: &Held<'_>) -> Result<(Self, bool), ReadModelError> {
        let fresh = directory::identity(path) == 0;
        match database::open_or_create(path, &MODEL)? {
            Opened::Ready(connection) => {
                Ok((Self { connection, identity: directory::identity(path) }, fresh))
            }
            Opened::Absent => Err(ReadModelError::vanished(path)),
            Opened::Unusable(why) => {
                tracing::warn!(file = %path.display(), why, "the read model's file is made anew");
                directory::delete(path, held)?;
                match database::open_or_create(path, &MODEL)? {
                    Opened::Ready(connection) => {
                        Ok((Self { connection, identity: directory::identity(path) }, true))
                    }
                    _ => Err(ReadModelError::vanished(path)),
                }
            }
        }
    }

    /// How far the log was read.
    pub(crate) fn position(&self) -> rusqlite::Result<Option<Position>> {
        position(&self.connection)
    }

    /// The log is to be read from its start again.
    pub(crate) fn forget_position(&self) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE progress SET log = NULL, place = NULL", []).map(|_| ())
    }

    /// The log keeps entries since then.
    pub(crate) fn began(&self, at: u64) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE progress SET began = ?1 WHERE began <> ?1", [sql(at)]).map(|_| ())
    }

    /// The log was read to its end.
    pub(crate) fn read_to_end(&self, at: u64) -> rusqlite::Result<()> {
        self.connection.execute("UPDATE progress SET read_at = max(read_at, ?1)", [sql(at)]).map(|_| ())
    }

    /// Counts the entries that are new; how many they were.
    pub(crate) fn take(&mut self, entries: &[Entry], read_to: Option<Position>) -> rusqlite::Result<usize> {
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let began = tx.prepare_cached("SELECT began FROM progress")?.query_row([], |row| row.get(0))?;
        let mut taking =
            Taking { tx: &tx, began, known: HashMap::new(), rollup: Rollup::default(), latest: 0 };
        let mut new = 0;
        for entry in entries {
            new += usize::from(taking.entry(entry)?);
        }
        taking.finish()?;
        if let Some(read_to) = read_to {
            // Another process may have read further meanwhile.
            let place = match position(&tx)? {
                Some(stored) if stored.log == read_to.log => stored.offset.max(read_to.offset),
                _ => read_to.offset,
            };
            tx.prepare_cached("UPDATE progress SET log = ?1, place = ?2")?
                .execute([read_to.log.cast_signed(), place.cast_signed()])?;
        }
        tx.commit()?;
        Ok(new)
    }

    /// Forgets the gaps: what was counted from segments alone has holes that are none.
    pub(crate) fn forget_gaps(&self) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM gap", []).map(|_| ())
    }
}

fn position(connection: &Connection) -> rusqlite::Result<Option<Position>> {
    connection.prepare_cached("SELECT log, place FROM progress")?.query_row([], |row| {
        let (log, place): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
        Ok(log
            .zip(place)
            .map(|(log, place)| Position { log: log.cast_unsigned(), offset: place.cast_unsigned() }))
    })
}

struct Taking<'a> {
    tx: &'a Connection,
    /// Since when the log keeps entries.
    began: i64,
    known: HashMap<u64, Known>,
    rollup: Rollup,
    latest: i64,
}

impl Taking<'_> {
    /// Whether it is new.
    fn entry(&mut self, entry: &Entry) -> rusqlite::Result<bool> {
        let (origin, seq) = (entry.origin.id.cast_signed(), sql(entry.seq));
        let at = sql(entry.said.at().as_millis());
        let known = match self.known.entry(entry.origin.id) {
            Place::Occupied(known) => known.into_mut(),
            Place::Vacant(unknown) => unknown.insert(known(self.tx, entry, at, self.began)?),
        };
        if seq >= known.next {
            if seq > known.next {
                let insert = "INSERT OR REPLACE INTO gap VALUES (?1, ?2, ?3, ?4, ?5)";
                let after = known.latest.min(at);
                self.tx.prepare_cached(insert)?.execute([origin, known.next, seq - 1, after, at])?;
            }
            known.next = seq.saturating_add(1);
            known.latest = at;
        } else if !fills(self.tx, origin, seq, at)? {
            return Ok(false);
        }
        known.first_at = known.first_at.min(at);
        known.last_at = known.last_at.max(at);
        self.latest = self.latest.max(at);
        match &entry.said {
            Said::Record(record) => self.rollup.add(record),
            Said::Notice(_, notice) => match notice {
                Notice::Hello { manifest } => {
                    known.hello_at = Some(at);
                    if let Some(text) = manifest {
                        manifest_of(self.tx, &entry.origin, at, text)?;
                    }
                }
                Notice::Beat(_) if known.beat.as_ref().is_none_or(|(before, _)| *before <= at) => {
                    known.beat = Some((at, encode(std::slice::from_ref(entry))));
                }
                Notice::Bye => known.bye_at = Some(at),
                Notice::Circuit(_) | Notice::Order(_) | Notice::Limit(_) => {
                    self.tx
                        .prepare_cached("INSERT OR IGNORE INTO notice VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![at, origin, seq, encode(std::slice::from_ref(entry))])?;
                }
                _ => {}
            },
            Said::Later(_) => {}
        }
        Ok(true)
    }

    fn finish(self) -> rusqlite::Result<()> {
        let update = "UPDATE origin SET next = ?2, latest = ?3, first_at = ?4, last_at = ?5, hello_at = ?6, bye_at = ?7,
            beat_at = ?8, beat = ?9 WHERE id = ?1";
        let mut update = self.tx.prepare_cached(update)?;
        for (id, known) in self.known {
            let (beat_at, beat) = known.beat.unzip();
            update.execute(params![
                id.cast_signed(),
                known.next,
                known.latest,
                known.first_at,
                known.last_at,
                known.hello_at,
                known.bye_at,
                beat_at,
                beat,
            ])?;
        }
        self.tx.prepare_cached("UPDATE progress SET latest = max(latest, ?1)")?.execute([self.latest])?;
        self.rollup.write(self.tx)
    }
}

fn known(tx: &Connection, entry: &Entry, at: i64, began: i64) -> rusqlite::Result<Known> {
    let origin = &entry.origin;
    let id = origin.id.cast_signed();
    let select =
        "SELECT next, latest, first_at, last_at, hello_at, bye_at, beat_at, beat FROM origin WHERE id = ?1";
    let found = tx
        .prepare_cached(select)?
        .query_row([id], |row| {
            Ok(Known {
                next: row.get(0)?,
                latest: row.get(1)?,
                first_at: row.get(2)?,
                last_at: row.get(3)?,
                hello_at: row.get(4)?,
                bye_at: row.get(5)?,
                beat: row.get::<_, Option<i64>>(6)?.zip(row.get(7)?),
            })
        })
        .optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let started = sql(origin.started.as_millis());
    // What it wrote before there was a log is not lost: nobody looked.
    let next = if started < began { sql(entry.seq) } else { 0 };
    let insert = "INSERT INTO origin (id, app, version, host, started, next, latest, first_at, last_at)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?5, ?6, ?6)";
    tx.prepare_cached(insert)?.execute(params![
        id,
        origin.app.as_str(),
        origin.version.as_deref(),
        &*origin.host,
        started,
        at,
        next
    ])?;
    Ok(Known { next, latest: started, first_at: at, last_at: at, hello_at: None, bye_at: None, beat: None })
}

/// Takes a number out of the gap that it is in; `false` if it is in none.
fn fills(tx: &Connection, origin: i64, seq: i64, at: i64) -> rusqlite::Result<bool> {
    let select = "SELECT first, last, after_at, before_at FROM gap WHERE origin = ?1 AND first <= ?2
                  ORDER BY first DESC LIMIT 1";
    let gap: Option<(i64, i64, i64, i64)> = tx
        .prepare_cached(select)?
        .query_row([origin, seq], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((first, last, after, before)) = gap.filter(|gap| seq <= gap.1) else {
        return Ok(false);
    };
    tx.prepare_cached("DELETE FROM gap WHERE origin = ?1 AND first = ?2")?.execute([origin, first])?;
    let mut insert = tx.prepare_cached("INSERT INTO gap VALUES (?1, ?2, ?3, ?4, ?5)")?;
    if first < seq {
        insert.execute([origin, first, seq - 1, after.min(at), at])?;
    }
    if seq < last {
        insert.execute([origin, seq + 1, last, at.min(before), before])?;
    }
    Ok(true)
}

fn manifest_of(tx: &Connection, origin: &Origin, at: i64, text: &str) -> rusqlite::Result<()> {
    let insert = "INSERT INTO manifest VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET
        at = excluded.at, origin = excluded.origin, text = excluded.text WHERE excluded.at >= at";
    let version = origin.version.as_deref().unwrap_or_default();
    tx.prepare_cached(insert)?
        .execute(params![origin.app.as_str(), version, at, origin.id.cast_signed(), text])
        .map(|_| ())
}

/// The columns of an [`Origin`] in the table `origin`.
pub(crate) const ORIGIN_COLUMNS: &str = "o.id, o.app, o.version, o.host, o.started";

/// The origin of those columns; `None` if its name is none.
pub(crate) fn origin_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Origin>> {
    let app: String = row.get(1)?;
    let (version, host): (Option<String>, String) = (row.get(2)?, row.get(3)?);
    Ok(ponos_core::name::AppName::parse(&app).ok().map(|app| Origin {
        id: row.get::<_, i64>(0).unwrap_or_default().cast_unsigned(),
        app,
        version: version.map(Into::into),
        host: host.into(),
        started: ponos_core::id::Timestamp::from_millis(row.get::<_, i64>(4).map_or(0, unsql)),
    }))
}
