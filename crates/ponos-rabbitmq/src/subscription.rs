//! Consuming a queue, each over a channel of its own.
//!
//! Nothing outlives its channel: when that is gone, what it delivered is somebody else's, and what would be acknowledged
//! is not. The owner subscribes anew, which makes another intake with other tags.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use ponos_core::Bytes;
use ponos_core::broker::{
    BrokerError, BrokerErrorKind, Delivery, DeliveryTag, SubscribeOptions, Subscription, SubscriptionLost,
};
use ponos_core::envelope::{Envelope, GaveUp, GaveUpReason, Recovery, Report};
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use ponos_core::wire::{self, Reading};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::acks::{Ack, Acks, WAIT};
use crate::broker::Shared;
use crate::convert;
use crate::error;
use crate::gate::Place;
use crate::link::{CALL_DEADLINE, Link};
use crate::options::QueueType;
use crate::publish::Publisher;
use crate::settle::{LEFT, still_to_wait};
use crate::suspects::Suspects;

/// The header in which quorum queues count what was delivered and came back.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The part of a subscription that settlements need.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) id: u64,
    pub(crate) queue: QueueName,
    pub(crate) channel: Channel,
    /// Whose connection the channel is on.
    link: Arc<Link>,
    /// The number of the channel's connection.
    generation: u64,
    /// For what settlements send: a channel of its own, so that what fails here fails nobody else.
    pub(crate) publisher: Publisher,
    acks: Mutex<Acks>,
    /// Told when something waits to be acknowledged.
    waiting: Notify,
    /// The subscription was dropped, or the broker closed.
    ended: AtomicBool,
    /// The right to hold a suspect, while it holds one.
    place: Mutex<Option<Place>>,
    runtime: Handle,
}

/// What nobody holds closes its channel: whoever is interrupted while he subscribes, or looks into a queue, would
/// otherwise leave a consumer that takes its prefetch and never gives it back.
impl Drop for Intake {
    fn drop(&mut self) {
        if self.channel.status().connected() {
            let (channel, queue) = (self.channel.clone(), self.queue.clone());
            self.runtime.spawn(async move { close(&channel, &queue).await });
        }
    }
}

impl Intake {
    pub(crate) fn new(
        shared: &Shared,
        queue: &QueueName,
        link: &Arc<Link>,
        (channel, generation): (Channel, u64),
        prefetch: u16,
    ) -> Self {
        Self {
            id: shared.next_number(),
            queue: queue.clone(),
            channel,
            link: Arc::clone(link),
            generation,
            publisher: shared.new_publisher(),
            acks: Mutex::new(Acks::new(prefetch.into())),
            waiting: Notify::new(),
            ended: AtomicBool::new(false),
            place: Mutex::default(),
            runtime: shared.runtime.clone(),
        }
    }

