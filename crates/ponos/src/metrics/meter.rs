//! What is counted: each thing that an instance says, once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ponos_core::envelope::{Envelope, ErrorClass, GaveUpReason, Phase};
use ponos_core::id::{Tid, Timestamp};
use ponos_core::journal::{
    AttemptEnd, AttemptRecord, CircuitPhase, Notice, PublishedRecord, UnpublishedRecord, What,
};
use ponos_core::name::QueueName;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::registry::Registry;

use super::names;
use super::series::{Counters, Example, Histograms, OTHER, Places, Value};
use crate::lifecycle::NotTaken;

/// The buckets of OpenTelemetry's semantic conventions 1.44 for messaging, and longer ones, for jobs.
const DURATIONS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 300.0, 900.0,
];
/// From a queue that is empty to one that nobody has worked for two hours.
const WAITS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0];

/// What a queue's series are called.
#[derive(Debug, Clone)]
pub(crate) struct QueueNames {
    /// The queue.
    pub(crate) queue: Arc<str>,
    /// The event that it hears, or its task.
    pub(crate) name: Arc<str>,
}

/// Where the messages are.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    system: Value,
    address: Value,
    port: Value,
}

impl Origin {
    /// Reads a broker's name, which holds no credentials: `memory`, `sqlite:ponos.db`, `amqp://host:5672/`. The address
    /// is told where there is one and not a cluster.
    pub(crate) fn of(broker: &str) -> Self {
        let (kind, rest) = broker.split_once(':').unwrap_or((broker, ""));
        let nowhere =
            |system: &str| Self { system: Value::Name(system.into()), address: "".into(), port: "".into() };
        if !matches!(kind, "amqp" | "amqps") {
            return nowhere(kind);
        }
        let authority = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if !authority.contains([',', '@']) => Self {
                system: "rabbitmq".into(),
                address: Value::Name(host.trim_matches(['[', ']']).into()),
                port: Value::Name(port.into()),
            },
            _ => nowhere("rabbitmq"),
        }
    }
}

/// The counters and histograms of one service.
#[derive(Debug)]
pub(crate) struct Meter {
    registry: Registry,
    origin: Origin,
    queues: BTreeMap<QueueName, QueueNames>,
    /// What each circuit was last.
    circuits: Mutex<BTreeMap<Arc<str>, CircuitPhase>>,
    operation_duration: Histograms,
    process_duration: Histograms,
    sent: Counters,
    consumed: Counters,
    outcomes: Counters,
    retries: Counters,
    attempts: Histograms,
    queue_wait: Histograms,
    critical_time: Histograms,
    recoveries: Counters,
    circuit_transitions: Counters,
    rate_limited: Counters,
    rate_limit_wait: Histograms,
    unrouted: Counters,
    confirm_failures: Counters,
}

