//! R9: the disk is full for a while.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rusqlite::Connection;

use super::{FIGURES, Figures, Scenario};
use crate::check::Verdict;
use crate::faults::Shim;
use crate::ledger::{Answer, Book, Scope, now};
use crate::system::{BrokerKind, Site, System};

/// How long nothing must have been confirmed until the disk is taken to be full.
const STILL: Duration = Duration::from_millis(400);

/// How long it may take until it is: the log has room within itself, and RabbitMQ looks now and then.
const UNTIL_FULL: Duration = Duration::from_secs(60);

/// How long a publisher tries by itself; a fault that lasts longer shows what it is told then.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a publisher must be told then.
const TOLD: &str = "the disk is full";

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r9",
    title: "the disk is full",
    what: "While workers and publishers are busy, nothing that belongs to the broker can grow: every write that would \
           extend a file of SQLite's fails with ENOSPC, short writes included; RabbitMQ's node raises its disk alarm. Each \
           time until nothing is confirmed any more, and a while longer; then there is space again. The long form ends \
           with a disk that is full for longer than publishers wait.",
    passes: "I1–I9: what was confirmed is there, what was refused is not; workers settle what they had done once there is \
             space, without running it again. Who has to be refused is told that the disk is full. \
             `PRAGMA integrity_check` says ok.",
    brokers: &[BrokerKind::Sqlite, BrokerKind::RabbitMq],
    long: Figures {
        jobs: 50_000,
        faults: 20,
        between: (Duration::from_millis(1_000), Duration::from_millis(3_000)),
        ..FIGURES
    },
    short: Figures {
        faults: 3,
        workers: 3,
        between: (Duration::from_millis(300), Duration::from_millis(900)),
        ..FIGURES
    },
    run: fill_the_disk,
    judge,
};

fn fill_the_disk(system: &mut System) -> anyhow::Result<()> {
    let disk = DiskSpace::of(system)?;
    system.start_load()?;
    let mut filled = 0;
    while system.must_go_on(filled) {
        system.wait_between();
        let is_last = filled + 1 == system.figures.faults;
        let long = is_last && matches!(disk, DiskSpace::Shim(_)) && system.figures.jobs > SCENARIO.short.jobs;
        // It touches no process in a way that would explain that something runs again.
        let fault = system.fault("disk-full", Scope::Process(0), "");
        disk.set_full(system, true)?;
        let still = until_still(system);
        if still.is_ok() {
            if long {
                std::thread::sleep(DEADLINE + Duration::from_secs(10));
            } else {
                system.wait_between();
            }
        }
        disk.set_full(system, false)?;
        system.over(fault);
        still?;
        let confirmed = system.book().confirmed;
        system.until("a confirm after there was space again", |book| book.confirmed > confirmed)?;
        filled += 1;
    }
    disk.inspect(system)
}

/// What takes the space away.
#[derive(Debug)]
enum DiskSpace {
    /// The processes' writes are refused.
    Shim(Shim),
    /// The node believes that there is not enough.
    Alarm,
}

impl DiskSpace {
    fn of(system: &mut System) -> anyhow::Result<Self> {
        if matches!(system.site, Site::Sqlite(_)) {
            let dir = system.dir();
            let shim = Shim::build(&dir, &dir)?.only("ponos.db");
            system.worker.env = shim.env();
            return Ok(Self::Shim(shim));
        }
        Ok(Self::Alarm)
    }

    fn set_full(&self, system: &System, full: bool) -> anyhow::Result<()> {
        match (self, &system.site) {
            (Self::Shim(shim), _) => shim.set_full(full)?,
            (Self::Alarm, Site::Node(node, _)) => {
                let limit = if full { "1000000GB" } else { "1MB" };
                node.ctl(&["set_disk_free_limit", limit])
                    .map_err(|e| anyhow::anyhow!("the disk alarm: {e}"))?;
            }
            (Self::Alarm, _) => {
                bail!("a RabbitMQ of somebody else is not given a full disk: say `--broker rabbitmq`")
            }
        }
        Ok(())
    }

    /// What SQLite finds wrong with the file, into the ledger.
    fn inspect(&self, system: &System) -> anyhow::Result<()> {
        if let (Self::Shim(_), Some(path)) = (self, system.site.url().strip_prefix("sqlite:")) {
            let connection = Connection::open(path).context("opening the broker's file")?;
            connection.busy_timeout(Duration::from_secs(10))?;
            let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            system
                .ledger()
                .note(format!("{}integrity_check: {found}", if found == "ok" { "" } else { "problem: " }));
        }
        Ok(())
    }
}

/// Waits until nothing is confirmed any more.
fn until_still(system: &System) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut last = (system.book().confirmed, Instant::now());
    while last.1.elapsed() < STILL {
        std::thread::sleep(Duration::from_millis(10));
        let confirmed = system.book().confirmed;
        if confirmed != last.0 {
            last = (confirmed, Instant::now());
        }
        if start.elapsed() > UNTIL_FULL {
            bail!("the disk was full for {UNTIL_FULL:?}, and everything was confirmed all the same");
        }
    }
    Ok(())
}

fn judge(book: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let full = || book.faults.values().filter(|fault| fault.kind == "disk-full");
    let lasted =
        |fault: &crate::ledger::Fault| Duration::from_micros(fault.to.unwrap_or_else(now) - fault.from);
    let refused: Vec<&str> = book
        .jobs
        .values()
        .filter(|job| matches!(job.answered, Some((_, Answer::Refused | Answer::Unknown))))
        .map(|job| job.tid.as_str())
        .collect();
    if book.broker == "sqlite" {
        for told in refused.iter().filter(|told| !told.contains(TOLD)).take(5) {
            verdict
                .violations
                .push(format!("R9: a publisher was told something else than that {TOLD}: {told}"));
        }
        if refused.is_empty() && full().any(|fault| lasted(fault) > DEADLINE + Duration::from_secs(5)) {
            verdict.violations.push(
                "R9: nobody was told of a disk that was full for longer than a publisher waits".to_owned(),
            );
        }
    }
    let resumed = full().filter_map(|fault| {
        let from = fault.to?;
        book.jobs
            .values()
            .filter(|job| job.is_confirmed())
            .filter_map(|job| job.answered)
            .map(|(at, _)| at)
            .filter(|at| *at >= from)
            .min()
            .map(|at| at - from)
    });
    let longest = full().map(lasted).max().unwrap_or_default();
    let row = |what: &str, value: String| (what.to_owned(), value);
    let mut rows = vec![
        row("the disk was full", format!("{} times, the longest {longest:.1?}", full().count())),
        row("publishes refused for it", refused.len().to_string()),
        row("from space to a confirm", format!("{} ms at most", resumed.max().unwrap_or(0) / 1_000)),
    ];
    rows.extend(
        book.notes
            .iter()
            .filter_map(|note| note.strip_prefix("integrity_check: "))
            .map(|found| row("integrity_check", found.to_owned())),
    );
    rows
}
