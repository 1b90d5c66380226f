//! What records cost: jobs a second with the lifecycle on and off, side by side, on SQLite and on RabbitMQ.
//!
//! `cargo bench -p ponos --features rabbitmq --bench lifecycle` starts a node of its own (`ponos-testbed`) and takes some
//! minutes; `PONOS_PARTS=sqlite` or `PONOS_PARTS=rabbitmq` runs one half, `PONOS_ROUNDS` says how many rounds.
//!
//! # What is compared
//!
//! One service with default policies works one queue of jobs that were all published before the clock starts. The clock
//! stops when the last one is settled. `on` writes every record, unsampled; on RabbitMQ somebody looks, so that the
//! stream keeps them. `off` is the same service with `.without_lifecycle()`. The two take turns, and who begins changes from
//! round to round; a ratio is of the two medians.
//!
//! * *no-op*: the handler returns at once; one record a job.
//! * *emits*: the handler emits an event that nobody hears; two records a job.
//! * *1 ms*: the handler waits for a millisecond.
//!
//! The bytes of a record are those of the batches in the journal's file, and of what a reader of the stream was sent.

#![allow(missing_docs, missing_debug_implementations, reason = "a benchmark's derives have no readers")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ponos::core::body;
use ponos::core::broker::{Broker as _, Destination, Outgoing, Published, Topology};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::journal::{From, encode};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use ponos_testbed::{Node, NodeOptions};
use tokio::sync::Notify;

const ROUNDS: usize = 9;

/// How many jobs a round of each kind has: about as long for all.
const JOBS: [(Kind, usize); 3] =
    [(Kind::Nothing, 20_000), (Kind::Emits, 10_000), (Kind::Millisecond, 20_000)];

const BATCH: usize = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Emits,
    Millisecond,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no-op",
            Self::Emits => "emits",
            Self::Millisecond => "1 ms",
        }
    }
}

#[app("bench", state = Arc<Progressed>)]
pub struct Bench;

#[event("job.ran")]
pub struct JobRan {
    pub org: String,
}

#[task("bench.job.run", app = Bench, emits(JobRan))]
pub struct JobRun {
    pub org: String,
    pub note: String,
}

pub struct Progressed {
    kind: Kind,
    left: AtomicUsize,
    all: Notify,
}

async fn handle(job: JobRun, cx: TaskCx<JobRun>) -> Outcome {
    match cx.state().kind {
        Kind::Nothing => {}
        Kind::Emits => cx.emit(JobRan { org: job.org })?,
        Kind::Millisecond => tokio::time::sleep(Duration::from_millis(1)).await,
    }
    if cx.state().left.fetch_sub(1, Ordering::Relaxed) == 1 {
        cx.state().all.notify_one();
    }
    Ok(())
}

fn queue() -> QueueName {
    QueueName::from_checked("bench.job.run")
}

/// 256 bytes of body.
fn message() -> Outgoing {
    let at = Timestamp::from(SystemTime::now());
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let tid = Tid::new(at, random());
    let job = JobRun { org: "acme-corporation".into(), note: "x".repeat(160) };
    let body = body::encode(&tid, &job).expect("a struct");
    let envelope = Envelope {
        id: MessageId::new(at, random()),
        name: MessageName::Task(TaskName::from_checked("bench.job.run")),
        tid,
        cause: None,
        app: Some(AppName::from_checked("bench")),
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body,
    };
    Outgoing { to: Destination::Queue(queue()), envelope }
}

/// Jobs a second of one round.
async fn round(broker: Arc<dyn ponos::core::broker::Broker>, kind: Kind, jobs: usize, on: bool) -> f64 {
    let app = Some(AppName::from_checked("bench"));
    let topology = Topology { app, tasks: vec![queue()], ..Topology::default() };
    broker.declare(&topology).await.expect("declares");
    for from in (0..jobs).step_by(BATCH) {
        let published = broker.publish((from..jobs.min(from + BATCH)).map(|_| message()).collect()).await;
        assert!(published.iter().all(Published::is_confirmed), "{published:?}");
    }
    let service = Service::<Bench>::new().task(handle, |p| p);
    let service = if on { service } else { service.without_lifecycle() };
    let state = Arc::new(Progressed { kind, left: AtomicUsize::new(jobs), all: Notify::new() });
    let started = Instant::now();
    let running = service.start(Arc::clone(&state), broker).await.expect("starts");
    state.all.notified().await;
    // Returns when the last one is settled.
    running.shutdown().await;
    jobs as f64 / started.elapsed().as_secs_f64()
}

