//! Counters of one open file.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::shared::Figures;

/// What this process has done to the file since it opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions committed.
    pub commits: u64,
    /// Messages published and settled in them; divided by `commits` it is the mean group.
    pub operations: u64,
    /// Jobs taken back from processes that died or stood still.
    pub reclaimed: u64,
    /// Messages of prototypes that this process dropped: the queue was full, or nobody listened any more.
    pub dropped: u64,
    /// The longest that the writer waited for its turn among the processes.
    pub longest_lock_wait: Duration,
}

impl Stats {
    pub(crate) fn of(figures: &Figures) -> Self {
        Self {
            commits: figures.commits.load(Ordering::Relaxed),
            operations: figures.operations.load(Ordering::Relaxed),
            reclaimed: figures.reclaimed.load(Ordering::Relaxed),
            dropped: figures.dropped.load(Ordering::Relaxed),
            longest_lock_wait: figures.lock_waits.longest(),
        }
    }
}
