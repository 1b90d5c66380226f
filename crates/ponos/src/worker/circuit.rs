//! A circuit: one breaker, and the queues that listen through it.
//!
//! While it is open its queues are cut off: the broker keeps their jobs, and callers change nothing. Half-open, it lets
//! one job of the process through at a time, going round the queues.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::broker::BoxFuture;
use ponos_core::journal::CircuitPhase;
use ponos_core::policy::{
    Breaker, BreakerConfig, BreakerState, Moment, Outcome, Permit, Transition, TripCause,
};
use tokio::sync::watch;

use crate::clock::Clock;

/// How often a health function is asked.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How long a health function may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// A circuit has changed its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitChange {
    /// The dependency, or the queue where it depends on nothing named.
    pub circuit: String,
    /// What it is now.
    pub state: CircuitState,
}

/// What a circuit does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Work flows.
    Closed,
    /// The listeners are cut off; the broker keeps the jobs.
    Open {
        /// For how long, unless a health function finds the dependency healthy before.
        time: Duration,
        /// Why.
        cause: TripCause,
    },
    /// One job at a time is tried.
    HalfOpen,
}

/// A circuit of this process.
pub(crate) struct Circuit {
    name: String,
    state: Mutex<State>,
    /// What the breaker does; sent anew when a probe has ended, for those that wait for their turn.
    mode: watch::Sender<BreakerState>,
    health: Option<Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>>,
    /// Who is told of each change: the service's hook, and its journal.
    told: Told,
    clock: Clock,
}

/// Is told of a change, without waiting.
pub(crate) type Told = Arc<dyn Fn(&CircuitChange) + Send + Sync>;

impl std::fmt::Debug for Circuit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Circuit").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// Queues that hold a job and wait for their turn to probe.
    waiting: BTreeSet<usize>,
    /// The queue that probed last.
    last: usize,
}

