//! One attempt at one job: decode, run, decide, settle, report.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ponos_core::broker::{Delivery, Settlement, Verdict};
use ponos_core::envelope::{
    self, AttemptNote, ErrorClass, GaveUp, GaveUpReason, MAX_HISTORY_ERROR, MAX_REPORT_ERROR, Phase,
    Progress, Recovery, Report, tame,
};
use ponos_core::id::Timestamp;
use ponos_core::journal::{AttemptEnd, AttemptRecord, DelayBy};
use ponos_core::policy::{FailureClass, MaxRetries, Outcome as CircuitOutcome, RetryDecision, RetryPolicy};
use tracing::Instrument;

use super::Shared;
use super::hooks::{ErrorReport, Undecodable};
use super::policy::RECOVERY_ATTEMPTS;
use super::settle::{self, Settled};
use super::spec::QueueSpec;
use crate::context::Job;
use crate::outcome::{Fail, Follows, Outcome};

/// How often a job may be lost while it runs alone before it is given up.
pub(crate) const MAX_SUSPECT_LOSSES: u32 = 3;

/// What a job tells its queue's worker when it has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it tells the circuit.
    pub(crate) outcome: CircuitOutcome,
    /// Whether it is done, to be recognised if it comes again.
    pub(crate) done: bool,
}

/// How the function that ran came back.
enum CallResult {
    Returned(Outcome),
    TimedOut(Duration),
    Panicked(String),
    Undecodable(String),
    /// It killed its process each time that it ran alone, and does not run again.
    Poison,
    /// So many messages lie between it and the start of its chain that it does not run.
    TooFar(String),
}

/// What went wrong in an attempt.
struct Failure {
    class: ErrorClass,
    /// For the retry decision; `None` where there is nothing to decide.
    policy: Option<FailureClass>,
    /// The error with its causes.
    error: String,
}

/// Runs the job of `delivery` once and settles it.
///
/// `held` is how long it waited in this process for its rate limit or its turn.
pub(crate) async fn run(spec: &QueueSpec, shared: &Shared, delivery: Delivery, held: Duration) -> Ended {
    let envelope = &delivery.envelope;
    let span = tracing::error_span!(
        "job",
        tid = %envelope.tid,
        queue = %spec.queue,
        attempt = envelope.progress.attempt,
        phase = envelope.progress.phase.as_str(),
    );
    run_inside(spec, shared, &delivery, held).instrument(span).await
}

async fn run_inside(spec: &QueueSpec, shared: &Shared, delivery: &Delivery, held: Duration) -> Ended {
    let clock = &shared.local.clock;
    let job =
        Arc::new(Job::new(Arc::clone(&shared.local), spec.queue.clone(), Arc::clone(&delivery.envelope)));
    let (started, started_at) = (clock.now(), clock.wall());
    let result = call(spec, shared, delivery, &job).await;
    let took = clock.now().since(started);
    let effects = job.finish();
    let attempt = Attempt { spec, shared, delivery, started: started_at, took, held };
    // The rare ways are boxed, so that the future of a job that succeeds stays small.
    match result {
        CallResult::Returned(Ok(())) if delivery.envelope.progress.phase == Phase::Run => {
            let settlement = Settlement { send: effects, verdict: Verdict::Done };
            attempt.settle(settlement, Noted::done(), CircuitOutcome::Success).await
        }
        CallResult::Returned(Ok(())) => Box::pin(attempt.recovered(effects)).await,
        other => Box::pin(attempt.failed(failure_of(other))).await,
    }
}

