//! `ponos asyncapi`: the system, or one application, as an AsyncAPI 3.0.0 document.
//!
//! JSON alone: all JSON is YAML 1.2, so what reads AsyncAPI as YAML reads this too.
//!
//! | module | what |
//! | --- | --- |
//! | `document` | channels, operations, messages |
//! | `payload` | schemas, from JSON Schema 2020-12 to what AsyncAPI takes |
//! | `drift` | where a committed document is another |

mod document;
mod drift;
mod payload;

use std::path::PathBuf;

use ponos::Secret;
use serde::Serialize;
use serde_json::Value;

use self::drift::Difference;
use crate::error::{CliError, Exit};
use crate::manifests::Loaded;
use crate::output::Output;
use crate::system::{System, nearest};
use crate::{json, manifests, text};

/// How many differences are shown, and how much of each, in bytes.
const MOST: usize = 20;
const SHOWN: usize = 160;

#[derive(Debug, clap::Args)]
pub(crate) struct AsyncapiArgs {
    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`); `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

    /// One application only
    #[arg(long, value_name = "NAME")]
    app: Option<String>,

    /// Prints nothing but where this document is another; exit code 1 if it is
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    check: Option<PathBuf>,

    /// Writes to a file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// With --check: prints one JSON object
    #[arg(long, requires = "check")]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Drift<'a> {
    version: u32,
    file: String,
    drift: &'a [Difference],
}

/// # Errors
///
/// When a manifest or the document cannot be read, no manifest is the application's, or the file cannot be written.
pub(crate) async fn run(
    args: &AsyncapiArgs,
    url: Option<&Secret>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let document = of(manifests::files_or_records(&args.manifests, url).await?, args.app.as_deref())?;
    match (&args.check, &args.out) {
        (Some(file), _) => return check(&document, file, args.json, out),
        (None, Some(file)) => manifests::write(file, &pretty(&document))?,
        (None, None) => out.write(&pretty(&document)),
    }
    Ok(Exit::Ok)
}

/// The document of a system, or of one application of it.
///
/// # Errors
///
/// When no manifest is the application's.
pub(crate) fn of(mut manifests: Vec<Loaded>, app: Option<&str>) -> Result<Value, CliError> {
    if let Some(app) = app {
        let apps: Vec<String> = manifests.iter().map(|loaded| loaded.manifest.app.clone()).collect();
        manifests.retain(|loaded| loaded.manifest.app == app);
        if manifests.is_empty() {
            let near = nearest(app, apps.iter().map(String::as_str));
            let help = near.map_or("name one whose manifest is given".to_owned(), |near| {
                format!("did you mean `{near}`?")
            });
            return Err(CliError::refused(format!("no manifest is the application's `{app}`"), help));
        }
    }
    Ok(document::of(&System::of(manifests)))
}

fn pretty(document: &Value) -> String {
    json::pretty(&json::to_line(document), "") + "\n"
}

fn check(document: &Value, file: &PathBuf, as_json: bool, out: &mut Output) -> Result<Exit, CliError> {
    let shown = file.display();
    let make_one = format!("make it: `ponos asyncapi … --out {shown}`");
    let text = std::fs::read_to_string(file).map_err(|error| {
        CliError::refused(format!("`{shown}` cannot be read: {error}"), make_one.as_str())
    })?;
    let committed: Value = serde_json::from_str(&text)
        .map_err(|error| CliError::refused(format!("`{shown}` is no JSON: {error}"), make_one.as_str()))?;
    let differences = drift::between(&committed, document);
    if as_json {
        json::print(&Drift { version: json::VERSION, file: shown.to_string(), drift: &differences }, out);
    } else if differences.is_empty() {
        out.line(&format!("{} is what the manifests say", text::line(&shown.to_string(), SHOWN)));
    } else {
        let places = text::count(differences.len() as u64, "place");
        out.line(&format!(
            "{} differs from the manifests in {places}",
            text::line(&shown.to_string(), SHOWN)
        ));
        for difference in differences.iter().take(MOST) {
            out.line(&format!("  {}", text::line(&difference.to_string(), SHOWN)));
        }
        if differences.len() > MOST {
            out.line("  …");
        }
        out.line(&format!(
            "make it anew: `ponos asyncapi … --out {}`",
            text::line(&shown.to_string(), SHOWN)
        ));
    }
    Ok(if differences.is_empty() { Exit::Ok } else { Exit::Findings })
}
