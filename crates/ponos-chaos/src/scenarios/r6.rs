//! R6: the nodes of a cluster are killed in turn.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::faults::cluster;
use crate::faults::node::{self, Ending};
use crate::ledger::Book;
use crate::system::{BrokerKind, System};

/// The longest that publishing may stand while a majority of the nodes is up, in microseconds.
const STALL: u64 = 15_000_000;

/// One in so many nodes ends in order.
const IN_ORDER: u32 = 4;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r6",
    title: "the nodes of a cluster killed in turn",
    what: "Three nodes on this machine, clients that know all of them; one after the other is killed with SIGKILL, one in \
           four is stopped in order instead, and started again. The next one follows when every queue could do without any \
           other.",
    passes: "I1–I9, and publishing never stands still for longer than 15 s.",
    brokers: &[BrokerKind::Cluster],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        pace: 300,
        backlog: 5_000,
        open: 1_000,
        between: (Duration::from_secs(1), Duration::from_secs(4)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { jobs: 1_000, faults: 1, pace: 150, workers: 2, patience: PATIENCE, ..FIGURES },
    run: kill_the_nodes_in_turn,
    judge: publishing_goes_on,
};

fn kill_the_nodes_in_turn(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    node::warm(system, &system.site.cluster()?.nodes()[0])?;
    for kills in 0.. {
        if !system.must_go_on(kills) {
            break;
        }
        system.wait_between();
        let ending = match kills {
            // What is worst comes first, also in the short form.
            0 => Ending::Killed,
            _ => Ending::by_chance(&mut system.chance, IN_ORDER),
        };
        cluster::restart(system, kills as usize % 3, ending)?;
    }
    let confirmed = system.book().confirmed;
    system.until("jobs after the last kill", |book| book.confirmed > confirmed + 100)
}

fn publishing_goes_on(_: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let stall = verdict.times.confirm_stall;
    if stall > STALL {
        verdict.violations.push(format!("R6: nothing was confirmed for {:.1} s", stall as f64 / 1e6));
    }
    Vec::new()
}
