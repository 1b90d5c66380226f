//! `ponos explain`, `map --live` and `failed retry --when-circuit-closed` against a system at work, on either broker.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod circuits;
mod explain;
mod map;
#[allow(dead_code, reason = "shared with the tests of `ponos trace`")]
#[path = "../trace/place.rs"]
mod place;
mod stranger;
#[allow(dead_code, reason = "shared with the tests of `ponos trace`")]
#[path = "../trace/system.rs"]
mod system;
mod traffic;
