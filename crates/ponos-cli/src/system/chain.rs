//! How long cascades can become.
//!
//! Cycles are cut where a walk from the beginnings comes back (see [`Graph::walk`]), so a chain is one round at most.

use super::graph::{Graph, Node};

/// Where each message stands on the longest chain that leads to it.
#[derive(Debug)]
pub(crate) struct Depths {
    /// By a node's number: the hops that such a message has taken at most. What starts a chain has taken none.
    pub(crate) hops: Vec<u32>,
    from: Vec<Option<usize>>,
}

impl Depths {
    pub(crate) fn of(graph: &Graph) -> Self {
        let walk = graph.walk();
        let mut hops = vec![0; graph.nodes.len()];
        let mut from = vec![None; graph.nodes.len()];
        for &node in &walk.order {
            let here = hops[node] + u32::from(graph.nodes[node].is_message());
            for &to in &graph.next[node] {
                if !walk.closing.contains(&(node, to)) && (from[to].is_none() || here > hops[to]) {
                    hops[to] = here;
                    from[to] = Some(node);
                }
            }
        }
        Self { hops, from }
    }

    /// The longest chain that ends at a node: its messages in order.
    pub(crate) fn chain_to<'g>(&self, graph: &'g Graph, node: usize) -> Vec<&'g Node> {
        let mut chain = Vec::new();
        let mut at = Some(node);
        while let Some(node) = at {
            if graph.nodes[node].is_message() {
                chain.push(&graph.nodes[node]);
            }
            at = self.from[node];
        }
        chain.reverse();
        chain
    }

    /// The longest chain of the system; empty where nothing is sent.
    pub(crate) fn longest<'g>(&self, graph: &'g Graph) -> Vec<&'g Node> {
        let messages = (0..graph.nodes.len()).filter(|node| graph.nodes[*node].is_message());
        let deepest = messages.max_by_key(|node| (self.hops[*node], std::cmp::Reverse(*node)));
        deepest.map_or_else(Vec::new, |node| self.chain_to(graph, node))
    }
}
