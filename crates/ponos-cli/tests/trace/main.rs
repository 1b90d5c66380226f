//! `ponos trace`, `diff` and `tail` against a system of five applications at work, on either broker.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod loss;
mod place;
mod secrets;
mod snapshots;
mod story;
mod system;
