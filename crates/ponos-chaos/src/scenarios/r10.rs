//! R10: what jobs depend on is down, and all of them fail.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::ledger::{Book, Call, Ending, Micros, Scope, Step};
use crate::load;
use crate::system::{BrokerKind, System};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r10",
    title: "a dependency is down",
    what: "Every job calls a dependency, which goes down while jobs come and comes back later; four workers with a circuit \
           breaker each.",
    passes: "I1–I9; a worker's breaker trips within 10 s, no job is given up because of the outage, and while it lasts jobs \
             wait instead of spending their attempts.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures { jobs: 100_000, faults: 3, backlog: 20_000, patience: PATIENCE, mix: MIX, ..FIGURES },
    short: Figures { jobs: 1_500, faults: 1, mix: MIX, ..FIGURES },
    run,
    judge,
};

const MIX: load::Mix = load::Mix { millis: 10, deadly: 0, calls: true };

/// By when a breaker must have tripped.
const TRIP: Micros = 10_000_000;

fn run(system: &mut System) -> anyhow::Result<()> {
    // Three outages of a minute each, or one of some seconds with a breaker that is as quick.
    let is_long = system.figures.jobs >= 10_000;
    let (outage, open) = if is_long { (60, 10_000) } else { (4, 500) };
    system.worker.breaker = Some(Duration::from_millis(open));
    system.start_load()?;
    let mut faults = 0;
    while system.must_go_on(faults) {
        let share = system.figures.jobs / (system.figures.faults + 1);
        let wanted = share.saturating_mul(faults + 1).min(system.figures.jobs);
        system.until("the jobs before an outage", |book| book.confirmed >= wanted)?;
        if faults >= system.figures.faults {
            // It is too early to end.
            system.wait_between();
            continue;
        }
        let dir = system.dir();
        let fault = system.fault("dependency", Scope::Nobody, format!("for {outage} s"));
        load::switch(&dir, true)?;
        std::thread::sleep(Duration::from_secs(outage));
        load::switch(&dir, false)?;
        system.over(fault);
        faults += 1;
        system.until("the breakers to close", |book| {
            let mut last = std::collections::HashMap::new();
            book.circuits.iter().for_each(|(_, by, state)| {
                last.insert(*by, state.as_str());
            });
            last.values().all(|state| *state == "closed")
        })?;
    }
    Ok(())
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let mut tripped = Vec::new();
    for fault in book.faults.values().filter(|fault| fault.kind == "dependency") {
        let opened =
            |(at, _, state): &(Micros, u32, String)| (state == "open" && *at >= fault.from).then_some(*at);
        match book.circuits.iter().filter_map(opened).min() {
            Some(at) if at - fault.from <= TRIP => tripped.push((at - fault.from) / 1_000),
            other => verdict
                .violations
                .push(format!("R10: no breaker tripped within 10 s of the outage: {other:?}")),
        }
    }
    let fails = |call: &Call| call.step == Step::Make;
    let spent = book.runs.iter().filter(|(call, _)| fails(call)).flat_map(|(_, runs)| runs).filter(|run| {
        let again = matches!(run.ended, Some((_, Ending::Again(_))));
        again
            && book
                .faults
                .values()
                .any(|fault| fault.from <= run.started && fault.to.is_none_or(|to| to >= run.started))
    });
    let most = book.runs.keys().filter(|call| fails(call)).map(|call| call.attempt).max().unwrap_or_default();
    vec![
        ("first breaker tripped after".to_owned(), format!("{tripped:?} ms")),
        ("attempts spent in outages".to_owned(), spent.count().to_string()),
        ("most attempts of one job".to_owned(), format!("{most} of {}", load::MAX_RETRIES + 1)),
    ]
}
