//! Transactions: lists of them, one of them, where two part.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State as Given};
use axum::http::Response;
use ponos::Tid;
use ponos::core::id::Timestamp;
use ponos::core::journal::{Entry, Said};
use ponos_readmodel::{TraceFilter, TraceOutcome, TraceSummary};
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Asked, Nothing};
use super::problem::Problem;
use super::state::Shared;
use crate::tail::EntryJson;
use crate::trace::Which;
use crate::view::{self, View};
use crate::{json, trace};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    name: Option<String>,
    app: Option<String>,
    outcome: Option<Outcome>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Done,
    Pending,
    Failed,
    Retried,
}

#[derive(Serialize)]
struct Page<'a> {
    version: u32,
    traces: Vec<TraceJson<'a>>,
    next: Option<String>,
}

#[derive(Serialize)]
struct TraceJson<'a> {
    tid: &'a Tid,
    name: Option<&'a str>,
    outcome: &'static str,
    started: Timestamp,
    last: Timestamp,
    records: u64,
    failed: u64,
    retries: u64,
    pending: u64,
}

impl<'a> TraceJson<'a> {
    fn of(summary: &'a TraceSummary) -> Self {
        let outcome = match (summary.pending, summary.failed) {
            (0, 0) => "done",
            (0, _) => "failed",
            _ => "pending",
        };
        Self {
            tid: &summary.tid,
            name: summary.root.as_deref(),
            outcome,
            started: summary.first_at,
            last: summary.last_at,
            records: summary.records,
            failed: summary.failed,
            retries: summary.retries,
            pending: summary.pending,
        }
    }
}

pub(super) async fn list(Given(state): Shared, Asked(query): Asked<List>) -> Answer {
    let after = query.cursor.as_deref().map(str::parse).transpose();
    let filter = TraceFilter {
        name: query.name,
        app: query.app,
        outcome: query.outcome.map(|outcome| match outcome {
            Outcome::Done => TraceOutcome::Done,
            Outcome::Pending => TraceOutcome::Pending,
            Outcome::Failed => TraceOutcome::Failed,
            Outcome::Retried => TraceOutcome::Retried,
        }),
        since: answer::moment("since", query.since.as_deref())?,
        until: answer::moment("until", query.until.as_deref())?,
        after: after.map_err(|error| Problem::bad(format!("cursor: {error}")))?,
        limit: answer::limit(query.limit)?,
    };
    let page = state.models.ask(move |view, _, _| view.model.traces(&filter).map_err(view::broken)).await?;
    let next = page.next.map(|next| next.to_string());
    let traces = page.traces.iter().map(TraceJson::of).collect();
    Ok(answer::value(&Page { version: json::VERSION, traces, next }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Tree,
    Records,
    Mermaid,
}

#[derive(Serialize)]
struct Records<'a> {
    version: u32,
    tid: &'a Tid,
    records: Vec<EntryJson<'a>>,
}

pub(super) async fn one(Given(state): Shared, Path(which): Path<String>, Asked(query): Asked<One>) -> Answer {
    let which = Which::parse(&which)?;
    state
        .models
        .ask(move |view, session, handle| {
            let tid = which.only(view, session)?;
            Ok(match query.format {
                Format::Tree => {
                    let cascade = handle.block_on(view.cascade(&tid, session))?;
                    answer::written(json::to_line(&cascade.to_json()))
                }
                Format::Mermaid => {
                    let cascade = handle.block_on(view.cascade(&tid, session))?;
                    answer::of("text/vnd.mermaid; charset=utf-8", cascade.to_mermaid())
                }
                Format::Records => records(view, &tid)?,
            })
        })
        .await
}

fn records(view: &View, tid: &Tid) -> Result<Response<Body>, crate::error::CliError> {
    let trace = view.model.trace(tid).map_err(view::broken)?;
    let entries: Vec<Entry> = trace
        .records
        .into_iter()
        .map(|(origin, seq, record)| Entry { origin: Arc::clone(&origin), seq, said: Said::Record(record) })
        .collect();
    let records = entries.iter().map(EntryJson::of).collect();
    Ok(answer::value(&Records { version: json::VERSION, tid, records }))
}

pub(super) async fn diff(
    Given(state): Shared,
    Path((good, bad)): Path<(String, String)>,
    _: Asked<Nothing>,
) -> Answer {
    let (good, bad) = (Which::parse(&good)?, Which::parse(&bad)?);
    let compared = state.models.ask(move |view, session, handle| {
        let (good, bad) = (good.only(view, session)?, bad.only(view, session)?);
        let [a, b] = [&good, &bad].map(|tid| handle.block_on(view.cascade(tid, session)));
        Ok(trace::diff_document(&good, &bad, &a?.diff(&b?)))
    });
    compared.await.map(answer::written)
}
