//! Why a request got no answer.

use std::fmt;

use ponos_core::envelope::tame;
use reqwest::{Method, Url};

/// A request that got no answer. A status such as 500 is an answer; see [`reqwest::Response::error_for_status`].
///
/// Its text names the method and the URL without user, password, query and fragment, which may hold secrets.
#[derive(Debug)]
pub struct HttpError {
    kind: HttpErrorKind,
    target: String,
    says: String,
    source: Option<reqwest::Error>,
}

/// The classes of [`HttpError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpErrorKind {
    /// The request could not be made: its URL, a header or the body is wrong.
    Request,
    /// The URL wants TLS, which is not built in.
    Tls,
    /// No connection.
    Connect,
    /// The time was up.
    Timeout,
    /// The connection broke, or what came was no answer.
    Other,
}

impl HttpError {
    /// Which class of error it is.
    #[must_use]
    pub fn kind(&self) -> HttpErrorKind {
        self.kind
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, HttpErrorKind::Connect | HttpErrorKind::Timeout | HttpErrorKind::Other)
    }

    pub(super) fn new(kind: HttpErrorKind, target: &Target, says: impl Into<String>) -> Self {
        Self { kind, target: target.0.clone(), says: says.into(), source: None }
    }

    pub(super) fn from_reqwest(error: reqwest::Error, target: &Target) -> Self {
        let error = error.without_url();
        let wants_tls = causes(&error).any(|cause| cause.to_string().contains("scheme is not http"));
        let (kind, says) = if wants_tls {
            let says = "https is not built in yet (it comes with a later feature `tls`): use http inside your network, or \
                        a client of your own and the ids of `cx.cause()`";
            (HttpErrorKind::Tls, says)
        } else if error.is_timeout() {
            (HttpErrorKind::Timeout, "no answer in time")
        } else if error.is_connect() {
            (HttpErrorKind::Connect, "no connection")
        } else if error.is_builder() {
            (HttpErrorKind::Request, "not a valid request")
        } else {
            (HttpErrorKind::Other, "the exchange failed")
        };
        Self { kind, target: target.0.clone(), says: says.to_owned(), source: Some(error) }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.target, self.says)
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Method and URL, without what may be secret, for errors.
#[derive(Debug, Clone)]
pub(super) struct Target(String);

impl Target {
    pub(super) fn new(method: &Method, url: &Url) -> Self {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        // Both fail for URLs that cannot have them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self(format!("{method} {}", tame(url.as_str(), 300)))
    }

    /// For what is no URL. Where its password would stand cannot be told, so a text with `@` is not shown.
    pub(super) fn unparsed(method: &Method, text: &str) -> Self {
        let head = text.split(['?', '#']).next().unwrap_or_default();
        let head = if head.contains('@') { "…" } else { head };
        Self(format!("{method} `{}`", tame(head.lines().next().unwrap_or_default(), 100)))
    }
}
