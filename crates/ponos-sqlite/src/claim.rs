//! Claiming: the rows that are a consumer's from now on.

use ponos_core::wire;
use rusqlite::{CachedStatement, ToSql, params};

use crate::subscription::{Claimed, Consumer};
use crate::transaction::{Tx, millis};

/// A claim ends when it has so many bytes, however many jobs were asked for: large bodies must not fill the memory.
const CLAIM_BYTES: usize = 4 << 20;

/// `state = 0` stands literally as in the index `message_ready`: a parameter would mean a scan of the table.
const NEXT: &str = "SELECT id, ?1, ready_at, losses, message_id, head, body FROM message
    WHERE state = 0 AND queue_id = ?2 AND ready_at <= ?3 ORDER BY ready_at, id LIMIT ?4";

/// One message by its id, for tools that pick. Left to itself SQLite takes the index of ready messages and reads them all.
const ONE: &str =
    "SELECT id, ?1, ready_at, losses, message_id, head, body FROM message INDEXED BY message_identity
    WHERE state = 0 AND queue_id = ?2 AND message_id = ?3 AND ready_at <= ?4";

/// What was claimed.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) rows: Vec<Claimed>,
    /// Whether the queue may hold more.
    pub(crate) more: bool,
    /// The suspect that came after them: claimed too, and not to be delivered beside anything else.
    pub(crate) suspect: Option<Claimed>,
}

/// Claims up to `limit` rows for a consumer, in order, and no further than the first suspect. Who picks gets what it picks.
///
/// A read and an update by row, not one `UPDATE … RETURNING`: within one write transaction they are the same, a read can
/// stop at a number of bytes, and what RETURNING gives goes through a temporary table that costs a third of the claim.
pub(crate) fn claim(tx: &mut Tx<'_>, consumer: &Consumer, limit: usize) -> rusqlite::Result<Claim> {
    *tx.fence += 1;
    let mut batch = Batch {
        rows: Vec::with_capacity(limit.min(256)),
        suspect: None,
        picks: consumer.only.is_some(),
        bytes: 0,
        limit,
    };
    let now = millis(tx.now);
    match &consumer.only {
        None => {
            let next = tx.prepare(NEXT)?;
            let most = i64::try_from(limit).unwrap_or(i64::MAX);
            batch.read(next, params![*tx.fence, consumer.queue_id, now, most])?;
        }
        Some(only) => {
            for id in only {
                if !batch.is_full() {
                    batch
                        .read(tx.prepare(ONE)?, params![*tx.fence, consumer.queue_id, id.as_bytes(), now])?;
                }
            }
        }
    }
    let mut take = tx.prepare("UPDATE message SET state = 1, fence = ?2, owner = ?3 WHERE id = ?1")?;
    for row in batch.rows.iter().chain(&batch.suspect) {
        take.execute(params![row.id, row.fence, tx.owner])?;
    }
    let more = batch.is_full();
    Ok(Claim { rows: batch.rows, more, suspect: batch.suspect })
}

/// What was read so far.
struct Batch {
    rows: Vec<Claimed>,
    /// Nothing is read after it.
    suspect: Option<Claimed>,
    /// Whether a suspect is a row like any other.
    picks: bool,
    bytes: usize,
    limit: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.suspect.is_some() || self.rows.len() >= self.limit || self.bytes >= CLAIM_BYTES
    }

    fn read(&mut self, mut statement: CachedStatement<'_>, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let mut rows = statement.query(values)?;
        while !self.is_full()
            && let Some(row) = rows.next()?
        {
            let row = Claimed::read(row)?;
            self.bytes += row.head.len() + row.body.len();
            if !self.picks && wire::is_suspect(&row.head) {
                self.suspect = Some(row);
            } else {
                self.rows.push(row);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn claims_go_by_an_index_and_sort_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("schema/1.0.sql")).unwrap();
        let plan = |sql: &str| -> Vec<String> {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let rows = plan.query_map([1, 1, 1, 1], |row| row.get(3)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        let next = plan(NEXT);
        assert_eq!(next.len(), 1, "no temporary tree for the order: {next:?}");
        assert!(next[0].contains("INDEX message_ready (queue_id=? AND ready_at<?)"), "{next:?}");
        assert!(plan(ONE)[0].contains("INDEX message_identity (queue_id=? AND message_id=?)"));
    }
}
