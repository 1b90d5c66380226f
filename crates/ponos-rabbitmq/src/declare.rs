//! Making a plan exist.
//!
//! Everything is declared as it should be. What exists and differs closes the channel with a 406 that names the first
//! difference: another type or durability cannot be used and is an error; any other difference is used as it is, with
//! a warning, because policies and older versions may have made it.

use std::sync::atomic::{AtomicU64, Ordering};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use ponos_core::broker::{BrokerError, BrokerErrorKind};

use crate::convert;
use crate::error::{self, Class};
use crate::link::{CALL_DEADLINE, Link};
use crate::topology::{self, BindingSpec, ExchangeSpec, ExchangeType, Plan, QueueSpec};

/// What a queue says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) ready: u32,
    pub(crate) consumers: u32,
}

/// Declares over a channel that it opens anew whenever RabbitMQ closes it.
pub(crate) struct Declarer<'a> {
    link: &'a Link,
    /// With the number of its connection.
    channel: Option<(Channel, u64)>,
    mismatches: &'a AtomicU64,
}

/// Why a call failed: the channel's own error, or one of the connection.
enum Failed {
    Channel(AMQPSoftError, lapin::Error),
    Broker(BrokerError),
}

impl Failed {
    fn into_error(self, what: &str) -> BrokerError {
        match self {
            Self::Channel(_, error) => error::of_operation(what, &error),
            Self::Broker(error) => error,
        }
    }
}

impl<'a> Declarer<'a> {
    pub(crate) fn new(link: &'a Link, mismatches: &'a AtomicU64) -> Self {
        Self { link, channel: None, mismatches }
    }

    /// Makes everything of a plan exist.
    ///
    /// # Errors
    ///
    /// When what exists cannot be used, something is not allowed, or the connection breaks.
    pub(crate) async fn carry_out(&mut self, plan: &Plan) -> Result<(), BrokerError> {
        for exchange in &plan.exchanges {
            self.exchange(exchange).await?;
        }
        for queue in &plan.queues {
            self.queue(queue).await?;
        }
        for binding in &plan.bindings {
            self.binding(binding).await?;
        }
        Ok(())
    }

    /// Calls on a channel that is open.
    async fn call<T, F>(&mut self, what: &str, operation: impl FnOnce(Channel) -> F) -> Result<T, Failed>
    where
        F: Future<Output = lapin::Result<T>>,
    {
        let (channel, generation) =
            match self.channel.take().filter(|(channel, _)| channel.status().connected()) {
                Some(open) => open,
                None => self.link.channel(CALL_DEADLINE).await.map_err(Failed::Broker)?,
            };
        let answer = self.link.answer(what, generation, CALL_DEADLINE, operation(channel.clone())).await;
        match answer.map_err(Failed::Broker)? {
            Ok(value) => {
                self.channel = Some((channel, generation));
                Ok(value)
            }
            Err(error) => match error::class(&error) {
                Class::Channel(soft) => Err(Failed::Channel(soft, error)),
                Class::NoChannel | Class::Connection => {
                    Err(Failed::Broker(error::of_operation(what, &error)))
                }
            },
        }
    }

    async fn exchange(&mut self, spec: &ExchangeSpec) -> Result<(), BrokerError> {
        let what = format!("the exchange `{}`", spec.name);
        match self.declare_exchange(spec, false).await {
            Ok(()) => Ok(()),
            Err(Failed::Channel(AMQPSoftError::PRECONDITIONFAILED, error)) => {
                let said = error::text(&error);
                if names_argument(&said, &["type", "durable"]) {
                    return Err(unusable(
                        &what,
                        &said,
                        "delete it, or let its owner declare it as a durable one of this type",
                    ));
                }
                self.differs(&what, &said);
                Ok(())
            }
            // Who may not declare may still use what its owner has declared.
            Err(Failed::Channel(AMQPSoftError::ACCESSREFUSED, refused)) => {
                match self.declare_exchange(spec, true).await {
                    Ok(()) => Ok(()),
                    Err(Failed::Channel(AMQPSoftError::NOTFOUND, _)) if spec.is_event => {
                        Err(BrokerError::new(
                            BrokerErrorKind::Denied,
                            format!(
                                "the event `{}` does not exist yet and this user may not declare it: start the service that emits it first, or run `ponos topology apply` with its manifest",
                                spec.name
                            ),
                        ))
                    }
                    Err(Failed::Channel(..)) => Err(error::of_operation(&what, &refused)),
                    Err(failed) => Err(failed.into_error(&what)),
                }
            }
            Err(failed) => Err(failed.into_error(&what)),
        }
    }

