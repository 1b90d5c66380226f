//! The ledger: what was asked for, what ran, what was done to the processes, in the order in which a process of its own
//! appended it. The checker reads nothing else.
//!
//! Everybody writes through a Unix socket: what a process has handed to the kernel arrives, also if the process is
//! killed at the next moment, and it is no part of the broker that is tried. Times are the machine's monotonic clock,
//! which all processes share and which no jump of the wall clock moves.

mod book;
mod record;
mod tail;
mod writer;

pub(crate) use book::{Book, Fault, Job, Run};
#[cfg(test)]
pub(crate) use record::Record;
pub(crate) use record::{Answer, Call, Ending, Entry, Micros, Scope, Step, now};
pub(crate) use tail::Tail;
pub(crate) use writer::Ledger;

use std::path::{Path, PathBuf};

/// Where the ledger of a run is.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("ledger")
}

/// Where its process listens.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join("ledger.sock")
}
