//! Looking at queues. What AMQP itself does not tell (what is unsettled, which queues others have) the management plugin
//! does, where there is one.

use std::sync::Arc;

use ponos_core::broker::{BrokerError, BrokerErrorKind, Inspect, Inspection, QueueStats};
use ponos_core::name::{AppName, QueueName};

use crate::broker::Shared;
use crate::declare::Declarer;
use crate::{orders, scan, topology};

pub(crate) async fn inspect(shared: &Arc<Shared>, query: Inspect) -> Result<Inspection, BrokerError> {
    if shared.is_closed() {
        return Err(crate::link::closed());
    }
    Ok(match query {
        Inspect::Queues(app) => Inspection::Queues(queues(shared, app.as_ref()).await?),
        Inspect::Queue(queue) => {
            Inspection::Queues(figures(&mut shared.declarer(), queue).await?.into_iter().collect())
        }
        Inspect::Messages { queue, limit, after } => {
            Inspection::Messages(scan::page(shared, &queue, limit, after).await?)
        }
        Inspect::Message { queue, id } => {
            Inspection::Messages(scan::find(shared, &queue, id).await?.into_iter().collect())
        }
        Inspect::Orders(app) => Inspection::Orders(orders::standing(shared, &app).await?),
        _ => {
            return Err(BrokerError::new(BrokerErrorKind::Invalid, "RabbitMQ does not know this question"));
        }
    })
}

/// The figures of queues, by name: of those that were declared here. Who has declared none is a tool, and is told what the
/// management plugin knows; a service asks every few seconds and never asks that.
async fn queues(shared: &Arc<Shared>, app: Option<&AppName>) -> Result<Vec<QueueStats>, BrokerError> {
    let mine = |queue: &QueueName| app.is_none_or(|app| queue.app() == *app);
    let mut stats = Vec::new();
    let mut names: Vec<QueueName> = shared.known_queues().into_iter().filter(mine).collect();
    let levels = shared.known_levels();
    names.extend(
        levels.into_iter().filter_map(|(app, step)| parse(&topology::level_name(&app, step))).filter(mine),
    );
    if names.is_empty() {
        return listed(shared, app).await;
    }
    let mut declarer = shared.declarer();
    for queue in names {
        // What is gone is not listed.
        stats.extend(figures(&mut declarer, queue).await?);
    }
    stats.sort_by(|one, other| one.queue.cmp(&other.queue));
    Ok(stats)
}

/// What AMQP tells of a queue, if it exists.
async fn figures(declarer: &mut Declarer<'_>, queue: QueueName) -> Result<Option<QueueStats>, BrokerError> {
    let figures = declarer.figures(queue.as_str()).await?;
    Ok(figures.map(|figures| QueueStats {
        ready: figures.ready.into(),
        delayed: None,
        unsettled: None,
        consumers: figures.consumers,
        oldest: None,
        queue,
    }))
}

/// An empty list would look like a broker without queues.
fn unlisted(shared: &Shared, app: Option<&AppName>, why: &str) -> BrokerError {
    let whose = app.map(|app| format!(" of `{app}`")).unwrap_or_default();
    let problem = format!(
        "the queues{whose} on {} cannot be listed: AMQP answers for a queue by its name only, a list comes from RabbitMQ's management plugin, and {why}",
        shared.name
    );
    BrokerError::new(BrokerErrorKind::Invalid, problem)
}

/// What the management plugin lists. It knows what consumers hold; who consumes, the queue itself tells.
#[cfg(feature = "management")]
async fn listed(shared: &Arc<Shared>, app: Option<&AppName>) -> Result<Vec<QueueStats>, BrokerError> {
    let management = crate::management::Management::new(&shared.options);
    let totals = async { management?.totals().await };
    let totals = totals.await.map_err(|error| unlisted(shared, app, &error.to_string()))?;
    let mut stats = Vec::new();
    let mut declarer = shared.declarer();
    for (name, totals) in totals {
        // Names that are none of ours belong to other programs, and the stream of standing orders holds no jobs.
        let ours = |queue: &QueueName| {
            let owner = queue.app();
            app.is_none_or(|app| owner == *app) && queue.as_str() != topology::orders_name(&owner)
        };
        let Some(queue) = parse(&name).filter(ours) else { continue };
        let told = figures(&mut declarer, queue).await?;
        stats.extend(told.map(|told| QueueStats { unsettled: Some(totals.unacknowledged), ..told }));
    }
    stats.sort_by(|one, other| one.queue.cmp(&other.queue));
    Ok(stats)
}

#[cfg(not(feature = "management"))]
#[expect(clippy::unused_async, reason = "asks the management plugin where that is built in")]
async fn listed(shared: &Arc<Shared>, app: Option<&AppName>) -> Result<Vec<QueueStats>, BrokerError> {
    let why =
        "this program was built without asking it: turn on the feature `rabbitmq-management` of `ponos`";
    Err(unlisted(shared, app, why))
}

/// A queue's name, if it is one of an application's.
pub(crate) fn parse(name: &str) -> Option<QueueName> {
    ponos_core::name::check_queue(name).ok()?;
    serde_json::from_value(name.into()).ok()
}
