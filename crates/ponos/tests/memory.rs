//! A backlog of any size costs a worker no memory: it lies in the file. `PONOS_BACKLOG=1000000` for the long form.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests; figures for the log")]

mod another_process;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use another_process::{Process, Role, say};
use ponos::core::body;
use ponos::core::broker::{Destination, Inspect, Outgoing, Published, QueueStats, Topology};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::prelude::*;
use tokio::sync::Notify;

/// What a worker process may take at its highest, in KiB.
const LIMIT: u64 = 64 << 10;

const QUEUE: &str = "heap.stone.move";

#[app("heap", state = Arc<Left>)]
pub struct Heap;

#[task("heap.stone.move", app = Heap)]
pub struct StoneMove {
    pub n: u32,
    pub note: String,
}

/// Counts down and tells at the end.
pub struct Left {
    jobs: AtomicU32,
    none: Notify,
}

async fn do_nothing(_: StoneMove, cx: TaskCx<StoneMove>) -> Outcome {
    if cx.state().jobs.fetch_sub(1, Ordering::Relaxed) == 1 {
        cx.state().none.notify_one();
    }
    Ok(())
}

/// What a child does; nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    let left = Arc::new(Left { jobs: AtomicU32::new(role.number), none: Notify::new() });
    let service = Service::<Heap>::new().task(do_nothing, |p| p.concurrency(50).prefetch(100));
    let started = Instant::now();
    let running = service.start(Arc::clone(&left), Broker::sqlite(&role.file)).await.unwrap();
    left.none.notified().await;
    running.shutdown().await;
    say(&format!("drained in {}", started.elapsed().as_secs_f64()));
    say(&format!("peak {}", peak()));
}

/// The most memory that this process ever had resident, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stays_small_whatever_the_backlog() {
    let backlog: u32 = std::env::var("PONOS_BACKLOG").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let filling = Instant::now();
    fill(&file, backlog).await;
    let filled = filling.elapsed();
    let size = std::fs::metadata(&file).unwrap().len() >> 20;

    let (took, peak) = {
        let file = file.clone();
        let drain = move || {
            let mut worker = Process::start("drain", &file, backlog);
            let took: f64 = worker.line("drained in ").parse().unwrap();
            let peak: u64 = worker.line("peak ").parse().unwrap();
            (took, peak)
        };
        tokio::task::spawn_blocking(drain).await.unwrap()
    };
    eprintln!(
        "backlog {backlog} jobs, {size} MiB, filled in {:.1} s; drained in {took:.1} s, {:.0} jobs/s; \
         the worker's peak {:.1} MiB",
        filled.as_secs_f64(),
        f64::from(backlog) / took,
        peak as f64 / 1024.0,
    );
    let broker = Broker::sqlite(&file).connect().await.unwrap();
    let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
    let left: u64 = queues.iter().map(QueueStats::messages).sum();
    broker.close().await.unwrap();
    assert_eq!(left, 0, "{queues:?}");
    assert!(peak < LIMIT, "{peak} KiB");
}

/// Publishes so many jobs, in batches.
async fn fill(file: &Path, backlog: u32) {
    let broker = Broker::sqlite(file).connect().await.unwrap();
    let queue = QueueName::parse(QUEUE).unwrap();
    broker.declare(&Topology { tasks: vec![queue.clone()], ..Topology::default() }).await.unwrap();
    let all: Vec<u32> = (0..backlog).collect();
    for batch in all.chunks(2_000) {
        let batch = batch.iter().map(|&n| stone(n, &queue)).collect();
        assert!(broker.publish(batch).await.iter().all(Published::is_confirmed));
    }
    broker.close().await.unwrap();
}

fn stone(n: u32, queue: &QueueName) -> Outgoing {
    let at = Timestamp::from(SystemTime::now());
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let tid = Tid::new(at, random());
    let task = StoneMove { n, note: "x".repeat(200) };
    let body = body::encode(&tid, &task).unwrap();
    let envelope = Envelope {
        id: MessageId::new(at, random()),
        name: MessageName::Task(TaskName::from_checked(QUEUE)),
        tid,
        cause: None,
        app: Some(AppName::from_checked("heap")),
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body,
    };
    Outgoing { to: Destination::Queue(queue.clone()), envelope }
}
