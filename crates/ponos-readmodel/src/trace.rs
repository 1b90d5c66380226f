//! Transactions: one of them whole, and lists of many.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    CircuitNotice, Entry, LimitNotice, Notice, OrderNotice, Origin, Record, Said, What, decode,
};
use rusqlite::params;

use crate::database::sql;
use crate::error::ReadModelError;
use crate::gap::Gap;
use crate::read_model::ReadModel;
use crate::segment::{TraceRow, TraceWish};
use crate::slot::Slot;

/// How many transactions [`ReadModel::find`] gives at most.
pub const MAX_FOUND: usize = 100;

/// By how much clocks may differ, and how long a queue may be cut off before a transaction meets it.
const AROUND_MS: u64 = 10 * 60_000;

/// All that is known of one transaction.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Trace {
    /// Its records, the oldest first.
    pub records: Vec<(Arc<Origin>, u64, Record)>,
    /// What was lost in its time: records of it may be among them.
    pub gaps: Vec<Gap>,
    /// Circuits that changed in its time or shortly before, of queues that it touches.
    pub circuits: Vec<(Arc<Origin>, Timestamp, CircuitNotice)>,
    /// Orders of that time, for queues that it touches and for dependencies.
    pub orders: Vec<(Arc<Origin>, Timestamp, OrderNotice)>,
    /// Rate limits of that time, of queues that it touches.
    pub limits: Vec<(Arc<Origin>, Timestamp, LimitNotice)>,
    /// The instances that wrote its records.
    pub instances: Vec<Arc<Origin>>,
}

/// A transaction in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceSummary {
    /// Its id.
    pub tid: Tid,
    /// Its first record.
    pub first_at: Timestamp,
    /// Its last record.
    pub last_at: Timestamp,
    /// The name that it began with, as far as is known; a queue where no publishing was recorded.
    pub root: Option<Arc<str>>,
    /// How many records there are.
    pub records: u64,
    /// How many jobs failed. Some may have been retried by hand and be done.
    pub failed: u64,
    /// How many attempts will be, or were, tried again.
    pub retries: u64,
    /// How many jobs are to end yet, by what was recorded: a record that was lost makes it wrong.
    pub pending: u64,
}

/// How a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceOutcome {
    /// A job of it failed.
    Failed,
    /// A job of it was tried again, or has failed.
    Retried,
    /// A job of it has not ended.
    Pending,
    /// All its jobs have ended, and none failed.
    Done,
}

/// Which transactions [`ReadModel::traces`] lists; all where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct TraceFilter {
    /// An event, a task or a queue that it has to do with.
    pub name: Option<String>,
    /// An application that it has to do with.
    pub app: Option<String>,
    /// How it stands.
    pub outcome: Option<TraceOutcome>,
    /// Only those with a record since then.
    pub since: Option<Timestamp>,
    /// Only those with a record until then.
    pub until: Option<Timestamp>,
    /// Only what comes behind, in the list: [`TracePage::next`].
    pub after: Option<TraceCursor>,
    /// How many at most; 0 for none.
    pub limit: usize,
}

/// A place in the list of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceCursor {
    slot: Slot,
    before: i64,
}

/// `2026-11-23T06.17`, for those who hand it on.
impl fmt::Display for TraceCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot.name(), self.before)
    }
}

impl FromStr for TraceCursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let (slot, before) = text.split_once('.').ok_or(NoCursor)?;
        let slot = Slot::parse(slot).ok_or(NoCursor)?;
        // As it is written, and in no other way.
        let before: i64 = before.parse().map_err(|_| NoCursor)?;
        let cursor = Self { slot, before };
        if cursor.to_string() == text { Ok(cursor) } else { Err(NoCursor) }
    }
}

/// A text is no [`TraceCursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in the list of transactions: begin without one")]
pub struct NoCursor;

/// A part of the list of transactions.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TracePage {
    /// The transactions, the last that was begun first: in the order in which the log told of them.
    pub traces: Vec<TraceSummary>,
    /// Where to go on; `None` at the end.
    pub next: Option<TraceCursor>,
}

