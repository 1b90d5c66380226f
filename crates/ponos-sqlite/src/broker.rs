//! The handle: opening a file, and the broker trait over what the modules do.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use ponos_core::broker::{
    BoxFuture, Broker, BrokerError, Delivery, Inspect, Inspection, Order, Outgoing, Published, SettleError,
    Settlement, SubscribeOptions, Subscription, Topology,
};
use ponos_core::journal::Journal;
use ponos_core::name::QueueName;
use tokio::sync::{mpsc, oneshot};

use crate::error;
use crate::file_lock::FileLock;
use crate::journal::SqliteJournal;
use crate::location::Location;
use crate::options::SqliteOptions;
use crate::poller::Poller;
use crate::process::{self, Registration};
use crate::schema;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::store::{self, Store};
use crate::writer::{self, Message, Writer};
use crate::{access, declare, inspect, publish, settle};

/// The embedded broker: one SQLite file that many processes on one machine may have open.
///
/// Clones share one open file. Dropping the last one, or [`close`](Broker::close), hands back what is not
/// settled and ends the threads; subscriptions that are still there are lost then.
///
/// # Cancel safety
///
/// Every future may be dropped at any time. A publish or a settlement whose future is dropped happened or did not; it
/// did not if the future was never polled.
#[derive(Debug, Clone)]
pub struct SqliteBroker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    shared: Arc<Shared>,
    journal: Option<Arc<SqliteJournal>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer hands everything back by itself; waiting for it here could block an async runtime.
        self.shared.stop();
    }
}

impl SqliteBroker {
    /// Opens the file, or creates it, with mode 0600. Its directory must exist.
    ///
    /// Beside it appear `FILE-wal` and `FILE-shm` (SQLite's), `FILE.writer.lock`, `FILE.procs/`, and, unless it is
    /// switched off, `FILE.journal` with its own. Only the database itself holds messages.
    ///
    /// It blocks for the time of a few disk accesses, and while other processes are opening the file.
    ///
    /// # Errors
    ///
    /// `Unusable` when the file is no database, is another program's or a later version's, is damaged, lies on
    /// a network file system, or may be written to by everybody; `Denied` when it may not be written; each says what to do. Also when the
    /// disk is full or no thread can be started.
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, BrokerError> {
        let location = Location::find(path.as_ref())?;
        access::check(&location)?;
        let lock = FileLock::open(&location.writer_lock())?;
        let (sender, inbox) = mpsc::channel(writer::CHANNEL);

        let held = lock.lock().map_err(|e| error::of_io("lock", &location.writer_lock(), &e))?;
        let connection = schema::open_writer(&location, options.durability, &held, |connection| {
            process::nobody(&location, connection)
        })?;
        // Before anything is timed: a delay is translated as soon as it is asked for.
        let clock = store::clock(&connection).map_err(|e| error::of_sqlite(&location.shown, &e))?;
        let registration = Registration::enter(&location, &connection, clock.now(), &held)?;
        drop(held);

        let shared =
            Arc::new(Shared::new(location, clock, registration.id, sender, lock.waits(), options.prototypes));
        let location = &shared.location;
        let failed = |e: std::io::Error| error::of_io("start a thread for", &location.database, &e);
        let poller = Poller::new(
            schema::open_reader(location)?,
            Arc::clone(&shared),
            options.lease,
            options.heartbeat,
        );
        let poller =
            thread::Builder::new().name("ponos-poller".into()).spawn(move || poller.run()).map_err(failed)?;
        let _ = shared.poller.set(poller.thread().clone());
        let writer = Writer {
            inbox,
            lock,
            store: Store::new(connection, Arc::clone(&shared)),
            registration,
            shared: Arc::clone(&shared),
            poller: Some(poller),
        };
        if let Err(error) = thread::Builder::new().name("ponos-writer".into()).spawn(move || writer.run()) {
            shared.stop();
            return Err(failed(error));
        }
        let journal = options.journal.and_then(|records| SqliteJournal::open_or_warn(location, records));
        let name = format!("sqlite:{}", location.shown);
        Ok(Self { inner: Arc::new(Inner { name, shared, journal }) })
    }

    /// Counters of this process, since it opened the file.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.inner.shared.figures)
    }

    async fn shut(&self) -> Result<(), BrokerError> {
        let shared = &self.inner.shared;
        if let Some(journal) = &self.inner.journal {
            journal.close().await;
        }
        let (reply, answer) = oneshot::channel();
        if shared.writer.send(Message::Close(reply)).await.is_err() {
            return Ok(());
        }
        // Without an answer somebody else has closed it at the same moment.
        answer.await.unwrap_or(Ok(()))
    }
}

impl Broker for SqliteBroker {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(declare::declare(&self.inner.shared, topology.clone()))
    }

    fn publish(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Published>> {
        Box::pin(publish::publish(&self.inner.shared, batch))
    }

    fn subscribe<'a>(
        &'a self,
        queue: &'a QueueName,
        options: SubscribeOptions,
    ) -> BoxFuture<'a, Result<Box<dyn Subscription>, BrokerError>> {
        Box::pin(declare::subscribe(&self.inner.shared, queue.clone(), options))
    }

    fn settle<'a>(
        &'a self,
        delivery: &'a Delivery,
        settlement: Settlement,
    ) -> BoxFuture<'a, Result<Vec<Published>, SettleError>> {
        Box::pin(settle::settle(&self.inner.shared, delivery, settlement))
    }

    fn inspect(&self, query: Inspect) -> BoxFuture<'_, Result<Inspection, BrokerError>> {
        Box::pin(inspect::inspect(&self.inner.shared, query))
    }

    fn steer(&self, order: Order) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(declare::steer(&self.inner.shared, order))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.shut())
    }

    /// Settling and sending are one transaction here, so nothing that is done comes again.
    fn may_duplicate(&self) -> bool {
        false
    }

    fn journal(&self) -> Option<Arc<dyn Journal>> {
        self.inner.journal.clone().map(|journal| journal as Arc<dyn Journal>)
    }
}
