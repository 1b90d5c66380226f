//! One operation on many jobs: what it would do, how far it is, how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ponos::core::broker::BrokerError;
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use ponos::{Bulk, BulkEnd, MessageId, Moved, MovedTo, Operation, Rate};
use serde::Serialize;

use super::circuits::Circuits;
use super::store::{self, Failed};
use crate::broker::Session;
use crate::error::CliError;
use crate::output::{Output, Tone};
use crate::text;

/// Up to so many jobs get a line each.
const LINES: usize = 20;

/// How often progress is told: on a terminal, and in a pipe.
const TELL_TERMINAL: Duration = Duration::from_millis(100);
const TELL_PIPE: Duration = Duration::from_secs(1);

/// The length of a progress bar.
const BAR: u64 = 24;

/// What an operation would do.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) jobs: usize,
    /// Where they would go.
    pub(super) queues: Vec<PlannedQueue>,
    /// Jobs whose report does not say where from.
    pub(super) without_report: usize,
    pub(super) transactions: usize,
    /// When the first of them failed.
    pub(super) oldest_at: Option<Timestamp>,
    /// How long it takes at its rate.
    pub(super) takes_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PlannedQueue {
    queue: QueueName,
    jobs: usize,
}

impl Plan {
    pub(super) fn of(jobs: &[Failed], to: impl Fn(&Failed) -> Option<QueueName>, rate: Option<Rate>) -> Self {
        let mut queues: BTreeMap<QueueName, usize> = BTreeMap::new();
        let mut without_report = 0;
        for job in jobs {
            match to(job) {
                Some(queue) => *queues.entry(queue).or_default() += 1,
                None => without_report += 1,
            }
        }
        let tids: BTreeSet<_> = jobs.iter().map(|job| &job.envelope.tid).collect();
        let takes_ms = rate.map(|rate| {
            let millis = rate.period().as_millis() * jobs.len() as u128 / u128::from(rate.count().max(1));
            u64::try_from(millis).unwrap_or(u64::MAX)
        });
        Self {
            jobs: jobs.len(),
            queues: queues.into_iter().map(|(queue, jobs)| PlannedQueue { queue, jobs }).collect(),
            without_report,
            transactions: tids.len(),
            oldest_at: jobs.iter().filter_map(|job| job.report()).map(|report| report.at).min(),
            takes_ms,
        }
    }

    pub(super) fn print(&self, verb: &str, rate: Option<Rate>, out: &mut Output) {
        let mut line = format!("would {verb} {}", text::count(self.jobs as u64, "job"));
        line.push_str(&format!(" of {}", text::count(self.transactions as u64, "transaction")));
        if let Some(oldest) = self.oldest_at {
            line.push_str(&format!(", the oldest failed {} ago", text::duration(text::now().since(oldest))));
        }
        out.line(&line);
        for PlannedQueue { queue, jobs } in &self.queues {
            out.line(&format!("  {jobs} → {queue}"));
        }
        if self.without_report > 0 {
            let cannot = format!("  {} no report, so nobody knows where from: left", self.without_report);
            let cannot = out.paint(Tone::Bad, &cannot);
            out.line(&cannot);
        }
        if let (Some(rate), Some(millis)) = (rate, self.takes_ms) {
            let takes = text::duration(Duration::from_millis(millis));
            let per = text::duration(rate.period());
            out.line(&format!("  {} per {per} ≈ {takes}", rate.count()));
        }
    }
}

/// What became of one job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settled {
    pub(super) app: AppName,
    pub(super) id: MessageId,
    pub(crate) result: Outcome,
    /// Where it is now, or would go.
    pub(super) queue: Option<QueueName>,
    pub(super) problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It would be done with `--yes`.
    Planned,
    Done,
    /// Done, and perhaps still in the list: the broker went away before it said so.
    Twice,
    /// Somebody else took it meanwhile.
    NotThere,
    /// The broker did not take it; it is still where it was.
    Refused,
}

/// What is done with the jobs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act<'a> {
    Retry,
    /// With the reason.
    Discard(&'a str),
    Restore,
}

impl Act<'_> {
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard(_) => "discard",
            Self::Restore => "restore",
        }
    }

    pub(super) const fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Discard(_) => "discarded",
            Self::Restore => "restored",
        }
    }

    /// Where the jobs stay that it is not done to.
    const fn left(self) -> &'static str {
        match self {
            Self::Retry | Self::Discard(_) => "failed",
            Self::Restore => "discarded",
        }
    }
}

/// How it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct How<'a> {
    pub(super) operation: &'a Operation,
    pub(super) act: Act<'a>,
    pub(super) rate: Option<Rate>,
    pub(super) gate: Option<&'a Circuits<'a>>,
    pub(super) json: bool,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) settled: Vec<Settled>,
    pub(super) interrupted: bool,
    /// The broker went away.
    broken: Option<BrokerError>,
    total: usize,
}

impl Ran {
    fn count(&self, result: Outcome) -> usize {
        self.settled.iter().filter(|job| job.result == result).count()
    }

