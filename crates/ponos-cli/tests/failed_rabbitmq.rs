//! `ponos failed retry` of a thousand jobs on a real RabbitMQ node, interrupted, killed and in vain.

mod retries;

use ponos_testbed::Node;

async fn place() -> String {
    tokio::task::spawn_blocking(|| Node::shared().fresh_vhost()).await.expect("a node starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_interrupted_and_continued_runs_every_job_exactly_once() {
    retries::interrupted_and_continued(&place().await, "-INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_loses_none_and_names_the_duplicates() {
    retries::killed_and_begun_anew(&place().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_are_retried_in_seconds_and_what_fails_again_is_not_resolved() {
    retries::all_at_once_in_vain(&place().await).await;
}
