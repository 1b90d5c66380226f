//! `ponos orders`: what stands, by whom, since and until when, and why.

use ponos::Secret;
use ponos::core::broker::{Inspect, Order, OrderAction};
use ponos::core::name::AppName;
use serde::Serialize;

use super::give::{OrderJson, by_whom};
use crate::amount::show_rate;
use crate::broker::Session;
use crate::error::{CliError, Exit};
use crate::output::{Output, Tone};
use crate::{json, text};

#[derive(Debug, clap::Args)]
pub(crate) struct OrdersArgs {
    /// Shows the orders for this application only
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,

    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Lists the orders that stand.
///
/// # Errors
///
/// When the broker does not answer, or the application is not there.
pub(crate) async fn run(args: OrdersArgs, url: Option<&Secret>, out: &mut Output) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct Document<'a> {
        version: u32,
        orders: Vec<OrderJson<'a>>,
    }
    let session = Session::open(url).await?;
    let orders = look(&session, args.app).await;
    session.close().await;
    let orders = orders?;
    if args.json {
        let orders = orders.iter().map(OrderJson::of).collect();
        json::print(&Document { version: json::VERSION, orders }, out);
        return Ok(Exit::Ok);
    }
    if orders.is_empty() {
        out.line("no orders stand");
        return Ok(Exit::Ok);
    }
    let widest = |column: &dyn Fn(&Order) -> usize| orders.iter().map(column).max().unwrap_or(0);
    let targets = widest(&|order| order.target.to_string().len());
    let whats = widest(&|order| what(order).len());
    for order in &orders {
        let what = out.paint(Tone::Bad, &format!("{:<whats$}", what(order)));
        out.line(&format!("{:<targets$}  {what}  {}", order.target.to_string(), when_and_why(order)));
    }
    Ok(Exit::Ok)
}

async fn look(session: &Session, app: Option<AppName>) -> Result<Vec<Order>, CliError> {
    let apps = match app {
        Some(app) => {
            session.failed_queue(&app).await?;
            vec![app]
        }
        None => {
            let mut apps: Vec<_> =
                session.queues(None).await?.iter().map(|stats| stats.queue.app()).collect();
            apps.sort();
            apps.dedup();
            apps
        }
    };
    let mut orders = Vec::new();
    for app in apps {
        orders.extend(session.ask(session.broker().inspect(Inspect::Orders(app))).await?.into_orders());
    }
    // A reset is done with; it can still be read for a while.
    orders.retain(|order| order.action != OrderAction::CircuitReset);
    Ok(orders)
}

/// What an order has done to its target.
pub(crate) fn what(order: &Order) -> String {
    match order.action {
        OrderAction::Pause => "paused".into(),
        OrderAction::Rate(rate) => format!("limited to {}", show_rate(rate)),
        OrderAction::CircuitOpen => "circuit held open".into(),
        _ => order.action.kind().as_str().into(),
    }
}

/// Who, since when, until when, and why.
pub(crate) fn when_and_why(order: &Order) -> String {
    let until =
        order.until.map(|until| format!("for another {}, ", text::duration(until.since(text::now()))));
    format!("{}by {}", until.unwrap_or_default(), by_whom(order))
}
