use super::error::{PolicyError, PolicyErrorKind};
use super::{Moment, moment};
use std::time::Duration;

/// So many starts per period, for a handler or for a dependency that several handlers share.
///
/// Starts are spread evenly: at 100 per second there is one every 10 ms. A *burst* says how many may come at once after
/// a quiet time. In any window of one period (its end not included) there are at most `count` + `burst` − 1 starts.
///
/// The burst is, unless set, as many as fall into 100 ms, but at most a tenth of the count, and at least 1. That is
/// enough for a timer's lateness not to cost throughput, and it never exceeds a limit by more than a tenth: 10 for
/// `100.per_second()`, and 1, which keeps the limit strictly, for `5000.per_hour()`.
///
/// ```
/// use ponos_core::policy::RateExt;
///
/// let gentle = 100.per_second();
/// let strict = 100.per_second().burst(1);
/// # gentle.validate()?; strict.validate()?;
/// # Ok::<(), ponos_core::policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    period: Duration,
    pub(crate) burst: u32,
}

impl Rate {
    /// `count` starts per `period`; the same as `count.per(period)` with [`RateExt`].
    pub fn new(count: u32, period: Duration) -> Self {
        let per_100ms = u128::from(count) * Duration::from_millis(100).as_nanos() / period.as_nanos().max(1);
        let burst = u32::try_from(per_100ms).unwrap_or(u32::MAX).min(count / 10).max(1);
        Self { count, period, burst }
    }

    /// How many starts may come at once after a quiet time; at least 1, which spaces all starts evenly.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// The number of starts per [`period`](Self::period).
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The period that [`count`](Self::count) refers to.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// How many starts may come at once after a quiet time; [`burst`](Self::burst) sets it.
    pub fn at_once(&self) -> u32 {
        self.burst
    }

    /// How many starts this rate sustains within `time`, rounded down, bursts aside.
    pub fn starts_within(&self, time: Duration) -> u64 {
        let starts = u128::from(moment::nanos(time)) * u128::from(self.count) / self.period.as_nanos().max(1);
        u64::try_from(starts).unwrap_or(u64::MAX)
    }

    /// Checks that the rate lets anything through.
    ///
    /// # Errors
    ///
    /// If the count, the period or the burst is zero.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let error = |message| Err(PolicyError::new(PolicyErrorKind::Rate, message));
        if self.count == 0 {
            return error(
                "`rate_limit` allows 0 starts, so that no job would ever run: raise it, or pause the queue",
            );
        }
        if self.period.is_zero() {
            return error(
                "`rate_limit` has a period of 0: name one, such as `100.per_second()`, or remove the limit",
            );
        }
        if self.burst == 0 {
            return error(
                "`rate_limit` has a burst of 0, so that no job would ever run: the least is `.burst(1)`",
            );
        }
        Ok(())
    }
}

/// Makes a [`Rate`] of a number: `100.per_second()`.
pub trait RateExt {
    /// So many starts per `period`.
    fn per(self, period: Duration) -> Rate;

    /// So many starts per second.
    fn per_second(self) -> Rate;

    /// So many starts per minute.
    fn per_minute(self) -> Rate;

    /// So many starts per hour.
    fn per_hour(self) -> Rate;
}

impl RateExt for u32 {
    fn per(self, period: Duration) -> Rate {
        Rate::new(self, period)
    }

    fn per_second(self) -> Rate {
        self.per(Duration::from_secs(1))
    }

    fn per_minute(self) -> Rate {
        self.per(Duration::from_secs(60))
    }

    fn per_hour(self) -> Rate {
        self.per(Duration::from_secs(3_600))
    }
}

