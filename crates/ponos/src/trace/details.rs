//! What a picture of the tree says beside its lines: what held a job back, what it waits for, what was lost.

use std::time::Duration;

use ponos_core::id::Timestamp;

use super::cascade::{Cascade, JobData};
use super::job::JobState;
use super::lines::{duration, safe};
use super::terminal::{RenderOptions, Style, clock};

/// Waits that are shorter are not worth a line.
const WORTH_TELLING: Duration = Duration::from_millis(100);

/// How much of a text from a record is looked at, in bytes.
const MAX_TEXT: usize = 400;

/// One line below a job.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) style: Style,
    pub(super) text: String,
}

impl Detail {
    pub(super) fn new(style: Style, text: String) -> Self {
        Self { style, text }
    }
}

/// What held attempt `n` back.
pub(super) fn before(
    cascade: &Cascade,
    published: Option<Timestamp>,
    job: &JobData,
    n: usize,
) -> Vec<Detail> {
    let attempt = &job.attempts[n];
    let previous = n.checked_sub(1).map(|n| &job.attempts[n]).map(|attempt| attempt.started + attempt.took);
    let ready = attempt.ready.or(previous).or(published);
    let mut details = ready.map_or_else(Vec::new, |ready| holds(cascade, job, ready, attempt.started));
    if attempt.held >= WORTH_TELLING {
        let time = duration(attempt.held);
        details.push(Detail::new(Style::Open, format!("– held {time} for its rate limit or its turn")));
    }
    let by_hand = job
        .by_hand
        .iter()
        .filter(|(at, _)| previous.is_none_or(|previous| *at >= previous) && *at <= attempt.started);
    details.extend(by_hand.map(|(at, made)| Detail::new(Style::Plain, said_by_hand(*at, made))));
    details
}

/// What is known of a job beside its attempts.
pub(super) fn after(
    cascade: &Cascade,
    published: Option<Timestamp>,
    job: &JobData,
    options: RenderOptions,
) -> Vec<Detail> {
    let mut details = Vec::new();
    let last = job.attempts.last().map(|attempt| attempt.started + attempt.took);
    let started = job.attempts.last().map(|attempt| attempt.started);
    let by_hand = job.by_hand.iter().filter(|(at, _)| started.is_none_or(|started| *at > started));
    details.extend(by_hand.map(|(at, made)| Detail::new(Style::Plain, said_by_hand(*at, made))));
    if job.suspected {
        let text = "a process died while it held this job, again and again: it runs alone";
        details.push(Detail::new(Style::Bad, text.into()));
    }
    if job.duplicates > 0 {
        let text = format!("came again {} and was recognised as done", times(job.duplicates));
        details.push(Detail::new(Style::Faint, text));
    }
    if job.state.is_final() {
        return details;
    }
    for held in cascade.around.flights.iter().filter(|held| {
        held.flight.queue == *job.queue.as_str()
            && cascade.messages.iter().any(|message| message.id == held.flight.message && owns(message, job))
            && last.is_none_or(|last| held.flight.started >= last)
    }) {
        let host = safe(&held.origin.host, MAX_TEXT);
        let (style, text) = if held.alive {
            (Style::Plain, format!("attempt {} runs on {host}", held.flight.attempt))
        } else {
            let text = format!(
                "attempt {} ran on {host}, which was heard of last at {}: lost with its instance, it comes again",
                held.flight.attempt,
                clock(held.seen)
            );
            (Style::Bad, text)
        };
        details.push(Detail::new(style, text));
    }
    if let Some(since) = waits_since(published, job) {
        details.extend(holds(cascade, job, since, cascade.around.now));
    }
    if let (JobState::NotYet | JobState::Unknown, Some(stats)) =
        (job.state, cascade.around.figures(&job.queue))
    {
        let mut text = format!("⋯ queue {}: {} ready", safe(&job.queue, MAX_TEXT), stats.ready);
        if let Some(oldest) = stats.oldest.filter(|_| stats.ready > 0 && options.timing) {
            text.push_str(&format!(", oldest {}", duration(cascade.around.now.since(oldest))));
        }
        let consumers = match stats.consumers {
            0 => "nobody works it".to_owned(),
            1 => "1 consumer".to_owned(),
            n => format!("{n} consumers"),
        };
        text.push_str(&format!(", {consumers}"));
        let style = if stats.consumers == 0 { Style::Bad } else { Style::Open };
        details.push(Detail::new(style, text));
    }
    details
}

fn owns(message: &super::cascade::Message, job: &JobData) -> bool {
    message.jobs.iter().any(|own| std::ptr::eq(own, job))
}

/// Since when the next attempt could have started, where none runs.
fn waits_since(published: Option<Timestamp>, job: &JobData) -> Option<Timestamp> {
    match job.state {
        JobState::NotYet => published,
        JobState::Waiting { due } => Some(due),
        JobState::Recovering | JobState::Lost => {
            job.attempts.last().map(|attempt| attempt.started + attempt.took)
        }
        _ => None,
    }
}

fn holds(cascade: &Cascade, job: &JobData, from: Timestamp, until: Timestamp) -> Vec<Detail> {
    let held = cascade.around.held(&job.queue, from, until).into_iter();
    let worth = held.filter(|(time, _)| *time >= WORTH_TELLING);
    worth
        .map(|(time, why)| {
            let text = format!("– held {}: {} — not an attempt", duration(time), safe(why, MAX_TEXT));
            Detail::new(Style::Open, text)
        })
        .collect()
}

fn said_by_hand(at: Timestamp, made: &ponos_core::journal::HandMade) -> String {
    let reason =
        made.reason.as_deref().map(|reason| format!(": {}", safe(reason, MAX_TEXT))).unwrap_or_default();
    let (verb, by) = (safe(&made.verb, MAX_TEXT), safe(&made.by, MAX_TEXT));
    format!("– {verb} by hand at {} by {by}{reason}", clock(at))
}

fn times(n: u32) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// What stands under the whole picture: what was lost in its time.
pub(super) fn footer(cascade: &Cascade) -> Vec<String> {
    let mut lines: Vec<String> = cascade
        .gaps()
        .map(|gap| {
            let (host, app) = (safe(&gap.origin.host, MAX_TEXT), &gap.origin.app);
            let records = if gap.count == 1 { "1 record".to_owned() } else { format!("{} records", gap.count) };
            let (after, before) = (clock(gap.after), clock(gap.before));
            format!("⋯ {records} of {app} on {host} lost between {after} and {before}: what they said is missing here")
        })
        .collect();
    if lines.len() > 5 {
        let more = lines.len() - 5;
        let count: u64 = cascade.gaps().skip(5).map(|gap| gap.count).sum();
        lines.truncate(5);
        lines.push(format!("⋯ and {count} more records in {more} gaps"));
    }
    if let Some(skew) = skew(cascade) {
        lines.push(format!("clocks differ by at least {}: waits are counted from 0", duration(skew)));
    }
    lines
}

/// By how much a start lies before its message was published, on the clocks of those who wrote it.
fn skew(cascade: &Cascade) -> Option<Duration> {
    let jobs = cascade.messages.iter().flat_map(|message| &message.jobs);
    let early = jobs.flat_map(|job| &job.attempts).filter_map(|attempt| {
        let ready = attempt.ready?;
        Some(ready.since(attempt.started))
    });
    // A millisecond is what rounding does.
    early.max().filter(|early| *early > Duration::from_millis(2))
}
