//! Sets of manifests, in a folder of their own, and the program run on them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use ponos_example_payments::{Pace, cream, deploy, hooks, pheidi};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Manifests by file name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Set(pub(crate) BTreeMap<String, Value>);

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.is_empty() || self.err.lines().count() == 2, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let json: Value = serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(json["version"], 1);
        json
    }
}

impl Set {
    /// The examples' real manifests, and four more, in which nothing is wrong.
    pub(crate) fn clean() -> Self {
        let mut set = Self::default();
        let real = [
            cream::service(Pace::Production).manifest(),
            pheidi::service(Pace::Production).manifest(),
            hooks::service().manifest(),
            deploy::service(Pace::Production).manifest(),
        ];
        for manifest in real {
            set.add(&manifest.app, serde_json::from_str(&manifest.to_json()).unwrap());
        }
        set.add("ledger", ledger());
        set.add("dunning", dunning());
        set.add("report", report());
        let audit = audit(&set);
        set.add("audit", audit);
        set
    }

    /// The applications of the documentation, with all that is worth drawing.
    pub(crate) fn shown() -> Self {
        let mut set = Self::default();
        let paid = |fields: &[(&str, &str)]| object("OrgPaymentProcessed", fields);
        set.add(
            "cream",
            manifest(
                "cream",
                &[
                    ("org.payment.processed", paid(&[("org", "string"), ("amount", "integer")])),
                    ("org.payment.failed", object("OrgPaymentFailed", &[("org", "string")])),
                ],
                &[],
                &[task("cream.payment.process", &["org.payment.processed", "org.payment.failed"])],
            ),
        );
        set.add(
            "pheidi",
            manifest(
                "pheidi",
                &[
                    ("org.payment.processed", paid(&[("org", "string")])),
                    ("org.payment.failed", object("OrgPaymentFailed", &[("org", "string")])),
                    ("email.sent", object("EmailSent", &[("org", "string")])),
                ],
                &[
                    reaction("pheidi", "org.payment.processed", &["pheidi.email.send"]),
                    reaction("pheidi", "org.payment.failed", &["pheidi.email.send"]),
                ],
                &[task("pheidi.email.send", &["email.sent"])],
            ),
        );
        let mut again = reaction("big-poppa", "org.plan.activated", &["big-poppa.plan.activate"]);
        again["conditional"] = true.into();
        set.add(
            "big-poppa",
            manifest(
                "big-poppa",
                &[
                    ("org.payment.processed", paid(&[("org", "string"), ("amount", "integer")])),
                    ("org.plan.activated", object("OrgPlanActivated", &[("org", "string")])),
                ],
                &[reaction("big-poppa", "org.payment.processed", &["big-poppa.plan.activate"]), again],
                &[task("big-poppa.plan.activate", &["org.plan.activated"])],
            ),
        );
        let mut hooks = manifest("hooks", &[("github.pushed", object("GithubPushed", &[]))], &[], &[]);
        hooks["emits"] = json!(["github.pushed"]);
        set.add("hooks", hooks);
        set
    }

    pub(crate) fn add(&mut self, name: &str, manifest: Value) {
        self.0.insert(format!("{name}.json"), manifest);
    }

    pub(crate) fn app(&mut self, name: &str) -> &mut Value {
        self.0.get_mut(&format!("{name}.json")).unwrap()
    }

    /// A copy with a change.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// `ponos VERB … *.json …` in a folder with the manifests, the files first.
    pub(crate) fn run(&self, verb: &[&str], options: &[&str]) -> Ran {
        self.run_against(verb, options, None)
    }

    /// The same with the manifests of before in a folder `old`.
    pub(crate) fn run_against(&self, verb: &[&str], options: &[&str], old: Option<&Self>) -> Ran {
        let folder = self.folder();
        let mut command = command(&folder);
        command.args(verb).args(self.0.keys()).args(options);
        if let Some(old) = old {
            std::fs::create_dir(folder.path().join("old")).unwrap();
            command.arg("--against");
            for (name, manifest) in &old.0 {
                let name = format!("old/{name}");
                std::fs::write(folder.path().join(&name), manifest.to_string()).unwrap();
                command.arg(name);
            }
        }
        finish(command)
    }

    pub(crate) fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, manifest) in &self.0 {
            std::fs::write(folder.path().join(name), manifest.to_string()).unwrap();
        }
        folder
    }
}

pub(crate) fn command(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ponos"));
    command.current_dir(folder.path()).env("PONOS_BROKER", "sqlite:not-there.db").stdin(Stdio::null());
    command.env_remove("NO_COLOR").env_remove("COLUMNS");
    command
}

pub(crate) fn finish(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) fn manifest(app: &str, events: &[(&str, Value)], reactions: &[Value], tasks: &[Value]) -> Value {
    let events: BTreeMap<&str, Value> =
        events.iter().map(|(name, schema)| (*name, json!({ "schema": schema }))).collect();
    json!({ "ponos_manifest": 1, "app": app, "version": "1.0.0", "emits": [], "events": events,
            "reactions": reactions, "tasks": tasks })
}