    /// It holds a suspect, as the only one of this process.
    pub(crate) fn holds_place(&self, place: Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    fn leave_place(&self) {
        drop(self.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn acks(&self) -> MutexGuard<'_, Acks> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery came that is not taken in by a subscription.
    pub(crate) fn delivered(&self, tag: u64, id: MessageId) {
        self.acks().delivered(tag, id);
    }

    /// Whether what it delivered is still its own.
    pub(crate) fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && self.channel.status().connected()
    }

    /// Takes a delivery to settle it; `false` when it is not ours (any more).
    pub(crate) fn begin(&self, tag: u64) -> bool {
        self.is_open() && self.acks().begin(tag).is_some()
    }

    /// It could not be settled.
    pub(crate) fn give_back(&self, tag: u64) {
        self.acks().give_back(tag);
    }

    /// Acknowledges a delivery, at once or with others and soon; `false` when it is not ours any more.
    pub(crate) fn done(&self, tag: u64, at_once: bool) -> bool {
        self.leave_place();
        let mut acks = self.acks();
        // Asked under the lock: who ends the intake takes it too.
        if !self.is_open() {
            return false;
        }
        if acks.done(tag) || at_once {
            self.flush(&mut acks)
        } else {
            self.waiting.notify_one();
            true
        }
    }

    /// Hands a delivery back; `false` when it is not ours any more.
    pub(crate) fn release(&self, tag: u64) -> bool {
        self.leave_place();
        let mut acks = self.acks();
        if !self.is_open() {
            return false;
        }
        let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let written = push(self.channel.basic_nack(tag, requeue));
        acks.told(tag);
        written
    }

    /// Sends what waits. The frames are handed over under the lock, so that no range overtakes what it is about.
    fn flush(&self, acks: &mut Acks) -> bool {
        let mut out = Vec::new();
        acks.flush(&mut out);
        out.iter().all(|Ack { tag, multiple }| {
            push(self.channel.basic_ack(*tag, BasicAckOptions { multiple: *multiple }))
        })
    }

    /// Whether everything that it delivered is settled, or somebody else's.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_open() || self.acks().held().next().is_none()
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.acks().unsettled()
    }

    /// Ends it: acknowledges what is done; the rest returns to the queue when the channel closes.
    pub(crate) fn end(&self, shared: &Shared) -> bool {
        self.leave_place();
        let mut acks = self.acks();
        if self.ended.swap(true, Ordering::AcqRel) {
            return false;
        }
        if self.channel.status().connected() {
            self.flush(&mut acks);
            shared.memory.excuse(&self.queue, acks.held());
        } else if self.link.is_still(self.generation) {
            // RabbitMQ closed the channel alone, over a consumer's timeout for example: no process died.
            shared.memory.excuse(&self.queue, acks.held());
        }
        true
    }

    pub(crate) async fn close_channel(&self) {
        close(&self.channel, &self.queue).await;
    }
}

async fn close(channel: &Channel, queue: &QueueName) {
    let closing = channel.close(200, "unsubscribed".into());
    if !matches!(timeout(CALL_DEADLINE, closing).await, Ok(Ok(()))) {
        tracing::debug!(%queue, "the channel did not close in order");
    }
}

/// Hands a frame to the connection without waiting until it is written; `false` when the channel is gone.
fn push<F: Future<Output = lapin::Result<()>>>(frame: F) -> bool {
    let polled = pin!(frame).poll(&mut Context::from_waker(Waker::noop()));
    !matches!(polled, Poll::Ready(Err(_)))
}

/// Sends acknowledgements that found no company in time.
async fn flush_late(intake: Arc<Intake>) {
    loop {
        intake.waiting.notified().await;
        tokio::time::sleep(WAIT).await;
        if !intake.is_open() {
            return;
        }
        intake.flush(&mut intake.acks());
    }
}

/// A subscription over a consumer.
struct Consuming {
    shared: Arc<Shared>,
    intake: Arc<Intake>,
    consumer: Option<Consumer>,
    suspects: Option<Suspects>,
    /// Found beforehand, for who picks.
    found: VecDeque<Delivery>,
    prefetch: usize,
    lost: Option<String>,
    flusher: JoinHandle<()>,
}

impl std::fmt::Debug for Consuming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consuming").field("queue", &self.intake.queue).finish_non_exhaustive()
    }
}

/// Opens a queue. A queue of ours that is not there any more is declared again.
pub(crate) async fn subscribe(
    shared: &Arc<Shared>,
    queue: &QueueName,
    options: SubscribeOptions,
) -> Result<Box<dyn Subscription>, BrokerError> {
    options.check()?;
    match open(shared, queue, &options).await {
        Err(error) if error.kind() == BrokerErrorKind::NotFound && shared.declares(queue) => {
            tracing::warn!(%queue, "the queue is gone: declaring it again");
            shared.declare_known().await?;
            open(shared, queue, &options).await
        }
        opened => opened,
    }
}

async fn open(
    shared: &Arc<Shared>,
    queue: &QueueName,
    options: &SubscribeOptions,
) -> Result<Box<dyn Subscription>, BrokerError> {
    let Some(only) = &options.only else {
        let prefetch = u16::try_from(options.prefetch).unwrap_or(u16::MAX);
        let (intake, consumer) = consume(shared, queue, prefetch, FieldTable::default()).await?;
        return Ok(Box::new(Consuming::new(shared, intake, Some(consumer), VecDeque::new(), usize::MAX)));
    };
    let (intake, found) = crate::scan::pick(shared, queue, only).await?;
    Ok(Box::new(Consuming::new(shared, intake, None, found, options.prefetch as usize)))
}

/// Opens a channel and a consumer on it.
pub(crate) async fn consume(
    shared: &Arc<Shared>,
    queue: &QueueName,
    prefetch: u16,
    arguments: FieldTable,
) -> Result<(Arc<Intake>, Consumer), BrokerError> {
    let what = format!("consuming the queue `{queue}`");
    let (channel, generation) = shared.consume.channel(CALL_DEADLINE).await?;
    // Made before anybody consumes: if this is given up in between, the channel closes.
    let intake = Arc::new(Intake::new(shared, queue, &shared.consume, (channel, generation), prefetch));
    let consuming = async {
        intake.channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        intake
            .channel
            .basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), arguments)
            .await
    };
    let consumer = match shared.consume.answer(&what, generation, CALL_DEADLINE, consuming).await? {
        Ok(consumer) => consumer,
        Err(error) => {
            let error = error::of_operation(&what, &error);
            if error.kind() == BrokerErrorKind::NotFound {
                return Err(BrokerError::new(
                    BrokerErrorKind::NotFound,
                    format!(
                        "there is no queue `{queue}`: start the service that owns it once, it declares its queues"
                    ),
                ));
            }
            return Err(error);
        }
    };
    Ok((intake, consumer))
}

