//! A message from properties, headers and body; what was read is read again from what is written of it.

use ponos_core::Bytes;
use ponos_core::body;
use ponos_core::id::Timestamp;
use ponos_core::wire::{self, HeaderValue, Headers, Ignored, Parts, Properties, Reading};

use super::source::{Source, is_within_limits};

const HEADERS: [&str; 20] = [
    "x-ponos-wire",
    "x-ponos-cause",
    "x-ponos-attempt",
    "x-ponos-phase",
    "x-ponos-history",
    "x-ponos-first-seen",
    "x-ponos-due",
    "x-ponos-hops",
    "x-ponos-suspect",
    "x-ponos-gave-up",
    "x-ponos-report",
    "x-ponos-retried",
    "x-ponos-edited-from",
    "x-ponos-discarded",
    "x-ponos-version",
    "publisherWorkerName",
    "traceparent",
    "tracestate",
    "x-death",
    "CC",
];

/// An even first byte: the rest is a head as the embedded broker keeps it, a zero byte, and a body. An odd one: parts.
pub fn check(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let mut source = Source::new(rest);
    let queue = if first % 2 == 0 { Source::new(&[first / 2]).queue() } else { source.queue() };
    let reading = Reading { queue: &queue, now: Timestamp::from_millis(1_700_000_000_000), random: [7; 10] };
    let (envelope, anomalies) = if first % 2 == 0 {
        let at = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let (head, body) = rest.split_at(at);
        wire::decode(head, Bytes::copy_from_slice(body.get(1..).unwrap_or_default()), reading)
    } else {
        let parts = parts(&mut source);
        wire::assemble(&parts, Bytes::copy_from_slice(source.rest()), reading)
    };
    assert!(anomalies.len() <= HEADERS.len() + 8, "one anomaly for each part at most");
    is_within_limits(&envelope);

    let head = wire::encode(&envelope);
    let later = Reading { now: Timestamp::from_millis(1_800_000_000_000), random: [8; 10], ..reading };
    let (again, _) = wire::decode(&head, envelope.body.clone(), later);
    assert_eq!(again, envelope, "what was read is written as it was read");
    assert_eq!(wire::encode(&again), head);
    if let Some(tid) = body::tid(&envelope.body) {
        assert_eq!(tid, envelope.tid, "the body's transaction id comes first");
    }
}

fn parts(source: &mut Source<'_>) -> Parts {
    let properties = Properties {
        message_id: source.maybe(|source| source.text().to_owned()),
        correlation_id: source.maybe(|source| source.text().to_owned()),
        kind: source.maybe(|source| match source.byte() {
            0..100 => source.of(&super::source::QUEUES).to_owned(),
            100..150 => "org.payment.processed".to_owned(),
            _ => source.text().to_owned(),
        }),
        app_id: source.maybe(|source| source.text().to_owned()),
        timestamp: source.maybe(Source::big),
    };
    let mut headers = Headers::new();
    for _ in 0..source.byte() % 24 {
        let name = source.of(&HEADERS).to_owned();
        let value = match source.byte() {
            0..60 => HeaderValue::Int(source.big().cast_signed()),
            60..80 => HeaderValue::Int(i64::from(source.byte())),
            80..90 => HeaderValue::Other(Ignored),
            // Longer than the input: what a stranger may fill a header with.
            90..110 => HeaderValue::Text(source.text().repeat(usize::from(source.byte()) * 8)),
            _ => HeaderValue::Text(source.text().to_owned()),
        };
        headers.insert(name, value);
    }
    Parts { properties, headers }
}
