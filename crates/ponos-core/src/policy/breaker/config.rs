use crate::policy::error::{PolicyError, PolicyErrorKind};
use crate::policy::jitter;
use std::time::Duration;

/// When a [`Breaker`](super::Breaker) opens, for how long, and what closes it.
///
/// By default it opens when, of at least 20 outcomes within 60 s, half or more were failures, or when 10 in a row were,
/// however far apart (so that a quiet queue has a breaker too). It stays open for 10 s, doubling up to 5 min, plus up to
/// 20 %, and closes after 3 probes have succeeded.
///
/// ```
/// use ponos_core::policy::BreakerConfig;
/// use std::time::Duration;
///
/// let config = BreakerConfig::default().failure_ratio(0.2).open_max(Duration::from_secs(60));
/// config.validate()?;
/// # Ok::<(), ponos_core::policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    pub(crate) window: Duration,
    pub(crate) min_calls: u32,
    pub(crate) failure_ratio: f64,
    pub(crate) consecutive: u32,
    pub(crate) open_initial: Duration,
    pub(crate) open_max: Duration,
    pub(crate) open_jitter: f64,
    pub(crate) close_after: u32,
}

impl BreakerConfig {
    /// How far back outcomes count for the ratio. It slides in twelve steps, so that between 11⁄12 and all of it counts.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// How many outcomes the window must hold before the ratio says anything. `u32::MAX` switches the ratio off.
    #[must_use]
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// The share of failures among the window's outcomes that opens the breaker: above 0, at most 1.
    #[must_use]
    pub fn failure_ratio(mut self, ratio: f64) -> Self {
        self.failure_ratio = ratio;
        self
    }

    /// How many failures in a row open the breaker, whatever the window holds. `u32::MAX` switches this rule off.
    #[must_use]
    pub fn consecutive(mut self, failures: u32) -> Self {
        self.consecutive = failures;
        self
    }

    /// How long the breaker stays open the first time. It doubles each time that a probe fails.
    #[must_use]
    pub fn open_initial(mut self, time: Duration) -> Self {
        self.open_initial = time;
        self
    }

    /// The longest time that the breaker stays open, before jitter.
    #[must_use]
    pub fn open_max(mut self, time: Duration) -> Self {
        self.open_max = time;
        self
    }

    /// The greatest random part, as a share of the open time, that is added to it, so that instances which tripped
    /// together do not probe together. From 0 to 10.
    #[must_use]
    pub fn open_jitter(mut self, jitter: f64) -> Self {
        self.open_jitter = jitter;
        self
    }

    /// How many probes have to succeed, one after the other and none failing between, to close the breaker.
    #[must_use]
    pub fn close_after(mut self, successes: u32) -> Self {
        self.close_after = successes;
        self
    }

    /// Checks that the breaker can open and close as described.
    ///
    /// # Errors
    ///
    /// If a count or a time is zero, the ratio is not above 0 and at most 1, `open_max` is shorter than `open_initial`,
    /// or the jitter is not from 0 to 10.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let error = |message| Err(PolicyError::new(PolicyErrorKind::Breaker, message));
        let counts = [
            ("min_calls", self.min_calls),
            ("consecutive", self.consecutive),
            ("close_after", self.close_after),
        ];
        for (option, count) in counts {
            if count == 0 {
                return error(format!("breaker `{option}` is 0: the least is 1"));
            }
        }
        for (option, time) in [("window", self.window), ("open_initial", self.open_initial)] {
            if time.is_zero() {
                return error(format!("breaker `{option}` is 0: give it a time, or switch the breaker off"));
            }
        }
        if !(self.failure_ratio > 0.0 && self.failure_ratio <= 1.0) {
            return error(format!(
                "breaker `failure_ratio` is {}: give a share above 0 and at most 1, such as 0.5 for half",
                self.failure_ratio
            ));
        }
        if self.open_max < self.open_initial {
            return error(format!(
                "breaker `open_max` is {:?}, shorter than `open_initial`, which is {:?}: raise the one or lower the other",
                self.open_max, self.open_initial
            ));
        }
        jitter::check(PolicyErrorKind::Breaker, "breaker `open_jitter`", self.open_jitter)
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            min_calls: 20,
            failure_ratio: 0.5,
            consecutive: 10,
            open_initial: Duration::from_secs(10),
            open_max: Duration::from_secs(5 * 60),
            open_jitter: 0.2,
            close_after: 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        let config = BreakerConfig::default();
        config.validate().unwrap();
        let sec = Duration::from_secs(1);
        for (config, message) in [
            (config.min_calls(0), "breaker `min_calls` is 0: the least is 1"),
            (config.consecutive(0), "breaker `consecutive` is 0: the least is 1"),
            (config.close_after(0), "breaker `close_after` is 0: the least is 1"),
            (config.window(Duration::ZERO), "breaker `window` is 0: give it a time"),
            (config.open_initial(Duration::ZERO), "breaker `open_initial` is 0: give it a time"),
            (config.failure_ratio(0.0), "breaker `failure_ratio` is 0: give a share above 0"),
            (config.failure_ratio(50.0), "breaker `failure_ratio` is 50: give a share above 0"),
            (config.failure_ratio(f64::NAN), "breaker `failure_ratio` is NaN: give a share above 0"),
            (config.open_max(sec), "breaker `open_max` is 1s, shorter than `open_initial`, which is 10s"),
            (config.open_jitter(-1.0), "breaker `open_jitter` is -1: give a share of the delay"),
        ] {
            let error = config.validate().unwrap_err();
            assert_eq!(error.kind(), PolicyErrorKind::Breaker);
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
