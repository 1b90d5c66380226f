//! JSON out, queries in.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, header};
use ponos::core::id::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::{amount, json, view};

/// How many of a list are given where nothing is said, and at most.
const USUAL: usize = 50;
const MOST: usize = 500;

/// What a handler answers.
pub(super) type Answer = Result<Response<Body>, Problem>;

/// JSON that is written already.
pub(super) fn written(json: String) -> Response<Body> {
    of("application/json", json)
}

/// A value as JSON.
pub(super) fn value(value: &impl Serialize) -> Response<Body> {
    written(json::to_line(value))
}

pub(super) fn of(kind: &'static str, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A query whose every parameter is known.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let error = error.body_text();
            Problem::bad(format!("{error}: /api/v1/openapi.json tells the parameters of each path"))
        })
    }
}

/// No parameters.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// How many at most.
///
/// # Errors
///
/// When it is none or too many.
pub(super) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit),
        limit => Err(Problem::bad(format!("limit={limit}: write 1 to {MOST}, and follow `next` for more"))),
    }
}

/// A moment: milliseconds since the epoch, or so long ago.
///
/// # Errors
///
/// When it is neither.
pub(super) fn moment(name: &str, asked: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = asked else { return Ok(None) };
    if let Ok(millis) = text.parse() {
        return Ok(Some(Timestamp::from_millis(millis)));
    }
    let ago: Duration = amount::duration(text).map_err(|error| {
        Problem::bad(format!("{name}={text}: milliseconds since 1970, or a time before now: {error}"))
    })?;
    Ok(Some(view::ago(ago)))
}
