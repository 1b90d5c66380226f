//! The tree as a picture for terminals: what happened, when, and what is still to come.

use std::time::Duration;

use ponos_core::envelope::Phase;
use ponos_core::id::Timestamp;
use ponos_core::journal::{AttemptEnd, AttemptRecord};

use super::cascade::{Cascade, CascadeOutcome, JobData, Origin};
use super::details::{self, Detail};
use super::lines::{self, Item, Tone, duration, relative, safe};
use super::surroundings::Hold;

/// How much of an attempt's error is looked at, in bytes; the line's width cuts the rest.
const MAX_ERROR: usize = 400;

/// How many attempts of a job are listed: the first half and the last half of them.
const MAX_ATTEMPTS: usize = 16;

/// Below this width lines are cut no further.
const MIN_WIDTH: usize = 40;

/// Below this width there is no room for bars.
const MIN_WIDTH_FOR_BARS: usize = 72;

/// How to draw a [`Cascade`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// Whether to use ANSI colours.
    pub color: bool,
    /// Whether to show times: the start, bars on a common axis, durations.
    pub timing: bool,
    /// The columns of the terminal. Lines are cut to it, but not below 40; bars need 72.
    pub width: usize,
    /// What "in three seconds" is measured from.
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Open,
}

impl Style {
    const RESET: &'static str = "\x1b[0m";

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Open => "\x1b[33m",
        }
    }
}

impl From<Tone> for Style {
    fn from(tone: Tone) -> Self {
        match tone {
            Tone::Plain => Self::Plain,
            Tone::Good => Self::Good,
            Tone::Bad => Self::Bad,
            Tone::Open => Self::Open,
        }
    }
}

/// A line in pieces of one style each, so that it can be measured and cut.
#[derive(Debug, Default)]
struct Styled(Vec<(String, Style)>);

impl Styled {
    fn push(&mut self, text: impl Into<String>, style: Style) {
        self.0.push((text.into(), style));
    }

    fn columns(&self) -> usize {
        self.0.iter().map(|(text, _)| columns(text)).sum()
    }

    /// Cuts to `width` columns, with `…` where something is missing.
    fn cut(&mut self, width: usize) {
        if self.columns() <= width {
            return;
        }
        let mut room = width.saturating_sub(1);
        for n in 0..self.0.len() {
            let piece = &mut self.0[n].0;
            let mut end = piece.len();
            for (at, c) in piece.char_indices() {
                let wide = column(c);
                if wide > room {
                    end = at;
                    break;
                }
                room -= wide;
            }
            if end < piece.len() {
                piece.truncate(end);
                piece.push('…');
                self.0.truncate(n + 1);
                return;
            }
        }
    }

    fn pad(&mut self, width: usize) {
        let missing = width.saturating_sub(self.columns());
        self.push(" ".repeat(missing), Style::Plain);
    }

    fn write(&self, out: &mut String, color: bool) {
        let start = out.len();
        for (text, style) in &self.0 {
            if color && *style != Style::Plain && !text.trim().is_empty() {
                out.push_str(style.code());
                out.push_str(text);
                out.push_str(Style::RESET);
            } else {
                out.push_str(text);
            }
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    }
}

impl Cascade {
    /// A picture for a terminal, lines ending in `\n`.
    ///
    /// With `timing`, a bar shows a job on the transaction's common axis: `░` it waits for its first attempt, `█` an
    /// attempt runs, `·` it waits for the next one, `▓` something holds it back. Each attempt that was not done has a line, with the first line of its
    /// error. Texts from records are tamed: none of them can steer the terminal.
    ///
    /// The axis is made of several machines' clocks; what they differ by shows as a shift.
    #[must_use]
    pub fn render(&self, options: RenderOptions) -> String {
        let options = RenderOptions { width: options.width.max(MIN_WIDTH), ..options };
        let mut out = String::new();
        self.header(options).write(&mut out, options.color);
        if self.messages.is_empty() {
            return out;
        }
        out.push('\n');

        let rows: Vec<_> = lines::rows(self).collect();
        let texts: Vec<Styled> = rows.iter().map(|row| self.text(row, options)).collect();
        let times: Vec<String> = rows
            .iter()
            .map(|row| self.job_of(row.item).map(|(_, job)| took(job)).unwrap_or_default())
            .collect();

        let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
        let time_columns = widest(&mut times.iter().map(|time| columns(time)));
        let axis = Axis::of(self, options, time_columns);
        let beside = if options.timing { axis.columns + time_columns + 4 } else { 0 };
        let room = options.width.saturating_sub(beside);
        let text_columns = widest(&mut texts.iter().map(Styled::columns)).min(room);

        for ((row, mut line), time) in rows.iter().zip(texts).zip(times) {
            let job = self.job_of(row.item);
            if options.timing {
                line.cut(text_columns);
                line.pad(text_columns + 2);
                match job {
                    Some((published, job)) => axis.draw(published, job, &self.around.holds, &mut line),
                    None => line.push(" ".repeat(axis.columns), Style::Plain),
                }
                line.push("  ", Style::Plain);
                line.push(time, Style::Faint);
            } else {
                line.cut(room);
            }
            line.write(&mut out, options.color);
            if let Item::Message(n) = row.item
                && let Some((error, _)) = &self.messages[n].unpublished
            {
                let why = Detail::new(Style::Bad, safe(error, MAX_ERROR));
                write_detail(&row.below, &why, options, &mut out);
            }
            if let Some((published, job)) = job {
                self.attempts(&row.below, published, job, options, &mut out);
            }
        }
        for text in details::footer(self) {
            let mut line = Styled::default();
            line.push(text, Style::Open);
            line.cut(options.width);
            line.write(&mut out, options.color);
        }
        out
    }

