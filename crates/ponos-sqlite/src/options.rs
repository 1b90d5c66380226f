//! How a file is opened.

use std::time::Duration;

use crate::prototype::Limits;

/// How many records the journal keeps unless told otherwise.
pub const DEFAULT_JOURNAL_RECORDS: u64 = 200_000;

/// What a confirmed message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// Everything that the disk survives: each commit waits for the disk (`synchronous=FULL`).
    #[default]
    Full,
    /// The death of any process, but a power cut or a crash of the operating system may take back the last commits
    /// (`synchronous=NORMAL`; the file itself stays sound).
    PowerCutMayLoseLatest,
}

/// How to open a file; the default is right for services.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub(crate) durability: Durability,
    pub(crate) journal: Option<u64>,
    pub(crate) lease: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) prototypes: Limits,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            journal: Some(DEFAULT_JOURNAL_RECORDS),
            lease: Duration::from_secs(60),
            heartbeat: Duration::from_secs(5),
            prototypes: Limits::default(),
        }
    }
}

impl SqliteOptions {
    /// The default: full durability, a journal of [`DEFAULT_JOURNAL_RECORDS`], leases of 60 s, a heartbeat of 5 s.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a confirmed message survives.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How many records the journal keeps, over all processes, at least 1; `None` switches the journal off.
    #[must_use]
    pub const fn journal(mut self, records: Option<u64>) -> Self {
        self.journal = records;
        self
    }

    /// How long *another* process may stand still before this one hands its jobs to others; at least 100 ms.
    ///
    /// It is measured on this process's monotonic clock from the last sign of life, so neither a jump of the wall
    /// clock nor a sleeping machine takes jobs from anybody.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// How often this process gives a sign of life, at least every 10 ms; well below the lease of the others.
    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat.max(Duration::from_millis(10));
        self
    }

    /// How many messages a prototype keeps, and for how long it is kept without a consumer, instead of 100,000 and 7 days:
    /// for tests of what happens when one is forgotten. The values of the process that publishes and looks count.
    #[must_use]
    pub fn prototypes(mut self, messages: u64, expires: Duration) -> Self {
        self.prototypes = Limits { length: messages.max(1), expires };
        self
    }
}
