//! Entries that were numbered and never came.

use std::sync::Arc;

use ponos_core::id::Timestamp;
use ponos_core::journal::Origin;
use rusqlite::params;

use crate::central::{ORIGIN_COLUMNS, origin_of};
use crate::database::{sql, unsql};
use crate::error::ReadModelError;
use crate::read_model::ReadModel;

/// Entries of one instance that are missing: lost, not yet read, or older than the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Whose they are.
    pub origin: Arc<Origin>,
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// The time of the entry before them, or the instance's start.
    pub after: Timestamp,
    /// The time of the entry behind them.
    pub before: Timestamp,
}

impl Gap {
    /// How many entries are missing.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.last - self.first + 1
    }
}

impl ReadModel {
    /// What is missing between two times, the oldest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn gaps(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Gap>, ReadModelError> {
        self.on_central(|central| {
            let query = format!(
                "SELECT {ORIGIN_COLUMNS}, g.first, g.last, g.after_at, g.before_at
                 FROM gap g JOIN origin o ON o.id = g.origin
                 WHERE g.before_at >= ?1 AND g.after_at <= ?2 ORDER BY g.after_at, g.origin, g.first"
            );
            let mut statement = central.connection.prepare_cached(&query)?;
            let rows = statement.query_map(params![sql(from.as_millis()), sql(to.as_millis())], |row| {
                let number = |place| row.get::<_, i64>(place).map(unsql);
                let Some(origin) = origin_of(row)? else {
                    return Ok(None);
                };
                Ok(Some(Gap {
                    origin: Arc::new(origin),
                    first: number(5)?,
                    last: number(6)?,
                    after: Timestamp::from_millis(number(7)?),
                    before: Timestamp::from_millis(number(8)?),
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }
}
