//! What an application's user must be allowed to do, and nothing beside it.
//!
//! | permission | on | what for |
//! | --- | --- | --- |
//! | configure | the application's own exchanges and queues, `ponos.lifecycle` | declaring them |
//! | write | the same, and the events that it emits | publishing; being bound; the target of dead letters |
//! | read | its own, and the events that it hears | consuming; being bound to; dead-lettering from |
//!
//! Events are nobody's own: who may declare one may delete it. `ponos topology apply` declares them, which has to run
//! anyway when an application emits another event, because its user must be allowed to.
//!
//! RabbitMQ does not tell exchanges from queues here, and its expressions match anywhere in a name unless they are
//! anchored.

use std::collections::BTreeSet;

use ponos_core::broker::Topology;
use ponos_core::name::{AppName, EventName};

use crate::topology::LIFECYCLE;

/// Regular expressions for one application's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// What it may declare and delete.
    pub configure: String,
    /// What it may publish to and bind.
    pub write: String,
    /// What it may consume and bind to.
    pub read: String,
}

impl Permissions {
    /// What a service needs that has this topology and emits these events.
    #[must_use]
    pub fn of(app: &AppName, topology: &Topology, emitted: &[EventName]) -> Self {
        let own = own(app, topology);
        let lifecycle = escaped(LIFECYCLE);
        let events = |names: &mut dyn Iterator<Item = &EventName>| {
            names.map(|event| escaped(event.as_str())).collect::<BTreeSet<_>>()
        };
        let emitted = events(&mut emitted.iter());
        let heard = events(&mut topology.subscriptions.iter().map(|(_, event)| event));
        let anchored = |parts: Vec<&String>| {
            let parts: Vec<&str> = parts.into_iter().map(String::as_str).collect();
            format!("^({})$", parts.join("|"))
        };
        Self {
            configure: anchored(vec![&own, &lifecycle]),
            write: anchored([&own, &lifecycle].into_iter().chain(&emitted).collect()),
            read: anchored([&own].into_iter().chain(&heard).collect()),
        }
    }

    /// The command that grants them.
    #[must_use]
    pub fn command(&self, vhost: &str, user: &str) -> String {
        format!(
            "rabbitmqctl set_permissions -p {} {} {} {} {}",
            quoted(vhost),
            quoted(user),
            quoted(&self.configure),
            quoted(&self.write),
            quoted(&self.read)
        )
    }
}

/// The application's exchange, and everything below it by its name: a prefix alone would take in the events of a model
/// that is called like the application.
fn own(app: &AppName, topology: &Topology) -> String {
    let prefix = format!("{app}.");
    let queues = topology.subscriptions.iter().map(|(queue, _)| queue).chain(&topology.tasks);
    let mut names: BTreeSet<String> =
        queues.filter_map(|queue| queue.as_str().strip_prefix(&prefix)).map(escaped).collect();
    names.extend(
        [r"control\.state", "discarded", "failed", r"retry\.[0-9]+", "unroutable"].map(str::to_owned),
    );
    let names: Vec<String> = names.into_iter().collect();
    format!(r"{}(\.({}))?", escaped(app.as_str()), names.join("|"))
}

/// A name as a regular expression: of what it can hold only the dot means something else.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('.', r"\.")
}

/// A text as one word of a shell's command.
pub(crate) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use ponos_core::name::{QueueName, TaskName};

    use super::*;

    #[test]
    fn expressions_are_anchored_and_name_what_is_needed() {
        let app = AppName::from_checked("pheidi");
        let heard = EventName::from_checked("org.payment.processed");
        let topology = Topology {
            app: Some(app.clone()),
            subscriptions: vec![(QueueName::subscription(&app, &heard), heard.clone())],
            tasks: vec![QueueName::task(&TaskName::from_checked("pheidi.email.send"))],
            ..Topology::default()
        };
        let permissions = Permissions::of(&app, &topology, &[EventName::from_checked("email.sent")]);
        let own = r"pheidi(\.(control\.state|discarded|email\.send|failed|org\.payment\.processed|retry\.[0-9]+|unroutable))?";
        assert_eq!(permissions.configure, format!(r"^({own}|ponos\.lifecycle)$"));
        assert_eq!(permissions.write, format!(r"^({own}|ponos\.lifecycle|email\.sent)$"));
        assert_eq!(permissions.read, format!(r"^({own}|org\.payment\.processed)$"));
        let command = permissions.command("/", "it's");
        assert!(command.starts_with(r"rabbitmqctl set_permissions -p / 'it'\''s' '^(pheidi"), "{command}");
    }
}
