//! The thread that watches: other processes' commits, due times, processes that die or stand still.
//!
//! `PRAGMA data_version` costs about 3 µs and tells whether another connection has committed. Not inotify: it fires when
//! frames are in the log and before they can be seen, and watching means opening the database's files, whose closing
//! would drop this process's locks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ponos_core::id::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::process::{self, Liveness};
use crate::prototype;
use crate::shared::{Burial, Shared};
use crate::transaction::time;

/// How often to look while something happens.
const ACTIVE: Duration = Duration::from_millis(2);

/// How often to look once nothing has happened for [`CALM`].
const IDLE: Duration = Duration::from_millis(25);
const CALM: Duration = Duration::from_secs(1);

/// How often to look after other processes, and how long to sleep while nobody here waits for messages.
const ROUND: Duration = Duration::from_millis(250);

/// The queues are looked at so often even if nothing seems to have happened.
const SWEEP: Duration = Duration::from_secs(1);

/// How often to warn about a write lock that does not come.
const STUCK: Duration = Duration::from_secs(5);

/// The poller thread's own state.
#[derive(Debug)]
pub(crate) struct Poller {
    connection: Connection,
    shared: Arc<Shared>,
    lease: Duration,
    heartbeat: Duration,
    data_version: i64,
    /// When something was last seen to happen.
    active: Instant,
    /// The earliest time at which a delayed message of a queue that is waited for is due.
    next_due: Option<Timestamp>,
    /// The last sign of life of each other process, and since when it has not changed.
    signs: HashMap<i64, (i64, Instant)>,
    /// When the other processes were last looked at.
    looked: Instant,
    warned: Instant,
    /// When prototypes were last looked at.
    forgot: Instant,
}

