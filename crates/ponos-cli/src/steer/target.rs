//! What an order is about, as it is named on the command line.

use ponos::core::broker::{Dependency, OrderTarget};
use ponos::core::name::{AppName, QueueName};

use crate::broker::Session;
use crate::error::CliError;
use crate::text;

/// A queue, or a dependency of an application.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    /// A queue, or with --app what handlers of an application depend on, such as smtp
    #[arg(value_name = "TARGET")]
    target: String,

    /// The application whose dependency it is
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,
}

impl TargetArgs {
    /// The target, by its form: a queue's name holds a dot, a dependency's does not.
    ///
    /// # Errors
    ///
    /// When it is no name, or a dependency of nobody.
    pub(super) fn read(self) -> Result<OrderTarget, CliError> {
        Self::of(self.target, self.app)
    }

    /// The same for those who have no command line.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn of(target: String, app: Option<AppName>) -> Result<OrderTarget, CliError> {
        if target.contains('.') {
            let queue = QueueName::parse(&target)
                .map_err(|error| CliError::usage(error.to_string(), "`ponos queues` shows what there is"))?;
            return match app.filter(|app| *app != queue.app()) {
                None => Ok(queue.into()),
                Some(app) => Err(CliError::usage(
                    format!("the queue `{queue}` is not one of `{app}`"),
                    "leave out --app: a queue's name says whose it is",
                )),
            };
        }
        // The form of a dependency's name is that of an application's.
        if AppName::parse(&target).is_err() {
            return Err(CliError::usage(
                format!("`{}` is neither a queue nor a dependency", text::line(&target, 64)),
                "name a queue (`pheidi.email.send`), or a dependency with its application (`smtp --app pheidi`)",
            ));
        }
        let Some(app) = app else {
            return Err(CliError::usage(
                format!("whose dependency is `{target}`?"),
                "name the application with --app; a queue's name has dots",
            ));
        };
        Ok(OrderTarget::Dependency(Dependency { app, name: target }))
    }
}

/// A queue that somebody works.
///
/// # Errors
///
/// When it is one that only keeps jobs.
pub(crate) fn check_is_worked(target: &OrderTarget, done: &str) -> Result<(), CliError> {
    let OrderTarget::Queue(queue) = target else { return Ok(()) };
    let app = queue.app();
    if [QueueName::failed(&app), QueueName::discarded(&app)].contains(queue) {
        return Err(CliError::usage(
            format!("nobody works `{queue}`, so it cannot be {done}"),
            "name the queue whose jobs fail",
        ));
    }
    Ok(())
}

/// How many consume a queue, which must exist; `None` for a dependency, whose queues only its application knows.
///
/// # Errors
///
/// When the queue or the application is not there, or the broker does not answer.
pub(super) async fn consumers(session: &Session, target: &OrderTarget) -> Result<Option<u32>, CliError> {
    match target {
        OrderTarget::Queue(queue) => Ok(Some(session.queue(queue).await?.consumers)),
        other => session.failed_queue(&other.app()).await.map(|_| None),
    }
}
