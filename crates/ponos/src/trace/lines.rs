//! The tree as lines, which the plain text and the terminal's picture share.

use std::fmt;
use std::time::Duration;

use ponos_core::envelope::{Phase, tame};
use ponos_core::id::Timestamp;
use ponos_core::journal::{AttemptEnd, AttemptRecord};

use super::cascade::{Cascade, JobData, Kind, Message, Origin};
use super::job::JobState;

/// How much of a name is shown, in bytes; a valid one is never longer.
const MAX_NAME: usize = 240;

/// How deep the indentation grows. Below, it stays and the level is written out.
const MAX_INDENT: usize = 40;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A message; for a task with its own job.
    Message(usize),
    /// One of a message's jobs.
    Job(usize, usize),
    /// Queues that have a message, so many, of which nothing else is known.
    Unseen(usize),
}

/// One line, and how those below it that belong to it begin.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) item: Item,
    pub(super) prefix: String,
    pub(super) below: String,
}

/// How good the news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Open,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) subject: String,
    pub(super) status: String,
    pub(super) tone: Tone,
    /// What is missing or wrong in the records.
    pub(super) gap: Option<&'static str>,
}

impl Line {
    pub(super) fn plain(&self) -> String {
        let mut text = self.subject.clone();
        if !self.status.is_empty() {
            text.push_str(" — ");
            text.push_str(&self.status);
        }
        if let Some(gap) = self.gap {
            text.push_str(" (");
            text.push_str(gap);
            text.push(')');
        }
        text
    }
}

impl fmt::Display for Cascade {
    /// The tree without ids and times: a line for each message, and one for each handler that heard an event.
    ///
    /// Siblings stand in the order of their text. A run of equal failures is written once: `(timeout ×3, error)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, row) in rows(self).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}{}", row.prefix, of(self, row.item, None).plain())?;
        }
        Ok(())
    }
}

/// The lines of the tree, from the top.
pub(super) fn rows(cascade: &Cascade) -> impl Iterator<Item = Row> {
    struct Open {
        item: Item,
        prefix: String,
        below: String,
        depth: usize,
    }
    let roots = cascade.roots.iter().rev();
    let mut stack: Vec<Open> = roots
        .map(|&root| Open {
            item: Item::Message(root),
            prefix: String::new(),
            below: String::new(),
            depth: 0,
        })
        .collect();
    std::iter::from_fn(move || {
        let open = stack.pop()?;
        let items = items_below(cascade, open.item);
        let has_items = !items.is_empty();
        let depth = open.depth + 1;
        for (n, item) in items.into_iter().rev().enumerate() {
            let (branch, trunk) = if n == 0 { ("└ ", "  ") } else { ("├ ", "│ ") };
            let (prefix, below) = if depth <= MAX_INDENT {
                (format!("{}{branch}", open.below), format!("{}{trunk}", open.below))
            } else {
                (format!("{}└ (level {depth}) ", open.below), open.below.clone())
            };
            stack.push(Open { item, prefix, below, depth });
        }
        let below = format!("{}{}", open.below, if has_items { "│ " } else { "  " });
        Some(Row { item: open.item, prefix: open.prefix, below })
    })
}

fn items_below(cascade: &Cascade, item: Item) -> Vec<Item> {
    match item {
        Item::Message(n) => {
            let message = &cascade.messages[n];
            let own = message.own_job();
            let mut items: Vec<Item> = Vec::new();
            if let Some(own) = own {
                items.extend(message.jobs[own].children.iter().map(|&child| Item::Message(child)));
            }
            let others = (0..message.jobs.len()).filter(|&job| Some(job) != own);
            items.extend(others.map(|job| Item::Job(n, job)));
            items.extend(message.outside.iter().map(|&child| Item::Message(child)));
            if message.unseen() > 0 {
                items.push(Item::Unseen(n));
            }
            items
        }
        Item::Job(n, job) => {
            let children = &cascade.messages[n].jobs[job].children;
            children.iter().map(|&child| Item::Message(child)).collect()
        }
        Item::Unseen(_) => Vec::new(),
    }
}

