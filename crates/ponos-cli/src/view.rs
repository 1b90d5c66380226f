//! What happened on a broker, as this machine's read model knows it after a look at the journal.
//!
//! Every verb that shows what happened opens one: it reads what has come since the last look and asks the files. While
//! `ponos serve` runs there is little left to read.

mod around;
mod circuits;
mod live;
mod place;
mod queues;

use ponos::Tid;
use ponos::core::broker::{Inspect, QueueStats};
use ponos::core::id::Timestamp;
use ponos::core::journal::JournalReader;
use ponos::core::name::QueueName;
use ponos::trace::Cascade;
use ponos_readmodel::{ReadModel, ReadModelError, ReadModelErrorKind, ReadModelOptions, TraceSummary};

use crate::broker::Session;
use crate::error::CliError;
use crate::text;

pub(crate) use self::live::Entries;
pub(crate) use self::place::VIEW_VARIABLE;
pub(crate) use self::queues::{By, QueueNow, concerns, orders};

/// How many queues are looked at for what has not happened yet.
const MOST_QUEUES: usize = 50;

/// A read model that has seen the journal's end.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) model: ReadModel,
    /// Open while somebody watches.
    reader: Option<Box<dyn JournalReader>>,
    /// Whether the broker counts the queues that an event goes to.
    counted: bool,
    /// Who is told what is read.
    live: Option<Entries>,
}

impl View {
    /// Opens the read model of a session's broker and reads what has come since the last look.
    ///
    /// # Errors
    ///
    /// When the broker keeps no records or does not answer, or the files cannot be used.
    pub(crate) async fn open(session: &Session) -> Result<Self, CliError> {
        let mut view = Self::of(session)?;
        view.catch_up(session).await?;
        Ok(view)
    }

    /// Opens the read model of a session's broker as it is, for those who know that another one keeps it current.
    ///
    /// # Errors
    ///
    /// When the files cannot be used.
    pub(crate) fn of(session: &Session) -> Result<Self, CliError> {
        let place = place::of(session.place())?;
        let model = ReadModel::open(&place, ReadModelOptions::new()).map_err(broken)?;
        Ok(Self { model, reader: None, counted: !session.is_rabbitmq(), live: None })
    }

    /// Tells from now on what is read behind the end of what there is.
    pub(crate) fn tell(&mut self, live: Entries) {
        self.live = Some(live);
    }

    /// Reads what has come since the last look. The reader stays open: the next look costs little.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) async fn catch_up(&mut self, session: &Session) -> Result<(), CliError> {
        if let Some(reader) = &mut self.reader {
            match self.model.follow(&mut **reader).await {
                Ok(_) => return Ok(()),
                // The next one goes on behind what was written.
                Err(_) => self.reader = None,
            }
        }
        let journal = session.journal()?;
        let from = self.model.read_from().map_err(broken)?;
        let mut reader = session.ask(journal.open(from)).await?;
        if let Some(live) = &self.live {
            reader = live.reader(reader);
        }
        self.model.follow(&mut *reader).await.map_err(broken)?;
        self.reader = Some(reader);
        self.live.iter().for_each(Entries::is_current);
        Ok(())
    }

    /// A transaction as a tree, with all that is known around it.
    ///
    /// # Errors
    ///
    /// When the files cannot be read, or the broker does not answer.
    pub(crate) async fn cascade(&self, tid: &Tid, session: &Session) -> Result<Cascade, CliError> {
        let trace = self.model.trace(tid).map_err(broken)?;
        let mut around = around::of(&self.model, &trace, self.counted, text::now()).map_err(broken)?;
        let entries =
            || trace.records.iter().map(|(origin, _, record)| (Some(origin.clone()), record.clone()));
        // Once to know which queues are waited for, once with their figures.
        let cascade = Cascade::from_entries(entries().collect(), around.clone());
        around.queues = figures(&cascade, session).await;
        Ok(if around.queues.is_empty() {
            cascade
        } else {
            Cascade::from_entries(entries().collect(), around)
        })
    }

    /// Transactions whose id ends so, the newest first.
    ///
    /// # Errors
    ///
    /// When the files cannot be read.
    pub(crate) fn find(&self, suffix: &str) -> Result<Vec<TraceSummary>, CliError> {
        self.model.find(suffix).map_err(broken)
    }
}

/// The figures of queues in which something has not happened yet.
async fn figures(cascade: &Cascade, session: &Session) -> Vec<QueueStats> {
    let pending = cascade.jobs().filter(|job| !job.state().is_final());
    let mut queues: Vec<QueueName> = pending.filter_map(|job| QueueName::parse(job.queue()).ok()).collect();
    queues.sort();
    queues.dedup();
    let mut found = Vec::new();
    for queue in queues.into_iter().take(MOST_QUEUES) {
        // A queue that cannot be looked at is shown without its figures.
        if let Ok(answer) = session.ask(session.broker().inspect(Inspect::Queue(queue))).await {
            found.extend(answer.into_queues());
        }
    }
    found
}

/// What is wrong with the read model, or with the broker that it reads from.
pub(crate) fn broken(error: ReadModelError) -> CliError {
    match error.kind() {
        ReadModelErrorKind::Log => {
            CliError::broker(error.to_string(), "try again; if it stays, look at the broker's host")
        }
        _ => CliError::refused(
            error.to_string(),
            format!("the read model is a cache: delete its directory, or name another with {VIEW_VARIABLE}"),
        ),
    }
}

/// So long before now.
pub(crate) fn ago(time: std::time::Duration) -> Timestamp {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(text::now().as_millis().saturating_sub(millis))
}
