use crate::policy::{Moment, moment};
use std::time::Duration;

/// Into how many parts the window is cut: a part is forgotten at a time.
const PARTS: usize = 12;

/// The outcomes of the last `PARTS` parts of time, the present one included.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// The length of a part in nanoseconds, at least 1.
    length: u64,
    /// The number of the present part, counted from the origin.
    part: u64,
    /// Part number n is kept at n mod `PARTS`.
    parts: [Counts; PARTS],
    /// The sum of `parts`.
    total: Counts,
}

/// How many outcomes, and how many of them were failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failures: u32,
}

impl Window {
    pub(super) fn new(window: Duration) -> Self {
        let length = (moment::nanos(window) / PARTS as u64).max(1);
        Self { length, part: 0, parts: [Counts::default(); PARTS], total: Counts::default() }
    }

    /// Counts an outcome of `now`, and forgets those that are too old by then.
    pub(super) fn record(&mut self, now: Moment, failed: bool) {
        self.forget_until(now.nanos() / self.length);
        let failed = u32::from(failed);
        let present = &mut self.parts[(self.part % PARTS as u64) as usize];
        for counts in [present, &mut self.total] {
            // Four billion outcomes in a minute do not happen; if they do, the ratio stays sane.
            counts.calls = counts.calls.saturating_add(1);
            counts.failures = counts.failures.saturating_add(failed);
        }
    }

    /// What the window held when an outcome was counted last.
    pub(super) fn total(&self) -> Counts {
        self.total
    }

    /// Makes `part` the present one. If time went backwards, what is present stays so.
    fn forget_until(&mut self, part: u64) {
        let passed = part.saturating_sub(self.part).min(PARTS as u64);
        for step in 0..passed {
            let oldest = &mut self.parts[((part - step) % PARTS as u64) as usize];
            self.total.calls = self.total.calls.saturating_sub(oldest.calls);
            self.total.failures = self.total.failures.saturating_sub(oldest.failures);
            *oldest = Counts::default();
        }
        self.part = self.part.max(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_holds_the_outcomes_of_the_last_twelve_parts(
            length in 1..1_000_u64, outcomes in prop::collection::vec((0..3_000_u64, any::<bool>()), 1..200),
        ) {
            let mut window = Window::new(Duration::from_nanos(length * PARTS as u64));
            let mut now = 0;
            let mut all = Vec::new();
            for (gap, failed) in outcomes {
                now += gap;
                all.push((now / length, failed));
                window.record(Moment::from_nanos(now), failed);
                let recent: Vec<_> = all.iter().filter(|(part, _)| part + PARTS as u64 > now / length).collect();
                let failures = recent.iter().filter(|(_, failed)| *failed).count();
                let expected = Counts { calls: recent.len() as u32, failures: failures as u32 };
                prop_assert_eq!(window.total(), expected);
            }
        }
    }

    #[test]
    fn time_that_goes_backwards_forgets_nothing() {
        let mut window = Window::new(Duration::from_secs(60));
        window.record(Moment::from_origin(Duration::from_secs(600)), true);
        window.record(Moment::ORIGIN, false);
        assert_eq!(window.total(), Counts { calls: 2, failures: 1 });
    }
}
