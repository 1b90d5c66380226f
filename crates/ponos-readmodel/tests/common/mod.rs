//! Entries as services write them.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use ponos_core::envelope::{ErrorClass, GaveUpReason, Phase};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{
    AttemptEnd, AttemptRecord, Beat, Entry, Notice, Origin, PublishedRecord, Record, Said, What,
};
use ponos_core::name::{AppName, QueueName};
use ponos_readmodel::{ReadModel, ReadModelOptions};

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
