//! What there is to do: operations on failed jobs, and standing orders.
//!
//! | module | what |
//! | --- | --- |
//! | `request` | what is asked for, read and checked |
//! | `book` | the operations of this process, and the keys that make a request count once |
//! | `run` | doing it, beside the request |

mod book;
mod request;
mod run;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Request, State as Given};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};

pub(super) use self::book::Book;

use self::book::{Opened, Stage};
use super::answer::{self, Answer, Asked, Nothing};
use super::problem::{Kind, Problem};
use super::routes::BODY_BYTES;
use super::state::{Shared, State};

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(8);

/// How long is waited for the plan, and then for the end, before it is answered how it stands.
const PLANNED: Duration = Duration::from_secs(5);
const ENDED: Duration = Duration::from_millis(500);

/// How long it may take to find out what became of jobs.
const BALANCE: Duration = Duration::from_secs(4);

/// How long a key may be.
const LONGEST_KEY: usize = 255;

pub(super) async fn begin(Given(state): Shared, request: Request) -> Answer {
    let headers = request.headers().clone();
    is_json(&headers)?;
    let key = key(&headers)?;
    let body = body(request).await?;
    let task = request::read(&body)?;
    let opened = match &key {
        None => state.book.open(None, &task)?,
        Some(key) => state.book.open(Some((key, Sha256::digest(&body).into())), &task)?,
    };
    let operation = match opened {
        Opened::Known(operation) => operation,
        Opened::New(operation) => {
            tokio::spawn(run::run(Arc::clone(&state), Arc::clone(&operation), task));
            operation
        }
    };
    operation.reaches(|stage| stage != Stage::Planning, PLANNED).await;
    operation.reaches(Stage::is_end, ENDED).await;
    if let Some(problem) = operation.refused() {
        return Err(problem);
    }
    let mut response = answer::written(operation.document(None));
    *response.status_mut() = StatusCode::ACCEPTED;
    let location = format!("/api/v1/operations/{}", operation.id());
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn one(Given(state): Shared, Path(id): Path<String>, _: Asked<Nothing>) -> Answer {
    let Some(operation) = state.book.find(&id) else {
        return Err(Problem::new(
            Kind::NotFound,
            "there is no such operation: this server knows those that it has begun itself, the latest of them",
        ));
    };
    let balance = balance(&state, &operation).await;
    Ok(answer::written(operation.document(balance)))
}

/// What has become of jobs that were retried, as far as that can be found out now.
async fn balance(state: &State, operation: &book::Entry) -> Option<crate::failed::asked::Balance> {
    let (chosen, settled) = operation.retried()?;
    let found = chosen.balance(&settled, operation.mark(), &state.session);
    tokio::time::timeout(BALANCE, found).await.ok()?.ok()?
}

async fn body(request: Request) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Kind::TooLarge,
            "the body is larger than 1 MiB: name groups or use `all` instead of many ids",
        )
    };
    // What says that it is too large is not waited for.
    let said =
        request.headers().get(header::CONTENT_LENGTH).and_then(|said| said.to_str().ok()?.parse().ok());
    if said.is_some_and(|said: u64| said > BODY_BYTES as u64) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY, Bytes::from_request(request, &())).await;
    let read = read.map_err(|_| {
        let seconds = BODY.as_secs();
        Problem::new(
            Kind::Timeout,
            format!("the body did not arrive within {seconds} seconds: send it at once"),
        )
    })?;
    read.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::bad("the body broke off: send it again"),
    })
}

/// A form of a page cannot send this type, and what is no JSON is not guessed at.
fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(Kind::MediaType, "send JSON with `Content-Type: application/json`"))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Ok(Some(key.to_owned())),
        _ => Err(Problem::bad(format!("Idempotency-Key: write 1 to {LONGEST_KEY} characters of ASCII"))),
    }
}
