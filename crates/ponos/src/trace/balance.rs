//! Whether the books balance: counts of jobs over any number of transactions.

use std::collections::HashMap;

use ponos_core::id::MessageId;
use ponos_core::journal::{AttemptRecord, PublishedRecord, Record, What};

use super::job::{self, JobState};

/// Jobs by what became of them. A job is a message in a queue: an event that three queues hear is three jobs.
///
/// Every job that a broker took counts once in [`accepted`](Self::accepted) and, when all is over, once in
/// [`done`](Self::done) or [`failed`](Self::failed); [`lost`](Self::lost) is what is missing then. Duplicate records
/// change nothing, and the order of the records does not matter. Missing records do: a journal that
/// [dropped](ponos_core::journal::Journal::dropped) some cannot prove anything.
///
/// A job's state is that of its last attempt; once it was done, it stays done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Balance {
    /// Distinct messages whose publishing is recorded.
    pub messages: u64,
    /// The sum of the queues that those messages went to; of several records of one message the largest number counts.
    pub accepted: u64,
    /// Accepted jobs that are done.
    pub done: u64,
    /// Accepted jobs that failed, recovered or not.
    pub failed: u64,
    /// Of the failed ones, those whose recovery function ran and succeeded.
    pub recovered: u64,
    /// Accepted jobs that wait for their next attempt.
    pub waiting: u64,
    /// Accepted jobs that gave up and whose recovery has not ended.
    pub recovering: u64,
    /// Accepted jobs whose last recorded result came too late to count.
    pub too_late: u64,
    /// Accepted jobs without any recorded attempt.
    pub not_yet: u64,
    /// Attempts that were spent and followed by another; snoozes and late results are none.
    pub retries: u64,
    /// Jobs with attempts whose message's publishing is not recorded. They count nowhere else but in
    /// [`retries`](Self::retries), so that they cannot make up for a job that is missing.
    pub unpublished: u64,
    /// Jobs beyond the number of queues that their message went to. They count like accepted jobs but cannot make up
    /// for another message's missing ones. 0 in sound records.
    pub surplus: u64,
    open: u64,
}

impl Balance {
    /// Counts the jobs of these records.
    #[must_use]
    pub fn from_records(records: &[Record]) -> Self {
        let mut queues: HashMap<MessageId, u32> = HashMap::new();
        let mut attempts: HashMap<(MessageId, &str), Vec<&AttemptRecord>> = HashMap::new();
        for record in records {
            match &record.what {
                What::Published(PublishedRecord { queues: new, .. }) => {
                    let known = queues.entry(record.message).or_default();
                    *known = (*known).max(*new);
                }
                What::Attempt(attempt) => {
                    let job = (record.message, attempt.queue.as_str());
                    attempts.entry(job).or_default().push(attempt);
                }
                _ => {}
            }
        }

        let mut balance = Self {
            messages: queues.len() as u64,
            accepted: queues.values().map(|&n| u64::from(n)).sum(),
            ..Self::default()
        };
        /// Of one message.
        #[derive(Default)]
        struct Seen {
            jobs: u64,
            ended: u64,
        }
        let mut seen: HashMap<MessageId, Seen> = HashMap::new();
        for ((message, _), mut attempts) in attempts {
            job::in_order(&mut attempts);
            balance.retries += attempts.iter().filter(|attempt| job::is_retry(attempt)).count() as u64;
            if !queues.contains_key(&message) {
                balance.unpublished += 1;
                continue;
            }
            let state = job::state(attempts.iter().copied()).unwrap_or(JobState::NotYet);
            let seen = seen.entry(message).or_default();
            seen.jobs += 1;
            seen.ended += u64::from(state.is_final());
            match state {
                JobState::Done => balance.done += 1,
                JobState::Failed { recovered, .. } => {
                    balance.failed += 1;
                    balance.recovered += u64::from(recovered);
                }
                JobState::Waiting { .. } => balance.waiting += 1,
                JobState::Recovering => balance.recovering += 1,
                JobState::Lost => balance.too_late += 1,
                JobState::NotYet | JobState::Unrecorded | JobState::Running { .. } | JobState::Unknown => {}
            }
        }
        let none = Seen::default();
        for (message, &queues) in &queues {
            let seen = seen.get(message).unwrap_or(&none);
            let queues = u64::from(queues);
            balance.not_yet += queues.saturating_sub(seen.jobs);
            balance.surplus += seen.jobs.saturating_sub(queues);
            balance.open += queues.saturating_sub(seen.ended);
        }
        balance
    }

    /// Accepted jobs that have not ended: [`accepted`](Self::accepted) − [`done`](Self::done) − [`failed`](Self::failed),
    /// message by message.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.open
    }

    /// How many jobs were lost, *if the caller knows that nothing is pending*: that every queue is empty, no job waits
    /// for its time, and all records have been written. Records alone cannot tell a lost job from one that has not
    /// ended; this is the same number as [`pending`](Self::pending).
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.open
    }
}
