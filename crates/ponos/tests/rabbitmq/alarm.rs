//! While RabbitMQ is out of memory it reads nothing from who publishes; who consumes must not notice. `PONOS_ALARM=30`
//! for the long form, in seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ponos::core::broker::{Broker as _, Inspect, Topology};
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::prelude::*;
use ponos::{RabbitBroker, RabbitOptions};
use ponos_testbed::{Node, NodeOptions};
use tokio::task::JoinSet;

use super::{figure, messages};

const PATIENCE: Duration = Duration::from_secs(120);

/// How many jobs there are that must publish in order to be settled, of each kind; they take longer than the alarm.
const PUBLISHING: u32 = 500;

/// How many publishes are asked for during the alarm.
const LATE: u32 = 100;

#[app("clinic", state = Chart)]
pub struct Clinic;

#[event("wound.dressed")]
pub struct WoundDressed {
    pub n: u32,
}

/// Needs nothing but its acknowledgement.
#[task("clinic.wound.wash", app = Clinic)]
pub struct WoundWash {
    pub n: u32,
}

/// Emits an event.
#[task("clinic.wound.dress", app = Clinic, emits(WoundDressed))]
pub struct WoundDress {
    pub n: u32,
}

/// Fails once, so that it must be published again.
#[task("clinic.wound.stitch", app = Clinic)]
pub struct WoundStitch {
    pub n: u32,
}

/// Which attempts ran, by kind and number.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    washed: Arc<AtomicU32>,
    runs: Arc<Mutex<Runs>>,
}

