//! A service's definition as versioned JSON: what it publishes, hears and does, and under which policies.
//!
//! It is printed from the definition alone, without state, broker or network, so that tools can draw, check and
//! diff a system that is not running.
//!
//! # Versions
//!
//! `ponos_manifest` is 1. Within a version fields are only added; a reader ignores what it does not know and refuses
//! a higher version. Durations are whole milliseconds and say so in their names, because JSON has no durations.
//!
//! ```
//! use ponos_core::manifest::Manifest;
//!
//! let manifest = Manifest::from_json(r#"{
//!   "ponos_manifest": 1,
//!   "app": "pheidi",
//!   "emits": [],
//!   "events": {"org.payment.processed": {"schema": {"type": "object"}}, "email.sent": {"schema": {}}},
//!   "reactions": [{"event": "org.payment.processed", "queue": "pheidi.org.payment.processed",
//!                  "creates": ["pheidi.email.send"], "policy": {"concurrency": 8, "prefetch": 64}}],
//!   "tasks": [{"name": "pheidi.email.send", "queue": "pheidi.email.send", "emits": ["email.sent"],
//!              "schema": {}, "recovers": true, "policy": {"concurrency": 8, "prefetch": 64}}]
//! }"#).unwrap();
//! assert_eq!(manifest.reactions[0].creates[0], "pheidi.email.send");
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::Topology;
use crate::name::{AppName, EventName, NameError, QueueName, TaskName};
use crate::policy::{BreakerConfig, DEFAULT_HOP_LIMIT, MaxRetries, Rate, RetryPolicy};

/// The version of the manifest that this crate writes.
pub const MANIFEST_VERSION: u32 = 1;

/// What a service is, as far as its types and policies tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this form, [`MANIFEST_VERSION`].
    pub ponos_manifest: u32,
    /// The application's name.
    pub app: String,
    /// The version of the service, where it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How many hops a message may have taken, at least 1, where the service says so; otherwise [`DEFAULT_HOP_LIMIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hop_limit: Option<u32>,
    /// Events that the application emits outside its tasks (a webhook, an HTTP API).
    #[serde(default)]
    pub emits: Vec<String>,
    /// Every event that the service emits or hears, by name, as this service knows it.
    #[serde(default)]
    pub events: BTreeMap<String, EventManifest>,
    /// Which event makes which tasks.
    #[serde(default)]
    pub reactions: Vec<ReactionManifest>,
    /// The tasks that the service performs.
    #[serde(default)]
    pub tasks: Vec<TaskManifest>,
    /// Whether it carries out standing orders.
    #[serde(default, skip_serializing_if = "OrdersManifest::is_followed")]
    pub orders: OrdersManifest,
}

/// What a service does with standing orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OrdersManifest {
    /// It carries them out.
    #[default]
    Followed,
    /// It only tells of them in its log.
    Ignored,
    /// Something that a later version knows.
    #[serde(other)]
    Unknown,
}

impl OrdersManifest {
    fn is_followed(&self) -> bool {
        *self == Self::Followed
    }
}

/// An event as one service knows it. A subscriber's own struct has just the fields that it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventManifest {
    /// The JSON Schema (2020-12) of the payload, without `tid`.
    pub schema: serde_json::Value,
}

/// A reaction: an event heard, and the tasks made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReactionManifest {
    /// The event.
    pub event: String,
    /// The queue that hears it.
    pub queue: String,
    /// The tasks that the reaction's return type names.
    pub creates: Vec<String>,
    /// Whether it is a prototype, whose queue is bounded and forgotten when nobody listens: tools raise no alarm for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prototype: bool,
    /// Whether it may create nothing (it returns an `Option` or a `Vec`): that is what can end a cycle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditional: bool,
    /// How the queue is worked.
    pub policy: PolicyManifest,
}

/// A task and its handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskManifest {
    /// The task.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// The events that its handler may emit.
    pub emits: Vec<String>,
    /// The JSON Schema (2020-12) of the payload, without `tid`.
    pub schema: serde_json::Value,
    /// Whether a recovery function is there.
    pub recovers: bool,
    /// How the queue is worked.
    pub policy: PolicyManifest,
}

/// How a queue is worked. What is absent is off, or does not apply to reactions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyManifest {
    /// Handlers that run at once in a process.
    pub concurrency: u32,
    /// Jobs that a process holds.
    pub prefetch: u32,
    /// The time limit of one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When a failed attempt is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryManifest>,
    /// How many starts are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateManifest>,
    /// When the listener is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerManifest>,
    /// The dependency whose breaker and limit the handler shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<String>,
}

