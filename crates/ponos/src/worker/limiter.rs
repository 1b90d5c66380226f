//! A rate limit that all instances of a service share without asking each other.
//!
//! Each instance takes limit ÷ N, where N is the highest consumer count among this application's queues that use the
//! limit. The count is refreshed every five seconds and a new instance waits for its first one, so the overshoot during
//! a change is at most one period's worth.
//!
//! A standing order may put another limit in the place of the configured one, also where none is configured. It is
//! shared in the same way.
//!
//! With the feature `redis` a service may keep its limits there, exactly; this share holds while Redis is away, and for limits by order.

#[cfg(feature = "redis")]
mod grants;
#[cfg(feature = "redis")]
mod shared;

#[cfg(feature = "redis")]
pub use shared::{RedisLimits, SharedLimits, SharedLimitsState};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::broker::{Broker, Inspect};
use ponos_core::name::{AppName, QueueName};
use ponos_core::policy::{Gcra, Moment, Rate};
use tokio::sync::watch;

#[cfg(feature = "redis")]
use self::grants::{Grants, Turn};
use crate::clock::Clock;

/// How often the number of instances is looked up.
const REFRESH: Duration = Duration::from_secs(5);

/// How much longer than the interval the others are given to look.
const LOOK_UP_MARGIN: Duration = Duration::from_millis(500);

/// How long a look-up may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// One rate limit of this process.
#[derive(Debug)]
pub(crate) struct Limiter {
    configured: Option<Rate>,
    /// `None` while nothing is limited.
    gcra: Mutex<Option<Gcra>>,
    /// The queues that use it.
    queues: Vec<QueueName>,
    /// What holds at the moment. Sent anew, unchanged, for news of grants.
    holds: watch::Sender<Holds>,
    /// Whether this instance consumes one of the queues, and so is counted by the others.
    counted: watch::Sender<bool>,
    /// What is granted where the limit is kept elsewhere.
    #[cfg(feature = "redis")]
    grants: Option<Grants>,
}

/// What a limiter does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Over all instances; `None` while nothing is limited.
    pub(crate) rate: Option<Rate>,
    /// Whether a standing order named it.
    by_order: bool,
    /// Whether the number of instances is known; until then nothing starts on the local share.
    known: bool,
}

/// Where the rate limits of a service are kept besides.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitStore {
    #[cfg(feature = "redis")]
    pub(crate) link: Option<Arc<shared::Link>>,
}

impl Limiter {
    /// A limiter of this rate; without one it limits nothing unless it is ordered to.
    pub(crate) fn new(
        configured: Option<Rate>,
        queues: Vec<QueueName>,
        #[cfg_attr(not(feature = "redis"), expect(unused_variables, reason = "nothing is kept elsewhere"))]
        store: &LimitStore,
    ) -> Self {
        Self {
            configured,
            gcra: Mutex::new(configured.map(Gcra::new)),
            queues,
            holds: watch::Sender::new(Holds { rate: configured, by_order: false, known: false }),
            counted: watch::Sender::new(false),
            #[cfg(feature = "redis")]
            grants: store.link.as_ref().zip(configured).map(|(link, rate)| {
                link.add_limit();
                Grants::new(rate)
            }),
        }
    }

    /// Is told when the limit changes, when the number of instances is known, and when there may be news about a start.
    pub(crate) fn watch(&self) -> watch::Receiver<Holds> {
        self.holds.subscribe()
    }

    /// What holds at the moment, over all instances; `None` while nothing is limited.
    pub(crate) fn rate(&self) -> Option<Rate> {
        self.holds.borrow().rate
    }

    /// From now on this limit holds, by order; without one what is configured.
    pub(crate) fn order(&self, ordered: Option<Rate>, now: Moment) {
        let rate = ordered.or(self.configured);
        self.holds.send_if_modified(|holds| {
            let before = *holds;
            if before.rate != rate {
                let mut gcra = self.gcra();
                let share = gcra.as_ref().map_or(1, Gcra::share);
                *gcra = rate.map(Gcra::new);
                if let Some(gcra) = gcra.as_mut() {
                    gcra.set_share(share, now);
                }
                // Where nothing was limited, nobody was counted.
                holds.known &= before.rate.is_some();
            }
            (holds.rate, holds.by_order) = (rate, ordered.is_some());
            *holds != before
        });
    }

    /// When one of `ready` jobs may start; `None` while that is not known.
    pub(crate) fn earliest(
        &self,
        now: Moment,
        #[cfg_attr(not(feature = "redis"), expect(unused_variables, reason = "nothing is granted"))]
        ready: u32,
    ) -> Option<Moment> {
        let holds = *self.holds.borrow();
        if holds.rate.is_none() {
            return Some(now);
        }
        #[cfg(feature = "redis")]
        if let Some(grants) = self.grants.as_ref().filter(|_| !holds.by_order) {
            match grants.turn(now, ready) {
                Turn::Now => return Some(now),
                Turn::At(moment) => return Some(moment),
                Turn::Asking => return None,
                Turn::Local => {}
            }
        }
        holds.known.then(|| self.gcra().as_ref().map_or(now, |gcra| gcra.earliest(now)))
    }

