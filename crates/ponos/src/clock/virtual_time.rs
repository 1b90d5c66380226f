//! A clock that moves when nothing can happen without it.
//!
//! Every task of Ponos is *tracked*: it counts as active from the moment that its waker is called until its poll has
//! ended. While something is active the clock stands still. When nothing is, each handler that is still running waits
//! either for a timer of this clock or for something outside (a socket, a channel of the test). Only if all wait for
//! timers does the clock jump to the next one. So a handler that awaits a real socket never sees its timeout fire
//! early, which is what the runtime's own paused clock would do.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ponos_core::id::Timestamp;
use ponos_core::policy::Moment;
use tokio::sync::Notify;

/// Where virtual wall time starts: 2026-01-01T00:00:00Z.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The clock of a test.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock {
    state: Mutex<State>,
    /// Told whenever nothing is active any more.
    idle: Notify,
}

#[derive(Debug, Default)]
struct State {
    now: Moment,
    /// Waiting timers by deadline, then by age.
    timers: BTreeMap<(Moment, u64), Timer>,
    next_timer: u64,
    /// Tracked tasks that are scheduled or being polled.
    active: usize,
    /// Counts every activation, so that "still idle" can be told from "idle again".
    epoch: u64,
    /// Handlers that wait for something that is no timer of this clock, by a number of their own.
    outside: BTreeMap<u64, String>,
    next_handler: u64,
    next_task: u64,
    /// Tasks that were woken and wait until they are let on, one at a time, by their numbers: so the order does not
    /// depend on who woke them, which the runtime draws at random in places. `None` lets the runtime order them.
    ready: Option<BTreeMap<u64, Option<Waker>>>,
}

#[derive(Debug)]
struct Timer {
    waker: Waker,
    /// Housekeeping: fires when its time comes, but the clock does not move for it.
    background: bool,
}

/// What a clock that does not move by itself is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stillness {
    /// Something runs or is about to.
    Active,
    /// These handlers wait for something outside.
    Outside(Vec<String>),
    /// Nothing can happen unless the clock moves; the number of the last activation.
    Still(u64),
}

thread_local! {
    /// Whether a timer of a virtual clock was found pending since this was last cleared: how a handler's wrapper
    /// learns what its handler waits for.
    static PARKED: Cell<bool> = const { Cell::new(false) };
}