impl Meter {
    /// Counts for `app`, in at most so many series.
    pub(crate) fn new(
        app: &str,
        origin: Origin,
        queues: BTreeMap<QueueName, QueueNames>,
        max_series: usize,
    ) -> Self {
        let mut all = Registry::with_labels([("app".into(), app.to_owned().into())].into_iter());
        let places = Places::new(max_series);
        let durations = || HistogramWithExemplars::new(DURATIONS.iter().copied());
        let waits = || HistogramWithExemplars::new(WAITS.iter().copied());
        let attempts = || HistogramWithExemplars::new(ATTEMPTS.iter().copied());
        // From what must not be missing to what may, for those that come late find no place.
        Self {
            outcomes: Counters::register(&mut all, names::OUTCOMES, &places),
            retries: Counters::register(&mut all, names::RETRIES, &places),
            recoveries: Counters::register(&mut all, names::RECOVERIES, &places),
            unrouted: Counters::register(&mut all, names::UNROUTED, &places),
            confirm_failures: Counters::register(&mut all, names::CONFIRM_FAILURES, &places),
            circuit_transitions: Counters::register(&mut all, names::CIRCUIT_TRANSITIONS, &places),
            rate_limited: Counters::register(&mut all, names::RATE_LIMITED, &places),
            sent: Counters::register(&mut all, names::SENT, &places),
            consumed: Counters::register(&mut all, names::CONSUMED, &places),
            attempts: Histograms::register(&mut all, names::ATTEMPTS, attempts, ATTEMPTS, &places),
            queue_wait: Histograms::register(&mut all, names::QUEUE_WAIT, waits, WAITS, &places),
            critical_time: Histograms::register(&mut all, names::CRITICAL_TIME, waits, WAITS, &places),
            rate_limit_wait: Histograms::register(&mut all, names::RATE_LIMIT_WAIT, waits, WAITS, &places),
            process_duration: Histograms::register(
                &mut all,
                names::PROCESS_DURATION,
                durations,
                DURATIONS,
                &places,
            ),
            operation_duration: Histograms::register(
                &mut all,
                names::OPERATION_DURATION,
                durations,
                DURATIONS,
                &places,
            ),
            registry: all,
            origin,
            queues,
            circuits: Mutex::default(),
        }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    fn names(&self, queue: &QueueName) -> QueueNames {
        self.queues.get(queue).cloned().unwrap_or_else(|| {
            let other: Arc<str> = OTHER.into();
            QueueNames { queue: Arc::clone(&other), name: other }
        })
    }

    fn messaging(
        &self,
        operation: [&'static str; 2],
        destination: &Arc<str>,
        error: &'static str,
    ) -> [Value; 7] {
        let Origin { system, address, port } = self.origin.clone();
        let [name, kind] = operation;
        [system, name.into(), kind.into(), destination.into(), error.into(), address, port]
    }

    pub(crate) fn published(&self, at: Timestamp, tid: &Tid, what: &PublishedRecord, took: Option<Duration>) {
        let example = Example::of(tid, at);
        let labels = self.messaging(SEND, &what.name, "");
        if let Some(took) = took {
            self.operation_duration.observe(labels.clone(), took.as_secs_f64(), &example);
        }
        self.sent.count(labels, &example);
        if what.queues == 0 {
            self.unrouted.count([(&what.name).into()], &example);
        }
    }

    pub(crate) fn unpublished(&self, at: Timestamp, tid: &Tid, what: &UnpublishedRecord, why: NotTaken) {
        let example = Example::of(tid, at);
        let kind = match why {
            NotTaken::Unknown => "timeout",
            NotTaken::Blocked => "blocked",
            NotTaken::NoQueue => "unrouted",
            NotTaken::Refused => "nack",
        };
        self.sent.count(self.messaging(SEND, &what.name, kind), &example);
        match why {
            NotTaken::NoQueue => self.unrouted.count([(&what.name).into()], &example),
            _ => self.confirm_failures.count([(&what.name).into(), kind.into()], &example),
        }
    }

    pub(crate) fn attempt(
        &self,
        at: Timestamp,
        job: &Envelope,
        what: &AttemptRecord,
        class: Option<ErrorClass>,
        limit: impl FnOnce() -> Option<Arc<str>>,
    ) {
        let example = Example::of(&job.tid, at);
        let QueueNames { queue, name } = self.names(&what.queue);
        let pair = || -> [Value; 2] { [(&name).into(), (&queue).into()] };

        let error = match (&what.end, class) {
            (AttemptEnd::Lost, _) => ErrorClass::Lost.as_str(),
            (_, Some(ErrorClass::Snooze) | None) => "",
            (_, Some(class)) => class.as_str(),
        };
        let labels = self.messaging(PROCESS, &queue, error);
        self.process_duration.observe(labels.clone(), what.took.as_secs_f64(), &example);
        self.consumed.count(labels, &example);
        if let Some(ready) = what.ready {
            self.queue_wait.observe(pair(), what.started.since(ready).as_secs_f64(), &example);
        }
        if let Some(limit) = (!what.held.is_zero()).then(limit).flatten() {
            self.rate_limited.count([(&limit).into()], &example);
            self.rate_limit_wait.observe([(&limit).into()], what.held.as_secs_f64(), &example);
        }
        if let AttemptEnd::Retry { class, .. } = &what.end
            && *class != ErrorClass::Snooze
        {
            let [name, queue] = pair();
            self.retries.count([name, queue, class.as_str().into()], &example);
        }

        if what.phase == Phase::Recover {
            let result = match &what.end {
                AttemptEnd::Done | AttemptEnd::Failed { recovered: true, .. } => "ok",
                AttemptEnd::Retry { .. } => "retry",
                AttemptEnd::Lost => "lost",
                _ => "failed",
            };
            self.recoveries.count([(&name).into(), result.into()], &example);
            return;
        }
        let [name, queue] = pair();
        self.outcomes.count([name, queue, outcome(&what.end, class).into()], &example);
        if !matches!(what.end, AttemptEnd::Retry { .. } | AttemptEnd::Lost) {
            self.attempts.observe(pair(), f64::from(what.attempt), &example);
        }
        if matches!(what.end, AttemptEnd::Done) {
            self.critical_time.observe(pair(), at.since(job.published_at).as_secs_f64(), &example);
        }
    }

    pub(crate) fn happened(&self, at: Timestamp, tid: &Tid, what: &What) {
        let example = Example::of(tid, at);
        let (queue, outcome) = match what {
            What::Duplicate { queue } => (queue, Some("duplicate")),
            What::Suspected { queue, .. } => (queue, None),
            What::ByHand(hand) if &*hand.verb == "discarded" => (&hand.queue, Some("discarded")),
            _ => return,
        };
        let names = self.names(queue);
        if !matches!(what, What::ByHand(_)) {
            self.consumed.count(self.messaging(PROCESS, &names.queue, ""), &example);
        }
        if let Some(outcome) = outcome {
            self.outcomes.count([(&names.name).into(), (&names.queue).into(), outcome.into()], &example);
        }
    }

    pub(crate) fn noticed(&self, notice: &Notice) {
        let Notice::Circuit(change) = notice else { return };
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let before =
            circuits.insert(Arc::clone(&change.circuit), change.phase).unwrap_or(CircuitPhase::Closed);
        drop(circuits);
        let labels = [(&change.circuit).into(), before.as_str().into(), change.phase.as_str().into()];
        self.circuit_transitions.count(labels, &Example::none());
    }
}

const SEND: [&str; 2] = ["publish", "send"];
const PROCESS: [&str; 2] = ["process", "process"];

/// How an attempt of a handler ended, in one word. A recovery that may follow is another story.
fn outcome(end: &AttemptEnd, class: Option<ErrorClass>) -> &'static str {
    match end {
        AttemptEnd::Done => "ok",
        AttemptEnd::Retry { class: ErrorClass::Snooze, .. } => "snoozed",
        AttemptEnd::Retry { .. } => "retry",
        AttemptEnd::GaveUp { reason, .. } | AttemptEnd::Failed { reason, .. } => match reason {
            GaveUpReason::Undecodable => "invalid",
            GaveUpReason::Stopped | GaveUpReason::Poison | GaveUpReason::HopLimit => "fatal",
            GaveUpReason::Exhausted | GaveUpReason::TooOld if class == Some(ErrorClass::Timeout) => "timeout",
            _ => "exhausted",
        },
        _ => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_name_says_which_system_it_is_and_where_unless_it_is_a_cluster() {
        let parts = |name| {
            let Origin { system, address, port } = Origin::of(name);
            format!("{system:?} {address:?} {port:?}").replace("Word", "").replace("Name", "")
        };
        assert_eq!(parts("memory"), r#"("memory") ("") ("")"#);
        assert_eq!(parts("sqlite:C:/a.db"), r#"("sqlite") ("") ("")"#);
        assert_eq!(parts("amqp://rabbit:5672/"), r#"("rabbitmq") ("rabbit") ("5672")"#);
        assert_eq!(parts("amqps://[::1]:5671/shop"), r#"("rabbitmq") ("::1") ("5671")"#);
        assert_eq!(parts("amqp://a:5672,b:5672/"), r#"("rabbitmq") ("") ("")"#);
    }

    #[test]
    fn what_ended_in_timeouts_is_told_apart_from_other_exhaustion() {
        let failed = |reason| AttemptEnd::Failed { reason, recovered: false };
        assert_eq!(outcome(&failed(GaveUpReason::Exhausted), Some(ErrorClass::Timeout)), "timeout");
        assert_eq!(outcome(&failed(GaveUpReason::Exhausted), Some(ErrorClass::Error)), "exhausted");
        assert_eq!(outcome(&failed(GaveUpReason::Undecodable), None), "invalid");
        assert_eq!(outcome(&failed(GaveUpReason::Stopped), Some(ErrorClass::Stop)), "fatal");
    }
}
