//! From records to the tree.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{AttemptRecord, HandMade, Origin as Instance, Record, UnpublishedRecord, What};
use ponos_core::name::QueueName;

use super::cascade::{Cascade, JobData, Kind, Message, Origin, Publication};
use super::job::{self, JobState};
use super::surroundings::Surroundings;
use super::{future, lines};

impl Cascade {
    /// The tree of one transaction. Order, duplicates and gaps of the records do not matter.
    ///
    /// Of records of several transactions those of the earliest record's are taken; see [`split`](Self::split).
    #[must_use]
    pub fn from_records(records: Vec<Record>) -> Self {
        Self::from_entries(
            records.into_iter().map(|record| (None, record)).collect(),
            Surroundings::default(),
        )
    }

    /// The tree of one transaction, with all that is known around it.
    #[must_use]
    pub fn from_entries(mut entries: Vec<(Option<Arc<Instance>>, Record)>, around: Surroundings) -> Self {
        let earliest =
            entries.iter().map(|(_, record)| record).min_by(|a, b| (a.at, &a.tid).cmp(&(b.at, &b.tid)));
        let tid = earliest.map(|record| record.tid.clone());
        entries.retain(|(_, record)| Some(&record.tid) == tid.as_ref());
        Self::of(tid, entries, around)
    }

    /// One tree for each transaction, the earliest first: for what a query by a suffix or for the newest records gives.
    #[must_use]
    pub fn split(records: Vec<Record>) -> Vec<Self> {
        let mut by_tid: BTreeMap<Tid, Vec<_>> = BTreeMap::new();
        for record in records {
            by_tid.entry(record.tid.clone()).or_default().push((None, record));
        }
        let mut all: Vec<_> = by_tid
            .into_iter()
            .map(|(tid, records)| {
                let began = records.iter().map(|(_, record)| record.at).min();
                (began, Self::of(Some(tid), records, Surroundings::default()))
            })
            .collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, cascade)| cascade).collect()
    }

    fn of(tid: Option<Tid>, entries: Vec<(Option<Arc<Instance>>, Record)>, around: Surroundings) -> Self {
        let mut messages = collect(entries);
        let causes = link(&mut messages);
        break_cycles(&mut messages);
        adopt(&mut messages, &causes);
        future::expect(&mut messages, &around);
        let mut cascade = Self { tid, messages, roots: Vec::new(), order: Vec::new(), around };
        sort(&mut cascade);
        cascade
    }
}

/// An attempt, and who made it. Two are equal when their records are.
struct Told {
    record: AttemptRecord,
    by: Option<Arc<Instance>>,
}

