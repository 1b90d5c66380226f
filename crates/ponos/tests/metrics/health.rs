//! What the probes answer, from the start to the end of a service.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ponos::core::broker::{Broker as _, Order, OrderAction, OrderTarget};
use ponos::core::name::QueueName;
use ponos::metrics::{ConsumerState, HealthStatus, Observe};
use ponos::prelude::*;
use ponos::{Running, StartError};
use tokio::sync::Notify;

use super::http::{get, status, try_get};
use super::stubs::Faulty;
use super::support::{Counter, Unit, WorkCheck, WorkDo};
use super::{addr, anywhere, metrics, until, until_metric};

const DO: &str = "unit.work.do";

async fn work(_: WorkDo, _: TaskCx<WorkDo>) -> Outcome {
    Ok(())
}

async fn fail(_: WorkCheck, _: TaskCx<WorkCheck>) -> Outcome {
    Err("no")?
}

async fn until_ready(running: &Running<Unit>) {
    until("it is ready", async || (status(addr(running), "/readyz").await == 200).then_some(())).await;
}

fn state(running: &Running<Unit>, queue: &str) -> ConsumerState {
    let health = running.health().unwrap();
    health.consumers.into_iter().find(|consumer| consumer.queue.as_str() == queue).unwrap().state
}

#[tokio::test]
async fn a_service_that_starts_is_live_and_not_ready_until_its_queues_are_there() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = Faulty::slow_to_declare(0);
    let service = Service::<Unit>::new().task(work, |p| p).observe(Observe::at(addr.to_string()));
    let starting = tokio::spawn(service.start(Counter::default(), Arc::clone(&broker)));
    until("somebody listens", async || try_get(addr, "/livez", "*/*").await.ok()).await;
    assert_eq!(status(addr, "/livez").await, 200);
    for path in ["/startupz", "/readyz", "/metrics"] {
        let answer = get(addr, path).await;
        assert_eq!((answer.status, answer.body.contains("not connected yet")), (503, true), "{path}");
    }
    assert!(get(addr, "/healthz").await.body.contains(r#""status":"starting""#));
    broker.declares.add_permits(1);
    let running = starting.await.unwrap().unwrap();
    assert_eq!(status(addr, "/startupz").await, 200);
    until_ready(&running).await;
    assert_eq!(status(addr, "/nowhere").await, 404);
    running.shutdown().await;
    try_get(addr, "/livez", "*/*").await.expect_err("the listener ends with the service");
}

#[tokio::test]
async fn a_start_that_fails_ends_its_listener() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::<Unit>::new().task(work, |p| p).observe(Observe::at(addr.to_string()));
    let nowhere = tempfile::tempdir().unwrap().path().join("no/such/directory/a.db");
    let error = service.start(Counter::default(), Broker::sqlite(nowhere)).await.unwrap_err();
    assert!(matches!(error, StartError::Broker { .. }), "{error}");
    until("nobody listens", async || try_get(addr, "/livez", "*/*").await.err()).await;
}