impl ReadModel {
    /// One transaction; without records if there is none.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn trace(&self, tid: &Tid) -> Result<Trace, ReadModelError> {
        let mut found: BTreeMap<(Timestamp, u64, u64), Entry> = BTreeMap::new();
        self.each_segment(self.directory.slots()?.into_iter().rev(), |_, segment| {
            if let Some(row) = segment.trace(tid)? {
                let entries = segment.entries_of(row.id)?;
                found.extend(entries.into_iter().map(|it| ((it.said.at(), it.origin.id, it.seq), it)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut trace = Trace { records: records(found.into_values()), ..Trace::default() };
        if let (Some((_, _, first)), Some((_, _, last))) = (trace.records.first(), trace.records.last()) {
            let (first, last) = (first.at, last.at);
            let around = |at: Timestamp| Timestamp::from_millis(at.as_millis().saturating_sub(AROUND_MS));
            let until = Timestamp::from_millis(last.as_millis().saturating_add(AROUND_MS));
            // An entry that is missing behind its last record may be one of its own.
            trace.gaps = self.gaps(first, until)?;
            self.notices(&mut trace, around(first), until)?;
        }
        for (origin, _, _) in &trace.records {
            if !trace.instances.iter().any(|known| known.id == origin.id) {
                trace.instances.push(Arc::clone(origin));
            }
        }
        Ok(trace)
    }

    /// Transactions whose ids end so, the newest first, at most [`MAX_FOUND`].
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn find(&self, suffix: &str) -> Result<Vec<TraceSummary>, ReadModelError> {
        let mut rows = Vec::new();
        self.each_segment(self.directory.slots()?, |_, segment| {
            rows.extend(segment.ending_so(suffix, MAX_FOUND)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found = merged(rows);
        found.sort_by_key(|it| std::cmp::Reverse((it.last_at, it.tid.clone())));
        found.truncate(MAX_FOUND);
        Ok(found)
    }

    /// A list of transactions, the newest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn traces(&self, filter: &TraceFilter) -> Result<TracePage, ReadModelError> {
        let mut wish = TraceWish {
            words: filter.name.iter().chain(&filter.app).map(String::as_str).collect(),
            only: match filter.outcome {
                None => "",
                Some(TraceOutcome::Failed) => "t.failed > 0",
                Some(TraceOutcome::Retried) => "(t.retries > 0 OR t.failed > 0)",
                // What a row of one segment says is not all: the sum decides below.
                Some(TraceOutcome::Pending) => "t.opened > t.closed",
                Some(TraceOutcome::Done) => "t.failed = 0",
            },
            since: filter.since.map_or(0, Timestamp::as_millis),
            until: filter.until.map_or(u64::MAX, Timestamp::as_millis),
            before: i64::MAX,
            id: None,
            limit: 0,
        };
        let slots = self.directory.slots()?;
        let mut page = TracePage::default();
        for slot in slots.iter().copied().rev() {
            match filter.after {
                Some(after) if slot > after.slot => continue,
                Some(after) if slot == after.slot => wish.before = after.before,
                _ => wish.before = i64::MAX,
            }
            loop {
                let wanted = filter.limit.saturating_sub(page.traces.len());
                if wanted == 0 {
                    page.next = Some(TraceCursor { slot, before: wish.before });
                    return Ok(page);
                }
                wish.limit = wanted;
                let mut rows = Vec::new();
                self.each_segment([slot], |_, segment| {
                    rows = segment.traces(&wish)?;
                    Ok(ControlFlow::Continue(()))
                })?;
                let Some(last) = rows.last() else {
                    break;
                };
                wish.before = last.id;
                for row in rows {
                    page.traces.extend(self.summary_of(row, slot, &slots, filter.outcome, &wish)?);
                }
            }
        }
        Ok(page)
    }

    /// The transaction that was begun last.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn last(&self) -> Result<Option<TraceSummary>, ReadModelError> {
        self.traces(&TraceFilter { limit: 1, ..TraceFilter::default() })
            .map(|page| page.traces.into_iter().next())
    }

    /// The last of those in which a job failed.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn last_failed(&self) -> Result<Option<TraceSummary>, ReadModelError> {
        let filter = TraceFilter { limit: 1, outcome: Some(TraceOutcome::Failed), ..TraceFilter::default() };
        self.traces(&filter).map(|page| page.traces.into_iter().next())
    }

    /// What is recorded of one message, the oldest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn message(&self, message: MessageId) -> Result<Vec<(Arc<Origin>, u64, Record)>, ReadModelError> {
        let mut found: BTreeMap<(Timestamp, u64, u64), Entry> = BTreeMap::new();
        self.each_segment(self.directory.slots()?, |_, segment| {
            let entries = segment.entries_about(message)?;
            found.extend(entries.into_iter().map(|it| ((it.said.at(), it.origin.id, it.seq), it)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(records(found.into_values()))
    }

    /// The row of one segment with what others say; `None` if a newer segment lists it, or if it stands otherwise.
    fn summary_of(
        &self,
        row: TraceRow,
        slot: Slot,
        slots: &[Slot],
        outcome: Option<TraceOutcome>,
        wish: &TraceWish<'_>,
    ) -> Result<Option<TraceSummary>, ReadModelError> {
        let tid = row.tid.clone();
        let mut rows = vec![row];
        let mut newer = false;
        // A transaction begins in the segment of its id's time where it has one, so older ones need no look.
        let began =
            tid.began().map(|at| Slot::of(Timestamp::from_millis(at.as_millis().saturating_sub(AROUND_MS))));
        let others =
            slots.iter().copied().filter(|other| *other != slot && began.is_none_or(|began| *other >= began));
        self.each_segment(others, |other, segment| {
            if let Some(row) = segment.trace(&tid)? {
                if other > slot && !newer {
                    let wish = TraceWish { before: i64::MAX, id: Some(row.id), limit: 1, ..wish.clone() };
                    newer = !segment.traces(&wish)?.is_empty();
                }
                rows.push(row);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if newer {
            return Ok(None);
        }
        Ok(merged(rows).pop().filter(|it| match outcome {
            None => true,
            Some(TraceOutcome::Failed) => it.failed > 0,
            Some(TraceOutcome::Retried) => it.retries + it.failed > 0,
            Some(TraceOutcome::Pending) => it.pending > 0,
            Some(TraceOutcome::Done) => it.pending == 0 && it.failed == 0,
        }))
    }

    fn notices(&self, trace: &mut Trace, from: Timestamp, to: Timestamp) -> Result<(), ReadModelError> {
        let mut queues: Vec<&str> = Vec::new();
        for (_, _, record) in &trace.records {
            queues.extend(match &record.what {
                What::Attempt(it) => Some(it.queue.as_str()),
                What::Duplicate { queue } | What::Suspected { queue, .. } => Some(queue.as_str()),
                What::ByHand(it) => Some(it.queue.as_str()),
                What::Published(it) if !it.event => Some(&*it.name),
                _ => None,
            });
        }
        let (mut circuits, mut orders, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for (at, entry) in self.notices_between(from, to)? {
            match entry.said {
                Said::Notice(_, Notice::Circuit(it))
                    if it.queues.is_empty()
                        || it.queues.iter().any(|queue| queues.contains(&queue.as_str())) =>
                {
                    circuits.push((entry.origin, at, it));
                }
                Said::Notice(_, Notice::Order(it)) => orders.push((entry.origin, at, it)),
                Said::Notice(_, Notice::Limit(it)) if queues.contains(&it.queue.as_str()) => {
                    limits.push((entry.origin, at, it));
                }
                _ => {}
            }
        }
        (trace.circuits, trace.orders, trace.limits) = (circuits, orders, limits);
        Ok(())
    }

    /// Circuits, orders and limits that changed in a time, the oldest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn notices_between(
        &self,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<(Timestamp, Entry)>, ReadModelError> {
        self.on_central(|central| {
            let query = "SELECT entry FROM notice WHERE at BETWEEN ?1 AND ?2 ORDER BY at, origin, seq";
            let mut statement = central.connection.prepare_cached(query)?;
            let mut rows = statement.query(params![sql(from.as_millis()), sql(to.as_millis())])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let read = decode(row.get_ref(0)?.as_blob()?).unwrap_or_default();
                found.extend(read.into_iter().map(|entry| (entry.said.at(), entry)));
            }
            Ok(found)
        })
    }
}

fn records(entries: impl Iterator<Item = Entry>) -> Vec<(Arc<Origin>, u64, Record)> {
    // A batch is unpacked with origins of its own: here they are shared again.
    let mut origins: Vec<Arc<Origin>> = Vec::new();
    let mut shared = |origin: Arc<Origin>| match origins.iter().find(|known| **known == origin) {
        Some(known) => Arc::clone(known),
        None => {
            origins.push(Arc::clone(&origin));
            origin
        }
    };
    entries
        .filter_map(|entry| match entry.said {
            Said::Record(record) => Some((shared(entry.origin), entry.seq, record)),
            _ => None,
        })
        .collect()
}

/// What several segments say of the same transactions, added up.
fn merged(rows: Vec<TraceRow>) -> Vec<TraceSummary> {
    let mut by_tid: BTreeMap<Tid, TraceRow> = BTreeMap::new();
    for row in rows {
        match by_tid.get_mut(&row.tid) {
            None => drop(by_tid.insert(row.tid.clone(), row)),
            Some(known) => {
                known.first_at = known.first_at.min(row.first_at);
                known.last_at = known.last_at.max(row.last_at);
                if row.root_rank < known.root_rank {
                    (known.root_rank, known.root) = (row.root_rank, row.root);
                }
                known.records += row.records;
                known.failed += row.failed;
                known.retries += row.retries;
                known.opened += row.opened;
                known.closed += row.closed;
            }
        }
    }
    let summary = |row: TraceRow| TraceSummary {
        tid: row.tid,
        first_at: Timestamp::from_millis(row.first_at),
        last_at: Timestamp::from_millis(row.last_at),
        root: row.root.map(Into::into),
        records: row.records,
        failed: row.failed,
        retries: row.retries,
        pending: row.opened.saturating_sub(row.closed),
    };
    by_tid.into_values().map(summary).collect()
}
