//! Looking into a queue, and picking from it. AMQP knows no way to look: what is looked at is delivered and handed back.
//!
//! A scan sees what is ready, in the queue's order, at most [`MOST`] messages; what others hold is not seen, and what
//! is looked at is kept from others for as long. Quorum queues count it as a delivery, which is why their limit is so
//! high (see [`DELIVERY_LIMIT`](crate::topology::DELIVERY_LIMIT)), and this process does not count it as a loss.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use lapin::Consumer;
use lapin::types::FieldTable;
use ponos_core::broker::{BrokerError, BrokerErrorKind, Delivery, DeliveryTag};
use ponos_core::envelope::Envelope;
use ponos_core::id::{MessageId, Timestamp};
use ponos_core::name::QueueName;
use tokio::time::{Instant, timeout};

use crate::broker::Shared;
use crate::error;
use crate::subscription::{Intake, consume, envelope};

/// The most messages that one scan sees.
pub(crate) const MOST: u16 = u16::MAX;

/// How long nothing comes before a scan believes that there is nothing more.
const QUIET: Duration = Duration::from_secs(5);

/// How long is waited for what was looked at to be back; somebody else may have taken it.
const BACK: Duration = Duration::from_secs(3);

/// What becomes of a message that was seen.
enum Seen {
    /// It is kept for whoever scans.
    Keep,
    /// It goes back at the end.
    Back,
}

/// Delivers what is ready in a queue, one after the other, for as long as `see` wants more; and how many messages were
/// taken for that, seen or not.
async fn scan(
    shared: &Arc<Shared>,
    queue: &QueueName,
    mut see: impl FnMut(u64, Envelope) -> (Seen, bool),
) -> Result<Option<(Arc<Intake>, u16)>, BrokerError> {
    let not_found = || {
        BrokerError::new(
            BrokerErrorKind::NotFound,
            format!(
                "there is no queue `{queue}`: start the service that owns it once, it declares its queues"
            ),
        )
    };
    let figures = shared.declarer().figures(queue.as_str()).await?.ok_or_else(not_found)?;
    if figures.ready == 0 {
        return Ok(None);
    }
    let prefetch = u16::try_from(figures.ready).unwrap_or(MOST);
    if figures.ready > u32::from(MOST) {
        tracing::warn!(%queue, ready = figures.ready, "only the first {MOST} messages are looked at");
    }
    let (intake, mut consumer) = consume(shared, queue, prefetch, FieldTable::default()).await?;
    let mut back = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..prefetch {
        let Some(delivery) = next(&mut consumer).await? else { break };
        let tag = delivery.delivery_tag;
        let envelope =
            envelope(queue, &delivery.properties, delivery.data.into(), delivery.routing_key.as_str());
        intake.delivered(tag, envelope.id);
        ids.push(envelope.id);
        let (seen, more) = see(tag, envelope);
        if matches!(seen, Seen::Back) {
            back.push(tag);
        }
        if !more {
            break;
        }
    }
    // No more of them; what is on its way returns when the channel closes.
    let tag = consumer.tag();
    let cancelled = intake.channel.basic_cancel(tag, lapin::options::BasicCancelOptions::default());
    let _ = timeout(QUIET, cancelled).await;
    while let Some(Ok(delivery)) = poll_once(&mut consumer).await {
        intake.delivered(delivery.delivery_tag, MessageId::from_bytes([0; 16]));
        intake.release(delivery.delivery_tag);
    }
    shared.memory.excuse(queue, ids.into_iter());
    for tag in back {
        intake.release(tag);
    }
    Ok(Some((intake, prefetch)))
}

async fn next(consumer: &mut Consumer) -> Result<Option<lapin::message::Delivery>, BrokerError> {
    let coming = std::future::poll_fn(|cx| Pin::new(&mut *consumer).poll_next(cx));
    match timeout(QUIET, coming).await {
        Ok(Some(Ok(delivery))) => Ok(Some(delivery)),
        Ok(Some(Err(error))) => Err(error::of_operation("looking into a queue", &error)),
        Ok(None) | Err(_) => Ok(None),
    }
}

