//! The process whose power is cut: it publishes, works and settles on a broker, opens it anew now and then, and leaves a
//! mark before and after whatever it asks for.

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use fastrand::Rng;
use ponos::core::broker::{
    Broker, Delivery, Destination, Outgoing, Settlement, SubscribeOptions, Topology, Verdict,
};
use ponos::core::envelope::{Envelope, GaveUp, GaveUpReason, MessageName, Progress, Recovery, Report};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, EventName, QueueName, TaskName};
use ponos_sqlite::{Durability, SqliteBroker, SqliteOptions};
use tokio::task::JoinSet;

use super::marks::{self, Mark, State};

/// The broker's file, in the directory that is watched.
pub(crate) const DATABASE: &str = "ponos.db";

const JOBS: &str = "forge.piece.make";

/// How many publishers a process has.
const PUBLISHERS: u32 = 3;

/// How many jobs are settled at the same time.
const OPEN: usize = 8;

/// What such a process is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Work {
    /// The directory that is watched.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Which process it is: its jobs have numbers of their own.
    #[arg(long)]
    pub(crate) number: u32,
    #[arg(long)]
    pub(crate) seed: u64,
    /// How many times it opens the broker.
    #[arg(long)]
    pub(crate) rounds: u32,
    /// How many jobs it publishes each time.
    #[arg(long)]
    pub(crate) jobs: u32,
    /// With `synchronous=NORMAL`.
    #[arg(long)]
    pub(crate) normal: bool,
}

/// The queue of the jobs.
pub(crate) fn jobs() -> QueueName {
    QueueName::parse(JOBS).expect("a queue's name")
}

fn made() -> EventName {
    EventName::parse("piece.made").expect("an event's name")
}

fn app(name: &str) -> AppName {
    AppName::parse(name).expect("an application's name")
}

/// The two queues in which the event of a job is heard that was done.
pub(crate) fn hearers() -> [QueueName; 2] {
    ["shop", "store"].map(|name| QueueName::subscription(&app(name), &made()))
}

/// Where failed jobs lie.
pub(crate) fn failed() -> QueueName {
    QueueName::failed(&app("forge"))
}

/// Everything that exists.
pub(crate) fn topology() -> Topology {
    Topology {
        app: Some(app("forge")),
        events: vec![made()],
        tasks: vec![jobs()],
        subscriptions: hearers().map(|queue| (queue, made())).into(),
        ..Topology::default()
    }
}

/// Does all its rounds.
pub(crate) async fn work(args: Work) -> anyhow::Result<()> {
    let marks = OpenOptions::new().create(true).append(true).open(args.dir.join(marks::FILE))?;
    let marks = Arc::new(marks);
    let next = Arc::new(AtomicU32::new(args.number * 1_000_000 + 1));
    for round in 0..args.rounds {
        let durability = if args.normal { Durability::PowerCutMayLoseLatest } else { Durability::Full };
        let options = SqliteOptions::new().durability(durability);
        let broker = SqliteBroker::open(args.dir.join(DATABASE), options)?;
        broker.declare(&topology()).await?;
        let mut rng = Rng::with_seed(args.seed ^ u64::from(args.number * 1000 + round));
        let worker = tokio::spawn(consume(broker.clone(), Arc::clone(&marks), rng.fork()));
        let mut publishers = JoinSet::new();
        for _ in 0..PUBLISHERS {
            let (broker, marks, next) = (broker.clone(), Arc::clone(&marks), Arc::clone(&next));
            publishers.spawn(publish(broker, marks, next, args.jobs / PUBLISHERS, rng.fork()));
        }
        while let Some(done) = publishers.join_next().await {
            done??;
        }
        // In the middle of its work: what it holds goes back.
        broker.close().await?;
        worker.await??;
    }
    Ok(())
}

async fn publish(
    broker: SqliteBroker,
    marks: Arc<File>,
    next: Arc<AtomicU32>,
    jobs: u32,
    mut rng: Rng,
) -> anyhow::Result<()> {
    let mut sent = 0;
    while sent < jobs {
        let batch: Vec<u32> = (0..rng.u32(1..=6)).map(|_| next.fetch_add(1, Ordering::Relaxed)).collect();
        sent += batch.len() as u32;
        write(&marks, batch.iter().map(|job| Mark::Publish(*job)))?;
        let messages = batch.iter().map(|job| message(*job, &mut rng)).collect();
        let outcomes = broker.publish(messages).await;
        write(
            &marks,
            batch.iter().zip(&outcomes).filter(|(_, o)| o.is_confirmed()).map(|(j, _)| Mark::Confirmed(*j)),
        )?;
        if let Some(outcome) = outcomes.iter().find(|outcome| !outcome.is_confirmed()) {
            bail!("a publish was not confirmed: {outcome:?}");
        }
        if rng.bool() {
            tokio::time::sleep(Duration::from_micros(rng.u64(..2000))).await;
        }
    }
    Ok(())
}

