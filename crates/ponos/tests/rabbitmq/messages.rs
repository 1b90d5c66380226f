//! Messages that are published past a publisher: many in one batch, and some that are not due yet.

use std::time::SystemTime;

use ponos::core::body;
use ponos::core::broker::{Broker, Destination, Outgoing, Published};
use ponos::core::envelope::{Envelope, MessageName, Progress};
use ponos::core::id::{MessageId, Tid, Timestamp};
use ponos::core::name::{EventName, QueueName, TaskName};
use ponos::{Event, Task};

/// A task as its publisher would send it; with `due` it is one that waits for its second attempt.
pub fn task<T: Task>(task: &T, due: Option<Timestamp>) -> Outgoing {
    let name = TaskName::from_checked(T::NAME);
    let progress = Progress { due, attempt: if due.is_some() { 2 } else { 1 }, ..Progress::default() };
    outgoing(Destination::Queue(QueueName::task(&name)), MessageName::Task(name), task, progress)
}

pub fn event<E: Event>(event: &E) -> Outgoing {
    let name = EventName::from_checked(E::NAME);
    outgoing(Destination::Event(name.clone()), MessageName::Event(name), event, Progress::default())
}

fn outgoing(
    to: Destination,
    name: MessageName,
    payload: &impl serde::Serialize,
    progress: Progress,
) -> Outgoing {
    let at = Timestamp::from(SystemTime::now());
    let random = || std::array::from_fn(|_| fastrand::u8(..));
    let tid = Tid::new(at, random());
    let body = body::encode(&tid, payload).unwrap();
    let envelope = Envelope {
        id: MessageId::new(at, random()),
        name,
        tid,
        cause: None,
        app: None,
        publisher: None,
        published_at: at,
        hops: 0,
        version: None,
        trace: None,
        progress,
        report: None,
        body,
    };
    Outgoing { to, envelope }
}

/// Publishes all; every one must be confirmed.
pub async fn send(broker: &dyn Broker, messages: Vec<Outgoing>) {
    for answer in broker.publish(messages).await {
        assert!(matches!(answer, Published::Confirmed { .. }), "{answer:?}");
    }
}
