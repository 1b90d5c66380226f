//! `ponos failed …` with the real program against a real file, with a service of the library at work on it.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod retries;

use retries::*;
use tempfile::TempDir;

fn place() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("ponos.db").display());
    (dir, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_interrupted_and_continued_runs_every_job_exactly_once() {
    let (_dir, url) = place();
    interrupted_and_continued(&url, "-INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_told_to_end_stops_as_cleanly() {
    let (_dir, url) = place();
    interrupted_and_continued(&url, "-TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_killed_loses_none_and_names_the_duplicates() {
    let (_dir, url) = place();
    killed_and_begun_anew(&url).await;
}
