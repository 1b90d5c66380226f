//! Figures of a running system, and what was seen in it that no manifest says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ponos::core::id::Timestamp;
use ponos::core::name::{EventName, QueueName, TaskName};
use ponos_readmodel::{Gap, NameFigures, QueueCounts};

use super::model::{Absent, Figures, Overlay, Seen};
use crate::broker::Session;
use crate::error::CliError;
use crate::system::{Node, System};
use crate::text;
use crate::view::{self, QueueNow, View};

/// After so long an application counts as gone.
const GONE: Duration = Duration::from_secs(7 * 86_400);

/// Rates are not of less time than this.
const SHORTEST: Duration = Duration::from_secs(60);

/// Everything that records and the broker add to manifests.
///
/// # Errors
///
/// When the files cannot be read.
pub(super) async fn overlay(
    system: &System,
    window: Duration,
    view: &View,
    session: &Session,
) -> Result<Overlay, CliError> {
    let now = text::now();
    let since = view::ago(window);
    let names = view.model.names(since).map_err(view::broken)?;
    let missing = view.model.gaps(since, now).map_err(view::broken)?;
    let since = Timestamp::from_millis(since.as_millis() / 3_600_000 * 3_600_000);
    let last_seen = last_seen(view)?;
    // Nothing is known of the time before the first instance was seen.
    let first = last_seen.values().map(|(first, _)| *first).min().unwrap_or(since).max(since);
    let mut drawing = Drawing {
        system,
        seconds: now.since(first).max(SHORTEST).as_secs_f64(),
        overlay: Overlay::default(),
        queues: BTreeMap::new(),
    };
    drawing.declared_queues();
    for figures in &names {
        drawing.name(figures);
    }
    // Without its list RabbitMQ still answers for queues that are known.
    for stats in session.queues(None).await.unwrap_or_default() {
        drawing.queue(&stats.queue);
    }
    let queues: BTreeSet<QueueName> = drawing.queues.keys().cloned().collect();
    let states = view.queues_now(session, &system.manifests, &queues).await?;
    let busy: BTreeSet<String> = states
        .iter()
        .filter(|(_, state)| state.consumers.is_some_and(|consumers| consumers > 0))
        .map(|(queue, _)| queue.app().to_string())
        .collect();
    drawing.states(states);
    let not_seen = system.apps.keys().filter(|app| !busy.contains(*app)).filter_map(|app| {
        let last = last_seen.get(app).map(|(_, last)| *last);
        let gone = last.is_none_or(|last| now.since(last) > GONE);
        gone.then(|| Absent { app: app.clone(), last_seen: last })
    });
    let sent: BTreeSet<&str> = names.iter().map(|one| &*one.name).collect();
    drawing.overlay.seen = Some(Seen {
        since,
        window,
        not_seen: not_seen.collect(),
        unused: system.names().filter(|name| !sent.contains(name)).map(str::to_owned).collect(),
        records_missing: missing.iter().map(Gap::entries).sum(),
    });
    Ok(drawing.overlay)
}

/// When each application was seen first and last.
fn last_seen(view: &View) -> Result<BTreeMap<String, (Timestamp, Timestamp)>, CliError> {
    let mut seen: BTreeMap<String, (Timestamp, Timestamp)> = BTreeMap::new();
    for instance in view.model.instances().map_err(view::broken)? {
        let times = (instance.first_at, instance.last_at);
        let (first, last) = seen.entry(instance.origin.app.to_string()).or_insert(times);
        *first = (*first).min(times.0);
        *last = (*last).max(times.1);
    }
    Ok(seen)
}

struct Drawing<'a> {
    system: &'a System,
    /// How long it was looked at.
    seconds: f64,
    overlay: Overlay,
    /// Queues, and the nodes that they belong to.
    queues: BTreeMap<QueueName, Node>,
}

