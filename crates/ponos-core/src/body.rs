//! The JSON body of a message: an object with `tid` first, because Node peers read the transaction id there.
//!
//! A payload type never sees the field: it is written by [`encode`], which refuses a payload with a top-level `tid`
//! of its own, and hidden by [`decode`], so that `#[serde(deny_unknown_fields)]` works.

mod read;
mod write;

pub use read::{DecodeError, DecodeErrorKind, decode, object, tid};
pub use write::{EncodeError, encode};

/// The largest body that is published or decoded, in bytes: 1 MiB.
pub const MAX_BODY: usize = 1 << 20;

/// How deep a body's arrays and objects may nest.
pub const MAX_DEPTH: usize = 128;
