//! The options of `ponos failed …`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ponos::core::name::AppName;
use ponos::{MessageId, Rate};

use crate::amount;

/// The fewest digits that name a group.
const SHORTEST_GROUP: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct FailedArgs {
    #[command(subcommand)]
    pub(super) verb: FailedVerb,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum FailedVerb {
    /// Lists the failed jobs, those that failed alike together
    List(ListArgs),
    /// Shows failed jobs: why they failed, and their attempts; headers and bodies when asked for
    Show(ShowArgs),
    /// Puts failed jobs back into their queues, with all their attempts before them
    Retry(RetryArgs),
    /// Puts a corrected copy of a failed job into its queue, and the original away
    Edit(EditArgs),
    /// Puts failed jobs away, into `{app}.discarded`, where they are kept for 30 days
    Discard(DiscardArgs),
    /// Puts discarded jobs back among the failed ones
    Restore(RestoreArgs),
}

/// Which jobs are looked at.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    pub(super) app: Option<AppName>,

    /// Only events, tasks or queues of this name; `*` stands for anything
    #[arg(long, value_name = "PATTERN")]
    pub(super) name: Option<String>,

    /// Only what failed within this time, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = amount::duration)]
    pub(super) since: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// What a group has in common
    #[arg(long, value_enum, default_value_t = By::Fingerprint)]
    pub(super) by: By,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// The discarded jobs instead
    #[arg(long)]
    pub(super) discarded: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What the jobs of a group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    /// Queue, reason and error but for its numbers and ids
    Fingerprint,
    /// The error's first line
    Error,
    /// The event or the task
    Name,
    /// The application
    App,
    /// The host that gave up
    Host,
    /// The day that they failed on, in UTC
    Day,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// A job's id, or the digits of a group, as `list` prints them
    #[arg(value_name = "ID|GROUP")]
    pub(super) which: Selector,

    /// How many jobs of a group, newest first
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) last: usize,

    /// Shows the headers
    #[arg(long)]
    pub(super) headers: bool,

    /// Shows the body, with what looks like a secret masked
    #[arg(long)]
    pub(super) body: bool,

    /// Masks nothing
    #[arg(long, requires = "body")]
    pub(super) unredacted: bool,

    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    pub(super) app: Option<AppName>,

    /// Among the discarded jobs
    #[arg(long)]
    pub(super) discarded: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    /// Jobs' ids or groups' digits, as `list` prints them
    #[arg(value_name = "ID|GROUP", required_unless_present = "all")]
    pub(super) which: Vec<Selector>,

    /// All failed jobs
    #[arg(long, conflicts_with = "which")]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// Not faster than this, such as 10/s or 100/min [default: as fast as the broker takes them]
    #[arg(long, value_name = "RATE", value_parser = amount::rate)]
    pub(super) rate: Option<Rate>,

    /// Waits while the circuit in front of a job's queue is open
    #[arg(long)]
    pub(super) when_circuit_closed: bool,

    /// Leaves those alone that an interrupted operation may have put back already
    #[arg(long)]
    pub(super) skip_duplicates: bool,

    /// Then looks for so long at what becomes of them, at most
    #[arg(long, value_name = "DURATION", value_parser = amount::duration, num_args = 0..=1,
        require_equals = true, default_missing_value = "30s")]
    pub(super) wait: Option<Duration>,

    /// Only says what would be done
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,

    /// Does it
    #[arg(long)]
    pub(super) yes: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DiscardArgs {
    /// Jobs' ids or groups' digits, as `list` prints them
    #[arg(value_name = "ID|GROUP", required_unless_present = "all")]
    pub(super) which: Vec<Selector>,

    /// All failed jobs
    #[arg(long, conflicts_with = "which")]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// Why; it is kept with the jobs
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: String,

    /// Only says what would be done
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,

    /// Does it
    #[arg(long)]
    pub(super) yes: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// Jobs' ids or groups' digits, as `list --discarded` prints them
    #[arg(value_name = "ID|GROUP", required_unless_present_any = ["all", "op"])]
    pub(super) which: Vec<Selector>,

    /// All that were discarded in this operation
    #[arg(long, value_name = "OP", conflicts_with = "which")]
    pub(super) op: Option<String>,

    /// All discarded jobs
    #[arg(long, conflicts_with_all = ["which", "op"])]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filter: Filter,

    /// Only says what would be done
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct EditArgs {
    /// The job's id, as `list` prints it
    #[arg(value_name = "ID")]
    pub(super) id: MessageId,

    /// Puts a value, JSON or else a text, at a path such as `org.id` or `items.0.price`; may be repeated
    #[arg(long, value_name = "PATH=VALUE", conflicts_with = "patch")]
    pub(super) set: Vec<String>,

    /// A JSON merge patch (RFC 7396); `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(super) patch: Option<PathBuf>,

    /// Checks the new body against the schema in a service's manifest
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Option<PathBuf>,

    /// Masks nothing in the differences that are shown
    #[arg(long)]
    pub(super) unredacted: bool,

    /// Of this application only [default: all that have some]
    #[arg(long, value_name = "NAME")]
    pub(super) app: Option<AppName>,

    /// Only shows the differences
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,

    /// Does it
    #[arg(long)]
    pub(super) yes: bool,

    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// A job by its id, or a group by the first digits of its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selector {
    Job(MessageId),
    Group(String),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Job(id));
        }
        let group = text.to_ascii_lowercase();
        if (SHORTEST_GROUP..=16).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Group(group));
        }
        Err("write a job's id, or at least 4 hexadecimal digits of a group, as `ponos failed list` prints them"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_what_people_type() {
        assert_eq!("A41c9f22".parse(), Ok(Selector::Group("a41c9f22".into())));
        assert!(matches!("0198f3c2-7d41-7a06-9c1e-5b0f4e2a9d17".parse(), Ok(Selector::Job(_))));
        for text in ["", "a41", "xyzw", "--all", "a41c9f22a41c9f22a"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
