//! What is known around a transaction: who listens, what was lost, what held jobs back, what runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use ponos::core::id::Timestamp;
use ponos::core::journal::{CircuitNotice, CircuitPhase, LimitNotice, OrderNotice, Origin};
use ponos::core::manifest::Manifest;
use ponos::core::name::QueueName;
use ponos::trace::{Gap, Hold, InFlight, Listener, Surroundings};
use ponos_readmodel::{Instance, ReadModel, ReadModelError, Trace};

/// All that a tree can use.
pub(super) fn of(
    model: &ReadModel,
    trace: &Trace,
    counted: bool,
    now: Timestamp,
) -> Result<Surroundings, ReadModelError> {
    let instances = model.instances()?;
    let (listeners, depends) = manifests(model, &instances)?;
    let mut gaps: Vec<_> = trace.gaps.clone();
    // A job that is open may have ended since the last record of its transaction.
    let last = trace.records.iter().map(|(_, _, record)| record.at).max();
    if let Some(last) = last {
        gaps.extend(model.gaps(last, now)?);
    }
    let mut gaps: Vec<Gap> = gaps
        .into_iter()
        .map(|gap| Gap { count: gap.entries(), origin: gap.origin, after: gap.after, before: gap.before })
        .collect();
    gaps.sort_by_key(|gap| (gap.after, gap.origin.id, gap.before));
    gaps.dedup();
    let mut holds = circuits(&trace.circuits, &instances, now);
    holds.extend(orders(&trace.orders, &depends, &instances));
    holds.extend(limits(&trace.limits));
    let tid = trace.records.first().map(|(_, _, record)| &record.tid);
    let flights = instances.iter().filter(|instance| instance.ended.is_none()).flat_map(|instance| {
        let beat = instance.beat.iter();
        beat.flat_map(move |(at, beat)| {
            let mine = beat.flights.iter().filter(move |flight| Some(&flight.tid) == tid);
            mine.map(move |flight| InFlight {
                flight: flight.clone(),
                origin: Arc::clone(&instance.origin),
                seen: *at,
                alive: !instance.is_silent(now),
            })
        })
    });
    Ok(Surroundings { listeners, counted, gaps, holds, flights: flights.collect(), queues: Vec::new(), now })
}

/// The times in which queues rested for their rate limits.
fn limits(notices: &[(Arc<Origin>, Timestamp, LimitNotice)]) -> Vec<Hold> {
    let mut resting: BTreeMap<(u64, &str), Hold> = BTreeMap::new();
    let mut holds = Vec::new();
    for (origin, at, notice) in notices {
        let key = (origin.id, notice.queue.as_str());
        if let Some(mut hold) = resting.remove(&key) {
            hold.until = Some(hold.until.map_or(*at, |until| until.min(*at)));
            holds.push(hold);
        }
        if notice.until.is_some() {
            let why = "it rests for its rate limit".to_owned();
            let queues = vec![notice.queue.clone()];
            resting.insert(key, Hold { queues, why, from: *at, until: notice.until });
        }
    }
    holds.extend(resting.into_values());
    holds
}

/// Which queues depend on what.
type Depends = BTreeMap<String, Vec<QueueName>>;

/// Who listens to what since when, and what depends on what, by the manifests that are known.
fn manifests(model: &ReadModel, instances: &[Instance]) -> Result<(Vec<Listener>, Depends), ReadModelError> {
    let mut listeners = Vec::new();
    let mut depends = Depends::new();
    let mut newest: Option<String> = None;
    for known in model.manifests()? {
        // By application, the newest first: what an older version heard is not heard any more.
        if newest.as_deref() == Some(known.origin.app.as_str()) {
            continue;
        }
        newest = Some(known.origin.app.to_string());
        let Ok(manifest) = Manifest::from_json(&known.text) else { continue };
        let of_version = |instance: &&Instance| {
            instance.origin.app == known.origin.app && instance.origin.version == known.origin.version
        };
        let since = instances.iter().filter(of_version).map(|instance| instance.first_at).min();
        let since = since.unwrap_or(known.at).min(known.at);
        for reaction in &manifest.reactions {
            if let Ok(queue) = QueueName::parse(&reaction.queue) {
                listeners.push(Listener { event: reaction.event.clone(), queue, since });
            }
        }
        let reactions = manifest.reactions.iter().map(|reaction| (&reaction.queue, &reaction.policy));
        for (queue, policy) in reactions.chain(manifest.tasks.iter().map(|task| (&task.queue, &task.policy)))
        {
            if let (Some(name), Ok(queue)) = (&policy.depends_on, QueueName::parse(queue)) {
                depends.entry(name.clone()).or_default().push(queue);
            }
        }
    }
    Ok((listeners, depends))
}

/// The times in which circuits were open. Each instance has its own.
fn circuits(
    notices: &[(Arc<Origin>, Timestamp, CircuitNotice)],
    instances: &[Instance],
    now: Timestamp,
) -> Vec<Hold> {
    let mut open: BTreeMap<(u64, &str), Hold> = BTreeMap::new();
    let mut holds = Vec::new();
    for (origin, at, notice) in notices {
        let key = (origin.id, &*notice.circuit);
        if let Some(mut hold) = open.remove(&key) {
            hold.until = Some(*at);
            holds.push(hold);
        }
        if notice.phase == CircuitPhase::Open {
            let why = format!("circuit {} open ({})", notice.circuit, notice.cause);
            open.insert(key, Hold { queues: notice.queues.clone(), why, from: *at, until: None });
        }
    }
    for ((id, _), mut hold) in open {
        // An instance that is gone holds nothing any more.
        let gone = instances.iter().find(|instance| instance.origin.id == id).and_then(|instance| {
            instance.ended.or_else(|| instance.is_silent(now).then_some(instance.last_at))
        });
        hold.until = gone;
        holds.push(hold);
    }
    holds
}

/// The times in which orders stood that let nothing through.
fn orders(
    notices: &[(Arc<Origin>, Timestamp, OrderNotice)],
    depends: &Depends,
    instances: &[Instance],
) -> Vec<Hold> {
    let mut standing: BTreeMap<(u64, &str, &str), Hold> = BTreeMap::new();
    let mut holds = Vec::new();
    for (origin, at, notice) in notices {
        let word = match &*notice.action {
            "pause" => "paused",
            "circuit" => "held open",
            _ => continue,
        };
        let key = (origin.id, &*notice.target, &*notice.action);
        if let Some(mut hold) = standing.remove(&key) {
            hold.until = Some(hold.until.map_or(*at, |until| until.min(*at)));
            holds.push(hold);
        }
        if notice.stands {
            let queues = match QueueName::parse(&notice.target) {
                Ok(queue) => vec![queue],
                Err(_) => {
                    let name = notice.target.rsplit([' ', '/', ':']).next().unwrap_or_default();
                    depends.get(name).cloned().unwrap_or_default()
                }
            };
            let why = format!("{word} by {}: {}", notice.by, notice.reason);
            standing.insert(key, Hold { queues, why, from: *at, until: notice.until });
        }
    }
    for ((id, ..), mut hold) in standing {
        if let Some(ended) =
            instances.iter().find(|instance| instance.origin.id == id).and_then(|instance| instance.ended)
        {
            hold.until = Some(hold.until.map_or(ended, |until| until.min(ended)));
        }
        holds.push(hold);
    }
    holds
}
