//! What a service's queues do at the moment: for its heartbeat, its health and its metrics.
//!
//! A queue's worker writes, anyone reads. What is read may be a moment old and its parts need not fit together: nothing
//! is decided by it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ponos_core::id::Timestamp;
use ponos_core::journal::{Flight, QueueBeat};
use ponos_core::name::QueueName;

/// Why a queue that is not paused takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It takes what comes.
    No,
    /// Its circuit is open, by itself or by order.
    Circuit,
    /// Its rate limit's next token is far away.
    Limit,
}

/// One queue at work.
#[derive(Debug)]
pub(crate) struct Vitals {
    pub(crate) queue: QueueName,
    running: AtomicU32,
    buffered: AtomicU32,
    prefetch: AtomicU32,
    up: AtomicBool,
    paused: AtomicBool,
    /// A [`Rest`] as a number.
    rest: AtomicU8,
    /// Milliseconds since the epoch; 0 for never.
    last_delivery: AtomicU64,
    /// What runs, by slot. Held for one write or one copy.
    flights: Mutex<Vec<Option<Flight>>>,
}

impl Vitals {
    pub(crate) fn new(queue: QueueName, prefetch: u32) -> Arc<Self> {
        Arc::new(Self {
            queue,
            running: AtomicU32::new(0),
            buffered: AtomicU32::new(0),
            prefetch: AtomicU32::new(prefetch),
            up: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            rest: AtomicU8::new(Rest::No as u8),
            last_delivery: AtomicU64::new(0),
            flights: Mutex::default(),
        })
    }

    fn flights_mut(&self) -> MutexGuard<'_, Vec<Option<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker's view of itself, once a turn.
    pub(crate) fn update(&self, running: usize, buffered: usize, up: bool, paused: bool, rest: Rest) {
        self.running.store(u32::try_from(running).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.buffered.store(u32::try_from(buffered).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.up.store(up, Ordering::Relaxed);
        self.paused.store(paused, Ordering::Relaxed);
        self.rest.store(rest as u8, Ordering::Relaxed);
    }

    /// The worker has gone, in order or not: nobody listens any more.
    pub(crate) fn ended(&self) {
        self.up.store(false, Ordering::Relaxed);
        self.rest.store(Rest::No as u8, Ordering::Relaxed);
    }

    /// Another rate limit holds, and so another prefetch.
    pub(crate) fn holds(&self, prefetch: u32) {
        self.prefetch.store(prefetch, Ordering::Relaxed);
    }

    #[cfg(feature = "metrics")]
    pub(crate) fn rest(&self) -> Rest {
        [Rest::No, Rest::Circuit, Rest::Limit][usize::from(self.rest.load(Ordering::Relaxed)).min(2)]
    }

    pub(crate) fn delivered(&self, at: Timestamp) {
        self.last_delivery.store(at.as_millis(), Ordering::Relaxed);
    }

    pub(crate) fn took_off(&self, slot: usize, flight: Flight) {
        let mut flights = self.flights_mut();
        if flights.len() <= slot {
            flights.resize_with(slot + 1, || None);
        }
        flights[slot] = Some(flight);
    }

    pub(crate) fn landed(&self, slot: usize) {
        if let Some(place) = self.flights_mut().get_mut(slot) {
            *place = None;
        }
    }

    pub(crate) fn beat(&self) -> QueueBeat {
        let last = self.last_delivery.load(Ordering::Relaxed);
        QueueBeat {
            queue: self.queue.clone(),
            in_flight: self.running.load(Ordering::Relaxed),
            buffered: self.buffered.load(Ordering::Relaxed),
            prefetch: self.prefetch.load(Ordering::Relaxed),
            up: self.up.load(Ordering::Relaxed),
            paused: self.paused.load(Ordering::Relaxed),
            last_delivery: (last > 0).then(|| Timestamp::from_millis(last)),
        }
    }

    pub(crate) fn flights(&self) -> Vec<Flight> {
        self.flights_mut().iter().flatten().cloned().collect()
    }
}