impl Circuit {
    pub(crate) fn new(
        name: String,
        config: BreakerConfig,
        health: Option<Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>>,
        told: Told,
        clock: Clock,
    ) -> Self {
        let breaker = Breaker::new(config);
        let mode = watch::Sender::new(breaker.state());
        let state = State { breaker, waiting: BTreeSet::new(), last: usize::MAX };
        Self { name, state: Mutex::new(state), mode, health, told, clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it does now, as records say it.
    pub(crate) fn phase(&self) -> CircuitPhase {
        match *self.mode.borrow() {
            BreakerState::Closed => CircuitPhase::Closed,
            BreakerState::Open { .. } => CircuitPhase::Open,
            BreakerState::HalfOpen => CircuitPhase::HalfOpen,
        }
    }

    /// Is told what the breaker does.
    pub(crate) fn watch(&self) -> watch::Receiver<BreakerState> {
        self.mode.subscribe()
    }

    /// Asks for the right to start a job of queue `member`. Half-open, it is given to one at a time, and the queues
    /// that wait take turns.
    pub(crate) fn permit(&self, member: usize) -> Option<Permit> {
        let mut state = self.state();
        if state.breaker.state() == BreakerState::Closed {
            return state.breaker.permit();
        }
        state.waiting.insert(member);
        let after_last =
            state.last.checked_add(1).and_then(|from| state.waiting.range(from..).next().copied());
        if after_last.or_else(|| state.waiting.first().copied()) != Some(member) {
            return None;
        }
        let permit = state.breaker.permit()?;
        state.waiting.remove(&member);
        state.last = member;
        Some(permit)
    }

    /// Queue `member` no longer waits for its turn.
    pub(crate) fn withdraw(&self, member: usize) {
        let waited = self.state().waiting.remove(&member);
        if waited {
            self.mode.send_modify(|_| {});
        }
    }

    /// Tells how a job ended.
    pub(crate) fn report(&self, permit: Permit, outcome: Outcome, now: Moment) {
        let probe = permit.is_probe();
        let transition = {
            // The roll chooses how long it stays open, so it is drawn only where it can be needed.
            let roll = if outcome == Outcome::Failure { self.clock.roll() } else { 0 };
            self.state().breaker.report(permit, outcome, now, roll)
        };
        match transition {
            Some(transition) => self.announce(transition, now),
            None if probe => self.mode.send_modify(|_| {}),
            None => {}
        }
    }

    fn announce(&self, transition: Transition, now: Moment) {
        let state = match transition {
            Transition::Opened { until, cause } => CircuitState::Open { time: until.since(now), cause },
            Transition::HalfOpened => CircuitState::HalfOpen,
            Transition::Closed => CircuitState::Closed,
        };
        match &state {
            CircuitState::Open { time, cause } => {
                tracing::warn!(circuit = self.name, ?time, ?cause, "circuit open: the queue keeps its jobs");
            }
            CircuitState::HalfOpen => {
                tracing::info!(circuit = self.name, "circuit half-open: one job at a time");
            }
            CircuitState::Closed => tracing::info!(circuit = self.name, "circuit closed"),
        }
        self.mode.send_replace(self.state().breaker.state());
        (self.told)(&CircuitChange { circuit: self.name.clone(), state });
    }

    /// Ends open times, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut mode = self.watch();
        loop {
            let state = *mode.borrow_and_update();
            match state {
                BreakerState::Open { until } => {
                    tokio::select! {
                        biased;
                        () = self.wait_open(until) => {}
                        // It was reset meanwhile.
                        _ = mode.wait_for(|mode| !matches!(mode, BreakerState::Open { .. })) => {}
                    }
                }
                _ => {
                    if mode.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until an open circuit may be tried: at its time, or when the health function says so.
    async fn wait_open(&self, until: Moment) {
        let Some(health) = &self.health else {
            self.clock.sleep_until(until).await;
            return self.half_open(Breaker::tick);
        };
        loop {
            self.clock.sleep(HEALTH_INTERVAL).await;
            if self.clock.timeout(HEALTH_TIMEOUT, health()).await == Some(true) {
                return self.half_open(|breaker, _| breaker.health_ok());
            }
        }
    }

    /// Lets one job through if it is open, by order.
    pub(crate) fn reset(&self) {
        self.half_open(|breaker, _| breaker.health_ok());
    }

    fn half_open(&self, change: impl FnOnce(&mut Breaker, Moment) -> Option<Transition>) {
        let now = self.clock.now();
        let transition = change(&mut self.state().breaker, now);
        if let Some(transition) = transition {
            self.announce(transition, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half_open() -> Circuit {
        let config = BreakerConfig::default().consecutive(1).open_jitter(0.0).close_after(100);
        let circuit = Circuit::new("smtp".into(), config, None, Arc::new(|_| {}), Clock::real());
        let permit = circuit.permit(0).unwrap();
        circuit.report(permit, Outcome::Failure, Moment::ORIGIN);
        assert!(circuit.permit(0).is_none(), "open");
        circuit.withdraw(0);
        circuit.half_open(|breaker, _| breaker.health_ok());
        circuit
    }

    #[test]
    fn probes_go_round_the_queues_that_wait() {
        let circuit = half_open();
        let mut turns = Vec::new();
        let mut probe = circuit.permit(0);
        for member in [1, 2] {
            assert!(circuit.permit(member).is_none(), "one probe at a time");
        }
        let mut running = 0;
        for _ in 0..6 {
            turns.push(running);
            assert!(circuit.permit(running).is_none(), "its next job waits for its turn");
            circuit.report(probe.take().unwrap(), Outcome::Success, Moment::ORIGIN);
            for member in [2, 1, 0] {
                if probe.is_none() {
                    probe = circuit.permit(member);
                    running = member;
                }
            }
        }
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_queue_that_went_away_does_not_hold_the_turn() {
        let circuit = half_open();
        let probe = circuit.permit(0).unwrap();
        assert!(circuit.permit(1).is_none());
        circuit.withdraw(1);
        circuit.report(probe, Outcome::Success, Moment::ORIGIN);
        assert!(circuit.permit(0).is_some());
    }
}
