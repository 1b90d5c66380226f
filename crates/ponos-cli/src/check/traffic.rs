//! Whether every message has somebody who sends it and somebody who takes it.

use super::finding::{Code, Finding, Severity, listed, quoted};
use crate::system::{System, nearest};

/// Events without a publisher or a listener, and tasks without an owner or with the wrong one. An event that had a
/// publisher before and has none any more is an error.
pub(super) fn check(system: &System, old: &System) -> Vec<Finding> {
    let mut findings = events(system);
    for finding in findings.iter_mut().filter(|finding| finding.code == Code::EventUnpublished) {
        if let Some(before) = old.events.get(&finding.subject).filter(|event| !event.emitters.is_empty()) {
            finding.severity = Severity::Error;
            finding.message = format!("{}; {} did before", finding.message, listed(before.emitting_apps()));
        }
    }
    findings.extend(tasks(system));
    findings
}

fn events(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, event) in &system.events {
        if event.listeners.is_empty() {
            findings.push(Finding::new(
                Code::EventUnheard,
                name,
                format!("nobody hears it; {} publishes it", listed(event.emitting_apps())),
                "give the manifests of all applications, or let it be: it costs nothing",
            ));
        }
        // A prototype may be ahead of what it listens to.
        if event.emitters.is_empty() && event.listeners.values().any(|listener| !listener.prototype) {
            let listeners = listed(event.listeners.keys().map(String::as_str));
            let published = system.events.iter().filter(|(_, other)| !other.emitters.is_empty());
            let help = did_you_mean(name, published.map(|(name, _)| name.as_str())).unwrap_or_else(|| {
                "give the manifests of all applications, or remove the reaction".to_owned()
            });
            findings.push(Finding::new(
                Code::EventUnpublished,
                name,
                format!("nobody publishes it; {listeners} would hear it"),
                help,
            ));
        }
    }
    findings
}

fn tasks(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, task) in &system.tasks {
        let owner = name.split('.').next().unwrap_or(name);
        let performers: Vec<&str> = task.performers.iter().map(String::as_str).collect();
        match performers[..] {
            [] => {
                let creators = task.made_of.iter().map(|(event, app)| {
                    format!("{} creates it of {}", quoted(app), quoted(event))
                });
                let creators: Vec<String> = creators.collect();
                let performed = system.tasks.iter().filter(|(_, other)| !other.performers.is_empty());
                let help = did_you_mean(name, performed.map(|(name, _)| name.as_str()))
                    .unwrap_or_else(|| format!("serve it with `.task(handler, …)` in {}", quoted(owner)));
                let message = format!("nobody performs it; {}", creators.join(", "));
                findings.push(Finding::new(Code::TaskUnowned, name, message, help));
            }
            [performer] if performer != owner => findings.push(Finding::new(
                Code::TaskForeign,
                name,
                format!("{} performs it, by its name it is {}'s", quoted(performer), quoted(owner)),
                "only the application that a task's name begins with performs it: rename one of them",
            )),
            [_] => {}
            _ => findings.push(Finding::new(
                Code::TaskTwoOwners,
                name,
                format!("{} perform it", listed(performers.iter().copied())),
                "each job would go to one of them at random: leave it to one, and let the other hear an event",
            )),
        }
        let strangers =
            task.made_of.iter().filter(|(_, app)| app != owner && !performers.contains(&app.as_str()));
        for (event, app) in strangers.filter(|_| !performers.is_empty()) {
            findings.push(Finding::new(
                Code::TaskForeign,
                name,
                format!("{} creates it of {}, it is {}'s", quoted(app), quoted(event), quoted(owner)),
                format!("let {} hear {} itself", quoted(owner), quoted(event)),
            ));
        }
    }
    findings
}

fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean {}?", quoted(near)))
}
