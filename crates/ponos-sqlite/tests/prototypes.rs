//! Prototypes: what is forgotten fills no disk.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use ponos_core::broker::*;
use ponos_core::name::QueueName;
use ponos_sqlite::{SqliteBroker, SqliteOptions};
use support::*;

const HEARD: &str = "pheidi.org.payment.processed";
const EVENT: &str = "org.payment.processed";
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn prototype() -> Topology {
    Topology { prototypes: vec![queue(HEARD)], ..topology() }
}

fn open_with(path: &Path, length: u64, expires: Duration) -> SqliteBroker {
    SqliteBroker::open(path, SqliteOptions::new().prototypes(length, expires)).unwrap()
}

async fn publish(broker: &SqliteBroker, count: usize) -> Vec<Outgoing> {
    let events: Vec<_> = (0..count).map(|_| event(EVENT)).collect();
    for outcome in broker.publish(events.clone()).await {
        assert_eq!(outcome, Published::Confirmed { queues: 1 });
    }
    events
}

async fn kept(broker: &SqliteBroker) -> Vec<ponos_core::envelope::Envelope> {
    let query = Inspect::Messages { queue: queue(HEARD), limit: 10_000, after: None };
    broker.inspect(query).await.unwrap().into_messages()
}

#[tokio::test]
async fn the_oldest_messages_that_are_ready_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open_with(&dir.path().join("ponos.db"), 5, WEEK);
    broker.declare(&prototype()).await.unwrap();
    let first = publish(&broker, 2).await;
    // What somebody works on is not dropped under the hands.
    let mut jobs = subscribe(&broker, HEARD, 2).await;
    let held = take(&mut jobs, 2).await;
    let mut later = publish(&broker, 3).await;
    later.extend(publish(&broker, 6).await);
    assert_eq!(stats(&broker, HEARD).await.ready, 5);
    assert_eq!(broker.stats().dropped, 4);
    let ids: Vec<_> = kept(&broker).await.into_iter().map(|envelope| envelope.id).collect();
    let wanted = first.iter().chain(&later[4..]).map(|message| message.envelope.id);
    assert_eq!(ids, wanted.collect::<Vec<_>>());
    for delivery in &held {
        done(&broker, delivery).await;
    }
    // Tasks are never dropped, nor are those of an ordinary reaction.
    broker.publish(tasks(20)).await;
    assert_eq!(stats(&broker, TASK).await.ready, 20);
    drop(jobs);
    broker.declare(&topology()).await.unwrap();
    publish(&broker, 10).await;
    let now = stats(&broker, HEARD).await;
    assert_eq!((now.messages() >= 10, broker.stats().dropped), (true, 4));
}

#[tokio::test]
async fn a_large_bound_is_kept_with_a_hundredth_made_free_at_once_whoever_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let one = open_with(&file, 1_000, WEEK);
    let other = open_with(&file, 1_000, WEEK);
    one.declare(&prototype()).await.unwrap();
    for _ in 0..30 {
        publish(&one, 50).await;
        publish(&other, 50).await;
        assert!(stats(&one, HEARD).await.ready <= 1_010);
    }
    let ready = stats(&one, HEARD).await.ready;
    assert!((980..=1_010).contains(&ready), "{ready}");
    assert_eq!(one.stats().dropped + other.stats().dropped, 3_000 - ready);
}

#[tokio::test]
async fn a_prototype_without_a_consumer_is_gone_after_its_time_and_its_neighbours_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let broker = open_with(&file, 100_000, Duration::from_secs(1));
    broker.declare(&prototype()).await.unwrap();
    let jobs = subscribe(&broker, HEARD, 1).await;
    let other = open_with(&file, 100_000, WEEK);
    publish(&other, 10).await;
    broker.publish(tasks(3)).await;
    let there = async || {
        let queues = broker.inspect(Inspect::Queues(None)).await.unwrap().into_queues();
        queues.iter().any(|stats| stats.queue == queue(HEARD))
    };
    // While somebody listens it stays, whatever lies in it.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2_500) {
        assert!(there().await);
        tokio::task::yield_now().await;
    }
    drop(jobs);
    let deadline = Instant::now() + Duration::from_secs(20);
    while there().await {
        assert!(Instant::now() < deadline, "it is still there");
        tokio::task::yield_now().await;
    }
    assert_eq!(broker.stats().dropped, 10);
    assert_eq!(other.publish(vec![event(EVENT)]).await, [Published::Confirmed { queues: 0 }], "others know");
    assert_eq!(stats(&broker, TASK).await.ready, 3);
    // The service comes back.
    broker.declare(&prototype()).await.unwrap();
    publish(&other, 1).await;
    let mut jobs = subscribe(&broker, HEARD, 1).await;
    assert_eq!(take(&mut jobs, 1).await.len(), 1);
}

#[tokio::test]
async fn only_a_subscription_can_be_a_prototype() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(&dir.path().join("ponos.db"));
    let wrong = Topology { prototypes: vec![queue(TASK)], ..topology() };
    let error = broker.declare(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Invalid);
    assert!(error.to_string().contains(TASK), "{error}");
    let failed = QueueName::failed(&queue(TASK).app());
    assert!(broker.declare(&Topology { prototypes: vec![failed], ..topology() }).await.is_err());
}
