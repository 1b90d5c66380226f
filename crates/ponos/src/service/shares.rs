//! What queues share: circuits and rate limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use ponos_core::journal::{CircuitNotice, CircuitPhase, Notice};
use ponos_core::name::QueueName;
use ponos_core::policy::BreakerConfig;
use tokio::task::JoinHandle;

use super::DependencyPolicy;
use super::bound::Queue;
use crate::message::App;
use crate::worker::{Circuit, CircuitState, Limiter, Shared, Told};

/// What a queue's breaker and limit are shared under: its dependency, or itself. A queue's name holds a dot, a
/// dependency's does not, so they never meet.
pub(super) fn share_key(queue: &Queue) -> String {
    queue.policy.depends_on.clone().unwrap_or_else(|| queue.queue.to_string())
}

pub(super) fn circuits<A: App>(
    queues: &[Queue],
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    shared: &Arc<Shared>,
    keepers: &mut Vec<JoinHandle<()>>,
) -> BTreeMap<String, Arc<Circuit>> {
    let mut circuits = BTreeMap::new();
    for queue in queues {
        let key = share_key(queue);
        let named = dependencies.get(&key).and_then(|dependency| dependency.breaker);
        let Some(config): Option<BreakerConfig> = queue.policy.breaker.map(|own| named.unwrap_or(own)) else {
            continue;
        };
        if circuits.contains_key(&key) {
            continue;
        }
        let health =
            queues.iter().filter(|other| share_key(other) == key).find_map(|other| other.health.clone());
        let clock = shared.local.clock.clone();
        let members =
            queues.iter().filter(|other| share_key(other) == key).map(|other| other.queue.clone()).collect();
        let told = told_of_circuits(shared, members);
        let circuit = Arc::new(Circuit::new(key.clone(), config, health, told, clock));
        keepers.push(shared.local.clock.spawn(Arc::clone(&circuit).keep()));
        circuits.insert(key, circuit);
    }
    circuits
}

/// Tells the service's hook and its journal of a circuit's changes.
fn told_of_circuits(shared: &Arc<Shared>, members: Vec<QueueName>) -> Told {
    let shared = Arc::clone(shared);
    Arc::new(move |change| {
        shared.hooks.circuit(change);
        let local = &shared.local;
        let Some(lifecycle) = &local.lifecycle else { return };
        let (phase, open_for, cause) = match &change.state {
            CircuitState::Closed => (CircuitPhase::Closed, None, String::new()),
            CircuitState::HalfOpen => (CircuitPhase::HalfOpen, None, String::new()),
            CircuitState::Open { time, cause } => (CircuitPhase::Open, Some(*time), cause.to_string()),
        };
        let circuit = change.circuit.as_str().into();
        let notice = CircuitNotice { circuit, queues: members.clone(), phase, open_for, cause: cause.into() };
        lifecycle.notice(local.clock.wall(), Notice::Circuit(notice));
    })
}

/// A limiter for each name under which a limit is shared, and one for each queue, so that there is one to be ordered.
pub(super) fn limiters<A: App>(
    queues: &[Queue],
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    shared: &Arc<Shared>,
    keepers: &mut Vec<JoinHandle<()>>,
) -> BTreeMap<String, Arc<Limiter>> {
    let mut users = BTreeMap::<String, Vec<&Queue>>::new();
    for queue in queues {
        users.entry(share_key(queue)).or_default().push(queue);
        if queue.policy.depends_on.is_some() {
            users.entry(queue.queue.to_string()).or_default().push(queue);
        }
    }
    let clock = &shared.local.clock;
    let mut limiters = BTreeMap::new();
    for (name, users) in users {
        let named = dependencies.get(&name).and_then(|dependency| dependency.rate);
        // What a handler says is the limit of what it depends on.
        let own = users.iter().filter(|queue| share_key(queue) == name).find_map(|queue| queue.policy.rate);
        let configured = named.or(own);
        let queues = users.into_iter().map(|queue| queue.queue.clone()).collect();
        let limiter = Arc::new(Limiter::new(configured, queues, &shared.limit_store));
        #[cfg(feature = "redis")]
        if let Some((link, rate)) = shared.limit_store.link.as_ref().zip(configured) {
            let key = format!("ponos:rate:{}:{name}", shared.local.app);
            keepers.push(clock.spawn(Arc::clone(link).keep_limit(Arc::clone(&limiter), rate, key)));
        }
        let (app, broker) = (shared.local.app.clone(), Arc::clone(&shared.broker));
        keepers.push(clock.spawn(Arc::clone(&limiter).keep_fresh(app, broker, clock.clone())));
        limiters.insert(name, limiter);
    }
    #[cfg(feature = "redis")]
    if let Some(link) = &shared.limit_store.link
        && limiters.values().any(|limiter| limiter.watch().borrow().rate.is_some())
    {
        keepers.push(clock.spawn(Arc::clone(link).keep()));
    }
    limiters
}
