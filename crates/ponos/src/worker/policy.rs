//! How a queue is worked, with every default filled in.

use std::time::Duration;

use ponos_core::manifest::PolicyManifest;
use ponos_core::policy::{BreakerConfig, Rate, RetryPolicy};

/// How many bytes of bodies one queue's worker holds before it takes no more, whatever its prefetch: 16 MiB.
pub(crate) const MAX_HELD_BYTES: usize = 16 << 20;

/// How many attempts a recovery function has.
pub(crate) const RECOVERY_ATTEMPTS: u32 = 5;

/// How many starts at most wait for a rate limit's token in a worker: this long at the full rate.
pub(crate) const TOKEN_WAIT: Duration = Duration::from_secs(30);

/// A queue's options with every default filled in.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) concurrency: u32,
    pub(crate) prefetch: u32,
    pub(crate) rate: Option<Rate>,
    pub(crate) dedup: bool,
    /// `None` for no limit.
    pub(crate) timeout: Option<Duration>,
    pub(crate) recovery_timeout: Duration,
    /// `None` for reactions, which are not retried.
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) breaker: Option<BreakerConfig>,
    pub(crate) depends_on: Option<String>,
    pub(crate) blocking: bool,
}

impl Resolved {
    /// How many jobs the worker holds: under this rate limit no more than could start soon.
    pub(crate) fn held(&self, rate: Option<Rate>) -> u32 {
        rate.map_or(self.prefetch, |rate| {
            let soon = u32::try_from(rate.starts_within(TOKEN_WAIT)).unwrap_or(u32::MAX);
            self.prefetch.min(soon.max(self.concurrency))
        })
    }

    pub(crate) fn manifest(&self) -> PolicyManifest {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        PolicyManifest {
            concurrency: self.concurrency,
            prefetch: self.prefetch,
            timeout_ms: self.timeout.map(millis),
            retry: self.retry.map(Into::into),
            rate_limit: self.rate.map(Into::into),
            breaker: self.breaker.map(Into::into),
            depends_on: self.depends_on.clone(),
        }
    }
}
