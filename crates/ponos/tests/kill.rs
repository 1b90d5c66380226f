//! No job is lost: four worker processes on one SQLite file are killed at random moments with jobs in their hands, and
//! a ledger beside the broker says afterwards what ran where. `PONOS_KILLS=30` for the long form.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod another_process;
#[path = "kill/check.rs"]
mod check;
#[path = "kill/ledger.rs"]
mod ledger;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use another_process::{Process, Role, say};
use check::{Found, Kill, Verdict};
use ledger::{Ledger, now};
use ponos::core::body;
use ponos::core::broker::{Broker as BrokerTrait, Inspect, Topology};
use ponos::core::envelope::{Envelope, Recovery};
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::prelude::*;
use tokio::task::JoinSet;

const WORKERS: u32 = 4;

/// What lies in the queue while the killing goes on, at least.
const BACKLOG: u64 = 150;

/// The longest a killed worker's jobs may wait for another one.
const RESUME: Duration = Duration::from_secs(2);

/// How long everything may take to come to its end after the last kill.
const PATIENCE: Duration = Duration::from_secs(60);

#[app("torture", state = Ledger)]
pub struct Torture;

/// Says which process settled, so that two settlements of one job would be two different messages.
#[event("piece.made")]
pub struct PieceMade {
    pub job: u32,
    pub worker: u32,
}

#[event("piece.spoiled")]
pub struct PieceSpoiled {
    pub job: u32,
    pub worker: u32,
}

#[task("torture.piece.make", app = Torture, emits(PieceMade, PieceSpoiled))]
pub struct PieceMake {
    pub job: u32,
    pub millis: u64,
}

const MAX_RETRIES: u32 = 2;

/// On which attempt a job succeeds: most at once, one in eight later, one in sixteen never.
fn attempts(job: u32) -> u32 {
    match job % 16 {
        3 => 2,
        7 => MAX_RETRIES + 1,
        11 => u32::MAX,
        _ => 1,
    }
}

fn is_doomed(job: u32) -> bool {
    attempts(job) > MAX_RETRIES + 1
}

async fn make(t: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    let ledger = cx.state();
    ledger.started(t.job, cx.phase(), cx.attempt());
    cx.sleep(millis(t.millis)).await;
    cx.emit(PieceMade { job: t.job, worker: ledger.worker() })?;
    ledger.finished(t.job, cx.phase(), cx.attempt());
    if cx.attempt() < attempts(t.job) {
        Err("spoiled")?;
    }
    Ok(())
}

async fn write_off(t: PieceMake, cx: TaskCx<PieceMake>, _: GaveUp) -> Outcome {
    let ledger = cx.state();
    ledger.started(t.job, cx.phase(), cx.attempt());
    cx.sleep(millis(t.millis)).await;
    cx.emit(PieceSpoiled { job: t.job, worker: ledger.worker() })?;
    ledger.finished(t.job, cx.phase(), cx.attempt());
    Ok(())
}

fn service() -> Service<Torture> {
    let backoff = Backoff::exponential(millis(50)).max(millis(200));
    Service::new()
        .task(make, move |p| p.retry(backoff).max_retries(MAX_RETRIES).recover(write_off).no_breaker())
}

