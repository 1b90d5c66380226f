//! The envelope as properties and headers, and the versioned encoding of both.
//!
//! A network broker maps [`Parts`] onto its protocol's own properties and header table; the embedded broker
//! stores [`encode`]'s JSON. Reading never fails: what is foreign, forged or broken is replaced by a default and
//! listed as an [`Anomaly`], because a message that cannot be read must still be kept.
//!
//! # Versions
//!
//! `x-ponos-wire` is 1. Within a version fields are only added and readers ignore what they do not know, so any
//! mix of minor versions works; a reader takes what it knows of a higher version.

mod read;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

pub use read::{Reading, assemble};

use crate::envelope::{Envelope, Phase};
use crate::id::Timestamp;

/// The version of the wire that this crate writes.
pub const WIRE_VERSION: i64 = 1;

/// The largest header table that is published, in bytes of text: 64 KiB.
pub const MAX_HEADERS: usize = 64 * 1024;

/// The standard properties that a message has beside its headers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// The message id.
    #[serde(rename = "id", skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub message_id: Option<String>,
    /// The transaction id.
    #[serde(rename = "corr", skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub correlation_id: Option<String>,
    /// The event's or the task's name.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub kind: Option<String>,
    /// The application that published the message.
    #[serde(rename = "app", skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub app_id: Option<String>,
    /// Milliseconds since the epoch; seconds are accepted.
    #[serde(rename = "ts", skip_serializing_if = "Option::is_none", deserialize_with = "lenient")]
    pub timestamp: Option<u64>,
}

/// Any other type than the expected one counts as absent.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A header's value, of the kinds that Ponos reads; others are not carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HeaderValue {
    /// Any integer of the protocol.
    Int(i64),
    /// Any text of the protocol.
    Text(String),
    /// Anything else: present, and not believed.
    Other(Ignored),
}

/// Stands for a header's value of a kind that Ponos does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored;

impl Serialize for Ignored {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A message's headers by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// Everything of a message but its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Standard properties.
    #[serde(rename = "p", default)]
    pub properties: Properties,
    /// Headers.
    #[serde(rename = "h", default)]
    pub headers: Headers,
}

/// Something in a message that was not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// The property or header.
    pub part: &'static str,
    /// What was wrong and what was done instead.
    pub problem: String,
}

/// The header of a job that may have killed its process: it runs alone.
pub const SUSPECT: &str = "x-ponos-suspect";

mod header {
    pub(super) const WIRE: &str = "x-ponos-wire";
    pub(super) const CAUSE: &str = "x-ponos-cause";
    pub(super) const ATTEMPT: &str = "x-ponos-attempt";
    pub(super) const PHASE: &str = "x-ponos-phase";
    pub(super) const HISTORY: &str = "x-ponos-history";
    pub(super) const FIRST_SEEN: &str = "x-ponos-first-seen";
    pub(super) const DUE: &str = "x-ponos-due";
    pub(super) const HOPS: &str = "x-ponos-hops";
    pub(super) const SUSPECT: &str = super::SUSPECT;
    pub(super) const GAVE_UP: &str = "x-ponos-gave-up";
    pub(super) const REPORT: &str = "x-ponos-report";
    pub(super) const RETRIED: &str = "x-ponos-retried";
    pub(super) const EDITED_FROM: &str = "x-ponos-edited-from";
    pub(super) const DISCARDED: &str = "x-ponos-discarded";
    pub(super) const VERSION: &str = "x-ponos-version";
    pub(super) const PUBLISHER: &str = "publisherWorkerName";
    pub(super) const TRACEPARENT: &str = "traceparent";
    pub(super) const TRACESTATE: &str = "tracestate";
}