    pub(super) fn done(&self) -> usize {
        self.count(Outcome::Done) + self.count(Outcome::Twice)
    }

    /// Says it in one line, and names what may be in both places.
    pub(super) fn print(&self, how: How<'_>, out: &mut Output) {
        let twice: Vec<_> = self.settled.iter().filter(|job| job.result == Outcome::Twice).collect();
        if !twice.is_empty() {
            let warning = out.paint(Tone::Bad, "warning:");
            let jobs = text::count(twice.len() as u64, "job");
            out.line(&format!("{warning} {jobs} may be still among the {} ones too:", how.act.left()));
            for job in twice {
                out.line(&format!("  {}", job.id));
            }
        }
        let jobs = text::count(self.total as u64, "job");
        let line = format!("{} {} of {jobs}, as {}", how.act.done(), self.done(), how.operation.id);
        out.line(&line);
    }

    /// Says in the error whether everything was done.
    pub(super) fn conclude(self, how: How<'_>) -> Result<(), CliError> {
        let (done, total) = (self.done(), self.total);
        let (verb, left) = (how.act.done(), total - done);
        let stay = how.act.left();
        if let Some(error) = self.broken {
            return Err(CliError::broker(
                format!(
                    "{error}; {done} of {} {verb}, {left} still {stay}",
                    text::count(total as u64, "job")
                ),
                "the same command goes on with those that are left",
            ));
        }
        if self.interrupted {
            return Err(CliError::refused(
                format!(
                    "interrupted: {done} of {} {verb}, {left} still {stay}",
                    text::count(total as u64, "job")
                ),
                "the same command goes on with those that are left",
            ));
        }
        if left > 0 {
            return Err(CliError::refused(
                format!("{left} of {} not {verb}", text::count(total as u64, "job")),
                "`ponos failed list` shows what is still there",
            ));
        }
        Ok(())
    }
}

/// Runs one bulk operation for each application, until all is done or somebody interrupts it.
///
/// # Errors
///
/// When signals cannot be listened for. All else is in what is answered.
pub(super) async fn run(
    session: &Session,
    jobs: &[Failed],
    how: How<'_>,
    out: &mut Output,
) -> Result<Ran, CliError> {
    let mut signals = Signals::listen()?;
    let total = jobs.iter().map(|job| (&job.app, job.envelope.id)).collect::<BTreeSet<_>>().len();
    let mut progress = Progress::new(total, how, out.is_terminal());
    let told = |told: Told<'_>| match told {
        Told::Settled(settled) => progress.tell(settled, out),
        Told::Waits(queue, reason) => progress.wait(queue, reason, out),
    };
    let ran = carry_out(session, jobs, how, &mut signals, told).await;
    progress.end(out);
    Ok(ran)
}

