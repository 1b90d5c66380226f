//! The document.
//!
//! An event is a channel over its fanout exchange, a task one over its queue. Each application's part is operations:
//! `{app}.emit.{event}`, `{app}.on.{event}`, `{app}.create.{task}`, `{app}.perform.{task}`. What AsyncAPI has no word for
//! stands in `x-ponos`. Concurrency and prefetch are left out: their defaults depend on the machine, and a committed
//! document must not.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::manifest::{Manifest, PolicyManifest};
use serde_json::{Map, Value, json};

use super::payload;
use crate::system::System;

const ASYNCAPI: &str = "3.0.0";
const AMQP_BINDING: &str = "0.3.0";
const UNVERSIONED: &str = "unversioned";

/// The document of all applications of a system.
pub(super) fn of(system: &System) -> Value {
    let mut document = Document::default();
    let mut keys = Keys::default();
    for (name, event) in &system.events {
        let emits = |manifest: &&Manifest| event.emitters.iter().any(|emitter| emitter.app == manifest.app);
        let mut schemas =
            schemas(system, emits, |manifest| manifest.events.get(name).map(|event| &event.schema));
        if schemas.is_empty() {
            schemas = self::schemas(
                system,
                |_| true,
                |manifest| manifest.events.get(name).map(|event| &event.schema),
            );
        }
        let channel = keys.channel("event", name);
        document.channel(&channel, name, exchange(name), &schemas);
        let mut sent: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for emitter in &event.emitters {
            sent.entry(&emitter.app).or_default().extend(emitter.task.as_deref());
        }
        for (app, tasks) in sent {
            let from: Vec<&str> = tasks.into_iter().collect();
            let about = json!({ "from": from });
            document.operation(&keys.operation(app, "emit", name), Action::Send, &channel, false, about);
        }
        for (app, reaction) in &event.listeners {
            let about = json!({
                "queue": reaction.queue, "creates": reaction.creates, "conditional": reaction.conditional,
                "prototype": reaction.prototype, "policy": policy(&reaction.policy)
            });
            document.operation(&keys.operation(app, "on", name), Action::Receive, &channel, false, about);
        }
    }
    for (name, task) in &system.tasks {
        let schemas = schemas(
            system,
            |_| true,
            |manifest| manifest.tasks.iter().find(|task| task.name == *name).map(|task| &task.schema),
        );
        let channel = keys.channel("task", name);
        document.channel(&channel, name, queue(name), &schemas);
        let mut creators: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (event, app) in &task.made_of {
            creators.entry(app).or_default().push(event);
        }
        for (app, events) in creators {
            let about = json!({ "of": events });
            document.operation(&keys.operation(app, "create", name), Action::Send, &channel, true, about);
        }
        for app in &task.performers {
            let about = json!({
                "queue": name, "emits": task.emits, "recovers": task.recovers,
                "policy": task.policy.as_ref().map(policy)
            });
            document.operation(&keys.operation(app, "perform", name), Action::Receive, &channel, true, about);
        }
    }
    document.finish(system)
}

/// The different schemas of a message, of those manifests for which `is` holds.
fn schemas<'a>(
    system: &'a System,
    is: impl Fn(&&Manifest) -> bool,
    of: impl Fn(&'a Manifest) -> Option<&'a Value>,
) -> Vec<&'a Value> {
    let mut schemas: Vec<&Value> = Vec::new();
    let manifests = system.manifests.iter().map(|loaded| &loaded.manifest).filter(|manifest| is(manifest));
    for schema in manifests.filter_map(of) {
        if !schemas.contains(&schema) {
            schemas.push(schema);
        }
    }
    schemas
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Send,
    Receive,
}

/// The parts, as they come together.
#[derive(Default)]
struct Document {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    /// A channel with a message for each schema; one of any form where nothing is known.
    fn channel(&mut self, key: &str, name: &str, binding: Value, schemas: &[&Value]) {
        let unknown = Value::Object(Map::new());
        let schemas = if schemas.is_empty() { vec![&unknown] } else { schemas.to_vec() };
        let mut messages = Map::new();
        for (i, schema) in schemas.into_iter().enumerate() {
            let message = if i == 0 { key.to_owned() } else { format!("{key}.{}", i + 1) };
            payload::add(schema, &message, &mut self.schemas);
            self.messages.insert(message.clone(), described(name, schema, &message));
            messages.insert(message.clone(), reference("components/messages", &message));
        }
        let channel = json!({ "address": name, "messages": messages, "bindings": { "amqp": binding } });
        self.channels.insert(key.to_owned(), channel);
    }

