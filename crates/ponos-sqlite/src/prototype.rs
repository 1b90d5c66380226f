//! Queues that may be forgotten: bounded, and removed once nobody has listened for long enough.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ponos_core::broker::{PROTOTYPE_EXPIRES, PROTOTYPE_LENGTH};
use rusqlite::{Connection, params};

use crate::transaction::{Tx, millis};

/// How many messages of a forgotten queue are removed in one transaction: the lock is everybody's.
const PORTION: usize = 5_000;

/// What prototypes are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many messages are ready at most.
    pub(crate) length: u64,
    /// After how long without a consumer a queue is gone.
    pub(crate) expires: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { length: PROTOTYPE_LENGTH, expires: PROTOTYPE_EXPIRES }
    }
}

impl Limits {
    /// How often forgotten queues are looked for: each hour, of seven days.
    pub(crate) fn interval(self) -> Duration {
        self.expires / 168
    }

    /// So many more than must be make room at once, because counting takes time: 1,000 of 100,000.
    fn spare(self) -> u64 {
        self.length / 100
    }
}

/// Whether there are prototypes at all.
pub(crate) fn exist(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM queue WHERE prototype = 1")?.exists([])
}

impl Tx<'_> {
    /// A subscription was declared.
    pub(crate) fn declare_prototype(&mut self, queue: i64, prototype: bool) -> rusqlite::Result<()> {
        let changed = self
            .prepare("UPDATE queue SET prototype = ?2 WHERE id = ?1 AND prototype <> ?2")?
            .execute(params![queue, prototype])?;
        if changed > 0 {
            self.changed_names()?;
        }
        if prototype {
            self.prepare("UPDATE queue SET used_at = ?2 WHERE id = ?1")?
                .execute(params![queue, millis(self.now)])?;
        }
        Ok(())
    }

    /// A message was added to a queue. If it is a prototype and full, the oldest ones that are ready make room.
    ///
    /// The bound is exact while one process publishes; each further one may go over it by a hundredth.
    pub(crate) fn keep_bound(&mut self, queue: i64) -> rusqlite::Result<()> {
        if !self.names.must_count(self.connection, queue)? {
            return Ok(());
        }
        let Limits { length, .. } = self.shared.prototypes;
        let spare = self.shared.prototypes.spare();
        let now = millis(self.now);
        let mut ready = self
            .prepare("SELECT count(*) FROM message WHERE state = 0 AND queue_id = ?1 AND ready_at <= ?2")?
            .query_row(params![queue, now], |row| row.get(0).map(i64::cast_unsigned))?;
        if ready > length {
            let excess = ready - length + spare;
            self.prepare(
                "DELETE FROM message WHERE id IN (SELECT id FROM message
                 WHERE state = 0 AND queue_id = ?1 AND ready_at <= ?2 ORDER BY ready_at, id LIMIT ?3)",
            )?
            .execute(params![queue, now, excess.cast_signed()])?;
            ready -= excess;
            let dropped = self.shared.figures.dropped.fetch_add(excess, Ordering::Relaxed) + excess;
            // Not one line for each: it is told that it happens.
            if excess > 1 || dropped.is_power_of_two() {
                let name: String = self
                    .prepare("SELECT name FROM queue WHERE id = ?1")?
                    .query_row([queue], |row| row.get(0))?;
                tracing::info!(queue = name, dropped, "a prototype is full: the oldest messages make room");
            }
        }
        self.names.count_after(queue, (length - ready + 1).min(spare.max(1)));
        Ok(())
    }

    /// Removes what has been forgotten, a portion at a time; whether there is more to do.
    pub(crate) fn forget_prototypes(&mut self) -> rusqlite::Result<bool> {
        let now = millis(self.now);
        self.prepare(
            "UPDATE queue SET used_at = ?1 WHERE prototype = 1 AND id IN (SELECT queue_id FROM consumer)",
        )?
        .execute([now])?;
        let expires = i64::try_from(self.shared.prototypes.expires.as_millis()).unwrap_or(i64::MAX);
        // What is leased is still being worked, by somebody who has unsubscribed.
        let forgotten: Vec<(i64, String)> = self
            .prepare(
                "SELECT id, name FROM queue WHERE prototype = 1 AND used_at <= ?1 AND NOT EXISTS
                 (SELECT 1 FROM message INDEXED BY message_leased WHERE state = 1 AND queue_id = queue.id)",
            )?
            .query_map([now.saturating_sub(expires)], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (queue, name) in forgotten {
            let unbound = self.prepare("DELETE FROM binding WHERE queue_id = ?1")?.execute([queue])?;
            let removed = self
                .prepare("DELETE FROM message WHERE id IN (SELECT id FROM message WHERE state = 0 AND queue_id = ?1 LIMIT ?2)")?
                .execute(params![queue, PORTION.cast_signed()])?;
            self.shared.figures.dropped.fetch_add(removed as u64, Ordering::Relaxed);
            let gone = removed < PORTION;
            if gone {
                self.prepare("DELETE FROM queue WHERE id = ?1")?.execute([queue])?;
                tracing::info!(queue = name, "a prototype that nobody has listened to is gone");
            }
            if gone || unbound > 0 {
                self.changed_names()?;
            }
            if !gone {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
