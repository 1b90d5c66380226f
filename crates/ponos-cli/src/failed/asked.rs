//! What `ponos serve` asks and does here: the same as the verbs, without a terminal.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum as _;
use ponos::core::id::Timestamp;
use ponos::core::name::AppName;
use ponos::{MessageId, Operation, Rate};

use super::args::{By, Filter, Selector};
use super::operation::{self, Act, How, Ran, Told};
use super::retry;
use super::show::{self, Wanted};
use super::store::{self, Failed, Shelf};
use super::{list, select};
use crate::broker::Session;
use crate::error::CliError;

pub(crate) use super::operation::{Outcome, Plan, Settled, Stop};
pub(crate) use super::retry::Balance;

/// How long a reason may be, in bytes.
const MAX_REASON: usize = 1000;

/// Which jobs are looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Ids of jobs and digits of groups; all where it is empty.
    pub(crate) which: Vec<String>,
    pub(crate) app: Option<AppName>,
    pub(crate) name: Option<String>,
    pub(crate) since: Option<Duration>,
}

impl Wish {
    fn filter(&self) -> Filter {
        Filter { app: self.app.clone(), name: self.name.clone(), since: self.since }
    }

    fn selectors(&self) -> Result<Vec<Selector>, CliError> {
        self.which.iter().map(|which| selector(which)).collect()
    }
}

fn selector(text: &str) -> Result<Selector, CliError> {
    text.parse().map_err(|help: String| {
        CliError::usage(format!("`{}` is neither a job's id nor a group", crate::text::line(text, 80)), help)
    })
}

/// Failed jobs, those together that have something in common, as `ponos failed list --json` prints them.
///
/// # Errors
///
/// When the broker does not answer, or `by` is no way to group.
pub(crate) async fn list(session: &Session, by: Option<&str>, wish: &Wish) -> Result<String, CliError> {
    let by = match by {
        None => By::Fingerprint,
        Some(by) => By::from_str(by, false).map_err(|_| {
            let ways: Vec<_> = By::value_variants()
                .iter()
                .filter_map(|by| Some(by.to_possible_value()?.get_name().to_owned()))
                .collect();
            CliError::usage("jobs are not grouped so", format!("group_by is one of {}", ways.join(", ")))
        })?,
    };
    let jobs = select::jobs(session, Shelf::Failed, &wish.selectors()?, &wish.filter()).await?;
    Ok(list::document(&jobs, by))
}

/// The newest jobs of a group, as `ponos failed show --json` prints them.
///
/// # Errors
///
/// When there is no such group, or the broker does not answer.
pub(crate) async fn group(
    session: &Session,
    digits: &str,
    app: Option<AppName>,
    last: usize,
    body: bool,
) -> Result<String, CliError> {
    let which = match selector(digits)? {
        group @ Selector::Group(_) => group,
        Selector::Job(id) => {
            return Err(CliError::usage(
                format!("{id} is a job and no group"),
                format!("ask for /api/v1/failed/messages/{id}"),
            ));
        }
    };
    let wanted = wanted(body);
    let (jobs, count) = show::group(&which, app, last, wanted, Shelf::Failed, session).await?;
    Ok(show::group_document(&jobs, count, wanted))
}

/// One job, as `ponos failed show --json` prints it.
///
/// # Errors
///
/// When there is none, or the broker does not answer.
pub(crate) async fn job(
    session: &Session,
    id: MessageId,
    app: Option<&AppName>,
    body: bool,
) -> Result<String, CliError> {
    let apps = store::apps(session, Shelf::Failed, app).await?;
    let job = store::the_one(session, Shelf::Failed, &apps, id).await?;
    Ok(show::document(&job, wanted(body)))
}

const fn wanted(body: bool) -> Wanted {
    Wanted { headers: body, body, unredacted: false }
}

