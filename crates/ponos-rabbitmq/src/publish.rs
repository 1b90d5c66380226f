//! Publishing with pipelined confirms.
//!
//! A batch is written at once and its confirms are awaited together. When RabbitMQ closes the channel over one message
//! (a missing exchange, a permission, a body over its maximum) it does not say which, so what has no answer yet is sent
//! again one by one, under the same ids: the message that fails alone is the one, and its neighbours are not disturbed.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use ponos_core::broker::{BrokerError, BrokerErrorKind};
use ponos_core::name::AppName;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::error::{self, Class};
use crate::link::{CALL_DEADLINE, Link};

/// How long a confirm may take.
pub(crate) const CONFIRM_DEADLINE: Duration = Duration::from_secs(25);

/// A message as AMQP takes it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
    /// Whether it matters that no queue has it.
    pub(crate) mandatory: bool,
    /// The level of the delay ladder that it goes to.
    pub(crate) level: Option<(AppName, Duration)>,
}

/// What became of a message.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Confirmed, and at least one queue has it.
    Routed,
    /// Confirmed, and no queue has it.
    Unrouted,
    /// RabbitMQ does not have it.
    Refused(BrokerError),
    /// RabbitMQ may have it.
    Unknown(BrokerError),
    /// The connection stands and the queue does not answer, or said no: it has no leader or no majority, or it is full.
    /// It may have the message.
    NoAnswer(BrokerError),
}

/// Publishes over a channel of its own.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Arc<Link>,
    runtime: Handle,
    channel: Arc<Mutex<Option<(Channel, u64)>>>,
    turn: Turn,
}

/// Whose turn it is to hand messages to the channel. The client library takes the next delivery tag and queues the frames
/// in two steps; between them another thread's message could go first, and each would get the other's confirm.
type Turn = Arc<std::sync::Mutex<()>>;

impl Publisher {
    pub(crate) fn new(link: Arc<Link>, runtime: Handle) -> Self {
        Self { link, runtime, channel: Arc::default(), turn: Turn::default() }
    }

    /// Publishes a batch; one outcome per message, in order.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the batch go on in the background.
    pub(crate) async fn publish(&self, messages: Vec<Message>) -> Vec<Outcome> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let batch = Batch {
            link: Arc::clone(&self.link),
            channel: Arc::clone(&self.channel),
            turn: Arc::clone(&self.turn),
            messages,
        };
        match self.runtime.spawn(batch.run()).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                vec![Outcome::Unknown(error::unavailable(format!("publishing was cut off: {error}"))); count]
            }
        }
    }
}

struct Batch {
    link: Arc<Link>,
    channel: Arc<Mutex<Option<(Channel, u64)>>>,
    turn: Turn,
    messages: Vec<Message>,
}

impl Batch {
    async fn run(self) -> Vec<Outcome> {
        let deadline = Instant::now() + CONFIRM_DEADLINE;
        let mut outcomes: Vec<Option<Outcome>> = vec![None; self.messages.len()];
        // Sent before without an answer, so that what follows may be the second time.
        let mut sent = false;
        // The channel of one message alone: what closes it is that message's.
        let mut alone: Option<(Channel, u64)> = None;
        loop {
            let mut open: Vec<usize> = (0..outcomes.len()).filter(|&n| outcomes[n].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let opened = match &alone {
                Some(open) if open.0.status().connected() => Ok(open.clone()),
                Some(_) => self.own_channel(deadline).await,
                None => self.shared_channel(deadline).await,
            };
            let channel = match opened {
                Ok(channel) => channel,
                Err(error) => {
                    for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_none()) {
                        let error = error.clone();
                        *outcome = Some(if sent { Outcome::Unknown(error) } else { Outcome::Refused(error) });
                    }
                    break;
                }
            };
            if alone.is_some() {
                alone = Some(channel.clone());
                open.truncate(1);
            }
            sent = true;
            let mut closed_over = None;
            for (&n, answer) in open.iter().zip(self.send(&channel, &open, deadline).await) {
                match answer {
                    Ok(outcome) => outcomes[n] = Some(outcome),
                    Err(error) => closed_over = Some(error),
                }
            }
            if let Some(error) = closed_over {
                match (&alone, error::class(&error)) {
                    (Some(_), Class::Channel(_)) => {
                        let message = &self.messages[open[0]];
                        let what = format!("publishing to `{}`", message.exchange);
                        outcomes[open[0]] = Some(Outcome::Refused(refused(&what, &error)));
                    }
                    (Some(_), _) => {}
                    (None, _) => alone = Some(channel),
                }
            }
        }
        if let Some((channel, _)) = alone {
            let _ = timeout_at(deadline, channel.close(200, "done".into())).await;
        }
        outcomes.into_iter().flatten().collect()
    }

