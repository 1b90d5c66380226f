//! The rarer operations: declaring, opening a queue, standing orders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ponos_core::broker::{BrokerError, BrokerErrorKind, Order, SubscribeOptions, Subscription, Topology};
use ponos_core::name::QueueName;
use rusqlite::params;
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::subscription::{Consumer, SqliteSubscription};
use crate::transaction::Tx;
use crate::writer::{Failure, Operation};

/// Makes what a topology names; see [`Broker::declare`](ponos_core::broker::Broker::declare).
pub(crate) async fn declare(shared: &Shared, topology: Topology) -> Result<(), BrokerError> {
    topology.check()?;
    ask(shared, |reply| Declare { topology, reply }).await
}

/// Opens a queue; see [`Broker::subscribe`](ponos_core::broker::Broker::subscribe).
pub(crate) async fn subscribe(
    shared: &Shared,
    queue: QueueName,
    options: SubscribeOptions,
) -> Result<Box<dyn Subscription>, BrokerError> {
    options.check()?;
    // Counted over the process, so that a delivery of another broker's is never taken for one's own.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    ask(shared, |reply| Open { id, queue, options, queue_id: None, opened: None, reply }).await
}

/// Gives a standing order; see [`Broker::steer`](ponos_core::broker::Broker::steer).
pub(crate) async fn steer(shared: &Shared, order: Order) -> Result<(), BrokerError> {
    ask(shared, |reply| Steer { order, reply }).await
}

/// The way to the caller, once.
struct Reply<T>(Option<oneshot::Sender<Result<T, BrokerError>>>);

impl<T> Reply<T> {
    fn give(&mut self, answer: Result<T, BrokerError>) {
        if let Some(reply) = self.0.take() {
            let _ = reply.send(answer);
        }
    }
}

async fn ask<T, O: Operation + 'static>(
    shared: &Shared,
    operation: impl FnOnce(Reply<T>) -> O,
) -> Result<T, BrokerError> {
    let (reply, answer) = oneshot::channel();
    shared.submit(Box::new(operation(Reply(Some(reply))))).await;
    answer.await.unwrap_or_else(|_| Err(shared.gone()))
}

struct Declare {
    topology: Topology,
    reply: Reply<()>,
}

impl Operation for Declare {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        let Topology { app, events, subscriptions, tasks, prototypes } = &self.topology;
        if let Some(app) = app {
            tx.queue_or_new(QueueName::failed(app).as_str())?;
            tx.queue_or_new(QueueName::discarded(app).as_str())?;
        }
        for event in events {
            tx.bind(event.as_str(), None)?;
        }
        for queue in tasks {
            tx.queue_or_new(queue.as_str())?;
        }
        for (name, event) in subscriptions {
            let queue = tx.queue_or_new(name.as_str())?;
            tx.bind(event.as_str(), Some(queue))?;
            tx.declare_prototype(queue, prototypes.contains(name))?;
        }
        Ok(())
    }

    fn answer(&mut self) {
        self.reply.give(Ok(()));
    }

    fn refuse(&mut self, failure: &Failure) {
        self.reply.give(Err(failure.error.clone()));
    }
}

struct Open {
    id: u64,
    queue: QueueName,
    options: SubscribeOptions,
    /// Set when it ran; `None` for a queue that does not exist.
    queue_id: Option<i64>,
    /// Set after the commit.
    opened: Option<Result<Box<dyn Subscription>, BrokerError>>,
    reply: Reply<Box<dyn Subscription>>,
}

impl Operation for Open {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        self.queue_id = tx.names.queue(tx.connection, self.queue.as_str())?;
        if let Some(queue) = self.queue_id {
            tx.prepare("INSERT INTO consumer (process_id, subscription, queue_id) VALUES (?1, ?2, ?3)")?
                .execute(params![tx.owner, self.id.cast_signed(), queue])?;
        }
        Ok(())
    }

    fn committed(&mut self, shared: &Arc<Shared>) {
        let Some(queue_id) = self.queue_id else {
            let problem = format!("the queue `{}` does not exist: declare it first", self.queue);
            self.opened = Some(Err(BrokerError::new(BrokerErrorKind::NotFound, problem)));
            return;
        };
        let prefetch = usize::try_from(self.options.prefetch).unwrap_or(usize::MAX);
        let only = self.options.only.take();
        let consumer = Arc::new(Consumer::new(self.id, self.queue.clone(), queue_id, prefetch, only));
        shared.add_consumer(&consumer);
        // If nobody waits for it any more, it is dropped with this operation and takes itself out again.
        self.opened = Some(Ok(Box::new(SqliteSubscription::new(consumer, Arc::clone(shared)))));
    }

    fn answer(&mut self) {
        if let Some(opened) = self.opened.take() {
            self.reply.give(opened);
        }
    }

    fn refuse(&mut self, failure: &Failure) {
        self.reply.give(Err(failure.error.clone()));
    }
}

struct Steer {
    order: Order,
    reply: Reply<()>,
}

impl Operation for Steer {
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()> {
        // The column is called after what the first orders were about. Programs of that time touch no other key.
        let key = self.order.key().to_string();
        if self.order.action.is_end() {
            tx.prepare("DELETE FROM standing_order WHERE queue = ?1")?.execute([key])?;
        } else {
            let json = serde_json::to_string(&self.order)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            tx.prepare(
                "INSERT INTO standing_order (queue, json) VALUES (?1, ?2)
                 ON CONFLICT (queue) DO UPDATE SET json = excluded.json",
            )?
            .execute(params![key, json])?;
        }
        Ok(())
    }

    fn answer(&mut self) {
        self.reply.give(Ok(()));
    }

    fn refuse(&mut self, failure: &Failure) {
        self.reply.give(Err(failure.error.clone()));
    }
}
