//! Making a plan exist.
//!
//! Everything is declared as it should be. What exists and differs closes the channel with a 406 that names the first
//! difference: another type or durability cannot be used and is an error; any other difference is used as it is, with
//! a warning, because policies and older versions may have made it.

use std::sync::atomic::{AtomicU64, Ordering};

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use ponos_core::broker::{BrokerError, BrokerErrorKind};

use crate::convert;
use crate::error::{self, Class};
use crate::link::{CALL_DEADLINE, Link};
use crate::topology::{self, BindingSpec, ExchangeSpec, ExchangeType, Plan, QueueSpec};
#[cfg(feature = "management")]
use crate::{diff::Diff, management::Management};

/// How long the management plugin may take to tell what is different, while a service waits for its start.
#[cfg(feature = "management")]
const TELL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(2);

/// What of a queue cannot be changed, and cannot be used otherwise.
const FATAL_OF_QUEUES: [&str; 4] = ["x-queue-type", "durable", "exclusive", "auto_delete"];

/// More arguments than any queue has.
const MOST_ARGUMENTS: usize = 32;

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
    #[cfg(feature = "management")]
    management_is_away: bool,
}

/// What was refused because something else is there.
#[cfg_attr(not(feature = "management"), expect(dead_code, reason = "read by the management feature"))]
enum Wanted<'a> {
    Exchange(&'a ExchangeSpec),
    Queue(&'a QueueSpec),
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
        Self {
            link,
            channel: None,
            mismatches,
            #[cfg(feature = "management")]
            management_is_away: false,
        }
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
                let told = self.told(Wanted::Exchange(spec)).await;
                if names_argument(&said, &["type", "durable"]) {
                    return Err(unusable(
                        &what,
                        told.as_deref(),
                        &said,
                        "delete it, or let its owner declare it as a durable one of this type",
                    ));
                }
                self.differs(&what, told.as_deref().unwrap_or(&said));
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
                                "the event `{}` does not exist yet and this user may not declare it: run `ponos topology apply` with its manifest as a user who may, or start a service first that may",
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
        let said_of_kind = self.kind_differs(spec).await?.unwrap_or_default();
        let told = self.told(Wanted::Queue(spec)).await;
        for said in [&said_of_kind, &said] {
            if names_argument(said, &FATAL_OF_QUEUES) {
                return Err(unusable(
                    &what,
                    told.as_deref(),
                    said,
                    "to take over a Node service's queues say `?queue_type=classic` in the broker's URL; otherwise drain and delete the queue, and start again",
                ));
            }
        }
        self.differs(&what, told.as_deref().unwrap_or(&said));
        Ok(())
    }

    /// What RabbitMQ says of a queue's type, if that is another one. It names the first difference only, and the type is
    /// among the last, so whatever else it names is asked for as it is.
    async fn kind_differs(&mut self, spec: &QueueSpec) -> Result<Option<String>, BrokerError> {
        let kind = spec.arguments.get_key_value("x-queue-type").map(|(name, kind)| (*name, kind.clone()));
        let mut arguments = convert::table(&kind.into_iter().collect());
        for _ in 0..MOST_ARGUMENTS {
            let said = match self.declare_queue(&spec.name, arguments.clone(), false).await {
                Err(Failed::Channel(AMQPSoftError::PRECONDITIONFAILED, error)) => error::text(&error),
                Err(Failed::Broker(error)) => return Err(error),
                _ => return Ok(None),
            };
            match current(&said).filter(|(name, _)| !FATAL_OF_QUEUES.contains(name)) {
                Some((name, value)) => {
                    arguments.insert(name.into(), value);
                }
                None => return Ok(Some(said)),
            }
        }
        Ok(None)
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

    /// All differences of something that exists, where the management plugin is there to tell them.
    #[cfg(feature = "management")]
    async fn told(&mut self, wanted: Wanted<'_>) -> Option<String> {
        if self.management_is_away {
            return None;
        }
        let management = Management::within(self.link.options(), TELL_DEADLINE);
        let told = async {
            let management = management?;
            let diff = match wanted {
                Wanted::Exchange(spec) => {
                    management.exchange(&spec.name).await?.map(|found| Diff::of_exchange(spec, &found))
                }
                Wanted::Queue(spec) => {
                    management.queue(&spec.name).await?.map(|found| Diff::of_queue(spec, &found))
                }
            };
            Ok::<_, BrokerError>(diff)
        };
        match told.await {
            Ok(diff) => diff.map(|diff| diff.to_string()).filter(|text| !text.is_empty()),
            Err(error) => {
                // Who starts does not wait for it once for every queue.
                self.management_is_away = true;
                tracing::debug!(%error, "only the first difference is known");
                None
            }
        }
    }

    #[cfg(not(feature = "management"))]
    #[expect(clippy::unused_async, reason = "asks the management plugin where that is built in")]
    async fn told(&mut self, _: Wanted<'_>) -> Option<String> {
        None
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

/// The argument that a 406 names, and the value that it has where it is a text or a number.
fn current(said: &str) -> Option<(&str, AMQPValue)> {
    let (_, rest) = said.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, current) = rest.rsplit_once("current is the value '")?;
    let (value, kind) = current.rsplit_once("' of type '")?;
    let value = match kind.trim_end_matches('\'') {
        "longstr" => AMQPValue::LongString(value.into()),
        _ => AMQPValue::LongLongInt(value.parse().ok()?),
    };
    Some((name, value))
}

/// Whether a 406 is about one of these properties.
fn names_argument(said: &str, arguments: &[&str]) -> bool {
    arguments.iter().any(|argument| said.contains(&format!("inequivalent arg '{argument}'")))
}

/// All differences where they were told, else the one that RabbitMQ names.
fn unusable(what: &str, told: Option<&str>, said: &str, cure: &str) -> BrokerError {
    let difference = told.unwrap_or_else(|| said.split_once(": ").map_or(said, |(_, difference)| difference));
    BrokerError::new(
        BrokerErrorKind::Mismatch,
        format!(
            "{what} exists and cannot be used ({difference}; {said}): {cure}; `ponos topology plan` shows what is wanted and what is there"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_what_an_argument_is_now() {
        let said = |rest: &str| {
            format!("PRECONDITION_FAILED - inequivalent arg 'x' for queue 'q' in vhost '/': {rest}")
        };
        let number = said("received none but current is the value '5' of type 'signedint'");
        assert_eq!(current(&number), Some(("x", AMQPValue::LongLongInt(5))));
        let text = said(
            "received the value '1' of type 'signedint' but current is the value 'it's' of type 'longstr'",
        );
        assert_eq!(current(&text), Some(("x", AMQPValue::LongString("it's".into()))));
        assert_eq!(current(&said("received the value '1' of type 'signedint' but current is none")), None);
        assert_eq!(current("NOT_FOUND"), None);
    }
}
