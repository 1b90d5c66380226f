//! `ponos doctor`: what is wrong with a system that runs.
//!
//! | module | what |
//! | --- | --- |
//! | `finding` | what is found, with its code and the way out; what could not be looked at |
//! | `patient` | what the checks look at |
//! | `broker`, `rabbitmq` | the broker itself, and what is declared there |
//! | `records` | whether the records can be trusted |
//! | `queues` | whether jobs get on |
//! | `services` | whether services are well and fit together |

mod broker;
mod finding;
mod patient;
mod queues;
mod rabbitmq;
mod records;
mod services;

use ponos::RabbitOptions;
use ponos::Secret;
use serde::Serialize;

use self::finding::{Code, Finding, Report, Severity, Unseen};
use self::patient::{Past, Patient};
use crate::broker::{Place, Session, url_or_default};
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::queues::{Look, Looker};
use crate::view::broken;
use crate::{json, text};

/// How much of a text from elsewhere is shown, in bytes.
const SHOWN: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Warnings end with exit code 1 too
    #[arg(long)]
    deny_warnings: bool,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    errors: u64,
    warnings: u64,
    findings: &'a [Finding],
    not_looked_at: &'a [Unseen],
    fine: &'a [String],
}

/// Looks at everything and prints what is wrong.
///
/// # Errors
///
/// When the URL names no broker, or the broker stops answering on the way.
pub(crate) async fn run(args: DoctorArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let session = match Session::open(url).await {
        Ok(session) => session,
        Err(error) if error.exit() == Exit::Broker => {
            let mut report = Report::default();
            let (problem, help) = (error.problem().to_owned(), error.help().to_owned());
            report.error(Code::BrokerUnreachable, "broker", problem, help);
            report.unseen("everything else", "the broker cannot be reached");
            print(&report, args.json, out);
            return Ok(Exit::Broker);
        }
        Err(error) => return Err(error),
    };
    let report = examine(&session, url).await;
    session.close().await;
    let report = report?;
    print(&report, args.json, out);
    let bad = report.count(Severity::Error) > 0 || args.deny_warnings && report.count(Severity::Warning) > 0;
    Ok(if bad { Exit::Findings } else { Exit::Ok })
}

async fn examine(session: &Session, url: Option<&Secret>) -> Result<Report, CliError> {
    let mut report = Report::default();
    let mut looker = Looker::open(session).await;
    let look = match looker.look(session, None).await {
        Ok(look) => look,
        Err(error) if error.exit() == Exit::Broker => return Err(error),
        // RabbitMQ without its management plugin, of which nothing is known yet.
        Err(error) => {
            report.unseen("queues", error.problem());
            Look { partly: Some(error.problem().to_owned()), ..looker.nothing() }
        }
    };
    let past = looker.view().map(Past::of).transpose().map_err(broken)?;
    let patient = Patient { now: look.at, look: &look, past, rabbitmq: session.is_rabbitmq() };
    match session.place() {
        Place::File(file) => broker::file(file, &mut report),
        Place::Server(name) => {
            let options = RabbitOptions::from_url(url_or_default(url).expose())?;
            rabbitmq::check(&patient, name, &options, &mut report).await;
        }
    }
    match &patient.past {
        Some(past) => {
            records::check(&patient, past, &mut report).map_err(broken)?;
            services::check(&patient, past, &mut report).map_err(broken)?;
            queues::owners(&patient, past, &mut report);
        }
        None => records::none(look.blind.as_deref().unwrap_or("the broker keeps none"), &mut report),
    }
    queues::check(&patient, &mut report);
    queues::failed(&patient, &mut report).map_err(broken)?;
    report.findings.sort();
    report.findings.dedup();
    Ok(report)
}

fn print(report: &Report, as_json: bool, out: &mut Output) {
    let (errors, warnings) = (report.count(Severity::Error), report.count(Severity::Warning));
    if as_json {
        let document = Document {
            version: json::VERSION,
            errors,
            warnings,
            findings: &report.findings,
            not_looked_at: &report.unseen,
            fine: &report.fine,
        };
        return json::print(&document, out);
    }
    for fine in &report.fine {
        let mark = out.paint(Tone::Good, "✔");
        out.line(&format!("{mark} {}", text::line(fine, SHOWN)));
    }
    let mut findings = report.findings.iter().peekable();
    while let Some(finding) = findings.next() {
        let (mark, tone) = match finding.severity {
            Severity::Error => ("✖", Tone::Bad),
            Severity::Warning => ("⚠", Tone::Strong),
        };
        let mark = out.paint(tone, mark);
        let code = out.paint(Tone::Faint, &format!("[{}]", finding.code.as_str()));
        let (subject, message) = (text::line(&finding.subject, SHOWN), text::line(&finding.message, SHOWN));
        out.line(&format!("{mark} {subject}: {message} {code}"));
        // What helps several of a kind is said once, below them.
        if findings.peek().is_none_or(|next| (next.code, &next.help) != (finding.code, &finding.help)) {
            let help = out.paint(Tone::Faint, &format!("    {}", text::line(&finding.help, SHOWN)));
            out.line(&help);
        }
    }
    for unseen in &report.unseen {
        let line = format!(
            "· not looked at: {}: {}",
            text::line(&unseen.what, SHOWN),
            text::line(&unseen.why, SHOWN)
        );
        let line = out.paint(Tone::Faint, &line);
        out.line(&line);
    }
    out.line(&match (errors, warnings) {
        (0, 0) => "nothing found".to_owned(),
        _ => format!("{}, {}", text::count(errors, "error"), text::count(warnings, "warning")),
    });
}
