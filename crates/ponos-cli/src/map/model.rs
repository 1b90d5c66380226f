//! What is drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ponos::core::id::Timestamp;
use serde::Serialize;

use crate::json;
use crate::system::{Cycle, Depths, Graph, Node, System};
use crate::text;

/// How much of a name is shown, in bytes.
const SHOWN: usize = 200;

/// How many edges or names a remark lists.
const LISTED: usize = 20;

/// Nodes and edges, ready to be drawn in any form.
#[derive(Debug, Serialize)]
pub(crate) struct Map {
    version: u32,
    pub(super) nodes: Vec<MapNode>,
    pub(super) edges: Vec<MapEdge>,
    pub(super) cycles: Vec<MapCycle>,
    longest_chain: Vec<String>,
    /// Of a live system only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) live: Option<Seen>,
}

/// What a live system says beside figures.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Seen {
    /// Figures begin with this hour.
    pub(crate) since: Timestamp,
    #[serde(skip)]
    pub(crate) window: Duration,
    /// Applications that manifests declare and that have not been seen for long, or never.
    pub(crate) not_seen: Vec<Absent>,
    /// Events and tasks that manifests declare and that nobody sent in that time.
    pub(crate) unused: Vec<String>,
    /// How many entries of that time are missing, so that figures are lower than they should be.
    pub(crate) records_missing: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Absent {
    pub(crate) app: String,
    pub(crate) last_seen: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct MapNode {
    /// `event:NAME`, `task:NAME`, `reaction:APP:EVENT` or `outside:APP`.
    pub(super) id: String,
    pub(super) kind: Kind,
    /// The event's or task's name; the application's for the two others.
    pub(super) name: String,
    /// Whose it is; an event is everybody's.
    pub(super) app: Option<String>,
    /// Where its jobs wait.
    pub(super) queue: Option<String>,
    /// The hops that such a message has taken at most.
    pub(super) hops: u32,
    /// A reaction that may create nothing.
    pub(super) conditional: bool,
    pub(super) prototype: bool,
    /// Whether a manifest says that it exists.
    pub(super) declared: bool,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Outside,
    Event,
    Reaction,
    Task,
}

/// From one node to another, as numbers in drawings and as ids in JSON.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MapEdge {
    #[serde(skip)]
    pub(super) ends: (usize, usize),
    pub(super) from: String,
    pub(super) to: String,
    /// Whether it leads back to where a chain has been.
    pub(super) closes_cycle: bool,
    /// Whether a manifest says it.
    pub(super) declared: bool,
    /// Whether it was observed and a manifest should say it: what is created without a reaction is in none.
    pub(super) drift: bool,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

#[derive(Debug, Serialize)]
pub(super) struct MapCycle {
    pub(super) messages: Vec<String>,
    pub(super) guarded: bool,
}

/// What a live system tells of a node or an edge; what is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Messages or jobs that were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
    /// Messages per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// The part of jobs that failed for good, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consumers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting: Option<u64>,
    /// What keeps jobs: a pause, a circuit; a text of somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<String>,
}

/// What a live system adds to what manifests tell. Offline it is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlay {
    pub(crate) nodes: BTreeMap<Node, Figures>,
    /// Edges that were seen.
    pub(crate) edges: BTreeMap<(Node, Node), Figures>,
    pub(crate) seen: Option<Seen>,
}

