//! Publishing from outside a handler: an HTTP API, a webhook, a command.

use std::collections::HashSet;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ponos_core::Bytes;
use ponos_core::body::{self, EncodeError};
use ponos_core::broker::{
    BoxFuture, Broker, BrokerError, BrokerErrorKind, Destination, Outgoing, Published, Topology,
};
use ponos_core::envelope::{Cause, MessageName};
use ponos_core::id::{MessageId, Tid};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};

use crate::context::{Local, new_envelope};
use crate::lifecycle::NotTaken;
use crate::message::{App, EmittedBy, Event, OwnedBy, Task};

/// How long a publish is tried before it is reported as failed: long enough to outwait an alarm of half a minute.
pub(crate) const PUBLISH_DEADLINE: Duration = Duration::from_secs(60);

/// Publishes in the name of the application `A`: the events that `A` declares, and `A`'s own tasks.
///
/// Each call starts a new chain with a new transaction id, unless it is [`within`](Self::within) one.
/// Cloning is cheap.
pub struct Publisher<A> {
    inner: Arc<Inner>,
    cause: Option<Cause>,
    app: PhantomData<fn() -> A>,
}

#[derive(Debug)]
struct Inner {
    local: Arc<Local>,
    broker: Arc<dyn Broker>,
    /// What this publisher has declared already; held only while it is looked up.
    declared: Mutex<HashSet<String>>,
}

impl<A> std::fmt::Debug for Publisher<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("app", &self.inner.local.app)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl<A> Clone for Publisher<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), cause: self.cause.clone(), app: PhantomData }
    }
}

/// A message on its way; await it to know that the broker has confirmed it.
///
/// The payload is serialised when this is made. Its type does not depend on the payload's, so that the compiler reports
/// an event that was not declared once, where it is emitted.
#[must_use = "nothing is published until this is awaited"]
pub struct Publishing<'a>(BoxFuture<'a, Result<Receipt, PublishError>>);

impl std::fmt::Debug for Publishing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publishing")
    }
}

impl Future for Publishing<'_> {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// What a confirmed publish is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction, to be given to whoever asked.
    pub tid: Tid,
    /// The message.
    pub id: MessageId,
    /// How many queues it went to; 0 for an event that nobody hears yet.
    pub queues: u32,
}

/// A message that was not published, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload cannot be a message.
    #[error(transparent)]
    Payload(#[from] EncodeError),
    /// The broker does not take it; it does not have it.
    #[error("`{name}` was not published: {source}")]
    Refused {
        /// The message's name.
        name: String,
        /// What the broker said.
        source: BrokerError,
    },
    /// No answer within the deadline: the broker may or may not have it. Publishing it again may double it.
    #[error("`{name}` was published without an answer within {deadline:?}: {source}")]
    Unknown {
        /// The message's name.
        name: String,
        /// How long it was tried.
        deadline: Duration,
        /// What the broker said last.
        source: BrokerError,
    },
}

impl<A> Publisher<A> {
    pub(crate) fn new(local: Arc<Local>, broker: Arc<dyn Broker>) -> Self {
        let inner = Inner { local, broker, declared: Mutex::new(HashSet::new()) };
        Self { inner: Arc::new(inner), cause: None, app: PhantomData }
    }
}

impl<A: App> Publisher<A> {
    /// Connects a process that only publishes.
    ///
    /// # Errors
    ///
    /// When the broker cannot be used; the error says why.
    pub async fn connect(broker: impl Into<crate::Broker>) -> Result<Self, BrokerError> {
        let broker = broker.into().connect().await?;
        let local = Local::new(AppName::from_checked(A::NAME), crate::clock::Clock::real()).telling(&*broker);
        Ok(Self::new(Arc::new(local), broker))
    }

    /// A publisher whose messages belong to the transaction of `cause`.
    #[must_use]
    pub fn within(&self, cause: Cause) -> Self {
        Self { cause: Some(cause), ..self.clone() }
    }

