//! Bad input gets a clear error and loses nothing: what a handler cannot read is kept byte for byte, what cannot be
//! published is not half published, and the neighbours go on. Through the broker in memory and the embedded one.

#![allow(missing_debug_implementations, clippy::unwrap_used, reason = "messages and helpers of tests")]

mod fuzz;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ponos::core::Bytes;
use ponos::core::body::MAX_BODY;
use ponos::core::broker::{
    Broker as BrokerTrait, BrokerErrorKind, Destination, Outgoing, Published, QueueStats, Topology,
};
use ponos::core::envelope::{Envelope, GaveUpReason, Phase, Progress, Recovery};
use ponos::core::id::{MessageId, Timestamp};
use ponos::core::name::{AppName, QueueName, TaskName};
use ponos::core::wire::{self, Reading};
use ponos::prelude::*;
use ponos::{FailedJobs, MemoryBroker, PublishError, RawPublisher};
use support::*;

const QUEUE: &str = "unit.work.do";

/// How long what must happen may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A broker of one kind, and where it lives.
struct Place {
    kind: &'static str,
    broker: Arc<dyn BrokerTrait>,
    file: Option<(PathBuf, tempfile::TempDir)>,
}

/// Both brokers, each with the queues of `unit`.
async fn places() -> [Place; 2] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ponos.db");
    let places = [
        Place { kind: "memory", broker: Arc::new(MemoryBroker::new()), file: None },
        Place {
            kind: "sqlite",
            broker: Broker::sqlite(&path).connect().await.unwrap(),
            file: Some((path, dir)),
        },
    ];
    for place in &places {
        let topology = Topology {
            app: Some(app()),
            tasks: vec![QueueName::parse(QUEUE).unwrap()],
            ..Topology::default()
        };
        place.broker.declare(&topology).await.unwrap();
    }
    places
}

fn app() -> AppName {
    AppName::parse("unit").unwrap()
}

impl Place {
    async fn publish(&self, envelope: Envelope) -> Published {
        let to = Destination::Queue(QueueName::parse(QUEUE).unwrap());
        self.broker.publish(vec![Outgoing { to, envelope }]).await.remove(0)
    }

    async fn failed(&self) -> Vec<Envelope> {
        FailedJobs::new(Arc::clone(&self.broker), app()).list(1000, None).await.unwrap()
    }

    async fn start<A: App>(&self, service: Service<A>, state: A::State) -> Running<A> {
        service.start(state, Arc::clone(&self.broker)).await.unwrap()
    }
}

/// A job with this body and an id of its own.
fn job(n: u8, body: impl Into<Bytes>) -> Envelope {
    Envelope { id: MessageId::from_bytes([n; 16]), body: body.into(), ..raw(QUEUE, b"") }
}

/// Polls until it holds.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, polling).await.is_ok(), "not within {DEADLINE:?}: {what}");
}

async fn notes(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    cx.state().note(t.n);
    Ok(())
}

