//! An entry as a line for people, or as JSON.

use ponos::core::envelope::Phase;
use ponos::core::id::Timestamp;
use ponos::core::journal::{
    AttemptEnd, AttemptRecord, CircuitPhase, Entry, Notice, Origin, Record, Said, What,
};
use serde::Serialize;

use super::filter::Word;
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of a name or an error is shown, in bytes.
const MAX_TEXT: usize = 200;

/// `12:03:11.402`, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    text::utc(at).get(11..23).unwrap_or_default().to_owned()
}

/// An entry as a line of JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    version: u32,
    at: Timestamp,
    kind: &'static str,
    origin: &'a Origin,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'a Notice>,
}

impl<'a> Document<'a> {
    pub(crate) fn of(entry: &'a Entry) -> Self {
        let (record, notice) = match &entry.said {
            Said::Record(record) => (Some(record), None),
            Said::Notice(_, notice) => (None, Some(notice)),
            Said::Later(_) => (None, None),
        };
        Self {
            version: json::VERSION,
            at: entry.said.at(),
            kind: Word::of(entry).as_str(),
            origin: &entry.origin,
            seq: entry.seq,
            record,
            notice,
        }
    }
}

/// What a line says.
struct Line {
    glyph: &'static str,
    subject: String,
    status: String,
    tone: Option<Tone>,
}

impl Line {
    fn new(glyph: &'static str, subject: &str, status: impl Into<String>, tone: Option<Tone>) -> Self {
        Self { glyph, subject: text::line(subject, MAX_TEXT), status: status.into(), tone }
    }
}

pub(super) fn print(entry: &Entry, out: &mut Output) {
    let said = match &entry.said {
        Said::Record(record) => of_record(record),
        Said::Notice(_, notice) => of_notice(entry, notice),
        Said::Later(_) => Line::new("?", "", "of a later version: update this program", None),
    };
    let host = text::line(&entry.origin.host, 40);
    let who = out.paint(Tone::Faint, &format!("{:<10} {host}", entry.origin.app.as_str()));
    let tid = match &entry.said {
        Said::Record(record) => out.paint(Tone::Faint, &format!("  …{}", record.tid.short())),
        _ => String::new(),
    };
    let status = match said.tone {
        Some(tone) => out.paint(tone, &said.status),
        None => said.status,
    };
    let gap = if status.is_empty() { "" } else { "  " };
    out.line(&format!(
        "{}  {who}  {} {}{gap}{status}{tid}",
        clock(entry.said.at()),
        said.glyph,
        said.subject
    ));
}

fn of_record(record: &Record) -> Line {
    match &record.what {
        What::Published(it) if it.event => match it.queues {
            0 => Line::new("◇", &it.name, "nobody listens", Some(Tone::Bad)),
            n => Line::new("◇", &it.name, format!("→ {}", text::count(n.into(), "queue")), None),
        },
        What::Published(it) => Line::new("▸", &it.name, "created", None),
        What::Unpublished(it) => {
            let what = if it.open { "perhaps not published" } else { "not published" };
            let status = format!("{what}: {}", text::line(&it.error, MAX_TEXT));
            Line::new("✖", &it.name, status, Some(Tone::Bad))
        }
        What::Attempt(it) => of_attempt(it),
        What::Duplicate { queue } => {
            Line::new("=", queue.as_str(), "came again and was recognised", Some(Tone::Faint))
        }
        What::Suspected { queue, losses } => {
            let status = format!("may have killed its process ({losses} times): it runs alone");
            Line::new("⚠", queue.as_str(), status, Some(Tone::Bad))
        }
        What::ByHand(it) => {
            let (verb, by) = (text::line(&it.verb, 40), text::line(&it.by, 80));
            Line::new("✋", it.queue.as_str(), format!("{verb} by hand by {by}"), None)
        }
        _ => Line::new("?", "", "of a later version: update this program", None),
    }
}

