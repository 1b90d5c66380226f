//! R5: the only node of RabbitMQ is killed.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, nothing_else};
use crate::faults::node::{self, Ending};
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r5",
    title: "RabbitMQ's only node killed",
    what: "Workers and a publisher on a node of its own, quorum queues; the node is killed with SIGKILL with jobs at work, \
           on their way and in the delay ladder, and started again.",
    passes: "I1–I9: nothing that was confirmed is lost, and what runs again does so because of a kill.",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        backlog: 2_000,
        open: 500,
        between: (Duration::from_secs(4), Duration::from_secs(12)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { jobs: 1_000, faults: 1, pace: 500, workers: 2, patience: PATIENCE, ..FIGURES },
    run: kill_the_node,
    judge: nothing_else,
};

fn kill_the_node(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    node::warm(system, system.site.node()?)?;
    for kills in 0.. {
        if !system.must_go_on(kills) {
            break;
        }
        system.wait_between();
        node::restart(system, Ending::Killed)?;
        let confirmed = system.book().confirmed;
        system.until("jobs after the kill", |book| book.confirmed > confirmed)?;
    }
    Ok(())
}
