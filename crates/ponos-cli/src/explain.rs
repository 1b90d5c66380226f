//! `ponos explain`: what happens when this is sent.
//!
//! `offline` knows what manifests tell, `policy` says policies in words. Figures of a running system are to come beside
//! them, and not into them.

mod offline;
mod policy;

use std::path::PathBuf;

use self::offline::Explanation;
use crate::error::{CliError, Exit};
use crate::output::Output;
use crate::system::System;
use crate::{json, manifests};

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// An event or a task
    #[arg(value_name = "NAME")]
    name: String,

    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`); `-` reads the standard input
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

    /// Tells what manifests tell, and needs no broker
    #[arg(long)]
    offline: bool,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// # Errors
///
/// When a manifest cannot be read, or none knows the name.
pub(crate) fn run(args: &ExplainArgs, out: &mut Output) -> Result<Exit, CliError> {
    if !args.offline {
        return Err(CliError::usage(
            "`ponos explain` knows what manifests tell, and no figures of a running system yet",
            "add --offline and the manifests: `ponos explain NAME --offline *.json`",
        ));
    }
    let system = System::of(manifests::load(&args.manifests)?);
    let explanation = Explanation::of(&args.name, &system)?;
    if args.json {
        json::print(&explanation, out);
    } else {
        explanation.print(out);
    }
    Ok(Exit::Ok)
}

/// What manifests tell of a name, as `--json` prints it.
///
/// # Errors
///
/// When none knows the name.
pub(crate) fn document(name: &str, system: &System) -> Result<String, CliError> {
    Explanation::of(name, system).map(|explanation| json::to_line(&explanation))
}
