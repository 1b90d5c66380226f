//! Giving an order, and telling of it.

use std::time::Duration;

use ponos::Secret;
use ponos::core::broker::{Inspect, Order, OrderAction, OrderTarget};
use ponos::core::id::Timestamp;
use ponos::core::name::{AppName, QueueName};
use serde::Serialize;

use super::target;
use crate::broker::Session;
use crate::error::CliError;
use crate::output::{Output, Tone};
use crate::{amount, json, text};

/// How much of the reason is kept, in bytes.
const MAX_REASON: usize = 500;

/// Why an order is given, and for how long.
#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// Why, for whoever finds it so
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// For how long: 90s, 30m, 1h, 7d [default: until it is ended]
    #[arg(long = "for", value_name = "TIME", value_parser = amount::duration)]
    time: Option<Duration>,
}

impl WhyArgs {
    /// The reason and the time.
    ///
    /// # Errors
    ///
    /// When the reason is empty.
    pub(super) fn read(self) -> Result<(String, Option<Duration>), CliError> {
        if self.reason.trim().is_empty() {
            return Err(CliError::usage(
                "the reason is empty",
                "say why in a few words: others will find it so and wonder",
            ));
        }
        Ok((self.reason, self.time))
    }
}

/// An order that was given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(super) order: Order,
    /// What it replaced or ended.
    pub(super) stood: Option<Order>,
    /// How many consume the queue; `None` for a dependency.
    pub(super) consumers: Option<u32>,
}

/// Gives an order.
///
/// # Errors
///
/// When the target is not there, or the broker does not answer.
pub(super) async fn give(
    target: OrderTarget,
    action: OrderAction,
    (reason, time): (String, Option<Duration>),
    url: Option<&Secret>,
) -> Result<Given, CliError> {
    let session = Session::open(url).await?;
    let given = async {
        let planned = plan(target, action, (reason, time), &session).await?;
        planned.carry_out(&session).await
    };
    let given = given.await;
    session.close().await;
    given
}

/// An order as it would be given now.
///
/// # Errors
///
/// When the target is not there, or the broker does not answer.
pub(crate) async fn plan(
    target: OrderTarget,
    action: OrderAction,
    (reason, time): (String, Option<Duration>),
    session: &Session,
) -> Result<Given, CliError> {
    let consumers = target::consumers(session, &target).await?;
    let orders = session.ask(session.broker().inspect(Inspect::Orders(target.app()))).await?.into_orders();
    let at = text::now();
    let reason = text::line(&reason, MAX_REASON);
    let order = Order { target, action, by: whoami(), reason, at, until: time.map(|time| at + time) };
    let stood = orders.into_iter().find(|stood| stood.key() == order.key());
    Ok(Given { order, stood, consumers })
}

impl Given {
    /// Gives what was planned.
    ///
    /// # Errors
    ///
    /// When the broker does not take it.
    pub(crate) async fn carry_out(self, session: &Session) -> Result<Self, CliError> {
        // An end also where nothing was seen to stand: it may be given at this very moment.
        session.ask(session.broker().steer(self.order.clone())).await?;
        Ok(self)
    }

    /// Prints it as JSON.
    pub(super) fn json(&self, out: &mut Output) {
        out.line(&self.document());
    }

    /// An order as `--json` prints it.
    pub(crate) fn document(&self) -> String {
        #[derive(Serialize)]
        struct Document<'a> {
            version: u32,
            order: OrderJson<'a>,
            replaced: Option<OrderJson<'a>>,
            consumers: Option<u32>,
        }
        let document = Document {
            version: json::VERSION,
            order: OrderJson::of(&self.order),
            replaced: self.stood.as_ref().map(OrderJson::of),
            consumers: self.consumers,
        };
        json::to_line(&document)
    }

    /// Who will follow: `2 consumers {do} within a second`.
    pub(super) fn followers(&self, does: &str, do_: &str) -> String {
        match self.consumers {
            None => format!("every instance of {} follows within a second", self.order.target.app()),
            Some(0) => "nobody works it now, and instances that start find it so".to_owned(),
            Some(1) => format!("1 consumer {does} within a second"),
            Some(n) => format!("{n} consumers {do_} within a second"),
        }
    }

    /// Says how it ends.
    pub(super) fn how_it_ends(&self, verb: &str, out: &mut Output) {
        let target = arguments(&self.order.target);
        let end = match self.order.until {
            None => format!("  end it: ponos {verb} {target}"),
            Some(until) => {
                format!("  it ends by itself at {}; before: ponos {verb} {target}", text::utc(until))
            }
        };
        let end = out.paint(Tone::Faint, &end);
        out.line(&end);
    }
}

/// A target as it is written on the command line.
fn arguments(target: &OrderTarget) -> String {
    match target {
        OrderTarget::Dependency(dependency) => format!("{} --app {}", dependency.name, dependency.app),
        other => other.to_string(),
    }
}

/// An order in the verbs' JSON.
#[derive(Debug, Serialize)]
pub(crate) struct OrderJson<'a> {
    app: AppName,
    queue: Option<&'a QueueName>,
    dependency: Option<&'a str>,
    kind: &'static str,
    rate: Option<RateJson>,
    by: &'a str,
    reason: &'a str,
    at: Timestamp,
    until: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct RateJson {
    count: u32,
    period_ms: u64,
}

impl<'a> OrderJson<'a> {
    pub(crate) fn of(order: &'a Order) -> Self {
        let rate = match order.action {
            OrderAction::Rate(rate) => Some(RateJson {
                count: rate.count(),
                period_ms: u64::try_from(rate.period().as_millis()).unwrap_or(u64::MAX),
            }),
            _ => None,
        };
        let (queue, dependency) = match &order.target {
            OrderTarget::Queue(queue) => (Some(queue), None),
            OrderTarget::Dependency(dependency) => (None, Some(dependency.name.as_str())),
            _ => (None, None),
        };
        Self {
            app: order.target.app(),
            queue,
            dependency,
            kind: word(order.action),
            rate,
            by: &order.by,
            reason: &order.reason,
            at: order.at,
            until: order.until,
        }
    }
}

fn word(action: OrderAction) -> &'static str {
    match action {
        OrderAction::Resume => "resume",
        OrderAction::RateReset => "rate_reset",
        OrderAction::CircuitResume => "circuit_resume",
        OrderAction::CircuitOpen => "circuit_open",
        other => other.kind().as_str(),
    }
}

/// `user@host`, as far as the environment tells.
pub(crate) fn whoami() -> String {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let user = user.as_deref().unwrap_or("somebody");
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty());
    text::line(&host.map_or_else(|| user.to_owned(), |host| format!("{user}@{host}")), 128)
}

/// Who gave an order, how long ago, and why.
pub(super) fn by_whom(order: &Order) -> String {
    let ago = text::duration(text::now().since(order.at));
    format!("{} {ago} ago: {}", text::line(&order.by, 64), text::line(&order.reason, 200))
}
