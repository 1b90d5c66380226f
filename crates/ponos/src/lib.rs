//! Event-driven microservices whose rules are compile errors.
//!
//! An **event** says what has happened (`org.payment.processed`) and never changes state. An application that cares
//! **reacts** by creating **tasks** for itself (`pheidi.email.send`), and only the application itself may do so; tasks
//! change state and may emit the events that they declare. Every task gets the same care: backoff, a retry limit with a
//! recovery function, a timeout, prefetch, rate limits, a circuit breaker that cuts off the listener until it is healthy
//! again, and a transaction id that links everything one cause set off.
//!
//! ```no_run
//! use ponos::prelude::*;
//!
//! #[event("org.payment.processed")]
//! pub struct OrgPaymentProcessed { pub org: String, pub amount_cents: u64 }
//!
//! #[event("email.sent")]
//! pub struct EmailSent { pub org: String }
//!
//! #[app("pheidi")]
//! pub struct Pheidi;
//!
//! #[task("pheidi.email.send", app = Pheidi, emits(EmailSent))]
//! pub struct EmailSend { pub org: String }
//!
//! fn thank_the_payer(e: OrgPaymentProcessed) -> EmailSend { EmailSend { org: e.org } }
//!
//! async fn send_email(t: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
//!     cx.emit(EmailSent { org: t.org })?;               // goes out only if this returns Ok
//!     Ok(())
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! Service::<Pheidi>::new()
//!     .on(thank_the_payer)
//!     .task(send_email, |p| p.timeout(secs(10)).max_retries(5))
//!     .run((), Broker::from_env()?)                     // an SQLite file unless PONOS_BROKER says otherwise
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! # Where things are
//!
//! | for | see |
//! | --- | --- |
//! | the definition of a service | [`Service`], [`TaskPolicy`], [`ReactionPolicy`] |
//! | a handler's world | [`TaskCx`], [`Outcome`], [`FailExt`], [`snooze`] |
//! | publishing from outside | [`Publisher`], [`Running::publisher`] |
//! | tests without sleeps | `testing` (feature `testing`) |
//! | which broker | [`Broker`] |
//! | rate limits that are exact over all instances | `Service::shared_limits`, `RedisLimits` (feature `redis`) |
//! | metrics and health | `Service::observe`, `metrics` (feature `metrics`) |
//! | what happened | [`trace`] |

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod broker;
mod clock;
mod context;
mod failed;
pub mod http;
mod lifecycle;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
mod outcome;
mod publisher;
mod service;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
mod worker;

pub mod prelude;

/// What exists on RabbitMQ, as data, and tools for it.
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq {
    pub use ponos_rabbitmq::{diff, permissions, policies, topology};
    #[cfg(feature = "rabbitmq-management")]
    pub use ponos_rabbitmq::{management, prune};
}

#[doc(inline)]
pub use ponos_core as core;
#[cfg(feature = "macros")]
pub use ponos_macros::{app, data, event, task};

pub use broker::{BROKER_VARIABLE, Broker, DEFAULT_BROKER, MemoryBroker, Rough};
#[cfg(feature = "rabbitmq")]
pub use broker::{QueueType, RabbitBroker, RabbitOptions};
pub use context::TaskCx;
pub use failed::{
    Bulk, BulkEnd, CircuitGate, DISCARDED_FOR, Edited, FailedJobs, Gate, Moved, MovedTo, Operation,
    RetryFailed,
};
pub use message::{
    App, EmittedBy, ErasedPayload, Event, EventInfo, IntoTasks, OwnedBy, Payload, Task, TaskSink,
};
pub use outcome::{Fail, FailExt, Outcome, snooze};
pub use ponos_core::Secret;
pub use ponos_core::body::EncodeError;
pub use ponos_core::broker::BrokerError;
pub use ponos_core::envelope::{Cause, GaveUp, GaveUpReason, Phase};
pub use ponos_core::id::{MessageId, Tid};
pub use ponos_core::policy::{Backoff, BreakerConfig, MaxRetries, Rate, RateExt};
pub use publisher::{PublishError, Publisher, Publishing, RawPublisher, Receipt};
pub use service::{DependencyPolicy, ReactionPolicy, Running, Service, StartError, TaskPolicy};
pub use worker::{CircuitChange, CircuitState, ErrorReport, ErroredEvents, Undecodable};
#[cfg(feature = "redis")]
pub use worker::{RedisLimits, SharedLimits, SharedLimitsState};

/// So many seconds.
#[must_use]
pub const fn secs(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(n)
}

/// So many minutes.
#[must_use]
pub const fn mins(n: u64) -> std::time::Duration {
    std::time::Duration::from_secs(60 * n)
}

/// So many milliseconds.
#[must_use]
pub const fn millis(n: u64) -> std::time::Duration {
    std::time::Duration::from_millis(n)
}

/// Compiles the README's snippets.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct ReadmeSnippets;
