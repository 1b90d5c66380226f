//! What should exist beside what does: a comparison of values, without a network.
//!
//! The rules are those of [`declare`](crate): another type or durability cannot be used, any other difference is used as
//! it is. What nobody names is told for queues within an application's prefix and for bindings of its queues; exchanges
//! of events are everybody's, so nobody can say that one is not needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ponos_core::name::AppName;
use serde_json::Value;

use crate::topology::{Arguments, BindingSpec, ExchangeSpec, Plan, QueueSpec, is_of_every_app};

/// What exists in a virtual host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Exchanges.
    pub exchanges: Vec<FoundExchange>,
    /// Queues.
    pub queues: Vec<FoundQueue>,
    /// Bindings of queues; that of the default exchange is left out.
    pub bindings: Vec<BindingSpec>,
}

/// An exchange that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundExchange {
    /// Its name.
    pub name: String,
    /// How it routes, in AMQP's word.
    pub kind: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: BTreeMap<String, Value>,
}

/// A queue that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundQueue {
    /// Its name.
    pub name: String,
    /// `classic`, `quorum` or `stream`.
    pub kind: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whether it belongs to one connection, with which it goes.
    pub exclusive: bool,
    /// Its arguments.
    pub arguments: BTreeMap<String, Value>,
    /// The policy that applies to it, and what that says.
    pub policy: Option<(String, BTreeMap<String, Value>)>,
}

/// Something that exists or should.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// An exchange.
    Exchange(String),
    /// A queue.
    Queue(String),
    /// A binding.
    Binding(BindingSpec),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange {name}"),
            Self::Queue(name) => write!(f, "queue {name}"),
            Self::Binding(binding) => write!(f, "binding {} → {}", binding.exchange, binding.queue),
        }
    }
}

/// What is known of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is as it should be.
    Same,
    /// It is to be declared.
    Missing,
    /// It is there and not as it should be.
    Differs(Vec<Difference>),
    /// It is there, and no manifest names it.
    Unnamed,
}

/// A property that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The property, in the broker's word.
    pub property: String,
    /// What it should be; `None` for nothing.
    pub wanted: Option<String>,
    /// What it is; `None` for nothing.
    pub found: Option<String>,
    /// Whether it keeps a service from starting.
    pub fatal: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.as_deref().unwrap_or("none").to_owned();
        write!(f, "{}: wanted {}, found {}", self.property, shown(&self.wanted), shown(&self.found))
    }
}

/// One thing and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What.
    pub thing: Thing,
    /// How it is.
    pub state: State,
    /// What a policy that applies to it spoils, in words.
    pub spoiled: Vec<String>,
}

impl Entry {
    /// Whether it keeps a service from starting.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(&self.state, State::Differs(differences) if differences.iter().any(|one| one.fatal))
    }
}

/// Everything that is wanted, or there and not wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Exchanges, queues, bindings, in the order in which they are declared; what is not named comes last.
    pub entries: Vec<Entry>,
}

impl Diff {
    /// Compares. What is wanted on demand is compared where it is there, and not missing where it is not. What is there
    /// and not wanted is told of these applications.
    #[must_use]
    pub fn of(wanted: &Plan, on_demand: &Plan, found: &Found, apps: &[AppName]) -> Self {
        let mut entries = Vec::new();
        let mut note = |thing: Thing, state: Option<State>, spoiled: Vec<String>, needed: bool| {
            if let Some(state) = state.or(needed.then_some(State::Missing)) {
                entries.push(Entry { thing, state, spoiled });
            }
        };
        let mut names = BTreeSet::new();
        for (plan, needed) in [(wanted, true), (on_demand, false)] {
            for spec in &plan.exchanges {
                let there = found.exchanges.iter().find(|there| there.name == spec.name);
                if names.insert(Thing::Exchange(spec.name.clone())) {
                    let state = there.map(|there| state(of_exchange(spec, there)));
                    note(Thing::Exchange(spec.name.clone()), state, Vec::new(), needed);
                }
            }
            for spec in &plan.queues {
                let there = found.queues.iter().find(|there| there.name == spec.name);
                if names.insert(Thing::Queue(spec.name.clone())) {
                    let state = there.map(|there| state(of_queue(spec, there)));
                    let spoiled = there.map(|there| spoiled(spec, there)).unwrap_or_default();
                    note(Thing::Queue(spec.name.clone()), state, spoiled, needed);
                }
            }
            for spec in &plan.bindings {
                if names.insert(Thing::Binding(spec.clone())) {
                    let there = found.bindings.contains(spec).then_some(State::Same);
                    note(Thing::Binding(spec.clone()), there, Vec::new(), needed);
                }
            }
        }
        entries.extend(unnamed(&names, found, apps));
        Self { entries }
    }

