//! Faults: what a scenario does to the system from outside. Each is written to the ledger before it begins and when it
//! is over, with whom it can have touched; the checker explains nothing by a fault that is not there.
//!
//! A fault is a function on [`System`](crate::system::System); one file per kind of victim.

pub(crate) mod alarm;
pub(crate) mod cluster;
pub(crate) mod network;
pub(crate) mod node;
mod process;

pub(crate) use process::{kill, pause};
