//! Settling: what a handler sends and the verdict on its delivery, in one transaction.

use std::mem;
use std::sync::Arc;

use ponos_core::broker::{
    BrokerError, BrokerErrorKind, Delivery, DeliveryTag, Published, SettleError, Settlement, Verdict,
};
use ponos_core::envelope::{Envelope, Progress};
use ponos_core::id::Timestamp;
use ponos_core::name::QueueName;
use ponos_core::wire;
use rusqlite::params;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::publish;
use crate::shared::Shared;
use crate::transaction::{Insert, Tx};
use crate::writer::{Failure, Operation};

type Settled = Result<Vec<Published>, SettleError>;

/// Settles; see [`Broker::settle`](ponos_core::broker::Broker::settle).
pub(crate) async fn settle(shared: &Shared, delivery: &Delivery, settlement: Settlement) -> Settled {
    let mut send = Vec::with_capacity(settlement.send.len());
    let mut refused = Vec::new();
    for (place, message) in settlement.send.into_iter().enumerate() {
        match publish::encode(&shared.clock, message) {
            Ok(row) => send.push(row),
            Err(error) => refused.push((place, Published::Refused(error))),
        }
    }
    let refused = (!refused.is_empty()).then(|| {
        let mut outcomes = vec![held_back(); send.len() + refused.len()];
        for (place, outcome) in refused {
            outcomes[place] = outcome;
        }
        outcomes
    });
    let (reply, answer) = oneshot::channel();
    let operation = Settle {
        tag: delivery.tag,
        verdict: Change::of(&shared.clock, settlement.verdict, delivery),
        send,
        refused,
        outcome: Ok(Vec::new()),
        reply: Some(reply),
    };
    shared.submit(Box::new(operation)).await;
    answer.await.unwrap_or_else(|_| Err(shared.gone().into()))
}

/// What is said of a message that could be sent, had another one of its settlement not been refused.
fn held_back() -> Published {
    Published::Refused(BrokerError::new(
        BrokerErrorKind::Unavailable,
        "not sent, because another message of the same settlement could not be",
    ))
}

/// A verdict as a change of the delivery's row; heads are encoded on the caller's thread.
enum Change {
    Delete,
    /// `due` is in broker time.
    Again {
        due: Option<Timestamp>,
        head: Vec<u8>,
        queue: QueueName,
    },
    Fail {
        head: Vec<u8>,
        failed: QueueName,
    },
    Release,
}

impl Change {
    fn of(clock: &Clock, verdict: Verdict, delivery: &Delivery) -> Self {
        let queue = || delivery.queue.clone();
        match verdict {
            Verdict::Done => Self::Delete,
            Verdict::RetryAt(due, progress) => Self::Again {
                due: Some(clock.due(due)),
                head: head_with(&delivery.envelope, *progress),
                queue: queue(),
            },
            Verdict::Recover(progress) => {
                Self::Again { due: None, head: head_with(&delivery.envelope, *progress), queue: queue() }
            }
            Verdict::Failed(report) => {
                let envelope = Envelope { report: Some(report), ..Envelope::clone(&delivery.envelope) };
                Self::Fail { head: wire::encode(&envelope), failed: QueueName::failed(&delivery.queue.app()) }
            }
            Verdict::Release => Self::Release,
        }
    }

