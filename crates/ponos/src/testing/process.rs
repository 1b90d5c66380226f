//! One process: it may die at any moment, and then nothing of it goes on.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ponos_core::broker::{BoxFuture, DeliveryTag};
use ponos_core::envelope::Phase;
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;
use ponos_core::policy::{MaxRetries, RetryPolicy};
use tokio::sync::Notify;

use super::faults::Fault;
use super::faulty::World;
use super::history::{Happened, RunEnd};
use crate::context::Job;
use crate::outcome::{Follows, Outcome};
use crate::worker::{BoundRecoverFn, Resolved, RunFn};

/// A process of a simulation, or whoever uses one handle of a [`FaultyBroker`](super::FaultyBroker).
pub(crate) struct Process {
    pub(super) name: Arc<str>,
    dead: Arc<AtomicBool>,
    died: Notify,
    pub(super) world: Arc<World>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn new(name: &str, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), dead: Arc::default(), died: Notify::new(), world })
    }

    /// Whether it is dead, for its tasks.
    pub(crate) fn dead(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.dead)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, what: Happened) {
        self.world.record(&self.name, what);
    }

    /// Dies: its subscriptions break, and nothing of it goes on.
    pub(super) fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.record(Happened::Died);
            self.world.sever_process(&self.name, false);
            self.died.notify_one();
        }
    }

    /// Waits until it is dead. For one who waits.
    pub(super) async fn has_died(&self) {
        while !self.is_dead() {
            self.died.notified().await;
        }
    }

    /// Whether this fault happens now. It is recorded if so.
    pub(super) fn rolls(&self, fault: Fault, id: Option<MessageId>) -> bool {
        let happens = self.world.rolls(fault);
        if happens {
            self.record(Happened::Fault(fault, id));
        }
        happens
    }

    /// A place where the process may die; who is dead stays here.
    pub(super) async fn may_die(&self, fault: Fault, id: Option<MessageId>) {
        if !self.is_dead() && self.rolls(fault, id) {
            self.die();
        }
        if self.is_dead() {
            pending::<()>().await;
        }
    }
}

/// Records each run of a queue's functions, in which the process may die.
pub(crate) fn watched(
    process: &Arc<Process>,
    queue: &QueueName,
    policy: &Resolved,
    run: RunFn,
    recover: Option<BoundRecoverFn>,
) -> (RunFn, Option<BoundRecoverFn>) {
    process.record(Happened::Serves {
        queue: queue.clone(),
        attempts: policy.retry.and_then(|retry| match retry.max_retries {
            MaxRetries::Limited(retries) => Some(retries.saturating_add(1)),
            MaxRetries::Unlimited => None,
        }),
        concurrency: policy.concurrency,
        recovers: recover.is_some(),
    });
    let retry = policy.retry;
    let (runner, recoverer) = (Arc::clone(process), Arc::clone(process));
    let run: RunFn = Arc::new(move |job| {
        let work = run(Arc::clone(&job))?;
        let least = retry.map(|retry| retry.backoff.least(job.envelope.progress.attempt));
        Ok(Box::pin(Arc::clone(&runner).runs(job, least.unwrap_or_default(), work)))
    });
    let recover = recover.map(|recover| {
        Arc::new(move |job: Arc<Job>, why| {
            let work = recover(Arc::clone(&job), why)?;
            let least = RetryPolicy::default().backoff.least(job.envelope.progress.attempt);
            Ok(Box::pin(Arc::clone(&recoverer).runs(job, least, work)) as BoxFuture<'static, Outcome>)
        }) as BoundRecoverFn
    });
    (run, recover)
}

impl Process {
    async fn runs(
        self: Arc<Self>,
        job: Arc<Job>,
        least: Duration,
        work: BoxFuture<'static, Outcome>,
    ) -> Outcome {
        let (id, progress) = (job.envelope.id, &job.envelope.progress);
        let Some(tag) = self.world.tag_of(&job.envelope) else { return work.await };
        self.record(Happened::Runs {
            tag,
            queue: job.queue.clone(),
            id,
            phase: progress.phase,
            attempt: progress.attempt,
        });
        let mut run = Watched { process: &self, job: &job, tag, end: RunEnd::Cut(least) };
        let fault =
            if progress.phase == Phase::Recover { Fault::CrashInRecovery } else { Fault::CrashInHandler };
        let dies = self.rolls(fault, Some(id));
        if dies && self.world.coin() {
            self.die();
            pending::<()>().await;
        }
        let outcome = work.await;
        if dies {
            self.die();
            pending::<()>().await;
        }
        run.end = match outcome.as_ref().map_err(|fail| fail.follows) {
            Ok(()) => RunEnd::Succeeded(job.effect_ids()),
            Err(Follows::Retry) => RunEnd::Failed(least),
            Err(Follows::RetryAfter(asked)) => RunEnd::Failed(least.max(asked)),
            Err(Follows::Stop) => RunEnd::Stopped,
            Err(Follows::Snooze(asked)) => RunEnd::Snoozed(asked),
        };
        outcome
    }
}

/// A run, which ends when this is dropped.
struct Watched<'a> {
    process: &'a Process,
    job: &'a Job,
    tag: DeliveryTag,
    end: RunEnd,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let end = std::mem::replace(&mut self.end, RunEnd::Stopped);
        let (queue, id) = (self.job.queue.clone(), self.job.envelope.id);
        self.process.record(Happened::Ran { tag: self.tag, queue, id, end });
    }
}
