//! `ponos diff`: where two transactions part.

use ponos::Secret;
use ponos::Tid;
use ponos::trace::{Diff, Difference, Side};
use serde::Serialize;

use super::which::Which;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::view::View;
use crate::{json, text};

/// How much of a text out of a record is shown, in bytes.
const MAX_TEXT: usize = 200;

#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// The transaction in which everything was as it should be
    #[arg(value_name = "GOOD")]
    good: String,

    /// The one to compare it with
    #[arg(value_name = "BAD")]
    bad: String,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    good: String,
    bad: String,
    first: Option<usize>,
    lines: &'a [Difference],
}

/// Compares two transactions; they differ: exit code 1.
///
/// # Errors
///
/// When one of them is not found, or the broker does not answer.
pub(crate) async fn run(args: DiffArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let (good, bad) = (Which::parse(&args.good)?, Which::parse(&args.bad)?);
    let session = Session::open(url).await?;
    let compared = async {
        let view = View::open(&session).await?;
        let good = good.find(&view, &session, args.json, out)?;
        let bad = bad.find(&view, &session, args.json, out)?;
        let diff = view.cascade(&good, &session).await?.diff(&view.cascade(&bad, &session).await?);
        Ok::<_, CliError>((good, bad, diff))
    };
    let compared = compared.await;
    session.close().await;
    let (good, bad, diff) = compared?;
    if args.json {
        out.line(&document(&good, &bad, &diff));
    } else {
        print(&diff, out);
    }
    Ok(if diff.is_empty() { Exit::Ok } else { Exit::Findings })
}

/// A comparison as `--json` prints it.
pub(crate) fn document(good: &Tid, bad: &Tid, Diff { lines, first }: &Diff) -> String {
    let (good, bad) = (good.to_string(), bad.to_string());
    json::to_line(&Document { version: json::VERSION, good, bad, first: *first, lines })
}

fn print(diff: &Diff, out: &mut Output) {
    for line in &diff.lines {
        let indent = "  ".repeat(line.depth.min(20));
        let (sign, tone, text) = match (&line.a, &line.b) {
            (Some(a), Some(b)) if line.alike => {
                let times = format!("{} vs {}", took(a), took(b));
                ("=", None, format!("{}  {times}", text::line(&a.subject, MAX_TEXT)))
            }
            (Some(a), Some(b)) => {
                let subject = text::line(&a.subject, MAX_TEXT);
                ("≠", Some(Tone::Strong), format!("{subject}  {}   vs   {}", said(a), said(b)))
            }
            (Some(a), None) => (
                "-",
                Some(Tone::Bad),
                format!("{}  present   vs   missing", text::line(&a.subject, MAX_TEXT)),
            ),
            (None, Some(b)) => (
                "+",
                Some(Tone::Bad),
                format!("{}  missing   vs   present", text::line(&b.subject, MAX_TEXT)),
            ),
            (None, None) => continue,
        };
        let line = format!("{sign} {indent}{text}");
        let line = tone.map_or_else(|| line.clone(), |tone| out.paint(tone, &line));
        out.line(&line);
    }
    match diff.first.and_then(|first| diff.lines.get(first)) {
        None => out.line("no difference but in times"),
        Some(first) => {
            let path = text::line(&first.path, 4 * MAX_TEXT);
            out.line(&format!("first divergence: {path}{}", versions(first)));
        }
    }
}

fn took(side: &Side) -> String {
    side.took.map_or_else(|| "–".to_owned(), text::precise)
}

fn said(side: &Side) -> String {
    let status = text::line(&side.status, MAX_TEXT);
    let error = side.error.as_deref().map(|error| format!(", {}", text::line(error, 80))).unwrap_or_default();
    let took = side.took.map(|took| format!(", {}", text::precise(took))).unwrap_or_default();
    format!("{status}{error}{took}")
}

/// Where the two ran in different versions of the service, that may be why.
fn versions(line: &Difference) -> String {
    let version = |side: &Option<Side>| side.as_ref().and_then(|side| side.version.clone());
    match (version(&line.a), version(&line.b)) {
        (Some(a), Some(b)) if a != b => {
            format!("  · version {} vs {} ← changed", text::line(&a, 40), text::line(&b, 40))
        }
        _ => String::new(),
    }
}