    fn header(&self, options: RenderOptions) -> Styled {
        let mut line = Styled::default();
        let Some(tid) = self.tid() else {
            line.push("no records", Style::Faint);
            return line;
        };
        let tally = self.tally();
        line.push(format!("TID {tid}"), Style::Strong);
        let outcome = self.outcome();
        let style = match outcome {
            CascadeOutcome::Done => Style::Good,
            CascadeOutcome::Failed => Style::Bad,
            _ => Style::Open,
        };
        line.push("  ", Style::Plain);
        line.push(outcome.as_str(), style);
        let mut counts = Vec::new();
        if tally.failed > 0 {
            let recovered = match tally.recovered {
                0 => String::new(),
                n if n == tally.failed => ", recovered".to_owned(),
                n => format!(", {n} recovered"),
            };
            counts.push(format!("{} of {} jobs failed{recovered}", tally.failed, tally.total()));
        }
        if tally.unknown > 0 {
            counts.push(format!("{} of {} jobs not known", tally.unknown, tally.total()));
        }
        if tally.pending() > 0 {
            counts.push(format!("{} of {} jobs pending", tally.pending(), tally.total()));
        }
        if !counts.is_empty() {
            line.push(format!(" ({})", counts.join("; ")), style);
        }
        if let (true, Some((first, last))) = (options.timing, self.extent()) {
            line.push(format!("  started {} UTC", clock(first)), Style::Plain);
            let (end, so_far) = match outcome {
                CascadeOutcome::Pending => (last.max(options.now), " so far"),
                _ => (last, ""),
            };
            line.push(format!("  {}{so_far}", duration(end.since(first))), Style::Plain);
        }
        line
    }

    fn text(&self, row: &lines::Row, options: RenderOptions) -> Styled {
        let says = lines::of(self, row.item, Some(options.now));
        let mut line = Styled::default();
        line.push(row.prefix.clone(), Style::Faint);
        let style = match row.item {
            Item::Unseen(_) => Style::Open,
            _ => Style::Plain,
        };
        line.push(says.subject, style);
        if !says.status.is_empty() {
            line.push("  ", Style::Plain);
            line.push(says.status, says.tone.into());
        }
        if let Item::Message(n) = row.item {
            let message = &self.messages[n];
            let app = message.published.as_ref().and_then(|published| published.app.as_ref());
            if let (Origin::Start | Origin::CauseNotRecorded, true, Some(app)) =
                (message.origin, message.own_job().is_none(), app)
            {
                line.push(format!("  by {app}"), Style::Faint);
            }
        }
        if let Some(gap) = says.gap {
            line.push(format!("  ({gap})"), Style::Open);
        }
        line
    }

    /// The job that a line shows, with the moment at which its message was published.
    fn job_of(&self, item: Item) -> Option<(Option<Timestamp>, &JobData)> {
        let (message, job) = match item {
            Item::Message(n) => (n, self.messages[n].own_job()?),
            Item::Job(n, job) => (n, job),
            Item::Unseen(_) => return None,
        };
        let message = &self.messages[message];
        let published = message.published.as_ref().map(|published| published.at);
        Some((published, &message.jobs[job]))
    }

