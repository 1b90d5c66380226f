//! Metrics and health: what is counted, what the probes answer, and what neither ever tells.

#![allow(missing_docs, missing_debug_implementations, reason = "a test's derives have no readers")]
#![allow(unreachable_pub, reason = "modules of a test binary")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was skipped is said")]

#[path = "counting.rs"]
mod counting;
#[path = "files.rs"]
mod files;
#[path = "health.rs"]
mod health;
#[path = "http.rs"]
mod http;
#[path = "openmetrics.rs"]
mod openmetrics;
#[path = "secrets.rs"]
mod secrets;
#[path = "stubs.rs"]
mod stubs;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ponos::metrics::Observe;
use ponos::{App, Running};

/// How long anything may take before it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Any free port of this machine.
fn anywhere() -> Observe {
    Observe::at("127.0.0.1:0")
}

fn addr<A: App>(running: &Running<A>) -> SocketAddr {
    running.metrics_addr().expect("it listens")
}

/// Asks again and again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The metrics of a service, read strictly.
fn metrics<A: App>(running: &Running<A>) -> openmetrics::Exposition {
    openmetrics::read(&running.metrics_text().expect("it is observed"))
}

/// Waits until a series has a value.
async fn until_metric<A: App>(running: &Running<A>, name: &str, labels: &[(&str, &str)], value: f64) {
    let what = format!("{name} {labels:?} = {value}");
    until(&what, async || (metrics(running).find(name, labels) == Some(value)).then_some(())).await;
}
