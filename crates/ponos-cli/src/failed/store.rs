//! Which applications have failed or discarded jobs, and reading them.

use std::sync::Arc;

use ponos::core::Bytes;
use ponos::core::broker::BrokerErrorKind;
use ponos::core::envelope::{Envelope, Report};
use ponos::core::name::{AppName, QueueName};
use ponos::{FailedJobs, MessageId};

use crate::broker::Session;
use crate::error::CliError;

/// How many jobs are read at once: with bodies of 1 MiB each this is what is in memory.
const PAGE: usize = 100;

/// The same for RabbitMQ, where each page is a look at the whole queue.
const RABBITMQ_PAGE: usize = 2000;

/// How often a list is begun anew because the job that a page ended with was taken away meanwhile.
const RESTARTS: usize = 5;

/// Which queue of an application is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shelf {
    Failed,
    Discarded,
}

impl Shelf {
    fn queue(self, app: &AppName) -> QueueName {
        match self {
            Self::Failed => QueueName::failed(app),
            Self::Discarded => QueueName::discarded(app),
        }
    }

    /// What one of its jobs is called.
    pub(super) const fn noun(self) -> &'static str {
        match self {
            Self::Failed => "failed job",
            Self::Discarded => "discarded job",
        }
    }

    /// What lists them.
    pub(super) const fn list(self) -> &'static str {
        match self {
            Self::Failed => "`ponos failed list` shows those there are",
            Self::Discarded => "`ponos failed list --discarded` shows those there are",
        }
    }
}

/// A failed job of an application.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) app: AppName,
    pub(super) envelope: Envelope,
}

impl Failed {
    pub(super) fn report(&self) -> Option<&Report> {
        self.envelope.report.as_deref()
    }

    pub(super) fn fingerprint(&self) -> Option<&str> {
        self.report().map(|report| report.fingerprint.as_str())
    }
}

pub(super) fn jobs_of(session: &Session, app: &AppName) -> FailedJobs {
    FailedJobs::new(Arc::clone(session.broker()), app.clone())
}

/// The applications that have something there, or this one, which must be there.
///
/// # Errors
///
/// When the broker does not answer, or knows no such application.
pub(super) async fn apps(
    session: &Session,
    shelf: Shelf,
    app: Option<&AppName>,
) -> Result<Vec<AppName>, CliError> {
    if let Some(app) = app {
        let stats = session.failed_queue(app).await?;
        let empty = shelf == Shelf::Failed && stats.messages() == 0;
        return Ok(if empty { Vec::new() } else { vec![app.clone()] });
    }
    let with_jobs = session.queues(None).await?.into_iter().filter_map(|stats| {
        let owner = stats.queue.app();
        (stats.queue == shelf.queue(&owner) && stats.messages() > 0).then_some(owner)
    });
    Ok(with_jobs.collect())
}

/// All jobs without their bodies, oldest first for each application.
///
/// # Errors
///
/// When the broker does not answer.
pub(super) async fn all(
    session: &Session,
    shelf: Shelf,
    app: Option<&AppName>,
) -> Result<Vec<Failed>, CliError> {
    let mut all = Vec::new();
    for app in apps(session, shelf, app).await? {
        all.extend(of(session, shelf, &app).await?);
    }
    Ok(all)
}

/// All jobs of one application, as [`all`].
pub(super) async fn of(session: &Session, shelf: Shelf, app: &AppName) -> Result<Vec<Failed>, CliError> {
    let size = if session.is_rabbitmq() { RABBITMQ_PAGE } else { PAGE };
    let jobs = jobs_of(session, app);
    let mut restarts = 0;
    let mut found: Vec<Envelope> = Vec::new();
    loop {
        let after = found.last().map(|last| last.id);
        let page = match shelf {
            Shelf::Failed => session.ask(jobs.list(size, after)).await,
            Shelf::Discarded => session.ask(jobs.list_discarded(size, after)).await,
        };
        let page = match page {
            Err(error)
                if error.kind() == BrokerErrorKind::NotFound && after.is_some() && restarts < RESTARTS =>
            {
                restarts += 1;
                found.clear();
                continue;
            }
            page => page?,
        };
        let is_last = page.len() < size;
        found.extend(page.into_iter().map(|envelope| Envelope { body: Bytes::new(), ..envelope }));
        if is_last {
            break;
        }
    }
    Ok(found.into_iter().map(|envelope| Failed { app: app.clone(), envelope }).collect())
}

/// One job with its body.
///
/// # Errors
///
/// When the broker does not answer.
pub(super) async fn whole(
    session: &Session,
    shelf: Shelf,
    app: &AppName,
    id: MessageId,
) -> Result<Option<Failed>, CliError> {
    let jobs = jobs_of(session, app);
    let envelope = match shelf {
        Shelf::Failed => session.ask(jobs.show(id)).await?,
        Shelf::Discarded => session.ask(jobs.show_discarded(id)).await?,
    };
    Ok(envelope.map(|envelope| Failed { app: app.clone(), envelope }))
}

/// The one job with this id: one event can fail in several applications.
///
/// # Errors
///
/// When there is none or several, or the broker does not answer.
pub(super) async fn the_one(
    session: &Session,
    shelf: Shelf,
    apps: &[AppName],
    id: MessageId,
) -> Result<Failed, CliError> {
    let mut found = Vec::new();
    for app in apps {
        found.extend(whole(session, shelf, app, id).await?);
    }
    match found.len() {
        0 => Err(CliError::refused(format!("no {} has the id {id}", shelf.noun()), shelf.list())),
        1 => Ok(found.remove(0)),
        _ => Err(in_several(id, found.iter().map(|job| &job.app))),
    }
}

pub(super) fn in_several<'a>(id: MessageId, apps: impl Iterator<Item = &'a AppName>) -> CliError {
    let apps: Vec<&str> = apps.map(AppName::as_str).collect();
    CliError::refused(
        format!("the event {id} failed in several applications: {}", apps.join(", ")),
        "say which with --app NAME",
    )
}