    /// Emits an event that the application declares, and returns once the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done leaves open whether the event was published.
    pub fn emit<E: EmittedBy<A>>(&self, event: E) -> Publishing<'_> {
        self.emit_any(&event)
    }

    /// Creates a task of the application, and returns once the broker has confirmed it.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done leaves open whether the task was created.
    pub fn create<T: OwnedBy<A>>(&self, task: T) -> Publishing<'_> {
        self.create_any(&task)
    }
}

impl<A> Publisher<A> {
    /// Emits any event: what tests do in the name of nobody.
    pub(crate) fn emit_any<E: Event>(&self, event: &E) -> Publishing<'_> {
        let name = EventName::from_checked(E::NAME);
        let cause = self.cause();
        let body = body::encode(&cause.tid, event);
        self.publishing(cause, Destination::Event(name.clone()), MessageName::Event(name), body)
    }

    /// Creates any task: what tests do in the name of its application.
    pub(crate) fn create_any<T: Task>(&self, task: &T) -> Publishing<'_> {
        let name = TaskName::from_checked(T::NAME);
        let cause = self.cause();
        let body = body::encode(&cause.tid, task);
        self.publishing(cause, Destination::Queue(QueueName::task(&name)), MessageName::Task(name), body)
    }

    fn publishing(
        &self,
        cause: Cause,
        to: Destination,
        name: MessageName,
        body: Result<Bytes, EncodeError>,
    ) -> Publishing<'_> {
        Publishing(Box::pin(async move { self.inner.publish(&cause, to, name, body?).await }))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn clock(&self) -> crate::clock::Clock {
        self.inner.local.clock.clone()
    }

    fn cause(&self) -> Cause {
        self.cause.clone().unwrap_or_else(|| Cause::root(self.inner.local.clock.new_tid()))
    }
}

impl Inner {
    async fn publish(
        &self,
        cause: &Cause,
        to: Destination,
        name: MessageName,
        body: Bytes,
    ) -> Result<Receipt, PublishError> {
        let id = self.local.clock.new_message_id();
        let envelope = new_envelope(&self.local, cause, id, name.clone(), None, body);
        self.declare(&to, &name).await?;
        let message = Outgoing { to, envelope };
        let queues = publish_until_confirmed(&*self.broker, &self.local, message, PUBLISH_DEADLINE).await?;
        Ok(Receipt { tid: cause.tid.clone(), id, queues })
    }

    /// Makes the destination exist, once. The queue of an own task may be declared by whoever comes first:
    /// its arguments are constants, and only this application creates its tasks.
    async fn declare(&self, to: &Destination, name: &MessageName) -> Result<(), PublishError> {
        let known = |declared: &HashSet<String>| declared.contains(name.as_str());
        if known(&self.declared.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let topology = match to {
            // An event's exchange is nobody's; declaring it makes no queues of this application.
            Destination::Event(event) => Topology { events: vec![event.clone()], ..Topology::default() },
            Destination::Queue(queue) => {
                let app = Some(self.local.app.clone());
                Topology { app, tasks: vec![queue.clone()], ..Topology::default() }
            }
        };
        let declared = self.local.clock.timeout(PUBLISH_DEADLINE, self.broker.declare(&topology)).await;
        declared
            .unwrap_or_else(|| Err(no_answer()))
            .map_err(|source| PublishError::Refused { name: name.to_string(), source })?;
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string());
        Ok(())
    }
}