async fn sqlite(dir: &Path, kind: Kind, jobs: usize, on: bool) -> f64 {
    let file = dir.join(if on { "on.db" } else { "off.db" });
    let broker = SqliteBroker::open(&file, SqliteOptions::new()).expect("a file");
    let broker: Arc<dyn ponos::core::broker::Broker> = Arc::new(broker);
    let figure = round(Arc::clone(&broker), kind, jobs, on).await;
    broker.close().await.expect("closes");
    figure
}

/// Bytes a record in the journal's file.
fn bytes_in_file(file: &Path) -> f64 {
    let connection = rusqlite::Connection::open(file).expect("the journal");
    let sum = "SELECT sum(length(bytes)), max(upto) FROM batch";
    let (bytes, entries): (i64, i64) =
        connection.query_row(sum, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("batches");
    bytes as f64 / entries as f64
}

/// Bytes a record as a reader of the stream gets them.
async fn bytes_in_stream(broker: &RabbitBroker) -> f64 {
    let journal = broker.journal().expect("a journal");
    let mut reader = journal.open(From::Start).await.expect("opens");
    let (mut bytes, mut entries) = (0, 0);
    loop {
        let batch = reader.next().await.expect("reads");
        if batch.is_empty() {
            return bytes as f64 / entries as f64;
        }
        entries += batch.len();
        bytes += encode(&batch).len();
    }
}

fn show(broker: &str, kind: Kind, mut on: Vec<f64>, mut off: Vec<f64>) {
    let median = |figures: &mut Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let (on, off) = (median(&mut on), median(&mut off));
    println!("{broker:<9} {:<6} {on:>8.0} {off:>8.0}   {:.3}", kind.name(), on / off);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let rounds = std::env::var("PONOS_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let part = std::env::var("PONOS_PARTS").unwrap_or_default();
    println!("jobs a second, 256-byte bodies, default policies, medians of {rounds} rounds");
    println!("broker    handler      on      off   on/off");
    if part != "rabbitmq" {
        for (kind, jobs) in JOBS {
            let (mut on, mut off, mut bytes) = (Vec::new(), Vec::new(), 0.0);
            for n in 0..=rounds {
                let dir = tempfile::tempdir().expect("a directory");
                for is_on in [n % 2 == 0, n % 2 != 0] {
                    let figure = runtime.block_on(sqlite(dir.path(), kind, jobs, is_on));
                    // The first round warms up.
                    if n > 0 {
                        if is_on { &mut on } else { &mut off }.push(figure);
                    }
                }
                bytes = bytes_in_file(&dir.path().join("on.db.journal"));
            }
            show("sqlite", kind, on, off);
            println!("          {bytes:.0} bytes a record in the journal's file");
        }
    }
    if part != "sqlite" {
        runtime.block_on(async {
            let node = Node::start(NodeOptions::new());
            for (kind, jobs) in JOBS {
                let (mut on, mut off) = (Vec::new(), Vec::new());
                let connect = || async {
                    let options = RabbitOptions::from_url(&node.url()).expect("a URL");
                    RabbitBroker::connect(options).await.expect("connects")
                };
                let looker = connect().await;
                let _look = looker.journal().expect("a journal").open(From::End).await.expect("looks");
                for n in 0..=rounds {
                    for is_on in [n % 2 == 0, n % 2 != 0] {
                        let broker = Arc::new(connect().await);
                        let figure = round(Arc::clone(&broker) as _, kind, jobs, is_on).await;
                        broker.close().await.expect("closes");
                        if n > 0 {
                            if is_on { &mut on } else { &mut off }.push(figure);
                        }
                    }
                }
                show("rabbitmq", kind, on, off);
                println!("          {:.0} bytes a record in the stream", bytes_in_stream(&looker).await);
                looker.close().await.expect("closes");
            }
        });
    }
    println!("goals: 0.90 for no-op, 0.98 for 1 ms");
}
