//! Figures of the collector, and of failed jobs, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::extract::State as Given;
use ponos::core::id::Timestamp;
use tokio::sync::Mutex;

use super::answer::{self, Answer, Asked, Nothing};
use super::state::Shared;
use crate::failed::asked;
use crate::{text, view};

/// For how long figures of failed jobs hold: to count them all of them are read.
const HOLD: Duration = Duration::from_secs(10);

/// How long they may be counted for.
const DEADLINE: Duration = Duration::from_secs(5);

/// How many names have figures of their own.
const NAMES: usize = 500;

type Counts = BTreeMap<String, (u64, Option<Timestamp>)>;

/// Failed jobs as they were counted last.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Option<(Instant, Option<Counts>)>>);

pub(super) async fn metrics(Given(state): Shared, _: Asked<Nothing>) -> Answer {
    let storage = state.models.ask(|view, _, _| view.model.storage().map_err(view::broken)).await?;
    let failed = {
        let mut counted = state.failed.0.lock().await;
        match &*counted {
            Some((at, counts)) if at.elapsed() < HOLD => counts.clone(),
            _ => {
                let counts = tokio::time::timeout(DEADLINE, asked::counts(&state.session)).await;
                let counts = counts.ok().and_then(Result::ok);
                *counted = Some((Instant::now(), counts.clone()));
                counts
            }
        }
    };
    let mut out = String::new();
    let lag = state.collector.lag().as_secs_f64();
    gauge(&mut out, "ponos_collector_lag_seconds", "Since the journal was read to its end.", lag);
    gauge(&mut out, "ponos_collector_db_bytes", "Size of the read model's files.", storage.bytes);
    let name = "ponos_collector_records_total";
    family(
        &mut out,
        name,
        "counter",
        "Entries of the journal that were read since this program was started.",
    );
    line(&mut out, name, state.collector.read());
    if let Some(oldest) = storage.oldest {
        let name = "ponos_collector_oldest_record_timestamp_seconds";
        gauge(&mut out, name, "When the oldest entry was written.", seconds(oldest.as_millis()));
    }
    // Where they cannot be counted there is no figure: 0 would say that all is well.
    if let Some(failed) = failed {
        family(&mut out, "ponos_failed_open", "gauge", "Failed jobs.");
        for (name, (count, _)) in failed.iter().take(NAMES) {
            line(&mut out, &format!("ponos_failed_open{{name=\"{}\"}}", label(name)), count);
        }
        family(
            &mut out,
            "ponos_failed_oldest_age_seconds",
            "gauge",
            "Since the oldest of the failed jobs failed.",
        );
        for (name, (_, oldest)) in failed.iter().take(NAMES) {
            if let Some(oldest) = oldest {
                let age = text::now().since(*oldest).as_secs_f64();
                line(&mut out, &format!("ponos_failed_oldest_age_seconds{{name=\"{}\"}}", label(name)), age);
            }
        }
    }
    Ok(answer::of("text/plain; version=0.0.4; charset=utf-8", out))
}

fn gauge(out: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    family(out, name, "gauge", help);
    line(out, name, value);
}

// Writing to a string cannot fail.
fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name} {value}");
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
