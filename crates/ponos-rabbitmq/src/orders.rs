//! Standing orders: a small stream per application. Who starts reads it whole before it consumes, and follows it from
//! then on; who gives an order waits until it has read it back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use ponos_core::broker::{BrokerError, BrokerErrorKind, Order, OrderKey};
use ponos_core::id::Timestamp;
use ponos_core::name::{AppName, QueueName};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::broker::Shared;
use crate::error;
use crate::link::Link;
use crate::publish::{Message, Outcome, Publisher};
use crate::stream::{From, Read, Reader, mark};
use crate::topology::{Plan, orders_name};

/// How long it may take until what was written is read.
const SYNC: Duration = Duration::from_secs(10);

/// How long a follower waits before it reads anew; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the stream holds.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Where who wrote it will find it.
    mark: String,
    /// An order; nothing where somebody only wants to know the end, or of a kind that a later version knows.
    #[serde(default, deserialize_with = "if_known", skip_serializing_if = "Option::is_none")]
    order: Option<Order>,
    /// A queue beside which there is one of suspects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suspects: Option<QueueName>,
}

fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Order>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).unwrap_or_default())
}

/// The applications whose orders are followed.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    followed: Mutex<HashMap<AppName, Arc<Follower>>>,
}

/// Follows the stream of one application.
#[derive(Debug)]
struct Follower {
    state: watch::Receiver<State>,
    /// Whether it was read to an end once.
    synced: AtomicBool,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct State {
    orders: BTreeMap<OrderKey, Order>,
    /// Queues beside which there is one of suspects.
    suspects: BTreeSet<QueueName>,
    /// The marks that were read, from this process or others, bounded.
    marks: HashSet<String>,
    /// Whether this application's stream cannot be had, and why.
    unusable: Option<BrokerError>,
}

impl Orders {
    fn follower(&self, shared: &Arc<Shared>, app: &AppName) -> Arc<Follower> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(followed.entry(app.clone()).or_insert_with(|| {
            let (sender, state) = watch::channel(State::default());
            let link = Arc::clone(&shared.consume);
            Arc::new(Follower {
                state,
                synced: AtomicBool::new(false),
                task: shared.runtime.spawn(follow(link, orders_name(app), sender)),
            })
        }))
    }