type Runs = HashMap<(&'static str, u32), Vec<u32>>;

impl Chart {
    fn note(&self, kind: &'static str, n: u32, attempt: u32) {
        self.runs.lock().unwrap().entry((kind, n)).or_default().push(attempt);
    }

    /// How many of a kind have run so often.
    fn count(&self, kind: &str, runs: usize) -> u32 {
        let all = self.runs.lock().unwrap();
        let there = all.iter().filter(|((other, _), attempts)| *other == kind && attempts.len() >= runs);
        u32::try_from(there.count()).unwrap()
    }
}

async fn wash(t: WoundWash, cx: TaskCx<WoundWash>) -> Outcome {
    cx.sleep(millis(20)).await;
    cx.state().note("wash", t.n, cx.attempt());
    cx.state().washed.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn dress(t: WoundDress, cx: TaskCx<WoundDress>) -> Outcome {
    cx.sleep(millis(50)).await;
    cx.state().note("dress", t.n, cx.attempt());
    cx.emit(WoundDressed { n: t.n })?;
    Ok(())
}

async fn stitch(t: WoundStitch, cx: TaskCx<WoundStitch>) -> Outcome {
    cx.sleep(millis(50)).await;
    cx.state().note("stitch", t.n, cx.attempt());
    if cx.attempt() == 1 { Err("the thread broke")? } else { Ok(()) }
}

fn clinic() -> Service<Clinic> {
    Service::new()
        .task(wash, |p| p.concurrency(8).prefetch(64).no_breaker())
        .task(dress, |p| p.concurrency(4).prefetch(64).no_breaker())
        .task(stitch, |p| p.concurrency(4).prefetch(64).no_breaker().retry(Backoff::constant(millis(200))))
}

async fn connect(node: &Node) -> Arc<RabbitBroker> {
    Arc::new(RabbitBroker::connect(RabbitOptions::from_url(&node.url()).unwrap()).await.unwrap())
}

async fn alarm(node: &Arc<Node>, on: bool) {
    let node = Arc::clone(node);
    tokio::task::spawn_blocking(move || node.memory_alarm(on)).await.unwrap();
}

async fn ready(broker: &RabbitBroker, queue: &str) -> u64 {
    let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
    queues.iter().find(|stats| stats.queue.as_str() == queue).map_or(0, |stats| stats.ready)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not {what} after {PATIENCE:?}");
        tokio::time::sleep(millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_a_memory_alarm_acknowledgements_go_on_and_publishers_wait_and_no_attempt_is_burned() {
    let seconds = figure("PONOS_ALARM", 3);
    let node = tokio::task::spawn_blocking(|| Arc::new(Node::start(NodeOptions::new()))).await.unwrap();
    let (worker, outside) = (connect(&node).await, connect(&node).await);
    let audit = AppName::parse("audit").unwrap();
    let dressed = EventName::parse("wound.dressed").unwrap();
    let heard = QueueName::subscription(&audit, &dressed);
    let listener = Topology {
        app: Some(audit),
        subscriptions: vec![(heard.clone(), dressed.clone())],
        events: vec![dressed],
        ..Topology::default()
    };
    outside.declare(&listener).await.unwrap();
    let tasks = ["clinic.wound.wash", "clinic.wound.dress", "clinic.wound.stitch"];
    let tasks = tasks.map(|name| QueueName::parse(name).unwrap()).to_vec();
    let app = Some(AppName::parse("clinic").unwrap());
    outside.declare(&Topology { app, tasks, ..Topology::default() }).await.unwrap();

    // More than eight at a time can wash of 20 ms each before the alarm is over.
    let washing = 400 * (seconds + 10);
    let all: Vec<u32> = (0..washing).collect();
    for some in all.chunks(500) {
        messages::send(&*outside, some.iter().map(|&n| messages::task(&WoundWash { n }, None)).collect())
            .await;
    }
    messages::send(&*outside, (0..PUBLISHING).map(|n| messages::task(&WoundDress { n }, None)).collect())
        .await;
    messages::send(&*outside, (0..PUBLISHING).map(|n| messages::task(&WoundStitch { n }, None)).collect())
        .await;
    let chart = Chart::default();
    let running = clinic().start(chart.clone(), Arc::clone(&worker)).await.unwrap();
    until("begun", || chart.count("wash", 1) > 100 && chart.count("dress", 1) > 10).await;

    alarm(&node, true).await;
    let began = Instant::now();
    let publisher = Publisher::<Clinic>::connect(Arc::clone(&outside)).await.unwrap();
    let mut late = JoinSet::new();
    for n in washing..washing + LATE {
        let publisher = publisher.clone();
        late.spawn(async move { publisher.create(WoundWash { n }).await.map(|_| Instant::now()) });
    }
    let (washed, left) = (chart.washed.load(Ordering::Relaxed), ready(&outside, "clinic.wound.wash").await);
    until("over", || began.elapsed() >= secs(u64::from(seconds))).await;
    let washed = chart.washed.load(Ordering::Relaxed) - washed;
    let acked = left - ready(&outside, "clinic.wound.wash").await;
    let dressing = chart.count("dress", 1);
    let mut answers = Vec::new();
    while let Some(answer) = late.try_join_next() {
        answers.push(answer.unwrap());
    }
    let in_time = answers.len();
    let lasted = began.elapsed();
    alarm(&node, false).await;
    let over = Instant::now();
    answers.extend(late.join_all().await);
    let resumed: Vec<Instant> = answers.into_iter().map(|answer| answer.expect("it waits")).collect();
    let last = resumed.iter().max().unwrap().saturating_duration_since(over);

    until("all washed", || chart.count("wash", 1) == washing + LATE).await;
    until("all dressed", || chart.count("dress", 1) == PUBLISHING).await;
    until("all stitched", || chart.count("stitch", 2) == PUBLISHING).await;
    running.shutdown().await;
    let events = ready(&outside, heard.as_str()).await;
    eprintln!(
        "alarm of {:.1} s: {washed} jobs ran meanwhile and {acked} left the queue; {in_time} of {LATE} publishes were \
         confirmed meanwhile, the others at most {:.1} s after its end; {dressing} of {PUBLISHING} that emit had begun; \
         {events} events of {PUBLISHING} jobs",
        lasted.as_secs_f64(),
        last.as_secs_f64(),
    );
    let runs = chart.runs.lock().unwrap().clone();
    let mut again = 0;
    for ((kind, n), mut attempts) in runs {
        attempts.sort_unstable();
        let all = attempts.len();
        attempts.dedup();
        again += all - attempts.len();
        let wanted: &[u32] = if kind == "stitch" { &[1, 2] } else { &[1] };
        assert_eq!(attempts, wanted, "{kind} {n}");
    }
    eprintln!("attempts as the handlers asked for them; {again} ran again under the same number");
    assert_eq!(again, 0, "no connection was lost");
    assert!(u64::from(washed) > 100 * u64::from(seconds), "only {washed} jobs ran");
    assert!(acked > 100 * u64::from(seconds), "only {acked} were acknowledged");
    assert!(in_time < LATE as usize / 2, "{in_time} publishers did not wait");
    assert!(events >= u64::from(PUBLISHING), "{events} events");
    worker.close().await.unwrap();
    outside.close().await.unwrap();
}
