//! What is special about a job, drawn from the seed of the run.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use fastrand::Rng;

const AS_EVENT: u32 = 1;
const EMITS: u32 = 1 << 1;
const FAILS_ONCE: u32 = 1 << 2;
const DOOMED: u32 = 1 << 3;
const DEADLY: u32 = 1 << 4;
const CALLS: u32 = 1 << 5;
/// Where the milliseconds of a run begin.
const MILLIS: u32 = 8;

/// A job's kind, as a number that fits a payload and a line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kind(u32);

/// How often which kind comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    /// A run takes fewer milliseconds than this.
    pub(crate) millis: u32,
    /// One in so many kills its process; 0 for none.
    pub(crate) deadly: u32,
    /// Whether jobs call the dependency, and fail while it is down.
    pub(crate) calls: bool,
    /// Nothing is special about any: each succeeds at once, and emits nothing.
    pub(crate) plain: bool,
    /// One in so many, if there are any, takes so many milliseconds, and nothing else is special about it.
    pub(crate) long: Option<(u32, u32)>,
}

impl Default for Mix {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Mix {
    /// The one that most scenarios have.
    pub(crate) const USUAL: Self = Self { millis: 10, deadly: 0, calls: false, plain: false, long: None };

    /// The kind of a job: an eighth begin as an event, a quarter emit one for the second service, an eighth fail once,
    /// one in 64 is given up and recovered. The same seed draws the same kinds, whatever else happens.
    pub(crate) fn kind(self, seed: u64, job: u32) -> Kind {
        let mut chance = Rng::with_seed(seed ^ u64::from(job).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut kind = chance.u32(..self.millis.max(1)) << MILLIS;
        let mut one_in = |n: u32, flag: u32| kind |= if chance.u32(..n) == 0 { flag } else { 0 };
        one_in(8, AS_EVENT);
        one_in(4, EMITS);
        one_in(64, DOOMED);
        one_in(8, FAILS_ONCE);
        if self.deadly > 0 {
            one_in(self.deadly, DEADLY);
        }
        if self.calls {
            kind |= CALLS;
        }
        let is_long = self.long.is_some_and(|(n, _)| chance.u32(..n) == 0);
        if let (true, Some((_, millis))) = (is_long, self.long) {
            kind = millis << MILLIS;
        }
        if self.plain {
            kind = kind >> MILLIS << MILLIS;
        }
        // One reason to fail is enough.
        if kind & DEADLY != 0 {
            kind &= !(DOOMED | FAILS_ONCE);
        }
        if kind & DOOMED != 0 {
            kind &= !FAILS_ONCE;
        }
        Kind(kind)
    }
}

impl Kind {
    /// From a payload.
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// It begins as an event that the service reacts to.
    pub(crate) const fn begins_as_event(self) -> bool {
        self.has(AS_EVENT)
    }

    /// It emits an event for the second service.
    pub(crate) const fn emits(self) -> bool {
        self.has(EMITS)
    }

    /// On its first attempt.
    pub(crate) const fn fails_once(self) -> bool {
        self.has(FAILS_ONCE)
    }

    /// It is given up at its first attempt, and recovered.
    pub(crate) const fn is_doomed(self) -> bool {
        self.has(DOOMED)
    }

    /// It aborts its process each time.
    pub(crate) const fn is_deadly(self) -> bool {
        self.has(DEADLY)
    }

    /// It fails while the dependency is down.
    pub(crate) const fn calls(self) -> bool {
        self.has(CALLS)
    }

    /// It never succeeds; its recovery function does.
    pub(crate) const fn is_to_fail(self) -> bool {
        self.is_doomed() || self.is_deadly()
    }

    /// The second service is to hear of it.
    pub(crate) const fn must_be_shelved(self) -> bool {
        self.emits() && !self.is_to_fail()
    }

    pub(crate) const fn millis(self) -> u32 {
        self.0 >> MILLIS
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Kind {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
impl Kind {
    pub(crate) const fn emitting(self) -> Self {
        Self(self.0 | EMITS)
    }

    pub(crate) const fn failing_once(self) -> Self {
        Self(self.0 | FAILS_ONCE)
    }

    pub(crate) const fn doomed(self) -> Self {
        Self(self.0 | DOOMED)
    }

    pub(crate) const fn deadly(self) -> Self {
        Self(self.0 | DEADLY)
    }

    pub(crate) const fn as_event(self) -> Self {
        Self(self.0 | AS_EVENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_kinds_again_and_each_kind_as_often_as_it_should_come() {
        let mix = Mix { deadly: 100, ..Mix::default() };
        let kinds: Vec<Kind> = (0..64_000).map(|job| mix.kind(7, job)).collect();
        let again: Vec<Kind> = (0..64_000).map(|job| mix.kind(7, job)).collect();
        let other: Vec<Kind> = (0..64_000).map(|job| mix.kind(8, job)).collect();
        assert_eq!(kinds, again);
        assert_ne!(kinds, other);
        let count = |is: fn(Kind) -> bool| kinds.iter().filter(|kind| is(**kind)).count();
        for (what, is, about) in [
            ("events", Kind::begins_as_event as fn(Kind) -> bool, 8_000),
            ("emitting", Kind::emits, 16_000),
            ("doomed", Kind::is_doomed, 1_000),
            ("failing", Kind::fails_once, 7_800),
            ("deadly", Kind::is_deadly, 640),
            ("calling", Kind::calls, 0),
        ] {
            let found = count(is);
            assert!(found.abs_diff(about) <= about / 5, "{what}: {found} of about {about}");
        }
        assert!(kinds.iter().all(|kind| kind.millis() < 10));
        assert!(kinds.iter().any(|kind| kind.millis() > 5));
    }
}
