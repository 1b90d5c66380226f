use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Problem;

/// Reads a request's body as JSON, whatever its content type says: `curl -d` says that it is a form.
///
/// # Errors
///
/// 413 for a body that is too large, 415 or 400 for what is no JSON, 422 for JSON of another form.
pub fn json_body<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| match (error.classify(), other_type(headers)) {
        (Category::Data, _) => Problem::unprocessable(format!("the body does not fit: {error}")),
        _ if body.is_empty() => Problem::bad_request("the body is empty: send a JSON object"),
        (_, Some(other)) => {
            let detail =
                format!("the body is `{}` and no JSON: send `application/json`", other.escape_debug());
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
        }
        _ => Problem::bad_request(format!("the body is no JSON: {error}")),
    })
}

/// The content type, where it is given and is not JSON.
fn other_type(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (essence != "application/json" && !essence.ends_with("+json")).then_some(essence)
}
