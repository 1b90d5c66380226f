//! `ponos pause` and `ponos resume`: standing orders for one queue.

use ponos::core::broker::{Inspect, Order, OrderAction};
use ponos::core::name::QueueName;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::text;

/// How much of the reason is kept, in bytes.
const MAX_REASON: usize = 500;

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    /// The queue: a task's name, or an application and the event that it hears
    #[arg(value_name = "QUEUE")]
    queue: QueueName,

    /// Why, for whoever finds the queue paused
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// The queue
    #[arg(value_name = "QUEUE")]
    queue: QueueName,
}

/// Pauses a queue until it is resumed, in every instance, also those that start later.
///
/// # Errors
///
/// When there is no such queue, or the broker does not answer.
pub(crate) async fn pause(args: PauseArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let PauseArgs { queue, reason } = args;
    let app = queue.app();
    if [QueueName::failed(&app), QueueName::discarded(&app)].contains(&queue) {
        return Err(CliError::usage(
            format!("nobody works `{queue}`, so it cannot be paused"),
            "name the queue whose jobs fail",
        ));
    }
    if reason.trim().is_empty() {
        return Err(CliError::usage(
            "the reason is empty",
            "say why in a few words: others will find the queue paused",
        ));
    }
    let session = Session::open(url).await?;
    let paused = async {
        let stats = session.queue(&queue).await?;
        session.ask(session.broker().steer(order(&queue, OrderAction::Pause, &reason))).await?;
        Ok::<_, CliError>(stats.consumers)
    };
    let paused = paused.await;
    session.close().await;
    let consumers = match paused? {
        0 => "nobody works it now, and instances that start find it paused".to_owned(),
        1 => "1 consumer stops within a second".to_owned(),
        n => format!("{n} consumers stop within a second"),
    };
    let verb = out.paint(Tone::Bad, "paused");
    out.line(&format!("{verb} {queue}: {consumers}; jobs stay in the queue"));
    let hint = out.paint(Tone::Faint, &format!("  end it: ponos resume {queue}"));
    out.line(&hint);
    Ok(Exit::Ok)
}

/// Ends a pause.
///
/// # Errors
///
/// When there is no such queue, or the broker does not answer.
pub(crate) async fn resume(args: ResumeArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let ResumeArgs { queue } = args;
    let session = Session::open(url).await?;
    let pause = order(&queue, OrderAction::Pause, "");
    let resumed = async {
        session.queue(&queue).await?;
        let orders = session.ask(session.broker().inspect(Inspect::Orders(queue.app()))).await?.into_orders();
        let stood = orders.into_iter().find(|order| order.key() == pause.key());
        // Also where none was seen: one may be given at this very moment.
        session.ask(session.broker().steer(order(&queue, OrderAction::Resume, ""))).await?;
        Ok::<_, CliError>(stood)
    };
    let resumed = resumed.await;
    session.close().await;
    match resumed? {
        Some(stood) => {
            let ago = text::duration(text::now().since(stood.at));
            let (by, reason) = (text::line(&stood.by, 64), text::line(&stood.reason, 200));
            let verb = out.paint(Tone::Good, "resumed");
            out.line(&format!("{verb} {queue}, which {by} paused {ago} ago: {reason}"));
        }
        None => out.line(&format!("{queue} was not paused")),
    }
    Ok(Exit::Ok)
}

fn order(queue: &QueueName, action: OrderAction, reason: &str) -> Order {
    let reason = text::line(reason, MAX_REASON);
    Order { target: queue.clone().into(), action, by: whoami(), reason, at: text::now(), until: None }
}

/// `user@host`, as far as the environment tells.
fn whoami() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let user = user.as_deref().unwrap_or("somebody");
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty());
    text::line(&host.map_or_else(|| user.to_owned(), |host| format!("{user}@{host}")), 128)
}
