use super::Backoff;
use super::breaker::Outcome;
use super::error::{PolicyError, PolicyErrorKind};
use crate::envelope::GaveUpReason;
use std::time::Duration;

/// What happens after an attempt has failed: whether there is another one, and when.
///
/// Attempts count from 1. An error, a timeout and a panic spend one; a snooze does not. What never came to a result (a
/// shutdown's cut, a lost connection or lease, a breaker's hand-back) is no failure and does not come here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// The delays between attempts.
    pub backoff: Backoff,
    /// How many attempts there are after the first.
    pub max_retries: MaxRetries,
    /// How long a job may be put off by its own handler, counted from its creation; 7 days by default. A snooze that
    /// would end later gives the job up, and so does a [`RetryAfter`](FailureClass::RetryAfter) that alone is longer.
    /// It does not cut ordinary retries short: they have their own limit, and a job that has waited out a long outage
    /// deserves all of them.
    pub max_age: Duration,
}

/// How many attempts follow the first: a job runs at most 1 + this many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxRetries {
    /// So many, then the job is given up. 10 by default; 0 means a single run.
    Limited(u32),
    /// Never given up for having failed too often. Something that can never succeed then circles for ever.
    Unlimited,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// An error that may pass: what `?` in a handler makes of any error.
    Retryable,
    /// An error that may pass, but not before this long from now (`.retry_after(d)`).
    RetryAfter(Duration),
    /// An error that trying again cannot heal (`.stop()`).
    Fatal,
    /// The attempt exceeded its time limit.
    Timeout,
    /// The handler panicked.
    Panic,
    /// Not a failure: the handler wants to run again after this long, without spending an attempt (`snooze(d)`).
    Snooze(Duration),
    /// The message does not decode into what the handler takes. It will not decode tomorrow either.
    Undecodable,
}

impl FailureClass {
    /// What this failure tells the circuit breaker about the dependency.
    ///
    /// Only what suggests a sick dependency counts: retryable errors and timeouts. A fatal error or an undecodable
    /// message is about the job, a panic about the code, a snooze about neither.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Retryable | Self::RetryAfter(_) | Self::Timeout => Outcome::Failure,
            Self::Fatal | Self::Panic | Self::Snooze(_) | Self::Undecodable => Outcome::Ignored,
        }
    }
}

/// What to do with a job whose attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryDecision {
    /// Run it again.
    Retry {
        /// How long to wait first.
        delay: Duration,
        /// The number of the attempt that follows.
        next_attempt: u32,
    },
    /// Run the same attempt again.
    Snooze {
        /// How long to wait first: exactly what the handler asked for.
        delay: Duration,
    },
    /// Never run the handler again: recovery follows.
    GiveUp(GaveUpReason),
}

impl RetryPolicy {
    /// Decides what follows on a failure of attempt number `attempt` (from 1) of a job that is `age` old.
    ///
    /// `roll` is 64 random bits, which choose the jitter. A delay is never shorter than the handler or the backoff asks;
    /// after a [`RetryAfter`](FailureClass::RetryAfter) it is the longer of the two, with the backoff's jitter on top, so
    /// that jobs refused together do not return together.
    pub fn decide(&self, failure: FailureClass, attempt: u32, age: Duration, roll: u64) -> RetryDecision {
        let asked = match failure {
            FailureClass::Retryable | FailureClass::Timeout | FailureClass::Panic => Duration::ZERO,
            FailureClass::RetryAfter(asked) => asked,
            FailureClass::Fatal => return RetryDecision::GiveUp(GaveUpReason::Stopped),
            FailureClass::Undecodable => return RetryDecision::GiveUp(GaveUpReason::Undecodable),
            FailureClass::Snooze(delay) if age.saturating_add(delay) > self.max_age => {
                return RetryDecision::GiveUp(GaveUpReason::TooOld);
            }
            FailureClass::Snooze(delay) => return RetryDecision::Snooze { delay },
        };
        if !self.max_retries.allows(attempt) {
            return RetryDecision::GiveUp(GaveUpReason::Exhausted);
        }
        if asked > self.max_age {
            return RetryDecision::GiveUp(GaveUpReason::TooOld);
        }
        let least = self.backoff.least(attempt).max(asked);
        RetryDecision::Retry {
            delay: self.backoff.stretch(least, roll),
            next_attempt: attempt.max(1).saturating_add(1),
        }
    }

