//! `ponos failed show`: everything that is known of one job.

use std::collections::BTreeMap;

use ponos::core::envelope::{AttemptNote, Envelope, MessageName, Recovery, Report};
use ponos::core::id::Timestamp;
use ponos::core::name::AppName;
use ponos::core::wire::{self, HeaderValue};
use ponos::{MessageId, Tid};
use serde::Serialize;
use serde_json::value::RawValue;

use super::ShowArgs;
use super::store::{self, Failed};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of an error, and of a body that is no JSON, is shown, in bytes.
const MAX_TEXT: usize = 64 * 1024;

/// Headers that are shown in a better form.
const SHOWN_ELSEWHERE: &[&str] = &["x-ponos-gave-up", "x-ponos-history", "x-ponos-report"];

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    app: &'a AppName,
    id: MessageId,
    tid: &'a Tid,
    name: &'a str,
    kind: &'static str,
    published_at: Timestamp,
    published_by: Option<&'a AppName>,
    report: Option<&'a Report>,
    headers: BTreeMap<String, HeaderValue>,
    /// Untouched; `null` when it is no JSON.
    body: Option<&'a RawValue>,
    /// What can be read of a body that is no JSON.
    body_text: Option<String>,
}

pub(super) async fn run(args: ShowArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    let apps = store::apps(session, args.app.as_ref()).await?;
    let job = store::the_one(session, &apps, args.id).await?;
    if args.json {
        print_json(&job, out);
    } else {
        print(&job, out);
    }
    Ok(Exit::Ok)
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

fn print_json(job: &Failed, out: &mut Output) {
    let envelope = &job.envelope;
    let valid = json::valid(&envelope.body);
    let document = Document {
        version: json::VERSION,
        app: &job.app,
        id: envelope.id,
        tid: &envelope.tid,
        name: envelope.name.as_str(),
        kind: kind(envelope),
        published_at: envelope.published_at,
        published_by: envelope.app.as_ref(),
        report: envelope.report.as_deref(),
        headers: headers(envelope),
        body: valid.and_then(|body| serde_json::from_str(body).ok()),
        body_text: valid.is_none().then(|| String::from_utf8_lossy(&envelope.body).into_owned()),
    };
    json::print(&document, out);
}

fn print(job: &Failed, out: &mut Output) {
    let Failed { app, envelope } = job;
    let now = text::now();
    let moment = |at: Timestamp| format!("{} ({} ago)", text::utc(at), text::duration(now.since(at)));

    title(&format!("Failed {} {}", kind(envelope), envelope.name), out);
    field("id", &envelope.id.to_string(), out);
    field("tid", &envelope.tid.to_string(), out);
    field("application", app.as_str(), out);
    let by = envelope.app.as_ref().map(|app| format!(" by {app}")).unwrap_or_default();
    field("published", &format!("{}{by}", moment(envelope.published_at)), out);

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

    title("Headers", out);
    for (name, value) in headers(envelope) {
        let value = match value {
            HeaderValue::Int(n) => n.to_string(),
            HeaderValue::Text(text) => text::line(&text, 1000),
            HeaderValue::Other(_) => "?".to_owned(),
        };
        out.line(&format!("  {}: {value}", text::line(&name, 200)));
    }

    let size = text::count(envelope.body.len() as u64, "byte");
    match json::valid(&envelope.body) {
        Some(body) => {
            title(&format!("Body, {size}"), out);
            out.line(&json::pretty(body, "  "));
        }
        None => {
            title(&format!("Body, {size}, no JSON"), out);
            out.write(&text::block(&String::from_utf8_lossy(&envelope.body), "  ", MAX_TEXT));
        }
    }
    out.line("");
    let hint = format!("again: ponos failed retry {id}\naway:  ponos failed discard {id}", id = envelope.id);
    for line in hint.lines() {
        let line = out.paint(Tone::Faint, line);
        out.line(&line);
    }
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
    title("History", out);
    if history.is_empty() {
        out.line("  no attempts are noted");
    }
    for (n, note) in history.iter().enumerate() {
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
