//! What is counted, on the brokers that need no server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ponos::Running;
use ponos::core::broker::{Broker as _, Destination, Outgoing};
use ponos::core::envelope::{Envelope, MessageName};
use ponos::core::name::{EventName, QueueName};
use ponos::metrics::{METRICS, MetricKind, Observe};
use ponos::prelude::*;

use super::http::try_get;
use super::stubs::Faulty;
use super::support::*;
use super::{addr, anywhere, metrics, openmetrics, until, until_metric};

const DO: &str = "unit.work.do";
const CHECK: &str = "unit.work.check";

fn react(e: WorkWanted) -> WorkDo {
    WorkDo { n: e.n }
}

async fn work(t: WorkDo, cx: TaskCx<WorkDo>) -> Outcome {
    match t.n {
        1 => cx.emit(WorkDone { n: 1 })?,
        2 if cx.attempt() == 1 => Err("not yet")?,
        3 => Err("hopeless").stop()?,
        4 => Err("again and again")?,
        5 if cx.attempt() == 1 => panic!("odd"),
        6 => cx.sleep(secs(3600)).await,
        7 if cx.state().get("snoozed") == 0 => {
            cx.state().add("snoozed");
            return snooze(millis(1));
        }
        _ => {}
    }
    Ok(())
}

async fn recover(t: WorkDo, _: TaskCx<WorkDo>, _: GaveUp) -> Outcome {
    if t.n == 4 {
        Err("hopeless too").stop()?;
    }
    Ok(())
}

async fn check(_: WorkCheck, _: TaskCx<WorkCheck>) -> Outcome {
    Err("hopeless").stop()
}

fn service() -> Service<Unit> {
    Service::<Unit>::new()
        .version("2.5.0 \"beta\"")
        .on(react)
        .task(work, |p| {
            let quick = Backoff::constant(millis(1)).jitter(0.0);
            p.retry(quick).max_retries(1).timeout(millis(300)).recover(recover).no_breaker()
        })
        .task(check, ponos::TaskPolicy::no_breaker)
        .observe(anywhere().revision("4b2f"))
}

/// Gives one job of each kind and waits for all of them.
async fn works_everything(broker: impl Into<Broker>) -> Running<Unit> {
    let running = service().start(Counter::default(), broker).await.unwrap();
    let publisher = running.publisher();
    for n in 1..=7 {
        publisher.create(WorkDo { n }).await.unwrap();
    }
    publisher.create(WorkCheck { n: 8 }).await.unwrap();
    for (result, count) in [("ok", 2.0), ("failed", 1.0)] {
        until_metric(&running, "ponos_recoveries_total", &[("name", DO), ("result", result)], count).await;
    }
    until_metric(&running, "ponos_outcomes_total", &[("queue", DO), ("outcome", "ok")], 4.0).await;
    until_metric(&running, "ponos_outcomes_total", &[("queue", CHECK), ("outcome", "fatal")], 1.0).await;
    running
}

fn has_counted_everything(running: &Running<Unit>, system: &str) {
    let read = metrics(running);
    let outcome = |outcome| read.find("ponos_outcomes_total", &[("queue", DO), ("outcome", outcome)]);
    // 1, 2, 5 and 7 are done; 3 stops; 4 and 6 are tried twice.
    assert_eq!(outcome("ok"), Some(4.0));
    assert_eq!(outcome("fatal"), Some(1.0));
    assert_eq!(outcome("exhausted"), Some(1.0));
    assert_eq!(outcome("timeout"), Some(1.0));
    assert_eq!(outcome("retry"), Some(4.0));
    assert_eq!(outcome("snoozed"), Some(1.0));
    let retries =
        |class| read.find("ponos_retries_total", &[("name", DO), ("queue", DO), ("error_type", class)]);
    assert_eq!((retries("error"), retries("panic"), retries("timeout")), (Some(2.0), Some(1.0), Some(1.0)));
    assert_eq!(retries("snooze"), None, "a snooze is no failure");

    // Of seven jobs: 1, 3 and 7 had one attempt, the others two.
    assert_eq!(read.get("ponos_attempts_count", &[("queue", DO)]), 7.0);
    assert_eq!(read.get("ponos_attempts_bucket", &[("queue", DO), ("le", "1.0")]), 3.0);
    assert_eq!(read.get("ponos_attempts_sum", &[("queue", DO)]), 11.0);
    assert_eq!(read.get("ponos_critical_time_seconds_count", &[("queue", DO)]), 4.0);
    assert!(read.get("ponos_queue_wait_seconds_count", &[("queue", DO)]) >= 12.0);

    let process = [("messaging_destination_name", DO), ("messaging_operation_name", "process")];
    let with = |error| [process[0], process[1], ("error_type", error), ("messaging_system", system)];
    assert_eq!(read.get("messaging_client_consumed_messages_total", &with("timeout")), 2.0);
    assert_eq!(read.get("messaging_process_duration_seconds_count", &with("timeout")), 2.0);
    let slow = read.get("messaging_process_duration_seconds_sum", &with("timeout"));
    assert!((0.6..10.0).contains(&slow), "two attempts of 0.3 s: {slow}");

    let sent = [("messaging_destination_name", "work.done"), ("messaging_operation_name", "publish")];
    assert_eq!(read.get("messaging_client_sent_messages_total", &sent), 1.0);
    assert_eq!(read.get("messaging_client_operation_duration_seconds_count", &sent), 1.0);
    assert_eq!(read.get("ponos_unrouted_total", &[("name", "work.done")]), 1.0, "nobody listens");
    assert_eq!(read.get("ponos_build_info", &[("version", "2.5.0 \"beta\""), ("revision", "4b2f")]), 1.0);
    assert!(read.get("ponos_lifecycle_records_total", &[("result", "sent")]) >= 20.0);
    assert_eq!(read.get("ponos_lifecycle_records_total", &[("result", "dropped")]), 0.0);
    for queue in [DO, CHECK, "unit.work.wanted"] {
        assert_eq!(read.get("ponos_consumer_up", &[("queue", queue)]), 1.0);
        assert_eq!(read.get("ponos_in_flight", &[("queue", queue)]), 0.0);
        assert!(read.get("ponos_prefetch", &[("queue", queue)]) > 0.0);
    }
    assert!(read.get("ponos_consumer_last_delivery_timestamp_seconds", &[("queue", DO)]) > 1.7e9);
    is_as_listed(&read, "unit");
}

