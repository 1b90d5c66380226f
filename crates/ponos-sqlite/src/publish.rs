//! Publishing: from messages to rows, and from a transaction to an outcome for each.

use std::mem;

use ponos_core::broker::{BrokerError, BrokerErrorKind, Outgoing, Published};
use ponos_core::wire;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::shared::Shared;
use crate::transaction::{Insert, Tx};
use crate::writer::{Failure, GROUP, Operation};

/// One operation writes about so many bytes of bodies at most: a larger batch would keep the lock from others.
const OPERATION_BYTES: usize = 4 << 20;

/// Encodes a message on the caller's thread, or says why it will never be taken.
pub(crate) fn encode(clock: &Clock, message: Outgoing) -> Result<Insert, BrokerError> {
    if let Some(error) = message.too_large() {
        return Err(error);
    }
    let Outgoing { to, envelope } = message;
    let head = wire::encode(&envelope);
    if head.len() > wire::MAX_HEADERS {
        let (name, size, limit) = (&envelope.name, head.len(), wire::MAX_HEADERS);
        let problem = format!("the headers of `{name}` have {size} bytes, the limit is {limit}");
        return Err(BrokerError::new(BrokerErrorKind::Invalid, problem));
    }
    Ok(Insert {
        to,
        id: envelope.id,
        head,
        due: envelope.progress.due.map(|due| clock.due(due)),
        body: envelope.body,
    })
}

/// Publishes a batch; see [`Broker::publish`](ponos_core::broker::Broker::publish).
pub(crate) async fn publish(shared: &Shared, batch: Vec<Outgoing>) -> Vec<Published> {
    // Nearly always everything fits into one operation and is valid: then the answer is the operation's own.
    let mut outcomes: Vec<Published> = Vec::with_capacity(batch.len());
    let mut sent: Vec<(Vec<usize>, oneshot::Receiver<Vec<Published>>)> = Vec::new();
    let mut rows = Vec::with_capacity(batch.len().min(GROUP));
    let mut places = Vec::with_capacity(batch.len().min(GROUP));
    let mut bytes = 0;
    for (place, message) in batch.into_iter().enumerate() {
        match encode(&shared.clock, message) {
            Ok(row) => {
                bytes += row.body.len();
                rows.push(row);
                places.push(place);
                outcomes.push(Published::Returned);
            }
            Err(error) => outcomes.push(Published::Refused(error)),
        }
        if rows.len() >= GROUP || bytes >= OPERATION_BYTES {
            let answer = submit(shared, mem::take(&mut rows)).await;
            sent.push((mem::take(&mut places), answer));
            bytes = 0;
        }
    }
    if !rows.is_empty() {
        sent.push((places, submit(shared, rows).await));
    }
    for (places, answer) in sent {
        // Without an answer the writer has ended, perhaps in the middle.
        let answers = answer.await.unwrap_or_else(|_| vec![Published::Unknown(shared.gone()); places.len()]);
        for (place, answer) in places.into_iter().zip(answers) {
            outcomes[place] = answer;
        }
    }
    outcomes
}

async fn submit(shared: &Shared, rows: Vec<Insert>) -> oneshot::Receiver<Vec<Published>> {
    let (reply, answer) = oneshot::channel();
    let operation = Box::new(Publish { outcomes: Vec::with_capacity(rows.len()), rows, reply: Some(reply) });
    shared.submit(operation).await;
    answer
}

/// Up to [`GROUP`] messages of one publisher.
struct Publish {
    rows: Vec<Insert>,
    outcomes: Vec<Published>,
    /// Taken by the answer.
    reply: Option<oneshot::Sender<Vec<Published>>>,
}

impl Operation for Publish {
    fn weight(&self) -> usize {
        self.rows.len()
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.outcomes.clear();
        for row in &self.rows {
            let outcome = tx.send(row)?;
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    fn answer(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(mem::take(&mut self.outcomes));
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        let outcome = if failure.unknown { Published::Unknown } else { Published::Refused };
        self.outcomes = self.rows.iter().map(|_| outcome(failure.error.clone())).collect();
        self.answer();
    }
}
