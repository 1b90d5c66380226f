//! A relay between service and broker that cuts, holds back, delays and resets: consumers are back without help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ponos::core::broker::Broker as _;
use ponos::prelude::*;
use ponos_testbed::{Node, Relay};

use super::support::*;

/// Two heartbeats and five seconds.
const BACK: Duration = Duration::from_secs(2 * 2 + 5);

const PREFETCH: u32 = 5;

struct Through {
    relay: Relay,
    stage: Stage,
    direct: String,
}

/// Both services behind a relay, with a slow job at work and more of them in the queue.
async fn through() -> Through {
    let direct = Node::shared().fresh_vhost();
    let relay = Relay::to(Node::shared().amqp_port());
    let url = format!("{}?heartbeat=2", relay.url(&direct));
    let service = unit_with(|p| p.concurrency(2).prefetch(PREFETCH));
    let stage = Stage::with(&url, service).await;
    stage.works(1).await;
    for n in 100..120 {
        stage.job(n, How::Take(200)).await;
    }
    until("a job runs", secs(10), || stage.did.running() > 0).await;
    Through { relay, stage, direct }
}

impl Through {
    /// Everything is as before: consumers are back in time, nothing is lost, the prefetch holds.
    async fn comes_back(self, since: Instant, what: &str) {
        let Self { stage, direct, .. } = &self;
        let node = Node::shared();
        // Who publishes is back when it can publish; the consumers when all is done.
        let before = stage.did.jobs();
        stage.job(3, How::Emit).await;
        until("a consumer is back", BACK.saturating_sub(since.elapsed()), || stage.did.jobs() > before).await;
        println!("{what}: consumers were back after {:?}", since.elapsed());
        let mut most = 0;
        let deadline = Instant::now() + secs(30);
        while !(100..120).all(|n| stage.heard.runs(n) > 0) {
            assert!(Instant::now() < deadline, "{what}: not all jobs were heard of");
            let (_, queue) = node.http("GET", &format!("/api/queues/{}/unit.job.do", vhost(direct)), None);
            let queue: serde_json::Value = serde_json::from_str(&queue).unwrap();
            most = most.max(queue["messages_unacknowledged"].as_u64().unwrap_or(0));
            tokio::time::sleep(millis(50)).await;
        }
        assert!(most <= u64::from(PREFETCH), "{what}: {most} were held at once, the prefetch is {PREFETCH}");
        assert!(stage.did.most() <= 2 + 2, "no more than the concurrency, before and after");
        stage.works(2).await;
        let again: u32 = (100..120).map(|n| stage.did.runs(n) - 1).sum();
        println!("{what}: {again} of 20 jobs ran again");
        assert!((100..120).all(|n| stage.did.recovered(n).is_none()), "no attempt was spent");
        let log = node.log_tail();
        assert!(!log.contains("unknown delivery tag"), "an old delivery was acknowledged: {log}");
        self.stage.end().await;
    }
}

#[tokio::test]
async fn a_cut_connection() {
    let through = through().await;
    let since = Instant::now();
    through.relay.cut();
    through.comes_back(since, "cut").await;
}

/// As RabbitMQ 3.10.8 does it with who reads a stream that somebody else is just declaring: instances that start at the
/// same moment.
#[tokio::test]
async fn a_connection_that_is_cut_while_its_service_starts() {
    let node = Node::shared();
    let direct = node.fresh_vhost();
    let relay = Relay::to(node.amqp_port());
    let broker = broker(&relay.url(&direct)).await;
    // So that many declarations are still to come when the first one is seen.
    relay.delay(millis(30));
    let starts = tokio::spawn(unit().start(Arc::new(Seen::default()), Arc::clone(&broker)));
    let exchange = format!("/api/exchanges/{}/job.done", vhost(&direct));
    until("a part is declared", secs(20), || node.http("GET", &exchange, None).0 == 200).await;
    assert!(!starts.is_finished());
    relay.cut();
    relay.heal();
    let running = starts.await.unwrap().unwrap();
    assert!(broker.stats().reconnects > 0);
    running.shutdown().await;
    broker.close().await.unwrap();
}

#[tokio::test]
async fn a_reset_connection() {
    let through = through().await;
    let since = Instant::now();
    through.relay.reset();
    through.comes_back(since, "reset").await;
}

#[tokio::test]
async fn packets_that_vanish() {
    let through = through().await;
    through.relay.half_open(true);
    // Until both services have noticed by themselves.
    let stats = || (through.stage.broker.is_connected(), through.stage.ear_broker.is_connected());
    let since = Instant::now();
    until("it is noticed", BACK, || stats() == (false, false)).await;
    println!("half-open: noticed after {:?}", since.elapsed());
    let since = Instant::now();
    through.relay.heal();
    through.comes_back(since, "half-open, from when packets pass again").await;
}

#[tokio::test]
async fn latency_of_half_a_second() {
    let through = through().await;
    through.relay.delay(millis(500));
    let before = through.stage.did.jobs();
    until("jobs go on", BACK, || through.stage.did.jobs() > before).await;
    assert_eq!(through.stage.broker.stats().reconnects, 0, "slow is not gone");
    through.stage.works_within(4, secs(30)).await;
    through.relay.heal();
    through.comes_back(Instant::now(), "latency").await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_for_a_while() {
    let through = through().await;
    through.relay.refuse(true);
    through.relay.cut();
    until("it is noticed", secs(5), || !through.stage.broker.is_connected()).await;
    let publisher = through.stage.unit.publisher();
    let waiting = tokio::spawn(async move { publisher.create(JobDo { n: 500, how: How::Emit }).await });
    tokio::time::sleep(secs(2)).await;
    assert!(!waiting.is_finished(), "who publishes waits");
    let since = Instant::now();
    through.relay.refuse(false);
    waiting.await.unwrap().unwrap();
    let heard = Arc::clone(&through.stage.heard);
    through.comes_back(since, "refused").await;
    assert!(heard.runs(500) > 0, "what was published meanwhile was done");
}
