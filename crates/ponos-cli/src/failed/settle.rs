//! `ponos failed discard` and `ponos failed restore`: away, and back.

use ponos::Operation;
use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;
use serde::Serialize;

use super::args::{DiscardArgs, Filter, RestoreArgs};
use super::operation::{self, Act, How, Outcome, Plan, Settled};
use super::store::{self, Failed, Shelf};
use super::{args::Selector, select};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::{json, steer, text};

/// Which of the two.
#[derive(Debug)]
pub(super) enum Action {
    Discard(DiscardArgs),
    Restore(RestoreArgs),
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    action: &'static str,
    /// Whether it was only said what would be done.
    dry_run: bool,
    operation: Option<&'a str>,
    plan: &'a Plan,
    interrupted: bool,
    jobs: &'a [Settled],
}

/// How long a reason may be, in bytes.
const MAX_REASON: usize = 1000;

pub(super) async fn run(action: Action, session: &Session, out: &mut Output) -> Result<Exit, CliError> {
    match action {
        Action::Discard(args) => {
            let reason = text::line(&args.reason, MAX_REASON);
            if reason.trim().is_empty() {
                return Err(CliError::usage("the reason is empty", "say why with --reason TEXT"));
            }
            let jobs = select::jobs(session, Shelf::Failed, &args.which, &args.filter).await?;
            let confirmed = if args.dry_run { None } else { Some(args.yes) };
            carry_out(Act::Discard(&reason), jobs, confirmed, args.json, session, out).await?;
            forget_the_old(session, &args.filter).await;
        }
        Action::Restore(args) => {
            let jobs = discarded(&args.which, args.op.as_deref(), &args.filter, session).await?;
            // It takes nothing away.
            let confirmed = if args.dry_run { None } else { Some(true) };
            carry_out(Act::Restore, jobs, confirmed, args.json, session, out).await?;
        }
    }
    Ok(Exit::Ok)
}

async fn discarded(
    which: &[Selector],
    op: Option<&str>,
    filter: &Filter,
    session: &Session,
) -> Result<Vec<Failed>, CliError> {
    let mut jobs = select::jobs(session, Shelf::Discarded, which, filter).await?;
    if let Some(op) = op {
        let in_it = |job: &Failed| job.envelope.progress.discarded.as_ref().is_some_and(|by| by.op == op);
        jobs.retain(in_it);
        if jobs.is_empty() {
            return Err(CliError::refused(
                format!("no discarded job is of the operation `{}`", text::line(op, 64)),
                Shelf::Discarded.list(),
            ));
        }
    }
    Ok(jobs)
}

/// `confirmed` is `None` when it is only asked what would be done.
async fn carry_out(
    act: Act<'_>,
    jobs: Vec<Failed>,
    confirmed: Option<bool>,
    as_json: bool,
    session: &Session,
    out: &mut Output,
) -> Result<(), CliError> {
    let to = |job: &Failed| match act {
        Act::Restore => Some(QueueName::failed(&job.app)),
        _ => Some(QueueName::discarded(&job.app)),
    };
    let plan = Plan::of(&jobs, to, None);
    let mut document = Document {
        version: json::VERSION,
        action: act.verb(),
        dry_run: confirmed != Some(true),
        operation: None,
        plan: &plan,
        interrupted: false,
        jobs: &[],
    };
    if jobs.is_empty() {
        if as_json {
            json::print(&document, out);
        } else {
            let noun = if matches!(act, Act::Restore) { Shelf::Discarded } else { Shelf::Failed }.noun();
            out.line(&format!("no {noun}s"));
        }
        return Ok(());
    }
    if confirmed != Some(true) {
        if as_json {
            let planned: Vec<Settled> = jobs.iter().map(|job| planned(job, to(job))).collect();
            document.jobs = &planned;
            json::print(&document, out);
        } else {
            plan.print(act.verb(), None, out);
        }
        return match confirmed {
            None => Ok(()),
            Some(_) => Err(CliError::unconfirmed(format!(
                "nothing was done: this would {} {}",
                act.verb(),
                text::count(jobs.len() as u64, "job")
            ))),
        };
    }
    session.watch().await;
    let operation = Operation::begun_by(steer::whoami());
    let how = How { operation: &operation, act, rate: None, gate: None, json: as_json };
    let ran = operation::run(session, &jobs, how, out).await?;
    if as_json {
        document.operation = Some(&operation.id);
        document.interrupted = ran.interrupted;
        document.jobs = &ran.settled;
        json::print(&document, out);
    } else {
        ran.print(how, out);
        if matches!(act, Act::Discard(_)) && ran.done() > 0 {
            let days = ponos::DISCARDED_FOR.as_secs() / 86_400;
            let hint = format!("  kept for {days} days: ponos failed restore --op {}", operation.id);
            let hint = out.paint(crate::output::Tone::Faint, &hint);
            out.line(&hint);
        }
    }
    ran.conclude(how)
}

pub(super) fn planned(job: &Failed, queue: Option<QueueName>) -> Settled {
    Settled { app: job.app.clone(), id: job.envelope.id, result: Outcome::Planned, queue, problem: None }
}

/// RabbitMQ lets go of discarded jobs by itself; elsewhere it is done on the way. What goes wrong is done next time.
async fn forget_the_old(session: &Session, filter: &Filter) {
    if session.is_rabbitmq() {
        return;
    }
    let now = text::now();
    let is_old = |at: Timestamp| now.since(at) > ponos::DISCARDED_FOR;
    let Ok(jobs) = store::all(session, Shelf::Discarded, filter.app.as_ref()).await else { return };
    let old = jobs
        .into_iter()
        .filter(|job| job.envelope.progress.discarded.as_ref().is_some_and(|discarded| is_old(discarded.at)));
    for job in old {
        let bulk = ponos::Bulk::new(Operation::begun_by(""));
        let _ = store::jobs_of(session, &job.app).forget_many(vec![job.envelope.id], bulk).await;
    }
}
