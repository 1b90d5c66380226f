//! Time that a test moves by hand.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::id::Timestamp;

use crate::broker::memory::{MemoryBroker, Rough};
use crate::clock::Clock;
use crate::clock::virtual_time::VirtualClock;

/// A clock that moves when it is told to and at no other time, for a broker in memory that is tested without services.
///
/// [`System`](super::System) has one that moves by itself.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    time: Arc<VirtualClock>,
}

impl ManualClock {
    /// A clock at the start of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty broker on this clock; with faults if some are given.
    #[must_use]
    pub fn broker(&self, rough: Option<Rough>) -> MemoryBroker {
        MemoryBroker::with_clock(Clock::simulated(Arc::clone(&self.time), 0), rough)
    }

    /// Wall time.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        self.time.wall()
    }

    /// Lets `time` pass.
    pub fn advance(&self, time: Duration) {
        self.time.advance_to(self.time.now() + time);
    }
}
