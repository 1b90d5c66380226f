//! Manifests from files: what each application is, over all that were given.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ponos::core::broker::Topology;
use ponos::core::manifest::Manifest;
use ponos::core::name::{AppName, EventName, QueueName};
use ponos::rabbitmq::policies;

use crate::error::CliError;

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
    let mut applications: BTreeMap<AppName, Application> = BTreeMap::new();
    for file in files {
        let application = application(file)?;
        match applications.get_mut(&application.app) {
            Some(other) => other.unite(application),
            None => {
                applications.insert(application.app.clone(), application);
            }
        }
    }
    Ok(applications.into_values().collect())
}

fn application(file: &Path) -> Result<Application, CliError> {
    let shown = file.display();
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let make_one = "a service prints its manifest with `PONOS_MANIFEST=1`: `PONOS_MANIFEST=1 service > FILE`";
    let text = text.map_err(|error| {
        CliError::usage(format!("the manifest `{shown}` cannot be read: {error}"), make_one)
    })?;
    let wrong = |error| CliError::usage(format!("`{shown}`: {error}"), make_one);
    let manifest = Manifest::from_json(&text).map_err(wrong)?;
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
