//! What a limit that is kept elsewhere has granted: a state machine between the workers, which ask without waiting, and
//! the keeper, which fetches.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::policy::{Moment, Rate};
use tokio::sync::Notify;

/// The least time for which a grant may be used.
const SHORTEST_LIFE: Duration = Duration::from_millis(250);

/// The pause after a refusal, so that a fast limit is not asked for each of its starts.
const PAUSE: Duration = Duration::from_millis(5);

/// The grants of one limit.
#[derive(Debug)]
pub(super) struct Grants {
    state: Mutex<State>,
    /// Tells the keeper that a worker wants starts.
    demand: Notify,
    /// For how long a grant may be used: an instance that could not use it in time must not save it up.
    life: Duration,
    /// How long not to ask after a refusal, at least. Half a burst is saved up meanwhile, so nothing is lost.
    pause: Duration,
    burst: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The local share holds.
    Local {
        /// Starts since then, at most a burst: they are paid for before grants are used again.
        spent: u32,
    },
    /// Starts are granted.
    Granted {
        tokens: u32,
        /// From then on the tokens are void.
        void_at: Moment,
        /// Until then there is nothing to be had.
        next: Moment,
        /// How many starts the keeper has been asked for and has not answered.
        asked: Option<u32>,
    },
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The local share decides.
    Local,
    /// A start is granted.
    Now,
    /// None before this moment.
    At(Moment),
    /// The keeper asks; the worker is woken.
    Asking,
}

