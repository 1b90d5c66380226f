//! A broker that lives in this process and forgets: for tests, and to prove the trait.
//!
//! Its *rough* mode behaves as a network broker may: it refuses, returns, leaves open whether it took a message,
//! takes half a batch, loses subscriptions, delivers again and blocks. What is built on the trait is tried on it first.

mod journal;
mod rough;
mod state;

pub use rough::Rough;

use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ponos_core::broker::{
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Delivery, Inspect, Inspection, Order, Outgoing,
    Published, SettleError, Settlement, SubscribeOptions, Subscription, SubscriptionLost, Topology, Verdict,
};
use ponos_core::id::Timestamp;
use ponos_core::journal::Journal;
use ponos_core::name::QueueName;

use self::journal::MemoryJournal;
use self::rough::Dice;
use self::state::State;
use crate::clock::{Clock, Sleep};

/// A broker in memory. Cloning is cheap and gives the same handle; [`handle`](Self::handle) gives another one to the
/// same messages, as another process would have.
#[derive(Clone)]
pub struct MemoryBroker {
    inner: Arc<Inner>,
    /// Whether this handle was closed, for it and its clones. Its address tells handles apart.
    closed: Arc<AtomicBool>,
}

struct Inner {
    clock: Clock,
    /// Held for the time of one operation, never across an await.
    state: Mutex<State>,
    /// What goes wrong, in rough mode.
    dice: Option<Dice>,
    journal: Arc<MemoryJournal>,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("rough", &self.inner.dice.is_some()).finish_non_exhaustive()
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// An empty broker.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::real(), None)
    }

    /// An empty broker that behaves as a network broker may.
    #[must_use]
    pub fn rough(rough: Rough) -> Self {
        Self::with_clock(Clock::real(), Some(rough))
    }

    pub(crate) fn with_clock(clock: Clock, rough: Option<Rough>) -> Self {
        let journal = Arc::new(MemoryJournal::default());
        Self {
            inner: Arc::new(Inner { clock, state: Mutex::default(), dice: rough.map(Dice::new), journal }),
            closed: Arc::default(),
        }
    }

    /// Another handle to the same messages: closing one does not close the other.
    #[must_use]
    pub fn handle(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), closed: Arc::default() }
    }

    /// Keeps so many messages for each prototype instead of 100,000, for tests of what happens when one is forgotten.
    #[must_use]
    pub fn prototype_length(self, messages: usize) -> Self {
        self.state().prototype_length = messages;
        self
    }

    /// How many messages prototypes have dropped: their queue was full, or nobody listened any more.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// Tells this handle from others of the same messages.
    fn number(&self) -> usize {
        Arc::as_ptr(&self.closed).addr()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the broker was closed.
    fn open(&self) -> Result<MutexGuard<'_, State>, BrokerError> {
        let state = self.state();
        if self.closed.load(Ordering::Acquire) {
            return Err(BrokerError::new(BrokerErrorKind::Closed, "the broker in memory was closed"));
        }
        Ok(state)
    }

    /// How many messages are in these queues, whatever their state.
    #[cfg(feature = "testing")]
    pub(crate) fn messages_in<'a>(
        &self,
        queues: impl Iterator<Item = &'a QueueName>,
    ) -> Vec<(QueueName, usize)> {
        let state = self.state();
        queues.map(|queue| (queue.clone(), state.len(queue))).filter(|(_, len)| *len > 0).collect()
    }

    /// Ends the open subscriptions of a queue as when their connections break: what they held is delivered again, and
    /// counted as lost.
    pub fn break_subscriptions(&self, queue: &QueueName) {
        self.state().break_subscriptions(queue);
    }

    /// Tells nobody the standing orders from now on, as a broker that cannot be reached.
    pub fn withhold_orders(&self) {
        self.state().withholds_orders = true;
    }

    fn publish_one(&self, state: &mut State, message: Outgoing) -> Published {
        if let Some(error) = message.too_large() {
            return Published::Refused(error);
        }
        let roll = self.inner.dice.as_ref().map_or(rough::Publish::Fine, Dice::publish);
        match roll {
            rough::Publish::Refused => {
                Published::Refused(unavailable("the broker refused the message (rough mode)"))
            }
            rough::Publish::Blocked => Published::Refused(blocked()),
            rough::Publish::UnknownAndLost => Published::Unknown(unavailable("no confirm came (rough mode)")),
            rough::Publish::Fine => state.publish(message, self.inner.clock.wall()),
            rough::Publish::UnknownAndTaken => match state.publish(message, self.inner.clock.wall()) {
                Published::Confirmed { .. } => {
                    Published::Unknown(unavailable("no confirm came (rough mode)"))
                }
                other => other,
            },
        }
    }

    /// Sends and settles in one step, as a broker with transactions does.
    fn settle_at_once(
        &self,
        mut state: MutexGuard<'_, State>,
        delivery: &Delivery,
        settlement: Settlement,
    ) -> Result<Vec<Published>, SettleError> {
        if !state.holds(delivery) {
            return Err(SettleError::Lost { sent: false });
        }
        if settlement.send.is_empty() && settlement.verdict == Verdict::Done {
            state.apply(delivery, Verdict::Done, Timestamp::EPOCH); // what is done needs no time
            return Ok(Vec::new());
        }
        let outcome = |message: &Outgoing| match message.too_large() {
            Some(error) => Published::Refused(error),
            None => state.would_publish(message),
        };
        let mut outcomes: Vec<_> = settlement.send.iter().map(outcome).collect();
        if outcomes.iter().any(|outcome| !outcome.is_confirmed()) {
            // Both or nothing: what could have been sent was not.
            outcomes.iter_mut().filter(|outcome| outcome.is_confirmed()).for_each(|outcome| {
                let why = "not sent, because another message of the same settlement could not be";
                *outcome = Published::Refused(unavailable(why));
            });
            return Err(SettleError::NotSent(outcomes));
        }
        let now = self.inner.clock.wall();
        for message in settlement.send {
            state.publish(message, now);
        }
        state.apply(delivery, settlement.verdict, now);
        Ok(outcomes)
    }

    /// Sends first and settles after, as a broker without transactions does, with everything that may happen between.
    fn settle_roughly(
        &self,
        mut state: MutexGuard<'_, State>,
        dice: &Dice,
        delivery: &Delivery,
        settlement: Settlement,
    ) -> Result<Vec<Published>, SettleError> {
        if dice.loses_subscription() {
            state.lose_subscription(delivery.tag.subscription);
        }
        if !state.holds(delivery) {
            return Err(SettleError::Lost { sent: false });
        }
        let mut outcomes = Vec::new();
        for message in settlement.send {
            outcomes.push(self.publish_one(&mut state, message));
        }
        if outcomes.iter().any(|outcome| !outcome.is_confirmed()) {
            return Err(SettleError::NotSent(outcomes));
        }
        match dice.acknowledgement() {
            rough::Acknowledgement::Fine => {
                state.apply(delivery, settlement.verdict, self.inner.clock.wall());
            }
            rough::Acknowledgement::LostOnTheWay => {
                // The connection breaks with it: the message comes back.
                state.lose_subscription(delivery.tag.subscription);
                return Err(SettleError::Lost { sent: true });
            }
            rough::Acknowledgement::Unanswered => {
                return Err(SettleError::Unavailable(unavailable("no answer (rough mode)")));
            }
        }
        Ok(outcomes)
    }
}

