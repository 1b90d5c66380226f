//! Standing orders on RabbitMQ: known to instances that start later, and kept by all together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ponos::RabbitBroker;
use ponos::core::broker::{Broker as _, Dependency, Inspect, Order, OrderAction, OrderTarget};
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos_testbed::Node;

use super::support::*;

fn jobs() -> QueueName {
    QueueName::parse("unit.job.do").unwrap()
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

async fn order(
    broker: &RabbitBroker,
    target: impl Into<OrderTarget>,
    action: OrderAction,
    time: Option<Duration>,
) {
    let (at, until) = (now(), time.map(|time| now() + time));
    let order =
        Order { target: target.into(), action, by: "test".into(), reason: "to see".into(), at, until };
    broker.steer(order).await.unwrap();
}

/// Ready, and how many consume it.
async fn stats(broker: &RabbitBroker) -> (u64, u32) {
    let found = broker.inspect(Inspect::Queue(jobs())).await.unwrap().into_queues();
    (found[0].ready, found[0].consumers)
}

async fn until_stats(what: &str, broker: &RabbitBroker, wanted: (u64, u32)) {
    let deadline = Instant::now() + secs(15);
    loop {
        let found = stats(broker).await;
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {found:?}, not {wanted:?}");
        tokio::time::sleep(millis(20)).await;
    }
}

#[tokio::test]
async fn an_instance_started_during_a_pause_does_not_consume() {
    let url = Node::shared().fresh_vhost();
    let stage = Stage::new(&url).await;
    order(&stage.broker, jobs(), OrderAction::Pause, None).await;
    until_stats("the one that runs stops", &stage.broker, (0, 0)).await;
    for n in 0..5 {
        stage.job(n, How::Emit).await;
    }
    let (late, late_broker) = (Arc::new(Seen::default()), broker(&url).await);
    let running = unit().start(Arc::clone(&late), Arc::clone(&late_broker)).await.unwrap();
    // The other queue of the new instance is worked, so it is at work; and no consumer is there at any time.
    let from = Instant::now();
    let other = QueueName::parse("unit.other.do").unwrap();
    loop {
        let found = late_broker.inspect(Inspect::Queue(other.clone())).await.unwrap().into_queues();
        assert_eq!(stats(&stage.broker).await, (5, 0), "it keeps the pause from its start");
        if found[0].consumers == 2 && from.elapsed() > secs(3) {
            break;
        }
        assert!(from.elapsed() < secs(20), "the new instance works");
        tokio::time::sleep(millis(20)).await;
    }
    assert_eq!(late.jobs() + stage.did.jobs(), 0);
    order(&late_broker, jobs(), OrderAction::Resume, None).await;
    until("both work", secs(15), || late.jobs() + stage.did.jobs() == 5).await;
    running.shutdown().await;
    late_broker.close().await.unwrap();
    stage.end().await;
}

#[tokio::test]
async fn an_ordered_rate_and_a_circuit_held_open_are_kept_by_two_instances_until_they_end() {
    let url = Node::shared().fresh_vhost();
    let service = || unit_with(|p| p.depends_on("smtp").prefetch(4));
    let stage = Stage::with(&url, service()).await;
    let smtp = || Dependency { app: AppName::parse("unit").unwrap(), name: "smtp".into() };
    order(&stage.broker, OrderTarget::Dependency(smtp()), OrderAction::CircuitOpen, None).await;
    until_stats("the circuit is open", &stage.broker, (0, 0)).await;
    order(&stage.broker, jobs(), OrderAction::Rate(10.per_second().burst(1)), Some(secs(600))).await;
    let (also, other_broker) = (Arc::new(Seen::default()), broker(&url).await);
    let other = service().start(Arc::clone(&also), Arc::clone(&other_broker)).await.unwrap();
    for n in 0..160 {
        stage.job(n, How::Emit).await;
    }
    until_stats("nobody consumes", &stage.broker, (160, 0)).await;
    order(&stage.broker, OrderTarget::Dependency(smtp()), OrderAction::CircuitResume, None).await;
    let done = || (stage.did.jobs() + also.jobs()) as f64;
    until("both work", secs(20), || stage.did.jobs() > 0 && also.jobs() > 0).await;
    let (from, began) = (done(), Instant::now());
    until("half is done", secs(30), || done() >= from + 25.0).await;
    let rate = (done() - from) / began.elapsed().as_secs_f64();
    println!("{rate:.1} jobs a second under a limit of 10");
    assert!(rate < 14.0, "{rate} a second");
    order(&stage.broker, jobs(), OrderAction::RateReset, None).await;
    until("all is done", secs(8), || done() >= 160.0).await;
    other.shutdown().await;
    other_broker.close().await.unwrap();
    stage.end().await;
}
