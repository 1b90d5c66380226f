//! Whether the circuit in front of a queue lets jobs through, as instances say and orders demand.

use std::collections::BTreeMap;
use std::sync::Mutex as Shared;

use ponos::core::broker::{BoxFuture, Inspect, OrderAction};
use ponos::core::journal::CircuitPhase;
use ponos::core::name::QueueName;
use ponos::{CircuitGate, Gate};
use tokio::sync::Mutex;

use crate::broker::Session;
use crate::error::CliError;
use crate::manifests;
use crate::text;
use crate::view::{self, View};

/// Circuits as the read model knows them after another look at the journal.
#[derive(Debug)]
pub(super) struct Circuits<'a> {
    session: &'a Session,
    view: Mutex<View>,
    /// What was found last, by queue: the reason for which jobs wait, if they do.
    found: Shared<BTreeMap<QueueName, Option<String>>>,
}

impl<'a> Circuits<'a> {
    /// # Errors
    ///
    /// When the broker keeps no records or does not answer, or the files cannot be used: then circuits are not known.
    pub(super) async fn open(session: &'a Session) -> Result<Self, CliError> {
        let view = Mutex::new(View::open(session).await?);
        Ok(Self { session, view, found: Shared::default() })
    }

    /// Why jobs of this queue wait, safe to be shown.
    pub(super) fn reason(&self, queue: &QueueName) -> Option<String> {
        self.found.lock().ok()?.get(queue).cloned().flatten()
    }

    async fn look(&self, queue: &QueueName) -> Result<Option<String>, CliError> {
        let orders = view::orders(self.session, [queue.app()].into()).await;
        let (circuit, dependents) = {
            let mut view = self.view.lock().await;
            view.catch_up(self.session).await?;
            let manifests = manifests::of_records(&view)?;
            (view.circuits(&manifests)?.remove(queue), manifests::dependents(&manifests))
        };
        let mut held = orders.iter().filter(|order| order.action == OrderAction::CircuitOpen);
        if let Some(order) = held.find(|order| view::concerns(order, queue, &dependents)) {
            return Ok(Some(format!("circuit held open {}", view::By::from(order).words())));
        }
        let Some(circuit) = circuit else { return Ok(None) };
        // Only a job can close it, and there is none: these have to try it.
        if circuit.phase == CircuitPhase::HalfOpen && self.is_empty(queue).await {
            return Ok(None);
        }
        let cause = circuit.cause.as_deref().map(|cause| format!(" ({})", text::line(cause, 160)));
        Ok(Some(circuit.words() + &cause.unwrap_or_default()))
    }

    async fn is_empty(&self, queue: &QueueName) -> bool {
        let stats = self.session.ask(self.session.broker().inspect(Inspect::Queue(queue.clone()))).await;
        stats.ok().and_then(|answer| answer.into_queues().pop()).is_some_and(|stats| stats.messages() == 0)
    }
}

impl CircuitGate for Circuits<'_> {
    fn of<'a>(&'a self, queue: &'a QueueName) -> BoxFuture<'a, Gate> {
        Box::pin(async move {
            let looked = self.look(queue).await;
            let Ok(mut found) = self.found.lock() else { return Gate::Unknown };
            let reason = match looked {
                Ok(reason) => found.entry(queue.clone()).insert_entry(reason).into_mut(),
                // What cannot be seen now is what it was.
                Err(_) => match found.get_mut(queue) {
                    Some(reason) => reason,
                    None => return Gate::Unknown,
                },
            };
            if reason.is_some() { Gate::Open } else { Gate::Closed }
        })
    }
}