    /// Checks that the options make sense together.
    ///
    /// # Errors
    ///
    /// If the backoff does not validate, `max_age` is zero, or retries are neither limited nor delayed.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let error = |message| Err(PolicyError::new(PolicyErrorKind::Retry, message));
        self.backoff.validate()?;
        if self.max_age.is_zero() {
            return error(
                "`max_age` is 0, so that every snooze gives its job up: allow some time, 7 days by default",
            );
        }
        if self.max_retries == MaxRetries::Unlimited && self.backoff.is_none() {
            return error(
                "`max_retries` is unlimited and there is no backoff, so that one bad job would keep a worker busy for \
                 ever: give it a backoff, such as `Backoff::default()`, or a limit",
            );
        }
        Ok(())
    }
}

impl MaxRetries {
    /// Whether another attempt may follow number `attempt` (from 1).
    fn allows(self, attempt: u32) -> bool {
        match self {
            Self::Limited(retries) => attempt.max(1) <= retries,
            Self::Unlimited => true,
        }
    }
}

impl From<u32> for MaxRetries {
    fn from(retries: u32) -> Self {
        Self::Limited(retries)
    }
}

impl Default for MaxRetries {
    fn default() -> Self {
        Self::Limited(10)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            max_retries: MaxRetries::default(),
            max_age: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEC: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn spending() -> impl Strategy<Value = FailureClass> {
        prop_oneof![
            Just(FailureClass::Retryable),
            Just(FailureClass::Timeout),
            Just(FailureClass::Panic),
            (0..100_000_u64).prop_map(|secs| FailureClass::RetryAfter(Duration::from_secs(secs))),
        ]
    }

    fn any_failure() -> impl Strategy<Value = FailureClass> {
        prop_oneof![
            4 => spending(),
            1 => any::<Duration>().prop_map(FailureClass::RetryAfter),
            1 => any::<Duration>().prop_map(FailureClass::Snooze),
            1 => Just(FailureClass::Fatal),
            1 => Just(FailureClass::Undecodable),
        ]
    }

    proptest! {
        #[test]
        fn a_job_runs_once_and_then_max_retries_times(
            retries in 0..50_u32, failures in prop::collection::vec(spending(), 60), roll: u64,
        ) {
            let policy = RetryPolicy { max_retries: retries.into(), ..Default::default() };
            let mut attempt = 1;
            let mut runs = 0;
            for failure in failures {
                runs += 1;
                match policy.decide(failure, attempt, DAY * 100, roll) {
                    RetryDecision::Retry { next_attempt, .. } => {
                        prop_assert_eq!(next_attempt, attempt + 1);
                        attempt = next_attempt;
                    }
                    decision => {
                        prop_assert_eq!(decision, RetryDecision::GiveUp(GaveUpReason::Exhausted));
                        break;
                    }
                }
            }
            prop_assert_eq!(runs, retries + 1);
        }

        #[test]
        fn snoozes_spend_no_attempt_and_end_with_max_age(
            naps in prop::collection::vec(1..100_000_u64, 1..200), attempt: u32, retries: u32,
        ) {
            let policy = RetryPolicy { max_retries: retries.into(), ..Default::default() };
            let mut age = Duration::ZERO;
            for nap in naps {
                let delay = Duration::from_secs(nap);
                match policy.decide(FailureClass::Snooze(delay), attempt, age, 0) {
                    RetryDecision::Snooze { delay: given } => {
                        prop_assert_eq!(given, delay);
                        age += delay;
                        prop_assert!(age <= policy.max_age);
                    }
                    decision => {
                        prop_assert_eq!(decision, RetryDecision::GiveUp(GaveUpReason::TooOld));
                        prop_assert!(age + delay > policy.max_age);
                        break;
                    }
                }
            }
        }

        #[test]
        fn a_retry_waits_at_least_what_the_handler_and_the_backoff_ask(
            failure in spending(), attempt in 1..10_u32, roll: u64,
        ) {
            let policy = RetryPolicy::default();
            let decision = policy.decide(failure, attempt, SEC, roll);
            let RetryDecision::Retry { delay, .. } = decision else {
                return Err(TestCaseError::fail(format!("{decision:?}")));
            };
            prop_assert!(delay >= policy.backoff.least(attempt));
            if let FailureClass::RetryAfter(asked) = failure {
                prop_assert!(delay >= asked);
                prop_assert!(delay <= asked.max(policy.backoff.least(attempt)).mul_f64(1.25) + SEC);
            } else {
                prop_assert_eq!(delay, policy.backoff.delay(attempt, roll));
            }
        }

        #[test]
        fn unlimited_retries_are_never_exhausted(failure in any_failure(), attempt: u32, age: Duration, roll: u64) {
            let policy = RetryPolicy { max_retries: MaxRetries::Unlimited, ..Default::default() };
            let decision = policy.decide(failure, attempt, age, roll);
            prop_assert_ne!(decision, RetryDecision::GiveUp(GaveUpReason::Exhausted));
        }

        #[test]
        fn no_failure_is_both_retried_and_hopeless(
            failure in any_failure(), attempt: u32, age: Duration, retries: u32, roll: u64,
        ) {
            let policy = RetryPolicy { max_retries: retries.into(), ..Default::default() };
            let decision = policy.decide(failure, attempt, age, roll);
            let hopeless = match failure {
                FailureClass::Fatal => Some(GaveUpReason::Stopped),
                FailureClass::Undecodable => Some(GaveUpReason::Undecodable),
                _ => None,
            };
            if let Some(reason) = hopeless {
                prop_assert_eq!(decision, RetryDecision::GiveUp(reason));
            }
        }
    }

    #[test]
    fn a_retry_after_beyond_max_age_gives_up() {
        let policy = RetryPolicy::default();
        let after = |delay| policy.decide(FailureClass::RetryAfter(delay), 1, DAY * 30, 0);
        assert_eq!(after(DAY * 8), RetryDecision::GiveUp(GaveUpReason::TooOld));
        assert_eq!(after(DAY * 7), RetryDecision::Retry { delay: DAY * 7, next_attempt: 2 });
    }

    #[test]
    fn attempt_zero_counts_as_the_first() {
        let policy = RetryPolicy { max_retries: 1.into(), backoff: Backoff::none(), ..Default::default() };
        let again = RetryDecision::Retry { delay: Duration::ZERO, next_attempt: 2 };
        assert_eq!(policy.decide(FailureClass::Retryable, 0, SEC, 0), again);
        let once = RetryPolicy { max_retries: 0.into(), ..policy };
        let exhausted = RetryDecision::GiveUp(GaveUpReason::Exhausted);
        assert_eq!(once.decide(FailureClass::Retryable, 0, SEC, 0), exhausted);
    }

    #[test]
    fn only_what_suggests_a_sick_dependency_counts_for_the_breaker() {
        for failure in [FailureClass::Retryable, FailureClass::Timeout, FailureClass::RetryAfter(SEC)] {
            assert_eq!(failure.outcome(), Outcome::Failure);
        }
        let own =
            [FailureClass::Fatal, FailureClass::Panic, FailureClass::Snooze(SEC), FailureClass::Undecodable];
        for failure in own {
            assert_eq!(failure.outcome(), Outcome::Ignored);
        }
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        let default = RetryPolicy::default();
        default.validate().unwrap();
        let error = RetryPolicy { max_age: Duration::ZERO, ..default }.validate().unwrap_err();
        assert!(error.to_string().starts_with("`max_age` is 0"), "{error}");
        let circling =
            RetryPolicy { max_retries: MaxRetries::Unlimited, backoff: Backoff::none(), ..default };
        let error = circling.validate().unwrap_err();
        assert_eq!(error.kind(), PolicyErrorKind::Retry);
        assert!(error.to_string().contains("give it a backoff"), "{error}");
        let error =
            RetryPolicy { backoff: Backoff::default().factor(0.0), ..default }.validate().unwrap_err();
        assert_eq!(error.kind(), PolicyErrorKind::Backoff);
    }
}