impl PartialEq for Told {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Borrow<AttemptRecord> for Told {
    fn borrow(&self) -> &AttemptRecord {
        &self.record
    }
}

/// What the records say of one job.
#[derive(Default)]
struct JobDraft {
    attempts: Vec<Told>,
    duplicates: u32,
    suspected: bool,
    by_hand: Vec<(Timestamp, HandMade)>,
}

impl JobDraft {
    fn finish(mut self, queue: String) -> JobData {
        job::in_order(&mut self.attempts);
        let state = job::state(self.attempts.iter().map(|told| &told.record)).unwrap_or(JobState::NotYet);
        self.by_hand.sort_by_key(|(at, _)| *at);
        self.by_hand.dedup();
        let (attempts, by) = self.attempts.into_iter().map(|told| (told.record, told.by)).unzip();
        JobData {
            attempts,
            by,
            duplicates: self.duplicates,
            suspected: self.suspected,
            by_hand: self.by_hand,
            ..JobData::new(queue, state)
        }
    }
}

/// One message for each id, with its jobs by queue.
fn collect(entries: Vec<(Option<Arc<Instance>>, Record)>) -> Vec<Message> {
    #[derive(Default)]
    struct Draft {
        published: Option<Publication>,
        unpublished: Option<(Timestamp, UnpublishedRecord)>,
        jobs: BTreeMap<String, JobDraft>,
    }

    impl Draft {
        fn job(&mut self, queue: &QueueName) -> &mut JobDraft {
            self.jobs.entry(queue.as_str().to_owned()).or_default()
        }
    }

    let mut drafts: BTreeMap<MessageId, Draft> = BTreeMap::new();
    for (by, record) in entries {
        let draft = drafts.entry(record.message).or_default();
        match record.what {
            What::Published(new) => {
                let new = Publication {
                    at: record.at,
                    name: new.name,
                    event: new.event,
                    app: new.app,
                    cause: new.cause,
                    by: new.by,
                    queues: new.queues,
                };
                draft.published = Some(match draft.published.take() {
                    Some(old) => merge(old, new),
                    None => new,
                });
            }
            What::Unpublished(unpublished) => draft.unpublished = Some((record.at, unpublished)),
            What::Attempt(record) => draft.job(&record.queue.clone()).attempts.push(Told { record, by }),
            What::Duplicate { queue } => draft.job(&queue).duplicates += 1,
            What::Suspected { queue, .. } => draft.job(&queue).suspected = true,
            // Where it was taken from is where its job was.
            What::ByHand(made) => draft.job(&made.queue.clone()).by_hand.push((record.at, made)),
            // A later version's record: it is not for us.
            _ => {}
        }
    }
    drafts.retain(|_, draft| {
        draft.published.is_some() || draft.unpublished.is_some() || !draft.jobs.is_empty()
    });

    drafts
        .into_iter()
        .map(|(id, draft)| Message {
            id,
            jobs: draft.jobs.into_iter().map(|(queue, job)| job.finish(queue)).collect(),
            unpublished: draft.unpublished.as_ref().map(|(_, it)| (Arc::clone(&it.error), it.open)),
            // What was not published has a name and a cause all the same.
            published: draft.published.or_else(|| {
                draft.unpublished.map(|(at, it)| Publication {
                    at,
                    name: it.name,
                    event: it.event,
                    app: None,
                    cause: it.cause,
                    by: it.by,
                    queues: 0,
                })
            }),
            origin: Origin::Start,
            parent: None,
            depth: 0,
            outside: Vec::new(),
        })
        .collect()
}

/// A publish that was tried again under one id: the first record counts, and the largest number of queues.
fn merge(old: Publication, new: Publication) -> Publication {
    let queues = old.queues.max(new.queues);
    Publication { queues, ..old.min(new) }
}

/// Finds each message's cause; returns who published it, for [`adopt`].
fn link(messages: &mut [Message]) -> Vec<Option<Arc<str>>> {
    let index: HashMap<MessageId, usize> = messages.iter().enumerate().map(|(n, m)| (m.id, n)).collect();
    let mut by = Vec::with_capacity(messages.len());
    for message in messages {
        let cause = message.published.as_ref().map(|published| published.cause);
        (message.origin, message.parent) = match cause {
            None => (Origin::NotRecorded, None),
            Some(None) => (Origin::Start, None),
            Some(Some(cause)) => match index.get(&cause) {
                Some(&parent) => (Origin::Caused, Some(parent)),
                None => (Origin::CauseNotRecorded, None),
            },
        };
        by.push(message.published.as_ref().and_then(|published| published.by.clone()));
    }
    by
}

/// Cuts each circle of causes before its earliest message, so that every message hangs on a root.
fn break_cycles(messages: &mut [Message]) {
    /// The walk that has passed a message; 0 for none.
    type Walk = usize;
    let mut passed: Vec<Walk> = vec![0; messages.len()];
    for start in 0..messages.len() {
        let walk = start + 1;
        let mut at = start;
        while passed[at] == 0 {
            passed[at] = walk;
            match messages[at].parent {
                Some(parent) => at = parent,
                None => break,
            }
        }
        if passed[at] != walk || messages[at].parent.is_none() {
            continue;
        }
        // The walk has met itself: `at` is on a circle, whose messages all have a parent.
        let mut first = at;
        let mut next = at;
        while let Some(parent) = messages[next].parent.filter(|&parent| parent != at) {
            next = parent;
            let key = |n: usize| (messages[n].published.as_ref().map(|p| p.at), messages[n].id);
            if key(next) < key(first) {
                first = next;
            }
        }
        messages[first].parent = None;
        messages[first].origin = Origin::Circular;
    }
}

/// Hangs each message under the job whose handler published it.
fn adopt(messages: &mut [Message], by: &[Option<Arc<str>>]) {
    for (child, by) in by.iter().enumerate() {
        let Some(parent) = messages[child].parent else {
            continue;
        };
        let parent = &mut messages[parent];
        let Some(queue) = by else {
            parent.outside.push(child);
            continue;
        };
        let found =
            parent.jobs.binary_search_by(|job| job.queue.as_str().cmp(&**queue)).unwrap_or_else(|place| {
                parent.jobs.insert(place, JobData::new(queue.to_string(), JobState::Unrecorded));
                place
            });
        parent.jobs[found].children.push(child);
    }
    for message in messages {
        // A task is one job, in the queue that has its name.
        if message.kind() == Kind::Task && message.jobs.is_empty() && message.queues() > 0 {
            let queue = message.name().unwrap_or_default().to_owned();
            message.jobs.push(JobData::new(queue, JobState::NotYet));
        }
    }
}

/// Puts siblings into an order that neither time nor the records' order decides, as long as they differ in the text.
fn sort(cascade: &mut Cascade) {
    let count = cascade.messages.len();
    let mut roots: Vec<usize> = (0..count).filter(|&n| cascade.messages[n].parent.is_none()).collect();

    // Breadth first from the roots; backwards, each message comes after everything that it caused.
    let mut broad = roots.clone();
    let mut done = 0;
    while done < broad.len() {
        let message = &cascade.messages[broad[done]];
        let depth = message.depth + 1;
        let children: Vec<usize> = message.children().collect();
        for &child in &children {
            cascade.messages[child].depth = depth;
        }
        broad.extend(children);
        done += 1;
    }

    let mut keys: Vec<Key> = vec![Key::default(); count];
    for &n in broad.iter().rev() {
        let message = &mut cascade.messages[n];
        let lists = message.jobs.iter_mut().map(|job| &mut job.children);
        for list in lists.chain([&mut message.outside]) {
            list.sort_by(|&a, &b| keys[a].cmp(&keys[b]));
        }
        keys[n] = Key::of(message, &keys);
    }
    roots.sort_by_key(|&n| (cascade.messages[n].origin.is_gap(), keys[n].clone()));

    let mut stack: Vec<usize> = roots.iter().rev().copied().collect();
    while let Some(n) = stack.pop() {
        cascade.order.push(n);
        stack.extend(cascade.messages[n].children().rev());
    }
    cascade.roots = roots;
}

/// Where a message stands among its siblings: by name, by its line, by all that it caused; the id only decides
/// between those that read alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Key {
    name: String,
    line: String,
    below: u64,
    at: Option<Timestamp>,
    id: Option<MessageId>,
}

impl Key {
    fn of(message: &Message, keys: &[Self]) -> Self {
        let line = lines::of_message(message, None).plain();
        let mut below = FNV_OFFSET;
        fnv(&mut below, line.as_bytes());
        for n in 0..message.jobs.len() {
            fnv(&mut below, lines::of_job(message, n, None).plain().as_bytes());
            for &child in &message.jobs[n].children {
                fnv(&mut below, &keys[child].below.to_le_bytes());
            }
        }
        for &child in &message.outside {
            fnv(&mut below, &keys[child].below.to_le_bytes());
        }
        fnv(&mut below, &message.unseen().to_le_bytes());
        Self {
            name: message.name().unwrap_or_default().to_owned(),
            line,
            below,
            at: message.published.as_ref().map(|published| published.at),
            id: Some(message.id),
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits, with an end mark. Unlike the standard library's hasher it stays the same in every release.
fn fnv(hash: &mut u64, bytes: &[u8]) {
    for &byte in bytes.iter().chain(&[0xff]) {
        *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
