//! What RabbitMQ carries: what a queue costs, and messages a second over 1, 100 and 500 queues.
//!
//! `cargo bench -p ponos --features rabbitmq --bench rabbitmq_capacity` starts nodes of its own (`ponos-testbed`: Debian's
//! `rabbitmq-server`, or the one in `PONOS_RABBITMQ_ROOT`) and takes some minutes. `PONOS_PARTS=queues` or
//! `PONOS_PARTS=messages` runs one half.
//!
//! # What is measured
//!
//! *Queues*: so many tasks' queues are declared as services do it, one after the other over one channel, with their
//! bindings. "Again" is how many milliseconds each takes that is declared once more, as every instance does each minute. The
//! node's memory is what the Erlang VM has allocated after a garbage collection of all its processes, and its resident set
//! as it is. These nodes do nothing else.
//!
//! *Messages*: bodies of about 300 bytes. "1 publisher" is one caller who publishes 100, waits for all confirms and publishes
//! the next 100; "8" is eight such callers. "Drained" takes what lies in one queue then and acknowledges each, over the
//! broker alone. "Worker" does it with a whole service: it decodes, runs a handler that does nothing, settles, and
//! publishes records. "Through" subscribes to all queues first, at so many milliseconds each, then eight callers
//! publish while everything is consumed: both at once. The prefetch is 64 per queue.
//!
//! Nodes, publisher and consumer share this machine's cores.

#![allow(missing_docs, missing_debug_implementations, reason = "a benchmark's derives have no readers")]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ponos::core::broker::{
    Broker as _, Destination, Outgoing, Published, Settlement, SubscribeOptions, Topology, Verdict,
};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::core::{Bytes, body};
use ponos::prelude::*;
use ponos::{QueueType, RabbitBroker, RabbitOptions};
use ponos_testbed::{Node, NodeOptions};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How many queues there are when memory is looked at.
const QUEUES: [usize; 3] = [100, 500, 1000];

/// Over how many queues messages are spread.
const SPREAD: [usize; 3] = [1, 100, 500];

/// Rounds after one that warms up.
const ROUNDS: usize = 3;

/// How many messages each figure is from, and how many are published at once.
const MESSAGES: usize = 20_000;
const BATCH: usize = 100;

const PREFETCH: u32 = 64;

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
    left: AtomicUsize,
    all: Notify,
}

impl Progressed {
    fn of(jobs: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(jobs), all: Notify::new() })
    }

    fn one(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.all.notify_one();
        }
    }
}

async fn handle(_: JobRun, cx: TaskCx<JobRun>) -> Outcome {
    cx.state().one();
    Ok(())
}

/// The task of one of the queues; the first is the one that the service works.
fn task(n: usize) -> TaskName {
    if n == 0 {
        TaskName::from_checked("bench.job.run")
    } else {
        TaskName::parse(&format!("bench.job{n}.run")).expect("a name")
    }
}

fn queue(n: usize) -> QueueName {
    QueueName::task(&task(n))
}

fn topology(queues: Range<usize>) -> Topology {
    Topology {
        app: Some(AppName::from_checked("bench")),
        tasks: queues.map(queue).collect(),
        ..Topology::default()
    }
}

fn payload(tid: &Tid) -> Bytes {
    let job = JobRun {
        org: "acme-corporation".into(),
        template: "receipt".into(),
        amount_cents: 1900,
        recipients: vec!["billing@acme.example".into(), "cfo@acme.example".into()],
        note: "thank you for your payment, it has been received and will be booked today; this is a receipt"
            .into(),
    };
    body::encode(tid, &job).expect("a struct")
}

fn message(n: usize) -> Outgoing {
    let at = Timestamp::from(SystemTime::now());
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let tid = Tid::new(at, random());
    let body = payload(&tid);
    let envelope = Envelope {
        id: MessageId::new(at, random()),
        name: MessageName::Task(task(n)),
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
    Outgoing { to: Destination::Queue(queue(n)), envelope }
}

fn node() -> Node {
    // As a node is by default: the testbed's own figures are fresher, which costs with many queues.
    Node::start(NodeOptions::new().config("collect_statistics_interval", 5000))
}

async fn connect(url: &str, queue_type: QueueType) -> Arc<RabbitBroker> {
    let options = RabbitOptions::from_url(url).expect("a URL");
    // Not in the middle of a measurement.
    let options = options.queue_type(queue_type).check_every(Duration::from_secs(3600));
    Arc::new(RabbitBroker::connect(options).await.expect("connects"))
}

/// Bytes that the Erlang VM has allocated, after a collection.
fn allocated(node: &Node) -> f64 {
    let collect = "[erlang:garbage_collect(P) || P <- processes()], erlang:memory(total).";
    let answer = node.ctl(&["eval", collect]).expect("the node answers");
    answer.trim().parse().expect("a number")
}

fn resident(node: &Node) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("the node lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident set");
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().expect("a number") * 1024.0
}