impl Drawing<'_> {
    fn declared_queues(&mut self) {
        for (event, declared) in &self.system.events {
            for (app, reaction) in &declared.listeners {
                if let Ok(queue) = QueueName::parse(&reaction.queue) {
                    let node = Node::Reaction { app: app.clone(), event: event.clone() };
                    self.queues.insert(queue, node);
                }
            }
        }
        for task in self.system.tasks.keys() {
            if let Ok(queue) = QueueName::parse(task) {
                self.queues.insert(queue, Node::Task(task.clone()));
            }
        }
    }

    /// What was published under a name, and what became of it.
    fn name(&mut self, figures: &NameFigures) {
        let name = figures.name.to_string();
        let node = if figures.event { Node::Event(name.clone()) } else { Node::Task(name.clone()) };
        let published: u64 = figures.sources.iter().map(|source| source.published).sum();
        self.overlay.nodes.insert(node.clone(), self.rated(published));
        for source in figures.sources.iter().filter(|source| source.published > 0) {
            if let Some(from) = &source.from {
                let edge = (self.source(from), node.clone());
                self.overlay.edges.insert(edge, self.rated(source.published));
            }
        }
        for (queue, counts) in &figures.queues {
            let rated = self.rated(counts.jobs());
            let worked = if figures.event {
                let app = queue.split('.').next().unwrap_or(queue).to_owned();
                let reaction = Node::Reaction { app, event: name.clone() };
                self.overlay.edges.insert((node.clone(), reaction.clone()), rated.clone());
                self.overlay.nodes.insert(reaction.clone(), rated);
                reaction
            } else {
                // What was created before the records began is known by its jobs.
                if published == 0 {
                    self.overlay.nodes.insert(node.clone(), rated);
                }
                node.clone()
            };
            self.overlay.nodes.entry(worked.clone()).or_default().failed = failed(counts);
            if let Ok(queue) = QueueName::parse(queue) {
                self.queues.entry(queue).or_insert(worked);
            }
        }
    }

    fn rated(&self, count: u64) -> Figures {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = count as f64 / self.seconds;
        Figures { count: Some(count), rate: Some(rate), ..Figures::default() }
    }

    /// Who published something: an application outside of its tasks, or the handler of a queue.
    fn source(&self, from: &str) -> Node {
        if !from.contains('.') {
            return Node::Outside(from.to_owned());
        }
        let known = QueueName::parse(from).ok().and_then(|queue| self.queues.get(&queue).cloned());
        known.or_else(|| node_of(from)).unwrap_or_else(|| Node::Task(from.to_owned()))
    }

    /// A queue of the broker, which may be in no manifest.
    fn queue(&mut self, queue: &QueueName) {
        if self.queues.contains_key(queue) {
            return;
        }
        let Some(node) = node_of(queue.as_str()) else { return };
        if let Node::Reaction { event, .. } = &node {
            let edge = (Node::Event(event.clone()), node.clone());
            self.overlay.edges.entry(edge).or_default();
        }
        self.overlay.nodes.entry(node.clone()).or_default();
        self.queues.insert(queue.clone(), node);
    }

    fn states(&mut self, states: BTreeMap<QueueName, QueueNow>) {
        for (queue, state) in states {
            let Some(node) = self.queues.get(&queue) else { continue };
            let figures = self.overlay.nodes.entry(node.clone()).or_default();
            figures.consumers = state.consumers;
            figures.waiting = state.waiting;
            let mut held = state.held();
            if state.missing {
                held.push("⚠ no such queue on the broker".to_owned());
            }
            figures.held = (!held.is_empty()).then(|| held.join(", "));
        }
    }
}

/// What a queue is by its name alone; `None` for those that only keep jobs.
fn node_of(queue: &str) -> Option<Node> {
    let (app, rest) = queue.split_once('.')?;
    if rest.starts_with("suspect.") {
        return None;
    }
    if EventName::parse(rest).is_ok() {
        return Some(Node::Reaction { app: app.to_owned(), event: rest.to_owned() });
    }
    TaskName::parse(queue).is_ok().then(|| Node::Task(queue.to_owned()))
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn failed(counts: &QueueCounts) -> Option<f64> {
    (counts.jobs() > 0).then(|| counts.failed as f64 / counts.jobs() as f64)
}