/// So many levels of arrays in the field `n`.
fn deep(levels: usize) -> String {
    format!("{{\"tid\":\"t\",\"n\":{}{}}}", "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn a_body_that_no_handler_can_read_fails_at_once_and_is_kept() {
    let fit = "the body does not fit `bad_input::support::WorkDo`: ";
    let cases: Vec<(&str, Bytes, String)> = vec![
        ("nothing", Bytes::new(), "the body is empty, a message is a JSON object such as {}".into()),
        ("no UTF-8", Bytes::from_static(b"{\"n\":\"\xff\"}"), "the body is not UTF-8 from byte 6 on".into()),
        ("no JSON", "hello".into(), "the body is not JSON: expected value at line 1 column 1".into()),
        ("an array", "[1]".into(), "the body is JSON but no object".into()),
        ("a text", "\"{}\"".into(), "the body is JSON but no object".into()),
        ("null", "null".into(), "the body is JSON but no object".into()),
        (
            "truncated",
            "{\"tid\":\"t\",\"n\":1".into(),
            "the body is not JSON: EOF while parsing an object at line 1 column 16".into(),
        ),
        (
            "two values",
            "{\"tid\":\"t\",\"n\":1} {}".into(),
            "the body is not JSON: trailing characters at line 1 column 19".into(),
        ),
        ("too deep", deep(10_000).into(), "the body nests deeper than 128 levels".into()),
        (
            "a wrong type",
            "{\"tid\":\"t\",\"n\":\"1\"}".into(),
            format!("{fit}at `n`: invalid type: string \\\"…\\\", expected u64 at line 1 column 18"),
        ),
        (
            "a field less",
            "{\"tid\":\"t\"}".into(),
            format!("{fit}at `.`: missing field `n` at line 1 column 11"),
        ),
        (
            "a field twice",
            "{\"tid\":\"t\",\"n\":1,\"n\":2}".into(),
            format!("{fit}at `.`: duplicate field `n` at line 1 column 20"),
        ),
        (
            "out of range",
            "{\"tid\":\"t\",\"n\":-1}".into(),
            format!("{fit}at `n`: invalid value: integer `…`, expected u64 at line 1 column 17"),
        ),
    ];
    for place in places().await {
        let counter = Counter::default();
        let told = counter.clone();
        let service = Service::<Unit>::new()
            .task(notes, |p| p.concurrency(1))
            .on_undecodable(move |message| told.add(message.error));
        for (n, (_, body, _)) in cases.iter().enumerate() {
            let n = u8::try_from(n).unwrap();
            assert!(place.publish(job(100 + n, body.clone())).await.is_confirmed());
            assert!(place.publish(job(n, format!("{{\"tid\":\"t\",\"n\":{n}}}"))).await.is_confirmed());
        }
        let running = place.start(service, counter.clone()).await;
        eventually("all failed", async || place.failed().await.len() == cases.len()).await;
        eventually("the others are done", async || counter.noted().len() == cases.len()).await;
        let failed = place.failed().await;
        for (n, (name, body, says)) in cases.iter().enumerate() {
            let id = MessageId::from_bytes([100 + u8::try_from(n).unwrap(); 16]);
            let kept = failed.iter().find(|job| job.id == id).unwrap();
            let report = kept.report.as_ref().unwrap();
            let case = format!("{name} through {}", place.kind);
            assert_eq!(kept.body, body, "{case}: its bytes are kept");
            assert_eq!(&report.gave_up.error, says, "{case}");
            assert_eq!(report.gave_up.reason, GaveUpReason::Undecodable, "{case}");
            assert_eq!((report.gave_up.attempts, &report.recovery), (1, &Recovery::None), "{case}");
            assert_eq!(report.queue, *QUEUE, "{case}: where a retry puts it back");
            assert!(counter.get(says) >= 1, "{case}: the hook was told");
        }
        running.shutdown().await;
    }
}

#[tokio::test]
async fn an_odd_transaction_id_is_replaced_and_the_job_runs() {
    async fn tells(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add(&cx.tid().to_string());
        Ok(())
    }
    let long = "x".repeat(1_000_000);
    let cases = [
        ("nothing", "{\"n\":1}".to_owned(), "t"),
        ("null", "{\"tid\":null,\"n\":1}".to_owned(), "t"),
        ("an object", "{\"tid\":{\"a\":[1]},\"n\":1}".to_owned(), "t"),
        ("nothing but spaces", "{\"tid\":\"   \",\"n\":1}".to_owned(), "t"),
        ("a megabyte", format!("{{\"tid\":\"{long}\",\"n\":1}}"), "t"),
        ("last", "{\"n\":1,\"tid\":\"t\"}".to_owned(), "t"),
    ];
    for place in places().await {
        let counter = Counter::default();
        let service = Service::<Unit>::new().task(tells, |p| p);
        for (n, (name, body, _)) in cases.iter().enumerate() {
            let published = place.publish(job(u8::try_from(n).unwrap(), body.clone())).await;
            assert!(published.is_confirmed(), "{name}: {published:?}");
        }
        let running = place.start(service, counter.clone()).await;
        eventually("all ran", async || counter.get("t") as usize == cases.len()).await;
        assert_eq!(place.failed().await, [], "{}", place.kind);
        running.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_published() {
    for place in places().await {
        let published = place.publish(job(1, vec![b' '; MAX_BODY + 1])).await;
        let Published::Refused(error) = published else { panic!("{published:?}") };
        assert_eq!(error.kind(), BrokerErrorKind::Invalid);
        let says = "1048577 bytes, the limit is 1048576: send a reference to the data instead";
        assert!(error.to_string().ends_with(says), "{error}");
        let raw = RawPublisher::connect(app(), Arc::clone(&place.broker)).await.unwrap();
        let payload = object(&[("text", "x".repeat(MAX_BODY).into())]);
        let error = raw.create(TaskName::parse(QUEUE).unwrap(), &payload, None).await.unwrap_err();
        let PublishError::Payload(error) = error else { panic!("{error}") };
        assert!(error.to_string().ends_with("send a reference to the data instead of the data"), "{error}");
        assert_eq!(waiting(&place).await, 0, "nothing was sent");
    }
}

fn object(fields: &[(&str, serde_json::Value)]) -> serde_json::Map<String, serde_json::Value> {
    fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

async fn waiting(place: &Place) -> u64 {
    let query = ponos::core::broker::Inspect::Queues(Some(app()));
    let stats = place.broker.inspect(query).await.unwrap().into_queues();
    stats.iter().map(QueueStats::messages).sum()
}

#[tokio::test]
async fn a_payload_with_a_transaction_id_of_its_own_is_not_published() {
    let says = "it has a top-level field `tid`, which is the transaction id's place: rename the field";
    for place in places().await {
        let raw = RawPublisher::connect(app(), Arc::clone(&place.broker)).await.unwrap();
        let payload = object(&[("n", 1.into()), ("tid", "forged".into())]);
        let error = raw.create(TaskName::parse(QUEUE).unwrap(), &payload, None).await.unwrap_err();
        let PublishError::Payload(error) = error else { panic!("{error}") };
        assert!(error.to_string().ends_with(says), "{error}");
        assert_eq!(waiting(&place).await, 0, "nothing was sent");
    }
}

/// An event whose fields are not known before.
#[event("work.measured")]
struct WorkMeasured {
    #[serde(flatten)]
    fields: std::collections::BTreeMap<String, String>,
}

#[task("unit.work.measure", app = Unit, emits(WorkMeasured, WorkDone))]
struct WorkMeasure {
    field: String,
}

#[tokio::test]
async fn a_handler_whose_event_cannot_be_written_gives_up_at_once_and_sends_nothing() {
    async fn measures(t: WorkMeasure, cx: TaskCx<WorkMeasure>) -> Outcome {
        cx.state().add("run");
        cx.emit(WorkDone { n: 1 })?;
        cx.emit(WorkMeasured { fields: [(t.field, String::new())].into() })?;
        Ok(())
    }
    fn hears(_: WorkDone) -> OtherNote {
        OtherNote { text: "heard".into() }
    }
    async fn never(_: OtherNote, cx: TaskCx<OtherNote>) -> Outcome {
        cx.state().add("heard");
        Ok(())
    }
    for place in places().await {
        let counter = Counter::default();
        let listener = Service::<Other>::new().on(hears).task(never, |p| p);
        let listener = place.start(listener, counter.clone()).await;
        let service = Service::<Unit>::new().task(measures, |p| p);
        let running = place.start(service, counter.clone()).await;
        running.publisher().create(WorkMeasure { field: "tid".into() }).await.unwrap();
        running.publisher().create(WorkMeasure { field: "width".into() }).await.unwrap();
        eventually("one failed", async || place.failed().await.len() == 1).await;
        eventually("the other is heard", async || counter.get("heard") == 1).await;
        let failed = place.failed().await;
        let report = failed[0].report.as_ref().unwrap();
        assert_eq!(report.gave_up.reason, GaveUpReason::Stopped, "waiting does not make it writable");
        assert!(report.gave_up.error.contains("`bad_input::WorkMeasured` cannot be published"), "{report:?}");
        assert_eq!(counter.get("run"), 2);
        assert_eq!(counter.get("heard"), 1, "what the failed attempt emitted before did not go out");
        running.shutdown().await;
        listener.shutdown().await;
    }
}

#[tokio::test]
async fn a_message_that_is_published_twice_under_one_id_is_not_lost() {
    for place in places().await {
        for _ in 0..2 {
            let published = place.publish(job(1, "{\"tid\":\"t\",\"n\":7}")).await;
            assert_eq!(published, Published::Confirmed { queues: 1 }, "{}", place.kind);
        }
        // The embedded broker knows what is still in the queue; the one in memory takes what it is given.
        assert_eq!(waiting(&place).await, if place.file.is_some() { 1 } else { 2 }, "{}", place.kind);
        let counter = Counter::default();
        let running = place.start(Service::<Unit>::new().task(notes, |p| p), counter.clone()).await;
        eventually("done", async || waiting(&place).await == 0).await;
        assert_eq!(counter.noted(), [7]);
        assert_eq!(place.failed().await, []);
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_task_that_nobody_serves_is_reported_to_who_creates_it() {
    for place in places().await {
        let raw = RawPublisher::connect(app(), Arc::clone(&place.broker)).await.unwrap();
        let unknown = TaskName::parse("unit.work.forget").unwrap();
        let error = raw.create(unknown, &object(&[]), None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "`unit.work.forget` was not published: there is no queue `unit.work.forget`: \
             start the service that owns it once, it declares its queues"
        );
        assert_eq!(waiting(&place).await, 0, "nothing was sent");
    }
}

/// What became of a job with a forged head.
enum Then {
    /// It ran, as this attempt.
    Ran(u32),
    /// It failed, because of this.
    Failed(Recovery),
}

/// Heads as a foreign publisher may write them.
fn forged_heads() -> Vec<(&'static str, &'static [u8], Then)> {
    let no_recovery = || Recovery::Failed("this version of the service has no recovery function".into());
    vec![
        ("no JSON", b"\xff\xfe\x00 x-ponos-attempt: 7", Then::Ran(1)),
        ("cut short", br#"{"p":{"id":"#, Then::Ran(1)),
        ("nothing in it", b"{}", Then::Ran(1)),
        ("wrong types", br#"{"p":{"id":7,"corr":[],"type":{},"app":1,"ts":"x"},"h":{}}"#, Then::Ran(1)),
        ("headers that are none", br#"{"p":{},"h":["x-ponos-attempt"]}"#, Then::Ran(1)),
        ("the type of another queue", br#"{"p":{"type":"other.note.write"},"h":{}}"#, Then::Ran(1)),
        ("a type that is no name", br#"{"p":{"type":"../../etc"},"h":{}}"#, Then::Ran(1)),
        ("an app that is no name", br#"{"p":{"app":"A B\u0000"},"h":{}}"#, Then::Ran(1)),
        ("attempt: a text", br#"{"h":{"x-ponos-attempt":"3"}}"#, Then::Ran(1)),
        ("attempt: 0", br#"{"h":{"x-ponos-attempt":0}}"#, Then::Ran(1)),
        ("attempt: less", br#"{"h":{"x-ponos-attempt":-9223372036854775808}}"#, Then::Ran(1)),
        ("attempt: more", br#"{"h":{"x-ponos-attempt":9223372036854775807}}"#, Then::Ran(1_000_000)),
        ("phase: unknown", br#"{"h":{"x-ponos-phase":"root"}}"#, Then::Ran(1)),
        ("phase: recover", br#"{"h":{"x-ponos-phase":"recover"}}"#, Then::Failed(no_recovery())),
        ("history", br#"{"h":{"x-ponos-history":"[[[[[[","x-ponos-gave-up":"{","x-ponos-report":"7"}}"#, Then::Ran(1)),
        (
            "report",
            br#"{"h":{"x-ponos-report":"{\"queue\":\"other.note.write\",\"reason\":\"stopped\",\"error\":\"\",
                \"attempts\":1,\"recovery\":\"none\",\"at\":0,\"fingerprint\":\"\"}"}}"#,
            Then::Ran(1),
        ),
        ("times", br#"{"h":{"x-ponos-due":-1,"x-ponos-first-seen":99999999999999999}}"#, Then::Ran(1)),
        ("hops", br#"{"h":{"x-ponos-hops":99999999999,"x-ponos-cause":"\u001b[2J"}}"#, Then::Failed(Recovery::None)),
        ("suspect", br#"{"h":{"x-ponos-suspect":1000}}"#, Then::Ran(1)),
        ("a later wire", br#"{"h":{"x-ponos-wire":99,"x-ponos-new":{"a":[1]}}}"#, Then::Ran(1)),
        ("trace", br#"{"h":{"traceparent":"00-0-0-0","tracestate":7}}"#, Then::Ran(1)),
        ("what a broker writes", br#"{"h":{"x-death":[{"count":9}],"x-delivery-count":99,"CC":["a"]}}"#, Then::Ran(1)),
    ]
}

/// Writes a head over a message's own, as somebody with a SQLite shell might.
fn forge(file: &Path, id: MessageId, head: &[u8]) {
    let database = rusqlite::Connection::open(file).unwrap();
    let sql = "UPDATE message SET head = ?1 WHERE message_id = ?2";
    assert_eq!(database.execute(sql, rusqlite::params![head, id.as_bytes()]).unwrap(), 1);
}

#[tokio::test]
async fn forged_headers_are_not_believed_and_harm_nobody() {
    async fn tells(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        assert_eq!(cx.phase(), Phase::Run);
        assert!(cx.tid().to_string().len() <= 128);
        cx.emit(WorkDone { n: t.n })?;
        cx.state().add(&format!("{} as attempt {}", t.n, cx.attempt()));
        Ok(())
    }
    let heads = forged_heads();
    for place in places().await {
        let queue = QueueName::parse(QUEUE).unwrap();
        for (n, (_, head, _)) in heads.iter().enumerate() {
            let n = u8::try_from(n).unwrap();
            let plain = job(n, format!("{{\"tid\":\"t-{n}\",\"n\":{n}}}"));
            let id = plain.id;
            let envelope = if place.file.is_some() {
                plain
            } else {
                let reading = Reading { queue: &queue, now: Timestamp::EPOCH, random: [n; 10] };
                Envelope { id, ..wire::decode(head, plain.body, reading).0 }
            };
            assert!(place.publish(envelope).await.is_confirmed());
            if let Some((file, _)) = &place.file {
                forge(file, id, head);
            }
        }
        let counter = Counter::default();
        let service = Service::<Unit>::new().task(tells, |p| p);
        let running = place.start(service, counter.clone()).await;
        eventually("every job ends", async || waiting(&place).await == place.failed().await.len() as u64)
            .await;
        let failed = place.failed().await;
        for (n, (name, _, then)) in heads.iter().enumerate() {
            let case = format!("{name} through {}", place.kind);
            let kept = failed.iter().find(|job| job.id.as_bytes()[0] == u8::try_from(n).unwrap());
            match then {
                Then::Ran(attempt) => {
                    assert_eq!(counter.get(&format!("{n} as attempt {attempt}")), 1, "{case}");
                    assert_eq!(kept, None, "{case}");
                }
                Then::Failed(why) => {
                    let kept = kept.unwrap_or_else(|| panic!("{case}: not kept"));
                    assert_eq!(kept.body, format!("{{\"tid\":\"t-{n}\",\"n\":{n}}}"), "{case}");
                    assert_eq!(&kept.report.as_ref().unwrap().recovery, why, "{case}");
                }
            }
        }
        running.shutdown().await;
    }
}

#[tokio::test]
async fn progress_at_the_end_of_its_range_overflows_nothing() {
    async fn fails(_: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
        cx.state().add("run");
        if cx.state().get("run") > 3 {
            return Ok(());
        }
        Err("no")?
    }
    for place in places().await {
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
        eventually("done", async || waiting(&place).await == 0).await;
        assert_eq!(counter.get("run"), 4, "{}", place.kind);
        running.shutdown().await;
    }
}

/// A task that reads like an event after the application's name.
#[task("unit.work.reset", app = Unit)]
struct WorkReset {}

#[event("work.reset")]
struct WorkWasReset {}

#[tokio::test]
async fn a_definition_that_cannot_work_is_refused_by_name() {
    async fn other(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
        Ok(())
    }
    async fn reset(_: WorkReset, _: TaskCx<WorkReset>) -> Outcome {
        Ok(())
    }
    fn on_reset(_: WorkWasReset) -> Option<WorkDo> {
        None
    }
    let unit = Service::<Unit>::new;
    let cases: Vec<(&str, Service<Unit>, &str)> = vec![
        (
            "two handlers",
            unit().task(notes, |p| p).task(other, |p| p),
            "two handlers for `unit.work.do`: a queue has one handler; remove one, or let one do both",
        ),
        (
            "one queue for two",
            unit().task(reset, |p| p).on(on_reset),
            "a task and a reaction would share the queue `unit.work.reset`: rename the task, so that it does not \
             read like an event after the application's name",
        ),
        (
            "prefetch 0",
            unit().task(notes, |p| p.prefetch(0)),
            "task `unit.work.do`: `prefetch` is 0, which on a broker means no limit at all: the least is 1",
        ),
        (
            "too much prefetch",
            unit().task(notes, |p| p.prefetch(65_536)),
            "task `unit.work.do`: `prefetch` is 65536: the protocol's most is 65535",
        ),
        (
            "min over max",
            unit().task(notes, |p| p.retry(Backoff::exponential(mins(10)).max(mins(5)))),
            "task `unit.work.do`: backoff `max` is 300s, shorter than `min`, which is 600s: raise it with `.max(…)` \
             or start lower",
        ),
        (
            "concurrency 0",
            unit().on_with(on_reset, |p| p.concurrency(0)),
            "reaction to `work.reset`: `concurrency` is 0, so that no handler would ever run: the least is 1; to \
             stop it for a while, pause the queue",
        ),
        (
            "timeout 0",
            unit().task(notes, |p| p.timeout(Duration::ZERO)),
            "task `unit.work.do`: `timeout` is 0, so that no attempt could succeed: raise it, or say `.no_timeout()`",
        ),
    ];
    for (name, service, says) in cases {
        let error = service.start(Counter::default(), Broker::memory()).await.err().unwrap();
        assert_eq!(error.to_string(), format!("the service `unit` cannot start:\n  {says}"), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_will_not_do_stops_the_start_and_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let text = "a shopping list, and no database: ".repeat(200);
    std::fs::write(path("list.db"), &text).unwrap();
    std::fs::write(path("read-only.db"), "").unwrap();
    let mut permissions = std::fs::metadata(path("read-only.db")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(path("read-only.db"), permissions).unwrap();
    let mut cases = vec![
        (path("list.db"), "it is no SQLite database: give another path, or move the file away"),
        (path("missing/ponos.db"), "create the directory first"),
        ("/proc/ponos.db".into(), "create the directory first"),
    ];
    // For the superuser no file is read-only.
    if std::fs::OpenOptions::new().write(true).open(path("read-only.db")).is_err() {
        cases.push((path("read-only.db"), "give this user write access to it and its directory"));
    }
    if Path::new("/sys/kernel").exists() {
        cases.push(("/sys/kernel/ponos.db".into(), "give this user write access to the directory"));
    }
    for (path, says) in cases {
        let service = Service::<Unit>::new().task(notes, |p| p);
        let error = service.start(Counter::default(), Broker::sqlite(&path)).await.err().unwrap().to_string();
        assert!(error.starts_with("the service `unit` cannot start: "), "{error}");
        let directory = path.parent().unwrap().display().to_string();
        assert!(error.contains(&directory), "it names the place: {error}");
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(std::fs::read_to_string(path("list.db")).unwrap(), text);
}
