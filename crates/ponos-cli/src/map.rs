//! `ponos map`: the system drawn.
//!
//! | module | what |
//! | --- | --- |
//! | `model` | nodes and edges, and the figures that a live system adds to them |
//! | `live` | those figures, from records and the broker, and what no manifest says |
//! | `text`, `dot`, `mermaid` | one renderer each; JSON is the model itself |
//! | `layout`, `svg`, `html` | layers and places, the drawing, and the page around it |

mod dot;
mod html;
mod layout;
mod live;
mod mermaid;
mod model;
mod svg;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use self::model::{Map, Overlay};
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::system::System;
use crate::view::View;
use crate::{amount, json, manifests};
use ponos::Secret;

#[derive(Debug, clap::Args)]
pub(crate) struct MapArgs {
    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`); `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

    /// With figures of the running system, and with what was seen and no manifest says
    #[arg(long)]
    live: bool,

    /// With --live: counts what happened since so long ago, by whole hours
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, default_value = "24h", requires = "live")]
    since: Duration,

    /// How it is drawn
    #[arg(long, default_value = "text")]
    format: Format,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Writes to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines for a terminal
    Text,
    /// For Graphviz
    Dot,
    /// A flowchart for Markdown
    Mermaid,
    /// Nodes and edges for programs
    Json,
    /// One page with a drawing and tables, without scripts and without anything from elsewhere
    Html,
}

/// # Errors
///
/// When a manifest cannot be read or the file cannot be written.
pub(crate) async fn run(args: &MapArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let map = if args.live {
        let session = Session::open(url).await?;
        let map = online(args, &session).await;
        session.close().await;
        map?
    } else {
        let system = System::of(manifests::files_or_records(&args.manifests, url).await?);
        Map::of(&system, &Overlay::default())
    };
    let drawn = match args.format {
        _ if args.json => json::to_line(&map) + "\n",
        Format::Text => text::draw(&map),
        Format::Dot => dot::draw(&map),
        Format::Mermaid => mermaid::draw(&map),
        Format::Json => json::to_line(&map) + "\n",
        Format::Html => html::page(&map),
    };
    match &args.out {
        Some(file) => manifests::write(file, &drawn)?,
        None => out.write(&drawn),
    }
    Ok(Exit::Ok)
}

/// The map as `--json` prints it.
pub(crate) fn document(system: &System) -> String {
    json::to_line(&Map::of(system, &Overlay::default()))
}

async fn online(args: &MapArgs, session: &Session) -> Result<Map, CliError> {
    let view = View::open(session).await?;
    let manifests = if args.manifests.is_empty() {
        manifests::of_records(&view)?
    } else {
        manifests::load(&args.manifests)?
    };
    let system = System::of(manifests);
    let overlay = live::overlay(&system, args.since, &view, session).await?;
    if overlay.nodes.is_empty() && system.manifests.is_empty() {
        // Nothing to be drawn: says why.
        manifests::some_of_records(&view, session)?;
    }
    Ok(Map::of(&system, &overlay))
}
