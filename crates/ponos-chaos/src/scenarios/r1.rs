//! R1: workers on one SQLite file are killed with jobs in their hands.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, nothing_else};
use crate::faults;
use crate::load::Mix;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r1",
    title: "workers killed on SQLite",
    what: "Four workers on one file; one, two or all of them are killed with SIGKILL at random moments, and others started \
           in their place. A kill counts if it cut at least one run.",
    passes: "I1–I9; a settlement is one transaction, so that nothing but what a kill cut or kept from being settled runs \
             again. From a kill to the next run of what it cut 99 % take less than 2 s.",
    brokers: &[BrokerKind::Sqlite],
    long: Figures {
        jobs: 100_000,
        faults: 200,
        pace: 1_000,
        between: (Duration::from_millis(500), Duration::from_millis(2_000)),
        patience: PATIENCE,
        mix: Mix { millis: 40, ..Mix::USUAL },
        ..FIGURES
    },
    short: Figures { mix: Mix { millis: 40, ..Mix::USUAL }, ..FIGURES },
    run: kill_workers,
    judge: nothing_else,
};

/// Kills a worker at a time, now and then two or all of them, and starts others in their place.
pub(super) fn kill_workers(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    let mut cutting = 0;
    for round in 1.. {
        if !system.must_go_on(cutting) {
            break;
        }
        let mut workers = system.workers();
        // On a slow machine nobody would come to do anything: jobs whose processes die again and again are poison.
        system.until("the workers", |book| workers.iter().all(|number| book.up.contains_key(number)))?;
        system.wait_between();
        let victims = match round {
            _ if round % 10 == 0 => workers.len(),
            _ if round % 4 == 0 => 2,
            _ => 1,
        };
        system.chance.shuffle(&mut workers);
        workers.truncate(victims);
        cutting += faults::kill(system, &workers)?;
        system.start_workers(u32::try_from(workers.len())?)?;
        // Otherwise a busy machine kills faster than it starts, until a job that was cut six times counts as a killer.
        let all = system.workers();
        system.until("the next workers", |book| all.iter().all(|number| book.up.contains_key(number)))?;
    }
    Ok(())
}
