//! `ponos failed`: jobs that gave up, looked at without consuming them, put back, corrected or put away.
//!
//! | module | what |
//! | --- | --- |
//! | `args` | the options |
//! | `store` | which applications have failed jobs, and reading them page by page |
//! | `select` | from ids, groups and filters to jobs |
//! | `list` | all of them, the alike ones together |
//! | `show` | some with everything that is known |
//! | `retry` | back into their queues, and what becomes of them |
//! | `settle` | discard and restore |
//! | `edit` | a corrected copy of one |
//! | `operation` | one operation on many jobs: its plan, its progress, its end |
//! | `records` | what records tell of jobs that were put back |
//! | `asked` | what `ponos serve` asks and does here |
//! | `tree`, `diff`, `shape` | bodies: their order and digits kept, secrets masked; what changed; whether a manifest allows it |

mod args;
pub(crate) mod asked;
mod circuits;
mod diff;
mod edit;
mod list;
mod operation;
mod records;
mod retry;
mod select;
mod settle;
mod shape;
mod show;
mod store;
mod tree;

pub(crate) use args::FailedArgs;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use ponos::Secret;

use self::args::FailedVerb;
use self::settle::Action;

/// Runs one of the verbs.
///
/// # Errors
///
/// When a job is not there or was not settled, or the broker does not answer.
pub(crate) async fn run(args: FailedArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let session = Session::open(url).await?;
    let done = match args.verb {
        FailedVerb::List(args) => list::run(args, &session, out).await,
        FailedVerb::Show(args) => show::run(args, &session, out).await,
        FailedVerb::Retry(args) => retry::run(args, &session, out).await,
        FailedVerb::Edit(args) => edit::run(args, &session, out).await,
        FailedVerb::Discard(args) => settle::run(Action::Discard(args), &session, out).await,
        FailedVerb::Restore(args) => settle::run(Action::Restore(args), &session, out).await,
    };
    session.close().await;
    done
}
