//! The ways from a process to the broker and back, with what may happen on them.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{
    Delivery, DeliveryTag, Destination, Outgoing, Published, SettleError, Settlement, Verdict,
};
use ponos_core::envelope::{Envelope, Progress, Recovery};
use ponos_core::id::MessageId;
use ponos_core::name::QueueName;

use super::super::faults::Fault;
use super::super::history::{Happened, Ruling, Sent};
use super::super::process::Process;
use super::unavailable;

/// How late a message is at most.
const LATE: Duration = Duration::from_secs(60);

/// Longer than a worker waits for an answer.
const TOO_LONG: Duration = Duration::from_secs(45);

pub(super) fn ids(messages: &[Outgoing]) -> Vec<MessageId> {
    messages.iter().map(|message| message.envelope.id).collect()
}

pub(super) fn ruling(verdict: &Verdict) -> Ruling {
    match verdict {
        Verdict::Done => Ruling::Done,
        Verdict::Release => Ruling::Release,
        Verdict::RetryAt(due, progress) => {
            Ruling::Again { due: *due, attempt: progress.attempt, suspect: progress.suspect.is_some() }
        }
        Verdict::Recover(progress) => {
            let gave_up = progress.gave_up.as_deref();
            Ruling::Recover(
                gave_up.map_or(ponos_core::envelope::GaveUpReason::Unknown, |gave_up| gave_up.reason),
            )
        }
        Verdict::Failed(report) => {
            let recovered = match report.recovery {
                Recovery::None => None,
                Recovery::Done => Some(true),
                _ => Some(false),
            };
            Ruling::Failed { reason: report.gave_up.reason, recovered }
        }
    }
}

/// One message's way to the broker, and the answer's way back.
pub(super) async fn publish(process: &Arc<Process>, message: Outgoing, sent: Sent) -> Published {
    let id = Some(message.envelope.id);
    let world = &process.world;
    process.may_die(Fault::CrashBeforePublish, id).await;
    world.way().await;
    if world.goes_down(&process.name) {
        let why = unavailable("the broker is away");
        return if world.coin() { Published::Refused(why) } else { Published::Unknown(why) };
    }
    if process.rolls(Fault::PublishRefused, id) {
        return Published::Refused(unavailable("the message was refused"));
    }
    if process.rolls(Fault::PublishLost, id) {
        return Published::Unknown(unavailable("the message was lost"));
    }
    if process.rolls(Fault::PublishLate, id) {
        let (world, name, late) = (Arc::clone(world), Arc::clone(&process.name), world.within(LATE));
        world.clock.clone().spawn(async move {
            world.clock.sleep(late).await;
            world.take(&name, message, 1, sent).await;
        });
        return Published::Unknown(unavailable("the message is late"));
    }
    let copies = 1 + u32::from(process.rolls(Fault::PublishDuplicated, id));
    let outcome = world.take(&process.name, message, copies, sent).await;
    process.may_die(Fault::CrashBeforeConfirm, id).await;
    world.way().await;
    if outcome.is_confirmed() && process.rolls(Fault::ConfirmLost, id) {
        return Published::Unknown(unavailable("the confirm was lost"));
    }
    process.may_die(Fault::CrashAfterConfirm, id).await;
    outcome
}

/// Settles as a broker with transactions does.
pub(super) async fn settle_at_once(
    process: &Arc<Process>,
    delivery: &Delivery,
    settlement: Settlement,
) -> Result<Vec<Published>, SettleError> {
    let id = Some(delivery.envelope.id);
    let world = &process.world;
    process.may_die(Fault::CrashBeforeSettle, id).await;
    world.way().await;
    if world.goes_down(&process.name) || process.rolls(Fault::SettleUnanswered, id) {
        return Err(unavailable("the settlement was lost").into());
    }
    if !settlement.send.is_empty() && process.rolls(Fault::PublishRefused, id) {
        let refused = || Published::Refused(unavailable("the message was refused"));
        return Err(SettleError::NotSent(settlement.send.iter().map(|_| refused()).collect()));
    }
    if process.rolls(Fault::SettleLost, id) {
        world.sever_of(delivery.tag);
    }
    if process.rolls(Fault::SettleLate, id) {
        let (process, delivery) = (Arc::clone(process), same(delivery));
        let (clock, late) = (world.clock.clone(), world.within(LATE));
        world.clock.spawn(async move {
            clock.sleep(late).await;
            // Nobody hears of it.
            let _ = carry_out(&process, &delivery, settlement).await;
        });
        world.clock.sleep(TOO_LONG).await;
        return Err(unavailable("the settlement is late").into());
    }
    let settled = carry_out(process, delivery, settlement).await;
    process.may_die(Fault::CrashAfterSettle, id).await;
    world.way().await;
    if settled.is_ok() && process.rolls(Fault::SettleAnswerLost, id) {
        return Err(unavailable("the answer was lost").into());
    }
    settled
}

/// The broker carries a settlement out.
async fn carry_out(
    process: &Process,
    delivery: &Delivery,
    settlement: Settlement,
) -> Result<Vec<Published>, SettleError> {
    let world = &process.world;
    let (ruling, send) = (ruling(&settlement.verdict), settlement.send.clone());
    let settled = world.inner.settle(delivery, settlement).await?;
    for message in &send {
        process.record(world.taken(message, 1, Sent::Effect(delivery.tag)));
    }
    is_settled(process, delivery, ruling);
    Ok(settled)
}