/// The limiter of one [`Rate`]: the generic cell rate algorithm in its virtual scheduling form (ITU-T I.371, annex A).
///
/// Its whole state is one number, the *theoretical arrival time*: when the next start is due if starts come exactly at
/// the rate. A start may come ahead of it by (burst − 1) intervals and no more. Time must not go backwards; if it does,
/// the limiter only gets stricter.
///
/// Nothing is rounded: internally time is counted in units of 1 ns ÷ count, in which the interval between two starts,
/// period ÷ count, is a whole number. A rate of three per second is a third of a second, not 333,333,333 ns.
///
/// ```
/// use ponos_core::policy::{Gcra, Moment, RateExt};
/// use std::time::Duration;
///
/// let mut limiter = Gcra::new(2.per_second());
/// let start = Moment::ORIGIN;
/// assert_eq!(limiter.try_take(start), Ok(()));
/// let next = start + Duration::from_millis(500);
/// assert_eq!(limiter.try_take(start), Err(next));
/// assert_eq!(limiter.try_take(next), Ok(()));
/// ```
#[derive(Debug, Clone)]
pub struct Gcra {
    /// The limit before it is shared.
    rate: Rate,
    /// Among how many the limit is shared.
    share: u32,
    /// Units of time in a nanosecond.
    scale: u128,
    /// Units between two starts at this share.
    interval: u128,
    /// Units by which a start may come ahead of `due`: (this share's burst − 1) intervals.
    ahead: u128,
    /// The theoretical arrival time in units since the origin.
    due: u128,
}

impl Gcra {
    /// A limiter that has been quiet so far, so that a whole burst may start at once.
    pub fn new(rate: Rate) -> Self {
        let scale = u128::from(rate.count.max(1));
        let mut new = Self { rate, share: 1, scale, interval: 0, ahead: 0, due: 0 };
        new.apply_share();
        new
    }

