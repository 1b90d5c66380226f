//! One write transaction, as the operations see it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use ponos_core::broker::{Destination, Published};
use ponos_core::id::{MessageId, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use crate::shared::Shared;

/// A write transaction of the writer thread, under the lock.
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a mut Names,
    /// Broker time of this transaction.
    pub(crate) now: Timestamp,
    /// The process that claims.
    pub(crate) owner: i64,
    /// Counted up for each claim, from a random start: with the row's id it never repeats.
    pub(crate) fence: &'a mut i64,
    /// Queues that got something to deliver.
    pub(crate) touched: &'a mut Vec<i64>,
    /// Limits and counters.
    pub(crate) shared: &'a Shared,
}

/// A message ready to be inserted: its head was encoded on the publisher's thread.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) to: Destination,
    pub(crate) id: MessageId,
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
    /// In broker time.
    pub(crate) due: Option<Timestamp>,
}

impl Tx<'_> {
    pub(crate) fn prepare(&self, sql: &'static str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Inserts a message wherever it goes.
    pub(crate) fn send(&mut self, message: &Insert) -> rusqlite::Result<Published> {
        let queues = match &message.to {
            Destination::Queue(queue) => {
                let Some(queue) = self.names.queue(self.connection, queue.as_str())? else {
                    return Ok(Published::Returned);
                };
                self.insert(queue, message)?;
                1
            }
            Destination::Event(event) => {
                let hearers = self.names.hearers(self.connection, event.as_str())?;
                for queue in hearers.iter() {
                    self.insert(*queue, message)?;
                }
                u32::try_from(hearers.len()).unwrap_or(u32::MAX)
            }
        };
        Ok(Published::Confirmed { queues })
    }

    /// A message that is in the queue already is a publisher's second try: it is confirmed and not doubled. One with another
    /// body is another message, whose publisher uses an id twice: it is kept too.
    fn insert(&mut self, queue: i64, message: &Insert) -> rusqlite::Result<()> {
        let ready_at = self.ready_at(message.due, queue);
        *self.fence += 1;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO message (queue_id, message_id, ready_at, fence, owner, head, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (queue_id, message_id, copy) DO NOTHING",
        )?;
        let inserted = insert.execute(params![
            queue,
            message.id.as_bytes(),
            ready_at,
            *self.fence,
            self.owner,
            message.head,
            &message.body[..]
        ])?;
        drop(insert);
        if inserted == 0 {
            self.insert_another(queue, message, ready_at)?;
        }
        self.keep_bound(queue)
    }

    /// Inserts a message whose id is in the queue with other bytes. Its `copy` is computed from them, so that a second try is
    /// recognised here too.
    fn insert_another(&mut self, queue: i64, message: &Insert, ready_at: i64) -> rusqlite::Result<()> {
        let same = "SELECT 1 FROM message WHERE queue_id = ?1 AND message_id = ?2 AND body = ?3";
        let id = message.id.as_bytes();
        if self.prepare(same)?.exists(params![queue, id, &message.body[..]])? {
            return Ok(());
        }
        tracing::warn!(message = %message.id, "the id is used for another body: taken as another message");
        let mut hasher = DefaultHasher::new();
        message.body.hash(&mut hasher);
        // Negative, so that it is no row's id, which is what a failed message has there.
        let copy = (hasher.finish() | 1 << 63).cast_signed();
        self.prepare(
            "INSERT INTO message (queue_id, message_id, ready_at, fence, owner, head, body, copy)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (queue_id, message_id, copy) DO NOTHING",
        )?
        .execute(params![queue, id, ready_at, *self.fence, self.owner, message.head, &message.body[..], copy])
        .map(drop)
    }

    /// When a message that is due then, in broker time, is ready; `None` is now. Notes a queue that has work.
    pub(crate) fn ready_at(&mut self, due: Option<Timestamp>, queue: i64) -> i64 {
        if let Some(due) = due.filter(|due| *due > self.now) {
            return millis(due);
        }
        self.touch(queue);
        millis(self.now)
    }

    pub(crate) fn touch(&mut self, queue: i64) {
        if !self.touched.contains(&queue) {
            self.touched.push(queue);
        }
    }

    /// The queue's id; made where there is none.
    pub(crate) fn queue_or_new(&mut self, queue: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.names.queue(self.connection, queue)? {
            return Ok(id);
        }
        self.prepare("INSERT INTO queue (name) VALUES (?1)")?.execute([queue])?;
        let id = self.connection.last_insert_rowid();
        self.changed_names()?;
        Ok(id)
    }

    /// Binds an event to a queue, or only makes it known.
    pub(crate) fn bind(&mut self, event: &str, queue: Option<i64>) -> rusqlite::Result<()> {
        let mut changed =
            self.prepare("INSERT INTO event (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([event])?;
        if let Some(queue) = queue {
            changed += self
                .prepare(
                    "INSERT INTO binding (event_id, queue_id) SELECT id, ?2 FROM event WHERE name = ?1
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![event, queue])?;
        }
        if changed > 0 {
            self.changed_names()?;
        }
        Ok(())
    }

    /// Tells the other processes to forget what they know of queues and events.
    pub(crate) fn changed_names(&mut self) -> rusqlite::Result<()> {
        self.names.forget();
        self.prepare("UPDATE meta SET value = value + 1 WHERE key = 'generation'")?.execute([])?;
        Ok(())
    }
}

/// What the writer remembers of queues and events, so that a publish need not look them up.
///
/// Any process may add some, or remove a prototype: whoever does counts `meta.generation` up, and the writer compares it
/// after each foreign commit. The memory is bounded by what services declare.
#[derive(Debug, Default)]
pub(crate) struct Names {
    generation: i64,
    queues: HashMap<Box<str>, i64>,
    hearers: HashMap<Box<str>, Arc<[i64]>>,
    /// How many messages each prototype takes until it is counted again; `None` until asked for.
    prototypes: Option<HashMap<i64, u64>>,
}

impl Names {
    /// Forgets everything if another process has added something.
    pub(crate) fn at_generation(&mut self, generation: i64) {
        if self.generation != generation {
            self.forget();
            self.generation = generation;
        }
    }

    /// Forgets everything, also what a transaction added that was rolled back.
    pub(crate) fn forget(&mut self) {
        self.queues.clear();
        self.hearers.clear();
        self.prototypes = None;
    }

    /// Whether a queue that got a message is a prototype whose messages are to be counted now.
    pub(crate) fn must_count(&mut self, connection: &Connection, queue: i64) -> rusqlite::Result<bool> {
        let prototypes = match &mut self.prototypes {
            Some(prototypes) => prototypes,
            unknown => {
                let mut ids = connection.prepare_cached("SELECT id FROM queue WHERE prototype = 1")?;
                let first = ids.query_map([], |row| Ok((row.get(0)?, 1)))?;
                unknown.insert(first.collect::<rusqlite::Result<_>>()?)
            }
        };
        Ok(match prototypes.get_mut(&queue) {
            None => false,
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        })
    }

    /// A prototype was counted, and is to be counted again once it got so many messages.
    pub(crate) fn count_after(&mut self, queue: i64, messages: u64) {
        if let Some(left) = self.prototypes.as_mut().and_then(|prototypes| prototypes.get_mut(&queue)) {
            *left = messages;
        }
    }

    /// The id of a queue; what does not exist is asked for again next time.
    pub(crate) fn queue(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
        if let Some(id) = self.queues.get(name) {
            return Ok(Some(*id));
        }
        let id: Option<i64> = connection
            .prepare_cached("SELECT id FROM queue WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            self.queues.insert(name.into(), id);
        }
        Ok(id)
    }

    /// The queues that hear an event.
    fn hearers(&mut self, connection: &Connection, event: &str) -> rusqlite::Result<Arc<[i64]>> {
        if let Some(queues) = self.hearers.get(event) {
            return Ok(Arc::clone(queues));
        }
        let queues: Vec<i64> = connection
            .prepare_cached(
                "SELECT b.queue_id FROM event e JOIN binding b ON b.event_id = e.id WHERE e.name = ?1 ORDER BY 1",
            )?
            .query_map([event], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let queues: Arc<[i64]> = queues.into();
        // An event that nobody hears and nobody declared is not remembered: foreign names would fill the memory.
        if !queues.is_empty() {
            self.hearers.insert(event.into(), Arc::clone(&queues));
        }
        Ok(queues)
    }
}

/// Milliseconds as SQLite keeps them.
pub(crate) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds as SQLite kept them.
pub(crate) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}