    /// The channel that others use too, opened anew if it is gone.
    async fn shared_channel(&self, deadline: Instant) -> Result<(Channel, u64), BrokerError> {
        self.link.unblocked(deadline.saturating_duration_since(Instant::now())).await?;
        let mut channel = self.channel.lock().await;
        if let Some(open) = channel.as_ref().filter(|(channel, _)| channel.status().connected()) {
            return Ok(open.clone());
        }
        let opened = self.own_channel(deadline).await?;
        *channel = Some(opened.clone());
        Ok(opened)
    }

    async fn own_channel(&self, deadline: Instant) -> Result<(Channel, u64), BrokerError> {
        let within = deadline.saturating_duration_since(Instant::now()).min(CALL_DEADLINE);
        let (opened, generation) = self.link.channel(within).await?;
        let asking = opened.confirm_select(ConfirmSelectOptions::default());
        match self.link.answer("asking for confirms", generation, within, asking).await? {
            Ok(()) => Ok((opened, generation)),
            Err(error) => Err(error::of_operation("asking for confirms", &error)),
        }
    }

    /// Sends some of the messages. An error is the channel's: RabbitMQ closed it over one of them.
    async fn send(
        &self,
        (channel, generation): &(Channel, u64),
        which: &[usize],
        deadline: Instant,
    ) -> Vec<Result<Outcome, lapin::Error>> {
        let mut writing: Vec<_> = which
            .iter()
            .map(|&n| {
                let message = &self.messages[n];
                Writing::Pending(Box::pin(channel.basic_publish(
                    message.exchange.as_str().into(),
                    message.routing_key.as_str().into(),
                    BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() },
                    &message.body,
                    message.properties.clone(),
                )))
            })
            .collect();
        // The first poll hands each to the connection, in order; what is left then is to wait, one after the other.
        std::future::poll_fn(|cx| {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            for write in &mut writing {
                write.poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        let mut answers = Vec::with_capacity(which.len());
        let mut late = false;
        let mut strays = Vec::new();
        for write in writing {
            let answered = async { write.finish().await?.await };
            let left = deadline.saturating_duration_since(Instant::now());
            answers.push(match self.link.answer("waiting for the confirm", *generation, left, answered).await {
                Ok(Ok(Confirmation::Ack(None) | Confirmation::NotRequested)) => Ok(Outcome::Routed),
                Ok(Ok(Confirmation::Ack(Some(returned)))) => {
                    strays.push(returned);
                    Ok(Outcome::Routed)
                }
                Ok(Ok(Confirmation::Nack(_))) => Ok(Outcome::NoAnswer(error::unavailable(
                    "a queue did not take the message: its nodes have no majority at the moment, or it is full",
                ))),
                Ok(Err(error)) => match error::class(&error) {
                    Class::Channel(_) | Class::NoChannel => Err(error),
                    Class::Connection => Ok(Outcome::Unknown(error::of_operation("waiting for the confirm", &error))),
                },
                Err(error) => {
                    late = true;
                    let stands = channel.status().connected();
                    Ok(if stands { Outcome::NoAnswer(error) } else { Outcome::Unknown(error) })
                }
            });
        }
        // The client library gives a returned message to the confirm that comes next, which may be another message's.
        for returned in strays {
            let is_it = |message: &Message| {
                message.exchange == returned.exchange.as_str()
                    && message.routing_key == returned.routing_key.as_str()
                    && message.properties.message_id() == returned.properties.message_id()
            };
            if let Some(at) = which.iter().position(|&n| is_it(&self.messages[n]))
                && let Ok(outcome @ Outcome::Routed) = &mut answers[at]
            {
                *outcome = Outcome::Unrouted;
            }
        }
        if late {
            // What comes late on this channel would answer nobody.
            *self.channel.lock().await = None;
        }
        answers
    }
}

/// A message on its way into the connection.
enum Writing<'a> {
    Pending(Pin<Box<dyn Future<Output = lapin::Result<PublisherConfirm>> + Send + 'a>>),
    Written(lapin::Result<PublisherConfirm>),
}

impl Writing<'_> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) {
        if let Self::Pending(future) = self
            && let Poll::Ready(written) = future.as_mut().poll(cx)
        {
            *self = Self::Written(written);
        }
    }

    async fn finish(self) -> lapin::Result<PublisherConfirm> {
        match self {
            Self::Pending(future) => future.await,
            Self::Written(written) => written,
        }
    }
}

fn refused(what: &str, error: &lapin::Error) -> BrokerError {
    let error = error::of_operation(what, error);
    if error.kind() == BrokerErrorKind::Mismatch {
        // The one precondition of a publish that can fail here is RabbitMQ's own limit of a body.
        return BrokerError::new(BrokerErrorKind::Invalid, error.to_string());
    }
    error
}