/// What the line of `item` says; with `now`, in words that tell when.
pub(super) fn of(cascade: &Cascade, item: Item, now: Option<Timestamp>) -> Line {
    match item {
        Item::Message(n) => of_message(&cascade.messages[n], now),
        Item::Job(n, job) => of_job(&cascade.messages[n], job, now),
        Item::Unseen(n) => Line {
            subject: format!("{} not yet", cascade.messages[n].unseen()),
            status: String::new(),
            tone: Tone::Open,
            gap: None,
        },
    }
}

pub(super) fn of_message(message: &Message, now: Option<Timestamp>) -> Line {
    let name = safe(message.name().unwrap_or_default(), MAX_NAME);
    let (subject, (status, tone)) = match message.kind() {
        Kind::Event => {
            let unheard = message.queues() == 0 && message.jobs.is_empty() && message.unpublished.is_none();
            let status = if unheard { "nobody listens" } else { "" };
            let tone = if unheard { Tone::Open } else { Tone::Plain };
            (format!("◇ {name}"), (status.to_owned(), tone))
        }
        Kind::Task => {
            let status = match message.own_job() {
                Some(own) => status(&message.jobs[own], now),
                None if message.jobs.is_empty() => ("no queue took it".to_owned(), Tone::Bad),
                None => (String::new(), Tone::Plain),
            };
            (format!("▸ {name}"), status)
        }
        Kind::Unknown => ("? a message".to_owned(), (String::new(), Tone::Plain)),
    };
    let (status, tone) = match &message.unpublished {
        Some((_, true)) if message.queues() == 0 => ("perhaps not published".to_owned(), Tone::Bad),
        Some((_, false)) if message.queues() == 0 => ("not published".to_owned(), Tone::Bad),
        _ => (status, tone),
    };
    let gap = match message.origin {
        Origin::Start | Origin::Caused => message.own_job().and_then(|own| gap_of(&message.jobs[own])),
        Origin::CauseNotRecorded => Some("its cause is not recorded"),
        Origin::NotRecorded => Some("its publishing is not recorded"),
        Origin::Circular => Some("its cause is circular"),
    };
    Line { subject, status, tone, gap }
}

pub(super) fn of_job(message: &Message, job: usize, now: Option<Timestamp>) -> Line {
    let job = &message.jobs[job];
    let app = match (message.kind(), message.name()) {
        (Kind::Event, Some(name)) => job
            .queue
            .strip_suffix(name)
            .and_then(|rest| rest.strip_suffix('.'))
            .filter(|app| !app.is_empty() && !app.contains('.')),
        _ => None,
    };
    let subject = match (app, message.name()) {
        (Some(app), Some(name)) => format!("{} → on {}", safe(app, MAX_NAME), safe(name, MAX_NAME)),
        _ => format!("in {}", safe(&job.queue, MAX_NAME)),
    };
    let (status, tone) = status(job, now);
    Line { subject, status, tone, gap: gap_of(job) }
}

/// What is missing of a job's own records.
fn gap_of(job: &JobData) -> Option<&'static str> {
    let highest = |phase: Phase| {
        let of_phase = job.attempts.iter().filter(move |attempt| attempt.phase == phase);
        of_phase.map(|attempt| attempt.attempt).max().unwrap_or(0)
    };
    let known = |phase: Phase| {
        let of_phase = job.attempts.iter().filter(move |attempt| attempt.phase == phase);
        let mut numbers: Vec<u32> = of_phase.map(|attempt| attempt.attempt).collect();
        numbers.sort_unstable();
        numbers.dedup();
        u32::try_from(numbers.len()).unwrap_or(u32::MAX)
    };
    let recovers_without_run = highest(Phase::Recover) > 0
        && !job.attempts.iter().any(|attempt| matches!(attempt.end, AttemptEnd::GaveUp { .. }));
    if [Phase::Run, Phase::Recover].into_iter().any(|phase| highest(phase) > known(phase))
        || recovers_without_run
    {
        Some("not all of its attempts are recorded")
    } else if job.childless {
        Some("what it published may be missing")
    } else {
        None
    }
}

