//! What is written, what is read of it, and what is not believed.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::envelope::{
    AttemptNote, Discarded, ErrorClass, GaveUp, GaveUpReason, MessageName, Progress, Recovery, Report,
    Retried, TraceContext,
};
use crate::id::{MessageId, Tid};
use crate::name::{AppName, QueueName, TaskName};

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
        trace: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", Some("a=b"))
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
    assert_eq!((read.progress.attempt, read.hops, read.cause), (2, 1, Some(MessageId::from_bytes([8; 16]))));
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
