//! A running service as its metrics and its health see it, and the keepers that look after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::broker::{Broker, Inspect};
use ponos_core::journal::{CircuitPhase, QueueBeat};
use ponos_core::policy::Moment;

use super::meter::Meter;
use super::observe::Observe;
use super::series::Highest;
use crate::context::Local;
use crate::worker::{Circuit, Rest, Vitals};

/// How often the event loop shows that it turns, and consumers are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long it may not have turned before `/livez` fails.
pub(super) const LATE: Duration = Duration::from_secs(5);

/// How long the broker may take to say how much a queue holds.
const DEPTH_DEADLINE: Duration = Duration::from_secs(5);

/// A running service, to be looked at.
#[derive(Debug)]
pub(crate) struct View {
    pub(super) app: &'static str,
    pub(super) local: Arc<Local>,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) meter: Arc<Meter>,
    pub(super) consumers: Vec<Consumer>,
    pub(super) circuits: BTreeMap<String, Arc<Circuit>>,
    pub(super) observe: Observe,
    /// Counters that are read from elsewhere.
    pub(super) highest: Mutex<Highest>,
    draining: AtomicBool,
    turned: Mutex<Moment>,
}

/// One queue of the service.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) circuit: Option<Arc<Circuit>>,
    seen: Mutex<Seen>,
}

/// What was seen of a queue over time. Its keepers write.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Since when it could have taken something, without a break.
    open_since: Option<Moment>,
    /// Since when it should be subscribed to and is not.
    down_since: Option<Moment>,
    stalled: bool,
}

/// What a queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It is subscribed to and takes what comes.
    Up,
    /// It should be, and is not.
    Down,
    /// An order stands.
    Paused,
    /// Its circuit is open, by itself or by order.
    CutOff,
    /// It waits for its rate limit.
    Limited,
}

impl Consumer {
    pub(crate) fn new(vitals: Arc<Vitals>, circuit: Option<Arc<Circuit>>) -> Self {
        Self { vitals, circuit, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> CircuitPhase {
        self.circuit.as_ref().map_or(CircuitPhase::Closed, |circuit| circuit.phase())
    }

    pub(super) fn doing(&self, beat: &QueueBeat) -> Doing {
        match self.vitals.rest() {
            _ if beat.paused => Doing::Paused,
            Rest::Circuit => Doing::CutOff,
            Rest::Limit => Doing::Limited,
            Rest::No if beat.up => Doing::Up,
            Rest::No => Doing::Down,
        }
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.seen().stalled
    }

    pub(super) fn down_for(&self, now: Moment) -> Option<Duration> {
        self.seen().down_since.map(|since| now.since(since))
    }

    /// Notes what it does now.
    fn look(&self, now: Moment) {
        let beat = self.vitals.beat();
        let doing = self.doing(&beat);
        // Half-open, one job at a time is taken, which may take its time.
        let open = doing == Doing::Up && self.phase() == CircuitPhase::Closed;
        let mut seen = self.seen();
        seen.open_since = open.then(|| seen.open_since.unwrap_or(now));
        seen.down_since = (doing == Doing::Down).then(|| seen.down_since.unwrap_or(now));
        seen.stalled &= open;
    }

    /// Whether nothing has come for so long although there is room for it. What is delivered and has not started is room
    /// that was used.
    fn is_idle(&self, local: &Local, stalled_after: Duration) -> bool {
        let beat = self.vitals.beat();
        let long = |since: Duration| since >= stalled_after;
        let open = self.seen().open_since.is_some_and(|since| long(local.clock.now().since(since)));
        let quiet = beat.last_delivery.is_none_or(|at| long(local.clock.wall().since(at)));
        open && quiet && beat.in_flight < beat.prefetch && beat.buffered == 0
    }
}

impl View {
    pub(crate) fn new(
        app: &'static str,
        local: Arc<Local>,
        broker: Arc<dyn Broker>,
        meter: Arc<Meter>,
        consumers: Vec<Consumer>,
        circuits: BTreeMap<String, Arc<Circuit>>,
        observe: Observe,
    ) -> Arc<Self> {
        let turned = Mutex::new(local.clock.now());
        let (highest, draining) = (Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { app, local, broker, meter, consumers, circuits, observe, highest, draining, turned })
    }

    /// From now on the service shuts down.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn turned(&self) -> MutexGuard<'_, Moment> {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago the event loop has shown that it turns.
    pub(super) fn turned_ago(&self) -> Duration {
        self.local.clock.now().since(*self.turned())
    }

    /// Shows that the event loop turns, and looks at the consumers, for ever. It never waits for the broker.
    pub(crate) async fn keep_turning(self: Arc<Self>) {
        let pause = LOOK.min(self.observe.stalled_after / 4);
        loop {
            let now = self.local.clock.now();
            *self.turned() = now;
            for consumer in &self.consumers {
                consumer.look(now);
            }
            self.local.clock.background_sleep(pause).await;
        }
    }

    /// Looks for queues that hold something which is not delivered, for ever.
    pub(crate) async fn keep_finding_stalls(self: Arc<Self>) {
        let clock = &self.local.clock;
        loop {
            clock.background_sleep(self.observe.stalled_after / 6).await;
            for consumer in &self.consumers {
                let idle = |view: &Self| consumer.is_idle(&view.local, view.observe.stalled_after);
                if !idle(&self) {
                    consumer.seen().stalled = false;
                    continue;
                }
                let queue = consumer.vitals.queue.clone();
                let asked = clock.timeout(DEPTH_DEADLINE, self.broker.inspect(Inspect::Queue(queue))).await;
                // Who cannot be asked is unknown, and the connection's state says that.
                let holds = asked
                    .and_then(Result::ok)
                    .is_some_and(|answer| answer.into_queues().iter().any(|stats| stats.ready > 0));
                // Something may have come while the broker was asked.
                let stalled = holds && idle(&self);
                let mut seen = consumer.seen();
                if stalled && !std::mem::replace(&mut seen.stalled, stalled) {
                    tracing::warn!(queue = %consumer.vitals.queue, "the queue holds something, but nothing is delivered");
                }
                seen.stalled = stalled;
            }
        }
    }
}
