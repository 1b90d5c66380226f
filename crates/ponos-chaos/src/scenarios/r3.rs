//! R3: the power is cut: what was not synced is gone, torn or garbage.
//!
//! Two processes work on one file while the shim writes down everything that reaches the disk, and what they are told.
//! From that one trace as many power cuts are made as are asked for: a moment, and one of the states in which the disk
//! may be then. Each is opened by the real broker, and every job must be where its last confirmation says. After one in
//! ten the power is cut again while a broker recovers.
//!
//! The `-shm` of a database is memory and no file: what a cut leaves of it is random here, and SQLite makes it anew.

mod cuts;
mod marks;
mod recovered;
pub(crate) mod work;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use self::cuts::{Cut, Found, Traced};
use super::{FIGURES, Figures, Scenario};
use crate::check::Verdict;
use crate::faults::{Shim, Syncs};
use crate::ledger::{Book, Scope};
use crate::system::{BrokerKind, System};

/// How many processes work on the file.
const PROCESSES: u32 = 2;

/// How many times each of them opens the broker.
const ROUNDS: u32 = 2;

/// How many cuts show that the check can fail.
const CONTROLS: u32 = 100;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r3",
    title: "the power is cut under SQLite",
    what: "Two processes publish, work and settle on one file, and everything that reaches the disk is traced. For each cut \
           a moment of the trace is drawn, and what no completed sync had covered then arrives or not: in any order, by the \
           write, the page or the sector, torn or as garbage, names of files too. The broker opens what is left; after one \
           cut in ten the power is cut five times more while it recovers.",
    passes: "Each job is in exactly one place, and that is where its last confirmed publish or settlement put it; both hearers \
             of an event have it or none; bodies are whole; `PRAGMA integrity_check` says ok of the file and the journal; \
             what is there can be taken. On a disk that ignores syncs the same check must find losses, and with \
             `synchronous=NORMAL` losses without damage.",
    brokers: &[BrokerKind::Sqlite],
    long: Figures { jobs: 2_400, faults: 2_000, ..FIGURES },
    short: Figures { jobs: 240, faults: 40, ..FIGURES },
    run: cut_the_power,
    judge,
};

fn cut_the_power(system: &mut System) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let Figures { jobs, faults, .. } = system.figures;
    let full = trace(system, "full", jobs, false)?;
    let found = runtime.block_on(full.cut(Cut {
        seed: system.chance.u64(..),
        cuts: faults,
        again: faults.div_ceil(10),
        syncs: Syncs::Kept,
    }))?;
    for _ in 0..found.cuts {
        let fault = system.fault("power-cut", Scope::All, "");
        system.over(fault);
    }
    found.note(system, "full")?;
    let control =
        Cut { seed: system.chance.u64(..), cuts: CONTROLS.min(faults), again: 0, syncs: Syncs::Ignored };
    runtime.block_on(full.cut(control))?.note(system, "ignored")?;
    let normal = trace(system, "normal", jobs.min(600), true)?;
    runtime.block_on(normal.cut(Cut { syncs: Syncs::Kept, ..control }))?.note(system, "normal")
}

/// Lets the processes do their work, and reads what they did and what they were told.
fn trace(system: &mut System, name: &str, jobs: u32, normal: bool) -> anyhow::Result<Traced> {
    let run = system.dir().join(name);
    let watched = run.join("disk");
    std::fs::create_dir_all(&watched)?;
    let shim = Shim::build(&run, &watched)?.traced(&run.join("trace"));
    let seed = system.chance.u64(..);
    let mut children = Vec::new();
    for number in 0..PROCESSES {
        let mut command = role("power", &watched)?;
        command.args(["--number", &number.to_string(), "--seed", &seed.to_string()]);
        command.args(["--rounds", &ROUNDS.to_string(), "--jobs", &(jobs / PROCESSES / ROUNDS).to_string()]);
        if normal {
            command.arg("--normal");
        }
        let log = std::fs::File::create(run.join(format!("power-{number}.log")))?;
        children.push(command.envs(shim.env()).stdout(log.try_clone()?).stderr(log).spawn()?);
    }
    for child in &mut children {
        let status = child.wait()?;
        if !status.success() {
            bail!("a traced process ended with {status}");
        }
    }
    Traced::read(&run.join("trace"))
}

/// This program again, on the directory that is watched.
fn role(role: &str, watched: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["role", role, "--dir"]).arg(watched).stdin(Stdio::null());
    Ok(command)
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for name in ["full", "ignored", "normal"] {
        let Some(found) = Found::noted(book, name) else {
            verdict.violations.push(format!("R3: nothing is known of the cuts on `{name}`"));
            continue;
        };
        let mut wrong = |what: String| verdict.violations.push(format!("R3, {name}: {what}"));
        let must_lose = name != "full";
        if found.losing > 0 && !must_lose {
            wrong(format!(
                "{} cuts of {} took {} confirmed changes back",
                found.losing, found.cuts, found.lost
            ));
        }
        if found.losing == 0 && must_lose {
            wrong(format!("{} cuts lost nothing, so the check sees nothing", found.cuts));
        }
        if found.harmful == 0 {
            wrong(format!("none of {} cuts did any harm to the disk", found.cuts));
        }
        if found.damaging > 0 && name != "ignored" {
            found.damage.iter().for_each(|damage| wrong(damage.clone()));
        }
        rows.extend(found.rows(name));
    }
    rows
}
