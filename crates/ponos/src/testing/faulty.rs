//! A broker around another one, with everything that may go wrong on the way to it.
//!
//! ```
//! use std::sync::Arc;
//! use ponos::MemoryBroker;
//! use ponos::core::broker::{Broker, Destination, Published};
//! use ponos::testing::{Fault, Faults, FaultyBroker};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let faults = Faults::none(1).rate(Fault::PublishRefused, 1000);
//! let broker = FaultyBroker::around(Arc::new(MemoryBroker::new()), faults);
//! // Give `broker.process("worker")` to a service, as `ponos::Broker::from(Arc::new(…))`.
//! # let id = ponos::core::id::MessageId::from_bytes([1; 16]);
//! # let at = ponos::core::id::Timestamp::from_millis(1);
//! # let name = ponos::core::name::EventName::parse("order.placed").unwrap();
//! # let envelope = ponos::core::envelope::Envelope { id, name: ponos::core::envelope::MessageName::Event(name.clone()),
//! #     tid: ponos::core::id::Tid::new(at, [1; 10]), cause: None, app: None, publisher: None, published_at: at, hops: 0,
//! #     version: None, trace: None, progress: Default::default(), report: None, body: Default::default() };
//! # let message = ponos::core::broker::Outgoing { to: Destination::Event(name), envelope };
//! let told = broker.publish(vec![message.clone()]).await;
//! assert!(matches!(told[0], Published::Refused(_)));
//! broker.heal();
//! assert!(broker.publish(vec![message]).await[0].is_confirmed());
//! # }
//! ```

mod intake;
mod ways;
mod world;

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use ponos_core::broker::{
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Delivery, Inspect, Inspection, Order, Outgoing,
    Published, SettleError, Settlement, SubscribeOptions, Subscription, Topology,
};
use ponos_core::journal::Journal;
use ponos_core::name::QueueName;

use self::intake::FaultyIntake;
pub(crate) use self::world::World;
use super::faults::{Fault, Faults};
use super::history::{Happened, History, SettleTold, Told};
use super::process::Process;
use crate::clock::Clock;

/// One process's handle of a broker to which [`Faults`] happen on the way. Cloning is cheap and gives the same handle.
///
/// Each [`process`](Self::process) has its own: its subscriptions are its own, and it may die, by a fault or by
/// [`crash`](Self::crash). What it held is then delivered again and counted as lost, and its calls never return.
#[derive(Clone)]
pub struct FaultyBroker {
    pub(super) process: Arc<Process>,
}

impl fmt::Debug for FaultyBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBroker")
            .field("process", &self.process.name)
            .field("around", &self.process.world.inner)
            .finish()
    }
}

impl FaultyBroker {
    /// Puts faults on the way to `broker`, on the machine's clock.
    #[must_use]
    pub fn around(broker: Arc<dyn Broker>, faults: Faults) -> Self {
        Self::on(Clock::real(), broker, faults)
    }

    pub(super) fn on(clock: Clock, broker: Arc<dyn Broker>, faults: Faults) -> Self {
        Self { process: Process::new("outside", World::new(clock, broker, faults)) }
    }

    /// The handle of another process.
    #[must_use]
    pub fn process(&self, name: &str) -> Self {
        Self { process: Process::new(name, Arc::clone(&self.process.world)) }
    }

    /// Lets this process die. Drop what runs in it; tasks of a [`Simulation`](super::Simulation) end by themselves.
    pub fn crash(&self) {
        self.process.die();
    }

    /// Waits until this process has died, by a fault or by [`crash`](Self::crash). For one who waits.
    pub async fn crashed(&self) {
        self.process.has_died().await;
    }

    /// Ends all faults: from now on every call arrives at once, and nothing dies.
    pub fn heal(&self) {
        self.process.world.heal();
    }

    /// What happened, in all processes.
    #[must_use]
    pub fn history(&self) -> History {
        self.process.world.history.clone()
    }

    /// The broker behind it, where nothing goes wrong.
    #[must_use]
    pub fn inner(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.process.world.inner)
    }

    /// A call arrives, unless the process is dead or the broker away.
    async fn arrives(&self) -> Result<(), BrokerError> {
        if self.process.is_dead() {
            pending::<()>().await;
        }
        let world = &self.process.world;
        world.way().await;
        if world.goes_down(&self.process.name) { Err(unavailable("the broker is away")) } else { Ok(()) }
    }
}

pub(super) fn unavailable(problem: &str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, format!("{problem} (injected)"))
}

impl Broker for FaultyBroker {
    fn name(&self) -> &str {
        "faulty"
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.arrives().await?;
            let world = &self.process.world;
            world.inner.declare(topology).await?;
            for (queue, event) in &topology.subscriptions {
                if world.bind(queue, event) {
                    self.process.record(Happened::Bound { queue: queue.clone(), event: event.clone() });
                }
            }
            world.way().await;
            Ok(())
        })
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        Box::pin(async move {
            if self.process.is_dead() {
                pending::<()>().await;
            }
            let mut outcomes = Vec::with_capacity(batch.len());
            for message in batch {
                let id = message.envelope.id;
                let published = ways::publish(&self.process, message, super::history::Sent::Published).await;
                let outcome = match &published {
                    Published::Confirmed { .. } => Told::Confirmed,
                    Published::Refused(_) => Told::Refused,
                    Published::Returned => Told::Returned,
                    Published::Unknown(_) => Told::Unknown,
                };
                self.process.record(Happened::Told { id, outcome });
                outcomes.push(published);
            }
            outcomes
        })
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(async move {
            self.arrives().await?;
            if self.process.rolls(Fault::SubscribeRefused, None) {
                return Err(unavailable("the subscription was refused"));
            }
            let opened = self.process.world.inner.subscribe(queue, options).await?;
            Ok(Box::new(FaultyIntake::new(&self.process, opened)) as Box<dyn Subscription>)
        })
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        Box::pin(async move {
            if self.process.is_dead() {
                pending::<()>().await;
            }
            let id = delivery.envelope.id;
            let (ruling, sends) = (ways::ruling(&settlement.verdict), ways::ids(&settlement.send));
            self.process.record(Happened::Settles { tag: delivery.tag, id, ruling, sends });
            let settled = if self.process.world.transactions {
                ways::settle_at_once(&self.process, delivery, settlement).await
            } else {
                ways::settle_in_steps(&self.process, delivery, settlement).await
            };
            let outcome = match &settled {
                Ok(_) => SettleTold::Taken,
                Err(SettleError::Lost { sent }) => SettleTold::Lost { sent: *sent },
                Err(SettleError::NotSent(_)) => SettleTold::NotSent,
                Err(_) => SettleTold::Unavailable,
            };
            self.process.record(Happened::SettleTold { tag: delivery.tag, id, outcome });
            settled
        })
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        Box::pin(async move {
            self.arrives().await?;
            self.process.world.inner.inspect(query).await
        })
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            self.arrives().await?;
            self.process.world.inner.steer(order).await
        })
    }

    /// Hands back what this process held. The broker behind it stays open for others.
    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.process.world.sever_process(&self.process.name, true);
        Box::pin(std::future::ready(Ok(())))
    }

    fn may_duplicate(&self) -> bool {
        !self.process.world.transactions || self.process.world.inner.may_duplicate()
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        self.process.world.inner.journal()
    }
}
