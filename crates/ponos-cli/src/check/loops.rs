//! Whether chains end, and soon enough.

use std::collections::BTreeMap;

use super::finding::{Code, Finding, quoted};
use crate::system::{Cycle, Depths, Graph, Node, System};

/// Cycles that nothing ends, and applications that stop a chain which is longer than they allow.
pub(super) fn check(system: &System, graph: &Graph, depths: &Depths) -> Vec<Finding> {
    let cycles = Cycle::all(system, graph).into_iter().filter(|cycle| !cycle.guarded);
    let mut findings: Vec<Finding> = cycles.map(|cycle| unguarded(system, &cycle)).collect();
    findings.extend(limits(system, graph, depths));
    findings
}

fn unguarded(system: &System, cycle: &Cycle) -> Finding {
    let messages = cycle.messages();
    let limits = cycle.apps().into_iter().filter_map(|app| Some((system.apps.get(app)?.hop_limit, app)));
    let (limit, app) = limits.min().unwrap_or_default();
    let way: Vec<String> = messages.iter().copied().map(quoted).collect();
    Finding::new(
        Code::CycleUnguarded,
        messages.first().copied().unwrap_or_default(),
        format!(
            "each message begets the next for ever: {}; the hop limit of {} stops it after {limit} hops",
            way.join(" → "),
            quoted(app)
        ),
        "let one of its reactions return an `Option`, and nothing when there is nothing to do",
    )
}

/// An application's limit counts where it hears, performs and emits, and not what becomes of it later.
pub(super) fn limits(system: &System, graph: &Graph, depths: &Depths) -> Vec<Finding> {
    let mut deepest: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
    for (number, node) in graph.nodes.iter().enumerate() {
        let apps: Vec<&str> = match node {
            Node::Task(task) => system.tasks[task].performers.iter().map(String::as_str).collect(),
            Node::Event(event) => {
                let event = &system.events[event];
                event.listeners.keys().map(String::as_str).chain(event.emitting_apps()).collect()
            }
            Node::Reaction { .. } | Node::Outside(_) => Vec::new(),
        };
        for app in apps {
            let known = deepest.entry(app).or_insert((0, number));
            if depths.hops[number] > known.0 {
                *known = (depths.hops[number], number);
            }
        }
    }
    let beyond = deepest.into_iter().filter_map(|(app, (hops, number))| {
        let limit = system.apps.get(app)?.hop_limit;
        (hops > limit).then(|| {
            let chain: Vec<String> =
                depths.chain_to(graph, number).into_iter().map(|node| quoted(node.name())).collect();
            Finding::new(
                Code::HopLimit,
                app,
                format!(
                    "it stops messages after {limit} hops, and a chain comes to {hops}: {}",
                    chain.join(" → ")
                ),
                format!("raise its hop limit to {hops} or more, or shorten the chain"),
            )
        })
    });
    beyond.collect()
}
