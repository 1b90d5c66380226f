//! Entries as services write them.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use ponos_core::broker::{BoxFuture, BrokerError};
use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    AttemptEnd, AttemptRecord, Beat, Entry, From, JournalReader, Notice, Origin, Position, PublishedRecord,
    Record, Said, What,
};
use ponos_core::name::{AppName, QueueName};
use ponos_readmodel::{CaughtUp, ReadModel, ReadModelOptions};

/// 2026-11-23T06:50:00Z.
pub(crate) const NOW: u64 = 1_795_416_600_000;

pub(crate) fn options() -> ReadModelOptions {
    ReadModelOptions::new().clock(|| Timestamp::from_millis(NOW))
}

pub(crate) fn model(directory: &std::path::Path) -> ReadModel {
    ReadModel::open(directory.join("model"), options()).expect("a read model")
}

pub(crate) fn origin(id: u64) -> Arc<Origin> {
    Arc::new(Origin {
        id,
        app: AppName::from_checked("pheidi"),
        version: Some("1.2.3".into()),
        host: format!("host/{id}").into(),
        started: at(0),
    })
}

/// So many milliseconds after a moment an hour before now.
pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(NOW - 3_600_000 + millis)
}

pub(crate) fn tid(number: u8) -> Tid {
    Tid::new(at(0), [number; 10])
}

pub(crate) fn message(number: u8) -> MessageId {
    MessageId::new(at(0), [number; 10])
}

pub(crate) fn record(id: u64, seq: u64, at: Timestamp, tid: &Tid, message: MessageId, what: What) -> Entry {
    Entry { origin: origin(id), seq, said: Said::Record(Record { at, tid: tid.clone(), message, what }) }
}

pub(crate) fn published(name: &str, cause: Option<MessageId>, queues: u32) -> What {
    What::Published(PublishedRecord {
        name: name.into(),
        event: true,
        app: Some(AppName::from_checked("cream")),
        cause,
        by: None,
        queues,
        hops: 0,
        size: 100,
    })
}

pub(crate) fn attempt(queue: &'static str, started: Timestamp, end: AttemptEnd) -> What {
    let queue = QueueName::from_checked(queue);
    let took = Duration::from_millis(20);
    let ready = Some(Timestamp::from_millis(started.as_millis() - 5));
    What::Attempt(AttemptRecord { took, ready, ..AttemptRecord::first(queue, Phase::Run, started, end) })
}

pub(crate) fn failed() -> AttemptEnd {
    AttemptEnd::Failed { reason: GaveUpReason::Exhausted, recovered: false }
}

pub(crate) fn retry(due: Timestamp) -> AttemptEnd {
    AttemptEnd::Retry { class: ErrorClass::Timeout, due }
}

pub(crate) fn notice(id: u64, seq: u64, at: Timestamp, notice: Notice) -> Entry {
    Entry { origin: origin(id), seq, said: Said::Notice(at, notice) }
}

pub(crate) fn beat(id: u64, seq: u64, at: Timestamp) -> Entry {
    notice(id, seq, at, Notice::Beat(Beat { every_ms: 5000, ..Beat::default() }))
}

/// A log in memory.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) id: u64,
    pub(crate) entries: std::sync::Mutex<Vec<Entry>>,
    /// How many entries were read.
    pub(crate) read: std::sync::atomic::AtomicUsize,
}

#[derive(Debug)]
struct LogReader<'a> {
    log: &'a Log,
    next: usize,
}

impl Log {
    /// A reader, as [`ReadModel::follow`] takes it.
    pub(crate) fn reader(&self, from: From) -> impl JournalReader {
        let next = match from {
            From::After(position) if position.log == self.id => {
                usize::try_from(position.offset).expect("small")
            }
            _ => 0,
        };
        LogReader { log: self, next }
    }

    pub(crate) fn catch_up(&self, model: &mut ReadModel) -> CaughtUp {
        let mut reader = self.reader(model.read_from().expect("a place"));
        now(model.follow(&mut reader)).expect("caught up")
    }
}

impl JournalReader for LogReader<'_> {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>> {
        let entries = self.log.entries.lock().expect("no panic");
        let page: Vec<Entry> = entries[self.next.min(entries.len())..].iter().take(7).cloned().collect();
        self.next += page.len();
        self.log.read.fetch_add(page.len(), std::sync::atomic::Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(page)))
    }

    fn position(&self) -> Option<Position> {
        (self.next > 0).then_some(Position { log: self.log.id, offset: self.next as u64 })
    }
}

/// The value of a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}
