//! `ponos circuit`: holding a circuit open, and letting a job through one that is open.

use std::time::Duration;

use ponos::Secret;
use ponos::core::broker::OrderAction;

use super::give::{WhyArgs, by_whom, give};
use super::target::{TargetArgs, check_is_worked};
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};

/// For how long a reset can be read. Who was cut off from the broker for longer has tried by itself.
pub(crate) const RESET_FOR: Duration = Duration::from_secs(10 * 60);

#[derive(Debug, clap::Args)]
pub(crate) struct CircuitArgs {
    #[command(subcommand)]
    verb: CircuitVerb,
}

#[derive(Debug, clap::Subcommand)]
enum CircuitVerb {
    /// Holds a circuit open: its queues keep their jobs
    Open(OpenArgs),
    /// Half-opens the circuit where it is open now, once: one job is let through
    Reset(ResetArgs),
    /// Ends `open`
    Resume(ResumeArgs),
}

#[derive(Debug, clap::Args)]
struct OpenArgs {
    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    why: WhyArgs,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ResetArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Why, for the log
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ResumeArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Gives an order about a circuit.
///
/// # Errors
///
/// When the target is not there, or the broker does not answer.
pub(crate) async fn run(args: CircuitArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    match args.verb {
        CircuitVerb::Open(args) => open(args, url, out).await,
        CircuitVerb::Reset(args) => reset(args, url, out).await,
        CircuitVerb::Resume(args) => resume(args, url, out).await,
    }
}

async fn open(args: OpenArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let target = args.target.read()?;
    check_is_worked(&target, "cut off")?;
    let given = give(target, OrderAction::CircuitOpen, args.why.read()?, url).await?;
    if args.json {
        given.json(out);
        return Ok(Exit::Ok);
    }
    let verb = out.paint(Tone::Bad, "opened");
    let followers = given.followers("stops", "stop");
    out.line(&format!("{verb} circuit {}: {followers}; jobs stay in the queue", given.order.target));
    given.how_it_ends("circuit resume", out);
    Ok(Exit::Ok)
}

async fn reset(args: ResetArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let target = args.target.read()?;
    check_is_worked(&target, "reset")?;
    let given = give(target, OrderAction::CircuitReset, (args.reason, Some(RESET_FOR)), url).await?;
    if args.json {
        given.json(out);
        return Ok(Exit::Ok);
    }
    let verb = out.paint(Tone::Good, "reset");
    out.line(&format!(
        "{verb} circuit {}: where it is open it lets one job through within a second",
        given.order.target
    ));
    Ok(Exit::Ok)
}

async fn resume(args: ResumeArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let given = give(args.target.read()?, OrderAction::CircuitResume, (String::new(), None), url).await?;
    let target = &given.order.target;
    if args.json {
        given.json(out);
    } else if let Some(stood) = &given.stood {
        let verb = out.paint(Tone::Good, "resumed");
        out.line(&format!("{verb} circuit {target}, which was opened by {}", by_whom(stood)));
    } else {
        out.line(&format!("circuit {target} was not held open by order"));
    }
    Ok(Exit::Ok)
}