/// How many failed jobs there are of each name, and since when the oldest.
///
/// # Errors
///
/// When the broker does not answer.
pub(crate) async fn counts(
    session: &Session,
) -> Result<BTreeMap<String, (u64, Option<Timestamp>)>, CliError> {
    let mut counts: BTreeMap<String, (u64, Option<Timestamp>)> = BTreeMap::new();
    for job in store::all(session, Shelf::Failed, None).await? {
        let at = job.report().map(|report| report.at);
        let (count, oldest) = counts.entry(job.envelope.name.as_str().to_owned()).or_default();
        *count += 1;
        *oldest = oldest.iter().copied().chain(at).min();
    }
    Ok(counts)
}

/// What is done with failed jobs.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Retry(Option<Rate>),
    /// With the reason.
    Discard(String),
    Restore,
}

impl Deed {
    /// # Errors
    ///
    /// When the reason is empty.
    pub(crate) fn discard(reason: &str) -> Result<Self, CliError> {
        let reason = crate::text::line(reason, MAX_REASON);
        if reason.trim().is_empty() {
            return Err(CliError::usage("the reason is empty", "say why: it is kept with the jobs"));
        }
        Ok(Self::Discard(reason))
    }

    const fn act(&self) -> Act<'_> {
        match self {
            Self::Retry(_) => Act::Retry,
            Self::Discard(reason) => Act::Discard(reason.as_str()),
            Self::Restore => Act::Restore,
        }
    }

    const fn rate(&self) -> Option<Rate> {
        match self {
            Self::Retry(rate) => *rate,
            Self::Discard(_) | Self::Restore => None,
        }
    }
}

/// A deed, and the jobs that it is done to.
#[derive(Debug)]
pub(crate) struct Chosen {
    deed: Deed,
    jobs: Vec<Failed>,
}

impl Chosen {
    /// The jobs that are there now: what fails again meanwhile is not among them.
    ///
    /// # Errors
    ///
    /// When a job or group is not there, or the broker does not answer.
    pub(crate) async fn find(deed: Deed, wish: &Wish, session: &Session) -> Result<Self, CliError> {
        let shelf = if matches!(deed, Deed::Restore) { Shelf::Discarded } else { Shelf::Failed };
        let jobs = select::jobs(session, shelf, &wish.selectors()?, &wish.filter()).await?;
        Ok(Self { deed, jobs })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn plan(&self) -> Plan {
        let to = |job: &Failed| match self.deed {
            Deed::Retry(_) => retry::back_to(job),
            Deed::Discard(_) => Some(ponos::core::name::QueueName::discarded(&job.app)),
            Deed::Restore => Some(ponos::core::name::QueueName::failed(&job.app)),
        };
        Plan::of(&self.jobs, to, self.deed.rate())
    }

    /// Does it. What went wrong is in the error; what was done was told.
    ///
    /// # Errors
    ///
    /// When not all of it was done.
    pub(crate) async fn carry_out(
        &self,
        operation: &Operation,
        session: &Session,
        stop: &mut impl Stop,
        mut told: impl FnMut(&Settled) + Send,
    ) -> Result<(), CliError> {
        if matches!(self.deed, Deed::Retry(_)) {
            session.watch().await;
        }
        let how = How { operation, act: self.deed.act(), rate: self.deed.rate(), gate: None, json: true };
        let told = |it: Told<'_>| {
            if let Told::Settled(settled) = it {
                told(settled);
            }
        };
        let ran: Ran = operation::carry_out(session, &self.jobs, how, stop, told).await;
        ran.conclude(how)
    }

    /// What has become of the jobs that were put back.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub(crate) async fn balance(
        &self,
        settled: &[Settled],
        operation: &Operation,
        session: &Session,
    ) -> Result<Option<Balance>, CliError> {
        if !matches!(self.deed, Deed::Retry(_)) {
            return Ok(None);
        }
        retry::balance(&retry::moved(&self.jobs, settled), operation, session).await.map(Some)
    }
}
