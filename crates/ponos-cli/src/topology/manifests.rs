//! What each application is, over all that were given.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ponos::core::broker::Topology;
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::rabbitmq::policies;

use crate::error::CliError;
use crate::manifests::{Loaded, MAKE_ONE, load};

/// One application, as its manifests tell.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) app: AppName,
    pub(super) topology: Topology,
    pub(super) emitted: Vec<EventName>,
    /// For how long a worker may hold a job of a queue, where that has an end.
    pub(super) held: Vec<(QueueName, Duration)>,
}

/// Reads manifests, and unites those of one application: several programs, or several versions.
///
/// # Errors
///
/// When a file cannot be read or is no manifest.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Application>, CliError> {
    united(load(files)?)
}

/// Unites the manifests of each application.
///
/// # Errors
///
/// When one has a name that is none.
pub(super) fn united(manifests: Vec<Loaded>) -> Result<Vec<Application>, CliError> {
    let mut applications: BTreeMap<AppName, Application> = BTreeMap::new();
    for loaded in manifests {
        let application = application(&loaded)?;
        match applications.get_mut(&application.app) {
            Some(other) => other.unite(application),
            None => {
                applications.insert(application.app.clone(), application);
            }
        }
    }
    Ok(applications.into_values().collect())
}

fn application(loaded: &Loaded) -> Result<Application, CliError> {
    let Loaded { source, manifest } = loaded;
    let wrong = |error| CliError::usage(format!("`{source}`: {error}"), MAKE_ONE);
    let topology = manifest.topology().map_err(wrong)?;
    let app = topology.app.clone().expect("a manifest's topology is an application's");
    let held = manifest.tasks.iter().filter_map(|task| {
        let policy = &task.policy;
        let timeout = Duration::from_millis(policy.timeout_ms?);
        let queue = topology.tasks.iter().find(|queue| **queue == task.name.as_str())?;
        Some((queue.clone(), policies::held_for(timeout, policy.prefetch, policy.concurrency)))
    });
    let held = held.collect();
    let emitted = manifest.emitted().map_err(wrong)?;
    Ok(Application { app, emitted, held, topology })
}

impl Application {
    fn unite(&mut self, other: Self) {
        fn join<T: Ord>(into: &mut Vec<T>, from: Vec<T>) {
            into.extend(from);
            into.sort();
            into.dedup();
        }
        join(&mut self.emitted, other.emitted);
        join(&mut self.topology.events, other.topology.events);
        join(&mut self.topology.subscriptions, other.topology.subscriptions);
        join(&mut self.topology.tasks, other.topology.tasks);
        join(&mut self.topology.prototypes, other.topology.prototypes);
        for (queue, held) in other.held {
            match self.held.iter_mut().find(|(known, _)| *known == queue) {
                Some((_, known)) => *known = held.max(*known),
                None => self.held.push((queue, held)),
            }
        }
    }
}
