//! The server itself, and the system by the manifests that its services wrote into the journal.

use axum::extract::State as Given;
use serde::Serialize;

use super::answer::{self, Answer, Asked, Nothing};
use super::state::Shared;
use crate::{json, steer};

#[derive(Serialize)]
struct Whoami<'a> {
    version: u32,
    /// In whose name operations are done.
    by: String,
    program: &'static str,
    broker: &'a str,
    /// How long ago the journal was read to its end.
    lag_ms: u64,
    /// Why what is answered may be old.
    problem: Option<String>,
}

pub(super) async fn whoami(Given(state): Shared, _: Asked<Nothing>) -> Answer {
    Ok(answer::value(&Whoami {
        version: json::VERSION,
        by: steer::whoami(),
        program: env!("CARGO_PKG_VERSION"),
        broker: state.session.broker().name(),
        lag_ms: u64::try_from(state.collector.lag().as_millis()).unwrap_or(u64::MAX),
        problem: state.collector.problem(),
    }))
}
