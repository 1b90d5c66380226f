//! Opening the file: what it is, creating it, and bringing it to this version.
//!
//! Several binaries of several versions share one file, so its version is (epoch, minor). Within an epoch changes are
//! additive and any mix works. A newer epoch migrates only while no other process lives; otherwise it runs in the
//! old epoch and says so. A file of a later epoch than this code knows is refused.
//!
//! | who | reads | writes |
//! | --- | --- | --- |
//! | minor 0 | any minor of epoch 1 | what `schema/1.0.sql` names |
//! | minor 1 | any minor of epoch 1, after adding what is missing | that, and `process.pid`, `process.program` |
//! | minor 2 | the same | that, and `queue.prototype`, `queue.used_at`; it also removes rows of `queue` and `binding` |

use std::io;
use std::path::Path;
use std::time::Duration;

use ponos_core::broker::{BrokerError, BrokerErrorKind};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error;
use crate::file_lock::{self, Held};
use crate::location::Location;
use crate::options::Durability;

/// "Pono", in the file's header: `file(1)` and other programs see whose it is.
const APPLICATION_ID: i32 = 0x506f_6e6f;

/// What this code writes.
const CURRENT: Version = Version { epoch: 1, minor: 2 };

/// The earliest epoch that this code can run in.
const OLDEST_EPOCH: u32 = 1;

/// What each minor of the current epoch adds, from minor 1 on.
const MINORS: &[&str] = &[include_str!("schema/1.1.sql"), include_str!("schema/1.2.sql")];

/// Versions before 3.51.3 can lose committed transactions when two connections write and checkpoint at the same
/// time (sqlite.org/wal.html, "The WAL-Reset Bug").
const OLDEST_SQLITE: i32 = 3_051_003;

/// How long a statement waits for a lock that some program outside holds.
const BUSY: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to so many bytes after it was checkpointed.
const WAL_LIMIT: u32 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    epoch: u32,
    minor: u32,
}

/// Opens the writer's connection, creating or migrating the file. The lock must be held: five processes that
/// create one file at the same moment fail otherwise.
///
/// `alone` tells whether no other process has the file open.
pub(crate) fn open_writer(
    location: &Location,
    durability: Durability,
    _held: &Held<'_>,
    alone: impl FnOnce(&Connection) -> bool,
) -> Result<Connection, BrokerError> {
    check_sqlite(rusqlite::version_number())?;
    let file = location.shown.as_str();
    create_empty(&location.database)?;
    let fails = |error: rusqlite::Error| error::of_sqlite(file, &error);
    let mut connection =
        connect(&location.database, OpenFlags::SQLITE_OPEN_READ_WRITE, 4096).map_err(fails)?;
    if connection.is_readonly("main").map_err(fails)? {
        return Err(BrokerError::new(
            BrokerErrorKind::Denied,
            format!("`{file}` is read-only: give this user write access to it and its directory"),
        ));
    }
    let found = version(&connection, file)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fails)?;
    if mode != "wal" {
        return Err(BrokerError::new(
            BrokerErrorKind::Unusable,
            format!("`{file}` cannot have a write-ahead log (it has `{mode}`): use a local disk"),
        ));
    }
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::PowerCutMayLoseLatest => "NORMAL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA journal_size_limit = {WAL_LIMIT}"
        ))
        .map_err(fails)?;
    match plan(found, CURRENT, OLDEST_EPOCH, || alone(&connection)) {
        Plan::Create => {
            write(&mut connection, |tx| {
                tx.execute_batch(include_str!("schema/1.0.sql"))?;
                MINORS.iter().try_for_each(|minor| tx.execute_batch(minor))?;
                tx.execute_batch(&format!(
                    "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}",
                    CURRENT.epoch
                ))
            })
            .map_err(fails)?;
        }
        Plan::Add { from } => {
            let missing = MINORS.get(from as usize..).unwrap_or_default();
            write(&mut connection, |tx| missing.iter().try_for_each(|minor| tx.execute_batch(minor)))
                .map_err(fails)?;
            tracing::info!(file, from, to = CURRENT.minor, "the file's schema was extended");
        }
        Plan::Use => {}
        Plan::RunInOldEpoch => {
            tracing::warn!(
                file,
                "the file is of an older epoch and other processes have it open: it is used as it is; \
                 to migrate it, stop all processes that use it and start one of the new version"
            );
        }
        Plan::Migrate { from } => {
            // Epoch 1 is the first; a later one puts its migrations here.
            return Err(BrokerError::new(
                BrokerErrorKind::Unusable,
                format!("`{file}` has a schema of epoch {from}, which never existed: is it a Ponos file?"),
            ));
        }
        Plan::Refuse { why } => {
            return Err(BrokerError::new(BrokerErrorKind::Unusable, format!("`{file}` {why}")));
        }
    }
    Ok(connection)
}

/// Opens a connection that only looks. The file must exist in this version.
pub(crate) fn open_reader(location: &Location) -> Result<Connection, BrokerError> {
    connect(&location.database, OpenFlags::SQLITE_OPEN_READ_ONLY, 2048)
        .map_err(|error| error::of_sqlite(&location.shown, &error))
}

