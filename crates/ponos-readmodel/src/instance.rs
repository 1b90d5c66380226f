//! Instances, what they last said of themselves, and their manifests.

use std::sync::Arc;
use std::time::Duration;

use ponos_core::id::Timestamp;
use ponos_core::journal::{Beat, Notice, Origin, Said, decode};

use crate::central::{ORIGIN_COLUMNS, origin_of};
use crate::database::unsql;
use crate::error::ReadModelError;
use crate::read_model::ReadModel;

/// After so many beats that did not come an instance counts as silent.
const MISSED: u32 = 3;

/// One instance of a service, or one publisher.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Instance {
    /// Who it is.
    pub origin: Arc<Origin>,
    /// When it said that it started; `None` if that is not known.
    pub hello_at: Option<Timestamp>,
    /// The first that is known of it.
    pub first_at: Timestamp,
    /// The last that is known of it.
    pub last_at: Timestamp,
    /// When it ended in order.
    pub ended: Option<Timestamp>,
    /// The latest of its beats: of one that died, what it was doing.
    pub beat: Option<(Timestamp, Beat)>,
    /// How many of its entries are missing.
    pub lost: u64,
}

impl Instance {
    /// Whether it should have said something by `now` and has not: it has died, stands still, or is cut off.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp) -> bool {
        let every = self.beat.as_ref().map(|(_, beat)| Duration::from_millis(beat.every_ms.into()));
        self.ended.is_none() && every.is_some_and(|every| now.since(self.last_at) > every * MISSED)
    }
}

/// What a version of an application said that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownManifest {
    /// The instance that said it last.
    pub origin: Arc<Origin>,
    /// When it said so.
    pub at: Timestamp,
    /// The manifest as JSON.
    pub text: Arc<str>,
}

impl ReadModel {
    /// All instances that are known, the last that said something first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn instances(&self) -> Result<Vec<Instance>, ReadModelError> {
        self.on_central(|central| {
            let query = format!(
                "SELECT {ORIGIN_COLUMNS}, hello_at, first_at, last_at, bye_at, beat,
                   (SELECT coalesce(sum(last - first + 1), 0) FROM gap WHERE gap.origin = o.id)
                 FROM origin o ORDER BY last_at DESC, id"
            );
            let mut statement = central.connection.prepare_cached(&query)?;
            let rows = statement.query_map([], |row| {
                let time = |at: i64| Timestamp::from_millis(unsql(at));
                let Some(origin) = origin_of(row)? else {
                    return Ok(None);
                };
                let beat = row.get_ref(9)?.as_blob_or_null().ok().flatten().and_then(beat_of);
                Ok(Some(Instance {
                    origin: Arc::new(origin),
                    hello_at: row.get::<_, Option<i64>>(5)?.map(time),
                    first_at: time(row.get(6)?),
                    last_at: time(row.get(7)?),
                    ended: row.get::<_, Option<i64>>(8)?.map(time),
                    beat,
                    lost: unsql(row.get(10)?),
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// The newest manifest of each version of each application, as JSON, by application and then the newest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn manifests(&self) -> Result<Vec<KnownManifest>, ReadModelError> {
        self.on_central(|central| {
            let query = format!(
                "SELECT {ORIGIN_COLUMNS}, m.at, m.text FROM manifest m JOIN origin o ON o.id = m.origin
                 ORDER BY m.app, m.at DESC"
            );
            let mut statement = central.connection.prepare_cached(&query)?;
            let rows = statement.query_map([], |row| {
                let (at, text): (i64, String) = (row.get(5)?, row.get(6)?);
                Ok(origin_of(row)?.map(|origin| KnownManifest {
                    origin: Arc::new(origin),
                    at: Timestamp::from_millis(unsql(at)),
                    text: text.into(),
                }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }
}

fn beat_of(bytes: &[u8]) -> Option<(Timestamp, Beat)> {
    match decode(bytes).ok()?.pop()?.said {
        Said::Notice(at, Notice::Beat(beat)) => Some((at, beat)),
        _ => None,
    }
}
