//! What the threads of one open file share, and who writes which part of it.
//!
//! ```text
//! callers ──Message──▶ writer thread ──commit──▶ answers, deliveries
//!    │ poll_next          ▲      ▲
//!    └──────chores────────┘      └──chores── poller thread (other processes' commits, due times, dead processes)
//! ```
//!
//! Architecture invariant: only the writer thread writes to the database. Everybody else leaves a message in its
//! bounded channel, or a *chore*: something that must not be refused because a channel is full and of which there is at
//! most a bounded number (one claim per subscription, one release per delivery, one burial per process).

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use ponos_core::broker::BrokerError;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::error;
use crate::file_lock::LockWaits;
use crate::inspect::{self, Reader};
use crate::location::Location;
use crate::process::DeadLock;
use crate::prototype::Limits;
use crate::subscription::Consumer;
use crate::writer::{Failure, Message, Operation};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) location: Location,
    pub(crate) clock: Clock,
    /// This broker's id among the processes.
    pub(crate) process: i64,
    pub(crate) prototypes: Limits,
    /// The way to the writer. It never closes by itself: this struct holds a sender. The writer ends when told.
    pub(crate) writer: mpsc::Sender<Message>,
    /// Work that waits for the writer's next transaction.
    chores: Mutex<Chores>,
    /// The open subscriptions of this broker. Written by the writer thread and by a subscription's drop.
    consumers: Mutex<Consumers>,
    /// Why nothing works any more. Set once, by the writer.
    fatal: OnceLock<BrokerError>,
    /// Set when the handle is dropped or closed.
    pub(crate) stopping: AtomicBool,
    /// Set by whoever waits for messages; the poller looks at the queues then, and not only after a commit.
    pub(crate) look: AtomicBool,
    /// Whether nothing is claimed, because this process has a suspect. Written by the writer.
    pub(crate) alone: AtomicBool,
    /// Written by the writer, read by the poller.
    pub(crate) own_beats: OwnBeats,
    /// The poller, to wake it from a long sleep. Set once, when it has started.
    pub(crate) poller: OnceLock<Thread>,
    /// The thread that answers questions; it starts with the first one.
    reader: Mutex<Option<Reader>>,
    pub(crate) figures: Figures,
}

/// Counters for [`Stats`](crate::Stats).
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) commits: AtomicU64,
    pub(crate) operations: AtomicU64,
    pub(crate) reclaimed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) lock_waits: Arc<LockWaits>,
}

/// Whether this process's own signs of life come in time.
///
/// Who is stopped while it holds the lock of writers keeps everybody's signs back. What the others' then look like says nothing
/// about them, as long as one's own is as old.
#[derive(Debug, Default)]
pub(crate) struct OwnBeats {
    state: Mutex<BeatState>,
}

#[derive(Debug, Default)]
struct BeatState {
    /// Since when one is due that is not in the file yet.
    due: Option<Instant>,
    /// How late the latest one of those came that nobody has asked about.
    delay: Duration,
}

impl OwnBeats {
    pub(crate) fn due(&self, since: Instant) {
        locked(&self.state).due.get_or_insert(since);
    }

    /// It is in the file.
    pub(crate) fn given(&self, now: Instant) {
        let mut state = locked(&self.state);
        if let Some(due) = state.due.take() {
            state.delay = state.delay.max(now.saturating_duration_since(due));
        }
    }

    /// How late a sign was, or is by now, since this was asked last.
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        let mut state = locked(&self.state);
        let waiting = state.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        mem::take(&mut state.delay).max(waiting)
    }
}

/// What waits for the writer's next transaction.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Subscriptions that want messages; each is in here at most once.
    pub(crate) claims: Vec<Arc<Consumer>>,
    /// Deliveries to hand back: row and fence.
    pub(crate) releases: Vec<(i64, i64)>,
    /// Subscriptions that ended.
    pub(crate) ended: Vec<u64>,
    /// Processes that died or stand still.
    pub(crate) burials: Vec<Burial>,
    /// Whether a sign of life is due.
    pub(crate) beat: bool,
    /// Whether it is time to look for prototypes that were forgotten.
    pub(crate) forget: bool,
}

impl Chores {
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
            && self.releases.is_empty()
            && self.ended.is_empty()
            && self.burials.is_empty()
            && !self.beat
            && !self.forget
    }

    /// Puts back what a failed transaction did not do; claims are asked for again by the poller.
    pub(crate) fn put_back(&mut self, undone: Self) {
        self.releases.extend(undone.releases);
        self.ended.extend(undone.ended);
        self.beat |= undone.beat;
        self.forget |= undone.forget;
    }
}

/// A process whose jobs go back to their queues.
#[derive(Debug)]
pub(crate) struct Burial {
    pub(crate) process: i64,
    /// The sign of life that did not change; a process that gave another one since is left alone.
    pub(crate) beat: i64,
    /// Its lock, if it is dead for certain; otherwise it only stands still.
    pub(crate) lock: Option<DeadLock>,
    /// Whether to forget it: it is dead, or nothing but its row is left.
    pub(crate) forget: bool,
}

#[derive(Debug, Default)]
struct Consumers {
    by_id: HashMap<u64, Arc<Consumer>>,
    by_queue: HashMap<i64, Vec<Arc<Consumer>>>,
}

