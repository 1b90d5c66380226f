//! What waits does not hold up what can run, on the real clock and the embedded broker. `worker.rs` has the same on
//! the virtual clock.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ponos::prelude::*;
use tokio::task::JoinSet;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[app("waiting", state = Tally)]
pub struct Waiting;

#[task("waiting.piece.make", app = Waiting)]
pub struct PieceMake {
    pub sick: bool,
    pub millis: u64,
}

/// What has happened so far.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    healthy: AtomicU32,
    sick: AtomicU32,
    failed_attempts: AtomicU32,
}

async fn make(t: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    let counts = &cx.state().0;
    if t.sick && cx.attempt() == 1 {
        counts.failed_attempts.fetch_add(1, Ordering::Relaxed);
        Err("again later")?;
    }
    cx.sleep(millis(t.millis)).await;
    let done = if t.sick { &counts.sick } else { &counts.healthy };
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Starts the service on a file of its own, with the jobs already in the queue.
async fn start(
    jobs: Vec<PieceMake>,
    backoff: Duration,
    concurrency: u32,
) -> (tempfile::TempDir, Tally, Running<Waiting>) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::sqlite(dir.path().join("ponos.db")).connect().await.unwrap();
    let publisher = Publisher::<Waiting>::connect(Arc::clone(&broker)).await.unwrap();
    for batch in in_batches(jobs) {
        let mut publishing = JoinSet::new();
        for job in batch {
            let publisher = publisher.clone();
            publishing.spawn(async move { publisher.create(job).await.unwrap() });
        }
        publishing.join_all().await;
    }
    let tally = Tally::default();
    let service = Service::<Waiting>::new().task(make, |p| {
        p.retry(Backoff::constant(backoff)).no_breaker().concurrency(concurrency).prefetch(2 * concurrency)
    });
    let running = service.start(tally.clone(), broker).await.unwrap();
    (dir, tally, running)
}

/// The first alone, because it makes the queue; the others many at once, in the order of the batches.
fn in_batches(jobs: Vec<PieceMake>) -> Vec<Vec<PieceMake>> {
    let mut jobs = jobs.into_iter();
    let mut batches = vec![jobs.by_ref().take(1).collect()];
    loop {
        let batch: Vec<_> = jobs.by_ref().take(250).collect();
        if batch.is_empty() {
            return batches;
        }
        batches.push(batch);
    }
}

/// Waits until the count is reached; gives how long that took.
async fn reached(count: &AtomicU32, target: u32) -> Duration {
    let started = Instant::now();
    while count.load(Ordering::Relaxed) < target {
        assert!(started.elapsed() < PATIENCE, "only {} of {target}", count.load(Ordering::Relaxed));
        tokio::time::sleep(millis(5)).await;
    }
    started.elapsed()
}

fn jobs(n: u32, sick: bool) -> impl Iterator<Item = PieceMake> {
    (0..n).map(move |_| PieceMake { sick, millis: 1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_jobs_that_wait_for_their_retry_do_not_delay_a_thousand_healthy_ones_behind_them() {
    let backoff = secs(20);
    let (_dir, tally, running) = start(jobs(1000, true).chain(jobs(1000, false)).collect(), backoff, 8).await;
    let took = reached(&tally.0.healthy, 1000).await;
    let failed = tally.0.failed_attempts.load(Ordering::Relaxed);
    eprintln!(
        "1,000 healthy jobs behind {failed} that failed and wait {backoff:?}: through after {took:.1?}"
    );
    assert_eq!(failed, 1000, "the sick ones had their turn first");
    assert!(took < backoff, "the healthy ones waited for the sick ones: {took:?}");
    assert_eq!(tally.0.sick.load(Ordering::Relaxed), 0, "no retry is early");
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_job_does_not_slow_its_neighbours() {
    let slow = 5_000;
    let all = std::iter::once(PieceMake { sick: false, millis: slow }).chain(jobs(500, false)).collect();
    let (_dir, tally, running) = start(all, secs(1), 4).await;
    let took = reached(&tally.0.healthy, 500).await;
    eprintln!("500 jobs beside one of {slow} ms: through after {took:.1?}");
    assert!(took < millis(slow), "the neighbours waited for the slow one: {took:?}");
    reached(&tally.0.healthy, 501).await;
    running.shutdown().await;
}
