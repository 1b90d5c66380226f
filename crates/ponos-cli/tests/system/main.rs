//! What the command line knows of a system from manifests alone: the real program on files.

#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for something else")]

mod asyncapi;
mod check;
mod explain;
mod map;
mod set;
