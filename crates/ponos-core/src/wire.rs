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

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::body;
use crate::envelope::{
    AttemptNote, Discarded, Envelope, GaveUp, MessageName, Phase, Progress, Report, Retried, TraceContext,
};
use crate::id::{MessageId, Tid, Timestamp};
use crate::name::{AppName, EventName, QueueName, TaskName};

/// The version of the wire that this crate writes.
pub const WIRE_VERSION: i64 = 1;

/// The most attempts a foreign header is believed to have spent.
const MAX_ATTEMPT: i64 = 1_000_000;

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

/// What the reader of a message knows beside the message itself.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// The queue that the message was in.
    pub queue: &'a QueueName,
    /// The time, for what brings none.
    pub now: Timestamp,
    /// Ten random bytes, for a transaction id where there is none.
    pub random: [u8; 10],
}

/// Puts an envelope together from a broker's message, and lists what was not believed.
#[must_use]
pub fn assemble(parts: &Parts, body: Bytes, reading: Reading<'_>) -> (Envelope, Vec<Anomaly>) {
    let mut read = Reader { headers: &parts.headers, anomalies: Vec::new() };
    let properties = &parts.properties;
    let timestamp = timestamp_of(parts);
    let published_at = timestamp.unwrap_or(reading.now);
    let trace = read.trace();
    let tid = read.tid(&body, properties, trace.as_ref(), reading);
    let id = properties
        .message_id
        .as_deref()
        .and_then(|text| MessageId::from_foreign(text, published_at))
        .unwrap_or_else(|| {
            read.anomaly("message_id", "is missing: computed from queue, tid, timestamp and body");
            // Without the reader's own clock: the same message must get the same id when it comes again.
            MessageId::of_foreign(reading.queue.as_str(), &tid, timestamp.unwrap_or_default(), &body)
        });
    let report = read.report(reading.queue);
    let origin = report.as_ref().map_or(reading.queue, |report| &report.queue);
    let name = read.name(properties.kind.as_deref(), origin);
    let app = properties.app_id.as_deref().and_then(|text| read.app(text));
    let history: Vec<AttemptNote> = read.json(header::HISTORY).unwrap_or_default();
    let phase = match read.text(header::PHASE) {
        None | Some("run") => Phase::Run,
        Some("recover") => Phase::Recover,
        Some(_) => {
            read.anomaly(header::PHASE, "is neither `run` nor `recover`: taken as `run`");
            Phase::Run
        }
    };
    let wire = read.int(header::WIRE, 0, i64::MAX);
    if wire.is_some_and(|version| version > WIRE_VERSION) {
        read.anomaly(header::WIRE, "is newer than this service: unknown fields are ignored");
    }
    let mut progress = Progress {
        attempt: read.int(header::ATTEMPT, 1, MAX_ATTEMPT).unwrap_or(1).try_into().unwrap_or(1),
        phase,
        history,
        first_seen: read.time(header::FIRST_SEEN),
        due: read.time(header::DUE),
        suspect: read.int(header::SUSPECT, 0, 1000).and_then(|n| u32::try_from(n).ok()),
        gave_up: read.json::<GaveUp>(header::GAVE_UP).map(Box::new),
        retried: read.json::<Retried>(header::RETRIED).map(Box::new),
        edited_from: read
            .text(header::EDITED_FROM)
            .and_then(|text| MessageId::from_foreign(text, published_at)),
        discarded: read.json::<Discarded>(header::DISCARDED).map(Box::new),
    };
    progress.shorten();
    let envelope = Envelope {
        id,
        name,
        tid,
        cause: read.text(header::CAUSE).and_then(|text| MessageId::from_foreign(text, published_at)),
        app,
        publisher: read.text(header::PUBLISHER).map(|text| cut(text, 255)),
        published_at,
        hops: read.int(header::HOPS, 0, i64::from(u32::MAX)).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        version: read.text(header::VERSION).map(|text| cut(text, 64)),
        trace: trace.map(Arc::new),
        progress,
        report,
        body,
    };
    (envelope, read.anomalies)
}

