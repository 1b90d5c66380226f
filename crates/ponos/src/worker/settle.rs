//! Settling until the broker has taken it. The handler never runs again for a settlement that is late.

use std::time::Duration;

use ponos_core::broker::{
    BrokerErrorKind, Delivery, Destination, Outgoing, Published, SettleError, Settlement, Topology, Verdict,
};
use ponos_core::envelope::{GaveUp, GaveUpReason, MessageName, Phase, Progress, Recovery, Report};
use ponos_core::name::EventName;

use super::Shared;
use super::hooks::ErroredEvents;
use super::spec::QueueSpec;
use crate::context::new_envelope;
use crate::lifecycle::NotTaken;

/// The first pause between two tries; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a broker may take for one settlement: its deadline for confirms.
pub(crate) const SETTLE_DEADLINE: Duration = Duration::from_secs(30);

/// What became of a settlement.
#[derive(Debug)]
pub(crate) enum Settled {
    /// The broker has taken it.
    Taken,
    /// The job is no longer this worker's.
    Lost {
        /// Whether all effects were sent before: it is done, and comes again.
        sent: bool,
    },
    /// The broker will never take what the handler published; the job gave up instead, for this reason.
    Unpublishable(String),
}

/// Settles `delivery`. While the broker does not take it, the result is kept and tried again.
///
/// # Cancel safety
///
/// Dropping the future leaves open whether the delivery was settled.
pub(crate) async fn until_taken(
    spec: &QueueSpec,
    shared: &Shared,
    delivery: &Delivery,
    mut settlement: Settlement,
) -> Settled {
    add_errored_event(spec, shared, delivery, &mut settlement);
    if settlement.send.is_empty() && matches!(settlement.verdict, Verdict::Done) {
        // By far the most: nothing that would be needed again has to be kept.
        let clock = &shared.local.clock;
        match clock.timeout(SETTLE_DEADLINE, shared.broker.settle(delivery, settlement)).await {
            Some(Ok(_)) => return Settled::Taken,
            Some(Err(SettleError::Lost { sent })) => return Settled::Lost { sent },
            _ => settlement = Settlement::just(Verdict::Done),
        }
    }
    Box::pin(insist(spec, shared, delivery, settlement)).await
}

/// Settles again and again.
async fn insist(
    spec: &QueueSpec,
    shared: &Shared,
    delivery: &Delivery,
    mut settlement: Settlement,
) -> Settled {
    let clock = &shared.local.clock;
    let mut unpublishable = None;
    let mut pause = FIRST_PAUSE;
    loop {
        let kept = settlement.clone();
        let started = clock.now();
        let settled = clock.timeout(SETTLE_DEADLINE, shared.broker.settle(delivery, settlement)).await;
        settlement = kept;
        let problem = match settled {
            Some(Ok(outcomes)) => {
                record(shared, &settlement.send, &outcomes, clock.now().since(started));
                return unpublishable.map_or(Settled::Taken, Settled::Unpublishable);
            }
            Some(Err(SettleError::Lost { sent })) => {
                tracing::warn!("the job was taken away before it was settled: it runs again elsewhere");
                return Settled::Lost { sent };
            }
            Some(Err(SettleError::NotSent(outcomes))) => {
                if let Some(problem) = never(&outcomes, &settlement.send) {
                    tracing::error!(problem, "what the handler published is refused for good");
                    for message in &settlement.send {
                        shared.local.unpublished(message, NotTaken::Refused, &problem);
                    }
                    settlement = give_up(spec, shared, delivery, &problem);
                    unpublishable = Some(problem);
                    continue;
                }
                declare_missing(shared, &settlement.send, &outcomes).await;
                SettleError::NotSent(outcomes).to_string()
            }
            Some(Err(SettleError::Unavailable(error))) if error.kind() == BrokerErrorKind::Closed => {
                return Settled::Lost { sent: false };
            }
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {SETTLE_DEADLINE:?}"),
        };
        tracing::warn!(problem, ?pause, "not settled yet; the result is kept and tried again");
        clock.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn record(shared: &Shared, send: &[Outgoing], outcomes: &[Published], took: Duration) {
    for (message, outcome) in send.iter().zip(outcomes) {
        if let Published::Confirmed { queues } = outcome {
            shared.local.published(message, *queues, Some(took));
        }
    }
}

/// Why a message will never be taken, if so.
fn never(outcomes: &[Published], send: &[Outgoing]) -> Option<String> {
    outcomes.iter().zip(send).find_map(|(outcome, message)| match outcome {
        Published::Refused(error) if !error.is_temporary() && error.kind() != BrokerErrorKind::Closed => {
            Some(format!("`{}` cannot be published: {error}", message.envelope.name))
        }
        _ => None,
    })
}

/// A task of this application whose queue nobody has declared yet: a handler created it, another service serves it.
async fn declare_missing(shared: &Shared, send: &[Outgoing], outcomes: &[Published]) {
    let missing = send.iter().zip(outcomes).filter_map(|(message, outcome)| match (&message.to, outcome) {
        (Destination::Queue(queue), Published::Returned) => Some(queue.clone()),
        _ => None,
    });
    let tasks: Vec<_> = missing.collect();
    if !tasks.is_empty() {
        let topology = Topology { app: Some(shared.local.app.clone()), tasks, ..Topology::default() };
        match shared.local.clock.timeout(SETTLE_DEADLINE, shared.broker.declare(&topology)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "a queue that a task was created for cannot be declared");
            }
            None => tracing::warn!("a queue that a task was created for was not declared in time"),
        }
    }
}

