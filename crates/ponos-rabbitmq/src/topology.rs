//! What exists on RabbitMQ, as data: exchanges, queues and bindings with their arguments.
//!
//! The arguments are constants of the wire's version and never computed from a handler's policy: RabbitMQ refuses a
//! declaration whose arguments differ from what exists, so a computed one would keep the next release from starting.
//!
//! ```text
//! org.payment.processed        fanout  ──▶ pheidi.org.payment.processed, …      one queue per subscriber
//! pheidi                       direct  ──▶ every queue of pheidi by its name; alternate: pheidi.unroutable
//! pheidi.unroutable            fanout  ──▶ pheidi.failed
//! pheidi.retry.1000            fanout  ──▶ pheidi.retry.1000 ──(after its time)──▶ pheidi
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use ponos_core::broker::{PROTOTYPE_EXPIRES, PROTOTYPE_LENGTH, Topology};
use ponos_core::name::{AppName, QueueName};

use crate::options::QueueType;

/// After how many deliveries RabbitMQ itself gives a message up. Large and positive: none at all drops messages on
/// RabbitMQ 3.10 to 3.13 at the first requeue, and the default of RabbitMQ 4 is 20.
pub const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// The smallest step of the delay ladder.
pub const FIRST_STEP: Duration = Duration::from_millis(125);

/// How often the step doubles; the last one is 36.4 hours.
pub const STEPS: u32 = 20;

/// How long discarded jobs are kept.
pub const DISCARDED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// The most bytes of an application's standing orders, and of one segment of them.
const ORDERS_BYTES: i64 = 16 * 1024 * 1024;
const ORDERS_SEGMENT: i64 = 1024 * 1024;

/// The most bytes of records, and of one segment of them.
const RECORDS_BYTES: i64 = 1024 * 1024 * 1024;
const RECORDS_SEGMENT: i64 = 64 * 1024 * 1024;

/// The exchange that records go to. Without a queue behind it RabbitMQ discards them.
pub const LIFECYCLE: &str = "ponos.lifecycle";

/// The stream that keeps records, declared by who looks.
pub const LIFECYCLE_LOG: &str = "ponos.lifecycle.log";

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExchangeType {
    /// To every queue that is bound.
    Fanout,
    /// To the queues that are bound by the routing key.
    Direct,
}

impl ExchangeType {
    /// AMQP's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fanout => "fanout",
            Self::Direct => "direct",
        }
    }
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
}

impl std::fmt::Display for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(n) => n.fmt(f),
        }
    }
}

/// Arguments by name.
pub type Arguments = BTreeMap<&'static str, Argument>;

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeType,
    /// Its arguments.
    pub arguments: Arguments,
    /// Whether it is everybody's, so that whoever comes first declares it.
    pub is_event: bool,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// Its arguments, among them its type.
    pub arguments: Arguments,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BindingSpec {
    /// From this exchange.
    pub exchange: String,
    /// To this queue.
    pub queue: String,
    /// For messages with this routing key; ignored by fanout exchanges.
    pub routing_key: String,
}

/// What must exist, in the order in which it is declared: exchanges, queues, bindings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Exchanges.
    pub exchanges: Vec<ExchangeSpec>,
    /// Queues.
    pub queues: Vec<QueueSpec>,
    /// Bindings.
    pub bindings: Vec<BindingSpec>,
}

impl Plan {
    /// What a service's topology needs. The delay ladder is not part of it: its levels are declared when first needed.
    #[must_use]
    pub fn of(topology: &Topology, queue_type: QueueType) -> Self {
        let mut plan = Self::default();
        plan.exchanges.extend(topology.events.iter().map(|event| ExchangeSpec {
            name: event.as_str().to_owned(),
            kind: ExchangeType::Fanout,
            arguments: Arguments::new(),
            is_event: true,
        }));
        let Some(app) = &topology.app else {
            return plan;
        };
        plan.add_app(app);
        for (queue, event) in &topology.subscriptions {
            let kind = if topology.prototypes.contains(queue) {
                prototype_arguments()
            } else {
                job_arguments(app, queue_type)
            };
            plan.add_queue(app, queue.as_str(), kind);
            plan.bindings.push(BindingSpec {
                exchange: event.as_str().to_owned(),
                queue: queue.as_str().to_owned(),
                routing_key: event.as_str().to_owned(),
            });
        }
        for queue in &topology.tasks {
            let arguments = if *queue == QueueName::discarded(app) {
                discarded_arguments()
            } else {
                job_arguments(app, queue_type)
            };
            plan.add_queue(app, queue.as_str(), arguments);
        }
        plan
    }

