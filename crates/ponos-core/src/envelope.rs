//! A message in memory: who it is, what caused it, how far its job has come, and its body.

mod limits;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{MessageId, Tid, Timestamp};
use crate::name::{AppName, EventName, QueueName, TaskName};

pub use self::limits::MAX_REPORT;

/// How many attempts a job's history keeps: the first eight and the last eight.
pub const MAX_HISTORY: usize = 16;

/// How much of an attempt's error its history keeps, in bytes.
pub const MAX_HISTORY_ERROR: usize = 160;

/// How much of a failure's error chain its report keeps, in bytes.
pub const MAX_REPORT_ERROR: usize = 8 * 1024;

/// The name of a message: an event's or a task's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageName {
    /// What has happened.
    Event(EventName),
    /// What is to be done.
    Task(TaskName),
}

impl MessageName {
    /// The dotted name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Event(name) => name.as_str(),
            Self::Task(name) => name.as_str(),
        }
    }
}

impl std::fmt::Display for MessageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message, with everything that travels beside its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Stable over attempts: the idempotency key.
    pub id: MessageId,
    /// The event's or the task's name.
    pub name: MessageName,
    /// The transaction that this message belongs to.
    pub tid: Tid,
    /// The message whose handler published this one; `None` where a chain starts.
    pub cause: Option<MessageId>,
    /// The application that published it; `None` for a peer that does not say.
    pub app: Option<AppName>,
    /// The queue of the handler that published it (the npm package's `publisherWorkerName`).
    pub publisher: Option<Arc<str>>,
    /// When it was published, on the publisher's clock.
    pub published_at: Timestamp,
    /// How many messages lie between this one and the start of its chain.
    pub hops: u32,
    /// The version of the service that published it.
    pub version: Option<Arc<str>>,
    /// W3C trace context, passed on unchanged.
    pub trace: Option<Arc<TraceContext>>,
    /// How far the job has come.
    pub progress: Progress,
    /// Why the job failed; only in a queue of failed jobs.
    pub report: Option<Box<Report>>,
    /// The JSON object with `tid` first, untouched from publish to the last retry.
    pub body: Bytes,
}

/// The W3C trace context that came with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The header `traceparent`.
    pub parent: String,
    /// The header `tracestate`.
    pub state: Option<String>,
}

impl TraceContext {
    /// The longest value of either header that is taken, in bytes: what W3C asks everybody to pass on at least.
    const MAX_BYTES: usize = 512;

    /// Takes the two headers when `parent` has the form that W3C Trace Context level 1 gives it and a trace id that is not zero.
    ///
    /// A later version may have more behind it, of which only what is short and can be printed is passed on.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        fn hex(part: Option<&str>, len: usize) -> Option<&str> {
            part.filter(|p| {
                p.len() == len && p.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        }
        let is_printable = |text: &str| {
            text.len() <= Self::MAX_BYTES && text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
        };
        if !is_printable(parent) {
            return None;
        }
        let mut parts = parent.split('-');
        let version = hex(parts.next(), 2)?;
        let trace = hex(parts.next(), 32)?;
        let span = hex(parts.next(), 16)?;
        hex(parts.next(), 2)?;
        let all_zero = |text: &str| text.bytes().all(|b| b == b'0');
        if version == "ff" || all_zero(trace) || all_zero(span) || (version == "00" && parts.next().is_some())
        {
            return None;
        }
        let state = state.filter(|state| is_printable(state)).map(str::to_owned);
        Some(Self { parent: parent.to_owned(), state })
    }

    /// The trace id as a transaction id: the same sixteen bytes in a UUID's form.
    #[must_use]
    pub fn tid(&self) -> Option<Tid> {
        let id = uuid::Uuid::try_parse(self.parent.get(3..35)?).ok()?;
        Tid::from_foreign(&id.hyphenated().to_string())
    }
}

/// Which function runs when the job is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The handler.
    #[default]
    Run,
    /// The recovery function: the handler has given up and never runs again.
    Recover,
}

impl Phase {
    /// `run` or `recover`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Recover => "recover",
        }
    }
}

