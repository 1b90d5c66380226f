//! What records and the broker tell of an event or a task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;
use ponos_readmodel::{Following, NameFigures, QueueCounts};
use serde::Serialize;

use super::offline::{self, Explanation};
use crate::broker::Session;
use crate::error::CliError;
use crate::system::System;
use crate::text;
use crate::view::{self, QueueNow, View};

/// In how many transactions it is looked at what followed.
const TRANSACTIONS: usize = 1000;

/// What is known of the running system.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    #[serde(skip)]
    pub(super) window: Duration,
    /// Figures begin with this hour.
    since: Timestamp,
    /// Whether a manifest knows the name.
    pub(super) declared: bool,
    /// How many were published.
    pub(super) published: u64,
    /// How many the broker did not take, or nobody knows.
    pub(super) unpublished: u64,
    pub(super) sources: Vec<Source>,
    pub(super) queues: Vec<Queue>,
    pub(super) followed_by: FollowedBy,
    /// How many entries of that time are missing, so that figures are lower than they should be.
    pub(super) records_missing: u64,
}

/// Who published it.
#[derive(Debug, Serialize)]
pub(super) struct Source {
    /// The queue of the handler, or the application; `None` where neither is known.
    pub(super) from: Option<Arc<str>>,
    pub(super) published: u64,
    /// Whether a manifest says so, where it could: what is created without a reaction is in none.
    pub(super) declared: Option<bool>,
}

/// Who takes it.
#[derive(Debug, Serialize)]
pub(super) struct Queue {
    pub(super) app: String,
    pub(super) queue: String,
    pub(super) declared: bool,
    #[serde(flatten)]
    pub(super) now: QueueNow,
    /// Jobs that ended.
    pub(super) jobs: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) attempts: u64,
    /// Attempts that were tried again.
    pub(super) retried: u64,
    #[serde(rename = "wait_p95_ms", serialize_with = "millis")]
    pub(super) wait_p95: Option<Duration>,
}

/// What came of it, in the last transactions that had it.
#[derive(Debug, Serialize)]
pub(super) struct FollowedBy {
    pub(super) transactions: u64,
    pub(super) failed: u64,
    pub(super) pending: u64,
    #[serde(rename = "settled_p50_ms", serialize_with = "millis")]
    pub(super) p50: Option<Duration>,
    #[serde(rename = "settled_p95_ms", serialize_with = "millis")]
    pub(super) p95: Option<Duration>,
    #[serde(rename = "settled_p99_ms", serialize_with = "millis")]
    pub(super) p99: Option<Duration>,
    pub(super) names: Vec<Follower>,
}

#[derive(Debug, Serialize)]
pub(super) struct Follower {
    /// Hops from here.
    pub(super) after: u32,
    pub(super) kind: &'static str,
    pub(super) name: Arc<str>,
    pub(super) transactions: u64,
}

fn millis<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_micros() as f64 / 1e3).serialize(serializer)
}

/// All that manifests, records and the broker know of a name.
///
/// # Errors
///
/// When none of them knows it, or the files cannot be read.
pub(super) async fn explain(
    name: &str,
    system: System,
    window: Duration,
    view: &View,
    session: &Session,
) -> Result<(Explanation, Live), CliError> {
    let declared = Explanation::of(name, &system);
    let is_declared = declared.is_some();
    let explanation = match declared {
        Some(explanation) => explanation,
        None => seen(name, &system, view)?,
    };
    let since = view::ago(window);
    let names = view.model.names(since).map_err(view::broken)?;
    let figures = names.into_iter().find(|one| *one.name == *name && one.event == explanation.is_event());
    let (sources, counts) = match figures {
        Some(NameFigures { sources, queues, .. }) => (sources, queues),
        None => (Vec::new(), Vec::new()),
    };
    let gaps = view.model.gaps(since, text::now()).map_err(view::broken)?;
    let queues = queues(&explanation, &system, &counts, view, session).await?;
    let following = view.model.followed_by(name, TRANSACTIONS).map_err(view::broken)?;
    let source = |one: &ponos_readmodel::SourceFigures| Source {
        from: one.from.clone(),
        published: one.published,
        declared: one.from.as_deref().and_then(|from| explanation.declares_source(from)),
    };
    let live = Live {
        window,
        since: Timestamp::from_millis(since.as_millis() / 3_600_000 * 3_600_000),
        declared: is_declared,
        published: sources.iter().map(|one| one.published).sum(),
        unpublished: sources.iter().map(|one| one.unpublished).sum(),
        sources: sources.iter().filter(|one| one.published > 0).map(source).collect(),
        queues,
        followed_by: FollowedBy::of(following),
        records_missing: gaps.iter().map(ponos_readmodel::Gap::entries).sum(),
    };
    Ok((explanation, live))
}

/// A name that only records know.
fn seen(name: &str, system: &System, view: &View) -> Result<Explanation, CliError> {
    let names = view.model.names(Timestamp::EPOCH).map_err(view::broken)?;
    let mut same = names.iter().filter(|one| *one.name == *name);
    let first = same.next();
    if let Some(first) = first {
        return Ok(Explanation::undeclared(name, first.event || same.any(|one| one.event)));
    }
    let known = system.names().chain(names.iter().map(|one| &*one.name));
    Err(offline::unknown(name, known, "no manifest and no record knows"))
}

/// Every queue that takes it, as declared or as seen.
async fn queues(
    explanation: &Explanation,
    system: &System,
    counts: &[(Arc<str>, QueueCounts)],
    view: &View,
    session: &Session,
) -> Result<Vec<Queue>, CliError> {
    let declared = explanation.queues();
    let mut names: BTreeSet<&str> = declared.iter().map(String::as_str).collect();
    names.extend(counts.iter().map(|(queue, _)| &**queue));
    let parsed = names.iter().filter_map(|name| QueueName::parse(name).ok()).collect();
    let mut now = view.queues_now(session, &system.manifests, &parsed).await?;
    let none = QueueCounts::default();
    let queue = |name: &str| {
        let counts = counts.iter().find(|(queue, _)| **queue == *name).map_or(&none, |(_, counts)| counts);
        let now = QueueName::parse(name).ok().and_then(|queue| now.remove(&queue));
        Queue {
            app: name.split('.').next().unwrap_or(name).to_owned(),
            queue: name.to_owned(),
            declared: declared.iter().any(|queue| queue == name),
            now: now.unwrap_or_default(),
            jobs: counts.jobs(),
            done: counts.done,
            failed: counts.failed,
            attempts: counts.attempts(),
            retried: counts.retried,
            wait_p95: counts.wait.p95(),
        }
    };
    Ok(names.into_iter().map(queue).collect())
}

impl FollowedBy {
    fn of(following: Following) -> Self {
        let name = |one: ponos_readmodel::Follower| Follower {
            after: one.steps,
            kind: if one.event { "event" } else { "task" },
            name: one.name,
            transactions: one.traces,
        };
        Self {
            transactions: following.traces,
            failed: following.failed,
            pending: following.pending,
            p50: following.settled.p50(),
            p95: following.settled.p95(),
            p99: following.settled.p99(),
            names: following.names.into_iter().map(name).collect(),
        }
    }
}