    /// A line for each attempt and for what held it back, unless there is nothing to say but that it was done; then what
    /// is known of the one that has not ended.
    fn attempts(
        &self,
        below: &str,
        published: Option<Timestamp>,
        job: &JobData,
        options: RenderOptions,
        out: &mut String,
    ) {
        let quiet = |attempt: &AttemptRecord| attempt.end == AttemptEnd::Done && attempt.error.is_none();
        let holds: Vec<Vec<Detail>> =
            (0..job.attempts.len()).map(|n| details::before(self, published, job, n)).collect();
        if !job.attempts.iter().all(quiet) || holds.iter().any(|holds| !holds.is_empty()) {
            self.tries(below, job, &holds, options, out);
        }
        for detail in details::after(self, published, job, options) {
            write_detail(below, &detail, options, out);
        }
    }

    fn tries(
        &self,
        below: &str,
        job: &JobData,
        holds: &[Vec<Detail>],
        options: RenderOptions,
        out: &mut String,
    ) {
        let half = MAX_ATTEMPTS / 2;
        let hidden = job.attempts.len().saturating_sub(MAX_ATTEMPTS);
        for (n, attempt) in job.attempts.iter().enumerate() {
            let mut line = Styled::default();
            line.push(format!("{below}  "), Style::Faint);
            if hidden > 0 && n == half {
                line.push(format!("… {hidden} more attempts"), Style::Faint);
                line.write(out, options.color);
                continue;
            }
            if hidden > 0 && (half..half + hidden).contains(&n) {
                continue;
            }
            for hold in &holds[n] {
                write_detail(below, hold, options, out);
            }
            let last = n + 1 == job.attempts.len();
            say_attempt(attempt, last && !job.state.is_final(), options, &mut line);
            line.cut(options.width);
            line.write(out, options.color);
        }
    }
}

/// A line below a job that is no attempt.
fn write_detail(below: &str, detail: &Detail, options: RenderOptions, out: &mut String) {
    let mut line = Styled::default();
    line.push(format!("{below}  "), Style::Faint);
    line.push(detail.text.clone(), detail.style);
    line.cut(options.width);
    line.write(out, options.color);
}

/// `2 timeout after 5.0s, again in 2.0s: connection timed out`.
fn say_attempt(attempt: &AttemptRecord, open: bool, options: RenderOptions, line: &mut Styled) {
    let (ended, recovery) = (attempt.started + attempt.took, attempt.phase == Phase::Recover);
    let number = if recovery { format!("recovery {}", attempt.attempt) } else { attempt.attempt.to_string() };
    line.push(format!("{number} "), Style::Faint);
    let after = if options.timing { format!(" after {}", duration(attempt.took)) } else { String::new() };
    let (word, style, follows) = match &attempt.end {
        AttemptEnd::Done => ("done", Style::Good, String::new()),
        AttemptEnd::Retry { class, due } => {
            let again = match (open, options.timing) {
                (true, _) => format!(", next due {}", relative(*due, options.now)),
                (false, true) => format!(", next due {} later", duration(due.since(ended))),
                (false, false) => String::new(),
            };
            (class.as_str(), Style::Bad, again)
        }
        AttemptEnd::GaveUp { class, reason } => {
            let reason = reason.as_str().replace('_', " ");
            let pending = if open { ", recovery pending" } else { "" };
            (class.as_str(), Style::Bad, format!(", gave up ({reason}){pending}"))
        }
        AttemptEnd::Failed { recovered: true, .. } => ("done", Style::Good, String::new()),
        AttemptEnd::Failed { reason, .. } => {
            let follows =
                if recovery { String::new() } else { format!(" ({})", reason.as_str().replace('_', " ")) };
            ("failed", Style::Bad, follows)
        }
        AttemptEnd::Lost => ("came too late", Style::Open, String::new()),
        _ => ("ended", Style::Plain, String::new()),
    };
    line.push(word, style);
    line.push(format!("{after}{follows}"), Style::Plain);
    if let Some(error) = &attempt.error {
        line.push(": ", Style::Plain);
        line.push(safe(error, MAX_ERROR), Style::Plain);
    }
}

/// How long a job took from its first start to its last end, and what it waited before if that can be felt.
fn took(job: &JobData) -> String {
    let start = job.attempts.iter().map(|attempt| attempt.started).min();
    let end = job.attempts.iter().map(|attempt| attempt.started + attempt.took).max();
    match (job.attempts.as_slice(), start, end) {
        // Timestamps are whole milliseconds, `took` is finer.
        ([only], _, _) => duration(only.took),
        (_, Some(start), Some(end)) => duration(end.since(start)),
        _ => String::new(),
    }
}

/// The common time axis of the bars.
struct Axis {
    start: Timestamp,
    span: Duration,
    columns: usize,
}

impl Axis {
    fn of(cascade: &Cascade, options: RenderOptions, time_columns: usize) -> Self {
        let (start, end) = cascade.extent().unwrap_or_default();
        let columns = if options.width < MIN_WIDTH_FOR_BARS {
            0
        } else {
            (options.width.saturating_sub(time_columns) * 3 / 10).clamp(12, 60)
        };
        Self { start, span: end.since(start), columns }
    }