/// How far a job has come. It travels with the message, so an attempt can run in any process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The number of the attempt that runs next, from 1, in its phase.
    pub attempt: u32,
    /// Which function runs next.
    pub phase: Phase,
    /// The attempts so far, at most [`MAX_HISTORY`].
    pub history: Vec<AttemptNote>,
    /// When a worker first held the job.
    pub first_seen: Option<Timestamp>,
    /// When the next attempt is due.
    pub due: Option<Timestamp>,
    /// Set once the job may have killed its process: how many times it was lost while it ran alone.
    pub suspect: Option<u32>,
    /// Why the handler gave up; set with [`Phase::Recover`].
    pub gave_up: Option<Box<GaveUp>>,
    /// Set once somebody has put the failed job back by hand; it stays when the job fails again.
    pub retried: Option<Box<Retried>>,
    /// The failed job that this one is a corrected copy of.
    pub edited_from: Option<MessageId>,
    /// Who discarded the job; only in a queue of discarded jobs.
    pub discarded: Option<Box<Discarded>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            attempt: 1,
            phase: Phase::Run,
            history: Vec::new(),
            first_seen: None,
            due: None,
            suspect: None,
            gave_up: None,
            retried: None,
            edited_from: None,
            discarded: None,
        }
    }
}

impl Progress {
    /// Adds an attempt; beyond [`MAX_HISTORY`] the ones in the middle go first.
    pub fn note(&mut self, note: AttemptNote) {
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(MAX_HISTORY / 2);
        }
        self.history.push(note);
    }
}

/// How an attempt that was not done ended. The short words are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorClass {
    /// An error that is worth another attempt.
    Error,
    /// The attempt's time was up.
    Timeout,
    /// The handler panicked.
    Panic,
    /// The handler said `.stop()`.
    Stop,
    /// The body is not what the handler expects.
    Undecodable,
    /// The job killed the process that ran it alone, again and again.
    Lost,
    /// Later, without spending an attempt.
    Snooze,
    /// In a way that a later version knows.
    #[serde(other)]
    Unknown,
}

impl ErrorClass {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Stop => "stop",
            Self::Undecodable => "undecodable",
            Self::Lost => "lost",
            Self::Snooze => "snooze",
            Self::Unknown => "unknown",
        }
    }
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptNote {
    /// When the attempt started.
    #[serde(rename = "at")]
    pub started: Timestamp,
    /// How long it ran, in milliseconds.
    #[serde(rename = "ms")]
    pub millis: u64,
    /// How it ended.
    pub class: ErrorClass,
    /// The head of the error, at most [`MAX_HISTORY_ERROR`] bytes.
    #[serde(rename = "err", default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The host and process that ran it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// Why a handler will not be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GaveUpReason {
    /// All attempts are spent.
    Exhausted,
    /// The handler said `.stop()`.
    Stopped,
    /// The job is older than its `max_age`.
    TooOld,
    /// The body is not what the handler expects.
    Undecodable,
    /// The job killed its process each time that it ran alone.
    Poison,
    /// Too many messages lie between the job and the start of its chain.
    HopLimit,
    /// For a reason that a later version knows.
    #[serde(other)]
    Unknown,
}

impl GaveUpReason {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Stopped => "stopped",
            Self::TooOld => "too_old",
            Self::Undecodable => "undecodable",
            Self::Poison => "poison",
            Self::HopLimit => "hop_limit",
            Self::Unknown => "unknown",
        }
    }
}

/// What a recovery function is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaveUp {
    /// Why the handler will not be tried again.
    pub reason: GaveUpReason,
    /// The last error with its causes, outermost first, one a line.
    pub error: String,
    /// How many attempts the handler had.
    pub attempts: u32,
}

/// That a failed job was put back by hand, and what it had failed with.
///
/// Retried is not resolved: should the job fail again, its new report stands beside this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    /// The operation that did it last: with the job's id it marks the copy.
    pub op: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// How many times the job was put back by hand so far.
    pub times: u32,
    /// When it had failed before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// The head of that failure's error, at most [`MAX_HISTORY_ERROR`] bytes.
    #[serde(rename = "err", default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Who put a failed job away, and why. Its report is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded {
    /// The operation that did it: what was discarded together is restored together.
    pub op: String,
    /// When.
    pub at: Timestamp,
    /// Who.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What is kept with a job that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The queue that the job was in, where a retry puts it back.
    pub queue: QueueName,
    /// Why the handler gave up, and the last error.
    #[serde(flatten)]
    pub gave_up: GaveUp,
    /// What became of the recovery function.
    pub recovery: Recovery,
    /// When the job failed.
    pub at: Timestamp,
    /// Groups failures that are alike: a hash of queue, class and the error without its numbers and ids.
    pub fingerprint: String,
    /// The attempts, at most [`MAX_HISTORY`].
    #[serde(default)]
    pub history: Vec<AttemptNote>,
    /// The version of the service that gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The host and process that gave up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// What became of the recovery function of a failed job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recovery {
    /// The handler has none.
    None,
    /// It succeeded.
    Done,
    /// It failed too; its last error.
    Failed(String),
}