/// Publishes under the same id until the broker confirms, refuses for good, or the deadline has passed.
async fn publish_until_confirmed(
    broker: &dyn Broker,
    local: &Local,
    message: Outgoing,
    deadline: Duration,
) -> Result<u32, PublishError> {
    let started = local.clock.now();
    let mut pause = Duration::from_millis(50);
    // One try without an answer leaves it open for good, whatever a later one is told.
    let mut open = false;
    loop {
        let left = deadline.saturating_sub(local.clock.now().since(started));
        let outcome = match local.clock.timeout(left, broker.publish(vec![message.clone()])).await {
            Some(mut outcomes) => outcomes.pop(),
            None => Some(Published::Unknown(no_answer())),
        };
        let (error, unknown) = match outcome {
            Some(Published::Confirmed { queues }) => {
                let took = local.clock.now().since(started);
                local.published(&message, queues, Some(took));
                return Ok(queues);
            }
            Some(Published::Returned) => (no_queue(&message.to), false),
            Some(Published::Refused(error)) => (error, false),
            Some(Published::Unknown(error)) => (error, true),
            None => unreachable!("a broker answers one outcome per message"),
        };
        open |= unknown;
        let out_of_time = local.clock.now().since(started) + pause > deadline;
        if out_of_time || !(unknown || error.is_temporary()) {
            let name = message.envelope.name.to_string();
            let why = match error.kind() {
                _ if open => NotTaken::Unknown,
                BrokerErrorKind::Blocked => NotTaken::Blocked,
                BrokerErrorKind::NotFound => NotTaken::NoQueue,
                _ => NotTaken::Refused,
            };
            local.unpublished(&message, why, &error.to_string());
            return Err(if open {
                PublishError::Unknown { name, deadline, source: error }
            } else {
                PublishError::Refused { name, source: error }
            });
        }
        local.clock.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn no_answer() -> BrokerError {
    let problem = format!("the broker did not answer within {PUBLISH_DEADLINE:?}: is it overloaded?");
    BrokerError::new(BrokerErrorKind::Unavailable, problem)
}

fn no_queue(to: &Destination) -> BrokerError {
    let name = match to {
        Destination::Event(name) => name.as_str(),
        Destination::Queue(name) => name.as_str(),
    };
    BrokerError::new(
        BrokerErrorKind::NotFound,
        format!("there is no queue `{name}`: start the service that owns it once, it declares its queues"),
    )
}

/// Publishes an event or a task that is known by its name only, for tools. The payload is a JSON object without `tid`.
#[derive(Debug)]
pub struct RawPublisher {
    inner: Inner,
}

impl RawPublisher {
    /// A publisher in the name of `app`.
    ///
    /// # Errors
    ///
    /// When the broker cannot be used.
    pub async fn connect(app: AppName, broker: impl Into<crate::Broker>) -> Result<Self, BrokerError> {
        let broker = broker.into().connect().await?;
        let local = Local::new(app, crate::clock::Clock::real()).telling(&*broker);
        Ok(Self { inner: Inner { local: Arc::new(local), broker, declared: Mutex::new(HashSet::new()) } })
    }

    /// Emits an event.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn emit(
        &self,
        name: EventName,
        payload: &serde_json::Map<String, serde_json::Value>,
        tid: Option<Tid>,
    ) -> Result<Receipt, PublishError> {
        self.publish(Destination::Event(name.clone()), MessageName::Event(name), payload, tid).await
    }

    /// Creates a task. Its queue must exist: a tool does not declare other people's queues.
    ///
    /// # Errors
    ///
    /// See [`PublishError`].
    pub async fn create(
        &self,
        name: TaskName,
        payload: &serde_json::Map<String, serde_json::Value>,
        tid: Option<Tid>,
    ) -> Result<Receipt, PublishError> {
        self.inner.declared.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string());
        self.publish(Destination::Queue(QueueName::task(&name)), MessageName::Task(name), payload, tid).await
    }

    async fn publish(
        &self,
        to: Destination,
        name: MessageName,
        payload: &serde_json::Map<String, serde_json::Value>,
        tid: Option<Tid>,
    ) -> Result<Receipt, PublishError> {
        let cause = Cause::root(tid.unwrap_or_else(|| self.inner.local.clock.new_tid()));
        let body = body::encode(&cause.tid, payload)?;
        self.inner.publish(&cause, to, name, body).await
    }
}
