//! R13: everything is replaced while jobs are in flight: the program, its policies, the type and arguments of its queues.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ponos_testbed::Node;

use super::{FIGURES, Figures, PATIENCE, Scenario};
use crate::check::Verdict;
use crate::ledger::{Book, Scope};
use crate::system::{BrokerKind, System};

/// How long queues may take to run empty.
const EMPTY: Duration = Duration::from_secs(60);

/// The queues that hold jobs and events.
const QUEUES: [&str; 4] = ["forge.piece.make", "forge.piece.wanted", "shop.piece.shelve", "shop.piece.made"];

pub(super) const SCENARIO: Scenario = Scenario {
    name: "r13",
    title: "migrations on RabbitMQ",
    what: "In turn: all workers are replaced one by one by those of another version (other concurrency and prefetch) while \
           publishing goes on; publishers are stopped, the queues run empty, are deleted, and are declared again with \
           another type (classic, quorum); the same, with arguments that are not Ponos's own.",
    passes: "I1–I9 without a single run more than asked for: an orderly replacement repeats nothing.",
    brokers: &[BrokerKind::RabbitMq],
    long: Figures {
        jobs: 100_000,
        faults: 20,
        backlog: 10_000,
        open: 500,
        between: (Duration::from_secs(1), Duration::from_secs(3)),
        patience: PATIENCE,
        ..FIGURES
    },
    short: Figures { jobs: 500, faults: 2, workers: 2, patience: PATIENCE, ..FIGURES },
    run: migrate,
    judge: nothing_runs_again,
};

/// What the queues are declared as from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queues {
    /// As Ponos declares them.
    Quorum,
    /// As the npm package declares them.
    Classic,
    /// Quorum queues that somebody else declared, with another delivery limit.
    Foreign,
}

impl Queues {
    const fn next(self) -> Self {
        match self {
            Self::Quorum => Self::Classic,
            Self::Classic => Self::Foreign,
            Self::Foreign => Self::Quorum,
        }
    }
}

fn migrate(system: &mut System) -> anyhow::Result<()> {
    let own = system.url.clone();
    let mut queues = Queues::Quorum;
    system.start_load()?;
    for migrations in 0.. {
        if !system.must_go_on(migrations) {
            break;
        }
        system.wait_between();
        if migrations % 3 == 0 {
            replace_workers(system)?;
        } else {
            queues = queues.next();
            replace_queues(system, &own, queues)?;
        }
    }
    Ok(())
}

/// One by one, with publishing and work going on.
fn replace_workers(system: &mut System) -> anyhow::Result<()> {
    let (less, more) = (system.figures.concurrency / 2, system.figures.concurrency);
    let concurrency = if system.worker.concurrency == more { less } else { more };
    (system.worker.concurrency, system.worker.prefetch) = (concurrency, concurrency * 4);
    for old in system.workers() {
        let fault = system.fault("replaced", Scope::Process(old), "");
        system.start_workers(1)?;
        system.retire(old)?;
        system.over(fault);
    }
    Ok(())
}

/// As docs/rabbitmq.md says: let the queues run empty, stop who consumes, delete them, start again.
fn replace_queues(system: &mut System, own: &str, queues: Queues) -> anyhow::Result<()> {
    let fault = system.fault("migration", Scope::All, format!("{queues:?}"));
    system.retire_publishers()?;
    // What waits in the delay ladder comes back to its queue.
    system.until("the queues to run empty", |book| book.unfinished == 0)?;
    let (node, vhost) = (system.site.node()?, system.site.vhost().to_owned());
    for queue in QUEUES {
        until_empty(node, &vhost, queue)?;
    }
    for worker in system.workers() {
        system.retire(worker)?;
    }
    for queue in QUEUES {
        let path = format!("/api/queues/{vhost}/{queue}");
        expect(node, "DELETE", &path, None)?;
        if queues == Queues::Foreign {
            let arguments = r#"{"x-queue-type":"quorum","x-delivery-limit":77777}"#;
            expect(node, "PUT", &path, Some(&format!(r#"{{"durable":true,"arguments":{arguments}}}"#)))?;
        }
    }
    let kind = if queues == Queues::Classic { "&queue_type=classic" } else { "" };
    system.url = format!("{own}{kind}");
    system.over(fault);
    let before = system.book().ended;
    system.start_load()?;
    system.until("work on the new queues", |book| book.ended > before)
}

/// A worker that ends in order acknowledges what it has done and hands back what it has not begun.
fn nothing_runs_again(_: &Book, verdict: &mut Verdict) -> Vec<(String, String)> {
    let extra: usize = verdict.extra.values().sum();
    if extra > 0 {
        let why = &verdict.extra;
        verdict.violations.push(format!("R13: {extra} runs more than asked for, and nobody died: {why:?}"));
    }
    Vec::new()
}

fn until_empty(node: &Node, vhost: &str, queue: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let answer = expect(node, "GET", &format!("/api/queues/{vhost}/{queue}?columns=messages"), None)?;
        let there: serde_json::Value =
            serde_json::from_str(&answer).context("what the management plugin answers")?;
        if there["messages"] == 0 {
            return Ok(());
        }
        if started.elapsed() > EMPTY {
            bail!("`{queue}` is not empty: {answer}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn expect(node: &Node, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<String> {
    match node.http(method, path, body) {
        (200..300, answer) => Ok(answer),
        (status, answer) => bail!("{method} {path}: {status} {answer}"),
    }
}