/// What follows when the effects are refused for good: the recovery function if there is one and it was not its own
/// effects, otherwise the job fails.
fn give_up(spec: &QueueSpec, shared: &Shared, delivery: &Delivery, problem: &str) -> Settlement {
    let reason = GaveUpReason::Stopped;
    let progress = &delivery.envelope.progress;
    let refused = GaveUp { reason, error: problem.to_owned(), attempts: progress.attempt };
    if goes_to_recovery(spec, delivery) {
        return Settlement::just(Verdict::Recover(Box::new(Progress {
            phase: Phase::Recover,
            attempt: 1,
            gave_up: Some(Box::new(refused)),
            ..progress.clone()
        })));
    }
    let (gave_up, recovery) = match &progress.gave_up {
        Some(gave_up) => ((**gave_up).clone(), Recovery::Failed(problem.to_owned())),
        None => (refused, Recovery::None),
    };
    Settlement::just(Verdict::Failed(Box::new(Report {
        queue: spec.queue.clone(),
        fingerprint: Report::fingerprint(&spec.queue, gave_up.reason, &gave_up.error),
        gave_up,
        recovery,
        at: shared.local.clock.wall(),
        history: progress.history.clone(),
        version: shared.local.version.as_ref().map(ToString::to_string),
        host: shared.local.host.to_string(),
    })))
}

/// Whether a job that gives up now has a recovery function before it.
pub(crate) fn goes_to_recovery(spec: &QueueSpec, delivery: &Delivery) -> bool {
    spec.recover.is_some() && delivery.envelope.progress.phase == Phase::Run
}

/// Adds the npm package's event `worker.errored` to a settlement that fails the job, where the service wants it.
fn add_errored_event(spec: &QueueSpec, shared: &Shared, delivery: &Delivery, settlement: &mut Settlement) {
    let Verdict::Failed(report) = &settlement.verdict else {
        return;
    };
    if delivery.envelope.hops > shared.hop_limit {
        // Who hears of failures would hear of its own, for ever.
        return;
    }
    let payload = match shared.errored_events {
        ErroredEvents::Off => return,
        ErroredEvents::WithoutPayload => serde_json::Map::new(),
        ErroredEvents::WithPayload => ponos_core::body::object(&delivery.envelope.body).unwrap_or_default(),
    };
    let envelope = &delivery.envelope;
    let errored = serde_json::json!({
        "originalJobPayload": payload,
        "originalJobMeta": {
            "messageId": envelope.id,
            "appId": envelope.app,
            "timestamp": envelope.published_at,
            "headers": {"publisherWorkerName": envelope.publisher.as_deref()},
        },
        "originalWorkerName": spec.queue,
        "error": {
            "name": report.gave_up.reason.as_str(),
            "message": report.gave_up.error,
        },
    });
    let Ok(body) = ponos_core::body::encode(&envelope.tid, &errored) else {
        tracing::warn!("the failure is too large for a `worker.errored` event; none is emitted");
        return;
    };
    let name = errored_event();
    let effect = ponos_core::id::Effect {
        parent: envelope.id,
        queue: spec.queue.as_str(),
        phase: "errored",
        name: name.as_str(),
        payload: &body,
        occurrence: 0,
    };
    let id = ponos_core::id::MessageId::of_effect(&effect);
    let cause = ponos_core::envelope::Cause::of(envelope);
    let publisher = Some(spec.queue.as_str().into());
    let event = new_envelope(&shared.local, &cause, id, MessageName::Event(name.clone()), publisher, body);
    settlement.send.push(Outgoing { to: Destination::Event(name), envelope: event });
}

/// The npm package's event for a job that failed for good.
pub(crate) fn errored_event() -> EventName {
    EventName::from_checked("worker.errored")
}