    /// The column in which a moment lies.
    fn place(&self, at: Timestamp) -> usize {
        let last = self.columns.saturating_sub(1);
        if self.span.is_zero() {
            return 0;
        }
        let part = at.since(self.start).as_secs_f64() / self.span.as_secs_f64();
        // In range by the clamp.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a terminal's width"
        )]
        let column = (part.clamp(0.0, 1.0) * last as f64).round() as usize;
        column
    }

    fn draw(&self, published: Option<Timestamp>, job: &JobData, holds: &[Hold], line: &mut Styled) {
        if self.columns == 0 {
            return;
        }
        let mut cells = vec![(' ', Style::Plain); self.columns];
        let mut fill = |from: usize, to: usize, cell: (char, Style)| {
            for place in &mut cells[from..=to.max(from)] {
                *place = cell;
            }
        };
        let started = job.attempts.iter().map(|attempt| attempt.started).min();
        let ended = job.attempts.iter().map(|attempt| attempt.started + attempt.took).max();
        let end_of_axis = self.columns - 1;
        if let Some(published) = published {
            let until = match started {
                Some(started) => Some(self.place(started)),
                None => job.state.is_pending().then_some(end_of_axis),
            };
            let from = self.place(published);
            if let Some(until) = until.filter(|&until| until >= from) {
                fill(from, until, ('░', Style::Faint));
            }
        }
        if let (Some(started), Some(ended)) = (started, ended) {
            let until = if job.state.is_pending() { end_of_axis } else { self.place(ended) };
            fill(self.place(started), until, ('·', Style::Faint));
        }
        // What it was held by, while it waited.
        let waited = published.or(started).zip(if job.state.is_pending() {
            Some(self.start + self.span)
        } else {
            job.attempts.last().map(|attempt| attempt.started)
        });
        let of_queue =
            holds.iter().filter(|hold| hold.queues.iter().any(|queue| *queue == *job.queue.as_str()));
        for hold in of_queue {
            let Some((from, until)) = waited.filter(|(from, until)| !hold.within(*from, *until).is_zero())
            else {
                continue;
            };
            let end = hold.until.unwrap_or(until).min(until);
            fill(self.place(hold.from.max(from)), self.place(end), ('▓', Style::Open));
        }
        for attempt in &job.attempts {
            let style = match (&attempt.end, attempt.phase, job.state) {
                (AttemptEnd::Done, ..) | (AttemptEnd::Failed { recovered: true, .. }, ..) => Style::Good,
                (AttemptEnd::Lost, ..) => Style::Open,
                _ => Style::Bad,
            };
            fill(self.place(attempt.started), self.place(attempt.started + attempt.took), ('█', style));
        }
        for (cell, style) in cells {
            match line.0.last_mut() {
                Some((text, last)) if *last == style => text.push(cell),
                _ => line.push(cell, style),
            }
        }
    }
}

/// `12:03:11.402`, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let millis = at.as_millis();
    let secs = millis / 1000;
    let (hours, minutes) = (secs / 3600 % 24, secs / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", secs % 60, millis % 1000)
}

fn columns(text: &str) -> usize {
    text.chars().map(column).sum()
}

/// How many columns a character takes, near enough: East Asian wide ones and emoji take two, combining marks none.
const fn column(c: char) -> usize {
    match c as u32 {
        0x0300..=0x036f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
