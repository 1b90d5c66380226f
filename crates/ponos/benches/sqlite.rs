//! What the embedded broker costs: jobs a second through a file with full durability, beside the bare SQL of a job.
//!
//! `cargo bench -p ponos --bench sqlite` prints, for each batch size *B*, the floor, the worker with and without the
//! journal, and their ratios; the three take turns round by round, so that a machine that drifts drifts under all.
//!
//! # What is compared
//!
//! *The floor* is one thread with one connection on the broker's own schema and with its settings: write-ahead log,
//! `synchronous=FULL`. Its rows are ready before the clock starts. A batch is three transactions of *B* rows each, because
//! each is a promise to somebody else: INSERT (the publisher is told that the message is safe), claim (SELECT and UPDATE
//! by row; what was read is copied, as a worker must), DELETE (the job is done). Nothing is decoded and nothing is run.
//!
//! *The worker* does the same jobs through the front door: bodies and heads are encoded, published in batches of *B*
//! through the broker, then a service claims, decodes, runs a handler that does nothing under its timeout, and settles
//! each job by itself. *B* of its handlers run at once, so no transaction of it settles more jobs than one of the floor's
//! deletes; it holds as many again that have not started, which is the framework's default ratio. The mean number of
//! messages in a transaction is printed for both (publishes and settlements; a claim counts for nothing, as in the
//! floor, but the broker may make it in a transaction that settles). With `PONOS_HELD=1` the worker holds *B* in all.
//!
//! In both, everything is published before the first claim, and the clock stops when the queue is empty. Opening the
//! file is outside.

#![allow(missing_docs, missing_debug_implementations, reason = "a benchmark's derives have no readers")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use ponos::core::broker::{Broker as _, Destination, Outgoing, Published, Topology};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::core::{body, wire};
use ponos::prelude::*;
use ponos_sqlite::{DEFAULT_JOURNAL_RECORDS, SqliteBroker, SqliteOptions};
use rusqlite::{Connection, params};
use tokio::sync::Notify;

/// Batch sizes, and how many jobs a round of each has: about as long for all.
const SIZES: [(usize, usize); 5] = [(1, 500), (16, 5_000), (64, 10_000), (100, 10_000), (256, 10_240)];

/// Rounds after one that warms up; `PONOS_ROUNDS` says another number.
const ROUNDS: usize = 7;

const QUEUE: &str = "bench.job.run";

#[app("bench", state = Arc<Progressed>)]
pub struct Bench;

/// A payload of about 300 bytes, as webhooks and payments have.
#[task("bench.job.run", app = Bench)]
pub struct JobRun {
    pub org: String,
    pub template: String,
    pub amount_cents: u64,
    pub recipients: Vec<String>,
    pub note: String,
}

/// Counts jobs and tells when all are through.
#[derive(Debug)]
pub struct Progressed {
    left: AtomicU32,
    all: Notify,
}

async fn handle(_: JobRun, cx: TaskCx<JobRun>) -> Outcome {
    if cx.state().left.fetch_sub(1, Ordering::Relaxed) == 1 {
        cx.state().all.notify_one();
    }
    Ok(())
}

fn message() -> Outgoing {
    let at = Timestamp::from(SystemTime::now());
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let tid = Tid::new(at, random());
    let job = JobRun {
        org: "acme-corporation".into(),
        template: "receipt".into(),
        amount_cents: 1900,
        recipients: vec!["billing@acme.example".into(), "cfo@acme.example".into()],
        note: "thank you for your payment, it has been received and will be booked today; this is a receipt"
            .into(),
    };
    let body = body::encode(&tid, &job).expect("a struct");
    let envelope = Envelope {
        id: MessageId::new(at, random()),
        name: MessageName::Task(TaskName::from_checked(QUEUE)),
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

fn queue() -> QueueName {
    QueueName::parse(QUEUE).expect("a name")
}

/// Jobs a second of the bare SQL.
fn floor(file: &Path, batch: usize, jobs: usize) -> f64 {
    let connection = Connection::open(file).expect("a file");
    connection
        .execute_batch(
            "PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;
             PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216",
        )
        .expect("settings");
    connection.execute_batch(include_str!("../../ponos-sqlite/src/schema/1.0.sql")).expect("the schema");
    let rows: Vec<_> = (0..jobs)
        .map(|_| {
            let envelope = message().envelope;
            (*envelope.id.as_bytes(), wire::encode(&envelope), envelope.body)
        })
        .collect();
    let transaction = |work: &mut dyn FnMut()| {
        connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])).expect("begins");
        work();
        connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([])).expect("commits");
    };
    let prepare = |sql| connection.prepare_cached(sql).expect("sound SQL");
    let (owner, mut fence) = (1_i64 << 61, 1_i64 << 60);

    let started = Instant::now();
    for chunk in rows.chunks(batch) {
        transaction(&mut || {
            let mut insert = prepare(
                "INSERT INTO message (queue_id, message_id, ready_at, fence, owner, head, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (queue_id, message_id, copy) DO NOTHING",
            );
            for (id, head, body) in chunk {
                fence += 1;
                insert
                    .execute(params![1, id, 1_700_000_000_000_i64, fence, owner, head, &body[..]])
                    .expect("inserts");
            }
        });
    }
    let mut left = jobs;
    let mut claimed: Vec<(i64, i64, Vec<u8>, Vec<u8>)> = Vec::new();
    while left > 0 {
        claimed.clear();
        transaction(&mut || {
            fence += 1;
            let mut next = prepare(
                "SELECT id, ?1, ready_at, losses, message_id, head, body FROM message
                 WHERE state = 0 AND queue_id = ?2 AND ready_at <= ?3 ORDER BY ready_at, id LIMIT ?4",
            );
            let mut rows = next.query(params![fence, 1, i64::MAX, batch as i64]).expect("selects");
            while let Some(row) = rows.next().expect("reads") {
                let row = (row.get(0), row.get(1), row.get(5), row.get(6));
                claimed.push((
                    row.0.expect("id"),
                    row.1.expect("fence"),
                    row.2.expect("head"),
                    row.3.expect("body"),
                ));
            }
            let mut take = prepare("UPDATE message SET state = 1, fence = ?2, owner = ?3 WHERE id = ?1");
            for (id, fence, ..) in &claimed {
                take.execute(params![id, fence, owner]).expect("claims");
            }
        });
        transaction(&mut || {
            let mut delete = prepare("DELETE FROM message WHERE id = ?1 AND fence = ?2 AND state = 1");
            for (id, fence, ..) in &claimed {
                left -= delete.execute(params![id, fence]).expect("deletes");
            }
        });
        std::hint::black_box(&claimed);
    }
    jobs as f64 / started.elapsed().as_secs_f64()
}

