//! Two transactions side by side: what they have in common, and where they part.
//!
//! The makers' own way to find a fault: "by comparing this event flow to one where everything worked as it should have,
//! we could identify the issue". Messages are matched by their way from the root, by names and queues and never by time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::cascade::{Cascade, JobData, Kind};
use super::lines::{self, Item};

/// How deep two trees are compared: far below the limit of hops.
const MAX_DEPTH: usize = 256;

/// How two transactions differ; see [`Cascade::diff`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diff {
    /// A line for each message or job that either of them has, parents first.
    pub lines: Vec<Difference>,
    /// The place of the first line that is not [alike](Difference::alike).
    pub first: Option<usize>,
}

/// One message or job in both transactions, or in one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Names and queues from the root, joined by ` → `.
    pub path: String,
    /// How deep it hangs.
    pub depth: usize,
    /// What the first says of it; `None` where it does not have it.
    pub a: Option<Side>,
    /// What the second says of it.
    pub b: Option<Side>,
    /// Whether both have it, in the same state after as many attempts with the same kinds of failures.
    pub alike: bool,
}

/// What one transaction says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Side {
    /// The message's or the job's own text, such as `pheidi → on org.payment.processed`.
    pub subject: String,
    /// Its state in words; empty for a message that is no job.
    pub status: String,
    /// How long it took from its first start to its last end.
    #[serde(rename = "took_us", serialize_with = "micros")]
    pub took: Option<Duration>,
    /// The last error, where there was one.
    pub error: Option<Arc<str>>,
    /// The version of the service that worked it last.
    pub version: Option<Arc<str>>,
}

fn micros<S: serde::Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    serde::Serialize::serialize(&micros, serializer)
}

impl Cascade {
    /// Compares this transaction with another.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Diff {
        let (a, b) = (sides(self), sides(other));
        let mut paths: Vec<&Path> = a.iter().map(|(path, _)| path).collect();
        // What only the other has stands behind its nearest ancestor's last descendant.
        for (path, _) in &b {
            if !a.iter().any(|(known, _)| known == path) {
                let parent = &path.0[..path.0.len() - 1];
                let place = paths
                    .iter()
                    .rposition(|known| known.0.starts_with(parent))
                    .map_or(paths.len(), |n| n + 1);
                paths.insert(place, path);
            }
        }
        let find = |sides: &[(Path, Side)], path: &Path| {
            sides.iter().find(|(known, _)| known == path).map(|(_, side)| side.clone())
        };
        let lines: Vec<Difference> = paths
            .into_iter()
            .map(|path| {
                let (a, b) = (find(&a, path), find(&b, path));
                let alike = match (&a, &b) {
                    (Some(a), Some(b)) => a.status == b.status,
                    _ => false,
                };
                let names: Vec<&str> = path.0.iter().map(|(name, _)| name.as_str()).collect();
                Difference { path: names.join(" → "), depth: path.0.len() - 1, a, b, alike }
            })
            .collect();
        let first = lines.iter().position(|line| !line.alike);
        Diff { lines, first }
    }
}

impl Diff {
    /// Whether nothing differs but times.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

/// Names from the root, each with its number among equal siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path(Vec<(String, u32)>);

impl Path {
    fn below(&self, name: &str, seen: &mut BTreeMap<Vec<(String, u32)>, u32>) -> Self {
        let mut path = self.0.clone();
        path.push((name.to_owned(), 0));
        let number = seen.entry(path.clone()).or_default();
        if let Some(last) = path.last_mut() {
            last.1 = *number;
        }
        *number += 1;
        Self(path)
    }
}

/// Each message and job in the order of the picture, parents first.
fn sides(cascade: &Cascade) -> Vec<(Path, Side)> {
    let mut seen = BTreeMap::new();
    // Where messages hang, and where they themselves are.
    let mut above: BTreeMap<usize, Path> = BTreeMap::new();
    let mut own_paths: BTreeMap<usize, Path> = BTreeMap::new();
    let mut sides = Vec::new();
    let root = Path(Vec::new());
    for item in lines::rows(cascade).map(|row| row.item) {
        let (Item::Message(n) | Item::Job(n, _) | Item::Unseen(n)) = item;
        let message = &cascade.messages[n];
        if message.depth > MAX_DEPTH {
            continue;
        }
        let line = lines::of(cascade, item, None);
        let side =
            Side { subject: line.subject, status: line.status, took: None, error: None, version: None };
        match item {
            Item::Message(_) => {
                let path = above.get(&n).unwrap_or(&root).below(message.name().unwrap_or("?"), &mut seen);
                let own = message.own_job().map(|own| &message.jobs[own]);
                let of_own = own.into_iter().flat_map(|job| &job.children);
                for &child in of_own.chain(&message.outside) {
                    above.insert(child, path.clone());
                }
                own_paths.insert(n, path.clone());
                let mut side = own.map_or(side.clone(), |job| with_job(side, job));
                // An event that is heard has no state of its own.
                if message.kind() == Kind::Unknown {
                    side.status = "its publishing is not recorded".to_owned();
                }
                sides.push((path, side));
            }
            Item::Job(_, j) => {
                let job = &message.jobs[j];
                let path = own_paths.get(&n).unwrap_or(&root).below(&job.queue, &mut seen);
                for &child in &job.children {
                    above.insert(child, path.clone());
                }
                sides.push((path, with_job(side, job)));
            }
            Item::Unseen(_) => {}
        }
    }
    sides
}

fn with_job(side: Side, job: &JobData) -> Side {
    let start = job.attempts.iter().map(|attempt| attempt.started).min();
    let end = job.attempts.iter().map(|attempt| attempt.started + attempt.took).max();
    let took = match (job.attempts.as_slice(), start, end) {
        ([only], _, _) => Some(only.took),
        (_, Some(start), Some(end)) => Some(end.since(start)),
        _ => None,
    };
    Side {
        took,
        error: job.attempts.iter().rev().find_map(|attempt| attempt.error.clone()),
        version: job.by.iter().rev().flatten().next().and_then(|by| by.version.clone()),
        ..side
    }
}
