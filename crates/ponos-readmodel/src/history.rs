//! Entries in the order in which the log told of them: what `tail` shows of the past, and goes on from.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use ponos_core::id::{Tid, Timestamp};
use ponos_core::journal::{AttemptEnd, Entry, Notice, Said, What};
use ponos_core::name::{AppName, QueueName};

use crate::error::ReadModelError;
use crate::facts::app_of;
use crate::read_model::ReadModel;
use crate::slot::Slot;

/// How many entries are looked at at once.
const PAGE: usize = 1024;

/// By how much entries of one time may be apart in the log.
const SKEW_MS: u64 = 60_000;

/// A place in the order of entries. It is one directory's, and is lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EntryCursor(i64);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// With the oldest that is kept.
    Start,
    /// With entries of about this time; older ones may come too.
    Time(Timestamp),
    /// With the last so many.
    Last(u32),
    /// Behind all.
    End,
}

/// Which entries [`ReadModel::entries`] gives; all where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct EntryFilter {
    /// An event, a task or a queue; or the beginning of one, with a `*` at its end.
    pub name: Option<String>,
    /// An application: that wrote it, published it, or owns the queue.
    pub app: Option<String>,
    /// A transaction.
    pub tid: Option<Tid>,
    /// Only what went wrong: attempts that failed or will be repeated, messages that were not published, circuits.
    pub trouble: bool,
    /// Only records of messages.
    pub records: bool,
    /// Not older.
    pub since: Option<Timestamp>,
    /// Not younger.
    pub until: Option<Timestamp>,
}

/// Some entries, and where to go on.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EntryPage {
    /// In the order of the log. Beats are not kept, and never among them.
    pub entries: Vec<Entry>,
    /// Behind the last that was looked at.
    pub next: EntryCursor,
    /// Whether there was nothing more to look at.
    pub end: bool,
}

impl EntryFilter {
    /// Whether an entry is wanted; for entries of a live reader too.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        let at = entry.said.at();
        let record = match &entry.said {
            Said::Record(record) => Some(record),
            _ => None,
        };
        let (words, app) = words_of(&entry.said);
        let named = |name: &String| match name.strip_suffix('*') {
            Some(begin) => words.iter().any(|word| word.starts_with(begin)),
            None => words.contains(&name.as_str()),
        };
        let of_app = |wanted: &String| entry.origin.app.as_str() == wanted || app == Some(wanted.as_str());
        self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at <= until)
            && (!self.records || record.is_some())
            && (!self.trouble || is_trouble(&entry.said))
            && self.tid.as_ref().is_none_or(|tid| record.is_some_and(|record| record.tid == *tid))
            && self.app.as_ref().is_none_or(of_app)
            && self.name.as_ref().is_none_or(named)
    }
}

/// The names and queues that an entry is about, and the application.
fn words_of(said: &Said) -> (Vec<&str>, Option<&str>) {
    // The queue `{app}.{event}` is also found by the event.
    fn queue(queue: &QueueName) -> (Vec<&str>, Option<&str>) {
        let (text, app) = (queue.as_str(), app_of(queue.as_str()));
        (vec![text, text.get(app.len() + 1..).unwrap_or_default()], Some(app))
    }
    match said {
        Said::Record(record) => match &record.what {
            What::Published(it) => {
                let mut words = vec![&*it.name];
                words.extend(it.by.as_deref());
                (words, it.app.as_ref().map(AppName::as_str))
            }
            What::Unpublished(it) => {
                let mut words = vec![&*it.name];
                words.extend(it.by.as_deref());
                (words, it.by.as_deref().map(app_of))
            }
            What::Attempt(it) => queue(&it.queue),
            What::Duplicate { queue: name } | What::Suspected { queue: name, .. } => queue(name),
            What::ByHand(it) => queue(&it.queue),
            _ => (Vec::new(), None),
        },
        Said::Notice(_, Notice::Circuit(it)) => {
            (it.queues.iter().map(QueueName::as_str).chain([&*it.circuit]).collect(), None)
        }
        Said::Notice(_, Notice::Order(it)) => (vec![&*it.target], Some(app_of(&it.target))),
        Said::Notice(_, Notice::Limit(it)) => queue(&it.queue),
        _ => (Vec::new(), None),
    }
}

fn is_trouble(said: &Said) -> bool {
    match said {
        Said::Record(record) => match &record.what {
            What::Attempt(it) => !matches!(it.end, AttemptEnd::Done),
            What::Unpublished(_) | What::Suspected { .. } => true,
            _ => false,
        },
        Said::Notice(_, notice) => matches!(notice, Notice::Circuit(_)),
        Said::Later(_) => false,
    }
}

impl ReadModel {
    /// The place to begin at.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn cursor(&self, since: Since) -> Result<EntryCursor, ReadModelError> {
        Ok(EntryCursor(match since {
            Since::Start => 0,
            Since::End => self.highest(None)?,
            // Numbers have no holes but after a crash.
            Since::Last(count) => (self.highest(None)? - i64::from(count)).max(0),
            Since::Time(at) => {
                let at = Timestamp::from_millis(at.as_millis().saturating_sub(SKEW_MS));
                let mut first: Option<i64> = None;
                let slots = self.directory.slots()?.into_iter().filter(|slot| *slot >= Slot::of(at));
                self.each_segment(slots, |_, segment| {
                    first = first.into_iter().chain(segment.first_since(at)?).min();
                    Ok(ControlFlow::Continue(()))
                })?;
                match first {
                    Some(first) => first - 1,
                    None => self.highest(None)?,
                }
            }
        }))
    }

    /// Entries behind a place, the first in the log first, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn entries(
        &self,
        after: EntryCursor,
        filter: &EntryFilter,
        limit: usize,
    ) -> Result<EntryPage, ReadModelError> {
        let mut page = EntryPage { next: after, ..EntryPage::default() };
        while page.entries.len() < limit {
            // Of each segment the first few: the first few of all are among them.
            let mut found = BTreeMap::new();
            self.each_segment(self.directory.slots()?, |slot, segment| {
                for (id, entry) in segment.entries_after(page.next.0, PAGE)? {
                    found.insert((id, slot), entry);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if found.is_empty() {
                page.end = true;
                break;
            }
            for ((id, _), entry) in found.into_iter().take(PAGE) {
                page.next = EntryCursor(id);
                if filter.wants(&entry) {
                    page.entries.push(entry);
                    if page.entries.len() >= limit {
                        break;
                    }
                }
            }
        }
        Ok(page)
    }
}
