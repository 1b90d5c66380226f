//! Power cuts from one trace, and what a broker finds after each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::marks::{self, Mark, Promises};
use super::recovered::{Recovered, compare};
use super::role;
use crate::faults::{Disk, Image, Shim, Syncs, Trace};
use crate::ledger::Book;
use crate::system::System;

/// How many brokers recover at the same time.
const AT_ONCE: usize = 4;

/// After one cut in so many all jobs are taken too.
const DRAIN: u32 = 10;

/// How often the power is cut while one broker recovers.
const AGAIN: u32 = 5;

/// How many of the things that must never be are told.
const TOLD: usize = 10;

/// What processes did, and what they were told, each mark with the number of changes before it.
#[derive(Debug)]
pub(super) struct Traced {
    trace: Trace,
    marks: Vec<(usize, Mark)>,
}

/// Which cuts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) seed: u64,
    pub(super) cuts: u32,
    /// How many of them are followed by others while the broker recovers.
    pub(super) again: u32,
    pub(super) syncs: Syncs,
}

/// What came of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// The second ones included.
    pub(super) cuts: u32,
    /// While a broker recovered.
    again: u32,
    /// Writes, syncs and changes of names in the trace.
    changes: usize,
    /// Cuts at which something did not arrive as it was written.
    pub(super) harmful: u32,
    /// Changes that were not safe at their cut, and those of them that did not arrive whole.
    at_risk: usize,
    harmed: usize,
    /// Jobs with something confirmed, over all cuts.
    confirmed: usize,
    /// Cuts that took something back that was confirmed, and of how many jobs.
    pub(super) losing: u32,
    pub(super) lost: usize,
    /// Cuts that left something that must never be, and the first of it.
    pub(super) damaging: u32,
    pub(super) damage: BTreeSet<String>,
}

impl Traced {
    /// Reads the trace of processes that have ended.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let (trace, lines) = Trace::read(path)?.without(marks::FILE);
        let mut marks = Vec::new();
        for (before, lines) in lines {
            for line in String::from_utf8(lines)?.lines() {
                marks.push((before, line.parse()?));
            }
        }
        Ok(Self { trace, marks })
    }

    /// Cuts the power at moments that are drawn, in order, so that the disk is played through once.
    pub(super) async fn cut(&self, Cut { seed, cuts, again, syncs }: Cut) -> anyhow::Result<Found> {
        let mut rng = Rng::with_seed(seed);
        let end = self.trace.changes().len();
        let mut moments: Vec<usize> = (0..cuts).map(|_| rng.usize(0..=end)).collect();
        moments.sort_unstable();
        let mut disk = Disk::new(&self.trace, syncs);
        let mut promises = Promises::default();
        let mut marks = self.marks.iter().peekable();
        let mut found = Found { changes: end, ..Found::default() };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut checks = JoinSet::new();
        for (number, moment) in (0..cuts).zip(moments) {
            disk.play_to(moment);
            // What was said before the next change was said before the power went.
            while let Some((_, mark)) = marks.next_if(|(before, _)| *before <= moment) {
                promises.mark(*mark);
            }
            let (image, promises) = (disk.cut(&mut rng), promises.clone());
            let is_followed = again > 0 && number.is_multiple_of(cuts.div_ceil(again));
            let follow = is_followed.then(|| rng.u64(..));
            let place = Arc::clone(&places).acquire_owned().await?;
            checks.spawn(async move {
                let mut found = Found::default();
                found.check(&image, &promises, number % DRAIN == 0).await?;
                if let Some(seed) = follow {
                    found.cut_again(&image, &promises, syncs, seed).await?;
                }
                drop(place);
                anyhow::Ok(found)
            });
            while let Some(done) = checks.try_join_next() {
                found.add(done??);
            }
        }
        while let Some(done) = checks.join_next().await {
            found.add(done??);
        }
        Ok(found)
    }
}

