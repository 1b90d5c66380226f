//! The messages that the cases send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ponos_core::Bytes;
use ponos_core::broker::{Destination, Outgoing, Topology};
use ponos_core::envelope::{
    AttemptNote, Discarded, Envelope, ErrorClass, GaveUp, GaveUpReason, MessageName, Phase, Progress,
    Recovery, Report, Retried, TraceContext,
};
use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::name::{AppName, EventName, QueueName, TaskName};

const JOB: &str = "unit.job.do";
const EFFECT: &str = "unit.effect.write";
const EVENT: &str = "thing.happened";

pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

pub(super) fn app() -> AppName {
    AppName::from_checked("unit")
}

/// The queue of the jobs that most cases send.
pub(super) fn jobs() -> QueueName {
    QueueName::task(&TaskName::from_checked(JOB))
}

/// The queue of what jobs send.
pub(super) fn effects() -> QueueName {
    QueueName::task(&TaskName::from_checked(EFFECT))
}

/// A queue that no topology of the suite declares.
pub(super) fn nowhere() -> QueueName {
    QueueName::task(&TaskName::from_checked("unit.nothing.do"))
}

pub(super) fn failed() -> QueueName {
    QueueName::failed(&app())
}

pub(super) fn event() -> EventName {
    EventName::from_checked(EVENT)
}

/// An event that is declared and that nobody hears.
pub(super) fn unheard() -> EventName {
    EventName::from_checked("thing.forgotten")
}

/// The queues that hear [`event`], one of each application.
pub(super) fn hearers() -> [QueueName; 3] {
    ["unit", "other", "third"].map(|app| QueueName::subscription(&AppName::from_checked(app), &event()))
}

/// What an application of the suite needs; `unit` has the tasks as well.
fn topology_of(app: &'static str, tasks: Vec<QueueName>) -> Topology {
    let app = AppName::from_checked(app);
    Topology {
        subscriptions: vec![(QueueName::subscription(&app, &event()), event())],
        app: Some(app),
        events: vec![event(), unheard()],
        tasks,
        ..Topology::default()
    }
}

pub(super) fn topologies() -> [Topology; 3] {
    [
        topology_of("unit", vec![jobs(), effects()]),
        topology_of("other", Vec::new()),
        topology_of("third", Vec::new()),
    ]
}

fn random() -> [u8; 10] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// An id that sorts after all that were given before.
fn next_id() -> MessageId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = now().as_millis();
    let previous = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    let time = previous.map_or(now, |last| now.max(last + 1));
    MessageId::new(Timestamp::from_millis(time), random())
}

/// The transaction id of bodies that must not differ.
fn short_tid() -> Tid {
    Tid::from_foreign("t").unwrap_or_else(|| Tid::new(now(), random()))
}

/// A message with this body and nothing that is not needed.
pub(super) fn plain(name: MessageName, body: impl Into<Bytes>) -> Envelope {
    Envelope {
        id: next_id(),
        name,
        tid: Tid::new(now(), random()),
        cause: None,
        app: Some(app()),
        publisher: None,
        published_at: now(),
        hops: 0,
        version: None,
        trace: None,
        progress: Progress::default(),
        report: None,
        body: body.into(),
    }
}

fn named(task: &'static str, body: impl Into<Bytes>) -> Outgoing {
    let name = TaskName::from_checked(task);
    Outgoing {
        to: Destination::Queue(QueueName::task(&name)),
        envelope: plain(MessageName::Task(name), body),
    }
}

/// A job with this body.
pub(super) fn job_with(body: impl Into<Bytes>) -> Outgoing {
    named(JOB, body)
}

/// A job.
pub(super) fn job(n: usize) -> Outgoing {
    let mut message = named(JOB, Bytes::new());
    message.envelope.body = format!("{{\"tid\":\"{}\",\"n\":{n}}}", message.envelope.tid).into();
    message
}

/// So many jobs.
pub(super) fn jobs_of(count: usize) -> Vec<Outgoing> {
    (0..count).map(job).collect()
}

/// A job that is due after so long.
pub(super) fn delayed(by: Duration) -> Outgoing {
    let mut message = job(0);
    message.envelope.progress.due = Some(now() + by);
    message
}

/// What a job sends: a task, whose id depends on the job's alone.
pub(super) fn effect(of: MessageId) -> Outgoing {
    let mut message = named(EFFECT, "{\"tid\":\"t\"}");
    message.envelope.tid = short_tid();
    let effect = ponos_core::id::Effect {
        parent: of,
        queue: JOB,
        phase: "run",
        name: EFFECT,
        payload: &message.envelope.body,
        occurrence: 0,
    };
    message.envelope.id = MessageId::of_effect(&effect);
    message.envelope.cause = Some(of);
    message
}

/// The event that three queues hear.
pub(super) fn happened() -> Outgoing {
    let envelope = plain(MessageName::Event(event()), "{\"tid\":\"t\"}");
    Outgoing { to: Destination::Event(event()), envelope: Envelope { tid: short_tid(), ..envelope } }
}