/// When a failed attempt is repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryManifest {
    /// The delay after the first attempt.
    pub min_ms: u64,
    /// The longest delay, without jitter.
    pub max_ms: u64,
    /// What each delay is of the one before.
    pub factor: f64,
    /// The largest part of a delay that is added at random.
    pub jitter: f64,
    /// Retries before the handler gives up; absent for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// How old a job may become.
    pub max_age_ms: u64,
}

/// How many starts are allowed, over all instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateManifest {
    /// So many starts …
    pub count: u32,
    /// … in so many milliseconds.
    pub period_ms: u64,
    /// How many may come at once after a quiet time.
    #[serde(default = "one")]
    pub burst: u32,
}

fn one() -> u32 {
    1
}

/// When the listener is cut off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerManifest {
    /// The time that is looked at.
    pub window_ms: u64,
    /// Outcomes needed in the window.
    pub min_calls: u32,
    /// The part of failures that opens it.
    pub failure_ratio: f64,
    /// Failures in a row that open it.
    pub consecutive: u32,
    /// How long it stays open first.
    pub open_ms: u64,
    /// How long it stays open at most.
    pub open_max_ms: u64,
    /// Successes that close it.
    pub close_after: u32,
}

/// Whole milliseconds, rounded up, so that a manifest never says 0 for something.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl From<RetryPolicy> for RetryManifest {
    fn from(policy: RetryPolicy) -> Self {
        Self {
            min_ms: millis(policy.backoff.min),
            max_ms: millis(policy.backoff.max),
            factor: policy.backoff.factor,
            jitter: policy.backoff.jitter,
            max_retries: match policy.max_retries {
                MaxRetries::Limited(retries) => Some(retries),
                MaxRetries::Unlimited => None,
            },
            max_age_ms: millis(policy.max_age),
        }
    }
}

impl From<BreakerConfig> for BreakerManifest {
    fn from(config: BreakerConfig) -> Self {
        Self {
            window_ms: millis(config.window),
            min_calls: config.min_calls,
            failure_ratio: config.failure_ratio,
            consecutive: config.consecutive,
            open_ms: millis(config.open_initial),
            open_max_ms: millis(config.open_max),
            close_after: config.close_after,
        }
    }
}

impl From<Rate> for RateManifest {
    fn from(rate: Rate) -> Self {
        Self { count: rate.count(), period_ms: millis(rate.period()), burst: rate.burst }
    }
}

/// A text that is no manifest that this crate can read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// When the text is no manifest, or one of a higher version.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            ponos_manifest: u32,
        }
        let Version { ponos_manifest } = serde_json::from_str(text)
            .map_err(|e| ManifestError(format!("this is no Ponos manifest: {e}")))?;
        if ponos_manifest > MANIFEST_VERSION {
            return Err(ManifestError(format!(
                "the manifest has version {ponos_manifest}, this program reads up to {MANIFEST_VERSION}: update it"
            )));
        }
        serde_json::from_str(text).map_err(|e| ManifestError(format!("the manifest is damaged: {e}")))
    }

    /// How many hops a message of the application may have taken. 0 is never meant and counts as absent.
    #[must_use]
    pub fn effective_hop_limit(&self) -> u32 {
        self.hop_limit.filter(|limit| *limit > 0).unwrap_or(DEFAULT_HOP_LIMIT)
    }

    /// Every event that the application emits, in its tasks or outside of them.
    ///
    /// # Errors
    ///
    /// When a name is none.
    pub fn emitted(&self) -> Result<Vec<EventName>, ManifestError> {
        let names: BTreeSet<&String> =
            self.emits.iter().chain(self.tasks.iter().flat_map(|task| &task.emits)).collect();
        names.into_iter().map(|name| EventName::unchecked_verb(name).map_err(wrong_name)).collect()
    }

    /// What a service with this definition makes exist when it starts.
    ///
    /// # Errors
    ///
    /// When a name is none.
    pub fn topology(&self) -> Result<Topology, ManifestError> {
        let app = AppName::parse(&self.app).map_err(wrong_name)?;
        let event = |name: &String| EventName::unchecked_verb(name).map_err(wrong_name);
        let mut events = self.emitted()?;
        let mut subscriptions = Vec::new();
        let mut prototypes = Vec::new();
        for reaction in &self.reactions {
            let event = event(&reaction.event)?;
            let queue = QueueName::subscription(&app, &event);
            if reaction.prototype {
                prototypes.push(queue.clone());
            }
            subscriptions.push((queue, event.clone()));
            events.push(event);
        }
        events.sort();
        events.dedup();
        let tasks: BTreeSet<&String> = self
            .tasks
            .iter()
            .map(|task| &task.name)
            .chain(self.reactions.iter().flat_map(|reaction| &reaction.creates))
            .collect();
        let tasks = tasks.into_iter().map(|name| {
            let task = TaskName::unchecked_verb(name).map_err(wrong_name)?;
            if task.app() != app {
                return Err(ManifestError(format!(
                    "the task `{task}` is not one of the application `{app}`"
                )));
            }
            Ok(QueueName::task(&task))
        });
        let tasks = tasks.collect::<Result<_, _>>()?;
        Ok(Topology { app: Some(app), events, subscriptions, tasks, prototypes })
    }

    /// Writes the manifest, indented, with a line break at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("texts and numbers serialise");
        text.push('\n');
        text
    }
}