/// Calls the handler or the recovery function, within its time and behind a net.
async fn call(spec: &QueueSpec, shared: &Shared, delivery: &Delivery, job: &Arc<Job>) -> CallResult {
    let progress = &delivery.envelope.progress;
    if progress.suspect.is_some_and(|before| losses_alone(before, delivery) >= MAX_SUSPECT_LOSSES) {
        return CallResult::Poison;
    }
    let (started, limit) = match progress.phase {
        Phase::Run if delivery.envelope.hops >= shared.hop_limit => {
            return CallResult::TooFar(too_far(spec, shared, delivery));
        }
        Phase::Run => (catch_unwind(AssertUnwindSafe(|| (spec.run)(Arc::clone(job)))), spec.policy.timeout),
        Phase::Recover => {
            let why = progress.gave_up.as_deref().cloned().unwrap_or_else(unknown_reason);
            let Some(recover) = &spec.recover else {
                // An older or a newer version of the service had a recovery function.
                return CallResult::Returned(Err(Fail::stop(
                    "this version of the service has no recovery function",
                )));
            };
            (
                catch_unwind(AssertUnwindSafe(|| recover(Arc::clone(job), why))),
                Some(spec.policy.recovery_timeout),
            )
        }
    };
    let future = match started {
        Ok(Ok(future)) => future,
        Ok(Err(error)) => return CallResult::Undecodable(error.to_string()),
        Err(panic) => return CallResult::Panicked(panic_text(&*panic)),
    };
    let clock = &shared.local.clock;
    let caught = clock.handler(spec.queue.as_str(), CatchPanic::new(future));
    let result = match limit {
        None => caught.await,
        Some(limit) => match clock.timeout(limit, caught).await {
            Some(result) => result,
            None => {
                if spec.policy.blocking {
                    job.blocking_is_overdue();
                }
                return CallResult::TimedOut(limit);
            }
        },
    };
    match result {
        Ok(outcome) => CallResult::Returned(outcome),
        Err(panic) => CallResult::Panicked(panic),
    }
}

fn too_far(spec: &QueueSpec, shared: &Shared, delivery: &Delivery) -> String {
    let envelope = &delivery.envelope;
    let from =
        envelope.publisher.as_deref().or(envelope.app.as_ref().map(AsRef::as_ref)).unwrap_or("somebody");
    format!(
        "the chain is {} messages long: a loop? the last links were `{from}` → `{}` → `{}`; break the loop, or raise \
         `hop_limit` ({}) if the chain is meant to be as long",
        envelope.hops, envelope.name, spec.queue, shared.hop_limit
    )
}

fn unknown_reason() -> GaveUp {
    GaveUp { reason: GaveUpReason::Exhausted, error: "not recorded".into(), attempts: 0 }
}

fn failure_of(result: CallResult) -> Failure {
    match result {
        CallResult::Returned(Ok(())) => unreachable!("success is no failure"),
        CallResult::Returned(Err(fail)) => {
            let (class, policy) = match fail.follows {
                Follows::Retry => (ErrorClass::Error, FailureClass::Retryable),
                Follows::RetryAfter(delay) => (ErrorClass::Error, FailureClass::RetryAfter(delay)),
                Follows::Stop => (ErrorClass::Stop, FailureClass::Fatal),
                Follows::Snooze(delay) => (ErrorClass::Snooze, FailureClass::Snooze(delay)),
            };
            Failure { class, policy: Some(policy), error: tame(&fail.chain(), MAX_REPORT_ERROR) }
        }
        CallResult::TimedOut(limit) => Failure {
            class: ErrorClass::Timeout,
            policy: Some(FailureClass::Timeout),
            error: format!("the attempt was not done within {limit:?}"),
        },
        CallResult::Panicked(text) => Failure {
            class: ErrorClass::Panic,
            policy: Some(FailureClass::Panic),
            error: tame(&format!("panicked: {text}"), MAX_REPORT_ERROR),
        },
        CallResult::Undecodable(error) => Failure {
            class: ErrorClass::Undecodable,
            policy: Some(FailureClass::Undecodable),
            error: tame(&error, MAX_REPORT_ERROR),
        },
        CallResult::Poison => Failure {
            class: ErrorClass::Lost,
            policy: None,
            error: format!("the process died {MAX_SUSPECT_LOSSES} times while it ran this job alone"),
        },
        CallResult::TooFar(error) => {
            Failure { class: ErrorClass::Stop, policy: None, error: tame(&error, MAX_REPORT_ERROR) }
        }
    }
}

