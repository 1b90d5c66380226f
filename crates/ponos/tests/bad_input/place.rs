//! A broker, and a foreign hand that puts messages into it past every check of ours.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ponos::FailedJobs;
use ponos::core::Bytes;
use ponos::core::broker::{Broker as BrokerTrait, Destination, Outgoing, Published, QueueStats, Topology};
use ponos::core::envelope::Envelope;
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::{AppName, QueueName};
use ponos::core::wire::{self, Reading};
use ponos::prelude::*;
use serde_json::{Value as Json, json};

use super::support::raw;

pub const QUEUE: &str = "unit.work.do";

/// How long what must happen may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A value in a header table, of every kind that AMQP has.
#[derive(Debug, Clone)]
pub enum Value {
    Int(i64),
    Text(String),
    Bool(bool),
    Double(f64),
    Decimal,
    Timestamp(u64),
    Bytes(Vec<u8>),
    Void,
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
}

impl Value {
    /// As the embedded broker would hold it.
    fn json(&self) -> Json {
        match self {
            Self::Int(n) => json!(n),
            Self::Text(text) => json!(text),
            Self::Bool(value) => json!(value),
            Self::Double(n) => json!(n),
            Self::Decimal => json!(1.5),
            Self::Timestamp(n) => json!(n),
            Self::Bytes(bytes) => json!(bytes),
            Self::Void => Json::Null,
            Self::List(values) => values.iter().map(Self::json).collect(),
            Self::Table(fields) => fields.iter().map(|(name, value)| (name.clone(), value.json())).collect(),
        }
    }
}

/// A message as somebody else writes it. What is `None` is not there.
#[derive(Debug, Clone, Default)]
pub struct Foreign {
    pub body: Bytes,
    pub id: Option<String>,
    pub correlation: Option<String>,
    pub kind: Option<String>,
    pub app: Option<String>,
    pub timestamp: Option<u64>,
    pub headers: Vec<(String, Value)>,
    /// What only AMQP has.
    pub amqp: Amqp,
}

#[derive(Debug, Clone, Default)]
pub struct Amqp {
    pub content_type: Option<&'static str>,
    pub content_encoding: Option<&'static str>,
    pub expiration: Option<&'static str>,
    pub priority: Option<u8>,
    pub delivery_mode: Option<u8>,
    pub reply_to: Option<&'static str>,
    pub user_id: Option<&'static str>,
}

impl Foreign {
    /// Everything but the body, as the embedded broker holds it.
    fn head(&self) -> Vec<u8> {
        let headers: Json = self.headers.iter().map(|(name, value)| (name.clone(), value.json())).collect();
        let mut properties = serde_json::Map::new();
        for (name, text) in
            [("id", &self.id), ("corr", &self.correlation), ("type", &self.kind), ("app", &self.app)]
        {
            if let Some(text) = text {
                properties.insert(name.into(), json!(text));
            }
        }
        if let Some(timestamp) = self.timestamp {
            properties.insert("ts".into(), json!(timestamp));
        }
        json!({ "p": properties, "h": if self.headers.is_empty() { json!({}) } else { headers } })
            .to_string()
            .into_bytes()
    }
}

/// What a hand answers: nothing, or why the broker did not take it.
pub type Put<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// Puts messages into [`QUEUE`] as no program of Ponos would.
pub trait Hand: Send + Sync {
    fn put<'a>(&'a self, message: &'a Foreign) -> Put<'a>;
}

/// A broker of one kind.
pub struct Place {
    pub kind: &'static str,
    pub broker: Arc<dyn BrokerTrait>,
    pub hand: Box<dyn Hand>,
    /// How often what must come to be is looked for.
    pub look: Duration,
    /// What ends with the place.
    pub keep: Box<dyn std::any::Any>,
}

/// In memory nobody is foreign: what would be read from elsewhere is read, and then published.
struct InMemory(Arc<dyn BrokerTrait>);

