//! Records of what happened: published in batches to the exchange `ponos.lifecycle`, where RabbitMQ discards them unless
//! somebody looks. Who looks declares the bounded stream behind it and reads that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use ponos_core::broker::{BoxFuture, BrokerError, BrokerErrorKind};
use ponos_core::id::Timestamp;
use ponos_core::journal::{Entry, From, Journal, JournalReader, Position, decode, encode};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::declare::Declarer;
use crate::error;
use crate::link::Link;
use crate::publish::{Outcome, Publisher};
use crate::stream::{self, Read, Reader, mark};
use crate::topology::{LIFECYCLE, LIFECYCLE_LOG, Plan};

/// What says that a message is a batch of entries, or a reader's mark.
const CONTENT_TYPE: &str = "application/x-ponos-lifecycle";

/// The most entries that wait to be published; what is more is dropped.
const WAITING: usize = 16_384;

/// The most entries of one message, and how long the first of them waits for company.
const BATCH: usize = 1024;
const COMPANY: Duration = Duration::from_millis(50);

/// How long nothing comes before a reader gives up waiting for the mark that it wrote.
const QUIET: Duration = Duration::from_secs(10);

/// How long a reader that has read everything waits for more at each look.
const COME: Duration = Duration::from_millis(50);

/// By how much the clocks of RabbitMQ and of those who write and read records may differ.
const SKEW: u64 = 5 * 60 * 1000;

/// What a message begins with that is no batch but a reader's mark.
const MARK: &[u8; 2] = b"PM";

enum Message {
    Entry(Box<Entry>),
    /// Everything before is published when this is answered.
    Flush(oneshot::Sender<()>),
}

/// The journal of one handle.
#[derive(Debug)]
pub(crate) struct RabbitJournal {
    sender: mpsc::Sender<Message>,
    dropped: Arc<AtomicU64>,
    consume: Arc<Link>,
    publisher: Publisher,
}

impl RabbitJournal {
    pub(crate) fn start(consume: &Arc<Link>, publish: &Arc<Link>, runtime: &Handle) -> Arc<Self> {
        let (sender, inbox) = mpsc::channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let publisher = || Publisher::new(Arc::clone(publish), runtime.clone());
        let writer = Writer {
            inbox,
            publisher: publisher(),
            consume: Arc::clone(consume),
            dropped: Arc::clone(&dropped),
            state: Exchange::Unknown,
        };
        runtime.spawn(writer.run());
        Arc::new(Self { sender, dropped, consume: Arc::clone(consume), publisher: publisher() })
    }

    async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Publishes what waits.
    pub(crate) async fn stop(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.flush()).await;
    }

    async fn open_reader(&self, from: From) -> Result<Box<dyn JournalReader>, BrokerError> {
        let mismatches = AtomicU64::new(0);
        Declarer::new(&self.consume, &mismatches).carry_out(&Plan::lifecycle_log()).await?;
        self.flush().await;
        let end = mark();
        let marked =
            self.publisher.publish(vec![message([MARK.as_slice(), end.as_bytes()].concat())]).await.pop();
        if let Some(Outcome::Refused(error) | Outcome::Unknown(error) | Outcome::NoAnswer(error)) = marked {
            return Err(error);
        }
        let mut reader = RabbitReader {
            consume: Arc::clone(&self.consume),
            stream: Some(Reader::open(&self.consume, LIFECYCLE_LOG, start(from)).await?),
            mark: Some(end.into_bytes()),
            asked: None,
            position: None,
            from_start: from == From::Start,
            began: None,
        };
        match from {
            From::End => while !reader.read(QUIET).await?.is_empty() {},
            From::After(position) => reader.asked = Some(position.offset),
            _ => {}
        }
        Ok(Box::new(reader))
    }
}

/// Where to attach to the stream.
fn start(from: From) -> stream::From {
    match from {
        From::Start => stream::From::First,
        From::Time(at) => stream::From::Time(Timestamp::from_millis(at.as_millis().saturating_sub(SKEW))),
        From::After(position) => stream::From::Offset(i64::try_from(position.offset + 1).unwrap_or(i64::MAX)),
        // A little before the mark that was just written.
        From::End => stream::From::Last,
    }
}

/// A reader of the stream.
struct RabbitReader {
    consume: Arc<Link>,
    /// `Some` until it is dropped.
    stream: Option<Reader>,
    /// What stands behind all that was there when this was opened; `None` once it was seen.
    mark: Option<Vec<u8>>,
    /// The place that was asked for, until the first message has shown that it is in this stream.
    asked: Option<u64>,
    position: Option<Position>,
    /// Whether it began with the first message, and when that was published.
    from_start: bool,
    began: Option<Timestamp>,
}

impl std::fmt::Debug for RabbitReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RabbitReader").field("position", &self.position).finish_non_exhaustive()
    }
}

