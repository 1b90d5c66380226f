//! `ponos map`: the system drawn.
//!
//! | module | what |
//! | --- | --- |
//! | `model` | nodes and edges, and the figures that a live system adds to them |
//! | `text`, `dot`, `mermaid` | one renderer each; JSON is the model itself |
//! | `layout`, `svg`, `html` | layers and places, the drawing, and the page around it |

mod dot;
mod html;
mod layout;
mod mermaid;
mod model;
mod svg;
mod text;

use std::path::PathBuf;

use self::model::{Map, Overlay};
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::system::System;
use crate::{json, manifests};

#[derive(Debug, clap::Args)]
pub(crate) struct MapArgs {
    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`); `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

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
pub(crate) async fn run(args: &MapArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let system = System::of(manifests::files_or_records(&args.manifests, url).await?);
    let map = Map::of(&system, &Overlay::default());
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
