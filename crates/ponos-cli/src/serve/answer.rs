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

/// A part of a list that is sorted by a key, and the key behind which the next one begins.
pub(super) fn page<'a, T>(
    all: &'a [T],
    key: impl Fn(&T) -> String,
    cursor: Option<&str>,
    limit: usize,
) -> (&'a [T], Option<String>) {
    let begin = cursor.map_or(0, |cursor| all.partition_point(|it| key(it).as_str() <= cursor));
    let end = all.len().min(begin + limit);
    let next = (end < all.len()).then(|| all[begin..end].last().map(key)).flatten();
    (&all[begin..end], next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_the_list() {
        let all: Vec<u32> = (10..33).collect();
        for limit in [1, 2, 7, 23, 24] {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let (page, next) = page(&all, u32::to_string, cursor.as_deref(), limit);
                assert!(page.len() <= limit);
                seen.extend_from_slice(page);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, all, "{limit}");
        }
        // What the last page ended with may be gone.
        assert_eq!(page(&[1, 3, 5], u32::to_string, Some("2"), 1), (&[3][..], Some("3".to_owned())));
        assert_eq!(page(&[] as &[u32], u32::to_string, Some("x"), 5), (&[][..], None));
    }
}
