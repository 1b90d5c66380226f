//! Operations on many failed jobs, as a library: order, rate, stop, circuit, and what is told of each job.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ponos::core::broker::{BoxFuture, Broker, Destination, Outgoing, Topology};
use ponos::core::envelope::{Envelope, GaveUp, MessageName, Progress, Recovery, Report};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::{
    Bulk, BulkEnd, CircuitGate, FailedJobs, Gate, GaveUpReason, MemoryBroker, Moved, MovedTo, Operation,
    RateExt as _,
};
use tokio::sync::Notify;

const TASK: &str = "unit.job.run";

fn queue(name: &str) -> QueueName {
    serde_json::from_value(name.into()).unwrap()
}

fn id(n: u32) -> MessageId {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&n.to_be_bytes());
    MessageId::new(Timestamp::from_millis(1_700_000_000_000), random)
}

fn job(n: u32, report: Option<&str>) -> Envelope {
    let at = Timestamp::from_millis(1_700_000_000_000 + u64::from(n));
    Envelope {
        id: id(n),
        name: MessageName::Task(TaskName::parse(TASK).unwrap()),
        tid: Tid::new(at, [1; 10]),
        cause: None,
        app: None,
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: report.map(|to| {
            Box::new(Report {
                queue: queue(to),
                gave_up: GaveUp { reason: GaveUpReason::Stopped, error: "no\nbecause".into(), attempts: 1 },
                recovery: Recovery::None,
                at,
                fingerprint: "f".into(),
                history: Vec::new(),
                version: None,
                host: String::new(),
            })
        }),
        body: "{}".into(),
    }
}

/// An application with these failed jobs.
async fn failed(jobs: Vec<Envelope>) -> (Arc<dyn Broker>, FailedJobs) {
    let app = AppName::from_checked("unit");
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
    let tasks = vec![queue(TASK)];
    broker.declare(&Topology { app: Some(app.clone()), tasks, ..Topology::default() }).await.unwrap();
    let to = Destination::Queue(QueueName::failed(&app));
    let batch = jobs.into_iter().map(|envelope| Outgoing { to: to.clone(), envelope }).collect();
    assert!(broker.publish(batch).await.iter().all(ponos::core::broker::Published::is_confirmed));
    (broker.clone(), FailedJobs::new(broker, app))
}

async fn in_queue(broker: &Arc<dyn Broker>, name: &str) -> Vec<Envelope> {
    let query = ponos::core::broker::Inspect::Messages { queue: queue(name), limit: usize::MAX, after: None };
    broker.inspect(query).await.unwrap().into_messages()
}

