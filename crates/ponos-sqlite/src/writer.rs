//! The one thread of a process that writes: group commit under the file's lock.
//!
//! A group is whatever lies in the channel: its operations run in one transaction, which is committed as soon as the
//! channel is empty or [`GROUP`] messages are in it. Nothing ever waits for a group to fill: while one group is on its
//! way to the disk the next one gathers by itself. Answers are given after the commit.
//!
//! Operations do not guard each other with savepoints. If one fails, the whole group is rolled back and each runs
//! again in a transaction of its own, so that only the one that cannot be done fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use ponos_core::broker::{BrokerError, BrokerErrorKind};
use tokio::sync::{mpsc, oneshot};

use crate::chores;
use crate::error;
use crate::file_lock::FileLock;
use crate::process::Registration;
use crate::shared::Shared;
use crate::store::Store;
use crate::transaction::Tx;

/// How many messages a transaction takes at most: beyond that a larger group costs latency and gains nothing.
pub(crate) const GROUP: usize = 256;

/// How many operations may wait for the writer; whoever comes then waits with its message in hand.
pub(crate) const CHANNEL: usize = 1024;

/// What the writer thread is told.
pub(crate) enum Message {
    /// An operation of a caller.
    Run(Box<dyn Operation>),
    /// There are chores, or it is time to stop.
    Nudge,
    /// Hand everything back, then answer.
    Close(oneshot::Sender<Result<(), BrokerError>>),
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Run(_) => "Run",
            Self::Nudge => "Nudge",
            Self::Close(_) => "Close",
        })
    }
}

/// Something that a caller wants written.
pub(crate) trait Operation: Send {
    /// How many messages it writes.
    fn weight(&self) -> usize {
        1
    }

    /// Does it within the transaction. After a rollback it runs again from the start.
    fn run(&mut self, tx: &mut Tx<'_>) -> rusqlite::Result<()>;

    /// Notes what follows from the commit, before anybody is woken.
    fn committed(&mut self, _shared: &Arc<Shared>) {}

    /// Gives the answer, after the commit.
    fn answer(&mut self);

    /// Says that it was not done.
    fn refuse(&mut self, failure: &Failure);
}

/// Why an operation was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: BrokerError,
    /// Whether it may have been done all the same: the commit itself failed in the disk.
    pub(crate) unknown: bool,
}

/// The writer thread's own state.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) lock: FileLock,
    pub(crate) store: Store,
    pub(crate) registration: Registration,
    pub(crate) shared: Arc<Shared>,
    /// Joined at the end: its connection must be closed before the writer's.
    pub(crate) poller: Option<JoinHandle<()>>,
}

type CloseReply = oneshot::Sender<Result<(), BrokerError>>;

impl Writer {
    /// Runs until the broker is closed or its handle dropped.
    pub(crate) fn run(mut self) {
        // Whatever ends this thread, nobody waits for it in vain.
        let _last_words = LastWords(Arc::clone(&self.shared));
        self.store.watch_log();
        let closing = loop {
            let Some(first) = self.inbox.blocking_recv() else {
                break None;
            };
            let closing = self.turn(first);
            if closing.is_some() || self.shared.is_stopping() {
                break closing;
            }
        };
        self.shut_down(closing);
    }

    /// One group, from the lock to the answers. A request to close ends it and is handed back.
    fn turn(&mut self, first: Message) -> Option<CloseReply> {
        let first = match first {
            Message::Close(reply) => return Some(reply),
            Message::Nudge if !self.shared.has_chores() => return None,
            Message::Nudge => None,
            Message::Run(operation) => Some(operation),
        };
        let refused = |error| Failure { error, unknown: false };
        if let Some(error) = self.shared.refusal() {
            drop(self.shared.take_chores());
            refuse(first, &refused(error));
            return None;
        }
        let Self { inbox, lock, store, registration, shared, .. } = self;
        let held = match lock.lock() {
            Ok(held) => held,
            Err(error) => {
                let error = error::of_io("lock", &shared.location.writer_lock(), &error);
                refuse(first, &refused(error));
                return None;
            }
        };
        if let Err(error) = store.begin() {
            refuse(first, &refused(store.explain(&error)));
            return None;
        }

        let mut group = Vec::new();
        let mut weight = 0;
        let mut closing = None;
        let mut next = first;
        let mut done = Ok(());
        loop {
            if let Some(mut operation) = next.take() {
                weight += operation.weight();
                done = operation.run(&mut store.transaction());
                group.push(operation);
                if weight >= GROUP || done.is_err() {
                    break;
                }
            }
            match inbox.try_recv() {
                Ok(Message::Run(operation)) => next = Some(operation),
                Ok(Message::Nudge) => {}
                Ok(Message::Close(reply)) => {
                    closing = Some(reply);
                    break;
                }
                Err(_) => break,
            }
        }

        // Last, so that what this group published or settled can be claimed in the same transaction.
        let mut chores = shared.take_chores();
        let claimed = done.and_then(|()| chores::run(&mut chores, store, registration, shared));
        match claimed.and_then(|claimed| store.commit().map(|()| claimed)) {
            Ok(claimed) => {
                // The others' turn comes before the answers: waking hundreds of tasks takes longer than their rows.
                drop(held);
                shared.figures.commits.fetch_add(1, Ordering::Relaxed);
                shared.figures.operations.fetch_add(weight as u64, Ordering::Relaxed);
                chores::finish(chores, claimed, store, shared);
                finish(&mut group, shared);
                store.checkpoint_if_due(lock);
            }
            Err(error) => {
                tracing::debug!(file = shared.location.shown, %error, "a group was rolled back: one by one");
                store.rollback();
                chores::undo(chores, shared);
                let doubtful = Store::is_doubtful(&error);
                let error = store.explain(&error);
                if error.kind() == BrokerErrorKind::Unusable {
                    shared.fail(error);
                }
                for operation in &mut group {
                    one(operation, store, shared, doubtful);
                }
            }
        }
        closing
    }