    /// Takes the right to start a job now; otherwise says when there may be one.
    pub(crate) fn take(&self, now: Moment) -> Result<(), Moment> {
        let holds = *self.holds.borrow();
        if holds.rate.is_none() {
            return Ok(());
        }
        let try_take = || self.gcra().as_mut().map_or(Ok(()), |gcra| gcra.try_take(now));
        #[cfg(feature = "redis")]
        if let Some(grants) = self.grants.as_ref().filter(|_| !holds.by_order) {
            if let Some(taken) = grants.take(now) {
                return taken;
            }
            if !holds.known {
                return Err(now);
            }
            try_take()?;
            grants.spend();
            return Ok(());
        }
        try_take()
    }

    fn gcra(&self) -> MutexGuard<'_, Option<Gcra>> {
        self.gcra.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This instance now consumes one of the queues.
    pub(crate) fn subscribed(&self) {
        self.counted.send_if_modified(|counted| !std::mem::replace(counted, true));
    }

    /// Keeps the number of instances fresh, for ever, while something is limited.
    ///
    /// An instance that finds others waits until each of them has looked once more and has made room: otherwise all of
    /// them together would be too fast for as long as a look-up's interval. Where a limit begins by order, all look at
    /// once, and who has been counted for long enough need not wait.
    pub(crate) async fn keep_fresh(self: Arc<Self>, app: AppName, broker: Arc<dyn Broker>, clock: Clock) {
        if self.counted.subscribe().wait_for(|counted| *counted).await.is_err() {
            return;
        }
        let made_room = clock.now() + REFRESH + LOOK_UP_MARGIN;
        let mut holds = self.holds.subscribe();
        loop {
            if holds.wait_for(|holds| holds.rate.is_some()).await.is_err() {
                return;
            }
            let looked_up = clock.timeout(LOOK_UP, broker.inspect(Inspect::Queues(Some(app.clone())))).await;
            match looked_up {
                Some(Ok(answer)) => {
                    let consumers = |queue| answer_consumers(&answer, queue);
                    let instances = self.queues.iter().map(consumers).max().unwrap_or(1).max(1);
                    let now = clock.now();
                    if let Some(gcra) = self.gcra().as_mut().filter(|gcra| gcra.share() != instances) {
                        gcra.set_share(instances, now);
                    }
                    if instances == 1 || now >= made_room {
                        self.holds.send_if_modified(|holds| !std::mem::replace(&mut holds.known, true));
                    }
                }
                // The last share holds: never unlimited, never a crash.
                Some(Err(error)) => {
                    tracing::warn!(%error, "the number of instances is not known; the last share holds");
                }
                None => tracing::warn!("the number of instances was not told in time; the last share holds"),
            }
            if !holds.borrow_and_update().known {
                clock.sleep(Duration::from_millis(250)).await;
                continue;
            }
            tokio::select! {
                biased;
                () = clock.background_sleep(REFRESH) => {}
                _ = holds.wait_for(|holds| holds.rate.is_some() && !holds.known) => {}
            }
        }
    }
}

#[cfg(feature = "redis")]
impl Limiter {
    /// From now on starts are granted.
    fn use_grants(&self, now: Moment) {
        if let Some(grants) = &self.grants {
            grants.begin(now);
            self.wake();
        }
    }

    /// From now on the local share holds. It has saved up nothing: meanwhile others decided.
    fn use_local_share(&self, now: Moment) {
        if let Some(grants) = &self.grants {
            if let Some(gcra) = self.gcra().as_mut() {
                gcra.drain(now);
            }
            grants.end();
            self.wake();
        }
    }

    /// What was started on the local share and is to be paid for.
    fn spent(&self) -> u32 {
        self.grants.as_ref().map_or(0, Grants::spent)
    }

    /// How many starts are wanted; waits until some are.
    async fn wanted(&self) -> u32 {
        match &self.grants {
            Some(grants) => grants.wanted().await,
            None => std::future::pending().await,
        }
    }

    /// The answer to what was wanted.
    fn grant(&self, now: Moment, granted: u32, wait: Duration) {
        if let Some(grants) = &self.grants {
            grants.grant(now, granted, wait);
            self.wake();
        }
    }

    /// Makes the queue workers ask anew.
    fn wake(&self) {
        self.holds.send_modify(|_| {});
    }
}

fn answer_consumers(answer: &ponos_core::broker::Inspection, queue: &QueueName) -> u32 {
    let ponos_core::broker::Inspection::Queues(stats) = answer else {
        return 0;
    };
    stats.iter().find(|stats| stats.queue == *queue).map_or(0, |stats| stats.consumers)
}
