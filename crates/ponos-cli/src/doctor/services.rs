//! Whether the services are well, and fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ponos::core::journal::{Flight, What};
use ponos::core::manifest::Manifest;
use ponos_readmodel::{Instance, ReadModelError};

use super::finding::{Code, Report};
use super::patient::{Past, Patient};
use crate::check;
use crate::manifests::Loaded;
use crate::system::System;
use crate::text;
use crate::view::ago;

/// What fell silent longer ago is history.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// How many jobs of an instance that fell silent are looked up.
const LOOKED_UP: usize = 20;

/// RabbitMQ takes a job away after 30 minutes, unless it is told otherwise
/// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

pub(super) fn check(
    patient: &Patient<'_>,
    past: &Past<'_>,
    report: &mut Report,
) -> Result<(), ReadModelError> {
    let before = report.findings.len();
    silent(patient, past, report)?;
    versions(patient, past, report);
    if report.findings.len() == before {
        let totals = &patient.look.totals;
        report.fine(format!(
            "services: {} alive, {} in flight",
            text::count(totals.alive, "instance"),
            text::count(totals.in_flight, "job")
        ));
    }
    unheard(patient, past, report)?;
    let current = past.current(patient.now);
    let load = |manifest: &Manifest| Loaded { source: manifest.app.clone(), manifest: manifest.clone() };
    let system = System::of(current.iter().map(|known| load(&known.manifest)).collect());
    for (subject, message, help) in check::hop_limits(&system) {
        report.error(Code::HopLimit, subject, message, help);
    }
    if patient.rabbitmq {
        timeouts(current.iter().map(|known| &known.manifest), report);
    }
    Ok(())
}

/// Instances that said nothing any more, with jobs that nobody has ended since.
fn silent(patient: &Patient<'_>, past: &Past<'_>, report: &mut Report) -> Result<(), ReadModelError> {
    for instance in past.instances.iter().filter(|it| it.is_silent(patient.now)) {
        let silence = patient.now.since(instance.last_at);
        let Some((_, beat)) = instance.beat.as_ref().filter(|_| silence < RECENT) else { continue };
        let mut open = beat.flights.len();
        for flight in beat.flights.iter().take(LOOKED_UP) {
            open -= usize::from(has_ended(past, instance, flight)?);
        }
        if open > 0 {
            report.error(
                Code::InstanceSilent,
                format!("{} at {}", instance.origin.app, instance.origin.host),
                format!(
                    "it has said nothing for {} and had {} in its hands that nobody has ended since",
                    text::duration(silence),
                    text::count(open as u64, "job")
                ),
                "it died, stands still or is cut off: look at its host; its jobs come again elsewhere when the broker notices"
                    .into(),
            );
        }
    }
    Ok(())
}

/// Whether this attempt at the job, or a later one, has ended.
fn has_ended(past: &Past<'_>, instance: &Instance, flight: &Flight) -> Result<bool, ReadModelError> {
    let trace = past.view.model.trace(&flight.tid)?;
    Ok(trace.records.iter().filter(|(_, _, record)| record.message == flight.message).any(
        |(_, _, record)| match &record.what {
            What::Attempt(it) => it.queue == flight.queue && it.started >= flight.started,
            What::ByHand(_) => record.at > instance.last_at,
            _ => false,
        },
    ))
}

/// Versions of one application that differ in what they are, and run together.
fn versions(patient: &Patient<'_>, past: &Past<'_>, report: &mut Report) {
    let mut alive: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    for instance in past.alive(patient.now) {
        let versions = alive.entry(instance.origin.app.as_str()).or_default();
        versions.insert(instance.origin.version.as_deref());
    }
    for (app, versions) in alive.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let manifests: Vec<Manifest> = past
            .manifests
            .iter()
            .filter(|known| {
                known.origin.app.as_str() == app && versions.contains(&known.origin.version.as_deref())
            })
            .map(|known| Manifest { version: None, ..known.manifest.clone() })
            .collect();
        if manifests.windows(2).any(|pair| pair[0] != pair[1]) {
            let names: Vec<String> =
                versions.iter().map(|version| text::line(version.unwrap_or("(none)"), 64)).collect();
            report.warning(
                Code::VersionsMixed,
                app,
                format!("versions {} run together and differ in their manifests", names.join(" and ")),
                "finish the change; `ponos check NEW --against OLD` says what breaks meanwhile".into(),
            );
        }
    }
}

/// Events that were published and that no queue takes.
fn unheard(patient: &Patient<'_>, past: &Past<'_>, report: &mut Report) -> Result<(), ReadModelError> {
    if patient.look.partly.is_some() {
        report.unseen("events that nobody hears", "the queues cannot be listed");
        return Ok(());
    }
    for figures in past.view.model.names(ago(RECENT))?.iter().filter(|figures| figures.event) {
        let count: u64 = figures.sources.iter().map(|source| source.published).sum();
        let hears = |queue: &str| queue.split_once('.').is_some_and(|(_, event)| *event == *figures.name);
        if count > 0 && !patient.look.queues.iter().any(|row| hears(row.stats.queue.as_str())) {
            report.warning(
                Code::EventUnheard,
                text::line(&figures.name, 128),
                format!("nobody hears it: {} in 24 hours", text::count(count, "message")),
                "start who hears it, or stop emitting it: what nobody hears is gone".into(),
            );
        }
    }
    Ok(())
}

/// Handlers that may take longer than RabbitMQ waits.
fn timeouts<'a>(manifests: impl Iterator<Item = &'a Manifest>, report: &mut Report) {
    let mut told = BTreeSet::new();
    for task in manifests.flat_map(|manifest| &manifest.tasks) {
        let limit = task.policy.timeout_ms.map(Duration::from_millis);
        if limit.is_some_and(|limit| limit >= CONSUMER_TIMEOUT) && told.insert(task.queue.as_str()) {
            report.warning(
                Code::TimeoutTooLong,
                task.queue.as_str(),
                format!(
                    "an attempt may take {}, and RabbitMQ takes a job away after 30min",
                    text::duration(limit.unwrap_or_default())
                ),
                "shorten it, or raise the broker's `consumer_timeout`".into(),
            );
        }
    }
}
