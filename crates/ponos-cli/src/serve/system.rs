//! The server itself, and the system by the manifests that its services wrote into the journal.

use std::collections::BTreeSet;

use axum::extract::{Path, State as Given};
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Asked, Nothing};
use super::state::Shared;
use crate::manifests::of_records;
use crate::system::System;
use crate::{asyncapi, check, explain, json, map, steer};

#[derive(Serialize)]
struct Whoami<'a> {
    version: u32,
    /// In whose name operations are done.
    by: String,
    program: &'static str,
    broker: &'a str,
    /// How long ago the journal was read to its end.
    lag_ms: u64,
    /// Why what is answered may be old.
    problem: Option<String>,
}

pub(super) async fn whoami(Given(state): Shared, _: Asked<Nothing>) -> Answer {
    Ok(answer::value(&Whoami {
        version: json::VERSION,
        by: steer::whoami(),
        program: env!("CARGO_PKG_VERSION"),
        broker: state.session.broker().name(),
        lag_ms: u64::try_from(state.collector.lag().as_millis()).unwrap_or(u64::MAX),
        problem: state.collector.problem(),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    app: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct NamesPage<'a> {
    version: u32,
    names: &'a [NameJson],
    next: Option<String>,
}

#[derive(Serialize)]
struct NameJson {
    name: String,
    kind: &'static str,
    /// Applications that emit it, or create it.
    from: Vec<String>,
    /// Applications that hear it, or perform it.
    to: Vec<String>,
}

pub(super) async fn names(Given(state): Shared, Asked(query): Asked<Names>) -> Answer {
    let limit = answer::limit(query.limit)?;
    let system = state.models.ask(|view, _, _| of_records(view).map(System::of)).await?;
    let events = system.events.iter().map(|(name, event)| NameJson {
        name: name.clone(),
        kind: "event",
        from: event.emitting_apps().into_iter().map(str::to_owned).collect(),
        to: event.listeners.keys().cloned().collect(),
    });
    let tasks = system.tasks.iter().map(|(name, task)| {
        let from: BTreeSet<&String> = task.made_of.iter().map(|(_, app)| app).collect();
        NameJson {
            name: name.clone(),
            kind: "task",
            from: from.into_iter().cloned().collect(),
            to: task.performers.iter().cloned().collect(),
        }
    });
    let mut names: Vec<NameJson> = events.chain(tasks).collect();
    names.retain(|it| query.app.as_ref().is_none_or(|app| it.from.contains(app) || it.to.contains(app)));
    let key = |it: &NameJson| format!("{} {}", it.name, it.kind);
    names.sort_by_key(key);
    let (page, next) = answer::page(&names, key, query.cursor.as_deref(), limit);
    Ok(answer::value(&NamesPage { version: json::VERSION, names: page, next }))
}

pub(super) async fn explain(Given(state): Shared, Path(name): Path<String>, _: Asked<Nothing>) -> Answer {
    let explained = state
        .models
        .ask(move |view, session, handle| handle.block_on(explain::document(&name, view, session)))
        .await;
    explained.map(answer::written)
}

pub(super) async fn map(Given(state): Shared, _: Asked<Nothing>) -> Answer {
    let map = state.models.ask(|view, _, _| Ok(map::document(&System::of(of_records(view)?)))).await;
    map.map(answer::written)
}

/// What `ponos check` finds in the manifests of now.
pub(super) async fn checks(Given(state): Shared, _: Asked<Nothing>) -> Answer {
    let report = state.models.ask(|view, _, _| of_records(view).map(check::document)).await;
    report.map(answer::written)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfApp {
    app: Option<String>,
}

pub(super) async fn asyncapi(Given(state): Shared, Asked(query): Asked<OfApp>) -> Answer {
    let app = query.app;
    let document =
        state.models.ask(move |view, _, _| asyncapi::of(of_records(view)?, app.as_deref())).await?;
    Ok(answer::value(&document))
}