    /// Everything that a service declares when it starts: its topology, its standing orders and the exchange of records.
    #[must_use]
    pub fn service(topology: &Topology, queue_type: QueueType) -> Self {
        let mut plan = Self::of(topology, queue_type);
        if let Some(app) = &topology.app {
            plan.add(Self::orders(app));
        }
        plan.add(Self::lifecycle());
        plan
    }

    /// What comes to be only when it is needed: the levels of the delay ladder, the discarded jobs, the log of records.
    #[must_use]
    pub fn on_demand(app: &AppName) -> Self {
        let mut plan = Self::lifecycle_log();
        let mut discarded = Self::default();
        discarded.add_queue(app, QueueName::discarded(app).as_str(), discarded_arguments());
        plan.add(discarded);
        for step in steps() {
            plan.add(Self::level(app, step));
        }
        plan
    }

    /// Adds what another plan has and this one has not.
    pub fn add(&mut self, other: Self) {
        fn merge<T: PartialEq>(into: &mut Vec<T>, from: Vec<T>, same: impl Fn(&T, &T) -> bool) {
            for item in from {
                if !into.iter().any(|there| same(there, &item)) {
                    into.push(item);
                }
            }
        }
        merge(&mut self.exchanges, other.exchanges, |one, other| one.name == other.name);
        merge(&mut self.queues, other.queues, |one, other| one.name == other.name);
        merge(&mut self.bindings, other.bindings, PartialEq::eq);
    }

    /// One level of an application's delay ladder.
    #[must_use]
    pub fn level(app: &AppName, step: Duration) -> Self {
        let name = level_name(app, step);
        // A message asks for its own time, at most the step; the queue's own is only a bound, and must not cut it short.
        let bound = i64::try_from(step.as_millis()).unwrap_or(i64::MAX) / 4 * 5;
        let mut arguments = quorum();
        arguments.insert("x-message-ttl", Argument::Int(bound));
        arguments.insert("x-dead-letter-exchange", Argument::Text(app.as_str().to_owned()));
        arguments.insert("x-dead-letter-strategy", Argument::Text("at-least-once".into()));
        arguments.insert("x-overflow", Argument::Text("reject-publish".into()));
        arguments.insert("x-delivery-limit", Argument::Int(DELIVERY_LIMIT));
        Self {
            exchanges: vec![ExchangeSpec {
                name: name.clone(),
                kind: ExchangeType::Fanout,
                // Without its queue a copy would be returned, and a return may be told to another message's confirm.
                arguments: Arguments::from([("alternate-exchange", Argument::Text(unroutable_name(app)))]),
                is_event: false,
            }],
            queues: vec![QueueSpec { name: name.clone(), arguments }],
            bindings: vec![BindingSpec { exchange: name.clone(), queue: name, routing_key: String::new() }],
        }
    }

    /// The queue of a queue's suspects: jobs whose process died again and again.
    #[must_use]
    pub fn suspects(queue: &QueueName) -> Self {
        let app = queue.app();
        let mut plan = Self::default();
        plan.add_app(&app);
        plan.add_queue(&app, &suspects_name(queue), job_arguments(&app, QueueType::Quorum));
        plan
    }

    /// The stream of an application's standing orders.
    #[must_use]
    pub fn orders(app: &AppName) -> Self {
        let mut plan = Self::default();
        plan.add_app(app);
        plan.add_queue(app, &orders_name(app), stream(ORDERS_BYTES, ORDERS_SEGMENT));
        plan
    }