/// An attempt that has ended, to be settled.
struct Attempt<'a> {
    spec: &'a QueueSpec,
    shared: &'a Shared,
    delivery: &'a Delivery,
    started: Timestamp,
    took: Duration,
    held: Duration,
}

/// What follows for the job, for its record.
struct Noted {
    end: AttemptEnd,
    /// What went wrong, where something did.
    class: Option<ErrorClass>,
    error: Option<String>,
    delay_by: Option<DelayBy>,
    fingerprint: Option<String>,
}

impl Noted {
    const fn done() -> Self {
        Self { end: AttemptEnd::Done, class: None, error: None, delay_by: None, fingerprint: None }
    }

    fn failed(end: AttemptEnd, class: ErrorClass, error: String) -> Self {
        Self { end, class: Some(class), error: Some(error), ..Self::done() }
    }
}

impl Attempt<'_> {
    fn progress(&self) -> &Progress {
        &self.delivery.envelope.progress
    }

    /// The recovery function succeeded: its events, the failed job and the acknowledgement are one settlement.
    async fn recovered(self, effects: Vec<ponos_core::broker::Outgoing>) -> Ended {
        let gave_up = self.progress().gave_up.as_deref().cloned().unwrap_or_else(unknown_reason);
        let reason = gave_up.reason;
        let report = self.report(gave_up, Recovery::Done, self.progress().history.clone());
        let noted = Noted {
            end: AttemptEnd::Failed { reason, recovered: true },
            fingerprint: Some(report.fingerprint.clone()),
            ..Noted::done()
        };
        let settlement = Settlement { send: effects, verdict: Verdict::Failed(report) };
        self.settle(settlement, noted, CircuitOutcome::Ignored).await
    }

    /// The function that ran did not succeed: again, recovery, or the end.
    async fn failed(self, failure: Failure) -> Ended {
        let now = self.shared.local.clock.wall();
        let mut progress = self.progress().clone();
        progress.first_seen.get_or_insert(self.started);
        progress.due = None;
        if failure.class != ErrorClass::Snooze {
            progress.note(AttemptNote {
                started: self.started,
                millis: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
                class: failure.class,
                error: tame(failure.error.lines().next().unwrap_or_default(), MAX_HISTORY_ERROR),
                host: self.shared.local.host.to_string(),
            });
        }
        let recovering = progress.phase == Phase::Recover;
        let outcome = match failure.policy {
            Some(class) if !recovering => class.outcome(),
            _ => CircuitOutcome::Ignored,
        };
        match self.decide(&failure, now) {
            RetryDecision::Retry { delay, next_attempt } => {
                self.tell(&failure, false);
                progress.attempt = next_attempt;
                self.again(progress, now + delay, failure, outcome).await
            }
            RetryDecision::Snooze { delay } => {
                tracing::debug!(?delay, "snoozed");
                self.again(progress, now + delay, failure, outcome).await
            }
            RetryDecision::GiveUp(_) if recovering => {
                self.tell(&failure, true);
                let gave_up = progress.gave_up.take().map_or_else(unknown_reason, |gave_up| *gave_up);
                let report = self.report(gave_up, Recovery::Failed(failure.error.clone()), progress.history);
                self.end(report, failure, outcome).await
            }
            RetryDecision::GiveUp(reason) => {
                self.tell(&failure, true);
                let attempts = progress.attempt;
                let gave_up = GaveUp { reason, error: failure.error.clone(), attempts };
                // What a recovery beyond the limit emitted would come back to it, for ever.
                let is_beyond = self.delivery.envelope.hops > self.shared.hop_limit;
                if self.spec.recover.is_none() || reason == GaveUpReason::Undecodable || is_beyond {
                    let report = self.report(gave_up, Recovery::None, progress.history);
                    return self.end(report, failure, outcome).await;
                }
                progress.phase = Phase::Recover;
                progress.suspect = progress.suspect.map(|_| 0);
                progress.attempt = 1;
                progress.gave_up = Some(Box::new(gave_up));
                let end = AttemptEnd::GaveUp { class: failure.class, reason };
                let verdict = Verdict::Recover(Box::new(progress));
                self.settle(
                    Settlement::just(verdict),
                    Noted::failed(end, failure.class, failure.error),
                    outcome,
                )
                .await
            }
        }
    }

    fn decide(&self, failure: &Failure, now: Timestamp) -> RetryDecision {
        let Some(class) = failure.policy else {
            // It did not run.
            return RetryDecision::GiveUp(match failure.class {
                ErrorClass::Lost => GaveUpReason::Poison,
                _ => GaveUpReason::HopLimit,
            });
        };
        let attempt = self.progress().attempt;
        let age = envelope::age(&self.delivery.envelope, now);
        let roll = self.shared.local.clock.roll();
        match (self.progress().phase, self.spec.policy.retry) {
            (Phase::Run, Some(policy)) => policy.decide(class, attempt, age, roll),
            // A pure function does not get better by waiting.
            (Phase::Run, None) => RetryDecision::GiveUp(match class {
                FailureClass::Undecodable => GaveUpReason::Undecodable,
                _ => GaveUpReason::Stopped,
            }),
            (Phase::Recover, _) => {
                RetryPolicy { max_retries: (RECOVERY_ATTEMPTS - 1).into(), ..RetryPolicy::default() }
                    .decide(class, attempt, age, roll)
            }
        }
    }

    async fn again(
        self,
        progress: Progress,
        due: Timestamp,
        failure: Failure,
        outcome: CircuitOutcome,
    ) -> Ended {
        let progress = Box::new(Progress { due: Some(due), ..progress });
        let end = AttemptEnd::Retry { class: failure.class, due };
        let delay_by = match failure.policy {
            Some(FailureClass::RetryAfter(_)) => DelayBy::Handler,
            Some(FailureClass::Snooze(_)) => DelayBy::Snooze,
            _ => DelayBy::Backoff,
        };
        let noted = Noted { delay_by: Some(delay_by), ..Noted::failed(end, failure.class, failure.error) };
        self.settle(Settlement::just(Verdict::RetryAt(due, progress)), noted, outcome).await
    }

    async fn end(self, report: Box<Report>, failure: Failure, outcome: CircuitOutcome) -> Ended {
        let end = AttemptEnd::Failed { reason: report.gave_up.reason, recovered: false };
        let fingerprint = Some(report.fingerprint.clone());
        let noted = Noted { fingerprint, ..Noted::failed(end, failure.class, failure.error) };
        self.settle(Settlement::just(Verdict::Failed(report)), noted, outcome).await
    }

    fn report(&self, gave_up: GaveUp, recovery: Recovery, history: Vec<AttemptNote>) -> Box<Report> {
        let local = &self.shared.local;
        Box::new(Report {
            queue: self.spec.queue.clone(),
            recovery,
            at: local.clock.wall(),
            fingerprint: Report::fingerprint(&self.spec.queue, gave_up.reason, &gave_up.error),
            gave_up,
            history,
            version: local.version.as_ref().map(ToString::to_string),
            host: local.host.to_string(),
        })
    }

    /// Logs the failure and calls the hooks.
    fn tell(&self, failure: &Failure, gave_up: bool) {
        let envelope = &self.delivery.envelope;
        let recovery = self.progress().phase == Phase::Recover;
        let (class, error) = (failure.class.as_str(), failure.error.as_str());
        match (gave_up, recovery) {
            (false, _) => tracing::warn!(class, error, "the attempt failed"),
            (true, false) => tracing::error!(class, error, "gave up"),
            (true, true) => tracing::error!(class, error, "the recovery function gave up"),
        }
        if failure.class == ErrorClass::Undecodable {
            self.shared.hooks.undecodable(&Undecodable {
                queue: &self.spec.queue,
                tid: &envelope.tid,
                message: envelope.id,
                body: &envelope.body,
                error,
            });
        }
        self.shared.hooks.error(&ErrorReport {
            queue: &self.spec.queue,
            tid: &envelope.tid,
            message: envelope.id,
            attempt: envelope.progress.attempt,
            class: failure.class,
            error,
            gave_up,
            recovery,
        });
    }

    /// Settles until the broker has taken it, and records how the attempt ended.
    async fn settle(self, settlement: Settlement, noted: Noted, outcome: CircuitOutcome) -> Ended {
        let done = matches!(noted.end, AttemptEnd::Done);
        let silent = settlement.send.is_empty();
        let recognises = self.spec.policy.dedup && self.shared.broker.may_duplicate();
        let settled = settle::until_taken(self.spec, self.shared, self.delivery, settlement).await;
        let (noted, outcome, done) = match settled {
            Settled::Taken => (noted, outcome, done),
            // Only the acknowledgement is missing: when the job comes again it is recognised and does not run.
            Settled::Lost { sent } if done && recognises && (sent || silent) => (noted, outcome, true),
            Settled::Lost { .. } => (
                Noted { end: AttemptEnd::Lost, error: noted.error, ..Noted::done() },
                CircuitOutcome::Ignored,
                false,
            ),
            Settled::Unpublishable(problem) => {
                let reason = GaveUpReason::Stopped;
                let end = if settle::goes_to_recovery(self.spec, self.delivery) {
                    AttemptEnd::GaveUp { class: ErrorClass::Stop, reason }
                } else {
                    AttemptEnd::Failed { reason, recovered: false }
                };
                (Noted::failed(end, ErrorClass::Stop, problem), CircuitOutcome::Ignored, false)
            }
        };
        self.note(noted);
        Ended { outcome, done }
    }

    /// Tells how the attempt ended.
    fn note(&self, noted: Noted) {
        let Some(lifecycle) = &self.shared.local.lifecycle else { return };
        let envelope = &self.delivery.envelope;
        let progress = &envelope.progress;
        let ready = match progress.phase {
            Phase::Run => Some(progress.due.unwrap_or(envelope.published_at)),
            // It was ready when the handler gave up: the record of that attempt says when.
            Phase::Recover => progress.due,
        };
        let of = match (progress.phase, self.spec.policy.retry) {
            (Phase::Recover, _) => Some(RECOVERY_ATTEMPTS),
            (Phase::Run, Some(retry)) => match retry.max_retries {
                MaxRetries::Limited(retries) => Some(retries.saturating_add(1)),
                MaxRetries::Unlimited => None,
            },
            (Phase::Run, None) => Some(1),
        };
        let first_line =
            |error: String| tame(error.lines().next().unwrap_or_default(), MAX_HISTORY_ERROR).into();
        let record = AttemptRecord {
            queue: self.spec.queue.clone(),
            attempt: progress.attempt,
            phase: progress.phase,
            started: self.started,
            took: self.took,
            end: noted.end,
            error: noted.error.map(first_line),
            ready,
            of,
            delay_by: noted.delay_by,
            fingerprint: noted.fingerprint.map(Into::into),
            held: self.held,
        };
        lifecycle.attempt(self.started + self.took, envelope, record, noted.class, || self.spec.limit());
    }
}

/// A future whose panic is a value.
struct CatchPanic<F> {
    future: F,
}

impl<F: Future + Unpin> CatchPanic<F> {
    fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future + Unpin> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let future = pin!(&mut self.future);
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    }
}

/// How often a suspect was lost while it ran alone. What the message itself says of it, from before it was handed back, is
/// never enough: anybody may have written it.
fn losses_alone(before: u32, delivery: &Delivery) -> u32 {
    before.min(MAX_SUSPECT_LOSSES - 1) + delivery.losses
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
        .to_owned()
}

/// Ends a job's place among those that run, also when it is cut off.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) alone: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.solo.leave(self.alone);
    }
}
