//! Whether everyone can read what others send.
//!
//! Each emitter's schema of an event is held against each subscriber's own, in three situations:
//!
//! * *together*: all are as the manifests say,
//! * *waiting*: what an older version sent still lies in a queue and is read by the new one,
//! * *rolling*: the new version sends, and an older reader still runs.
//!
//! The last two need the manifests of before, `--against`. Tasks are held against themselves over versions.

use std::collections::{BTreeMap, BTreeSet};

use ponos::core::manifest::Manifest;
use serde_json::Value;

use super::finding::{Code, Finding, listed, quoted};
use super::schema::{Misfit, Weight, is_opaque, misfits};
use crate::manifests::Loaded;

/// Everything that cannot be read.
pub(super) fn check(new: &[Loaded], old: &[Loaded]) -> Vec<Finding> {
    let mut contracts = Contracts::default();
    contracts.events(new, old);
    contracts.tasks(new, old);
    contracts.findings()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Together,
    Waiting,
    Rolling,
}

/// One thing that does not fit, whoever cannot read it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Break {
    kind: &'static str,
    name: String,
    when: When,
    misfit: Misfit,
}

#[derive(Debug, Default)]
struct Sides {
    writers: BTreeSet<String>,
    readers: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Contracts {
    breaks: BTreeMap<Break, Sides>,
    /// How many applications read it.
    readers: BTreeMap<String, BTreeSet<String>>,
    /// Changes of events that nobody here hears.
    unread: BTreeMap<(String, Misfit), String>,
}

/// One application's view of a payload.
#[derive(Debug, Clone, Copy)]
struct View<'a> {
    app: &'a str,
    schema: &'a Value,
}

impl Contracts {
    fn events(&mut self, new: &[Loaded], old: &[Loaded]) {
        for event in names(new, old, |manifest| manifest.events.keys().collect()) {
            let (now, before) =
                ((written(new, event), heard(new, event)), (written(old, event), heard(old, event)));
            let apps = now.1.iter().chain(&before.1).map(|reader| reader.app.to_owned());
            self.readers.entry(event.to_owned()).or_default().extend(apps);
            self.pairs("event", event, When::Together, &now.0, &now.1);
            self.pairs("event", event, When::Waiting, &before.0, &now.1);
            self.pairs("event", event, When::Rolling, &now.0, &before.1);
            self.lost(event, &now.0, &before.0, &now.1);
            if now.1.is_empty() && before.1.is_empty() {
                self.unread(event, &now.0, &before.0);
            }
        }
    }

    fn tasks(&mut self, new: &[Loaded], old: &[Loaded]) {
        for task in names(new, old, |manifest| manifest.tasks.iter().map(|task| &task.name).collect()) {
            let (now, before) = (performed(new, task), performed(old, task));
            self.pairs("task", task, When::Together, &now, &now);
            self.pairs("task", task, When::Waiting, &before, &now);
            self.pairs("task", task, When::Rolling, &now, &before);
        }
    }

