//! What a publisher is told, before anything is sent.

use std::sync::Arc;

use ponos::core::body::MAX_BODY;
use ponos::core::broker::{BrokerErrorKind, Published};
use ponos::core::envelope::{Envelope, Progress};
use ponos::core::id::Timestamp;
use ponos::core::name::TaskName;
use ponos::prelude::*;
use ponos::{PublishError, RawPublisher};
use serde_json::{Map, Value, json};

use super::place::{Place, QUEUE, app, job};
use super::row::{Comes, Row};
use super::support::*;

const HERE: &str = "crates/ponos/tests/bad_input/publishing.rs";

/// A publish that is refused: what is published, and how the error ends.
struct Refused {
    number: u8,
    input: &'static str,
    what: What,
    says: &'static str,
}

enum What {
    /// A task by name, as `ponos publish` would.
    Task(&'static str, Map<String, Value>),
    /// A message past every publisher. The broker in memory looks at no headers.
    Message(Box<Envelope>),
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("no object") };
    map
}

fn refused() -> Vec<Refused> {
    let nested = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let task = |number, input, payload, says| Refused {
        number,
        input,
        what: What::Task(QUEUE, object(payload)),
        says,
    };
    let version =
        Envelope { version: Some("x".repeat(65_536).into()), ..job(38, "{\"tid\":\"t\",\"n\":38}") };
    vec![
        Refused {
            number: 7,
            input: "a task that nobody serves",
            what: What::Task("unit.work.forget", Map::new()),
            says: "`unit.work.forget` was not published: there is no queue `unit.work.forget`: start the service that \
                   owns it once, it declares its queues",
        },
        task(
            15,
            "a payload that nests 200 deep",
            json!({ "x": nested }),
            "its body nests deeper than 128 levels, which no reader takes: flatten it",
        ),
        task(
            17,
            "a payload of 1 MiB",
            json!({ "text": "x".repeat(MAX_BODY) }),
            "its body has 1048632 bytes, the limit is 1048576: send a reference to the data instead of the data",
        ),
        Refused {
            number: 17,
            input: "a body of 1 MiB and a byte, past a publisher",
            what: What::Message(Box::new(job(17, vec![b' '; MAX_BODY + 1]))),
            says: "the body of `unit.work.do` has 1048577 bytes, the limit is 1048576: send a reference to the data instead",
        },
        task(
            22,
            "a payload with a `tid` of its own",
            json!({ "n": 1, "tid": "forged" }),
            "it has a top-level field `tid`, which is the transaction id's place: rename the field",
        ),
        Refused {
            number: 38,
            input: "headers of 64 KiB, past a publisher",
            what: What::Message(Box::new(version)),
            says: "bytes, the limit is 65536",
        },
    ]
}

/// Each is refused by name, and nothing is sent; then a good one goes through.
pub async fn refuses(place: &Place) {
    let raw = RawPublisher::connect(app(), Arc::clone(&place.broker)).await.unwrap();
    for Refused { input, what, says, .. } in refused() {
        let shown = format!("{input}, through {}", place.kind);
        let text = match what {
            What::Task(name, payload) => {
                let error =
                    raw.create(TaskName::parse(name).unwrap(), &payload, None).await.expect_err(&shown);
                if name == QUEUE {
                    assert!(matches!(error, PublishError::Payload(_)), "{shown}: {error}");
                }
                error.to_string()
            }
            What::Message(envelope) if envelope.version.is_some() && place.kind == "memory" => {
                assert!(place.publish(Envelope { version: None, ..*envelope }).await.is_confirmed());
                continue;
            }
            What::Message(envelope) => {
                let Published::Refused(error) = place.publish(*envelope).await else { panic!("{shown}") };
                assert_eq!(error.kind(), BrokerErrorKind::Invalid, "{shown}");
                error.to_string()
            }
        };
        assert!(text.ends_with(says), "{shown}: {text}");
    }
    let memory = u64::from(place.kind == "memory");
    assert_eq!(place.waiting().await, memory, "nothing was sent, through {}", place.kind);
}

