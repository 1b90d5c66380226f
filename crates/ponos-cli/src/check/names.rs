//! Whether names keep the rules, and whether what they name is told apart.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::manifest::{Manifest, PolicyManifest};
use ponos::core::name::{AppName, EventName, NameError, NameErrorKind, TaskName};

use super::finding::{Code, Finding, quoted};
use crate::manifests::Loaded;
use crate::system::System;

/// Names that are none, queues that two handlers would share, and manifests that contradict each other.
pub(super) fn check(system: &System) -> Vec<Finding> {
    let mut findings = rules(system);
    findings.extend(queues(&system.manifests));
    findings.extend(conflicts(&system.manifests));
    findings
}

fn rules(system: &System) -> Vec<Finding> {
    let apps = system.apps.keys().filter_map(|name| Some((name, AppName::parse(name).err()?)));
    let events = system.events.keys().filter_map(|name| Some((name, EventName::parse(name).err()?)));
    let tasks = system.tasks.keys().filter_map(|name| Some((name, TaskName::parse(name).err()?)));
    apps.chain(events).chain(tasks).map(|(name, error)| broken_rule(name, &error)).collect()
}

fn broken_rule(name: &str, error: &NameError) -> Finding {
    // `verb = unchecked` allows it, and a manifest does not tell.
    let tense = matches!(error.kind(), NameErrorKind::EventNotPast | NameErrorKind::TaskPast);
    let code = if tense { Code::NameTense } else { Code::NameInvalid };
    let help = error.suggestion().map_or_else(
        || "`ponos names check` tells the rules".to_owned(),
        |suggestion| format!("did you mean {}?", quoted(suggestion)),
    );
    Finding::new(code, name, error.to_string(), help)
}

fn queues(manifests: &[Loaded]) -> Vec<Finding> {
    let mut users: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for Loaded { manifest, .. } in manifests {
        for reaction in &manifest.reactions {
            let user = format!("the event {} heard by {}", quoted(&reaction.event), quoted(&manifest.app));
            users.entry(&reaction.queue).or_default().insert(user);
        }
        for task in &manifest.tasks {
            users.entry(&task.queue).or_default().insert(format!("the task {}", quoted(&task.name)));
        }
        // What one program creates another may perform: its queue is there all the same.
        for task in manifest.reactions.iter().flat_map(|reaction| &reaction.creates) {
            users.entry(task).or_default().insert(format!("the task {}", quoted(task)));
        }
    }
    let shared = users.into_iter().filter(|(_, users)| users.len() > 1);
    let collisions = shared.map(|(queue, users)| {
        let users: Vec<String> = users.into_iter().collect();
        let message = format!("one queue for {}", users.join(" and "));
        Finding::new(Code::QueueCollision, queue, message, "give the task another model or verb")
    });
    collisions.collect()
}

/// What two manifests of one application and one version say differently.
fn conflicts(manifests: &[Loaded]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, one) in manifests.iter().enumerate() {
        for another in &manifests[i + 1..] {
            let (a, b) = (&one.manifest, &another.manifest);
            if a.app != b.app || a.version != b.version {
                continue;
            }
            if let Some(what) = contradiction(a, b) {
                let version = a
                    .version
                    .as_ref()
                    .map_or("no version".to_owned(), |version| format!("version {}", quoted(version)));
                findings.push(Finding::new(
                    Code::AppConflict,
                    &a.app,
                    format!(
                        "{} and {}, both of {version}, differ in {what}",
                        quoted(&one.source),
                        quoted(&another.source)
                    ),
                    "two applications need two names, two releases two versions",
                ));
            }
        }
    }
    findings
}

fn contradiction(a: &Manifest, b: &Manifest) -> Option<String> {
    if a.hop_limit != b.hop_limit {
        return Some("the hop limit".to_owned());
    }
    for (name, event) in &a.events {
        if b.events.get(name).is_some_and(|other| other != event) {
            return Some(format!("the event {}", quoted(name)));
        }
    }
    for task in &a.tasks {
        let same = |policy: &PolicyManifest| apart_from_the_machine(policy);
        let other = b.tasks.iter().find(|other| other.name == task.name);
        if other.is_some_and(|other| {
            (&other.emits, &other.schema, other.recovers) != (&task.emits, &task.schema, task.recovers)
                || same(&other.policy) != same(&task.policy)
        }) {
            return Some(format!("the task {}", quoted(&task.name)));
        }
    }
    for reaction in &a.reactions {
        let other = b.reactions.iter().find(|other| other.event == reaction.event);
        if other.is_some_and(|other| {
            (&other.creates, other.prototype, other.conditional)
                != (&reaction.creates, reaction.prototype, reaction.conditional)
        }) {
            return Some(format!("the reaction to {}", quoted(&reaction.event)));
        }
    }
    None
}

/// Defaults of concurrency and prefetch depend on the cores of the machine that printed the manifest.
fn apart_from_the_machine(policy: &PolicyManifest) -> PolicyManifest {
    PolicyManifest { concurrency: 0, prefetch: 0, ..policy.clone() }
}
