//! R12: jobs that take longer than RabbitMQ waits for an acknowledgement.

use std::time::Duration;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::ledger::{Book, Scope, Step};
use crate::load::Mix;
use crate::system::{BrokerKind, System};

/// What RabbitMQ waits, in milliseconds; 30 minutes unless changed. It looks twice a second.
const TIMEOUT: u32 = 3_000;

/// What a long job takes.
const LONG: u32 = TIMEOUT + TIMEOUT / 2;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r12",
    title: "jobs longer than RabbitMQ's consumer timeout",
    what: "A node that waits 3 s for an acknowledgement instead of 30 minutes; one job in 50 takes 4.5 s, \
           and publishes nothing. RabbitMQ closes the channel and gives everything that was delivered on it to others, while \
           the handler still runs.",
    passes: "I1–I9: every job comes to its end, whatever is taken away, and no job runs for ever. Not covered: a job \
             longer than the timeout that emits or fails, which ends as poison (docs/torture.md).",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures { jobs: 100_000, faults: 1, pace: 200, patience: PATIENCE, ..FIGURES },
    short: Figures {
        jobs: 150,
        faults: 1,
        workers: 2,
        pace: 100,
        backlog: 100,
        patience: PATIENCE,
        ..FIGURES
    },
    run: let_jobs_take_long,
    judge: no_job_runs_for_ever,
};

const MIX: Mix = Mix { long: Some((50, LONG)), ..Mix::USUAL };

fn let_jobs_take_long(system: &mut System) -> anyhow::Result<()> {
    let node = system.site.node()?;
    // A channel takes the figures when it is opened.
    let set = |timeout: u32, tick: u32| {
        let order = format!(
            "application:set_env(rabbit, consumer_timeout, {timeout}),
             application:set_env(rabbit, channel_tick_interval, {tick})."
        );
        node.ctl(&["eval", &order]).map_err(anyhow::Error::msg)
    };
    set(TIMEOUT, 500)?;
    system.set_load(|load| load.mix = MIX);
    // It hits any worker at any time.
    let fault = system.fault("consumer-timeout", Scope::All, format!("{TIMEOUT} ms, jobs of {LONG} ms"));
    system.start_load()?;
    while system.must_go_on(1) {
        system.wait(Duration::from_millis(20), Duration::from_millis(40));
    }
    system.retire_publishers()?;
    let rest = system.until("the long jobs", |book| book.unfinished == 0);
    system.over(fault);
    set(1_800_000, 60_000)?;
    rest
}

fn no_job_runs_for_ever(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let is_long = |job: u32| book.jobs.get(&job).is_some_and(|job| job.kind.millis() == LONG);
    let long = || book.runs.iter().filter(|(call, _)| call.step == Step::Make && is_long(call.job));
    let most = long().map(|(_, runs)| runs.len()).max().unwrap_or_default();
    // A worker recognises what it has done, and not what it is still at: twice in each, and once more for what was on
    // its way.
    let bound = 2 * book.up.values().filter(|role| *role == "worker").count() + 1;
    for (call, runs) in long().filter(|(_, runs)| runs.len() > bound) {
        verdict.violations.push(format!("R12: {call:?} ran {} times", runs.len()));
    }
    vec![
        ("long jobs".to_owned(), book.jobs.keys().filter(|job| is_long(**job)).count().to_string()),
        ("runs of one attempt, at most".to_owned(), most.to_string()),
    ]
}