#[tokio::test]
async fn a_rate_is_kept_and_the_copies_carry_their_mark() {
    let (broker, jobs) = failed((0..100).map(|n| job(n, Some(TASK))).collect()).await;
    let operation = Operation::begun_by("ada");
    let mut told = Vec::new();
    let started = Instant::now();
    let bulk = Bulk::new(operation.clone()).rate(100.per_second()).told(|moved| told.push(moved.id));
    assert_eq!(jobs.retry_many((0..100).map(id).collect(), bulk).await.unwrap(), BulkEnd::Finished);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    assert_eq!(told, (0..100).map(id).collect::<Vec<_>>());
    let copies = in_queue(&broker, TASK).await;
    assert_eq!((copies.len(), jobs.list(1, None).await.unwrap().len()), (100, 0));
    for copy in &copies {
        let mark = copy.progress.retried.as_ref().unwrap();
        assert_eq!((mark.op.as_str(), mark.by.as_str(), mark.times), (operation.id.as_str(), "ada", 1));
        assert_eq!((mark.error.as_str(), mark.failed_at), ("no", Some(copy.published_at)));
        assert_eq!((copy.report.as_ref(), copy.progress.attempt), (None, 1));
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_stays() {
    let strange = vec![job(0, Some(TASK)), job(1, None), job(2, Some("unit.job.forget"))];
    let (broker, jobs) = failed(strange).await;
    let mut told: Vec<Moved> = Vec::new();
    let bulk = Bulk::new(Operation::begun_by("")).told(|moved| told.push(moved));
    jobs.retry_many(vec![id(0), id(1), id(2), id(9), id(0)], bulk).await.unwrap();
    let of = |n: u32| {
        let mut all = told.iter().filter(|moved| moved.id == id(n));
        let one = all.next().unwrap();
        assert!(all.next().is_none(), "told twice");
        &one.to
    };
    assert_eq!(told.len(), 4);
    assert!(matches!(of(0), MovedTo::Queue(to) if *to == queue(TASK)));
    assert!(matches!(of(1), MovedTo::Refused(error) if error.to_string().contains("has no report")));
    assert!(matches!(of(2), MovedTo::Refused(error) if error.to_string().contains("unit.job.forget")));
    assert!(matches!(of(9), MovedTo::NotThere));
    assert_eq!(in_queue(&broker, TASK).await.len(), 1);
    let left: Vec<_> = jobs.list(9, None).await.unwrap().into_iter().map(|job| job.id).collect();
    assert!(left.contains(&id(1)) && left.contains(&id(2)) && left.len() == 2, "{left:?}");
}

#[tokio::test]
async fn a_stop_is_between_two_jobs_and_leaves_the_others() {
    let (broker, jobs) = failed((0..1000).map(|n| job(n, Some(TASK))).collect()).await;
    let (enough, mut count) = (Notify::new(), 0);
    let told = |_| {
        count += 1;
        if count == 20 {
            enough.notify_one();
        }
    };
    let bulk = Bulk::new(Operation::begun_by("")).rate(200.per_second()).stop(enough.notified()).told(told);
    assert_eq!(jobs.retry_many((0..1000).map(id).collect(), bulk).await.unwrap(), BulkEnd::Stopped);
    assert!((20..1000).contains(&count), "{count}");
    assert_eq!(in_queue(&broker, TASK).await.len(), count);
    assert_eq!(jobs.list(usize::MAX, None).await.unwrap().len(), 1000 - count);
    // Nothing is held: the others are there for who goes on.
    let ids = jobs.list(usize::MAX, None).await.unwrap().into_iter().map(|job| job.id).collect();
    jobs.retry_many(ids, Bulk::new(Operation::begun_by(""))).await.unwrap();
    assert_eq!(in_queue(&broker, TASK).await.len(), 1000);
}

/// Open for as many questions.
#[derive(Debug)]
struct OpenFor(AtomicU32);

impl CircuitGate for OpenFor {
    fn of<'a>(&'a self, _: &'a QueueName) -> BoxFuture<'a, Gate> {
        let open = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        Box::pin(std::future::ready(if open.is_ok() { Gate::Open } else { Gate::Closed }))
    }
}

#[tokio::test]
async fn an_open_circuit_is_waited_for() {
    let (broker, jobs) = failed((0..3).map(|n| job(n, Some(TASK))).collect()).await;
    let (gate, mut waits, mut moved) = (OpenFor(AtomicU32::new(2)), 0, 0);
    let started = Instant::now();
    let bulk = Bulk::new(Operation::begun_by("")).gate(&gate).told(|job| match job.to {
        MovedTo::Waits(_) => waits += 1,
        _ => moved += 1,
    });
    jobs.retry_many((0..3).map(id).collect(), bulk).await.unwrap();
    assert_eq!((waits, moved), (2, 3));
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(in_queue(&broker, TASK).await.len(), 3);

    // And not longer than somebody has patience.
    let (_, jobs) = failed(vec![job(0, Some(TASK))]).await;
    let never = OpenFor(AtomicU32::new(u32::MAX));
    let patience = Notify::new();
    let told = |_| patience.notify_one();
    let bulk = Bulk::new(Operation::begun_by("")).gate(&never).stop(patience.notified()).told(told);
    assert_eq!(jobs.retry_many(vec![id(0)], bulk).await.unwrap(), BulkEnd::Stopped);
    assert_eq!(jobs.list(9, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn one_of_two_jobs_under_one_id_is_retried_at_a_time() {
    let (broker, jobs) = failed(vec![job(0, Some(TASK)), job(0, Some(TASK))]).await;
    for left in [1, 0] {
        jobs.retry_many(vec![id(0)], Bulk::new(Operation::begun_by(""))).await.unwrap();
        assert_eq!(jobs.list(9, None).await.unwrap().len(), left);
    }
    assert!(!in_queue(&broker, TASK).await.is_empty());
}