    /// The exchange of records.
    #[must_use]
    pub fn lifecycle() -> Self {
        Self {
            exchanges: vec![ExchangeSpec {
                name: LIFECYCLE.to_owned(),
                kind: ExchangeType::Fanout,
                arguments: Arguments::new(),
                is_event: true,
            }],
            ..Self::default()
        }
    }

    /// The exchange of records and the stream that keeps them.
    #[must_use]
    pub fn lifecycle_log() -> Self {
        Self {
            queues: vec![QueueSpec {
                name: LIFECYCLE_LOG.to_owned(),
                arguments: stream(RECORDS_BYTES, RECORDS_SEGMENT),
            }],
            bindings: vec![BindingSpec {
                exchange: LIFECYCLE.to_owned(),
                queue: LIFECYCLE_LOG.to_owned(),
                routing_key: String::new(),
            }],
            ..Self::lifecycle()
        }
    }

    /// What every application has: its exchange, and where that sends what it cannot route.
    fn add_app(&mut self, app: &AppName) {
        let unroutable = unroutable_name(app);
        self.exchanges.push(ExchangeSpec {
            name: unroutable.clone(),
            kind: ExchangeType::Fanout,
            arguments: Arguments::new(),
            is_event: false,
        });
        self.exchanges.push(ExchangeSpec {
            name: app.as_str().to_owned(),
            kind: ExchangeType::Direct,
            arguments: Arguments::from([("alternate-exchange", Argument::Text(unroutable.clone()))]),
            is_event: false,
        });
        let failed = QueueName::failed(app);
        let mut arguments = quorum();
        arguments.insert("x-delivery-limit", Argument::Int(DELIVERY_LIMIT));
        self.add_queue(app, failed.as_str(), arguments);
        self.bindings.push(BindingSpec {
            exchange: unroutable,
            queue: failed.as_str().to_owned(),
            routing_key: String::new(),
        });
    }

    fn add_queue(&mut self, app: &AppName, name: &str, arguments: Arguments) {
        self.queues.push(QueueSpec { name: name.to_owned(), arguments });
        self.bindings.push(BindingSpec {
            exchange: app.as_str().to_owned(),
            queue: name.to_owned(),
            routing_key: name.to_owned(),
        });
    }
}

fn quorum() -> Arguments {
    Arguments::from([("x-queue-type", Argument::Text("quorum".into()))])
}

fn stream(bytes: i64, segment: i64) -> Arguments {
    Arguments::from([
        ("x-queue-type", Argument::Text("stream".into())),
        ("x-max-length-bytes", Argument::Int(bytes)),
        ("x-stream-max-segment-size-bytes", Argument::Int(segment)),
    ])
}

/// A queue of jobs. What RabbitMQ itself would drop goes to the failed jobs, and is dropped only once it is there; that
/// holds only together with `reject-publish`.
fn job_arguments(app: &AppName, queue_type: QueueType) -> Arguments {
    match queue_type {
        // As the npm package declares them: without any argument.
        QueueType::Classic => Arguments::new(),
        QueueType::Quorum => {
            let mut arguments = quorum();
            arguments.insert("x-delivery-limit", Argument::Int(DELIVERY_LIMIT));
            arguments.insert("x-dead-letter-exchange", Argument::Text(unroutable_name(app)));
            arguments.insert("x-dead-letter-strategy", Argument::Text("at-least-once".into()));
            arguments.insert("x-overflow", Argument::Text("reject-publish".into()));
            arguments
        }
    }
}

/// A queue that may lose what it holds, and is removed when nobody consumes it. What it drops is counted by RabbitMQ, over
/// all queues, in `rabbitmq_global_messages_dead_lettered_maxlen_total`.
pub(crate) fn prototype_arguments() -> Arguments {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit", Argument::Int(DELIVERY_LIMIT));
    arguments.insert("x-expires", millis(PROTOTYPE_EXPIRES));
    arguments.insert("x-max-length", Argument::Int(i64::try_from(PROTOTYPE_LENGTH).unwrap_or(i64::MAX)));
    arguments.insert("x-overflow", Argument::Text("drop-head".into()));
    arguments
}

