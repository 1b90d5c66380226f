//! What the writer does beside its callers' operations: claims, hand-backs, signs of life, burials.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rusqlite::params;

use crate::claim::{self, Claim};
use crate::process::Registration;
use crate::shared::{Burial, Chores, Shared};
use crate::store::Store;
use crate::subscription::{Claimed, Consumer};
use crate::suspects::{self, Suspect};
use crate::transaction::Tx;

/// What the transaction did for consumers, to be told after its commit.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Claims, and whether there may be more.
    claims: Vec<(Arc<Consumer>, Vec<Claimed>, bool)>,
    /// Whether a suspect was claimed.
    set_aside: bool,
    /// Whether the suspect's turn has come.
    due: bool,
}

/// Does the chores within the running transaction.
pub(crate) fn run(
    chores: &mut Chores,
    store: &mut Store,
    registration: &Registration,
    shared: &Shared,
) -> rusqlite::Result<Made> {
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
    let mut made = Made { claims: Vec::with_capacity(chores.claims.len()), ..Made::default() };
    if let Some(suspect) = store.suspect.take() {
        let tx = store.transaction();
        let looked = suspect.is_held(&tx).and_then(|held| Ok((held, held && suspect.is_due(&tx)?)));
        if !matches!(looked, Ok((false, _))) {
            store.suspect = Some(suspect);
        }
        made.due = looked?.1;
    }
    for consumer in &chores.claims {
        let size = consumer.claim_size();
        if store.suspect.is_some() || size == 0 {
            // Who only waits for a suspect is rung when that is settled.
            made.claims.push((Arc::clone(consumer), Vec::new(), store.suspect.is_none()));
            continue;
        }
        let tx = &mut store.transaction();
        let Claim { mut rows, more, suspect } = claim::claim(tx, consumer, size)?;
        if let Some(row) = suspect {
            let (suspect, alone) = Suspect::claimed(tx, consumer, row)?;
            rows.extend(alone);
            store.suspect = Some(suspect);
            made.set_aside = true;
        }
        made.claims.push((Arc::clone(consumer), rows, more));
    }
    Ok(made)
}

/// Gives what was claimed to its consumers, after the commit.
pub(crate) fn finish(chores: Chores, made: Made, store: &mut Store, shared: &Shared) {
    if chores.beat {
        shared.own_beats.given(Instant::now());
    }
    if chores.forget {
        shared.chore(|chores| chores.forget = true);
    }
    for burial in chores.burials {
        if let Some(lock) = burial.lock {
            lock.remove();
        }
    }
    if let Some(suspect) = &mut store.suspect {
        if made.set_aside {
            suspect.keep(shared);
        }
        if made.due {
            suspect.deliver();
        }
    }
    suspects::announce(store.suspect.as_ref(), shared);
    for (consumer, rows, more) in made.claims {
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
    let jobs = suspects::take_back(tx.connection, burial.process)?;
    queues.into_iter().for_each(|queue| tx.touch(queue));
    if burial.forget {
        tx.prepare("DELETE FROM consumer WHERE process_id = ?1")?.execute([burial.process])?;
        tx.prepare("DELETE FROM process WHERE id = ?1")?.execute([burial.process])?;
    }
    shared.figures.reclaimed.fetch_add(jobs as u64, Ordering::Relaxed);
    Ok(())
}
