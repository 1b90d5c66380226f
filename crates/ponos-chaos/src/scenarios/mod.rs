//! The scenarios, one file each.
//!
//! # Adding one
//!
//! 1. A file with a `pub(super) const SCENARIO: Scenario`: its name, what happens and what counts as passed (both go into
//!    the report), the brokers that it can use, its long and its short [`Figures`], and a function that runs it. Add it to
//!    [`ALL`], and a test for its short form to `tests/short.rs`.
//! 2. The function gets a [`System`] on which only the ledger runs. It starts workers and publishers
//!    ([`System::start_load`] does both), and lets faults happen until [`System::must_go_on`] says that there was enough
//!    of everything. It blocks, so testbed's nodes and relays are used as they are. It returns when there are no faults
//!    any more and all processes are there that are needed to finish: the rest is the same for all scenarios.
//! 3. Each fault is announced in the ledger before it begins and when it is over: [`System::fault`], [`System::over`].
//!    Its scope says whom it can have touched, because the checker explains what ran twice by nothing else:
//!    `Scope::Process(number)` for one process, `Scope::All` for a broker, a network, a disk. `crate::faults` holds the
//!    functions that do this; add a file there for a new kind of victim.
//! 4. The system's broker is a [`crate::system::Site`]: add a case for a new one (a cluster, a node behind a relay), and
//!    set [`System::url`] before processes are started if they are to take another way than the driver.
//! 5. What a scenario must show beside the invariants (a breaker that tripped, a time that was kept) is checked by its
//!    `judge`, from the ledger too: it adds to the verdict's violations and returns rows for the report.

mod clock;
mod pause;
mod r1;
mod r10;
mod r11;
mod r14;
mod r2;
mod r3;
mod r4;
mod r9;
mod run;

use std::time::Duration;

use anyhow::Context as _;

pub(crate) use r3::work as power;
pub(crate) use run::{RunArgs, judge, run};

use crate::check::Verdict;
use crate::ledger::Book;
use crate::load::Mix;
use crate::output;
use crate::system::{BrokerKind, System};

/// All of them, in the order of the report.
pub(crate) const ALL: &[&Scenario] = &[
    &r1::SCENARIO,
    &r2::SCENARIO,
    &r3::SCENARIO,
    &r4::SCENARIO,
    &pause::SCENARIO,
    &r9::SCENARIO,
    &clock::SCENARIO,
    &r10::SCENARIO,
    &r11::SCENARIO,
    &r14::SCENARIO,
];

/// One way to try the system.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What happens, in a sentence or two for the report.
    pub(crate) what: &'static str,
    /// What counts as passed beside the invariants.
    pub(crate) passes: &'static str,
    /// The first is the default.
    pub(crate) brokers: &'static [BrokerKind],
    pub(crate) long: Figures,
    pub(crate) short: Figures,
    pub(crate) run: fn(&mut System) -> anyhow::Result<()>,
    /// What is to be shown beside the invariants: adds violations, and gives rows for the report.
    pub(crate) judge: fn(&Book, &mut Verdict) -> Vec<(String, String)>,
}

/// How much of everything. A run goes on until jobs, faults and time are all reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Confirmed ones.
    pub(crate) jobs: u32,
    pub(crate) faults: u32,
    pub(crate) time: Duration,
    pub(crate) workers: u32,
    /// Of each worker.
    pub(crate) concurrency: u32,
    pub(crate) prefetch: u32,
    /// Jobs in a second at most.
    pub(crate) pace: u32,
    /// Asked for and not complete, at most.
    pub(crate) backlog: u32,
    /// Without an answer at one publisher, at most.
    pub(crate) open: usize,
    /// The pause between two faults: at least, at most.
    pub(crate) between: (Duration, Duration),
    /// How long nothing may move before the rest is believed to be lost.
    pub(crate) patience: Duration,
    pub(crate) mix: Mix,
}

/// RabbitMQ itself tries again after three minutes what a queue did not take from the delay ladder.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Figures to be changed by scenarios with `..FIGURES`.
pub(crate) const FIGURES: Figures = Figures {
    jobs: 2_000,
    faults: 5,
    time: Duration::ZERO,
    workers: 4,
    concurrency: 8,
    prefetch: 32,
    pace: 2_000,
    backlog: 500,
    open: 200,
    between: (Duration::from_millis(200), Duration::from_millis(700)),
    patience: Duration::from_secs(60),
    mix: MIX,
};

/// Ordinary jobs.
pub(crate) const MIX: Mix = Mix { millis: 10, deadly: 0, calls: false };

/// For scenarios that show nothing beside the invariants.
pub(crate) fn nothing_else(_: &Book, _: &mut Verdict) -> Vec<(String, String)> {
    Vec::new()
}

/// The scenario of this name.
pub(crate) fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    let found = ALL.iter().find(|scenario| scenario.name.eq_ignore_ascii_case(name));
    found.copied().with_context(|| format!("there is no scenario `{name}`: there are {}", names.join(", ")))
}

/// `ponos-chaos list`.
pub(crate) fn list() -> anyhow::Result<()> {
    for scenario in ALL {
        let brokers: Vec<String> = scenario.brokers.iter().map(ToString::to_string).collect();
        output::line(&format!("{:<4} {} ({})", scenario.name, scenario.title, brokers.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name_and_says_what_it_does() {
        for scenario in ALL {
            assert_eq!(find(&scenario.name.to_uppercase()).unwrap().name, scenario.name);
            assert!(
                !scenario.brokers.is_empty()
                    && scenario.what.ends_with('.')
                    && scenario.passes.ends_with('.')
            );
            assert!(scenario.short.jobs <= scenario.long.jobs);
        }
        assert!(find("r0").unwrap_err().to_string().contains("there are r1, "));
    }
}
