//! Standing orders: what somebody wants of all instances, those that start later included.
//!
//! They are JSON at the broker. Within that form fields and kinds are only added: a reader skips an order whose target
//! or action it does not know, and every other one holds. So a kind never ends an order of another kind.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::Timestamp;
use crate::manifest::RateManifest;
use crate::name::{AppName, QueueName};
use crate::policy::Rate;

/// A standing order, given by hand, known to instances that start later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is about.
    #[serde(flatten)]
    pub target: OrderTarget,
    /// What is to be done.
    pub action: OrderAction,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When it was given.
    pub at: Timestamp,
    /// When it ends by itself; `None` for never.
    pub until: Option<Timestamp>,
}

impl Order {
    /// What it replaces: the order of the same kind for the same target.
    #[must_use]
    pub fn key(&self) -> OrderKey {
        OrderKey { target: self.target.clone(), kind: self.action.kind() }
    }

    /// Whether something is asked for at this moment.
    #[must_use]
    pub fn stands(&self, now: Timestamp) -> bool {
        !self.action.is_end() && self.until.is_none_or(|until| until > now)
    }
}

/// What an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderTarget {
    /// One queue.
    Queue(QueueName),
    /// What the handlers of an application share that depend on one thing.
    Dependency(Dependency),
}

impl OrderTarget {
    /// The application whose instances are meant.
    #[must_use]
    pub fn app(&self) -> AppName {
        match self {
            Self::Queue(queue) => queue.app(),
            Self::Dependency(dependency) => dependency.app.clone(),
        }
    }
}

impl From<QueueName> for OrderTarget {
    fn from(queue: QueueName) -> Self {
        Self::Queue(queue)
    }
}

impl fmt::Display for OrderTarget {
    /// A queue's name, or `smtp of pheidi`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(queue) => queue.fmt(f),
            Self::Dependency(Dependency { app, name }) => write!(f, "{name} of {app}"),
        }
    }
}

/// A dependency of an application: what its handlers name with `depends_on`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Dependency {
    /// The application.
    pub app: AppName,
    /// The dependency's name.
    pub name: String,
}

/// What a standing order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrderAction {
    /// Deliver nothing.
    Pause,
    /// No pause stands.
    Resume,
    /// Start no more than this, all instances together, whatever is configured.
    #[serde(with = "as_manifest")]
    Rate(Rate),
    /// What is configured holds again.
    RateReset,
    /// Hold the circuit open: deliver nothing to who listens through it.
    CircuitOpen,
    /// No circuit is held open.
    CircuitResume,
    /// Once: let a job through each circuit that is open now. An instance that starts later has nothing to do.
    CircuitReset,
}

impl OrderAction {
    /// Its kind. Of one kind one order stands for a target, the last that was given.
    #[must_use]
    pub const fn kind(&self) -> OrderKind {
        match self {
            Self::Pause | Self::Resume => OrderKind::Pause,
            Self::Rate(_) | Self::RateReset => OrderKind::Rate,
            Self::CircuitOpen | Self::CircuitResume => OrderKind::Circuit,
            Self::CircuitReset => OrderKind::CircuitReset,
        }
    }

    /// Whether it only ends the order of its kind.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Resume | Self::RateReset | Self::CircuitResume)
    }
}

/// The kinds of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OrderKind {
    /// Nothing is delivered.
    Pause,
    /// Another rate limit.
    Rate,
    /// A circuit that is held open.
    Circuit,
    /// A circuit that was reset.
    CircuitReset,
}

impl OrderKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Rate => "rate",
            Self::Circuit => "circuit",
            Self::CircuitReset => "circuit_reset",
        }
    }
}

/// Under what an order is kept: the next one with the same key replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey {
    /// What it is about.
    pub target: OrderTarget,
    /// Its kind.
    pub kind: OrderKind,
}

impl fmt::Display for OrderKey {
    /// The key as a text, distinct for each. That of a paused queue is the queue's name, as it was when there were no
    /// other orders.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != OrderKind::Pause {
            write!(f, "{} ", self.kind.as_str())?;
        }
        self.target.fmt(f)
    }
}