impl Consuming {
    fn new(
        shared: &Arc<Shared>,
        intake: Arc<Intake>,
        consumer: Option<Consumer>,
        found: VecDeque<Delivery>,
        prefetch: usize,
    ) -> Self {
        shared.enter(Arc::clone(&intake));
        let flusher = shared.runtime.spawn(flush_late(Arc::clone(&intake)));
        let suspects = consumer.is_some().then(|| Suspects::of(shared, &intake.queue));
        Self { suspects, shared: Arc::clone(shared), intake, consumer, found, prefetch, lost: None, flusher }
    }
}

impl Subscription for Consuming {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Delivery>,
    ) -> Poll<Result<(), SubscriptionLost>> {
        let first = out.len();
        if self.lost.is_none() && max > 0 {
            out.extend(self.suspects.as_mut().and_then(|suspects| suspects.poll_next(cx)));
        }
        let pass = if self.consumer.is_some() { self.shared.gate.pass(cx) } else { None };
        while self.lost.is_none() && out.len() - first < max {
            if !self.found.is_empty() {
                if self.intake.unsettled() > self.prefetch + self.found.len() {
                    break;
                }
                out.extend(self.found.pop_front());
                continue;
            }
            let Some(consumer) = self.consumer.as_mut().filter(|_| pass.is_some()) else {
                break;
            };
            match Pin::new(consumer).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(delivery))) => out.extend(self.shared.accept(&self.intake, delivery)),
                Poll::Ready(Some(Err(error))) => self.lost = Some(error::text(&error)),
                Poll::Ready(None) => {
                    self.lost = Some(
                        "RabbitMQ cancelled the consumer: the queue was deleted, or its node is gone".into(),
                    );
                }
            }
        }
        drop(pass);
        if self.lost.is_none() && !self.intake.is_open() {
            self.lost = Some("the connection or the channel is gone".into());
        }
        if out.len() > first {
            return Poll::Ready(Ok(()));
        }
        match &self.lost {
            Some(reason) => Poll::Ready(Err(SubscriptionLost { reason: reason.clone() })),
            None => Poll::Pending,
        }
    }
}

impl Drop for Consuming {
    fn drop(&mut self) {
        self.flusher.abort();
        self.shared.leave(self.intake.id);
        let open = self.intake.is_open();
        let ended = self.intake.end(&self.shared);
        let (intake, consumer) = (Arc::clone(&self.intake), self.consumer.take());
        if open && ended {
            self.shared.runtime.spawn(async move {
                intake.close_channel().await;
                // Dropped last: while its channel is open it would send a cancellation of its own.
                drop(consumer);
            });
        }
    }
}

impl Shared {
    /// Takes a delivery in; `None` when it is not to be worked: a copy of it is on its way already, or it is not due.
    pub(crate) fn accept(
        self: &Arc<Self>,
        intake: &Arc<Intake>,
        delivery: lapin::message::Delivery,
    ) -> Option<Delivery> {
        let mut envelope = envelope(
            &intake.queue,
            &delivery.properties,
            delivery.data.into(),
            delivery.routing_key.as_str(),
        );
        if delivery.properties.message_id().is_none() {
            // The npm package sends none, and the same content within one millisecond. An id computed from the content
            // would make one job of two; a new one at most runs a job twice that its worker did not acknowledge.
            envelope.id = MessageId::new(envelope.published_at, std::array::from_fn(|_| fastrand::u8(..)));
        }
        let (tag, id) = (delivery.delivery_tag, envelope.id);
        intake.acks().delivered(tag, id);
        if delivery.redelivered && self.memory.is_superseded(&intake.queue, &envelope) {
            self.counters.duplicates();
            tracing::debug!(queue = %intake.queue, message = %id, "its copy was confirmed before: acknowledged");
            intake.begin(tag);
            intake.done(tag, false);
            return None;
        }
        let left = convert::broker_int(&delivery.properties, LEFT);
        let delivery = Delivery {
            tag: DeliveryTag { subscription: intake.id, number: tag, fence: tag },
            queue: intake.queue.clone(),
            losses: if delivery.redelivered {
                self.losses(intake, &envelope, &delivery.properties)
            } else {
                // RabbitMQ counts from the second delivery on: what the first one brings was forged.
                0
            },
            envelope: Arc::new(envelope),
        };
        let wait = still_to_wait(left, delivery.envelope.progress.due, SystemTime::now().into());
        if delivery.envelope.report.is_none() && wait > Duration::ZERO {
            let shared = Arc::clone(self);
            self.runtime.spawn(async move { shared.delay_again(delivery, wait).await });
            return None;
        }
        Some(delivery)
    }

