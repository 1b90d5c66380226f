//! How much is stored, and how far behind the log it may be.

use std::ops::ControlFlow;

use ponos_core::id::Timestamp;
use ponos_core::journal::Position;

use crate::database::unsql;
use crate::directory;
use crate::error::ReadModelError;
use crate::read_model::ReadModel;

/// Figures of the files themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Storage {
    /// Bytes of all files.
    pub bytes: u64,
    /// How many segments there are.
    pub segments: u64,
    /// How many entries they hold, beats not included.
    pub entries: u64,
    /// From when on entries are kept.
    pub oldest: Option<Timestamp>,
    /// The time of the latest entry, on the clock of the one who wrote it.
    pub newest: Option<Timestamp>,
    /// How far the log was read.
    pub position: Option<Position>,
    /// When it was last read to its end: what is newer than that is not known here.
    pub read_at: Option<Timestamp>,
}

impl ReadModel {
    /// How much is stored. Counting the entries reads an index of each segment: not for every request.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub fn storage(&self) -> Result<Storage, ReadModelError> {
        let slots = self.directory.slots()?;
        let mut storage = Storage {
            bytes: directory::bytes(&self.directory.model()),
            segments: slots.len() as u64,
            position: self.position()?,
            ..Storage::default()
        };
        let time = |at: i64| Some(Timestamp::from_millis(unsql(at))).filter(|at| at.as_millis() > 0);
        (storage.newest, storage.read_at) = self.on_central(|central| {
            central
                .connection
                .prepare_cached("SELECT latest, read_at FROM progress")?
                .query_row([], |row| Ok((time(row.get(0)?), time(row.get(1)?))))
        })?;
        storage.bytes +=
            slots.iter().map(|slot| directory::bytes(&self.directory.segment(*slot))).sum::<u64>();
        self.each_segment(slots, |_, segment| {
            storage.entries += segment.count()?;
            if storage.oldest.is_none() {
                storage.oldest = segment.oldest()?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(storage)
    }
}