pub(super) fn to_nowhere() -> Outgoing {
    Outgoing { to: Destination::Queue(nowhere()), ..job(0) }
}

pub(super) fn gave_up(error: &str) -> GaveUp {
    GaveUp { reason: GaveUpReason::Exhausted, error: error.into(), attempts: 3 }
}

pub(super) fn report(error: &str) -> Box<Report> {
    Box::new(Report {
        queue: jobs(),
        gave_up: gave_up(error),
        recovery: Recovery::Failed("and recovery too".into()),
        at: now(),
        fingerprint: Report::fingerprint(&jobs(), GaveUpReason::Exhausted, error),
        history: vec![note()],
        version: Some("1.2.3".into()),
        host: "host/1".into(),
    })
}

fn note() -> AttemptNote {
    AttemptNote {
        started: now(),
        millis: fastrand::u64(0..1 << 40),
        class: fastrand::choice([
            ErrorClass::Error,
            ErrorClass::Timeout,
            ErrorClass::Panic,
            ErrorClass::Lost,
        ])
        .unwrap_or(ErrorClass::Error),
        error: text(40),
        host: text(10),
    }
}

fn past() -> Timestamp {
    Timestamp::from_millis(fastrand::u64(1_000_000_000_000..1_700_000_000_000))
}

fn retried(op: &str) -> Box<Retried> {
    let (at, failed_at) = (past(), maybe(past));
    Box::new(Retried {
        op: op.to_owned(),
        at,
        by: text(20),
        times: fastrand::u32(..),
        failed_at,
        error: text(40),
    })
}

/// Progress that says something in every field.
pub(super) fn far() -> Progress {
    Progress {
        attempt: 4,
        phase: Phase::Recover,
        history: vec![note(), note()],
        first_seen: Some(Timestamp::from_millis(1_700_000_000_000)),
        due: None,
        suspect: Some(2),
        gave_up: Some(Box::new(gave_up("Ἀχιλλεύς \"quoted\"\nsecond line"))),
        retried: Some(retried("op-\"1\"")),
        edited_from: Some(MessageId::from_bytes([5; 16])),
        discarded: None,
    }
}

/// Up to `max` characters of several alphabets, none of which controls a terminal.
fn text(max: usize) -> String {
    let alphabet: Vec<char> = "aZ09 -_./:\"'\\{}[]<>&%äßéñπЖ中文字🦀\u{200d}\u{feff}".chars().collect();
    (0..fastrand::usize(0..=max)).filter_map(|_| fastrand::choice(alphabet.iter().copied())).collect()
}

fn maybe<T>(value: impl FnOnce() -> T) -> Option<T> {
    fastrand::bool().then(value)
}

/// A message to `to` with anything that is allowed in each field.
pub(super) fn any(to: &Destination) -> Outgoing {
    let name = match to {
        Destination::Event(event) => MessageName::Event(event.clone()),
        Destination::Queue(_) => MessageName::Task(TaskName::from_checked(JOB)),
    };
    let tid = if fastrand::bool() {
        Tid::new(now(), random())
    } else {
        Tid::from_foreign("Node:0.9_a-1").unwrap_or_else(|| Tid::new(now(), random()))
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let trace = TraceContext::parse(
        &format!(
            "00-{}-{}-0{}",
            hex(&[random().as_slice(), &[1; 6]].concat()),
            hex(&[1; 8]),
            fastrand::u8(0..2)
        ),
        maybe(|| "vendor=a,other=b"),
    );
    let payload =
        serde_json::json!({"tid": tid, "text": text(60), "n": fastrand::i64(..), "list": [null, 0.5]});
    let plain = plain(name, payload.to_string());
    let envelope = Envelope {
        tid,
        cause: maybe(next_id),
        app: maybe(app),
        publisher: maybe(|| text(50).into()),
        published_at: past(),
        hops: fastrand::u32(..),
        version: maybe(|| text(12).into()),
        trace: trace.map(Arc::new).filter(|_| fastrand::bool()),
        progress: Progress {
            attempt: fastrand::u32(1..=1_000_000),
            phase: if fastrand::bool() { Phase::Run } else { Phase::Recover },
            history: (0..fastrand::usize(0..=16)).map(|_| note()).collect(),
            first_seen: maybe(past),
            due: maybe(past),
            suspect: maybe(|| fastrand::u32(0..=1000)),
            gave_up: maybe(|| Box::new(gave_up(&text(200)))),
            retried: maybe(|| retried(&text(20))),
            edited_from: maybe(|| MessageId::from_bytes(std::array::from_fn(|_| fastrand::u8(..)))),
            discarded: maybe(|| {
                Box::new(Discarded { op: text(20), at: past(), by: text(20), reason: text(200) })
            }),
        },
        report: None, // only what lies among the failed jobs has one
        ..plain
    };
    Outgoing { to: to.clone(), envelope }
}
