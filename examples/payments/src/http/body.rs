use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::Problem;

/// Reads a request's body as JSON.
///
/// # Errors
///
/// 415 for another content type, 413 for a body that is too large, 400 for what is no JSON, 422 for JSON of another form.
pub fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    if let Some(given) = headers.get(header::CONTENT_TYPE) {
        let essence = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            let detail = format!("the content type is `{}`: send `application/json`", essence.escape_debug());
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    }
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| match error.classify() {
        Category::Data => Problem::unprocessable(format!("the body does not fit: {error}")),
        _ if body.is_empty() => Problem::bad_request("the body is empty: send a JSON object"),
        _ => Problem::bad_request(format!("the body is no JSON: {error}")),
    })
}
