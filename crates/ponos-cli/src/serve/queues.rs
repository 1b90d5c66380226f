//! Queues by the broker, services by what they wrote into the journal.

use axum::extract::State as Given;
use ponos::core::id::Timestamp;
use ponos::core::journal::Beat;
use ponos::core::name::AppName;
use ponos_readmodel::Instance;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Asked};
use super::state::Shared;
use crate::{json, queues, text, view};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfApp {
    app: Option<AppName>,
}

pub(super) async fn list(Given(state): Shared, Asked(query): Asked<OfApp>) -> Answer {
    let app = query.app;
    let asked =
        state.models.ask(move |_, session, handle| handle.block_on(queues::document(session, app.as_ref())));
    asked.await.map(answer::written)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    app: Option<AppName>,
    /// Those too that have ended.
    #[serde(default)]
    ended: bool,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Services<'a> {
    version: u32,
    services: Vec<ServiceJson<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ServiceJson<'a> {
    id: String,
    app: &'a AppName,
    service_version: Option<&'a str>,
    host: &'a str,
    started: Timestamp,
    last_at: Timestamp,
    ended: Option<Timestamp>,
    /// It should have said something and has not: it has died, stands still, or is cut off.
    silent: bool,
    /// How many of its entries are missing.
    lost: u64,
    beat_at: Option<Timestamp>,
    beat: Option<&'a Beat>,
}

impl<'a> ServiceJson<'a> {
    fn of(instance: &'a Instance, now: Timestamp) -> Self {
        let origin = &*instance.origin;
        Self {
            id: format!("{:016x}", origin.id),
            app: &origin.app,
            service_version: origin.version.as_deref(),
            host: &origin.host,
            started: origin.started,
            last_at: instance.last_at,
            ended: instance.ended,
            silent: instance.is_silent(now),
            lost: instance.lost,
            beat_at: instance.beat.as_ref().map(|(at, _)| *at),
            beat: instance.beat.as_ref().map(|(_, beat)| beat),
        }
    }
}

pub(super) async fn services(Given(state): Shared, Asked(query): Asked<Which>) -> Answer {
    let limit = answer::limit(query.limit)?;
    let mut instances = state.models.ask(|view, _, _| view.model.instances().map_err(view::broken)).await?;
    let now = text::now();
    instances.retain(|it| {
        let of_app = query.app.as_ref().is_none_or(|app| it.origin.app == *app);
        of_app && (query.ended || it.ended.is_none())
    });
    // An order that stays while they live, so that a page goes on where the last one ended.
    instances.sort_by_key(|it| (it.origin.app.clone(), it.origin.id));
    let key = |it: &Instance| format!("{}.{:016x}", it.origin.app, it.origin.id);
    let (page, next) = answer::page(&instances, key, query.cursor.as_deref(), limit);
    let services = page.iter().map(|it| ServiceJson::of(it, now)).collect();
    Ok(answer::value(&Services { version: json::VERSION, services, next }))
}
