//! R11: jobs that kill their process.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::ledger::{Book, Call, Step};
use crate::load::Mix;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r11",
    title: "jobs that kill their process",
    what: "Among ordinary jobs some call abort(); a supervisor starts another worker for each that dies.",
    passes: "I1–I9; each killer, and each further copy of it that a death left behind, is found out after at most 7 deaths, \
             three until it is suspected and three while it runs alone, and is recovered; no other job fails.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 10_000,
        faults: 250,
        pace: 300,
        patience: PATIENCE,
        mix: Mix { deadly: 200, ..Mix::USUAL },
        ..FIGURES
    },
    short: Figures { jobs: 500, faults: 6, pace: 300, mix: Mix { deadly: 150, ..Mix::USUAL }, ..FIGURES },
    run,
    judge,
};

/// Deaths that a killer may cost: it may be counted once more than suspected when connections are lost together.
const DEATHS: usize = 7;

/// How often the supervisor looks.
const LOOK: Duration = Duration::from_millis(20);

fn run(system: &mut System) -> anyhow::Result<()> {
    system.start_load()?;
    let mut deaths = 0;
    while system.must_go_on(deaths) {
        deaths += supervise(system)?;
    }
    system.stop_feeding();
    let mut moved = (std::time::Instant::now(), 0);
    while system.book().unfinished > 0 {
        supervise(system)?;
        let ended = system.book().ended;
        if ended != moved.1 {
            moved = (std::time::Instant::now(), ended);
        }
        if moved.0.elapsed() > system.figures.patience {
            anyhow::bail!("nothing has ended for {:?}", system.figures.patience);
        }
    }
    Ok(())
}

/// Starts a worker for each that has died.
fn supervise(system: &mut System) -> anyhow::Result<u32> {
    std::thread::sleep(LOOK);
    let fallen = u32::try_from(system.fallen().len())?;
    system.start_workers(fallen)?;
    Ok(fallen)
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let (mut killers, mut most) = (0, 0);
    for (number, _) in book.jobs.iter().filter(|(_, job)| job.kind.is_deadly() && job.is_confirmed()) {
        killers += 1;
        let call = Call { job: *number, step: Step::Make, attempt: 1 };
        let deaths = book.runs.get(&call).map_or(0, Vec::len);
        most = most.max(deaths);
        // Who dies between a copy's confirm and the acknowledgement leaves two copies, and each is found out for itself.
        let copies = book.failed.iter().filter(|failed| failed.job == *number).count().max(1);
        if deaths > DEATHS * copies {
            verdict
                .violations
                .push(format!("R11: job {number} killed {deaths} processes before it was found out"));
        }
    }
    for failed in &book.failed {
        let is_killer = book.jobs.get(&failed.job).is_some_and(|job| job.kind.is_deadly());
        if is_killer != (failed.reason == "poison") {
            verdict.violations.push(format!("R11: job {} failed because of `{}`", failed.job, failed.reason));
        }
    }
    if killers == 0 {
        verdict.violations.push("R11: no job killed its process, so that nothing was tried".to_owned());
    }
    vec![
        ("killers".to_owned(), killers.to_string()),
        ("most deaths by one of them".to_owned(), most.to_string()),
    ]
}
