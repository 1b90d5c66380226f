//! Failed jobs: all of them, a group, one.

use axum::extract::{Path, State as Given};
use ponos::MessageId;
use ponos::core::name::AppName;
use serde::Deserialize;

use super::answer::{self, Answer, Asked};
use super::problem::Problem;
use super::state::Shared;
use crate::amount;
use crate::failed::asked::{self, Wish};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    group_by: Option<String>,
    app: Option<AppName>,
    name: Option<String>,
    since: Option<String>,
}

pub(super) async fn list(Given(state): Shared, Asked(query): Asked<List>) -> Answer {
    let since = query.since.as_deref().map(amount::duration).transpose();
    let since = since.map_err(|error| Problem::bad(format!("since: {error}")))?;
    let wish = Wish { which: Vec::new(), app: query.app, name: query.name, since };
    let listed = asked::list(&state.session, query.group_by.as_deref(), &wish).await;
    listed.map(answer::written).map_err(Into::into)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    app: Option<AppName>,
    limit: Option<usize>,
    #[serde(default)]
    body: u8,
}

pub(super) async fn group(
    Given(state): Shared,
    Path(digits): Path<String>,
    Asked(query): Asked<Group>,
) -> Answer {
    let limit = answer::limit(query.limit)?;
    let shown = asked::group(&state.session, &digits, query.app, limit, with_body(query.body)?).await;
    shown.map(answer::written).map_err(Into::into)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    /// An event can fail in several applications.
    app: Option<AppName>,
    #[serde(default)]
    body: u8,
}

pub(super) async fn one(Given(state): Shared, Path(id): Path<String>, Asked(query): Asked<One>) -> Answer {
    let id: MessageId =
        id.parse().map_err(|_| Problem::bad("this is no job's id: /api/v1/failed lists those there are"))?;
    let shown = asked::job(&state.session, id, query.app.as_ref(), with_body(query.body)?).await;
    shown.map(answer::written).map_err(Into::into)
}

/// Bodies are shown when somebody asks for them, with what looks like a secret masked.
fn with_body(asked: u8) -> Result<bool, Problem> {
    match asked {
        0 | 1 => Ok(asked == 1),
        _ => Err(Problem::bad("body: write body=1 for headers and body, or leave it out")),
    }
}
