//! The brokers that need no server.

use std::sync::Arc;
use std::time::Duration;

use ponos::core::broker::{Broker, Subscription};
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::QueueName;
use ponos::testing::ManualClock;
use ponos::{MemoryBroker, Rough};
use ponos_sqlite::{Durability, SqliteBroker, SqliteOptions};
use tempfile::TempDir;

use super::another_process::Process;
use super::driver::{Severed, Subject};
use super::reference::Promises;

/// The broker in memory, on a clock that the test moves.
pub struct Memory {
    broker: MemoryBroker,
    clock: ManualClock,
    is_rough: bool,
}

impl Memory {
    pub fn calm() -> Self {
        Self::with(None)
    }

    pub fn rough(rough: Rough) -> Self {
        Self::with(Some(rough))
    }

    fn with(rough: Option<Rough>) -> Self {
        let clock = ManualClock::new();
        Self { broker: clock.broker(rough), clock, is_rough: rough.is_some() }
    }
}

impl Subject for Memory {
    fn promises(&self) -> Promises {
        Promises {
            exactly_once: !self.is_rough,
            keeps_places: true,
            recognises_repeats: false,
            counts: true,
            shows_all: true,
            fetches_ahead: false,
            keeps_asking: false,
            at_once: true,
            is_rough: self.is_rough,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    fn advance(&self, by: Duration) -> bool {
        self.clock.advance(by);
        true
    }

    async fn open(&self, _handle: usize) -> Arc<dyn Broker> {
        Arc::new(self.broker.handle())
    }

    fn sever(&self, _handle: usize, queue: &QueueName) -> Severed {
        self.broker.break_subscriptions(queue);
        Severed::Queue
    }
}

/// The embedded broker, on a file of its own.
pub struct Sqlite {
    directory: TempDir,
}

/// What another process is started for.
pub const HOLD: &str = "hold";

impl Sqlite {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn options() -> SqliteOptions {
        // A death of the machine is not played here; nobody gives a sign of life after the first one.
        SqliteOptions::new()
            .durability(Durability::PowerCutMayLoseLatest)
            .journal(None)
            .lease(Duration::from_secs(3600))
            .heartbeat(Duration::from_secs(3600))
    }

    fn broker(&self, options: SqliteOptions) -> SqliteBroker {
        SqliteBroker::open(self.directory.path().join("ponos.db"), options).unwrap()
    }
}

impl Subject for Sqlite {
    fn promises(&self) -> Promises {
        Promises {
            exactly_once: true,
            keeps_places: true,
            recognises_repeats: true,
            counts: true,
            shows_all: true,
            fetches_ahead: false,
            keeps_asking: true,
            at_once: false,
            is_rough: false,
        }
    }

    async fn open(&self, _handle: usize) -> Arc<dyn Broker> {
        Arc::new(self.broker(Self::options()))
    }

    fn kill_holder(&self, queue: &QueueName, take: usize) -> Option<Vec<MessageId>> {
        let file = self.directory.path().join("ponos.db");
        // The role says the queue too.
        let mut process = Process::start(&format!("{HOLD} {queue}"), &file, u32::try_from(take).unwrap());
        let taken = process.line("holds").split_whitespace().map(|id| id.parse().unwrap()).collect();
        process.kill();
        process.reap();
        Some(taken)
    }

    fn reaper(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(self.broker(Self::options().lease(Duration::from_millis(100)))))
    }
}

/// Takes so many messages of a queue, says so, and waits for its end.
pub async fn hold(file: &std::path::Path, queue: &str, take: usize) {
    use ponos::core::broker::SubscribeOptions;
    let broker = SqliteBroker::open(file, Sqlite::options()).unwrap();
    let queue = QueueName::parse(queue).unwrap();
    let options = SubscribeOptions::prefetch(u32::try_from(take).unwrap());
    let mut jobs: Box<dyn Subscription> = broker.subscribe(&queue, options).await.unwrap();
    let mut held = Vec::new();
    while held.len() < take {
        let left = take - held.len();
        std::future::poll_fn(|cx| jobs.poll_next(cx, left, &mut held)).await.unwrap();
    }
    let ids: Vec<_> = held.iter().map(|delivery| delivery.envelope.id.to_string()).collect();
    super::another_process::say(&format!("holds {}", ids.join(" ")));
    std::future::pending::<()>().await;
}
