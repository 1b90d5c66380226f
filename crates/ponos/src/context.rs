//! What a task handler is given beside its task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ponos_core::Bytes;
use ponos_core::body::{self, EncodeError};
use ponos_core::broker::{Broker, Destination, Outgoing};
use ponos_core::envelope::{Cause, Envelope, MAX_HISTORY_ERROR, MessageName, Phase, Progress, tame};
use ponos_core::id::{Effect, MessageId, Tid};
use ponos_core::journal::{Origin, PublishedRecord, UnpublishedRecord};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};

use crate::clock::Clock;
use crate::lifecycle::{self, Lifecycle, NotTaken};
use crate::message::{App, EmittedBy, Event, OwnedBy, Task};

/// What every handler of a service shares.
#[derive(Debug)]
pub(crate) struct Local {
    /// The application.
    pub(crate) app: AppName,
    /// The version of the service.
    pub(crate) version: Option<Arc<str>>,
    /// The host and process.
    pub(crate) host: Arc<str>,
    /// Time, chance and spawning.
    pub(crate) clock: Clock,
    /// Who is told what happens; `None` where neither a journal nor metrics are kept.
    pub(crate) lifecycle: Option<Lifecycle>,
    /// How many blocking handlers go on although their time is up.
    pub(crate) overdue: AtomicUsize,
    /// The HTTP client of `cx.http()`.
    #[cfg(feature = "reqwest")]
    pub(crate) http: crate::http::Client,
}

impl Local {
    /// What the handlers of `app` share, where nothing else is said.
    pub(crate) fn new(app: AppName, clock: Clock) -> Self {
        Self {
            app,
            version: None,
            host: host(),
            overdue: AtomicUsize::new(0),
            lifecycle: None,
            #[cfg(feature = "reqwest")]
            http: crate::http::Client::new(crate::http::HttpOptions::default(), clock.clone()),
            clock,
        }
    }

    /// With the journal of `broker`, if it keeps one and the environment does not forbid it.
    pub(crate) fn telling(mut self, broker: &dyn Broker) -> Self {
        let journal = broker.journal().filter(|_| lifecycle::is_wanted());
        self.lifecycle = journal.map(|journal| {
            let origin = Origin {
                id: self.clock.roll(),
                app: self.app.clone(),
                version: self.version.clone(),
                host: Arc::clone(&self.host),
                started: self.clock.wall(),
            };
            Lifecycle::new(journal, origin)
        });
        self
    }

    /// With these metrics, beside the journal if there is one.
    #[cfg(feature = "metrics")]
    pub(crate) fn measured(mut self, meter: Arc<crate::metrics::Meter>) -> Self {
        self.lifecycle = Some(self.lifecycle.take().unwrap_or_default().measured(meter));
        self
    }

    /// Tells that the broker has a message, and how long that took where it was measured.
    pub(crate) fn published(&self, message: &Outgoing, queues: u32, took: Option<Duration>) {
        let Some(lifecycle) = &self.lifecycle else { return };
        let envelope = &message.envelope;
        let published = PublishedRecord {
            name: lifecycle::shared(&envelope.name),
            event: matches!(envelope.name, MessageName::Event(_)),
            app: envelope.app.clone(),
            cause: envelope.cause,
            by: envelope.publisher.clone(),
            queues,
            hops: envelope.hops,
            size: u32::try_from(envelope.body.len()).unwrap_or(u32::MAX),
        };
        lifecycle.published(self.clock.wall(), envelope, published, took);
    }

    /// Tells that the broker does not have a message, or that nobody knows.
    pub(crate) fn unpublished(&self, message: &Outgoing, why: NotTaken, error: &str) {
        let Some(lifecycle) = &self.lifecycle else { return };
        let envelope = &message.envelope;
        let unpublished = UnpublishedRecord {
            name: lifecycle::shared(&envelope.name),
            event: matches!(envelope.name, MessageName::Event(_)),
            cause: envelope.cause,
            by: envelope.publisher.clone(),
            open: why == NotTaken::Unknown,
            error: tame(error.lines().next().unwrap_or_default(), MAX_HISTORY_ERROR).into(),
        };
        lifecycle.unpublished(self.clock.wall(), envelope, unpublished, why);
    }
}

/// The host and process, for reports: `host/pid`.
fn host() -> Arc<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".into()),
        name => name.to_owned(),
    };
    format!("{}/{}", tame(&host, 64), std::process::id()).into()
}

/// One attempt at one job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) local: Arc<Local>,
    pub(crate) queue: QueueName,
    pub(crate) envelope: Arc<Envelope>,
    /// What the attempt has published so far; `None` once it has ended.
    effects: Mutex<Option<Effects>>,
    /// How far blocking work is: [`RUNNING`], [`ENDED`] or [`OVERDUE`]. Written once by the thread that does the work
    /// and once by the attempt whose time is up, whoever comes first.
    blocking: AtomicU8,
}

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const OVERDUE: u8 = 2;

