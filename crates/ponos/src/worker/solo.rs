//! Running a suspect alone in its process.
//!
//! When a process dies, every job that it held is counted as lost once, so the count only makes a *suspect*. A suspect
//! runs while nothing else of this service does: if the process dies then, it was that job.
//!
//! A suspect is sent on before it runs alone, where the broker has no transaction as a copy and then an acknowledgement.
//! Nothing starts between the two either: what killed the process there would leave the job in two copies, each of which
//! may kill as often again.

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
    /// Suspects that are being sent on.
    sent_on: usize,
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
        let free = !state.alone && state.waiting == 0 && state.sent_on == 0;
        state.running += usize::from(free);
        free
    }

    /// Starts a suspect, if nothing runs; `waits` says whether this queue is already counted as waiting, and becomes
    /// whether it is now.
    pub(crate) fn enter_alone(&self, waits: &mut bool) -> bool {
        let mut state = self.state();
        let free = state.running == 0 && !state.alone && state.sent_on == 0;
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

    /// A suspect is being sent on.
    pub(crate) fn sends_on(&self) {
        self.state().sent_on += 1;
    }

    /// It has been sent on.
    pub(crate) fn has_sent_on(&self) {
        let last = {
            let mut state = self.state();
            state.sent_on -= 1;
            state.sent_on == 0
        };
        if last {
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
    fn nothing_starts_while_suspects_are_sent_on() {
        let solo = Solo::new();
        let mut watch = solo.watch();
        solo.sends_on();
        solo.sends_on();
        assert!(!solo.enter());
        solo.has_sent_on();
        let mut waits = false;
        assert!(!solo.enter_alone(&mut waits) && waits);
        watch.borrow_and_update();
        solo.has_sent_on();
        assert!(watch.has_changed().unwrap(), "who was refused is told");
        assert!(solo.enter_alone(&mut waits));
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
