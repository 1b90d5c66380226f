//! Circuits that are not closed, by the queues that listen through them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ponos::core::id::Timestamp;
use ponos::core::journal::{CircuitPhase, Notice, Said};
use ponos::core::name::QueueName;
use ponos_readmodel::{Instance, ReadModel, ReadModelError};
use serde::Serialize;

use crate::manifests::{self, Loaded};

/// How long an instance that has not said how often it speaks is believed to live.
const YOUNG: Duration = Duration::from_secs(30);

/// By how much another clock may be ahead.
const AHEAD_MS: u64 = 3_600_000;

/// A circuit in front of a queue that lets not everything through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unclosed {
    /// The dependency, or the queue itself.
    pub(crate) circuit: String,
    pub(crate) phase: CircuitPhase,
    /// In how many instances.
    pub(crate) instances: u64,
    /// Why it opened, where that is known; a text of somebody else.
    pub(crate) cause: Option<String>,
}

/// What living instances say of their circuits: each in its last beat, and in its notices since then.
pub(super) fn unclosed(
    model: &ReadModel,
    manifests: &[Loaded],
    now: Timestamp,
) -> Result<BTreeMap<QueueName, Unclosed>, ReadModelError> {
    let instances = model.instances()?;
    let living: BTreeMap<u64, &Instance> =
        instances.iter().filter(|one| lives(one, now)).map(|one| (one.origin.id, one)).collect();
    // By instance and circuit: what it is, why, and in front of what.
    type Known = (CircuitPhase, Option<String>, Vec<QueueName>);
    let mut known: BTreeMap<(u64, String), Known> = BTreeMap::new();
    for (id, instance) in &living {
        for (name, phase) in instance.beat.iter().flat_map(|(_, beat)| &beat.circuits) {
            known.insert((*id, name.to_string()), (*phase, None, Vec::new()));
        }
    }
    let said_at = |instance: &Instance| instance.beat.as_ref().map_or(instance.first_at, |(at, _)| *at);
    if let Some(from) = living.values().map(|instance| said_at(instance)).min() {
        let to = Timestamp::from_millis(now.as_millis().saturating_add(AHEAD_MS));
        for (at, entry) in model.notices_between(from, to)? {
            let id = entry.origin.id;
            if let Said::Notice(_, Notice::Circuit(notice)) = entry.said
                && living.get(&id).is_some_and(|instance| at >= said_at(instance))
            {
                let cause = (!notice.cause.is_empty()).then(|| notice.cause.to_string());
                known.insert((id, notice.circuit.to_string()), (notice.phase, cause, notice.queues));
            }
        }
    }
    let dependents = manifests::dependents(manifests);
    let mut found: BTreeMap<QueueName, Unclosed> = BTreeMap::new();
    for ((id, circuit), (phase, cause, mut queues)) in known {
        if phase == CircuitPhase::Closed {
            continue;
        }
        if queues.is_empty() {
            // A queue's name holds a dot, a dependency's does not.
            queues = match QueueName::parse(&circuit) {
                Ok(queue) if circuit.contains('.') => vec![queue],
                _ => {
                    let app = living[&id].origin.app.to_string();
                    dependents.get(&(app, circuit.clone())).cloned().unwrap_or_default()
                }
            };
        }
        for queue in BTreeSet::from_iter(queues) {
            let new = || Unclosed { circuit: circuit.clone(), phase, instances: 0, cause: None };
            let one = found.entry(queue).or_insert_with(new);
            one.instances += 1;
            if phase == CircuitPhase::Open {
                one.phase = phase;
            }
            one.cause = one.cause.take().or_else(|| cause.clone());
        }
    }
    Ok(found)
}

/// Whether it can be believed to run.
fn lives(instance: &Instance, now: Timestamp) -> bool {
    let known = instance.beat.is_some() || now.since(instance.last_at) <= YOUNG;
    instance.ended.is_none() && known && !instance.is_silent(now)
}
