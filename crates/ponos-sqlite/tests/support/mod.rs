//! What the tests share: messages, polling with a deadline, raw SQL.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it"
)]

use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ponos_core::broker::*;
use ponos_core::envelope::{Envelope, MessageName, Progress};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};
use ponos_sqlite::{SqliteBroker, SqliteOptions};

pub const TASK: &str = "pheidi.email.send";

pub fn queue(name: &str) -> QueueName {
    QueueName::parse(name).unwrap()
}

pub fn now() -> Timestamp {
    SystemTime::now().into()
}

pub fn random() -> [u8; 10] {
    std::array::from_fn(|_| fastrand::u8(..))
}

pub fn envelope(name: MessageName, body: &str) -> Envelope {
    let at = now();
    Envelope {
        id: MessageId::new(at, random()),
        name,
        tid: Tid::new(at, random()),
        cause: None,
        app: Some(AppName::parse("pheidi").unwrap()),
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: Bytes::from(body.to_owned()),
    }
}

pub fn task(body: &str) -> Outgoing {
    let name = MessageName::Task(TaskName::parse(TASK).unwrap());
    Outgoing { to: Destination::Queue(queue(TASK)), envelope: envelope(name, body) }
}

pub fn tasks(count: usize) -> Vec<Outgoing> {
    (0..count).map(|n| task(&format!("{{\"tid\":\"t\",\"n\":{n}}}"))).collect()
}

pub fn event(name: &str) -> Outgoing {
    let name = EventName::parse(name).unwrap();
    Outgoing { to: Destination::Event(name.clone()), envelope: envelope(MessageName::Event(name), "{}") }
}

pub fn topology() -> Topology {
    let event = EventName::parse("org.payment.processed").unwrap();
    let app = AppName::parse("pheidi").unwrap();
    Topology {
        subscriptions: vec![(QueueName::subscription(&app, &event), event.clone())],
        app: Some(app),
        events: vec![event],
        tasks: vec![queue(TASK)],
        ..Topology::default()
    }
}

pub fn open(path: &std::path::Path) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions::new()).unwrap()
}

/// A broker with the test's topology.
pub async fn ready(path: &std::path::Path) -> SqliteBroker {
    let broker = open(path);
    broker.declare(&topology()).await.unwrap();
    broker
}

pub async fn subscribe(broker: &SqliteBroker, name: &str, prefetch: u32) -> Box<dyn Subscription> {
    broker.subscribe(&queue(name), SubscribeOptions::prefetch(prefetch)).await.unwrap()
}

/// At least one delivery, within ten seconds.
pub async fn next(subscription: &mut Box<dyn Subscription>, max: usize) -> Vec<Delivery> {
    let mut out = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), poll_fn(|cx| subscription.poll_next(cx, max, &mut out)))
        .await
        .expect("a delivery within ten seconds")
        .unwrap();
    out
}

/// Exactly so many deliveries.
pub async fn take(subscription: &mut Box<dyn Subscription>, count: usize) -> Vec<Delivery> {
    let mut out = Vec::new();
    while out.len() < count {
        let more = next(subscription, count - out.len()).await;
        out.extend(more);
    }
    out
}

/// Whether nothing comes within so long.
pub async fn silent(subscription: &mut Box<dyn Subscription>, time: Duration) -> bool {
    let mut out = Vec::new();
    tokio::time::timeout(time, poll_fn(|cx| subscription.poll_next(cx, 10, &mut out))).await.is_err()
}

pub async fn done(broker: &SqliteBroker, delivery: &Delivery) {
    broker.settle(delivery, Settlement::just(Verdict::Done)).await.unwrap();
}

pub async fn stats(broker: &SqliteBroker, name: &str) -> QueueStats {
    let all = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
    all.into_iter().find(|stats| stats.queue == *name).unwrap()
}

/// Polls until it holds, at most so long; answers how long it took.
pub fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "within {limit:?}: {what}");
        std::thread::yield_now();
    }
    start.elapsed()
}
