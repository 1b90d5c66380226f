//! How far one job has come, from the records of its attempts.

use std::cmp::Ordering;

use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::Timestamp;
use ponos_core::journal::{AttemptEnd, AttemptRecord};

/// How far a job has come: a message in one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// It was done. This is final: what ran after it was a duplicate.
    Done,
    /// It failed and is kept in the queue of failed jobs.
    Failed {
        /// Why it was not tried again.
        reason: GaveUpReason,
        /// Whether a recovery function ran and succeeded.
        recovered: bool,
    },
    /// It waits for its next attempt.
    Waiting {
        /// When that is due.
        due: Timestamp,
    },
    /// The handler gave up, and the recovery function has not yet ended.
    Recovering,
    /// The queue has it, and no attempt has ended.
    NotYet,
    /// The last result came too late: the job was another worker's by then, whose record is not here (yet).
    Lost,
    /// What its handler published is recorded, its attempts are not.
    Unrecorded,
    /// An instance runs an attempt at it, or ran one when it was heard of last.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Entries of its application were lost, and what ended it may be among them.
    Unknown,
}

impl JobState {
    /// Whether the job has ended: done or failed.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. })
    }

    /// Whether the job is known to have something ahead of it.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::Waiting { .. } | Self::Recovering | Self::NotYet | Self::Lost | Self::Running { .. }
        )
    }
}

/// Puts a job's attempts into the order in which they happened and drops those that were recorded twice.
///
/// The number of an attempt counts before its time, because two hosts' clocks disagree. A job that failed and was
/// retried by hand begins again at attempt 1: such lives are told apart by time.
pub(super) fn in_order<A: std::borrow::Borrow<AttemptRecord> + PartialEq>(attempts: &mut Vec<A>) {
    attempts.sort_by(|a, b| by_time(a.borrow(), b.borrow()));
    attempts.dedup();
    let mut life = 0u32;
    let (mut failed, mut began) = (false, false);
    let mut numbered: Vec<(u32, A)> = Vec::with_capacity(attempts.len());
    for attempt in attempts.drain(..) {
        let record = attempt.borrow();
        let first = record.phase == Phase::Run && record.attempt == 1 && spends(&record.end);
        if first && failed && began {
            life += 1;
            failed = false;
        }
        began |= first;
        failed |= matches!(record.end, AttemptEnd::Failed { .. });
        numbered.push((life, attempt));
    }
    numbered.sort_by_key(|(life, attempt)| (*life, rank(attempt.borrow().phase), attempt.borrow().attempt));
    attempts.extend(numbered.into_iter().map(|(_, attempt)| attempt));
}

/// How far a job has come whose attempts are [in order](in_order); `None` without attempts.
pub(super) fn state<'a>(
    attempts: impl DoubleEndedIterator<Item = &'a AttemptRecord> + Clone,
) -> Option<JobState> {
    if attempts.clone().any(|attempt| attempt.end == AttemptEnd::Done) {
        return Some(JobState::Done);
    }
    let last = attempts.last()?;
    Some(match &last.end {
        AttemptEnd::Done => JobState::Done,
        AttemptEnd::Retry { due, .. } if last.phase == Phase::Run => JobState::Waiting { due: *due },
        AttemptEnd::Retry { .. } | AttemptEnd::GaveUp { .. } => JobState::Recovering,
        AttemptEnd::Failed { reason, recovered } => {
            JobState::Failed { reason: *reason, recovered: *recovered }
        }
        // Also what a later version may add: nothing is known that ends the job.
        _ => JobState::Lost,
    })
}

/// Whether this attempt is one that its job will make again because it was spent.
pub(super) fn is_retry(attempt: &AttemptRecord) -> bool {
    matches!(attempt.end, AttemptEnd::Retry { class, .. } if class != ErrorClass::Snooze)
}

fn spends(end: &AttemptEnd) -> bool {
    !matches!(end, AttemptEnd::Lost | AttemptEnd::Retry { class: ErrorClass::Snooze, .. })
}

fn by_time(a: &AttemptRecord, b: &AttemptRecord) -> Ordering {
    // By start and not by end: the late result of a lost attempt ends after that of the attempt which replaced it.
    (a.started, rank(a.phase), a.attempt, a.took, &a.error, a.queue.as_str())
        .cmp(&(b.started, rank(b.phase), b.attempt, b.took, &b.error, b.queue.as_str()))
        .then_with(|| end_key(&a.end).cmp(&end_key(&b.end)))
}

const fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Run => 0,
        Phase::Recover => 1,
    }
}

fn end_key(end: &AttemptEnd) -> (u8, &'static str, &'static str, Option<Timestamp>, bool) {
    match end {
        AttemptEnd::Lost => (0, "", "", None, false),
        AttemptEnd::Retry { class, due } => (1, class.as_str(), "", Some(*due), false),
        AttemptEnd::GaveUp { class, reason } => (2, class.as_str(), reason.as_str(), None, false),
        AttemptEnd::Failed { reason, recovered } => (3, "", reason.as_str(), None, *recovered),
        AttemptEnd::Done => (4, "", "", None, false),
        _ => (5, "", "", None, false),
    }
}
