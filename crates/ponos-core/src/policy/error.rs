/// A policy's configuration that cannot mean what its author wanted.
///
/// The message names the option and the way out; it is meant for the author of the service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PolicyError {
    kind: PolicyErrorKind,
    message: String,
}

/// Which policy a [`PolicyError`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// The delays between attempts, [`Backoff`](super::Backoff).
    Backoff,
    /// The number of attempts or the age limit, [`RetryPolicy`](super::RetryPolicy).
    Retry,
    /// The circuit breaker, [`BreakerConfig`](super::BreakerConfig).
    Breaker,
    /// The rate limit, [`Rate`](super::Rate).
    Rate,
}

impl PolicyError {
    pub(super) fn new(kind: PolicyErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Which policy the error is about.
    pub fn kind(&self) -> PolicyErrorKind {
        self.kind
    }
}