fn wrong_name(error: NameError) -> ManifestError {
    ManifestError(format!("the manifest is damaged: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_in_whole_milliseconds_rounded_up() {
        let retry = RetryManifest::from(RetryPolicy::default());
        assert_eq!((retry.min_ms, retry.max_ms, retry.max_retries), (1_000, 300_000, Some(10)));
        let breaker = BreakerManifest::from(BreakerConfig::default());
        assert_eq!((breaker.window_ms, breaker.open_ms, breaker.close_after), (60_000, 10_000, 3));
        assert_eq!(RateManifest::from(Rate::new(7, Duration::from_micros(1_500))).period_ms, 2);
    }

    #[test]
    fn a_higher_version_is_refused_and_an_unknown_field_is_not() {
        let error = Manifest::from_json(r#"{"ponos_manifest":2,"app":7}"#).unwrap_err().to_string();
        assert!(error.contains("update it"), "{error}");
        let manifest = Manifest::from_json(r#"{"ponos_manifest":1,"app":"a","later":{}}"#).unwrap();
        assert_eq!(Manifest::from_json(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn the_topology_has_what_reactions_create_although_another_process_may_work_it() {
        let manifest = Manifest::from_json(
            r#"{"ponos_manifest":1,"app":"pheidi","emits":["email.asked"],
                "reactions":[{"event":"org.payment.processed","queue":"pheidi.org.payment.processed",
                              "creates":["pheidi.email.send"],"policy":{"concurrency":1,"prefetch":1}}]}"#,
        )
        .unwrap();
        let topology = manifest.topology().unwrap();
        assert_eq!(topology.app.unwrap(), "pheidi");
        assert_eq!(topology.tasks, [QueueName::from_checked("pheidi.email.send")]);
        assert_eq!(topology.subscriptions[0].0, "pheidi.org.payment.processed");
        assert_eq!(topology.events.len(), 2);
        assert!(topology.prototypes.is_empty());
        let mut prototype = manifest.clone();
        prototype.reactions[0].prototype = true;
        assert_eq!(prototype.topology().unwrap().prototypes, ["pheidi.org.payment.processed"]);
        let strange = Manifest { app: "Pheidi".into(), ..manifest };
        assert!(strange.topology().unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn a_hop_limit_is_the_default_unless_the_manifest_says_one() {
        let read = |json: &str| Manifest::from_json(json).unwrap();
        let silent = read(r#"{"ponos_manifest":1,"app":"a"}"#);
        assert_eq!((silent.hop_limit, silent.effective_hop_limit()), (None, DEFAULT_HOP_LIMIT));
        assert!(!silent.to_json().contains("hop_limit"), "as older versions wrote it");
        assert_eq!(read(r#"{"ponos_manifest":1,"app":"a","hop_limit":7}"#).effective_hop_limit(), 7);
        let zero = read(r#"{"ponos_manifest":1,"app":"a","hop_limit":0}"#);
        assert_eq!(zero.effective_hop_limit(), DEFAULT_HOP_LIMIT);
    }

    #[test]
    fn a_reaction_is_a_prototype_only_if_it_says_so() {
        let written = r#"{"event":"a.happened","queue":"b.a.happened","creates":[],"policy":{"concurrency":1,"prefetch":1}}"#;
        let reaction: ReactionManifest = serde_json::from_str(written).unwrap();
        assert!(!reaction.prototype && !reaction.conditional, "as older versions wrote it");
        assert_eq!(serde_json::to_string(&reaction).unwrap(), written);
        let prototype =
            serde_json::to_value(ReactionManifest { prototype: true, conditional: true, ..reaction });
        let prototype = prototype.unwrap();
        assert_eq!((&prototype["prototype"], &prototype["conditional"]), (&true.into(), &true.into()));
    }
}