/// Every family is one of the list, of its kind, with exactly its labels.
fn is_as_listed(read: &openmetrics::Exposition, app: &str) {
    for sample in &read.samples {
        let stem =
            if sample.kind == "counter" { format!("{}_total", sample.family) } else { sample.family.clone() };
        let metric = METRICS.iter().find(|metric| metric.name == stem);
        let metric = metric.unwrap_or_else(|| panic!("{stem} is not in the list"));
        assert_eq!(sample.kind, metric.kind.as_str(), "{stem}");
        let mut labels = sample.labels.clone();
        assert_eq!(labels.remove("app").as_deref(), Some(app), "{stem}");
        if metric.kind == MetricKind::Histogram {
            labels.remove("le");
        }
        let mut listed = metric.labels.to_vec();
        listed.sort_unstable();
        assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), listed, "{stem}");
        let unit = read.units.get(&sample.family).map(String::as_str);
        assert_eq!(unit, stem.ends_with("_seconds").then_some("seconds"), "{stem}");
    }
}

#[tokio::test]
async fn what_happens_in_memory_is_counted() {
    let running = works_everything(Arc::new(ponos::MemoryBroker::new())).await;
    has_counted_everything(&running, "memory");
    running.shutdown().await;
}

#[tokio::test]
async fn what_happens_on_sqlite_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let running = works_everything(Broker::sqlite(dir.path().join("hunter2.db"))).await;
    has_counted_everything(&running, "sqlite");
    assert!(!running.metrics_text().unwrap().contains("hunter2"), "a path is no label");
    running.shutdown().await;
}

#[tokio::test]
async fn exemplars_name_the_transaction_and_labels_never_do() {
    let running = works_everything(Arc::new(ponos::MemoryBroker::new())).await;
    let receipt = running.publisher().create(WorkCheck { n: 9 }).await.unwrap();
    until_metric(&running, "ponos_outcomes_total", &[("queue", CHECK), ("outcome", "fatal")], 2.0).await;
    let read = metrics(&running);
    let trace = receipt.tid.trace_id().unwrap();
    let of = |name: &str| {
        let mut samples = read.samples.iter().filter(|sample| sample.name == name);
        samples.find(|sample| sample.exemplar.as_ref().is_some_and(|(labels, _)| labels["trace_id"] == trace))
    };
    for name in [
        "ponos_outcomes_total",
        "ponos_queue_wait_seconds_bucket",
        "messaging_process_duration_seconds_bucket",
    ] {
        assert!(of(name).is_some_and(|sample| sample.labels.values().any(|value| value == CHECK)), "{name}");
    }
    let labels = read.samples.iter().flat_map(|sample| sample.labels.values());
    assert!(labels.clone().count() > 100);
    assert!(labels.clone().all(|value| !value.contains(&trace) && *value != receipt.tid.to_string()));
    running.shutdown().await;
}