    fn pairs(
        &mut self,
        kind: &'static str,
        name: &str,
        when: When,
        writers: &[View<'_>],
        readers: &[View<'_>],
    ) {
        for writer in writers {
            for reader in readers.iter().filter(|reader| reader.schema != writer.schema) {
                if kind == "task" && reader.app != writer.app {
                    continue; // two owners are a fault of their own
                }
                for misfit in misfits(writer.schema, reader.schema) {
                    if misfit.weight != Weight::Lost {
                        self.add(kind, name, when, misfit, (writer.app, reader.app));
                    }
                }
            }
        }
    }

    fn add(
        &mut self,
        kind: &'static str,
        name: &str,
        when: When,
        misfit: Misfit,
        (writer, reader): (&str, &str),
    ) {
        let mut entry = Break { kind, name: name.to_owned(), when: When::Together, misfit };
        // What does not fit anyway needs no second mention for the way there.
        if when != When::Together
            && self.breaks.get(&entry).is_some_and(|sides| sides.readers.contains(reader))
        {
            return;
        }
        entry.when = when;
        let sides = self.breaks.entry(entry).or_default();
        sides.writers.insert(writer.to_owned());
        sides.readers.insert(reader.to_owned());
    }

    /// Fields that were sent, are not any more, and that somebody reads where they are there.
    fn lost(&mut self, event: &str, now: &[View<'_>], before: &[View<'_>], readers: &[View<'_>]) {
        for reader in readers {
            let lost = |writer: &View<'_>| -> BTreeSet<Misfit> {
                let found = misfits(writer.schema, reader.schema);
                found.into_iter().filter(|misfit| misfit.weight == Weight::Lost).collect()
            };
            for writer in now {
                let Some(older) = before.iter().find(|older| older.app == writer.app) else { continue };
                let already = lost(older);
                for misfit in lost(writer).into_iter().filter(|misfit| !already.contains(misfit)) {
                    self.add("event", event, When::Together, misfit, (writer.app, reader.app));
                }
            }
        }
    }

    fn unread(&mut self, event: &str, now: &[View<'_>], before: &[View<'_>]) {
        for older in before {
            for writer in now.iter().filter(|writer| writer.app == older.app) {
                for misfit in misfits(writer.schema, older.schema) {
                    self.unread.insert((event.to_owned(), misfit), writer.app.to_owned());
                }
            }
        }
    }

    fn findings(self) -> Vec<Finding> {
        let Self { breaks, readers, unread } = self;
        let told = breaks.into_iter().map(|(found, sides)| {
            let of = readers.get(&found.name).map_or(0, BTreeSet::len);
            finding(&found, &sides, of)
        });
        let mut findings: Vec<Finding> = told.collect();
        findings.extend(unread.into_iter().map(|((event, misfit), app)| {
            Finding::new(
                Code::SchemaChanged,
                event,
                format!("{}: {} to whoever reads it as before", field(&misfit), misfit.what),
                format!(
                    "no manifest here hears it: give those of its readers, or be sure that {} has none",
                    quoted(&app)
                ),
            )
        }));
        findings
    }
}

fn finding(found: &Break, sides: &Sides, of: usize) -> Finding {
    let Break { kind, name, when, misfit } = found;
    let (writers, readers) = (listed(names_of(&sides.writers)), listed(names_of(&sides.readers)));
    let code = if misfit.weight == Weight::Breaking { Code::SchemaBreaking } else { Code::SchemaNarrowing };
    let lasting = match (misfit.weight, when) {
        (Weight::Lost, _) => " any more".to_owned(),
        (_, When::Together) => String::new(),
        (_, When::Waiting) => ", in what was published before".to_owned(),
        (_, When::Rolling) => ", while the version of before still runs".to_owned(),
    };
    let what = match misfit.weight {
        Weight::Lost => misfit.what.replacen("it is not sent", &format!("it is not sent{lasting}"), 1),
        _ => format!("{}{lasting}", misfit.what),
    };
    let mut message = format!("{}: {what}", field(misfit));
    if *kind == "event" {
        message = format!("{message} (sent by {writers}, read by {} of {of})", sides.readers.len());
    }
    let help = match (*kind, when) {
        ("task", _) => format!(
            "jobs wait in the queue over a release: let {readers} read both forms, `#[serde(default)]` for a new field, or name a new task"
        ),
        (_, When::Together) => format!(
            "let {writers} send it as it was, or change {readers} first; what means something else is another event"
        ),
        (_, When::Waiting) => format!(
            "let {readers} read both forms until the queues have no older ones: `#[serde(default)]` for a new field"
        ),
        (_, When::Rolling) => format!("release {readers} first, and {writers} when no older version runs"),
    };
    let mut finding = Finding::new(code, name, message, help);
    finding.breaks = sides.readers.iter().cloned().collect();
    finding
}

fn field(misfit: &Misfit) -> String {
    if misfit.field.is_empty() {
        "the payload".to_owned()
    } else {
        format!("field {}", quoted(&misfit.field))
    }
}

fn names_of(names: &BTreeSet<String>) -> impl Iterator<Item = &str> {
    names.iter().map(String::as_str)
}

fn names<'a>(
    new: &'a [Loaded],
    old: &'a [Loaded],
    of: impl Fn(&'a Manifest) -> Vec<&'a String>,
) -> BTreeSet<&'a str> {
    new.iter().chain(old).flat_map(|loaded| of(&loaded.manifest)).map(String::as_str).collect()
}

/// The views of those for whom `is` holds.
fn views<'a>(manifests: &'a [Loaded], event: &str, is: impl Fn(&Manifest) -> bool) -> Vec<View<'a>> {
    let of = manifests.iter().map(|loaded| &loaded.manifest).filter(|manifest| is(manifest));
    of.filter_map(|manifest| Some(View { app: &manifest.app, schema: &manifest.events.get(event)?.schema }))
        .collect()
}

fn written<'a>(manifests: &'a [Loaded], event: &str) -> Vec<View<'a>> {
    let is = |name: &String| name == event;
    let mut views = views(manifests, event, |manifest| {
        manifest.emits.iter().any(is) || manifest.tasks.iter().any(|task| task.emits.iter().any(is))
    });
    views.retain(|view| !is_opaque(view.schema));
    views
}

fn heard<'a>(manifests: &'a [Loaded], event: &str) -> Vec<View<'a>> {
    views(manifests, event, |manifest| manifest.reactions.iter().any(|reaction| reaction.event == event))
}

fn performed<'a>(manifests: &'a [Loaded], name: &str) -> Vec<View<'a>> {
    let of = manifests.iter().flat_map(|Loaded { manifest, .. }| {
        let task = manifest.tasks.iter().find(|task| task.name == name)?;
        Some(View { app: &manifest.app, schema: &task.schema })
    });
    of.collect()
}
