//! `ponos queues`: what waits where.

use ponos::core::broker::{Inspect, Order, OrderAction, OrderTarget, QueueStats};
use ponos::core::id::Timestamp;
use ponos::core::name::AppName;
use serde::Serialize;

use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::steer::{OrderJson, what, when_and_why};
use crate::{json, text};

#[derive(Debug, clap::Args)]
pub(crate) struct QueuesArgs {
    /// Shows the queues of this application only
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    queues: Vec<QueueJson<'a>>,
    orders: Vec<OrderJson<'a>>,
}

#[derive(Serialize)]
struct QueueJson<'a> {
    #[serde(flatten)]
    stats: &'a QueueStats,
    oldest_age_ms: Option<u64>,
    paused: Option<Paused<'a>>,
}

#[derive(Serialize)]
struct Paused<'a> {
    reason: &'a str,
    by: &'a str,
    at: Timestamp,
}

/// Prints the figures of the queues.
///
/// # Errors
///
/// When the broker does not answer, or the application is not there.
pub(crate) async fn run(args: QueuesArgs, url: Option<&str>, out: &mut Output) -> Result<Exit, CliError> {
    let session = Session::open(url).await?;
    let found = look(&session, args.app.as_ref()).await;
    session.close().await;
    let (queues, orders) = found?;
    let now = text::now();
    if args.json {
        out.line(&to_json(&queues, &orders, now));
    } else if queues.is_empty() {
        out.line("no queues: no service has started on this broker yet");
    } else {
        table(&queues, now, &orders, out);
    }
    Ok(Exit::Ok)
}

/// The figures as `--json` prints them.
///
/// # Errors
///
/// As [`run`].
pub(crate) async fn document(session: &Session, app: Option<&AppName>) -> Result<String, CliError> {
    let (queues, orders) = look(session, app).await?;
    Ok(to_json(&queues, &orders, text::now()))
}

fn to_json(queues: &[QueueStats], orders: &[Order], now: Timestamp) -> String {
    let pause_of = |stats: &QueueStats| {
        let target = OrderTarget::Queue(stats.queue.clone());
        orders.iter().find(|order| order.target == target && order.action == OrderAction::Pause)
    };
    let queues = queues.iter().map(|stats| QueueJson {
        stats,
        oldest_age_ms: stats.oldest.map(|oldest| millis(now, oldest)),
        paused: pause_of(stats).map(|order| Paused { reason: &order.reason, by: &order.by, at: order.at }),
    });
    let orders = orders.iter().map(OrderJson::of);
    json::to_line(&Document { version: json::VERSION, queues: queues.collect(), orders: orders.collect() })
}

async fn look(session: &Session, app: Option<&AppName>) -> Result<(Vec<QueueStats>, Vec<Order>), CliError> {
    let queues = match app {
        Some(app) => session.queues_of(app).await?,
        None => session.queues(None).await?,
    };
    let mut apps: Vec<AppName> = queues.iter().map(|stats| stats.queue.app()).collect();
    apps.dedup();
    let mut orders = Vec::new();
    for app in apps {
        let answer = session.ask(session.broker().inspect(Inspect::Orders(app))).await?;
        orders.extend(answer.into_orders());
    }
    orders.retain(|order| order.action != OrderAction::CircuitReset);
    Ok((queues, orders))
}

fn millis(now: Timestamp, then: Timestamp) -> u64 {
    u64::try_from(now.since(then).as_millis()).unwrap_or(u64::MAX)
}

fn table(queues: &[QueueStats], now: Timestamp, orders: &[Order], out: &mut Output) {
    let width = queues.iter().map(|stats| stats.queue.as_str().len()).max().unwrap_or(0).max(5);
    let row = |queue: &str, rest: [&str; 5]| {
        let [ready, delayed, unsettled, consumers, oldest] = rest;
        format!("{queue:<width$}  {ready:>7}  {delayed:>7}  {unsettled:>9}  {consumers:>9}  {oldest:>6}")
    };
    let head = row("queue", ["ready", "delayed", "unsettled", "consumers", "oldest"]);
    let head = out.paint(Tone::Strong, &head);
    out.line(&head);
    for stats in queues {
        let oldest = stats.oldest.map_or_else(|| "-".to_owned(), |oldest| text::duration(now.since(oldest)));
        // Not every broker tells everything.
        let figures = [Some(stats.ready), stats.delayed, stats.unsettled, Some(u64::from(stats.consumers))];
        let [ready, delayed, unsettled, consumers] =
            figures.map(|n| n.map_or_else(|| "-".to_owned(), |n| n.to_string()));
        let mut line = row(stats.queue.as_str(), [&ready, &delayed, &unsettled, &consumers, &oldest]);
        let target = OrderTarget::Queue(stats.queue.clone());
        for order in orders.iter().filter(|order| order.target == target) {
            let by = text::line(&order.by, 64);
            let stands = format!("  {} by {by}: {}", what(order), text::line(&order.reason, 200));
            line.push_str(&out.paint(Tone::Bad, &stands));
        }
        out.line(&line);
    }
    // Which queues depend on a thing only their application knows.
    for order in orders.iter().filter(|order| matches!(order.target, OrderTarget::Dependency(_))) {
        let stands = out.paint(Tone::Bad, &what(order));
        out.line(&format!("{}: {stands} {}", order.target, when_and_why(order)));
    }
}
