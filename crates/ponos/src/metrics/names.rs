//! The names: what a service exports, and what only a collector can.

use self::MetricKind::{Counter, Gauge, Histogram};

/// A metric as Prometheus knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with unit and `_total`; a histogram's series end in `_bucket`, `_sum` and `_count` besides.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// Its labels, beside `app`, which every metric has.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How values are distributed.
    Histogram,
}

impl MetricKind {
    /// `counter`, `gauge` or `histogram`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// The name without what its kind adds, and without its unit.
    pub(super) fn stem(&self) -> &'static str {
        let name = self.family();
        name.strip_suffix("_seconds").unwrap_or(name)
    }

    /// The name without what its kind adds.
    pub(super) fn family(&self) -> &'static str {
        match self.kind {
            Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        }
    }

    /// Whether it counts in seconds.
    pub(super) fn is_in_seconds(&self) -> bool {
        self.stem() != self.family()
    }
}

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

const MESSAGING: &[&str] = &[
    "messaging_system",
    "messaging_operation_name",
    "messaging_operation_type",
    "messaging_destination_name",
    "error_type",
    "server_address",
    "server_port",
];

pub(super) const OPERATION_DURATION: Metric = metric(
    "messaging_client_operation_duration_seconds",
    Histogram,
    MESSAGING,
    "How long the broker took to confirm a message",
);
pub(super) const PROCESS_DURATION: Metric =
    metric("messaging_process_duration_seconds", Histogram, MESSAGING, "How long an attempt at a job ran");
pub(super) const SENT: Metric = metric(
    "messaging_client_sent_messages_total",
    Counter,
    MESSAGING,
    "Messages that were published, or not",
);
pub(super) const CONSUMED: Metric = metric(
    "messaging_client_consumed_messages_total",
    Counter,
    MESSAGING,
    "Deliveries that were worked or recognised",
);
pub(super) const OUTCOMES: Metric = metric(
    "ponos_outcomes_total",
    Counter,
    &["name", "queue", "outcome"],
    "How attempts at jobs ended, recoveries apart",
);
pub(super) const RETRIES: Metric = metric(
    "ponos_retries_total",
    Counter,
    &["name", "queue", "error_type"],
    "Attempts that failed and are made again",
);
pub(super) const ATTEMPTS: Metric = metric(
    "ponos_attempts",
    Histogram,
    &["name", "queue"],
    "How many attempts a job had when it was done or given up",
);
pub(super) const QUEUE_WAIT: Metric = metric(
    "ponos_queue_wait_seconds",
    Histogram,
    &["name", "queue"],
    "How long a job waited from when it could have started until it did",
);
pub(super) const CRITICAL_TIME: Metric = metric(
    "ponos_critical_time_seconds",
    Histogram,
    &["name", "queue"],
    "How long it took from publishing a message until its job was done",
);
pub(super) const RECOVERIES: Metric =
    metric("ponos_recoveries_total", Counter, &["name", "result"], "How runs of recovery functions ended");
pub(super) const IN_FLIGHT: Metric = metric("ponos_in_flight", Gauge, &["queue"], "Jobs that run");
pub(super) const PREFETCH: Metric =
    metric("ponos_prefetch", Gauge, &["queue"], "Jobs that the process may hold");
pub(super) const CONSUMER_UP: Metric =
    metric("ponos_consumer_up", Gauge, &["queue"], "Whether the queue is subscribed to");
pub(super) const CONSUMER_STALLED: Metric = metric(
    "ponos_consumer_stalled",
    Gauge,
    &["queue"],
    "Whether nothing is delivered although there is something and there is room for it",
);
pub(super) const LAST_DELIVERY: Metric = metric(
    "ponos_consumer_last_delivery_timestamp_seconds",
    Gauge,
    &["queue"],
    "When something was delivered last; absent before the first delivery",
);
pub(super) const CONNECTION_UP: Metric =
    metric("ponos_connection_up", Gauge, &["role"], "Whether a connection to the broker is there");
pub(super) const RECONNECTS: Metric =
    metric("ponos_reconnects_total", Counter, &["role"], "How often a lost connection was there again");