impl RabbitReader {
    /// The next batch that holds something; nothing at the end.
    async fn read(&mut self, quiet: Duration) -> Result<Vec<Entry>, BrokerError> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(Vec::new()) };
            let within = if self.mark.is_some() { quiet } else { COME };
            let Some(Read { offset, at, bytes }) = stream.next(within).await? else {
                if self.mark.is_some() {
                    return Err(error::unavailable("the stream of records did not come to its end in time"));
                }
                return Ok(Vec::new());
            };
            if let Some(asked) = self.asked.take()
                && offset <= asked
            {
                // The stream was deleted and made anew: what was asked for was in another one.
                let first = Reader::open(&self.consume, LIFECYCLE_LOG, stream::From::First).await?;
                self.stream = Some(first);
                self.from_start = true;
                continue;
            }
            // The first message of a stream is the mark of who declared it, or the oldest that is still kept.
            if self.from_start && self.position.is_none() {
                self.began = at;
            }
            self.position = Some(Position { log: 0, offset });
            if let Some(mark) = bytes.strip_prefix(MARK) {
                if self.mark.as_deref() == Some(mark) {
                    self.mark = None;
                    return Ok(Vec::new());
                }
                continue;
            }
            // What a later version writes and this one cannot read is skipped.
            match decode(&bytes) {
                Ok(entries) if !entries.is_empty() => return Ok(entries),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a batch that cannot be read is left out"),
            }
        }
    }
}

impl JournalReader for RabbitReader {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Entry>, BrokerError>> {
        Box::pin(self.read(QUIET))
    }

    fn position(&self) -> Option<Position> {
        self.position
    }

    fn began(&self) -> Option<Timestamp> {
        self.began
    }
}

impl Drop for RabbitReader {
    fn drop(&mut self) {
        if let (Some(stream), Ok(runtime)) = (self.stream.take(), Handle::try_current()) {
            runtime.spawn(stream.close());
        }
    }
}

fn message(body: Vec<u8>) -> crate::publish::Message {
    crate::publish::Message {
        exchange: LIFECYCLE.to_owned(),
        routing_key: String::new(),
        properties: BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_timestamp(Timestamp::from(SystemTime::now()).as_millis()),
        body: body.into(),
        mandatory: false,
        level: None,
    }
}

/// What is known of the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    Unknown,
    Declared,
    /// This user may not use it: records are off.
    Denied,
}

struct Writer {
    inbox: mpsc::Receiver<Message>,
    publisher: Publisher,
    consume: Arc<Link>,
    dropped: Arc<AtomicU64>,
    state: Exchange,
}

impl Writer {
    async fn run(mut self) {
        let mut entries = Vec::new();
        while self.inbox.recv_many(&mut entries, BATCH).await > 0 {
            if entries.len() < BATCH && !entries.iter().any(|entry| matches!(entry, Message::Flush(_))) {
                tokio::time::sleep(COMPANY).await;
                while entries.len() < BATCH
                    && let Ok(entry) = self.inbox.try_recv()
                {
                    entries.push(entry);
                }
            }
            let mut batch = Vec::new();
            let mut flushed = Vec::new();
            for message in entries.drain(..) {
                match message {
                    Message::Entry(entry) => batch.push(*entry),
                    Message::Flush(done) => flushed.push(done),
                }
            }
            if !batch.is_empty() {
                self.publish(&batch).await;
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn publish(&mut self, batch: &[Entry]) {
        let count = batch.len() as u64;
        if self.state == Exchange::Unknown {
            let mismatches = AtomicU64::new(0);
            match Declarer::new(&self.consume, &mismatches).carry_out(&Plan::lifecycle()).await {
                Ok(()) => self.state = Exchange::Declared,
                Err(error) if error.is_temporary() || error.kind() == BrokerErrorKind::Closed => {}
                Err(error) => {
                    tracing::warn!(%error, "no records are kept: traces of this service will be empty");
                    self.state = Exchange::Denied;
                }
            }
        }
        let published = self.state == Exchange::Declared && {
            let answer = self.publisher.publish(vec![message(encode(batch))]).await.pop();
            if let Some(Outcome::Refused(error)) = &answer
                && !error.is_temporary()
            {
                self.state = match error.kind() {
                    BrokerErrorKind::Denied => Exchange::Denied,
                    _ => Exchange::Unknown,
                };
                tracing::warn!(%error, "records were not published");
            }
            matches!(answer, Some(Outcome::Routed | Outcome::Unrouted))
        };
        if !published {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Journal for RabbitJournal {
    fn append(&self, entry: Entry) {
        if self.sender.try_send(Message::Entry(Box::new(entry))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(&self, from: From) -> BoxFuture<'_, Result<Box<dyn JournalReader>, BrokerError>> {
        Box::pin(self.open_reader(from))
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