/// A job's state in words. Without `now` they hold the kinds of failures and no times; with it the other way round,
/// for there each attempt has a line of its own.
fn status(job: &JobData, now: Option<Timestamp>) -> (String, Tone) {
    let tries = || match now {
        Some(_) => {
            number(&job.attempts).filter(|&n| n > 1).map(|n| format!(", attempt {n}")).unwrap_or_default()
        }
        None => tries(&job.attempts),
    };
    match job.state {
        JobState::Done => (format!("done{}", tries()), Tone::Good),
        JobState::Failed { reason, recovered } => {
            let reason = reason.as_str().replace('_', " ");
            let recovery = if recovered { "recovered" } else { "not recovered" };
            (format!("failed ({reason}){}, {recovery}", tries()), Tone::Bad)
        }
        JobState::Waiting { due } => {
            let when = now.map(|now| format!(" {}", relative(due, now))).unwrap_or_default();
            (format!("retry due{when}{}", tries()), Tone::Open)
        }
        JobState::Recovering => (format!("recovery pending{}", tries()), Tone::Open),
        JobState::NotYet => ("not yet".to_owned(), Tone::Open),
        JobState::Lost => (format!("result came too late{}", tries()), Tone::Open),
        JobState::Unrecorded => ("its attempts are not recorded".to_owned(), Tone::Plain),
        JobState::Running { since } => {
            let when = now.map(|now| format!(" for {}", duration(now.since(since)))).unwrap_or_default();
            (format!("running{when}{}", tries()), Tone::Open)
        }
        JobState::Unknown => (format!("not known: records were lost{}", tries()), Tone::Open),
    }
}

/// `, attempt 3 (timeout, error)`; nothing for a job that was done at once.
fn tries(attempts: &[AttemptRecord]) -> String {
    let mut runs: Vec<(&'static str, usize)> = Vec::new();
    for attempt in attempts.iter().filter(|attempt| attempt.phase == Phase::Run) {
        let word = match &attempt.end {
            AttemptEnd::Retry { class, .. } | AttemptEnd::GaveUp { class, .. } => class.as_str(),
            AttemptEnd::Lost => "too late",
            _ => continue,
        };
        match runs.last_mut() {
            Some((last, times)) if *last == word => *times += 1,
            _ => runs.push((word, 1)),
        }
    }
    let number = number(attempts).unwrap_or(1);
    if runs.is_empty() && number <= 1 {
        return String::new();
    }
    let words: Vec<String> = runs
        .into_iter()
        .map(|(word, times)| if times > 1 { format!("{word} ×{times}") } else { word.to_owned() })
        .collect();
    if words.is_empty() {
        format!(", attempt {number}")
    } else {
        format!(", attempt {number} ({})", words.join(", "))
    }
}

/// The number of the handler's attempt that decided: the one that was done, else the last.
fn number(attempts: &[AttemptRecord]) -> Option<u32> {
    let mut runs = attempts.iter().filter(|attempt| attempt.phase == Phase::Run);
    let done = runs.clone().find(|attempt| attempt.end == AttemptEnd::Done);
    done.or_else(|| runs.next_back()).map(|attempt| attempt.attempt)
}

/// `in 3.2s` or `5.0s ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at >= now {
        format!("in {}", duration(at.since(now)))
    } else {
        format!("{} ago", duration(now.since(at)))
    }
}

/// A duration in two or three digits: `0.4ms`, `184ms`, `5.0s`, `2m 41s`, `1h 02m`, `3d 04h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 if time.is_zero() => "0ms".to_owned(),
        0 if time < Duration::from_millis(10) => format!("{:.1}ms", time.as_secs_f64() * 1e3),
        0 => format!("{}ms", time.as_millis()),
        // Tenths are cut and not rounded, or 59.96 s would read as 60.0 s.
        1..60 => format!("{secs}.{}s", time.subsec_millis() / 100),
        60..3600 => format!("{}m {:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d {:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

/// The first line of a text from a record, such that a terminal shows it and does nothing else.
pub(super) fn safe(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    tame(line, max)
        .chars()
        // Marks that turn the direction of what stands beside them, and separators of lines.
        .filter(|c| !matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'))
        .collect()
}