fn timestamp_of(parts: &Parts) -> Option<Timestamp> {
    let raw = parts.properties.timestamp?;
    // Who says the wire's version writes milliseconds. From anybody else seconds are accepted: what would be before
    // March 1973 in milliseconds.
    let is_seconds = raw < 100_000_000_000 && !parts.headers.contains_key(header::WIRE);
    Some(Timestamp::from_millis(if is_seconds { raw * 1000 } else { raw }))
}

fn cut(text: &str, max: usize) -> Arc<str> {
    crate::envelope::tame(text, max).into()
}

struct Reader<'a> {
    headers: &'a Headers,
    anomalies: Vec<Anomaly>,
}

impl<'a> Reader<'a> {
    #[cold]
    fn anomaly(&mut self, part: &'static str, problem: &str) {
        self.anomalies.push(Anomaly { part, problem: problem.to_owned() });
    }

    fn text(&mut self, name: &'static str) -> Option<&'a str> {
        match self.headers.get(name)? {
            HeaderValue::Text(text) => Some(text),
            _ => {
                self.anomaly(name, "is no text: ignored");
                None
            }
        }
    }

    fn int(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        match self.headers.get(name)? {
            HeaderValue::Int(n) if (min..=max).contains(n) => Some(*n),
            HeaderValue::Int(n) if *n > max => {
                self.anomaly(name, "is out of range: cut");
                Some(max)
            }
            _ => {
                self.anomaly(name, "is no number in range: ignored");
                None
            }
        }
    }

    fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        // Year 2999: far enough for anybody, near enough that adding to it cannot overflow.
        let millis = self.int(name, 0, 32_503_680_000_000)?;
        u64::try_from(millis).ok().map(Timestamp::from_millis)
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        if text.len() > MAX_HEADERS {
            self.anomaly(name, "is too large: ignored");
            return None;
        }
        let value = serde_json::from_str(text).ok();
        if value.is_none() {
            self.anomaly(name, "is not what Ponos writes there: ignored");
        }
        value
    }

    /// Only what lies among the failed or the discarded jobs has one.
    fn report(&mut self, queue: &QueueName) -> Option<Box<Report>> {
        let is_kept = matches!(queue.as_str().split_once('.'), Some((_, "failed" | "discarded")));
        if !is_kept {
            if self.headers.contains_key(header::REPORT) {
                self.anomaly(header::REPORT, "is for failed jobs: ignored");
            }
            return None;
        }
        let mut report: Report = self.json(header::REPORT)?;
        report.shorten();
        Some(Box::new(report))
    }

    fn trace(&mut self) -> Option<TraceContext> {
        let parent = self.text(header::TRACEPARENT)?;
        let state = self.text(header::TRACESTATE);
        let trace = TraceContext::parse(parent, state);
        if trace.is_none() {
            self.anomaly(header::TRACEPARENT, "is no W3C trace parent: ignored");
        }
        trace
    }

    /// In this order: body, correlation id, trace id; otherwise a new one.
    fn tid(
        &mut self,
        body: &[u8],
        properties: &Properties,
        trace: Option<&TraceContext>,
        reading: Reading<'_>,
    ) -> Tid {
        let found = body::tid(body)
            .or_else(|| properties.correlation_id.as_deref().and_then(Tid::from_foreign))
            .or_else(|| trace.and_then(TraceContext::tid));
        found.unwrap_or_else(|| {
            self.anomaly("tid", "is missing: a new one was given");
            Tid::new(reading.now, reading.random)
        })
    }

    fn app(&mut self, text: &str) -> Option<AppName> {
        let app = AppName::parse(text).ok();
        if app.is_none() {
            self.anomaly("app_id", "is no application's name: ignored");
        }
        app
    }