/// The schema of a struct whose fields are all required.
pub(crate) fn object(title: &str, fields: &[(&str, &str)]) -> Value {
    let properties: BTreeMap<&str, Value> =
        fields.iter().map(|(name, kind)| (*name, json!({ "type": kind }))).collect();
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, "type": "object",
            "properties": properties, "required": required })
}

pub(crate) fn reaction(app: &str, event: &str, creates: &[&str]) -> Value {
    json!({ "event": event, "queue": format!("{app}.{event}"), "creates": creates,
            "policy": { "concurrency": 8, "prefetch": 64 } })
}

pub(crate) fn task(name: &str, emits: &[&str]) -> Value {
    json!({ "name": name, "queue": name, "emits": emits, "schema": object("Task", &[("org", "string")]),
            "recovers": false,
            "policy": { "concurrency": 8, "prefetch": 64, "timeout_ms": 20_000, "rate_limit": null,
                        "retry": { "min_ms": 1000, "max_ms": 300_000, "factor": 2.0, "jitter": 0.25,
                                   "max_retries": 8, "max_age_ms": 604_800_000 } } })
}

/// Reads payments with nested objects, lists, enums and what may be missing, and sums them.
fn ledger() -> Value {
    let booked = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "LedgerBooked", "type": "object",
        "$defs": {
            "Line": { "type": "object", "required": ["account", "cents"],
                      "properties": { "account": { "type": "string" }, "cents": { "type": "integer", "format": "int64" },
                                      "note": { "type": ["string", "null"] } } },
            "Kind": { "type": "string", "enum": ["debit", "credit"] }
        },
        "required": ["lines", "kind"],
        "properties": { "lines": { "type": "array", "items": { "$ref": "#/$defs/Line" } },
                        "kind": { "$ref": "#/$defs/Kind" },
                        "by": { "anyOf": [{ "$ref": "#/$defs/Line" }, { "type": "null" }] } }
    });
    let org = || object("Seen", &[("org", "string")]);
    manifest(
        "ledger",
        &[
            (
                "org.payment.processed",
                object("OrgPaymentProcessed", &[("org", "string"), ("amount_cents", "integer")]),
            ),
            ("email.sent", org()),
            ("ledger.entry.booked", booked),
        ],
        &[
            reaction("ledger", "org.payment.processed", &["ledger.entry.book"]),
            reaction("ledger", "email.sent", &["ledger.entry.book"]),
        ],
        &[task("ledger.entry.book", &["ledger.entry.booked"])],
    )
}

/// A second program of the same application, which hears what the first emits.
fn report() -> Value {
    let read = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "LedgerBooked", "type": "object",
        "required": ["lines"],
        "properties": { "lines": { "type": "array", "items": { "type": "object", "required": ["cents"],
            "properties": { "cents": { "type": "integer", "format": "int64" }, "note": { "type": ["string", "null"] } } } } }
    });
    let mut report = manifest(
        "report",
        &[("ledger.entry.booked", read)],
        &[reaction("report", "ledger.entry.booked", &["report.sheet.write"])],
        &[task("report.sheet.write", &[])],
    );
    report["hop_limit"] = 16.into();
    report
}

/// Reminds until somebody pays: a cycle that can end.
fn dunning() -> Value {
    let org = || object("Seen", &[("org", "string")]);
    let mut again = reaction("dunning", "org.reminder.sent", &["dunning.reminder.send"]);
    again["conditional"] = true.into();
    let mut early = reaction("dunning", "org.card.expired", &["dunning.reminder.send"]);
    early["prototype"] = true.into();
    manifest(
        "dunning",
        &[("org.payment.failed", org()), ("org.reminder.sent", org()), ("org.card.expired", org())],
        &[reaction("dunning", "org.payment.failed", &["dunning.reminder.send"]), again, early],
        &[task("dunning.reminder.send", &["org.reminder.sent"])],
    )
}

/// Hears whatever nobody else hears.
fn audit(set: &Set) -> Value {
    let heard: BTreeSet<&str> = set
        .0
        .values()
        .flat_map(|manifest| manifest["reactions"].as_array().unwrap())
        .map(|reaction| reaction["event"].as_str().unwrap())
        .collect();
    let events = set.0.values().flat_map(|manifest| manifest["events"].as_object().unwrap());
    let unheard: BTreeMap<&str, Value> = events
        .filter(|(name, _)| !heard.contains(name.as_str()))
        .map(|(name, event)| (name.as_str(), event["schema"].clone()))
        .collect();
    let events: Vec<(&str, Value)> = unheard.into_iter().collect();
    let reactions: Vec<Value> =
        events.iter().map(|(name, _)| reaction("audit", name, &["audit.entry.write"])).collect();
    manifest("audit", &events, &reactions, &[task("audit.entry.write", &[])])
}
