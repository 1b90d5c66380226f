//! All routes.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State as Given};
use axum::http::{Response, StatusCode};
use axum::routing::{MethodRouter, get, post};

use super::problem::{Kind, Problem};
use super::state::{Shared, State};
use super::{answer, failed, guard, metrics, operations, queues, stream, system, traces};

/// How large a body may be.
pub(super) const BODY_BYTES: usize = 1024 * 1024;

/// What is answered without a token: whether it lives and can be asked, and no more than that.
pub(super) const OPEN: &[&str] = &["/livez", "/readyz"];

/// The API's description, kept by hand.
const OPENAPI: &str = include_str!("openapi.json");

/// Method, path, and who answers.
fn table() -> Vec<(&'static str, &'static str, MethodRouter<Arc<State>>)> {
    vec![
        ("get", "/livez", get(live)),
        ("get", "/readyz", get(ready)),
        ("get", "/api/v1/openapi.json", get(openapi)),
        ("get", "/api/v1/whoami", get(system::whoami)),
        ("get", "/api/v1/traces", get(traces::list)),
        ("get", "/api/v1/traces/{tid}", get(traces::one)),
        ("get", "/api/v1/traces/{tid}/diff/{other}", get(traces::diff)),
        ("get", "/api/v1/names", get(system::names)),
        ("get", "/api/v1/names/{name}/explain", get(system::explain)),
        ("get", "/api/v1/map", get(system::map)),
        ("get", "/api/v1/checks", get(system::checks)),
        ("get", "/api/v1/asyncapi", get(system::asyncapi)),
        ("get", "/api/v1/queues", get(queues::list)),
        ("get", "/api/v1/services", get(queues::services)),
        ("get", "/api/v1/failed", get(failed::list)),
        ("get", "/api/v1/failed/{group}", get(failed::group)),
        ("get", "/api/v1/failed/messages/{id}", get(failed::one)),
        ("get", "/api/v1/stream", get(stream::stream)),
        ("post", "/api/v1/operations", post(operations::begin)),
        ("get", "/api/v1/operations/{id}", get(operations::one)),
        ("get", "/metrics", get(metrics::metrics)),
    ]
}

pub(super) fn router(state: Arc<State>) -> Router {
    let mut router = Router::new();
    for (_, path, method) in table() {
        router = router.route(path, method);
    }
    router
        .fallback(|| async { unknown() })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), guard::guard))
        .with_state(state)
}

pub(super) fn unknown() -> Problem {
    Problem::new(Kind::NotFound, "there is no such path: /api/v1/openapi.json tells all there are")
}

async fn openapi() -> Response<Body> {
    answer::written(OPENAPI.to_owned())
}

/// It runs.
async fn live() -> Response<Body> {
    answer::of("text/plain; charset=utf-8", "ok\n")
}

/// What it answers is current. Why it may not be, only those are told who have the token.
async fn ready(Given(state): Shared) -> Response<Body> {
    let current = state.collector.problem().is_none();
    let mut response =
        answer::of("text/plain; charset=utf-8", if current { "ok\n" } else { "behind the journal\n" });
    if !current {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let api: Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = api["paths"].as_object().unwrap();
        let described: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(move |method| (method.as_str(), path.as_str()))
            })
            .collect();
        let table = table();
        let routed: BTreeSet<(&str, &str)> = table.iter().map(|(method, path, _)| (*method, *path)).collect();
        assert_eq!(described, routed);
    }

    /// The main lines of OpenAPI 3.1: every reference leads somewhere, every parameter of a path is declared, every
    /// operation has its own name and says what it answers.
    #[test]
    fn the_description_is_sound() {
        let api: Value = serde_json::from_str(OPENAPI).unwrap();
        assert_eq!(api["openapi"], "3.1.0");
        assert!(api["info"]["title"].is_string() && api["info"]["version"].is_string());
        let mut names = BTreeSet::new();
        for (path, item) in api["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let at = format!("{method} {path}");
                assert!(names.insert(operation["operationId"].as_str().expect(&at)), "{at}");
                assert!(operation["summary"].is_string(), "{at}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    responses.contains_key("default") && responses.keys().any(|code| code.starts_with('2')),
                    "{at}"
                );
                let declared: BTreeSet<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|parameter| resolve(&api, parameter))
                    .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let needed: BTreeSet<&str> = path
                    .split(['{', '}'])
                    .enumerate()
                    .filter(|(n, _)| n % 2 == 1)
                    .map(|(_, name)| name)
                    .collect();
                assert_eq!(declared, needed, "{at}");
                let open =
                    operation.get("security").is_some_and(|security| security == &serde_json::json!([]));
                assert_eq!(open, OPEN.contains(&path.as_str()), "{at}");
            }
        }
        every_reference(&api, &api);
    }

    fn resolve<'a>(api: &'a Value, value: &'a Value) -> &'a Value {
        value.get("$ref").map_or(value, |target| {
            let target = target.as_str().unwrap().strip_prefix('#').unwrap();
            api.pointer(target).unwrap_or_else(|| panic!("{target} leads nowhere"))
        })
    }

    fn every_reference(api: &Value, value: &Value) {
        resolve(api, value);
        match value {
            Value::Object(fields) => fields.values().for_each(|value| every_reference(api, value)),
            Value::Array(items) => items.iter().for_each(|value| every_reference(api, value)),
            _ => {}
        }
    }
}