impl Map {
    pub(crate) fn of(system: &System, overlay: &Overlay) -> Self {
        let declared = Graph::of(system);
        let graph = declared.with(overlay.nodes.keys(), overlay.edges.keys());
        let depths = Depths::of(&graph);
        let closing = graph.walk().closing;
        let nodes: Vec<MapNode> = graph
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let figures = overlay.nodes.get(node).cloned().unwrap_or_default();
                // An application that is known may emit outside of its tasks: the edge says whether it should.
                let is_known = matches!(node, Node::Outside(app) if system.apps.contains_key(app));
                let declared = is_known || declared.find(node).is_some();
                MapNode { hops: depths.hops[number], declared, figures, ..MapNode::of(system, node) }
            })
            .collect();
        let known: BTreeSet<(&Node, &Node)> = declared.edges().collect();
        let edges = graph.next.iter().enumerate().flat_map(|(from, to)| to.iter().map(move |to| (from, *to)));
        let edges = edges.map(|(from, to)| {
            let ends = (graph.nodes[from].clone(), graph.nodes[to].clone());
            let declared = known.contains(&(&ends.0, &ends.1));
            let in_code = matches!(ends, (Node::Outside(_) | Node::Task(_), Node::Task(_)));
            MapEdge {
                ends: (from, to),
                from: nodes[from].id.clone(),
                to: nodes[to].id.clone(),
                closes_cycle: closing.contains(&(from, to)),
                declared,
                drift: !declared && !in_code,
                figures: overlay.edges.get(&ends).cloned().unwrap_or_default(),
            }
        });
        let cycles = Cycle::all(system, &declared).into_iter().map(|cycle| MapCycle {
            messages: cycle.messages().into_iter().map(str::to_owned).collect(),
            guarded: cycle.guarded,
        });
        let longest = depths.longest(&graph).into_iter().map(|node| node.name().to_owned());
        Self {
            version: json::VERSION,
            edges: edges.collect(),
            cycles: cycles.collect(),
            longest_chain: longest.collect(),
            live: overlay.seen.clone(),
            nodes,
        }
    }

    /// The nodes that a node leads to.
    pub(super) fn after(&self, node: usize) -> Vec<(&MapEdge, usize)> {
        self.edges.iter().filter(|edge| edge.ends.0 == node).map(|edge| (edge, edge.ends.1)).collect()
    }

    /// The nodes that lead to a node.
    pub(super) fn before(&self, node: usize) -> Vec<(&MapEdge, usize)> {
        self.edges.iter().filter(|edge| edge.ends.1 == node).map(|edge| (edge, edge.ends.0)).collect()
    }

    /// The nodes of a kind.
    pub(super) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (usize, &MapNode)> {
        self.nodes.iter().enumerate().filter(move |(_, node)| node.kind == kind)
    }

    /// What is not as manifests say, each in a line that is safe to be shown; the flag is for what is bad.
    pub(super) fn remarks(&self) -> Vec<(bool, String)> {
        let mut remarks = Vec::new();
        let ends = |edge: &MapEdge| {
            format!("{} → {}", self.nodes[edge.ends.0].label(), self.nodes[edge.ends.1].label())
        };
        let in_code = self.edges.iter().filter(|edge| !edge.declared && !edge.drift).map(|edge| {
            let mut words = vec![ends(edge)];
            words.extend(edge.figures.words());
            words.join("  ")
        });
        let in_code: Vec<String> = in_code.collect();
        if !in_code.is_empty() {
            remarks.push((false, format!("created without a reaction: {}", listed(&in_code))));
        }
        let drift: Vec<String> = self.edges.iter().filter(|edge| edge.drift).map(ends).collect();
        if !drift.is_empty() {
            let edges = text::count(drift.len() as u64, "observed edge");
            remarks.push((true, format!("drift: {edges} not in any manifest ({})", listed(&drift))));
        }
        let told: BTreeSet<usize> =
            self.edges.iter().filter(|edge| edge.drift).flat_map(|edge| [edge.ends.0, edge.ends.1]).collect();
        let strange =
            self.nodes.iter().enumerate().filter(|(number, node)| {
                !node.declared && node.kind != Kind::Outside && !told.contains(number)
            });
        let strange: Vec<String> = strange.map(|(_, node)| node.label()).collect();
        if !strange.is_empty() {
            remarks.push((true, format!("drift: in no manifest: {}", listed(&strange))));
        }
        let Some(live) = &self.live else { return remarks };
        for absent in &live.not_seen {
            let app = label(&absent.app);
            let now = text::now();
            remarks.push((
                true,
                match absent.last_seen {
                    Some(at) => format!("{app} has not been seen for {}", text::duration(now.since(at))),
                    None => format!("{app} is declared and has never been seen"),
                },
            ));
        }
        if !live.unused.is_empty() {
            let unused: Vec<String> = live.unused.iter().map(|name| label(name)).collect();
            let window = crate::amount::show_duration(live.window);
            remarks.push((false, format!("declared and not sent in {window}: {}", listed(&unused))));
        }
        if live.records_missing > 0 {
            let missing = text::count(live.records_missing, "record");
            remarks.push((
                true,
                format!("{missing} of that time are missing: figures are lower than what happened"),
            ));
        }
        remarks
    }

    /// The applications, and the nodes of each.
    pub(super) fn apps(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut apps: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if let Some(app) = &node.app {
                apps.entry(app).or_default().push(number);
            }
        }
        apps
    }
}

