//! Putting failed jobs back into their queues.

use std::time::SystemTime;

use ponos_core::broker::{BrokerError, Destination, Outgoing};
use ponos_core::envelope::{Envelope, MAX_HISTORY_ERROR, Progress, Retried, tame};
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::bulk::{Bulk, BulkEnd, Work};
use super::{FailedJobs, Operation};

/// What became of a job that was to be retried.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryFailed {
    /// It is in its queue again, with all its attempts before it.
    Retried(QueueName),
    /// It is not among the failed jobs (any more), or another tool holds it.
    NotThere,
}

impl FailedJobs {
    /// Puts a failed job back into its queue, as a new job with the same identity: all its attempts are before it.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not take it; the job then is still among the failed ones.
    pub async fn retry(&self, id: MessageId) -> Result<RetryFailed, BrokerError> {
        let operation = Operation::begun_by("");
        match self.carry_out_one(&self.failed(), id, back(operation.clone()), operation).await? {
            Some(queue) => Ok(RetryFailed::Retried(queue)),
            None => Ok(RetryFailed::NotThere),
        }
    }

    /// Puts failed jobs back into their queues, as one operation: as [`retry`](Self::retry) for each, told one by one.
    ///
    /// Each copy carries the operation and how often the job was put back by hand so far; a job that fails again keeps
    /// it beside its new report. Retried is not resolved: whether the new attempts succeed shows later.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached or does not answer. What was told before is done; all others are still among
    /// the failed jobs.
    pub async fn retry_many(&self, ids: Vec<MessageId>, bulk: Bulk<'_>) -> Result<BulkEnd, BrokerError> {
        let work = back(bulk.operation.clone());
        self.carry_out(&self.failed(), ids, work, bulk).await
    }
}

fn back(operation: Operation) -> Work {
    Work { verb: Some("retried"), reason: None, send: Box::new(move |envelope| copy(envelope, &operation)) }
}

/// The job anew, with nothing but its mark behind it.
fn copy(failed: &Envelope, operation: &Operation) -> Result<Vec<Outgoing>, String> {
    let Some(report) = &failed.report else {
        return Err(format!(
            "the job {} has no report, so its queue is not known: discard it, or publish it anew by hand",
            failed.id
        ));
    };
    let queue = report.queue.clone();
    let times = failed.progress.retried.as_ref().map_or(0, |before| before.times).saturating_add(1);
    let error = report.gave_up.error.lines().next().unwrap_or_default();
    let retried = Retried {
        op: operation.id.clone(),
        at: operation.at,
        by: operation.by.clone(),
        times,
        failed_at: Some(report.at),
        error: tame(error, MAX_HISTORY_ERROR),
    };
    let mut envelope = failed.clone();
    envelope.report = None;
    envelope.progress = Progress {
        // Due now: told from the first delivery under this id, which may have been given up by this very process.
        due: Some(SystemTime::now().into()),
        retried: Some(Box::new(retried)),
        edited_from: failed.progress.edited_from,
        ..Progress::default()
    };
    Ok(vec![Outgoing { to: Destination::Queue(queue), envelope }])
}
