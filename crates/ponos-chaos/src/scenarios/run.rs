//! `ponos-chaos run`: one run of one scenario, from an empty directory to a line in the results.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Figures, Scenario, find};
use crate::check::{Verdict, check};
use crate::ledger::{Book, Tail};
use crate::output;
use crate::report::{self, Outcome};
use crate::system::{Site, System};

/// How many violations are shown; the ledger has all.
const SHOWN: usize = 20;

/// What is to be run. Without figures it takes those of the scenario's long form.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which ones, one after the other; see `list`. Those that need a RabbitMQ node share one.
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// `sqlite` or `rabbitmq` for a broker of the run's own, or a URL [default: the scenario's first].
    #[arg(long)]
    pub(crate) broker: Option<String>,
    /// Decides on kinds of jobs, victims and pauses; drawn if it is not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// At least so long.
    #[arg(long)]
    pub(crate) minutes: Option<f64>,
    /// At least so many confirmed jobs.
    #[arg(long)]
    pub(crate) jobs: Option<u32>,
    /// At least so many faults.
    #[arg(long)]
    pub(crate) faults: Option<u32>,
    /// Jobs in a second, at most.
    #[arg(long)]
    pub(crate) pace: Option<u32>,
    /// The short form, a few seconds long.
    #[arg(long)]
    pub(crate) short: bool,
    /// Where the line of the result is appended; `-` for nowhere.
    #[arg(long, value_name = "FILE", default_value = report::RESULTS)]
    pub(crate) results: PathBuf,
    /// Where the ledger and the logs go, kept in any case [default: a directory that is kept when something is wrong].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

/// 0 if every invariant holds, 1 if not, 2 if the run could not be made.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let ends = args
        .scenarios
        .iter()
        .map(|name| run_and_judge(&args, name).map_err(|error| error.context(name.clone())));
    ExitCode::from(ends.map(ending).max().unwrap_or(2))
}

fn ending(judged: anyhow::Result<bool>) -> u8 {
    match judged {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            output::problem(&format!("ponos-chaos: {error:#}"));
            2
        }
    }
}

/// `ponos-chaos check`: what the checker says of a ledger that was kept.
pub(crate) fn judge(dir: &Path) -> ExitCode {
    let judged = || {
        let book = Book::of(Tail::open(dir)?.read()?);
        let mut verdict = check(&book);
        (find(&book.scenario)?.judge)(&book, &mut verdict);
        verdict.violations.iter().for_each(|violation| output::line(violation));
        anyhow::Ok(verdict.violations.is_empty())
    };
    ExitCode::from(ending(judged()))
}

fn run_and_judge(args: &RunArgs, name: &str) -> anyhow::Result<bool> {
    let scenario = find(name)?;
    let default = scenario.brokers.first().context("a scenario has a broker")?.to_string();
    let broker = args.broker.as_deref().unwrap_or(&default);
    if !scenario.brokers.contains(&Site::kind_of(broker)) {
        bail!("{} is not for this broker: it is for {:?}", scenario.name, scenario.brokers);
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let figures = args.figures(scenario)?;
    let several = args.scenarios.len() > 1;
    let named = args.dir.as_ref().map(|dir| if several { dir.join(name) } else { dir.clone() });
    let (dir, kept) = directory(named.as_deref())?;
    output::line(&format!("{} on {}, seed {seed}: {}", scenario.name, Site::kind_of(broker), scenario.title));
    let began = Instant::now();
    let made = make(scenario, broker, seed, figures, &dir);
    let (version, book) = match made {
        Ok(made) => made,
        Err(error) => {
            keep(kept);
            return Err(error.context(format!("the run's ledger and logs are in {}", dir.display())));
        }
    };
    let mut verdict = check(&book);
    let rows = (scenario.judge)(&book, &mut verdict);
    let outcome = Outcome::of(
        scenario,
        &book,
        &verdict,
        rows,
        version,
        args.command(scenario, broker, seed),
        began.elapsed(),
    );
    output::line(&outcome.table());
    if args.results != Path::new("-") {
        report::append(&args.results, &outcome)?;
    }
    show(&verdict);
    let holds = verdict.violations.is_empty();
    if !holds {
        keep(kept);
        output::problem(&format!("the run's ledger and logs are in {}", dir.display()));
    }
    Ok(holds)
}

/// Runs it, and reads the ledger anew.
fn make(
    scenario: &Scenario,
    broker: &str,
    seed: u64,
    figures: Figures,
    dir: &Path,
) -> anyhow::Result<(String, Book)> {
    let site = Site::open(broker, dir)?;
    let version = site.version();
    let mut system = System::start(site, dir, scenario.name, seed, figures)?;
    if let Err(error) = (scenario.run)(&mut system) {
        system.ledger().note(format!("problem: the scenario: {error:#}"));
    }
    let dir = system.end()?;
    Ok((version, Book::of(Tail::open(&dir)?.read()?)))
}

fn show(verdict: &Verdict) {
    for violation in verdict.violations.iter().take(SHOWN) {
        output::problem(&format!("VIOLATION {violation}"));
    }
    if verdict.violations.len() > SHOWN {
        output::problem(&format!("… and {} more", verdict.violations.len() - SHOWN));
    }
}

/// The run's directory, and what removes it at the end.
fn directory(named: Option<&Path>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    if let Some(dir) = named {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        return Ok((dir.canonicalize()?, None));
    }
    let dir = tempfile::Builder::new().prefix("ponos-chaos-").tempdir()?;
    Ok((dir.path().to_owned(), Some(dir)))
}

fn keep(dir: Option<tempfile::TempDir>) {
    if let Some(dir) = dir {
        let _ = dir.keep();
    }
}

impl RunArgs {
    fn figures(&self, scenario: &Scenario) -> anyhow::Result<Figures> {
        let mut figures = if self.short { scenario.short } else { scenario.long };
        figures.jobs = self.jobs.unwrap_or(figures.jobs);
        figures.faults = self.faults.unwrap_or(figures.faults);
        figures.pace = self.pace.unwrap_or(figures.pace);
        if let Some(minutes) = self.minutes {
            figures.time = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
        }
        Ok(figures)
    }

    /// What to type to do it again.
    fn command(&self, scenario: &Scenario, broker: &str, seed: u64) -> String {
        // A URL may hold a password.
        let broker = if broker.contains(':') { Site::kind_of(broker).to_string() } else { broker.to_owned() };
        let mut command = format!("run {} --broker {broker} --seed {seed}", scenario.name);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command += &format!(" --{name} {value}");
            }
        };
        add("minutes", self.minutes.map(|value| value.to_string()));
        add("jobs", self.jobs.map(|value| value.to_string()));
        add("faults", self.faults.map(|value| value.to_string()));
        add("pace", self.pace.map(|value| value.to_string()));
        command + if self.short { " --short" } else { "" }
    }
}
