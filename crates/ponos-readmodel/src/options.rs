//! How much is kept, and for how long.

use std::time::{Duration, SystemTime};

use ponos_core::id::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);

/// How a read model keeps what it read.
#[derive(Debug, Clone)]
pub struct ReadModelOptions {
    pub(crate) raw_for: Duration,
    pub(crate) raw_bytes: u64,
    pub(crate) rollups_for: Duration,
    pub(crate) clock: fn() -> Timestamp,
}

impl Default for ReadModelOptions {
    fn default() -> Self {
        Self {
            raw_for: 72 * HOUR,
            raw_bytes: 2 << 30,
            rollups_for: 90 * 24 * HOUR,
            clock: || Timestamp::from(SystemTime::now()),
        }
    }
}

impl ReadModelOptions {
    /// 72 hours or 2 GiB of entries, and figures by the hour for 90 days.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long entries are kept; they go by segments of six hours.
    #[must_use]
    pub fn raw_for(mut self, time: Duration) -> Self {
        self.raw_for = time;
        self
    }

    /// How many bytes all segments may have together; the oldest go first, the current one never.
    #[must_use]
    pub fn raw_bytes(mut self, bytes: u64) -> Self {
        self.raw_bytes = bytes;
        self
    }

    /// How long figures, gaps and instances that have ended are kept.
    #[must_use]
    pub fn rollups_for(mut self, time: Duration) -> Self {
        self.rollups_for = time;
        self
    }

    /// What time it is, for tests: the system's clock otherwise.
    #[must_use]
    pub fn clock(mut self, clock: fn() -> Timestamp) -> Self {
        self.clock = clock;
        self
    }
}