    async fn declare_exchange(&mut self, spec: &ExchangeSpec, passive: bool) -> Result<(), Failed> {
        let kind = match spec.kind {
            ExchangeType::Fanout => ExchangeKind::Fanout,
            ExchangeType::Direct => ExchangeKind::Direct,
        };
        let options = ExchangeDeclareOptions { durable: true, passive, ..ExchangeDeclareOptions::default() };
        let (name, arguments) = (spec.name.as_str().into(), convert::table(&spec.arguments));
        self.call(&spec.name, |channel| async move {
            channel.exchange_declare(name, kind, options, arguments).await
        })
        .await
    }

    async fn queue(&mut self, spec: &QueueSpec) -> Result<(), BrokerError> {
        let what = format!("the queue `{}`", spec.name);
        let said = match self.declare_queue(&spec.name, convert::table(&spec.arguments), false).await {
            Ok(_) => return Ok(()),
            Err(Failed::Channel(AMQPSoftError::PRECONDITIONFAILED, error)) => error::text(&error),
            Err(failed) => return Err(failed.into_error(&what)),
        };
        let prototype = topology::prototype_arguments();
        if spec.arguments != prototype
            && self.declare_queue(&spec.name, convert::table(&prototype), false).await.is_ok()
        {
            return Err(BrokerError::new(
                BrokerErrorKind::Mismatch,
                format!(
                    "{what} was made for a prototype and drops messages, which RabbitMQ cannot change: drain it, delete it (`rabbitmqctl delete_queue {}`) and start again, or say `.prototype()` again",
                    spec.name
                ),
            ));
        }
        // RabbitMQ names the first difference only, so the type alone is asked for as well.
        let kind = spec.arguments.get_key_value("x-queue-type").map(|(name, kind)| (*name, kind.clone()));
        let kind_alone = convert::table(&kind.into_iter().collect());
        let said_of_kind = match self.declare_queue(&spec.name, kind_alone, false).await {
            Err(Failed::Channel(AMQPSoftError::PRECONDITIONFAILED, error)) => error::text(&error),
            Err(Failed::Broker(error)) => return Err(error),
            _ => String::new(),
        };
        for said in [&said_of_kind, &said] {
            if names_argument(said, &["x-queue-type", "durable", "exclusive", "auto_delete"]) {
                return Err(unusable(
                    &what,
                    said,
                    "to take over a Node service's queues say `?queue_type=classic` in the broker's URL; otherwise drain and delete the queue, and start again",
                ));
            }
        }
        self.differs(&what, &said);
        Ok(())
    }

    async fn declare_queue(
        &mut self,
        name: &str,
        arguments: FieldTable,
        passive: bool,
    ) -> Result<Figures, Failed> {
        let options = QueueDeclareOptions { durable: true, passive, ..QueueDeclareOptions::default() };
        let queue = name.into();
        let declared = self
            .call(name, |channel| async move { channel.queue_declare(queue, options, arguments).await })
            .await?;
        Ok(Figures { ready: declared.message_count(), consumers: declared.consumer_count() })
    }

    /// What a queue says of itself; `None` when it does not exist.
    pub(crate) async fn figures(&mut self, queue: &str) -> Result<Option<Figures>, BrokerError> {
        match self.declare_queue(queue, FieldTable::default(), true).await {
            Ok(figures) => Ok(Some(figures)),
            Err(Failed::Channel(AMQPSoftError::NOTFOUND, error)) => {
                let said = error::text(&error);
                if error::is_away(&said) { Err(error::unavailable(said)) } else { Ok(None) }
            }
            Err(failed) => Err(failed.into_error(&format!("the queue `{queue}`"))),
        }
    }

    async fn binding(&mut self, spec: &BindingSpec) -> Result<(), BrokerError> {
        let (queue, exchange) = (spec.queue.as_str().into(), spec.exchange.as_str().into());
        let key = spec.routing_key.as_str().into();
        let bound = self
            .call(&spec.queue, |channel| async move {
                channel
                    .queue_bind(queue, exchange, key, QueueBindOptions::default(), FieldTable::default())
                    .await
            })
            .await;
        bound.map_err(|failed| {
            failed.into_error(&format!(
                "binding the queue `{}` to the exchange `{}`",
                spec.queue, spec.exchange
            ))
        })
    }

    fn differs(&self, what: &str, said: &str) {
        self.mismatches.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            what,
            said,
            "exists with other arguments and is used as it is; `ponos topology plan` shows the differences"
        );
    }
}

/// Whether a 406 is about one of these properties.
fn names_argument(said: &str, arguments: &[&str]) -> bool {
    arguments.iter().any(|argument| said.contains(&format!("inequivalent arg '{argument}'")))
}

fn unusable(what: &str, said: &str, cure: &str) -> BrokerError {
    let difference = said.split_once(": ").map_or(said, |(_, difference)| difference);
    BrokerError::new(
        BrokerErrorKind::Mismatch,
        format!(
            "{what} exists and cannot be used ({difference}; {said}): {cure}; `ponos topology plan` shows what is wanted and what is there"
        ),
    )
}
