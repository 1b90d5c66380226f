//! Settling: what is sent is confirmed before the delivery is acknowledged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ponos_core::broker::{Delivery, Destination, Outgoing, Published, SettleError, Settlement, Verdict};
use ponos_core::envelope::{Envelope, Progress, Report};
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use ponos_core::wire;

use crate::broker::Shared;
use crate::error;
use crate::memory::identity;
use crate::subscription::Intake;

/// The largest report that is kept with a failed job.
const MAX_REPORT: usize = 32 * 1024;

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
    // A suspect is handed back as a copy, whose count is its own.
    let verdict = match verdict {
        Verdict::Release if delivery.envelope.progress.suspect.is_some() => {
            let progress = delivery.envelope.progress.clone();
            Verdict::RetryAt(SystemTime::now().into(), Box::new(progress))
        }
        verdict => verdict,
    };
    let release = matches!(verdict, Verdict::Release);
    let copy = copy(delivery, verdict);
    let copied = copy.is_some();
    // A copy that is known by the same marks could not be told from its original.
    let told_apart = copy.as_ref().is_some_and(|copy| {
        identity(&delivery.queue, &copy.envelope) != identity(&delivery.queue, &delivery.envelope)
    });
    // Before the copy: what cannot be sent may change the verdict, and a copy that is in its queue cannot be taken back.
    let sent = if copied { send.iter().map(sent_key).collect() } else { Vec::new() };
    let outcomes = shared.send_once(&intake, tag, send).await;
    if !outcomes.iter().all(Published::is_confirmed) {
        return Err(SettleError::NotSent(outcomes));
    }
    let copy_outcome = shared.send_once(&intake, tag, copy.into_iter().collect()).await.pop();
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
        intake.done(tag)
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
        Verdict::Failed(report) => {
            let mut envelope = (*delivery.envelope).clone();
            envelope.report = Some(Box::new(shorten(*report)));
            // The report has the history too, and headers have a limit.
            envelope.progress.history.clear();
            with(QueueName::failed(&delivery.queue.app()), envelope)
        }
    }
}

/// Cuts a report down to what its header may hold.
fn shorten(mut report: Report) -> Report {
    let size = |report: &Report| serde_json::to_string(report).map_or(0, |text| text.len());
    while size(&report) > MAX_REPORT {
        if report.history.len() > 1 {
            report.history.remove(0);
        } else {
            let mut half = report.gave_up.error.len() / 2;
            while !report.gave_up.error.is_char_boundary(half) {
                half -= 1;
            }
            report.gave_up.error.truncate(half);
            report.recovery = ponos_core::envelope::Recovery::None;
            if half == 0 {
                break;
            }
        }
    }
    report
}

/// What a message of a settlement is known by when the settlement is tried again.
fn sent_key(message: &Outgoing) -> (Destination, MessageId, Option<Timestamp>) {
    (message.to.clone(), message.envelope.id, message.envelope.progress.due)
}

impl Shared {
    /// Sends what a settlement sends, but not again what an earlier try of the same settlement had confirmed.
    async fn send_once(self: &Arc<Self>, intake: &Intake, tag: u64, send: Vec<Outgoing>) -> Vec<Published> {
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
        let answers = self.send(&intake.publisher, batch).await;
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

    /// Sends a message on that came before its time: the last hop of a long delay was not its last, or clocks differ.
    pub(crate) async fn delay_again(self: Arc<Self>, delivery: Delivery) {
        let progress = Box::new(delivery.envelope.progress.clone());
        let due = progress.due.unwrap_or_else(|| SystemTime::now().into());
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
