//! Suspects: jobs that may kill their process. A process has one at a time, and nothing beside it.
//!
//! When a process dies, everything that it had claimed counts a loss, whether its handler ran or not. So that count only
//! makes a suspect, and what is decided by a suspect's count must be counted while nothing else is held. A process that
//! comes upon a suspect sets it aside: the row is its own, so no other process waits for it, but it is not delivered, and
//! nothing more is claimed, until everything else that the process holds is settled. Then it is delivered, and claims go on
//! once it is settled too. A process that dies before that had something else in hand: that is not the suspect's loss.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ponos_core::wire;
use rusqlite::{Connection, params};

use crate::shared::Shared;
use crate::subscription::{Claimed, Consumer};
use crate::transaction::Tx;

/// The suspect that this process has; the writer thread's.
#[derive(Debug)]
pub(crate) struct Suspect {
    row: i64,
    fence: i64,
    /// Set aside, for this consumer; `None` once it is delivered.
    aside: Option<(Arc<Consumer>, Claimed)>,
}

impl Suspect {
    /// One that was claimed just now. It is delivered at once if it is all that this process holds.
    pub(crate) fn claimed(
        tx: &Tx<'_>,
        consumer: &Arc<Consumer>,
        row: Claimed,
    ) -> rusqlite::Result<(Self, Option<Claimed>)> {
        let mut suspect = Self { row: row.id, fence: row.fence, aside: None };
        if held(tx.connection, tx.owner)? == 1 {
            return Ok((suspect, Some(row)));
        }
        suspect.aside = Some((Arc::clone(consumer), row));
        Ok((suspect, None))
    }

    /// Whether it is still ours.
    pub(crate) fn is_held(&self, tx: &Tx<'_>) -> rusqlite::Result<bool> {
        tx.prepare("SELECT 1 FROM message WHERE id = ?1 AND fence = ?2 AND state = 1")?
            .exists(params![self.row, self.fence])
    }

    /// Whether it can be delivered now, because nothing else is held.
    pub(crate) fn is_due(&self, tx: &Tx<'_>) -> rusqlite::Result<bool> {
        Ok(self.aside.is_some() && held(tx.connection, tx.owner)? == 1)
    }

    /// Delivers it, after the commit of the transaction in which it was due.
    pub(crate) fn deliver(&mut self) {
        if let Some((consumer, row)) = self.aside.take() {
            consumer.deliver(row);
        }
    }

    /// Counts it as held by its consumer, whose end hands it back then. After the commit of the claim.
    pub(crate) fn keep(&self, shared: &Shared) {
        if let Some((consumer, row)) = &self.aside
            && !consumer.keep(row)
        {
            shared.chore(|chores| chores.releases.push((row.id, row.fence)));
        }
    }
}

/// Lets consumers claim or not, after a commit.
pub(crate) fn announce(suspect: Option<&Suspect>, shared: &Shared) {
    let was = shared.alone.swap(suspect.is_some(), Ordering::AcqRel);
    if was && suspect.is_none() {
        shared.look();
    }
}

fn held(connection: &Connection, owner: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT count(*) FROM message WHERE state = 1 AND owner = ?1")?
        .query_row([owner], |row| row.get(0))
}

/// Takes what a lost process held back into its queues, each with a loss more, but no suspect that was not alone. Answers
/// how many there were.
pub(crate) fn take_back(connection: &Connection, process: i64) -> rusqlite::Result<usize> {
    let mut spared = 0;
    if held(connection, process)? > 1 {
        let rows: Vec<(i64, Vec<u8>)> = connection
            .prepare_cached(
                "SELECT id, head FROM message WHERE state = 1 AND owner = ?1 AND instr(head, ?2) > 0",
            )?
            .query_map(params![process, wire::SUSPECT.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for (id, _) in rows.iter().filter(|(_, head)| wire::is_suspect(head)) {
            spared +=
                connection.prepare_cached("UPDATE message SET state = 0 WHERE id = ?1")?.execute([id])?;
        }
    }
    let counted = connection
        .prepare_cached("UPDATE message SET state = 0, losses = losses + 1 WHERE state = 1 AND owner = ?1")?
        .execute([process])?;
    Ok(spared + counted)
}