    /// Compares one queue.
    #[must_use]
    pub fn of_queue(wanted: &QueueSpec, found: &FoundQueue) -> Self {
        let entry = Entry {
            thing: Thing::Queue(wanted.name.clone()),
            state: state(of_queue(wanted, found)),
            spoiled: spoiled(wanted, found),
        };
        Self { entries: vec![entry] }
    }

    /// Compares one exchange.
    #[must_use]
    pub fn of_exchange(wanted: &ExchangeSpec, found: &FoundExchange) -> Self {
        let entry = Entry {
            thing: Thing::Exchange(wanted.name.clone()),
            state: state(of_exchange(wanted, found)),
            spoiled: Vec::new(),
        };
        Self { entries: vec![entry] }
    }

    /// What is not there.
    pub fn missing(&self) -> impl Iterator<Item = &Thing> {
        self.entries.iter().filter(|entry| entry.state == State::Missing).map(|entry| &entry.thing)
    }

    /// What is there and not named.
    pub fn unnamed(&self) -> impl Iterator<Item = &Thing> {
        self.entries.iter().filter(|entry| entry.state == State::Unnamed).map(|entry| &entry.thing)
    }

    /// What keeps a service from starting.
    pub fn fatal(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_fatal())
    }

    /// Whether everything is as it should be and nothing else is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.state == State::Same && entry.spoiled.is_empty())
    }
}

impl fmt::Display for Diff {
    /// The differences in one line, as errors and log lines have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for entry in &self.entries {
            let State::Differs(differences) = &entry.state else { continue };
            for difference in differences {
                write!(f, "{}{difference}", if first { "" } else { "; " })?;
                first = false;
            }
        }
        Ok(())
    }
}

fn state(differences: Vec<Difference>) -> State {
    if differences.is_empty() { State::Same } else { State::Differs(differences) }
}

fn different(property: &str, wanted: impl ToString, found: impl ToString, fatal: bool) -> Option<Difference> {
    let (wanted, found) = (wanted.to_string(), found.to_string());
    (wanted != found).then(|| Difference {
        property: property.to_owned(),
        wanted: Some(wanted),
        found: Some(found),
        fatal,
    })
}

fn of_exchange(wanted: &ExchangeSpec, found: &FoundExchange) -> Vec<Difference> {
    let properties = [
        different("type", wanted.kind.as_str(), &found.kind, true),
        different("durable", true, found.durable, true),
        different("auto_delete", false, found.auto_delete, false),
    ];
    let arguments = arguments(&wanted.arguments, &found.arguments);
    properties.into_iter().flatten().chain(arguments).collect()
}

fn of_queue(wanted: &QueueSpec, found: &FoundQueue) -> Vec<Difference> {
    let properties = [
        different("x-queue-type", kind(wanted), &found.kind, true),
        different("durable", true, found.durable, true),
        different("exclusive", false, found.exclusive, true),
        different("auto_delete", false, found.auto_delete, true),
    ];
    let arguments = arguments(&wanted.arguments, &found.arguments);
    properties.into_iter().flatten().chain(arguments).collect()
}

/// The type that a queue should have; classic where it asks for none.
fn kind(wanted: &QueueSpec) -> String {
    wanted.arguments.get("x-queue-type").map_or_else(|| "classic".to_owned(), ToString::to_string)
}

/// The type is compared by itself: RabbitMQ 4 writes it into the arguments of who asked for none.
fn arguments(wanted: &Arguments, found: &BTreeMap<String, Value>) -> Vec<Difference> {
    let wanted: BTreeMap<&str, String> =
        wanted.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let found: BTreeMap<&str, String> =
        found.iter().map(|(name, value)| (name.as_str(), plain(value))).collect();
    let names: BTreeSet<&str> = wanted.keys().chain(found.keys()).copied().collect();
    names
        .into_iter()
        .filter(|name| *name != "x-queue-type" && wanted.get(name) != found.get(name))
        .map(|name| Difference {
            property: name.to_owned(),
            wanted: wanted.get(name).cloned(),
            found: found.get(name).cloned(),
            fatal: false,
        })
        .collect()
}

