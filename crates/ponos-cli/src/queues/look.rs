//! One look at all queues: what the broker says, what the records say, what the instances say, what was ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ponos::core::broker::{Inspect, Order, OrderAction, OrderTarget};
use ponos::core::id::Timestamp;
use ponos::core::journal::{CircuitPhase, Notice, Said};
use ponos::core::manifest::Manifest;
use ponos::core::name::{AppName, QueueName};
use ponos_readmodel::{Instance, ReadModel, ReadModelError};
use serde::Serialize;

use super::flow::Flow;
use super::list::list;
use super::row::{Paused, QueueRow, QueueState, is_worked, millis};
use crate::broker::Session;
use crate::error::CliError;
use crate::text;
use crate::view::{View, ago, broken};

/// After how long without a delivery a consumer counts as stalled that could take jobs which are ready.
const STALLED: Duration = Duration::from_secs(60);

/// From how long ago circuits and limits are looked up.
const NOTICES: Duration = Duration::from_secs(24 * 3600);

/// From how long ago the figures are, which are kept by the hour.
const FIGURES: Duration = Duration::from_secs(3600);

/// Who looks, again and again.
#[derive(Debug)]
pub(crate) struct Looker {
    view: Option<View>,
    /// Why there are no records.
    blind: Option<String>,
    flow: Flow,
}

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) at: Timestamp,
    pub(crate) queues: Vec<QueueRow>,
    pub(crate) orders: Vec<Order>,
    pub(crate) totals: Totals,
    /// Why records tell nothing.
    pub(crate) blind: Option<String>,
    /// Why there may be more queues.
    pub(crate) partly: Option<String>,
}

/// Figures of the whole broker. Without records they are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    /// Instances that said something when they should have.
    pub(crate) alive: u64,
    /// Instances that did not, and did not end in order.
    pub(crate) silent: u64,
    /// Jobs that run.
    pub(crate) in_flight: u64,
    /// Records of a second, over the last minute.
    pub(crate) records_per_s: f64,
    /// Records that were lost in the last hour.
    pub(crate) lost: u64,
}

impl Looker {
    /// Opens what tells of the past; without it, it is looked at the broker alone.
    pub(crate) async fn open(session: &Session) -> Self {
        let (view, blind) = match View::open(session).await {
            Ok(view) => (Some(view), None),
            Err(error) => (None, Some(error.problem().to_owned())),
        };
        Self { view, blind, flow: Flow::default() }
    }

    /// The records, where there are some.
    pub(crate) fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Looks at the queues of the broker, or of an application.
    ///
    /// # Errors
    ///
    /// When the broker does not answer, or the application is not there.
    pub(crate) async fn look(&mut self, session: &Session, app: Option<&AppName>) -> Result<Look, CliError> {
        if let Some(view) = &mut self.view {
            self.blind = view.catch_up(session).await.err().map(|error| error.problem().to_owned());
        }
        let listed = list(session, self.view.as_ref(), app).await?;
        let mut orders = Vec::new();
        let apps: BTreeSet<AppName> = listed.queues.iter().map(|stats| stats.queue.app()).collect();
        for app in apps {
            let answer = session.ask(session.broker().inspect(Inspect::Orders(app))).await?;
            orders.extend(answer.into_orders());
        }
        let now = text::now();
        // A reset is done with; it can still be read for a while.
        orders.retain(|order| order.action != OrderAction::CircuitReset && order.stands(now));
        let mut look = Look {
            at: now,
            queues: listed.queues.into_iter().map(|stats| QueueRow::new(stats, now)).collect(),
            orders,
            totals: Totals::default(),
            blind: self.blind.clone(),
            partly: listed.partly,
        };
        let depends = match &self.view {
            Some(view) => {
                self.flow.follow(&view.model, now).map_err(broken)?;
                records(&mut look, &view.model, &self.flow).map_err(broken)?
            }
            None => Depends::new(),
        };
        ordered(&mut look, &depends);
        Ok(look)
    }
}

/// Which dependency a queue's handler has.
type Depends = BTreeMap<QueueName, String>;

