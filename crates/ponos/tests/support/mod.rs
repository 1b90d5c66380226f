//! What the facade's tests share: two small applications, a state that counts, and ways into the broker.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ponos::core::Bytes;
use ponos::core::broker::{
    Broker as _, Dependency, Destination, Order, OrderAction, OrderTarget, Outgoing, SubscribeOptions,
};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{QueueName, TaskName};
use ponos::prelude::*;
use ponos::testing::System;

#[event("work.wanted")]
pub struct WorkWanted {
    pub n: u64,
}

#[event("work.done")]
pub struct WorkDone {
    pub n: u64,
}

#[app("unit", state = Counter)]
pub struct Unit;

#[task("unit.work.do", app = Unit, emits(WorkDone))]
pub struct WorkDo {
    pub n: u64,
}

#[task("unit.work.check", app = Unit)]
pub struct WorkCheck {
    pub n: u64,
}

#[app("other", state = Counter)]
pub struct Other;

#[task("other.note.write", app = Other)]
pub struct OtherNote {
    pub text: String,
}

/// The npm package's event, as a listener sees it.
#[event("worker.errored")]
#[serde(rename_all = "camelCase")]
pub struct WorkerErrored {
    pub original_worker_name: String,
    pub original_job_payload: serde_json::Value,
    pub error: ErrorText,
}

#[data]
pub struct ErrorText {
    pub message: String,
}

/// Counts what handlers did.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    counts: Arc<Mutex<BTreeMap<String, u32>>>,
    notes: Arc<Mutex<BTreeSet<u64>>>,
}

impl Counter {
    pub fn add(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn get(&self, what: &str) -> u32 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    pub fn note(&self, n: u64) {
        self.notes.lock().unwrap().insert(n);
    }

    pub fn noted(&self) -> Vec<u64> {
        self.notes.lock().unwrap().iter().copied().collect()
    }
}

/// A task's message with any body.
pub fn raw(task: &str, body: &'static [u8]) -> Envelope {
    let name = TaskName::parse(task).unwrap();
    Envelope {
        id: MessageId::from_bytes([42; 16]),
        name: MessageName::Task(name),
        tid: Tid::from_foreign("t").unwrap(),
        cause: None,
        app: None,
        publisher: None,
        published_at: Timestamp::from_millis(1_767_225_600_000),
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: Bytes::from_static(body),
    }
}

pub async fn publish_until_taken(system: &System, envelope: Envelope) {
    let to = Destination::Queue(QueueName::parse(envelope.name.as_str()).unwrap());
    let message = Outgoing { to, envelope };
    while !system.broker().publish(vec![message.clone()]).await[0].is_confirmed() {}
}

pub async fn publish_raw(system: &System, task: &str, body: &'static [u8]) {
    publish_until_taken(system, raw(task, body)).await;
}

pub async fn steer(system: &System, queue: &str, pause: bool) {
    order(system, queue, if pause { OrderAction::Pause } else { OrderAction::Resume }, None).await;
}

/// Gives an order about a queue, or about a dependency of `unit`, for so long.
pub async fn order(system: &System, target: &str, action: OrderAction, time: Option<std::time::Duration>) {
    let dependency = || Dependency { app: Unit::NAME.parse().unwrap(), name: target.to_owned() };
    let target =
        QueueName::parse(target).map_or_else(|_| OrderTarget::Dependency(dependency()), OrderTarget::Queue);
    let at = Timestamp::from_millis(1_767_225_600_000) + system.elapsed();
    let until = time.map(|time| at + time);
    let order = Order { target, action, by: "test".into(), reason: "to see".into(), at, until };
    system.broker().steer(order).await.unwrap();
}

/// Takes everything out of a queue and loses it, as a process that dies does.
pub async fn lose_all(system: &System, queue: &str) {
    let queue = QueueName::parse(queue).unwrap();
    let broker = system.broker();
    let mut subscription = broker.subscribe(&queue, SubscribeOptions::prefetch(100)).await.unwrap();
    let mut held = Vec::new();
    std::future::poll_fn(|cx| subscription.poll_next(cx, 100, &mut held)).await.unwrap();
    broker.break_subscriptions(&queue);
}