#[tokio::test]
async fn paused_and_cut_off_is_ready_and_drained_is_not() {
    let breaker = BreakerConfig::default().consecutive(1).open_initial(secs(600)).open_max(secs(600));
    let goes_on = Arc::new(Notify::new());
    let slow = {
        let goes_on = Arc::clone(&goes_on);
        move |_: WorkDo, cx: TaskCx<WorkDo>| {
            let goes_on = Arc::clone(&goes_on);
            async move {
                cx.state().add("begun");
                goes_on.notified().await;
                Ok(())
            }
        }
    };
    let service = Service::<Unit>::new()
        .task(slow, |p| p)
        .task(fail, |p| p.max_retries(0).breaker(breaker))
        .observe(anywhere());
    let counter = Counter::default();
    let running = service.start(counter.clone(), Arc::new(ponos::MemoryBroker::new())).await.unwrap();
    let addr = addr(&running);
    until_ready(&running).await;
    assert_eq!(running.health().unwrap().status, HealthStatus::Ok);

    running.publisher().create(WorkCheck { n: 1 }).await.unwrap();
    let resting = async || (state(&running, "unit.work.check") == ConsumerState::Resting).then_some(());
    until("the circuit is open", resting).await;
    running.publisher().create(WorkDo { n: 1 }).await.unwrap();
    until("a job runs", async || (counter.get("begun") == 1).then_some(())).await;
    let queue = QueueName::parse(DO).unwrap();
    running.pause(&queue, "to see").await.unwrap();
    let paused = async || (state(&running, DO) == ConsumerState::Paused).then_some(());
    until("the queue is paused", paused).await;
    assert_eq!(status(addr, "/readyz").await, 200, "paused and cut off is ready");
    let health: serde_json::Value = serde_json::from_str(&get(addr, "/healthz").await.body).unwrap();
    assert_eq!(
        (&health["version"], &health["app"], &health["status"]),
        (&1.into(), &"unit".into(), &"ok".into())
    );
    assert_eq!(health["consumers"][0]["state"], "paused");
    assert_eq!(health["consumers"][0]["in_flight"], 1);
    assert!(
        health["consumers"][0]["oldest_ms"].is_u64() && health["consumers"][0]["last_delivery_ms"].is_u64()
    );
    assert_eq!(health["consumers"][1]["state"], "resting");
    assert_eq!(health["circuits"][1]["circuit"], "unit.work.do");
    assert_eq!(health["circuits"][0]["state"], "open");

    let ending = tokio::spawn(running.shutdown());
    let drains = async || {
        let answer = get(addr, "/readyz").await;
        (answer.status == 503).then_some(answer.body)
    };
    assert_eq!(until("it drains", drains).await, "shutting down\n");
    assert_eq!(status(addr, "/livez").await, 200, "who drains lives");
    assert!(get(addr, "/healthz").await.body.contains(r#""status":"draining""#));
    goes_on.notify_one();
    ending.await.unwrap();
    try_get(addr, "/livez", "*/*").await.expect_err("the listener ends with the service");
}

#[tokio::test]
async fn a_consumer_that_is_up_and_gets_nothing_of_what_is_there_is_stalled() {
    let broker = Faulty::new();
    broker.faults.fall_deaf();
    let service = Service::<Unit>::new()
        .task(work, |p| p)
        .task(fail, |p| p)
        .observe(anywhere().stalled_after(millis(300)));
    let running = service.start(Counter::default(), Arc::clone(&broker)).await.unwrap();
    running.publisher().create(WorkDo { n: 1 }).await.unwrap();
    until_metric(&running, "ponos_consumer_stalled", &[("queue", DO)], 1.0).await;
    let read = metrics(&running);
    assert_eq!(
        read.get("ponos_consumer_up", &[("queue", DO)]),
        1.0,
        "that is why it needs a metric of its own"
    );
    assert_eq!(
        read.get("ponos_consumer_stalled", &[("queue", "unit.work.check")]),
        0.0,
        "an empty queue is quiet"
    );
    assert_eq!(state(&running, DO), ConsumerState::Stalled);
    assert_eq!(running.health().unwrap().status, HealthStatus::Degraded);
    assert_eq!(status(addr(&running), "/readyz").await, 200, "its consumer is registered");

    broker.faults.hear();
    until_metric(&running, "ponos_outcomes_total", &[("queue", DO), ("outcome", "ok")], 1.0).await;
    until_metric(&running, "ponos_consumer_stalled", &[("queue", DO)], 0.0).await;
    running.shutdown().await;
}

#[tokio::test]
async fn a_paused_queue_that_holds_something_is_not_stalled() {
    let service = Service::<Unit>::new().task(work, |p| p).observe(anywhere().stalled_after(millis(200)));
    let broker = Arc::new(ponos::MemoryBroker::new());
    let running = service.start(Counter::default(), broker).await.unwrap();
    running.pause(&QueueName::parse(DO).unwrap(), "to see").await.unwrap();
    until_metric(&running, "ponos_paused", &[("queue", DO), ("reason_kind", "order")], 1.0).await;
    running.publisher().create(WorkDo { n: 1 }).await.unwrap();
    // Several times the time after which it would be.
    let end = std::time::Instant::now() + secs(1);
    let looked = async || {
        assert_eq!(metrics(&running).get("ponos_consumer_stalled", &[("queue", DO)]), 0.0);
        (std::time::Instant::now() > end).then_some(())
    };
    until("a second has passed", looked).await;
    running.shutdown().await;
}

#[tokio::test]
async fn what_rests_by_order_is_ready_and_counted_under_its_limit() {
    let service = Service::<Unit>::new().task(work, |p| p).task(fail, |p| p).observe(anywhere());
    let broker = Arc::new(ponos::MemoryBroker::new());
    let running = service.start(Counter::default(), Arc::clone(&broker)).await.unwrap();
    let order = async |queue: &str, action| {
        let order = Order {
            target: OrderTarget::Queue(QueueName::parse(queue).unwrap()),
            action,
            by: "test".into(),
            reason: "to see".into(),
            at: std::time::SystemTime::now().into(),
            until: None,
        };
        broker.steer(order).await.unwrap();
    };
    order("unit.work.check", OrderAction::CircuitOpen).await;
    let held = [("queue", "unit.work.check"), ("reason_kind", "circuit")];
    until_metric(&running, "ponos_paused", &held, 1.0).await;

    order(DO, OrderAction::Rate(10.per_second().burst(1))).await;
    let limited = async || {
        running.publisher().create(WorkDo { n: 0 }).await.unwrap();
        metrics(&running).find("ponos_rate_limited_total", &[("limit", DO)])
    };
    assert!(until("a job has waited for the limit", limited).await >= 1.0);

    order(DO, OrderAction::Rate(1.per_hour())).await;
    let resting = async || {
        running.publisher().create(WorkDo { n: 0 }).await.unwrap();
        let paused = metrics(&running).get("ponos_paused", &[("queue", DO), ("reason_kind", "rate_limit")]);
        (paused > 0.0).then_some(())
    };
    until("it rests for its limit", resting).await;
    assert_eq!(state(&running, DO), ConsumerState::Resting);
    assert_eq!(state(&running, "unit.work.check"), ConsumerState::Resting);
    assert_eq!(status(addr(&running), "/readyz").await, 200);
    running.shutdown().await;
}

#[tokio::test]
async fn a_consumer_that_is_down_makes_a_service_unready_and_only_where_wanted_not_live() {
    for (limit, live) in [(None, 200), (Some(millis(300)), 503)] {
        let broker = Faulty::new();
        broker.faults.closed.store(true, Ordering::Relaxed);
        let observe = match limit {
            Some(limit) => anywhere().fail_live_after_consumer_down(limit).stalled_after(millis(200)),
            None => anywhere().stalled_after(millis(200)),
        };
        let service = Service::<Unit>::new().task(work, |p| p).observe(observe);
        let running = service.start(Counter::default(), Arc::clone(&broker)).await.unwrap();
        let answer = get(addr(&running), "/readyz").await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "`unit.work.do` is not subscribed to\n"));
        let since = std::time::Instant::now();
        let long = async || (since.elapsed() > millis(800)).then_some(());
        until("it has been down for a while", long).await;
        assert_eq!(status(addr(&running), "/livez").await, live);
        assert_eq!(metrics(&running).get("ponos_consumer_up", &[("queue", DO)]), 0.0);
        broker.faults.closed.store(false, Ordering::Relaxed);
        until_ready(&running).await;
        let lives = async || (status(addr(&running), "/livez").await == 200).then_some(());
        until("it lives again", lives).await;
        running.shutdown().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_away_makes_a_service_unready_and_never_not_live() {
    let broker = Faulty::new();
    let service = Service::<Unit>::new().task(work, |p| p).observe(anywhere());
    let running = service.start(Counter::default(), Arc::clone(&broker)).await.unwrap();
    until_ready(&running).await;
    broker.faults.down.store(true, Ordering::Relaxed);
    let answer = get(addr(&running), "/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "the connection to publish is down\n"));
    assert_eq!(status(addr(&running), "/livez").await, 200);
    assert_eq!(metrics(&running).get("ponos_connection_up", &[("role", "publish")]), 0.0);
    let health: serde_json::Value =
        serde_json::from_str(&get(addr(&running), "/healthz").await.body).unwrap();
    let link = serde_json::json!({"role": "publish", "up": false, "blocked": true, "reconnects": 3});
    assert_eq!(health["connections"][0], link);
    running.shutdown().await;
}

#[tokio::test]
async fn a_port_that_is_taken_or_no_address_is_told_before_anything_else_happens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap().to_string();
    let start = async |at: &str| {
        // Its declaration would never end.
        let broker = Faulty::slow_to_declare(0);
        let service = Service::<Unit>::new().task(work, |p| p).observe(Observe::at(at));
        service.start(Counter::default(), broker).await.map(drop).unwrap_err()
    };
    let error = start(&taken_at).await;
    assert!(matches!(error, StartError::Metrics { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&taken_at) && text.contains("PONOS_METRICS_ADDR"), "{text}");
    let error = start("localhost:9464").await;
    assert!(matches!(&error, StartError::Definition { problems, .. } if problems.len() == 1), "{error}");
}
