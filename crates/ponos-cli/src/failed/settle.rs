//! `ponos failed retry` and `ponos failed discard`: out of the queue of failed jobs, one by one.

use std::collections::BTreeSet;

use ponos::core::broker::BrokerError;
use ponos::core::name::{AppName, QueueName};
use ponos::{MessageId, RetryFailed};
use serde::Serialize;

use super::SettleArgs;
use super::store::{self, Failed};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// What is done with the jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Retry,
    Discard,
}

impl Action {
    const fn verb(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Discard => "discard",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "retried",
            Self::Discard => "discarded",
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    action: Action,
    /// Whether it was only said what would be done.
    dry_run: bool,
    jobs: &'a [Settled],
}

#[derive(Serialize)]
struct Settled {
    app: AppName,
    id: MessageId,
    result: Outcome,
    /// Where it is now, or would go.
    queue: Option<QueueName>,
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It would be done with `--yes`.
    Planned,
    Done,
    /// Somebody else took it meanwhile.
    NotThere,
    /// The broker did not take it; it is still among the failed ones.
    Refused,
}

pub(super) async fn run(
    action: Action,
    args: SettleArgs,
    session: &Session,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let apps = store::apps(session, args.app.as_ref()).await?;
    let jobs = if args.all {
        // A list of what is there now: what fails again meanwhile is not retried again.
        store::all(session, args.app.as_ref()).await?
    } else {
        // All are looked up first, so that a typing error does nothing by halves.
        let mut ids = args.ids;
        let mut seen = BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        let mut jobs = Vec::new();
        for id in ids {
            jobs.push(store::the_one(session, &apps, id).await?);
        }
        jobs
    };
    let dry_run = args.all && !args.yes;
    let mut settled = Vec::with_capacity(jobs.len());
    let mut broken = Ok(());
    for job in jobs {
        let one = if dry_run {
            plan(action, job)
        } else {
            match settle(action, job, session).await {
                Ok(one) => one,
                Err(error) => {
                    broken = Err(error);
                    break;
                }
            }
        };
        if !args.json {
            print(action, &one, out);
        }
        settled.push(one);
    }
    if args.json {
        json::print(&Document { version: json::VERSION, action, dry_run, jobs: &settled }, out);
    } else if settled.is_empty() && broken.is_ok() {
        out.line("no failed jobs");
    }
    broken?;
    conclude(action, &settled)
}

/// Says in the exit code whether everything was done.
fn conclude(action: Action, settled: &[Settled]) -> Result<Exit, CliError> {
    let count = |result| settled.iter().filter(|job| job.result == result).count() as u64;
    let planned = count(Outcome::Planned);
    if planned > 0 {
        return Err(CliError::refused(
            format!("nothing was done: this would {} {}", action.verb(), text::count(planned, "job")),
            "say --yes to do it, or name the jobs",
        ));
    }
    let undone = count(Outcome::NotThere) + count(Outcome::Refused);
    if undone > 0 {
        return Err(CliError::refused(
            format!("{undone} of {} not {}", text::count(settled.len() as u64, "job"), action.done()),
            "`ponos failed list` shows what is still there",
        ));
    }
    Ok(Exit::Ok)
}

fn plan(action: Action, job: Failed) -> Settled {
    let queue = match action {
        Action::Retry => job.envelope.report.map(|report| report.queue),
        Action::Discard => Some(QueueName::discarded(&job.app)),
    };
    Settled { app: job.app, id: job.envelope.id, result: Outcome::Planned, queue, problem: None }
}

/// # Errors
///
/// When the broker does not answer: the next job would meet the same.
async fn settle(action: Action, job: Failed, session: &Session) -> Result<Settled, CliError> {
    let jobs = store::jobs_of(session, &job.app);
    let id = job.envelope.id;
    let answer: Result<Option<QueueName>, BrokerError> = match action {
        Action::Retry => session.ask(jobs.retry(id)).await.map(|retried| match retried {
            RetryFailed::Retried(queue) => Some(queue),
            _ => None,
        }),
        Action::Discard => session
            .ask(jobs.discard(id))
            .await
            .map(|was_there| was_there.then(|| QueueName::discarded(&job.app))),
    };
    let (result, queue, problem) = match answer {
        Ok(Some(queue)) => (Outcome::Done, Some(queue), None),
        Ok(None) => (Outcome::NotThere, None, None),
        Err(error) if error.is_temporary() => return Err(error.into()),
        Err(error) => (Outcome::Refused, None, Some(error.to_string())),
    };
    Ok(Settled { app: job.app, id, result, queue, problem })
}

fn print(action: Action, job: &Settled, out: &mut Output) {
    let queue = job.queue.as_ref().map(|queue| format!(" → {queue}")).unwrap_or_default();
    let id = job.id;
    let line = match job.result {
        Outcome::Planned => format!("would {} {id}{queue}", action.verb()),
        Outcome::Done => format!("{} {id}{queue}", out.paint(Tone::Good, action.done())),
        Outcome::NotThere => format!("{} {id}: it is not there any more", out.paint(Tone::Bad, "left")),
        Outcome::Refused => {
            let problem = text::one_line(job.problem.as_deref().unwrap_or_default());
            format!("{} {id}: {problem}", out.paint(Tone::Bad, "left"))
        }
    };
    out.line(&line);
}
