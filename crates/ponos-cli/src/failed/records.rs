//! What records tell of jobs that were put back. They are for looking: no job's fate depends on one.

use std::collections::{HashMap, HashSet};

use ponos::MessageId;
use ponos::core::id::Timestamp;
use ponos::core::journal::{AttemptEnd, JournalQuery, What, read};
use serde::Serialize;

use super::store::Failed;
use crate::broker::Session;

/// Attempts of some jobs, by their ids.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<MessageId, Vec<Attempt>>);

#[derive(Debug)]
struct Attempt {
    queue: String,
    started: Timestamp,
    done: bool,
    /// The operation that put the job back, where it is this that was recorded.
    operation: Option<String>,
}

/// What became of a job after it was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Done,
    FailedAgain,
    /// It waits, it runs, or it is about to run again; or nobody recorded it.
    Pending,
}

/// The attempts of these jobs since a moment.
///
/// # Errors
///
/// When there are no records or they cannot be read, with the reason.
pub(super) async fn attempts<'a>(
    session: &Session,
    jobs: impl IntoIterator<Item = &'a Failed>,
    since: Timestamp,
) -> Result<Attempts, String> {
    let journal = session.journal().map_err(|_| "the broker keeps no records".to_owned())?;
    let ids: HashSet<MessageId> = jobs.into_iter().map(|job| job.envelope.id).collect();
    let query = JournalQuery::Since(since);
    let records = session.ask(read(&*journal, &query)).await.map_err(|error| error.to_string())?;
    let mut attempts = Attempts::default();
    for record in records {
        if !ids.contains(&record.message) {
            continue;
        }
        let attempt = match record.what {
            What::Attempt(attempt) => Attempt {
                queue: attempt.queue.as_str().to_owned(),
                started: attempt.started,
                done: matches!(attempt.end, AttemptEnd::Done),
                operation: None,
            },
            // It is back in its queue, and about to be tried.
            What::ByHand(made) if &*made.verb == "retried" => Attempt {
                queue: made.queue.as_str().to_owned(),
                started: record.at,
                done: false,
                operation: made.operation.as_deref().map(str::to_owned),
            },
            _ => continue,
        };
        if attempt.started >= since {
            attempts.0.entry(record.message).or_default().push(attempt);
        }
    }
    Ok(attempts)
}

/// What became of a job that was put back at this time; `failed` holds when each of the failed jobs has failed.
pub(super) fn outcome_of(
    job: &Failed,
    put_back: Timestamp,
    failed: &HashMap<MessageId, Timestamp>,
    attempts: &Attempts,
) -> Outcome {
    let id = job.envelope.id;
    let before = job.report().map_or(put_back, |report| report.at);
    if failed.get(&id).is_some_and(|at| *at > before) {
        return Outcome::FailedAgain;
    }
    let queue = job.report().map(|report| report.queue.as_str());
    let done = attempts.0.get(&id).into_iter().flatten().any(|attempt| {
        attempt.done && attempt.started > before && queue.is_none_or(|queue| queue == attempt.queue)
    });
    if done { Outcome::Done } else { Outcome::Pending }
}

/// The jobs that were put back or tried after they had failed, and are among the failed ones all the same: an
/// operation that was interrupted has put them back already, or the clocks of two hosts differ.
pub(super) fn possible_duplicates(jobs: &[Failed], attempts: &Attempts) -> Vec<MessageId> {
    let tried_since = |job: &&Failed| {
        // What led to this very failure is no sign, whatever the clocks say.
        let own = job.envelope.progress.retried.as_ref().map(|retried| retried.op.as_str());
        job.report().is_some_and(|report| {
            attempts.0.get(&job.envelope.id).into_iter().flatten().any(|attempt| {
                attempt.started > report.at
                    && attempt.queue == report.queue.as_str()
                    && (own.is_none() || attempt.operation.as_deref() != own)
            })
        })
    };
    jobs.iter().filter(tried_since).map(|job| job.envelope.id).collect()
}