impl MapNode {
    fn of(system: &System, node: &Node) -> Self {
        let reaction = match node {
            Node::Reaction { app, event } => {
                system.events.get(event).and_then(|event| event.listeners.get(app))
            }
            _ => None,
        };
        let (kind, id, app, queue) = match node {
            Node::Outside(app) => (Kind::Outside, format!("outside:{app}"), Some(app.clone()), None),
            Node::Event(event) => (Kind::Event, format!("event:{event}"), None, None),
            Node::Reaction { app, event } => {
                let queue = reaction.map_or_else(|| format!("{app}.{event}"), |r| r.queue.clone());
                (Kind::Reaction, format!("reaction:{app}:{event}"), Some(app.clone()), Some(queue))
            }
            Node::Task(task) => {
                let app = system
                    .tasks
                    .get(task)
                    .map_or_else(|| first_segment(task), |known| known.app(task).to_owned());
                (Kind::Task, format!("task:{task}"), Some(app), Some(task.clone()))
            }
        };
        Self {
            id,
            kind,
            name: node.name().to_owned(),
            app,
            queue,
            hops: 0,
            conditional: reaction.is_some_and(|reaction| reaction.conditional),
            prototype: reaction.is_some_and(|reaction| reaction.prototype),
            declared: true,
            figures: Figures::default(),
        }
    }

    /// Its name, safe to be shown.
    pub(super) fn label(&self) -> String {
        label(&self.name)
    }

    /// Everything about it in one line.
    pub(super) fn description(&self) -> String {
        let mut parts = vec![match self.kind {
            Kind::Outside => format!("emitted by {} outside of its tasks", self.label()),
            Kind::Event => format!("event {}", self.label()),
            Kind::Reaction => format!("reaction of {}", self.label()),
            Kind::Task => format!("task {}", self.label()),
        }];
        parts.extend(self.queue.as_deref().map(|queue| format!("queue {}", label(queue))));
        if matches!(self.kind, Kind::Event | Kind::Task) {
            parts.push(match self.hops {
                0 => "starts a chain".to_owned(),
                hops => format!("{} at most", text::count(hops.into(), "hop")),
            });
        }
        parts.extend(self.marks().into_iter().map(str::to_owned));
        parts.extend(self.figures.words());
        parts.join(", ")
    }

    /// What is special about it.
    pub(super) fn marks(&self) -> Vec<&'static str> {
        let marks = [
            (self.conditional, "may create nothing"),
            (self.prototype, "prototype"),
            (!self.declared, "in no manifest"),
        ];
        marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect()
    }
}

impl Figures {
    /// In words; empty where nothing is known.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.rate.filter(|rate| *rate > 0.0).map(rate_in_words));
        words.extend(self.failed.filter(|part| *part > 0.0).map(|part| format!("✖ {:.1}%", part * 100.0)));
        match (self.consumers, self.waiting) {
            (Some(0), _) => words.push("⚠ no consumer".to_owned()),
            (Some(consumers), _) => words.push(text::count(consumers, "consumer")),
            (None, _) => {}
        }
        words.extend(self.waiting.filter(|waiting| *waiting > 0).map(|waiting| format!("{waiting} waiting")));
        words.extend(self.held.as_deref().map(label));
        words
    }
}

/// In the shortest unit of time in which it can be seen.
fn rate_in_words(rate: f64) -> String {
    let units = [("s", 1.0), ("min", 60.0), ("h", 3600.0)];
    let unit = units.into_iter().find(|(_, seconds)| rate * seconds >= 0.095);
    let (unit, seconds) = unit.unwrap_or(("d", 86_400.0));
    format!("{:.1}/{unit}", rate * seconds)
}

