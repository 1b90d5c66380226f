//! `ponos failed show`: everything that is known of a job; headers and bodies when asked for.

use std::collections::BTreeMap;

use ponos::core::envelope::{AttemptNote, Discarded, Envelope, MessageName, Recovery, Report, Retried};
use ponos::core::id::Timestamp;
use ponos::core::name::AppName;
use ponos::core::wire::{self, HeaderValue};
use ponos::{MessageId, Tid};
use serde::Serialize;

use super::args::{Filter, Selector, ShowArgs};
use super::select;
use super::store::{self, Failed, Shelf};
use super::tree::Tree;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of an error, and of a body that is no JSON, is shown, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// Headers that are shown in a better form.
const SHOWN_ELSEWHERE: &[&str] = &[
    "x-ponos-discarded",
    "x-ponos-edited-from",
    "x-ponos-gave-up",
    "x-ponos-history",
    "x-ponos-report",
    "x-ponos-retried",
];

/// What is shown beside the report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) headers: bool,
    pub(super) body: bool,
    pub(super) unredacted: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    #[serde(flatten)]
    job: Shown<'a>,
}

#[derive(Serialize)]
struct Group<'a> {
    version: u32,
    fingerprint: Option<&'a str>,
    count: usize,
    /// Newest first.
    jobs: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    app: &'a AppName,
    id: MessageId,
    tid: &'a Tid,
    name: &'a str,
    kind: &'static str,
    published_at: Timestamp,
    published_by: Option<&'a AppName>,
    report: Option<&'a Report>,
    /// Who put it back by hand before it failed again.
    retried: Option<&'a Retried>,
    edited_from: Option<MessageId>,
    discarded: Option<&'a Discarded>,
    /// With `--headers`.
    headers: Option<BTreeMap<String, HeaderValue>>,
    body_bytes: usize,
    /// With `--body`; `null` when it is no JSON.
    body: Option<Tree>,
    /// What can be read of a body that is no JSON, with `--unredacted`.
    body_text: Option<String>,
}

pub(super) async fn run(args: ShowArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    let wanted = Wanted { headers: args.headers, body: args.body, unredacted: args.unredacted };
    let shelf = if args.discarded { Shelf::Discarded } else { Shelf::Failed };
    if let Selector::Job(id) = args.which {
        let apps = store::apps(session, shelf, args.app.as_ref()).await?;
        let job = store::the_one(session, shelf, &apps, id).await?;
        if args.json {
            out.line(&document(&job, wanted));
        } else {
            print(&job, wanted, shelf, out);
        }
        return Ok(Exit::Ok);
    }
    let (jobs, count) = group(&args.which, args.app, args.last, wanted, shelf, session).await?;
    if args.json {
        out.line(&group_document(&jobs, count, wanted));
        return Ok(Exit::Ok);
    }
    let fingerprint = jobs.first().and_then(Failed::fingerprint);
    for job in &jobs {
        print(job, wanted, shelf, out);
        out.line("");
    }
    let fingerprint = fingerprint.map(|fingerprint| text::line(fingerprint, 32)).unwrap_or_default();
    out.line(&format!(
        "{} of {} in group {fingerprint}",
        jobs.len(),
        text::count(count as u64, shelf.noun())
    ));
    Ok(Exit::Ok)
}

/// The newest jobs of a group, and how many there are.
///
/// # Errors
///
/// When there is no such group, or the broker does not answer.
pub(super) async fn group(
    which: &Selector,
    app: Option<AppName>,
    last: usize,
    wanted: Wanted,
    shelf: Shelf,
    session: &Session,
) -> Result<(Vec<Failed>, usize), CliError> {
    let filter = Filter { app, name: None, since: None };
    let mut group = select::jobs(session, shelf, std::slice::from_ref(which), &filter).await?;
    group.sort_by_key(|job| std::cmp::Reverse(job.report().map(|report| report.at)));
    let count = group.len();
    let mut jobs = Vec::new();
    for job in group.into_iter().take(last.max(1)) {
        // With its body, unless somebody took it meanwhile.
        let whole =
            if wanted.body { store::whole(session, shelf, &job.app, job.envelope.id).await? } else { None };
        jobs.push(whole.unwrap_or(job));
    }
    Ok((jobs, count))
}

