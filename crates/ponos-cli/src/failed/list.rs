//! `ponos failed list`: the alike ones together.

use std::collections::BTreeMap;

use ponos::core::envelope::{MessageName, Recovery, Report};
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use ponos::{GaveUpReason, MessageId, Tid};
use serde::Serialize;

use super::ListArgs;
use super::store::{self, Failed};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How many ids of a group are listed for people.
const LISTED: usize = 10;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    total: usize,
    groups: Vec<Group<'a>>,
}

/// Jobs that failed in one queue for the same reason with the same error but for its numbers.
#[derive(Serialize)]
struct Group<'a> {
    app: &'a AppName,
    /// The group's key; `null` for jobs without a report.
    fingerprint: Option<&'a str>,
    queue: Option<&'a QueueName>,
    reason: Option<GaveUpReason>,
    /// Of the job that failed last.
    error: Option<&'a str>,
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
}

pub(super) async fn run(args: ListArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    let all = store::all(session, args.app.as_ref()).await?;
    let groups = group(&all);
    if args.json {
        json::print(&Document { version: json::VERSION, total: all.len(), groups }, out);
        return Ok(Exit::Ok);
    }
    if all.is_empty() {
        out.line("no failed jobs");
        return Ok(Exit::Ok);
    }
    let now = text::now();
    let (jobs, kinds) =
        (text::count(all.len() as u64, "failed job"), text::count(groups.len() as u64, "group"));
    for group in groups {
        print(&group, now, out);
    }
    out.line(&format!("{jobs} in {kinds}"));
    Ok(Exit::Ok)
}

/// The largest groups first.
fn group(all: &[Failed]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<(&AppName, Option<&str>), Vec<&Failed>> = BTreeMap::new();
    for job in all {
        let fingerprint = job.envelope.report.as_ref().map(|report| report.fingerprint.as_str());
        groups.entry((&job.app, fingerprint)).or_default().push(job);
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .map(|((app, fingerprint), mut jobs)| {
            jobs.sort_by_key(|job| report(job).map(|report| report.at));
            let last = jobs.last().and_then(|job| report(job));
            Group {
                app,
                fingerprint,
                queue: last.map(|report| &report.queue),
                reason: last.map(|report| report.gave_up.reason),
                error: last.map(|report| report.gave_up.error.as_str()),
                count: jobs.len(),
                first_at: jobs.first().and_then(|job| report(job)).map(|report| report.at),
                last_at: last.map(|report| report.at),
                jobs: jobs.into_iter().map(entry).collect(),
            }
        })
        .collect();
    groups.sort_by_key(|group| (std::cmp::Reverse(group.count), std::cmp::Reverse(group.last_at)));
    groups
}

fn report(job: &Failed) -> Option<&Report> {
    job.envelope.report.as_deref()
}

fn entry(job: &Failed) -> Job<'_> {
    let envelope = &job.envelope;
    let report = envelope.report.as_ref();
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
    }
}

fn print(group: &Group<'_>, now: Timestamp, out: &mut Output) {
    let queue =
        group.queue.map_or_else(|| format!("{}: not known from where", group.app), ToString::to_string);
    let queue = out.paint(Tone::Strong, &queue);
    let reason = group.reason.map_or("no report", GaveUpReason::as_str);
    let last =
        group.last_at.map(|at| format!(", last {} ago", text::duration(now.since(at)))).unwrap_or_default();
    let fingerprint = group.fingerprint.map(|fingerprint| text::line(fingerprint, 32)).unwrap_or_default();
    let fingerprint = out.paint(Tone::Faint, &fingerprint);
    out.line(&format!("{queue}  {} {reason}{last}  {fingerprint}", text::count(group.count as u64, "job")));
    if let Some(error) = group.error.filter(|error| !error.is_empty()) {
        let error = out.paint(Tone::Bad, &text::line(error, 200));
        out.line(&format!("  {error}"));
    }
    for job in group.jobs.iter().take(LISTED) {
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
        out.line(&format!("  {}  {tid}{attempts}{recovered}", job.id));
    }
    if group.jobs.len() > LISTED {
        out.line(&format!("  … and {} more; --json has them all", group.jobs.len() - LISTED));
    }
    out.line("");
}
