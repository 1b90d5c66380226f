//! Headers that somebody forged, and kinds of values that nobody of us writes.

use ponos::core::envelope::{GaveUpReason, Recovery};

use super::place::{Foreign, Value};
use super::row::{Case, Then};
use Value::{Bool, Bytes, Decimal, Double, Int, List, Table, Text, Timestamp, Void};

const NO_RECOVERY: &str = "this version of the service has no recovery function";

/// A message with these headers; its number in the body is its place in the table.
struct Forged {
    number: u8,
    input: &'static str,
    headers: Vec<(&'static str, Value)>,
    then: Then,
    note: &'static str,
}

fn forged(number: u8, input: &'static str, headers: Vec<(&'static str, Value)>) -> Forged {
    Forged { number, input, headers, then: Then::Ran(1), note: "" }
}

impl Forged {
    fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }

    fn case(self, n: u64) -> Case {
        // What is retried must run a second time: the handler fails it the first time.
        let n = if matches!(self.then, Then::Ran(2)) { 1000 + n } else { n };
        let headers = self.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let body = format!("{{\"tid\":\"t-{n}\",\"n\":{n}}}").into();
        let message = Foreign { body, headers, ..Foreign::default() };
        let Self { number, input, then, note, .. } = self;
        Case { number, input, message, then, tid: None, note, rabbitmq: false }
    }
}

fn text(text: &str) -> Value {
    Text(text.to_owned())
}

