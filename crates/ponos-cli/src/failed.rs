//! `ponos failed`: jobs that gave up, looked at without consuming them, put back or put away.
//!
//! | module | what |
//! | --- | --- |
//! | `store` | which applications have failed jobs, and reading them page by page |
//! | `list` | all of them, the alike ones together |
//! | `show` | one with everything that is known |
//! | `settle` | retry and discard |

mod list;
mod settle;
mod show;
mod store;

use ponos::MessageId;
use ponos::core::name::AppName;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;

use self::settle::Action;

#[derive(Debug, clap::Args)]
pub(crate) struct FailedArgs {
    #[command(subcommand)]
    verb: FailedVerb,
}

#[derive(Debug, clap::Subcommand)]
enum FailedVerb {
    /// Lists the failed jobs, those that failed alike together
    List(ListArgs),
    /// Shows one failed job: why it failed, its attempts, its headers and its body
    Show(ShowArgs),
    /// Puts failed jobs back into their queues, with all their attempts before them
    Retry(SettleArgs),
    /// Puts failed jobs away, into `{app}.discarded`
    Discard(SettleArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The job's id, as `list` prints it
    #[arg(value_name = "ID")]
    id: MessageId,

    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct SettleArgs {
    /// The jobs' ids, as `list` prints them
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<MessageId>,

    /// All failed jobs; without --yes it is only said what would be done
    #[arg(long, conflicts_with = "ids")]
    all: bool,

    /// Does it
    #[arg(long)]
    yes: bool,

    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs one of the verbs.
///
/// # Errors
///
/// When a job is not there or was not settled, or the broker does not answer.
pub(crate) async fn run(args: FailedArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let session = Session::open(url).await?;
    let done = match args.verb {
        FailedVerb::List(args) => list::run(args, &session, out).await,
        FailedVerb::Show(args) => show::run(args, &session, out).await,
        FailedVerb::Retry(args) => settle::run(Action::Retry, args, &session, out).await,
        FailedVerb::Discard(args) => settle::run(Action::Discard, args, &session, out).await,
    };
    session.close().await;
    done
}
