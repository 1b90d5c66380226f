//! Settling: what is sent is confirmed before the delivery is acknowledged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ponos_core::broker::{Delivery, Destination, Outgoing, Published, SettleError, Settlement, Verdict};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use ponos_core::wire;

use crate::broker::Shared;
use crate::error;
use crate::memory::identity;
use crate::subscription::Intake;

/// How long a message that came too early waits before it is tried again to delay it.
const PAUSE: Duration = Duration::from_secs(1);

/// A delivery that is being settled; it is given back if the settlement is not carried through.
struct Settling {
    intake: Arc<Intake>,
    tag: u64,
    over: bool,
}

impl Drop for Settling {
    fn drop(&mut self) {
        if !self.over {
            self.intake.give_back(self.tag);
        }
    }
}

/// Settles; see [`Broker::settle`](ponos_core::broker::Broker::settle).
pub(crate) async fn settle(
    shared: &Arc<Shared>,
    delivery: &Delivery,
    settlement: Settlement,
) -> Result<Vec<Published>, SettleError> {
    let lost = |sent| Err(SettleError::Lost { sent });
    let tag = delivery.tag.number;
    let Some(intake) = shared.intake(delivery.tag.subscription) else {
        return lost(false);
    };
    if !intake.begin(tag) {
        return lost(false);
    }
    let mut settling = Settling { intake: Arc::clone(&intake), tag, over: false };
    let Settlement { send, verdict } = settlement;
    let effects = send.len();
    // A suspect is handed back as a copy: RabbitMQ would count it as lost.
    let verdict = match (verdict, delivery.envelope.progress.suspect) {
        (Verdict::Release, Some(before)) => {
            let suspect = Some(before.saturating_add(delivery.losses));
            let progress = Progress { suspect, ..delivery.envelope.progress.clone() };
            Verdict::RetryAt(SystemTime::now().into(), Box::new(progress))
        }
        (verdict, _) => verdict,
    };
    let release = matches!(verdict, Verdict::Release);
    let copy = copy(delivery, verdict);
    let copied = copy.is_some();
    let suspected = copy.as_ref().is_some_and(|copy| copy.envelope.progress.suspect.is_some());
    // A copy that is known by the same marks could not be told from its original.
    let told_apart = copy.as_ref().is_some_and(|copy| {
        identity(&delivery.queue, &copy.envelope) != identity(&delivery.queue, &delivery.envelope)
    });
    // Before the copy: what cannot be sent may change the verdict, and a copy that is in its queue cannot be taken back.
    let sent = if copied { send.iter().map(sent_key).collect() } else { Vec::new() };
    let outcomes = shared.send_once(&intake, tag, send, false).await;
    if !outcomes.iter().all(Published::is_confirmed) {
        return Err(SettleError::NotSent(outcomes));
    }
    let copy_outcome = shared.send_once(&intake, tag, copy.into_iter().collect(), true).await.pop();
    if copy_outcome.as_ref().is_some_and(|outcome| !outcome.is_confirmed()) {
        shared.memory.remember_sent((intake.id, tag), sent.into_iter().zip(outcomes.iter().cloned()));
    }
    match copy_outcome {
        None | Some(Published::Confirmed { .. }) => {}
        Some(Published::Refused(error) | Published::Unknown(error)) => {
            return Err(SettleError::Unavailable(error));
        }
        Some(Published::Returned) => {
            return Err(SettleError::Unavailable(error::unavailable(format!(
                "the copy of a job of `{}` found no queue",
                delivery.queue
            ))));
        }
    }
    settling.over = true;
    shared.memory.forget_sent((intake.id, tag));
    if copied {
        shared.memory.starts_anew(&delivery.queue, delivery.envelope.id);
    }
    if told_apart {
        shared.memory.supersede(&delivery.queue, &delivery.envelope);
    }
    let told = if release {
        shared.memory.excuse(&delivery.queue, std::iter::once(delivery.envelope.id));
        intake.release(tag)
    } else {
        intake.done(tag, suspected)
    };
    // A copy that is confirmed is as good as an acknowledgement: should the original come again, it is recognised.
    if told || told_apart { Ok(outcomes) } else { lost(effects > 0) }
}

/// The copy that a verdict sends before the original is acknowledged.
fn copy(delivery: &Delivery, verdict: Verdict) -> Option<Outgoing> {
    let with = |to: QueueName, envelope: Envelope| Some(Outgoing { to: Destination::Queue(to), envelope });
    let again = |progress: Progress| Envelope { progress, ..(*delivery.envelope).clone() };
    match verdict {
        Verdict::Done | Verdict::Release => None,
        Verdict::RetryAt(due, progress) => {
            with(delivery.queue.clone(), again(Progress { due: Some(due), ..*progress }))
        }
        Verdict::Recover(progress) => with(delivery.queue.clone(), again(*progress)),
        Verdict::Failed(mut report) => {
            report.shorten();
            let mut envelope = (*delivery.envelope).clone();
            envelope.report = Some(report);
            // The report has the history too, and headers have a limit.
            envelope.progress.history.clear();
            with(QueueName::failed(&delivery.queue.app()), envelope)
        }
    }
}

