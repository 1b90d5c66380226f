//! Who publishes from outside, and may die while doing so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ponos_core::name::AppName;

use super::super::faulty::FaultyBroker;
use super::super::history::Happened;
use crate::clock::Clock;
use crate::context::Local;
use crate::message::{Event, Task};
use crate::publisher::{Publisher, Publishing, Receipt};

/// A source of events and tasks.
pub struct Load {
    name: String,
    life: u32,
    broker: FaultyBroker,
    clock: Clock,
    random: fastrand::Rng,
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Load {
    pub(super) fn new(number: usize, seed: u64, broker: FaultyBroker, clock: Clock) -> Self {
        let name = format!("load-{number}");
        let broker = broker.process(&name);
        let random = fastrand::Rng::with_seed(seed ^ (number as u64) << 32);
        Self { name, life: 1, broker, clock, random }
    }

    /// A number below `bound`, drawn from the seed.
    pub fn draw(&mut self, bound: u64) -> u64 {
        self.random.u64(0..bound.max(1))
    }

    /// Waits.
    pub async fn pause(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// Emits an event in the name of nobody, as the start of a new chain. `None` if it was not confirmed: its publisher
    /// has died, or was told so.
    pub async fn emit<E: Event>(&mut self, event: E) -> Option<Receipt> {
        let publisher = self.publisher();
        self.publish(publisher.emit_any(&event)).await
    }

    /// Creates a task in its application's name, as the start of a new chain. `None` as for [`emit`](Self::emit).
    pub async fn create<T: Task>(&mut self, task: T) -> Option<Receipt> {
        let publisher = self.publisher();
        self.publish(publisher.create_any(&task)).await
    }

    fn publisher(&self) -> Publisher<()> {
        let local = Local::new(AppName::from_checked("outside"), self.clock.clone());
        Publisher::new(Arc::new(local), Arc::new(self.broker.clone()))
    }

    async fn publish(&mut self, publishing: Publishing<'_>) -> Option<Receipt> {
        let published = tokio::select! {
            biased;
            () = self.broker.crashed() => None,
            published = publishing => published.ok(),
        };
        match &published {
            Some(receipt) => self.broker.process.record(Happened::Promised { id: receipt.id }),
            None if self.broker.process.is_dead() => {
                self.life += 1;
                self.broker = self.broker.process(&format!("{}.{}", self.name, self.life));
            }
            None => {}
        }
        published
    }
}