/// A job as `--json` prints it.
pub(super) fn document(job: &Failed, wanted: Wanted) -> String {
    json::to_line(&Document { version: json::VERSION, job: shown(job, wanted) })
}

/// Jobs of a group as `--json` prints them.
pub(super) fn group_document(jobs: &[Failed], count: usize, wanted: Wanted) -> String {
    let fingerprint = jobs.first().and_then(Failed::fingerprint);
    let jobs = jobs.iter().map(|job| shown(job, wanted)).collect();
    json::to_line(&Group { version: json::VERSION, fingerprint, count, jobs })
}

fn shown(job: &Failed, wanted: Wanted) -> Shown<'_> {
    let envelope = &job.envelope;
    let tree = wanted.body.then(|| Tree::parse(&envelope.body)).flatten();
    let is_text = wanted.body && wanted.unredacted && tree.is_none();
    Shown {
        app: &job.app,
        id: envelope.id,
        tid: &envelope.tid,
        name: envelope.name.as_str(),
        kind: kind(envelope),
        published_at: envelope.published_at,
        published_by: envelope.app.as_ref(),
        report: envelope.report.as_deref(),
        retried: envelope.progress.retried.as_deref(),
        edited_from: envelope.progress.edited_from,
        discarded: envelope.progress.discarded.as_deref(),
        headers: wanted.headers.then(|| headers(envelope)),
        body_bytes: envelope.body.len(),
        body: tree.map(|tree| if wanted.unredacted { tree } else { tree.redacted(None) }),
        body_text: is_text.then(|| String::from_utf8_lossy(&envelope.body).into_owned()),
    }
}

const fn kind(envelope: &Envelope) -> &'static str {
    match envelope.name {
        MessageName::Event(_) => "event",
        MessageName::Task(_) => "task",
    }
}

fn headers(envelope: &Envelope) -> BTreeMap<String, HeaderValue> {
    let mut headers = wire::parts(envelope).headers;
    headers.retain(|name, _| !SHOWN_ELSEWHERE.contains(&name.as_str()));
    headers
}

fn print(job: &Failed, wanted: Wanted, shelf: Shelf, out: &mut Output) {
    let Failed { app, envelope } = job;
    let now = text::now();
    let moment = |at: Timestamp| format!("{} ({} ago)", text::utc(at), text::duration(now.since(at)));

    title(&format!("Failed {} {}", kind(envelope), envelope.name), out);
    field("id", &envelope.id.to_string(), out);
    field("tid", &envelope.tid.to_string(), out);
    field("application", app.as_str(), out);
    let by = envelope.app.as_ref().map(|app| format!(" by {app}")).unwrap_or_default();
    field("published", &format!("{}{by}", moment(envelope.published_at)), out);

    let progress = &envelope.progress;
    if let Some(retried) = &progress.retried {
        let before = retried
            .failed_at
            .map(|at| format!("; before it had failed at {}", text::utc(at)))
            .unwrap_or_default();
        field(
            "by hand",
            &format!(
                "retried {}×, last {}{}{before}",
                retried.times,
                moment(retried.at),
                by_whom(&retried.by)
            ),
            out,
        );
        if !retried.error.is_empty() {
            field("", &format!("with: {}", text::line(&retried.error, 200)), out);
        }
    }
    if let Some(original) = progress.edited_from {
        field("edited from", &original.to_string(), out);
    }
    if let Some(discarded) = &progress.discarded {
        let op = text::line(&discarded.op, 32);
        field("discarded", &format!("{}{} in {op}", moment(discarded.at), by_whom(&discarded.by)), out);
        field("because", &text::line(&discarded.reason, 1000), out);
    }

    let history = match &envelope.report {
        Some(report) => {
            print_report(report, moment, out);
            if report.history.is_empty() { &envelope.progress.history } else { &report.history }
        }
        None => {
            title("Report", out);
            out.line("  none: it was not Ponos that put it here");
            &envelope.progress.history
        }
    };
    print_history(history, out);

    if wanted.headers {
        title("Headers", out);
        for (name, value) in headers(envelope) {
            let value = match value {
                HeaderValue::Int(n) => n.to_string(),
                HeaderValue::Text(text) => text::line(&text, 1000),
                HeaderValue::Other(_) => "?".to_owned(),
            };
            out.line(&format!("  {}: {value}", text::line(&name, 200)));
        }
    }
    if wanted.body {
        print_body(&envelope.body, wanted.unredacted, out);
    }
    out.line("");
    let id = envelope.id;
    let hint = match shelf {
        Shelf::Failed => format!(
            "more:  ponos failed show {id} --headers --body\nagain: ponos failed retry {id} --yes\naway:  ponos failed discard {id} --reason … --yes"
        ),
        Shelf::Discarded => format!("back:  ponos failed restore {id}"),
    };
    for line in hint.lines() {
        let line = out.paint(Tone::Faint, line);
        out.line(&line);
    }
}

