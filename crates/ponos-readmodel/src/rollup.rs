//! Figures by the hour, added up from entries before they are written.

use std::collections::HashMap;

use ponos_core::envelope::ErrorClass;
use ponos_core::journal::{AttemptEnd, AttemptRecord, Record, What};
use ponos_core::name::{AppName, QueueName};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::{sql, unsql};
use crate::histogram::Histogram;

/// What a queue did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounts {
    /// Jobs that are done.
    pub done: u64,
    /// Attempts that will be tried again.
    pub retried: u64,
    /// Attempts that were put off without being spent.
    pub snoozed: u64,
    /// Handlers that gave up; a recovery function ran next.
    pub gave_up: u64,
    /// Jobs that failed, those included that were recovered.
    pub failed: u64,
    /// Jobs that failed and whose recovery function succeeded.
    pub recovered: u64,
    /// Attempts whose job was no longer theirs.
    pub lost: u64,
    /// Messages that came again and were recognised.
    pub duplicates: u64,
    /// Messages that may have killed their process.
    pub suspected: u64,
    /// Operations by hand.
    pub by_hand: u64,
    /// From when a job could have started to when its attempt did.
    pub wait: Histogram,
    /// How long attempts ran.
    pub took: Histogram,
}

impl QueueCounts {
    /// Attempts that have ended, however they did.
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.done + self.retried + self.snoozed + self.gave_up + self.failed + self.lost
    }

    /// Jobs that have ended.
    #[must_use]
    pub const fn jobs(&self) -> u64 {
        self.done + self.failed
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, its) in [
            (&mut self.done, other.done),
            (&mut self.retried, other.retried),
            (&mut self.snoozed, other.snoozed),
            (&mut self.gave_up, other.gave_up),
            (&mut self.failed, other.failed),
            (&mut self.recovered, other.recovered),
            (&mut self.lost, other.lost),
            (&mut self.duplicates, other.duplicates),
            (&mut self.suspected, other.suspected),
            (&mut self.by_hand, other.by_hand),
        ] {
            *mine += its;
        }
        self.wait.merge(&other.wait);
        self.took.merge(&other.took);
    }

    fn attempt(&mut self, it: &AttemptRecord) {
        match &it.end {
            AttemptEnd::Done => self.done += 1,
            AttemptEnd::Retry { class: ErrorClass::Snooze, .. } => self.snoozed += 1,
            AttemptEnd::Retry { .. } => self.retried += 1,
            AttemptEnd::GaveUp { .. } => self.gave_up += 1,
            AttemptEnd::Failed { recovered, .. } => {
                self.failed += 1;
                self.recovered += u64::from(*recovered);
            }
            AttemptEnd::Lost => self.lost += 1,
            _ => return,
        }
        self.took.add(it.took);
        if let Some(ready) = it.ready {
            self.wait.add(it.started.since(ready));
        }
    }

    /// The columns of `queue_hour` from `done` on.
    pub(crate) fn read(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Self> {
        let count = |place: usize| row.get::<_, i64>(from + place).map(unsql);
        let histogram = |place: usize| {
            row.get_ref(from + place).map(|value| Histogram::from_bytes(value.as_blob().unwrap_or_default()))
        };
        Ok(Self {
            done: count(0)?,
            retried: count(1)?,
            snoozed: count(2)?,
            gave_up: count(3)?,
            failed: count(4)?,
            recovered: count(5)?,
            lost: count(6)?,
            duplicates: count(7)?,
            suspected: count(8)?,
            by_hand: count(9)?,
            wait: histogram(10)?,
            took: histogram(11)?,
        })
    }
}

/// The columns that [`QueueCounts::read`] reads.
pub(crate) const QUEUE_COLUMNS: &str =
    "done, retried, snoozed, gave_up, failed, recovered, lost, duplicates, suspected, by_hand, wait, took";

#[derive(Debug, Default)]
struct Published {
    published: u64,
    unpublished: u64,
    copies: u64,
    bytes: u64,
}

/// What one call adds to the figures.
#[derive(Debug, Default)]
pub(crate) struct Rollup {
    queues: HashMap<(u64, String), QueueCounts>,
    names: HashMap<(u64, String, bool, String), Published>,
}

/// The hour of a time in milliseconds.
pub(crate) const fn hour(millis: u64) -> u64 {
    millis / 3_600_000
}

impl Rollup {
    pub(crate) fn add(&mut self, record: &Record) {
        let hour = hour(record.at.as_millis());
        match &record.what {
            What::Attempt(it) => self.queue(hour, &it.queue).attempt(it),
            What::Duplicate { queue: name } => self.queue(hour, name).duplicates += 1,
            What::Suspected { queue: name, .. } => self.queue(hour, name).suspected += 1,
            What::ByHand(it) => self.queue(hour, &it.queue).by_hand += 1,
            What::Published(it) => {
                let source = it.by.as_deref().or(it.app.as_ref().map(AppName::as_str));
                let counts = self.name(hour, &it.name, it.event, source);
                counts.published += 1;
                counts.copies += u64::from(it.queues);
                counts.bytes += u64::from(it.size);
            }
            What::Unpublished(it) => {
                self.name(hour, &it.name, it.event, it.by.as_deref()).unpublished += 1;
            }
            _ => {}
        }
    }

    fn queue(&mut self, hour: u64, queue: &QueueName) -> &mut QueueCounts {
        self.queues.entry((hour, queue.as_str().to_owned())).or_default()
    }

    fn name(&mut self, hour: u64, name: &str, event: bool, source: Option<&str>) -> &mut Published {
        let key = (hour, name.to_owned(), event, source.unwrap_or_default().to_owned());
        self.names.entry(key).or_default()
    }

    pub(crate) fn write(self, tx: &Connection) -> rusqlite::Result<()> {
        let select = format!("SELECT {QUEUE_COLUMNS} FROM queue_hour WHERE hour = ?1 AND queue = ?2");
        let mut select = tx.prepare_cached(&select)?;
        let replace = format!(
            "INSERT OR REPLACE INTO queue_hour (hour, queue, {QUEUE_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        );
        let mut replace = tx.prepare_cached(&replace)?;
        for ((hour, queue), mut counts) in self.queues {
            let hour = sql(hour);
            if let Some(known) =
                select.query_row(params![hour, queue], |row| QueueCounts::read(row, 0)).optional()?
            {
                counts.merge(&known);
            }
            replace.execute(params![
                hour,
                queue,
                sql(counts.done),
                sql(counts.retried),
                sql(counts.snoozed),
                sql(counts.gave_up),
                sql(counts.failed),
                sql(counts.recovered),
                sql(counts.lost),
                sql(counts.duplicates),
                sql(counts.suspected),
                sql(counts.by_hand),
                counts.wait.to_bytes(),
                counts.took.to_bytes(),
            ])?;
        }
        let insert = "INSERT INTO name_hour VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET
            published = published + excluded.published, unpublished = unpublished + excluded.unpublished,
            copies = copies + excluded.copies, bytes = bytes + excluded.bytes";
        let mut insert = tx.prepare_cached(insert)?;
        for ((hour, name, event, source), it) in self.names {
            insert.execute(params![
                sql(hour),
                name,
                event,
                source,
                sql(it.published),
                sql(it.unpublished),
                sql(it.copies),
                sql(it.bytes)
            ])?;
        }
        Ok(())
    }
}
