//! Transaction ids, message ids and timestamps.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The longest transaction id that is taken from a foreign message, in characters.
pub const MAX_TID_LEN: usize = 128;

/// Milliseconds since the Unix epoch, on the wall clock of whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// A timestamp of so many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before the epoch becomes the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates; a part of a millisecond counts as a whole one, so that a deadline is never early.
    fn add(self, by: Duration) -> Self {
        let millis = by.as_nanos().div_ceil(1_000_000);
        Self(self.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
    }
}

/// A transaction id: one per cascade, carried by every message that one cause set off.
///
/// Ponos starts a chain with a UUIDv7 whose bytes are also the W3C trace id. A foreign id is an opaque
/// string of at most [`MAX_TID_LEN`] characters out of `A-Z a-z 0-9 . _ : -`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tid(TidRepr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum TidRepr {
    /// Written in the canonical lower-case hyphenated form.
    Uuid(Uuid),
    /// Anything else that a peer chose.
    Opaque(Arc<str>),
}

impl Tid {
    /// A new id for a chain that starts at `at`, with ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        Self(TidRepr::Uuid(uuid_v7(at, random)))
    }

    /// Takes a foreign id: unsafe characters are dropped, the rest is cut to [`MAX_TID_LEN`].
    /// `None` when nothing is left.
    #[must_use]
    pub fn from_foreign(text: &str) -> Option<Self> {
        if let Some(uuid) = canonical_uuid(text) {
            return Some(Self(TidRepr::Uuid(uuid)));
        }
        let safe: String = text
            .chars()
            .take(16 * MAX_TID_LEN) // a megabyte of rubbish is not searched for good characters
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-'))
            .take(MAX_TID_LEN)
            .collect();
        (!safe.is_empty()).then(|| Self(TidRepr::Opaque(safe.into())))
    }

    /// The W3C trace id: 32 hexadecimal digits, if this id is a UUID.
    #[must_use]
    pub fn trace_id(&self) -> Option<String> {
        match &self.0 {
            TidRepr::Uuid(uuid) => Some(uuid.simple().to_string()),
            TidRepr::Opaque(_) => None,
        }
    }

    /// When the chain began, where the id says so: the first 48 bits of a UUIDv7.
    #[must_use]
    pub fn began(&self) -> Option<Timestamp> {
        match &self.0 {
            TidRepr::Uuid(uuid) if uuid.get_version_num() == 7 => {
                let bytes = uuid.as_bytes();
                let millis = bytes[..6].iter().fold(0, |millis, &byte| millis << 8 | u64::from(byte));
                Some(Timestamp(millis))
            }
            _ => None,
        }
    }

    /// The sixteen bytes of an id that is a UUID.
    #[must_use]
    pub fn uuid_bytes(&self) -> Option<&[u8; 16]> {
        match &self.0 {
            TidRepr::Uuid(uuid) => Some(uuid.as_bytes()),
            TidRepr::Opaque(_) => None,
        }
    }

    /// The id that is a UUID of these bytes.
    #[must_use]
    pub const fn from_uuid_bytes(bytes: [u8; 16]) -> Self {
        Self(TidRepr::Uuid(Uuid::from_bytes(bytes)))
    }

    /// The last eight characters: what people read aloud. (The front of a UUIDv7 is its time, alike for neighbours.)
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len().saturating_sub(8)..].to_owned()
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TidRepr::Uuid(uuid) => f.write_str(uuid.hyphenated().encode_lower(&mut [0; 36])),
            TidRepr::Opaque(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tid({self})")
    }
}

impl Serialize for Tid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            TidRepr::Uuid(uuid) => serializer.serialize_str(uuid.hyphenated().encode_lower(&mut [0; 36])),
            TidRepr::Opaque(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Tid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_foreign(&text)
            .ok_or_else(|| serde::de::Error::custom("a transaction id needs at least one letter or digit"))
    }
}

/// The identity of one message; the idempotency key of the job it becomes, stable over attempts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