fn of_attempt(it: &AttemptRecord) -> Line {
    let took = text::precise(it.took);
    let number = match (it.phase, it.attempt) {
        (Phase::Recover, n) => format!("recovery {n}, "),
        (Phase::Run, 1) => String::new(),
        (Phase::Run, n) => format!("attempt {n}, "),
    };
    let error =
        it.error.as_deref().map(|error| format!(": {}", text::line(error, MAX_TEXT))).unwrap_or_default();
    let queue = it.queue.as_str();
    match &it.end {
        AttemptEnd::Done => Line::new("✔", queue, format!("{number}{took}"), Some(Tone::Good)),
        AttemptEnd::Retry { class, due } => {
            let again = text::precise(due.since(it.started + it.took));
            let status = format!("{number}{} after {took}, again in {again}{error}", class.as_str());
            Line::new("↻", queue, status, Some(Tone::Strong))
        }
        AttemptEnd::GaveUp { class, reason } => {
            let reason = reason.as_str().replace('_', " ");
            let status = format!("{number}{} after {took}, gave up ({reason}){error}", class.as_str());
            Line::new("✖", queue, status, Some(Tone::Bad))
        }
        AttemptEnd::Failed { reason, recovered } => {
            let reason = reason.as_str().replace('_', " ");
            let recovered = if *recovered { ", recovered" } else { "" };
            Line::new("✖", queue, format!("{number}failed ({reason}){recovered}{error}"), Some(Tone::Bad))
        }
        AttemptEnd::Lost => {
            Line::new("✖", queue, format!("{number}the result came too late"), Some(Tone::Bad))
        }
        _ => Line::new("?", queue, "of a later version: update this program", None),
    }
}

fn of_notice(entry: &Entry, notice: &Notice) -> Line {
    match notice {
        Notice::Hello { .. } => {
            let version = entry.origin.version.as_deref().map(|version| text::line(version, 40));
            Line::new(
                "▲",
                entry.origin.app.as_str(),
                format!("started {}", version.unwrap_or_default()),
                None,
            )
        }
        Notice::Bye => Line::new("▼", entry.origin.app.as_str(), "ended", None),
        Notice::Beat(beat) => {
            let running: u32 = beat.queues.iter().map(|queue| queue.in_flight).sum();
            Line::new(
                "·",
                entry.origin.app.as_str(),
                format!("alive, {running} in flight"),
                Some(Tone::Faint),
            )
        }
        Notice::Circuit(it) => {
            let (status, tone) = match it.phase {
                CircuitPhase::Closed => ("closed".to_owned(), Tone::Good),
                CircuitPhase::HalfOpen => ("half-open: one job at a time".to_owned(), Tone::Strong),
                CircuitPhase::Open => {
                    let time = it.open_for.map(|time| format!(" for {}", text::precise(time)));
                    let cause = text::line(&it.cause, MAX_TEXT);
                    (format!("open{}: {cause}", time.unwrap_or_default()), Tone::Bad)
                }
                _ => (it.phase.as_str().to_owned(), Tone::Strong),
            };
            Line::new("⚡", &format!("circuit {}", it.circuit), status, Some(tone))
        }
        Notice::Order(it) => {
            let (action, by) = (text::line(&it.action, 80), text::line(&it.by, 80));
            let status = if it.stands {
                format!("{action} by {by}: {}", text::line(&it.reason, MAX_TEXT))
            } else {
                format!("{action} has ended")
            };
            Line::new("⏸", &it.target, status, Some(Tone::Strong))
        }
        Notice::Limit(it) => match it.until {
            Some(until) => {
                let time = text::precise(until.since(entry.said.at()));
                Line::new("⧗", it.queue.as_str(), format!("rests for its rate limit: {time}"), None)
            }
            None => Line::new("⧗", it.queue.as_str(), "goes on", None),
        },
        _ => Line::new("?", "", "of a later version: update this program", None),
    }
}
