//! `ponos trace`: what became of one transaction, as a tree; and `ponos diff`: two of them side by side.

mod diff;
mod watch;
mod which;

use ponos::Secret;
use ponos::trace::{Cascade, RenderOptions};

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::view::View;
use crate::{json, text};

pub(crate) use self::diff::{DiffArgs, document as diff_document, run as diff};
pub(crate) use self::watch::{Watched, watch};
pub(crate) use self::which::Which;

#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// The transaction: its id, the last six or more characters of it, `@last` (began last), `@failed` (has the job
    /// that failed last) or `@slowest` (took longest within an hour)
    #[arg(value_name = "TID")]
    which: String,

    /// Goes on showing it until everything has ended, or ^C
    #[arg(long, conflicts_with_all = ["json", "mermaid"])]
    watch: bool,

    /// Prints the tree as a Mermaid flowchart
    #[arg(long, conflicts_with = "json")]
    mermaid: bool,

    /// Prints the tree as one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the tree of a transaction, however it ended.
///
/// # Errors
///
/// When no transaction or several are meant, or the broker does not answer.
pub(crate) async fn run(args: TraceArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let which = Which::parse(&args.which)?;
    let session = Session::open(url).await?;
    let shown = show(&args, &which, &session, out).await;
    session.close().await;
    shown.map(|()| Exit::Ok)
}

async fn show(args: &TraceArgs, which: &Which, session: &Session, out: &mut Output) -> Result<(), CliError> {
    let mut view = View::open(session).await?;
    let tid = which.find(&view, session, args.json, out)?;
    if args.watch {
        return watch(&tid, &mut view, session, None, out).await.map(drop);
    }
    let cascade = view.cascade(&tid, session).await?;
    if args.json {
        json::print(&cascade.to_json(), out);
    } else if args.mermaid {
        out.write(&cascade.to_mermaid());
    } else {
        out.write(&picture(&cascade, out));
    }
    Ok(())
}

fn picture(cascade: &Cascade, out: &Output) -> String {
    cascade.render(RenderOptions { color: out.color(), timing: true, width: out.width(), now: text::now() })
}
