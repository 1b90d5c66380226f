//! `ponos check`: what is wrong with a system, by its manifests alone.
//!
//! | module | what |
//! | --- | --- |
//! | `contracts`, `schema` | whether everyone can read what others send, now and on the way from the versions of before |
//! | `traffic` | whether every message has somebody who sends it and somebody who takes it |
//! | `loops` | cycles, and chains longer than an application allows |
//! | `names` | names, queues, and manifests that contradict each other |
//! | `policies` | policies that cannot mean what they say |
//! | `finding`, `markdown` | what is found, and as a table |

mod contracts;
mod finding;
mod loops;
mod markdown;
mod names;
mod policies;
mod schema;
mod traffic;

use std::path::PathBuf;

use ponos::Secret;
use serde::Serialize;

use self::finding::{Finding, Severity};
use crate::error::{CliError, Exit};
use crate::manifests::{self, Loaded};
use crate::output::{Output, Tone};
use crate::system::{Depths, Graph, System};
use crate::{json, text};

/// How much of a text from a manifest is shown, in bytes.
const SHOWN: usize = 2000;

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Services' manifests (`PONOS_MANIFEST=1 service > FILE`), of the whole system; `-` reads the standard input
    /// [default: what services told the broker when they started]
    #[arg(value_name = "MANIFEST")]
    manifests: Vec<PathBuf>,

    /// The manifests of before: tells what breaks while versions change
    #[arg(long, value_name = "OLD", num_args = 1..)]
    against: Vec<PathBuf>,

    /// Warnings end with exit code 1 too
    #[arg(long)]
    deny_warnings: bool,

    /// Prints a table for a pull request
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// All that a check tells.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    errors: u64,
    warnings: u64,
    longest_chain: Chain,
    findings: Vec<Finding>,
    #[serde(skip)]
    looked_at: String,
}

/// The longest way of a cascade, each cycle walked once at most.
#[derive(Debug, Serialize)]
struct Chain {
    hops: u64,
    messages: Vec<String>,
}

/// Applications that stop chains which are longer than they allow: which, why, and what to do.
pub(crate) fn hop_limits(system: &System) -> Vec<(String, String, String)> {
    let graph = Graph::of(system);
    let findings = loops::limits(system, &graph, &Depths::of(&graph));
    findings.into_iter().map(|it| (it.subject, it.message, it.help)).collect()
}

/// # Errors
///
/// When a manifest cannot be read, or none is known.
pub(crate) async fn run(args: &CheckArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let new = manifests::files_or_records(&args.manifests, url).await?;
    let old = if args.against.is_empty() { Vec::new() } else { manifests::load(&args.against)? };
    let report = report(new, old);
    if args.json {
        json::print(&report, out);
    } else if args.markdown {
        out.write(&markdown::table(&report));
    } else {
        print(&report, out);
    }
    let failed = report.errors > 0 || args.deny_warnings && report.warnings > 0;
    Ok(if failed { Exit::Findings } else { Exit::Ok })
}

/// What is wrong with a system, as `--json` prints it.
pub(crate) fn document(manifests: Vec<Loaded>) -> String {
    json::to_line(&report(manifests, Vec::new()))
}

fn report(new: Vec<Loaded>, old: Vec<Loaded>) -> Report {
    let (system, old) = (System::of(new), System::of(old));
    let graph = Graph::of(&system);
    let depths = Depths::of(&graph);
    let mut findings = contracts::check(&system.manifests, &old.manifests);
    findings.extend(traffic::check(&system, &old));
    findings.extend(loops::check(&system, &graph, &depths));
    findings.extend(names::check(&system));
    findings.extend(policies::check(&system));
    findings.sort();
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let messages: Vec<String> =
        depths.longest(&graph).into_iter().map(|node| node.name().to_owned()).collect();
    let (manifests, apps) = (system.manifests.len() as u64, system.apps.len() as u64);
    Report {
        version: json::VERSION,
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        longest_chain: Chain { hops: messages.len().saturating_sub(1) as u64, messages },
        findings,
        looked_at: format!("{} of {}", text::count(manifests, "manifest"), text::count(apps, "application")),
    }
}

impl Report {
    fn summary(&self) -> String {
        let found = match (self.errors, self.warnings) {
            (0, 0) => "nothing found".to_owned(),
            (errors, 0) => text::count(errors, "error"),
            (0, warnings) => text::count(warnings, "warning"),
            (errors, warnings) => {
                format!("{}, {}", text::count(errors, "error"), text::count(warnings, "warning"))
            }
        };
        format!("{}: {found}", self.looked_at)
    }
}

fn print(report: &Report, out: &mut Output) {
    for finding in &report.findings {
        let (word, tone) = match finding.severity {
            Severity::Error => ("error", Tone::Bad),
            Severity::Warning => ("warning", Tone::Strong),
        };
        let mark = out.paint(tone, &format!("{word}[{}]", finding.code.as_str()));
        out.line(&format!("{mark} {}", text::line(&finding.subject, SHOWN)));
        out.line(&format!("  {}", text::line(&finding.message, SHOWN)));
        if !finding.breaks.is_empty() {
            out.line(&format!("  breaks: {}", text::line(&finding.breaks.join(", "), SHOWN)));
        }
        let help = out.paint(Tone::Faint, &format!("  help: {}", text::line(&finding.help, SHOWN)));
        out.line(&help);
    }
    if !report.findings.is_empty() {
        out.line("");
    }
    let Chain { hops, messages } = &report.longest_chain;
    if !messages.is_empty() {
        let chain = text::line(&messages.join(" → "), SHOWN);
        out.line(&format!("longest chain: {}: {chain}", text::count(*hops, "hop")));
    }
    out.line(&report.summary());
}
