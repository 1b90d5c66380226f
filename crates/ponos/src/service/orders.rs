//! Standing orders: read before the first job is taken and every second from then on, and carried out until they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::broker::{
    Broker, BrokerError, BrokerErrorKind, Dependency, Inspect, Order, OrderAction, OrderKey, OrderKind,
    OrderTarget,
};
use ponos_core::id::Timestamp;
use ponos_core::journal::{Notice, OrderNotice};
use ponos_core::name::{AppName, QueueName};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::context::Local;
use crate::worker::{Circuit, Control, Limiter, Shared};

/// How often standing orders are looked up, and how often it is looked whether one has ended.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the broker may take to tell the orders.
const ANSWER: Duration = Duration::from_secs(30);

/// Whether a service follows standing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OrdersPolicy {
    #[default]
    Follow,
    Ignore,
}

impl OrdersPolicy {
    /// What `PONOS_ORDERS` says, if it is set.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        match get("PONOS_ORDERS").as_deref() {
            None | Some("") => Ok(None),
            Some("on") => Ok(Some(Self::Follow)),
            Some("off") => Ok(Some(Self::Ignore)),
            Some(other) => Err(format!(
                "`PONOS_ORDERS` is `{}`: say `off` to ignore standing orders, or `on`",
                other.escape_debug()
            )),
        }
    }
}

/// A queue as orders see it.
pub(super) struct Steered {
    /// What the worker is told.
    pub(super) control: watch::Sender<Control>,
    /// What its circuit and limit are shared under: its dependency, or its own name.
    pub(super) share: String,
}

/// What orders change in this process, and what is known of them.
pub(crate) struct Orders {
    policy: OrdersPolicy,
    queues: BTreeMap<QueueName, Steered>,
    /// By what they are shared under.
    circuits: BTreeMap<String, Arc<Circuit>>,
    /// By what they are shared under, and by queue.
    limiters: BTreeMap<String, Arc<Limiter>>,
    /// Whose journal is told.
    local: Arc<Local>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The orders as they were read last; they hold while the broker does not answer.
    orders: BTreeMap<OrderKey, Order>,
    /// What was told in the log.
    told: BTreeMap<OrderKey, Order>,
    /// When the resets were given that are not to be carried out again; `None` until orders were read once: what was
    /// reset before an instance started is none of its business.
    resets: Option<BTreeMap<OrderTarget, Timestamp>>,
}

impl Orders {
    pub(super) fn new(
        policy: OrdersPolicy,
        queues: BTreeMap<QueueName, Steered>,
        circuits: BTreeMap<String, Arc<Circuit>>,
        limiters: BTreeMap<String, Arc<Limiter>>,
        local: Arc<Local>,
    ) -> Self {
        Self { policy, queues, circuits, limiters, local, known: Mutex::default() }
    }

    /// Follows the orders at the broker, for ever.
    pub(super) async fn keep(self: Arc<Self>, shared: Arc<Shared>) {
        let clock = &shared.local.clock;
        let read = async {
            loop {
                clock.background_sleep(INTERVAL).await;
                match standing(&*shared.broker, shared.local.app.clone(), clock).await {
                    Ok(orders) => self.learn(orders, clock),
                    Err(error) => {
                        tracing::debug!(%error, "standing orders cannot be read; the last ones hold");
                    }
                }
            }
        };
        // An order ends at its time, also while the broker does not answer.
        let end = async {
            loop {
                clock.background_sleep(INTERVAL).await;
                self.carry_out(&mut self.known(), clock);
            }
        };
        tokio::join!(read, end);
    }

    /// These orders stand.
    pub(super) fn learn(&self, orders: Vec<Order>, clock: &Clock) {
        let mut known = self.known();
        known.orders = orders.into_iter().map(|order| (order.key(), order)).collect();
        self.carry_out(&mut known, clock);
    }

    /// This order was given; the others stand as before.
    pub(super) fn add(&self, order: Order, clock: &Clock) {
        let mut known = self.known();
        known.orders.insert(order.key(), order);
        self.carry_out(&mut known, clock);
    }

    /// The queues that are worked at the moment.
    #[cfg(feature = "testing")]
    pub(super) fn served(&self) -> Vec<QueueName> {
        let working = |steered: &Steered| *steered.control.borrow() == Control::default();
        self.queues.iter().filter(|(_, steered)| working(steered)).map(|(queue, _)| queue.clone()).collect()
    }

