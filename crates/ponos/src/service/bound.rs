//! A service's queues, bound to its state, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ponos_core::name::QueueName;

use super::policy::NpmFallbacks;
use super::{DependencyPolicy, Service};
use crate::message::App;
use crate::worker::{BoundRecoverFn, Resolved, RunFn};

/// A queue of the service, before it is bound to state and broker.
pub(super) struct Queue {
    pub(super) queue: QueueName,
    pub(super) policy: Resolved,
    pub(super) run: RunFn,
    pub(super) recover: Option<BoundRecoverFn>,
    pub(super) health: Option<BoundHealth>,
}

pub(super) type BoundHealth = Arc<dyn Fn() -> ponos_core::broker::BoxFuture<'static, bool> + Send + Sync>;

#[cfg(feature = "testing")]
impl Queue {
    /// The same queue, whose runs are seen by the process of a simulation.
    pub(super) fn watched(self, process: &Arc<crate::testing::process::Process>) -> Self {
        let Self { queue, policy, run, recover, health } = self;
        let (run, recover) = crate::testing::process::watched(process, &queue, &policy, run, recover);
        Self { queue, policy, run, recover, health }
    }
}

pub(super) fn bind<A: App>(
    service: &Service<A>,
    state: &Arc<A::State>,
    npm: &NpmFallbacks,
    problems: &mut Vec<String>,
) -> Vec<Queue> {
    let mut queues = Vec::new();
    for reaction in &service.reactions {
        queues.push(Queue {
            queue: reaction.queue::<A>(),
            policy: reaction.policy.resolve(reaction.event.name, problems),
            run: Arc::clone(&reaction.run),
            recover: None,
            health: None,
        });
    }
    for task in &service.tasks {
        let run = {
            let (run, state) = (Arc::clone(&task.run), Arc::clone(state));
            Arc::new(move |job| run(job, Arc::clone(&state)))
        };
        let recover = task.recover.clone().map(|recover| {
            let state = Arc::clone(state);
            Arc::new(move |job, why| recover(job, Arc::clone(&state), why)) as BoundRecoverFn
        });
        queues.push(Queue {
            queue: task.queue(),
            policy: (task.resolve)(npm, problems),
            run,
            recover,
            health: task.health.clone().map(|health| bind_health::<A>(health, state)),
        });
    }
    for (name, dependency) in &service.dependencies {
        if let Some(health) = &dependency.health {
            let first =
                queues.iter_mut().find(|queue| queue.policy.depends_on.as_deref() == Some(name.as_str()));
            if let Some(queue) = first {
                queue.health = Some(bind_health::<A>(Arc::clone(health), state));
            }
        }
    }
    queues
}

fn bind_health<A: App>(health: super::handler::HealthCheck<A>, state: &Arc<A::State>) -> BoundHealth {
    let state = Arc::clone(state);
    Arc::new(move || health(Arc::clone(&state)))
}

/// All queue names of a service are distinct.
pub(super) fn check_queues(queues: &[Queue], prototypes: &[QueueName], problems: &mut Vec<String>) {
    let mut seen = BTreeMap::new();
    for queue in queues {
        let kind = if queue.policy.retry.is_some() { "task" } else { "reaction" };
        if let Some(other) = seen.insert(queue.queue.clone(), kind) {
            problems.push(if prototypes.contains(&queue.queue) {
                format!(
                    "two handlers for `{}`, and one of them is a prototype: a queue has one handler; give the prototype an application of its own",
                    queue.queue
                )
            } else if other == kind {
                format!("two handlers for `{}`: a queue has one handler; remove one, or let one do both", queue.queue)
            } else {
                format!(
                    "a task and a reaction would share the queue `{}`: rename the task, so that it does not read like an event after the application's name",
                    queue.queue
                )
            });
        }
    }
}

/// Handlers that share a dependency agree about what they share.
pub(super) fn check_dependencies<A: App>(
    dependencies: &BTreeMap<String, DependencyPolicy<A>>,
    queues: &[Queue],
    problems: &mut Vec<String>,
) {
    for (name, dependency) in dependencies {
        if !queues.iter().any(|queue| queue.policy.depends_on.as_deref() == Some(name.as_str())) {
            problems.push(format!("no handler says `.depends_on(\"{name}\")`: add it to those that need it, or remove the dependency"));
        }
        if let Some(Err(error)) = dependency.rate.map(|rate| rate.validate()) {
            problems.push(format!("dependency `{name}`: {error}"));
        }
        if let Some(Err(error)) = dependency.breaker.map(|breaker| breaker.validate()) {
            problems.push(format!("dependency `{name}`: {error}"));
        }
    }
    let mut rates = BTreeMap::new();
    for queue in queues {
        let (Some(name), Some(rate)) = (&queue.policy.depends_on, queue.policy.rate) else {
            continue;
        };
        let shared = dependencies.get(name).and_then(|dependency| dependency.rate);
        let first = *rates.entry(name.clone()).or_insert(shared.unwrap_or(rate));
        if first != rate {
            problems.push(format!(
                "the handlers that depend on `{name}` name different rate limits, but share one: name it once, with `.dependency(\"{name}\", |d| d.rate_limit(…))`"
            ));
        }
    }
}
