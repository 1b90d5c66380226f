//! How policies are written into a manifest.

use serde::Serializer;
use std::time::Duration;

/// Writes a duration as milliseconds: an integer if it is a whole number of them, else a fraction.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        serializer.serialize_f64(duration.as_secs_f64() * 1_000.0)
    }
}