    fn operation(&mut self, key: &str, action: Action, channel: &str, task: bool, about: Value) {
        let amqp = match action {
            Action::Send => {
                json!({ "deliveryMode": 2, "mandatory": task, "timestamp": true, "bindingVersion": AMQP_BINDING })
            }
            Action::Receive => json!({ "ack": true, "bindingVersion": AMQP_BINDING }),
        };
        let action = if action == Action::Send { "send" } else { "receive" };
        let operation = json!({
            "action": action, "channel": reference("channels", channel), "bindings": { "amqp": amqp }, "x-ponos": about
        });
        self.operations.insert(key.to_owned(), operation);
    }

    fn finish(self, system: &System) -> Value {
        let Self { channels, operations, messages, schemas } = self;
        let apps: Vec<&str> = system.apps.keys().map(String::as_str).collect();
        let title = match apps[..] {
            [app] => app.to_owned(),
            _ => format!("{} applications", apps.len()),
        };
        let versions: BTreeSet<&str> =
            system.apps.values().flat_map(|app| &app.versions).map(String::as_str).collect();
        // A system has no version of its own, but its applications may have one together.
        let version = match versions.into_iter().collect::<Vec<_>>()[..] {
            [version] => version.to_owned(),
            _ => UNVERSIONED.to_owned(),
        };
        let tags: Vec<Value> = apps.iter().map(|app| json!({ "name": app })).collect();
        json!({
            "asyncapi": ASYNCAPI,
            "info": { "title": title, "version": version, "tags": tags },
            "defaultContentType": "application/json",
            "channels": channels,
            "operations": operations,
            "components": { "messages": messages, "schemas": schemas }
        })
    }
}

fn described(name: &str, schema: &Value, key: &str) -> Value {
    let mut message = json!({
        "name": name,
        "contentType": "application/json",
        "correlationId": { "location": "$message.payload#/tid" },
        "payload": reference("components/schemas", key),
        "bindings": { "amqp": { "messageType": name, "bindingVersion": AMQP_BINDING } }
    });
    for word in ["title", "description"] {
        if let Some(text) = schema.get(word).filter(|text| text.is_string()) {
            message[word] = text.clone();
        }
    }
    message
}

fn exchange(name: &str) -> Value {
    json!({
        "is": "routingKey", "bindingVersion": AMQP_BINDING,
        "exchange": { "name": name, "type": "fanout", "durable": true, "autoDelete": false, "vhost": "/" }
    })
}

fn queue(name: &str) -> Value {
    json!({
        "is": "queue", "bindingVersion": AMQP_BINDING,
        "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": false, "vhost": "/" }
    })
}

/// A policy as the manifest has it, without what depends on the machine.
fn policy(policy: &PolicyManifest) -> Value {
    let mut value = serde_json::to_value(policy).expect("a policy is texts and numbers");
    if let Value::Object(keys) = &mut value {
        keys.remove("concurrency");
        keys.remove("prefetch");
    }
    value
}

fn reference(place: &str, key: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{key}") })
}

/// A name as a key of components, which AsyncAPI restricts.
pub(super) fn component_key(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    name.chars().map(allowed).collect()
}

/// Keys that no two names share: an event and a task can be called alike, and names that are none can become so. What is
/// told apart by a number meets no name, because no name ends in one.
#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Keys {
    fn channel(&mut self, kind: &str, name: &str) -> String {
        let key = component_key(name);
        if self.0.contains(&key) { self.unique(format!("{key}.{kind}")) } else { self.unique(key) }
    }

    fn operation(&mut self, app: &str, verb: &str, name: &str) -> String {
        self.unique(component_key(&format!("{app}.{verb}.{name}")))
    }

    fn unique(&mut self, key: String) -> String {
        let mut unique = key.clone();
        let mut n = 2;
        while !self.0.insert(unique.clone()) {
            unique = format!("{key}.{n}");
            n += 1;
        }
        unique
    }
}
