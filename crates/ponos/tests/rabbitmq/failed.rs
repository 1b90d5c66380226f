//! Failed jobs: looking at them changes nothing, however often.

use std::collections::BTreeSet;

use ponos::core::envelope::Recovery;
use ponos::core::id::MessageId;
use ponos::{FailedJobs, RetryFailed};
use ponos_testbed::Node;

use super::support::*;

const JOBS: u64 = 5;

#[tokio::test]
async fn a_hundred_listings_of_the_failed_jobs_change_nothing() {
    let url = Node::shared().fresh_vhost();
    let stage = Stage::with(&url, unit_with(|p| p.max_retries(0))).await;
    for n in 0..JOBS {
        // The first run fails; a retry by hand succeeds.
        stage.job(n, How::FailOnce).await;
    }
    let failed: FailedJobs = failed(&stage.broker);
    let ids = |jobs: Vec<ponos::core::envelope::Envelope>| -> BTreeSet<MessageId> {
        jobs.iter().map(|job| job.id).collect()
    };
    until("they gave up", ponos::secs(20), || (0..JOBS).all(|n| stage.did.recovered(n).is_some())).await;
    let mut first = BTreeSet::new();
    let deadline = std::time::Instant::now() + ponos::secs(10);
    while first.len() < JOBS as usize {
        assert!(std::time::Instant::now() < deadline, "{first:?}");
        first = ids(failed.list(100, None).await.unwrap());
    }
    for n in 0..100 {
        let listed = failed.list(100, None).await.unwrap();
        assert!(listed.iter().all(|job| {
            let report = job.report.as_deref().unwrap();
            report.recovery == Recovery::Done && report.gave_up.error.contains("as it was told")
        }));
        assert_eq!(ids(listed), first, "listing {n}");
    }
    for id in &first {
        assert!(matches!(failed.retry(*id).await.unwrap(), RetryFailed::Retried(_)));
    }
    until("all are heard of", ponos::secs(20), || (0..JOBS).all(|n| stage.heard.runs(n) == 1)).await;
    assert!(failed.list(100, None).await.unwrap().is_empty());
    assert!((0..JOBS).all(|n| stage.did.runs(n) == 2), "each ran once more");
    stage.end().await;
}
