//! Faults for Ponos, and whether it stood them.

mod faults;
mod scenarios;

use clap::Parser;

#[derive(Debug, Parser)]
enum Cli {
    #[command(subcommand)]
    Role(Role),
    Cut {
        seed: u64,
        rounds: u32,
        jobs: u32,
        cuts: usize,
        again: usize,
        mode: String,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    Power(scenarios::power_cut::work::Work),
    PowerAgain {
        #[arg(long)]
        dir: std::path::PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match Cli::parse() {
        Cli::Role(Role::Power(work)) => runtime.block_on(scenarios::power_cut::work::work(work)),
        Cli::Role(Role::PowerAgain { dir }) => runtime.block_on(scenarios::power_cut::work::resume(&dir)),
        Cli::Cut { seed, rounds, jobs, cuts, again, mode } => {
            let syncs = if mode == "off" { faults::disk::Syncs::Ignored } else { faults::disk::Syncs::Kept };
            let plan = scenarios::power_cut::Plan {
                seed,
                rounds,
                jobs,
                cuts,
                again,
                normal: mode == "normal",
                syncs,
            };
            let start = std::time::Instant::now();
            let outcome = runtime.block_on(scenarios::power_cut::cut(plan))?;
            eprintln!("{outcome:#?} {:?}", start.elapsed());
            Ok(())
        }
    }
}
