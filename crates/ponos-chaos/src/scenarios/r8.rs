//! R8: RabbitMQ runs out of memory, or of disk.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::faults::alarm::{self, Short};
use crate::ledger::{Book, Micros};
use crate::load::Mix;
use crate::system::{BrokerKind, System};

/// How long who publishes may take to go on after an alarm; the alarm's end takes a second itself.
const RESUMED: Micros = 15_000_000;

/// A run of a job takes fewer milliseconds than this: what is there must last for the alarm.
const MILLIS: u32 = 100;

const PLAIN: Mix = Mix { millis: MILLIS, plain: true, ..Mix::USUAL };
const MIXED: Mix = Mix { plain: false, ..PLAIN };

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r8",
    title: "RabbitMQ without memory or disk",
    what: "Alarms of a node, of memory and of disk in turn. During every other one there are only jobs that publish \
           nothing; during the rest the usual mix, so that jobs which emit or fail wait for their settlement.",
    passes: "I1–I9 without a single run more than asked for: no attempt is burned, no connection lost. Jobs that publish \
             nothing go on and are acknowledged, publishers wait, and go on within 15 s after the alarm.",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        backlog: 8_000,
        open: 500,
        between: (Duration::from_secs(1), Duration::from_secs(2)),
        mix: PLAIN,
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures {
        jobs: 800,
        backlog: 900,
        faults: 2,
        workers: 2,
        mix: PLAIN,
        patience: PATIENCE,
        ..FIGURES
    },
    run: raise_alarms,
    judge: consumers_go_on_and_publishers_wait,
};

fn raise_alarms(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    let is_short = system.figures.faults < 6;
    for alarms in 0.. {
        if !system.must_go_on(alarms) {
            break;
        }
        let is_plain = alarms.is_multiple_of(2);
        system.set_load(|load| load.mix = if is_plain { PLAIN } else { MIXED });
        system.wait_between();
        // Enough for the whole alarm.
        let backlog = system.figures.backlog * 9 / 10;
        system.until("a backlog", |book| book.unfinished >= backlog)?;
        let short = if alarms % 4 < 2 { Short::Memory } else { Short::Disk };
        let lasting = if is_short { 3.0 } else { 4.0 + 8.0 * system.chance.f64() };
        alarm::strike(system, short, Duration::from_secs_f64(lasting))?;
        let confirmed = system.book().confirmed;
        system.until("publishes after the alarm", |book| book.confirmed > confirmed)?;
    }
    Ok(())
}

fn consumers_go_on_and_publishers_wait(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let extra: usize = verdict.extra.values().sum();
    if extra > 0 {
        verdict.violations.push(format!("R8: {} runs more than asked for, and no connection was cut", extra));
    }
    let mut ended = Vec::new();
    let mut resumed = Vec::new();
    let confirms = || book.jobs.values().filter(|job| job.is_confirmed()).filter_map(|job| job.answered);
    for (number, fault) in &book.faults {
        let Some(to) = fault.to else { continue };
        let middle = fault.from + (to - fault.from) / 2;
        // Only jobs that publish nothing: those of the mix that do hold their places until the alarm is over.
        if number % 2 == 1 {
            let during = |at: Micros| fault.from < at && at < to;
            let runs = book.runs.values().flatten().filter_map(|run| run.ended);
            ended.push(runs.filter(|(at, _)| during(*at)).count());
        }
        let asked = book.jobs.values().filter(|job| job.asked < middle);
        let waits = asked.filter(|job| job.answered.is_none_or(|(at, _)| at > to)).count();
        if waits == 0 {
            verdict.violations.push(format!("R8: nobody waited for the end of alarm {number}"));
        }
        // What a connection sent before it was blocked is still taken.
        let taken = confirms().filter(|(at, _)| middle < *at && *at < to).count();
        if taken > 0 {
            verdict.violations.push(format!("R8: {taken} publishes were confirmed during alarm {number}"));
        }
        let first = confirms().filter(|(at, _)| *at > to).map(|(at, _)| at - to).min();
        match first {
            Some(time) if time < RESUMED => resumed.push(time),
            other => verdict
                .violations
                .push(format!("R8: after alarm {number} the first confirm came after {other:?} µs")),
        }
    }
    // More than was prefetched when it began: acknowledgements were taken.
    let held = usize::try_from(FIGURES.workers * FIGURES.prefetch).unwrap_or(usize::MAX);
    for runs in ended.iter().filter(|runs| **runs <= held) {
        verdict.violations.push(format!("R8: only {runs} jobs that publish nothing ran during an alarm"));
    }
    let least = ended.iter().min().copied().unwrap_or_default();
    let latest = resumed.iter().max().copied().unwrap_or_default();
    vec![
        ("runs during an alarm, at least".to_owned(), least.to_string()),
        ("publishing again after at most".to_owned(), format!("{} ms", latest / 1_000)),
    ]
}