    /// The queue decides: it is named after its task, or after its application and its event.
    fn name(&mut self, kind: Option<&str>, queue: &QueueName) -> MessageName {
        let own = queue.as_str();
        let event = own.split_once('.').map(|(_, event)| event);
        match kind {
            Some(kind) if kind != own => {
                if Some(kind) != event {
                    self.anomaly("type", "is not what this queue is for: the queue's handler decides");
                }
                if let Ok(name) = EventName::unchecked_verb(kind) {
                    return MessageName::Event(name);
                }
            }
            Some(_) => {
                if let Ok(name) = TaskName::unchecked_verb(own) {
                    return MessageName::Task(name);
                }
            }
            None => self.anomaly("type", "is missing: taken from the queue's name"),
        }
        // Only the tense is left to tell `pheidi.email.send` from `pheidi` hearing `email.sent`.
        match (TaskName::parse(own), event.map(EventName::unchecked_verb)) {
            (Ok(task), _) => MessageName::Task(task),
            (_, Some(Ok(event))) => MessageName::Event(event),
            // A queue such as `pheidi.failed`, holding something that says nothing about itself.
            _ => MessageName::Event(EventName::from_checked("unknown.received")),
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::{ErrorClass, GaveUpReason, Recovery};

    const QUEUE: &str = "pheidi.email.send";

    fn reading(queue: &QueueName) -> Reading<'_> {
        Reading { queue, now: Timestamp::from_millis(1_700_000_000_000), random: [7; 10] }
    }

    fn full(body: &'static [u8]) -> Envelope {
        Envelope {
            id: MessageId::from_bytes([9; 16]),
            name: MessageName::Task(TaskName::parse(QUEUE).unwrap()),
            tid: Tid::from_foreign("t-1").unwrap(),
            cause: Some(MessageId::from_bytes([8; 16])),
            app: Some(AppName::parse("pheidi").unwrap()),
            publisher: Some("pheidi.org.payment.processed".into()),
            published_at: Timestamp::from_millis(1_600_000_000_123),
            hops: 3,
            version: Some("2.5.0".into()),
            trace: TraceContext::parse(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
                Some("a=b"),
            )
            .map(Arc::new),
            progress: Progress {
                attempt: 4,
                phase: Phase::Recover,
                history: vec![AttemptNote {
                    started: Timestamp::from_millis(1),
                    millis: 2,
                    class: ErrorClass::Timeout,
                    error: "slow".into(),
                    host: "h/1".into(),
                }],
                first_seen: Some(Timestamp::from_millis(5)),
                due: Some(Timestamp::from_millis(6)),
                suspect: Some(2),
                gave_up: Some(Box::new(GaveUp {
                    reason: GaveUpReason::Exhausted,
                    error: "x".into(),
                    attempts: 11,
                })),
                retried: Some(Box::new(Retried {
                    op: "op-1".into(),
                    at: Timestamp::from_millis(10),
                    by: "ada@vm".into(),
                    times: 2,
                    failed_at: Some(Timestamp::from_millis(9)),
                    error: "x".into(),
                })),
                edited_from: Some(MessageId::from_bytes([6; 16])),
                discarded: Some(Box::new(Discarded {
                    op: "op-2".into(),
                    at: Timestamp::from_millis(11),
                    by: String::new(),
                    reason: "r".into(),
                })),
            },
            report: Some(Box::new(Report {
                queue: QueueName::parse(QUEUE).unwrap(),
                gave_up: GaveUp { reason: GaveUpReason::Stopped, error: "y".into(), attempts: 1 },
                recovery: Recovery::Failed("z".into()),
                at: Timestamp::from_millis(9),
                fingerprint: "f".into(),
                history: Vec::new(),
                version: None,
                host: "h".into(),
            })),
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn an_envelope_survives_its_encoding() {
        let queue = QueueName::parse("pheidi.failed").unwrap();
        let envelope = full(br#"{"tid":"t-1","org":"a"}"#);
        let (read, anomalies) = decode(&encode(&envelope), envelope.body.clone(), reading(&queue));
        assert_eq!(read, envelope);
        assert_eq!(anomalies, []);
    }

    #[test]
    fn version_1_is_read_for_ever() {
        // Written by hand from the documentation, not by this code: the old side of "old writes, new reads".
        let head = br#"{"p":{"id":"09090909-0909-0909-0909-090909090909","corr":"t-1","type":"pheidi.email.send",
            "app":"pheidi","ts":1600000000123,"later":1},"h":{"x-ponos-wire":1,"x-ponos-attempt":2,"x-ponos-hops":1,
            "x-ponos-cause":"08080808-0808-0808-0808-080808080808","x-ponos-new":[1,{"a":null}]}}"#;
        let queue = QueueName::parse(QUEUE).unwrap();
        let (read, anomalies) = decode(head, Bytes::from_static(br#"{"tid":"t-1"}"#), reading(&queue));
        assert_eq!(anomalies, []);
        assert_eq!(
            (read.progress.attempt, read.hops, read.cause),
            (2, 1, Some(MessageId::from_bytes([8; 16])))
        );
        assert_eq!(read.name, MessageName::Task(TaskName::parse(QUEUE).unwrap()));
    }

    #[test]
    fn a_message_without_anything_gets_a_stable_id_and_a_new_tid() {
        let queue = QueueName::parse("pheidi.org.payment.processed").unwrap();
        let body = Bytes::from_static(b"{\"org\":1}");
        let (a, anomalies) = assemble(&Parts::default(), body.clone(), reading(&queue));
        assert_eq!(a.name.as_str(), "org.payment.processed");
        let parts: Vec<_> = anomalies.iter().map(|a| a.part).collect();
        assert_eq!(parts, ["tid", "message_id", "type"]);
        let with_tid = Bytes::from_static(br#"{"tid":"n-1"}"#);
        let later = Reading { now: Timestamp::from_millis(1_800_000_000_000), ..reading(&queue) };
        let (b, _) = assemble(&Parts::default(), with_tid.clone(), reading(&queue));
        let (c, _) = assemble(&Parts::default(), with_tid, later);
        assert_eq!(b.id, c.id, "the same message gets the same id when it comes again");
    }

    #[test]
    fn a_time_is_read_as_it_was_written_however_early_and_a_strangers_seconds_once() {
        let queue = QueueName::parse(QUEUE).unwrap();
        for (raw, millis) in [
            (0, 0),
            (5, 5_000),
            (1_600_000_000, 1_600_000_000_000),
            (1_600_000_000_123, 1_600_000_000_123),
            (u64::MAX, u64::MAX),
        ] {
            let properties = Properties { timestamp: Some(raw), ..Properties::default() };
            let parts = Parts { properties, ..Parts::default() };
            let (read, _) = assemble(&parts, Bytes::from_static(b"{}"), reading(&queue));
            assert_eq!(read.published_at.as_millis(), millis);
            let (again, _) = decode(&encode(&read), read.body.clone(), reading(&queue));
            assert_eq!(again, read);
        }
    }

    #[test]
    fn whatever_was_forged_can_be_sent_on() {
        let queue = QueueName::parse("pheidi.failed").unwrap();
        let long = "\\\"".repeat(14_000);
        let json = |text: &str| HeaderValue::Text(text.replace('%', &long));
        let headers = [
            (header::HISTORY, r#"[{"at":1,"ms":1,"class":"error","err":"%","host":"h"}]"#),
            (header::GAVE_UP, r#"{"reason":"stopped","error":"%","attempts":1}"#),
            (header::RETRIED, r#"{"op":"o","at":1,"times":1,"by":"%"}"#),
            (header::DISCARDED, r#"{"op":"o","at":1,"reason":"%"}"#),
            (
                header::REPORT,
                r#"{"queue":"a.b","reason":"stopped","error":"","attempts":1,"recovery":{"failed":"%"},"at":1,"fingerprint":"f"}"#,
            ),
            (header::TRACEPARENT, "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-%"),
            (header::TRACESTATE, "%"),
            (header::PUBLISHER, "%"),
            (header::VERSION, "%"),
        ];
        let headers = headers.map(|(name, text)| (name.to_owned(), json(text)));
        let parts_of = Parts { headers: headers.into(), ..Parts::default() };
        let (read, _) = assemble(&parts_of, Bytes::from_static(b"{}"), reading(&queue));
        let progress = &read.progress;
        assert!(progress.gave_up.is_some() && progress.retried.is_some() && progress.discarded.is_some());
        assert!(read.report.is_some() && progress.history.len() == 1 && read.trace.is_none());
        let written: usize = parts(&read)
            .headers
            .values()
            .map(|value| match value {
                HeaderValue::Text(text) => text.len(),
                _ => 8,
            })
            .sum();
        assert!(written < MAX_HEADERS - 8 * 1024, "{written} bytes");
        let (again, _) = decode(&encode(&read), read.body.clone(), reading(&queue));
        assert_eq!(again, Envelope { published_at: again.published_at, ..read });
    }

    #[test]
    fn forged_headers_are_not_believed() {
        let queue = QueueName::parse(QUEUE).unwrap();
        let forged = |name: &str, value: HeaderValue| {
            let parts = Parts { headers: [(name.to_owned(), value)].into(), ..Parts::default() };
            assemble(&parts, Bytes::from_static(b"{}"), reading(&queue))
        };
        for value in [
            HeaderValue::Text("abc".into()),
            HeaderValue::Int(-5),
            HeaderValue::Other(Ignored),
            HeaderValue::Int(0),
        ] {
            let (read, anomalies) = forged(header::ATTEMPT, value);
            assert_eq!(read.progress.attempt, 1);
            assert!(anomalies.iter().any(|a| a.part == header::ATTEMPT));
        }
        assert_eq!(forged(header::ATTEMPT, HeaderValue::Int(i64::MAX)).0.progress.attempt, 1_000_000);
        assert_eq!(forged(header::PHASE, HeaderValue::Text("root".into())).0.progress.phase, Phase::Run);
        assert_eq!(forged(header::HISTORY, HeaderValue::Text("[[[".into())).0.progress.history, []);
        assert_eq!(forged(header::REPORT, HeaderValue::Text("{}".into())).0.report, None);
        assert_eq!(forged(header::DUE, HeaderValue::Int(-1)).0.progress.due, None);
        let (read, _) = forged("x-death", HeaderValue::Text("x".into()));
        assert!(!parts(&read).headers.contains_key("x-death"), "is not passed on");
    }

    #[test]
    fn a_forged_report_is_read_among_failed_jobs_alone() {
        let report = HeaderValue::Text(serde_json::to_string(&full(b"{}").report).unwrap());
        let parts = Parts { headers: [(header::REPORT.to_owned(), report)].into(), ..Parts::default() };
        for (queue, believed) in [
            (QUEUE, false),
            ("pheidi.failed", true),
            ("pheidi.discarded", true),
            ("pheidi.payment.failed", false),
        ] {
            let queue = QueueName::parse(queue).unwrap();
            let (read, anomalies) = assemble(&parts, Bytes::from_static(b"{}"), reading(&queue));
            assert_eq!(read.report.is_some(), believed, "{queue}");
            assert_eq!(anomalies.iter().any(|a| a.part == header::REPORT), !believed);
        }
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..300), body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let queue = QueueName::parse(QUEUE).unwrap();
            let _ = decode(&head, Bytes::from(body), reading(&queue));
        }

        #[test]
        fn no_header_makes_it_panic(name in "x-ponos-[a-z-]{0,12}|traceparent|tracestate|publisherWorkerName", text in ".{0,80}", int in any::<i64>(), is_text in any::<bool>()) {
            let queue = QueueName::parse(QUEUE).unwrap();
            let value = if is_text { HeaderValue::Text(text) } else { HeaderValue::Int(int) };
            let parts = Parts { headers: [(name, value)].into(), ..Parts::default() };
            let (read, _) = assemble(&parts, Bytes::from_static(b"{}"), reading(&queue));
            let _ = encode(&read);
        }
    }
}