impl Poller {
    pub(crate) fn new(
        connection: Connection,
        shared: Arc<Shared>,
        lease: Duration,
        heartbeat: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            connection,
            shared,
            lease,
            heartbeat,
            data_version: -1,
            active: now,
            next_due: None,
            signs: HashMap::new(),
            looked: now,
            warned: now,
            forgot: now,
        }
    }

    /// Runs until the broker stops.
    pub(crate) fn run(mut self) {
        let mut round = Instant::now();
        let mut sweep = Instant::now();
        let mut beat = Instant::now();
        while !self.shared.is_stopping() {
            let now = Instant::now();
            if now >= beat {
                beat = now + self.heartbeat;
                self.shared.own_beats.due(now);
                self.shared.chore(|chores| chores.beat = true);
            }
            if now >= round {
                round = now + ROUND;
                self.look_after_processes();
                self.look_after_inboxes();
                self.look_after_prototypes();
                self.warn_if_stuck();
            }
            let swept = now >= sweep;
            if swept {
                sweep = now + SWEEP;
            }
            self.look_after_queues(swept);
            thread::park_timeout(self.pause().min(round.min(beat).saturating_duration_since(Instant::now())));
        }
    }

    /// How long to sleep as far as messages are concerned.
    fn pause(&self) -> Duration {
        if self.shared.look.load(Ordering::Acquire) {
            return Duration::ZERO;
        }
        if !self.shared.consumers().iter().any(|consumer| consumer.is_hungry()) {
            return ROUND;
        }
        let pause = if self.active.elapsed() < CALM { ACTIVE } else { IDLE };
        match self.next_due {
            Some(due) => pause.min(due.since(self.shared.clock.now())),
            None => pause,
        }
    }

    /// Rings the consumers that wait for a queue in which something is ready.
    fn look_after_queues(&mut self, swept: bool) {
        let asked = self.shared.look.swap(false, Ordering::AcqRel);
        // On an error the old value stays: a change must not go unnoticed because it could not be read.
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut version| version.query_row([], |row| row.get::<_, i64>(0)));
        let changed = version.is_ok_and(|version| {
            let changed = version != self.data_version;
            self.data_version = version;
            changed
        });
        if changed {
            self.active = Instant::now();
        }
        let now = self.shared.clock.now();
        let due = self.next_due.is_some_and(|due| due <= now);
        if !(changed || asked || due || swept) {
            return;
        }
        self.next_due = None;
        if self.shared.alone.load(Ordering::Acquire) {
            // The writer asks for a look when the suspect is settled.
            return;
        }
        let mut first = HashMap::new();
        for consumer in self.shared.consumers() {
            if !consumer.is_hungry() {
                continue;
            }
            let ready_at = *first.entry(consumer.queue_id).or_insert_with(|| self.first(consumer.queue_id));
            match ready_at {
                Some(at) if at > now => self.next_due = Some(self.next_due.map_or(at, |due| due.min(at))),
                Some(_) if consumer.ring() => self.shared.chore(|chores| chores.claims.push(consumer)),
                _ => {}
            }
        }
    }

    /// When the first message of a queue is ready.
    fn first(&self, queue: i64) -> Option<Timestamp> {
        let first = self.connection.prepare_cached(
            "SELECT ready_at FROM message WHERE state = 0 AND queue_id = ?1 ORDER BY ready_at, id LIMIT 1",
        );
        let first = first.and_then(|mut first| first.query_row(params![queue], |row| row.get(0)).optional());
        first.ok().flatten().map(time)
    }

    /// Has the jobs of processes that died, or stand still, handed back.
    fn look_after_processes(&mut self) {
        let others = self.connection.prepare_cached("SELECT id, beat FROM process WHERE id <> ?1").and_then(
            |mut others| {
                others
                    .query_map([self.shared.process], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<rusqlite::Result<Vec<(i64, i64)>>>()
            },
        );
        let Ok(others) = others else { return };
        // We stood still ourselves, or nobody could write, because a process was stopped while it held the lock: that others
        // gave no sign meanwhile does not count against them. From our next sign on they have a whole lease again.
        let late = self.lease / 4;
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) > ROUND + late
            || self.shared.own_beats.delay(now) > late
        {
            self.signs.clear();
        }
        self.looked = now;
        self.signs.retain(|id, _| others.iter().any(|(other, _)| other == id));
        for (id, beat) in others {
            let sign = self.signs.entry(id).or_insert_with(|| (beat, Instant::now()));
            if sign.0 != beat {
                *sign = (beat, Instant::now());
            }
            let still = sign.1.elapsed() >= self.lease;
            let burial = match process::probe(&self.shared.location, id) {
                Liveness::Dead(lock) => Burial { process: id, beat, lock: Some(lock), forget: true },
                Liveness::Alive if still => Burial { process: id, beat, lock: None, forget: false },
                Liveness::Unknown if still => Burial { process: id, beat, lock: None, forget: true },
                Liveness::Alive | Liveness::Unknown => continue,
            };
            // It is not buried again before another lease without a sign.
            sign.1 = Instant::now();
            self.report(&burial);
            self.shared.chore(|chores| chores.burials.push(burial));
        }
    }

    fn report(&self, burial: &Burial) {
        let who = self.connection.query_row(
            "SELECT pid, program FROM process WHERE id = ?1",
            [burial.process],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)),
        );
        let (pid, program) = who.unwrap_or_default();
        let file = self.shared.location.shown.as_str();
        if burial.lock.is_some() {
            tracing::info!(file, pid, program, "a process has died: its jobs go back to their queues");
        } else {
            tracing::warn!(file, pid, program, "a process stands still: its jobs go back to their queues");
        }
    }

    /// Hands back what was claimed for consumers that have stopped asking.
    fn look_after_inboxes(&self) {
        for consumer in self.shared.consumers() {
            let leases = consumer.take_unfetched();
            if !leases.is_empty() {
                self.shared.chore(|chores| chores.releases.extend(leases));
            }
        }
    }

    /// Has prototypes removed that nobody has listened to for long. Not when the file is opened: whoever uses one may be
    /// about to start.
    fn look_after_prototypes(&mut self) {
        if self.forgot.elapsed() < self.shared.prototypes.interval() {
            return;
        }
        self.forgot = Instant::now();
        if prototype::exist(&self.connection).unwrap_or(false) {
            self.shared.chore(|chores| chores.forget = true);
        }
    }

    /// A process that was stopped in the middle of a transaction keeps everybody waiting, and nothing can break its lock.
    fn warn_if_stuck(&mut self) {
        let waiting = self.shared.figures.lock_waits.current();
        if waiting > STUCK && self.warned.elapsed() > STUCK {
            self.warned = Instant::now();
            let lock = self.shared.location.writer_lock();
            tracing::warn!(
                lock = %lock.display(),
                seconds = waiting.as_secs(),
                "another process keeps the write lock: find it with `lslocks`, and continue or end it"
            );
        }
    }
}