async fn queues(queue_type: QueueType) {
    let node = node();
    let broker = connect(&node.url(), queue_type).await;
    // What an application has anyway.
    broker.declare(&topology(0..0)).await.expect("declares");
    let (none, none_resident) = (allocated(&node), resident(&node));
    println!("{:<7}  {:>6}  {:>13.1}  {:>11.0}", queue_type.as_str(), 0, none / 1e6, none_resident / 1e6);
    let mut before = 0;
    for count in QUEUES {
        let started = Instant::now();
        broker.declare(&topology(before..count)).await.expect("declares");
        let each = started.elapsed().as_secs_f64() * 1e3 / (count - before) as f64;
        let started = Instant::now();
        broker.declare(&topology(0..count)).await.expect("declares");
        let again = started.elapsed().as_secs_f64() * 1e3 / count as f64;
        let (now, now_resident) = (allocated(&node), resident(&node));
        println!(
            "{:<7}  {count:>6}  {:>13.1}  {:>11.0}  {:>12.0}  {each:>13.1}  {again:>5.1}",
            queue_type.as_str(),
            now / 1e6,
            now_resident / 1e6,
            (now - none) / count as f64 / 1e3,
        );
        before = count;
    }
    broker.close().await.expect("closes");
}

/// Publishes `jobs` messages to the first `queues` queues in turns; messages a second.
async fn publish(broker: &Arc<RabbitBroker>, jobs: usize, queues: usize, callers: usize) -> f64 {
    let started = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let broker = Arc::clone(broker);
            tokio::spawn(async move {
                for from in (caller * BATCH..jobs).step_by(callers * BATCH) {
                    let batch = (from..jobs.min(from + BATCH)).map(|n| message(n % queues)).collect();
                    let published = broker.publish(batch).await;
                    assert!(published.iter().all(Published::is_confirmed), "{:?}", published.first());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("publishes");
    }
    jobs as f64 / started.elapsed().as_secs_f64()
}

/// Subscriptions to the first `queues` queues, that acknowledge what comes.
struct Consumers {
    tasks: Vec<JoinHandle<()>>,
    /// How long it took to subscribe.
    took: Duration,
}

impl Consumers {
    async fn start(broker: &Arc<RabbitBroker>, queues: usize, progressed: &Arc<Progressed>) -> Self {
        let mut tasks = Vec::new();
        let started = Instant::now();
        for n in 0..queues {
            let options = SubscribeOptions::prefetch(PREFETCH);
            let mut subscription = broker.subscribe(&queue(n), options).await.expect("subscribes");
            let (broker, progressed) = (Arc::clone(broker), Arc::clone(progressed));
            tasks.push(tokio::spawn(async move {
                let mut deliveries = Vec::new();
                loop {
                    std::future::poll_fn(|cx| subscription.poll_next(cx, PREFETCH as usize, &mut deliveries))
                        .await
                        .expect("stays subscribed");
                    for delivery in deliveries.drain(..) {
                        let done = Settlement::just(Verdict::Done);
                        broker.settle(&delivery, done).await.expect("settles");
                        progressed.one();
                    }
                }
            }));
        }
        Self { tasks, took: started.elapsed() }
    }

    async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Takes what lies in the first queue; messages a second.
async fn drain(broker: &Arc<RabbitBroker>, jobs: usize) -> f64 {
    let progressed = Progressed::of(jobs);
    let started = Instant::now();
    let consumers = Consumers::start(broker, 1, &progressed).await;
    progressed.all.notified().await;
    let rate = jobs as f64 / started.elapsed().as_secs_f64();
    consumers.stop().await;
    rate
}

/// Publishes and consumes at once: messages a second, milliseconds to subscribe to a queue, and channels.
async fn through(node: &Arc<Node>, broker: &Arc<RabbitBroker>, queues: usize) -> (f64, f64, String) {
    let progressed = Progressed::of(MESSAGES);
    let consumers = Consumers::start(broker, queues, &progressed).await;
    let started = Instant::now();
    publish(broker, MESSAGES, queues, 8).await;
    progressed.all.notified().await;
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    let node = Arc::clone(node);
    let used = tokio::task::spawn_blocking(move || channels(&node, queues as u64)).await.expect("looks");
    let each = consumers.took.as_secs_f64() * 1e3 / queues as f64;
    consumers.stop().await;
    (rate, each, used)
}

/// The channels of each connection, as the management plugin counts them, once it counts those of the subscriptions.
fn channels(node: &Node, queues: u64) -> String {
    let started = Instant::now();
    loop {
        let (_, answer) = node.http("GET", "/api/connections?columns=channels", None);
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        let counts = answer.as_array().into_iter().flatten();
        let mut counts: Vec<_> = counts.filter_map(|connection| connection["channels"].as_u64()).collect();
        counts.sort_unstable();
        // Its figures are up to five seconds old.
        if counts.last().is_some_and(|most| *most > queues) || started.elapsed() > Duration::from_secs(12) {
            return counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}

/// Jobs a second through a whole service on the first queue.
async fn worker(broker: &Arc<RabbitBroker>, jobs: usize) -> f64 {
    let progressed = Progressed::of(jobs);
    let service = Service::<Bench>::new().task(handle, |p| p.concurrency(PREFETCH).prefetch(PREFETCH));
    let started = Instant::now();
    let running = service.start(Arc::clone(&progressed), Arc::clone(broker)).await.expect("starts");
    progressed.all.notified().await;
    let rate = jobs as f64 / started.elapsed().as_secs_f64();
    running.shutdown().await;
    rate
}

/// One round over so many queues: messages a second in the order of the columns, and the channels at the end.
async fn round(node: &Arc<Node>, broker: &Arc<RabbitBroker>, queues: usize) -> (Vec<f64>, String) {
    let mut figures = Vec::new();
    if queues == 1 {
        for callers in [1, 8] {
            figures.push(publish(broker, MESSAGES, 1, callers).await);
        }
        figures.push(drain(broker, 2 * MESSAGES).await);
        publish(broker, MESSAGES, 1, 8).await;
        figures.push(worker(broker, MESSAGES).await);
    }
    let (rate, each, channels) = through(node, broker, queues).await;
    figures.extend([rate, each]);
    (figures, channels)
}

/// Both types take turns on one node, so that a machine that drifts drifts under both.
async fn messages(types: [QueueType; 2]) {
    let node = Arc::new(node());
    let vhosts = types.map(|_| node.fresh_vhost_name());
    for count in SPREAD {
        let mut figures = types.map(|_| Vec::new());
        let mut channels = String::new();
        // The first round warms up.
        for number in 0..=ROUNDS {
            for ((queue_type, vhost), all) in types.iter().zip(&vhosts).zip(&mut figures) {
                let broker = connect(&node.url_of(vhost), *queue_type).await;
                broker.declare(&topology(0..count)).await.expect("declares");
                let (one, used) = round(&node, &broker, count).await;
                broker.close().await.expect("closes");
                channels = used;
                if number > 0 {
                    all.push(one);
                }
            }
        }
        for (queue_type, rounds) in types.iter().zip(figures) {
            let columns = rounds[0].len();
            let medians = (0..columns).map(|n| median(rounds.iter().map(|round| round[n]).collect()));
            let shown: String = medians.map(|figure| format!("{figure:>10.1}")).collect();
            println!("{:<7}{count:>7}{shown:>60}  {channels}", queue_type.as_str());
        }
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    if !ponos_testbed::is_installed() {
        println!("SKIPPED: RabbitMQ is not installed (apt-get install rabbitmq-server)");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let parts = std::env::var("PONOS_PARTS").unwrap_or_default();
    let wanted = |part: &str| parts.is_empty() || parts == part;
    let types = [QueueType::Quorum, QueueType::Classic];
    if wanted("queues") {
        println!("                 allocated, MB  resident, MB  kB per queue  ms to declare  again");
        types.iter().for_each(|queue_type| runtime.block_on(queues(*queue_type)));
    }
    if wanted("messages") {
        let size = payload(&Tid::new(Timestamp::from(SystemTime::now()), [0; 10])).len();
        println!("messages a second, bodies of {size} bytes, published {BATCH} at once");
        println!("        queues   1 publ.   8 publ.   drained    worker   through    ms/sub  channels");
        runtime.block_on(messages(types));
    }
}
