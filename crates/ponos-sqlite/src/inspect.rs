//! Looking without changing anything: a thread with a connection that can only read, so that counting a million rows
//! is in nobody's way. It starts with the first question.

use std::thread::{self, JoinHandle};

use ponos_core::broker::{BrokerError, BrokerErrorKind, Inspect, Inspection, Order, QueueStats};
use ponos_core::envelope::Envelope;
use ponos_core::id::MessageId;
use ponos_core::name::{AppName, QueueName};
use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::error;
use crate::location::Location;
use crate::schema;
use crate::shared::Shared;
use crate::subscription::{Claimed, envelope};
use crate::transaction::{millis, time};

/// How many questions may wait.
const CHANNEL: usize = 64;

/// A question, with the way to answer it.
pub(crate) type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The handle of the reader thread.
pub(crate) struct Reader {
    pub(crate) questions: mpsc::Sender<Question>,
    thread: JoinHandle<()>,
    interrupt: InterruptHandle,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn start(location: &Location) -> Result<Self, BrokerError> {
        let connection = schema::open_reader(location)?;
        let interrupt = connection.get_interrupt_handle();
        let (questions, mut inbox) = mpsc::channel::<Question>(CHANNEL);
        let thread = thread::Builder::new()
            .name("ponos-reader".into())
            .spawn(move || {
                while let Some(question) = inbox.blocking_recv() {
                    question(&connection);
                }
            })
            .map_err(|e| error::of_io("start a thread for", &location.database, &e))?;
        Ok(Self { questions, thread, interrupt })
    }

    pub(crate) fn stop(self) {
        drop(self.questions);
        self.interrupt.interrupt();
        let _ = self.thread.join();
    }
}

/// Answers a question; see [`Broker::inspect`](ponos_core::broker::Broker::inspect).
pub(crate) async fn inspect(
    shared: &std::sync::Arc<Shared>,
    query: Inspect,
) -> Result<Inspection, BrokerError> {
    if let Some(error) = shared.refusal() {
        return Err(error);
    }
    let (reply, answer) = oneshot::channel();
    let asked = std::sync::Arc::clone(shared);
    let question: Question = Box::new(move |connection| {
        let _ = reply.send(look(connection, &asked, query));
    });
    shared.reader()?.send(question).await.map_err(|_| shared.gone())?;
    answer.await.unwrap_or_else(|_| Err(shared.gone()))
}

fn look(connection: &Connection, shared: &Shared, query: Inspect) -> Result<Inspection, BrokerError> {
    let found = match query {
        Inspect::Queues(app) => {
            let mine = |queue: &QueueName| app.as_ref().is_none_or(|app| queue.app() == *app);
            queues(connection, &shared.clock, mine).map(Inspection::Queues)
        }
        Inspect::Queue(wanted) => {
            queues(connection, &shared.clock, |queue| *queue == wanted).map(Inspection::Queues)
        }
        Inspect::Messages { queue, limit, after } => {
            let id = queue_id(connection, shared, &queue)?;
            let after = match after {
                Some(after) => {
                    Some(place(connection, id, after).map_err(|e| explain(shared, &e))?.ok_or_else(|| {
                        let problem =
                            format!("`{after}` is no longer in `{queue}`: begin again with its first page");
                        BrokerError::new(BrokerErrorKind::NotFound, problem)
                    })?)
                }
                None => None,
            };
            messages(connection, id, &queue, limit, after).map(Inspection::Messages)
        }
        Inspect::Message { queue, id } => {
            let queue_id = queue_id(connection, shared, &queue)?;
            message(connection, queue_id, &queue, id).map(Inspection::Messages)
        }
        Inspect::Orders(app) => orders(connection, shared, &app).map(Inspection::Orders),
        _ => {
            let problem = "the embedded broker does not know this question: update ponos-sqlite";
            return Err(BrokerError::new(BrokerErrorKind::Invalid, problem));
        }
    };
    found.map_err(|error| explain(shared, &error))
}

fn explain(shared: &Shared, error: &rusqlite::Error) -> BrokerError {
    error::of_sqlite(&shared.location.shown, error)
}

