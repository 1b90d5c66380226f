//! Which applications have failed jobs, and reading them.

use std::sync::Arc;

use ponos::core::Bytes;
use ponos::core::broker::BrokerErrorKind;
use ponos::core::envelope::Envelope;
use ponos::core::name::{AppName, QueueName};
use ponos::{FailedJobs, MessageId};

use crate::broker::Session;
use crate::error::CliError;

/// How many jobs are read at once: with bodies of 1 MiB each this is what is in memory.
const PAGE: usize = 100;

/// How often a list is begun anew because the job that a page ended with was taken away meanwhile.
const RESTARTS: usize = 5;

/// A failed job of an application.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) app: AppName,
    pub(super) envelope: Envelope,
}

pub(super) fn jobs_of(session: &Session, app: &AppName) -> FailedJobs {
    FailedJobs::new(Arc::clone(session.broker()), app.clone())
}

/// The applications whose queue of failed jobs is not empty, or this one, which must be there.
///
/// # Errors
///
/// When the broker does not answer, or knows no such application.
pub(super) async fn apps(session: &Session, app: Option<&AppName>) -> Result<Vec<AppName>, CliError> {
    let queues = match app {
        Some(app) => vec![session.failed_queue(app).await?],
        None => session.queues(None).await?,
    };
    let with_jobs = queues.into_iter().filter_map(|stats| {
        let owner = stats.queue.app();
        (stats.queue == QueueName::failed(&owner) && stats.messages() > 0).then_some(owner)
    });
    Ok(with_jobs.collect())
}

/// All failed jobs without their bodies, oldest first for each application.
///
/// # Errors
///
/// When the broker does not answer.
pub(super) async fn all(session: &Session, app: Option<&AppName>) -> Result<Vec<Failed>, CliError> {
    let mut all = Vec::new();
    for app in apps(session, app).await? {
        let jobs = jobs_of(session, &app);
        let mut restarts = 0;
        let mut found: Vec<Envelope> = Vec::new();
        loop {
            let after = found.last().map(|last| last.id);
            let page = match session.ask(jobs.list(PAGE, after)).await {
                Err(error)
                    if error.kind() == BrokerErrorKind::NotFound
                        && after.is_some()
                        && restarts < RESTARTS =>
                {
                    restarts += 1;
                    found.clear();
                    continue;
                }
                page => page?,
            };
            let is_last = page.len() < PAGE;
            found.extend(page.into_iter().map(|envelope| Envelope { body: Bytes::new(), ..envelope }));
            if is_last {
                break;
            }
        }
        all.extend(found.into_iter().map(|envelope| Failed { app: app.clone(), envelope }));
    }
    Ok(all)
}

/// Every failed job with this id: one event can fail in several applications.
///
/// # Errors
///
/// When the broker does not answer.
pub(super) async fn with_id(
    session: &Session,
    apps: &[AppName],
    id: MessageId,
) -> Result<Vec<Failed>, CliError> {
    let mut found = Vec::new();
    for app in apps {
        if let Some(envelope) = session.ask(jobs_of(session, app).show(id)).await? {
            found.push(Failed { app: app.clone(), envelope });
        }
    }
    Ok(found)
}

/// The one failed job with this id.
///
/// # Errors
///
/// When there is none or several, or the broker does not answer.
pub(super) async fn the_one(session: &Session, apps: &[AppName], id: MessageId) -> Result<Failed, CliError> {
    let mut found = with_id(session, apps, id).await?;
    match found.len() {
        0 => Err(CliError::refused(
            format!("no failed job has the id {id}"),
            "`ponos failed list` shows those there are",
        )),
        1 => Ok(found.remove(0)),
        _ => {
            let apps: Vec<&str> = found.iter().map(|job| job.app.as_str()).collect();
            Err(CliError::refused(
                format!("the event {id} failed in several applications: {}", apps.join(", ")),
                "say which with --app NAME",
            ))
        }
    }
}
