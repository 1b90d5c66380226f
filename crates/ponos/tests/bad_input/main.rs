//! Bad input, all of it, each with what becomes of it: `docs/bad-input.md` is written from these tables.
//!
//! What others send goes through the broker in memory and the embedded one here, and through a real RabbitMQ in
//! `tests/rabbitmq/bad_input.rs`, which shares the tables: [`bodies`], [`headers`], [`properties`] and [`publishing`]. A
//! case of a table is a row of the document; [`references`] names the tests elsewhere that show a row, and [`document`]
//! holds that no number is missing, that every named test is there, and that the document says the same.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(unreachable_pub, dead_code, reason = "modules of two test binaries")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests; what is skipped is said")]

mod bodies;
mod connecting;
mod document;
mod effects;
mod files;
mod fuzz;
mod handlers;
mod headers;
mod names;
mod options;
mod place;
mod properties;
mod publishing;
mod references;
mod row;
#[path = "../support/mod.rs"]
mod support;

use place::places;

#[tokio::test]
async fn what_no_handler_can_read_fails_and_is_kept() {
    for place in places().await {
        row::work(&place, &bodies::cases()).await;
    }
}

#[tokio::test]
async fn a_body_over_the_limit_fails_unread_and_can_be_put_away() {
    let [memory, sqlite] = places().await;
    for case in bodies::large() {
        let error = memory.hand.put(&case.message).await.expect_err("nobody is foreign in memory");
        assert!(error.contains("the limit is 1048576"), "{error}");
    }
    row::work(&sqlite, &bodies::large()).await;
    row::put_away(&sqlite).await;
}

#[tokio::test]
async fn forged_headers_are_not_believed_and_harm_nobody() {
    for place in places().await {
        row::work(&place, &headers::cases()).await;
    }
}

#[tokio::test]
async fn odd_properties_are_replaced_and_the_job_runs() {
    for place in places().await {
        row::work(&place, &properties::cases()).await;
        row::work(&place, &bodies::labels()).await;
    }
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_and_nothing_is_sent() {
    for place in places().await {
        publishing::refuses(&place).await;
    }
}

#[tokio::test]
async fn an_id_that_is_used_twice_loses_nothing() {
    for place in places().await {
        publishing::ids_used_twice(&place).await;
    }
}

#[tokio::test]
async fn progress_at_the_end_of_its_range_overflows_nothing() {
    for place in places().await {
        publishing::progress_at_its_end(&place).await;
    }
}

/// Somebody writes over a message's head with what is no head at all.
#[tokio::test]
async fn a_head_that_is_none_costs_nothing_but_what_it_said() {
    let [_, sqlite] = places().await;
    let heads: [&[u8]; 5] = [
        b"\xff\xfe\x00 x-ponos-attempt: 7",
        br#"{"p":{"id":"#,
        br#"{"p":{"id":7,"corr":[],"type":{},"app":1,"ts":"x"},"h":{}}"#,
        br#"{"p":{},"h":["x-ponos-attempt"]}"#,
        &b"[".repeat(10_000),
    ];
    place::with_heads(&sqlite, &heads).await;
}
