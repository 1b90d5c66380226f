//! What came and went in the last minute, by the records.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ponos::core::id::Timestamp;
use ponos::core::journal::{AttemptEnd, Record, Said, What};
use ponos_readmodel::{EntryCursor, EntryFilter, ReadModel, ReadModelError, Since};

use crate::view::ago;

/// How far back it is looked.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// How many entries are read at once.
const PAGE: usize = 4096;

/// Counts of the last minute, by the second. Each look reads what is new.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    cursor: Option<EntryCursor>,
    seconds: BTreeMap<u64, Second>,
}

#[derive(Debug, Default)]
struct Second {
    records: u64,
    /// By the name of the event or the task.
    published: HashMap<String, u64>,
    /// By the queue.
    ended: HashMap<String, u64>,
}

impl Flow {
    /// Reads what is new.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub(crate) fn follow(&mut self, model: &ReadModel, now: Timestamp) -> Result<(), ReadModelError> {
        let mut cursor = match self.cursor {
            Some(cursor) => cursor,
            None => model.cursor(Since::Time(ago(WINDOW)))?,
        };
        loop {
            let page =
                model.entries(cursor, &EntryFilter { records: true, ..EntryFilter::default() }, PAGE)?;
            for entry in &page.entries {
                if let Said::Record(record) = &entry.said {
                    self.add(record);
                }
            }
            cursor = page.next;
            if page.end {
                break;
            }
        }
        self.cursor = Some(cursor);
        let first = (now.as_millis() / 1000).saturating_sub(WINDOW.as_secs());
        self.seconds = self.seconds.split_off(&first);
        Ok(())
    }

    fn add(&mut self, record: &Record) {
        let second = self.seconds.entry(record.at.as_millis() / 1000).or_default();
        second.records += 1;
        match &record.what {
            What::Published(it) => *second.published.entry(it.name.to_string()).or_default() += 1,
            What::Attempt(it) if matches!(it.end, AttemptEnd::Done | AttemptEnd::Failed { .. }) => {
                *second.ended.entry(it.queue.to_string()).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Records of a second.
    pub(crate) fn records(&self) -> f64 {
        per_second(self.seconds.values().map(|second| second.records).sum())
    }

    /// Jobs that came into a queue in a second. The queue `{app}.{event}` takes each of that event, a task's queue has the
    /// task's name.
    pub(crate) fn came(&self, queue: &str) -> f64 {
        let event = queue.split_once('.').map_or("", |(_, event)| event);
        let of = |second: &Second, name: &str| second.published.get(name).copied().unwrap_or(0);
        per_second(self.seconds.values().map(|second| of(second, queue) + of(second, event)).sum())
    }

    /// Jobs of a queue that ended in a second.
    pub(crate) fn ended(&self, queue: &str) -> f64 {
        per_second(self.seconds.values().map(|second| second.ended.get(queue).copied().unwrap_or(0)).sum())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn per_second(count: u64) -> f64 {
    count as f64 / WINDOW.as_secs_f64()
}
