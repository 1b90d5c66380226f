//! How long things took, in buckets that grow with the time.

use std::time::Duration;

/// Below so many microseconds, as a power of two, everything is in the first bucket.
const FIRST: u32 = 6;

/// 64 µs to some 50 days, four buckets per doubling, and one below.
const BUCKETS: usize = 145;

/// A distribution of times. A quantile is right within an eighth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// As many as there are up to the highest that is not 0.
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// Counts a time.
    pub fn add(&mut self, time: Duration) {
        self.add_to(bucket(time), 1);
    }

    /// Counts what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (place, count) in other.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add_to(place, *count);
        }
    }

    /// How many times were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The time that this share (0.5 for the median) of all took at most; `None` where there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let rank = ((self.count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        let place = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Duration::from_micros(u64::midpoint(lower(place), lower(place + 1))))
    }

    /// The median.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// What 95 of 100 took at most.
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        self.quantile(0.95)
    }

    /// What 99 of 100 took at most.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    fn add_to(&mut self, place: usize, count: u64) {
        if self.buckets.len() <= place {
            self.buckets.resize(place + 1, 0);
        }
        self.buckets[place] = self.buckets[place].saturating_add(count);
        self.count = self.count.saturating_add(count);
    }

    /// Pairs of the distance to the bucket before and the count, as LEB128.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut before = 0;
        for (place, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            unsigned(&mut out, (place - before) as u64);
            unsigned(&mut out, *count);
            before = place;
        }
        out
    }

    /// What cannot be read is left out.
    pub(crate) fn from_bytes(mut bytes: &[u8]) -> Self {
        let mut histogram = Self::default();
        let mut place = 0usize;
        while let (Some(step), Some(count)) = (read(&mut bytes), read(&mut bytes)) {
            place = place.saturating_add(usize::try_from(step).unwrap_or(usize::MAX));
            if place >= BUCKETS {
                break;
            }
            histogram.add_to(place, count);
        }
        histogram
    }
}

fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let Some(octave) = micros.checked_ilog2().filter(|octave| *octave >= FIRST) else {
        return 0;
    };
    let quarter = (micros >> (octave - 2)) & 3;
    (1 + (octave - FIRST) as usize * 4 + usize::try_from(quarter).unwrap_or(0)).min(BUCKETS - 1)
}

/// The least time of a bucket, in microseconds.
const fn lower(place: usize) -> u64 {
    match place.checked_sub(1) {
        None => 0,
        Some(place) => (4 + place as u64 % 4) << (FIRST - 2 + (place / 4) as u32),
    }
}

fn unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_right_within_an_eighth(mut micros in proptest::collection::vec(64u64..1 << 41, 1..200), share in 0.0f64..1.0) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|it| histogram.add(Duration::from_micros(*it)));
            micros.sort_unstable();
            let rank = ((micros.len() as f64 * share).ceil() as usize).max(1);
            let exact = micros[rank - 1] as f64;
            let said = histogram.quantile(share).unwrap().as_micros() as f64;
            prop_assert!((said - exact).abs() <= exact / 7.9, "{said} {exact}");
            prop_assert_eq!(Histogram::from_bytes(&histogram.to_bytes()), histogram);
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Histogram::from_bytes(&bytes).quantile(0.99);
        }
    }

    #[test]
    fn every_time_has_a_bucket() {
        for time in [Duration::ZERO, Duration::from_micros(63), Duration::MAX] {
            let mut histogram = Histogram::default();
            histogram.add(time);
            assert!(histogram.p50().is_some());
        }
        assert_eq!(Histogram::default().p50(), None);
    }
}
