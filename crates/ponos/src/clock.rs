//! Time, chance and spawning, in one place so that a test can own all three.
//!
//! A service runs on the real clock. `ponos::testing` runs the same code on a virtual one, which knows what
//! every task of Ponos is doing and moves only when nothing can happen without it.

#[cfg(feature = "testing")]
pub(crate) mod virtual_time;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::policy::Moment;
use tokio::task::JoinHandle;

#[cfg(feature = "testing")]
use self::virtual_time::{VirtualClock, VirtualSleep};
#[cfg(feature = "testing")]
use crate::testing::process::Process;

/// Where the worker takes its time from.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    time: Time,
    /// Chance: jitter, ids. Behind a lock because handlers draw ids too; it is held for some nanoseconds.
    random: Arc<Mutex<fastrand::Rng>>,
    /// The process of a simulation that its tasks live and die with.
    #[cfg(feature = "testing")]
    process: Option<Arc<Process>>,
}

#[derive(Debug, Clone)]
enum Time {
    Real(Instant),
    #[cfg(feature = "testing")]
    Virtual(Arc<VirtualClock>),
}

impl Clock {
    /// The machine's clock.
    pub(crate) fn real() -> Self {
        Self {
            time: Time::Real(Instant::now()),
            random: Arc::new(Mutex::new(fastrand::Rng::new())),
            #[cfg(feature = "testing")]
            process: None,
        }
    }

    /// A clock that a test moves.
    #[cfg(feature = "testing")]
    pub(crate) fn simulated(clock: Arc<VirtualClock>, seed: u64) -> Self {
        let random = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self { time: Time::Virtual(clock), random, process: None }
    }

    /// The same clock for one process of a simulation.
    #[cfg(feature = "testing")]
    pub(crate) fn of(&self, process: Arc<Process>) -> Self {
        Self { process: Some(process), ..self.clone() }
    }

    /// The process of a simulation that this is the clock of.
    #[cfg(feature = "testing")]
    pub(crate) fn process(&self) -> Option<&Arc<Process>> {
        self.process.as_ref()
    }

    /// Whether it is the machine's.
    pub(crate) fn is_real(&self) -> bool {
        matches!(self.time, Time::Real(_))
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Moment {
        match &self.time {
            Time::Real(origin) => Moment::from_origin(origin.elapsed()),
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => clock.now(),
        }
    }

    /// Wall time, which may jump on the real clock.
    pub(crate) fn wall(&self) -> Timestamp {
        match &self.time {
            Time::Real(_) => SystemTime::now().into(),
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => clock.wall(),
        }
    }

    /// 64 random bits.
    pub(crate) fn roll(&self) -> u64 {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    fn bytes(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        bytes
    }

    /// The id of a new chain.
    pub(crate) fn new_tid(&self) -> Tid {
        Tid::new(self.wall(), self.bytes())
    }

    /// The id of a message that starts a chain.
    pub(crate) fn new_message_id(&self) -> MessageId {
        MessageId::new(self.wall(), self.bytes())
    }

    /// Waits until `deadline`.
    pub(crate) fn sleep_until(&self, deadline: Moment) -> Sleep {
        match &self.time {
            Time::Real(origin) => {
                let at = *origin + deadline.since(Moment::ORIGIN);
                Sleep::Real(Box::pin(tokio::time::sleep_until(at.into())))
            }
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => Sleep::Virtual(clock.sleep_until(deadline, false)),
        }
    }

    /// Waits for `time`.
    pub(crate) fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(self.now() + time)
    }

    /// Waits for `time`, for housekeeping: a virtual clock does not move for it alone.
    pub(crate) fn background_sleep(&self, time: Duration) -> Sleep {
        match &self.time {
            Time::Real(_) => self.sleep(time),
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => Sleep::Virtual(clock.sleep_until(clock.now() + time, true)),
        }
    }

    /// Runs `future` for at most `limit`; `None` when the time was up and it was dropped.
    pub(crate) async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        // What is ready at once needs no timer, and making one reads the clock.
        let first = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = first {
            return Some(output);
        }
        match &self.time {
            Time::Real(_) => tokio::time::timeout(limit, future).await.ok(),
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => {
                let deadline = clock.sleep_until(clock.now() + limit, false);
                tokio::select! {
                    biased;
                    output = future => Some(output),
                    () = deadline => None,
                }
            }
        }
    }

    /// Runs a handler. A virtual clock takes note of whether it waits for one of its timers or for something outside.
    #[cfg_attr(
        not(feature = "testing"),
        expect(unused_variables, reason = "the name is for a virtual clock")
    )]
    pub(crate) async fn handler<F: Future>(&self, name: &str, future: F) -> F::Output {
        match &self.time {
            Time::Real(_) => future.await,
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => clock.handler(name, future).await,
        }
    }

    /// Spawns a task of Ponos.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.time {
            Time::Real(_) => tokio::spawn(future),
            #[cfg(feature = "testing")]
            Time::Virtual(clock) => {
                let dead = self.process.as_ref().map(|process| process.dead());
                tokio::spawn(clock.track(dead, future))
            }
        }
    }
}

/// A timer. Dropping it forgets it.
#[derive(Debug)]
pub(crate) enum Sleep {
    Real(Pin<Box<tokio::time::Sleep>>),
    #[cfg(feature = "testing")]
    Virtual(VirtualSleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut() {
            Self::Real(sleep) => sleep.as_mut().poll(cx),
            #[cfg(feature = "testing")]
            Self::Virtual(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}
