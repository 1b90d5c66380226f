//! `ponos failed retry`: back into their queues, and what becomes of them there.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;
use ponos::{MessageId, Operation};
use serde::Serialize;

use super::args::RetryArgs;
use super::circuits::Circuits;
use super::operation::{self, Act, How, Outcome as Went, Plan, Ran, Settled, Signals};
use super::records::{self, Outcome};
use super::select;
use super::settle::planned;
use super::store::{self, Failed, Shelf};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, steer, text};

/// How long is waited before looking again at what became of jobs.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// By how much the clocks of two hosts may differ for records to be found.
const CLOCKS: Duration = Duration::from_secs(300);

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    action: &'static str,
    /// Whether it was only said what would be done.
    dry_run: bool,
    operation: Option<&'a str>,
    plan: &'a Plan,
    /// Jobs that an interrupted operation may have put back already; `null` when records could not be read.
    possible_duplicates: Option<&'a [MessageId]>,
    skipped: usize,
    interrupted: bool,
    jobs: &'a [Settled],
    /// With `--wait`.
    balance: Option<&'a Balance>,
}

/// retried = done + failed again + pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Balance {
    retried: usize,
    done: usize,
    failed_again: usize,
    pub(super) pending: usize,
}

pub(super) async fn run(args: RetryArgs, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    // A list of what is there now: what fails again meanwhile is not retried again.
    let mut jobs = select::jobs(session, Shelf::Failed, &args.which, &args.filter).await?;
    let duplicates = duplicates(session, &jobs).await;
    let mut skipped = 0;
    if args.skip_duplicates
        && let Ok(duplicates) = &duplicates
    {
        let before = jobs.len();
        let duplicates: HashSet<&MessageId> = duplicates.iter().collect();
        jobs.retain(|job| !duplicates.contains(&job.envelope.id));
        skipped = before - jobs.len();
    }
    let plan = Plan::of(&jobs, back_to, args.rate);
    let mut document = Document {
        version: json::VERSION,
        action: "retry",
        dry_run: !args.yes,
        operation: None,
        plan: &plan,
        possible_duplicates: duplicates.as_deref().ok(),
        skipped,
        interrupted: false,
        jobs: &[],
        balance: None,
    };
    if !args.json {
        warn(&jobs, &duplicates, skipped, out);
    }
    if jobs.is_empty() {
        if args.json {
            json::print(&document, out);
        } else {
            out.line("no failed jobs");
        }
        return Ok(Exit::Ok);
    }
    if !args.yes {
        if args.json {
            let planned: Vec<Settled> = jobs.iter().map(|job| planned(job, back_to(job))).collect();
            document.jobs = &planned;
            json::print(&document, out);
        } else {
            plan.print("retry", args.rate, out);
        }
        return if args.dry_run {
            Ok(Exit::Ok)
        } else {
            let jobs = text::count(jobs.len() as u64, "job");
            Err(CliError::unconfirmed(format!("nothing was done: this would retry {jobs}")))
        };
    }

    session.watch().await;
    let operation = Operation::begun_by(steer::whoami());
    let gate = if args.when_circuit_closed { Some(Circuits::open(session).await?) } else { None };
    let how =
        How { operation: &operation, act: Act::Retry, rate: args.rate, gate: gate.as_ref(), json: args.json };
    let ran = operation::run(session, &jobs, how, out).await?;
    if !args.json {
        ran.print(how, out);
    }
    let balance = match args.wait {
        Some(wait) if !ran.interrupted => Some(wait_for(wait, &jobs, &ran, &operation, session).await?),
        _ => None,
    };
    if args.json {
        document.operation = Some(&operation.id);
        document.interrupted = ran.interrupted;
        document.jobs = &ran.settled;
        document.balance = balance.as_ref();
        json::print(&document, out);
    } else if let Some(balance) = &balance {
        print(balance, out);
    } else if ran.done() > 0 {
        let hint =
            "  retried is not resolved: what fails again is in `ponos failed list`, and --wait waits for it";
        let hint = out.paint(Tone::Faint, hint);
        out.line(&hint);
    }
    ran.conclude(how)?;
    match balance {
        Some(balance) if balance.done < balance.retried => Err(CliError::refused(
            format!(
                "{} failed again, {} pending, of {} retried",
                balance.failed_again,
                balance.pending,
                text::count(balance.retried as u64, "job")
            ),
            "`ponos failed list` shows why, `ponos queues` shows what waits",
        )),
        _ => Ok(Exit::Ok),
    }
}

pub(super) fn back_to(job: &Failed) -> Option<QueueName> {
    job.report().map(|report| report.queue.clone())
}

