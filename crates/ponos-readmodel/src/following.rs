//! What follows an event or a task, in the last transactions that had it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use ponos_core::id::MessageId;
use ponos_core::journal::{AttemptEnd, Record, What};

use crate::error::ReadModelError;
use crate::histogram::Histogram;
use crate::read_model::ReadModel;
use crate::trace::{TraceCursor, TraceFilter};

/// How many transactions are looked up at once.
const PAGE: usize = 256;

/// What followed a name.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Following {
    /// In how many transactions the name was published: what all the other numbers are shares of.
    pub traces: u64,
    /// What was published because of it, directly or not, the most frequent first.
    pub names: Vec<Follower>,
    /// From its publishing to the last record that it caused, of those that have settled.
    pub settled: Histogram,
    /// In how many of them a job failed that it caused.
    pub failed: u64,
    /// In how many of them jobs are to end yet, or their ends are not known.
    pub pending: u64,
}

/// A name that follows another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Follower {
    /// The event or the task.
    pub name: Arc<str>,
    /// Whether it is an event.
    pub event: bool,
    /// How many messages lie between at least; 1 for what its own handlers publish.
    pub steps: u32,
    /// In how many transactions it followed.
    pub traces: u64,
}

impl ReadModel {
    /// What followed a name in the last `n` transactions that had it.
    ///
    /// Each of them is read whole: a thousand take a fraction of a second.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn followed_by(&self, name: &str, n: usize) -> Result<Following, ReadModelError> {
        let mut following = Following::default();
        let mut followers: BTreeMap<(Arc<str>, bool), Follower> = BTreeMap::new();
        let mut after: Option<TraceCursor> = None;
        let mut left = n;
        while left > 0 {
            let filter = TraceFilter {
                name: Some(name.to_owned()),
                after,
                limit: left.min(PAGE),
                ..TraceFilter::default()
            };
            let page = self.traces(&filter)?;
            for summary in &page.traces {
                let trace = self.trace(&summary.tid)?;
                let records: Vec<&Record> = trace.records.iter().map(|(_, _, record)| record).collect();
                if look_at(name, &records, &mut following, &mut followers) {
                    left -= 1;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        following.names = followers.into_values().collect();
        following
            .names
            .sort_by(|a, b| b.traces.cmp(&a.traces).then(a.steps.cmp(&b.steps)).then(a.name.cmp(&b.name)));
        Ok(following)
    }
}

/// Counts one transaction; whether the name was published in it.
fn look_at(
    name: &str,
    records: &[&Record],
    following: &mut Following,
    followers: &mut BTreeMap<(Arc<str>, bool), Follower>,
) -> bool {
    let mut steps: HashMap<MessageId, u32> = HashMap::new();
    let mut began = None;
    for record in records {
        if matches!(&record.what, What::Published(it) if *it.name == *name) {
            steps.insert(record.message, 0);
            began = began.into_iter().chain([record.at]).min();
        }
    }
    let Some(began) = began else {
        return false;
    };
    // Clocks differ, so causes may come behind what they caused: again until nothing is added.
    loop {
        let before = steps.len();
        for record in records {
            if let What::Published(it) = &record.what
                && let Some(step) = it.cause.and_then(|cause| steps.get(&cause)).copied()
            {
                steps.entry(record.message).or_insert(step + 1);
            }
        }
        if steps.len() == before {
            break;
        }
    }
    let mut last = began;
    let mut jobs = 0i64;
    let mut failed = false;
    let mut counted: HashSet<(&str, bool)> = HashSet::new();
    for record in records {
        let Some(step) = steps.get(&record.message).copied() else {
            continue;
        };
        last = last.max(record.at);
        match &record.what {
            What::Published(it) => {
                jobs += i64::from(it.queues);
                if step > 0 {
                    let follower = followers.entry((Arc::clone(&it.name), it.event)).or_insert_with(|| {
                        Follower { name: Arc::clone(&it.name), event: it.event, steps: step, traces: 0 }
                    });
                    follower.steps = follower.steps.min(step);
                    follower.traces += u64::from(counted.insert((&it.name, it.event)));
                }
            }
            What::Attempt(it) => match it.end {
                AttemptEnd::Done => jobs -= 1,
                AttemptEnd::Failed { .. } => {
                    jobs -= 1;
                    failed = true;
                }
                _ => {}
            },
            _ => {}
        }
    }
    following.traces += 1;
    following.failed += u64::from(failed);
    if jobs > 0 {
        following.pending += 1;
    } else {
        following.settled.add(last.since(began));
    }
    true
}