/// The figures of the queues that are wanted, each counted over the partial indexes.
fn queues(
    connection: &Connection,
    clock: &Clock,
    is_wanted: impl Fn(&QueueName) -> bool,
) -> rusqlite::Result<Vec<QueueStats>> {
    let mut stats = Vec::new();
    let now = millis(clock.now());
    let mut all = connection.prepare_cached("SELECT id, name FROM queue ORDER BY name")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name): (i64, String) = (row.get(0)?, row.get(1)?);
        // A name that a later version allows is not for us.
        let Ok(queue) = QueueName::parse(&name) else {
            continue;
        };
        if !is_wanted(&queue) {
            continue;
        }
        let count = |sql: &'static str, values: &[i64]| {
            connection
                .prepare_cached(sql)?
                .query_row(rusqlite::params_from_iter(values), |row| row.get::<_, i64>(0))
                .map(i64::cast_unsigned)
        };
        let oldest: Option<i64> = connection
            .prepare_cached(
                "SELECT ready_at FROM message WHERE state = 0 AND queue_id = ?1 AND ready_at <= ?2
                 ORDER BY ready_at LIMIT 1",
            )?
            .query_row([id, now], |row| row.get(0))
            .optional()?;
        stats.push(QueueStats {
            queue,
            ready: count(
                "SELECT count(*) FROM message WHERE state = 0 AND queue_id = ?1 AND ready_at <= ?2",
                &[id, now],
            )?,
            delayed: Some(count(
                "SELECT count(*) FROM message WHERE state = 0 AND queue_id = ?1 AND ready_at > ?2",
                &[id, now],
            )?),
            unsettled: Some(count(
                "SELECT count(*) FROM message INDEXED BY message_leased WHERE state = 1 AND queue_id = ?1",
                &[id],
            )?),
            consumers: u32::try_from(count("SELECT count(*) FROM consumer WHERE queue_id = ?1", &[id])?)
                .unwrap_or(u32::MAX),
            oldest: oldest.map(|oldest| clock.wall(time(oldest))),
        });
    }
    Ok(stats)
}

fn queue_id(connection: &Connection, shared: &Shared, queue: &QueueName) -> Result<i64, BrokerError> {
    let id = connection
        .prepare_cached("SELECT id FROM queue WHERE name = ?1")
        .and_then(|mut id| id.query_row([queue.as_str()], |row| row.get(0)).optional())
        .map_err(|error| explain(shared, &error))?;
    id.ok_or_else(|| {
        BrokerError::new(BrokerErrorKind::NotFound, format!("the queue `{queue}` does not exist"))
    })
}

/// Where a message stands in its queue.
fn place(connection: &Connection, queue: i64, id: MessageId) -> rusqlite::Result<Option<(i64, i64)>> {
    connection
        .prepare_cached(
            "SELECT ready_at, id FROM message WHERE queue_id = ?1 AND message_id = ?2 ORDER BY 1, 2 LIMIT 1",
        )?
        .query_row(params![queue, id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Ready, delayed and leased ones together, in the order of delivery: each half comes from its partial index.
fn messages(
    connection: &Connection,
    id: i64,
    queue: &QueueName,
    limit: usize,
    after: Option<(i64, i64)>,
) -> rusqlite::Result<Vec<Envelope>> {
    let mut found = connection.prepare_cached(
        "SELECT * FROM (
           SELECT id, fence, ready_at, losses, message_id, head, body FROM message
           WHERE state = 0 AND queue_id = ?1 AND (ready_at, id) > (?2, ?3) ORDER BY ready_at, id LIMIT ?4)
         UNION ALL
         SELECT * FROM (
           SELECT id, fence, ready_at, losses, message_id, head, body FROM message INDEXED BY message_leased
           WHERE state = 1 AND queue_id = ?1 AND (ready_at, id) > (?2, ?3) ORDER BY ready_at, id LIMIT ?4)
         ORDER BY ready_at, id LIMIT ?4",
    )?;
    let (ready_at, row) = after.unwrap_or((i64::MIN, i64::MIN));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    found.query_map(params![id, ready_at, row, limit], |row| read(row, queue))?.collect()
}

fn message(
    connection: &Connection,
    id: i64,
    queue: &QueueName,
    message: MessageId,
) -> rusqlite::Result<Vec<Envelope>> {
    connection
        .prepare_cached(
            "SELECT id, fence, ready_at, losses, message_id, head, body FROM message
             WHERE queue_id = ?1 AND message_id = ?2 ORDER BY id",
        )?
        .query_map(params![id, message.as_bytes()], |row| read(row, queue))?
        .collect()
}

fn read(row: &Row<'_>, queue: &QueueName) -> rusqlite::Result<Envelope> {
    Ok(envelope(Claimed::read(row)?, queue))
}

/// The orders that still stand.
fn orders(connection: &Connection, shared: &Shared, app: &AppName) -> rusqlite::Result<Vec<Order>> {
    let now = shared.clock.wall(shared.clock.now());
    let mut all = connection.prepare_cached("SELECT json FROM standing_order")?;
    let mut rows = all.query([])?;
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        match serde_json::from_str::<Order>(row.get_ref(0)?.as_str()?) {
            Ok(order) if order.target.app() == *app && order.stands(now) => orders.push(order),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "an order of a later version is left out"),
        }
    }
    orders.sort_by_cached_key(Order::key);
    Ok(orders)
}