/// A value as a person writes it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Which of a policy's settings take away what the queue's arguments promise. Where both say something, RabbitMQ takes
/// the smaller number.
fn spoiled(wanted: &QueueSpec, found: &FoundQueue) -> Vec<String> {
    let Some((name, settings)) = &found.policy else { return Vec::new() };
    let kind = kind(wanted);
    let keeps_all = kind != "stream" && !wanted.arguments.contains_key("x-expires");
    let refuses =
        wanted.arguments.get("x-overflow").is_some_and(|value| value.to_string() == "reject-publish");
    let dead_letters = wanted.arguments.contains_key("x-dead-letter-exchange");
    let mut spoiled = Vec::new();
    for (key, value) in settings {
        let harm = match key.as_str() {
            "expires" if keeps_all => "removes the queue with its jobs when nobody consumes it",
            "delivery-limit" if kind == "quorum" => {
                "gives jobs up after that many deliveries, whatever their policy says"
            }
            "message-ttl" if keeps_all && dead_letters => {
                "sends jobs to the failed ones when they have waited that long"
            }
            "message-ttl" if keeps_all => "removes jobs that lie there for that long",
            "max-length" | "max-length-bytes" if keeps_all && !refuses => {
                "removes the oldest jobs when it is full"
            }
            _ => continue,
        };
        spoiled.push(format!("policy {name} sets {key} = {}: it {harm}", plain(value)));
    }
    spoiled
}