/// Takes an envelope apart for a broker. Only headers of Ponos are written, so that nothing forged is passed on.
#[must_use]
pub fn parts(envelope: &Envelope) -> Parts {
    let mut headers = Headers::new();
    let mut text = |name: &str, value: String| headers.insert(name.to_owned(), HeaderValue::Text(value));
    if let Some(cause) = envelope.cause {
        text(header::CAUSE, cause.to_string());
    }
    if let Some(publisher) = &envelope.publisher {
        text(header::PUBLISHER, publisher.to_string());
    }
    if let Some(version) = &envelope.version {
        text(header::VERSION, version.to_string());
    }
    if let Some(trace) = &envelope.trace {
        text(header::TRACEPARENT, trace.parent.clone());
        if let Some(state) = &trace.state {
            text(header::TRACESTATE, state.clone());
        }
    }
    let progress = &envelope.progress;
    if progress.phase != Phase::Run {
        text(header::PHASE, progress.phase.as_str().to_owned());
    }
    let json =
        |value: serde_json::Result<String>| value.expect("plain structs of texts and numbers serialise");
    if !progress.history.is_empty() {
        text(header::HISTORY, json(serde_json::to_string(&progress.history)));
    }
    if let Some(gave_up) = &progress.gave_up {
        text(header::GAVE_UP, json(serde_json::to_string(gave_up)));
    }
    if let Some(report) = &envelope.report {
        text(header::REPORT, json(serde_json::to_string(report)));
    }
    if let Some(retried) = &progress.retried {
        text(header::RETRIED, json(serde_json::to_string(retried)));
    }
    if let Some(original) = progress.edited_from {
        text(header::EDITED_FROM, original.to_string());
    }
    if let Some(discarded) = &progress.discarded {
        text(header::DISCARDED, json(serde_json::to_string(discarded)));
    }
    let mut int = |name: &str, value: i64| headers.insert(name.to_owned(), HeaderValue::Int(value));
    int(header::WIRE, WIRE_VERSION);
    if progress.attempt != 1 {
        int(header::ATTEMPT, i64::from(progress.attempt));
    }
    if envelope.hops != 0 {
        int(header::HOPS, i64::from(envelope.hops));
    }
    if let Some(losses) = progress.suspect {
        int(header::SUSPECT, i64::from(losses));
    }
    let millis = |at: Timestamp| i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    if let Some(at) = progress.first_seen {
        int(header::FIRST_SEEN, millis(at));
    }
    if let Some(at) = progress.due {
        int(header::DUE, millis(at));
    }
    Parts {
        properties: Properties {
            message_id: Some(envelope.id.to_string()),
            correlation_id: Some(envelope.tid.to_string()),
            kind: Some(envelope.name.as_str().to_owned()),
            app_id: envelope.app.as_ref().map(|app| app.as_str().to_owned()),
            timestamp: Some(envelope.published_at.as_millis()),
        },
        headers,
    }
}

/// Writes everything but the body: JSON, `{"p":…,"h":…}`, with the version in `x-ponos-wire`.
#[must_use]
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    serde_json::to_vec(&parts(envelope)).expect("texts and numbers serialise")
}

/// Reads what [`encode`] or a later minor version wrote; what is broken is replaced and listed.
#[must_use]
pub fn decode(head: &[u8], body: Bytes, reading: Reading<'_>) -> (Envelope, Vec<Anomaly>) {
    match serde_json::from_slice::<Parts>(head) {
        Ok(parts) => assemble(&parts, body, reading),
        Err(error) => {
            let (envelope, mut anomalies) = assemble(&Parts::default(), body, reading);
            anomalies.insert(
                0,
                Anomaly { part: "headers", problem: format!("are unreadable ({error}): ignored") },
            );
            (envelope, anomalies)
        }
    }
}

/// Whether what [`encode`] wrote is of a suspect: a job that is to run alone. What has failed already is none.
#[must_use]
pub fn is_suspect(head: &[u8]) -> bool {
    // Nearly nothing is one, so nearly nothing is parsed.
    std::str::from_utf8(head).is_ok_and(|text| text.contains(SUSPECT))
        && serde_json::from_slice::<Parts>(head).is_ok_and(|Parts { headers, .. }| {
            matches!(headers.get(SUSPECT), Some(HeaderValue::Int(0..)))
                && !headers.contains_key(header::REPORT)
        })
}

#[cfg(test)]
mod tests;
