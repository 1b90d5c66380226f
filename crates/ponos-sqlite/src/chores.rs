//! What the writer does beside its callers' operations: claims, hand-backs, signs of life, burials.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::params;

use crate::claim;
use crate::process::Registration;
use crate::shared::{Burial, Chores, Shared};
use crate::store::Store;
use crate::subscription::{Claimed, Consumer};
use crate::transaction::Tx;

/// A claim that was made, for the consumer after the commit.
pub(crate) type Made = (Arc<Consumer>, Vec<Claimed>, bool);

/// Does the chores within the running transaction.
pub(crate) fn run(
    chores: &mut Chores,
    store: &mut Store,
    registration: &Registration,
    shared: &Shared,
) -> rusqlite::Result<Vec<Made>> {
    let tx = &mut store.transaction();
    if chores.beat {
        registration.beat(tx.connection, tx.now)?;
    }
    for burial in &chores.burials {
        bury(tx, burial, shared)?;
    }
    for (row, fence) in &chores.releases {
        release(tx, *row, *fence)?;
    }
    if chores.forget {
        // Goes on in the next transaction if there is more.
        chores.forget = tx.forget_prototypes()?;
    }
    for subscription in &chores.ended {
        tx.prepare("DELETE FROM consumer WHERE process_id = ?1 AND subscription = ?2")?
            .execute(params![tx.owner, subscription.cast_signed()])?;
    }
    // A consumer that waits here for what this very transaction published gets it with the same commit.
    for queue in store.touched() {
        for consumer in shared.consumers_of(*queue) {
            if consumer.ring() {
                chores.claims.push(consumer);
            }
        }
    }
    let mut made = Vec::with_capacity(chores.claims.len());
    for consumer in &chores.claims {
        let size = consumer.claim_size();
        let (rows, more) = if size == 0 {
            (Vec::new(), true)
        } else {
            claim::claim(&mut store.transaction(), consumer, size)?
        };
        made.push((Arc::clone(consumer), rows, more));
    }
    Ok(made)
}

/// Gives what was claimed to its consumers, after the commit.
pub(crate) fn finish(chores: Chores, made: Vec<Made>, shared: &Shared) {
    if chores.forget {
        shared.chore(|chores| chores.forget = true);
    }
    for burial in chores.burials {
        if let Some(lock) = burial.lock {
            lock.remove();
        }
    }
    for (consumer, rows, more) in made {
        let nothing = rows.is_empty();
        if consumer.fill(rows, more, shared) {
            shared.chore(|chores| chores.claims.push(consumer));
        } else if nothing {
            // From now on the poller must know when the next one is due.
            shared.look();
        }
    }
}

/// After a rollback: keeps what must still be done.
pub(crate) fn undo(chores: Chores, shared: &Shared) {
    for consumer in &chores.claims {
        consumer.claim_failed();
    }
    shared.put_back(chores);
}

/// Tells the consumers of queues that there is something.
pub(crate) fn ring(queues: &[i64], shared: &Shared) {
    for consumer in queues.iter().flat_map(|queue| shared.consumers_of(*queue)) {
        if consumer.ring() {
            shared.chore(|chores| chores.claims.push(consumer));
        }
    }
}

/// Back to its place in the queue, without a loss.
fn release(tx: &mut Tx<'_>, row: i64, fence: i64) -> rusqlite::Result<()> {
    let queue = tx
        .prepare(
            "UPDATE message SET state = 0 WHERE id = ?1 AND fence = ?2 AND state = 1 RETURNING queue_id",
        )?
        .query_map(params![row, fence], |row| row.get(0))?
        .next()
        .transpose()?;
    if let Some(queue) = queue {
        tx.touch(queue);
    }
    Ok(())
}

/// Takes the jobs of a process that is dead, or stands still, back into their queues, each with a loss more.
fn bury(tx: &mut Tx<'_>, burial: &Burial, shared: &Shared) -> rusqlite::Result<()> {
    let beat = tx
        .prepare("SELECT beat FROM process WHERE id = ?1")?
        .query_map([burial.process], |row| row.get::<_, i64>(0))?
        .next()
        .transpose()?;
    if beat != Some(burial.beat) {
        // Another process was faster, or it moves again.
        return Ok(());
    }
    let queues: Vec<i64> = tx
        .prepare("SELECT DISTINCT queue_id FROM message WHERE state = 1 AND owner = ?1")?
        .query_map([burial.process], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let jobs = tx
        .prepare("UPDATE message SET state = 0, losses = losses + 1 WHERE state = 1 AND owner = ?1")?
        .execute([burial.process])?;
    queues.into_iter().for_each(|queue| tx.touch(queue));
    if burial.forget {
        tx.prepare("DELETE FROM consumer WHERE process_id = ?1")?.execute([burial.process])?;
        tx.prepare("DELETE FROM process WHERE id = ?1")?.execute([burial.process])?;
    }
    shared.figures.reclaimed.fetch_add(jobs as u64, Ordering::Relaxed);
    Ok(())
}
