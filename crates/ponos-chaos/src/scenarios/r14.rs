//! R14: everything at once, for long.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario, pause};
use crate::check::Verdict;
use crate::faults;
use crate::ledger::Book;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r14",
    title: "soak",
    what: "Workers and publishers are killed and stopped by turns, for as long as `--minutes` says; the first worker is left \
           alone, and what it needs is looked at after each fault.",
    passes: "I1–I9; in runs of half an hour and more the first worker's memory grows by less than 5 % from its second \
             quarter to its last, and its open files do not.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        time: Duration::from_secs(60 * 60),
        pace: 300,
        between: (Duration::from_secs(2), Duration::from_secs(10)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { jobs: 1_000, faults: 4, pace: 400, ..FIGURES },
    run,
    judge,
};

/// From this time on memory is judged: before it is still being filled.
const JUDGED: u64 = 30 * 60 * 1_000_000;

fn run(system: &mut System) -> anyhow::Result<()> {
    pause::impatient(system);
    system.start_load()?;
    let mut faults = 0;
    while system.must_go_on(faults) {
        system.wait_between();
        system.sample();
        let workers = system.workers();
        let victim = workers[system.chance.usize(1..workers.len())];
        match system.chance.u32(..4) {
            0 => {
                let publishers = system.publishers();
                faults::kill(system, &publishers)?;
                system.start_publisher()?;
            }
            1 => {
                let time = Duration::from_millis(system.chance.u64(500..4_000));
                faults::pause(system, victim, time)?;
            }
            _ => {
                faults::kill(system, &[victim])?;
                system.start_workers(1)?;
            }
        }
        faults += 1;
    }
    system.sample();
    Ok(())
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    // The first process is the first worker.
    let samples: Vec<_> = book.samples.iter().filter(|sample| sample.process == 1).collect();
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        verdict.violations.push("R14: nobody has looked at the first worker".to_owned());
        return Vec::new();
    };
    let quarter = |n: usize| {
        let part =
            &samples[samples.len() * n / 4..(samples.len() * (n + 1) / 4).max(samples.len() * n / 4 + 1)];
        let middle = |mut values: Vec<u64>| {
            values.sort_unstable();
            values[values.len() / 2]
        };
        (
            middle(part.iter().map(|sample| sample.rss_kib).collect()),
            middle(part.iter().map(|sample| sample.fds).collect()),
        )
    };
    let (early, late) = (quarter(1), quarter(3));
    let growth = late.0 as f64 * 100.0 / early.0.max(1) as f64 - 100.0;
    if last.at - first.at >= JUDGED && (growth >= 5.0 || late.1 > early.1) {
        verdict.violations.push(format!("R14: memory and files grew from {early:?} to {late:?}"));
    }
    vec![
        (
            "memory of the first worker".to_owned(),
            format!("{} MiB, then {} MiB ({growth:+.1} %)", early.0 / 1024, late.0 / 1024),
        ),
        ("its open files".to_owned(), format!("{}, then {}", early.1, late.1)),
    ]
}
