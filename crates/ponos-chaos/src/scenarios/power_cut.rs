//! The power is cut: what was not synced is gone, torn or garbage.
//!
//! Two processes work on one file while the shim writes down everything that reaches the disk, and what they are told.
//! From that one trace as many power cuts are made as are asked for: a moment, and one of the states in which the disk
//! may be then. Each is opened by the real broker, and every job must be where its last confirmation says. Then the
//! power is cut again while a broker recovers.
//!
//! The `-shm` of a database is memory and no file: what a cut leaves of it is random here, and SQLite makes it anew.

pub(crate) mod marks;
pub(crate) mod recovered;
pub(crate) mod work;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use fastrand::Rng;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::marks::{Mark, Promises};
use self::recovered::{Verdicts, compare};
use crate::faults::disk::{Disk, Image, Syncs};
use crate::faults::shim::Shim;
use crate::faults::trace::Trace;

/// How many brokers recover at the same time.
const AT_ONCE: usize = 4;

/// Every so many cuts all jobs are taken too.
const DRAIN: usize = 10;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How many times each of the two processes opens the broker, and how many jobs it publishes then.
    pub(crate) rounds: u32,
    pub(crate) jobs: u32,
    /// How many power cuts.
    pub(crate) cuts: usize,
    /// How many of them are followed by another one while the broker recovers.
    pub(crate) again: usize,
    /// With `synchronous=NORMAL`.
    pub(crate) normal: bool,
    /// Whether the disk does what it is asked.
    pub(crate) syncs: Syncs,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// Power cuts, the second ones included.
    pub(crate) cuts: usize,
    /// Of which second ones.
    pub(crate) again: usize,
    /// Changes in the trace, syncs and bytes that were written.
    pub(crate) changes: usize,
    /// Cuts at which something was not safe and did not arrive as it was written.
    pub(crate) harmful: usize,
    /// What was not safe, and what of it was harmed, over all cuts.
    pub(crate) at_risk: usize,
    pub(crate) harmed: usize,
    /// Jobs that were confirmed at a cut, over all cuts.
    pub(crate) confirmed: usize,
    /// Cuts after which something that was confirmed was not there.
    pub(crate) losing: usize,
    /// Jobs for which that was so, over all cuts.
    pub(crate) lost: usize,
    /// Cuts that left something that must never be, and the first of it.
    pub(crate) damaging: usize,
    pub(crate) damage: BTreeSet<String>,
}

/// Traces one run, and cuts its power as often as is asked for.
pub(crate) async fn cut(plan: Plan) -> anyhow::Result<Outcome> {
    let run = tempfile::tempdir()?;
    let (trace, marks) = trace(&plan, run.path())?;
    let mut outcome = Outcome { changes: trace.changes().len(), ..Outcome::default() };
    let mut rng = Rng::with_seed(plan.seed);
    let mut moments: Vec<usize> =
        std::iter::repeat_with(|| rng.usize(0..=trace.changes().len())).take(plan.cuts).collect();
    moments.sort_unstable();
    let mut disk = Disk::new(&trace, plan.syncs);
    let mut promises = Promises::default();
    let mut marks = marks.into_iter().peekable();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut checks = JoinSet::new();
    for (number, moment) in moments.into_iter().enumerate() {
        disk.play_to(moment);
        while let Some((_, mark)) = marks.next_if(|(before, _)| *before <= moment) {
            promises.mark(mark);
        }
        let image = disk.cut(&mut rng);
        let place = Arc::clone(&places).acquire_owned().await?;
        let promises = promises.clone();
        let again = number < plan.again * (plan.cuts / plan.again.max(1))
            && number % (plan.cuts / plan.again.max(1)) == 0;
        let (seed, syncs) = (rng.u64(..), plan.syncs);
        checks.spawn(async move {
            let mut outcome = Outcome::default();
            check(&image, &promises, number % DRAIN == 0, &mut outcome).await?;
            if again {
                cut_again(&image, &promises, syncs, seed, &mut outcome).await?;
            }
            drop(place);
            anyhow::Ok(outcome)
        });
        while let Some(done) = checks.try_join_next() {
            outcome.add(done??);
        }
    }
    while let Some(done) = checks.join_next().await {
        outcome.add(done??);
    }
    Ok(outcome)
}