/// Jobs a second through publisher, broker and worker, and the mean number of messages in a transaction.
async fn worker(file: &Path, batch: usize, held: usize, jobs: usize, journal: bool) -> (f64, f64) {
    let options = SqliteOptions::new().journal(journal.then_some(DEFAULT_JOURNAL_RECORDS));
    let broker = Arc::new(SqliteBroker::open(file, options).expect("a file"));
    broker.declare(&Topology { tasks: vec![queue()], ..Topology::default() }).await.expect("declares");
    let small = |n| u32::try_from(n).expect("a small number");
    let service = Service::<Bench>::new().task(handle, |p| p.concurrency(small(batch)).prefetch(small(held)));
    let left = AtomicU32::new(small(jobs));
    let state = Arc::new(Progressed { left, all: Notify::new() });
    let before = broker.stats();

    let started = Instant::now();
    for from in (0..jobs).step_by(batch) {
        let published = broker.publish((from..jobs.min(from + batch)).map(|_| message()).collect()).await;
        assert!(published.iter().all(Published::is_confirmed));
    }
    let running = service.start(Arc::clone(&state), Arc::clone(&broker)).await.expect("starts");
    state.all.notified().await;
    // Returns when the last one is settled.
    running.shutdown().await;
    let took = started.elapsed();
    let after = broker.stats();
    broker.close().await.expect("closes");
    let groups = (after.operations - before.operations) as f64 / (after.commits - before.commits) as f64;
    (jobs as f64 / took.as_secs_f64(), groups)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<usize>().ok());
    let rounds = number("PONOS_ROUNDS").unwrap_or(ROUNDS);
    let times = number("PONOS_HELD").unwrap_or(2);
    println!("jobs of {} bytes, synchronous=FULL, medians of {rounds} rounds", message().envelope.body.len());
    println!("         jobs/s of              without            worker/floor         messages per commit");
    println!("batch    floor   worker  journal  journal costs  ratio  without journal  floor  worker");
    for (batch, jobs) in SIZES {
        let mut figures = [const { Vec::new() }; 6];
        for round in 0..=rounds {
            let dir = tempfile::tempdir().expect("a directory");
            let file = |name| dir.path().join(name);
            let held = times * batch;
            let bare = floor(&file("floor.db"), batch, jobs);
            let (ours, group) = runtime.block_on(worker(&file("worker.db"), batch, held, jobs, true));
            let (quiet, _) = runtime.block_on(worker(&file("quiet.db"), batch, held, jobs, false));
            // The first round warms up.
            if round > 0 {
                let one = [bare, ours, quiet, ours / bare, quiet / bare, group];
                figures.iter_mut().zip(one).for_each(|(all, one)| all.push(one));
            }
        }
        let [bare, ours, quiet, ratio, quiet_ratio, group] = figures.map(median);
        let cost = 100.0 * (1.0 - ours / quiet);
        let floor_group = 2.0 * batch as f64 / 3.0;
        println!(
            "{batch:>5}  {bare:>7.0}  {ours:>7.0}  {quiet:>7.0}  {cost:>11.0} %  {ratio:>5.2}  {quiet_ratio:>15.2}  \
             {floor_group:>5.1}  {group:>6.1}"
        );
    }
    println!("goal: a ratio of at least 0.5");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
