//! A backlog stays in the file: the memory of a worker with a prefetch of 100 is bounded, whatever waits.
//! `PONOS_BACKLOG=1000000` for the long form.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod another_process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use another_process::{Process, Role, say};
use ponos::core::body;
use ponos::core::broker::{Broker as BrokerTrait, Destination, Outgoing, Topology};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::prelude::*;

/// The most a worker's process may hold in memory, from start to end.
const LIMIT_KIB: u64 = 64 * 1024;

/// Jobs in the file unless `PONOS_BACKLOG` says otherwise.
const SHORT_FORM: u32 = 50_000;

#[app("memory", state = Arc<AtomicU32>)]
pub struct Memory;

#[task("memory.piece.make", app = Memory)]
pub struct PieceMake {
    pub number: u32,
    pub note: String,
}

async fn make(_: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    cx.state().fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn message(number: u32) -> Outgoing {
    let at = Timestamp::from_millis(1_767_225_600_000);
    let mut random = [0; 10];
    // Behind the bits that the UUID keeps for itself.
    random[4..8].copy_from_slice(&number.to_le_bytes());
    let (tid, id) = (Tid::new(at, random), MessageId::new(at, random));
    let body = body::encode(&tid, &PieceMake { number, note: "x".repeat(200) }).unwrap();
    let task = TaskName::parse("memory.piece.make").unwrap();
    Outgoing {
        to: Destination::Queue(QueueName::task(&task)),
        envelope: Envelope {
            id,
            name: MessageName::Task(task),
            tid,
            cause: None,
            app: Some(AppName::parse("memory").unwrap()),
            publisher: None,
            published_at: at,
            hops: 0,
            version: None,
            trace: None,
            progress: Progress::default(),
            report: None,
            body,
        },
    }
}

/// Puts the backlog into the file.
async fn fill(broker: &dyn BrokerTrait, jobs: u32) {
    let tasks = vec![QueueName::parse("memory.piece.make").unwrap()];
    broker.declare(&Topology { tasks, ..Topology::default() }).await.unwrap();
    for first in (0..jobs).step_by(1000) {
        let outcomes = broker.publish((first..jobs.min(first + 1000)).map(message).collect()).await;
        assert!(outcomes.iter().all(ponos::core::broker::Published::is_confirmed));
    }
}

/// The highest resident memory of a process so far, in KiB.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_does_not_fill_the_workers_memory() {
    let jobs = std::env::var("PONOS_BACKLOG").map_or(SHORT_FORM, |jobs| jobs.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = Broker::sqlite(&file).connect().await.unwrap();
    fill(&*broker, jobs).await;
    broker.close().await.unwrap();
    let size = std::fs::metadata(&file).unwrap().len() >> 20;

    let started = Instant::now();
    let (peak, took) = tokio::task::spawn_blocking(move || {
        let mut worker = Process::start("worker", &file, jobs);
        worker.line("drained");
        let result = (peak(worker.id()), started.elapsed());
        worker.terminate();
        result
    })
    .await
    .unwrap();
    eprintln!(
        "{jobs} jobs, {size} MiB of file, prefetch 100: peak {} KiB, drained in {took:.1?}, {:.0} jobs/s",
        peak,
        f64::from(jobs) / took.as_secs_f64()
    );
    assert!(peak < LIMIT_KIB, "{peak} KiB, the limit is {LIMIT_KIB} KiB");
}

/// The worker's process; without a role it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    let done = Arc::new(AtomicU32::new(0));
    let service = Service::<Memory>::new().task(make, |p| p.concurrency(50).prefetch(100));
    let watched = Arc::clone(&done);
    tokio::spawn(async move {
        while watched.load(Ordering::Relaxed) < role.number {
            tokio::time::sleep(millis(10)).await;
        }
        say("drained");
    });
    service.run(done, Broker::sqlite(role.file)).await.unwrap();
}
