//! R2: publishers are killed with publishes in flight.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, nothing_else};
use crate::faults;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r2",
    title: "publishers killed in the middle of a batch",
    what: "Two workers and one publisher with up to 200 publishes in flight; the publisher is killed with SIGKILL and another \
           one goes on. A kill counts if publishes were without an answer.",
    passes: "I1–I9; no confirmed job is missing, and what was not confirmed ran once or never.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 200,
        workers: 2,
        backlog: 2_000,
        between: (Duration::from_millis(300), Duration::from_millis(1_300)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { workers: 2, backlog: 2_000, ..FIGURES },
    run,
    judge: nothing_else,
};

fn run(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    let mut cutting = 0;
    while system.must_go_on(cutting) {
        system.wait_between();
        let publishers = system.publishers();
        cutting += faults::kill(system, &publishers)?;
        system.start_publisher()?;
        let next = system.publishers();
        system.until("the next publisher", |book| next.iter().all(|number| book.up.contains_key(number)))?;
    }
    Ok(())
}