impl VirtualClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Moment {
        self.state().now
    }

    pub(crate) fn wall(&self) -> Timestamp {
        START + self.now().since(Moment::ORIGIN)
    }

    pub(crate) fn sleep_until(self: &Arc<Self>, deadline: Moment, background: bool) -> VirtualSleep {
        VirtualSleep { clock: Arc::clone(self), deadline, background, key: None }
    }

    /// A clock under which tasks go on only when [`step`](Self::step) lets them.
    pub(crate) fn stepping() -> Self {
        Self {
            state: Mutex::new(State { ready: Some(BTreeMap::new()), ..State::default() }),
            ..Self::default()
        }
    }

    /// Whether a task is being polled or about to be, those apart that wait to be let on.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.state();
        state.active > state.ready.as_ref().map_or(0, BTreeMap::len)
    }

    /// Lets one of the tasks go on that were woken, by `choose` of so many; `false` when there is none.
    pub(crate) fn step(&self, choose: impl FnOnce(usize) -> usize) -> bool {
        let waker = {
            let mut state = self.state();
            let Some(ready) = state.ready.as_mut().filter(|ready| !ready.is_empty()) else { return false };
            let chosen = choose(ready.len());
            let task = ready.keys().nth(chosen).copied();
            task.and_then(|task| ready.remove(&task)).flatten()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Wakes a task, or lets it wait for its turn.
    fn schedule(&self, task: u64, waker: Option<Waker>) {
        {
            let mut state = self.state();
            if let Some(ready) = &mut state.ready {
                ready.insert(task, waker);
                return;
            }
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What the clock is waiting for.
    pub(crate) fn stillness(&self) -> Stillness {
        let state = self.state();
        if state.active > 0 {
            Stillness::Active
        } else if !state.outside.is_empty() {
            Stillness::Outside(state.outside.values().cloned().collect())
        } else {
            Stillness::Still(state.epoch)
        }
    }

    /// Waits until something became idle since the last call.
    pub(crate) async fn became_idle(&self) {
        self.idle.notified().await;
    }

    /// Moves to the next timer that is worth it and fires what is due by then; `false` when there is none.
    pub(crate) fn advance(&self) -> bool {
        let target = self.state().timers.iter().find(|(_, timer)| !timer.background).map(|((at, _), _)| *at);
        if let Some(target) = target {
            self.advance_to(target);
        }
        target.is_some()
    }

    /// Moves to the next timer of any kind that is due by `limit`; `false` when there is none.
    pub(crate) fn advance_within(&self, limit: Moment) -> bool {
        let target = self.state().timers.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= limit);
        if let Some(target) = target {
            self.advance_to(target);
        }
        target.is_some()
    }

    /// Moves to `target` and fires what is due by then.
    pub(crate) fn advance_to(&self, target: Moment) {
        let due = {
            let mut state = self.state();
            state.now = state.now.max(target);
            let later = state.timers.split_off(&(target, u64::MAX));
            std::mem::replace(&mut state.timers, later)
        };
        for timer in due.into_values() {
            timer.waker.wake();
        }
    }

    fn enter(&self) {
        let mut state = self.state();
        state.active += 1;
        state.epoch += 1;
    }

    /// A task that was woken will not go on.
    fn withdraw(&self, task: u64) {
        let waiting = self.state().ready.as_mut().and_then(|ready| ready.remove(&task));
        drop(waiting);
        self.leave();
    }

    fn leave(&self) {
        let mut state = self.state();
        state.active -= 1;
        if state.active == 0 {
            self.idle.notify_one();
        }
    }

    /// Wraps a task so that the clock knows whether it is active.
    ///
    /// Once its process is `dead` it goes away instead of going on.
    pub(crate) fn track(
        self: &Arc<Self>,
        dead: Option<Arc<AtomicBool>>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Tracked {
        self.enter();
        let task = {
            let mut state = self.state();
            state.next_task += 1;
            state.next_task
        };
        let wake = TrackedWaker {
            clock: Arc::clone(self),
            task,
            inner: Mutex::new(Wakeful { scheduled: true, done: false, waker: None }),
        };
        Tracked { future: Some(Box::pin(future)), waker: Arc::new(wake), dead }
    }

    /// Wraps a handler so that the clock knows what it waits for.
    pub(crate) async fn handler<F: Future>(self: &Arc<Self>, name: &str, future: F) -> F::Output {
        let mut guard = OutsideGuard { clock: Arc::clone(self), number: None };
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            PARKED.set(false);
            let poll = future.as_mut().poll(cx);
            guard.set(poll.is_pending() && !PARKED.get(), name);
            poll
        })
        .await
    }
}

/// Counts one handler as waiting outside, until it is told otherwise or dropped.
struct OutsideGuard {
    clock: Arc<VirtualClock>,
    number: Option<u64>,
}

impl OutsideGuard {
    fn set(&mut self, outside: bool, name: &str) {
        match (outside, self.number) {
            (true, None) => {
                let mut state = self.clock.state();
                let number = state.next_handler;
                state.next_handler += 1;
                state.outside.insert(number, name.to_owned());
                self.number = Some(number);
            }
            (false, Some(number)) => {
                self.clock.state().outside.remove(&number);
                self.number = None;
            }
            _ => {}
        }
    }
}

impl Drop for OutsideGuard {
    fn drop(&mut self) {
        self.set(false, "");
    }
}

/// A timer of a [`VirtualClock`].
#[derive(Debug)]
pub(crate) struct VirtualSleep {
    clock: Arc<VirtualClock>,
    deadline: Moment,
    background: bool,
    key: Option<(Moment, u64)>,
}

impl Future for VirtualSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let clock = Arc::clone(&self.clock);
        let mut state = clock.state();
        if let Some(key) = self.key.take() {
            state.timers.remove(&key);
        }
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let key = (self.deadline, state.next_timer);
        state.next_timer += 1;
        state.timers.insert(key, Timer { waker: cx.waker().clone(), background: self.background });
        self.key = Some(key);
        PARKED.set(true);
        Poll::Pending
    }
}

impl Drop for VirtualSleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.clock.state().timers.remove(&key);
        }
    }
}

/// A task that the clock watches.
pub(crate) struct Tracked {
    future: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Arc<TrackedWaker>,
    dead: Option<Arc<AtomicBool>>,
}

struct TrackedWaker {
    clock: Arc<VirtualClock>,
    /// Its number among the tasks of this clock.
    task: u64,
    inner: Mutex<Wakeful>,
}

struct Wakeful {
    /// Woken and not yet polled; counted as active.
    scheduled: bool,
    /// Ended; wakes are stale.
    done: bool,
    /// How to wake the task.
    waker: Option<Waker>,
}

impl TrackedWaker {
    fn inner(&self) -> MutexGuard<'_, Wakeful> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self) {
        let mut inner = self.inner();
        if !std::mem::replace(&mut inner.done, true) && std::mem::take(&mut inner.scheduled) {
            self.clock.withdraw(self.task);
        }
    }
}

impl Wake for TrackedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = {
            let mut inner = self.inner();
            if inner.done || std::mem::replace(&mut inner.scheduled, true) {
                return;
            }
            self.clock.enter();
            inner.waker.clone()
        };
        self.clock.schedule(self.task, waker);
    }
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut inner = self.waker.inner();
            inner.waker = Some(cx.waker().clone());
            // Whoever scheduled this poll has counted it; a poll that nobody asked for counts itself.
            if !std::mem::take(&mut inner.scheduled) {
                self.waker.clock.enter();
            }
        }
        if self.dead.as_ref().is_some_and(|dead| dead.load(Ordering::Relaxed)) {
            self.future = None;
        }
        let waker = Waker::from(Arc::clone(&self.waker));
        let poll = match &mut self.future {
            Some(future) => future.as_mut().poll(&mut Context::from_waker(&waker)),
            None => Poll::Ready(()),
        };
        if poll.is_ready() {
            self.future = None;
            self.waker.finish();
        }
        self.waker.clock.leave();
        poll
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // The future goes first: what it wakes while it is dropped is counted before this task no longer is.
        self.future = None;
        self.waker.finish();
    }
}

/// The longest time that a test's clock is moved without settling: 400 days.
pub(crate) const HORIZON: Duration = Duration::from_secs(400 * 86_400);