    pub(crate) fn stop(&self) {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Reads the stream from its beginning and follows it, again whenever the connection is lost.
async fn follow(link: Arc<Link>, stream: String, state: watch::Sender<State>) {
    let mut from = From::First;
    let mut pause = FIRST_PAUSE;
    loop {
        let problem = match Reader::open(&link, &stream, from).await {
            Ok(mut reader) => loop {
                match reader.next(Duration::from_secs(3600)).await {
                    Ok(Some(Read { bytes, .. })) => {
                        apply(&bytes, &state);
                        from = reader.after();
                        pause = FIRST_PAUSE;
                    }
                    Ok(None) => {}
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        if problem.kind() == BrokerErrorKind::Closed {
            return;
        }
        tracing::debug!(stream, %problem, "standing orders are not followed at the moment; the last ones hold");
        if problem.kind() == BrokerErrorKind::NotFound {
            from = From::First;
        }
        if !problem.is_temporary() {
            state.send_modify(|state| state.unusable = Some(problem));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn apply(bytes: &[u8], state: &watch::Sender<State>) {
    // What a later version writes and this one cannot read is skipped.
    let Ok(entry) = serde_json::from_slice::<Entry>(bytes) else {
        return;
    };
    state.send_modify(|state| {
        state.unusable = None;
        if let Some(order) = entry.order {
            if order.action.is_end() {
                state.orders.remove(&order.key());
            } else {
                state.orders.insert(order.key(), order);
            }
        }
        state.suspects.extend(entry.suspects);
        if state.marks.len() >= 4096 {
            state.marks.clear();
        }
        state.marks.insert(entry.mark);
    });
}

/// Writes an entry and waits until the follower has read it: then it has read everything before, too.
async fn write(
    shared: &Arc<Shared>,
    app: &AppName,
    order: Option<Order>,
    suspects: Option<QueueName>,
) -> Result<Arc<Follower>, BrokerError> {
    let follower = shared.orders.follower(shared, app);
    let entry = Entry { mark: mark(), order, suspects };
    let body = serde_json::to_vec(&entry).unwrap_or_default();
    let message = Message {
        exchange: app.as_str().to_owned(),
        routing_key: orders_name(app),
        properties: BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into()),
        body: body.into(),
        mandatory: true,
        level: None,
    };
    publish(&shared.publisher, message).await?;
    let mut state = follower.state.clone();
    let read = state.wait_for(|state| state.marks.contains(&entry.mark) || state.unusable.is_some());
    match tokio::time::timeout(SYNC, read).await {
        Ok(Ok(state)) => match &state.unusable {
            Some(error) => Err(error.clone()),
            None => {
                drop(state);
                follower.synced.store(true, Ordering::Release);
                Ok(follower)
            }
        },
        _ => Err(error::unavailable(format!(
            "the standing orders of `{app}` were not read back within {SYNC:?}"
        ))),
    }
}

async fn publish(publisher: &Publisher, message: Message) -> Result<(), BrokerError> {
    match publisher.publish(vec![message]).await.pop() {
        Some(Outcome::Routed) => Ok(()),
        Some(Outcome::Unrouted) | None => Err(error::unavailable("the stream of standing orders is gone")),
        Some(Outcome::Refused(error) | Outcome::Unknown(error) | Outcome::NoAnswer(error)) => Err(error),
    }
}

/// Gives an order.
pub(crate) async fn steer(shared: &Arc<Shared>, order: Order) -> Result<(), BrokerError> {
    let app = order.target.app();
    shared.declarer().carry_out(&Plan::orders(&app)).await?;
    write(shared, &app, Some(order), None).await?;
    Ok(())
}

/// The orders that stand for an application.
pub(crate) async fn standing(shared: &Arc<Shared>, app: &AppName) -> Result<Vec<Order>, BrokerError> {
    let known = shared.orders.followed.lock().unwrap_or_else(PoisonError::into_inner).contains_key(app);
    if !known && shared.declarer().figures(&orders_name(app)).await?.is_none() {
        return Ok(Vec::new());
    }
    let mut follower = shared.orders.follower(shared, app);
    if !follower.synced.load(Ordering::Acquire) {
        follower = write(shared, app, None, None).await?;
    }
    let now: Timestamp = SystemTime::now().into();
    let state = follower.state.borrow();
    if let Some(error) = &state.unusable {
        return Err(error.clone());
    }
    Ok(state.orders.values().filter(|order| order.stands(now)).cloned().collect())
}

/// Waits until there are suspects of a queue.
pub(crate) async fn has_suspects(shared: &Arc<Shared>, queue: &QueueName) {
    let mut state = shared.orders.follower(shared, &queue.app()).state.clone();
    if state.wait_for(|state| state.suspects.contains(queue)).await.is_err() {
        // Nobody follows any more: the broker was closed.
        std::future::pending::<()>().await;
    }
}

/// Whether it is known that there are suspects of a queue.
pub(crate) fn knows_suspects(shared: &Arc<Shared>, queue: &QueueName) -> bool {
    shared.orders.follower(shared, &queue.app()).state.borrow().suspects.contains(queue)
}

/// Tells all instances that there are suspects of a queue.
pub(crate) async fn tell_of_suspects(shared: &Arc<Shared>, queue: &QueueName) -> Result<(), BrokerError> {
    shared.declarer().carry_out(&Plan::orders(&queue.app())).await?;
    write(shared, &queue.app(), None, Some(queue.clone())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use ponos_core::broker::OrderAction;

    use super::*;

    fn read(entries: &[&str]) -> State {
        let (state, _keep) = watch::channel(State::default());
        entries.iter().for_each(|entry| apply(entry.as_bytes(), &state));
        state.send_replace(State::default())
    }

    fn entry(n: u32, target: &str, action: &str) -> String {
        format!(
            r#"{{"mark":"{n}","later":1,"order":{{{target},"action":{action},"by":"me","reason":"r","at":7,"until":null}}}}"#
        )
    }

    #[test]
    fn an_order_of_another_version_is_skipped_and_its_mark_is_read() {
        let queue = r#""queue":"a.b.do""#;
        let state = read(&[
            // As the first version wrote it.
            r#"{"mark":"0","order":{"queue":"a.b.do","action":"pause","by":"me","reason":"r","at":7,"until":null}}"#,
            &entry(1, queue, r#"{"dance":{"steps":3}}"#),
            &entry(2, r#""galaxy":"m31""#, r#""pause""#),
            &entry(3, r#""dependency":{"app":"a","name":"smtp"}"#, r#""circuit_open""#),
            r#"{"mark":"4"}"#,
            r#"{"mark":"5","suspects":"a.b.do"}"#,
            "no entry",
        ]);
        let found: Vec<_> = state.orders.values().map(|order| order.action).collect();
        assert_eq!(found, [OrderAction::Pause, OrderAction::CircuitOpen]);
        assert_eq!((state.marks.len(), state.suspects.len()), (6, 1));
    }

    #[test]
    fn each_kind_ends_by_itself() {
        let queue = r#""queue":"a.b.do""#;
        let rate = entry(1, queue, r#"{"rate":{"count":5,"period_ms":1000}}"#);
        let (pause, reset) = (entry(2, queue, r#""pause""#), entry(3, queue, r#""rate_reset""#));
        let state = read(&[&rate, &pause, &reset]);
        let found: Vec<_> = state.orders.values().map(|order| order.action).collect();
        assert_eq!(found, [OrderAction::Pause]);
    }
}
