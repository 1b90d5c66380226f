//! Which transaction is meant.

use std::time::Duration;

use ponos::Tid;
use ponos::core::id::Timestamp;
use ponos_readmodel::{TraceFilter, TraceSummary};
use serde::Serialize;

use crate::broker::Session;
use crate::error::CliError;
use crate::output::Output;
use crate::view::{self, View};
use crate::{json, text};

/// How many characters tell transactions apart well enough.
const SHORTEST: usize = 6;

/// How many candidates are listed.
const CANDIDATES: usize = 20;

/// Among how many of the last hour the slowest is looked for.
const LOOKED_AT: usize = 10_000;

const BOUNDED: &str =
    "records are bounded, the oldest go first; it may also be another broker's: see --broker";

const SINCE_THE_FIRST_LOOK: &str = "RabbitMQ keeps records from the first look on, such as this one, and as many as its stream holds; it may also be another broker's: see --broker";

#[derive(Debug)]
pub(crate) enum Which {
    /// As it was written, and as an id.
    Id(String, Tid),
    Last,
    Failed,
    Slowest,
}

impl Which {
    /// # Errors
    ///
    /// When it can be none.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let usage = |problem: &str| {
            CliError::usage(
                format!("`{}` {problem}", text::line(text, 80)),
                "name it by its id, by the last six or more of its characters, `@last`, `@failed` or `@slowest`",
            )
        };
        match text {
            "@last" => return Ok(Self::Last),
            "@failed" => return Ok(Self::Failed),
            "@slowest" => return Ok(Self::Slowest),
            _ if text.starts_with('@') => return Err(usage("is no transaction")),
            _ => {}
        }
        match Tid::from_foreign(&hyphenated(text)) {
            Some(tid) if tid.trace_id().is_some() || tid.to_string() == text => {
                Ok(Self::Id(text.to_owned(), tid))
            }
            _ => Err(usage("is no transaction id")),
        }
    }

    /// The one that is meant. Several are listed.
    ///
    /// # Errors
    ///
    /// When it is none or several, or the files cannot be read.
    pub(super) fn find(
        &self,
        view: &View,
        session: &Session,
        as_json: bool,
        out: &mut Output,
    ) -> Result<Tid, CliError> {
        self.one(view, session, |found| list(found, as_json, out))
    }

    /// The same without a list.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find).
    pub(crate) fn only(&self, view: &View, session: &Session) -> Result<Tid, CliError> {
        self.one(view, session, |_| {})
    }

    fn one(
        &self,
        view: &View,
        session: &Session,
        several: impl FnOnce(&[TraceSummary]),
    ) -> Result<Tid, CliError> {
        let bounded = if session.is_rabbitmq() { SINCE_THE_FIRST_LOOK } else { BOUNDED };
        let found = match self {
            Self::Last => view.model.last().map_err(view::broken)?,
            Self::Failed => view.model.last_failed().map_err(view::broken)?,
            Self::Slowest => slowest(view)?,
            Self::Id(text, tid) => {
                if !view.model.trace(tid).map_err(view::broken)?.records.is_empty() {
                    return Ok(tid.clone());
                }
                let mut found = if text.len() >= SHORTEST {
                    by_end(view, text)?
                } else {
                    return Err(self.unknown(bounded));
                };
                if found.len() > 1 {
                    several(&found);
                    return Err(ambiguous(text, &found));
                }
                found.pop()
            }
        };
        found.map(|summary| summary.tid).ok_or_else(|| self.unknown(bounded))
    }

    fn unknown(&self, bounded: &str) -> CliError {
        match self {
            Self::Id(text, _) if text.len() < SHORTEST => CliError::usage(
                format!("`{text}` is too short to find a transaction by its end"),
                format!("write at least the last {SHORTEST} characters"),
            ),
            Self::Id(text, _) => {
                CliError::refused(format!("no records of a transaction `{}`", text::line(text, 128)), bounded)
            }
            Self::Last => CliError::refused("no transaction is recorded", bounded),
            Self::Slowest => CliError::refused("no transaction of the last hour is recorded", bounded),
            Self::Failed => CliError::refused(
                "no failed job is recorded",
                "records are bounded, the oldest go first: `ponos failed list` shows every job that failed and is kept",
            ),
        }
    }
}

fn by_end(view: &View, text: &str) -> Result<Vec<TraceSummary>, CliError> {
    let found = view.find(text)?;
    let lower = text.to_ascii_lowercase();
    if found.is_empty() && lower != text { view.find(&lower) } else { Ok(found) }
}

fn slowest(view: &View) -> Result<Option<TraceSummary>, CliError> {
    let since = Some(view::ago(Duration::from_secs(3600)));
    let filter = TraceFilter { since, limit: LOOKED_AT, ..TraceFilter::default() };
    let page = view.model.traces(&filter).map_err(view::broken)?;
    Ok(page.traces.into_iter().max_by_key(|summary| summary.last_at.since(summary.first_at)))
}

/// A W3C trace id, as tracing tools show it, is the transaction id without its hyphens.
fn hyphenated(text: &str) -> String {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text.to_owned();
    }
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-").to_ascii_lowercase()
}

#[derive(Serialize)]
struct Candidates<'a> {
    version: u32,
    candidates: Vec<Candidate<'a>>,
}

#[derive(Serialize)]
struct Candidate<'a> {
    tid: &'a Tid,
    started: Timestamp,
    failed: u64,
    pending: u64,
    name: Option<&'a str>,
}

/// Lists what may be meant, newest first.
fn list(found: &[TraceSummary], as_json: bool, out: &mut Output) {
    let candidates = found.iter().take(CANDIDATES).map(|summary| Candidate {
        tid: &summary.tid,
        started: summary.first_at,
        failed: summary.failed,
        pending: summary.pending,
        name: summary.root.as_deref(),
    });
    if as_json {
        json::print(&Candidates { version: json::VERSION, candidates: candidates.collect() }, out);
    } else {
        for Candidate { tid, started, failed, pending, name } in candidates {
            let outcome = match (failed, pending) {
                (0, 0) => "done",
                (0, _) => "pending",
                _ => "failed",
            };
            let name = text::line(name.unwrap_or("?"), 200);
            out.line(&format!("{tid}  {}  {outcome:<10}  {name}", text::utc(started)));
        }
        if found.len() > CANDIDATES {
            out.line(&format!("… and {} older ones", found.len() - CANDIDATES));
        }
    }
}

fn ambiguous(text: &str, found: &[TraceSummary]) -> CliError {
    CliError::refused(
        format!("{} transactions end in `{}`", found.len(), text::line(text, 80)),
        "give some more characters of its end, or a whole id of the list",
    )
}