/// What an attempt has published.
#[derive(Debug, Default)]
struct Effects {
    messages: Vec<Outgoing>,
    /// How many effects of one kind there were, by the id that the first of them got.
    equal: HashMap<MessageId, u32>,
}

impl Job {
    pub(crate) fn new(local: Arc<Local>, queue: QueueName, envelope: Arc<Envelope>) -> Self {
        Self {
            local,
            queue,
            envelope,
            effects: Mutex::new(Some(Effects::default())),
            blocking: AtomicU8::new(RUNNING),
        }
    }

    fn effects(&self) -> MutexGuard<'_, Option<Effects>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt's time is up while blocking work may still run: it is counted until it ends.
    pub(crate) fn blocking_is_overdue(&self) {
        if self.blocking.compare_exchange(RUNNING, OVERDUE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let overdue = self.local.overdue.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(
                overdue,
                "the time is up, but blocking work cannot be stopped: it goes on beside the next attempt"
            );
        }
    }

    /// The blocking work has ended.
    pub(crate) fn blocking_has_ended(&self) {
        if self.blocking.swap(ENDED, Ordering::AcqRel) == OVERDUE {
            self.local.overdue.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ends the attempt and takes what it published.
    pub(crate) fn finish(&self) -> Vec<Outgoing> {
        self.effects().take().map(|effects| effects.messages).unwrap_or_default()
    }

    /// The messages that the attempt has published so far.
    #[cfg(feature = "testing")]
    pub(crate) fn effect_ids(&self) -> Vec<MessageId> {
        let effects = self.effects();
        effects.iter().flat_map(|effects| &effects.messages).map(|message| message.envelope.id).collect()
    }

    /// Buffers a message that inherits the job's transaction and causation.
    pub(crate) fn buffer(&self, to: Destination, name: MessageName, body: Bytes) -> Result<(), Ended> {
        let mut guard = self.effects();
        let effects = guard.as_mut().ok_or(Ended)?;
        let envelope = &*self.envelope;
        let mut effect = Effect {
            parent: envelope.id,
            queue: self.queue.as_str(),
            phase: envelope.progress.phase.as_str(),
            name: name.as_str(),
            payload: &body,
            occurrence: 0,
        };
        let first = MessageId::of_effect(&effect);
        let equal = effects.equal.entry(first).or_insert(0);
        effect.occurrence = *equal;
        let id = if *equal == 0 { first } else { MessageId::of_effect(&effect) };
        *equal += 1;
        let publisher = Some(self.queue.as_str().into());
        let envelope = new_envelope(&self.local, &Cause::of(envelope), id, name, publisher, body);
        effects.messages.push(Outgoing { to, envelope });
        Ok(())
    }

    fn emit<E: Event>(&self, event: &E) -> Result<(), EncodeError> {
        let name = EventName::from_checked(E::NAME);
        let body = body::encode(&self.envelope.tid, event)?;
        self.late(&self.buffer(Destination::Event(name.clone()), MessageName::Event(name), body), E::NAME);
        Ok(())
    }

    /// Buffers a task of the own application.
    pub(crate) fn create(&self, name: &'static str, body: Bytes) {
        let name = TaskName::from_checked(name);
        let queue = QueueName::task(&name);
        self.late(
            &self.buffer(Destination::Queue(queue), MessageName::Task(name.clone()), body),
            name.as_str(),
        );
    }

    fn late(&self, buffered: &Result<(), Ended>, name: &str) {
        if buffered.is_err() {
            // Nothing is lost silently: the attempt has been settled, so nobody could send this any more.
            tracing::error!(
                tid = %self.envelope.tid, queue = %self.queue, name,
                "published after the handler had returned, by work that it left behind: the message is dropped; await that work in the handler"
            );
        }
    }
}

/// The attempt has ended; nothing can be published through it any more.
#[derive(Debug)]
pub(crate) struct Ended;

/// A message that is published now.
pub(crate) fn new_envelope(
    local: &Local,
    cause: &Cause,
    id: MessageId,
    name: MessageName,
    publisher: Option<Arc<str>>,
    body: Bytes,
) -> Envelope {
    Envelope {
        id,
        name,
        tid: cause.tid.clone(),
        cause: cause.message,
        app: Some(local.app.clone()),
        publisher,
        published_at: local.clock.wall(),
        hops: cause.hops,
        version: local.version.clone(),
        trace: cause.trace.clone(),
        progress: Progress::default(),
        report: None,
        body,
    }
}

/// What a handler of the task `T` is given beside the task: its application's state, its identity, and the
/// capability to emit exactly the events that `T` declares and to create tasks of its own application.
///
/// Cloning is cheap. What is published is serialised at the call, buffered, and leaves only if the handler
/// returns `Ok`.
pub struct TaskCx<T: Task> {
    job: Arc<Job>,
    state: Arc<<T::App as App>::State>,
}

impl<T: Task> Clone for TaskCx<T> {
    fn clone(&self) -> Self {
        Self { job: Arc::clone(&self.job), state: Arc::clone(&self.state) }
    }
}

impl<T: Task> std::fmt::Debug for TaskCx<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCx").field("task", &T::NAME).field("tid", self.tid()).finish_non_exhaustive()
    }
}