impl Grants {
    pub(super) fn new(rate: Rate) -> Self {
        let interval = rate.period() / rate.count().max(1);
        let half_a_burst = interval.saturating_mul(rate.at_once()) / 2;
        Self {
            state: Mutex::new(State::Local { spent: 0 }),
            demand: Notify::new(),
            life: interval.max(SHORTEST_LIFE),
            pause: half_a_burst.min(PAUSE),
            burst: rate.at_once(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a start may be, for a worker that could start `ready` jobs now. Where none is granted, they are asked for.
    pub(super) fn turn(&self, now: Moment, ready: u32) -> Turn {
        match &mut *self.state() {
            State::Local { .. } => Turn::Local,
            State::Granted { tokens, void_at, .. } if *tokens > 0 && now < *void_at => Turn::Now,
            State::Granted { next, .. } if now < *next => Turn::At(*next),
            State::Granted { asked: Some(_), .. } => Turn::Asking,
            State::Granted { asked, .. } => {
                *asked = Some(ready.max(1));
                self.demand.notify_one();
                Turn::Asking
            }
        }
    }

    /// Takes a granted start; `None` when the local share decides.
    pub(super) fn take(&self, now: Moment) -> Option<Result<(), Moment>> {
        match &mut *self.state() {
            State::Local { .. } => None,
            State::Granted { tokens, void_at, .. } if *tokens > 0 && now < *void_at => {
                *tokens -= 1;
                Some(Ok(()))
            }
            State::Granted { next, .. } => Some(Err(now.max(*next))),
        }
    }

    /// A job was started on the local share.
    pub(super) fn spend(&self) {
        if let State::Local { spent } = &mut *self.state() {
            *spent = spent.saturating_add(1).min(self.burst);
        }
    }

    /// What was started on the local share and is to be paid for.
    pub(super) fn spent(&self) -> u32 {
        match *self.state() {
            State::Local { spent } => spent,
            State::Granted { .. } => 0,
        }
    }

    /// From now on starts are granted.
    pub(super) fn begin(&self, now: Moment) {
        *self.state() = State::Granted { tokens: 0, void_at: now, next: now, asked: None };
    }

    /// From now on the local share holds.
    pub(super) fn end(&self) {
        *self.state() = State::Local { spent: 0 };
    }

    /// How many starts are wanted; waits until some are.
    ///
    /// # Cancel safety
    ///
    /// What is wanted stays so, but a waiting that was cut off may have heard of it; [`begin`](Self::begin) starts afresh.
    pub(super) async fn wanted(&self) -> u32 {
        loop {
            let asked = match *self.state() {
                State::Granted { asked, .. } => asked,
                State::Local { .. } => None,
            };
            match asked {
                Some(wanted) => return wanted,
                None => self.demand.notified().await,
            }
        }
    }

    /// The answer to what was wanted: so many starts, and the time until there may be another.
    pub(super) fn grant(&self, now: Moment, granted: u32, wait: Duration) {
        if let State::Granted { tokens, void_at, next, asked } = &mut *self.state() {
            let wanted = asked.take().unwrap_or(0);
            *tokens = granted.min(wanted);
            *void_at = now + self.life;
            *next = if granted < wanted { now + wait.max(self.pause) } else { now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ponos_core::policy::RateExt;

    const MS: Duration = Duration::from_millis(1);

    fn begun(rate: Rate) -> (Grants, Moment) {
        let (grants, now) = (Grants::new(rate), Moment::ORIGIN);
        grants.begin(now);
        (grants, now)
    }

    #[test]
    fn nothing_starts_before_it_is_granted_and_each_grant_is_one_start() {
        let (grants, now) = begun(100.per_second());
        assert_eq!(grants.turn(now, 3), Turn::Asking);
        assert_eq!(grants.take(now), Some(Err(now)));
        grants.grant(now, 2, 10 * MS);
        for _ in 0..2 {
            assert_eq!(grants.turn(now, 3), Turn::Now);
            assert_eq!(grants.take(now), Some(Ok(())));
        }
        let next = now + 10 * MS;
        assert_eq!(grants.turn(now, 1), Turn::At(next));
        assert_eq!(grants.take(now), Some(Err(next)));
        assert_eq!(grants.turn(next, 1), Turn::Asking);
    }

    #[test]
    fn a_question_under_way_is_not_asked_again() {
        let (grants, now) = begun(100.per_second());
        assert_eq!(grants.turn(now, 2), Turn::Asking);
        assert_eq!(grants.turn(now, 9), Turn::Asking);
        grants.grant(now, 9, Duration::ZERO);
        assert_eq!([(); 3].map(|()| grants.take(now)), [Some(Ok(())), Some(Ok(())), Some(Err(now))]);
    }

    #[test]
    fn a_grant_is_void_after_a_while() {
        let (grants, now) = begun(100.per_second());
        assert_eq!(grants.turn(now, 1), Turn::Asking);
        grants.grant(now, 1, Duration::ZERO);
        let late = now + SHORTEST_LIFE;
        assert_eq!(grants.take(late), Some(Err(late)));
        assert_eq!(grants.turn(late, 1), Turn::Asking);
    }

    #[test]
    fn a_refusal_by_a_fast_limit_is_a_pause_that_saves_up_half_a_burst_at_most() {
        for (rate, pause) in [
            (5_000.per_second(), PAUSE),
            (1_000.per_second().burst(1), Duration::from_micros(500)),
            (50.per_second(), PAUSE),
        ] {
            let (grants, now) = begun(rate);
            assert_eq!(grants.turn(now, 1), Turn::Asking);
            grants.grant(now, 0, Duration::from_micros(1));
            assert_eq!(grants.turn(now, 1), Turn::At(now + pause), "{rate:?}");
        }
    }

    #[test]
    fn local_starts_are_counted_up_to_a_burst() {
        let grants = Grants::new(100.per_second().burst(3));
        assert_eq!((grants.turn(Moment::ORIGIN, 1), grants.take(Moment::ORIGIN)), (Turn::Local, None));
        assert_eq!(grants.spent(), 0);
        for _ in 0..5 {
            grants.spend();
        }
        assert_eq!(grants.spent(), 3);
        grants.begin(Moment::ORIGIN);
        grants.end();
        assert_eq!(grants.spent(), 0);
    }
}