/// Lets the processes do their work, and reads what they did and what they were told, each with its place.
fn trace(plan: &Plan, run: &Path) -> anyhow::Result<(Trace, Vec<(usize, Mark)>)> {
    let watched = run.join("disk");
    let shim = shim(run, &watched)?;
    let mut children = Vec::new();
    for number in 0..2_u32 {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", "power", "--dir"]).arg(&watched);
        command.args(["--number", &number.to_string(), "--seed", &plan.seed.to_string()]);
        command.args(["--rounds", &plan.rounds.to_string(), "--jobs", &plan.jobs.to_string()]);
        if plan.normal {
            command.arg("--normal");
        }
        children.push(shim.wrap(&mut command).stdin(Stdio::null()).spawn()?);
    }
    for child in &mut children {
        let status = child.wait()?;
        if !status.success() {
            bail!("a traced process ended with {status}");
        }
    }
    read(run)
}

fn shim(run: &Path, watched: &Path) -> anyhow::Result<Shim> {
    fs::create_dir_all(watched)?;
    Ok(Shim::build(run, watched)?.traced(&run.join("trace")))
}

fn read(run: &Path) -> anyhow::Result<(Trace, Vec<(usize, Mark)>)> {
    let (trace, marks) = Trace::read(&run.join("trace"))?.without(marks::FILE);
    let mut parsed = Vec::new();
    for (before, lines) in marks {
        for line in String::from_utf8(lines)?.lines() {
            parsed.push((before, line.parse()?));
        }
    }
    Ok((trace, parsed))
}

/// Opens what a cut left, and judges it.
async fn check(image: &Image, promises: &Promises, drain: bool, outcome: &mut Outcome) -> anyhow::Result<()> {
    let dir = scratch()?;
    image.write_to(dir.path()).context("writing what a power cut left")?;
    let Verdicts { lost, damage, found: _ } = compare(dir.path(), promises, drain).await;
    outcome.cuts += 1;
    outcome.harmful += usize::from(image.harmed > 0);
    outcome.at_risk += image.at_risk;
    outcome.harmed += image.harmed;
    outcome.confirmed += promises.confirmed();
    outcome.losing += usize::from(!lost.is_empty());
    outcome.lost += lost.len();
    outcome.damaging += usize::from(!damage.is_empty());
    outcome.damage.extend(damage.into_iter().take(3));
    Ok(())
}

/// Lets a process recover what a cut left, and cuts the power while it does.
async fn cut_again(
    image: &Image,
    promises: &Promises,
    syncs: Syncs,
    seed: u64,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let run = tempfile::tempdir()?;
    let watched = run.path().join("disk");
    let shim = shim(run.path(), &watched)?;
    image.write_to(&watched)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["role", "power-again", "--dir"]).arg(&watched).stdin(Stdio::null());
    let status = tokio::task::spawn_blocking(move || shim.wrap(&mut command).status()).await??;
    if !status.success() {
        bail!("a process that recovers ended with {status}");
    }
    let (trace, _) = read(run.path())?;
    let mut rng = Rng::with_seed(seed);
    for _ in 0..5 {
        let mut disk = Disk::with(image, &trace, syncs);
        disk.play_to(rng.usize(0..=trace.changes().len()));
        check(&disk.cut(&mut rng), promises, false, outcome).await?;
        outcome.again += 1;
    }
    Ok(())
}

/// In memory where that can be had: thousands of small databases wear out a disk for nothing.
fn scratch() -> std::io::Result<TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        Ok(dir)
    } else {
        tempfile::tempdir()
    }
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        self.again += other.again;
        self.harmful += other.harmful;
        self.at_risk += other.at_risk;
        self.harmed += other.harmed;
        self.confirmed += other.confirmed;
        self.losing += other.losing;
        self.lost += other.lost;
        self.damaging += other.damaging;
        self.damage.extend(other.damage);
    }
}
