//! `ponos names check`: whether names keep the rules, and what they would name.

use std::io::BufRead as _;

use ponos::core::name::{AppName, EventName, NameError, NameErrorKind, TaskName};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

/// How much of a name is shown, in bytes.
const SHOWN: usize = 255;

#[derive(Debug, clap::Args)]
pub(crate) struct NamesArgs {
    #[command(subcommand)]
    verb: NamesVerb,
}

#[derive(Debug, clap::Subcommand)]
enum NamesVerb {
    /// Says for each name whether it is a good event's or task's name, or what is wrong with it
    ///
    /// An event says what has happened: `org.payment.processed`. A task says what an application is to do:
    /// `pheidi.email.send`. Exit code 1 when a name is refused.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The names; `-` reads them from the standard input, one a line
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// Accepts names of this kind only
    #[arg(long)]
    kind: Option<Kind>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What a name is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Event,
    Task,
}

/// What a good name can name: some, such as `order.item.mark-completed`, can name both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fits {
    pub(crate) event: Option<EventName>,
    pub(crate) task: Option<TaskName>,
}

impl Fits {
    /// # Errors
    ///
    /// When the name is neither, with the reason that helps more.
    pub(crate) fn of(name: &str, kind: Option<Kind>) -> Result<Self, NameError> {
        match kind {
            Some(Kind::Event) => {
                return EventName::parse(name).map(|event| Self { event: Some(event), task: None });
            }
            Some(Kind::Task) => {
                return TaskName::parse(name).map(|task| Self { event: None, task: Some(task) });
            }
            None => {}
        }
        match (EventName::parse(name), TaskName::parse(name)) {
            (Err(event), Err(task)) => Err(likelier(event, task)),
            (event, task) => Ok(Self { event: event.ok(), task: task.ok() }),
        }
    }
}

/// Only a name of three segments can be meant as a task's, and one in the present tense is not meant as an event's.
fn likelier(event: NameError, task: NameError) -> NameError {
    let meant_as_task =
        event.kind() == NameErrorKind::EventNotPast && task.kind() != NameErrorKind::SegmentCount;
    if meant_as_task { task } else { event }
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    refused: u64,
    names: &'a [Verdict],
}

#[derive(Serialize)]
struct Verdict {
    name: String,
    ok: bool,
    event: bool,
    /// The application whose task it is.
    task_of: Option<AppName>,
    problem: Option<String>,
    suggestion: Option<String>,
}

impl Verdict {
    fn of(name: &str, kind: Option<Kind>) -> Self {
        let name_shown = name.to_owned();
        match Fits::of(name, kind) {
            Ok(fits) => Self {
                name: name_shown,
                ok: true,
                event: fits.event.is_some(),
                task_of: fits.task.map(|task| task.app()),
                problem: None,
                suggestion: None,
            },
            Err(error) => Self {
                name: name_shown,
                ok: false,
                event: false,
                task_of: None,
                suggestion: error.suggestion().map(str::to_owned),
                problem: Some(error.to_string()),
            },
        }
    }

    fn print(&self, out: &mut Output) {
        let name = text::line(&self.name, SHOWN);
        let line = if let Some(problem) = &self.problem {
            format!("{name}  {}  {problem}", out.paint(Tone::Bad, "refused"))
        } else {
            let what = match (self.event, &self.task_of) {
                (true, Some(app)) => format!("event, or task of {app}"),
                (false, Some(app)) => format!("task of {app}"),
                (_, None) => "event".to_owned(),
            };
            format!("{name}  {}  {what}", out.paint(Tone::Good, "ok"))
        };
        out.line(&line);
    }
}

/// Checks names as they come.
///
/// # Errors
///
/// When the standard input cannot be read.
pub(crate) fn run(args: NamesArgs, out: &mut Output) -> Result<Exit, CliError> {
    let NamesVerb::Check(args) = args.verb;
    let mut verdicts = Vec::new();
    let mut refused = 0;
    let mut check = |name: &str, out: &mut Output| {
        let verdict = Verdict::of(name, args.kind);
        refused += u64::from(!verdict.ok);
        if args.json {
            verdicts.push(verdict);
        } else {
            verdict.print(out);
        }
    };
    for name in &args.names {
        if name != "-" {
            check(name, out);
            continue;
        }
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| {
                CliError::usage(
                    format!("the standard input cannot be read: {error}"),
                    "write one name a line, in UTF-8",
                )
            })?;
            if out.is_closed() {
                break;
            }
            // A name has no spaces, so those around it are the list's.
            if !line.trim().is_empty() {
                check(line.trim(), out);
            }
        }
    }
    if args.json {
        json::print(&Document { version: json::VERSION, refused, names: &verdicts }, out);
    }
    Ok(if refused == 0 { Exit::Ok } else { Exit::Findings })
}
