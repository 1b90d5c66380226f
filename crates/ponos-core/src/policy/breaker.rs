mod config;
mod window;

pub use config::BreakerConfig;

use super::{Moment, jitter};
use std::time::Duration;
use window::{Counts, Window};

/// A circuit breaker: it tells whether a dependency is healthy enough to be given work.
///
/// The pattern is Michael Nygard's ("Release It!", chapter "Stability Patterns"), with one difference: there an open
/// circuit refuses calls, here the worker stops listening to the queue, which keeps the jobs; so none is burnt.
///
/// ```text
///            ratio or row of failures            deadline, or health found ok
///   Closed ───────────────────────────▶ Open ───────────────────────────────▶ HalfOpen
///     ▲                                   ▲          a probe failed              │ │
///     │                                   └──────────────────────────────────────┘ │
///     └─────────────────── `close_after` probes have succeeded ────────────────────┘
/// ```
///
/// Each job asks for a [`Permit`] before it starts and reports with it when it ends. A permit belongs to the state in
/// which it was given: if the breaker has changed its state since, the report is ignored. So the jobs that were still
/// running when the breaker tripped, and end while it is open, probing or closed again, neither close nor open it.
///
/// All methods take constant time and allocate nothing. The owner calls [`tick`](Self::tick) at the `until` of
/// [`Transition::Opened`].
///
/// ```
/// use ponos_core::policy::{Breaker, BreakerConfig, Moment, Outcome, Transition};
///
/// let mut breaker = Breaker::new(BreakerConfig::default().consecutive(2).close_after(1).open_jitter(0.0));
/// let mut now = Moment::ORIGIN;
/// let (first, second) = (breaker.permit().unwrap(), breaker.permit().unwrap());
/// assert_eq!(breaker.report(first, Outcome::Failure, now, 0), None);
/// let Some(Transition::Opened { until, .. }) = breaker.report(second, Outcome::Failure, now, 0) else { panic!() };
/// assert!(breaker.permit().is_none());
///
/// now = until;
/// assert_eq!(breaker.tick(now), Some(Transition::HalfOpened));
/// let probe = breaker.permit().unwrap();
/// assert!(breaker.permit().is_none(), "one probe at a time");
/// assert_eq!(breaker.report(probe, Outcome::Success, now, 0), Some(Transition::Closed));
/// ```
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    /// Counts the transitions; a permit of another generation is out of date.
    generation: u64,
    /// The outcomes since the breaker closed last.
    window: Window,
    /// Failures since the last success or since the breaker closed last.
    row: u32,
    /// How long the breaker stays open the next time, before jitter.
    next_open: Duration,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open {
        until: Moment,
    },
    HalfOpen {
        /// Probes that have succeeded.
        successes: u32,
        /// Whether a probe is running.
        probing: bool,
    },
}

/// What a [`Breaker`] does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Work flows; outcomes are watched.
    Closed,
    /// No work is started.
    Open {
        /// When probing begins, unless the dependency is found healthy before.
        until: Moment,
    },
    /// One job at a time is tried.
    HalfOpen,
}

/// The right to start one job, to be handed back with [`Breaker::report`].
///
/// It cannot be copied, so a job reports once. A probe's permit that is dropped without a report occupies the only
/// place: the breaker then stays half-open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not reported back leaves the breaker without the job's outcome"]
pub struct Permit {
    generation: u64,
    probe: bool,
}

impl Permit {
    /// Whether the job is the probe of a half-open breaker.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// What a job's end tells about the dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The dependency worked.
    Success,
    /// The dependency may be sick: a retryable error or a timeout.
    Failure,
    /// It tells nothing: a fatal error, a snooze, or a job that was handed back unrun. A probe that ends so is
    /// inconclusive, and another takes its place.
    Ignored,
}

/// A change of a [`Breaker`]'s state, which its owner has to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Stop listening to the queue.
    Opened {
        /// When to call [`Breaker::tick`].
        until: Moment,
        /// Why.
        cause: TripCause,
    },
    /// Take one job at a time.
    HalfOpened,
    /// Work as usual.
    Closed,
}

/// Why a [`Breaker`] opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TripCause {
    /// So many of the outcomes in the window were failures.
    Ratio {
        /// The failures.
        failures: u32,
        /// All outcomes, the failures included.
        calls: u32,
    },
    /// So many failures came in a row.
    Consecutive(u32),
    /// A half-open breaker's probe failed.
    Probe,
}

