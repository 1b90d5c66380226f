//! The broker that a verb talks to: found, opened, asked within deadlines, closed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ponos::core::broker::{Broker, BrokerError, BrokerErrorKind, Inspect, QueueStats};
use ponos::core::journal::Journal;
use ponos::core::name::{AppName, QueueName};
use ponos::{BROKER_VARIABLE, DEFAULT_BROKER};

use crate::error::CliError;

/// How long opening and closing may take.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer may take. A publish has its own, longer deadline.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

const NAME_IT: &str =
    "start a service there first, or name its broker with --broker sqlite:FILE or PONOS_BROKER";

/// An open broker.
#[derive(Debug)]
pub(crate) struct Session {
    broker: Arc<dyn Broker>,
}

impl Session {
    /// Opens the broker that the option names, else the variable, else the file in this directory. It must be there: no
    /// verb creates one, for what is published where no service has ever been reaches nobody.
    ///
    /// # Errors
    ///
    /// When the URL is none, nothing is there, or it cannot be used.
    pub(crate) async fn open(url: Option<&str>) -> Result<Self, CliError> {
        let variable = std::env::var(BROKER_VARIABLE).ok().filter(|url| !url.is_empty());
        let url = url.or(variable.as_deref()).unwrap_or(DEFAULT_BROKER);
        let named = ponos::Broker::from_url(url)
            .map_err(|error| CliError::usage(error.to_string(), "for example `--broker sqlite:ponos.db`"))?;
        match url.split_once(':') {
            Some(("memory", _)) => {
                return Err(CliError::usage(
                    "`memory:` lives inside one process: nobody else can look into it",
                    "use `--broker sqlite:FILE`, for the services too",
                ));
            }
            // As `ponos::Broker::from_url` reads it.
            Some(("sqlite", rest)) => must_be_there(Path::new(rest.strip_prefix("//").unwrap_or(rest)))?,
            _ => {}
        }
        let broker = within(OPEN_DEADLINE, "opening the broker", named.connect()).await?;
        Ok(Self { broker })
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// The figures of all queues, or of those of one application.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub(crate) async fn queues(&self, app: Option<&AppName>) -> Result<Vec<QueueStats>, CliError> {
        let answer = self.ask(self.broker.inspect(Inspect::Queues(app.cloned()))).await?;
        Ok(answer.into_queues())
    }

    /// The figures of the queues of one application, of which there must be some.
    ///
    /// # Errors
    ///
    /// When it has none here, or the broker does not answer.
    pub(crate) async fn queues_of(&self, app: &AppName) -> Result<Vec<QueueStats>, CliError> {
        let queues = self.queues(Some(app)).await?;
        if queues.is_empty() {
            return Err(CliError::refused(
                format!("no application `{app}` has been on {}", self.broker.name()),
                "`ponos queues` shows what there is: the first word of each queue is its application",
            ));
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
        let queues = self.queues_of(&app).await?;
        queues.into_iter().find(|stats| stats.queue == *name).ok_or_else(|| {
            CliError::refused(
                format!("there is no queue `{name}` on {}", self.broker.name()),
                format!("`ponos queues --app {app}` shows those there are"),
            )
        })
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
        within(ANSWER_DEADLINE, self.broker.name(), question).await
    }

    /// Lets go of the broker. What goes wrong here repairs itself: the verb has done its work.
    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(OPEN_DEADLINE, self.broker.close()).await;
    }
}

async fn within<T>(
    deadline: Duration,
    who: &str,
    question: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(deadline, question).await.unwrap_or_else(|_| {
        let problem = format!(
            "{who}: no answer within {} seconds: is another program holding a lock on it?",
            deadline.as_secs()
        );
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