fn is_settled(process: &Process, delivery: &Delivery, ruling: Ruling) {
    let (tag, queue, id) = (delivery.tag, delivery.queue.clone(), delivery.envelope.id);
    let held = process.world.let_go(tag);
    if matches!(ruling, Ruling::Again { .. } | Ruling::Recover(_)) {
        process.world.forgive(&queue, id);
    }
    process.record(Happened::Settled { tag, queue, id, ruling, held });
}

/// Settles as a broker without transactions does: what is sent is confirmed first, the original is acknowledged last.
pub(super) async fn settle_in_steps(
    process: &Arc<Process>,
    delivery: &Delivery,
    settlement: Settlement,
) -> Result<Vec<Published>, SettleError> {
    let (tag, id) = (delivery.tag, Some(delivery.envelope.id));
    let world = &process.world;
    process.may_die(Fault::CrashBeforeSettle, id).await;
    if !world.is_held(tag) {
        return Err(SettleError::Lost { sent: false });
    }
    let effects = !settlement.send.is_empty();
    let mut outcomes = Vec::with_capacity(settlement.send.len());
    for message in settlement.send {
        outcomes.push(send_once(process, tag, message, Sent::Effect(tag)).await);
    }
    if outcomes.iter().any(|outcome| !outcome.is_confirmed()) {
        return Err(SettleError::NotSent(outcomes));
    }
    if effects {
        process.may_die(Fault::CrashAfterEffects, id).await;
    }
    let ruling = ruling(&settlement.verdict);
    let copied = match copy(delivery, settlement.verdict) {
        None => false,
        Some(copy) => {
            match send_once(process, tag, copy, Sent::Copy(tag)).await {
                Published::Confirmed { .. } => {}
                Published::Refused(why) | Published::Unknown(why) => return Err(why.into()),
                Published::Returned => return Err(unavailable("the copy found no queue").into()),
            }
            process.may_die(Fault::CrashAfterCopy, id).await;
            true
        }
    };
    world.way().await;
    if process.rolls(Fault::SettleLost, id) {
        world.sever_of(tag);
        return Err(SettleError::Lost { sent: effects });
    }
    if process.rolls(Fault::SettleUnanswered, id) {
        // The worker is told that all is well, and the connection breaks before the acknowledgement has arrived.
        let (world, late) = (Arc::clone(world), world.within(LATE));
        world.clock.clone().spawn(async move {
            world.clock.sleep(late).await;
            world.sever_of(tag);
        });
        return Ok(outcomes);
    }
    let arrived = acknowledge(process, delivery, ruling, copied).await;
    process.may_die(Fault::CrashAfterSettle, id).await;
    if arrived.is_ok() && process.rolls(Fault::SettleAnswerLost, id) {
        // The connection breaks right after: the worker cannot know that it arrived.
        world.sever_of(tag);
        return Err(SettleError::Lost { sent: effects });
    }
    arrived.map(|()| outcomes).map_err(|error| match error {
        SettleError::Lost { .. } => SettleError::Lost { sent: effects },
        other => other,
    })
}

/// Takes the original of a message away.
async fn acknowledge(
    process: &Process,
    delivery: &Delivery,
    ruling: Ruling,
    copied: bool,
) -> Result<(), SettleError> {
    let verdict = if ruling == Ruling::Release { Verdict::Release } else { Verdict::Done };
    process.world.inner.settle(delivery, Settlement::just(verdict)).await?;
    if copied {
        let held = process.world.let_go(delivery.tag);
        process.record(Happened::Acknowledged { tag: delivery.tag, held });
    } else {
        is_settled(process, delivery, ruling);
    }
    Ok(())
}

/// Sends a part of a settlement, but not what an earlier try of the same settlement had confirmed.
async fn send_once(process: &Arc<Process>, tag: DeliveryTag, message: Outgoing, sent: Sent) -> Published {
    let world = &process.world;
    let id = message.envelope.id;
    // A copy has its original's id, and is the last that a settlement sends.
    if let Sent::Effect(_) = sent
        && let Some(before) = world.sent_before(tag, id)
    {
        return before;
    }
    let copied = match (&sent, &message.envelope.report) {
        (Sent::Copy(_), Some(_)) => None,
        (Sent::Copy(_), None) => Some(message.to.clone()),
        _ => None,
    };
    let outcome = publish(process, message, sent).await;
    if outcome.is_confirmed() {
        if let Some(Destination::Queue(queue)) = copied {
            world.forgive(&queue, id);
        }
        if let Sent::Effect(_) = sent {
            world.remember_sent(tag, id, outcome.clone());
        }
    }
    outcome
}

/// The copy that a verdict sends before the original is acknowledged.
fn copy(delivery: &Delivery, verdict: Verdict) -> Option<Outgoing> {
    let to = |queue: QueueName, envelope: Envelope| Outgoing { to: Destination::Queue(queue), envelope };
    let again = |progress: Progress| {
        to(delivery.queue.clone(), Envelope { progress, ..(*delivery.envelope).clone() })
    };
    match verdict {
        Verdict::Done | Verdict::Release => None,
        Verdict::RetryAt(due, progress) => Some(again(Progress { due: Some(due), ..*progress })),
        Verdict::Recover(progress) => Some(again(*progress)),
        Verdict::Failed(report) => {
            let envelope = Envelope { report: Some(report), ..(*delivery.envelope).clone() };
            Some(to(QueueName::failed(&delivery.queue.app()), envelope))
        }
    }
}

/// The same delivery, for a request that outlives who made it.
fn same(delivery: &Delivery) -> Delivery {
    Delivery {
        tag: delivery.tag,
        queue: delivery.queue.clone(),
        envelope: Arc::clone(&delivery.envelope),
        losses: delivery.losses,
    }
}
