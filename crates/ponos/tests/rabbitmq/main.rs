//! Ponos on real RabbitMQ nodes, which `ponos-testbed` starts and ends.
#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(unreachable_pub, reason = "modules of a test binary")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "the figures of a run")]

#[path = "../another_process/mod.rs"]
mod another_process;
#[path = "breaker.rs"]
mod breaker;
#[path = "conformance.rs"]
mod conformance;
#[path = "errors.rs"]
mod errors;
#[path = "mixed_fleet.rs"]
mod mixed_fleet;
#[path = "peer.rs"]
mod peer;
#[path = "poison.rs"]
mod poison;
#[path = "prototype.rs"]
mod prototype;
#[path = "relay.rs"]
mod relay;
#[path = "support.rs"]
mod support;