impl std::fmt::Display for TripCause {
    /// In a few words, for logs and records: `12 of 20 attempts failed`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ratio { failures, calls } => write!(f, "{failures} of {calls} attempts failed"),
            Self::Consecutive(row) => write!(f, "{row} attempts failed in a row"),
            Self::Probe => f.write_str("the attempt that tried it failed"),
        }
    }
}

impl Breaker {
    /// A closed breaker that has seen nothing yet.
    pub fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: State::Closed,
            generation: 0,
            window: Window::new(config.window),
            row: 0,
            next_open: config.open_initial,
        }
    }

    /// The state after the last transition. An open breaker whose time has come stays open until the next
    /// [`tick`](Self::tick).
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } => BreakerState::Open { until },
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks for the right to start a job: always granted while closed, to one job at a time while half-open, never
    /// while open.
    pub fn permit(&mut self) -> Option<Permit> {
        let probe = match &mut self.state {
            State::Closed => false,
            State::HalfOpen { probing, .. } if !*probing => {
                *probing = true;
                true
            }
            State::HalfOpen { .. } | State::Open { .. } => return None,
        };
        Some(Permit { generation: self.generation, probe })
    }

    /// Tells how the job with this `permit` ended; `roll` is 64 random bits, which choose an open time's jitter.
    ///
    /// Only a failure can open a closed breaker: a success that fills the window up to `min_calls` does not.
    pub fn report(&mut self, permit: Permit, outcome: Outcome, now: Moment, roll: u64) -> Option<Transition> {
        if permit.generation != self.generation {
            return None;
        }
        match (self.state, outcome) {
            (State::Closed, Outcome::Success) => {
                self.row = 0;
                self.window.record(now, false);
                None
            }
            (State::Closed, Outcome::Failure) => {
                self.row = self.row.saturating_add(1);
                self.window.record(now, true);
                self.tripped().map(|cause| self.open(cause, now, roll))
            }
            (State::HalfOpen { successes, .. }, Outcome::Success) => {
                let successes = successes.saturating_add(1);
                self.state = State::HalfOpen { successes, probing: false };
                (successes >= self.config.close_after).then(|| self.close())
            }
            (State::HalfOpen { .. }, Outcome::Failure) => Some(self.open(TripCause::Probe, now, roll)),
            (State::HalfOpen { successes, .. }, Outcome::Ignored) => {
                self.state = State::HalfOpen { successes, probing: false };
                None
            }
            // No permit is given while open, so none of this generation can come back.
            (State::Closed, Outcome::Ignored) | (State::Open { .. }, _) => None,
        }
    }

    /// Tells the time: an open breaker whose time has come begins to probe.
    pub fn tick(&mut self, now: Moment) -> Option<Transition> {
        match self.state {
            State::Open { until } if now >= until => Some(self.half_open()),
            _ => None,
        }
    }

    /// Tells that the dependency was found healthy by other means, such as a health function: an open breaker begins
    /// to probe at once. It is only a hint: jobs have to succeed before the breaker closes.
    pub fn health_ok(&mut self) -> Option<Transition> {
        matches!(self.state, State::Open { .. }).then(|| self.half_open())
    }

    /// Whether the outcomes so far open a closed breaker.
    fn tripped(&self) -> Option<TripCause> {
        if self.row >= self.config.consecutive {
            return Some(TripCause::Consecutive(self.row));
        }
        let Counts { calls, failures } = self.window.total();
        // A quotient, because it is rounded correctly: 7 of 10 are 0.7 exactly, which 0.7 × 10 need not be.
        let ratio = f64::from(failures) / f64::from(calls);
        (calls >= self.config.min_calls && ratio >= self.config.failure_ratio)
            .then_some(TripCause::Ratio { failures, calls })
    }

    fn open(&mut self, cause: TripCause, now: Moment, roll: u64) -> Transition {
        let until = now + jitter::stretch(self.next_open, self.config.open_jitter, roll);
        self.next_open = self.next_open.saturating_mul(2).min(self.config.open_max);
        self.enter(State::Open { until });
        Transition::Opened { until, cause }
    }

    fn half_open(&mut self) -> Transition {
        self.enter(State::HalfOpen { successes: 0, probing: false });
        Transition::HalfOpened
    }

    fn close(&mut self) -> Transition {
        self.next_open = self.config.open_initial;
        self.row = 0;
        self.window = Window::new(self.config.window);
        self.enter(State::Closed);
        Transition::Closed
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEC: Duration = Duration::from_secs(1);

    fn at(secs: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(secs))
    }

    /// Runs one job at once.
    fn run(breaker: &mut Breaker, outcome: Outcome, now: Moment) -> Option<Transition> {
        let permit = breaker.permit().expect("the breaker gives a permit");
        breaker.report(permit, outcome, now, 0)
    }

    /// A breaker that has tripped at the origin and is open for 10 s.
    fn tripped(config: BreakerConfig) -> Breaker {
        let mut breaker = Breaker::new(config);
        while run(&mut breaker, Outcome::Failure, at(0)).is_none() {}
        breaker
    }

    /// The same rules, written down as naively as possible: it remembers every outcome there ever was.
    struct Model {
        config: BreakerConfig,
        state: State,
        history: Vec<(Moment, Outcome)>,
        probes: Vec<Outcome>,
        failed_openings: u32,
    }

    impl Model {
        fn report(&mut self, stale: bool, outcome: Outcome, now: Moment) -> Option<&'static str> {
            if stale || outcome == Outcome::Ignored {
                return None;
            }
            match self.state {
                State::Closed => {
                    self.history.push((now, outcome));
                    let part = |moment: Moment| moment.nanos() / (self.config.window.as_nanos() as u64 / 12);
                    let recent = self.history.iter().filter(|(then, _)| part(*then) + 12 > part(now));
                    let (calls, failures) = recent.fold((0_u32, 0_u32), |(calls, failures), (_, outcome)| {
                        (calls + 1, failures + u32::from(*outcome == Outcome::Failure))
                    });
                    let row = self.history.iter().rev().take_while(|(_, o)| *o == Outcome::Failure).count();
                    let ratio = f64::from(failures) / f64::from(calls);
                    let trips = outcome == Outcome::Failure
                        && (row >= self.config.consecutive as usize
                            || calls >= self.config.min_calls && ratio >= self.config.failure_ratio);
                    trips.then_some("opened")
                }
                State::HalfOpen { .. } => {
                    self.probes.push(outcome);
                    if outcome == Outcome::Failure {
                        self.failed_openings += 1;
                        return Some("opened");
                    }
                    (self.probes.len() >= self.config.close_after as usize).then_some("closed")
                }
                State::Open { .. } => None,
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Start,
        End { which: usize, outcome: Outcome, roll: u64 },
        Wait(Duration),
        HealthOk,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let outcome = prop_oneof![
            5 => Just(Outcome::Failure),
            4 => Just(Outcome::Success),
            1 => Just(Outcome::Ignored),
        ];
        let step = prop_oneof![
            8 => Just(Step::Start),
            8 => (any::<usize>(), outcome, any::<u64>()).prop_map(|(which, outcome, roll)| Step::End { which, outcome, roll }),
            3 => (0..12_000_u64).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
            1 => (0..400_u64).prop_map(|secs| Step::Wait(Duration::from_secs(secs))),
            1 => Just(Step::HealthOk),
        ];
        prop::collection::vec(step, 1..600)
    }

    fn configs() -> impl Strategy<Value = BreakerConfig> {
        (1..100_u64, 1..30_u32, 0.05..1.0_f64, 1..15_u32, 1..20_u64, 0..100_u64, 0.0..1.0_f64, 1..5_u32)
            .prop_map(|(window, min_calls, ratio, consecutive, initial, more, jitter, close_after)| {
                BreakerConfig::default()
                    .window(Duration::from_secs(window))
                    .min_calls(min_calls)
                    .failure_ratio(ratio)
                    .consecutive(consecutive)
                    .open_initial(Duration::from_secs(initial))
                    .open_max(Duration::from_secs(initial + more))
                    .open_jitter(jitter)
                    .close_after(close_after)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn it_does_what_the_naive_model_does(config in configs(), steps in steps()) {
            config.validate().unwrap();
            let mut breaker = Breaker::new(config);
            let mut model =
                Model { config, state: State::Closed, history: vec![], probes: vec![], failed_openings: 0 };
            // The permits of running jobs, with the number of transitions at their start.
            let mut running: Vec<(Permit, u64)> = Vec::new();
            let mut transitions = 0;
            let mut now = Moment::ORIGIN;
            for step in steps {
                let before = breaker.state();
                let (expected, got) = match step {
                    Step::Start => {
                        let probing = running.iter().any(|(permit, since)| permit.is_probe() && *since == transitions);
                        let expected = match model.state {
                            State::Closed => true,
                            State::Open { .. } => false,
                            State::HalfOpen { .. } => !probing,
                        };
                        let permit = breaker.permit();
                        prop_assert_eq!(permit.is_some(), expected);
                        running.extend(permit.map(|permit| (permit, transitions)));
                        (None, None)
                    }
                    Step::End { .. } if running.is_empty() => (None, None),
                    Step::End { which, outcome, roll } => {
                        let (permit, since) = running.swap_remove(which % running.len());
                        let expected = model.report(since != transitions, outcome, now);
                        (expected, breaker.report(permit, outcome, now, roll))
                    }
                    Step::Wait(time) => {
                        now = now + time;
                        let due = matches!(model.state, State::Open { until } if now >= until);
                        (due.then_some("half-opened"), breaker.tick(now))
                    }
                    Step::HealthOk => {
                        let open = matches!(model.state, State::Open { .. });
                        (open.then_some("half-opened"), breaker.health_ok())
                    }
                };
                let name = got.map(|transition| match transition {
                    Transition::Opened { .. } => "opened",
                    Transition::HalfOpened => "half-opened",
                    Transition::Closed => "closed",
                });
                prop_assert_eq!(name, expected);
                match got {
                    None => prop_assert_eq!(breaker.state(), before),
                    Some(Transition::Opened { until, cause }) => {
                        prop_assert_eq!(cause == TripCause::Probe, before == BreakerState::HalfOpen);
                        // Doubled for each probe that failed since the breaker was closed, and bounded.
                        let doubled = config.open_initial.saturating_mul(1 << model.failed_openings.min(20));
                        let least = doubled.min(config.open_max);
                        let time = until.since(now);
                        prop_assert!(least <= time, "open for {time:?}, not {least:?}");
                        prop_assert!(time <= least.mul_f64(1.0 + config.open_jitter) + Duration::from_nanos(1));
                        prop_assert_eq!(breaker.state(), BreakerState::Open { until });
                        model.state = State::Open { until };
                    }
                    Some(Transition::HalfOpened) => {
                        model.probes.clear();
                        model.state = State::HalfOpen { successes: 0, probing: false };
                        prop_assert_eq!(breaker.state(), BreakerState::HalfOpen);
                    }
                    Some(Transition::Closed) => {
                        prop_assert!(model.probes.iter().all(|outcome| *outcome == Outcome::Success));
                        prop_assert_eq!(model.probes.len(), config.close_after as usize);
                        model.history.clear();
                        model.failed_openings = 0;
                        model.state = State::Closed;
                        prop_assert_eq!(breaker.state(), BreakerState::Closed);
                    }
                }
                transitions += u64::from(got.is_some());
            }
        }

        #[test]
        fn late_results_of_jobs_from_before_the_trip_change_nothing(
            late in prop::collection::vec(any::<bool>(), 1..100), probes_before in 0..3_u32, failing: bool,
        ) {
            let mut breaker = Breaker::new(BreakerConfig::default());
            let permits: Vec<Permit> = late.iter().filter_map(|_| breaker.permit()).collect();
            for _ in 0..10 {
                let _ = run(&mut breaker, Outcome::Failure, at(0));
            }
            if failing {
                breaker.tick(at(100));
                for _ in 0..probes_before {
                    let _ = run(&mut breaker, Outcome::Success, at(100));
                }
            }
            let before = breaker.state();
            prop_assert_ne!(before, BreakerState::Closed);
            for (permit, ok) in permits.into_iter().zip(late) {
                let outcome = if ok { Outcome::Success } else { Outcome::Failure };
                prop_assert_eq!(breaker.report(permit, outcome, at(101), u64::MAX), None);
                prop_assert_eq!(breaker.state(), before);
            }
            if failing {
                for probe in probes_before + 1..=3 {
                    let closed = (probe == 3).then_some(Transition::Closed);
                    prop_assert_eq!(run(&mut breaker, Outcome::Success, at(101)), closed);
                }
            }
        }

        #[test]
        fn no_configuration_and_no_moment_panics(
            window: Duration, counts: [u32; 3], ratio: f64, initial: Duration, max: Duration, jitter: f64,
            reports in prop::collection::vec((any::<u64>(), any::<bool>(), any::<u64>()), 1..60),
        ) {
            let config = BreakerConfig::default()
                .window(window).min_calls(counts[0]).consecutive(counts[1]).close_after(counts[2])
                .failure_ratio(ratio).open_initial(initial).open_max(max).open_jitter(jitter);
            let _ = config.validate();
            let mut breaker = Breaker::new(config);
            for (now, ok, roll) in reports {
                let now = Moment::from_nanos(now);
                breaker.tick(now);
                if let Some(permit) = breaker.permit() {
                    let outcome = if ok { Outcome::Success } else { Outcome::Failure };
                    breaker.report(permit, outcome, now, roll);
                }
            }
        }
    }

    #[test]
    fn ten_failures_in_a_row_trip_a_quiet_queue() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for hour in 0..9 {
            assert_eq!(run(&mut breaker, Outcome::Failure, at(hour * 3_600)), None);
        }
        let now = at(9 * 3_600);
        let cause = TripCause::Consecutive(10);
        assert_eq!(
            run(&mut breaker, Outcome::Failure, now),
            Some(Transition::Opened { until: now + 10 * SEC, cause })
        );
    }

    #[test]
    fn half_of_twenty_trips_and_less_does_not() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..9 {
            assert_eq!(run(&mut breaker, Outcome::Failure, at(1)), None);
            assert_eq!(run(&mut breaker, Outcome::Success, at(1)), None);
        }
        let mut other = breaker.clone();
        assert_eq!(run(&mut breaker, Outcome::Success, at(1)), None);
        let cause = TripCause::Ratio { failures: 10, calls: 20 };
        assert_eq!(
            run(&mut breaker, Outcome::Failure, at(1)),
            Some(Transition::Opened { until: at(11), cause })
        );

        for _ in 0..2 {
            assert_eq!(run(&mut other, Outcome::Success, at(1)), None);
        }
        assert_eq!(run(&mut other, Outcome::Failure, at(1)), None, "10 of 21");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..9 {
            let _ = run(&mut breaker, Outcome::Failure, at(0));
            let _ = run(&mut breaker, Outcome::Success, at(0));
        }
        for _ in 0..9 {
            assert_eq!(run(&mut breaker, Outcome::Failure, at(60)), None);
        }
    }

    #[test]
    fn ignored_outcomes_count_for_nothing_and_break_no_row() {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..9 {
            let _ = run(&mut breaker, Outcome::Failure, at(0));
            for _ in 0..100 {
                assert_eq!(run(&mut breaker, Outcome::Ignored, at(0)), None);
            }
        }
        assert!(run(&mut breaker, Outcome::Failure, at(0)).is_some());
    }

    #[test]
    fn an_inconclusive_probe_makes_room_for_another() {
        let mut breaker = tripped(BreakerConfig::default().open_jitter(0.0));
        assert_eq!(breaker.tick(Moment::from_nanos(9_999_999_999)), None);
        assert_eq!(breaker.tick(at(10)), Some(Transition::HalfOpened));
        let _ = run(&mut breaker, Outcome::Success, at(10));
        for _ in 0..100 {
            assert_eq!(run(&mut breaker, Outcome::Ignored, at(10)), None);
        }
        let _ = run(&mut breaker, Outcome::Success, at(10));
        assert_eq!(run(&mut breaker, Outcome::Success, at(10)), Some(Transition::Closed));
    }

    #[test]
    fn the_open_time_doubles_up_to_its_maximum_and_starts_anew_after_closing() {
        let mut breaker = tripped(BreakerConfig::default());
        let mut times = Vec::new();
        let mut now = at(0);
        for _ in 0..7 {
            let BreakerState::Open { until } = breaker.state() else { panic!("{breaker:?}") };
            times.push(until.since(now).as_secs());
            now = until;
            breaker.tick(now);
            let _ = run(&mut breaker, Outcome::Failure, now);
        }
        assert_eq!(times, [10, 20, 40, 80, 160, 300, 300]);

        assert_eq!(breaker.health_ok(), Some(Transition::HalfOpened));
        assert_eq!(breaker.health_ok(), None);
        for _ in 0..3 {
            let _ = run(&mut breaker, Outcome::Success, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..10 {
            let _ = run(&mut breaker, Outcome::Failure, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open { until: now + 10 * SEC });
    }
}
