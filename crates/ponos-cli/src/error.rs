//! Why a verb did not do what it was asked, and the exit code that says so to scripts.

use std::process::ExitCode;

use ponos::PublishError;
use ponos::core::broker::{BrokerError, BrokerErrorKind};

use crate::{output, text};

/// The exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// There were findings, something was not found, or the broker refused.
    Findings = 1,
    /// The command was not understood.
    Usage = 2,
    /// The broker cannot be reached or used.
    Broker = 3,
    /// Nothing was done: it needs a confirmation.
    Confirm = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What helps where this broker does not.
pub(crate) const ANOTHER: &str = "name another broker with --broker URL or PONOS_BROKER, or mend this one";

/// One line that says what is wrong, and one that says what to do.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    problem: String,
    help: String,
}

impl CliError {
    /// Something was not found, was not done, or the broker said no.
    pub(crate) fn refused(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Findings, problem: problem.into(), help: help.into() }
    }

    /// The command was not understood.
    pub(crate) fn usage(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, problem: problem.into(), help: help.into() }
    }

    /// The broker cannot be reached or used.
    pub(crate) fn broker(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { exit: Exit::Broker, problem: problem.into(), help: help.into() }
    }

    /// What would be done was said, and is done with `--yes` only.
    pub(crate) fn unconfirmed(problem: impl Into<String>) -> Self {
        Self { exit: Exit::Confirm, problem: problem.into(), help: "say --yes to do it".to_owned() }
    }

    /// What is wrong, without the way out.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    /// The way out.
    pub(crate) fn help(&self) -> &str {
        &self.help
    }

    /// How the program ends with it.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// What is wrong and what to do, in one line that is safe for a terminal.
    pub(crate) fn in_one_line(&self) -> String {
        format!("{}: {}", text::one_line(&self.problem), text::one_line(&self.help))
    }

    /// Names another way out too.
    pub(crate) fn or(mut self, help: &str) -> Self {
        self.help = format!("{}, {help}", self.help);
        self
    }

    /// Says it on the error output.
    pub(crate) fn report(&self) -> Exit {
        output::complain(&text::one_line(&self.problem), &text::one_line(&self.help));
        self.exit
    }
}

impl From<BrokerError> for CliError {
    fn from(error: BrokerError) -> Self {
        let (exit, help) = match error.kind() {
            BrokerErrorKind::NotFound => (Exit::Findings, "`ponos queues` shows what there is"),
            BrokerErrorKind::Invalid => {
                (Exit::Findings, "the broker is well; what was asked of it cannot be done")
            }
            BrokerErrorKind::Mismatch => {
                (Exit::Findings, "stop the services of one of the two versions, then try again")
            }
            BrokerErrorKind::Unavailable | BrokerErrorKind::Blocked => {
                (Exit::Broker, "it may be temporary: try again, and if it stays, look at the broker's host")
            }
            _ => (Exit::Broker, ANOTHER),
        };
        Self { exit, problem: error.to_string(), help: help.to_owned() }
    }
}

impl From<PublishError> for CliError {
    fn from(error: PublishError) -> Self {
        let problem = error.to_string();
        match error {
            PublishError::Refused { source, .. } => Self { problem, ..Self::from(source) },
            PublishError::Unknown { .. } => Self::broker(
                problem,
                "look for it with `ponos trace @last` before you publish it again, or it may be there twice",
            ),
            _ => Self::refused(problem, "send a smaller JSON object, without a field `tid`"),
        }
    }
}

impl From<clap::Error> for CliError {
    /// The first paragraph in one line, and the suggestion or the usage as the way out.
    fn from(error: clap::Error) -> Self {
        // A URL in the place of something else is quoted.
        let text = text::without_credentials(&error.to_string());
        let mut paragraphs = text.split("\n\n").map(str::trim);
        let problem =
            paragraphs.next().unwrap_or_default().lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let problem = problem.strip_prefix("error: ").unwrap_or(&problem).to_owned();
        let rest: Vec<&str> = paragraphs.collect();
        let begins = |prefix: &str| rest.iter().find_map(|paragraph| paragraph.strip_prefix(prefix));
        let help = match (begins("tip: "), begins("Usage: ")) {
            (Some(tip), _) => tip.lines().next().unwrap_or(tip).to_owned(),
            (None, Some(usage)) => {
                format!("write `{}`, or see --help", usage.lines().next().unwrap_or(usage))
            }
            (None, None) => "see this command with --help".to_owned(),
        };
        Self::usage(problem, help)
    }
}