impl MessageId {
    /// The id of a message that starts a chain: a UUIDv7 of `at` and ten random bytes.
    #[must_use]
    pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
        Self(uuid_v7(at, random))
    }

    /// The id of what a handler publishes, computed and not drawn, so that a repeated run gives the same ids.
    ///
    /// A UUIDv8 (RFC 9562): the parent's 48 bits of time, then SHA-256 over every field of [`Effect`], cut to 74 bits.
    #[must_use]
    pub fn of_effect(effect: &Effect<'_>) -> Self {
        let mut hash = Sha256::new();
        hash.update(effect.parent.0.as_bytes());
        for part in [effect.queue.as_bytes(), effect.phase.as_bytes(), effect.name.as_bytes(), effect.payload]
        {
            // Each part with its length, so that no two lists of parts give the same bytes.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(effect.occurrence.to_le_bytes());
        let digest = hash.finalize();
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&effect.parent.0.as_bytes()[..6]);
        bytes[6..].copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The id given to a foreign message that brings none: from what stays the same when it is delivered again.
    #[must_use]
    pub fn of_foreign(queue: &str, tid: &Tid, at: Timestamp, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        let tid = tid.to_string();
        for part in
            [b"foreign".as_slice(), queue.as_bytes(), tid.as_bytes(), &at.as_millis().to_le_bytes(), body]
        {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self::from_digest(at, &hash.finalize())
    }

    /// Reads an id from the wire: a UUID as it is, any other text by its hash.
    /// `None` for an empty text.
    #[must_use]
    pub fn from_foreign(text: &str, at: Timestamp) -> Option<Self> {
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Some(Self(uuid));
        }
        (!text.is_empty()).then(|| Self::from_digest(at, &Sha256::digest(text.as_bytes())))
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// An id of these sixteen bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    fn from_digest(at: Timestamp, digest: &[u8]) -> Self {
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&at.as_millis().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// What the id of an effect is computed from; see [`MessageId::of_effect`].
#[derive(Debug, Clone, Copy)]
pub struct Effect<'a> {
    /// The message whose handler publishes.
    pub parent: MessageId,
    /// The queue that it was consumed from: two subscribers of one event never share an effect.
    pub queue: &'a str,
    /// `run` or `recover`.
    pub phase: &'a str,
    /// The name of the message that is published.
    pub name: &'a str,
    /// The body that is published.
    pub payload: &'a [u8],
    /// How many effects equal to this one the same run has published before.
    pub occurrence: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.hyphenated().encode_lower(&mut [0; 36]))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A text that is no UUID.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is no message id: expected a UUID such as `0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17`")]
pub struct InvalidMessageId(String);

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidMessageId(text.escape_debug().take(60).collect()))
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut [0; 36]))
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn uuid_v7(at: Timestamp, random: [u8; 10]) -> Uuid {
    // Not `Uuid::now_v7`: it fills 42 bits with a counter, and the W3C random flag wants 56 random bits at the end.
    uuid::Builder::from_unix_timestamp_millis(at.as_millis(), &random).into_uuid()
}

/// The UUID that `text` is the canonical form of, so that writing it again gives the same text.
fn canonical_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    Uuid::try_parse(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn effect<'a>(
        parent: MessageId,
        queue: &'a str,
        name: &'a str,
        payload: &'a [u8],
        occurrence: u32,
    ) -> Effect<'a> {
        Effect { parent, queue, phase: "run", name, payload, occurrence }
    }

    #[test]
    fn a_new_tid_is_its_own_trace_id_and_carries_its_time() {
        let tid = Tid::new(Timestamp::from_millis(0x0123_4567_89ab), [0xff; 10]);
        assert_eq!(tid.to_string(), "01234567-89ab-7fff-bfff-ffffffffffff");
        assert_eq!(tid.trace_id().as_deref(), Some("0123456789ab7fffbfffffffffffffff"));
        assert_eq!(tid.short(), "ffffffff");
    }

    #[test]
    fn equal_effects_share_an_id_and_others_never_do() {
        let parent = MessageId::new(Timestamp::from_millis(77), [1; 10]);
        let id = |queue, name, payload, n| MessageId::of_effect(&effect(parent, queue, name, payload, n));
        let base = id("a.b.c", "x.done", b"{}", 0);
        assert_eq!(base, id("a.b.c", "x.done", b"{}", 0));
        for other in [
            id("a.b.d", "x.done", b"{}", 0),
            id("a.b.c", "y.done", b"{}", 0),
            id("a.b.c", "x.done", b"{ }", 0),
            id("a.b.c", "x.done", b"{}", 1),
            id("a.b.", "cx.done", b"{}", 0),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base.as_bytes()[..6], parent.as_bytes()[..6], "keeps the parent's time");
        assert_eq!(base.as_bytes()[6] >> 4, 8, "is a UUIDv8");
    }

    proptest! {
        #[test]
        fn a_foreign_tid_is_safe_short_and_stable(text in ".{0,300}") {
            if let Some(tid) = Tid::from_foreign(&text) {
                let shown = tid.to_string();
                prop_assert!(!shown.is_empty() && shown.len() <= MAX_TID_LEN);
                prop_assert!(shown.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
                prop_assert_eq!(Tid::from_foreign(&shown), Some(tid));
            }
        }

        #[test]
        fn a_uuid_tid_keeps_its_text(bytes in any::<[u8; 16]>()) {
            let text = Uuid::from_bytes(bytes).hyphenated().to_string();
            prop_assert_eq!(Tid::from_foreign(&text).unwrap().to_string(), text);
        }

        #[test]
        fn adding_a_duration_is_never_early(ms in 0u64..1 << 40, nanos in 0u64..1 << 50) {
            let by = Duration::from_nanos(nanos);
            let sum = Timestamp::from_millis(ms) + by;
            prop_assert!(sum.since(Timestamp::from_millis(ms)) >= by);
        }
    }
}
