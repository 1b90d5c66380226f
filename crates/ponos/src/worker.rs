//! The uniform worker: what happens to every job, whatever its handler.
//!
//! One *queue worker* per queue owns its intake, its buffer and the jobs in flight. A job runs as a task of its own,
//! settles itself and reports back by message. What several queues share (a circuit, a rate limit, the process) is a
//! small state machine behind a lock that is held for nanoseconds and never across an await.
//!
//! # The pipeline, in its only order
//!
//! 1. **Intake** takes what the prefetch allows, unless the queue is paused, its circuit is open or the service stops.
//! 2. **Deduplication** recognises what this process has done already.
//! 3. **Suspicion**: a job that may have killed its process runs alone.
//! 4. **Rate limit**, then **circuit**: both are asked before each start and neither costs an attempt.
//! 5. **Attempt**: decode, run within the time limit, catch a panic.
//! 6. **Decision**: done, again at a time, recover, or failed; a pure function of policy and outcome.
//! 7. **Settlement**: the effects and the verdict, as one value, until the broker has taken it.

mod attempt;
mod circuit;
mod hooks;
mod limiter;
mod policy;
mod queue;
mod settle;
mod solo;
mod spec;
mod vitals;
mod waits;

pub use circuit::{CircuitChange, CircuitState};
pub use hooks::{ErrorReport, ErroredEvents, Undecodable};
#[cfg(feature = "redis")]
pub use limiter::{RedisLimits, SharedLimits, SharedLimitsState};

pub(crate) use circuit::{Circuit, Told};
pub(crate) use hooks::Hooks;
pub(crate) use limiter::{LimitStore, Limiter};
pub(crate) use policy::Resolved;
pub(crate) use queue::{Control, QueueWorker};
pub(crate) use settle::errored_event;
pub(crate) use solo::Solo;
pub(crate) use spec::{BoundRecoverFn, QueueSpec, RunFn, Started};
pub(crate) use vitals::{Rest, Vitals};

use std::sync::Arc;

use ponos_core::broker::Broker;

use crate::context::Local;

/// What the queue workers of one running service share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) local: Arc<Local>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) hooks: Hooks,
    pub(crate) errored_events: ErroredEvents,
    /// How many messages may lie between a job that runs and the start of its chain.
    pub(crate) hop_limit: u32,
    pub(crate) solo: Solo,
    pub(crate) limit_store: LimitStore,
}
