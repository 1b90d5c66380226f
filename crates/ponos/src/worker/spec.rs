//! What a queue's worker works: the handler bound to its state, its policy, and what it shares with other queues.

use std::sync::Arc;

use ponos_core::body::DecodeError;
use ponos_core::broker::BoxFuture;
use ponos_core::envelope::GaveUp;
use ponos_core::name::QueueName;

use super::policy::Resolved;
use super::{Circuit, Limiter, Vitals};
use crate::context::Job;
use crate::outcome::Outcome;

/// A handler or a recovery function at work; an error when the body is not what it takes.
pub(crate) type Started = Result<BoxFuture<'static, Outcome>, DecodeError>;

/// Runs a job of one queue.
pub(crate) type RunFn = Arc<dyn Fn(Arc<Job>) -> Started + Send + Sync>;

/// Runs the recovery of a job of one queue.
pub(crate) type BoundRecoverFn = Arc<dyn Fn(Arc<Job>, GaveUp) -> Started + Send + Sync>;

/// What a queue's worker works.
pub(crate) struct QueueSpec {
    pub(crate) queue: QueueName,
    pub(crate) policy: Resolved,
    pub(crate) run: RunFn,
    pub(crate) recover: Option<BoundRecoverFn>,
    /// The circuit that it listens through, and its place in it.
    pub(crate) circuit: Option<(Arc<Circuit>, usize)>,
    /// The limit that it shares with who depends on the same thing, or its own.
    pub(crate) limiter: Arc<Limiter>,
    /// Its own beside a shared one, for orders.
    pub(crate) own_limiter: Option<Arc<Limiter>>,
    /// What is told of it while it works.
    pub(crate) vitals: Arc<Vitals>,
}

impl QueueSpec {
    /// The limits that its jobs are under.
    pub(super) fn limiters(&self) -> impl Iterator<Item = &Limiter> {
        std::iter::once(&*self.limiter).chain(self.own_limiter.as_deref())
    }

    /// What the rate limit is called that its jobs are under at the moment: its dependency, or itself.
    pub(crate) fn limit(&self) -> Option<Arc<str>> {
        let queue = self.queue.as_str();
        let shared = || self.policy.depends_on.as_deref().unwrap_or(queue);
        let own = || self.own_limiter.as_ref().and_then(|own| own.rate()).map(|_| queue);
        self.limiter.rate().map(|_| shared()).or_else(own).map(Into::into)
    }
}

impl std::fmt::Debug for QueueSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueSpec").field("queue", &self.queue).finish_non_exhaustive()
    }
}
