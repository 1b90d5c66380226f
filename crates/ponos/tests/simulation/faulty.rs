//! The faulty broker alone: what dies, comes again, and is refused.

use std::future::poll_fn;
use std::sync::Arc;

use ponos::MemoryBroker;
use ponos::core::Bytes;
use ponos::core::broker::{
    Broker as _, Delivery, Destination, Outgoing, SettleError, Settlement, SubscribeOptions, Subscription,
    Topology, Verdict,
};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{QueueName, TaskName};
use ponos::testing::{Fault, Faults, FaultyBroker};

fn queue() -> QueueName {
    QueueName::parse("unit.work.do").unwrap()
}

async fn stand(faults: Faults) -> FaultyBroker {
    let broker = FaultyBroker::around(Arc::new(MemoryBroker::new()), faults);
    let topology = Topology { tasks: vec![queue()], ..Topology::default() };
    broker.inner().declare(&topology).await.unwrap();
    broker
}

fn message() -> Outgoing {
    let at = Timestamp::from_millis(1_767_225_600_000);
    let envelope = Envelope {
        id: MessageId::new(at, [7; 10]),
        name: MessageName::Task(TaskName::parse("unit.work.do").unwrap()),
        tid: Tid::new(at, [1; 10]),
        cause: None,
        app: None,
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: Bytes::from_static(b"{}"),
    };
    Outgoing { to: Destination::Queue(queue()), envelope }
}

async fn open(process: &FaultyBroker) -> Box<dyn Subscription> {
    process.subscribe(&queue(), SubscribeOptions::prefetch(5)).await.unwrap()
}

async fn next(subscription: &mut dyn Subscription) -> Delivery {
    let mut out = Vec::new();
    poll_fn(|cx| subscription.poll_next(cx, 1, &mut out)).await.unwrap();
    out.remove(0)
}

#[tokio::test]
async fn what_a_dead_process_held_comes_again_and_is_counted_as_lost() {
    let broker = stand(Faults::none(1)).await;
    assert!(broker.publish(vec![message()]).await[0].is_confirmed());
    let (first, second) = (broker.process("first"), broker.process("second"));
    let mut held_by_first = open(&first).await;
    let held = next(&mut *held_by_first).await;
    first.crash();
    first.crashed().await;
    let mut held_by_second = open(&second).await;
    let again = next(&mut *held_by_second).await;
    assert_eq!((held.losses, again.losses), (0, 1));
    // Who is dead gets no answer, and its settlement does not arrive.
    let settling = first.settle(&held, Settlement::just(Verdict::Done));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(50), settling).await.is_err());
    second.settle(&again, Settlement::just(Verdict::Done)).await.unwrap();
}

#[tokio::test]
async fn a_delivery_whose_connection_broke_cannot_be_settled() {
    for faults in [Faults::none(1), Faults::none(1).without_transactions()] {
        let broker = stand(faults.rate(Fault::SettleLost, 1000)).await;
        broker.publish(vec![message()]).await;
        let mut subscription = open(&broker).await;
        let delivery = next(&mut *subscription).await;
        let settled = broker.settle(&delivery, Settlement::just(Verdict::Done)).await;
        assert!(matches!(settled, Err(SettleError::Lost { .. })), "{settled:?}");
        broker.heal();
        let mut subscription = open(&broker).await;
        let again = next(&mut *subscription).await;
        broker.settle(&again, Settlement::just(Verdict::Done)).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_whose_confirm_was_lost_is_there_and_one_that_was_lost_is_not() {
    for (fault, there) in [
        (Fault::ConfirmLost, 1),
        (Fault::PublishLost, 0),
        (Fault::PublishDuplicated, 2),
        (Fault::PublishRefused, 0),
    ] {
        let broker = stand(Faults::none(1).rate(fault, 1000)).await;
        broker.publish(vec![message()]).await;
        let query = ponos::core::broker::Inspect::Queue(queue());
        let stats = broker.inner().inspect(query).await.unwrap().into_queues();
        assert_eq!(stats[0].ready, there, "{fault:?}");
    }
}
