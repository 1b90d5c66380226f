//! `ponos trace`: what became of one transaction, as a tree.

use ponos::Tid;
use ponos::core::id::Timestamp;
use ponos::core::journal::{AttemptEnd, Journal, JournalQuery, Record, What, read};
use ponos::trace::{Cascade, RenderOptions};
use serde::Serialize;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::{json, text};

/// How many characters tell transactions apart well enough.
const SHORTEST: usize = 6;

/// How many candidates are listed.
const CANDIDATES: usize = 20;

/// How many of the newest records are searched: first, and at last.
const FIRST_LOOK: usize = 2_000;
const LAST_LOOK: usize = 200_000;

const BOUNDED: &str =
    "records are bounded, the oldest go first; it may also be another broker's: see --broker";

const SINCE_THE_FIRST_LOOK: &str = "RabbitMQ keeps records from the first look on, such as this one, and as many as its stream holds; it may also be another broker's: see --broker";

#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// The transaction: its id, the last six or more characters of it, `@last` (began last) or `@failed` (has the job
    /// that failed last)
    #[arg(value_name = "TID")]
    which: String,

    /// Prints the tree as one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the tree of a transaction, however it ended.
///
/// # Errors
///
/// When no transaction or several are meant, or the broker does not answer.
pub(crate) async fn run(args: TraceArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let which = Which::parse(&args.which)?;
    let session = Session::open(url).await?;
    let found = find(&session, &which).await;
    let bounded = if session.is_rabbitmq() { SINCE_THE_FIRST_LOOK } else { BOUNDED };
    session.close().await;
    let mut found = Cascade::split(found?);
    let cascade = match found.len() {
        0 => return Err(which.unknown(bounded)),
        1 => found.remove(0),
        _ => return Err(ambiguous(&args.which, &found, args.json, out)),
    };
    if args.json {
        json::print(&cascade.to_json(), out);
    } else {
        let options =
            RenderOptions { color: out.color(), timing: true, width: out.width(), now: text::now() };
        out.write(&cascade.render(options));
    }
    Ok(Exit::Ok)
}

enum Which {
    /// As it was written, and as an id.
    Id(String, Tid),
    Last,
    Failed,
}

impl Which {
    fn parse(text: &str) -> Result<Self, CliError> {
        match text {
            "@last" => return Ok(Self::Last),
            "@failed" => return Ok(Self::Failed),
            _ => {}
        }
        let usage = |problem: &str| {
            CliError::usage(
                format!("`{}` {problem}", text::line(text, 80)),
                "write a transaction id, its last six or more characters, `@last` or `@failed`",
            )
        };
        if text.starts_with('@') {
            return Err(usage("is no transaction"));
        }
        match Tid::from_foreign(&hyphenated(text)) {
            Some(tid) if tid.trace_id().is_some() || tid.to_string() == text => {
                Ok(Self::Id(text.to_owned(), tid))
            }
            _ => Err(usage("is no transaction id")),
        }
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
            Self::Failed => CliError::refused(
                "no failed job is recorded",
                "records are bounded, the oldest go first: `ponos failed list` shows every job that failed and is kept",
            ),
        }
    }
}

/// A W3C trace id, as tracing tools show it, is the transaction id without its hyphens.
fn hyphenated(text: &str) -> String {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return text.to_owned();
    }
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-").to_ascii_lowercase()
}

async fn find(session: &Session, which: &Which) -> Result<Vec<Record>, CliError> {
    let journal = session.journal()?;
    let tid = match which {
        Which::Id(_, tid) => Some(tid.clone()),
        Which::Last => newest(session, &*journal, began).await?,
        Which::Failed => newest(session, &*journal, failed).await?,
    };
    let Some(tid) = tid else {
        return Ok(Vec::new());
    };
    let records = session.ask(read(&*journal, &JournalQuery::Tid(tid))).await?;
    match which {
        Which::Id(text, _) if records.is_empty() && text.len() >= SHORTEST => {
            let by_end = |text: &str| {
                let query = JournalQuery::TidSuffix(text.to_owned());
                let journal = &journal;
                async move { session.ask(read(&**journal, &query)).await }
            };
            let records = by_end(text).await?;
            let lower = text.to_ascii_lowercase();
            if records.is_empty() && lower != *text { Ok(by_end(&lower).await?) } else { Ok(records) }
        }
        _ => Ok(records),
    }
}

/// The transaction of the newest record of a kind; few records are read where that is enough.
async fn newest(
    session: &Session,
    journal: &dyn Journal,
    is_it: fn(&Record) -> bool,
) -> Result<Option<Tid>, CliError> {
    for look in [FIRST_LOOK, LAST_LOOK] {
        let records = session.ask(read(journal, &JournalQuery::Last(look))).await?;
        let found = records.iter().rev().find(|record| is_it(record));
        if found.is_some() || records.len() < look {
            return Ok(found.map(|record| record.tid.clone()));
        }
    }
    Ok(None)
}

fn began(record: &Record) -> bool {
    matches!(&record.what, What::Published(published) if published.cause.is_none())
}

fn failed(record: &Record) -> bool {
    matches!(&record.what, What::Attempt(attempt) if matches!(attempt.end, AttemptEnd::Failed { .. }))
}

#[derive(Serialize)]
struct Candidates<'a> {
    version: u32,
    candidates: Vec<Candidate<'a>>,
}

#[derive(Serialize)]
struct Candidate<'a> {
    tid: Option<&'a Tid>,
    started: Option<Timestamp>,
    outcome: &'static str,
    name: Option<&'a str>,
}

/// Lists what may be meant, newest first.
fn ambiguous(text: &str, found: &[Cascade], as_json: bool, out: &mut Output) -> CliError {
    let candidates = found.iter().rev().take(CANDIDATES).map(|cascade| Candidate {
        tid: cascade.tid(),
        started: cascade.extent().map(|(started, _)| started),
        outcome: cascade.outcome().as_str(),
        name: cascade.roots().next().and_then(|root| root.name()),
    });
    if as_json {
        json::print(&Candidates { version: json::VERSION, candidates: candidates.collect() }, out);
    } else {
        for Candidate { tid, started, outcome, name } in candidates {
            let tid = tid.map(ToString::to_string).unwrap_or_default();
            let started = started.map(text::utc).unwrap_or_default();
            let name = text::line(name.unwrap_or("?"), 200);
            out.line(&format!("{tid}  {started}  {outcome:<10}  {name}"));
        }
        if found.len() > CANDIDATES {
            out.line(&format!("… and {} older ones", found.len() - CANDIDATES));
        }
    }
    CliError::refused(
        format!("{} transactions end in `{}`", found.len(), text::line(text, 80)),
        "give some more characters of its end, or a whole id of the list",
    )
}
