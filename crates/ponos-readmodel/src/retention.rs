//! What is old goes, by the file.

use ponos_core::id::Timestamp;

use crate::database::sql;
use crate::directory;
use crate::error::ReadModelError;
use crate::read_model::ReadModel;
use crate::rollup::hour;
use crate::slot::Slot;

impl ReadModel {
    /// Deletes segments that are too old or too many, and figures that are too old. [`catch_up`](Self::catch_up) does it
    /// each time.
    ///
    /// # Errors
    ///
    /// When a file cannot be deleted.
    pub fn retain(&mut self) -> Result<(), ReadModelError> {
        let now = (self.options.clock)();
        let since = |time: std::time::Duration| {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(millis))
        };
        let current = Slot::of(now);
        let held = self.directory.lock()?;
        let slots = self.directory.slots()?;
        let sizes: Vec<u64> =
            slots.iter().map(|slot| directory::bytes(&self.directory.segment(*slot))).collect();
        let mut total: u64 = sizes.iter().sum();
        let oldest = since(self.options.raw_for);
        for (slot, size) in slots.into_iter().zip(sizes) {
            if slot < current && (slot.end() <= oldest || total > self.options.raw_bytes) {
                self.forget_segment(slot);
                directory::delete(&self.directory.segment(slot), &held)?;
                total -= size;
            }
        }
        let oldest = since(self.options.rollups_for).as_millis();
        self.on_central(|central| {
            let tx = central.connection.transaction()?;
            for delete in ["DELETE FROM queue_hour WHERE hour < ?1", "DELETE FROM name_hour WHERE hour < ?1"]
            {
                tx.prepare_cached(delete)?.execute([sql(hour(oldest))])?;
            }
            for delete in [
                "DELETE FROM notice WHERE at < ?1",
                "DELETE FROM gap WHERE before_at < ?1",
                "DELETE FROM origin WHERE last_at < ?1",
            ] {
                tx.prepare_cached(delete)?.execute([sql(oldest)])?;
            }
            tx.commit()
        })
    }
}
