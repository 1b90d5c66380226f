//! `ponos failed list`: the alike ones together.

use std::collections::BTreeMap;

use ponos::core::envelope::{Discarded, MessageName, Recovery, Report, Retried};
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use ponos::{GaveUpReason, MessageId, Tid};
use serde::Serialize;

use super::args::{By, ListArgs};
use super::select;
use super::store::{Failed, Shelf};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How many ids of a group are listed for people, newest last.
const LISTED: usize = 3;

/// How many digits of a group's fingerprint are shown: enough to name it.
pub(super) const DIGITS: usize = 8;

/// How much of what a group has in common is shown, in bytes.
const MAX_KEY: usize = 120;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    total: usize,
    by: By,
    groups: Vec<Group<'a>>,
}

/// Jobs that have something in common.
#[derive(Serialize)]
struct Group<'a> {
    /// What they have in common; `null` for jobs whose report does not say it.
    key: Option<String>,
    /// Of the job that failed last, like all that follows up to `count`.
    app: &'a AppName,
    /// `null` for jobs without a report.
    fingerprint: Option<&'a str>,
    queue: Option<&'a QueueName>,
    reason: Option<GaveUpReason>,
    error: Option<&'a str>,
    /// The version of the service that gave up.
    service_version: Option<&'a str>,
    count: usize,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    /// Oldest first.
    jobs: Vec<Job<'a>>,
}

#[derive(Serialize)]
struct Job<'a> {
    id: MessageId,
    tid: &'a Tid,
    name: &'a str,
    kind: &'static str,
    attempts: Option<u32>,
    recovery: Option<&'a Recovery>,
    failed_at: Option<Timestamp>,
    /// Who put it back by hand before it failed again.
    retried: Option<&'a Retried>,
    /// The job that it is a corrected copy of.
    edited_from: Option<MessageId>,
    discarded: Option<&'a Discarded>,
}

pub(super) async fn run(args: ListArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    let shelf = if args.discarded { Shelf::Discarded } else { Shelf::Failed };
    let all = select::jobs(session, shelf, &[], &args.filter).await?;
    if args.json {
        out.line(&document(&all, args.by));
        return Ok(Exit::Ok);
    }
    let groups = group(&all, args.by);
    if all.is_empty() {
        out.line(&format!("no {}s", shelf.noun()));
        return Ok(Exit::Ok);
    }
    let (jobs, kinds) =
        (text::count(all.len() as u64, shelf.noun()), text::count(groups.len() as u64, "group"));
    print(&groups, args.by, out);
    out.line(&format!("{jobs} in {kinds}"));
    Ok(Exit::Ok)
}

/// Jobs as `--json` prints them.
pub(super) fn document(all: &[Failed], by: By) -> String {
    json::to_line(&Document { version: json::VERSION, total: all.len(), by, groups: group(all, by) })
}

/// The largest groups first.
fn group(all: &[Failed], by: By) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<Option<String>, Vec<&Failed>> = BTreeMap::new();
    for job in all {
        groups.entry(key(job, by)).or_default().push(job);
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|(key, mut jobs)| {
            jobs.sort_by_key(|job| job.report().map(|report| report.at));
            let newest = jobs.last().expect("a group begins with a job");
            let last = newest.report();
            Group {
                key,
                app: &newest.app,
                fingerprint: newest.fingerprint(),
                queue: last.map(|report| &report.queue),
                reason: last.map(|report| report.gave_up.reason),
                error: last.map(|report| report.gave_up.error.as_str()),
                service_version: last.and_then(|report| report.version.as_deref()),
                count: jobs.len(),
                first_at: jobs.first().and_then(|job| job.report()).map(|report| report.at),
                last_at: last.map(|report| report.at),
                jobs: jobs.into_iter().map(entry).collect(),
            }
        })
        .collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), std::cmp::Reverse(group.last_at)));
    groups
}

/// What a job has in common with others of its group.
fn key(job: &Failed, by: By) -> Option<String> {
    let of_report = |of: fn(&Report) -> &str| job.report().map(|report| of(report).to_owned());
    match by {
        // The same queue of one application: equal fingerprints are of the same application.
        By::Fingerprint => of_report(|report| &report.fingerprint),
        By::Error => of_report(|report| report.gave_up.error.lines().next().unwrap_or_default()),
        By::Name => Some(job.envelope.name.as_str().to_owned()),
        By::App => Some(job.app.as_str().to_owned()),
        // Host and process.
        By::Host => of_report(|report| report.host.split('/').next().unwrap_or_default()),
        By::Day => job.report().map(|report| text::utc(report.at).chars().take(10).collect()),
    }
}