/// Works until the broker is closed.
async fn consume(broker: SqliteBroker, marks: Arc<File>, mut rng: Rng) -> anyhow::Result<()> {
    let mut subscription = broker.subscribe(&jobs(), SubscribeOptions::prefetch(24)).await?;
    let mut open = JoinSet::new();
    let mut deliveries = Vec::new();
    while poll_fn(|cx| subscription.poll_next(cx, 8, &mut deliveries)).await.is_ok() {
        for delivery in deliveries.drain(..) {
            let (broker, marks, rng) = (broker.clone(), Arc::clone(&marks), rng.fork());
            open.spawn(settle(broker, marks, delivery, rng));
        }
        while open.len() > OPEN {
            let Some(done) = open.join_next().await else { break };
            done??;
        }
    }
    while let Some(done) = open.join_next().await {
        done??;
    }
    Ok(())
}

async fn settle(
    broker: SqliteBroker,
    marks: Arc<File>,
    delivery: Delivery,
    mut rng: Rng,
) -> anyhow::Result<()> {
    let job = number(&delivery.envelope)?;
    let attempt = delivery.envelope.progress.attempt;
    let retry = State::Waits(attempt + 1);
    let (to, settlement) = match rng.u8(0..20) {
        // Held until the broker is closed.
        0 => return Ok(()),
        1 => (State::Waits(attempt), Settlement::just(Verdict::Release)),
        2 | 3 => (State::Failed, Settlement::just(Verdict::Failed(report()))),
        4..=8 => {
            let at = now() + Duration::from_millis(rng.u64(..40));
            let progress = Progress { attempt: attempt + 1, ..delivery.envelope.progress.clone() };
            (retry, Settlement::just(Verdict::RetryAt(at, Box::new(progress))))
        }
        _ => {
            let event = Outgoing {
                to: Destination::Event(made()),
                envelope: envelope(MessageName::Event(made()), job, ""),
            };
            (State::Done, Settlement { send: vec![event], verdict: Verdict::Done })
        }
    };
    write(&marks, [Mark::Settle(job, attempt, to)])?;
    // A refusal because the broker is being closed leaves open whether it happened, as far as the marks say.
    if broker.settle(&delivery, settlement).await.is_ok() {
        write(&marks, [Mark::Settled(job, to)])?;
    }
    Ok(())
}

/// All in one write: a line is in the trace as a whole.
fn write(mut file: &File, marks: impl IntoIterator<Item = Mark>) -> anyhow::Result<()> {
    let lines: String = marks.into_iter().map(|mark| mark.to_string()).collect();
    file.write_all(lines.as_bytes()).context("writing a mark")
}

fn message(job: u32, rng: &mut Rng) -> Outgoing {
    let length = if rng.u8(..10) == 0 { rng.usize(4000..12_000) } else { rng.usize(..400) };
    let mut envelope =
        envelope(MessageName::Task(TaskName::parse(JOBS).expect("a task's name")), job, &fill(job, length));
    if rng.u8(..5) == 0 {
        envelope.progress.due = Some(now() + Duration::from_millis(rng.u64(..40)));
    }
    Outgoing { to: Destination::Queue(jobs()), envelope }
}

fn envelope(name: MessageName, job: u32, fill: &str) -> Envelope {
    let at = now();
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    Envelope {
        id: MessageId::new(at, random()),
        name,
        tid: Tid::new(at, random()),
        cause: None,
        app: Some(app("forge")),
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: format!("{{\"tid\":\"t\",\"job\":{job},\"fill\":\"{fill}\"}}").into(),
    }
}

/// Letters that are the job's own, so that a body that is torn shows it.
fn fill(job: u32, length: usize) -> String {
    let mut rng = Rng::with_seed(u64::from(job));
    std::iter::repeat_with(|| rng.lowercase()).take(length).collect()
}

/// The number of the job that a message is of.
///
/// Its body must be whole.
pub(crate) fn number(envelope: &Envelope) -> anyhow::Result<u32> {
    #[derive(serde::Deserialize)]
    struct Body {
        job: u32,
        fill: String,
    }
    let body: Body = serde_json::from_slice(&envelope.body).context("a body is no JSON")?;
    if !body.fill.is_empty() && body.fill != fill(body.job, body.fill.len()) {
        bail!("the body of job {} is not what was published", body.job);
    }
    Ok(body.job)
}

fn report() -> Box<Report> {
    let gave_up = GaveUp { reason: GaveUpReason::Stopped, error: "no steel".into(), attempts: 1 };
    Box::new(Report {
        queue: jobs(),
        fingerprint: Report::fingerprint(&jobs(), gave_up.reason, &gave_up.error),
        gave_up,
        recovery: Recovery::None,
        at: now(),
        history: Vec::new(),
        version: None,
        host: String::new(),
    })
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Opens what a cut left, takes what it can, and ends in order: a process after the power came back.
pub(crate) async fn resume(dir: &Path) -> anyhow::Result<()> {
    let options = SqliteOptions::new().lease(Duration::from_millis(100));
    let broker = SqliteBroker::open(dir.join(DATABASE), options)?;
    broker.declare(&topology()).await?;
    let mut subscription = broker.subscribe(&jobs(), SubscribeOptions::prefetch(10)).await?;
    let mut held = Vec::new();
    let taken = poll_fn(|cx| subscription.poll_next(cx, 10, &mut held));
    // There may be none.
    let _ = tokio::time::timeout(Duration::from_millis(200), taken).await;
    broker.close().await?;
    Ok(())
}