fn first_segment(name: &str) -> String {
    name.split('.').next().unwrap_or(name).to_owned()
}

/// The first few of many.
fn listed(items: &[String]) -> String {
    let more = items.len().saturating_sub(LISTED);
    let shown = items[..items.len() - more].join(", ");
    if more > 0 { format!("{shown}, … and {more} more") } else { shown }
}

/// A name of somebody else, safe to be shown.
pub(super) fn label(name: &str) -> String {
    text::line(name, SHOWN)
}

#[cfg(test)]
pub(super) mod tests {
    use ponos::core::manifest::Manifest;

    use super::*;
    use crate::manifests::Loaded;
    use crate::map::{dot, html, mermaid, text};

    /// Applications by name, the events that each hears, and the one that its only task emits.
    pub(in crate::map) fn system(apps: &[(String, Vec<String>, String)]) -> System {
        let policy = serde_json::json!({ "concurrency": 1, "prefetch": 1 });
        let manifests = apps.iter().map(|(app, heard, emits)| {
            let task = format!("{app}.thing.do");
            let reactions: Vec<_> = heard
                .iter()
                .map(|event| {
                    serde_json::json!({ "event": event, "queue": format!("{app}.{event}"), "creates": [task], "policy": policy })
                })
                .collect();
            let json = serde_json::json!({
                "ponos_manifest": 1, "app": app, "reactions": reactions,
                "tasks": [{ "name": task, "queue": task, "emits": [emits], "schema": {}, "recovers": false, "policy": policy }]
            });
            Loaded { source: app.clone(), manifest: Manifest::from_json(&json.to_string()).unwrap() }
        });
        System::of(manifests.collect())
    }

    fn one_app() -> System {
        system(&[("pheidi".to_owned(), vec!["org.paid".to_owned()], "email.sent".to_owned())])
    }

    #[test]
    fn figures_of_a_live_system_stand_in_every_form_and_offline_there_are_none() {
        let event = Node::Event("org.paid".to_owned());
        let figures = Figures {
            rate: Some(4.8),
            failed: Some(0.011),
            consumers: Some(0),
            waiting: Some(1204),
            ..Figures::default()
        };
        let overlay = Overlay { nodes: BTreeMap::from([(event, figures)]), ..Overlay::default() };
        let (live, offline) = (Map::of(&one_app(), &overlay), Map::of(&one_app(), &Overlay::default()));
        type Draw = fn(&Map) -> String;
        let forms: [Draw; 5] = [text::draw, dot::draw, mermaid::draw, html::page, json::to_line];
        for draw in forms {
            let (live, offline) = (draw(&live), draw(&offline));
            assert!(live.contains("4.8") && live.contains("1204"), "{live}");
            assert!(!offline.contains("4.8") && !offline.contains("waiting"), "{offline}");
        }
        assert!(text::draw(&live).contains("org.paid  4.8/s  ✖ 1.1%  ⚠ no consumer  1204 waiting"));
    }

    #[test]
    fn what_is_seen_and_in_no_manifest_is_drift() {
        let seen = (
            Node::Event("org.paid".to_owned()),
            Node::Reaction { app: "legacy-mailer".to_owned(), event: "org.paid".to_owned() },
        );
        let known =
            (seen.0.clone(), Node::Reaction { app: "pheidi".to_owned(), event: "org.paid".to_owned() });
        let edges = [seen, known].map(|ends| (ends, Figures { rate: Some(2.0), ..Figures::default() }));
        let map = Map::of(&one_app(), &Overlay { edges: BTreeMap::from(edges), ..Overlay::default() });
        let drift: Vec<&str> =
            map.edges.iter().filter(|edge| !edge.declared).map(|edge| edge.to.as_str()).collect();
        assert_eq!(drift, ["reaction:legacy-mailer:org.paid"]);
        assert_eq!(map.nodes.iter().filter(|node| !node.declared).count(), 1);
        let drawn = text::draw(&map);
        assert!(
            drawn.contains("drift: 1 observed edge not in any manifest (org.paid → legacy-mailer)"),
            "{drawn}"
        );
        assert!(html::page(&map).contains("class=\"edge drift\""));
        assert!(dot::draw(&map).contains("color=red"));
    }
}
