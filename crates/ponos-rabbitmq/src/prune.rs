//! Taking a queue away that no manifest names, without taking a job with it.
//!
//! 1. It is unbound from events, so that nothing new comes. Its binding to the application's own exchange stays: jobs of
//!    it that wait for a retry come back that way.
//! 2. It must be empty (ready, held by a consumer, on its way as a dead letter) in two looks between which RabbitMQ has
//!    counted anew, and nobody may consume it.
//! 3. The last binding goes, and after one more look the queue. What is published to it from then on goes to
//!    `{app}.failed`, as everything that the application's exchange cannot route.
//!
//! Where it does not come to that, all bindings are put back. The queue is deleted without `if-unused` or `if-empty`, which
//! quorum queues answer by closing the connection (540).

use std::time::Duration;

use ponos_core::broker::{BrokerError, BrokerErrorKind};
use ponos_core::name::AppName;
use tokio::time::Instant;

use crate::broker::RabbitBroker;
use crate::management::{FRESH, Management};
use crate::topology::{BindingSpec, is_of_every_app};

/// Between two looks at a queue.
const LOOK: Duration = Duration::from_secs(1);

/// What became of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    /// It is deleted.
    Deleted,
    /// It had gone before.
    Gone,
    /// It holds so many jobs that nobody works; nothing was touched.
    Unworked(u64),
    /// So many messages and consumers were left when the time was over; its bindings are as they were.
    Busy {
        /// Ready, held by a consumer, or on their way as dead letters.
        messages: u64,
        /// Who consumes it.
        consumers: u32,
    },
}

/// How a queue is at one moment.
struct Look {
    messages: u64,
    ready: u32,
    consumers: u32,
}

impl Look {
    fn is_quiet(&self) -> bool {
        self.messages == 0 && self.consumers == 0
    }
}

/// Takes one queue of an application away, if it becomes empty within a time.
///
/// # Errors
///
/// `Invalid` for a queue that is not the application's, or that every application has. Otherwise when RabbitMQ or its
/// management plugin does not answer; the error then says how the bindings are.
///
/// # Cancel safety
///
/// If the future is dropped, bindings may be missing; the next call begins with what it finds.
pub async fn prune(
    broker: &RabbitBroker,
    management: &Management,
    app: &AppName,
    queue: &str,
    within: Duration,
) -> Result<Pruned, BrokerError> {
    let is_its = queue.strip_prefix(app.as_str()).is_some_and(|rest| rest.starts_with('.'));
    if !is_its || is_of_every_app(app, queue) {
        return Err(BrokerError::new(
            BrokerErrorKind::Invalid,
            format!("`{queue}` is not a queue that can be taken away from the application `{app}`"),
        ));
    }
    let Some(first) = look(broker, management, queue).await? else { return Ok(Pruned::Gone) };
    if first.ready > 0 && first.consumers == 0 {
        return Ok(Pruned::Unworked(first.messages));
    }
    let bindings = management.bindings_of(queue).await?;
    let done = take_away(broker, management, app, queue, &bindings, within).await;
    match done {
        Ok(Pruned::Busy { .. }) => put_back(management, &bindings).await?,
        Ok(_) => {}
        Err(error) => {
            let state = match put_back(management, &bindings).await {
                Ok(()) => "its bindings are as they were",
                Err(_) => "it may be unbound now: run this again when RabbitMQ is well",
            };
            return Err(BrokerError::new(error.kind(), format!("the queue `{queue}`: {error}; {state}")));
        }
    }
    done
}

async fn take_away(
    broker: &RabbitBroker,
    management: &Management,
    app: &AppName,
    queue: &str,
    bindings: &[BindingSpec],
    within: Duration,
) -> Result<Pruned, BrokerError> {
    let is_own = |binding: &&BindingSpec| *app == binding.exchange.as_str();
    for binding in bindings.iter().filter(|binding| !is_own(binding)) {
        management.unbind(binding).await?;
    }
    let deadline = Instant::now() + within;
    let mut quiet_since = None;
    loop {
        let Some(look) = look(broker, management, queue).await? else { return Ok(Pruned::Gone) };
        let now = Instant::now();
        if look.is_quiet() {
            let since = *quiet_since.get_or_insert(now);
            // The second look sees figures that are newer than the first one.
            if now.duration_since(since) >= FRESH {
                break;
            }
        } else {
            quiet_since = None;
            if now >= deadline {
                return Ok(Pruned::Busy { messages: look.messages, consumers: look.consumers });
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    for binding in bindings.iter().filter(is_own) {
        management.unbind(binding).await?;
    }
    match look(broker, management, queue).await? {
        None => Ok(Pruned::Gone),
        Some(look) if look.is_quiet() => {
            management.delete_queue(queue).await?;
            Ok(Pruned::Deleted)
        }
        Some(look) => Ok(Pruned::Busy { messages: look.messages, consumers: look.consumers }),
    }
}

/// What is ready and who consumes, the queue itself tells at once; the rest is counted every few seconds.
async fn look(
    broker: &RabbitBroker,
    management: &Management,
    queue: &str,
) -> Result<Option<Look>, BrokerError> {
    let Some(figures) = broker.figures(queue).await? else { return Ok(None) };
    let totals = management.totals().await?;
    let counted = totals.get(queue).map_or(0, |totals| totals.messages);
    let messages = counted.max(figures.ready.into());
    Ok(Some(Look { messages, ready: figures.ready, consumers: figures.consumers }))
}

async fn put_back(management: &Management, bindings: &[BindingSpec]) -> Result<(), BrokerError> {
    for binding in bindings {
        management.bind(binding).await?;
    }
    Ok(())
}
