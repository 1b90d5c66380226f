//! From records to the tree.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ponos_core::id::{MessageId, Tid};
use ponos_core::journal::{AttemptRecord, Record, What};

use super::cascade::{Cascade, JobData, Kind, Message, Origin, Publication};
use super::job::{self, JobState};
use super::lines;

impl Cascade {
    /// The tree of one transaction. Order, duplicates and gaps of the records do not matter.
    ///
    /// Of records of several transactions those of the earliest record's are taken; see [`split`](Self::split).
    #[must_use]
    pub fn from_records(mut records: Vec<Record>) -> Self {
        let earliest = records.iter().min_by(|a, b| (a.at, &a.tid).cmp(&(b.at, &b.tid)));
        let tid = earliest.map(|record| record.tid.clone());
        records.retain(|record| Some(&record.tid) == tid.as_ref());
        Self::of(tid, records)
    }

    /// One tree for each transaction, the earliest first: for what a query by a suffix or for the newest records gives.
    #[must_use]
    pub fn split(records: Vec<Record>) -> Vec<Self> {
        let mut by_tid: BTreeMap<Tid, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_tid.entry(record.tid.clone()).or_default().push(record);
        }
        let mut all: Vec<_> = by_tid
            .into_iter()
            .map(|(tid, records)| {
                (records.iter().map(|record| record.at).min(), Self::of(Some(tid), records))
            })
            .collect();
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, cascade)| cascade).collect()
    }

    fn of(tid: Option<Tid>, records: Vec<Record>) -> Self {
        let mut messages = collect(records);
        let causes = link(&mut messages);
        break_cycles(&mut messages);
        adopt(&mut messages, &causes);
        let mut cascade = Self { tid, messages, roots: Vec::new(), order: Vec::new() };
        sort(&mut cascade);
        cascade
    }
}

/// One message for each id, with its jobs by queue.
fn collect(records: Vec<Record>) -> Vec<Message> {
    #[derive(Default)]
    struct Draft {
        published: Option<Publication>,
        attempts: BTreeMap<String, Vec<AttemptRecord>>,
    }

    let mut drafts: BTreeMap<MessageId, Draft> = BTreeMap::new();
    for record in records {
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
            What::Attempt(attempt) => {
                let queue = attempt.queue.as_str().to_owned();
                draft.attempts.entry(queue).or_default().push(attempt);
            }
            // A later version's record: it is not for us.
            _ => {}
        }
    }
    drafts.retain(|_, draft| draft.published.is_some() || !draft.attempts.is_empty());

    drafts
        .into_iter()
        .map(|(id, draft)| {
            let jobs = draft.attempts.into_iter().map(|(queue, mut attempts)| {
                job::in_order(&mut attempts);
                JobData {
                    queue,
                    state: job::state(attempts.iter()).unwrap_or(JobState::NotYet),
                    attempts,
                    children: Vec::new(),
                }
            });
            Message {
                id,
                jobs: jobs.collect(),
                published: draft.published,
                origin: Origin::Start,
                parent: None,
                depth: 0,
                outside: Vec::new(),
            }
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
                let job = JobData {
                    queue: queue.to_string(),
                    state: JobState::Unrecorded,
                    attempts: Vec::new(),
                    children: Vec::new(),
                };
                parent.jobs.insert(place, job);
                place
            });
        parent.jobs[found].children.push(child);
    }
    for message in messages {
        // A task is one job, in the queue that has its name.
        if message.kind() == Kind::Task && message.jobs.is_empty() && message.queues() > 0 {
            let queue = message.name().unwrap_or_default().to_owned();
            message.jobs.push(JobData {
                queue,
                state: JobState::NotYet,
                attempts: Vec::new(),
                children: Vec::new(),
            });
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
    at: Option<ponos_core::id::Timestamp>,
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
