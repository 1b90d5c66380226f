//! The broker that a verb talks to: found, opened, asked within deadlines, closed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ponos::Secret;
use ponos::core::broker::{Broker, BrokerError, BrokerErrorKind, Inspect, QueueStats};
use ponos::core::journal::{From, Journal};
use ponos::core::name::{AppName, QueueName};
use ponos::{BROKER_VARIABLE, DEFAULT_BROKER, RabbitOptions};

use crate::error::{self, CliError};

/// How long opening and closing may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer may take. A publish has its own, longer deadline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Why an answer may be late.
const LOCKED: &str = "is another program holding a lock on it?";
const UNREACHABLE: &str = "is it running, and do host and port in its URL lead there through every firewall?";
const OVERLOADED: &str = "is it overloaded, or short of memory or disk? RabbitMQ's log says so";

const NAME_IT: &str =
    "start a service there first, or name its broker with --broker sqlite:FILE or PONOS_BROKER";

/// A broker by its URL, without the patience of a service that starts before its broker does.
///
/// # Errors
///
/// When the text is no broker's URL.
pub(crate) fn from_url(url: &Secret) -> Result<ponos::Broker, BrokerError> {
    if is_rabbitmq(url.expose()) {
        let options = RabbitOptions::from_url(url.expose())?.start_within(Duration::ZERO);
        return Ok(ponos::Broker::rabbitmq(options));
    }
    ponos::Broker::from_url(url.expose())
}

/// The URL that the option names, else the variable, else the default.
pub(crate) fn url_or_default(url: Option<&Secret>) -> Secret {
    let variable = || std::env::var(BROKER_VARIABLE).ok().filter(|url| !url.is_empty()).map(Secret::from);
    url.cloned().or_else(variable).unwrap_or_else(|| DEFAULT_BROKER.into())
}

pub(crate) fn is_rabbitmq(url: &str) -> bool {
    matches!(url.split_once(':'), Some(("amqp" | "amqps", _)))
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file of the embedded one.
    File(PathBuf),
    /// A server, by its name without credentials.
    Server(String),
}

/// An open broker.
#[derive(Debug)]
pub(crate) struct Session {
    broker: Arc<dyn Broker>,
    place: Place,
    is_rabbitmq: bool,
}

impl Session {
    /// Opens the broker that the option names, else the variable, else the file in this directory. It must be there: no
    /// verb creates one, for what is published where no service has ever been reaches nobody.
    ///
    /// # Errors
    ///
    /// When the URL is none, nothing is there, or it cannot be used.
    pub(crate) async fn open(url: Option<&Secret>) -> Result<Self, CliError> {
        let url = url_or_default(url);
        let named = from_url(&url).map_err(|error| {
            CliError::usage(
                error.to_string(),
                "for example `--broker sqlite:ponos.db` or `--broker amqp://user:password@host/vhost`",
            )
        })?;
        if let Some(("memory", _)) = url.expose().split_once(':') {
            return Err(CliError::usage(
                "`memory:` lives inside one process: nobody else can look into it",
                "use `--broker sqlite:FILE`, for the services too",
            ));
        }
        let file = match url.expose().split_once(':') {
            // As `ponos::Broker::from_url` reads it.
            Some(("sqlite", rest)) => Some(PathBuf::from(rest.strip_prefix("//").unwrap_or(rest))),
            _ => None,
        };
        if let Some(file) = &file {
            must_be_there(file)?;
        }
        let is_rabbitmq = is_rabbitmq(url.expose());
        let slow = if is_rabbitmq { UNREACHABLE } else { LOCKED };
        let opened = within(OPEN_DEADLINE, "opening the broker", slow, named.connect()).await;
        let broker = opened.map_err(|error| match error.kind() {
            BrokerErrorKind::Invalid | BrokerErrorKind::NotFound => {
                CliError::broker(error.to_string(), error::ANOTHER)
            }
            _ => error.into(),
        })?;
        let place = match file {
            Some(file) => Place::File(file.canonicalize().unwrap_or(file)),
            None => Place::Server(broker.name().to_owned()),
        };
        Ok(Self { broker, place, is_rabbitmq })
    }