pub(super) const CONNECTION_BLOCKED: Metric = metric(
    "ponos_connection_blocked",
    Gauge,
    &["role"],
    "Whether the broker takes nothing from a connection, for an alarm of its own",
);
pub(super) const CIRCUIT_STATE: Metric =
    metric("ponos_circuit_state", Gauge, &["circuit", "state"], "1 for the state that a circuit is in");
pub(super) const CIRCUIT_TRANSITIONS: Metric = metric(
    "ponos_circuit_transitions_total",
    Counter,
    &["circuit", "from", "to"],
    "How often a circuit changed",
);
pub(super) const RATE_LIMITED: Metric = metric(
    "ponos_rate_limited_total",
    Counter,
    &["limit"],
    "Jobs that waited in this process for their limit",
);
pub(super) const RATE_LIMIT_WAIT: Metric = metric(
    "ponos_rate_limit_wait_seconds",
    Histogram,
    &["limit"],
    "How long they waited, their turn behind a circuit included",
);
pub(super) const PAUSED: Metric = metric(
    "ponos_paused",
    Gauge,
    &["queue", "reason_kind"],
    "Whether nothing is taken from a queue: for an order, a circuit or a rate limit",
);
pub(super) const UNROUTED: Metric =
    metric("ponos_unrouted_total", Counter, &["name"], "Messages that went to no queue");
pub(super) const CONFIRM_FAILURES: Metric = metric(
    "ponos_publish_confirm_failures_total",
    Counter,
    &["name", "kind"],
    "Messages that the broker did not confirm within the time that is tried",
);
pub(super) const LIFECYCLE_RECORDS: Metric = metric(
    "ponos_lifecycle_records_total",
    Counter,
    &["result"],
    "Entries of the journal: those of this instance that were sent, and those that the process dropped",
);
pub(super) const BUILD_INFO: Metric =
    metric("ponos_build_info", Gauge, &["version", "revision"], "Which service this is; always 1");

/// Every metric that a service exports.
pub const METRICS: &[Metric] = &[
    OPERATION_DURATION,
    PROCESS_DURATION,
    SENT,
    CONSUMED,
    OUTCOMES,
    RETRIES,
    ATTEMPTS,
    QUEUE_WAIT,
    CRITICAL_TIME,
    RECOVERIES,
    IN_FLIGHT,
    PREFETCH,
    CONSUMER_UP,
    CONSUMER_STALLED,
    LAST_DELIVERY,
    CONNECTION_UP,
    RECONNECTS,
    CONNECTION_BLOCKED,
    CIRCUIT_STATE,
    CIRCUIT_TRANSITIONS,
    RATE_LIMITED,
    RATE_LIMIT_WAIT,
    PAUSED,
    UNROUTED,
    CONFIRM_FAILURES,
    LIFECYCLE_RECORDS,
    BUILD_INFO,
];

/// What only a collector can export, because it sees all instances: a service has none of these.
pub const COLLECTOR_METRICS: &[Metric] = &[
    metric("ponos_failed_open", Gauge, &["name"], "Failed jobs that nobody has dealt with"),
    metric("ponos_failed_oldest_age_seconds", Gauge, &["name"], "How old the oldest of them is"),
    metric("ponos_collector_lag_seconds", Gauge, &[], "How far the collector is behind"),
    metric("ponos_collector_db_bytes", Gauge, &[], "How large its database is"),
    metric("ponos_collector_records_total", Counter, &[], "Records that it has read"),
    metric(
        "ponos_collector_oldest_record_timestamp_seconds",
        Gauge,
        &[],
        "When its oldest record was written",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_their_kind_asks_and_none_is_there_twice() {
        let all: Vec<_> = METRICS.iter().chain(COLLECTOR_METRICS).collect();
        for metric in &all {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Counter, "{}", metric.name);
            assert!(!metric.labels.contains(&"app") && !metric.labels.contains(&"tid"), "{}", metric.name);
            assert!(!metric.help.ends_with('.'), "the encoder adds one: {}", metric.name);
        }
        let mut names: Vec<_> = all.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