    /// Applies it; false when the delivery is no longer ours.
    fn apply(&self, tx: &mut Tx<'_>, row: i64, fence: i64) -> rusqlite::Result<bool> {
        let changed = match self {
            Self::Delete => tx
                .prepare("DELETE FROM message WHERE id = ?1 AND fence = ?2 AND state = 1")?
                .execute(params![row, fence])?,
            Self::Again { due, head, queue } => {
                // Losses count per attempt: what comes next is judged by its own.
                let queue = tx.queue_or_new(queue.as_str())?;
                let ready_at = tx.ready_at(*due, queue);
                tx.prepare(
                    "UPDATE message SET state = 0, ready_at = ?3, head = ?4, losses = 0
                     WHERE id = ?1 AND fence = ?2 AND state = 1",
                )?
                .execute(params![row, fence, ready_at, head])?
            }
            Self::Fail { head, failed } => {
                let failed = tx.queue_or_new(failed.as_str())?;
                let ready_at = tx.ready_at(None, failed);
                // `copy`: another failure of the same message may lie there already, and neither may be lost.
                tx.prepare(
                    "UPDATE message SET state = 0, queue_id = ?3, ready_at = ?4, head = ?5, copy = id, losses = 0
                     WHERE id = ?1 AND fence = ?2 AND state = 1",
                )?
                .execute(params![row, fence, failed, ready_at, head])?
            }
            Self::Release => {
                let queue: Option<i64> = tx
                    .prepare("UPDATE message SET state = 0 WHERE id = ?1 AND fence = ?2 AND state = 1 RETURNING queue_id")?
                    .query_map(params![row, fence], |row| row.get(0))?
                    .next()
                    .transpose()?;
                if let Some(queue) = queue {
                    tx.touch(queue);
                }
                usize::from(queue.is_some())
            }
        };
        Ok(changed > 0)
    }
}

fn head_with(envelope: &Envelope, progress: Progress) -> Vec<u8> {
    wire::encode(&Envelope { progress, ..envelope.clone() })
}

struct Settle {
    tag: DeliveryTag,
    verdict: Change,
    send: Vec<Insert>,
    /// The outcomes, if a message breaks a limit. Only the transaction can tell whether the delivery is still ours.
    refused: Option<Vec<Published>>,
    outcome: Settled,
    /// Taken by the answer.
    reply: Option<oneshot::Sender<Settled>>,
}

impl Operation for Settle {
    fn weight(&self) -> usize {
        1 + self.send.len()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        let (row, fence) = (self.tag.number.cast_signed(), self.tag.fence.cast_signed());
        // First what can be answered without a change: then no part of a settlement is ever undone.
        let unsendable = match &self.refused {
            Some(outcomes) => Some(outcomes.clone()),
            None => tx.unsendable(&self.send)?,
        };
        if let Some(outcomes) = unsendable {
            let ours = tx
                .prepare("SELECT 1 FROM message WHERE id = ?1 AND fence = ?2 AND state = 1")?
                .exists(params![row, fence])?;
            self.outcome =
                Err(if ours { SettleError::NotSent(outcomes) } else { SettleError::Lost { sent: false } });
            return Ok(());
        }
        // The verdict comes before the messages: one of them may be a new copy of this very message for its own queue,
        // which is not to be taken for one that is there already.
        if !self.verdict.apply(tx, row, fence)? {
            self.outcome = Err(SettleError::Lost { sent: false });
            return Ok(());
        }
        let mut outcomes = Vec::with_capacity(self.send.len());
        for message in &self.send {
            outcomes.push(tx.send(message)?);
        }
        self.outcome = Ok(outcomes);
        Ok(())
    }

    fn committed(&mut self, shared: &Arc<Shared>) {
        let over = matches!(self.outcome, Ok(_) | Err(SettleError::Lost { .. }));
        if over
            && let Some(consumer) = shared.consumer(self.tag.subscription)
            && consumer.settled(self.tag.number.cast_signed(), self.tag.fence.cast_signed())
        {
            shared.chore(|chores| chores.claims.push(consumer));
        }
    }

    fn answer(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(mem::replace(&mut self.outcome, Ok(Vec::new())));
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        self.outcome = Err(failure.error.clone().into());
        self.answer();
    }
}

impl Tx<'_> {
    /// The outcomes of a settlement of which a message cannot be sent; `None` when all can.
    fn unsendable(&mut self, send: &[Insert]) -> rusqlite::Result<Option<Vec<Published>>> {
        use ponos_core::broker::Destination;
        let mut outcomes = Vec::new();
        for (place, message) in send.iter().enumerate() {
            if let Destination::Queue(queue) = &message.to
                && self.names.queue(self.connection, queue.as_str())?.is_none()
            {
                outcomes.resize(send.len(), held_back());
                outcomes[place] = Published::Returned;
            }
        }
        Ok((!outcomes.is_empty()).then_some(outcomes))
    }
}
