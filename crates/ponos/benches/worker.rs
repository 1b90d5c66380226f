//! What the worker costs: the CPU of a job in memory, beside the least that any worker must do.
//!
//! The floor decodes the body, spawns a task under a timeout and has it report by message, with the same number in
//! flight, on the same runtime with one thread. `cargo bench -p ponos --bench worker` prints both and their ratio,
//! round by round, so that a machine that drifts drifts under both.

#![allow(missing_docs, reason = "a benchmark's derives have no readers")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ponos::core::broker::{Broker as _, Destination, Outgoing, Topology};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::prelude::*;
use ponos::{MemoryBroker, Running};
use tokio::sync::{Notify, mpsc};

/// Jobs per round.
const JOBS: u32 = 100_000;
const ROUNDS: usize = 9;
const CONCURRENCY: usize = 16;

#[app("bench", state = Progressed)]
#[derive(Debug)]
pub struct Bench;

/// A payload of about 300 bytes, as webhooks and payments have.
#[task("bench.job.run", app = Bench)]
#[derive(Clone, Debug)]
pub struct JobRun {
    pub org: String,
    pub template: String,
    pub amount_cents: u64,
    pub recipients: Vec<String>,
    pub note: String,
}

/// Counts jobs and tells when all are through.
#[derive(Debug, Clone, Default)]
pub struct Progressed(Arc<(AtomicU32, Notify)>);

impl Progressed {
    fn one_more(&self) {
        if self.0.0.fetch_add(1, Ordering::Relaxed) + 1 == JOBS {
            self.0.1.notify_one();
        }
    }

    async fn all(&self) {
        self.0.1.notified().await;
    }
}

fn job() -> JobRun {
    JobRun {
        org: "acme-corporation".into(),
        template: "receipt".into(),
        amount_cents: 1900,
        recipients: vec!["billing@acme.example".into(), "cfo@acme.example".into()],
        note: "thank you for your payment, it has been received and will be booked today; this is a receipt"
            .into(),
    }
}

fn message(n: u32) -> Outgoing {
    let tid = Tid::new(Timestamp::from_millis(1_767_225_600_000), [7; 10]);
    let mut id = [7; 16];
    id[..4].copy_from_slice(&n.to_le_bytes());
    let body = ponos::core::body::encode(&tid, &job()).expect("a struct");
    let envelope = Envelope {
        id: MessageId::from_bytes(id),
        name: MessageName::Task(TaskName::from_checked("bench.job.run")),
        tid,
        cause: None,
        app: Some(AppName::from_checked("bench")),
        publisher: None,
        published_at: Timestamp::from_millis(1_767_225_600_000),
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body,
    };
    Outgoing { to: Destination::Queue(QueueName::parse("bench.job.run").expect("a name")), envelope }
}

/// The time that this thread has run on a processor.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

async fn handle(_: JobRun, cx: TaskCx<JobRun>) -> Outcome {
    cx.state().one_more();
    Ok(())
}

/// Jobs through the worker: deliver, decode, spawn, time out, decide, settle, record, report.
async fn worker() -> Duration {
    let broker = Arc::new(MemoryBroker::new());
    let queue = QueueName::parse("bench.job.run").expect("a name");
    broker.declare(&Topology { tasks: vec![queue], ..Topology::default() }).await.expect("memory");
    let _ = broker.publish((0..JOBS).map(message).collect()).await;
    let progress = Progressed::default();
    let service = Service::<Bench>::new().task(handle, |p| p.concurrency(CONCURRENCY as u32));
    let before = cpu();
    let running: Running<Bench> = service.start(progress.clone(), broker).await.expect("it starts");
    progress.all().await;
    running.shutdown().await;
    cpu() - before
}

/// The floor: decode, spawn, timeout, report.
async fn floor() -> Duration {
    let bodies: Vec<_> = (0..JOBS).map(|n| message(n).envelope.body).collect();
    let progress = Progressed::default();
    let before = cpu();
    let (reports, mut ended) = mpsc::channel::<usize>(CONCURRENCY);
    let mut running = 0;
    for (n, body) in bodies.into_iter().enumerate() {
        if running == CONCURRENCY {
            ended.recv().await.expect("jobs report");
            running -= 1;
        }
        running += 1;
        let (reports, progress) = (reports.clone(), progress.clone());
        tokio::spawn(async move {
            let job: JobRun = serde_json::from_slice(&body).expect("a job");
            let handler = async {
                std::hint::black_box(&job);
                progress.one_more();
            };
            let _ = tokio::time::timeout(Duration::from_secs(60), handler).await;
            let _ = reports.send(n).await;
        });
    }
    progress.all().await;
    cpu() - before
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let per_job = |total: Duration| total.as_nanos() as f64 / f64::from(JOBS);
    let mut ratios = Vec::new();
    println!("{JOBS} jobs of {} bytes, {CONCURRENCY} at once, one thread", message(0).envelope.body.len());
    for round in 0..=ROUNDS {
        let floor = per_job(runtime.block_on(floor()));
        let worker = per_job(runtime.block_on(worker()));
        if round > 0 {
            // The first round warms up.
            println!("floor {floor:>6.0} ns   worker {worker:>6.0} ns   ratio {:.2}", worker / floor);
            ratios.push(worker / floor);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio worker/floor: {:.2} (goal: at most 2)", ratios[ROUNDS / 2]);
}
