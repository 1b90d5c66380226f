//! `hooks` turns GitHub's webhooks into events.
//!
//! | HTTP | what |
//! | --- | --- |
//! | `POST /webhooks/github` with `X-GitHub-Event` | 202; `{"accepted":true,"event":…,"tid":…}` when it became an event, `{"accepted":false,…}` when it maps to none |
//! | `GET /stats` | how many there were, and which kinds map to nothing |
//!
//! A webhook that is malformed is answered with 4xx and what is wrong. It has no task and no state but its counters,
//! which begin anew when it restarts: what was answered with `accepted: true` the broker has.
//!
//! A public endpoint would also check `X-Hub-Signature-256`; here there is no secret to check it with.

mod event;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use ponos::prelude::*;
use serde::Serialize;

pub use self::event::Hooks;
use self::event::{GithubEvent, Malformed};
use self::stats::{Seen, Stats};
use crate::http::{HttpListener, Problem, json_body};
use crate::{Served, process};

/// Where `hooks` answers HTTP unless [`ADDRESS_VARIABLE`] says otherwise: this port on 127.0.0.1.
pub const PORT: u16 = 8402;

/// The variable with the address of `hooks`.
pub const ADDRESS_VARIABLE: &str = "HOOKS_ADDR";

/// The largest body: GitHub sends none above 25 MB.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#payload-cap>
pub const MAX_BODY: usize = 25_000_000;

/// Ten real webhooks, one `{"event":…,"payload":…}` a line: a part of those of octokit/webhooks (MIT, see the folder
/// `data`).
pub const REAL_WEBHOOKS: &str = include_str!("../data/webhooks.jsonl");

/// The header with the kind of a webhook.
const KIND_HEADER: &str = "x-github-event";

/// The definition. It only publishes, so there is no policy to choose.
pub fn service() -> Service<Hooks> {
    Service::new().version(env!("CARGO_PKG_VERSION"))
}

/// Where it answers.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
}

impl Config {
    /// From the environment.
    ///
    /// # Errors
    ///
    /// When a variable cannot be read.
    pub fn from_env() -> anyhow::Result<Self> {
        Ok(Self { address: process::address(ADDRESS_VARIABLE, PORT)? })
    }
}

/// Starts the service and its HTTP server.
///
/// # Errors
///
/// When the port is taken or the broker cannot be used.
pub async fn start(
    service: Service<Hooks>,
    config: Config,
    broker: impl Into<Broker>,
) -> anyhow::Result<Served<Hooks>> {
    let listener = HttpListener::bind(config.address, ADDRESS_VARIABLE).await?;
    let running = service.start((), broker).await?;
    let http = listener.serve(router(running.publisher()));
    Ok(Served::new(Some(http), running))
}

/// What the HTTP handlers share.
struct Shared {
    publisher: Publisher<Hooks>,
    stats: Stats,
}

fn router(publisher: Publisher<Hooks>) -> Router {
    Router::new()
        .route("/webhooks/github", post(webhook))
        .route("/stats", get(async |State(shared): State<Arc<Shared>>| Json(shared.stats.snapshot())))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Shared { publisher, stats: Stats::default() }))
}

/// What a webhook is answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Emitted { accepted: bool, event: &'static str, tid: String },
    Ignored { accepted: bool, reason: String },
}

async fn webhook(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Answer>), Problem> {
    let answer = take(&shared, &headers, body).await;
    if let Err(problem) = &answer {
        shared.stats.count(Seen::Refused);
        tracing::warn!(
            status = problem.status().as_u16(),
            problem = problem.detail(),
            "a webhook was refused"
        );
    }
    Ok((StatusCode::ACCEPTED, Json(answer?)))
}

async fn take(
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Answer, Problem> {
    let kind = kind(headers)?;
    let payload: serde_json::Map<String, serde_json::Value> = json_body(headers, body)?;
    let Some(event) =
        GithubEvent::of(kind, payload).map_err(|Malformed(detail)| Problem::unprocessable(detail))?
    else {
        shared.stats.count(Seen::Ignored(kind));
        let reason = format!("`{}` maps to no event", kind.escape_debug());
        return Ok(Answer::Ignored { accepted: false, reason });
    };
    let name = event.name();
    let receipt = event.emit(&shared.publisher).await.map_err(|error| Problem::not_published(&error))?;
    shared.stats.count(Seen::Emitted(name));
    Ok(Answer::Emitted { accepted: true, event: name, tid: receipt.tid.to_string() })
}

fn kind(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing =
        || Problem::bad_request("the header `X-GitHub-Event` is missing: it names the kind of the webhook");
    let kind = headers.get(KIND_HEADER).ok_or_else(missing)?;
    let kind =
        kind.to_str().map_err(|_| Problem::bad_request("the header `X-GitHub-Event` is no text"))?.trim();
    if kind.is_empty() { Err(missing()) } else { Ok(kind) }
}

/// The whole program `hooks`.
///
/// # Errors
///
/// When it cannot start.
pub async fn main() -> anyhow::Result<()> {
    let service = service().manifest_if_asked();
    process::log()?;
    let served = start(service, Config::from_env()?, process::broker()?).await.context("hooks")?;
    tracing::info!(url = served.url(), "hooks takes webhooks");
    process::until_told_to_end().await?;
    served.shutdown().await;
    Ok(())
}
