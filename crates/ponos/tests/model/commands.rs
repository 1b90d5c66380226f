//! What may be done to a broker, drawn at random, and the messages and places that it is about.
//!
//! A command names what it is about by a number, which the driver takes modulo how many there are. So every part of a
//! run is a run as well, which is what shrinking needs.

use std::time::Duration;

use ponos::core::Bytes;
use ponos::core::body::MAX_BODY;
use ponos::core::broker::{Destination, Outgoing, Topology};
use ponos::core::envelope::{
    AttemptNote, Envelope, ErrorClass, GaveUp, GaveUpReason, MessageName, Phase, Progress, Recovery, Report,
};
use ponos::core::id::{Effect, MessageId, Tid, Timestamp};
use ponos::core::name::{AppName, EventName, QueueName, TaskName};
use proptest::collection::vec;
use proptest::prelude::*;

/// One step of a run.
#[derive(Debug, Clone)]
pub enum Command {
    /// Through this handle: what is there already, or what was not there before.
    Declare {
        by: u8,
        what: u8,
    },
    /// One message or a batch.
    Publish {
        by: u8,
        messages: Vec<Message>,
    },
    Subscribe {
        by: u8,
        queue: u8,
        prefetch: u8,
        only: Option<u8>,
    },
    /// Takes up to `max` deliveries; asks and goes away when there are none.
    Take {
        consumer: u8,
        max: u8,
    },
    /// Settles what is held, or (`late`) what was settled before or is no longer ours.
    Settle {
        delivery: u8,
        late: bool,
        send: Vec<Message>,
        verdict: End,
    },
    /// Drops a subscription.
    Drop {
        consumer: u8,
    },
    /// Connections break, or a process that holds `take` messages dies.
    Crash {
        at: u8,
        take: u8,
    },
    /// Everybody stands still for longer than a lease.
    Expire,
    /// Closes a handle and opens another one.
    Reopen {
        by: u8,
    },
    /// Lets time pass.
    Pass {
        millis: u8,
    },
    /// Looks at the messages of a queue, so many at a time.
    Look {
        by: u8,
        queue: u8,
        page: u8,
    },
    /// Puts a failed job back into its queue, or throws it away.
    Redo {
        by: u8,
        queue: u8,
        job: u8,
        back: bool,
    },
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Message {
    pub to: To,
    pub delay: Delay,
    /// The same as this one that was sent before, with its id, if there is any.
    pub again: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub enum To {
    Jobs,
    Effects,
    /// An event that is heard.
    Heard,
    /// An event that nobody hears until somebody declares it.
    Unheard,
    /// A queue that is not there until somebody declares it.
    Late,
    /// To jobs, with a body over the limit.
    TooLarge,
}

#[derive(Debug, Clone, Copy)]
pub enum Delay {
    None,
    /// Its time is past.
    Past,
    Millis(u8),
    /// Longer than any run.
    Long,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Done,
    Retry(Delay),
    Recover,
    Fail,
    Release,
}

pub fn commands(most: usize) -> impl Strategy<Value = Vec<Command>> {
    vec(command(), 1..=most)
}

fn command() -> impl Strategy<Value = Command> {
    let by = 0..2u8;
    // The queue of jobs is the fifth by name.
    let queue = prop_oneof![4 => Just(4), 3 => 0..7u8];
    let prefetch = prop_oneof![1 => Just(0), 12 => 1..5u8];
    prop_oneof![
        2 => (by.clone(), 0..4u8).prop_map(|(by, what)| Command::Declare { by, what }),
        16 => (by.clone(), vec(message(), 1..5)).prop_map(|(by, messages)| Command::Publish { by, messages }),
        12 => (by.clone(), queue.clone(), prefetch, only())
            .prop_map(|(by, queue, prefetch, only)| Command::Subscribe { by, queue, prefetch, only }),
        24 => (any::<u8>(), 1..5u8).prop_map(|(consumer, max)| Command::Take { consumer, max }),
        24 => (any::<u8>(), prop::bool::weighted(0.25), vec(message(), 0..3), end()).prop_map(
            |(delivery, late, send, verdict)| Command::Settle { delivery, late, send, verdict }
        ),
        4 => any::<u8>().prop_map(|consumer| Command::Drop { consumer }),
        2 => (any::<u8>(), 1..4u8).prop_map(|(at, take)| Command::Crash { at, take }),
        1 => Just(Command::Expire),
        2 => by.clone().prop_map(|by| Command::Reopen { by }),
        6 => (1..40u8).prop_map(|millis| Command::Pass { millis }),
        3 => (by.clone(), queue, 1..4u8).prop_map(|(by, queue, page)| Command::Look { by, queue, page }),
        3 => (by, 0..2u8, any::<u8>(), any::<bool>())
            .prop_map(|(by, queue, job, back)| Command::Redo { by, queue, job, back }),
    ]
}

fn only() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![5 => Just(None), 1 => any::<u8>().prop_map(Some)]
}

fn message() -> impl Strategy<Value = Message> {
    let to = prop_oneof![
        10 => Just(To::Jobs),
        3 => Just(To::Effects),
        4 => Just(To::Heard),
        1 => Just(To::Unheard),
        1 => Just(To::Late),
        1 => Just(To::TooLarge),
    ];
    let again = prop_oneof![6 => Just(None), 1 => any::<u8>().prop_map(Some)];
    (to, delay(), again).prop_map(|(to, delay, again)| Message { to, delay, again })
}

fn delay() -> impl Strategy<Value = Delay> {
    prop_oneof![
        8 => Just(Delay::None),
        1 => Just(Delay::Past),
        2 => (1..30u8).prop_map(Delay::Millis),
        1 => Just(Delay::Long),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Done),
        3 => delay().prop_map(End::Retry),
        1 => Just(End::Recover),
        2 => Just(End::Fail),
        3 => Just(End::Release),
    ]
}