fn discarded_arguments() -> Arguments {
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit", Argument::Int(DELIVERY_LIMIT));
    arguments.insert("x-message-ttl", millis(DISCARDED_FOR));
    arguments
}

fn millis(duration: Duration) -> Argument {
    Argument::Int(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// The exchange for what an application's own one cannot route.
#[must_use]
pub fn unroutable_name(app: &AppName) -> String {
    format!("{app}.unroutable")
}

/// The stream of an application's standing orders.
#[must_use]
pub fn orders_name(app: &AppName) -> String {
    format!("{app}.control.state")
}

/// The queue of a queue's suspects.
#[must_use]
pub fn suspects_name(queue: &QueueName) -> String {
    let (app, rest) = queue.as_str().split_once('.').unwrap_or((queue.as_str(), ""));
    format!("{app}.suspect.{rest}")
}

/// The exchange and the queue of one level.
#[must_use]
pub fn level_name(app: &AppName, step: Duration) -> String {
    format!("{app}.retry.{}", step.as_millis())
}

/// The steps of the delay ladder, the smallest first.
pub fn steps() -> impl Iterator<Item = Duration> {
    (0..=STEPS).map(|k| FIRST_STEP * 2u32.pow(k))
}

/// Whether a name is one that every application has, whatever its manifest says.
#[must_use]
pub fn is_of_every_app(app: &AppName, name: &str) -> bool {
    name == app.as_str()
        || name.strip_prefix(app.as_str()).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| {
            matches!(rest, "failed" | "discarded" | "unroutable" | "control" | "retry")
                || rest.starts_with("control.")
                || rest.starts_with("retry.")
        })
}

/// The smallest step that holds a delay; the largest for longer ones, which hop.
#[must_use]
pub fn step_for(delay: Duration) -> Duration {
    steps().find(|step| *step >= delay).unwrap_or(FIRST_STEP * 2u32.pow(STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ponos_core::name::{EventName, TaskName};

    #[test]
    fn a_delay_goes_to_the_smallest_level_that_holds_it() {
        for (delay, step) in
            [(0, 125), (1, 125), (125, 125), (126, 250), (1000, 1000), (1001, 2000), (u64::MAX, 131_072_000)]
        {
            assert_eq!(step_for(Duration::from_millis(delay)), Duration::from_millis(step), "{delay}");
        }
    }

    #[test]
    fn the_bound_of_a_level_never_cuts_a_delay_short() {
        let app = AppName::from_checked("unit");
        for k in 0..=STEPS {
            let step = FIRST_STEP * 2u32.pow(k);
            let plan = Plan::level(&app, step);
            let Some(Argument::Int(bound)) = plan.queues[0].arguments.get("x-message-ttl") else { panic!() };
            assert!(u128::try_from(*bound).unwrap() > step.as_millis());
        }
    }

    #[test]
    fn every_queue_of_an_application_is_bound_by_its_own_name() {
        let app = AppName::from_checked("unit");
        let event = EventName::from_checked("thing.happened");
        let heard = QueueName::subscription(&app, &event);
        let topology = Topology {
            app: Some(app),
            events: vec![event.clone()],
            subscriptions: vec![(heard.clone(), event)],
            tasks: vec![QueueName::task(&TaskName::from_checked("unit.job.do"))],
            ..Topology::default()
        };
        let plan = Plan::of(&topology, QueueType::Quorum);
        for queue in &plan.queues {
            let by_name = BindingSpec {
                exchange: "unit".into(),
                queue: queue.name.clone(),
                routing_key: queue.name.clone(),
            };
            assert!(plan.bindings.contains(&by_name), "{}", queue.name);
            assert!(queue.arguments.contains_key("x-delivery-limit"), "{}", queue.name);
        }
        let from_event = plan.bindings.iter().filter(|binding| binding.exchange == "thing.happened");
        assert_eq!(from_event.map(|binding| binding.queue.as_str()).collect::<Vec<_>>(), [heard.as_str()]);
    }
}
