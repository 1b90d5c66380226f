//! `ponos explain`: what happens when this is sent.
//!
//! | module | what |
//! | --- | --- |
//! | `offline` | what manifests tell |
//! | `live` | what records and the broker add to it: figures, states, what followed |
//! | `page` | both as text |
//! | `policy` | policies in words |

mod live;
mod offline;
mod page;
mod policy;

use std::path::PathBuf;
use std::time::Duration;

use ponos::Secret;
use serde::Serialize;

use self::live::Live;
use self::offline::Explanation;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::system::System;
use crate::view::View;
use crate::{amount, json, manifests};

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// An event or a task
    #[arg(value_name = "NAME")]
    name: String,

    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`); `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

    /// Counts what happened since so long ago, by whole hours
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, default_value = "24h")]
    since: Duration,

    /// Tells what manifests tell, and needs no broker
    #[arg(long, conflicts_with = "since")]
    offline: bool,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What is counted where nobody says since when.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    explanation: &'a Explanation,
    live: &'a Live,
}

/// # Errors
///
/// When a manifest cannot be read, the broker does not answer, or nobody knows the name.
pub(crate) async fn run(
    args: &ExplainArgs,
    url: Option<&Secret>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    if args.offline {
        let system = System::of(manifests::load(&args.manifests)?);
        let explanation = Explanation::of(&args.name, &system)
            .ok_or_else(|| offline::unknown(&args.name, system.names(), "no manifest knows"))?;
        if args.json {
            json::print(&explanation, out);
        } else {
            explanation.print(out);
        }
        return Ok(Exit::Ok);
    }
    let way_out = "or add --offline and the manifests: `ponos explain NAME --offline *.json`";
    let session = Session::open(url).await.map_err(|error| error.or(way_out))?;
    let explained = online(args, &session).await;
    session.close().await;
    let (explanation, live) = explained?;
    if args.json {
        json::print(&Document { explanation: &explanation, live: &live }, out);
    } else {
        page::print(&explanation, &live, out);
    }
    Ok(Exit::Ok)
}

/// What is known of a name, as `--json` prints it.
///
/// # Errors
///
/// When nobody knows the name, or the broker does not answer.
pub(crate) async fn document(name: &str, view: &View, session: &Session) -> Result<String, CliError> {
    let system = System::of(manifests::of_records(view)?);
    let (explanation, live) = live::explain(name, system, WINDOW, view, session).await?;
    Ok(json::to_line(&Document { explanation: &explanation, live: &live }))
}

async fn online(args: &ExplainArgs, session: &Session) -> Result<(Explanation, Live), CliError> {
    let view = View::open(session).await?;
    let manifests = if args.manifests.is_empty() {
        manifests::of_records(&view)?
    } else {
        manifests::load(&args.manifests)?
    };
    live::explain(&args.name, System::of(manifests), args.since, &view, session).await
}