fn table(fields: Vec<(&str, Value)>) -> Value {
    Table(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// So many tables in one another.
fn nested(levels: usize) -> Value {
    (0..levels).fold(Int(1), |inner, _| table(vec![("x", inner)]))
}

/// As RabbitMQ writes it, with the wrong types in it.
fn death() -> Value {
    List(vec![
        table(vec![
            ("count", text("many")),
            ("queue", Int(7)),
            ("reason", List(vec![])),
            ("time", Bool(true)),
        ]),
        text("dead"),
        Int(-1),
    ])
}

pub fn cases() -> Vec<Case> {
    let attempt = |value| vec![("x-ponos-attempt", value)];
    let ignored = "ignored: it is the first";
    let report = r#"{"queue":"other.note.write","reason":"stopped","error":"","attempts":1,"recovery":"none","at":0,"fingerprint":""}"#;
    let table = vec![
        forged(27, "`x-ponos-attempt` is `\"abc\"`", attempt(text("abc"))).note(ignored),
        forged(27, "`x-ponos-attempt` is `\"3\"`, a text", attempt(text("3"))).note(ignored),
        forged(27, "`x-ponos-attempt` is −5", attempt(Int(-5))).note(ignored),
        forged(27, "`x-ponos-attempt` is 0", attempt(Int(0))).note(ignored),
        forged(27, "`x-ponos-attempt` is −2⁶³", attempt(Int(i64::MIN))).note(ignored),
        forged(27, "`x-ponos-attempt` is an array", attempt(List(vec![Int(1)]))).note(ignored),
        forged(27, "`x-ponos-attempt` is 1.5", attempt(Double(1.5))).note(ignored),
        forged(27, "`x-ponos-attempt` is 2⁶³−1", attempt(Int(i64::MAX)))
            .then(Then::Ran(1_000_000))
            .note("cut to a million; it runs once, and its first failure is its last"),
        forged(27, "`x-ponos-phase` is `root`", vec![("x-ponos-phase", text("root"))]),
        forged(27, "`x-ponos-phase` is `recover`, and there is no recovery", vec![("x-ponos-phase", text("recover"))])
            .then(Then::Failed(GaveUpReason::Exhausted, Recovery::Failed(NO_RECOVERY.into()), "not recorded")),
        forged(
            27,
            "`x-ponos-history`, `-gave-up` and `-retried` that are no JSON",
            vec![
                ("x-ponos-history", text("[[[[[[")),
                ("x-ponos-gave-up", text("{")),
                ("x-ponos-retried", text("7")),
            ],
        )
        .then(Then::Ran(2))
        .note("not taken along into its second attempt"),
        forged(27, "`x-ponos-report`, of another queue", vec![("x-ponos-report", text(report))])
            .note("only failed jobs have one"),
        forged(27, "`x-ponos-due` is −1", vec![("x-ponos-due", Int(-1))]),
        forged(27, "`x-ponos-first-seen` is in the year 5138", vec![("x-ponos-first-seen", Int(99_999_999_999_999))])
            .then(Then::Ran(2)),
        forged(27, "`x-ponos-suspect` is 1000", vec![("x-ponos-suspect", Int(1000))]).note("alone in its process"),
        forged(
            27,
            "`x-ponos-hops` is 10¹¹, and `x-ponos-cause` clears the screen",
            vec![("x-ponos-hops", Int(99_999_999_999)), ("x-ponos-cause", text("\u{1b}[2J"))],
        )
        .then(Then::Failed(
            GaveUpReason::HopLimit,
            Recovery::None,
            "the chain is 4294967295 messages long: a loop? the last links were `somebody` → `unit.work.do` → \
             `unit.work.do`; break the loop, or raise `hop_limit` (64) if the chain is meant to be as long",
        )),
        forged(27, "`x-ponos-wire` is 99, with new headers", vec![("x-ponos-wire", Int(99)), ("x-ponos-new", nested(2))])
            .note("what is not known is skipped"),
        forged(27, "`traceparent` that is none", vec![("traceparent", text("00-0-0-0")), ("tracestate", Int(7))]),
        forged(28, "`x-ponos-max` is 1,000,000", vec![("x-ponos-max", Int(1_000_000))])
            .then(Then::Ran(2))
            .note("there is no such header: the task's policy decides"),
        forged(29, "`x-death` is a text", vec![("x-death", text("dead"))]).then(Then::Ran(2)).note("not sent on"),
        forged(29, "`x-death` is −1", vec![("x-death", Int(-1))]).then(Then::Ran(2)).note("not sent on"),
        forged(29, "`x-death` holds tables with wrong types", vec![("x-death", death())])
            .then(Then::Ran(2))
            .note("not sent on: it can end a RabbitMQ 3.10 node's dead-lettering"),
        forged(30, "`x-delivery-count` is 99", vec![("x-delivery-count", Int(99))])
            .note("RabbitMQ's own count is believed from the second delivery on, on classic queues none"),
        forged(
            30,
            "`x-delivery-count` is 99, and it says that it is a suspect",
            vec![("x-delivery-count", Int(99)), ("x-ponos-suspect", Int(1))],
        )
        .note("alone in its process"),
        forged(
            31,
            "`x-first-death-queue` is a queue of another application",
            vec![("x-first-death-queue", text("other.note.write")), ("x-first-death-reason", text("rejected"))],
        )
        .then(Then::Ran(2))
        .note("not sent on"),
        forged(
            32,
            "`CC` and `BCC` name another queue",
            vec![
                ("CC", List(vec![text("unit.work.check")])),
                ("BCC", List(vec![text("unit.work.check")])),
            ],
        )
        .then(Then::Ran(2))
        .note("RabbitMQ follows them once, as their publisher may; what is sent on has none"),
        forged(39, "10,000 headers", Vec::new()),
        forged(39, "a header of 60 kB", vec![("x-long", Text("x".repeat(60_000)))]).then(Then::Ran(2)).note("not sent on"),
        forged(39, "tables in one another, 100 deep", vec![("x-deep", nested(100))]),
        forged(
            40,
            "a decimal, a time, bytes, nothing, a float, a list, a table",
            vec![
                ("x-decimal", Decimal),
                ("x-time", Timestamp(1)),
                ("x-bytes", Bytes(vec![0, 255])),
                ("x-void", Void),
                ("x-float", Double(f64::MAX)),
                ("x-list", List(vec![Void, Bool(false)])),
                ("x-table", nested(3)),
            ],
        )
        .then(Then::Ran(2))
        .note("not sent on"),
        forged(
            40,
            "the same, where we expect something",
            vec![
                ("x-ponos-attempt", Decimal),
                ("x-ponos-phase", Bytes(vec![0, 255])),
                ("x-ponos-history", Void),
                ("x-ponos-due", Double(1e300)),
                ("x-ponos-hops", List(vec![])),
                ("x-ponos-cause", nested(3)),
                ("traceparent", Bool(true)),
            ],
        )
        .note("each is ignored"),
    ];
    let mut cases: Vec<_> = (1..).zip(table).map(|(n, forged)| forged.case(n)).collect();
    let many = cases.iter_mut().find(|case| case.input == "10,000 headers").unwrap();
    many.message.headers = (0..10_000).map(|n| (format!("k{n}"), Bool(true))).collect();
    // RabbitMQ itself refuses what is no list.
    let no_list = forged(32, "`CC` that is no list", vec![("CC", text("unit.work.check"))])
        .then(Then::Refused("PRECONDITION_FAILED"));
    cases.push(Case { rabbitmq: true, ..no_list.case(200) });
    cases
}