    /// How often a process died while it held the message, as far as can be told: not counted are connections that this
    /// process lost itself since the message was sent, and what it handed back.
    fn losses(&self, intake: &Intake, envelope: &Envelope, properties: &BasicProperties) -> u32 {
        let count = convert::broker_int(properties, DELIVERY_COUNT).unwrap_or(0);
        // A classic queue counts nothing, so what stands there is its publisher's.
        if count <= 0 || self.options.queue_type == QueueType::Classic {
            return 0;
        }
        let since = envelope.published_at.max(envelope.progress.due.unwrap_or_default());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        count
            .saturating_sub(intake.link.outages_since(since))
            .saturating_sub(self.memory.excused(&intake.queue, envelope.id))
    }
}

/// Puts a message together. What has lost its way and lies among the failed jobs gets a report that says so.
pub(crate) fn envelope(
    queue: &QueueName,
    properties: &BasicProperties,
    body: Bytes,
    routing_key: &str,
) -> Envelope {
    let parts = convert::from_amqp(properties);
    let now: Timestamp = SystemTime::now().into();
    let reading = Reading {
        queue,
        now: parts.properties.timestamp.map_or(now, Timestamp::from_millis),
        random: fingerprint(properties, &body),
    };
    let (mut envelope, anomalies) = wire::assemble(&parts, body, reading);
    for anomaly in anomalies {
        tracing::debug!(%queue, message = %envelope.id, part = anomaly.part, "{}", anomaly.problem);
    }
    if envelope.report.is_none() && *queue == QueueName::failed(&queue.app()) {
        envelope.report = stray(queue, properties, routing_key, &envelope, now);
    }
    envelope
}

/// The report of a message that RabbitMQ itself moved to the failed jobs: its queue is gone, or gave it up.
fn stray(
    failed: &QueueName,
    properties: &BasicProperties,
    routing_key: &str,
    envelope: &Envelope,
    now: Timestamp,
) -> Option<Box<Report>> {
    let own = |name: &str| {
        ponos_core::name::check_queue(name).is_ok() && name.starts_with(&format!("{}.", failed.app()))
    };
    let dead_lettered_from = convert::broker_text(properties, "x-first-death-queue")
        .filter(|name| own(name) && !name.starts_with(&format!("{}.retry.", failed.app())))
        // The header may be forged; where the message was sent to is not: to the queue itself, or to the event that it hears.
        .filter(|name| {
            *name == routing_key
                || name
                    .strip_prefix(failed.app().as_str())
                    .is_some_and(|rest| rest.strip_prefix('.') == Some(routing_key))
        });
    let queue = dead_lettered_from.or_else(|| Some(routing_key).filter(|name| own(name)))?;
    let queue: QueueName = serde_json::from_value(queue.into()).ok()?;
    let error = match dead_lettered_from.and(convert::broker_text(properties, "x-first-death-reason")) {
        Some(reason) => format!("RabbitMQ gave it up: {reason}"),
        None => format!("the queue `{queue}` did not exist when it was due"),
    };
    let reason = GaveUpReason::Stopped;
    Some(Box::new(Report {
        fingerprint: Report::fingerprint(&queue, reason, &error),
        queue,
        gave_up: GaveUp { reason, error, attempts: envelope.progress.attempt },
        recovery: Recovery::None,
        at: envelope.progress.due.unwrap_or(envelope.published_at).min(now),
        history: envelope.progress.history.clone(),
        version: None,
        host: String::new(),
    }))
}

/// Ten bytes that are the same each time that the same message comes.
fn fingerprint(properties: &BasicProperties, body: &[u8]) -> [u8; 10] {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        properties.message_id().as_ref().map(lapin::types::ShortString::as_str).hash(&mut hasher);
        properties.timestamp().hash(&mut hasher);
        body.hash(&mut hasher);
        hasher.finish().to_le_bytes()
    };
    let (one, two) = (half(1), half(2));
    std::array::from_fn(|n| if n < 8 { one[n] } else { two[n - 8] })
}
