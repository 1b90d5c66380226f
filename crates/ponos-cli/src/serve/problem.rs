//! What is wrong with a request, as RFC 9457 says it.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::error::{CliError, Exit};
use crate::{json, text};

/// The media type.
pub(super) const TYPE: &str = "application/problem+json";

/// How much of what is wrong is told, in bytes.
const LONGEST: usize = 2000;

/// Classes of problems. Each is a URN, which never changes, and a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    LengthRequired,
    Timeout,
    TooLarge,
    MediaType,
    HeadTooLarge,
    KeyReused,
    Broken,
    Busy,
    Unavailable,
}

impl Kind {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "the request was not understood"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "a token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "not from there"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "there is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "not with this method")
            }
            Self::LengthRequired => {
                (StatusCode::LENGTH_REQUIRED, "length-required", "the body must say how long it is")
            }
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "timeout", "the request came too slowly"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "the body must be JSON"),
            Self::HeadTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "the head is too large")
            }
            Self::KeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "the key belongs to another request")
            }
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "broken", "the server is at fault"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "too much is going on"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the broker or the read model cannot be used",
            ),
        }
    }
}

/// A problem, with what it is about and the way out.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// A verb's error, where what was asked for may not be there.
    pub(super) fn of(error: &CliError) -> Self {
        let kind = match error.exit() {
            Exit::Usage => Kind::BadRequest,
            Exit::Broker => Kind::Unavailable,
            Exit::Ok | Exit::Findings | Exit::Confirm => Kind::NotFound,
        };
        Self::new(kind, error.in_one_line())
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let (status, name, title) = self.kind.parts();
        let document = Document {
            r#type: format!("urn:ponos:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &text::line(&self.detail, LONGEST),
        };
        let mut response = Response::new(Body::from(json::to_line(&document)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TYPE));
        match self.kind {
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ponos\""));
            }
            // Where its next request would begin is anybody's guess.
            Kind::LengthRequired => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Kind::Busy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

impl From<CliError> for Problem {
    fn from(error: CliError) -> Self {
        Self::of(&error)
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        Problem::into_response(self)
    }
}