fn entry(job: &Failed) -> Job<'_> {
    let envelope = &job.envelope;
    let report = job.report();
    Job {
        id: envelope.id,
        tid: &envelope.tid,
        name: envelope.name.as_str(),
        kind: match envelope.name {
            MessageName::Event(_) => "event",
            MessageName::Task(_) => "task",
        },
        attempts: report.map(|report| report.gave_up.attempts),
        recovery: report.map(|report| &report.recovery),
        failed_at: report.map(|report| report.at),
        retried: envelope.progress.retried.as_deref(),
        edited_from: envelope.progress.edited_from,
        discarded: envelope.progress.discarded.as_deref(),
    }
}

/// A table: one line for each group, what went wrong last below it, and some of its jobs.
fn print(groups: &[Group<'_>], by: By, out: &mut Output) {
    let now = text::now();
    let ago = |at: Option<Timestamp>| at.map_or_else(String::new, |at| text::duration(now.since(at)));
    let rows: Vec<[String; 5]> = groups
        .iter()
        .map(|group| {
            let digits = group.fingerprint.unwrap_or("-");
            let digits = if by == By::Fingerprint { text::line(digits, DIGITS) } else { String::new() };
            [
                // A mark that it was cut would not be typed.
                digits.trim_end_matches('…').to_owned(),
                group.count.to_string(),
                ago(group.first_at),
                ago(group.last_at),
                group.service_version.map_or_else(String::new, |version| text::line(version, 16)),
            ]
        })
        .collect();
    let head = ["GROUP", "COUNT", "FIRST", "LAST", "VERSION"];
    let widths: [usize; 5] = std::array::from_fn(|n| {
        if n == 0 && by != By::Fingerprint {
            return 0;
        }
        rows.iter().map(|row| row[n].chars().count()).chain([head[n].len()]).max().unwrap_or(0)
    });
    let line = |row: [&str; 5]| {
        let mut line = String::new();
        for (n, cell) in row.into_iter().enumerate() {
            let width = widths[n];
            if width > 0 {
                let cell = if n == 1 { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
        }
        line
    };
    let what = match by {
        By::Fingerprint => "QUEUE",
        By::Error => "ERROR",
        By::Name => "NAME",
        By::App => "APPLICATION",
        By::Host => "HOST",
        By::Day => "DAY",
    };
    let head = format!("{}{what}", line(head));
    let head = out.paint(Tone::Faint, &head);
    out.line(&head);
    for (group, row) in groups.iter().zip(&rows) {
        let row = line(std::array::from_fn(|n| row[n].as_str()));
        out.line(format!("{row}{}", common(group, by, out)).trim_end());
        details(group, by, out);
    }
    out.line("");
}

fn common(group: &Group<'_>, by: By, out: &Output) -> String {
    if by != By::Fingerprint {
        let key = group.key.as_deref().map_or_else(|| "?".to_owned(), |key| text::line(key, MAX_KEY));
        return out.paint(Tone::Strong, &key);
    }
    let queue =
        group.queue.map_or_else(|| format!("{}: not known from where", group.app), ToString::to_string);
    let reason = group.reason.map_or("no report", GaveUpReason::as_str);
    format!("{}  {reason}", out.paint(Tone::Strong, &queue))
}

fn details(group: &Group<'_>, by: By, out: &mut Output) {
    if by != By::Error
        && let Some(error) = group.error.filter(|error| !error.is_empty())
    {
        let error = out.paint(Tone::Bad, &text::line(error, 200));
        out.line(&format!("  {error}"));
    }
    let older = group.jobs.len().saturating_sub(LISTED);
    if older > 0 {
        let digits: String = group.fingerprint.unwrap_or_default().chars().take(DIGITS).collect();
        let show = if by == By::Fingerprint && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            format!("ponos failed show {digits} --last {}", group.jobs.len())
        } else {
            "--json has them all".to_owned()
        };
        out.line(&format!("  … {older} more: {show}"));
    }
    for job in &group.jobs[older..] {
        let attempts = job
            .attempts
            .map(|attempts| format!("  {}", text::count(u64::from(attempts), "attempt")))
            .unwrap_or_default();
        let recovered = match job.recovery {
            Some(Recovery::Done) => "  recovered",
            Some(Recovery::Failed(_)) => "  its recovery failed",
            _ => "",
        };
        let tid = out.paint(Tone::Faint, &format!("tid …{}", job.tid.short()));
        let retried =
            job.retried.map(|retried| format!("  retried {}× by hand", retried.times)).unwrap_or_default();
        let discarded = job
            .discarded
            .map(|by| format!("  {}: {}", text::line(&by.op, 32), text::line(&by.reason, 80)))
            .unwrap_or_default();
        out.line(&format!("  {}  {tid}{attempts}{recovered}{retried}{discarded}", job.id));
    }
}
