//! Opening a file: whose it is, of which version, and whether it can be used.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{ReadModelError, is_damage};

/// What a file of this kind is.
#[derive(Debug)]
pub(crate) struct Form {
    /// In the file's header: `file(1)` and other programs see whose it is.
    pub(crate) application: i32,
    /// A file of an older epoch is made anew, one of a newer one refused.
    pub(crate) epoch: i32,
    /// Within an epoch tables and columns are only added.
    pub(crate) minor: i32,
    pub(crate) schema: &'static str,
}

/// The one place of the read model.
pub(crate) const MODEL: Form =
    Form { application: 0x506f_6e52, epoch: 1, minor: 0, schema: include_str!("schema/model.sql") };

/// The entries of six hours.
pub(crate) const SEGMENT: Form =
    Form { application: 0x506f_6e53, epoch: 1, minor: 0, schema: include_str!("schema/segment.sql") };

/// What became of an attempt to open a file.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It can be used.
    Ready(Connection),
    /// Nothing was written to it yet, or it is gone.
    Absent,
    /// It is damaged, of an older epoch, or no file of this kind: to be made anew.
    Unusable(String),
}

/// How long a statement waits for a lock that is none of ours, such as a checkpoint's.
const BUSY: Duration = Duration::from_secs(5);

/// Opens a file that is there.
pub(crate) fn open(path: &Path, form: &Form) -> Result<Opened, ReadModelError> {
    usable(path, form, look(path, form))
}

/// Opens a file, or makes it. The lock must be held.
pub(crate) fn open_or_create(path: &Path, form: &Form) -> Result<Opened, ReadModelError> {
    crate::directory::create(path)?;
    usable(path, form, look(path, form).and_then(|(found, connection)| write(form, found, connection)))
}

/// What the header says: nothing, a foreign application, or a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Foreign,
    Epoch(i32),
}

fn usable(
    path: &Path,
    form: &Form,
    looked: rusqlite::Result<(Found, Connection)>,
) -> Result<Opened, ReadModelError> {
    match looked {
        Ok((Found::Epoch(epoch), _)) if epoch > form.epoch => Err(ReadModelError::newer(path)),
        Ok((Found::Epoch(epoch), _)) if epoch < form.epoch => {
            Ok(Opened::Unusable("it is of an older version".to_owned()))
        }
        Ok((Found::Epoch(_), connection)) => Ok(Opened::Ready(connection)),
        Ok((Found::Nothing, _)) => Ok(Opened::Absent),
        Ok((Found::Foreign, _)) => Ok(Opened::Unusable("it is another program's".to_owned())),
        Err(_) if !path.exists() => Ok(Opened::Absent),
        Err(error) if is_damage(&error) => Ok(Opened::Unusable(error.to_string())),
        Err(error) => Err(ReadModelError::of_sqlite(path, error)),
    }
}

fn look(path: &Path, form: &Form) -> rusqlite::Result<(Found, Connection)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A cache of a log need not wait for the disk: in WAL mode NORMAL never leaves a damaged file.
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 16777216; PRAGMA cache_size = -32768;
         PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF",
    )?;
    let header = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let (application, version) = (header("application_id")?, header("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let found = if application == form.application {
        Found::Epoch(version >> 16)
    } else if application == 0 && tables == 0 {
        Found::Nothing
    } else {
        Found::Foreign
    };
    Ok((found, connection))
}

fn write(form: &Form, found: Found, mut connection: Connection) -> rusqlite::Result<(Found, Connection)> {
    if found != Found::Nothing {
        return Ok((found, connection));
    }
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(form.schema)?;
    tx.execute_batch(&format!(
        "PRAGMA application_id = {}; PRAGMA user_version = {}",
        form.application,
        form.epoch << 16 | form.minor
    ))?;
    tx.commit()?;
    Ok((Found::Epoch(form.epoch), connection))
}

/// A number as SQLite has it; no time and no count of ours is so large that it is cut.
pub(crate) fn sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The way back.
pub(crate) fn unsql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