/// A connection that maps no memory (several writers and a mapped file have corrupted databases) and keeps a small cache.
pub(crate) fn connect(path: &Path, access: OpenFlags, cache_kib: u32) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(&format!(
        "PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib}; PRAGMA trusted_schema = OFF"
    ))?;
    Ok(connection)
}

/// Makes an empty file of mode 0600 where there is none; SQLite gives its `-wal` and `-shm` the same mode.
///
/// Closing any descriptor of a database would drop the locks that this process holds on it (POSIX). Here the file
/// is new and the caller holds the writer's lock, so no connection to it can exist yet.
pub(crate) fn create_empty(path: &Path) -> Result<(), BrokerError> {
    match file_lock::create_private(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error::of_io("create", path, &error)),
    }
}

pub(crate) fn check_sqlite(number: i32) -> Result<(), BrokerError> {
    if number >= OLDEST_SQLITE {
        return Ok(());
    }
    Err(BrokerError::new(
        BrokerErrorKind::Unusable,
        format!(
            "SQLite {}.{}.{} can lose committed messages (the WAL-reset bug): link 3.51.3 or later, \
             which the feature `bundled` of rusqlite 0.39 does",
            number / 1_000_000,
            number / 1000 % 1000,
            number % 1000
        ),
    ))
}

/// The version of the file; `None` when it is empty.
fn version(connection: &Connection, file: &str) -> Result<Option<Version>, BrokerError> {
    let fails = |error: rusqlite::Error| error::of_sqlite(file, &error);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(fails);
    match i32::try_from(number("PRAGMA application_id")?) {
        Ok(APPLICATION_ID) => {}
        Ok(0) if number("SELECT count(*) FROM sqlite_schema")? == 0 => return Ok(None),
        _ => {
            return Err(BrokerError::new(
                BrokerErrorKind::Unusable,
                format!("`{file}` is another program's database: give the broker a file of its own"),
            ));
        }
    }
    let epoch = u32::try_from(number("PRAGMA user_version")?).unwrap_or(0);
    // A later epoch may keep its minor elsewhere; it is refused whatever it is.
    let minor =
        if epoch == CURRENT.epoch { number("SELECT value FROM meta WHERE key = 'minor'")? } else { 0 };
    Ok(Some(Version { epoch, minor: u32::try_from(minor).unwrap_or(0) }))
}

fn write(
    connection: &mut Connection,
    f: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    f(&tx)?;
    tx.commit()
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Create,
    Use,
    Add { from: u32 },
    Migrate { from: u32 },
    RunInOldEpoch,
    Refuse { why: String },
}

fn plan(found: Option<Version>, ours: Version, oldest_epoch: u32, alone: impl FnOnce() -> bool) -> Plan {
    let Some(found) = found else { return Plan::Create };
    if found.epoch > ours.epoch {
        let why = format!(
            "was written by a newer version of Ponos (schema epoch {}, this one knows {}): update this program",
            found.epoch, ours.epoch
        );
        return Plan::Refuse { why };
    }
    if found.epoch == ours.epoch {
        return if found.minor < ours.minor { Plan::Add { from: found.minor } } else { Plan::Use };
    }
    match (alone(), found.epoch >= oldest_epoch) {
        (true, _) => Plan::Migrate { from: found.epoch },
        (false, true) => Plan::RunInOldEpoch,
        (false, false) => Plan::Refuse {
            why: format!(
                "has a schema of epoch {}, which this version can only migrate while no other process has it open: \
                 stop the others first",
                found.epoch
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(epoch: u32, minor: u32) -> Version {
        Version { epoch, minor }
    }

    #[test]
    fn any_minor_of_one_epoch_is_used() {
        assert_eq!(plan(None, v(1, 1), 1, || false), Plan::Create);
        assert_eq!(plan(Some(v(1, 0)), v(1, 1), 1, || false), Plan::Add { from: 0 });
        assert_eq!(plan(Some(v(1, 1)), v(1, 1), 1, || false), Plan::Use);
        assert_eq!(plan(Some(v(1, 9)), v(1, 1), 1, || false), Plan::Use);
    }

    #[test]
    fn an_epoch_is_migrated_only_alone_and_never_backwards() {
        assert_eq!(plan(Some(v(1, 4)), v(2, 0), 1, || true), Plan::Migrate { from: 1 });
        assert_eq!(plan(Some(v(1, 4)), v(2, 0), 1, || false), Plan::RunInOldEpoch);
        assert!(matches!(plan(Some(v(1, 4)), v(3, 0), 2, || false), Plan::Refuse { .. }));
        assert!(matches!(plan(Some(v(2, 0)), v(1, 1), 1, || true), Plan::Refuse { .. }));
    }

    #[test]
    fn a_sqlite_that_loses_commits_is_refused() {
        assert_eq!(check_sqlite(3_051_003), Ok(()));
        assert_eq!(check_sqlite(rusqlite::version_number()), Ok(()));
        let error = check_sqlite(3_040_001).unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Unusable);
        assert!(error.to_string().contains("SQLite 3.40.1"), "{error}");
    }
}
