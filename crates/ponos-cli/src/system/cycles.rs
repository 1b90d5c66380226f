//! Ways on which a message begets itself.
//!
//! A cycle is *guarded* if at least one reaction on it may create nothing (it returns an `Option` or a `Vec`): only there
//! the program itself can end it. On any other each message begets the next for ever, until the hop limit stops it.

use std::collections::{BTreeSet, VecDeque};

use super::graph::{Graph, Node};
use super::model::System;

/// From how many events of one set a shortest cycle is looked for: each look takes as long as the set is large.
const STARTS: usize = 200;

/// One cycle, the shortest of those that share messages with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// Its nodes in order, from an event; the last leads to the first.
    pub(crate) nodes: Vec<Node>,
    pub(crate) guarded: bool,
}

impl Cycle {
    /// One cycle for each set of messages that beget each other: unguarded ones first, and of the rest one each.
    pub(crate) fn all(system: &System, graph: &Graph) -> Vec<Self> {
        let may_end = |node: &Node| match node {
            Node::Reaction { app, event } => system
                .events
                .get(event)
                .and_then(|event| event.listeners.get(app))
                .is_some_and(|r| r.conditional),
            _ => false,
        };
        let for_ever = graph.only(|node| !may_end(node));
        let mut cycles: Vec<Self> =
            for_ever.components().iter().map(|part| shortest(&for_ever, part, false)).collect();
        for part in graph.components() {
            let is_in =
                |node: &Node| graph.find(node).is_some_and(|number| part.binary_search(&number).is_ok());
            let is_told = |cycle: &Self| cycle.nodes.iter().any(is_in);
            if !cycles.iter().any(is_told) {
                cycles.push(shortest(graph, &part, true));
            }
        }
        cycles
    }

    /// Its events and tasks, and the first once more.
    pub(crate) fn messages(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.nodes.iter().filter(|node| node.is_message()).map(Node::name).collect();
        names.extend(names.first().copied());
        names
    }

    /// The applications on it.
    pub(crate) fn apps(&self) -> BTreeSet<&str> {
        self.nodes.iter().filter(|node| matches!(node, Node::Reaction { .. })).map(Node::name).collect()
    }
}

/// The shortest cycle through nodes that lead to each other.
fn shortest(graph: &Graph, part: &[usize], guarded: bool) -> Cycle {
    // Every cycle has an event, so it is enough to start from those.
    let starts = part.iter().copied().filter(|node| matches!(graph.nodes[*node], Node::Event(_)));
    let ways = starts.take(STARTS).filter_map(|start| way_back(graph, start));
    let way = ways.min_by_key(Vec::len).unwrap_or_default();
    Cycle { nodes: way.into_iter().map(|node| graph.nodes[node].clone()).collect(), guarded }
}

/// The shortest way from a node to itself.
fn way_back(graph: &Graph, start: usize) -> Option<Vec<usize>> {
    let mut from = vec![None; graph.nodes.len()];
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for &to in &graph.next[node] {
            if to == start {
                let mut way = vec![node];
                while let Some(before) = from[*way.last()?] {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            if from[to].is_none() {
                from[to] = Some(node);
                open.push_back(to);
            }
        }
    }
    None
}