impl Report {
    /// A fingerprint of a failure: sixteen hexadecimal digits.
    ///
    /// Digits, and words that hold one (ids, addresses, times), do not count, so "timeout after 31 ms" and
    /// "timeout after 30 ms" are one group.
    #[must_use]
    pub fn fingerprint(queue: &QueueName, reason: GaveUpReason, error: &str) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(queue.as_str());
        hash.update([0]);
        hash.update(reason.as_str());
        for word in error.split_whitespace().take(200) {
            hash.update([0]);
            hash.update(if word.bytes().any(|b| b.is_ascii_digit()) { "#" } else { word });
        }
        hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// Cuts a text to at most `max` bytes at a character's border and escapes control characters, so it can be logged.
#[must_use]
pub fn tame(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        let keep = c == '\n' || !c.is_control();
        let more = if keep { c.len_utf8() } else { 8 };
        if out.len() + more > max {
            break;
        }
        if keep {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// What a new message inherits: its transaction, and the message that caused it.
///
/// A handler's context carries one, so nobody passes it by hand.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The transaction.
    pub tid: Tid,
    /// The message whose handler publishes; `None` where a chain starts.
    pub message: Option<MessageId>,
    /// The hops of that message.
    pub hops: u32,
    /// W3C trace context.
    pub trace: Option<Arc<TraceContext>>,
}

impl Cause {
    /// The start of a chain.
    #[must_use]
    pub fn root(tid: Tid) -> Self {
        Self { tid, message: None, hops: 0, trace: None }
    }

    /// What the handler of `envelope` passes on.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            tid: envelope.tid.clone(),
            message: Some(envelope.id),
            hops: envelope.hops.saturating_add(1),
            trace: envelope.trace.clone(),
        }
    }
}

/// How long a job has been known, for `max_age`.
#[must_use]
pub fn age(envelope: &Envelope, now: Timestamp) -> Duration {
    // Not `published_at`: that clock is another machine's.
    now.since(envelope.progress.first_seen.unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_history_keeps_its_first_and_last_attempts() {
        let mut progress = Progress::default();
        for n in 0..40u64 {
            let started = Timestamp::from_millis(n);
            progress.note(AttemptNote {
                started,
                millis: 0,
                class: ErrorClass::Error,
                error: String::new(),
                host: String::new(),
            });
        }
        let kept: Vec<u64> = progress.history.iter().map(|n| n.started.as_millis()).collect();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 32, 33, 34, 35, 36, 37, 38, 39]);
    }

    #[test]
    fn a_fingerprint_ignores_numbers_and_ids() {
        let queue = QueueName::parse("a.b.do").unwrap();
        let of = |error: &str| Report::fingerprint(&queue, GaveUpReason::Exhausted, error);
        assert_eq!(of("timeout after 31 ms"), of("timeout after 30 ms"));
        assert_ne!(of("timeout after 31 ms"), of("refused after 31 ms"));
        assert_eq!(of("x").len(), 16);
    }

    #[test]
    fn trace_context_is_checked() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let tid = TraceContext::parse(good, None).unwrap().tid().unwrap();
        assert_eq!(tid.trace_id().unwrap(), "0af7651916cd43dd8448eb211c80319c");
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &format!("{good}-00"),
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_report_of_a_later_version_keeps_what_is_known() {
        let report = r#"{"queue":"a.b.do","reason":"eaten","error":"by a grue","attempts":3,"recovery":"none","at":1,
            "fingerprint":"f","history":[{"at":1,"ms":2,"class":"eaten"}]}"#;
        let report: Report = serde_json::from_str(report).unwrap();
        assert_eq!(
            (report.gave_up.reason, report.gave_up.error.as_str()),
            (GaveUpReason::Unknown, "by a grue")
        );
        assert_eq!(report.history[0].class, ErrorClass::Unknown);
        for reason in [GaveUpReason::HopLimit, GaveUpReason::Unknown, GaveUpReason::TooOld] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    proptest! {
        #[test]
        fn tame_text_is_short_and_printable(text in any::<String>(), max in 0usize..200) {
            let tamed = tame(&text, max);
            prop_assert!(tamed.len() <= max);
            prop_assert!(tamed.chars().all(|c| c == '\n' || !c.is_control()));
        }
    }
}
