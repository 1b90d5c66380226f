//! `ponos serve` as a program of its own, with a service of the library at work on the same file.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod document;
mod hostile;
mod operations;
#[path = "../retries/mod.rs"]
mod retries;
mod routes;
mod server;
mod start;