impl Hand for InMemory {
    fn put<'a>(&'a self, message: &'a Foreign) -> Put<'a> {
        Box::pin(async move {
            let queue = QueueName::parse(QUEUE).unwrap();
            let reading = Reading {
                queue: &queue,
                now: Timestamp::EPOCH,
                random: std::array::from_fn(|_| fastrand::u8(..)),
            };
            let (envelope, _) = wire::decode(&message.head(), message.body.clone(), reading);
            let to = Destination::Queue(queue);
            match self.0.publish(vec![Outgoing { to, envelope }]).await.remove(0) {
                Published::Confirmed { .. } => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
    }
}

/// Somebody with a SQLite shell.
struct InFile(PathBuf);

impl Hand for InFile {
    fn put<'a>(&'a self, message: &'a Foreign) -> Put<'a> {
        let id = match message.id.as_deref() {
            Some(text) => MessageId::from_foreign(text, Timestamp::EPOCH)
                .map_or_else(|| text.as_bytes().to_vec(), |id| id.as_bytes().to_vec()),
            None => (0..16).map(|_| fastrand::u8(..)).collect(),
        };
        let insert = "INSERT INTO message (queue_id, message_id, ready_at, head, body)
            SELECT id, ?2, 0, ?3, ?4 FROM queue WHERE name = ?1";
        let parameters = rusqlite::params![QUEUE, id, message.head(), &message.body[..]];
        let database = rusqlite::Connection::open(&self.0).unwrap();
        database.busy_timeout(DEADLINE).unwrap();
        let inserted = database.execute(insert, parameters);
        Box::pin(std::future::ready(
            inserted.map(|rows| assert_eq!(rows, 1)).map_err(|error| error.to_string()),
        ))
    }
}

/// The brokers that need nothing to be installed, each with the queues of `unit`.
pub async fn places() -> [Place; 2] {
    let memory: Arc<dyn BrokerTrait> = Arc::new(ponos::MemoryBroker::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ponos.db");
    let sqlite = Broker::sqlite(&file).connect().await.unwrap();
    let places = [
        Place {
            kind: "memory",
            broker: Arc::clone(&memory),
            hand: Box::new(InMemory(memory)),
            look: Duration::ZERO,
            keep: Box::new(()),
        },
        Place {
            kind: "sqlite",
            broker: sqlite,
            hand: Box::new(InFile(file)),
            look: Duration::from_millis(5),
            keep: Box::new(dir),
        },
    ];
    for place in &places {
        place.declare().await;
    }
    places
}

pub fn app() -> AppName {
    AppName::parse("unit").unwrap()
}

impl Place {
    pub async fn declare(&self) {
        let tasks = ["unit.work.do", "unit.work.check"].map(|name| QueueName::parse(name).unwrap()).into();
        let topology = Topology { app: Some(app()), tasks, ..Topology::default() };
        self.broker.declare(&topology).await.unwrap();
    }

    pub async fn publish(&self, envelope: Envelope) -> Published {
        let to = Destination::Queue(QueueName::parse(QUEUE).unwrap());
        self.broker.publish(vec![Outgoing { to, envelope }]).await.remove(0)
    }

    pub async fn failed(&self) -> Vec<Envelope> {
        FailedJobs::new(Arc::clone(&self.broker), app()).list(1000, None).await.unwrap()
    }

    pub async fn start<A: App>(&self, service: Service<A>, state: A::State) -> Running<A> {
        service.start(state, Arc::clone(&self.broker)).await.unwrap()
    }

    /// How many messages `unit` has, in all its queues.
    pub async fn waiting(&self) -> u64 {
        let query = ponos::core::broker::Inspect::Queues(Some(app()));
        let stats = self.broker.inspect(query).await.unwrap().into_queues();
        stats.iter().map(QueueStats::messages).sum()
    }

    /// Polls until it holds.
    pub async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let polling = async {
            while !holds().await {
                if self.look.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(self.look).await;
                }
            }
        };
        let held = tokio::time::timeout(DEADLINE, polling).await;
        assert!(held.is_ok(), "not within {DEADLINE:?}, through {}: {what}", self.kind);
    }
}

/// A job with this body and an id of its own.
pub fn job(n: u8, body: impl Into<Bytes>) -> Envelope {
    Envelope { id: MessageId::from_bytes([n; 16]), body: body.into(), ..raw(QUEUE, b"") }
}

/// Writes heads over those of good jobs, as somebody with a SQLite shell might; all of them run.
pub async fn with_heads(place: &Place, heads: &[&[u8]]) {
    async fn notes(t: super::support::WorkDo, cx: TaskCx<super::support::WorkDo>) -> Outcome {
        assert_eq!(cx.attempt(), 1);
        cx.state().note(t.n);
        Ok(())
    }
    for (n, head) in (1..).zip(heads) {
        let message = job(n, format!("{{\"tid\":\"t\",\"n\":{n}}}"));
        let id = message.id;
        assert!(place.publish(message).await.is_confirmed());
        let dir: &tempfile::TempDir = place.keep.downcast_ref().unwrap();
        let database = rusqlite::Connection::open(dir.path().join("ponos.db")).unwrap();
        let sql = "UPDATE message SET head = ?1 WHERE message_id = ?2";
        assert_eq!(database.execute(sql, rusqlite::params![head, id.as_bytes()]).unwrap(), 1);
    }
    let counter = super::support::Counter::default();
    let service = Service::<super::support::Unit>::new().task(notes, |p| p);
    let running = place.start(service, counter.clone()).await;
    place.eventually("all ran", async || counter.noted().len() == heads.len()).await;
    running.shutdown().await;
    assert!(place.failed().await.is_empty());
}
