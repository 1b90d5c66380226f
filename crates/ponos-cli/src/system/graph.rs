//! The system as a directed graph.
//!
//! All walks are loops and not recursions: how deep a system is, a manifest decides, and a stack has an end.

use std::collections::{BTreeMap, BTreeSet};

use super::model::System;

/// What stands in the graph. Only events and tasks are messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// What an application emits outside of its tasks.
    Outside(String),
    /// An event.
    Event(String),
    /// An application's reaction to an event.
    Reaction { app: String, event: String },
    /// A task.
    Task(String),
}

impl Node {
    /// Whether it is sent, and so takes a hop.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self, Self::Event(_) | Self::Task(_))
    }

    /// What it is called where its kind is plain.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Outside(name) | Self::Event(name) | Self::Task(name) => name,
            Self::Reaction { app, .. } => app,
        }
    }
}

/// Nodes by number, in the order of [`Node`]; edges as the numbers that follow each.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) next: Vec<Vec<usize>>,
}

impl Graph {
    /// Everything: event → reaction → task → event, and what applications emit outside of tasks.
    pub(crate) fn of(system: &System) -> Self {
        let mut edges: BTreeMap<Node, BTreeSet<Node>> = BTreeMap::new();
        let mut edge = |from: Node, to: Node| {
            edges.entry(to.clone()).or_default();
            edges.entry(from).or_default().insert(to);
        };
        for (name, event) in &system.events {
            for emitter in &event.emitters {
                let from = match &emitter.task {
                    Some(task) => Node::Task(task.clone()),
                    None => Node::Outside(emitter.app.clone()),
                };
                edge(from, Node::Event(name.clone()));
            }
            for (app, listener) in &event.listeners {
                let reaction = Node::Reaction { app: app.clone(), event: name.clone() };
                edge(Node::Event(name.clone()), reaction.clone());
                for task in &listener.creates {
                    edge(reaction.clone(), Node::Task(task.clone()));
                }
            }
        }
        for task in system.tasks.keys() {
            edges.entry(Node::Task(task.clone())).or_default();
        }
        Self::from_edges(&edges)
    }

    /// The same, and nodes and edges that were seen elsewhere.
    pub(crate) fn with<'a>(
        &'a self,
        nodes: impl IntoIterator<Item = &'a Node>,
        more: impl IntoIterator<Item = &'a (Node, Node)>,
    ) -> Self {
        let mut edges: BTreeMap<Node, BTreeSet<Node>> =
            self.nodes.iter().chain(nodes).map(|node| (node.clone(), BTreeSet::new())).collect();
        let more = more.into_iter().map(|(from, to)| (from, to));
        for (from, to) in self.edges().chain(more) {
            edges.entry(to.clone()).or_default();
            edges.entry(from.clone()).or_default().insert(to.clone());
        }
        Self::from_edges(&edges)
    }

    fn from_edges(edges: &BTreeMap<Node, BTreeSet<Node>>) -> Self {
        let number: BTreeMap<&Node, usize> = edges.keys().enumerate().map(|(i, node)| (node, i)).collect();
        let next = edges.values().map(|to| to.iter().map(|node| number[node]).collect()).collect();
        Self { next, nodes: edges.keys().cloned().collect() }
    }

    /// All edges.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&Node, &Node)> {
        let from = self.next.iter().zip(&self.nodes);
        from.flat_map(move |(next, from)| next.iter().map(move |to| (from, &self.nodes[*to])))
    }

    /// The number of a node.
    pub(crate) fn find(&self, node: &Node) -> Option<usize> {
        self.nodes.binary_search(node).ok()
    }

    /// Only the nodes that are wanted; numbers stay the same.
    pub(super) fn only(&self, wanted: impl Fn(&Node) -> bool) -> Self {
        let wanted: Vec<bool> = self.nodes.iter().map(wanted).collect();
        let next = self.next.iter().enumerate().map(|(from, to)| {
            if wanted[from] { to.iter().copied().filter(|to| wanted[*to]).collect() } else { Vec::new() }
        });
        Self { next: next.collect(), nodes: self.nodes.clone() }
    }

    /// The edges turned round.
    pub(crate) fn previous(&self) -> Vec<Vec<usize>> {
        let mut previous = vec![Vec::new(); self.nodes.len()];
        for (from, to) in self.next.iter().enumerate() {
            for to in to {
                previous[*to].push(from);
            }
        }
        previous
    }

    /// A walk that sees every node once, from what nothing leads to, then from whatever is left.
    pub(crate) fn walk(&self) -> Walk {
        let previous = self.previous();
        let roots = (0..self.nodes.len()).filter(|node| previous[*node].is_empty());
        let mut walk = Walk { order: Vec::new(), closing: BTreeSet::new() };
        let mut state = vec![State::New; self.nodes.len()];
        for start in roots.chain(0..self.nodes.len()) {
            if state[start] == State::New {
                walk.from(start, &self.next, &mut state);
            }
        }
        walk.order.reverse();
        walk
    }

    /// Sets of more than one node that lead to each other (Kosaraju's algorithm).
    pub(super) fn components(&self) -> Vec<Vec<usize>> {
        let previous = self.previous();
        let mut state = vec![State::New; self.nodes.len()];
        let mut components = Vec::new();
        for start in self.walk().order {
            if state[start] == State::New {
                let mut part = Walk { order: Vec::new(), closing: BTreeSet::new() };
                part.from(start, &previous, &mut state);
                if part.order.len() > 1 {
                    part.order.sort_unstable();
                    components.push(part.order);
                }
            }
        }
        components.sort_unstable();
        components
    }
}

/// A depth-first walk.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Each node before all that follow it, but for the edges in `closing`.
    pub(crate) order: Vec<usize>,
    /// The edges that lead back: without them there is no cycle.
    pub(crate) closing: BTreeSet<(usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

impl Walk {
    /// Appends what is new behind `start`, each node after all that follow it.
    fn from(&mut self, start: usize, next: &[Vec<usize>], state: &mut [State]) {
        state[start] = State::Open;
        let mut way = vec![(start, 0)];
        while let Some((node, seen)) = way.last_mut() {
            let from = *node;
            let Some(&to) = next[from].get(*seen) else {
                state[from] = State::Done;
                self.order.push(from);
                way.pop();
                continue;
            };
            *seen += 1;
            match state[to] {
                State::New => {
                    state[to] = State::Open;
                    way.push((to, 0));
                }
                State::Open => {
                    self.closing.insert((from, to));
                }
                State::Done => {}
            }
        }
    }
}
