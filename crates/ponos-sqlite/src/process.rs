//! Who has the file open, and who has died.
//!
//! Each open broker holds an exclusive OS lock on a file of its own, `FILE.procs/<id>.lock`; the kernel frees it with
//! the process, whatever killed it. Whoever gets the lock of another knows that it is dead. Ids are random and never
//! used again, so nothing depends on process numbers, which are.
//!
//! The order of steps leaves no gap: a process is entered in the table *after* it holds its lock and leaves the table
//! *before* it lets go, and both happen under the writer's lock. A lock file without a row is therefore what a crash
//! left between two steps, and is cleared away by the next one that opens the file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ponos_core::broker::BrokerError;
use ponos_core::id::Timestamp;
use rusqlite::{Connection, params};

use crate::error;
use crate::file_lock::{self, Held};
use crate::location::Location;
use crate::suspects;
use crate::transaction::millis;

/// This broker's entry among the processes; its lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) id: i64,
    path: PathBuf,
    /// Only held. Closing it frees the lock.
    _lock: File,
}

/// What a look at another process's lock file tells.
#[derive(Debug)]
pub(crate) enum Liveness {
    /// It holds its lock.
    Alive,
    /// Its lock is free, and now held by us: nobody else cleans up at the same time.
    Dead(DeadLock),
    /// The lock file is not there: somebody removed it. Only its heartbeat can tell.
    Unknown,
}

/// The lock of a dead process.
#[derive(Debug)]
pub(crate) struct DeadLock {
    path: PathBuf,
    _lock: File,
}

impl DeadLock {
    /// Removes the lock file, once the process is no longer in the table.
    pub(crate) fn remove(self) {
        // Left behind, it is cleared away by the next one that opens the file.
        let _ = fs::remove_file(&self.path);
    }
}

impl Registration {
    /// Enters this process, and hands back what processes left that are no longer known.
    pub(crate) fn enter(
        location: &Location,
        connection: &Connection,
        now: Timestamp,
        held: &Held<'_>,
    ) -> Result<Self, BrokerError> {
        let directory = location.processes();
        create_private_directory(&directory)
            .map_err(|e| error::of_io("create the directory", &directory, &e))?;
        let fails = |error: rusqlite::Error| error::of_sqlite(&location.shown, &error);
        clear(&directory, connection, held).map_err(fails)?;
        // 62 bits with the highest set: always eight bytes in SQLite, see `schema/1.0.sql`.
        let id = fastrand::i64((1 << 61)..(1 << 62));
        let path = lock_path(&directory, id);
        let lock =
            file_lock::create_private(&path).map_err(|e| error::of_io("create the lock file", &path, &e))?;
        lock.try_lock().map_err(|e| error::of_io("lock", &path, &e.into()))?;
        let registration = Self { id, path, _lock: lock };
        let enter = || {
            let tx = connection.unchecked_transaction()?;
            registration.insert(&tx, now)?;
            let unknown: Vec<i64> = tx
                .prepare(
                    "SELECT DISTINCT owner FROM message WHERE state = 1 AND owner NOT IN (SELECT id FROM process)",
                )?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for process in unknown {
                suspects::take_back(&tx, process)?;
            }
            tx.commit()
        };
        match enter() {
            Ok(()) => Ok(registration),
            Err(error) => {
                registration.leave();
                Err(fails(error))
            }
        }
    }

    fn insert(&self, connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        connection.execute(
            "INSERT INTO process (id, beat, pid, program) VALUES (?1, ?2, ?3, ?4)",
            params![self.id, millis(now), std::process::id(), program],
        )?;
        Ok(())
    }

    /// Gives a sign of life.
    pub(crate) fn beat(&self, connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        let mut update = connection.prepare_cached("UPDATE process SET beat = ?2 WHERE id = ?1")?;
        if update.execute(params![self.id, millis(now)])? == 0 {
            // We stood still for so long that somebody took us for dead, and our lock file was gone.
            self.insert(connection, now)?;
        }
        Ok(())
    }

    /// Removes the lock file, once this process is no longer in the table.
    pub(crate) fn leave(self) {
        // Left behind, it is cleared away by the next one that opens the file.
        let _ = fs::remove_file(&self.path);
    }
}

/// Looks whether process `id` is alive.
pub(crate) fn probe(location: &Location, id: i64) -> Liveness {
    let path = lock_path(&location.processes(), id);
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(lock) if lock.try_lock().is_ok() => Liveness::Dead(DeadLock { path, _lock: lock }),
        Ok(_) => Liveness::Alive,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Liveness::Unknown,
        // We may not look, or have too many files open: not a reason to take anybody's jobs.
        Err(_) => Liveness::Alive,
    }
}

/// Whether no process in the table is alive.
pub(crate) fn nobody(location: &Location, connection: &Connection) -> bool {
    let ids = ids(connection).unwrap_or_default();
    ids.into_iter().all(|id| matches!(probe(location, id), Liveness::Dead(_)))
}

fn ids(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    connection.prepare("SELECT id FROM process")?.query_map([], |row| row.get(0))?.collect()
}

/// Removes lock files that no row speaks of and nobody holds.
fn clear(directory: &Path, connection: &Connection, _held: &Held<'_>) -> rusqlite::Result<()> {
    let known = ids(connection)?;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| i64::from_str_radix(name.strip_suffix(".lock")?, 16).ok());
        if id.is_some_and(|id| !known.contains(&id))
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn lock_path(directory: &Path, id: i64) -> PathBuf {
    directory.join(format!("{id:016x}.lock"))
}

fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
