use super::error::{PolicyError, PolicyErrorKind};
use super::{jitter, moment};
use std::time::Duration;

/// How long a job waits before its next attempt.
///
/// After attempt *n* (counted from 1) the wait is `min` × `factor`^(*n* − 1), at most `max`, and on top of that a random
/// part of up to `jitter` of it. The jitter only ever adds: a delay is never shorter than what was asked for.
///
/// The default starts at 1 s, doubles up to 5 min, and adds up to 25 %.
///
/// ```
/// use ponos_core::policy::Backoff;
/// use std::time::Duration;
///
/// let backoff = Backoff::exponential(Duration::from_secs(1)).max(Duration::from_secs(5)).jitter(0.1);
/// let roll = 0x9e37_79b9_7f4a_7c15; // any random number
/// assert!(backoff.delay(1, roll) >= Duration::from_secs(1));
/// assert!(backoff.delay(3, roll) >= Duration::from_secs(4));
/// assert!(backoff.delay(99, roll) <= Duration::from_millis(5_500));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) factor: f64,
    pub(crate) jitter: f64,
}

impl Backoff {
    /// Delays that start at `min` and double up to 5 min (or up to `min`, if that is longer), plus up to 25 %.
    pub fn exponential(min: Duration) -> Self {
        Self { min, max: min.max(Duration::from_secs(5 * 60)), factor: 2.0, jitter: 0.25 }
    }

    /// The same delay after every attempt, exactly. With [`jitter`](Self::jitter), jobs that failed together do not
    /// return together.
    pub fn constant(delay: Duration) -> Self {
        Self { min: delay, max: delay, factor: 1.0, jitter: 0.0 }
    }

    /// No delay at all: the next attempt may start at once.
    pub fn none() -> Self {
        Self::constant(Duration::ZERO)
    }

    /// The longest delay, before jitter.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// What the delay is multiplied with after each further failure; at least 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The greatest random part, as a share of the delay, that is added to it: 0.25 for +0–25 %. From 0 to 10.
    #[must_use]
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay after `attempt` (from 1) has failed; `roll` is 64 random bits, which choose the jitter.
    ///
    /// It lies between [`least`](Self::least) and (1 + jitter) × that.
    pub fn delay(&self, attempt: u32, roll: u64) -> Duration {
        self.stretch(self.least(attempt), roll)
    }

    /// The delay after `attempt` (from 1) without jitter: `min` × `factor`^(`attempt` − 1), at most `max`.
    pub fn least(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        // A factor below 1 or NaN counts as 1.
        let growth = self.factor.max(1.0).powi(exponent);
        if self.min.is_zero() || growth == 1.0 {
            return self.min.min(self.max);
        }
        let scaled = moment::nanos(self.min) as f64 * growth;
        if scaled < moment::nanos(self.max) as f64 {
            // Rounded up, since shorter than asked is the one thing it must not be.
            Duration::from_nanos(scaled.ceil() as u64).min(self.max)
        } else {
            self.max
        }
    }

    /// The longest delay that can occur: `max` and the whole of its jitter.
    pub fn longest(&self) -> Duration {
        self.stretch(self.max, u64::MAX)
    }

    /// `delay` with this policy's jitter on top.
    pub(super) fn stretch(&self, delay: Duration, roll: u64) -> Duration {
        jitter::stretch(delay, self.jitter, roll)
    }

    pub(super) fn is_none(&self) -> bool {
        self.min.is_zero() || self.max.is_zero()
    }

    /// Checks that the options make sense together.
    ///
    /// # Errors
    ///
    /// If `max` is shorter than `min`, the factor is below 1 or not finite, or the jitter is not from 0 to 10.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let error = |message| Err(PolicyError::new(PolicyErrorKind::Backoff, message));
        if self.max < self.min {
            return error(format!(
                "backoff `max` is {:?}, shorter than `min`, which is {:?}: raise it with `.max(…)` or start lower",
                self.max, self.min
            ));
        }
        if !(self.factor.is_finite() && self.factor >= 1.0) {
            return error(format!(
                "backoff `factor` is {}: give a finite number of at least 1, such as 2 to double the delay each time",
                self.factor
            ));
        }
        jitter::check(PolicyErrorKind::Backoff, "backoff `jitter`", self.jitter)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEC: Duration = Duration::from_secs(1);

