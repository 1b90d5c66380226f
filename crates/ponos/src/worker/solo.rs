//! Running a suspect alone in its process.
//!
//! When a process dies, every job that it held is counted as lost once, so the count only makes a *suspect*. A suspect
//! runs while nothing else of this service does: if the process dies then, it was that job.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who may start now.
#[derive(Debug)]
pub(crate) struct Solo {
    state: Mutex<State>,
    /// Told when a start that was refused may be allowed now.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that run and are no suspects.
    running: usize,
    /// Whether a suspect runs.
    alone: bool,
    /// Queues whose next job is a suspect that waits for the others to end: nothing new starts meanwhile.
    waiting: usize,
}

impl Solo {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is told when a refused start may be allowed.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Starts a job that is no suspect, if none runs or waits.
    pub(crate) fn enter(&self) -> bool {
        let mut state = self.state();
        let free = !state.alone && state.waiting == 0;
        state.running += usize::from(free);
        free
    }

    /// Starts a suspect, if nothing runs; `waits` says whether this queue is already counted as waiting, and becomes
    /// whether it is now.
    pub(crate) fn enter_alone(&self, waits: &mut bool) -> bool {
        let mut state = self.state();
        let free = state.running == 0 && !state.alone;
        if free {
            state.alone = true;
        }
        match (free, *waits) {
            (true, true) => state.waiting -= 1,
            (false, false) => state.waiting += 1,
            _ => {}
        }
        *waits = !free;
        free
    }

    /// No longer waits with a suspect.
    pub(crate) fn withdraw(&self, waits: &mut bool) {
        if std::mem::take(waits) {
            self.state().waiting -= 1;
            self.changed.send_replace(());
        }
    }

    /// Ends a job.
    pub(crate) fn leave(&self, alone: bool) {
        let wake = {
            let mut state = self.state();
            if alone {
                state.alone = false;
            } else {
                state.running -= 1;
            }
            alone || (state.running == 0 && state.waiting > 0)
        };
        if wake {
            self.changed.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_waits_for_the_others_and_then_runs_alone() {
        let solo = Solo::new();
        let mut waits = false;
        assert!(solo.enter() && solo.enter());
        assert!(!solo.enter_alone(&mut waits) && waits);
        assert!(!solo.enter(), "nothing new starts while a suspect waits");
        solo.leave(false);
        assert!(!solo.enter_alone(&mut waits));
        solo.leave(false);
        assert!(solo.enter_alone(&mut waits) && !waits);
        assert!(!solo.enter() && !solo.enter_alone(&mut false));
        solo.leave(true);
    }

    #[test]
    fn a_suspect_that_goes_away_lets_the_others_on() {
        let solo = Solo::new();
        let mut waits = false;
        assert!(solo.enter());
        assert!(!solo.enter_alone(&mut waits));
        solo.withdraw(&mut waits);
        assert!(solo.enter());
    }
}
