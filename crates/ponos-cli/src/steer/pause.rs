//! `ponos pause` and `ponos resume`: one queue, whose jobs stay in the broker.

use ponos::Secret;
use ponos::core::broker::OrderAction;
use ponos::core::name::QueueName;

use super::give::{WhyArgs, give};
use super::target::check_is_worked;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::text;

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    /// The queue: a task's name, or an application and the event that it hears
    #[arg(value_name = "QUEUE")]
    queue: QueueName,

    #[command(flatten)]
    why: WhyArgs,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    queue: QueueName,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Pauses a queue until it is resumed, in every instance, also those that start later.
///
/// # Errors
///
/// When there is no such queue, or the broker does not answer.
pub(crate) async fn pause(args: PauseArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    let target = args.queue.into();
    check_is_worked(&target, "paused")?;
    let given = give(target, OrderAction::Pause, args.why.read()?, url).await?;
    if args.json {
        given.json(out);
        return Ok(Exit::Ok);
    }
    let verb = out.paint(Tone::Bad, "paused");
    let consumers = match given.consumers {
        Some(0) => "nobody works it now, and instances that start find it paused".to_owned(),
        _ => given.followers("stops", "stop"),
    };
    out.line(&format!("{verb} {}: {consumers}; jobs stay in the queue", given.order.target));
    given.how_it_ends("resume", out);
    Ok(Exit::Ok)
}

/// Ends a pause.
///
/// # Errors
///
/// When there is no such queue, or the broker does not answer.
pub(crate) async fn resume(
    args: ResumeArgs,
    url: Option<&Secret>,
    out: &mut Output,
) -> Result<Exit, CliError> {
    let given = give(args.queue.into(), OrderAction::Resume, (String::new(), None), url).await?;
    let queue = &given.order.target;
    if args.json {
        given.json(out);
    } else if let Some(stood) = &given.stood {
        let verb = out.paint(Tone::Good, "resumed");
        let ago = text::duration(text::now().since(stood.at));
        let (by, reason) = (text::line(&stood.by, 64), text::line(&stood.reason, 200));
        out.line(&format!("{verb} {queue}, which {by} paused {ago} ago: {reason}"));
    } else {
        out.line(&format!("{queue} was not paused"));
    }
    Ok(Exit::Ok)
}