/// What a child does; nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    let ledger = Ledger::open(&role.file, role.number);
    say("up");
    service().run(ledger, Broker::sqlite(&role.file)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_and_every_extra_run_has_its_kill_when_workers_are_killed_at_random() {
    let wanted = std::env::var("PONOS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = Broker::sqlite(&file).connect().await.unwrap();
    broker.declare(&listeners()).await.unwrap();

    let enough = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn(publish(Arc::clone(&broker), Arc::clone(&enough)));
    let (kills, workers) = {
        let file = file.clone();
        tokio::task::spawn_blocking(move || kill_at_random(&file, wanted)).await.unwrap()
    };
    enough.store(true, Ordering::Relaxed);
    let accepted = publisher.await.unwrap();
    drained(&*broker).await;
    tokio::task::spawn_blocking(move || workers.into_iter().for_each(Process::terminate)).await.unwrap();

    let found = look(&*broker).await;
    let verdict = check::check(&accepted, is_doomed, &ledger::read(&file), &kills, &found);
    let longest = print(&kills, &verdict);
    broker.close().await.unwrap();
    assert!(verdict.faults.is_empty(), "{:#?}", verdict.faults);
    assert!(longest < RESUME, "a killed worker's jobs waited for {longest:?}");
}

/// Queues that hear what is emitted, and that nobody works: what lies in them at the end is what was emitted.
fn listeners() -> Topology {
    let app = AppName::parse("audit").unwrap();
    let event = |name| EventName::parse(name).unwrap();
    let events = vec![event("piece.made"), event("piece.spoiled")];
    let subscriptions = events.iter().map(|event| (QueueName::subscription(&app, event), event.clone()));
    Topology { app: Some(app.clone()), subscriptions: subscriptions.collect(), events, ..Topology::default() }
}

/// Keeps the queue filled until it is enough; gives the jobs that the broker has confirmed.
async fn publish(broker: Arc<dyn BrokerTrait>, enough: Arc<AtomicBool>) -> Vec<u32> {
    let publisher = Publisher::<Torture>::connect(Arc::clone(&broker)).await.unwrap();
    let mut accepted = Vec::new();
    let mut next = 0;
    while !enough.load(Ordering::Relaxed) {
        if waiting(&*broker).await.0 >= BACKLOG {
            tokio::time::sleep(millis(10)).await;
            continue;
        }
        let mut batch = JoinSet::new();
        for job in next..next + 50 {
            let publisher = publisher.clone();
            batch.spawn(async move {
                let task = PieceMake { job, millis: fastrand::u64(2..=20) };
                publisher.create(task).await.map(|_| job)
            });
        }
        next += 50;
        accepted.extend(batch.join_all().await.into_iter().map(Result::unwrap));
    }
    accepted
}

/// Kills a worker at a time, now and then two or all of them, and starts others in their place. A kill counts if it cut
/// at least one run.
fn kill_at_random(file: &Path, wanted: usize) -> (Vec<Kill>, Vec<Process>) {
    let mut number = 0;
    let mut start = || {
        number += 1;
        (number, Process::start("worker", file, number))
    };
    let mut workers: Vec<(u32, Process)> = (0..WORKERS).map(|_| start()).collect();
    workers.iter_mut().for_each(|(_, worker)| drop(worker.line("up")));
    let mut kills = Vec::new();
    let mut counted = 0;
    for round in 1.. {
        assert!(round <= 10 * wanted, "only {counted} of {} kills cut a run", kills.len());
        // Chance, not synchronisation: the moment must not depend on what the workers do.
        std::thread::sleep(millis(fastrand::u64(150..700)));
        let victims = if round % 10 == 0 {
            WORKERS
        } else if round % 4 == 0 {
            2
        } else {
            1
        };
        fastrand::shuffle(&mut workers);
        let mut dying = workers.split_off(workers.len() - victims as usize);
        let mut sent = Vec::new();
        for (_, worker) in &mut dying {
            sent.push(now());
            worker.kill();
        }
        for ((worker, process), sent) in dying.iter_mut().zip(sent) {
            process.reap();
            kills.push(Kill { worker: *worker, sent, over: now() });
        }
        workers.extend((0..victims).map(|_| start()));
        let runs = ledger::read(file);
        counted = kills
            .iter()
            .filter(|kill| runs.iter().any(|run| run.worker == kill.worker && run.finished.is_none()))
            .count();
        if counted >= wanted {
            break;
        }
    }
    (kills, workers.into_iter().map(|(_, process)| process).collect())
}

/// Messages that are ready, and messages that are not settled for good, in the workers' queue.
async fn waiting(broker: &dyn BrokerTrait) -> (u64, u64) {
    let query = Inspect::Queues(Some(AppName::parse("torture").unwrap()));
    let queues = broker.inspect(query).await.unwrap().into_queues();
    let queue = queues.iter().find(|stats| stats.queue.as_str() == "torture.piece.make");
    queue.map_or((0, 0), |stats| (stats.ready, stats.messages()))
}

async fn drained(broker: &dyn BrokerTrait) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = waiting(broker).await.1;
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} jobs are left after {PATIENCE:?}");
        tokio::time::sleep(millis(20)).await;
    }
}

async fn look(broker: &dyn BrokerTrait) -> Found {
    let mut found = Found::default();
    for message in messages(broker, "audit.piece.made").await {
        let event: PieceMade = body::decode(&message.body).unwrap();
        found.done.push((event.job, event.worker));
    }
    for message in messages(broker, "audit.piece.spoiled").await {
        let event: PieceSpoiled = body::decode(&message.body).unwrap();
        found.given_up.push((event.job, event.worker));
    }
    for message in messages(broker, "torture.failed").await {
        let task: PieceMake = body::decode(&message.body).unwrap();
        let report = message.report.expect("a failed job has a report");
        found.failed.push((task.job, report.recovery == Recovery::Done));
    }
    found
}

/// All messages of a queue, page by page.
async fn messages(broker: &dyn BrokerTrait, queue: &str) -> Vec<Envelope> {
    let queue = QueueName::parse(queue).unwrap();
    let mut all: Vec<Envelope> = Vec::new();
    loop {
        let after = all.last().map(|message| message.id);
        let query = Inspect::Messages { queue: queue.clone(), limit: 500, after };
        let page = broker.inspect(query).await.unwrap().into_messages();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Prints the table and gives the longest time from a kill to the first run of what it cut.
fn print(kills: &[Kill], verdict: &Verdict) -> Duration {
    let ms = |micros: u64| micros as f64 / 1000.0;
    eprintln!("  kill  process  runs cut  finished, not settled  first of them again  last of them again");
    let mut first = Vec::new();
    for (n, (kill, harm)) in kills.iter().zip(&verdict.harm).enumerate() {
        let resumed = match harm.resumed {
            Some((first, last)) => format!("{:>16.0} ms  {:>15.0} ms", ms(first), ms(last)),
            None => String::new(),
        };
        eprintln!("{:>6}  {:>7}  {:>8}  {:>21}  {resumed}", n + 1, kill.worker, harm.cut, harm.unsettled);
        first.extend(harm.resumed.map(|(first, _)| first));
    }
    first.sort_unstable();
    let (cut, unsettled): (usize, usize) =
        (verdict.harm.iter().map(|h| h.cut).sum(), verdict.harm.iter().map(|h| h.unsettled).sum());
    eprintln!(
        "jobs accepted {}: done {}, failed and recovered {}, lost {}",
        verdict.accepted,
        verdict.done,
        verdict.recovered,
        verdict.accepted - verdict.done - verdict.recovered,
    );
    eprintln!(
        "runs {}, of which extra {}, explained by {} kills: {cut} cut, {unsettled} finished and not settled",
        verdict.runs,
        verdict.extra,
        kills.len(),
    );
    eprintln!("events {}: {} for each job", verdict.events, verdict.events as f64 / verdict.accepted as f64);
    let longest = first.last().copied().unwrap_or_default();
    eprintln!(
        "resumed after a kill: min {:.0} ms, median {:.0} ms, max {:.0} ms",
        ms(first.first().copied().unwrap_or_default()),
        ms(first.get(first.len() / 2).copied().unwrap_or_default()),
        ms(longest),
    );
    Duration::from_micros(longest)
}