    /// Valid policies with a whole factor, so that the expected delay can be computed exactly in integers.
    fn backoffs() -> impl Strategy<Value = (u64, u64, u32, f64)> {
        // Up to 2^52 ns, about 52 days.
        (0..1_u64 << 52, 0..1_u64 << 52, 1..12_u32, 0.0..10.0_f64)
            .prop_map(|(a, b, factor, jitter)| (a.min(b), a.max(b), factor, jitter))
    }

    fn build((min, max, factor, jitter): (u64, u64, u32, f64)) -> Backoff {
        Backoff::exponential(Duration::from_nanos(min))
            .max(Duration::from_nanos(max))
            .factor(f64::from(factor))
            .jitter(jitter)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn the_least_delay_is_exactly_the_formula(parts in backoffs(), attempt in 1..80_u32) {
            let backoff = build(parts);
            backoff.validate().unwrap();
            let (min, max, factor, _) = parts;
            let mut exact = u128::from(min);
            for _ in 1..attempt {
                exact = (exact * u128::from(factor)).min(u128::from(max));
            }
            prop_assert_eq!(backoff.least(attempt).as_nanos(), exact);
        }

        #[test]
        fn a_delay_is_never_shorter_than_asked_nor_longer_than_the_jitter(
            parts in backoffs(), attempt: u32, roll: u64,
        ) {
            let backoff = build(parts);
            let (least, delay) = (backoff.least(attempt), backoff.delay(attempt, roll));
            prop_assert!(delay >= least);
            prop_assert!(delay.as_nanos() as f64 <= least.as_nanos() as f64 * (1.0 + parts.3) + 1.0);
            prop_assert!(delay <= backoff.longest());
        }

        #[test]
        fn the_least_delay_never_falls_from_one_attempt_to_the_next(
            min in 0..1_u64 << 40, max in 0..1_u64 << 50, factor in 1.0..4.0_f64, attempt in 1..u32::MAX,
        ) {
            let (min, max) = (Duration::from_nanos(min.min(max)), Duration::from_nanos(max));
            let backoff = Backoff::exponential(min).max(max).factor(factor);
            let (this, next) = (backoff.least(attempt), backoff.least(attempt + 1));
            prop_assert!(min <= this && this <= next && next <= max);
        }

        #[test]
        fn no_configuration_and_no_attempt_panics(
            min: Duration, max: Duration, factor: f64, jitter: f64, attempt: u32, roll: u64,
        ) {
            let backoff = Backoff::exponential(min).max(max).factor(factor).jitter(jitter);
            let _ = (backoff.validate(), backoff.longest());
            prop_assert!(backoff.delay(attempt, roll) >= min.min(max));
        }
    }

    #[test]
    fn the_default_doubles_from_one_second_to_five_minutes() {
        let least: Vec<u64> = (1..=11).map(|attempt| Backoff::default().least(attempt).as_secs()).collect();
        assert_eq!(least, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(Backoff::default().delay(1, 1 << 63), Duration::from_millis(1_125));
    }

    #[test]
    fn constant_is_constant_and_none_is_nothing() {
        let odd = Duration::new(40_000_000, 1);
        assert_eq!(Backoff::constant(odd).delay(1, u64::MAX), odd);
        assert_eq!(Backoff::constant(odd).delay(u32::MAX, u64::MAX), odd);
        assert_eq!(Backoff::none().delay(u32::MAX, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_minimum_above_five_minutes_needs_no_maximum() {
        let backoff = Backoff::exponential(3_600 * SEC);
        backoff.validate().unwrap();
        assert_eq!(backoff.least(5), 3_600 * SEC);
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        let message = |backoff: Backoff| {
            let error = backoff.validate().unwrap_err();
            assert_eq!(error.kind(), PolicyErrorKind::Backoff);
            error.to_string()
        };
        assert_eq!(
            message(Backoff::exponential(10 * SEC).max(SEC)),
            "backoff `max` is 1s, shorter than `min`, which is 10s: raise it with `.max(…)` or start lower"
        );
        for factor in [0.5, -1.0, f64::NAN, f64::INFINITY] {
            let text = message(Backoff::default().factor(factor));
            assert!(
                text.starts_with(&format!("backoff `factor` is {factor}: give a finite number")),
                "{text}"
            );
        }
        for jitter in [-0.1, f64::NAN, 25.0, f64::INFINITY] {
            let text = message(Backoff::default().jitter(jitter));
            assert!(text.starts_with(&format!("backoff `jitter` is {jitter}: give a share")), "{text}");
        }
    }
}
