//! Reading a stream over AMQP: a consumer that starts at an offset, and a mark to know where the end is.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};
use ponos_core::broker::BrokerError;
use ponos_core::id::Timestamp;
use tokio::time::timeout;

use crate::convert;
use crate::error;
use crate::link::{CALL_DEADLINE, Link};

/// How much is on its way at once.
const PREFETCH: u16 = 500;

/// Where to begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From {
    First,
    /// The last chunk, where there is one.
    Last,
    /// The first chunk that may hold something of this time.
    Time(Timestamp),
    /// This message.
    Offset(i64),
}

/// One message of a stream.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) offset: u64,
    /// When it was published, on the clock of who did, where that was written into it.
    pub(crate) at: Option<Timestamp>,
    pub(crate) bytes: Vec<u8>,
}

/// An open stream.
pub(crate) struct Reader {
    channel: Channel,
    consumer: Consumer,
    read: u64,
    /// Where to go on.
    after: From,
}

impl Reader {
    pub(crate) async fn open(link: &Arc<Link>, stream: &str, from: From) -> Result<Self, BrokerError> {
        let what = format!("reading the stream `{stream}`");
        let (channel, generation) = link.channel(CALL_DEADLINE).await?;
        let mut arguments = FieldTable::default();
        let offset = match from {
            From::First => AMQPValue::LongString("first".into()),
            From::Last => AMQPValue::LongString("last".into()),
            From::Offset(offset) => AMQPValue::LongLongInt(offset),
            From::Time(at) => AMQPValue::Timestamp(at.as_millis() / 1000),
        };
        arguments.insert("x-stream-offset".into(), offset);
        let opening = async {
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), arguments).await
        };
        match link.answer(&what, generation, CALL_DEADLINE, opening).await? {
            Ok(consumer) => Ok(Self { channel, consumer, read: 0, after: from }),
            Err(error) => Err(error::of_operation(&what, &error)),
        }
    }

    /// The next message; `None` when none came in time.
    ///
    /// # Errors
    ///
    /// When the stream or the connection is gone.
    pub(crate) async fn next(&mut self, within: Duration) -> Result<Option<Read>, BrokerError> {
        let coming = std::future::poll_fn(|cx| Pin::new(&mut self.consumer).poll_next(cx));
        match timeout(within, coming).await {
            Ok(Some(Ok(delivery))) => {
                self.read += 1;
                let offset = convert::broker_int(&delivery.properties, "x-stream-offset");
                if let Some(offset) = offset {
                    self.after = From::Offset(offset + 1);
                }
                // An acknowledgement only asks for more.
                if self.read.is_multiple_of(u64::from(PREFETCH) / 4) {
                    let multiple = BasicAckOptions { multiple: true };
                    let acked = self.channel.basic_ack(delivery.delivery_tag, multiple).await;
                    acked.map_err(|error| error::of_operation("reading a stream", &error))?;
                }
                let offset = offset.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
                let at = (*delivery.properties.timestamp()).map(Timestamp::from_millis);
                Ok(Some(Read { offset, at, bytes: delivery.data }))
            }
            Ok(Some(Err(error))) => Err(error::of_operation("reading a stream", &error)),
            Ok(None) => Err(error::unavailable("the stream is gone")),
            Err(_) => Ok(None),
        }
    }

    /// Where a reader that follows this one would go on.
    pub(crate) fn after(&self) -> From {
        self.after
    }

    pub(crate) async fn close(self) {
        let _ = timeout(CALL_DEADLINE, self.channel.close(200, "read".into())).await;
    }
}

/// A text that is nobody else's, to find in a stream what was just written.
pub(crate) fn mark() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
