//! What queues are like at this moment: figures of the broker, orders that stand, circuits of instances.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::broker::{Inspect, Order, OrderAction, OrderTarget, QueueStats};
use ponos::core::name::{AppName, QueueName};
use serde::Serialize;

use super::circuits::Unclosed;
use super::{View, broken};
use crate::broker::Session;
use crate::error::CliError;
use crate::manifests::{self, Loaded};
use crate::text;

/// How much of a text of somebody else is shown, in bytes.
const SHOWN: usize = 160;

/// One queue now. What is not known is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct QueueNow {
    /// Whether the broker has no such queue.
    pub(crate) missing: bool,
    /// Open subscriptions.
    pub(crate) consumers: Option<u64>,
    /// Messages that nobody has taken yet.
    pub(crate) waiting: Option<u64>,
    /// Who ordered that nothing is delivered.
    pub(crate) paused: Option<By>,
    /// Who ordered that its circuit is held open.
    pub(crate) held_open: Option<By>,
    pub(crate) circuit: Option<Unclosed>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct By {
    by: String,
    reason: String,
}

impl View {
    /// What queues are like now.
    ///
    /// # Errors
    ///
    /// When the files cannot be read. What the broker does not tell of a queue is left out.
    pub(crate) async fn queues_now(
        &self,
        session: &Session,
        manifests: &[Loaded],
        queues: &BTreeSet<QueueName>,
    ) -> Result<BTreeMap<QueueName, QueueNow>, CliError> {
        let mut circuits = self.circuits(manifests)?;
        let orders = orders(session, queues.iter().map(QueueName::app).collect()).await;
        let dependents = manifests::dependents(manifests);
        let mut found = BTreeMap::new();
        for queue in queues {
            let stats = session.ask(session.broker().inspect(Inspect::Queue(queue.clone()))).await;
            let answered = stats.is_ok();
            let stats = stats.ok().and_then(|answer| answer.into_queues().pop());
            let by = |action| {
                let mut standing = orders.iter().filter(|order| order.action == action);
                standing.find(|order| concerns(order, queue, &dependents)).map(By::from)
            };
            let now = QueueNow {
                missing: answered && stats.is_none(),
                consumers: stats.as_ref().map(|stats| stats.consumers.into()),
                waiting: stats.as_ref().map(waiting),
                paused: by(OrderAction::Pause),
                held_open: by(OrderAction::CircuitOpen),
                circuit: circuits.remove(queue),
            };
            found.insert(queue.clone(), now);
        }
        Ok(found)
    }

    /// Circuits that are not closed, by queue.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub(crate) fn circuits(&self, manifests: &[Loaded]) -> Result<BTreeMap<QueueName, Unclosed>, CliError> {
        super::circuits::unclosed(&self.model, manifests, text::now()).map_err(broken)
    }
}

/// The orders that stand for applications. Where the broker does not tell, none are known.
pub(crate) async fn orders(session: &Session, apps: BTreeSet<AppName>) -> Vec<Order> {
    let now = text::now();
    let mut orders = Vec::new();
    for app in apps {
        if let Ok(answer) = session.ask(session.broker().inspect(Inspect::Orders(app))).await {
            orders.extend(answer.into_orders().into_iter().filter(|order| order.stands(now)));
        }
    }
    orders
}

/// Whether an order is about this queue, or about what it depends on.
pub(crate) fn concerns(
    order: &Order,
    queue: &QueueName,
    dependents: &BTreeMap<(String, String), Vec<QueueName>>,
) -> bool {
    match &order.target {
        OrderTarget::Queue(target) => target == queue,
        OrderTarget::Dependency(on) => {
            dependents.get(&(on.app.to_string(), on.name.clone())).is_some_and(|them| them.contains(queue))
        }
        _ => false,
    }
}

fn waiting(stats: &QueueStats) -> u64 {
    stats.ready + stats.delayed.unwrap_or(0)
}

impl From<&Order> for By {
    fn from(order: &Order) -> Self {
        Self { by: order.by.clone(), reason: order.reason.clone() }
    }
}

impl By {
    /// Who and why, safe to be shown.
    pub(crate) fn words(&self) -> String {
        format!("by {}: {}", text::line(&self.by, SHOWN), text::line(&self.reason, SHOWN))
    }
}

impl QueueNow {
    /// In a few words, the worst last.
    pub(crate) fn words(&self) -> String {
        let waiting = self.waiting.filter(|waiting| *waiting > 0);
        let mut words = match self.consumers {
            None if self.missing => vec!["⚠ no such queue on the broker".to_owned()],
            None => vec!["not known".to_owned()],
            Some(0) => vec!["⚠ nobody works it".to_owned()],
            Some(consumers) => vec![text::count(consumers, "consumer")],
        };
        words.extend(waiting.map(|waiting| format!("{waiting} waiting")));
        words.extend(self.held());
        words.join(", ")
    }

    /// What keeps its jobs, in words.
    pub(crate) fn held(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.paused.as_ref().map(|by| format!("paused {}", by.words())));
        words.extend(self.held_open.as_ref().map(|by| format!("circuit held open {}", by.words())));
        words.extend(self.circuit.as_ref().map(Unclosed::words));
        words
    }
}

impl Unclosed {
    /// Which circuit is what, safe to be shown.
    pub(crate) fn words(&self) -> String {
        let instances = text::count(self.instances, "instance");
        let phase = self.phase.as_str().replace('_', " ");
        format!("⚡ circuit {} {phase} in {instances}", text::line(&self.circuit, SHOWN))
    }
}