/// Puts in what the records and the instances say.
fn records(look: &mut Look, model: &ReadModel, flow: &Flow) -> Result<Depends, ReadModelError> {
    let now = look.at;
    let instances: Vec<Instance> =
        model.instances()?.into_iter().filter(|instance| instance.ended.is_none()).collect();
    let (silent, alive): (Vec<_>, Vec<_>) = instances
        .into_iter()
        // A publisher says that it is there, and nothing more.
        .filter(|instance| instance.beat.is_some())
        .partition(|instance| instance.is_silent(now));
    let beats = || alive.iter().filter_map(|it| it.beat.as_ref().map(|(at, beat)| (it, *at, beat)));
    look.totals = Totals {
        alive: alive.len() as u64,
        silent: silent.len() as u64,
        in_flight: beats().flat_map(|(_, _, beat)| &beat.queues).map(|it| u64::from(it.in_flight)).sum(),
        records_per_s: flow.records(),
        lost: model.gaps(ago(FIGURES), now)?.iter().map(ponos_readmodel::Gap::entries).sum(),
    };
    let depends = depends(model)?;
    let figures = model.queues(ago(FIGURES))?;
    let notices = Notices::of(model, now)?;
    for row in look.queues.iter_mut().filter(|row| is_worked(&row.stats.queue)) {
        let queue = row.stats.queue.clone();
        row.in_per_s = Some(flow.came(queue.as_str()));
        row.out_per_s = Some(flow.ended(queue.as_str()));
        if let Some((_, counts)) = figures.iter().find(|(name, _)| **name == *queue.as_str()) {
            row.p95_ms = counts.took.p95().map(|p95| (p95.as_secs_f64() * 1e6).round() / 1e3);
            row.retry_share = share(counts.retried, counts.attempts());
            row.fail_share = share(counts.failed, counts.jobs());
        }
        let mut circuits: BTreeMap<Arc<str>, (CircuitPhase, u64)> = BTreeMap::new();
        let mut stalled = None;
        for (instance, at, beat) in beats() {
            let Some(mine) = beat.queues.iter().find(|it| it.queue == queue) else { continue };
            *row.in_flight.get_or_insert(0) += u64::from(mine.in_flight);
            *row.prefetch.get_or_insert(0) += u64::from(mine.prefetch);
            for (name, phase) in &beat.circuits {
                let its_own =
                    **name == *queue.as_str() || depends.get(&queue).is_some_and(|it| *it == **name);
                if its_own && *phase != CircuitPhase::Closed {
                    circuits.entry(Arc::clone(name)).or_insert((*phase, 0)).1 += 1;
                }
            }
            let idle = mine.last_delivery.unwrap_or(instance.first_at);
            let room = mine.in_flight + mine.buffered < mine.prefetch;
            if mine.up && !mine.paused && room && row.stats.ready > 0 && at.since(idle) > STALLED {
                stalled = Some((instance.origin.host.to_string(), millis(now.since(idle))));
            }
        }
        let rests = notices.limits.get(&queue).copied().filter(|until| *until > now);
        let open: Vec<QueueState> = circuits
            .into_iter()
            .map(|(name, (phase, instances))| QueueState::Circuit {
                since: notices.open.get(&*name).copied(),
                circuit: name.to_string(),
                half_open: phase == CircuitPhase::HalfOpen,
                instances,
            })
            .collect();
        // What is held back does not stall.
        if let Some((host, for_ms)) = stalled.filter(|_| rests.is_none() && open.is_empty()) {
            row.states.push(QueueState::Stalled { host, for_ms });
        }
        row.states.extend(open);
        row.states.extend(rests.map(|until| QueueState::Resting { until }));
    }
    Ok(depends)
}

/// Puts in what was ordered, and who is missing.
fn ordered(look: &mut Look, depends: &Depends) {
    for row in &mut look.queues {
        let queue = &row.stats.queue;
        let mine = look.orders.iter().filter(|order| match &order.target {
            OrderTarget::Queue(name) => name == queue,
            OrderTarget::Dependency(it) => {
                it.app == queue.app() && depends.get(queue).is_some_and(|name| *name == it.name)
            }
            _ => false,
        });
        let mut states: Vec<QueueState> = Vec::new();
        for order in mine {
            if order.action == OrderAction::Pause {
                row.paused =
                    Some(Paused { reason: order.reason.clone(), by: order.by.clone(), at: order.at });
            }
            states.push(QueueState::of_order(order));
        }
        states.append(&mut row.states);
        row.states = states;
        let waits = row.stats.ready > 0 || row.stats.delayed.unwrap_or(0) > 0;
        let somebody = row.stats.consumers > 0 || row.prefetch.is_some();
        // Who obeys an order does not consume: without records nobody can tell whether there is somebody.
        let obeys = look.blind.is_some() && !row.states.is_empty();
        if waits && !somebody && !obeys && is_worked(&row.stats.queue) {
            row.states.push(QueueState::Unworked);
        }
    }
}

/// What circuits and limits said last.
#[derive(Debug, Default)]
struct Notices {
    /// Since when a circuit has been open, by its name: in the first instance.
    open: BTreeMap<String, Timestamp>,
    /// Until when a queue rests, at the longest.
    limits: BTreeMap<QueueName, Timestamp>,
}

impl Notices {
    fn of(model: &ReadModel, now: Timestamp) -> Result<Self, ReadModelError> {
        let mut open: BTreeMap<(String, u64), Option<Timestamp>> = BTreeMap::new();
        let mut limits: BTreeMap<(QueueName, u64), Option<Timestamp>> = BTreeMap::new();
        for (at, entry) in model.notices_between(ago(NOTICES), now)? {
            match entry.said {
                Said::Notice(_, Notice::Circuit(it)) => {
                    let known = open.entry((it.circuit.to_string(), entry.origin.id)).or_default();
                    *known = match it.phase {
                        CircuitPhase::Closed => None,
                        // From the first time on that it did not close.
                        _ => known.or(Some(at)),
                    };
                }
                Said::Notice(_, Notice::Limit(it)) => {
                    limits.insert((it.queue, entry.origin.id), it.until);
                }
                _ => {}
            }
        }
        let mut notices = Self::default();
        for ((name, _), since) in open {
            if let Some(since) = since {
                let known = notices.open.entry(name).or_insert(since);
                *known = since.min(*known);
            }
        }
        for ((queue, _), until) in limits {
            if let Some(until) = until {
                let known = notices.limits.entry(queue).or_insert(until);
                *known = until.max(*known);
            }
        }
        Ok(notices)
    }
}

/// What each queue's handler depends on, by the newest manifest of its application.
fn depends(model: &ReadModel) -> Result<Depends, ReadModelError> {
    let mut depends = Depends::new();
    for known in model.manifests()? {
        let Ok(manifest) = Manifest::from_json(&known.text) else { continue };
        let reactions = manifest.reactions.iter().map(|reaction| (&reaction.queue, &reaction.policy));
        for (queue, policy) in reactions.chain(manifest.tasks.iter().map(|task| (&task.queue, &task.policy)))
        {
            if let (Some(name), Ok(queue)) = (&policy.depends_on, QueueName::parse(queue)) {
                // The newest of an application comes first.
                depends.entry(queue).or_insert_with(|| name.clone());
            }
        }
    }
    Ok(depends)
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