/// The same id: for the same body it is a second try, for another one another message. Nothing is lost either way.
pub async fn ids_used_twice(place: &Place) {
    async fn counts(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add(&t.n.to_string());
        Ok(())
    }
    let body = |n: u64| format!("{{\"tid\":\"t\",\"n\":{n}}}");
    // 41 twice, and 26 with two other bodies, one of them twice.
    for (id, n) in [(41, 41), (41, 41), (26, 261), (26, 262), (26, 262), (26, 263)] {
        let published = place.publish(job(id, body(n))).await;
        assert!(published.is_confirmed(), "through {}: {published:?}", place.kind);
    }
    let counter = Counter::default();
    let service = Service::<Unit>::new().task(counts, |p| p.concurrency(1));
    let running = place.start(service, counter.clone()).await;
    let all = [41, 261, 262, 263];
    place.eventually("each ran", async || all.iter().all(|n| counter.get(&n.to_string()) > 0)).await;
    // Once more after it is done: with the next job it is known to have been looked at.
    assert!(place.publish(job(41, body(41))).await.is_confirmed());
    assert!(place.publish(job(42, body(42))).await.is_confirmed());
    place.eventually("the last ran", async || counter.get("42") > 0).await;
    place.eventually("nothing waits", async || place.waiting().await == 0).await;
    for n in all {
        // The file knows what is in it and forgets what is done; in memory nothing comes twice unless somebody means it.
        let runs = match (n, place.kind) {
            (41, "memory") => 3,
            (41, "sqlite") | (262, "memory") => 2,
            _ => 1,
        };
        assert_eq!(counter.get(&n.to_string()), runs, "{n} through {}", place.kind);
    }
    assert!(place.failed().await.is_empty());
    running.shutdown().await;
}

/// Numbers at the end of their ranges, which no publisher of ours writes.
pub async fn progress_at_its_end(place: &Place) {
    async fn fails(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        if cx.state().get("run") > 3 {
            return Ok(());
        }
        Err("no")?
    }
    let progress = Progress {
        attempt: u32::MAX,
        first_seen: Some(Timestamp::from_millis(u64::MAX)),
        suspect: Some(u32::MAX),
        ..Progress::default()
    };
    let envelope = Envelope { hops: u32::MAX - 1, progress, ..job(1, "{\"tid\":\"t\",\"n\":1}") };
    assert!(place.publish(envelope).await.is_confirmed());
    let counter = Counter::default();
    let service = Service::<Unit>::new()
        .task(fails, |p| p.max_retries(MaxRetries::Unlimited).retry(Backoff::constant(millis(1))))
        .hop_limit(u32::MAX);
    let running = place.start(service, counter.clone()).await;
    place.eventually("it ran four times", async || counter.get("run") == 4).await;
    place.eventually("it is done", async || place.waiting().await == 0).await;
    running.shutdown().await;
}

pub fn rows() -> Vec<Row> {
    let shown = "what_cannot_be_published_is_refused_and_nothing_is_sent";
    let row = |Refused { number, input, says, .. }: Refused| Row {
        number,
        input: input.to_owned(),
        comes: Comes::Publishing,
        outcome: "refused, nothing is sent".into(),
        says: format!("… {says}"),
        shown_by: ("crates/ponos/tests/bad_input/main.rs", shown),
    };
    let twice = |number, input: &str, outcome: &str| Row {
        number,
        input: input.to_owned(),
        comes: Comes::Publishing,
        outcome: outcome.to_owned(),
        says: String::new(),
        shown_by: ("crates/ponos/tests/bad_input/main.rs", "an_id_that_is_used_twice_loses_nothing"),
    };
    let mut rows: Vec<_> = refused().into_iter().map(row).collect();
    rows.extend([
        twice(
            41,
            "the same message twice",
            "runs once: in a file it is there once, on RabbitMQ its worker recognises what it has done",
        ),
        twice(
            41,
            "the same message again after it was done",
            "on RabbitMQ recognised by the worker that did it (the last 65,536 of a queue); in a file it runs again",
        ),
        twice(26, "an id with another body", "both run: id and body together are what is recognised"),
        Row {
            number: 16,
            input: "an `f64` that is no number, in a payload".into(),
            comes: Comes::Publishing,
            outcome: "published as `null`, as `serde_json` writes it: a reader that wants a number fails it"
                .into(),
            says: String::new(),
            shown_by: (HERE, "what_is_no_number_is_written_as_null"),
        },
    ]);
    rows
}

#[test]
fn what_is_no_number_is_written_as_null() {
    let tid = ponos::core::id::Tid::from_foreign("t").unwrap();
    let body = ponos::core::body::encode(&tid, &std::collections::BTreeMap::from([("x", f64::NAN)])).unwrap();
    assert_eq!(body, r#"{"tid":"t","x":null}"#);
    #[derive(Debug, serde::Deserialize)]
    struct Measure {
        #[allow(dead_code, reason = "it is never read")]
        x: f64,
    }
    let error = ponos::core::body::decode::<Measure>(&body).unwrap_err().to_string();
    assert!(error.contains("at `x`: invalid type: null, expected f64"), "{error}");
}
