//! Whether jobs get on: queues, circuits, orders, failed jobs.

use std::time::Duration;

use ponos::core::broker::{OrderAction, OrderTarget};
use ponos::core::manifest::OrdersManifest;
use ponos::core::name::QueueName;
use ponos_readmodel::ReadModelError;

use super::finding::{Code, Report};
use super::patient::{Past, Patient};
use crate::queues::{QueueRow, QueueState, is_worked};
use crate::steer::{what, when_and_why};
use crate::text;
use crate::view::ago;

/// How long jobs may wait for somebody who starts.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a circuit may be open without anybody being told.
const OPEN: Duration = Duration::from_secs(300);

/// After how long an application that was not seen counts as gone.
const GONE: Duration = Duration::from_secs(7 * 24 * 3600);

const HOUR: Duration = Duration::from_secs(3600);

/// What the broker alone tells.
pub(super) fn check(patient: &Patient<'_>, report: &mut Report) {
    let before = report.findings.len();
    for row in &patient.look.queues {
        for state in &row.states {
            told(patient, row, state, report);
        }
    }
    orders(patient, report);
    let worked = patient.look.queues.iter().filter(|row| is_worked(&row.stats.queue)).count() as u64;
    if report.findings.len() == before {
        report.fine(format!("queues: {}, jobs get on in all of them", text::count(worked, "queue")));
    }
    if let Some(why) = &patient.look.partly {
        report.unseen("queues that neither a manifest nor an instance names", why.as_str());
    }
}

fn told(patient: &Patient<'_>, row: &QueueRow, state: &QueueState, report: &mut Report) {
    let queue = &row.stats.queue;
    match state {
        QueueState::Unworked if !is_prototype(patient, queue) => unworked(patient, row, report),
        QueueState::Stalled { host, for_ms } => report.error(
            Code::ConsumerStalled,
            queue.as_str(),
            format!(
                "the consumer at {host} could take some of {}, and was given none for {}",
                text::count(row.stats.ready, "ready job"),
                text::duration(Duration::from_millis(*for_ms))
            ),
            "restart that instance; if it comes again, look at the broker's log".into(),
        ),
        QueueState::Circuit { circuit, half_open: false, since: Some(since), instances }
            if patient.now.since(*since) >= OPEN =>
        {
            report.warning(
                Code::CircuitOpen,
                queue.as_str(),
                format!(
                    "circuit {circuit} has been open for {} in {}",
                    text::duration(patient.now.since(*since)),
                    text::count(*instances, "instance")
                ),
                "mend what it depends on; `ponos circuit reset` lets a job through at once".into(),
            );
        }
        _ => {}
    }
}

fn unworked(patient: &Patient<'_>, row: &QueueRow, report: &mut Report) {
    let stats = &row.stats;
    let age = stats.oldest.map(|oldest| patient.now.since(oldest));
    let waiting = stats.ready + stats.delayed.unwrap_or(0);
    let oldest = age.map(|age| format!(", the oldest for {}", text::duration(age))).unwrap_or_default();
    let wait = if waiting == 1 { "waits" } else { "wait" };
    let message = format!("nobody works it, and {} {wait}{oldest}", text::count(waiting, "job"));
    let help = format!("start a service of `{}`", stats.queue.app());
    // Somebody may be about to start.
    if age.is_none_or(|age| age >= PATIENCE) {
        report.error(Code::QueueUnworked, stats.queue.as_str(), message, help);
    } else {
        report.warning(Code::QueueUnworked, stats.queue.as_str(), message, help);
    }
}

/// Whether its jobs may be dropped: nobody is alarmed for it.
fn is_prototype(patient: &Patient<'_>, queue: &QueueName) -> bool {
    patient
        .past
        .iter()
        .flat_map(|past| &past.manifests)
        .any(|known| known.manifest.reactions.iter().any(|it| it.prototype && it.queue == queue.as_str()))
}

fn orders(patient: &Patient<'_>, report: &mut Report) {
    for order in &patient.look.orders {
        let end = match order.action {
            OrderAction::Pause => "ponos resume",
            OrderAction::Rate(_) => "ponos rate reset",
            _ => "ponos circuit resume",
        };
        let target = match &order.target {
            OrderTarget::Dependency(it) => format!("{} --app {}", it.name, it.app),
            other => other.to_string(),
        };
        report.warning(
            Code::OrderStands,
            order.target.to_string(),
            format!("{} {}", what(order), when_and_why(order)),
            format!("end it with `{end} {target}` when its reason is gone"),
        );
        let app = order.target.app();
        let ignores = patient
            .past
            .iter()
            .flat_map(|past| past.current(patient.now))
            .any(|known| known.origin.app == app && known.manifest.orders == OrdersManifest::Ignored);
        if ignores {
            report.error(
                Code::OrdersIgnored,
                order.target.to_string(),
                format!("an order stands for it, and `{app}` follows none"),
                "take `ignore_orders` or `PONOS_ORDERS=off` away, or end the order".into(),
            );
        }
    }
}

/// Failed jobs, and how many have come lately.
///
/// # Errors
///
/// When the files cannot be read.
pub(super) fn failed(patient: &Patient<'_>, report: &mut Report) -> Result<(), ReadModelError> {
    let lately = match &patient.past {
        Some(past) => past.view.model.queues(ago(HOUR))?,
        None => Vec::new(),
    };
    let mut none = true;
    for row in &patient.look.queues {
        let app = row.stats.queue.app();
        if row.stats.queue != QueueName::failed(&app) || row.stats.messages() == 0 {
            continue;
        }
        none = false;
        let oldest = row.stats.oldest.map(|oldest| patient.now.since(oldest));
        let oldest = oldest.map(|age| format!(", the oldest {} ago", text::duration(age)));
        let mut message =
            format!("{} failed{}", text::count(row.stats.messages(), "job"), oldest.unwrap_or_default());
        let growing: Vec<String> = lately
            .iter()
            .filter(|(queue, counts)| queue.split('.').next() == Some(app.as_str()) && counts.failed > 0)
            .map(|(queue, counts)| format!("{} in {}", counts.failed, text::line(queue, 128)))
            .collect();
        if !growing.is_empty() {
            message.push_str(&format!("; within two hours {}", growing.join(", ")));
        }
        report.warning(
            Code::JobsFailed,
            app.as_str(),
            message,
            format!("look at them with `ponos failed list --app {app}`, then retry or discard them"),
        );
    }
    if none {
        report.fine("failed jobs: none".into());
    }
    Ok(())
}

/// Queues whose application has not been seen for long.
pub(super) fn owners(patient: &Patient<'_>, past: &Past<'_>, report: &mut Report) {
    let earliest = past.instances.iter().map(|it| it.first_at).min();
    for row in patient.look.queues.iter().filter(|row| is_worked(&row.stats.queue)) {
        let app = row.stats.queue.app();
        let seen = past.instances.iter().filter(|it| it.origin.app == app && it.beat.is_some());
        let age = match seen.map(|it| it.last_at).max() {
            Some(last) => patient.now.since(last),
            // It may have run before the first record.
            None => earliest.map_or(Duration::ZERO, |first| patient.now.since(first)),
        };
        if age > GONE && row.stats.consumers == 0 {
            report.warning(
                Code::OwnerGone,
                row.stats.queue.as_str(),
                format!("its application was not seen for {}", text::duration(age)),
                format!("start `{app}`, or take its queues away: `ponos topology prune` on RabbitMQ"),
            );
        }
    }
}
