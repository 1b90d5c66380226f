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

#[cfg(test)]
mod tests {
    use ponos::core::manifest::Manifest;

    use super::*;
    use crate::manifests::Loaded;
    use crate::system::{Cycle, System};

    /// One application that makes each event into a task which emits the next, and the last, perhaps, into the first.
    fn chain(length: usize, closed: bool) -> System {
        let policy = serde_json::json!({ "concurrency": 1, "prefetch": 1 });
        let event = |n: usize| format!("thing-{:06}.done", if closed { n % length } else { n });
        let task = |n: usize| format!("app.thing-{n:06}.do");
        let reactions: Vec<_> = (0..length)
            .map(|n| serde_json::json!({ "event": event(n), "queue": "q", "creates": [task(n)], "policy": policy }))
            .collect();
        let tasks: Vec<_> = (0..length)
            .map(|n| {
                serde_json::json!({ "name": task(n), "queue": "q", "emits": [event(n + 1)], "schema": {},
                                    "recovers": false, "policy": policy })
            })
            .collect();
        let json =
            serde_json::json!({ "ponos_manifest": 1, "app": "app", "reactions": reactions, "tasks": tasks });
        let manifest = Manifest::from_json(&json.to_string()).unwrap();
        System::of(vec![Loaded { source: "app.json".to_owned(), manifest }])
    }

    #[test]
    fn a_chain_is_as_long_as_it_is_and_needs_no_deep_stack() {
        for length in [1, 3, 20_000] {
            let graph = Graph::of(&chain(length, false));
            let depths = Depths::of(&graph);
            let longest = depths.longest(&graph);
            assert_eq!(longest.len(), 2 * length + 1, "an event and a task each, and the last event");
            assert_eq!(depths.hops.iter().max().copied(), u32::try_from(2 * length).ok());
        }
    }

    #[test]
    fn a_ring_is_one_cycle_and_is_walked_once() {
        for length in [1, 2, 5_000] {
            let system = chain(length, true);
            let graph = Graph::of(&system);
            let cycles = Cycle::all(&system, &graph);
            assert_eq!(cycles.len(), 1);
            assert!(!cycles[0].guarded);
            assert_eq!(cycles[0].messages().len(), 2 * length + 1, "the first once more");
            assert_eq!(Depths::of(&graph).longest(&graph).len(), 2 * length);
        }
    }
}
