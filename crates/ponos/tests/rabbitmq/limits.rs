//! A rate limit that instances on RabbitMQ share without asking each other.

use std::sync::Arc;
use std::time::Instant;

use ponos::core::broker::Broker as _;
use ponos::prelude::*;
use ponos_testbed::Node;

use super::support::*;

/// Starts a second, all instances together; as many may come at once.
const RATE: u32 = 20;
const JOBS: u64 = 160;

#[tokio::test]
async fn instances_share_a_rate_limit_by_counting_consumers() {
    let url = Node::shared().fresh_vhost();
    let limited = || unit_with(|p| p.rate_limit(RATE.per_second()));
    let stage = Stage::with(&url, limited()).await;
    let (also, other_broker) = (Arc::new(Seen::default()), broker(&url).await);
    let other = limited().start(Arc::clone(&also), Arc::clone(&other_broker)).await.unwrap();
    for n in 0..JOBS {
        stage.job(n, How::Emit).await;
    }
    // Both know of each other once each has looked; before, the first alone may have used the limit.
    until("both work", secs(20), || stage.did.jobs() > 0 && also.jobs() > 0).await;
    let done = || (stage.did.jobs() + also.jobs()) as u64;
    let (from, began) = (done(), Instant::now());
    until("all are done", secs(30), || done() == JOBS).await;
    let (took, jobs) = (began.elapsed().as_secs_f64(), JOBS - from);
    println!("{jobs} jobs in {took:.1} s: {:.0} a second, the limit is {RATE}", jobs as f64 / took);
    // A period's worth at once for each share, and the change from one instance to two.
    let fastest = (jobs as f64 - 2.0 * f64::from(RATE)) / f64::from(RATE);
    assert!(took >= fastest, "{jobs} jobs in {took:.1} s, at least {fastest:.1} s were expected");
    assert!(also.jobs() >= 20 && stage.did.jobs() >= 20, "both worked");
    other.shutdown().await;
    other_broker.close().await.unwrap();
    stage.end().await;
}
