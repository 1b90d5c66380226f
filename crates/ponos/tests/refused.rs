//! What a handler publishes and the broker refuses for good: the job gives up, and its recovery function runs.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use ponos::core::broker::{
    BoxFuture, Broker as BrokerTrait, BrokerError, BrokerErrorKind, Delivery, Inspect, Inspection, Order,
    Outgoing, Published, SettleError, Settlement, SubscribeOptions, Subscription, Topology,
};
use ponos::core::envelope::{Envelope, Recovery};
use ponos::core::name::{AppName, QueueName};
use ponos::prelude::*;
use ponos::{FailedJobs, MemoryBroker};

#[event("piece.made")]
pub struct PieceMade {}

#[app("refused", state = Arc<AtomicU32>)]
pub struct Refused;

#[task("refused.piece.make", app = Refused, emits(PieceMade))]
pub struct PieceMake {}

async fn make(_: PieceMake, cx: TaskCx<PieceMake>) -> Outcome {
    cx.emit(PieceMade {})?;
    Ok(())
}

async fn recover(_: PieceMake, cx: TaskCx<PieceMake>, why: GaveUp) -> Outcome {
    assert!(why.error.contains("`piece.made` cannot be published: never"), "{}", why.error);
    cx.state().fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// A broker that never takes an effect.
#[derive(Debug)]
struct Never(MemoryBroker);

impl BrokerTrait for Never {
    fn name(&self) -> &str {
        "never"
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.0.declare(topology)
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        self.0.publish(batch)
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        self.0.subscribe(queue, options)
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        if settlement.send.is_empty() {
            return self.0.settle(delivery, settlement);
        }
        let refused = Published::Refused(BrokerError::new(BrokerErrorKind::Invalid, "never"));
        Box::pin(std::future::ready(Err(SettleError::NotSent(vec![refused; settlement.send.len()]))))
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        self.0.inspect(query)
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.0.steer(order)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        self.0.close()
    }
}

/// Runs one job whose effect is refused, and gives it as it was kept, with the number of recoveries.
async fn refuse(service: Service<Refused>) -> (Envelope, u32) {
    let recovered = Arc::new(AtomicU32::new(0));
    let broker: Arc<dyn BrokerTrait> = Arc::new(Never(MemoryBroker::new()));
    let running = service.start(Arc::clone(&recovered), Arc::clone(&broker)).await.unwrap();
    running.publisher().create(PieceMake {}).await.unwrap();
    let failed = FailedJobs::new(broker, AppName::parse("refused").unwrap());
    let deadline = Instant::now() + secs(20);
    let kept = loop {
        if let Some(kept) = failed.list(1, None).await.unwrap().pop() {
            break kept;
        }
        assert!(Instant::now() < deadline, "the job is not among the failed ones");
        tokio::time::sleep(millis(5)).await;
    };
    running.shutdown().await;
    (kept, recovered.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_effect_that_is_refused_for_good_sends_the_job_to_its_recovery_function() {
    let (kept, recovered) = refuse(Service::new().task(make, |p| p.recover(recover))).await;
    assert_eq!((kept.report.unwrap().recovery, recovered), (Recovery::Done, 1));
}

#[tokio::test]
async fn without_a_recovery_function_the_job_fails_and_says_what_was_refused() {
    let (kept, _) = refuse(Service::new().task(make, |p| p)).await;
    let report = kept.report.unwrap();
    assert!(report.gave_up.error.contains("cannot be published: never"), "{}", report.gave_up.error);
    assert_eq!(report.recovery, Recovery::None);
}
