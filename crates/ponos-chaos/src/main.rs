//! One harness that proves that nothing is lost.
//!
//! A run is several processes: workers and publishers on a broker, a ledger that appends what they say, and this one,
//! which starts them, gives the publishers their jobs, and lets faults happen from outside. When all is over a checker
//! computes from the ledger alone whether every job had its end. `docs/reliability.md` is made of such runs.

mod check;
mod faults;
mod ledger;
mod load;
mod output;
mod report;
mod role;
mod scenarios;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Publishers, workers and a ledger as processes, faults from outside, and a checker of what became of every job.
#[derive(Debug, Parser)]
#[command(name = "ponos-chaos", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the scenarios.
    List,
    /// Runs a scenario; ends with 1 if an invariant does not hold.
    Run(scenarios::RunArgs),
    /// Judges the ledger of an earlier run once more.
    Check {
        /// The run's directory.
        dir: PathBuf,
    },
    /// Writes the table of the newest runs into docs/reliability.md.
    Report {
        /// What runs have written.
        #[arg(long, value_name = "FILE", default_value = report::RESULTS)]
        results: PathBuf,
        /// Where the table goes; `-` shows it.
        #[arg(long, value_name = "FILE", default_value = "docs/reliability.md")]
        to: PathBuf,
    },
    /// A process of a run.
    #[command(hide = true, subcommand)]
    Role(role::Role),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::List => scenarios::list(),
        Verb::Run(args) => return scenarios::run(args),
        Verb::Check { dir } => return scenarios::judge(&dir),
        Verb::Report { results, to } => report::write(&results, &to),
        Verb::Role(role) => role.play(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::problem(&format!("ponos-chaos: {error:#}"));
            ExitCode::from(2)
        }
    }
}
