//! R7: the network between the processes and RabbitMQ misbehaves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::faults::network::{self, Fault};
use crate::ledger::{Book, Micros};
use crate::system::{BrokerKind, System};

/// Of all connections, in seconds.
const HEARTBEAT: u64 = 2;

/// How long a process may take until it works again, from when the network is whole: two heartbeats and five seconds.
const BACK: Micros = (2 * HEARTBEAT + 5) * 1_000_000;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r7",
    title: "RabbitMQ behind a bad network",
    what: "Everybody reaches the node through a relay with a heartbeat of 2 s, and the relay does in turn: refuse and cut, \
           reset, hold back answers and cut, hold back everything (half-open), the same and cut, add latency of 100–500 ms.",
    passes: "I1–I9; each worker and the publisher go on within two heartbeats and 5 s, 9 s, of a network that is whole \
             again.",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 24,
        pace: 800,
        backlog: 2_000,
        open: 500,
        between: (Duration::from_secs(10), Duration::from_secs(14)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures {
        jobs: 800,
        faults: 4,
        pace: 300,
        workers: 2,
        between: (Duration::from_secs(1), Duration::from_secs(2)),
        patience: PATIENCE,
        ..FIGURES
    },
    run: disturb_the_network,
    judge: everybody_is_back_in_time,
};

fn disturb_the_network(system: &mut System) -> anyhow::Result<()> {
    system.through_relay(&format!("heartbeat={HEARTBEAT}"))?;
    system.start_load()?;
    // Longer than it takes until a silent peer is given up, now and then.
    let is_short = system.figures.faults < 6;
    let longest = if is_short { Duration::from_secs(3) } else { Duration::from_secs(15) };
    for faults in 0.. {
        if !system.must_go_on(faults) {
            break;
        }
        system.wait_between();
        let fault = Fault::by_chance(&mut system.chance, faults, longest);
        network::strike(system, fault)?;
        let confirmed = system.book().confirmed;
        system.until("jobs after the fault", |book| book.confirmed > confirmed)?;
    }
    // The last one's reconnections are to be seen too.
    system.wait(Duration::from_secs(1), Duration::from_secs(2));
    Ok(())
}

/// From when the network was whole again to the first run of each worker, and to the first confirm.
fn everybody_is_back_in_time(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let mut signs: BTreeMap<String, Vec<Micros>> = BTreeMap::new();
    for run in book.runs.values().flatten() {
        signs.entry(format!("worker {}", run.by)).or_default().push(run.started);
    }
    let confirms = || book.jobs.values().filter_map(|job| job.answered).map(|(at, _)| at);
    signs.insert("publishing".to_owned(), confirms().collect());
    let over = confirms().max().unwrap_or_default();
    let mut back = Vec::new();
    let mut faults: Vec<_> = book.faults.values().collect();
    faults.sort_by_key(|fault| fault.from);
    for (n, fault) in faults.iter().enumerate() {
        let Some(whole) = fault.to else { continue };
        // A fault that follows too soon, or the end of the load, says nothing against anybody.
        let until = faults.get(n + 1).map_or(over, |next| next.from);
        for (who, times) in &signs {
            let first = times.iter().filter(|at| **at > whole).min();
            match first {
                Some(at) if *at < until => back.push((at - whole, fault.kind.as_str())),
                _ if until > whole + BACK => {
                    let kind = &fault.kind;
                    verdict.violations.push(format!("R7: {who} did not go on after `{kind}` at {whole}"));
                }
                _ => {}
            }
        }
    }
    back.sort_unstable();
    for (time, kind) in back.iter().filter(|(time, _)| *time > BACK) {
        let seconds = *time as f64 / 1e6;
        verdict.violations.push(format!("R7: somebody was back {seconds:.1} s after `{kind}`"));
    }
    let at = |share: f64| back.get(((back.len() as f64 * share) as usize).min(back.len().saturating_sub(1)));
    match (at(0.5), at(0.99), back.last()) {
        (Some(median), Some(most), Some(last)) => vec![(
            "going on after a fault".to_owned(),
            format!(
                "median {} ms, 99 % {} ms, max {} ms ({})",
                median.0 / 1_000,
                most.0 / 1_000,
                last.0 / 1_000,
                last.1
            ),
        )],
        _ => Vec::new(),
    }
}
