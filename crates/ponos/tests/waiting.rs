//! A job that waits, or that takes long, is nobody else's problem: on the real clock and on an SQLite file.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos::core::broker::{Broker as BrokerTrait, Inspect};
use ponos::prelude::*;
use tokio::task::JoinSet;

/// How many healthy jobs there are, and how many that fail before them.
const JOBS: u32 = 1_000;

/// When a job that failed is tried again. Long enough that a slow machine is through with everybody else by then.
const BACKOFF: Duration = Duration::from_secs(6);

/// How long one job takes in the test of slow ones.
const SLOW: Duration = Duration::from_secs(2);

const PATIENCE: Duration = Duration::from_secs(60);

#[app("ward", state = Log)]
pub struct Ward;

#[task("ward.patient.treat", app = Ward)]
pub struct PatientTreat {
    pub n: u32,
    pub kind: Kind,
}

#[data]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Healthy,
    /// Fails on its first attempt.
    Failing,
    /// Takes [`SLOW`].
    Slow,
}

/// When each attempt started and ended.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Attempt>>>);

#[derive(Debug, Clone, Copy)]
struct Attempt {
    kind: Kind,
    number: u32,
    started: Instant,
    ended: Instant,
}

impl Log {
    fn of(&self, kind: Kind, number: u32) -> Vec<Attempt> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|attempt| attempt.kind == kind && attempt.number == number).copied().collect()
    }

    /// Waits until so many such attempts have ended, and gives them.
    async fn wait_for(&self, kind: Kind, number: u32, count: u32) -> Vec<Attempt> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.of(kind, number);
            if found.len() >= count as usize {
                return found;
            }
            assert!(Instant::now() < deadline, "{} of {count} {kind:?} after {PATIENCE:?}", found.len());
            tokio::time::sleep(millis(5)).await;
        }
    }
}

async fn treat(t: PatientTreat, cx: TaskCx<PatientTreat>) -> Outcome {
    let started = Instant::now();
    if t.kind == Kind::Slow {
        cx.sleep(SLOW).await;
    }
    let attempt = Attempt { kind: t.kind, number: cx.attempt(), started, ended: Instant::now() };
    cx.state().0.lock().unwrap().push(attempt);
    if t.kind == Kind::Failing && cx.attempt() == 1 {
        Err("not today")?;
    }
    Ok(())
}

/// Publishes these kinds in this order, then starts the service; gives when it started, what it logs, and itself.
async fn admit(
    kinds: impl Iterator<Item = Kind>,
) -> (Instant, Log, Running<Ward>, Arc<dyn BrokerTrait>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::sqlite(dir.path().join("ponos.db")).connect().await.unwrap();
    let publisher = Publisher::<Ward>::connect(Arc::clone(&broker)).await.unwrap();
    for (n, chunk) in kinds.collect::<Vec<_>>().chunks(200).enumerate() {
        let mut batch = JoinSet::new();
        for (place, &kind) in chunk.iter().enumerate() {
            let publisher = publisher.clone();
            let n = u32::try_from(200 * n + place).unwrap();
            batch.spawn(async move { publisher.create(PatientTreat { n, kind }).await.unwrap() });
        }
        batch.join_all().await;
    }
    let log = Log::default();
    // The breaker is off: it would rightly cut off a listener whose jobs all fail.
    let service = Service::<Ward>::new()
        .task(treat, |p| p.retry(Backoff::constant(BACKOFF)).concurrency(8).prefetch(64).no_breaker());
    let started = Instant::now();
    let running = service.start(log.clone(), Arc::clone(&broker)).await.unwrap();
    (started, log, running, broker, dir)
}

fn last(attempts: &[Attempt]) -> Instant {
    attempts.iter().map(|attempt| attempt.ended).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_for_their_retry_hold_no_slot() {
    let healthy = || std::iter::repeat_n(Kind::Healthy, JOBS as usize);
    let (started, log, running, broker, _dir) = admit(healthy()).await;
    let alone = last(&log.wait_for(Kind::Healthy, 1, JOBS).await) - started;
    running.shutdown().await;
    broker.close().await.unwrap();

    let failing = std::iter::repeat_n(Kind::Failing, JOBS as usize);
    let (started, log, running, broker, _dir) = admit(failing.chain(healthy())).await;
    let healthy = log.wait_for(Kind::Healthy, 1, JOBS).await;
    let behind = last(&healthy) - started;
    let failed = log.of(Kind::Failing, 1);
    assert_eq!(failed.len(), JOBS as usize, "they come first");
    let first_due = failed.iter().map(|attempt| attempt.ended).min().unwrap() + BACKOFF;
    assert!(last(&healthy) < first_due, "the healthy were done only after {behind:?}");
    let delayed = {
        let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
        queues.iter().find(|queue| queue.queue.as_str() == "ward.patient.treat").unwrap().delayed.unwrap()
    };
    assert!(delayed >= u64::from(JOBS) - 8, "all that failed wait in the broker: {delayed}");
    let retries = log.wait_for(Kind::Failing, 2, JOBS).await;
    // The broker's time has milliseconds.
    assert!(retries.iter().all(|retry| retry.started + millis(1) >= first_due), "none is early");
    eprintln!(
        "{JOBS} healthy jobs: alone {alone:?}; behind {JOBS} that fail and wait {BACKOFF:?}: {behind:?}, \
         {:.1} times as long for twice as many runs; the retries began {:?} after they were due",
        behind.as_secs_f64() / alone.as_secs_f64(),
        retries.iter().map(|retry| retry.started).min().unwrap() - first_due,
    );
    running.shutdown().await;
    broker.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_job_does_not_slow_its_neighbours() {
    let healthy = std::iter::repeat_n(Kind::Healthy, JOBS as usize);
    let (started, log, running, broker, _dir) = admit(std::iter::once(Kind::Slow).chain(healthy)).await;
    let neighbours = log.wait_for(Kind::Healthy, 1, JOBS).await;
    let slow = log.wait_for(Kind::Slow, 1, 1).await[0];
    let took = last(&neighbours) - started;
    let longest = neighbours.iter().map(|attempt| attempt.ended - attempt.started).max().unwrap();
    eprintln!(
        "beside a job of {:?}: {JOBS} neighbours done after {took:?}, the longest took {longest:?}",
        slow.ended - slow.started,
    );
    assert!(last(&neighbours) < slow.ended, "the neighbours were done only after {took:?}");
    running.shutdown().await;
    broker.close().await.unwrap();
}
