//! Additive jitter: a delay is stretched, never shortened, so that "not before" stays true.
//!
//! The common "full jitter" (a random delay between zero and the asked one) spreads load best but may return at once;
//! a server that said `Retry-After: 60`, or an operator who asked for 10 s, is owed the whole of it.

use super::error::{PolicyError, PolicyErrorKind};
use super::moment::nanos;
use std::time::Duration;

/// More than eleven times the asked delay is a typing error (25 for 25 %).
const LIMIT: f64 = 10.0;

/// `delay` and a random part of up to `jitter` × `delay` on top; `roll` is 64 random bits.
pub(super) fn stretch(delay: Duration, jitter: f64, roll: u64) -> Duration {
    // The upper 53 bits, which a f64 holds exactly: a fraction in [0, 1).
    let fraction = (roll >> 11) as f64 / (1_u64 << 53) as f64;
    // The cast saturates, and makes zero of what is negative or not a number.
    let extra = (nanos(delay) as f64 * jitter * fraction) as u64;
    delay.saturating_add(Duration::from_nanos(extra))
}

pub(super) fn check(kind: PolicyErrorKind, option: &str, jitter: f64) -> Result<(), PolicyError> {
    if (0.0..=LIMIT).contains(&jitter) {
        return Ok(());
    }
    Err(PolicyError::new(
        kind,
        format!(
            "{option} is {jitter}: give a share of the delay from 0 to 10, such as 0.25 for up to 25 % more"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roll_spans_the_whole_jitter() {
        let delay = Duration::from_secs(100);
        assert_eq!(stretch(delay, 0.5, 0), delay);
        assert_eq!(stretch(delay, 0.5, 1 << 63), Duration::from_secs(125));
        let most = stretch(delay, 0.5, u64::MAX);
        assert!(most > Duration::from_millis(149_999) && most <= Duration::from_secs(150), "{most:?}");
    }

    #[test]
    fn nonsense_adds_nothing_and_does_not_panic() {
        let delay = Duration::from_secs(1);
        assert_eq!(stretch(delay, f64::NAN, u64::MAX), delay);
        assert_eq!(stretch(delay, -3.0, u64::MAX), delay);
        assert_eq!(stretch(Duration::MAX, f64::INFINITY, u64::MAX), Duration::MAX);
    }
}
