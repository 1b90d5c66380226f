//! How a handler ends: done, or failed in one of four ways.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use ponos_core::body::EncodeError;

/// What a handler returns. `?` turns any error into another attempt.
pub type Outcome = Result<(), Fail>;

/// Why a handler is not done, and what is to follow.
///
/// Made by `?` from any error (also `anyhow::Error`, `Box<dyn Error + Send + Sync>`, `&str`, `String`), which means
/// *try again*, or by [`stop`](FailExt::stop), [`retry_after`](FailExt::retry_after) and [`snooze`].
#[derive(Debug)]
pub struct Fail {
    pub(crate) follows: Follows,
    pub(crate) error: Box<dyn Error + Send + Sync>,
}

/// What follows on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Another attempt, when the backoff says.
    Retry,
    /// Another attempt, not before.
    RetryAfter(Duration),
    /// No attempt: straight to recovery.
    Stop,
    /// The same attempt, later.
    Snooze(Duration),
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Fail {
    fn from(error: E) -> Self {
        let error = error.into();
        // A payload that cannot be written will not be writable tomorrow.
        let follows = if error.is::<EncodeError>() { Follows::Stop } else { Follows::Retry };
        Self { follows, error }
    }
}

impl Fail {
    /// Another attempt cannot help: the job goes straight to recovery.
    pub fn stop(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { follows: Follows::Stop, error: error.into() }
    }

    /// Another attempt, not before `delay` from now: what a `Retry-After` header asks for. It spends an attempt.
    pub fn retry_after(error: impl Into<Box<dyn Error + Send + Sync>>, delay: Duration) -> Self {
        Self { follows: Follows::RetryAfter(delay), error: error.into() }
    }

    /// The error with its causes, outermost first, one a line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            text.push_str("\ncaused by: ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Later, without spending an attempt: `return snooze(mins(5));`.
///
/// For a job that is fine and too early, not for an error. It is bounded by the task's `max_age`.
///
/// # Errors
///
/// Always: it is the value to return from a handler.
pub fn snooze(delay: Duration) -> Outcome {
    Err(Fail { follows: Follows::Snooze(delay), error: format!("snoozed for {delay:?}").into() })
}

/// Says what is to follow on an error: `parse(&body).stop()?`.
pub trait FailExt<T> {
    /// No other attempt: the job goes straight to recovery.
    ///
    /// # Errors
    ///
    /// When `self` is an error.
    fn stop(self) -> Result<T, Fail>;

    /// Another attempt, not before `delay` from now. It spends an attempt.
    ///
    /// # Errors
    ///
    /// When `self` is an error.
    fn retry_after(self, delay: Duration) -> Result<T, Fail>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> FailExt<T> for Result<T, E> {
    fn stop(self) -> Result<T, Fail> {
        self.map_err(Fail::stop)
    }

    fn retry_after(self, delay: Duration) -> Result<T, Fail> {
        self.map_err(|error| Fail::retry_after(error, delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(f: impl FnOnce() -> Outcome) -> Fail {
        f().unwrap_err()
    }

    #[test]
    fn question_mark_takes_every_error_and_means_retry() {
        let fails = [
            with(|| Err("text")?),
            with(|| Err(String::from("text"))?),
            with(|| Err(std::io::Error::other("io"))?),
            with(|| Err(anyhow::anyhow!("any"))?),
            with(|| {
                let boxed: Result<(), Box<dyn Error + Send + Sync>> = Err("boxed".into());
                Ok(boxed?)
            }),
        ];
        assert!(fails.iter().all(|fail| fail.follows == Follows::Retry));
    }

    #[test]
    fn an_error_can_say_what_follows() {
        assert_eq!(with(|| Err::<(), _>("x").stop()).follows, Follows::Stop);
        let day = Duration::from_secs(86_400);
        assert_eq!(with(|| Err::<(), _>("x").retry_after(day)).follows, Follows::RetryAfter(day));
        assert_eq!(with(|| snooze(day)).follows, Follows::Snooze(day));
    }

    #[test]
    fn the_chain_names_every_cause() {
        let error = anyhow::anyhow!("root").context("middle").context("top");
        assert_eq!(Fail::from(error).chain(), "top\ncaused by: middle\ncaused by: root");
    }
}