/// What an operation tells while it goes on.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// This became of a job.
    Settled(&'a Settled),
    /// It waits for the circuit of this queue, for this reason if it is known.
    Waits(&'a QueueName, Option<String>),
}

/// What ends an operation before it is done.
pub(crate) trait Stop: Send {
    /// Is ready when it is to end.
    fn stopped(&mut self) -> impl Future<Output = ()> + Send;
}

impl Stop for Signals {
    fn stopped(&mut self) -> impl Future<Output = ()> + Send {
        self.interrupted()
    }
}

/// The same for those who are no program of their own.
pub(super) async fn carry_out(
    session: &Session,
    jobs: &[Failed],
    how: How<'_>,
    stop: &mut impl Stop,
    mut told: impl FnMut(Told<'_>) + Send,
) -> Ran {
    let mut by_app: BTreeMap<&AppName, Vec<MessageId>> = BTreeMap::new();
    let mut distinct = BTreeSet::new();
    for job in jobs {
        if distinct.insert((&job.app, job.envelope.id)) {
            by_app.entry(&job.app).or_default().push(job.envelope.id);
        }
    }
    let total = distinct.len();
    let mut ran = Ran { settled: Vec::new(), interrupted: false, broken: None, total };
    for (app, ids) in by_app {
        let jobs = store::jobs_of(session, app);
        let settled = &mut ran.settled;
        let note_it = |moved: Moved| {
            if let (MovedTo::Waits(queue), Some(gate)) = (&moved.to, how.gate) {
                told(Told::Waits(queue, gate.reason(queue)));
            }
            if let Some(one) = note(app, moved) {
                told(Told::Settled(&one));
                settled.push(one);
            }
        };
        let mut bulk = Bulk::new(how.operation.clone()).stop(stop.stopped()).told(note_it);
        if let Some(rate) = how.rate {
            bulk = bulk.rate(rate);
        }
        if let Some(gate) = how.gate {
            bulk = bulk.gate(gate);
        }
        let end = match how.act {
            Act::Retry => jobs.retry_many(ids, bulk).await,
            Act::Discard(reason) => jobs.discard_many(ids, reason, bulk).await,
            Act::Restore => jobs.restore_many(ids, bulk).await,
        };
        match end {
            Ok(BulkEnd::Finished) => {}
            Ok(BulkEnd::Stopped) => {
                ran.interrupted = true;
                break;
            }
            Err(error) => {
                ran.broken = Some(error);
                break;
            }
        }
    }
    ran
}

fn note(app: &AppName, moved: Moved) -> Option<Settled> {
    let (result, queue, problem) = match moved.to {
        MovedTo::Queue(queue) => (Outcome::Done, Some(queue), None),
        MovedTo::Gone => (Outcome::Done, None, None),
        MovedTo::Both(queue) => (Outcome::Twice, Some(queue), None),
        MovedTo::NotThere => (Outcome::NotThere, None, None),
        MovedTo::Refused(error) => (Outcome::Refused, None, Some(error.to_string())),
        _ => return None,
    };
    Some(Settled { app: app.clone(), id: moved.id, result, queue, problem })
}

/// How far it is: a line that is written over on a terminal, a line now and then elsewhere.
struct Progress {
    total: usize,
    good: usize,
    bad: usize,
    told: Option<Instant>,
    terminal: bool,
    json: bool,
    /// Whether each job has its own line.
    each: bool,
    act_done: &'static str,
    /// Whether the cursor is behind a bar.
    open: bool,
    /// What was said last of what is waited for.
    waits: Option<String>,
}

impl Progress {
    fn new(total: usize, how: How<'_>, terminal: bool) -> Self {
        Self {
            total,
            good: 0,
            bad: 0,
            told: None,
            terminal,
            json: how.json,
            each: total <= LINES,
            act_done: how.act.done(),
            open: false,
            waits: None,
        }
    }

    /// Says once what is waited for, and again when that changes.
    fn wait(&mut self, queue: &QueueName, reason: Option<String>, out: &mut Output) {
        let line =
            format!("waiting for {queue}: {}", reason.as_deref().unwrap_or("its circuit is not closed"));
        if self.json || self.waits.as_ref() == Some(&line) {
            return;
        }
        self.close(out);
        let shown = out.paint(Tone::Faint, &format!("{line}; ^C leaves the others where they are"));
        out.line(&shown);
        out.flush();
        self.waits = Some(line);
    }

    fn tell(&mut self, job: &Settled, out: &mut Output) {
        let good = matches!(job.result, Outcome::Done | Outcome::Twice);
        *(if good { &mut self.good } else { &mut self.bad }) += 1;
        if self.json {
            return;
        }
        if self.each || !good {
            self.close(out);
            let line = self.line(job, out);
            out.line(&line);
            out.flush();
            if self.each {
                return;
            }
        }
        let pause = if self.terminal { TELL_TERMINAL } else { TELL_PIPE };
        if self.told.is_none_or(|told| told.elapsed() >= pause) {
            self.told = Some(Instant::now());
            self.show(out);
        }
    }

    fn line(&self, job: &Settled, out: &Output) -> String {
        let id = job.id;
        let queue = job.queue.as_ref().map(|queue| format!(" → {queue}")).unwrap_or_default();
        match job.result {
            Outcome::Planned | Outcome::Done | Outcome::Twice => {
                format!("{} {id}{queue}", out.paint(Tone::Good, self.act_done))
            }
            Outcome::NotThere => format!("{} {id}: it is not there any more", out.paint(Tone::Bad, "left")),
            Outcome::Refused => {
                let problem = text::one_line(job.problem.as_deref().unwrap_or_default());
                format!("{} {id}: {problem}", out.paint(Tone::Bad, "left"))
            }
        }
    }

    fn show(&mut self, out: &mut Output) {
        let (all, total) = (self.good + self.bad, self.total);
        if self.terminal {
            let full = BAR * all as u64 / (total as u64).max(1);
            let bar: String = (0..BAR).map(|n| if n < full { '#' } else { '.' }).collect();
            let (good, bad) = (format!("✔ {}", self.good), format!("✖ {}", self.bad));
            let (good, bad) = (out.paint(Tone::Good, &good), out.paint(Tone::Bad, &bad));
            out.write(&format!("\r\x1b[K[{bar}] {all}/{total}  {good}  {bad}"));
            self.open = true;
        } else {
            out.line(&format!("{} {} of {total}", self.act_done, self.good));
        }
        out.flush();
    }

    /// Leaves the bar's line.
    fn close(&mut self, out: &mut Output) {
        if std::mem::take(&mut self.open) {
            out.write("\r\x1b[K");
        }
    }

    fn end(&mut self, out: &mut Output) {
        if self.open {
            self.show(out);
            out.write("\n");
            self.open = false;
        }
    }
}

/// ^C, and the request to end.
#[cfg(unix)]
pub(super) struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> Result<Self, CliError> {
        use tokio::signal::unix::{SignalKind, signal};
        let both =
            signal(SignalKind::interrupt()).and_then(|one| Ok(Self(one, signal(SignalKind::terminate())?)));
        both.map_err(|error| {
            CliError::refused(
                format!("signals cannot be listened for: {error}"),
                "free some memory, then try again",
            )
        })
    }

    pub(super) async fn interrupted(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// ^C.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> Result<Self, CliError> {
        Ok(Self)
    }

    pub(super) async fn interrupted(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
