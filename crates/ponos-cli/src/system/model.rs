//! Manifests united.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::manifest::PolicyManifest;

use crate::manifests::Loaded;

/// All that the manifests tell, by name. Several manifests of one application (programs, or versions) are one
/// application here.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) manifests: Vec<Loaded>,
    pub(crate) apps: BTreeMap<String, App>,
    pub(crate) events: BTreeMap<String, Event>,
    pub(crate) tasks: BTreeMap<String, Task>,
}

/// An application.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) versions: BTreeSet<String>,
    /// The lowest of its manifests: one of them stops a chain.
    pub(crate) hop_limit: u32,
}

/// An event.
#[derive(Debug, Default)]
pub(crate) struct Event {
    pub(crate) emitters: BTreeSet<Emitter>,
    /// Who hears it, by application: each has one queue for it.
    pub(crate) listeners: BTreeMap<String, Reaction>,
}

/// Who emits an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Emitter {
    pub(crate) app: String,
    /// The task whose handler emits it; `None` outside of tasks.
    pub(crate) task: Option<String>,
}

/// An event made into tasks.
#[derive(Debug)]
pub(crate) struct Reaction {
    pub(crate) queue: String,
    pub(crate) creates: BTreeSet<String>,
    /// Whether every version of it may create nothing.
    pub(crate) conditional: bool,
    pub(crate) prototype: bool,
    pub(crate) policy: PolicyManifest,
}

/// A task: performed, created, or both.
#[derive(Debug, Default)]
pub(crate) struct Task {
    /// The applications whose manifests have a handler for it; one, where all is well.
    pub(crate) performers: BTreeSet<String>,
    /// The events that it is made of, and by whom.
    pub(crate) made_of: BTreeSet<(String, String)>,
    pub(crate) emits: BTreeSet<String>,
    pub(crate) recovers: bool,
    pub(crate) policy: Option<PolicyManifest>,
}

impl System {
    /// Unites manifests. Nothing is judged here: names may be none, and owners two.
    pub(crate) fn of(manifests: Vec<Loaded>) -> Self {
        let mut system = Self {
            manifests: Vec::new(),
            apps: BTreeMap::new(),
            events: BTreeMap::new(),
            tasks: BTreeMap::new(),
        };
        for loaded in &manifests {
            system.add(loaded);
        }
        system.manifests = manifests;
        system
    }

    /// The names of all events and tasks.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.events.keys().chain(self.tasks.keys()).map(String::as_str)
    }

    fn add(&mut self, Loaded { manifest, .. }: &Loaded) {
        let name = &manifest.app;
        let limit = manifest.effective_hop_limit();
        let app = self
            .apps
            .entry(name.clone())
            .or_insert_with(|| App { versions: BTreeSet::new(), hop_limit: limit });
        app.hop_limit = app.hop_limit.min(limit);
        app.versions.extend(manifest.version.clone());
        for event in &manifest.emits {
            self.emitted(event, Emitter { app: name.clone(), task: None });
        }
        for task in &manifest.tasks {
            for event in &task.emits {
                self.emitted(event, Emitter { app: name.clone(), task: Some(task.name.clone()) });
            }
            let known = self.tasks.entry(task.name.clone()).or_default();
            known.performers.insert(name.clone());
            known.emits.extend(task.emits.iter().cloned());
            known.recovers |= task.recovers;
            known.policy = Some(task.policy.clone());
        }
        for reaction in &manifest.reactions {
            for task in &reaction.creates {
                let task = self.tasks.entry(task.clone()).or_default();
                task.made_of.insert((reaction.event.clone(), name.clone()));
            }
            let known = self.events.entry(reaction.event.clone()).or_default();
            let creates: BTreeSet<String> = reaction.creates.iter().cloned().collect();
            match known.listeners.get_mut(name) {
                Some(other) => {
                    other.creates.extend(creates);
                    other.conditional &= reaction.conditional;
                    other.prototype &= reaction.prototype;
                }
                None => {
                    let listener = Reaction {
                        queue: reaction.queue.clone(),
                        creates,
                        conditional: reaction.conditional,
                        prototype: reaction.prototype,
                        policy: reaction.policy.clone(),
                    };
                    known.listeners.insert(name.clone(), listener);
                }
            }
        }
    }

    fn emitted(&mut self, event: &str, emitter: Emitter) {
        self.events.entry(event.to_owned()).or_default().emitters.insert(emitter);
    }
}

impl Event {
    /// The applications that emit it.
    pub(crate) fn emitting_apps(&self) -> BTreeSet<&str> {
        self.emitters.iter().map(|emitter| emitter.app.as_str()).collect()
    }
}

impl Task {
    /// The application that performs it, or that its name says.
    pub(crate) fn app<'a>(&'a self, name: &'a str) -> &'a str {
        let named = name.split('.').next().unwrap_or(name);
        self.performers.iter().next().map_or(named, String::as_str)
    }
}