fn unavailable(problem: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, problem)
}

fn blocked() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Blocked, "the broker takes nothing at the moment (rough mode)")
}

impl Broker for MemoryBroker {
    fn name(&self) -> &str {
        if self.inner.dice.is_some() { "memory (rough)" } else { "memory" }
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let declared = topology.check().and_then(|()| self.open().map(|mut state| state.declare(topology)));
        Box::pin(ready(declared))
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        let outcomes = match self.open() {
            Ok(mut state) => batch.into_iter().map(|message| self.publish_one(&mut state, message)).collect(),
            Err(closed) => batch.iter().map(|_| Published::Refused(closed.clone())).collect(),
        };
        Box::pin(ready(outcomes))
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        let opened = self.open().and_then(|mut state| state.open(queue, &options, self.number())).map(|id| {
            let subscription = MemorySubscription {
                broker: self.clone(),
                queue: queue.clone(),
                id,
                prefetch: options.prefetch as usize,
                only: options.only,
                timer: None,
            };
            Box::new(subscription) as Box<dyn Subscription>
        });
        Box::pin(ready(opened))
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        let settled = match (self.open(), &self.inner.dice) {
            (Err(closed), _) => Err(SettleError::Unavailable(closed)),
            (Ok(state), None) => self.settle_at_once(state, delivery, settlement),
            (Ok(state), Some(dice)) => self.settle_roughly(state, dice, delivery, settlement),
        };
        Box::pin(ready(settled))
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        let answer = self.open().and_then(|state| state.inspect(query, self.inner.clock.wall()));
        Box::pin(ready(answer))
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(ready(self.open().map(|mut state| state.steer(order))))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        let mut state = self.state();
        self.closed.store(true, Ordering::Release);
        state.close_all(self.number());
        drop(state);
        Box::pin(ready(Ok(())))
    }

    fn may_duplicate(&self) -> bool {
        self.inner.dice.is_some()
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        Some(Arc::clone(&self.inner.journal) as Arc<dyn Journal>)
    }
}

/// An open queue of a [`MemoryBroker`].
struct MemorySubscription {
    broker: MemoryBroker,
    queue: QueueName,
    id: u64,
    prefetch: usize,
    only: Option<Vec<ponos_core::id::MessageId>>,
    /// Fires when the next delayed message is due.
    timer: Option<Sleep>,
}

impl fmt::Debug for MemorySubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySubscription").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl Subscription for MemorySubscription {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>> {
        let inner = &self.broker.inner;
        loop {
            let next_due = {
                let mut state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
                if inner.dice.as_ref().is_some_and(Dice::loses_subscription) {
                    state.lose_subscription(self.id);
                }
                let wall = inner.clock.wall();
                match state.take(
                    &self.queue,
                    self.id,
                    self.prefetch,
                    max,
                    self.only.as_deref(),
                    wall,
                    cx.waker(),
                    out,
                ) {
                    Err(lost) => return Poll::Ready(Err(lost)),
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => state.next_due(&self.queue),
                }
            };
            let Some(due) = next_due else {
                self.timer = None;
                return Poll::Pending;
            };
            let clock = &inner.clock;
            let timer = self.timer.insert(clock.sleep_until(clock.now() + due.since(clock.wall())));
            match std::pin::Pin::new(timer).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {}
            }
        }
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.broker.state().close(&self.queue, self.id);
    }
}