impl Delay {
    pub fn from(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::None => None,
            Self::Past => Some(Timestamp::from_millis(now.as_millis() - 5)),
            Self::Millis(millis) => Some(now + Duration::from_millis(millis.into())),
            Self::Long => Some(now + Duration::from_secs(3600)),
        }
    }
}

fn task(name: &'static str) -> QueueName {
    QueueName::task(&TaskName::from_checked(name))
}

fn app(name: &'static str) -> AppName {
    AppName::from_checked(name)
}

fn heard() -> EventName {
    EventName::from_checked("thing.happened")
}

fn unheard() -> EventName {
    EventName::from_checked("thing.forgotten")
}

/// What is declared at the start (the first two), and what may be later.
pub fn topologies() -> [Topology; 4] {
    let of = |name: &'static str, tasks: Vec<QueueName>, hears: Vec<EventName>| Topology {
        subscriptions: hears.into_iter().map(|e| (QueueName::subscription(&app(name), &e), e)).collect(),
        app: Some(app(name)),
        events: vec![heard(), unheard()],
        tasks,
        ..Topology::default()
    };
    [
        of("unit", vec![task("unit.job.do"), task("unit.effect.write")], vec![heard()]),
        of("other", Vec::new(), vec![heard()]),
        of("unit", vec![task("unit.late.do")], Vec::new()),
        of("third", Vec::new(), vec![heard(), unheard()]),
    ]
}

/// A message of this number.
pub fn outgoing(
    message: &Message,
    number: u64,
    cause: Option<(&QueueName, MessageId)>,
    now: Timestamp,
) -> Outgoing {
    let to = match message.to {
        To::Jobs | To::TooLarge => Destination::Queue(task("unit.job.do")),
        To::Effects => Destination::Queue(task("unit.effect.write")),
        To::Late => Destination::Queue(task("unit.late.do")),
        To::Heard => Destination::Event(heard()),
        To::Unheard => Destination::Event(unheard()),
    };
    let name = match &to {
        Destination::Event(event) => MessageName::Event(event.clone()),
        Destination::Queue(queue) => {
            MessageName::Task(TaskName::parse(queue.as_str()).expect("a task's queue"))
        }
    };
    let tid = Tid::new(now, random(number));
    let body: Bytes = match message.to {
        To::TooLarge => vec![b' '; MAX_BODY + 1].into(),
        _ => format!("{{\"tid\":\"{tid}\",\"n\":{number}}}").into(),
    };
    let id = match cause {
        None => MessageId::new(now, random(number)),
        Some((queue, parent)) => MessageId::of_effect(&Effect {
            parent,
            queue: queue.as_str(),
            phase: "run",
            name: name.as_str(),
            payload: &body,
            occurrence: 0,
        }),
    };
    // An event says what has happened: no broker need delay it.
    let due = message.delay.from(now).filter(|_| matches!(to, Destination::Queue(_)));
    let envelope = Envelope {
        id,
        name,
        tid,
        cause: cause.map(|(_, parent)| parent),
        app: Some(app("unit")),
        publisher: cause.map(|(queue, _)| queue.as_str().into()),
        published_at: now,
        hops: u32::from(cause.is_some()),
        version: None,
        trace: None,
        progress: Progress { due, ..Progress::default() },
        report: None,
        body,
    };
    Outgoing { to, envelope }
}

fn random(number: u64) -> [u8; 10] {
    let mut bytes = [7; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// A failed job as who retries it would send it.
pub fn put_back(failed: &Envelope, now: Timestamp) -> Option<Outgoing> {
    let queue = failed.report.as_ref()?.queue.clone();
    let progress = Progress { due: Some(now), ..Progress::default() };
    let envelope = Envelope { report: None, progress, ..failed.clone() };
    Some(Outgoing { to: Destination::Queue(queue), envelope })
}

/// The progress after one more attempt.
pub fn next_attempt(
    progress: &Progress,
    due: Option<Timestamp>,
    phase: Phase,
    now: Timestamp,
) -> Box<Progress> {
    let mut next = Progress { attempt: progress.attempt + 1, phase, due, ..progress.clone() };
    next.note(AttemptNote {
        started: now,
        millis: u64::from(progress.attempt),
        class: ErrorClass::Error,
        error: format!("attempt {} failed", progress.attempt),
        host: "host/1".into(),
    });
    if phase == Phase::Recover {
        next.gave_up = Some(Box::new(gave_up(progress)));
    }
    Box::new(next)
}

fn gave_up(progress: &Progress) -> GaveUp {
    GaveUp { reason: GaveUpReason::Exhausted, error: "refused".into(), attempts: progress.attempt }
}

/// The report of a job that failed in this queue; of one that had failed before, of where that was.
pub fn report(queue: &QueueName, envelope: &Envelope, now: Timestamp) -> Box<Report> {
    let queue = envelope.report.as_ref().map_or(queue, |report| &report.queue);
    Box::new(Report {
        queue: queue.clone(),
        gave_up: gave_up(&envelope.progress),
        recovery: Recovery::None,
        at: now,
        fingerprint: Report::fingerprint(queue, GaveUpReason::Exhausted, "refused"),
        history: envelope.progress.history.clone(),
        version: None,
        host: "host/1".into(),
    })
}
