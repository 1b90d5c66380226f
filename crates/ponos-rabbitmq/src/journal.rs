//! Records of what happened: published in batches to the exchange `ponos.lifecycle`, where RabbitMQ discards them unless
//! somebody looks. Who looks declares the bounded stream behind it and reads that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::BasicProperties;
use ponos_core::broker::{BoxFuture, BrokerError, BrokerErrorKind};
use ponos_core::id::Timestamp;
use ponos_core::journal::{Journal, JournalQuery, Record};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::declare::Declarer;
use crate::error;
use crate::link::Link;
use crate::publish::{Message, Outcome, Publisher};
use crate::stream::{From, Reader, mark};
use crate::topology::{LIFECYCLE, LIFECYCLE_LOG, Plan};

/// The most records that wait to be published; what is more is dropped and counted.
const WAITING: usize = 16_384;

/// The most records of one message, and how long the first of them waits for company.
const BATCH: usize = 256;
const COMPANY: Duration = Duration::from_millis(50);

/// How long nothing comes before a reader gives up waiting for the mark that it wrote.
const QUIET: Duration = Duration::from_secs(10);

/// By how much the clocks of RabbitMQ and of those who write and read records may differ.
const SKEW: u64 = 5 * 60 * 1000;

/// One message of the stream.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    #[serde(default)]
    records: Vec<Record>,
}

enum Entry {
    Record(Box<Record>),
    /// Everything before is published when this is answered.
    Flush(oneshot::Sender<()>),
}

/// The journal of one handle.
#[derive(Debug)]
pub(crate) struct RabbitJournal {
    sender: mpsc::Sender<Entry>,
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
        if self.sender.send(Entry::Flush(done)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Publishes what waits.
    pub(crate) async fn stop(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.flush()).await;
    }

    async fn read_all(&self, query: JournalQuery) -> Result<Vec<Record>, BrokerError> {
        let mismatches = AtomicU64::new(0);
        Declarer::new(&self.consume, &mismatches).carry_out(&Plan::lifecycle_log()).await?;
        if let JournalQuery::Last(0) = query {
            return Ok(Vec::new());
        }
        self.flush().await;
        let end = mark();
        let message = message(&Batch { mark: Some(end.clone()), records: Vec::new() });
        let marked = self.publisher.publish(vec![message]).await.pop();
        if let Some(Outcome::Refused(error) | Outcome::Unknown(error) | Outcome::NoAnswer(error)) = marked {
            return Err(error);
        }
        let from = match &query {
            JournalQuery::Tid(tid) => began(tid).map_or(From::First, |at| From::Time(earlier(at))),
            JournalQuery::Since(since) => From::Time(earlier(*since)),
            _ => From::First,
        };
        let mut reader = Reader::open(&self.consume, LIFECYCLE_LOG, from).await?;
        let mut found = VecDeque::new();
        loop {
            let Some(bytes) = reader.next(QUIET).await? else {
                return Err(error::unavailable("the stream of records did not come to its end in time"));
            };
            // What a later version writes and this one cannot read is skipped.
            let Ok(batch) = serde_json::from_slice::<Batch>(&bytes) else {
                continue;
            };
            for record in batch.records {
                let wanted = match &query {
                    JournalQuery::Tid(tid) => record.tid == *tid,
                    JournalQuery::TidSuffix(suffix) => record.tid.to_string().ends_with(suffix.as_str()),
                    JournalQuery::Since(since) => record.at >= *since,
                    _ => true,
                };
                if wanted {
                    found.push_back(record);
                }
                if let JournalQuery::Last(count) = &query
                    && found.len() > *count
                {
                    found.pop_front();
                }
            }
            if batch.mark.as_deref() == Some(end.as_str()) {
                reader.close().await;
                return Ok(found.into());
            }
        }
    }
}

/// When a transaction began, if its id says so.
fn began(tid: &ponos_core::id::Tid) -> Option<Timestamp> {
    let hex = tid.trace_id()?;
    // A UUIDv7: 48 bits of milliseconds, then the version.
    let is_v7 = hex.as_bytes().get(12) == Some(&b'7');
    let millis = u64::from_str_radix(hex.get(..12)?, 16).ok().filter(|_| is_v7)?;
    Some(Timestamp::from_millis(millis))
}

fn earlier(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_sub(SKEW))
}

fn message(batch: &Batch) -> Message {
    Message {
        exchange: LIFECYCLE.to_owned(),
        routing_key: String::new(),
        properties: BasicProperties::default().with_content_type("application/json".into()),
        body: serde_json::to_vec(batch).unwrap_or_default().into(),
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
    inbox: mpsc::Receiver<Entry>,
    publisher: Publisher,
    consume: Arc<Link>,
    dropped: Arc<AtomicU64>,
    state: Exchange,
}

impl Writer {
    async fn run(mut self) {
        let mut entries = Vec::new();
        while self.inbox.recv_many(&mut entries, BATCH).await > 0 {
            if entries.len() < BATCH && !entries.iter().any(|entry| matches!(entry, Entry::Flush(_))) {
                tokio::time::sleep(COMPANY).await;
                while entries.len() < BATCH
                    && let Ok(entry) = self.inbox.try_recv()
                {
                    entries.push(entry);
                }
            }
            let mut records = Vec::new();
            let mut flushed = Vec::new();
            for entry in entries.drain(..) {
                match entry {
                    Entry::Record(record) => records.push(*record),
                    Entry::Flush(done) => flushed.push(done),
                }
            }
            if !records.is_empty() {
                self.publish(records).await;
            }
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn publish(&mut self, records: Vec<Record>) {
        let count = records.len() as u64;
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
            let answer = self.publisher.publish(vec![message(&Batch { mark: None, records })]).await.pop();
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
    fn append(&self, record: Record) {
        if self.sender.try_send(Entry::Record(Box::new(record))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self, query: JournalQuery) -> BoxFuture<'_, Result<Vec<Record>, BrokerError>> {
        Box::pin(self.read_all(query))
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
