//! Workers stand still for longer than their lease or their heartbeat, and go on as if nothing had been.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, nothing_else};
use crate::faults;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "pause",
    title: "workers stopped for longer than their lease",
    what: "Four workers with leases of 2 s (SQLite) or heartbeats of 1 s (RabbitMQ); one of them is stopped with SIGSTOP for \
           3–6 s and goes on with what it had, while others have taken its jobs.",
    passes: "I1–I9; what the stopped worker settles afterwards has no effect.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 20_000,
        faults: 30,
        pace: 400,
        between: (Duration::from_secs(1), Duration::from_secs(3)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { jobs: 1_000, faults: 2, pace: 400, ..FIGURES },
    run,
    judge: nothing_else,
};

/// The lease, on SQLite.
const LEASE: Duration = Duration::from_secs(2);

fn run(system: &mut System) -> anyhow::Result<()> {
    impatient(system);
    system.start_load()?;
    let mut faults = 0;
    while system.must_go_on(faults) {
        system.wait_between();
        let workers = system.workers();
        let victim = workers[system.chance.usize(..workers.len())];
        let time = Duration::from_millis(system.chance.u64(3_000..6_000));
        faults::pause(system, victim, time)?;
        faults += 1;
    }
    Ok(())
}

/// Has processes given up soon when they stand still.
pub(super) fn impatient(system: &mut System) {
    system.worker.lease = LEASE;
    if system.site.kind() == BrokerKind::RabbitMq {
        let sign = if system.url.contains('?') { '&' } else { '?' };
        system.url += &format!("{sign}heartbeat=1");
    }
}