    /// Hands everything back, leaves the table of processes and closes the file, then answers.
    ///
    /// The writer's connection is the last one and is closed under the lock: whoever closes a database last clears
    /// its log away, which must not meet another process that is just opening it.
    fn shut_down(mut self, closing: Option<CloseReply>) {
        let shared = Arc::clone(&self.shared);
        shared.stop();
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Run(mut operation) => {
                    let failure = Failure { error: error::closed(&shared.location.shown), unknown: false };
                    operation.refuse(&failure);
                }
                Message::Nudge => {}
                // The answer is the first one's.
                Message::Close(reply) => drop(reply.send(Ok(()))),
            }
        }
        shared.fail(error::closed(&shared.location.shown));
        drop(shared.take_chores());
        if let (Some(poller), Some(thread)) = (self.poller.take(), shared.poller.get()) {
            thread.unpark();
            let _ = poller.join();
        }
        shared.close_reader();
        let outcome = match self.lock.lock() {
            Ok(_held) => {
                let left = self.store.leave(self.registration.id);
                let outcome = left.map_err(|error| self.store.explain(&error));
                drop(self.store);
                if outcome.is_ok() {
                    self.registration.leave();
                }
                outcome
            }
            Err(error) => Err(error::of_io("lock", &shared.location.writer_lock(), &error)),
        };
        if let Err(error) = &outcome {
            tracing::warn!(%error, "jobs could not be handed back at once: others notice in a moment that we are gone");
        }
        if let Some(reply) = closing {
            let _ = reply.send(outcome);
        }
    }
}

/// Answers a group that was committed: first everything is noted, then all are woken in one go, because a caller
/// that is woken early takes the processor, finds one answer and goes back to sleep.
fn finish(group: &mut [Box<dyn Operation>], shared: &Arc<Shared>) {
    for operation in &mut *group {
        operation.committed(shared);
    }
    for operation in group {
        operation.answer();
    }
}

/// An operation that runs by itself, after its group failed; `doubtful` when nobody knows whether the group did.
fn one(operation: &mut Box<dyn Operation>, store: &mut Store, shared: &Arc<Shared>, doubtful: bool) {
    if let Some(error) = shared.refusal() {
        return operation.refuse(&Failure { error, unknown: doubtful });
    }
    let run = store.begin().and_then(|()| operation.run(&mut store.transaction()));
    let outcome = match run {
        Ok(()) => store.commit().map_err(|error| (error, true)),
        Err(error) => Err((error, false)),
    };
    match outcome {
        Ok(()) => {
            finish(std::slice::from_mut(operation), shared);
            chores::ring(&store.take_touched(), shared);
        }
        Err((error, in_commit)) => {
            store.rollback();
            let unknown = doubtful || in_commit && Store::is_doubtful(&error);
            let error = store.explain(&error);
            if error.kind() == BrokerErrorKind::Unusable {
                shared.fail(error.clone());
            }
            operation.refuse(&Failure { error, unknown });
        }
    }
}

fn refuse(operation: Option<Box<dyn Operation>>, failure: &Failure) {
    if let Some(mut operation) = operation {
        operation.refuse(failure);
    }
}

/// Tells subscriptions that the writer has ended, even by a panic.
struct LastWords(Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.stop();
        self.0.fail(BrokerError::new(
            BrokerErrorKind::Closed,
            format!("`{}`: the writer thread has ended", self.0.location.shown),
        ));
    }
}