async fn poll_once(consumer: &mut Consumer) -> Option<lapin::Result<lapin::message::Delivery>> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match Pin::new(&mut *consumer).poll_next(cx) {
            std::task::Poll::Ready(item) => item,
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// Picks these messages out of a queue: they are held, all others went back.
pub(crate) async fn pick(
    shared: &Arc<Shared>,
    queue: &QueueName,
    only: &[MessageId],
) -> Result<(Arc<Intake>, VecDeque<Delivery>), BrokerError> {
    let mut found: Vec<(u64, Envelope)> = Vec::new();
    let scanned = scan(shared, queue, |tag, envelope| {
        if only.contains(&envelope.id) {
            found.push((tag, envelope));
            (Seen::Keep, found.len() < only.len())
        } else {
            (Seen::Back, true)
        }
    });
    let intake = match scanned.await? {
        Some((intake, taken)) => {
            // Who looks next must find the others.
            until_back(shared, queue, u32::from(taken).saturating_sub(as_count(found.len()))).await?;
            intake
        }
        // Nothing is there: an intake that delivers nothing.
        None => consume(shared, queue, 1, FieldTable::default()).await?.0,
    };
    let deliveries = found.into_iter().map(|(tag, envelope)| Delivery {
        tag: DeliveryTag { subscription: intake.id, number: tag, fence: tag },
        queue: queue.clone(),
        envelope: Arc::new(envelope),
        losses: 0,
    });
    let deliveries = deliveries.collect();
    Ok((intake, deliveries))
}

/// By what messages are listed: those that failed by when they did, all by their id, which begins with a time.
type Key = (Option<Timestamp>, MessageId);

fn key(envelope: &Envelope) -> Key {
    (envelope.report.as_ref().map(|report| report.at), envelope.id)
}

/// Up to `limit` messages of a queue, oldest first, after one of them.
pub(crate) async fn page(
    shared: &Arc<Shared>,
    queue: &QueueName,
    limit: usize,
    after: Option<MessageId>,
) -> Result<Vec<Envelope>, BrokerError> {
    let mut from: Option<Key> = None;
    if let Some(after) = after {
        // Twice the same id can be there: the later one is where the page before ended.
        look(shared, queue, |envelope| {
            if envelope.id == after {
                from = from.max(Some(key(&envelope)));
            }
            true
        })
        .await?;
        if from.is_none() {
            let problem = format!("`{after}` is no longer in `{queue}`: begin again with its first page");
            return Err(BrokerError::new(BrokerErrorKind::NotFound, problem));
        }
    }
    // Only a page is kept, whatever the queue holds. The number keeps equal keys apart.
    let mut kept: BTreeMap<(Key, usize), Envelope> = BTreeMap::new();
    let mut number = 0;
    look(shared, queue, |envelope| {
        let key = key(&envelope);
        if from.is_none_or(|from| key > from) {
            number += 1;
            kept.insert((key, number), envelope);
            if kept.len() > limit {
                kept.pop_last();
            }
        }
        true
    })
    .await?;
    Ok(kept.into_values().collect())
}

/// One message of a queue.
pub(crate) async fn find(
    shared: &Arc<Shared>,
    queue: &QueueName,
    id: MessageId,
) -> Result<Option<Envelope>, BrokerError> {
    let mut found = None;
    look(shared, queue, |envelope| {
        if envelope.id == id {
            found = Some(envelope);
        }
        found.is_none()
    })
    .await?;
    Ok(found)
}

/// Shows what is ready in a queue for as long as `see` wants more. Everything has gone back when it returns.
async fn look(
    shared: &Arc<Shared>,
    queue: &QueueName,
    mut see: impl FnMut(Envelope) -> bool,
) -> Result<(), BrokerError> {
    let scanned = scan(shared, queue, |_, envelope| (Seen::Keep, see(envelope)));
    if let Some((intake, taken)) = scanned.await? {
        // Closing the channel hands everything back at once and in order.
        intake.close_channel().await;
        // Also what came and was not seen: who picks next must find it.
        until_back(shared, queue, taken.into()).await?;
    }
    Ok(())
}

fn as_count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Waits until what was looked at is ready again, so that who looks next sees it, or until somebody else has it.
async fn until_back(shared: &Arc<Shared>, queue: &QueueName, count: u32) -> Result<(), BrokerError> {
    let deadline = Instant::now() + BACK;
    let mut declarer = shared.declarer();
    while Instant::now() < deadline {
        let Some(figures) = declarer.figures(queue.as_str()).await? else { break };
        if figures.ready >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