    /// The first moment from `now` on at which [`try_take`](Self::try_take) succeeds.
    pub fn earliest(&self, now: Moment) -> Moment {
        let nanos = self.due.saturating_sub(self.ahead).div_ceil(self.scale);
        now.max(Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Takes the permission to start one job now.
    ///
    /// # Errors
    ///
    /// If it is too early: with the moment at which to ask again. Several who wait for the same moment take turns then;
    /// all but the first learn a later one.
    pub fn try_take(&mut self, now: Moment) -> Result<(), Moment> {
        let units = self.units(now);
        if units.saturating_add(self.ahead) < self.due {
            return Err(self.earliest(now));
        }
        // Late by less than a nanosecond is not late: it is what rounding a moment up costs, and it must not add up.
        let late = units.saturating_sub(self.due) >= self.scale;
        let start = if late { units } else { self.due };
        self.due = start.saturating_add(self.interval);
        Ok(())
    }

    /// Shares the limit among `n` instances: from now on this one starts jobs at an `n`-th of the rate, with an `n`-th
    /// of the burst, though of at least 1.
    ///
    /// `n` limiters with this share start at most `count` + max(`burst`, `n`) − 1 jobs in a window of one period.
    ///
    /// A change grants nothing: what this limiter has saved up stays as it is or is cut to its new burst, and the wait
    /// for the next start is stretched or shrunk in proportion. Instances that have not yet heard of the change go on at
    /// their old shares; until then all of them together may start jobs at up to twice the rate.
    pub fn set_share(&mut self, n: u32, now: Moment) {
        let n = n.max(1);
        if n == self.share {
            return;
        }
        let (old_share, old_burst) = (self.share, self.burst());
        self.share = n;
        self.apply_share();

        // What is missing to a full burst, in intervals, is (due − now) ÷ interval. First carry it over to intervals of
        // the new length (rounded up: later is the safe side) …
        let units = self.units(now);
        let missing = self.due.saturating_sub(units);
        let missing = missing.div_ceil(u128::from(old_share)).saturating_mul(u128::from(n));
        // … then let the difference in burst be missing too, or be cut off.
        let burst = self.burst();
        let missing = if burst >= old_burst {
            missing.saturating_add(self.interval.saturating_mul(u128::from(burst - old_burst)))
        } else {
            missing.saturating_sub(self.interval.saturating_mul(u128::from(old_burst - burst)))
        };
        self.due = units.saturating_add(missing);
    }

    /// Gives up what has been saved up: the next start is due one interval from now, or later if it was.
    pub fn drain(&mut self, now: Moment) {
        let burst = self.interval.saturating_mul(u128::from(self.burst()));
        self.due = self.due.max(self.units(now).saturating_add(burst));
    }

    /// Among how many instances the limit is shared; 1 at first.
    pub fn share(&self) -> u32 {
        self.share
    }

    fn apply_share(&mut self) {
        self.interval = u128::from(moment::nanos(self.rate.period).max(1)) * u128::from(self.share);
        self.ahead = self.interval.saturating_mul(u128::from(self.burst() - 1));
    }

    /// This share's burst.
    fn burst(&self) -> u32 {
        (self.rate.burst / self.share).max(1)
    }

    fn units(&self, moment: Moment) -> u128 {
        u128::from(moment.nanos()) * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates() -> impl Strategy<Value = Rate> {
        let periods = prop_oneof![1..2_000_u64, 1_000_000..5_000_000_000_u64];
        (1..40_u32, periods, 1..12_u32)
            .prop_map(|(count, period, burst)| count.per(Duration::from_nanos(period)).burst(burst))
    }

    /// Gaps between arrivals as shares of the interval between two starts, so that every density occurs.
    fn gaps() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(
            prop_oneof![4 => 0.0..0.5_f64, 3 => 0.5..2.0, 1 => 2.0..40.0, 2 => Just(0.0)],
            1..300,
        )
    }

    fn interval(rate: &Rate) -> f64 {
        rate.period.as_nanos() as f64 / f64::from(rate.count)
    }

    /// The moments of all starts, when jobs arrive with these gaps and are dropped if refused.
    fn starts(limiter: &mut Gcra, gaps: &[f64], at: Moment) -> Vec<Moment> {
        let length = interval(&limiter.rate);
        let mut now = at;
        let mut starts = Vec::new();
        for gap in gaps {
            now = now + Duration::from_nanos((gap * length) as u64);
            if limiter.try_take(now).is_ok() {
                starts.push(now);
            }
        }
        starts
    }

    /// The most starts in any window of `length`, its end not included.
    fn densest(starts: &[Moment], length: Duration) -> usize {
        let count =
            |&from: &Moment| starts.iter().filter(|&&at| at >= from && at.since(from) < length).count();
        starts.iter().map(count).max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_window_of_a_period_sees_more_than_count_and_burst_less_one(
            rate in rates(), gaps in gaps(), offset in 0..u64::MAX / 4,
        ) {
            let starts = starts(&mut Gcra::new(rate), &gaps, Moment::from_nanos(offset));
            prop_assert!(densest(&starts, rate.period) <= (rate.count + rate.burst - 1) as usize);
        }

        #[test]
        fn who_always_waits_for_the_earliest_moment_gets_exactly_the_rate(rate in rates(), n in 1..200_u64) {
            let mut limiter = Gcra::new(rate);
            let mut now = Moment::ORIGIN;
            for taken in 0..n {
                now = limiter.earliest(now);
                let beyond_burst = u128::from((taken + 1).saturating_sub(u64::from(rate.burst)));
                let exact = (beyond_burst * rate.period.as_nanos()).div_ceil(u128::from(rate.count));
                prop_assert_eq!(u128::from(now.nanos()), exact);
                prop_assert_eq!(limiter.try_take(now), Ok(()));
            }
        }

        #[test]
        fn earliest_is_exact(rate in rates(), gaps in gaps(), share in 1..5_u32, quiet in 0..10_000_000_u64) {
            let mut limiter = Gcra::new(rate);
            let before = starts(&mut limiter, &gaps, Moment::from_nanos(quiet));
            let now = before.last().copied().unwrap_or_default();
            limiter.set_share(share, now);
            let earliest = limiter.earliest(now);
            prop_assert!(earliest >= now);
            prop_assert_eq!(limiter.clone().try_take(earliest), Ok(()));
            if earliest > now {
                prop_assert_eq!(limiter.clone().try_take(now), Err(earliest));
                let before = Moment::from_nanos(earliest.nanos() - 1);
                prop_assert_eq!(limiter.try_take(before), Err(earliest));
            }
        }

        #[test]
        fn a_refusal_changes_nothing(rate in rates(), gaps in gaps(), asks in 1..20) {
            let mut limiter = Gcra::new(rate);
            let now = starts(&mut limiter, &gaps, Moment::ORIGIN).last().copied().unwrap_or_default();
            while limiter.try_take(now).is_ok() {}
            let earliest = limiter.earliest(now);
            for _ in 0..asks {
                prop_assert_eq!(limiter.try_take(now), Err(earliest));
            }
        }

        /// Whatever the shares were over time, between any two moments there are no more starts than one full burst
        /// and the sum of the rates that applied: so no change, nor any to and fro, gives a burst.
        #[test]
        fn changing_the_share_gives_no_burst(
            rate in rates(), steps in prop::collection::vec((0..3_000_000_u64, 1..5_u32, 0..12_usize), 1..60),
        ) {
            let mut limiter = Gcra::new(rate);
            let mut now = Moment::ORIGIN;
            // Intervals that have passed since the origin, in twelfths ÷ period so that all shares 1..5 divide it.
            let mut allowed: u128 = 0;
            let mut log = Vec::new();
            for (gap, share, greedy) in steps {
                now = now + Duration::from_nanos(gap);
                allowed += u128::from(gap) * u128::from(rate.count) * u128::from(12 / limiter.share());
                for _ in 0..greedy {
                    if limiter.try_take(now).is_ok() {
                        log.push(allowed);
                    }
                }
                limiter.set_share(share, now);
                prop_assert_eq!(limiter.share(), share);
            }
            let unit = 12 * rate.period.as_nanos();
            // Moments are rounded to it.
            let nanosecond = 12 * u128::from(rate.count);
            for (first, from) in log.iter().enumerate() {
                for (last, to) in log.iter().enumerate().skip(first) {
                    let starts = (last - first + 1) as u128;
                    prop_assert!(starts * unit <= u128::from(rate.burst) * unit + (to - from) + nanosecond);
                }
            }
        }

        #[test]
        fn a_changed_share_is_never_starved(rate in rates(), shares in prop::collection::vec(1..9_u32, 1..40)) {
            let mut limiter = Gcra::new(rate);
            let mut now = Moment::ORIGIN;
            for share in shares {
                limiter.set_share(share, now);
                let wait = limiter.earliest(now).since(now).as_nanos();
                let longest = (rate.period.as_nanos() * u128::from(share)).div_ceil(u128::from(rate.count));
                prop_assert!(wait <= longest + u128::from(share), "waits {wait} ns, an interval is {longest} ns");
                now = limiter.earliest(now);
                prop_assert_eq!(limiter.try_take(now), Ok(()));
            }
        }

        #[test]
        fn a_drained_limiter_starts_one_job_after_each_interval(
            rate in rates(), gaps in gaps(), share in 1..5_u32, quiet in 0..10_000_000_u64,
        ) {
            let mut limiter = Gcra::new(rate);
            let now = starts(&mut limiter, &gaps, Moment::from_nanos(quiet)).last().copied().unwrap_or_default();
            limiter.set_share(share, now);
            let before = limiter.earliest(now);
            limiter.drain(now);
            let drained = limiter.clone();
            let first = limiter.earliest(now);
            let interval = rate.period.as_nanos() * u128::from(share);
            let waits = u128::from(first.since(now).as_nanos() as u64) * u128::from(rate.count);
            prop_assert!(first >= before && waits >= interval, "waits {waits}, an interval is {interval}");
            prop_assert_eq!(limiter.try_take(first), Ok(()));
            limiter = drained;
            limiter.drain(now);
            prop_assert_eq!(limiter.earliest(now), first, "draining twice is draining once");
        }

        #[test]
        fn shares_together_keep_the_limit(
            rate in rates(), n in 1..6_u32, arrivals in prop::collection::vec((0..6_usize, 0.0..1.0_f64), 1..400),
        ) {
            let mut limiters = vec![Gcra::new(rate); n as usize];
            for limiter in &mut limiters {
                limiter.set_share(n, Moment::ORIGIN);
            }
            let mut now = Moment::ORIGIN;
            let mut starts = Vec::new();
            for (who, gap) in arrivals {
                now = now + Duration::from_nanos((gap * interval(&rate)) as u64);
                if limiters[who % n as usize].try_take(now).is_ok() {
                    starts.push(now);
                }
            }
            prop_assert!(densest(&starts, rate.period) < (rate.count + rate.burst.max(n)) as usize);
        }

        #[test]
        fn no_rate_and_no_moment_panics(
            count: u32, period: Duration, burst: u32, share: u32, nows in prop::collection::vec(any::<u64>(), 1..20),
        ) {
            let rate = count.per(period).burst(burst);
            let mut limiter = Gcra::new(rate);
            let _ = (rate.validate(), rate.starts_within(period));
            for now in nows {
                let now = Moment::from_nanos(now);
                limiter.set_share(share ^ limiter.share(), now);
                let _ = limiter.try_take(now);
                prop_assert!(limiter.earliest(now) >= now);
            }
        }
    }

    #[test]
    fn the_default_burst_is_a_tenth_of_a_second_and_at_most_a_tenth_of_the_count() {
        for (rate, burst) in [
            (100.per_second(), 10),
            (10_000.per_second(), 1_000),
            (5.per_second(), 1),
            (60_000.per_minute(), 100),
            (100.per_minute(), 1),
            (5_000.per_hour(), 1),
            (10.per(Duration::from_millis(10)), 1),
            (0.per(Duration::ZERO), 1),
            (u32::MAX.per(Duration::ZERO), u32::MAX / 10),
        ] {
            assert_eq!(rate.burst, burst, "{rate:?}");
        }
    }

    #[test]
    fn thirds_of_a_second_add_up() {
        let mut limiter = Gcra::new(3.per_second());
        let mut now = Moment::ORIGIN;
        for _ in 0..3_000 {
            limiter.try_take(now).unwrap();
            now = limiter.earliest(now);
        }
        assert_eq!(now, Moment::from_origin(Duration::from_secs(1_000)));
    }

    #[test]
    fn a_share_is_a_part_of_rate_and_burst() {
        let mut limiter = Gcra::new(100.per_second());
        limiter.set_share(4, Moment::ORIGIN);
        let now = Moment::from_origin(Duration::from_secs(1));
        assert_eq!(std::iter::from_fn(|| limiter.try_take(now).ok()).count(), 2);
        assert_eq!(limiter.earliest(now), now + Duration::from_millis(40));
        limiter.set_share(1, now);
        assert_eq!(limiter.earliest(now), now + Duration::from_millis(10));
    }

    #[test]
    fn starts_within_is_the_sustained_rate() {
        assert_eq!(100.per_second().starts_within(Duration::from_secs(30)), 3_000);
        assert_eq!(100.per_hour().starts_within(Duration::from_secs(30)), 0);
        assert_eq!((100.per_minute().count(), 100.per_minute().period()), (100, Duration::from_secs(60)));
    }

    #[test]
    fn mistakes_are_named_with_the_way_out() {
        100.per_second().validate().unwrap();
        for (rate, message) in [
            (0.per_second(), "`rate_limit` allows 0 starts"),
            (1.per(Duration::ZERO), "`rate_limit` has a period of 0"),
            (1.per_second().burst(0), "`rate_limit` has a burst of 0"),
        ] {
            let error = rate.validate().unwrap_err();
            assert_eq!(error.kind(), PolicyErrorKind::Rate);
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
