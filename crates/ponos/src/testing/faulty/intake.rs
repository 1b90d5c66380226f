//! A subscription whose deliveries are late, out of order, and at an end now and then.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ponos_core::broker::{Delivery, Subscription, SubscriptionLost};

use super::super::faults::Fault;
use super::super::history::Happened;
use super::super::process::Process;
use crate::clock::Sleep;

/// How long a delivery is late at most.
const LATE: Duration = Duration::from_secs(10);

/// An open queue of one process.
pub(super) struct FaultyIntake {
    process: Arc<Process>,
    number: u64,
    /// On their way, each with the time that it needs.
    late: Vec<(Delivery, Sleep)>,
    /// Arrived, and not yet asked for.
    arrived: Vec<Delivery>,
}

impl fmt::Debug for FaultyIntake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyIntake").field("number", &self.number).finish_non_exhaustive()
    }
}

impl FaultyIntake {
    pub(super) fn new(process: &Arc<Process>, inner: Box<dyn Subscription>) -> Self {
        let number = process.world.opened(&process.name, inner);
        Self { process: Arc::clone(process), number, late: Vec::new(), arrived: Vec::new() }
    }

    fn lost() -> SubscriptionLost {
        SubscriptionLost { reason: "the connection broke (injected)".into() }
    }

    /// Asks the broker for up to `max` deliveries.
    fn fetch(&mut self, cx: &mut Context<'_>, max: usize) -> Result<(), SubscriptionLost> {
        let world = &self.process.world;
        let mut inner = world.borrow(self.number, cx.waker()).ok_or_else(Self::lost)?;
        let mut fetched = Vec::new();
        let polled = inner.poll_next(cx, max, &mut fetched);
        if !world.put_back(self.number, inner) {
            return Err(Self::lost());
        }
        if let Poll::Ready(Err(lost)) = polled {
            world.sever(self.number, false);
            return Err(lost);
        }
        if fetched.len() > 1 && self.process.rolls(Fault::DeliveryReordered, None) {
            fetched.reverse();
        }
        for mut delivery in fetched {
            let id = delivery.envelope.id;
            world.holds(self.number, &self.process.name, &mut delivery);
            if self.process.rolls(Fault::DeliveryDelayed, Some(id)) {
                let late = world.clock.sleep(world.within(LATE));
                self.late.push((delivery, late));
            } else {
                self.arrived.push(delivery);
            }
        }
        Ok(())
    }
}

impl Subscription for FaultyIntake {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        if !self.process.world.is_open(self.number) {
            return Poll::Ready(Err(Self::lost()));
        }
        let more = max.saturating_sub(self.arrived.len());
        if more > 0
            && let Err(lost) = self.fetch(cx, more)
        {
            return Poll::Ready(Err(lost));
        }
        let mut at = 0;
        while at < self.late.len() {
            if Pin::new(&mut self.late[at].1).poll(cx).is_ready() {
                self.arrived.push(self.late.remove(at).0);
            } else {
                at += 1;
            }
        }
        if self.arrived.is_empty() {
            return Poll::Pending;
        }
        if self.process.rolls(Fault::SubscriptionLost, None) {
            self.process.world.sever(self.number, false);
            return Poll::Ready(Err(Self::lost()));
        }
        let now = self.arrived.len().min(max);
        for delivery in self.arrived.drain(..now) {
            let progress = &delivery.envelope.progress;
            self.process.record(Happened::Delivered {
                tag: delivery.tag,
                queue: delivery.queue.clone(),
                id: delivery.envelope.id,
                phase: progress.phase,
                attempt: progress.attempt,
                due: progress.due,
                losses: delivery.losses,
            });
            out.push(delivery);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for FaultyIntake {
    fn drop(&mut self) {
        self.process.world.sever(self.number, true);
    }
}