fn unnamed(named: &BTreeSet<Thing>, found: &Found, apps: &[AppName]) -> Vec<Entry> {
    let is_of =
        |name: &str, app: &AppName| name.strip_prefix(app.as_str()).is_some_and(|rest| rest.starts_with('.'));
    let unnamed = |thing: Thing| Entry { thing, state: State::Unnamed, spoiled: Vec::new() };
    let mut entries = Vec::new();
    for queue in &found.queues {
        let thing = Thing::Queue(queue.name.clone());
        let is_ours = apps.iter().any(|app| is_of(&queue.name, app) && !is_of_every_app(app, &queue.name));
        if is_ours && !queue.exclusive && !named.contains(&thing) {
            entries.push(unnamed(thing));
        }
    }
    // A queue that is not named takes its bindings with it. The key means nothing to a fanout exchange.
    let is_named = |binding: &BindingSpec| {
        named.iter().any(|thing| match thing {
            Thing::Binding(named) => {
                named == binding
                    || (named.exchange == binding.exchange
                        && named.queue == binding.queue
                        && !apps.iter().any(|app| *app == binding.exchange.as_str()))
            }
            _ => false,
        })
    };
    for binding in &found.bindings {
        let queue_is_named = named.contains(&Thing::Queue(binding.queue.clone()))
            && apps.iter().any(|app| is_of(&binding.queue, app));
        if queue_is_named && !is_named(binding) {
            entries.push(unnamed(Thing::Binding(binding.clone())));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use ponos_core::broker::Topology;
    use ponos_core::name::{EventName, QueueName, TaskName};
    use serde_json::json;

    use super::*;
    use crate::options::QueueType;

    fn app() -> AppName {
        AppName::from_checked("unit")
    }

    fn plan() -> Plan {
        let event = EventName::from_checked("thing.happened");
        let topology = Topology {
            app: Some(app()),
            events: vec![event.clone()],
            subscriptions: vec![(QueueName::subscription(&app(), &event), event)],
            tasks: vec![QueueName::task(&TaskName::from_checked("unit.job.do"))],
            ..Topology::default()
        };
        Plan::service(&topology, QueueType::Quorum)
    }

    /// What exists when a plan was carried out.
    fn carried_out(plan: &Plan) -> Found {
        let arguments = |arguments: &Arguments| {
            arguments
                .iter()
                .map(|(name, value)| match value {
                    crate::topology::Argument::Text(text) => ((*name).to_owned(), json!(text)),
                    crate::topology::Argument::Int(n) => ((*name).to_owned(), json!(n)),
                })
                .collect()
        };
        let exchanges = plan.exchanges.iter().map(|spec| FoundExchange {
            name: spec.name.clone(),
            kind: spec.kind.as_str().to_owned(),
            durable: true,
            auto_delete: false,
            arguments: arguments(&spec.arguments),
        });
        let queues = plan.queues.iter().map(|spec| FoundQueue {
            name: spec.name.clone(),
            kind: kind(spec),
            durable: true,
            auto_delete: false,
            exclusive: false,
            arguments: arguments(&spec.arguments),
            policy: None,
        });
        Found { exchanges: exchanges.collect(), queues: queues.collect(), bindings: plan.bindings.clone() }
    }

    fn diff(found: &Found) -> Diff {
        Diff::of(&plan(), &Plan::on_demand(&app()), found, &[app()])
    }

    fn queue<'a>(found: &'a mut Found, name: &str) -> &'a mut FoundQueue {
        found.queues.iter_mut().find(|queue| queue.name == name).unwrap()
    }

    fn entry(diff: &Diff, name: &str) -> Entry {
        diff.entries.iter().find(|entry| entry.thing == Thing::Queue(name.to_owned())).unwrap().clone()
    }

    #[test]
    fn where_nothing_is_everything_is_missing_but_what_comes_on_demand() {
        let diff = diff(&Found::default());
        let plan = plan();
        assert_eq!(diff.missing().count(), plan.exchanges.len() + plan.queues.len() + plan.bindings.len());
        assert!(!diff.is_empty());
    }

    #[test]
    fn what_was_carried_out_is_the_same_with_what_came_on_demand() {
        let mut found = carried_out(&plan());
        assert!(diff(&found).is_empty());
        let later = carried_out(&Plan::on_demand(&app()));
        found.exchanges.extend(later.exchanges);
        found.queues.extend(later.queues);
        found.bindings.extend(later.bindings);
        assert!(
            diff(&found).is_empty(),
            "{:?}",
            diff(&found).entries.iter().find(|e| e.state != State::Same)
        );
    }

    #[test]
    fn another_type_or_durability_is_fatal_and_any_other_difference_is_not() {
        let mut found = carried_out(&plan());
        let job = queue(&mut found, "unit.job.do");
        job.kind = "classic".into();
        job.arguments.clear();
        job.durable = false;
        let failed = queue(&mut found, "unit.failed");
        failed.arguments.insert("x-delivery-limit".into(), json!(20));
        failed.arguments.insert("x-expires".into(), json!(1000));
        let diff = diff(&found);
        assert_eq!(diff.fatal().count(), 1);
        let State::Differs(differences) = entry(&diff, "unit.job.do").state else { panic!() };
        assert_eq!(differences[0].to_string(), "x-queue-type: wanted quorum, found classic");
        assert!(differences.iter().filter(|one| one.fatal).count() == 2);
        let State::Differs(differences) = entry(&diff, "unit.failed").state else { panic!() };
        let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["x-delivery-limit: wanted 1000000000, found 20", "x-expires: wanted none, found 1000"]
        );
    }

    #[test]
    fn what_nobody_names_is_told_within_the_prefix_only() {
        let mut found = carried_out(&plan());
        let named = found.queues[0].clone();
        for name in
            ["unit.old.task", "unity.job.do", "other", "unit.retry.9", "unit.control.state2", "unit.failed"]
        {
            if !found.queues.iter().any(|queue| queue.name == name) {
                found.queues.push(FoundQueue { name: name.into(), ..named.clone() });
            }
        }
        found.queues.push(FoundQueue { name: "unit.own".into(), exclusive: true, ..named });
        let binding = |exchange: &str, queue: &str, key: &str| BindingSpec {
            exchange: exchange.into(),
            queue: queue.into(),
            routing_key: key.into(),
        };
        found.bindings.push(binding("unit", "unit.old.task", "unit.old.task"));
        found.bindings.push(binding("thing.happened", "unit.thing.happened", ""));
        found.bindings.push(binding("other.happened", "unit.job.do", ""));
        let diff = diff(&found);
        let unnamed: Vec<String> = diff.unnamed().map(ToString::to_string).collect();
        assert_eq!(unnamed, ["queue unit.old.task", "binding other.happened → unit.job.do"]);
    }

    #[test]
    fn a_policy_that_loses_jobs_is_told_and_one_that_only_refuses_is_not() {
        let mut found = carried_out(&plan());
        let policy = BTreeMap::from([
            ("max-length".to_owned(), json!(10)),
            ("expires".to_owned(), json!(1000)),
            ("consumer-timeout".to_owned(), json!(1000)),
        ]);
        for name in ["unit.job.do", "unit.failed", "unit.control.state"] {
            queue(&mut found, name).policy = Some(("p".into(), policy.clone()));
        }
        let diff = diff(&found);
        let spoiled = |name: &str| entry(&diff, name).spoiled.len();
        assert_eq!(
            (spoiled("unit.job.do"), spoiled("unit.failed"), spoiled("unit.control.state")),
            (1, 2, 0)
        );
        assert!(!diff.is_empty() && diff.fatal().count() == 0);
    }
}
