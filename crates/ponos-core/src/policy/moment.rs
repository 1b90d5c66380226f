use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point in time, in nanoseconds since an origin that the caller chose.
///
/// It is what `std::time::Instant` is, except that anyone can make one: the worker from its monotonic clock, a test
/// from nothing. Moments of different origins must not be mixed. The range is 584 years from the origin; arithmetic
/// that would leave it stops at its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The origin itself.
    pub const ORIGIN: Moment = Moment(0);

    /// The moment that lies `elapsed` after the origin.
    pub fn from_origin(elapsed: Duration) -> Self {
        Self(nanos(elapsed))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is in fact later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn nanos(self) -> u64 {
        self.0
    }

    pub(super) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }
}

/// A duration in whole nanoseconds, at most `u64::MAX` of them (584 years).
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(later)))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moment({:?})", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn adding_and_since_are_inverse(start in 0..u64::MAX / 2, step in 0..u64::MAX / 2) {
            let (start, step) = (Moment::from_nanos(start), Duration::from_nanos(step));
            prop_assert_eq!((start + step).since(start), step);
            prop_assert_eq!(start.since(start + step), Duration::ZERO);
            prop_assert!(start + step >= start);
        }
    }

    #[test]
    fn arithmetic_stops_at_the_end_of_the_range() {
        let end = Moment::from_origin(Duration::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Moment::ORIGIN.since(end), Duration::ZERO);
    }

    #[test]
    fn debug_shows_the_time_since_the_origin() {
        assert_eq!(format!("{:?}", Moment::from_origin(Duration::from_millis(1500))), "Moment(1.5s)");
    }
}
