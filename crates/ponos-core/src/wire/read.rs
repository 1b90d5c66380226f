//! Reading: from properties and headers to an envelope, believing nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::{Anomaly, HeaderValue, Headers, MAX_HEADERS, Parts, Properties, WIRE_VERSION, header};
use crate::body;
use crate::envelope::{
    AttemptNote, Discarded, Envelope, GaveUp, MessageName, Phase, Progress, Report, Retried, TraceContext,
};
use crate::id::{MessageId, Tid, Timestamp};
use crate::name::{AppName, EventName, QueueName, TaskName};

/// The most attempts a foreign header is believed to have spent.
const MAX_ATTEMPT: i64 = 1_000_000;

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