/// A rate in the form that manifests have, checked when it is read.
mod as_manifest {
    use std::time::Duration;

    use serde::de::Error;

    use super::{Deserialize, Deserializer, Rate, RateManifest, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(rate: &Rate, serializer: S) -> Result<S::Ok, S::Error> {
        RateManifest::from(*rate).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        let RateManifest { count, period_ms, burst } = RateManifest::deserialize(deserializer)?;
        let rate = Rate::new(count, Duration::from_millis(period_ms)).burst(burst);
        rate.validate().map_err(D::Error::custom)?;
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RateExt;

    fn order(target: impl Into<OrderTarget>, action: OrderAction) -> Order {
        Order {
            target: target.into(),
            action,
            by: "ada@vm".into(),
            reason: "to see".into(),
            at: Timestamp::from_millis(7),
            until: None,
        }
    }

    fn smtp() -> OrderTarget {
        let app = AppName::parse("pheidi").unwrap();
        OrderTarget::Dependency(Dependency { app, name: "smtp".into() })
    }

    #[test]
    fn an_order_of_the_first_version_is_read_and_a_pause_is_written_as_it_was() {
        let first = r#"{"queue":"pheidi.email.send","action":"pause","by":"ada@vm","reason":"to see","at":7,"until":null}"#;
        let pause = order(QueueName::parse("pheidi.email.send").unwrap(), OrderAction::Pause);
        assert_eq!(serde_json::from_str::<Order>(first).unwrap(), pause);
        assert_eq!(serde_json::to_string(&pause).unwrap(), first);
        assert_eq!(pause.key().to_string(), "pheidi.email.send");
    }

    #[test]
    fn every_order_survives_and_has_a_key_of_its_own() {
        let queue = OrderTarget::Queue(QueueName::parse("pheidi.email.send").unwrap());
        let rate = OrderAction::Rate(50.per_minute().burst(3));
        let mut keys = std::collections::BTreeSet::new();
        for target in [queue, smtp()] {
            for action in [OrderAction::Pause, rate, OrderAction::CircuitOpen, OrderAction::CircuitReset] {
                let order = order(target.clone(), action);
                let json = serde_json::to_string(&order).unwrap();
                assert_eq!(serde_json::from_str::<Order>(&json).unwrap(), order, "{json}");
                assert!(keys.insert(order.key().to_string()), "{:?}", order.key());
            }
        }
        for (action, ends) in [
            (OrderAction::Pause, OrderAction::Resume),
            (rate, OrderAction::RateReset),
            (OrderAction::CircuitOpen, OrderAction::CircuitResume),
        ] {
            assert!(ends.is_end() && !action.is_end());
            assert_eq!(order(smtp(), action).key(), order(smtp(), ends).key());
        }
    }

    #[test]
    fn what_is_not_known_is_an_error_and_no_other_order() {
        for (target, action) in [
            (r#""queue":"a.b.do""#, r#""dance""#),
            (r#""queue":"a.b.do""#, r#"{"rate":{"count":0,"period_ms":1000}}"#),
            (r#""queue":"a.b.do""#, r#"{"rate":{"count":1,"period_ms":0}}"#),
            (r#""galaxy":"m31""#, r#""pause""#),
            (r#""queue":"no name""#, r#""pause""#),
        ] {
            let json = format!(r#"{{{target},"action":{action},"by":"","reason":"","at":1,"until":null}}"#);
            assert!(serde_json::from_str::<Order>(&json).is_err(), "{json}");
        }
        let later = r#"{"queue":"a.b.do","action":"pause","by":"","reason":"","at":1,"colour":{"is":"red"}}"#;
        assert!(serde_json::from_str::<Order>(later).is_ok(), "fields are added");
    }

    #[test]
    fn an_order_stands_until_its_time() {
        let at = Timestamp::from_millis;
        let pause = Order { until: Some(at(10)), ..order(smtp(), OrderAction::CircuitOpen) };
        assert!(pause.stands(at(9)) && !pause.stands(at(10)));
        assert!(!order(smtp(), OrderAction::CircuitResume).stands(at(1)));
    }
}
