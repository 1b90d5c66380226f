//! One queue as `queues`, `top` and the API show it.

use std::time::Duration;

use ponos::core::broker::{Order, QueueStats};
use ponos::core::id::Timestamp;
use ponos::core::name::QueueName;
use serde::Serialize;

use crate::steer::what;
use crate::text;

/// How much of a text of others stands in one line, in bytes.
const SHOWN: usize = 200;

/// A queue: what the broker says of it, and what its records and its instances do. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QueueRow {
    #[serde(flatten)]
    pub(crate) stats: QueueStats,
    pub(crate) oldest_age_ms: Option<u64>,
    pub(crate) paused: Option<Paused>,
    /// Jobs that came in each second, over the last minute.
    pub(crate) in_per_s: Option<f64>,
    /// Jobs that ended each second, over the last minute.
    pub(crate) out_per_s: Option<f64>,
    /// What 95 of 100 attempts took at most, since the beginning of the hour before.
    pub(crate) p95_ms: Option<f64>,
    /// Which share of those attempts was tried again.
    pub(crate) retry_share: Option<f64>,
    /// Which share of the jobs that ended failed.
    pub(crate) fail_share: Option<f64>,
    /// Jobs that run, in all instances.
    pub(crate) in_flight: Option<u64>,
    /// Jobs that the instances may hold together.
    pub(crate) prefetch: Option<u64>,
    /// Why it does not simply flow.
    pub(crate) states: Vec<QueueState>,
}

/// A pause that stands. What it says is in `states` too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Paused {
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
}

/// Why a queue does not simply flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum QueueState {
    /// By order: `paused`, `limited to 5/s`, `circuit held open`.
    Ordered { what: String, by: String, reason: String, at: Timestamp, until: Option<Timestamp> },
    /// A circuit that it listens through is not closed.
    Circuit { circuit: String, half_open: bool, since: Option<Timestamp>, instances: u64 },
    /// Its rate limit's next token is so far away.
    Resting { until: Timestamp },
    /// Jobs wait, and nobody works it.
    Unworked,
    /// An instance could take jobs, jobs are ready, and none was delivered for so long.
    Stalled { host: String, for_ms: u64 },
}

impl QueueState {
    pub(crate) fn of_order(order: &Order) -> Self {
        Self::Ordered {
            what: what(order),
            by: order.by.clone(),
            reason: order.reason.clone(),
            at: order.at,
            until: order.until,
        }
    }

    /// In a few words, safe for a terminal.
    pub(crate) fn text(&self, now: Timestamp) -> String {
        match self {
            Self::Ordered { what, by, reason, .. } => {
                format!("{what} by {}: {}", text::line(by, 64), text::line(reason, SHOWN))
            }
            Self::Circuit { circuit, half_open, since, .. } => {
                let phase = if *half_open { "half open" } else { "open" };
                let since = since.map(|since| format!(" {}", text::duration(now.since(since))));
                format!("circuit {} {phase}{}", text::line(circuit, 64), since.unwrap_or_default())
            }
            Self::Resting { until } => {
                format!("rests {} for its rate", text::duration(until.since(now)))
            }
            Self::Unworked => "nobody works it".to_owned(),
            Self::Stalled { host, for_ms } => {
                let time = text::duration(Duration::from_millis(*for_ms));
                format!("stalled {time} at {}", text::line(host, 64))
            }
        }
    }
}

impl QueueRow {
    pub(crate) fn new(stats: QueueStats, now: Timestamp) -> Self {
        Self {
            oldest_age_ms: stats.oldest.map(|oldest| millis(now.since(oldest))),
            paused: None,
            in_per_s: None,
            out_per_s: None,
            p95_ms: None,
            retry_share: None,
            fail_share: None,
            in_flight: None,
            prefetch: None,
            states: Vec::new(),
            stats,
        }
    }

    /// All states in one text.
    pub(crate) fn state(&self, now: Timestamp) -> String {
        let states: Vec<String> = self.states.iter().map(|state| state.text(now)).collect();
        states.join("; ")
    }

    /// The figures as columns, under [`COLUMNS`].
    pub(crate) fn columns(&self) -> [String; COLUMNS.len()] {
        let number = |n: Option<u64>| n.map_or_else(nothing, |n| n.to_string());
        let stats = &self.stats;
        let flight = match (self.in_flight, self.prefetch) {
            (Some(flight), Some(prefetch)) => format!("{flight}/{prefetch}"),
            _ => nothing(),
        };
        [
            stats.ready.to_string(),
            number(stats.delayed),
            number(stats.unsettled),
            stats.consumers.to_string(),
            self.oldest_age_ms.map_or_else(nothing, |ms| text::duration(Duration::from_millis(ms))),
            self.in_per_s.map_or_else(nothing, rate),
            self.out_per_s.map_or_else(nothing, rate),
            self.p95_ms.map_or_else(nothing, |ms| text::precise(Duration::from_secs_f64(ms / 1000.0))),
            self.retry_share.map_or_else(nothing, share),
            self.fail_share.map_or_else(nothing, share),
            flight,
        ]
    }
}

/// The figures' names.
pub(crate) const COLUMNS: [&str; 11] = [
    "ready",
    "delayed",
    "unsettled",
    "consumers",
    "oldest",
    "in/s",
    "out/s",
    "p95",
    "retry",
    "fail",
    "flight",
];

/// Queues in which jobs are kept or wait for their time, and that nobody consumes.
pub(crate) fn is_worked(queue: &QueueName) -> bool {
    let app = queue.app();
    !ponos::rabbitmq::topology::is_of_every_app(&app, queue.as_str())
        && !queue.as_str()[app.as_str().len()..].starts_with(".suspect.")
}

/// What is shown where nothing is known.
fn nothing() -> String {
    "–".to_owned()
}

/// `0`, `0.3`, `4.8`, `120`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second == 0.0 {
        "0".to_owned()
    } else if per_second < 0.05 {
        "<0.1".to_owned()
    } else if per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// `0%`, `0.4%`, `62%`.
fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 {
        "0%".to_owned()
    } else if percent < 0.1 {
        "<0.1%".to_owned()
    } else if percent < 10.0 {
        format!("{percent:.1}%")
    } else {
        format!("{percent:.0}%")
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_never_say_nothing_of_something() {
        let rates = [0.0, 0.016, 0.3, 4.84, 9.96, 120.4].map(rate);
        assert_eq!(rates, ["0", "<0.1", "0.3", "4.8", "10.0", "120"]);
        let shares = [0.0, 0.0004, 0.011, 0.62, 1.0].map(share);
        assert_eq!(shares, ["0%", "<0.1%", "1.1%", "62%", "100%"]);
    }

    #[test]
    fn queues_that_nobody_is_to_consume_are_known() {
        let worked = |name: &str| is_worked(&QueueName::parse(name).unwrap());
        assert!(worked("pheidi.email.send") && worked("pheidi.org.payment.processed"));
        assert!(!worked("pheidi.failed") && !worked("pheidi.discarded"));
    }
}