/// What records tell of operations that were interrupted.
async fn duplicates(session: &Session, jobs: &[Failed]) -> Result<Vec<MessageId>, String> {
    let Some(oldest) = jobs.iter().filter_map(Failed::report).map(|report| report.at).min() else {
        return Ok(Vec::new());
    };
    let attempts = records::attempts(session, jobs, oldest).await?;
    Ok(records::possible_duplicates(jobs, &attempts))
}

fn warn(jobs: &[Failed], duplicates: &Result<Vec<MessageId>, String>, skipped: usize, out: &mut Output) {
    let warning = out.paint(Tone::Bad, "warning:");
    match duplicates {
        Ok(duplicates) if duplicates.is_empty() => {}
        Ok(duplicates) => {
            let count = text::count(duplicates.len() as u64, "possible duplicate");
            let fate = if skipped > 0 { "left alone" } else { "--skip-duplicates leaves them alone" };
            out.line(&format!(
                "{warning} {count}, run in their queues after they had failed, as if an operation was interrupted; {fate}:"
            ));
            for id in duplicates {
                out.line(&format!("  {id}"));
            }
        }
        Err(problem) => {
            let problem = text::one_line(problem);
            out.line(&format!("{warning} what was put back already is not known: {problem}"));
        }
    }
    let again = jobs.iter().filter(|job| job.envelope.progress.retried.is_some()).count();
    if again > 0 {
        out.line(&format!("{} failed again after being retried by hand", text::count(again as u64, "job")));
    }
}

/// Looks at what becomes of the jobs until nothing is pending, the time is up, or somebody interrupts it.
async fn wait_for(
    wait: Duration,
    jobs: &[Failed],
    ran: &Ran,
    operation: &Operation,
    session: &Session,
) -> Result<Balance, CliError> {
    let of_them = moved(jobs, &ran.settled);
    let mut signals = Signals::listen()?;
    let started = Instant::now();
    loop {
        let balance = balance(&of_them, operation, session).await?;
        if balance.pending == 0 || started.elapsed() >= wait {
            return Ok(balance);
        }
        tokio::select! {
            () = signals.interrupted() => return Ok(balance),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// The jobs that were put back.
pub(super) fn moved<'a>(jobs: &'a [Failed], settled: &[Settled]) -> Vec<&'a Failed> {
    let retried: HashSet<(&str, MessageId)> = settled
        .iter()
        .filter(|job| matches!(job.result, Went::Done | Went::Twice))
        .map(|job| (job.app.as_str(), job.id))
        .collect();
    jobs.iter().filter(|job| retried.contains(&(job.app.as_str(), job.envelope.id))).collect()
}

/// What has become of jobs that were put back.
///
/// # Errors
///
/// When the broker does not answer.
pub(super) async fn balance(
    of_them: &[&Failed],
    operation: &Operation,
    session: &Session,
) -> Result<Balance, CliError> {
    let apps: BTreeSet<_> = of_them.iter().map(|job| &job.app).collect();
    let since = Timestamp::from_millis(
        operation.at.as_millis().saturating_sub(u64::try_from(CLOCKS.as_millis()).unwrap_or_default()),
    );
    let mut failed: HashMap<&str, HashMap<MessageId, Timestamp>> = HashMap::new();
    for app in &apps {
        let there = store::of(session, Shelf::Failed, app).await?;
        let times = failed.entry(app.as_str()).or_default();
        for job in there {
            if let Some(report) = job.report() {
                let at = times.entry(job.envelope.id).or_insert(report.at);
                *at = report.at.max(*at);
            }
        }
    }
    // Without records what is done cannot be told from what waits.
    let attempts = records::attempts(session, of_them.iter().copied(), since).await.unwrap_or_default();
    let mut balance = Balance { retried: of_them.len(), ..Balance::default() };
    for job in of_them {
        let failed = failed.get(job.app.as_str()).expect("every application was looked at");
        match records::outcome_of(job, operation.at, failed, &attempts) {
            Outcome::Done => balance.done += 1,
            Outcome::FailedAgain => balance.failed_again += 1,
            Outcome::Pending => balance.pending += 1,
        }
    }
    Ok(balance)
}

fn print(balance: &Balance, out: &mut Output) {
    let Balance { retried, done, failed_again, pending } = balance;
    let (done, again) = (format!("{done} done"), format!("{failed_again} failed again"));
    let (done, again) = (out.paint(Tone::Good, &done), out.paint(Tone::Bad, &again));
    out.line(&format!("retried {retried} = {done} + {again} + {pending} still pending"));
}