impl Shared {
    pub(crate) fn new(
        location: Location,
        clock: Clock,
        process: i64,
        writer: mpsc::Sender<Message>,
        lock_waits: Arc<LockWaits>,
        prototypes: Limits,
    ) -> Self {
        Self {
            location,
            clock,
            process,
            prototypes,
            writer,
            chores: Mutex::default(),
            consumers: Mutex::default(),
            fatal: OnceLock::new(),
            stopping: AtomicBool::new(false),
            look: AtomicBool::new(false),
            alone: AtomicBool::new(false),
            own_beats: OwnBeats::default(),
            poller: OnceLock::new(),
            reader: Mutex::default(),
            figures: Figures { lock_waits, ..Figures::default() },
        }
    }

    /// Passes an operation on to the writer, waiting while its channel is full; a writer that has ended refuses it.
    pub(crate) async fn submit(&self, operation: Box<dyn Operation>) {
        if let Err(mpsc::error::SendError(Message::Run(mut operation))) =
            self.writer.send(Message::Run(operation)).await
        {
            operation.refuse(&Failure { error: self.gone(), unknown: false });
        }
    }

    /// Adds work for the writer's next transaction and sees to it that there is one.
    pub(crate) fn chore(&self, add: impl FnOnce(&mut Chores)) {
        add(&mut locked(&self.chores));
        self.nudge();
    }

    pub(crate) fn take_chores(&self) -> Chores {
        mem::take(&mut locked(&self.chores))
    }

    pub(crate) fn put_back(&self, undone: Chores) {
        locked(&self.chores).put_back(undone);
    }

    pub(crate) fn has_chores(&self) -> bool {
        !locked(&self.chores).is_empty()
    }

    /// Wakes the writer. A full channel means that it is about to look anyway.
    pub(crate) fn nudge(&self) {
        let _ = self.writer.try_send(Message::Nudge);
    }

    /// Wakes the poller if it sleeps, to look at the queues.
    pub(crate) fn look(&self) {
        if !self.look.swap(true, Ordering::AcqRel)
            && let Some(poller) = self.poller.get()
        {
            poller.unpark();
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.nudge();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Why an operation cannot even be tried.
    pub(crate) fn refusal(&self) -> Option<BrokerError> {
        self.fatal.get().cloned()
    }

    /// What is said when the writer does not answer: it has ended.
    pub(crate) fn gone(&self) -> BrokerError {
        self.refusal().unwrap_or_else(|| error::closed(&self.location.shown))
    }

    /// Nothing will work any more: every subscription is told, every later call fails with this.
    pub(crate) fn fail(&self, error: BrokerError) {
        let reason = error.to_string();
        let _ = self.fatal.set(error);
        for consumer in self.consumers() {
            consumer.lose(&reason);
        }
    }

    /// The way to the reader thread, which is started if need be.
    pub(crate) fn reader(&self) -> Result<mpsc::Sender<inspect::Question>, BrokerError> {
        let mut reader = locked(&self.reader);
        if let Some(reader) = reader.as_ref().filter(|reader| !reader.questions.is_closed()) {
            return Ok(reader.questions.clone());
        }
        if self.is_stopping() {
            return Err(self.gone());
        }
        let started = Reader::start(&self.location)?;
        let questions = started.questions.clone();
        *reader = Some(started);
        Ok(questions)
    }

    /// Ends the reader thread, in the middle of a question if it has one.
    pub(crate) fn close_reader(&self) {
        let reader = locked(&self.reader).take();
        if let Some(reader) = reader {
            reader.stop();
        }
    }

    pub(crate) fn add_consumer(&self, consumer: &Arc<Consumer>) {
        let mut consumers = locked(&self.consumers);
        consumers.by_id.insert(consumer.id, Arc::clone(consumer));
        consumers.by_queue.entry(consumer.queue_id).or_default().push(Arc::clone(consumer));
    }

    pub(crate) fn remove_consumer(&self, consumer: &Consumer) {
        let mut consumers = locked(&self.consumers);
        consumers.by_id.remove(&consumer.id);
        if let Some(of_queue) = consumers.by_queue.get_mut(&consumer.queue_id) {
            of_queue.retain(|other| other.id != consumer.id);
            if of_queue.is_empty() {
                consumers.by_queue.remove(&consumer.queue_id);
            }
        }
    }

    pub(crate) fn consumer(&self, id: u64) -> Option<Arc<Consumer>> {
        locked(&self.consumers).by_id.get(&id).cloned()
    }

    pub(crate) fn consumers(&self) -> Vec<Arc<Consumer>> {
        locked(&self.consumers).by_id.values().cloned().collect()
    }

    pub(crate) fn consumers_of(&self, queue: i64) -> Vec<Arc<Consumer>> {
        locked(&self.consumers).by_queue.get(&queue).cloned().unwrap_or_default()
    }
}

/// These locks are held for a few instructions that do not panic; if one did, the data is still whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_late_while_it_waits_and_once_after_it_came() {
        let beats = OwnBeats::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(beats.delay(at(9)), Duration::ZERO, "none is due");
        beats.due(at(10));
        beats.due(at(12));
        assert_eq!(beats.delay(at(13)), Duration::from_secs(3), "since the first of them");
        beats.given(at(15));
        assert_eq!(beats.delay(at(30)), Duration::from_secs(5), "nobody looked when it came");
        assert_eq!(beats.delay(at(30)), Duration::ZERO);
    }
}