#[tokio::test]
async fn a_reactions_series_have_the_name_of_its_event() {
    let broker = Arc::new(ponos::MemoryBroker::new());
    let running = service().start(Counter::default(), Arc::clone(&broker)).await.unwrap();
    let name = EventName::parse("work.wanted").unwrap();
    let envelope = Envelope { name: MessageName::Event(name.clone()), ..raw(DO, b"{\"n\":0}") };
    assert!(
        broker.publish(vec![Outgoing { to: Destination::Event(name), envelope }]).await[0].is_confirmed()
    );
    let labels = [("name", "work.wanted"), ("queue", "unit.work.wanted"), ("outcome", "ok")];
    until_metric(&running, "ponos_outcomes_total", &labels, 1.0).await;
    until_metric(&running, "ponos_outcomes_total", &[("name", DO), ("outcome", "ok")], 1.0).await;
    let exemplars = metrics(&running).samples.into_iter().filter(|sample| sample.exemplar.is_some()).count();
    assert_eq!(exemplars, 0, "a transaction id that a peer chose is shown nowhere");
    running.shutdown().await;
}

#[tokio::test]
async fn duplicates_undecodable_jobs_and_refused_messages_are_counted() {
    let broker = Faulty::new();
    let running = service().start(Counter::default(), Arc::clone(&broker)).await.unwrap();
    let queue = QueueName::parse(CHECK).unwrap();
    let publish = async |id: u8, body| {
        let mut envelope = raw(CHECK, body);
        envelope.id = ponos::MessageId::from_bytes([id; 16]);
        let message = Outgoing { to: Destination::Queue(queue.clone()), envelope };
        assert!(broker.publish(vec![message]).await[0].is_confirmed());
    };
    publish(1, b"{\"n\":\"no number\"}").await;
    let outcome = async |outcome, count| {
        let labels = [("name", CHECK), ("queue", CHECK), ("outcome", outcome)];
        until_metric(&running, "ponos_outcomes_total", &labels, count).await;
    };
    outcome("invalid", 1.0).await;

    let mut envelope = raw(DO, b"{\"n\":1}");
    envelope.id = ponos::MessageId::from_bytes([2; 16]);
    let to = Destination::Queue(QueueName::parse(DO).unwrap());
    for outcome in ["ok", "duplicate"] {
        let message = Outgoing { to: to.clone(), envelope: envelope.clone() };
        assert!(broker.publish(vec![message]).await[0].is_confirmed());
        until_metric(&running, "ponos_outcomes_total", &[("queue", DO), ("outcome", outcome)], 1.0).await;
    }

    broker.faults.refusing.store(true, Ordering::Relaxed);
    running.publisher().create(WorkCheck { n: 1 }).await.unwrap_err();
    let read = metrics(&running);
    assert_eq!(read.get("ponos_publish_confirm_failures_total", &[("name", CHECK), ("kind", "nack")]), 1.0);
    let sent = [("messaging_destination_name", CHECK), ("error_type", "nack")];
    assert_eq!(read.get("messaging_client_sent_messages_total", &sent), 1.0);
    assert_eq!(read.get("ponos_connection_up", &[("role", "publish")]), 1.0);
    assert_eq!(read.get("ponos_reconnects_total", &[("role", "publish")]), 3.0);
    assert_eq!(read.get("ponos_connection_blocked", &[("role", "publish")]), 1.0);
    assert_eq!(read.get("ponos_connection_blocked", &[("role", "consume")]), 0.0);
    let place = [("messaging_system", "rabbitmq"), ("server_address", "rabbit"), ("server_port", "5672")];
    let labels = [&place[..], &sent].concat();
    assert_eq!(read.get("messaging_client_sent_messages_total", &labels), 1.0);
    assert_eq!(read.find("ponos_lifecycle_records_total", &[]), None, "this broker keeps no journal");
    is_as_listed(&read, "unit");
    running.shutdown().await;
}

