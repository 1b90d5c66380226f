//! Settling: what a delivery is settled with, what is said of it, and what nobody can tell then.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ponos::core::broker::{BrokerErrorKind, Inspect, Outgoing, Published, SettleError, Settlement, Verdict};
use ponos::core::envelope::Phase;
use ponos::core::name::{AppName, QueueName};

use super::super::commands::{End, Message, next_attempt, put_back, report};
use super::super::reference::Entry;
use super::{Agreed, Driver, Held, Subject, ensure};

impl<S: Subject> Driver<'_, S> {
    pub(super) fn settlement(&mut self, held: &Held, send: &[Message], verdict: End) -> Settlement {
        let now = self.now();
        let send = send.iter().map(|message| self.message(message, Some(held))).collect();
        let envelope = &held.delivery.envelope;
        let again = |due, phase| next_attempt(&envelope.progress, due, phase, now);
        let verdict = match verdict {
            End::Done => Verdict::Done,
            End::Release => Verdict::Release,
            End::Retry(delay) => {
                let due = delay.from(now).unwrap_or(now);
                Verdict::RetryAt(due, again(Some(due), envelope.progress.phase))
            }
            End::Recover => Verdict::Recover(again(None, Phase::Recover)),
            End::Fail => Verdict::Failed(report(&held.delivery.queue, envelope, now)),
        };
        Settlement { send, verdict }
    }

    /// Settles until it is said what became of it.
    pub(super) async fn settle(&mut self, held: Held, settlement: Settlement) -> Agreed {
        let Held { delivery, fence, consumer, handle, broker } = &held;
        let queue = delivery.queue.clone();
        let ours = self.model.holds(&queue, *fence);
        let is_open = Arc::ptr_eq(broker, &self.handles[*handle]);
        let Settlement { send, verdict } = &settlement;
        let mut confirmed = vec![false; send.len()];
        let mut doubtful = false;
        loop {
            let settled = self.within("settle", broker.settle(delivery, settlement.clone())).await?;
            match settled {
                Ok(outcomes) => {
                    ensure!(ours, "settled although it was no longer ours: {verdict:?}");
                    ensure!(outcomes.len() == send.len(), "{} outcomes of {}", outcomes.len(), send.len());
                    let (old, _) = self.model.settle(&queue, *fence, verdict);
                    for ((message, outcome), before) in send.iter().zip(&outcomes).zip(&confirmed) {
                        ensure!(outcome.is_confirmed(), "settled, with {outcome:?}");
                        self.told(message, outcome, !before)?;
                    }
                    if self.model.promises.fetches_ahead && *verdict != Verdict::Release {
                        self.on_their_way.push((*handle, queue, Entry { held: None, sure: false, ..old }));
                    }
                    break;
                }
                Err(SettleError::Lost { sent }) if ours => {
                    ensure!(self.model.promises.is_rough, "lost although it is ours: {verdict:?}");
                    for (message, before) in send.iter().zip(&confirmed) {
                        self.model.publish(message, sent && !before);
                    }
                    // Released or lost, it is back.
                    if doubtful && *verdict != Verdict::Release {
                        self.doubt(&queue, *fence, verdict);
                    }
                    let consumer = *consumer;
                    self.past.push(held);
                    self.lost(consumer);
                    return self.resolve().await;
                }
                Err(SettleError::Lost { sent }) => {
                    ensure!(!sent, "lost before, and yet sent: {send:?}");
                    self.model.told(*consumer, *fence);
                    if self.model.promises.is_rough && self.has_ended(*consumer).await? {
                        let consumer = *consumer;
                        self.lost(consumer);
                    }
                    break;
                }
                Err(SettleError::NotSent(outcomes)) => {
                    ensure!(ours, "it is said to be still ours, and is not: {outcomes:?}");
                    ensure!(outcomes.len() == send.len(), "{} outcomes of {}", outcomes.len(), send.len());
                    if self.not_sent(send, &outcomes, &mut confirmed)? {
                        self.held.push(held);
                        return Ok(());
                    }
                }
                Err(SettleError::Unavailable(error)) if !is_open => {
                    ensure!(error.kind() == BrokerErrorKind::Closed, "after the close: {error}");
                    break;
                }
                Err(SettleError::Unavailable(error)) => {
                    ensure!(error.is_temporary() && self.may_fail(), "not settled: {error}");
                    // It may have been sent all the same.
                    send.iter().for_each(|message| self.model.publish(message, false));
                    doubtful = true;
                }
                Err(error) => return Err(format!("not settled: {error}")),
            }
            tokio::task::yield_now().await;
        }
        self.past.push(held);
        self.retire();
        Ok(())
    }

    /// Not everything of a settlement was sent; whether it never will be.
    fn not_sent(
        &mut self,
        send: &[Outgoing],
        outcomes: &[Published],
        confirmed: &mut [bool],
    ) -> Agreed<bool> {
        ensure!(!outcomes.iter().all(Published::is_confirmed), "not sent, and all is confirmed");
        let cannot_be = |message: &Outgoing| {
            message.envelope.body.len() > ponos::core::body::MAX_BODY
                || self.model.outcome(message) == Published::Returned
        };
        let never = send.iter().any(cannot_be);
        if !self.may_fail() {
            ensure!(never, "everything could be sent: {outcomes:?}");
            ensure!(!outcomes.iter().any(Published::is_confirmed), "both or nothing: {outcomes:?}");
            return Ok(true);
        }
        for ((message, outcome), before) in send.iter().zip(outcomes).zip(confirmed) {
            self.told(message, outcome, !*before)?;
            *before |= outcome.is_confirmed();
        }
        Ok(never)
    }

    /// Nobody can tell whether a verdict was carried out.
    fn doubt(&mut self, queue: &QueueName, fence: u64, verdict: &Verdict) {
        let (old, new) = self.model.settle(queue, fence, verdict);
        let key = old.key;
        for entry in self.model.queues.values_mut().flatten().filter(|entry| Some(entry.key) == new) {
            entry.sure = false;
        }
        let entries = self.model.queues.get_mut(queue).expect("it exists");
        entries.iter_mut().filter(|e| e.envelope.id == old.envelope.id).for_each(|e| e.place = None);
        entries.push(Entry { sure: false, place: None, ..old });
        self.model.either.extend(new.map(|new| (key, new)));
    }

    /// Whether a subscription has ended by itself and nobody was told.
    async fn has_ended(&self, id: u64) -> Agreed<bool> {
        let Some(open) = self.consumers.iter().find(|open| open.id == id) else { return Ok(false) };
        let query = Inspect::Queue(open.queue.clone());
        let stats = self.handles[0].inspect(query).await.map_err(|error| error.to_string())?.into_queues();
        let known = self.consumers.iter().filter(|other| other.queue == open.queue).count();
        Ok(stats.iter().any(|stats| (stats.consumers as usize) < known))
    }

    /// Picks a failed job and puts it back or throws it away.
    pub(super) async fn redo(&mut self, by: u8, queue: u8, job: u8, back: bool) -> Agreed {
        let app = ["unit", "other"][usize::from(queue)];
        let queue = QueueName::failed(&AppName::from_checked(app));
        let now = self.now();
        let free: Vec<_> = self.model.queues[&queue].iter().filter(|entry| entry.is_ready(now)).collect();
        if free.is_empty() || self.model.unseen(&queue, None) > 0 {
            return Ok(());
        }
        let id = free[usize::from(job) % free.len()].envelope.id;
        let held = self.held.len();
        let deadline = tokio::time::Instant::now() + self.patience;
        while self.held.len() == held {
            let at = self.open(by.into(), &queue, 1, Some(vec![id])).await?;
            let open = self.consumers[at].id;
            if self.model.promises.fetches_ahead {
                // What was handed back a moment ago may not be back yet: then it is looked for again.
                let mut out = Vec::new();
                let subscription = &mut self.consumers[at].subscription;
                let asking = poll_fn(|cx| subscription.poll_next(cx, 1, &mut out));
                let _ = tokio::time::timeout(Duration::from_millis(100), asking).await;
                for delivery in out {
                    self.delivered(at, delivery)?;
                }
            } else {
                self.take(at, 1).await?;
            }
            if self.held.len() > held {
                let picked = self.held.pop().expect("it was just picked");
                let send = if back { put_back(&picked.delivery.envelope, self.now()) } else { None };
                let settlement = Settlement { send: send.into_iter().collect(), verdict: Verdict::Done };
                self.settle(picked, settlement).await?;
                if let Some(at) = self.consumers.iter().position(|consumer| consumer.id == open) {
                    self.close(at);
                }
                return Ok(());
            }
            if let Some(at) = self.consumers.iter().position(|consumer| consumer.id == open) {
                self.close(at);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{id} could not be picked");
        }
        Ok(())
    }
}
