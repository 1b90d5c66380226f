//! A backlog of any size costs a worker no memory, and a forgotten prototype costs the broker none. `PONOS_SPIKE=1000000`
//! and `PONOS_PROTOTYPE=150000` for the long forms; the second has no short one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use ponos::core::broker::{Broker as _, Inspect, Topology};
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_testbed::{Node, NodeOptions};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::another_process::{Process, Role, say};
use super::{figure, messages};

/// What a worker process may take at its highest, in KiB, and how much of it after its first thousand jobs: it remembers the
/// last 65,536 that are done.
const LIMIT: u64 = 64 << 10;
const GROWTH: u64 = 16 << 10;

/// After so many jobs it has seen everything.
const WARM: u32 = 1_000;

/// The most messages of a prototype's queue, a constant of the wire.
const BOUND: u64 = 100_000;

#[app("heap", state = Arc<Left>)]
pub struct Heap;

#[task("heap.stone.move", app = Heap)]
pub struct StoneMove {
    pub n: u32,
    pub note: String,
}

#[event("trend.spotted")]
pub struct TrendSpotted {
    pub n: u32,
    pub note: String,
}

/// Counts down and tells at the end.
pub struct Left {
    jobs: AtomicU32,
    warm: Notify,
    none: Notify,
    total: u32,
}

async fn do_nothing(_: StoneMove, cx: TaskCx<StoneMove>) -> Outcome {
    let left = cx.state().jobs.fetch_sub(1, Ordering::Relaxed) - 1;
    if left + WARM == cx.state().total {
        cx.state().warm.notify_one();
    }
    if left == 0 {
        cx.state().none.notify_one();
    }
    Ok(())
}

/// What a child does; nothing in the parent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Some(role) = Role::of_this_process() else { return };
    let total = role.number;
    let left = Left { jobs: AtomicU32::new(total), warm: Notify::new(), none: Notify::new(), total };
    let left = Arc::new(left);
    let service = Service::<Heap>::new().task(do_nothing, |p| p.concurrency(10).prefetch(20));
    let broker = Broker::from_url(role.file.to_str().unwrap()).unwrap();
    let started = Instant::now();
    let running = service.start(Arc::clone(&left), broker).await.unwrap();
    left.warm.notified().await;
    say(&format!("warm {}", peak()));
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

async fn connect(url: &str) -> Arc<RabbitBroker> {
    Arc::new(RabbitBroker::connect(RabbitOptions::from_url(url).unwrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stays_small_whatever_the_spike() {
    let jobs = figure("PONOS_SPIKE", 10_000);
    let url = Node::shared().fresh_vhost();
    let broker = connect(&url).await;
    let queue = QueueName::parse("heap.stone.move").unwrap();
    let topology = Topology { app: Some(queue.app()), tasks: vec![queue.clone()], ..Topology::default() };
    broker.declare(&topology).await.unwrap();
    let filling = Instant::now();
    flood(&broker, jobs, |n| messages::task(&StoneMove { n, note: "x".repeat(200) }, None)).await;
    let filled = filling.elapsed().as_secs_f64();

    let drain = move || {
        let mut worker = Process::start_test("spike::another_process", "drain", Path::new(&url), jobs);
        let warm: u64 = worker.line("warm ").parse().unwrap();
        let took: f64 = worker.line("drained in ").parse().unwrap();
        let peak: u64 = worker.line("peak ").parse().unwrap();
        (warm, took, peak)
    };
    let (warm, took, peak) = tokio::task::spawn_blocking(drain).await.unwrap();
    eprintln!(
        "{jobs} jobs, published in {filled:.1} s, drained in {took:.1} s, {:.0} jobs/s with a prefetch of 20; the \
         worker's peak after {WARM} jobs {:.1} MiB, after all {:.1} MiB",
        f64::from(jobs) / took,
        warm as f64 / 1024.0,
        peak as f64 / 1024.0,
    );
    let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
    let left: u64 = queues.iter().map(|queue| queue.ready).sum();
    broker.close().await.unwrap();
    assert_eq!(left, 0, "{queues:?}");
    assert!(peak < LIMIT, "{peak} KiB");
    assert!(peak < warm + GROWTH, "it grew from {warm} to {peak} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_prototype_keeps_its_bound_and_raises_no_alarm() {
    let events = figure("PONOS_PROTOTYPE", 0);
    if events == 0 {
        return;
    }
    let node = tokio::task::spawn_blocking(|| Arc::new(Node::start(NodeOptions::new()))).await.unwrap();
    let broker = connect(&node.url()).await;
    let app = AppName::parse("sketch").unwrap();
    let event = EventName::parse("trend.spotted").unwrap();
    let queue = QueueName::subscription(&app, &event);
    let topology = Topology {
        app: Some(app),
        events: vec![event.clone()],
        subscriptions: vec![(queue.clone(), event)],
        prototypes: vec![queue.clone()],
        ..Topology::default()
    };
    broker.declare(&topology).await.unwrap();
    let filling = Instant::now();
    let mut most = 0;
    for part in 0..10 {
        let first = part * (events / 10);
        flood(&broker, events / 10, |n| {
            messages::event(&TrendSpotted { n: first + n, note: "x".repeat(200) })
        })
        .await;
        let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
        let there = queues.iter().find(|stats| stats.queue == queue).unwrap().ready;
        most = there.max(most);
        let (status, answer) = node.http("GET", "/api/health/checks/local-alarms", None);
        assert_eq!(status, 200, "{answer}");
    }
    eprintln!(
        "{events} events in {:.1} s to a prototype that nobody works: at most {most} lay in its queue, no alarm",
        filling.elapsed().as_secs_f64()
    );
    assert!(most <= BOUND, "{most}");
    assert!(u64::from(events) <= BOUND || most == BOUND, "{most} of {events}");
    broker.close().await.unwrap();
}

/// Publishes so many, in batches, a few of them at a time.
async fn flood(
    broker: &Arc<RabbitBroker>,
    count: u32,
    message: impl Fn(u32) -> ponos::core::broker::Outgoing,
) {
    let mut open = JoinSet::new();
    let all: Vec<u32> = (0..count).collect();
    for some in all.chunks(500) {
        if open.len() >= 4 {
            open.join_next().await.unwrap().unwrap();
        }
        let batch: Vec<_> = some.iter().map(|&n| message(n)).collect();
        let broker = Arc::clone(broker);
        open.spawn(async move { messages::send(&*broker, batch).await });
    }
    open.join_all().await;
}