#[tokio::test]
async fn circuits_limits_and_pauses_are_told() {
    let breaker = BreakerConfig::default().consecutive(1).open_initial(secs(600)).open_max(secs(600));
    let service = Service::<Unit>::new()
        .task(work, |p| p.depends_on("smtp").max_retries(0).rate_limit(20.per_second().burst(1)))
        .task(check, ponos::TaskPolicy::no_breaker)
        .dependency("smtp", |d| d.breaker(breaker))
        .observe(anywhere());
    let running = service.start(Counter::default(), Arc::new(ponos::MemoryBroker::new())).await.unwrap();
    assert_eq!(
        metrics(&running).get("ponos_circuit_state", &[("circuit", "smtp"), ("state", "closed")]),
        1.0
    );
    for _ in 0..3 {
        running.publisher().create(WorkDo { n: 0 }).await.unwrap();
    }
    until_metric(&running, "ponos_outcomes_total", &[("queue", DO), ("outcome", "ok")], 3.0).await;
    let read = metrics(&running);
    let limited = read.get("ponos_rate_limited_total", &[("limit", "smtp")]);
    assert!((1.0..=3.0).contains(&limited), "the burst is one: {limited}");
    assert_eq!(read.get("ponos_rate_limit_wait_seconds_count", &[("limit", "smtp")]), limited);

    running.publisher().create(WorkDo { n: 4 }).await.unwrap();
    until_metric(&running, "ponos_circuit_state", &[("circuit", "smtp"), ("state", "open")], 1.0).await;
    until_metric(&running, "ponos_paused", &[("queue", DO), ("reason_kind", "circuit")], 1.0).await;
    let read = metrics(&running);
    assert_eq!(read.get("ponos_circuit_state", &[("circuit", "smtp"), ("state", "closed")]), 0.0);
    let change = [("circuit", "smtp"), ("from", "closed"), ("to", "open")];
    assert_eq!(read.get("ponos_circuit_transitions_total", &change), 1.0);
    assert_eq!(read.get("ponos_paused", &[("queue", DO), ("reason_kind", "order")]), 0.0);
    assert_eq!(read.get("ponos_paused", &[("queue", CHECK), ("reason_kind", "circuit")]), 0.0);

    running.pause(&QueueName::parse(CHECK).unwrap(), "to see").await.unwrap();
    until_metric(&running, "ponos_paused", &[("queue", CHECK), ("reason_kind", "order")], 1.0).await;
    running.resume(&QueueName::parse(CHECK).unwrap(), "seen").await.unwrap();
    until_metric(&running, "ponos_paused", &[("queue", CHECK), ("reason_kind", "order")], 0.0).await;
    is_as_listed(&metrics(&running), "unit");
    running.shutdown().await;
}

#[tokio::test]
async fn a_process_has_no_more_series_than_it_may_and_the_rest_are_counted_together() {
    let observe = Observe::without_listener().max_series(60);
    let running = service().observe(observe).start(Counter::default(), Arc::new(ponos::MemoryBroker::new()));
    let running = running.await.unwrap();
    for n in [1, 1, 1] {
        running.publisher().create(WorkDo { n }).await.unwrap();
    }
    let ok = |name| [("name", name), ("outcome", "ok")];
    let all = async || {
        let read = metrics(&running);
        let of = |name| read.find("ponos_outcomes_total", &ok(name)).unwrap_or(0.0);
        (of(DO) + of("_other") == 3.0).then_some(read)
    };
    let read = until("three jobs are counted somewhere", all).await;
    let named = read.samples.iter().filter(|sample| !sample.labels.values().any(|value| value == "_other"));
    assert!(named.count() <= 60);
    let other = read.samples.iter().find(|sample| sample.labels.values().any(|value| value == "_other"));
    assert!(other.is_some(), "sixty are not enough for all");
    is_as_listed(&read, "unit");
    running.shutdown().await;
}

#[tokio::test]
async fn prometheus_gets_openmetrics_and_everybody_else_the_older_form() {
    let running = works_everything(Arc::new(ponos::MemoryBroker::new())).await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let open = try_get(addr(&running), "/metrics", accept).await.unwrap();
    assert_eq!(open.status, 200);
    assert_eq!(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let read = openmetrics::read(&open.body);
    assert!(read.samples.iter().any(|sample| sample.exemplar.is_some()));

    let plain = try_get(addr(&running), "/metrics", "text/plain").await.unwrap();
    assert_eq!(plain.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        !plain.body.contains("trace_id") && !plain.body.contains("# UNIT") && !plain.body.contains("# EOF")
    );
    assert!(plain.body.contains("# TYPE ponos_outcomes_total counter\n"), "{}", plain.body);
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(lines(&plain.body), read.samples.len(), "nothing else is missing");
    promtool_agrees(&plain.body);
    running.shutdown().await;
}

/// Asks the reference implementation, where there is one.
fn promtool_agrees(text: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    let asked = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut promtool) = asked else {
        println!("promtool is not here: only the parser of this test has read the answer");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success(), "{text}");
}

#[tokio::test]
async fn a_service_that_is_not_observed_shows_nothing() {
    async fn nothing(_: WorkCheck, _: TaskCx<WorkCheck>) -> Outcome {
        Ok(())
    }
    let service = Service::<Unit>::new().task(nothing, |p| p);
    let running = service.start(Counter::default(), Arc::new(ponos::MemoryBroker::new())).await.unwrap();
    assert_eq!((running.metrics_addr(), running.metrics_text()), (None, None));
    assert!(running.health().is_none());
    running.shutdown().await;
}
