//! Ponos on real RabbitMQ nodes, which `ponos-testbed` starts and ends.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(unreachable_pub, reason = "modules of a test binary")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures of a run")]

#[path = "../another_process/mod.rs"]
mod another_process;
#[allow(dead_code, reason = "the tables are also those of another test binary")]
#[path = "bad_input.rs"]
mod bad_input;
#[path = "breaker.rs"]
mod breaker;
#[path = "confirms.rs"]
mod confirms;
#[path = "conformance.rs"]
mod conformance;
#[path = "delays.rs"]
mod delays;
#[path = "errors.rs"]
mod errors;
#[path = "failed.rs"]
mod failed;
#[path = "limits.rs"]
mod limits;
#[path = "messages.rs"]
mod messages;
#[path = "metrics.rs"]
mod metrics;
#[path = "mixed_fleet.rs"]
mod mixed_fleet;
#[path = "model.rs"]
mod model;
#[path = "orders.rs"]
mod orders;
#[path = "peer.rs"]
mod peer;
#[path = "poison.rs"]
mod poison;
#[path = "prototype.rs"]
mod prototype;
#[path = "raw_client.rs"]
mod raw_client;
#[path = "relay.rs"]
mod relay;
#[path = "spike.rs"]
mod spike;
#[path = "support.rs"]
mod support;

/// A figure that the long forms set by a variable; `scripts/torture` has them.
fn figure(variable: &str, short: u32) -> u32 {
    std::env::var(variable).ok().and_then(|figure| figure.parse().ok()).unwrap_or(short)
}
