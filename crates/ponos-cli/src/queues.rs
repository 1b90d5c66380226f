//! `ponos queues`: what waits where, and why.
//!
//! | module | what |
//! | --- | --- |
//! | `row` | one queue, for `queues`, `top` and the API |
//! | `look` | one look at all of them: broker, records, instances, orders |
//! | `list` | which queues there are, also where the broker cannot list them |
//! | `flow` | what came and went in the last minute |

mod flow;
mod list;
mod look;
mod row;

use ponos::Secret;
use ponos::core::broker::OrderTarget;
use ponos::core::name::AppName;
use serde::Serialize;

pub(crate) use self::look::{Look, Looker, Totals, lost};
pub(crate) use self::row::{COLUMNS, QueueRow, QueueState, is_worked, rate};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::steer::{OrderJson, what, when_and_why};
use crate::{json, text};

/// How much of a text from elsewhere is shown, in bytes.
const SHOWN: usize = 600;

#[derive(Debug, clap::Args)]
pub(crate) struct QueuesArgs {
    /// Shows the queues of this application only
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// A look as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct LookJson<'a> {
    version: u32,
    queues: &'a [QueueRow],
    orders: Vec<OrderJson<'a>>,
    totals: &'a Totals,
    /// Why records tell nothing; `null` where they do.
    no_records: Option<&'a str>,
    /// Why there may be more queues.
    not_listed: Option<&'a str>,
}

impl<'a> LookJson<'a> {
    pub(crate) fn of(look: &'a Look) -> Self {
        Self {
            version: json::VERSION,
            queues: &look.queues,
            orders: look.orders.iter().map(OrderJson::of).collect(),
            totals: &look.totals,
            no_records: look.blind.as_deref(),
            not_listed: look.partly.as_deref(),
        }
    }
}

/// Prints the figures of the queues.
///
/// # Errors
///
/// When the broker does not answer, or the application is not there.
pub(crate) async fn run(args: QueuesArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let session = Session::open(url).await?;
    let mut looker = Looker::open(&session).await;
    let look = looker.look(&session, args.app.as_ref()).await;
    session.close().await;
    let look = look?;
    if args.json {
        json::print(&LookJson::of(&look), out);
    } else if look.queues.is_empty() {
        out.line("no queues: no service has started on this broker yet");
    } else {
        table(&look, out);
    }
    Ok(Exit::Ok)
}

/// The figures as `--json` prints them.
///
/// # Errors
///
/// As [`run`].
pub(crate) async fn document(session: &Session, app: Option<&AppName>) -> Result<String, CliError> {
    let mut looker = Looker::open(session).await;
    let look = looker.look(session, app).await?;
    Ok(json::to_line(&LookJson::of(&look)))
}

fn table(look: &Look, out: &mut Output) {
    let cells: Vec<[String; COLUMNS.len()]> = look.queues.iter().map(QueueRow::columns).collect();
    let mut widths = COLUMNS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let name = look.queues.iter().map(|row| row.stats.queue.as_str().len()).max().unwrap_or(0).max(5);
    let line = |queue: &str, cells: [&str; COLUMNS.len()]| {
        let mut line = format!("{queue:<name$}");
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        line
    };
    let head = out.paint(Tone::Strong, &line("queue", COLUMNS));
    out.line(&head);
    for (row, cells) in look.queues.iter().zip(&cells) {
        let mut line = line(row.stats.queue.as_str(), cells.each_ref().map(String::as_str));
        let state = row.state(look.at);
        if !state.is_empty() {
            line.push_str(&out.paint(Tone::Bad, &format!("  {state}")));
        }
        out.line(&line);
    }
    // Which queues depend on a thing, only manifests say.
    for order in look.orders.iter().filter(|order| matches!(order.target, OrderTarget::Dependency(_))) {
        let stands = out.paint(Tone::Bad, &what(order));
        out.line(&format!("{}: {stands} {}", order.target, when_and_why(order)));
    }
    for (why, is_said) in [("without records: ", &look.blind), ("there may be more queues: ", &look.partly)] {
        if let Some(said) = is_said {
            let hint = out.paint(Tone::Faint, &format!("{why}{}", text::line(said, SHOWN)));
            out.line(&hint);
        }
    }
}
