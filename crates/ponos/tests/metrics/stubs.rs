//! Brokers that do what a real one does on a bad day, around the one in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ponos::MemoryBroker;
use ponos::core::broker::{
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Delivery, Inspect, Inspection, LinkState, Order,
    Outgoing, Published, SettleError, Settlement, SubscribeOptions, Subscription, SubscriptionLost, Topology,
};
use ponos::core::name::QueueName;
use tokio::sync::Semaphore;

/// What is wrong.
#[derive(Debug, Default)]
pub struct Faults {
    /// Subscriptions deliver nothing.
    deaf: AtomicBool,
    /// Who waits meanwhile.
    waiting: Mutex<Vec<Waker>>,
    /// Subscriptions cannot be opened.
    pub closed: AtomicBool,
    /// It takes no messages, for good.
    pub refusing: AtomicBool,
    /// The connection for publishing is down.
    pub down: AtomicBool,
}

impl Faults {
    /// Delivers nothing from now on.
    pub fn fall_deaf(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Delivers again.
    pub fn hear(&self) {
        self.deaf.store(false, Ordering::Relaxed);
        self.waiting.lock().unwrap().drain(..).for_each(Waker::wake);
    }
}

/// The broker.
#[derive(Debug)]
pub struct Faulty {
    pub inner: MemoryBroker,
    pub faults: Arc<Faults>,
    /// What a declaration waits for.
    pub declares: Arc<Semaphore>,
    name: String,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Self::slow_to_declare(Semaphore::MAX_PERMITS)
    }

    /// One that lets so many declarations pass.
    pub fn slow_to_declare(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryBroker::new(),
            faults: Arc::default(),
            declares: Arc::new(Semaphore::new(permits)),
            name: "amqp://rabbit:5672/".into(),
        })
    }
}

#[derive(Debug)]
struct Deaf(Box<dyn Subscription>, Arc<Faults>);

impl Subscription for Deaf {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>> {
        if self.1.deaf.load(Ordering::Relaxed) {
            self.1.waiting.lock().unwrap().push(cx.waker().clone());
            return Poll::Pending;
        }
        self.0.poll_next(cx, max, out)
    }
}

fn away() -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, "away: hunter2")
}

impl Broker for Faulty {
    fn name(&self) -> &str {
        &self.name
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async {
            let _pass = self.declares.acquire().await;
            self.inner.declare(topology).await
        })
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        if self.faults.refusing.load(Ordering::Relaxed) {
            let refused = BrokerError::new(BrokerErrorKind::Denied, "no: hunter2");
            let outcomes = batch.iter().map(|_| Published::Refused(refused.clone())).collect();
            return Box::pin(async { outcomes });
        }
        self.inner.publish(batch)
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            if self.faults.closed.load(Ordering::Relaxed) {
                return Err(away());
            }
            let subscription = self.inner.subscribe(queue, options).await?;
            Ok(Box::new(Deaf(subscription, Arc::clone(&self.faults))) as Box<dyn Subscription>)
        })
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        self.inner.settle(delivery, settlement)
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        self.inner.inspect(query)
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner.steer(order)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.inner.close()
    }

    fn links(&self) -> Vec<LinkState> {
        let up = !self.faults.down.load(Ordering::Relaxed);
        vec![
            LinkState { role: "publish", up, reconnects: 3, blocked: true },
            LinkState { role: "consume", up: true, reconnects: 0, blocked: false },
        ]
    }
}