    /// What the workers are told.
    pub(super) fn controls(&self) -> impl Iterator<Item = &watch::Sender<Control>> {
        self.queues.values().map(|steered| &steered.control)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &QueueName> {
        self.queues.keys()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, known: &mut Known, clock: &Clock) {
        let now = clock.wall();
        let standing: BTreeMap<_, _> = known
            .orders
            .iter()
            .filter(|(_, order)| order.stands(now))
            .map(|(k, o)| (k.clone(), o.clone()))
            .collect();
        let before = std::mem::replace(&mut known.told, standing);
        self.tell(&before, &known.told);
        let resets: BTreeMap<_, _> = known
            .told
            .values()
            .filter(|order| order.action == OrderAction::CircuitReset)
            .map(given)
            .collect();
        let resets_before = known.resets.replace(resets);
        if self.policy == OrdersPolicy::Ignore {
            return;
        }
        let stands = |kind, wanted: &dyn Fn(&OrderTarget) -> bool| {
            known.told.iter().find(|(key, _)| key.kind == kind && wanted(&key.target)).map(|(_, order)| order)
        };
        for (queue, steered) in &self.queues {
            let meant = |target: &OrderTarget| match target {
                OrderTarget::Queue(other) => other == queue,
                OrderTarget::Dependency(dependency) => dependency.name == steered.share,
                _ => false,
            };
            let paused = stands(OrderKind::Pause, &meant).is_some();
            let held_open = stands(OrderKind::Circuit, &meant).is_some();
            steered.control.send_if_modified(|control| {
                let before = *control;
                (control.paused, control.held_open) = (paused, held_open);
                *control != before
            });
        }
        for (name, limiter) in &self.limiters {
            let meant = |target: &OrderTarget| limited_under(target) == Some(name);
            let rate = stands(OrderKind::Rate, &meant).and_then(|order| match order.action {
                OrderAction::Rate(rate) => Some(rate),
                _ => None,
            });
            limiter.order(rate, clock.now());
        }
        let Some(before) = resets_before else { return };
        for (target, at) in known.resets.iter().flatten() {
            if before.get(target) != Some(at)
                && let Some(circuit) = self.circuit(target)
            {
                circuit.reset();
            }
        }
    }

    /// The circuit that a target's jobs go through.
    fn circuit(&self, target: &OrderTarget) -> Option<&Arc<Circuit>> {
        match target {
            OrderTarget::Queue(queue) => self.circuits.get(&self.queues.get(queue)?.share),
            OrderTarget::Dependency(dependency) => self.circuits.get(&dependency.name),
            _ => None,
        }
    }

    /// Says in the journal that an order is carried out, or has ended.
    fn note(&self, order: &Order, stands: bool) {
        let Some(lifecycle) = &self.local.lifecycle else { return };
        let action = match order.action {
            OrderAction::Rate(rate) => format!("rate {} in {:?}", rate.count(), rate.period()),
            _ => order.key().kind.as_str().to_owned(),
        };
        let notice = OrderNotice {
            target: order.target.to_string().into(),
            action: action.into(),
            stands,
            by: order.by.as_str().into(),
            reason: order.reason.as_str().into(),
            until: order.until,
        };
        lifecycle.notice(self.local.clock.wall(), Notice::Order(notice));
    }

    /// Says in the log what begins and what ends.
    fn tell(&self, before: &BTreeMap<OrderKey, Order>, now: &BTreeMap<OrderKey, Order>) {
        for (key, order) in now.iter().filter(|(key, order)| before.get(key) != Some(order)) {
            let (target, kind) = (key.target.to_string(), key.kind.as_str());
            let (by, reason, until) = (order.by.as_str(), order.reason.as_str(), order.until);
            if self.policy == OrdersPolicy::Ignore {
                tracing::warn!(
                    target,
                    kind,
                    by,
                    reason,
                    "a standing order is not carried out: this service ignores orders"
                );
            } else if !self.serves(&key.target) {
                tracing::warn!(
                    target,
                    kind,
                    by,
                    reason,
                    "a standing order is about nothing that this service has"
                );
            } else {
                tracing::info!(target, kind, by, reason, ?until, "standing order");
                self.note(order, true);
            }
        }
        for (key, order) in before.iter().filter(|(key, _)| !now.contains_key(key)) {
            if self.policy == OrdersPolicy::Follow && key.kind != OrderKind::CircuitReset {
                tracing::info!(
                    target = key.target.to_string(),
                    kind = key.kind.as_str(),
                    by = order.by,
                    "standing order ended"
                );
                self.note(order, false);
            }
        }
    }

    fn serves(&self, target: &OrderTarget) -> bool {
        match target {
            // Another service of the application may serve it.
            OrderTarget::Queue(_) => true,
            OrderTarget::Dependency(Dependency { name, .. }) => {
                self.queues.values().any(|steered| steered.share == *name)
            }
            _ => false,
        }
    }
}

fn given(order: &Order) -> (OrderTarget, Timestamp) {
    (order.target.clone(), order.at)
}

/// The name of the limiter that an order for this target is about.
fn limited_under(target: &OrderTarget) -> Option<&str> {
    match target {
        OrderTarget::Queue(queue) => Some(queue.as_str()),
        OrderTarget::Dependency(dependency) => Some(&dependency.name),
        _ => None,
    }
}

/// Asks the broker for the orders that stand for an application.
pub(super) async fn standing(
    broker: &dyn Broker,
    app: AppName,
    clock: &Clock,
) -> Result<Vec<Order>, BrokerError> {
    let asked = clock.timeout(ANSWER, broker.inspect(Inspect::Orders(app))).await;
    let no_answer = || {
        let problem = format!("the question for standing orders was not answered within {ANSWER:?}");
        BrokerError::new(BrokerErrorKind::Unavailable, problem)
    };
    Ok(asked.unwrap_or_else(|| Err(no_answer()))?.into_orders())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_switches_orders_off() {
        let read = |value: Option<&str>| {
            OrdersPolicy::from_env(|name| value.filter(|_| name == "PONOS_ORDERS").map(str::to_owned))
        };
        assert_eq!([read(None), read(Some(""))], [Ok(None), Ok(None)]);
        assert_eq!(read(Some("off")), Ok(Some(OrdersPolicy::Ignore)));
        assert_eq!(read(Some("on")), Ok(Some(OrdersPolicy::Follow)));
        let problem = read(Some("of\u{1b}")).unwrap_err();
        assert!(problem.contains("`PONOS_ORDERS` is `of\\u{1b}`"), "{problem}");
    }
}