impl Found {
    /// Opens what a cut left, and judges it.
    async fn check(&mut self, image: &Image, promises: &Promises, drain: bool) -> anyhow::Result<()> {
        let dir = scratch()?;
        image.write_to(dir.path()).context("writing what a power cut left")?;
        let Recovered { lost, damage } = compare(dir.path(), promises, drain).await;
        self.cuts += 1;
        self.harmful += u32::from(image.harmed > 0);
        self.at_risk += image.at_risk;
        self.harmed += image.harmed;
        self.confirmed += promises.confirmed();
        self.losing += u32::from(!lost.is_empty());
        self.lost += lost.len();
        self.damaging += u32::from(!damage.is_empty());
        self.damage.extend(damage);
        Ok(())
    }

    /// Lets a process recover what a cut left, and cuts the power while it does.
    async fn cut_again(
        &mut self,
        image: &Image,
        promises: &Promises,
        syncs: Syncs,
        seed: u64,
    ) -> anyhow::Result<()> {
        let run = tempfile::tempdir()?;
        let watched = run.path().join("disk");
        std::fs::create_dir(&watched)?;
        image.write_to(&watched)?;
        let shim = Shim::build(run.path(), &watched)?.traced(&run.path().join("trace"));
        let mut command = role("power-again", &watched)?;
        let log = std::fs::File::create(run.path().join("log"))?;
        command.envs(shim.env()).stdout(log.try_clone()?).stderr(log);
        let status = tokio::task::spawn_blocking(move || command.status()).await??;
        if !status.success() {
            bail!("a process that recovers ended with {status}");
        }
        let trace = Trace::read(&run.path().join("trace"))?;
        let mut rng = Rng::with_seed(seed);
        for _ in 0..AGAIN {
            let mut disk = Disk::with(image, &trace, syncs);
            disk.play_to(rng.usize(0..=trace.changes().len()));
            let image = disk.cut(&mut rng);
            self.check(&image, promises, false).await?;
            self.again += 1;
        }
        Ok(())
    }

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

    /// Writes it into the ledger.
    pub(super) fn note(mut self, system: &System, name: &str) -> anyhow::Result<()> {
        self.damage = self.damage.into_iter().take(TOLD).collect();
        system.ledger().note(format!("cuts {name} {}", serde_json::to_string(&self)?));
        Ok(())
    }

    /// What the ledger says of it.
    pub(super) fn noted(book: &Book, name: &str) -> Option<Self> {
        let start = format!("cuts {name} ");
        let note = book.notes.iter().find_map(|note| note.strip_prefix(&start))?;
        serde_json::from_str(note).ok()
    }

    /// For the report.
    pub(super) fn rows(&self, name: &str) -> Vec<(String, String)> {
        let Self {
            cuts, again, changes, harmful, at_risk, harmed, confirmed, losing, lost, damaging, ..
        } = self;
        let row = |what: &str, value: String| (what.to_owned(), value);
        let taken_back = format!(
            "{lost} of {confirmed} confirmed changes taken back, by {losing} cuts; damaged by {damaging}"
        );
        match name {
            "full" => vec![
                row(
                    "power cuts",
                    format!("{cuts}, of which {again} while a broker recovered; {harmful} did harm"),
                ),
                row(
                    "trace",
                    format!(
                        "{changes} changes; {harmed} of {at_risk} that were not safe arrived torn or not at all"
                    ),
                ),
                row("after the cuts", taken_back),
            ],
            "ignored" => vec![row("control: syncs ignored", format!("{cuts} cuts: {taken_back}"))],
            _ => vec![row("control: synchronous=NORMAL", format!("{cuts} cuts: {taken_back}"))],
        }
    }
}

/// In memory where that can be had: thousands of small databases wear out a disk for nothing.
fn scratch() -> std::io::Result<TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return Ok(dir);
    }
    tempfile::tempdir()
}
