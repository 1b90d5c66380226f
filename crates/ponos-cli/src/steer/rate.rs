//! `ponos rate`: another rate limit for a while.

use ponos::Rate;
use ponos::Secret;
use ponos::core::broker::OrderAction;

use super::give::{WhyArgs, by_whom, give};
use super::target::{TargetArgs, check_is_worked};
use crate::amount;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};

#[derive(Debug, clap::Args)]
pub(crate) struct RateArgs {
    #[command(subcommand)]
    verb: RateVerb,
}

#[derive(Debug, clap::Subcommand)]
enum RateVerb {
    /// Starts no more jobs than this, all instances together, whatever is configured
    Set(SetArgs),
    /// Lets what is configured hold again
    Reset(ResetArgs),
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    #[command(flatten)]
    target: TargetArgs,

    /// Starts per time: 5/s, 100/min, 20/h, 5/10s
    #[arg(value_name = "RATE", value_parser = amount::rate)]
    rate: Rate,

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

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Sets or resets a rate limit by order.
///
/// # Errors
///
/// When the target is not there, or the broker does not answer.
pub(crate) async fn run(args: RateArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    match args.verb {
        RateVerb::Set(args) => set(args, url, out).await,
        RateVerb::Reset(args) => reset(args, url, out).await,
    }
}

async fn set(args: SetArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let target = args.target.read()?;
    check_is_worked(&target, "limited")?;
    let given = give(target, OrderAction::Rate(args.rate), args.why.read()?, url).await?;
    if args.json {
        given.json(out);
        return Ok(Exit::Ok);
    }
    let verb = out.paint(Tone::Bad, "limited");
    let (rate, followers) = (amount::show_rate(args.rate), given.followers("follows", "follow"));
    out.line(&format!("{verb} {} to {rate}, all instances together: {followers}", given.order.target));
    given.how_it_ends("rate reset", out);
    Ok(Exit::Ok)
}

async fn reset(args: ResetArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let given = give(args.target.read()?, OrderAction::RateReset, (String::new(), None), url).await?;
    let target = &given.order.target;
    if args.json {
        given.json(out);
    } else if let Some(stood) = &given.stood {
        let verb = out.paint(Tone::Good, "reset");
        out.line(&format!("{verb} the rate of {target}, which was limited by {}", by_whom(stood)));
    } else {
        out.line(&format!("the rate of {target} was not limited by order"));
    }
    Ok(Exit::Ok)
}