impl<T: Task> TaskCx<T> {
    pub(crate) fn new(job: Arc<Job>, state: Arc<<T::App as App>::State>) -> Self {
        Self { job, state }
    }

    /// The application's state.
    #[must_use]
    pub fn state(&self) -> &<T::App as App>::State {
        &self.state
    }

    /// The job's identity, the same at each attempt and in each process: the idempotency key for whatever is outside.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.job.envelope.id
    }

    /// The transaction that the job belongs to.
    #[must_use]
    pub fn tid(&self) -> &Tid {
        &self.job.envelope.tid
    }

    /// The number of this attempt, from 1; in a recovery function, of the attempt at recovery.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.job.envelope.progress.attempt
    }

    /// The handler or the recovery function.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.job.envelope.progress.phase
    }

    /// What new work inherits when it is started outside Ponos, by hand.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause::of(&self.job.envelope)
    }

    /// Emits an event that the task declares. It goes out only if the handler returns `Ok`.
    ///
    /// # Errors
    ///
    /// When the payload cannot be a message body. Trying again does not help, so `?` sends the job to recovery.
    pub fn emit<E: EmittedBy<T>>(&self, event: E) -> Result<(), EncodeError> {
        self.job.emit(&event)
    }

    /// Creates a task of the own application. It goes out only if the handler returns `Ok`.
    ///
    /// # Errors
    ///
    /// When the payload cannot be a message body. Trying again does not help, so `?` sends the job to recovery.
    pub fn create<U: OwnedBy<T::App>>(&self, task: U) -> Result<(), EncodeError> {
        let body = body::encode(self.tid(), &task)?;
        self.job.create(U::NAME, body);
        Ok(())
    }

    /// Waits for `time`, on the clock of the service: the virtual one under `ponos::testing`.
    ///
    /// For a pause inside an attempt. To try again later, return an error or [`snooze`](crate::snooze): a job that
    /// waits in the broker holds no slot.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future forgets the timer.
    pub async fn sleep(&self, time: Duration) {
        self.job.local.clock.sleep(time).await;
    }

    /// An HTTP client that carries the transaction id to the hosts that the service allows.
    #[cfg(feature = "reqwest")]
    #[must_use]
    pub fn http(&self) -> crate::http::Http {
        self.job.local.http.within(self.cause())
    }

    /// A context without a broker, to test one handler alone: call the handler, then read what it [`emitted`](Self::emitted)
    /// and [`created`](Self::created).
    ///
    /// ```
    /// # use ponos::prelude::*;
    /// # #[event("email.sent")] #[derive(Debug, PartialEq)] pub struct EmailSent { pub to: String }
    /// # #[app("pheidi")] pub struct Pheidi;
    /// # #[task("pheidi.email.send", app = Pheidi, emits(EmailSent))] pub struct EmailSend { pub to: String }
    /// async fn send_email(t: EmailSend, cx: TaskCx<EmailSend>) -> Outcome {
    ///     cx.emit(EmailSent { to: t.to })?;
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let cx = TaskCx::test(());
    /// send_email(EmailSend { to: "a@b".into() }, cx.clone()).await.unwrap();
    /// assert_eq!(cx.emitted::<EmailSent>(), [EmailSent { to: "a@b".into() }]);
    /// # }
    /// ```
    #[must_use]
    pub fn test(state: <T::App as App>::State) -> Self {
        let clock = Clock::real();
        let task = TaskName::from_checked(T::NAME);
        let local = Arc::new(Local::new(task.app(), clock.clone()));
        let cause = Cause::root(clock.new_tid());
        let name = MessageName::Task(task.clone());
        let envelope =
            new_envelope(&local, &cause, clock.new_message_id(), name, None, Bytes::from_static(b"{}"));
        let job = Job::new(local, QueueName::task(&task), Arc::new(envelope));
        Self { job: Arc::new(job), state: Arc::new(state) }
    }

    /// The events of type `E` that were emitted through this context so far, in order.
    #[must_use]
    pub fn emitted<E: EmittedBy<T>>(&self) -> Vec<E> {
        self.buffered(E::NAME)
    }

    /// The tasks of type `U` that were created through this context so far, in order.
    #[must_use]
    pub fn created<U: OwnedBy<T::App>>(&self) -> Vec<U> {
        self.buffered(U::NAME)
    }

    fn buffered<M: crate::message::Payload>(&self, name: &str) -> Vec<M> {
        let effects = self.job.effects();
        let messages = effects.iter().flat_map(|effects| &effects.messages);
        messages
            .filter(|message| message.envelope.name.as_str() == name)
            .filter_map(|message| body::decode(&message.envelope.body).ok())
            .collect()
    }
}