fn print_body(body: &[u8], unredacted: bool, out: &mut Output) {
    let size = text::count(body.len() as u64, "byte");
    match Tree::parse(body) {
        Some(tree) => {
            let tree = if unredacted { tree } else { tree.redacted(None) };
            title(&format!("Body, {size}"), out);
            out.line(&json::pretty(&tree.to_json(), "  "));
        }
        None => {
            title(&format!("Body, {size}, no JSON"), out);
            if unredacted {
                out.write(&text::block(&String::from_utf8_lossy(body), "  ", MAX_TEXT));
            } else {
                out.line("  nobody can tell what in it is secret; --unredacted shows it");
            }
        }
    }
}

fn by_whom(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(" by {}", text::line(by, 64)) }
}

fn print_report(report: &Report, moment: impl Fn(Timestamp) -> String, out: &mut Output) {
    title("Report", out);
    let attempts = text::count(u64::from(report.gave_up.attempts), "attempt");
    field("why", &format!("{} after {attempts}", report.gave_up.reason.as_str()), out);
    field("failed", &moment(report.at), out);
    field("queue", report.queue.as_str(), out);
    let recovery = match &report.recovery {
        Recovery::None => "the handler has none".to_owned(),
        Recovery::Done => "done".to_owned(),
        Recovery::Failed(error) => format!("failed too: {}", text::line(error, 1000)),
        _ => "?".to_owned(),
    };
    field("recovery", &recovery, out);
    field("fingerprint", &text::line(&report.fingerprint, 64), out);
    if !report.host.is_empty() {
        field("host", &text::line(&report.host, 200), out);
    }
    if let Some(version) = &report.version {
        field("version", &text::line(version, 200), out);
    }
    field("error", "", out);
    let error = text::block(&report.gave_up.error, "    ", MAX_TEXT);
    for line in error.lines() {
        let line = out.paint(Tone::Bad, line);
        out.line(&line);
    }
}

fn print_history(history: &[AttemptNote], out: &mut Output) {
    title("Attempts, newest first", out);
    if history.is_empty() {
        out.line("  no attempts are noted");
    }
    for (n, note) in history.iter().enumerate().rev() {
        let host = text::line(&note.host, 100);
        let error = text::line(&note.error, 400);
        let line = format!(
            "  {:>2}  {}  {:>7}  {:<11}  {error}",
            n + 1,
            text::utc(note.started),
            format!("{}ms", note.millis),
            note.class.as_str(),
        );
        let host = out.paint(Tone::Faint, &format!("  {host}"));
        out.line(&format!("{}{host}", line.trim_end()));
    }
}

fn title(text: &str, out: &mut Output) {
    if text.starts_with("Failed") {
        let text = out.paint(Tone::Strong, text);
        out.line(&text);
    } else {
        out.line("");
        let text = out.paint(Tone::Strong, text);
        out.line(&text);
    }
}

fn field(name: &str, value: &str, out: &mut Output) {
    out.line(format!("  {name:<11}  {value}").trim_end());
}