    /// Where the broker is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it is RabbitMQ, which tells less of itself.
    pub(crate) fn is_rabbitmq(&self) -> bool {
        self.is_rabbitmq
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The figures of all queues, or of those of one application.
    ///
    /// # Errors
    ///
    /// When the broker does not answer or cannot list its queues.
    pub(crate) async fn queues(&self, app: Option<&AppName>) -> Result<Vec<QueueStats>, CliError> {
        match self.ask(self.broker.inspect(Inspect::Queues(app.cloned()))).await {
            Ok(answer) => Ok(answer.into_queues()),
            // RabbitMQ without its management plugin.
            Err(error) if error.kind() == BrokerErrorKind::Invalid => Err(CliError::refused(
                error.to_string(),
                "`ponos failed … --app NAME`, `ponos pause QUEUE` and `ponos trace TID` need no list",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// The figures of the queues of one application, of which there must be some.
    ///
    /// # Errors
    ///
    /// When it has none here, or the broker does not answer.
    pub(crate) async fn queues_of(&self, app: &AppName) -> Result<Vec<QueueStats>, CliError> {
        let queues = self.queues(Some(app)).await?;
        if queues.is_empty() {
            return Err(self.no_app(app));
        }
        Ok(queues)
    }

    /// One queue, which must exist.
    ///
    /// # Errors
    ///
    /// When it does not, or the broker does not answer.
    pub(crate) async fn queue(&self, name: &QueueName) -> Result<QueueStats, CliError> {
        let app = name.app();
        if let Some(stats) = self.figures(name).await? {
            return Ok(stats);
        }
        // Every application has a queue of failed jobs.
        self.failed_queue(&app).await?;
        Err(CliError::refused(
            format!("there is no queue `{name}` on {}", self.broker.name()),
            format!("`ponos queues --app {app}` shows those there are"),
        ))
    }

    /// An application's queue of failed jobs.
    ///
    /// # Errors
    ///
    /// When there is no such application, or the broker does not answer.
    pub(crate) async fn failed_queue(&self, app: &AppName) -> Result<QueueStats, CliError> {
        self.figures(&QueueName::failed(app)).await?.ok_or_else(|| self.no_app(app))
    }

    /// The figures of a queue, which a broker knows that cannot list its queues.
    async fn figures(&self, name: &QueueName) -> Result<Option<QueueStats>, CliError> {
        let answer = self.ask(self.broker.inspect(Inspect::Queue(name.clone()))).await?;
        Ok(answer.into_queues().pop())
    }

    fn no_app(&self, app: &AppName) -> CliError {
        CliError::refused(
            format!("no application `{app}` has been on {}", self.broker.name()),
            "`ponos queues` shows what there is: the first word of each queue is its application",
        )
    }

    /// RabbitMQ keeps records from the first look on: so that what is done now can be traced. Where it cannot be looked,
    /// nothing is done for it.
    pub(crate) async fn watch(&self) {
        if let Some(journal) = self.broker.journal().filter(|_| self.is_rabbitmq) {
            let _ = self.ask(journal.open(From::End)).await;
        }
    }

    /// Where records of what happened are kept.
    ///
    /// # Errors
    ///
    /// When the broker keeps none.
    pub(crate) fn journal(&self) -> Result<Arc<dyn Journal>, CliError> {
        self.broker.journal().ok_or_else(|| {
            CliError::broker(
                format!("{} keeps no records of what happened", self.broker.name()),
                "if there is a file with the ending `.journal` beside the broker's, mend or delete it",
            )
        })
    }

    /// Waits for an answer, but not for ever.
    ///
    /// # Errors
    ///
    /// When none comes, or it is an error.
    pub(crate) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let slow = if self.is_rabbitmq { OVERLOADED } else { LOCKED };
        within(ANSWER_DEADLINE, self.broker.name(), slow, question).await
    }

    /// Lets go of the broker. What goes wrong here repairs itself: the verb has done its work.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(OPEN_DEADLINE, self.broker.close()).await;
    }
}

async fn within<T>(
    deadline: Duration,
    who: &str,
    perhaps: &str,
    question: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(deadline, question).await.unwrap_or_else(|_| {
        let problem = format!("{who}: no answer within {} seconds: {perhaps}", deadline.as_secs());
        Err(BrokerError::new(BrokerErrorKind::Unavailable, problem))
    })
}

/// Opening a file that is not there would create it, and a typing error would look like an empty broker.
fn must_be_there(file: &Path) -> Result<(), CliError> {
    let shown = file.display();
    match std::fs::metadata(file) {
        Ok(found) if found.is_file() && found.len() == 0 => {
            Err(CliError::broker(format!("no broker there: `{shown}` is an empty file"), NAME_IT))
        }
        // What else is wrong with it, the broker says better.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(CliError::broker(format!("no broker there: the file `{shown}` does not exist"), NAME_IT))
        }
        Err(error) => {
            Err(CliError::broker(format!("no broker there: `{shown}` cannot be read ({error})"), NAME_IT))
        }
    }
}
