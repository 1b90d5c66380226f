//! The broker's time: it never goes back and never stands still for long, whatever is done to the wall clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ponos_core::id::Timestamp;

/// How far the persisted time may lag, so that not every commit writes a page for it.
const PERSIST_EVERY: Duration = Duration::from_millis(100);

/// Going back by less is not a clock that was set but two threads that read it one after the other.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Broker time = wall time + an offset that grows by whatever the wall clock is set back.
///
/// With the wall clock alone, setting it back would hide for so long what is ready already. With the plain maximum
/// of what was seen, time would stand still for so long, and each delay that a worker computes from its (correct)
/// wall clock would lie in the broker's past and end at once: early. So both are kept: times in the file are broker
/// time, and a due time is translated when it comes in. A wall clock that is set *forward* ends delays early;
/// nothing can tell that from time that passed.
///
/// Latest time and offset are persisted in `meta`, so that processes and restarts agree.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// The latest broker time seen, in milliseconds. Written by every thread that asks, only upwards.
    latest: AtomicU64,
    /// What is added to the wall clock, in milliseconds. Written by the same, only upwards.
    offset: AtomicU64,
}

impl Clock {
    /// Broker time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(|| SystemTime::now().into())
    }

    /// Broker time when the wall shows what `wall` reads.
    ///
    /// The offset is taken first and the wall is read second. The other way round a thread that has read the wall just
    /// before it was set back adds the offset to it with which another thread has answered that: time would leap
    /// ahead by as much, and every delay would end.
    fn at(&self, wall: impl FnOnce() -> Timestamp) -> Timestamp {
        let offset = self.offset.load(Ordering::Acquire);
        let wall = wall();
        let mut now = wall.as_millis().saturating_add(offset);
        let latest = self.latest.fetch_max(now, Ordering::AcqRel);
        if Timestamp::from_millis(latest).since(Timestamp::from_millis(now)) > TOLERANCE {
            self.offset.fetch_max(latest.saturating_sub(wall.as_millis()), Ordering::AcqRel);
            tracing::warn!(by_ms = latest - now, "the wall clock was set back: delays go on as they were");
        }
        now = now.max(latest);
        Timestamp::from_millis(now)
    }

    /// A due time of the wall clock in broker time.
    ///
    /// To be asked as soon as the time comes in, on its caller's thread: a wall clock that is set back before the writer
    /// comes to it would add as much to the delay. The clock is looked at, because it may have been set back a moment ago.
    pub(crate) fn due(&self, wall: Timestamp) -> Timestamp {
        self.now();
        self.in_broker_time(wall)
    }

    fn in_broker_time(&self, wall: Timestamp) -> Timestamp {
        Timestamp::from_millis(wall.as_millis().saturating_add(self.offset.load(Ordering::Acquire)))
    }

    /// A broker time as people know it.
    pub(crate) fn wall(&self, time: Timestamp) -> Timestamp {
        Timestamp::from_millis(time.as_millis().saturating_sub(self.offset.load(Ordering::Acquire)))
    }

    /// Takes over what another process, or an earlier one, has persisted.
    pub(crate) fn learn(&self, latest: u64, offset: u64) {
        self.offset.fetch_max(offset, Ordering::AcqRel);
        self.latest.fetch_max(latest, Ordering::AcqRel);
    }

    /// What is to be persisted beside the time.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Whether a commit at `now` should persist it, when `persisted` is what the file holds.
    pub(crate) fn should_persist(now: Timestamp, persisted: Timestamp) -> bool {
        now.since(persisted) >= PERSIST_EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &Clock, millis: u64) -> u64 {
        clock.at(|| Timestamp::from_millis(millis)).as_millis()
    }

    #[test]
    fn a_small_step_back_holds_the_time() {
        let clock = Clock::default();
        assert_eq!([100, 50, 99, 101, 0].map(|wall| at(&clock, wall)), [100, 100, 100, 101, 101]);
        assert_eq!(clock.offset(), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_neither_hides_nor_hastens() {
        let clock = Clock::default();
        const HOUR: u64 = 3_600_000;
        let before = at(&clock, 10 * HOUR);
        assert_eq!(at(&clock, 9 * HOUR), before, "time does not go back");
        assert_eq!(at(&clock, 9 * HOUR + 500), before + 500, "and goes on");
        let due = clock.in_broker_time(Timestamp::from_millis(9 * HOUR + 2000));
        assert_eq!(due.as_millis(), before + 2000, "a delay keeps its length");
        assert_eq!(clock.wall(due).as_millis(), 9 * HOUR + 2000);
    }

    #[test]
    fn a_thread_that_read_the_wall_before_it_was_set_back_does_not_leap_ahead() {
        let clock = Clock::default();
        const HOUR: u64 = 3_600_000;
        let before = at(&clock, 10 * HOUR);
        let stale = clock.at(|| {
            let stale = Timestamp::from_millis(10 * HOUR + 1);
            // Meanwhile another thread sees that it was set back.
            assert_eq!(at(&clock, 9 * HOUR), before);
            stale
        });
        assert_eq!(stale.as_millis(), before + 1);
        assert_eq!(at(&clock, 9 * HOUR + 10), before + 10, "and nothing was added twice");
    }

    #[test]
    fn a_due_time_is_translated_by_a_clock_that_looks_first() {
        let clock = Clock::default();
        // Another process saw the wall an hour ahead of where it is now.
        let ahead = Duration::from_secs(3600);
        let latest = Timestamp::from(SystemTime::now()) + ahead;
        clock.learn(latest.as_millis(), 0);
        let due = clock.due(Timestamp::from(SystemTime::now()) + Duration::from_secs(2));
        assert!(due.since(latest) > Duration::from_secs(1), "{due:?} after {latest:?}");
    }

    #[test]
    fn what_another_process_saw_counts() {
        let clock = Clock::default();
        clock.learn(5000, 1000);
        assert_eq!(at(&clock, 4200), 5200);
        assert_eq!(at(&clock, 3999), 5200);
    }
}
