//! Faults: what a scenario does to the system from outside. Each is written to the ledger before it begins and when it
//! is over, with whom it can have touched; the checker explains nothing by a fault that is not there.
//!
//! A fault is a function on [`System`](crate::system::System); one file per kind of victim. Faults below a process, of its disk and
//! its clock, are made by a [`Shim`] before its C library.

pub(crate) mod alarm;
pub(crate) mod cluster;
mod disk;
pub(crate) mod network;
pub(crate) mod node;
mod process;
mod shim;
mod trace;

pub(crate) use disk::{Disk, Image, Syncs};
pub(crate) use process::{kill, pause};
pub(crate) use shim::Shim;
pub(crate) use trace::Trace;