/// What a message of a settlement is known by when the settlement is tried again.
fn sent_key(message: &Outgoing) -> (Destination, MessageId, Option<Timestamp>) {
    (message.to.clone(), message.envelope.id, message.envelope.progress.due)
}

impl Shared {
    /// Sends what a settlement sends, or the copy of the settled message, but not again what an earlier try of the same
    /// settlement had confirmed.
    async fn send_once(
        self: &Arc<Self>,
        intake: &Intake,
        tag: u64,
        send: Vec<Outgoing>,
        copied: bool,
    ) -> Vec<Published> {
        if send.is_empty() {
            return Vec::new();
        }
        let before = self.memory.sent_before((intake.id, tag));
        let mut outcomes: Vec<Option<Published>> = Vec::with_capacity(send.len());
        let mut batch = Vec::with_capacity(send.len());
        let mut keys = Vec::with_capacity(send.len());
        for message in send {
            let key = sent_key(&message);
            let known = before.iter().find(|(sent, _)| *sent == key).map(|(_, outcome)| outcome.clone());
            if known.is_none() {
                batch.push(message);
                keys.push(key);
            }
            outcomes.push(known);
        }
        // The copy comes last, and was in a queue before: it goes on whatever its size.
        let has_copy = copied && outcomes.last().is_some_and(Option::is_none);
        let moved = if has_copy { batch.len().checked_sub(1) } else { None };
        let answers = self.send(&intake.publisher, batch, moved).await;
        if answers.iter().any(|answer| !answer.is_confirmed()) {
            let confirmed = keys.into_iter().zip(&answers).filter(|(_, answer)| answer.is_confirmed());
            self.memory.remember_sent((intake.id, tag), confirmed.map(|(key, answer)| (key, answer.clone())));
        }
        let mut answers = answers.into_iter();
        outcomes
            .into_iter()
            .map(|known| {
                known
                    .or_else(|| answers.next())
                    .unwrap_or_else(|| Published::Unknown(error::unavailable("no answer")))
            })
            .collect()
    }

    /// Sends a message on whose delay is longer than this hop was.
    pub(crate) async fn delay_again(self: Arc<Self>, delivery: Delivery, wait: Duration) {
        let progress = Box::new(delivery.envelope.progress.clone());
        let due = Timestamp::from(SystemTime::now()) + wait;
        loop {
            let verdict = Verdict::RetryAt(due, progress.clone());
            match settle(&self, &delivery, Settlement::just(verdict)).await {
                Ok(_) | Err(SettleError::Lost { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, queue = %delivery.queue, "a message that came too early is not delayed yet");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How long a message is still to be delayed after the hop with which it is sent: the header's name, in milliseconds.
///
/// Beside `x-ponos-due`, which is a time on its sender's wall clock. Where that of its consumer is an hour behind, or was
/// set back meanwhile, every message that is delivered would seem to come an hour early and be sent away for so long.
pub(crate) const LEFT: &str = "x-ponos-left";

/// How long a message that was delivered is still to be delayed: what its header says. Who sent none, an earlier version,
/// left it to the clocks.
pub(crate) fn still_to_wait(left: Option<i64>, due: Option<Timestamp>, now: Timestamp) -> Duration {
    match left {
        Some(left) => Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        None => due.map_or(Duration::ZERO, |due| due.since(now)),
    }
}

/// How long a message is to be delayed from now on.
pub(crate) fn delay_until(due: Option<Timestamp>) -> Option<Duration> {
    let now: Timestamp = SystemTime::now().into();
    due.filter(|due| *due > now).map(|due| due.since(now))
}

/// Whether a message's headers are more than one frame should hold.
pub(crate) fn header_bytes(parts: &wire::Parts) -> usize {
    parts
        .headers
        .iter()
        .map(|(name, value)| {
            name.len()
                + match value {
                    wire::HeaderValue::Text(text) => text.len(),
                    _ => 8,
                }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_whose_clock_is_behind_delays_nothing_again() {
        let now = Timestamp::from_millis(1_000_000);
        let due = Some(now + Duration::from_secs(3600));
        assert_eq!(still_to_wait(Some(0), due, now), Duration::ZERO);
        assert_eq!(still_to_wait(Some(-1), due, now), Duration::ZERO, "nobody writes that");
        assert_eq!(still_to_wait(None, due, now), Duration::from_secs(3600), "of an earlier version");
    }

    #[test]
    fn a_delay_of_several_hops_goes_on_whatever_the_clock_says() {
        let now = Timestamp::from_millis(1_000_000);
        assert_eq!(still_to_wait(Some(250), Some(Timestamp::EPOCH), now), Duration::from_millis(250));
        assert_eq!(still_to_wait(None, Some(Timestamp::EPOCH), now), Duration::ZERO);
        assert_eq!(still_to_wait(None, None, now), Duration::ZERO);
    }
}
