//! The policies every handler gets, as pure state machines.
//!
//! Nothing here does I/O, reads a clock, draws a random number or waits. Time comes in as a [`Moment`], chance as a
//! `roll` (64 random bits), and what to do about it goes out as a value: a delay, a decision, a transition. So one
//! owner (the worker's subscription) can drive them against the real clock, tests can drive them against a virtual
//! one, and property tests by the million.
//!
//! | policy | type | the question it answers |
//! | --- | --- | --- |
//! | backoff | [`Backoff`] | how long until the next attempt? |
//! | retry | [`RetryPolicy`] | is there a next attempt, and if not, why? |
//! | circuit breaker | [`Breaker`] | is the dependency healthy enough to listen to the queue? |
//! | rate limit | [`Gcra`], of a [`Rate`] | may a job start now, and if not, when? |
//! | deduplication | [`DedupWindow`] | was this message done already? |
//!
//! What a user configures ([`RetryPolicy`], [`BreakerConfig`], [`Rate`]) is checked once, by its `validate`, when the
//! service is built. The machines accept an unchecked configuration too: it may then behave oddly, but it never
//! panics.
//!
//! ```
//! use ponos_core::policy::{Backoff, FailureClass, RetryDecision, RetryPolicy};
//! use std::time::Duration;
//!
//! let policy = RetryPolicy {
//!     backoff: Backoff::exponential(Duration::from_secs(1)).jitter(0.0),
//!     ..RetryPolicy::default()
//! };
//! policy.validate()?;
//! let age = Duration::from_secs(3);
//! assert_eq!(
//!     policy.decide(FailureClass::Timeout, 2, age, 0),
//!     RetryDecision::Retry { delay: Duration::from_secs(2), next_attempt: 3 },
//! );
//! # Ok::<(), ponos_core::policy::PolicyError>(())
//! ```

mod backoff;
mod breaker;
mod dedup;
mod error;
mod jitter;
mod moment;
mod rate;
mod retry;

pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerConfig, BreakerState, Outcome, Permit, Transition, TripCause};
pub use dedup::DedupWindow;
pub use error::{PolicyError, PolicyErrorKind};
pub use moment::Moment;
pub use rate::{Gcra, Rate, RateExt};
pub use retry::{FailureClass, MaxRetries, RetryDecision, RetryPolicy};

/// How long a chain of messages may become, unless a service says otherwise: beyond it is a loop.
pub const DEFAULT_HOP_LIMIT: u32 = 64;
