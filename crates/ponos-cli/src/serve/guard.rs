//! What every request has to pass, and what every answer carries.
//!
//! In this order: how large its head is, the name it was sent to, where it comes from, how its body is sent, the token, the form of its path, a place among those that
//! are answered at once. Only then its route is looked up: without a token nobody learns which there are.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State as Given};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use axum::middleware::Next;

use super::address;
use super::listen::HEAD_BYTES;
use super::problem::{self, Kind, Problem};
use super::routes;
use super::state::State;

/// How long a request may take, its body included. A stream has begun by then.
const DEADLINE: Duration = Duration::from_secs(10);

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::VARY, "authorization"),
];

pub(super) async fn guard(Given(state): Given<Arc<State>>, request: Request, next: Next) -> Response<Body> {
    let head = request.method() == axum::http::Method::HEAD;
    let mut response = match admit(&state, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) => answer(&state, request, next).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

async fn answer(state: &State, request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let Ok(_turn) = state.requests.try_acquire() else {
        return Problem::new(Kind::Busy, "too many requests at once: ask again in a second").into_response();
    };
    let Ok(response) = tokio::time::timeout(DEADLINE, next.run(request)).await else {
        let seconds = DEADLINE.as_secs();
        return Problem::new(
            Kind::Busy,
            format!("no answer within {seconds} seconds: ask for less, or again later"),
        )
        .into_response();
    };
    // What the router says by itself is none of our problems.
    let is_told = routes::OPEN.contains(&path.as_str())
        || response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == problem::TYPE);
    if is_told || !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    match response.status() {
        // The router adds behind this place which methods there are, as a header.
        StatusCode::METHOD_NOT_ALLOWED => {
            let detail =
                "this path answers other methods, which the header Allow names: see /api/v1/openapi.json";
            Problem::new(Kind::MethodNotAllowed, detail).into_response()
        }
        _ => Problem::bad("the path is not understood: /api/v1/openapi.json tells its form").into_response(),
    }
}

fn admit(state: &State, request: &Request) -> Result<(), Problem> {
    let (headers, uri) = (request.headers(), request.uri());
    if head_bytes(headers, uri) > HEAD_BYTES {
        return Err(Problem::new(Kind::HeadTooLarge, "path, query and headers have at most 32 KiB together"));
    }
    let port = state.address.port();
    if !is_meant(headers, uri, port) {
        return Err(Problem::new(
            Kind::Forbidden,
            format!(
                "this server is 127.0.0.1:{port} or localhost:{port}, and answers to no other name: send that as Host"
            ),
        ));
    }
    if is_of_a_page(headers) {
        return Err(Problem::new(
            Kind::Forbidden,
            "pages of a browser are not answered: ask from a program, without Origin",
        ));
    }
    // Two ways to tell a body's length are how a proxy and its server come to read two requests each.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Problem::new(
            Kind::LengthRequired,
            "send the body in one piece with `Content-Length`, and no `Transfer-Encoding`",
        ));
    }
    if routes::OPEN.contains(&uri.path()) {
        return Ok(());
    }
    if !has_token(headers, state) {
        return Err(Problem::new(
            Kind::Unauthorized,
            "send `Authorization: Bearer TOKEN` with the token that the server was started with",
        ));
    }
    if !is_plain(uri.path()) {
        return Err(routes::unknown());
    }
    Ok(())
}

/// How large the head is. What reads it refuses more only where it came in several packets.
fn head_bytes(headers: &HeaderMap, uri: &Uri) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    headers.iter().fold(path, |sum, (name, value)| sum + name.as_str().len() + value.len() + ": \r\n".len())
}

/// Whether each name that the request gives to its server is one of this server's.
fn is_meant(headers: &HeaderMap, uri: &Uri, port: u16) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = uri.authority().is_none_or(|authority| address::is_meant(authority.as_str(), port));
    named && host.to_str().is_ok_and(|host| address::is_meant(host, port))
}

/// Browsers say so of what a page asks for.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != "none" && site != "same-origin")
}

fn has_token(headers: &HeaderMap, state: &State) -> bool {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return false };
    let token = given.to_str().ok().and_then(|given| given.split_once(' '));
    token.is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && state.token.is(token))
}

/// Whether a path means what it says: no way up, nothing empty, and no character of a path written otherwise.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%00", "%25", "%2e", "%2f", "%5c", "\\"].iter().any(|hidden| lower.contains(hidden));
    let mut steps = path.split('/').skip(1);
    // `OPTIONS *` asks about no path.
    path.starts_with('/') && !hidden && steps.all(|step| !step.is_empty() && step != "." && step != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_what_it_says() {
        for good in [
            "/api/v1/traces",
            "/api/v1/names/org.payment.processed/explain",
            "/api/v1/traces/@last",
            "/x/a%20b",
        ] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "",
            "*",
            "/",
            "/api//v1",
            "/api/v1/",
            "/api/../v1",
            "/api/./v1",
            "/api/..%2fv1",
            "/api/%2E%2e/v1",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%252f",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
