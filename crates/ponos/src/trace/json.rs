//! The tree as JSON.

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::AttemptRecord;
use ponos_core::name::AppName;
use serde::Serialize;

use super::cascade::{Cascade, JobData, Kind, Message, Origin};
use super::job::JobState;

/// The version of [`Cascade::to_json`]. Keys are added under the same one; a reader skips what it does not know.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    tid: Option<&'a Tid>,
    outcome: &'static str,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    messages: Vec<MessageJson<'a>>,
}

#[derive(Serialize)]
struct MessageJson<'a> {
    id: MessageId,
    kind: &'static str,
    name: Option<&'a str>,
    app: Option<&'a AppName>,
    published_at: Option<Timestamp>,
    queues: Option<u32>,
    not_yet: u32,
    origin: &'static str,
    cause: Option<MessageId>,
    by: Option<&'a str>,
    depth: usize,
    jobs: Vec<JobJson<'a>>,
}

#[derive(Serialize)]
struct JobJson<'a> {
    queue: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Timestamp>,
    attempts: &'a [AttemptRecord],
}

impl Cascade {
    /// The tree as JSON, flat: a message hangs under the job of `by` in the message with the id `cause`, if `origin` is
    /// `caused`. Nested, a chain of some forty messages would be deeper than most parsers allow.
    ///
    /// | key | what |
    /// | --- | --- |
    /// | `version` | 1; keys may be added |
    /// | `tid` | the transaction, `null` without records |
    /// | `outcome` | `empty`, `pending`, `failed`, `incomplete`, `done` |
    /// | `started`, `ended` | the earliest and latest moment of a record, in milliseconds since the epoch |
    /// | `messages[]` | depth first, each before what it caused |
    /// | `.id`, `.kind`, `.name`, `.app` | `kind` is `event`, `task`, or `unknown` when the publishing is not recorded |
    /// | `.published_at`, `.queues` | when, and to how many queues; `null` when the publishing is not recorded |
    /// | `.not_yet` | in how many of these no attempt has ended |
    /// | `.origin` | `start`, `caused`, `cause_not_recorded`, `not_recorded`, `circular` |
    /// | `.cause`, `.by` | the causing message, and the queue of the handler that published |
    /// | `.depth` | messages above it in the tree |
    /// | `.jobs[]` | by queue |
    /// | `.jobs[].queue`, `.state` | `done`, `failed` (with `reason`, `recovered`), `waiting` (with `due`), `recovering`, `not_yet`, `lost`, `unrecorded` |
    /// | `.jobs[].attempts[]` | in order, in the form of the [journal](ponos_core::journal::AttemptRecord) |
    ///
    /// Texts are as they were recorded: who prints them must tame them.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let extent = self.extent();
        let document = Document {
            version: VERSION,
            tid: self.tid(),
            outcome: self.outcome().as_str(),
            started: extent.map(|(started, _)| started),
            ended: extent.map(|(_, ended)| ended),
            messages: self.order.iter().map(|&n| message(&self.messages[n])).collect(),
        };
        serde_json::to_value(document).expect("structs of texts and numbers are always JSON")
    }
}

fn message(message: &Message) -> MessageJson<'_> {
    let published = message.published.as_ref();
    let waiting = message.jobs.iter().any(|job| job.state == JobState::NotYet);
    MessageJson {
        id: message.id,
        kind: match message.kind() {
            Kind::Event => "event",
            Kind::Task => "task",
            Kind::Unknown => "unknown",
        },
        name: message.name(),
        app: published.and_then(|published| published.app.as_ref()),
        published_at: published.map(|published| published.at),
        queues: published.map(|published| published.queues),
        not_yet: message.unseen() + u32::from(waiting),
        origin: match message.origin {
            Origin::Start => "start",
            Origin::Caused => "caused",
            Origin::CauseNotRecorded => "cause_not_recorded",
            Origin::NotRecorded => "not_recorded",
            Origin::Circular => "circular",
        },
        cause: published.and_then(|published| published.cause),
        by: published.and_then(|published| published.by.as_deref()),
        depth: message.depth,
        jobs: message.jobs.iter().map(job).collect(),
    }
}

fn job(job: &JobData) -> JobJson<'_> {
    let (state, reason, recovered, due) = match job.state {
        JobState::Done => ("done", None, None, None),
        JobState::Failed { reason, recovered } => ("failed", Some(reason.as_str()), Some(recovered), None),
        JobState::Waiting { due } => ("waiting", None, None, Some(due)),
        JobState::Recovering => ("recovering", None, None, None),
        JobState::NotYet => ("not_yet", None, None, None),
        JobState::Lost => ("lost", None, None, None),
        JobState::Unrecorded => ("unrecorded", None, None, None),
        JobState::Running { .. } => ("running", None, None, None),
        JobState::Unknown => ("unknown", None, None, None),
    };
    JobJson { queue: &job.queue, state, reason, recovered, due, attempts: &job.attempts }
}
