//! Steps in which nothing goes wrong: declaring, publishing, consuming, and time that passes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ponos::core::broker::{BrokerErrorKind, Delivery, Outgoing, Published, SubscribeOptions};
use ponos::core::id::MessageId;
use ponos::core::name::QueueName;

use super::super::commands::topologies;
use super::{Agreed, CONSUMERS, Driver, Held, Open, PAST, Subject, ensure};

impl<S: Subject> Driver<'_, S> {
    pub(super) async fn declare(&mut self, by: u8, what: u8) -> Agreed {
        let topology = &topologies()[usize::from(what)];
        self.insisting("declare", || self.handles[usize::from(by)].declare(topology)).await?;
        self.model.declare(topology);
        Ok(())
    }

    /// Publishes until everything that can be is confirmed.
    pub(super) async fn publish(&mut self, by: u8, mut batch: Vec<Outgoing>) -> Agreed {
        while !batch.is_empty() {
            let outcomes =
                self.within("publish", self.handles[usize::from(by)].publish(batch.clone())).await?;
            ensure!(outcomes.len() == batch.len(), "{} outcomes of {}", outcomes.len(), batch.len());
            let mut again = Vec::new();
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                if self.told(&message, &outcome, true)? {
                    again.push(message);
                }
            }
            batch = again;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// What was said of a message that was sent, `first` or again; whether to send it again.
    pub(super) fn told(&mut self, message: &Outgoing, outcome: &Published, first: bool) -> Agreed<bool> {
        let size = message.envelope.body.len();
        let expected = self.model.outcome(message);
        match outcome {
            Published::Refused(error) if error.is_temporary() && self.may_fail() => return Ok(true),
            Published::Unknown(error) if error.is_temporary() && self.may_fail() => {
                self.model.publish(message, false);
                return Ok(true);
            }
            Published::Refused(error) if error.kind() == BrokerErrorKind::Invalid => {
                ensure!(size > ponos::core::body::MAX_BODY, "refused: {error}");
            }
            outcome => {
                ensure!(size <= ponos::core::body::MAX_BODY, "a body of {size} bytes was taken: {outcome:?}");
                // Of the same message twice in a batch RabbitMQ's returns do not say which one they are of.
                let is_alike =
                    !self.model.promises.counts && outcome.is_confirmed() && expected.is_confirmed();
                ensure!(*outcome == expected || is_alike, "{outcome:?} and not {expected:?}: {message:?}");
                self.model.publish(message, first);
            }
        }
        Ok(false)
    }

    pub(super) async fn subscribe(&mut self, by: u8, queue: u8, prefetch: u8, only: Option<u8>) -> Agreed {
        let (queue, prefetch) = (self.queue(queue), u32::from(prefetch));
        if self.consumers.len() >= CONSUMERS {
            return Ok(());
        }
        if prefetch == 0 {
            let options = SubscribeOptions::prefetch(0);
            let refused = self.handles[usize::from(by)].subscribe(&queue, options).await;
            let kind = refused.err().map(|error| error.kind());
            ensure!(kind == Some(BrokerErrorKind::Invalid), "a prefetch of 0 is {kind:?}");
            return Ok(());
        }
        let entries = &self.model.queues[&queue];
        // A broker that scans for what is picked finds it only if nobody else has it.
        let only = only.filter(|_| !entries.is_empty() && !self.model.promises.fetches_ahead).map(|first| {
            let first = usize::from(first) % entries.len();
            entries[first..].iter().take(2).map(|entry| entry.envelope.id).collect()
        });
        self.open(usize::from(by), &queue, prefetch, only).await.map(drop)
    }

    /// Opens a queue; where it stands among the open ones.
    pub(super) async fn open(
        &mut self,
        handle: usize,
        queue: &QueueName,
        prefetch: u32,
        only: Option<Vec<MessageId>>,
    ) -> Agreed<usize> {
        let options = SubscribeOptions { prefetch, only: only.clone() };
        let broker = &self.handles[handle];
        let subscription = self.insisting("subscribe", || broker.subscribe(queue, options.clone())).await?;
        let id = self.model.subscribe(queue, prefetch, only);
        self.consumers.push(Open { id, handle, queue: queue.clone(), subscription });
        Ok(self.consumers.len() - 1)
    }

    /// Takes what a subscription has: it must give something if it owes it.
    pub(super) async fn take(&mut self, at: usize, max: usize) -> Agreed {
        let id = self.consumers[at].id;
        let (owed, waits) = (self.model.owed(id, self.now()), self.waits());
        let mut out = Vec::new();
        let consumer = &mut self.consumers[at];
        let polling = poll_fn(|cx| match consumer.subscription.poll_next(cx, max, &mut out) {
            Poll::Pending if owed == 0 => Poll::Ready(None),
            polled => polled.map(Some),
        });
        let polled = tokio::time::timeout(waits, polling).await;
        let polled = polled.map_err(|_| format!("nothing came although {owed} are there"))?;
        match polled {
            None => {
                ensure!(out.is_empty(), "it waits and delivers: {out:?}");
                if self.model.promises.keeps_asking {
                    let consumer = self.model.consumers.get_mut(&id).expect("it is open");
                    consumer.unseen = consumer.unseen.max(max);
                }
            }
            Some(Err(lost)) => {
                ensure!(self.model.promises.is_rough, "{lost}");
                self.lost(id);
            }
            Some(Ok(())) => {
                ensure!((1..=max).contains(&out.len()), "{} deliveries of {max}", out.len());
                for delivery in out {
                    self.delivered(at, delivery)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn delivered(&mut self, at: usize, delivery: Delivery) -> Agreed {
        let Open { id, handle, .. } = self.consumers[at];
        let (_, fence) = self.model.deliver(id, &delivery, self.now())?;
        let consumer = self.model.consumers.get_mut(&id).expect("it is open");
        consumer.unseen = consumer.unseen.saturating_sub(1);
        let twice = self.held.iter().chain(&self.past).any(|held| {
            held.delivery.tag == delivery.tag && Arc::ptr_eq(&held.broker, &self.handles[handle])
        });
        ensure!(!twice, "two deliveries have the tag {:?}", delivery.tag);
        let broker = Arc::clone(&self.handles[handle]);
        self.held.push(Held { delivery, fence, consumer: id, handle, broker });
        Ok(())
    }

    /// A subscription has ended by itself, as when its connection breaks.
    pub(super) fn lost(&mut self, id: u64) {
        self.consumers.retain(|open| open.id != id);
        self.model.end(id, 1);
        self.retire();
    }

    /// Drops a subscription.
    pub(super) fn close(&mut self, at: usize) {
        let Open { id, subscription, .. } = self.consumers.remove(at);
        drop(subscription);
        self.model.end(id, 0);
        self.retire();
    }

    /// Puts away what is no longer held.
    pub(super) fn retire(&mut self) {
        let model = &self.model;
        let gone = self.held.extract_if(.., |held| !model.holds(&held.delivery.queue, held.fence));
        self.past.extend(gone);
        let excess = self.past.len().saturating_sub(PAST);
        self.past.drain(..excess);
    }

    /// Lets time pass, or waits for what is due next.
    pub(super) async fn pass(&mut self, by: Duration) -> Agreed {
        if self.subject.advance(by) {
            return Ok(());
        }
        let soon = self.now() + Duration::from_secs(1);
        let Some(due) = self.model.next_due(self.now()).filter(|due| *due < soon) else { return Ok(()) };
        while self.now() < due {
            self.agree().await?;
        }
        Ok(())
    }
}
